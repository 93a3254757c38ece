package container

import (
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/ulikunitz/xz/lzma"
)

var errAlone = errors.New("no lzma header")

// aloneStream is a stream in the older container: a header of 13 bytes and no
// checksum.
type aloneStream struct {
	dec   *lzma.Reader
	sized bool // the header declares the size, so there may be no end mark
}

// newAlone opens an lzma file. The dictionary is allocated at once, so the
// header is read before the library sees it.
func newAlone(src *source, maxDictionary int64) (io.Reader, error) {
	head, err := src.peek(lzma.HeaderLen)
	if err != nil {
		return nil, err
	}
	if d := int64(binary.LittleEndian.Uint32(head[1:])); d > maxDictionary {
		return nil, &LimitError{What: "dictionary", Got: d, Max: maxDictionary}
	}
	if !aloneHeader(head) {
		return nil, errAlone
	}
	sized := binary.LittleEndian.Uint64(head[5:]) != math.MaxUint64
	dec, err := lzma.NewReader(src.Reader)
	if err != nil {
		return nil, err
	}
	return &aloneStream{dec, sized}, nil
}

// Read decodes.
func (s *aloneStream) Read(p []byte) (int, error) {
	n, err := s.dec.Read(p)
	if err == io.EOF && !s.sized && !s.dec.EOSMarker() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// aloneHeader reports whether liblzma, and so Python's lzma module with its
// automatic format, would take head for the header of an lzma file: the format
// has no magic, so liblzma insists on dictionaries of 2^n or 2^n + 2^(n-1) bytes
// and less than 256 GiB (src/liblzma/common/alone_decoder.c, "picky").
func aloneHeader(head []byte) bool {
	if len(head) < lzma.HeaderLen || !literalBits(head[0]) {
		return false
	}
	if d := binary.LittleEndian.Uint32(head[1:]); d != math.MaxUint32 {
		up := d - 1
		for _, n := range [...]int{2, 3, 4, 8, 16} {
			up |= up >> n
		}
		if up+1 != d {
			return false
		}
	}
	size := binary.LittleEndian.Uint64(head[5:])
	return size == math.MaxUint64 || size < 1<<38
}

// literalBits reports whether the properties byte is one that liblzma takes:
// lc + lp at most 4. The library's limit is 12, where the decoder's state is
// 6 MiB and is made anew by every chunk that says so.
func literalBits(props byte) bool {
	lc, lp := props%9, props/9%5
	return props < 9*5*5 && lc+lp <= 4
}
