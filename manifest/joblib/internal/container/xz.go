package container

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"slices"

	"github.com/ulikunitz/xz/lzma"
)

const xzMagic = "\xfd7zXZ\x00"

// xzStream reads one xz stream. The frame around the LZMA2 data is read here,
// not by the library's xz package, for three reasons: that package allocates
// whatever dictionary a block declares, it keeps a record of every block, and
// it takes LZMA2 data that breaks off inside a chunk's first bytes for
// complete. Sections are those of the xz file format 1.2.1.
type xzStream struct {
	src     *source
	maxDict int64
	flags   [2]byte   // of the stream, section 2.1.1.2
	check   hash.Hash // nil if blocks have no check

	block     *lzma.Reader2 // nil between blocks
	chunks    *lzma2Chunks
	headerLen int64
	dataStart int64
	packed    int64 // declared sizes; -1 if they are not
	unpacked  int64
	produced  int64 // by this block

	blocks uint64
	dicts  int64     // dictionaries allocated so far
	total  int64     // produced by all blocks before
	index  hash.Hash // over the sizes of all blocks, to be held against the index
}

var (
	errXZHeader = errors.New("invalid xz stream header")
	errXZBlock  = errors.New("invalid xz block header")
	errXZSize   = errors.New("size of an xz block is not the declared one")
	errXZCheck  = errors.New("checksum of an xz block does not match")
	errXZIndex  = errors.New("xz index does not match the blocks")
	errXZFooter = errors.New("invalid xz stream footer")
	errXZInt    = errors.New("invalid integer in an xz index")
)

// newXZ reads the stream header and the first block header.
func newXZ(src *source, maxDictionary int64) (io.Reader, error) {
	const headerSize = 12
	x := &xzStream{src: src, maxDict: maxDictionary, index: sha256.New()}
	var head [headerSize]byte
	if err := src.full(head[:]); err != nil {
		return nil, err
	}
	if string(head[:6]) != xzMagic || crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, errXZHeader
	}
	x.flags = [2]byte(head[6:8])
	switch x.flags {
	case [2]byte{0, 0}:
	case [2]byte{0, 1}:
		x.check = crc32.NewIEEE()
	case [2]byte{0, 4}:
		x.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case [2]byte{0, 10}:
		x.check = sha256.New()
	default:
		return nil, fmt.Errorf("xz stream flags %#x: %w", x.flags, errors.ErrUnsupported)
	}
	if err := x.next(); err != nil && err != io.EOF {
		return nil, err
	}
	return x, nil
}

