package manifest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// marker is what two sync flushes leave behind every block of the framing: two
// empty stored blocks (RFC 1951, section 3.2.4), the first of which may share
// its first byte with the data before it.
var marker = []byte{0, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff}

const (
	readSize = 256 << 10 // of what is cut
	// maxPieces bounds memory, at 2.5 MiB each. One of them is being read, and
	// as many more are inflated at a time as keep up with whoever hashes and
	// writes what comes out.
	maxPieces = 4
	// window is how far back deflate refers (RFC 1951, section 2).
	window = 32 << 10
)

// piece is what lies between two markers, on its way through a [gzipReader].
type piece struct {
	packed []byte
	plain  []byte
	sound  bool          // plain is what any reader would inflate
	ready  chan struct{} // plain and sound are set
}

// open gives the piece its buffers.
func (p *piece) open() {
	if p.packed == nil {
		p.packed, p.plain = buffer(), buffer()
	}
	p.packed = p.packed[:0]
}

// gzipReader reads what any gzip reader reads, and fails where it fails. Where
// the stream is in the framing of model layers, one goroutine cuts it at the
// markers, several inflate the pieces, and Read puts them together. A marker
// may be a coincidence or a trap, and a piece may refer to the one before: so a
// piece counts only if it can be inflated by itself, up to its last byte, and
// ends there between two blocks of deflate. From the first that does not, and
// from the end of the framing, the stream is read by one goroutine.
type gzipReader struct {
	src     io.Reader
	pieces  []piece // all there are
	free    chan *piece
	packed  chan *piece // to be inflated
	ordered chan *piece
	stop    chan struct{} // closed when no more pieces are wanted
	wg      sync.WaitGroup

	// What was read and not cut, and the error that ended the reading, when
	// ordered is closed.
	rest    []byte
	restErr error

	cur  *piece
	left []byte // of cur
	done member
	tail io.Reader // from where the pieces end; nil before
}

// member is the state of a member's checksums, and what is needed to inflate
// on: the bytes that the next ones may refer to.
type member struct {
	crc     uint32
	size    uint32 // modulo 2^32 (RFC 1952 ISIZE)
	history []byte
}

// newGzipReader returns a reader of what is in src, which it reads ahead. Close
// must be called, and returns when the last read of src has. An error is one of
// src, or about the header, as [gzip.NewReader] has it.
func newGzipReader(src io.Reader) (*gzipReader, error) {
	head := make([]byte, len(gzipHeader))
	n, err := io.ReadFull(src, head)
	z := &gzipReader{src: src, stop: make(chan struct{}), ordered: make(chan *piece)}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		// Not to be read on: another read of src might do better, and would
		// make up for bytes that never came.
		close(z.ordered)
		z.tail = errorReader{err}
		return z, err
	}
	if err != nil || !bytes.Equal(head, gzipHeader[:]) {
		// Of another tool.
		close(z.ordered)
		z.tail, err = gzip.NewReader(io.MultiReader(bytes.NewReader(head[:n]), src))
		return z, err
	}
	z.pieces = make([]piece, maxPieces)
	z.free, z.packed, z.ordered = make(chan *piece, maxPieces), make(chan *piece, maxPieces), make(chan *piece, maxPieces)
	for i := range z.pieces {
		z.free <- &z.pieces[i]
	}
	for range min(runtime.GOMAXPROCS(0), maxPieces-1) {
		z.wg.Go(func() {
			for p := range z.packed {
				p.plain, p.sound = inflate(p.plain, p.packed)
				close(p.ready)
			}
		})
	}
	z.wg.Go(z.cut)
	return z, nil
}

// cut reads src and cuts it into pieces, until one is too long.
func (z *gzipReader) cut() {
	defer close(z.ordered)
	defer close(z.packed)
	p := <-z.free
	p.open()
	for seen, skipped := 0, 0; ; {
		skipped = skipStored(p.packed, skipped)
		from := min(max(seen, skipped), len(p.packed))
		if i := bytes.Index(p.packed[from:], marker); i >= 0 {
			var next *piece
			select {
			case next = <-z.free:
			case <-z.stop:
				z.rest = p.packed
				return
			}
			next.open()
			end := from + i + len(marker)
			next.packed = append(next.packed, p.packed[end:]...)
			p.packed, p.ready = p.packed[:end], make(chan struct{})
			z.packed <- p
			z.ordered <- p
			p, seen, skipped = next, 0, 0
			continue
		}
		seen = max(0, len(p.packed)-len(marker)+1)
		if z.restErr != nil || len(p.packed) > maxPacked || z.stopped() {
			z.rest = p.packed
			return
		}
		var n int
		n, z.restErr = z.src.Read(p.packed[len(p.packed):][:readSize])
		p.packed = p.packed[:len(p.packed)+n]
	}
}

func (z *gzipReader) stopped() bool {
	select {
	case <-z.stop:
		return true
	default:
		return false
	}
}

// inflate inflates a piece into dst, which has room for a block, and reports whether
// it can be trusted: nothing in it refers to what is before it, and it ends between
// two blocks, at a byte, not after the last one. That is what the decompressor says
// when it comes to the end of a block, for it takes no byte more from src than it
// needs; its own count of them is not used, which is off by one after some stored
// blocks. Where nothing is compressed, there is no need of it.
func inflate(dst, packed []byte) ([]byte, bool) {
	if plain, rest := unstore(dst[:0], packed); len(rest) == 0 {
		return plain, true
	}
	src := bytes.NewReader(packed)
	var end flate.InflateCheckpoint
	left := -1 // in src at that point
	z := flate.NewReaderOpts(src, flate.WithEobCallback(func(c flate.InflateCheckpoint) { end, left = c, src.Len() }))
	dst = dst[:blockSize]
	n, err := io.ReadFull(z, dst)
	if err == nil {
		// It must fail for want of a block, and there may be more to it.
		_, err = io.ReadFull(z, make([]byte, 1))
	}
	sound := err != nil && !end.Final && end.BitOffset == 0 && left == 0 && end.UncompressedOffset == int64(n)
	return dst[:n], sound
}

