package joblib

import "io"

// Stream inspects what is written to it, so that reading a file for another
// reason is enough. Writes come from one goroutine at a time; the walk has one
// of its own, which ends with Close.
type Stream struct {
	w      *io.PipeWriter
	done   chan struct{}
	report *Report
	err    error
}

// NewStream starts an inspection. It has to be closed.
func NewStream(o Options) *Stream {
	r, w := io.Pipe()
	s := &Stream{w: w, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.report, s.err = Inspect(r, o)
		r.CloseWithError(s.err)
	}()
	return s
}

// Write takes the next bytes of the file. It does not fail.
func (s *Stream) Write(p []byte) (int, error) { return s.w.Write(p) }

// Close says that the file ends here, or with cause that the rest of it could
// not be read, which is then the error.
func (s *Stream) Close(cause error) (*Report, error) {
	s.w.CloseWithError(cause)
	<-s.done
	return s.report, s.err
}
