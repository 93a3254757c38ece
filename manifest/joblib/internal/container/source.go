package container

import (
	"bufio"
	"io"
)

// bufferSize is what is read ahead, and the unit in which Finish drains.
const bufferSize = 32 << 10

// source is the compressed bytes. Decoders take single bytes from its buffer
// and so stop exactly behind their member. A *bufio.Reader stands inside, not
// behind an interface, because that is what flate is fast on.
type source struct {
	*bufio.Reader
	tap *tap
	cut bool // peek met the end of the input
}

// tap is the reader below: it counts, and remembers its error so that a decoder
// cannot pass it off as damage.
type tap struct {
	r    io.Reader
	n    int64
	err  error // sticky, io.EOF too
	busy bool  // inside r
}

func newSource(r *bufio.Reader) *source {
	t := &tap{r: r}
	return &source{Reader: bufio.NewReaderSize(t, bufferSize), tap: t}
}

// maxIdle is how often in a row the reader below may return nothing, as in
// bufio.
const maxIdle = 100

func (t *tap) Read(p []byte) (n int, err error) {
	if t.err != nil {
		return 0, t.err
	}
	for range maxIdle {
		t.busy = true
		n, err = t.r.Read(p)
		t.busy = false
		t.n += int64(n)
		t.err = err
		if n > 0 || err != nil {
			return n, err
		}
	}
	t.err = io.ErrNoProgress
	return 0, t.err
}

// offset is how many bytes the decoder has consumed.
func (s *source) offset() int64 { return s.tap.n - int64(s.Buffered()) }

// isCut reports whether a decoder has met the end of the input.
func (s *source) isCut() bool { return s.cut || s.tap.err == io.EOF && s.Buffered() == 0 }

// full fills p; the end of the input is unexpected.
func (s *source) full(p []byte) error {
	_, err := io.ReadFull(s, p)
	return noEOF(err)
}

// peek returns the next n bytes without consuming them, n at most bufferSize;
// the end of the input is unexpected.
func (s *source) peek(n int) ([]byte, error) {
	p, err := s.Peek(n)
	s.cut = err == io.EOF
	return p, noEOF(err)
}

// noEOF is for places where the end of the input must not come.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
