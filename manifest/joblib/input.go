package joblib

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Limits of operands, in bytes.
const (
	inputSize = 64 << 10 // of the buffer; the longest operand that is kept
	maxLine   = inputSize - 1
	maxLong   = 64 << 10
	maxBlob   = 2 << 30 // of one counted string or run of bytes
)

// input reads a stream forward and knows where it is. Its errors are those of
// the source, which it keeps; the end is io.ErrUnexpectedEOF.
type input struct {
	src  io.Reader
	buf  []byte
	r, w int
	base int64 // the offset of buf[0]
	err  error
}

func newInput(src io.Reader) *input { return &input{src: src, buf: make([]byte, inputSize)} }

// newInputAfter reads src, of which the bytes in head were read before.
func newInputAfter(head []byte, src io.Reader) *input {
	in := newInput(src)
	in.w = copy(in.buf, head)
	return in
}

func (in *input) pos() int64 { return in.base + int64(in.r) }

// fill reads until n bytes can be taken, the source ends or breaks.
func (in *input) fill(n int) {
	if in.r > 0 && len(in.buf)-in.r < n {
		in.base += int64(in.r)
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for empty := 0; in.w-in.r < n && in.err == nil; {
		var m int
		m, in.err = in.src.Read(in.buf[in.w:])
		in.w += m
		if empty++; m > 0 {
			empty = 0
		} else if empty > 100 && in.err == nil {
			in.err = io.ErrNoProgress
		}
	}
}

// failure is why there are no more bytes.
func (in *input) failure() error {
	if errors.Is(in.err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return in.err
}

func (in *input) byte() (byte, error) {
	if in.r == in.w {
		if in.fill(1); in.r == in.w {
			return 0, in.failure()
		}
	}
	b := in.buf[in.r]
	in.r++
	return b, nil
}

// take returns the next n bytes, at most inputSize, until the next call.
func (in *input) take(n int) ([]byte, error) {
	if in.w-in.r < n {
		if in.fill(n); in.w-in.r < n {
			in.r = in.w
			return nil, in.failure()
		}
	}
	b := in.buf[in.r : in.r+n]
	in.r += n
	return b, nil
}

// line returns the bytes before the next newline, which it takes too; with an
// error what there is without one.
func (in *input) line() ([]byte, error) {
	for seen := 0; ; {
		if i := bytes.IndexByte(in.buf[in.r+seen:in.w], '\n'); i >= 0 {
			b := in.buf[in.r : in.r+seen+i]
			in.r += seen + i + 1
			return b, nil
		}
		seen = in.w - in.r
		if seen >= maxLine {
			return nil, &streamError{rule: RuleLimit, msg: fmt.Sprintf("a line of more than %d bytes", maxLine)}
		}
		if in.fill(seen + 1); in.w-in.r == seen {
			rest := in.buf[in.r:in.w]
			in.r = in.w
			return rest, in.failure()
		}
	}
}

// skip steps over n bytes, and shows them to see, if that is not nil.
func (in *input) skip(n int64, see func([]byte)) error {
	jump, ok := in.src.(skipper)
	for n > 0 {
		if in.r == in.w && ok && see == nil {
			jump.Skip(n)
			in.base += int64(in.w) + n
			in.r, in.w = 0, 0
			return nil
		}
		if in.r == in.w {
			in.base += int64(in.w)
			in.r, in.w = 0, 0
			if in.fill(1); in.r == in.w {
				return in.failure()
			}
		}
		m := int(min(n, int64(in.w-in.r)))
		if see != nil {
			see(in.buf[in.r : in.r+m])
		}
		in.r += m
		n -= int64(m)
	}
	return nil
}

// end is how many bytes the source had, of which rest were read by others.
func (in *input) end(rest int64) int64 {
	if s, ok := in.src.(skipper); ok {
		return s.Total()
	}
	return in.base + int64(in.w) + rest
}

// ahead returns what comes next without taking it: a buffer full, or all there
// is.
func (in *input) ahead() []byte {
	in.fill(len(in.buf))
	return in.buf[in.r:in.w]
}
