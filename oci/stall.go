package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// defaultStall is how long a connection may be silent.
const defaultStall = 30 * time.Second

type answerTimeKey struct{}

// withAnswerTime gives the registry so much more time for its answer to what
// was written.
func withAnswerTime(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, answerTimeKey{}, d)
}

// stallError is a connection on which nothing moves.
type stallError struct{ silent time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("no byte went either way for %v", e.silent)
}

// Timeout makes it an error like those of a network that is too slow.
func (*stallError) Timeout() bool { return true }

// Temporary completes [net.Error].
func (*stallError) Temporary() bool { return true }

// stallGuard ends requests of which, while the connection is to move it, no
// byte moves. Time that goes by in the reader of a body, or before the reader
// of an answer asks for more, does not count.
type stallGuard struct {
	base   http.RoundTripper
	silent time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (g stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{silent: g.silent, stall: func(silent time.Duration) { cancel(&stallError{silent}) }}
	more, _ := req.Context().Value(answerTimeKey{}).(time.Duration)
	answer := g.silent + more
	out := req.WithContext(ctx)
	if req.Body == nil || req.Body == http.NoBody {
		w.wait(answer)
	} else {
		w.wait(g.silent)
		out.Body = &watchedRequest{req.Body, w, answer}
		if req.GetBody != nil {
			out.GetBody = func() (io.ReadCloser, error) {
				body, err := req.GetBody()
				if err != nil {
					return nil, err
				}
				return &watchedRequest{body, w, answer}, nil
			}
		}
	}
	resp, err := g.base.RoundTrip(out)
	w.answered()
	if err != nil {
		cancel(nil)
		return nil, stalled(ctx, err)
	}
	resp.Request = req
	resp.Body = &watchedAnswer{resp.Body, ctx, w, cancel}
	return resp, nil
}

// stalled is err, or the stall that caused it.
func stalled(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*stallError](context.Cause(ctx)); ok {
		return e
	}
	return err
}

// watch is the clock of one request.
type watch struct {
	silent time.Duration
	stall  func(silent time.Duration)

	mu    sync.Mutex
	timer *time.Timer
	over  bool // the answer came: what is left of the request's body no longer matters
}

// wait starts the clock anew.
func (w *watch) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restart(d)
}

func (w *watch) restart(d time.Duration) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(d, func() { w.stall(d) })
}

// stop stops the clock.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

// sending stops the clock, or starts it, while the request is sent.
func (w *watch) sending(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case d == 0:
		w.timer.Stop()
	default:
		w.restart(d)
	}
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// watchedRequest is a body that is sent.
type watchedRequest struct {
	io.ReadCloser
	w      *watch
	answer time.Duration // to wait for after its end
}

func (b *watchedRequest) Read(p []byte) (int, error) {
	b.w.sending(0)
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.w.sending(b.answer)
	} else {
		b.w.sending(b.w.silent)
	}
	return n, err
}

// WriteTo implements [io.WriterTo], which net/http asks for where a body has no
// length: each piece is then a chunk, and those of net/http are small.
func (b *watchedRequest) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{b}, make([]byte, 128<<10))
}

// watchedAnswer is a body that is received.
type watchedAnswer struct {
	io.ReadCloser
	ctx    context.Context
	w      *watch
	cancel context.CancelCauseFunc
}

func (b *watchedAnswer) Read(p []byte) (int, error) {
	b.w.wait(b.w.silent)
	n, err := b.ReadCloser.Read(p)
	b.w.stop()
	if err != nil && err != io.EOF {
		err = stalled(b.ctx, err)
	}
	return n, err
}

func (b *watchedAnswer) Close() error {
	b.w.stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
