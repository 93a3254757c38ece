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
// it holds: no byte is written twice, and what a failure costs is little. Of a
// large one the packed bytes are written to a file beside the target as they
// come, and unpacked from there as soon as they are there, so that neither a cut
// nor a kill costs more than the last of them, and so that they may come over
// several connections. What is no archive is the installed file already. Else that
// file is one more copy of the packed bytes, and goes before the system writes it
// to the disk: for 1 GiB of noise it costs a sixth more CPU time and no time, for a
// forest, which packs into a quarter, neither. Unpacking only when all of it is
// there would need the same copy and take longer.
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
	// maxPartial bounds what is kept in bytes. Nobody has such a layer, and
	// what a manifest says of sizes is only a claim.
	maxPartial = 1 << 40
	// partialAge is how long a download that failed waits to be continued.
	partialAge = 7 * 24 * time.Hour
)

// tuning is what tests change of the above.
type tuning struct {
	keepFrom, splitFrom, pieceSize int64
	pause                          func(context.Context, time.Duration) error
	now                            func() time.Time
}

func (o *InstallOptions) tuning() *tuning {
	if o.tuned != nil {
		return o.tuned
	}
	return &tuning{keepFrom, splitFrom, pieceSize, sleep, time.Now}
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

// partial is a blob on its way, in a file of its own. Several connections write
// to it, each a piece of its own, and one reader follows them from the beginning,
// so that whatever an earlier run left there is hashed like the rest. Behind the
// blob's bytes the file holds how many there are of each piece, as 64-bit numbers,
// little end first. They are written after the bytes they count and believed by
// the next run; should they or the bytes be wrong, the blob's digest shows it.
type partial struct {
	d    *downloader
	l    *manifest.Layer
	size int64
	name string
	file *os.File
	stop context.CancelFunc
	wg   sync.WaitGroup

	pos int64 // of the reader

	mu     sync.Mutex
	moved  sync.Cond // there is more to read, or an error
	pieces []piece
	ready  int64 // bytes that are there from the beginning on
	alone  bool  // one connection at most
	plain  bool  // the registry does not serve ranges
	helped bool  // the other connections were started
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
	ctx, p.stop = context.WithCancel(ctx)
	p.wg.Go(func() { p.work(ctx, false) })
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
		if there == p.ready {
			break
		}
		p.ready = there
		if p.pieces[i].have < p.length(int(i)) {
			break
		}
	}
	p.moved.Broadcast()
}

// work is one connection. The first one calls others to its help as soon as the
// registry has answered with a range.
func (p *partial) work(ctx context.Context, helps bool) {
	buf := make([]byte, 64<<10)
	for {
		if err := p.d.take(ctx); err != nil {
			p.fail(err)
			return
		}
		off, end, ok := p.claim(helps)
		var err error
		if ok {
			err = p.fetch(ctx, off, end, buf)
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

// fail ends the download, unless it has failed already.
func (p *partial) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		p.stop()
	}
	p.moved.Broadcast()
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

// answered draws its conclusions from the first answer to a part.
func (p *partial) answered(ctx context.Context, part *part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case part.plain && !p.alone: // all of it comes, so all of it is taken
		p.alone, p.plain = true, true
		part.end = p.extend(part.end)
		part.left = part.end - part.off
	case !part.plain && !p.helped:
		p.helped = true
		for range cap(p.d.slots) - 1 {
			p.wg.Go(func() { p.work(ctx, true) })
		}
	}
}

// fetch writes what is in the registry between off and end.
func (p *partial) fetch(ctx context.Context, off, end int64, buf []byte) error {
	part := p.d.part(ctx, p.l, off, end)
	defer func() {
		part.Close()
		p.mu.Lock()
		p.doubted = p.doubted || part.doubted
		p.mu.Unlock()
	}()
	p.mu.Lock()
	alone := p.alone
	part.plain = p.plain
	p.mu.Unlock()
	if !alone {
		if err := part.open(); err != nil {
			return err
		}
		p.answered(ctx, part)
	}
	for {
		n, err := part.Read(buf)
		if werr := p.write(buf[:n], off); werr != nil {
			return fmt.Errorf("write layer %s: %w", p.l.Title, werr)
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

// write takes bytes that came.
func (p *partial) write(b []byte, off int64) error {
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
	for p.pos == p.ready && p.ready < p.size && p.err == nil {
		p.moved.Wait()
	}
	there, err := p.ready-p.pos, p.err
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if there == 0 {
		return 0, io.EOF
	}
	n, err := p.file.ReadAt(b[:min(int64(len(b)), there)], p.pos)
	p.pos += int64(n)
	return n, err
}

// end closes the file when the blob was read with the given error. It stays, for
// this install if that is nil, else for the next one, unless there is nothing
// in it that anybody could use.
func (p *partial) end(err error) error {
	p.stop()
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
