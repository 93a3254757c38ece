package manifest

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// The gzip framing of a model layer: one member (RFC 1952) whose deflate
// stream is cut every blockSize bytes of input. Each block is deflated with a
// fresh window and ended by two sync flushes, so blocks are packed, and can be
// inflated, on all cores. The bytes do not depend on the number of cores.
const (
	blockSize = 1 << 20
	// maxPacked bounds a block that does not shrink at all, with the headers
	// of its stored parts.
	maxPacked = blockSize + 4<<10
	// maxWorkers bounds memory: a worker holds a block, its packed form and
	// a compressor, about 3 MiB. As many keep up with the digests, which are
	// computed by one goroutine each.
	maxWorkers = 4
)

// buffers are reused from one layer to the next, and from hashing to sending:
// they are most of the memory that either needs.
var (
	buffers   = sync.Pool{New: func() any { return new([maxPacked + readSize]byte) }}
	deflaters sync.Pool // of *flate.Writer
)

// buffer is an empty buffer for a block, packed or not.
func buffer() []byte { return buffers.Get().(*[maxPacked + readSize]byte)[:0] }

// release takes back what [buffer] gave, if it gave it.
func release(b []byte) {
	if cap(b) == maxPacked+readSize {
		buffers.Put((*[maxPacked + readSize]byte)(b[:cap(b)]))
	}
}

// gzipHeader is deflate, no extra fields, no time, fastest algorithm, unknown
// system (RFC 1952, section 2.3).
var gzipHeader = [10]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

// finalBlock is an empty deflate block with the final bit set (RFC 1951,
// section 3.2.3: fixed codes, end of block).
var finalBlock = [2]byte{0x03, 0x00}

// block is one piece of the stream on its way through a [gzipWriter].
type block struct {
	raw    []byte
	packed sliceWriter
	known  []byte        // what packed would be; nil: it is not known
	ready  chan struct{} // packed is complete
	hashed chan struct{} // raw has been read by the hashing goroutine
}

// sliceWriter is an append-only buffer that keeps its memory when reset.
type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// gzipWriter writes the framing. Blocks are packed by several goroutines,
// hashed by one and written in order by another; memory is bounded by the
// number of blocks in flight.
type gzipWriter struct {
	w       io.Writer
	sum     hash.Hash // over the uncompressed bytes; may be nil
	crc     uint32
	size    uint32   // uncompressed, modulo 2^32 (RFC 1952 ISIZE)
	known   [][]byte // what was written before of the same bytes: the header and the first blocks
	blocks  int      // that were dispatched
	cur     *block
	free    chan *block
	packing chan *block
	hashing chan *block
	writing chan *block
	wg      sync.WaitGroup

	mu  sync.Mutex
	err error
}

// NewGzipWriter returns a writer of the framing of model layers to w: the same
// bytes give the same output on every machine. It also feeds the uncompressed
// bytes to sum, if that is not nil. Close must be called, on failure too, to
// release its goroutines; it does not close w.
func NewGzipWriter(w io.Writer, sum hash.Hash) io.WriteCloser { return newGzipWriter(w, sum) }

// newGzipWriter returns a writer of the framing to w that also feeds the
// uncompressed bytes to sum, if it is not nil. Close must be called, on
// failure too, to release its goroutines; it does not close w.
func newGzipWriter(w io.Writer, sum hash.Hash) *gzipWriter {
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	blocks := workers + 2
	z := &gzipWriter{
		w: w, sum: sum,
		free:    make(chan *block, blocks),
		packing: make(chan *block, blocks),
		hashing: make(chan *block, blocks),
		writing: make(chan *block, blocks),
	}
	for range blocks {
		z.free <- &block{}
	}
	for range workers {
		z.wg.Go(z.pack)
	}
	z.wg.Go(z.hash)
	z.wg.Go(z.write)
	return z
}

func (z *gzipWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		room, err := z.room()
		if err != nil {
			return written, err
		}
		n := copy(room, p)
		z.grow(n)
		p, written = p[n:], written+n
	}
	return written, nil
}

