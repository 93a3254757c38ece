package oci

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// How blobs are downloaded. A small one streams from the registry into the files
// it holds: no byte is written twice, and what a failure costs is little. So does a
// large one as long as the line is fast, for then it comes again in no time. On a
// slow line the packed bytes are written to a file beside the target as they come,
// and unpacked from there as soon as they are there, so that neither a cut nor a
// kill costs more than the last of them, and so that they may come over several
// connections. What is no archive is the installed file already, and is always
// written there. Else that file is one more copy of the packed bytes, and goes
// before the system writes it to the disk. Unpacking only when all of it is there
// would need the same copy and take longer.
const (
	// keepFrom is the size of blobs in bytes from which they are kept: what a
	// line of 10 Mbit/s carries in a quarter of a minute.
	keepFrom = 16 << 20
	// splitFrom is the size in bytes from which ranges are fetched over several
	// connections: below, opening these takes as long as it saves.
	splitFrom = 64 << 20
	// pieceSize is the length of a range in bytes: long against the time of a
	// request, short enough for the next piece to be unpacked to come soon.
	pieceSize = 16 << 20
	// pieceTime is how long one connection may take for a piece before its line is
	// slow: as long as it takes at 1 Gbit/s. On a faster one several connections
	// bring nothing sooner than it can be unpacked.
	pieceTime = 128 * time.Millisecond
	// maxPartial bounds what is kept in bytes. Nobody has such a layer, and
	// what a manifest says of sizes is only a claim.
	maxPartial = 1 << 40
	// partialAge is how long a download that failed waits to be continued.
	partialAge = 7 * 24 * time.Hour
)

// tuning is what tests change of the above.
type tuning struct {
	keepFrom, splitFrom, pieceSize int64
	pieceTime                      time.Duration
	pause                          func(context.Context, time.Duration) error
	now                            func() time.Time
}

func (o *InstallOptions) tuning() *tuning {
	if o.tuned != nil {
		return o.tuned
	}
	return &tuning{keepFrom, splitFrom, pieceSize, pieceTime, sleep, time.Now}
}

// downloader gives the blobs of one artifact.
type downloader struct {
	manifest.Fetcher
	repo *repository // behind the Fetcher; nil: it is no registry
	root *os.Root
	*tuning
	progress Progress
	slots    chan struct{} // a request under way holds one
}

func newDownloader(src manifest.Fetcher, root *os.Root, o InstallOptions) *downloader {
	return &downloader{src, repositoryOf(src), root, o.tuning(), o.Progress, make(chan struct{}, cmpOr(o.Concurrency, DefaultConcurrency))}
}

// repositoryOf is the repository of a registry that the bytes come from, or nil.
func repositoryOf(src manifest.Fetcher) *repository {
	switch s := src.(type) {
	case *repository:
		return s
	case *Model:
		return repositoryOf(s.ReadOnlyStorage)
	case *memo:
		return repositoryOf(s.ReadOnlyStorage)
	}
	return nil
}

// take waits for a slot.
func (d *downloader) take(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *downloader) free() { <-d.slots }

// keeps reports whether a blob is written aside on its way.
func (d *downloader) keeps(desc v1.Descriptor) bool {
	return d.repo != nil && desc.Size >= d.keepFrom && desc.Size <= maxPartial
}

// delivery is one blob to be read from its beginning to its end, in which it may
// be that the connection is cut and taken up again.
type delivery struct {
	io.Reader
	partial *partial // nil: nothing is kept
	close   func() error
}

// open gives the layer's blob. Aside says that what comes may be kept; mode is
// that of the file it would be kept in. The blob has to be ended.
func (d *downloader) open(ctx context.Context, l *manifest.Layer, mode fs.FileMode, aside bool) (*delivery, error) {
	switch {
	case d.repo == nil:
		rc, err := d.Fetch(ctx, l.Descriptor)
		if err != nil {
			return nil, err
		}
		return &delivery{d.progress.reader(ctx, rc, l.Descriptor, l.Title), nil, rc.Close}, nil
	case aside && d.keeps(l.Descriptor):
		p, err := d.openPartial(ctx, l, mode)
		if err != nil {
			return nil, fmt.Errorf("write layer %s: %w", l.Title, err)
		}
		return &delivery{manifest.ContextReader(ctx, p), p, nil}, nil
	}
	if err := d.take(ctx); err != nil {
		return nil, err
	}
	p := d.part(ctx, l, 0, l.Descriptor.Size)
	return &delivery{p, nil, func() error { defer d.free(); return p.Close() }}, nil
}

