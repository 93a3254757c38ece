package oci

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

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
	d        *downloader
	l        *manifest.Layer
	off, end int64 // of what is still to come
	plain    bool  // the registry does not serve ranges as it should

	body   io.ReadCloser
	left   int64 // bytes of the answer that are to be read
	cuts   int   // in a row
	gained int64 // since the last
	odd    bool  // an answer was another than that to the question
	err    error // what the reading ended with
}

func (d *downloader) part(ctx context.Context, l *manifest.Layer, off, end int64) *part {
	return &part{ctx: ctx, d: d, l: l, off: off, end: end}
}

// Read implements [io.Reader]. After an error there is nothing more to read: a
// registry that refused is not asked again by whoever reads on.
func (p *part) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.read(b)
	p.err = err
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
			p.d.progress.emit(Event{Kind: Moved, Descriptor: p.l.Descriptor, Name: p.l.Title, Bytes: int64(n)})
		}
		if p.left == 0 || err != nil {
			p.Close()
		}
		if err != nil && p.left > 0 {
			err = p.cut(err)
		} else {
			err = nil
		}
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
	}
	return 0, io.EOF
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
		return fmt.Errorf("layer %s: %w", p.l.Title, err)
	}
	var wait time.Duration
	if p.cuts > 1 { // most are by chance, and alone
		wait = backOff(p.cuts-2, 0)
	}
	return p.wait(err, wait)
}

// wait waits before the registry is asked again.
func (p *part) wait(why error, wait time.Duration) error {
	d := p.l.Descriptor
	p.d.progress.emit(Event{Kind: Retried, Descriptor: d, Name: p.l.Title, Reason: reason(p.d.repo.Reference.Registry, why), Wait: wait})
	return p.d.pause(p.ctx, wait)
}

// open sends the request for what is still to come.
func (p *part) open() error {
	for {
		ranged := (p.off > 0 || p.end < p.l.Descriptor.Size) && !p.plain
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
	ctx := auth.AppendRepositoryScope(p.ctx, p.d.repo.Reference, auth.ActionPull)
	u := p.d.repo.home()
	u.Path = "/v2/" + p.d.repo.Reference.Repository + "/blobs/" + p.l.Descriptor.Digest.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.off, p.end-1))
	}
	return p.d.repo.Client.Do(req)
}

// accept makes the answer the body to be read, or says to ask again.
func (p *part) accept(resp *http.Response, ranged bool) (again bool, err error) {
	switch status := resp.StatusCode; {
	case status == http.StatusPartialContent && ranged:
		to, ok := contentRange(resp.Header.Get("Content-Range"), p.off, p.l.Descriptor.Size)
		if !ok {
			// It says that it sends something else than it was asked for:
			// whoever does not know what a range is may still know the whole.
			p.plain = true
			return true, nil
		}
		p.body, p.left = resp.Body, min(to, p.end)-p.off
		return false, nil
	case status == http.StatusRequestedRangeNotSatisfiable && ranged:
		p.plain = true
		return true, nil
	case status == http.StatusOK:
		if n := resp.ContentLength; n >= 0 && n != p.l.Descriptor.Size {
			return p.other(resp)
		}
		p.plain = p.plain || ranged
		if _, err := io.CopyN(io.Discard, resp.Body, p.off); err != nil {
			return true, p.cut(err)
		}
		p.body, p.left = resp.Body, p.end-p.off
		return false, nil
	case status == http.StatusNotFound:
		return false, fmt.Errorf("layer %s: %s: %w", p.l.Title, p.l.Descriptor.Digest, ErrNotFound)
	}
	return false, errorResponse(resp)
}

// other asks once more after an answer of another length than the blob's: it may
// be the page of a proxy. It says nothing of the bytes that came before.
func (p *part) other(resp *http.Response) (again bool, err error) {
	kind := ""
	if t := resp.Header.Get("Content-Type"); t != "" {
		kind = " of " + clean(t)
	}
	err = &answerError{resp.Request.URL.Host, resp.StatusCode, ErrCorrupt,
		fmt.Sprintf("answers with %d bytes%s instead of the %d bytes of layer %s", resp.ContentLength, kind, p.l.Descriptor.Size, p.l.Title), nil}
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