// ReadFrom implements [io.ReaderFrom]: r fills the blocks.
func (z *gzipWriter) ReadFrom(r io.Reader) (read int64, err error) {
	for err == nil {
		var room []byte
		if room, err = z.room(); err != nil {
			return read, err
		}
		var n int
		n, err = r.Read(room)
		z.grow(n)
		read += int64(n)
	}
	if err == io.EOF {
		err = nil
	}
	return read, err
}

// room is what is empty of the current block.
func (z *gzipWriter) room() ([]byte, error) {
	if z.cur == nil {
		if err := z.failed(); err != nil {
			return nil, err
		}
		z.cur = <-z.free
		if z.cur.raw == nil {
			z.cur.raw, z.cur.packed = buffer(), buffer()
		}
		z.cur.raw = z.cur.raw[:0]
	}
	return z.cur.raw[len(z.cur.raw):blockSize], nil
}

// grow adds to the current block what was put into its room.
func (z *gzipWriter) grow(n int) {
	if z.cur.raw = z.cur.raw[:len(z.cur.raw)+n]; len(z.cur.raw) == blockSize {
		z.dispatch()
	}
}

// dispatch sends the current block on its way.
func (z *gzipWriter) dispatch() {
	b := z.cur
	z.cur = nil
	b.known = nil
	if z.blocks++; z.blocks < len(z.known) {
		b.known = z.known[z.blocks]
	}
	b.ready, b.hashed = make(chan struct{}), make(chan struct{})
	z.packing <- b
	z.hashing <- b
	z.writing <- b
}

// Close packs what is left, writes the trailer and waits for the goroutines.
func (z *gzipWriter) Close() error {
	switch {
	case z.cur != nil && len(z.cur.raw) > 0:
		z.dispatch()
	case z.cur != nil: // there was room made, and nothing to put there
		z.free <- z.cur
	}
	close(z.packing)
	close(z.hashing)
	close(z.writing)
	z.wg.Wait()
	close(z.free)
	for b := range z.free {
		release(b.raw)
		release(b.packed)
	}
	if err := z.failed(); err != nil {
		return err
	}
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], z.crc)
	binary.LittleEndian.PutUint32(trailer[4:], z.size)
	if _, err := z.w.Write(finalBlock[:]); err != nil {
		return err
	}
	_, err := z.w.Write(trailer[:])
	return err
}

func (z *gzipWriter) pack() {
	var err error
	w, _ := deflaters.Get().(*flate.Writer)
	if w == nil {
		if w, err = flate.NewWriter(nil, flate.BestSpeed); err != nil {
			z.fail(err)
		}
	}
	defer deflaters.Put(w)
	for b := range z.packing {
		if err == nil && b.known == nil {
			b.packed = b.packed[:0]
			err = deflate(w, &b.packed, b.raw)
			z.fail(err)
		}
		close(b.ready)
	}
}

// deflate writes one block to dst: fresh window, two sync flushes.
func deflate(w *flate.Writer, dst io.Writer, raw []byte) error {
	w.Reset(dst)
	if _, err := w.Write(raw); err != nil {
		return fmt.Errorf("deflate: %w", err)
	}
	for range 2 {
		if err := w.Flush(); err != nil {
			return fmt.Errorf("deflate: %w", err)
		}
	}
	return nil
}

func (z *gzipWriter) hash() {
	for b := range z.hashing {
		z.crc = crc32.Update(z.crc, crc32.IEEETable, b.raw)
		z.size += uint32(len(b.raw))
		if z.sum != nil {
			z.sum.Write(b.raw)
		}
		close(b.hashed)
	}
}

func (z *gzipWriter) write() {
	_, err := z.w.Write(gzipHeader[:])
	z.fail(err)
	for b := range z.writing {
		<-b.ready
		<-b.hashed
		if z.failed() == nil {
			packed := b.known
			if packed == nil {
				packed = b.packed
			}
			_, err := z.w.Write(packed)
			z.fail(err)
		}
		z.free <- b
	}
}

// fail keeps the first error.
func (z *gzipWriter) fail(err error) {
	if err == nil {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err == nil {
		z.err = err
	}
}

func (z *gzipWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}
