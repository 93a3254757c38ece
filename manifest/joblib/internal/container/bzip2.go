package container

import (
	"compress/bzip2"
	"errors"
	"io"
)

// What a bzip2 block and the end of a bzip2 stream begin with, 48 bits that are
// not aligned to bytes.
const (
	bzip2Block = 0x314159265359
	bzip2Final = 0x177245385090
	bzip2Magic = 6 // bytes of either
	bzip2Mask  = 1<<48 - 1
)

var errBzip2 = errors.New("no block where one has to begin")

// bzip2Stream keeps compress/bzip2, which reads concatenated streams, to the
// first one: it hands out the bytes up to the end of that and then io.EOF.
//
// It knows that end exactly, for two reasons. The decoder takes single bytes
// from an io.ByteReader, no more than it needs, so less than eight bits of the
// last one are left over. And a call of its Read returns bytes of one block
// only, hence what it consumes in one call always begins with the magic of a
// block or of the final part, at one of eight bit offsets; the two numbers are
// such that no seven bytes can hold both. The final part is followed by a
// checksum of four bytes and padding to a byte, ten bytes with the magic. If a
// call ever began otherwise, nothing would be read any more.
type bzip2Stream struct {
	src    *source
	dec    io.Reader
	header int    // bytes before the magic in this call
	begun  bool   // the first call is over
	taken  int    // bytes consumed in this call
	window uint64 // the last eight bytes
	end    int    // value of taken at which the stream ends; 0 if not in this call
}

func newBzip2(src *source) io.Reader {
	s := &bzip2Stream{src: src}
	s.dec = bzip2.NewReader(s)
	return s
}

// Read decodes.
func (s *bzip2Stream) Read(p []byte) (int, error) {
	s.taken, s.header = 0, 0
	if !s.begun {
		s.begun, s.header = true, len("BZh9")
	}
	n, err := s.dec.Read(p)
	if err != nil && err != io.EOF {
		return 0, err // of a block that is cut the decoder reads the rest as zeros
	}
	if err == io.EOF && (s.end == 0 || s.taken != s.end) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ReadByte is for the decoder, which does not call it again after an error.
func (s *bzip2Stream) ReadByte() (byte, error) {
	if s.end != 0 && s.taken == s.end {
		return 0, io.EOF
	}
	b, err := s.src.ReadByte()
	if err != nil {
		return 0, noEOF(err)
	}
	s.taken++
	s.window = s.window<<8 | uint64(b)
	if s.taken == s.header+bzip2Magic {
		if err := s.begins(); err != nil {
			return 0, err
		}
	}
	return b, nil
}

// begins looks at the magic that has just been read.
func (s *bzip2Stream) begins() error {
	const rest = 4 // the checksum and the padding
	offsets := 8
	if s.header > 0 {
		offsets = 1 // the first block begins at a byte
	}
	for i := range offsets {
		switch s.window >> i & bzip2Mask {
		case bzip2Block:
			return nil
		case bzip2Final:
			s.end = s.taken + rest
			return nil
		}
	}
	return errBzip2
}