// part is a range of a layer's blob.
func (d *downloader) part(ctx context.Context, l *manifest.Layer, off, end int64) *part {
	return &part{ctx: ctx, repo: d.repo, desc: l.Descriptor, title: l.Title, progress: d.progress, pause: d.pause, off: off, end: end}
}

// end closes the blob when it was read with the given error, which it returns.
func (b *delivery) end(err error) error {
	if b.partial != nil {
		return b.partial.end(err)
	}
	cerr := b.close()
	if err == nil {
		err = cerr
	}
	return err
}

// partial is a blob on its way. Its reader fetches it over a connection of its own
// as long as that keeps up, and writes of it to a file what is worth keeping: the
// first piece that it fetches, and every one once the line is slow. Where ranges
// are served, other connections then fetch the rest, each a piece of its own, and
// the reader follows them in the file.
//
// Whatever an earlier run left there is hashed like the rest. Behind the blob's
// bytes the file holds how many there are of each piece, as 64-bit numbers, little
// end first. They are written after the bytes they count and believed by the next
// run; should they or the bytes be wrong, the blob's digest shows it.
type partial struct {
	d    *downloader
	l    *manifest.Layer
	size int64
	name string
	file *os.File
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// The reader's own.
	pos    int64
	stream *part         // holds a slot; nil: none is open
	spent  time.Duration // waiting for bytes of the piece at pos
	fast   bool          // a piece came in time
	slow   bool          // one did not

	mu     sync.Mutex
	moved  sync.Cond // there is more to read, or an error
	pieces []piece
	ready  int64 // bytes that are there, or were read, from the beginning on
	alone  bool  // one connection at most, the reader's
	plain  bool  // the registry does not serve ranges
	// doubted: some of it may be no part of the blob. Its digest tells, once the
	// rest is there; for the next run it is not worth that.
	doubted bool
	err     error
}

// piece is a part of a partial, of pieceSize bytes but for the last.
type piece struct {
	have, told int64 // bytes that are there, and that the file counts
	taken      bool  // by a connection
}

// partialName is where a blob is kept. The digest is a valid one.
func partialName(d digest.Digest) string {
	return stateDir + "/" + partialPrefix + d.Algorithm().String() + "-" + d.Encoded()
}

// openPartial continues the download of a blob, or begins it.
func (d *downloader) openPartial(ctx context.Context, l *manifest.Layer, mode fs.FileMode) (*partial, error) {
	size := l.Descriptor.Size
	n := (size + d.pieceSize - 1) / d.pieceSize
	p := &partial{d: d, l: l, size: size, name: partialName(l.Descriptor.Digest), pieces: make([]piece, n), alone: size < d.splitFrom}
	p.moved.L = &p.mu
	whole := size + 8*n
	if info, err := d.root.Lstat(p.name); err == nil && (!info.Mode().IsRegular() || info.Size() != whole) {
		if err := d.root.RemoveAll(p.name); err != nil {
			return nil, err
		}
	}
	var err error
	if p.file, err = d.root.OpenFile(p.name, os.O_RDWR|os.O_CREATE, mode); err != nil {
		return nil, err
	}
	if err = p.file.Truncate(whole); err == nil {
		err = p.count()
	}
	if err != nil {
		return nil, errors.Join(err, p.file.Close(), d.root.Remove(p.name))
	}
	if had := p.had(); had > 0 {
		d.progress.emit(Event{Kind: Resumed, Descriptor: l.Descriptor, Name: l.Title, Bytes: had})
	}
	p.ctx, p.stop = context.WithCancel(ctx)
	return p, nil
}

// length is that of a piece in bytes.
func (p *partial) length(i int) int64 { return min(p.d.pieceSize, p.size-int64(i)*p.d.pieceSize) }

// count finds out what an earlier run left. A count that cannot be is none.
func (p *partial) count() error {
	counts := make([]byte, 8*len(p.pieces))
	if _, err := p.file.ReadAt(counts, p.size); err != nil {
		return err
	}
	for i := range p.pieces {
		n := binary.LittleEndian.Uint64(counts[8*i:])
		if n <= uint64(p.length(i)) {
			p.pieces[i].have, p.pieces[i].told = int64(n), int64(n)
		}
	}
	p.advance()
	return nil
}

