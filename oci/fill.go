package oci

import (
	"context"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/manifest"
	"galley/oci/layout"
)

// filling is a target while graphs are copied to it. Between oras-go, which
// walks the graph, and a registry it does without the question whether each
// blob is there: the beginning of its upload answers that. What the registry
// says it has is believed until it refuses a manifest for want of it.
type filling struct {
	Target
	src  content.ReadOnlyStorage
	o    CopyOptions
	root digest.Digest // known not to be there; "" if unknown

	mu      sync.Mutex
	settled map[digest.Digest]EventKind // how blobs that are done with came there
	doubted map[digest.Digest]bool      // blobs that the registry said it had
}

// fill returns dst, to be filled from src.
func fill(dst Target, src content.ReadOnlyStorage, o CopyOptions) *filling {
	return &filling{Target: dst, src: src, o: o, settled: map[digest.Digest]EventKind{}, doubted: map[digest.Digest]bool{}}
}

// graph copies what is below root, and root unless skip is true of it, and then
// does the rest. If the registry misses blobs that it said it has, they are
// sent, and it is all done once more.
func (f *filling) graph(ctx context.Context, root v1.Descriptor, opts oras.CopyGraphOptions, rest func() error) error {
	opts.MountFrom = func(_ context.Context, d v1.Descriptor) ([]string, error) {
		if _, ok := f.Target.(*repository); ok {
			return []string{f.from(d)}, nil
		}
		if _, ok := f.layout(d); ok {
			return []string{"a layout"}, nil
		}
		return nil, nil
	}
	skipped, mounted := opts.OnCopySkipped, opts.OnMounted
	opts.OnCopySkipped = func(ctx context.Context, d v1.Descriptor) error {
		if f.isSettled(d) {
			return nil
		}
		return skipped(ctx, d)
	}
	opts.OnMounted = func(ctx context.Context, d v1.Descriptor) error {
		if f.isSettled(d) {
			return nil // Mount has told how
		}
		return mounted(ctx, d)
	}
	run := func() error {
		if err := oras.CopyGraph(ctx, &observed{f.src, f.o.Progress}, f, root, opts); err != nil {
			return err
		}
		return rest()
	}
	err := run()
	if !f.doubt(err) {
		return err
	}
	return run()
}

// Exists implements [content.ReadOnlyStorage].
func (f *filling) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	if _, ok := f.Target.(*repository); ok && !isManifest(d) {
		return f.isSettled(d), nil
	}
	if d.Digest == f.root {
		return false, nil
	}
	return f.Target.Exists(ctx, d)
}

// Mount implements [registry.Mounter]. With oras-go it is the way of every blob
// to a registry: open is its way to say that it was none.
func (f *filling) Mount(ctx context.Context, d v1.Descriptor, from string, open func() (io.ReadCloser, error)) error {
	if repo, ok := f.Target.(*repository); ok {
		b := blob{Descriptor: d, from: from, progress: f.o.Progress, ahead: f.o.ahead.take(d),
			open: func(ctx context.Context) (io.ReadCloser, error) { return f.open(ctx, d) }}
		how, err := repo.upload(ctx, b)
		if f.fetchesAgain(ctx, d, err) {
			how, err = repo.upload(ctx, b)
		}
		if err != nil {
			return err
		}
		f.settle(d, how)
		b.tell(Event{Kind: how})
		return nil
	}
	src, _ := f.layout(d)
	err := f.Target.(*layout.Store).Mount(ctx, src, d.Digest)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	return f.Push(ctx, d, rc)
}

// Push implements [content.Pusher]. It is the way of blobs to a layout, which
// verifies them.
func (f *filling) Push(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	err := wrongSource(f.Target.Push(ctx, d, r), d)
	if isManifest(d) || !f.fetchesAgain(ctx, d, err) {
		return err
	}
	rc, err := (&observed{f.src, f.o.Progress}).Fetch(ctx, d)
	if err != nil {
		return &readError{err}
	}
	defer rc.Close()
	return wrongSource(f.Target.Push(ctx, d, rc), d)
}

// wrongSource is err, or that the source has other bytes, which a target found.
func wrongSource(err error, d v1.Descriptor) error {
	if !errors.Is(err, content.ErrMismatchedDigest) {
		return err
	}
	return &readError{&manifest.CorruptError{What: whatIs(d), Want: d.Digest.String(), Got: "other bytes"}}
}

// whatIs names a blob.
func whatIs(d v1.Descriptor) string {
	if title := d.Annotations[v1.AnnotationTitle]; title != "" {
		return "layer " + title
	}
	return "blob " + d.Digest.String()
}

