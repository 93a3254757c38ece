package oci

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

const (
	// maxCuts is how many cuts in a row, with less than cutGain bytes between
	// them, end a download.
	maxCuts = 4
	cutGain = 1 << 20
)

// part is a range of a blob in a registry. A connection that is cut is opened
// again for the rest; what a digest names does not change meanwhile, so there is
// no need of If-Range.
type part struct {
	ctx      context.Context
	repo     *repository
	desc     v1.Descriptor
	title    string   // what people call it, or empty
	progress Progress // of what moves, and of waiting
	pause    func(context.Context, time.Duration) error
	off, end int64 // of what is still to come
	plain    bool  // the registry does not serve ranges as it should

	body    io.ReadCloser
	left    int64 // bytes of the answer that are to be read
	unsized bool  // the answer does not say how many it has
	doubted bool  // such an answer ended early: it may have been something else
	cuts    int   // in a row
	gained  int64 // since the last
	odd     bool  // an answer was another than that to the question
	err     error // what the reading ended with
}

// Read implements [io.Reader]. After an error there is nothing more to read: a
// registry that refused is not asked again by whoever reads on.
func (p *part) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.read(b)
	if err != io.EOF { // after which one may still seek
		p.err = err
	}
	return n, err
}

func (p *part) read(b []byte) (int, error) {
	for p.off < p.end {
		if p.body == nil {
			if err := p.open(); err != nil {
				return 0, err
			}
		}
		n, err := p.body.Read(b[:min(int64(len(b)), p.left)])
		p.off, p.left, p.gained = p.off+int64(n), p.left-int64(n), p.gained+int64(n)
		if n > 0 {
			p.progress.emit(Event{Kind: Moved, Descriptor: p.desc, Name: p.title, Bytes: int64(n)})
		}
		switch {
		case p.left == 0:
			err = p.ended(err)
			p.Close()
		case err != nil:
			p.Close()
			p.doubted = p.doubted || p.unsized && err == io.EOF
			err = p.cut(err)
		}
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
	}
	return 0, io.EOF
}

// ended looks behind the last byte of an answer that does not say how many it
// has, and of which the last Read returned err: what is longer than the blob is
// not the blob. What is shorter may be the blob, cut before a proxy that ends it as
// if that were all: it counts as cut, and as doubted.
func (p *part) ended(err error) error {
	if !p.unsized || p.end < p.desc.Size {
		return nil
	}
	for err == nil {
		var n int
		if n, err = p.body.Read(make([]byte, 1)); n > 0 {
			return &manifest.CorruptError{What: p.what(), Want: p.desc.Digest.String(), Got: fmt.Sprintf("more than %d bytes", p.desc.Size)}
		}
	}
	return nil
}

// Seek implements [io.Seeker]. The next Read asks for what comes there.
func (p *part) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.off
	case io.SeekEnd:
		offset += p.end
	}
	if offset < 0 || offset > p.end {
		return 0, fmt.Errorf("seek to %d in the %d bytes of %s", offset, p.end, p.what())
	}
	if offset != p.off {
		p.Close()
		p.off = offset
	}
	return offset, nil
}

// Close ends the request, if one is under way.
func (p *part) Close() error {
	if p.body == nil {
		return nil
	}
	err := p.body.Close()
	p.body = nil
	return err
}

// what names the blob.
func (p *part) what() string {
	if p.title == "" {
		return whatIs(p.desc)
	}
	return "layer " + p.title
}

// about names the layer in an error; a blob without title its reader can name.
func (p *part) about(err error) error {
	if p.title == "" {
		return err
	}
	return fmt.Errorf("layer %s: %w", p.title, err)
}

// cut decides whether to ask again after the body of an answer ended with err,
// and waits before. It returns nil, or what the reading ends with.
func (p *part) cut(err error) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if p.gained >= cutGain {
		p.cuts = 0
	}
	p.cuts++
	p.gained = 0
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if p.cuts > maxCuts {
		return p.about(err)
	}
	var wait time.Duration
	if p.cuts > 1 { // most are by chance, and alone
		wait = backOff(p.cuts-2, 0)
	}
	return p.wait(err, wait)
}