// advance moves ready on. It is called with mu held.
func (p *partial) advance() {
	for p.ready < p.size {
		i := p.ready / p.d.pieceSize
		start := i * p.d.pieceSize
		there := start + p.pieces[i].have
		if there <= p.ready {
			break
		}
		p.ready = there
		if p.pieces[i].have < p.length(int(i)) {
			break
		}
	}
	p.moved.Broadcast()
}

// work is a connection that is not the reader's: the one in its place, or one that
// helps.
func (p *partial) work(helps bool) {
	buf := make([]byte, 64<<10)
	for {
		if err := p.d.take(p.ctx); err != nil {
			p.fail(err)
			return
		}
		off, end, ok := p.claim(helps)
		var err error
		if ok {
			err = p.fetch(off, end, buf)
		}
		p.d.free()
		if err != nil {
			p.fail(err)
		}
		if err != nil || !ok {
			return
		}
	}
}

// fail ends the download, unless it has failed already, and returns with what.
func (p *partial) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.stop()
	}
	p.moved.Broadcast()
	return p.err
}

// claim takes the first bytes that nobody has or fetches: of one piece, or, where
// there is one connection only, all up to those that are there.
func (p *partial) claim(helps bool) (off, end int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if helps && p.alone {
		return 0, 0, false
	}
	for i := range p.pieces {
		if p.pieces[i].taken || p.pieces[i].have == p.length(i) {
			continue
		}
		p.pieces[i].taken = true
		start := int64(i) * p.d.pieceSize
		end = start + p.length(i)
		if p.alone {
			end = p.extend(end)
		}
		return start + p.pieces[i].have, end, true
	}
	return 0, 0, false
}

// extend takes the pieces from end on that are empty and free, and returns where
// they end. It is called with mu held.
func (p *partial) extend(end int64) int64 {
	for i := int(end / p.d.pieceSize); end < p.size && !p.pieces[i].taken && p.pieces[i].have == 0; i++ {
		p.pieces[i].taken = true
		end += p.length(i)
	}
	return end
}

// fetch writes what is in the registry between off and end.
func (p *partial) fetch(off, end int64, buf []byte) error {
	part, err := p.open(off, end)
	if err != nil {
		return err
	}
	defer p.leave(part)
	for {
		n, err := part.Read(buf)
		if werr := p.write(buf[:n], off); werr != nil {
			return werr
		}
		off += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// leave ends a request, whose answer may have been something else.
func (p *partial) leave(part *part) {
	part.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubted = p.doubted || part.doubted
}

// open asks the registry for what is between off and end. If it sends all of the
// blob instead, all of it is taken that nobody has.
func (p *partial) open(off, end int64) (*part, error) {
	part := p.d.part(p.ctx, p.l, off, end)
	p.mu.Lock()
	part.plain = p.plain
	p.mu.Unlock()
	if err := part.open(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if part.plain && !p.alone {
		p.alone, p.plain = true, true
		part.end = p.extend(part.end)
		part.left = part.end - part.off
	}
	return part, nil
}

// write keeps bytes that came.
func (p *partial) write(b []byte, off int64) error {
	if err := p.put(b, off); err != nil {
		return fmt.Errorf("write layer %s: %w", p.l.Title, err)
	}
	return nil
}

func (p *partial) put(b []byte, off int64) error {
	if _, err := p.file.WriteAt(b, off); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := int64(len(b)); n > 0; {
		i := int(off / p.d.pieceSize)
		here := min(n, int64(i)*p.d.pieceSize+p.length(i)-off)
		c := &p.pieces[i]
		c.have += here
		if c.have == p.length(i) || c.have-c.told >= tellEvery {
			if err := p.tell(i); err != nil {
				return err
			}
		}
		off, n = off+here, n-here
	}
	p.advance()
	return nil
}

// tellEvery is how many bytes of a piece a kill may cost.
const tellEvery = 1 << 20

// tell counts the bytes of a piece in the file.
func (p *partial) tell(i int) error {
	c := &p.pieces[i]
	if c.told == c.have {
		return nil
	}
	c.told = c.have
	_, err := p.file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(c.have)), p.size+8*int64(i))
	return err
}

// Read implements [io.Reader], for one reader.
func (p *partial) Read(b []byte) (int, error) {
	p.mu.Lock()
	for p.pos == p.ready && p.ready < p.size && p.err == nil && !p.leads() {
		p.moved.Wait()
	}
	there, err := p.ready-p.pos, p.err
	p.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case p.pos == p.size:
		return 0, io.EOF
	case there == 0:
		return p.receive(b)
	}
	n, err := p.file.ReadAt(b[:min(int64(len(b)), there)], p.pos)
	p.pos += int64(n)
	return n, err
}

