package oci

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

const (
	// defaultAhead is the size in bytes of files from which it is worth a wrong
	// guess to send them before it is known what they are: to read them takes
	// as long as a few requests.
	defaultAhead = 256 << 20
	// aheadWait bounds how long the packing waits for a registry, all in all, before
	// it goes on without it: what is in the model should show before it has been sent
	// for an hour.
	aheadWait = 10 * time.Second
	// slowLine is what a line has to carry, in bytes a second, to be waited for
	// longer. Over a slower one the packing is a small part of the push, and no more
	// than that is to be saved.
	slowLine = 25e6
	// lastWait is what the registry gets for its answer to an upload that is given
	// up: after that it can let go of it.
	lastWait = 2 * time.Second
)

// errNotAhead says that a layer had better not be sent before it is known.
var errNotAhead = errors.New("nothing is sent ahead")

// stream is a layer on its way to a registry while it is packed, as docker sends
// its layers: one PATCH without a length or a digest. Whatever goes wrong with it
// is no error of the packing or the push, for which the layer is then sent as any
// other. It implements [manifest.Stream].
type stream struct {
	u        *upload // that has a session, and no digest
	progress Progress
	giveUp   func()             // has it end with what was sent, and no request begin
	stop     context.CancelFunc // ends the request that is under way
	pipe     *io.PipeWriter
	patience time.Duration // how long the packing still waits; of Write
	ended    chan struct{} // closed when no request is under way
	err      error         // why the registry does not have all of it; after ended
	moved    atomic.Int64  // bytes that were read to be sent

	layer v1.Descriptor // after the packing; empty if it failed
}

// Ahead returns what [manifest.PackOptions] has of that name: large layers are
// sent while they are packed to a registry that says it has none of the tags,
// unless the rules forbid one; on a slow line only their beginnings, so that the
// packing does not wait for it. [Push] goes on with what was sent so, and Close
// takes back the rest. progress is told of [Ahead] events.
func (l *Lookup) Ahead(rules TagRules, progress Progress) func(title string, size int64) manifest.Stream {
	if l == nil {
		return nil
	}
	repo, ok := l.t.(*repository)
	if !ok {
		return nil
	}
	return func(title string, size int64) manifest.Stream {
		if host := repo.Reference.Registry; size <= repo.c.ahead || repo.c.has(host, noChunks) {
			return nil
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(l.ctx))
		opening, opened := context.WithCancel(Once(l.ctx))
		r, w := io.Pipe()
		d := v1.Descriptor{Size: size, Annotations: map[string]string{v1.AnnotationTitle: title}}
		s := &stream{
			u:        &upload{blob: blob{Descriptor: d}, r: repo, host: repo.Reference.Registry},
			progress: progress, stop: stop, pipe: w, ended: make(chan struct{}), patience: aheadWait,
		}
		// What is cut short ends as if it were whole. Registries that are still
		// at it do not let go of it, nor tell how far it is.
		s.giveUp = func() { w.Close(); opened() }
		l.mu.Lock()
		l.streams = append(l.streams, s)
		l.mu.Unlock()
		unhook := context.AfterFunc(l.ctx, s.giveUp)
		go func() {
			defer close(s.ended)
			defer unhook()
			if s.err = l.mayStream(opening, rules, s); s.err == nil {
				s.err = s.send(ctx, r)
			}
			r.CloseWithError(errNotAhead)
		}()
		return s
	}
}

// mayStream opens a session where all tags are free.
func (l *Lookup) mayStream(ctx context.Context, rules TagRules, s *stream) error {
	select {
	case <-l.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if l.err != nil || len(l.have) > 0 {
		return errNotAhead
	}
	if err := rules.CheckMoves(ctx, l.t, l.tags, nil, digest.FromString("what is not known yet")); err != nil {
		return err
	}
	return s.u.openSession(ctx)
}

// send sends what is packed.
func (s *stream) send(ctx context.Context, packed io.Reader) error {
	ctx = withAnswerTime(withoutRetry(ctx), s.u.answerTime())
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, s.u.session.String(), &streamBody{packed, s})
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := s.u.roundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return s.u.took(resp, s.moved.Load())
}

// streamBody counts what goes out.
type streamBody struct {
	io.Reader
	s *stream
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.s.moved.Add(int64(n))
	b.s.progress.emit(Event{Kind: Ahead, Descriptor: b.s.u.Descriptor, Name: b.s.u.Annotations[v1.AnnotationTitle], Bytes: int64(n)})
	return n, err
}

// Write implements [manifest.Stream].
func (s *stream) Write(p []byte) (int, error) {
	start := time.Now()
	defer time.AfterFunc(s.patience, s.giveUp).Stop()
	n, err := s.pipe.Write(p)
	s.patience += time.Duration(n)*time.Second/slowLine - time.Since(start)
	return n, err
}

// End implements [manifest.Stream].
func (s *stream) End(layer v1.Descriptor, err error) {
	if err == nil {
		s.layer = layer
	}
	s.giveUp()
}

// end waits for the answer to what was sent, and not for long after ctx is done.
func (s *stream) end(ctx context.Context) {
	s.giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWait, s.stop) })()
	<-s.ended
	s.stop()
}

// take returns the stream of the blob, or nil, and leaves it to the caller.
func (l *Lookup) take(d v1.Descriptor) *stream {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.streams {
		if s.layer.Digest == d.Digest {
			l.streams = slices.Delete(l.streams, i, i+1)
			return s
		}
	}
	return nil
}

// Close ends what was sent ahead and not gone on with, and has the registry let
// go of it, within seconds.
func (l *Lookup) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	over, stop := context.WithCancel(l.ctx)
	stop()
	var ending sync.WaitGroup
	for _, s := range l.streams {
		ending.Go(func() {
			s.end(over)
			s.u.cancel(l.ctx, s.u.session)
		})
	}
	ending.Wait()
	l.streams = nil
}

// adopt goes on with what was sent of the blob while it was packed, and reports
// whether there is any. If there is not, its session is given up.
func (u *upload) adopt(ctx context.Context) bool {
	s := u.ahead
	if s == nil {
		return false
	}
	s.end(ctx)
	if s.u.session == nil {
		return false
	}
	u.session, s.u.session = s.u.session, nil // it is gone on with once
	signed := u.session.Query().Has(signedOffset)
	_, refused := errors.AsType[*refusal](s.err)
	switch {
	case s.err == nil && s.moved.Load() > 0: // as the registry says
		u.offset = s.moved.Load()
		u.whole = u.offset == u.Size
	case refused || signed || !u.ask(ctx) || u.offset == 0:
		u.cancel(ctx, u.session)
		return false
	}
	u.inParts = true
	if !signed && u.claim(ctx) {
		u.keep()
	}
	return true
}
