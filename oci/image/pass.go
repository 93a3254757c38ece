package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// maxLookPackages bounds how many packages a look lists, maxAsked how many paths
// a record in a cache gathers.
const (
	maxLookPackages = 5000
	maxAsked        = 1000
)

// Cache keeps what was found in a layer by the layer's digest. What Get returns
// may be anything, for it is checked.
type Cache interface {
	Get(digest.Digest) ([]byte, bool)
	Put(digest.Digest, []byte)
}

// DirCache is a [Cache] in a directory, safe for several processes. Nothing
// that goes wrong with the directory is an error, for what is not kept is read
// again.
type DirCache string

func (c DirCache) file(d digest.Digest) string {
	return filepath.Join(string(c), d.Algorithm().String(), d.Encoded())
}

// Get returns what is kept for the layer.
func (c DirCache) Get(d digest.Digest) ([]byte, bool) {
	if c == "" || d.Validate() != nil {
		return nil, false
	}
	info, err := os.Lstat(c.file(d))
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, false
	}
	data, err := os.ReadFile(c.file(d))
	return data, err == nil
}

// Put keeps data for the layer, whole or not at all.
func (c DirCache) Put(d digest.Digest, data []byte) {
	if c == "" || d.Validate() != nil {
		return
	}
	name := c.file(d)
	if os.MkdirAll(filepath.Dir(name), 0o777) != nil {
		return
	}
	temp := name + "." + rand.Text()
	if os.WriteFile(temp, data, 0o666) != nil || os.Rename(temp, name) != nil {
		os.Remove(temp)
	}
}

// LookOptions say what a look is for.
type LookOptions struct {
	// Packages are the names it must tell of; once it does, and tells of the
	// directories, it stops. Nil: all there are, so it reads every layer.
	Packages []string
	// Cache keeps what each layer tells; nil: nothing does.
	Cache Cache
	// Known returns a look at this very image from elsewhere, or nil: from the
	// label [LabelLook] of an image baked from the same base. It is asked when the
	// cache does not do, and taken if it covers everything.
	Known func(*Image) *Look
	// Announce is told of each layer before it is read; nil: nobody is.
	Announce func(*Image, v1.Descriptor)
	// Read is told of n more compressed bytes; nil: nobody is.
	Read func(n int)
}

// Remembered returns what images baked before know of their bases, for
// [LookOptions.Known]. A label that cannot be read is none.
func Remembered(baked *Base) func(*Image) *Look {
	return func(base *Image) *Look {
		for _, i := range baked.Images {
			if i.Annotations[v1.AnnotationBaseImageDigest] != base.Descriptor.Digest.String() {
				continue
			}
			if l, err := DecodeLook(i.Config.Labels[LabelLook]); err == nil {
				return l
			}
		}
		return nil
	}
}

// lookAt reads the image's layers, the top one first, until all is known.
func lookAt(ctx context.Context, src manifest.Fetcher, i *Image, dirs []string, o LookOptions) (*Look, error) {
	if o.Known != nil && o.Cache != nil {
		kept := o
		kept.Known = nil
		if l, err := lookAt(ctx, onlyCached{}, i, dirs, kept.quiet()); !errors.Is(err, errNotCached) {
			return l, err
		}
	}
	if o.Known != nil {
		if l := o.Known(i); l != nil && l.Covers(dirs, o.Packages) && (l.Complete || o.Packages != nil) {
			return l.limit(dirs, o.Packages), nil
		}
	}
	asked := []string{}
	for _, d := range dirs {
		asked = append(asked, parents(d)...)
	}
	for range maxLinks + 1 {
		slices.Sort(asked)
		asked = slices.Compact(asked)
		l, missing, err := pass(ctx, src, i, dirs, asked, o)
		if err != nil || missing == nil {
			return l, err
		}
		asked = append(asked, missing...)
	}
	return nil, &PathError{dirs[0], "or another directory is behind too many links in the base"}
}

// errNotCached says that a layer would have to be read.
var errNotCached = errors.New("not in the cache")

// onlyCached has no layers.
type onlyCached struct{}