// Read decodes.
func (x *xzStream) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			return 0, io.EOF
		}
		n, err := x.block.Read(p)
		x.produced += int64(n)
		if x.check != nil {
			x.check.Write(p[:n])
		}
		if x.unpacked >= 0 && x.produced > x.unpacked {
			return n, errXZSize
		}
		if err == io.EOF {
			if err = x.endBlock(); err == nil {
				err = x.next()
			}
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next block. If there is none it verifies the rest of the
// stream and returns io.EOF.
func (x *xzStream) next() error {
	x.block = nil
	size, err := x.src.peek(1)
	if err != nil {
		return err
	}
	if size[0] == 0 {
		if err := x.end(); err != nil {
			return err
		}
		return io.EOF
	}
	x.headerLen = (int64(size[0]) + 1) * 4
	head := make([]byte, x.headerLen)
	if err := x.src.full(head); err != nil {
		return err
	}
	dict, err := x.blockHeader(head)
	if err != nil {
		return err
	}
	// A dictionary is made for every block, and cleared: a file of nothing
	// but small blocks that declare large ones would keep the machine busy
	// for a minute per megabyte.
	x.dicts += dict
	if over := x.dicts - x.total; x.blocks > 0 && over > x.maxDict {
		return &LimitError{What: "dictionaries of small xz blocks", Got: over, Max: x.maxDict}
	}
	x.dataStart, x.produced = x.src.offset(), 0
	x.chunks = &lzma2Chunks{src: x.src}
	if x.check != nil {
		x.check.Reset()
	}
	x.block, err = lzma.Reader2Config{DictCap: int(dict)}.NewReader2(x.chunks)
	return err
}

// blockHeader reads section 3.1 and returns the size of the dictionary to
// allocate.
func (x *xzStream) blockHeader(head []byte) (int64, error) {
	const (
		filters  = 0x03
		reserved = 0x3c
		packed   = 0x40
		unpacked = 0x80
		lzma2    = 0x21
		minDict  = 4096
	)
	body := len(head) - crc32.Size
	if crc32.ChecksumIEEE(head[:body]) != binary.LittleEndian.Uint32(head[body:]) || head[1]&reserved != 0 {
		return 0, errXZBlock
	}
	r := bytes.NewReader(head[2:body])
	var err error
	x.packed, x.unpacked = -1, -1
	if head[1]&packed != 0 {
		x.packed, err = xzInt(r)
	}
	if err == nil && head[1]&unpacked != 0 {
		x.unpacked, err = xzInt(r)
	}
	if err != nil {
		return 0, errXZBlock
	}
	var filter [3]byte // its number, the size of its properties, its properties
	if _, err := io.ReadFull(r, filter[:]); err != nil {
		return 0, errXZBlock
	}
	if head[1]&filters != 0 || filter[0] != lzma2 || filter[1] != 1 {
		return 0, fmt.Errorf("xz filter %#x: %w", filter[0], errors.ErrUnsupported)
	}
	dict, err := lzma.DecodeDictCap(filter[2])
	if err != nil || len(bytes.Trim(head[body-r.Len():body], "\x00")) > 0 {
		return 0, errXZBlock
	}
	if dict > x.maxDict {
		return 0, &LimitError{What: "dictionary", Got: dict, Max: x.maxDict}
	}
	if x.unpacked >= 0 {
		dict = min(dict, max(x.unpacked, minDict))
	}
	return dict, nil
}

// endBlock verifies what follows the data of a block: sections 3.2 to 3.4.
func (x *xzStream) endBlock() error {
	if !x.block.EOS() || !x.chunks.done {
		return errChunkSize
	}
	packed := x.src.offset() - x.dataStart
	if x.packed >= 0 && x.packed != packed || x.unpacked >= 0 && x.unpacked != x.produced {
		return errXZSize
	}
	if err := x.padding(packed); err != nil {
		return err
	}
	unpadded := x.headerLen + packed
	if x.check != nil {
		got := make([]byte, x.check.Size())
		if err := x.src.full(got); err != nil {
			return err
		}
		want := x.check.Sum(nil)
		if x.check.Size() < sha256.Size { // the CRCs are little-endian, section 1.1
			slices.Reverse(want)
		}
		if !bytes.Equal(got, want) {
			return errXZCheck
		}
		unpadded += int64(len(got))
	}
	record(x.index, unpadded, x.produced)
	x.blocks++
	x.total += x.produced
	return nil
}

// padding reads zeros up to a multiple of four bytes, of which n are read.
func (x *xzStream) padding(n int64) error {
	var zeros [3]byte
	pad := zeros[:-n&3]
	if err := x.src.full(pad); err != nil {
		return err
	}
	if len(bytes.Trim(pad, "\x00")) > 0 {
		return errors.New("xz padding is not zero")
	}
	return nil
}

// record feeds an entry of the index to h, so that an index of any length can
// be verified in little memory, as liblzma does.
func record(h hash.Hash, unpadded, unpacked int64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(unpadded))
	binary.LittleEndian.PutUint64(b[8:], uint64(unpacked))
	h.Write(b[:])
}

// end verifies the index and the footer, sections 4 and 2.1.2.
func (x *xzStream) end() error {
	const footerSize = 12
	start := x.src.offset()
	crc := &summed{src: x.src}
	if _, err := crc.ReadByte(); err != nil { // the indicator that brought us here
		return err
	}
	blocks, err := xzInt(crc)
	if err != nil {
		return err
	}
	if uint64(blocks) != x.blocks {
		return errXZIndex
	}
	index := sha256.New()
	for range blocks {
		unpadded, err := xzInt(crc)
		if err != nil {
			return err
		}
		unpacked, err := xzInt(crc)
		if err != nil {
			return err
		}
		record(index, unpadded, unpacked)
	}
	for (x.src.offset()-start)%4 != 0 {
		if b, err := crc.ReadByte(); err != nil || b != 0 {
			return cmp.Or(err, errXZIndex)
		}
	}
	var sum [crc32.Size]byte
	if err := x.src.full(sum[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(sum[:]) != crc.sum || !bytes.Equal(index.Sum(nil), x.index.Sum(nil)) {
		return errXZIndex
	}
	size := x.src.offset() - start
	var foot [footerSize]byte
	if err := x.src.full(foot[:]); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot[:]) ||
		(int64(binary.LittleEndian.Uint32(foot[4:]))+1)*4 != size ||
		[2]byte(foot[8:10]) != x.flags || string(foot[10:]) != "YZ" {
		return errXZFooter
	}
	return nil
}

// summed is the bytes of the index on their way into its checksum.
type summed struct {
	src *source
	sum uint32
	one [1]byte
}

// ReadByte is what xzInt needs.
func (s *summed) ReadByte() (byte, error) {
	b, err := s.src.ReadByte()
	if err != nil {
		return 0, noEOF(err)
	}
	s.one[0] = b
	s.sum = crc32.Update(s.sum, crc32.IEEETable, s.one[:])
	return b, nil
}

// xzInt reads an integer as section 1.2 has it: seven bits in a byte, little
// end first, at most nine bytes and none of them in vain.
func xzInt(r io.ByteReader) (int64, error) {
	var n int64
	for i := range 9 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				break
			}
			return n, nil
		}
	}
	return 0, errXZInt
}