// wait waits before the registry is asked again.
func (p *part) wait(why error, wait time.Duration) error {
	p.progress.emit(Event{Kind: Retried, Descriptor: p.desc, Name: p.title, Reason: reason(p.repo.Reference.Registry, why), Wait: wait})
	return p.pause(p.ctx, wait)
}

// open sends the request for what is still to come.
func (p *part) open() error {
	for {
		ranged := (p.off > 0 || p.end < p.desc.Size) && !p.plain
		resp, err := p.send(ranged)
		if err != nil {
			return err
		}
		again, err := p.accept(resp, ranged)
		if err == nil && !again {
			return nil
		}
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
}

func (p *part) send(ranged bool) (*http.Response, error) {
	req, err := p.repo.blobRequest(p.ctx, http.MethodGet, p.desc)
	if err != nil {
		return nil, err
	}
	if ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.off, p.end-1))
	}
	return p.repo.Client.Do(req)
}

// accept makes the answer the body to be read, or says to ask again.
func (p *part) accept(resp *http.Response, ranged bool) (again bool, err error) {
	switch status := resp.StatusCode; {
	case status == http.StatusPartialContent && ranged:
		to, ok := contentRange(resp.Header.Get("Content-Range"), p.off, p.desc.Size)
		if !ok {
			// It says that it sends something else than it was asked for:
			// whoever does not know what a range is may still know the whole.
			p.plain = true
			return true, nil
		}
		p.body, p.left, p.unsized = resp.Body, min(to, p.end)-p.off, false
		return false, nil
	case status == http.StatusRequestedRangeNotSatisfiable && ranged:
		p.plain = true
		return true, nil
	case status == http.StatusOK:
		mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		p.unsized = resp.ContentLength < 0
		if !p.unsized && resp.ContentLength != p.desc.Size || p.unsized && isHTML(mediaType) {
			return p.other(resp)
		}
		p.plain = p.plain || ranged
		if _, err := io.CopyN(io.Discard, resp.Body, p.off); err != nil {
			return true, p.cut(err)
		}
		p.body, p.left = resp.Body, p.end-p.off
		return false, nil
	case status == http.StatusNotFound:
		return false, p.about(fmt.Errorf("%s: %w", p.desc.Digest, ErrNotFound))
	}
	return false, errorResponse(resp)
}

// other asks once more after an answer of another length than the blob's, or a web
// page of unknown length: it may be that of a proxy. It says nothing of the bytes
// that came before.
func (p *part) other(resp *http.Response) (again bool, err error) {
	got := fmt.Sprintf("%d bytes", resp.ContentLength)
	if p.unsized {
		got = "a page"
	}
	if t := resp.Header.Get("Content-Type"); t != "" {
		got += " of " + clean(t)
	}
	err = &answerError{resp.Request.URL.Host, resp.StatusCode, ErrCorrupt,
		fmt.Sprintf("answers with %s instead of the %d bytes of %s", got, p.desc.Size, p.what()), nil}
	if p.odd {
		return false, err
	}
	p.odd = true
	return true, p.wait(err, backOff(0, 0))
}

// contentRange reads the header of RFC 9110, section 14.4, of an answer that has
// to begin at off of size bytes. It returns where the answer ends.
func contentRange(header string, off, size int64) (end int64, ok bool) {
	unit, rest, _ := strings.Cut(header, " ")
	span, total, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	to, lerr := strconv.ParseInt(last, 10, 64)
	ok = strings.EqualFold(unit, "bytes") && err == nil && lerr == nil && from == off && to >= from && to < size &&
		(total == "*" || total == strconv.FormatInt(size, 10))
	return to + 1, ok
}