func (onlyCached) Fetch(context.Context, v1.Descriptor) (io.ReadCloser, error) {
	return nil, errNotCached
}

// quiet is o without anybody to tell.
func (o LookOptions) quiet() LookOptions {
	o.Announce, o.Read = nil, nil
	return o
}

// pass goes over the layers once. missing are paths that some layer was not
// asked for, because only now a link turned out to lead there.
func pass(ctx context.Context, src manifest.Fetcher, i *Image, dirs, asked []string, o LookOptions) (l *Look, missing []string, err error) {
	m := newMerged()
	l = &Look{Packages: map[string]string{}, Dirs: map[string]Dir{}, Complete: true}
	for n := len(i.Layers) - 1; n >= 0; n-- {
		r, err := layerRecord(ctx, src, i, i.Layers[n], asked, o)
		if err != nil {
			return nil, nil, err
		}
		m.add(r)
		if missing = m.unasked(dirs, asked); missing != nil {
			return nil, missing, nil
		}
		if n > 0 && m.enough(l, i, dirs, o.Packages) {
			l.Complete = false
			break
		}
	}
	m.environment(l, i.Config)
	if len(l.Packages) > maxLookPackages {
		return nil, nil, fmt.Errorf("look at %s: %d Python packages; at most %d are listed", i.Descriptor.Digest, len(l.Packages), maxLookPackages)
	}
	l.fill(dirs, m)
	return l.limit(dirs, o.Packages), nil, nil
}

// enough reports whether the layers below can add nothing.
func (m *merged) enough(l *Look, i *Image, dirs, packages []string) bool {
	if packages == nil {
		return false
	}
	for _, dir := range dirs {
		_, err := resolve(dir, func(p string) (Dir, bool) { return m.at(p), m.settled(p) })
		if _, unknown := errors.AsType[*errUnknown](err); unknown {
			return false
		}
	}
	if !m.environment(l, i.Config) {
		return len(packages) == 0
	}
	return !slices.ContainsFunc(packages, func(p string) bool {
		_, ok := l.Packages[Normalize(p)]
		return !ok
	})
}

// unasked are the paths, where links lead, that records may not tell of.
func (m *merged) unasked(dirs, asked []string) []string {
	for _, dir := range dirs {
		_, err := resolve(dir, func(p string) (Dir, bool) { return m.at(p), (&record{Asked: asked}).covers(p) })
		if u, ok := errors.AsType[*errUnknown](err); ok {
			return []string{u.path}
		}
	}
	return nil
}

// layerRecord is what one layer tells: from the cache, or read.
func layerRecord(ctx context.Context, src manifest.Fetcher, i *Image, d v1.Descriptor, asked []string, o LookOptions) (*record, error) {
	if o.Cache != nil {
		if data, ok := o.Cache.Get(d.Digest); ok {
			r := decodeRecord(data)
			if r != nil && !slices.ContainsFunc(asked, func(p string) bool { return !r.covers(p) }) {
				return r, nil
			}
			if r != nil && len(r.Asked) < maxAsked { // keep what others asked for
				asked = slices.Concat(asked, r.Asked)
				slices.Sort(asked)
				asked = slices.Compact(asked)
			}
		}
	}
	if o.Announce != nil {
		o.Announce(i, d)
	}
	rc, err := src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	in := manifest.ContextReader(ctx, rc)
	if o.Read != nil {
		in = &told{in, o.Read}
	}
	blob := newBlob(in, d)
	r, err := readRecord(blob, asked)
	if blob.err != nil {
		return nil, blob.err
	}
	if verr := blob.verify(); verr != nil {
		return nil, verr
	}
	if err != nil {
		return nil, fmt.Errorf("look at layer %s: %w", d.Digest, err)
	}
	if o.Cache != nil {
		o.Cache.Put(d.Digest, r.encode())
	}
	return r, nil
}

func readRecord(blob *blobReader, asked []string) (*record, error) {
	plain, done, err := unpack(blob, blob.d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrBadLayer, err)
	}
	defer done()
	return scan(plain, asked)
}

// told reports what is read.
type told struct {
	r io.Reader
	f func(int)
}

func (t *told) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 {
		t.f(n)
	}
	return n, err
}