// open opens a blob to be sent. A source that does not hash what it gives, as a
// packed artifact does, is not believed: a registry could only say that it got
// something else.
func (f *filling) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := f.src.Fetch(ctx, d)
	if _, hashed := f.src.(*manifest.Packed); err != nil || hashed || d.Digest.Validate() != nil {
		return rc, err
	}
	return &checked{rc, d, d.Digest.Algorithm().Hash()}, nil
}

// fetchesAgain reports whether a copy failed for wrong bytes of the source, which
// may have changed on their way: they are fetched once more, as in a pull.
func (f *filling) fetchesAgain(ctx context.Context, d v1.Descriptor, err error) bool {
	if ctx.Err() != nil || !isWrong(err, d) {
		return false
	}
	name := d.Annotations[v1.AnnotationTitle]
	f.o.Progress.emit(Event{Kind: Retried, Descriptor: d, Name: name, Reason: clean(err.Error())})
	f.o.Progress.emit(Event{Kind: Resumed, Descriptor: d, Name: name})
	return true
}

// checked is a blob that ends in a [*manifest.CorruptError] if it is not what its
// digest says. Of what was passed over it cannot tell.
type checked struct {
	io.ReadCloser
	d v1.Descriptor
	h hash.Hash // of all until here; nil: unknown
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.h == nil {
		return n, err
	}
	c.h.Write(p[:n])
	if err == io.EOF {
		if got := digest.NewDigest(c.d.Digest.Algorithm(), c.h); got != c.d.Digest {
			err = &manifest.CorruptError{What: whatIs(c.d), Want: c.d.Digest.String(), Got: got.String()}
		}
	}
	return n, err
}

// Seek passes over what the target has, once, at the beginning.
func (c *checked) Seek(offset int64, whence int) (int64, error) {
	if seeker, ok := c.ReadCloser.(io.Seeker); ok {
		c.h = nil
		return seeker.Seek(offset, whence)
	}
	if whence != io.SeekStart {
		return 0, errors.ErrUnsupported
	}
	return io.CopyN(io.Discard, c, offset)
}

// from is the repository that a registry is asked to take the blob from: where
// it lies, else the target itself, which answers whether it is there.
func (f *filling) from(d v1.Descriptor) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.doubted[d.Digest] {
		return ""
	}
	if from, ok := f.o.mountable(f.Target, d).(*repository); ok {
		return from.Reference.Repository
	}
	return f.Target.(*repository).Reference.Repository
}

// layout is the layout that the blob can be taken from.
func (f *filling) layout(d v1.Descriptor) (*layout.Store, bool) {
	s, ok := f.o.mountable(f.Target, d).(*layout.Store)
	return s, ok
}

// mountable is the target that dst can take the blob from without its bytes
// moving: another repository of its registry, or a layout if it is one too.
// Otherwise it is nil.
func (o *CopyOptions) mountable(dst Target, d v1.Descriptor) Target {
	if o.Where == nil {
		return nil
	}
	switch from := o.Where(d).(type) {
	case *repository:
		if to, ok := dst.(*repository); ok && strings.EqualFold(from.Reference.Registry, to.Reference.Registry) &&
			from.Reference.Repository != to.Reference.Repository {
			return from
		}
	case *layout.Store:
		if _, ok := dst.(*layout.Store); ok {
			return from
		}
	}
	return nil
}

func (f *filling) isSettled(d v1.Descriptor) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.settled[d.Digest]
	return ok
}

func (f *filling) settle(d v1.Descriptor, how EventKind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled[d.Digest] = how
}

// doubt reports whether err says that the registry misses blobs which it said
// it has: those that it names, or, if it names none, all that were not sent.
// They are then no longer settled, once.
func (f *filling) doubt(err error) bool {
	resp, ok := errors.AsType[*errcode.ErrorResponse](err)
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := false
	var named []digest.Digest
	for _, e := range resp.Errors {
		if e.Code != errcode.ErrorCodeManifestBlobUnknown && e.Code != errcode.ErrorCodeBlobUnknown {
			continue
		}
		missing = true
		detail, err := json.Marshal(e.Detail)
		if err != nil {
			continue
		}
		for d := range f.settled {
			if strings.Contains(string(detail), d.String()) {
				named = append(named, d)
			}
		}
	}
	if !missing {
		return false
	}
	for d, how := range f.settled {
		if len(named) == 0 && how != Done || slices.Contains(named, d) {
			delete(f.settled, d)
			f.doubted[d] = true
		}
	}
	return len(f.doubted) > 0
}

var _ registry.Mounter = (*filling)(nil)