// leads reports whether it is for the reader to fetch what is not there.
func (p *partial) leads() bool { return p.stream != nil || !p.slow }

// receive reads on over the reader's own connection.
func (p *partial) receive(b []byte) (int, error) {
	if p.stream == nil {
		if err := p.connect(); err != nil {
			return 0, p.fail(err)
		}
	}
	i := int(p.pos / p.d.pieceSize)
	start := int64(i) * p.d.pieceSize
	end := start + p.length(i)
	asked := p.d.now()
	n, err := p.stream.Read(b[:min(int64(len(b)), end-p.pos)])
	p.spent += p.d.now().Sub(asked)
	// What is kept of a piece is its beginning.
	have := p.pieces[i].have
	if keeps := !p.fast || p.slow || have > 0 || p.l.Format == manifest.FormatRaw; keeps && start+have == p.pos {
		err = errors.Join(err, p.write(b[:n], p.pos))
	}
	if err != nil {
		return n, p.fail(err)
	}
	p.pos += int64(n)
	p.mu.Lock()
	p.ready = max(p.ready, p.pos)
	p.advance()
	p.mu.Unlock()
	if !p.slow && p.spent >= p.d.pieceTime {
		p.slow = true
		p.split(end)
	}
	if p.pos == end {
		p.spent, p.fast = 0, !p.slow
	}
	if p.pos == p.stream.end {
		p.disconnect()
		if p.slow {
			p.wg.Go(func() { p.work(false) })
		}
	}
	return n, nil
}

// connect opens the reader's own connection: for one piece, which tells how fast
// the line is and whether the registry serves ranges, and then for all that
// follows.
func (p *partial) connect() error {
	if err := p.d.take(p.ctx); err != nil {
		return err
	}
	p.mu.Lock()
	i := int(p.pos / p.d.pieceSize)
	p.pieces[i].taken = true
	end := int64(i)*p.d.pieceSize + p.length(i)
	if p.alone || p.fast {
		end = p.extend(end)
	}
	p.mu.Unlock()
	var err error
	if p.stream, err = p.open(p.pos, end); err != nil {
		p.d.free()
	}
	return err
}

// disconnect ends the reader's own connection, if one is open.
func (p *partial) disconnect() {
	if p.stream != nil {
		p.leave(p.stream)
		p.stream = nil
		p.d.free()
	}
}

// split calls other connections to fetch what comes from end on, where the registry
// serves ranges. The reader's own goes on to there.
func (p *partial) split(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alone {
		return
	}
	for at := end; at < p.stream.end; at += p.d.pieceSize {
		p.pieces[at/p.d.pieceSize].taken = false
	}
	p.stream.end, p.stream.left = end, min(p.stream.left, end-p.pos)
	for range cap(p.d.slots) - 1 {
		p.wg.Go(func() { p.work(true) })
	}
}

// end closes the file when the blob was read with the given error. It stays, for
// this install if that is nil, else for the next one, unless there is nothing
// in it that anybody could use.
func (p *partial) end(err error) error {
	p.stop()
	p.disconnect()
	p.wg.Wait()
	_, corrupt := errors.AsType[*manifest.CorruptError](err)
	useless := corrupt || isBadContent(err) || isDiskFull(err) || p.had() == 0 || p.doubted && err != nil
	var cerr error
	for i := range p.pieces {
		cerr = errors.Join(cerr, p.tell(i))
	}
	cerr = errors.Join(cerr, p.file.Close())
	if useless {
		cerr = errors.Join(cerr, p.d.root.Remove(p.name))
	}
	if err == nil && cerr != nil {
		err = fmt.Errorf("write layer %s: %w", p.l.Title, cerr)
	}
	return err
}

// had is how many bytes there are.
func (p *partial) had() int64 {
	var n int64
	for _, c := range p.pieces {
		n += c.have
	}
	return n
}

// release gives the file of a layer that is verified, and is a file itself, the
// name.
func (d *downloader) release(l *manifest.Layer, name string) error {
	partial := partialName(l.Descriptor.Digest)
	f, err := d.root.OpenFile(partial, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err = errors.Join(f.Truncate(l.Descriptor.Size), f.Close()); err != nil {
		return err
	}
	return d.root.Rename(partial, name)
}
