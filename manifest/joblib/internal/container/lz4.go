package container

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Flags of the descriptor of an lz4 frame.
const (
	lz4Dictionary      = 1 << 0
	lz4ContentChecksum = 1 << 2
	lz4ContentSize     = 1 << 3
	lz4BlockChecksum   = 1 << 4
)

const lz4Magic = 0x184d2204

var errLZ4 = errors.New("no lz4 frame")

// lz4Frame keeps the library, which reads concatenated frames and passes over
// skippable ones, to the first frame: it hands out the bytes of that and then
// io.EOF. A frame says itself where each of its parts ends.
type lz4Frame struct {
	src   *source
	dec   *lz4.Reader
	flags byte
	left  int64 // bytes of the current part
	begun bool
	done  bool // the current part is the last
}

// newLZ4 opens the first frame of an lz4 file.
func newLZ4(src *source) (io.Reader, error) {
	f := &lz4Frame{src: src}
	f.dec = lz4.NewReader(frameBytes{f})
	return f, f.dec.Apply(lz4.ConcurrencyOption(1))
}

// Read decodes.
func (f *lz4Frame) Read(p []byte) (int, error) {
	n, err := f.dec.Read(p)
	if err == io.EOF && !(f.done && f.left == 0) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// frameBytes is the compressed bytes of the frame.
type frameBytes struct{ f *lz4Frame }

func (b frameBytes) Read(p []byte) (int, error) {
	f := b.f
	if f.left == 0 {
		if f.done {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.src.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, noEOF(err)
}

// next measures the part that begins here: the descriptor, a block, or the end
// mark.
func (f *lz4Frame) next() error {
	const size = 4 // of the magic, of a block's size and of every checksum
	if !f.begun {
		head, err := f.src.peek(size + 1)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(head) != lz4Magic {
			return errLZ4
		}
		f.begun, f.flags = true, head[size]
		f.left = size + 3 // two bytes of flags, one of checksum
		if f.flags&lz4ContentSize != 0 {
			f.left += 8
		}
		if f.flags&lz4Dictionary != 0 {
			f.left += 4
		}
		return nil
	}
	head, err := f.src.peek(size)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head)
	f.left = size + int64(n&0x7fffffff) // the high bit: stored, not compressed
	switch {
	case n == 0:
		f.done = true
		if f.flags&lz4ContentChecksum != 0 {
			f.left += size
		}
	case f.flags&lz4BlockChecksum != 0:
		f.left += size
	}
	return nil
}