// unstore appends to dst, up to a block, what the stored blocks hold that packed
// begins with, and returns what follows them.
func unstore(dst, packed []byte) (plain, rest []byte) {
	for {
		n, ok := storedLength(packed)
		if !ok || n > len(packed) || len(dst)+n-storedHeader > blockSize {
			return dst, packed
		}
		dst = append(dst, packed[storedHeader:n]...)
		packed = packed[n:]
	}
}

// skipStored returns where in packed, from at on, the first block begins that is not
// stored or empty, or as far as is known: a marker within one that is stored is none.
func skipStored(packed []byte, at int) int {
	for at < len(packed) {
		n, ok := storedLength(packed[at:])
		if !ok || n == storedHeader {
			break
		}
		at += n
	}
	return at
}

// storedHeader is how many bytes of a stored block come before its data (RFC 1951,
// section 3.2.4), where it begins at a byte.
const storedHeader = 5

// storedLength returns the length of the block, header and all, if packed begins with
// one that is stored, and is not the last one. It may be longer than packed.
func storedLength(packed []byte) (n int, ok bool) {
	if len(packed) < storedHeader || packed[0]&7 != 0 {
		return 0, false
	}
	n = int(binary.LittleEndian.Uint16(packed[1:]))
	return storedHeader + n, n^int(binary.LittleEndian.Uint16(packed[3:])) == 0xffff
}

// Read reads on in order.
func (z *gzipReader) Read(p []byte) (int, error) {
	for len(z.left) == 0 && z.tail == nil {
		z.next()
	}
	if len(z.left) == 0 {
		return z.tail.Read(p)
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	return n, nil
}

// next goes on to the next piece, or to the tail.
func (z *gzipReader) next() {
	last := false
	if z.cur != nil {
		last = len(z.cur.plain) < blockSize
		z.free <- z.cur
		z.cur = nil
	}
	if last {
		// Only the last block is a short one. More of them may follow in
		// another's stream, and are not worth a decompressor each.
		z.tail = z.serial(nil)
		return
	}
	p, ok := <-z.ordered
	if !ok {
		z.tail = z.serial(nil)
		return
	}
	<-p.ready
	if !p.sound {
		z.tail = z.serial(p)
		return
	}
	z.cur, z.left = p, p.plain
	z.done.add(p.plain)
	z.done.keep(p.plain)
}

// serial stops the cutting and returns a reader of everything that comes after
// what is done: the piece, what is cut already, and the rest.
func (z *gzipReader) serial(p *piece) io.Reader {
	close(z.stop)
	var rest []io.Reader
	if p != nil {
		rest = append(rest, bytes.NewReader(p.packed))
	}
	for p := range z.ordered {
		rest = append(rest, bytes.NewReader(p.packed))
	}
	z.wg.Wait()
	rest = append(rest, bytes.NewReader(z.rest))
	if z.restErr != nil {
		rest = append(rest, errorReader{z.restErr})
	} else {
		rest = append(rest, z.src)
	}
	// Like every reader that is told so, the decompressor takes no byte more
	// than it needs from this one.
	src := bufio.NewReader(io.MultiReader(rest...))
	return &tailReader{member: z.done, src: src, body: flate.NewReaderDict(src, z.done.history)}
}

// Close stops the goroutines and waits for them.
func (z *gzipReader) Close() error {
	if z.tail == nil {
		close(z.stop)
		z.wg.Wait()
	}
	z.left, z.tail = nil, errorReader{io.ErrClosedPipe}
	for _, p := range z.pieces {
		release(p.packed)
		release(p.plain)
	}
	z.pieces = nil
	return nil
}

// add counts and sums up plain bytes.
func (m *member) add(p []byte) {
	m.crc = crc32.Update(m.crc, crc32.IEEETable, p)
	m.size += uint32(len(p))
}

// keep remembers the end of what was inflated.
func (m *member) keep(p []byte) {
	if len(p) > window {
		p = p[len(p)-window:]
	}
	m.history = append(m.history[:0], m.history[max(0, len(m.history)+len(p)-window):]...)
	m.history = append(m.history, p...)
}

// tailReader reads a member from its middle, compares its checksums, and reads
// the members that follow.
type tailReader struct {
	member
	src  *bufio.Reader
	body io.Reader
	more io.Reader // the members that follow
}

func (t *tailReader) Read(p []byte) (int, error) {
	if t.more != nil {
		return t.more.Read(p)
	}
	n, err := t.body.Read(p)
	t.add(p[:n])
	if err != io.EOF {
		return n, err
	}
	var trailer [8]byte
	if _, err := io.ReadFull(t.src, trailer[:]); err == io.EOF {
		return n, io.ErrUnexpectedEOF
	} else if err != nil {
		return n, err
	}
	if binary.LittleEndian.Uint32(trailer[:4]) != t.crc || binary.LittleEndian.Uint32(trailer[4:]) != t.size {
		return n, gzip.ErrChecksum
	}
	more, err := gzip.NewReader(t.src) // io.EOF, if none follows
	if err != nil {
		t.more = errorReader{err}
		return n, err
	}
	t.more = more
	return n, nil
}

// errorReader fails.
type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }
