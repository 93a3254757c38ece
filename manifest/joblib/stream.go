package joblib

import (
	"errors"
	"io"
	"math"
	"sync"
)

// Stream inspects what is written to it, so that reading a file for another
// reason is enough. Writes come from one goroutine at a time; the walk has one
// of its own, which ends with Close. The bytes of arrays, which are most of a
// model, are not handed over at all.
type Stream struct {
	pipe   *handover
	done   chan struct{}
	report *Report
	err    error
}

// NewStream starts an inspection. It has to be closed.
func NewStream(o Options) *Stream {
	s := &Stream{pipe: newHandover(), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.report, s.err = Inspect(s.pipe, o)
		s.pipe.abandon()
	}()
	return s
}

// Write takes the next bytes of the file. It does not fail.
func (s *Stream) Write(p []byte) (int, error) {
	s.pipe.write(p)
	return len(p), nil
}

// Close says that the file ends here, or with cause that the rest of it could
// not be read, which is then the error.
func (s *Stream) Close(cause error) (*Report, error) {
	s.pipe.close(cause)
	<-s.done
	return s.report, s.err
}

// handover passes bytes from one goroutine to another without keeping them. In
// contrast to io.Pipe its reader can skip.
type handover struct {
	mu     sync.Mutex
	moved  sync.Cond // there is something to read, nothing left of it, or the end
	data   []byte    // what is being written, as far as it is not read
	total  int64     // bytes that were written
	skip   int64     // bytes to be dropped before the next are handed over
	err    error     // of the end
	closed bool      // nothing comes any more
	gone   bool      // nobody reads any more
}

func newHandover() *handover {
	h := &handover{}
	h.moved.L = &h.mu
	return h
}

// drop takes what is to be skipped off the data.
func (h *handover) drop() {
	n := min(h.skip, int64(len(h.data)))
	h.skip -= n
	h.data = h.data[n:]
}

// write returns when all of p is read or dropped.
func (h *handover) write(p []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.data = p
	h.total += int64(len(p))
	h.drop()
	if len(h.data) > 0 {
		h.moved.Broadcast()
	}
	for len(h.data) > 0 && !h.gone {
		h.moved.Wait()
	}
	h.data = nil
}

// Read waits for the next bytes.
func (h *handover) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.data) == 0 && !h.closed {
		h.moved.Wait()
	}
	if len(h.data) == 0 {
		return 0, h.err
	}
	n := copy(p, h.data)
	if h.data = h.data[n:]; len(h.data) == 0 {
		h.moved.Broadcast()
	}
	return n, nil
}

// Skip drops the next n bytes without waiting for them. Where there are fewer,
// reading ends.
func (h *handover) Skip(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.skip += min(n, math.MaxInt64-h.skip)
	if h.drop(); len(h.data) == 0 {
		h.moved.Broadcast()
	}
}

// Total is how many bytes there have been.
func (h *handover) Total() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}

func (h *handover) close(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.err = true, cause
	if cause == nil {
		h.err = io.EOF
	}
	h.moved.Broadcast()
}

func (h *handover) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	h.moved.Broadcast()
}

// skipper is a source that steps over bytes by itself, and counts them.
type skipper interface {
	Skip(n int64)
	Total() int64
}

// drain reads what is left of r and says how much it was, unless r counts.
func drain(r io.Reader) (int64, error) {
	s, ok := r.(skipper)
	if !ok {
		return io.Copy(io.Discard, r)
	}
	s.Skip(math.MaxInt64)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return 0, err
	}
	return 0, nil
}
