package container

import (
	"encoding/binary"
	"errors"
	"io"
)

var (
	errChunkProps = errors.New("invalid properties of an lzma2 chunk")
	errChunkSize  = errors.New("size of an lzma2 chunk is not the declared one")
)

// lzma2Chunks hands the LZMA2 data of an xz block to the library and looks at
// the chunk headers on the way, for two things the library lets pass: literal
// bits that liblzma refuses (see literalBits), and a chunk whose data ends
// before its declared size, where the library would go on with what it takes for
// a header. The latter shows because the library reads data byte by byte but
// headers in one piece, all but their first byte.
type lzma2Chunks struct {
	src   *source
	head  int64 // bytes of the header under way
	data  int64 // bytes of data behind it
	plain bool  // the data is stored, not compressed
	done  bool  // the end mark has been handed out
}

// Read is for the library, which asks for no more than it needs.
func (c *lzma2Chunks) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.head == 0 && c.data == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.head > 0 {
		n, err := c.src.Read(p[:min(int64(len(p)), c.head)])
		c.head -= int64(n)
		c.done = c.head == 0 && c.data == 0
		return n, noEOF(err)
	}
	if !c.plain && len(p) > 1 {
		return 0, errChunkSize
	}
	n, err := c.src.Read(p[:min(int64(len(p)), c.data)])
	c.data -= int64(n)
	return n, noEOF(err)
}

// next reads the header of the next chunk: a control byte, the size of what
// comes out less one, and for compressed data its size less one and perhaps
// the properties.
func (c *lzma2Chunks) next() error {
	const (
		compressed = 0x80
		properties = 0xc0
	)
	b, err := c.src.peek(1)
	if err != nil {
		return err
	}
	control := b[0]
	switch {
	case control == 0:
		c.head, c.data = 1, 0
		return nil
	case control < compressed:
		c.head = 3
	case control < properties:
		c.head = 5
	default:
		c.head = 6
	}
	if b, err = c.src.peek(int(c.head)); err != nil {
		return err
	}
	c.plain = control < compressed
	if c.plain {
		c.data = int64(binary.BigEndian.Uint16(b[1:])) + 1
		return nil
	}
	c.data = int64(binary.BigEndian.Uint16(b[3:])) + 1
	if control >= properties && !literalBits(b[5]) {
		return errChunkProps
	}
	return nil
}
