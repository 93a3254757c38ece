package layout

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/manifest"
)

// ErrChanged says that an archive was replaced since it was opened.
var ErrChanged = errors.New("changed by another process")

// maxName bounds the name of a tar entry in bytes; that of a sha512 blob has
// 141.
const maxName = 1024

// blockSize is the unit of a tar in bytes.
const blockSize = 512

// Archive is an OCI image layout in a tar file, as docker, skopeo and oras
// write them too. It reads blobs where they lie, without unpacking; compressed
// tar files are refused.
//
// What is written is gathered beside the file and enters it with
// [Archive.Flush], which writes the whole file anew; what is not flushed is
// gone with the process. All methods may be called from several goroutines.
// Unlike a [Store] an archive serves one writing process at a time: of several
// one is heard, and Flush of the others fails with [ErrChanged].
type Archive struct {
	name string

	mu      sync.Mutex
	info    fs.FileInfo                      // of the file that was read; nil: there is none
	blobs   map[digest.Digest]section        // in that file
	index   index                            // that file's
	changes []func([]entry) ([]entry, error) // that index lacks
	dirty   bool                             // whether the file lacks some
	spool   *os.File                         // of new blobs, one after the other; nil: none yet
	end     int64                            // of the spool
	spooled map[digest.Digest]section        // in the spool, verified
}

// section is where a blob lies in a file, in bytes.
type section struct{ at, size int64 }

var (
	_ content.Storage     = (*Archive)(nil)
	_ content.TagResolver = (*Archive)(nil)
	_ content.Untagger    = (*Archive)(nil)
	_ registry.TagLister  = (*Archive)(nil)
)

// OpenArchive returns the layout in the tar file name. The error wraps
// [fs.ErrNotExist] when there is no such file and [ErrNotLayout] when it is
// something else, is cut short, or holds links, devices, sparse files, a name
// twice or one that leaves the archive.
func OpenArchive(name string) (*Archive, error) {
	a := &Archive{name: name}
	// A link stays one: what is written replaces the file it leads to.
	if real, err := filepath.EvalSymlinks(name); err == nil {
		a.name = real
	}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("open layout %q: %w", name, err)
	}
	return a, nil
}

// CreateArchive is like [OpenArchive], but takes a missing file for a layout
// without content, which the first [Archive.Flush] writes.
func CreateArchive(name string) (*Archive, error) {
	a, err := OpenArchive(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if _, err := os.Lstat(name); err == nil {
		return nil, fmt.Errorf("create layout %q: %w: a link that leads nowhere", name, ErrNotLayout)
	}
	a = &Archive{name: name}
	a.index, err = parseIndex([]byte(emptyIndex))
	return a, err
}

// load reads where everything lies in the file, and its index.
func (a *Archive) load() error {
	info, err := os.Stat(a.name) // before opening: a named pipe would wait
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %w", ErrNotLayout, errNotRegular)
	}
	f, err := os.Open(a.name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	files, err := readDirectory(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	mark, err := readSection(f, files, markFile, maxMark)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	var layout v1.ImageLayout
	if err := json.Unmarshal(mark, &layout); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotLayout, markFile, err)
	}
	if layout.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("layout version %.40q, want %q: %w", layout.Version, v1.ImageLayoutVersion, errdef.ErrUnsupportedVersion)
	}
	doc, err := readSection(f, files, indexFile, maxIndex)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	x, err := parseIndex(doc)
	if err != nil {
		return fmt.Errorf("read %s: %w: %w", indexFile, ErrCorrupt, err)
	}
	blobs := make(map[digest.Digest]section)
	for name, at := range files {
		alg, hex, _ := strings.Cut(strings.TrimPrefix(name, blobsDir+"/"), "/")
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
		if own, err := blobName(dgst); err == nil && own == name {
			blobs[dgst] = at
		}
	}
	a.info, a.blobs, a.index = info, blobs, x
	return nil
}

// readDirectory finds the regular files of a tar and refuses what a layout
// has no use for: it could only be there to deceive.
func readDirectory(f *os.File) (map[string]section, error) {
	files := make(map[string]section)
	end := int64(0)
	for r, n := tar.NewReader(f), 0; ; n++ {
		h, err := r.Next()
		at, seekErr := f.Seek(0, io.SeekCurrent) // tar reads whole blocks, nothing ahead
		switch {
		case seekErr != nil:
			return nil, seekErr
		case errors.Is(err, io.EOF) && at <= end:
			return nil, fmt.Errorf("cut short after %d bytes: %w", at, io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF):
			return files, nil
		case err != nil:
			return nil, err
		case n == maxEntries:
			return nil, fmt.Errorf("more than %d entries: %w", maxEntries, errdef.ErrSizeExceedsLimit)
		case len(h.Name) > maxName:
			return nil, fmt.Errorf("entry %.40q…: a name of %d bytes, at most %d", h.Name, len(h.Name), maxName)
		}
		end = at
		name := path.Clean(h.Name)
		_, twice := files[name]
		switch {
		case h.Typeflag == tar.TypeXGlobalHeader: // as git archive begins with; no file
			continue
		case !fs.ValidPath(name):
			return nil, fmt.Errorf("entry %q is outside the archive", h.Name)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg || isSparse(h):
			return nil, fmt.Errorf("entry %q is neither a file nor a directory", h.Name)
		case twice:
			return nil, fmt.Errorf("entry %q is there twice", h.Name)
		}
		files[name] = section{at, h.Size}
		end = at + (h.Size+blockSize-1)/blockSize*blockSize
	}
}

// isSparse reports whether an entry's bytes are not those that lie in the tar.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func readSection(f *os.File, files map[string]section, name string, limit int64) ([]byte, error) {
	at, ok := files[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("no file %s", name)
	case at.size > limit:
		return nil, fmt.Errorf("read %s: %d bytes, at most %d: %w", name, at.size, limit, errdef.ErrSizeExceedsLimit)
	}
	data := make([]byte, at.size)
	_, err := io.ReadFull(io.NewSectionReader(f, at.at, at.size), data)
	return data, err
}

// Fetch opens the blob of desc, as [Store.Fetch] does. The error wraps
// [ErrChanged] when the file is no longer the one that was opened.
func (a *Archive) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	rc, err := a.fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", desc.Digest, err)
	}
	return rc, nil
}

// blobReader reads one blob; it can seek and read at an offset.
type blobReader struct {
	*io.SectionReader
	io.Closer
}

func (a *Archive) fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkDigest(desc.Digest); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.spooled[desc.Digest]
	if ok && at.size == desc.Size {
		return blobReader{io.NewSectionReader(a.spool, at.at, at.size), io.NopCloser(nil)}, nil
	}
	if at, ok = a.blobs[desc.Digest]; !ok || at.size != desc.Size {
		return nil, errdef.ErrNotFound
	}
	f, err := a.open()
	if err != nil {
		return nil, err
	}
	return blobReader{io.NewSectionReader(f, at.at, at.size), f}, nil
}

// open opens the file that was read, and no other.
func (a *Archive) open() (*os.File, error) {
	f, err := os.Open(a.name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !a.same(info) {
		err = ErrChanged
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// same reports whether info is that of the file that was read.
func (a *Archive) same(info fs.FileInfo) bool {
	return os.SameFile(info, a.info) && info.Size() == a.info.Size() && info.ModTime().Equal(a.info.ModTime())
}

// Exists reports whether the archive has a blob of desc's digest and size.
func (a *Archive) Exists(_ context.Context, desc v1.Descriptor) (bool, error) {
	if err := checkDigest(desc.Digest); err != nil {
		return false, fmt.Errorf("look for blob: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, blobs := range []map[digest.Digest]section{a.spooled, a.blobs} {
		if at, ok := blobs[desc.Digest]; ok && at.size == desc.Size {
			return true, nil
		}
	}
	return false, nil
}

// Push gathers the bytes of r as the blob of desc. Its errors are those of
// [Store.Push].
func (a *Archive) Push(ctx context.Context, desc v1.Descriptor, r io.Reader) error {
	if err := a.push(ctx, desc, r); err != nil {
		return fmt.Errorf("push %s: %w", desc.Digest, err)
	}
	return nil
}

func (a *Archive) push(ctx context.Context, desc v1.Descriptor, r io.Reader) error {
	if desc.Size < 0 {
		return fmt.Errorf("size %d: %w", desc.Size, content.ErrInvalidDescriptorSize)
	}
	switch exists, err := a.Exists(ctx, desc); {
	case err != nil:
		return err
	case exists:
		return errdef.ErrAlreadyExists
	}
	spool, at, err := a.allot(desc.Size)
	if err != nil {
		return err
	}
	if err := copyVerified(io.NewOffsetWriter(spool, at), manifest.ContextReader(ctx, r), desc); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spool != spool {
		return errors.New("flushed while blobs were on their way")
	}
	a.spooled[desc.Digest] = section{at, desc.Size}
	return nil
}

// Resolve returns the descriptor of a tag or of a digest, as [Store.Resolve]
// does.
func (a *Archive) Resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	desc, err := a.resolve(ctx, reference)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("resolve %q: %w", reference, err)
	}
	return desc, nil
}

func (a *Archive) resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	if reference == "" {
		return v1.Descriptor{}, errdef.ErrMissingReference
	}
	dgst := digest.Digest(reference)
	if checkDigest(dgst) != nil {
		x, err := a.current()
		if err != nil {
			return v1.Descriptor{}, err
		}
		return x.find(reference, func(e entry) bool { return e.name == reference })
	}
	a.mu.Lock()
	at, ok := a.spooled[dgst]
	if !ok {
		at, ok = a.blobs[dgst]
	}
	a.mu.Unlock()
	desc := v1.Descriptor{Digest: dgst, Size: at.size}
	if !ok || desc.Size > maxManifest {
		return v1.Descriptor{}, errdef.ErrNotFound
	}
	data, err := content.FetchAll(ctx, a, desc)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if desc.MediaType = manifestType(data); desc.MediaType == "" {
		return v1.Descriptor{}, fmt.Errorf("a blob, but no manifest: %w", errdef.ErrNotFound)
	}
	return desc, nil
}

// current returns the index with the changes made since it was read.
func (a *Archive) current() (index, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.apply()
}

// apply carries out the changes, which wait until somebody looks, because each
// costs a pass over the index.
func (a *Archive) apply() (index, error) {
	if len(a.changes) == 0 {
		return a.index, nil
	}
	entries, err := a.index.entries()
	for _, change := range a.changes {
		if err == nil {
			entries, err = change(entries)
		}
	}
	if err != nil {
		return index{}, err
	}
	doc, err := a.index.withEntries(entries)
	if err != nil {
		return index{}, err
	}
	x, err := parseIndex(doc)
	if err == nil {
		a.index, a.changes = x, nil
	}
	return x, err
}

// Tag points a tag at the manifest of desc, or lists it without a name, as
// [Store.Tag] does.
func (a *Archive) Tag(ctx context.Context, desc v1.Descriptor, reference string) error {
	if err := a.tag(ctx, desc, reference); err != nil {
		return fmt.Errorf("tag %s as %q: %w", desc.Digest, reference, err)
	}
	return nil
}

func (a *Archive) tag(ctx context.Context, desc v1.Descriptor, reference string) error {
	name := reference
	if reference == desc.Digest.String() {
		name = ""
	} else if err := (registry.Reference{Reference: reference}).ValidateReferenceAsTag(); err != nil {
		return err
	}
	if desc.MediaType == "" {
		return fmt.Errorf("%q: %w", desc.MediaType, errdef.ErrInvalidMediaType)
	}
	switch exists, err := a.Exists(ctx, desc); {
	case err != nil:
		return err
	case !exists:
		return errdef.ErrNotFound
	}
	if desc.ArtifactType == "" {
		// As a push knows it and a registry's HEAD does not say it: however
		// content came, the file is the same.
		if n, _, err := a.node(ctx, desc.Digest); err == nil {
			desc.ArtifactType = n.ArtifactType
		}
	}
	added, err := newEntry(desc, name)
	if err != nil {
		return err
	}
	a.change(func(entries []entry) ([]entry, error) {
		if name == "" && slices.ContainsFunc(entries, func(e entry) bool { return e.digest == desc.Digest }) {
			return entries, nil
		}
		return append(entries, added), nil // the last of a name stays
	})
	return nil
}

func (a *Archive) change(f func([]entry) ([]entry, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes, a.dirty = append(a.changes, f), true
}

// Untag removes a tag, as [Store.Untag] does: its manifest stays.
func (a *Archive) Untag(_ context.Context, tag string) error {
	x, err := a.current()
	if err == nil && !slices.Contains(x.tags(""), tag) {
		err = errdef.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("untag %q: %w", tag, err)
	}
	a.change(func(entries []entry) ([]entry, error) {
		for i := range entries {
			if entries[i].name != tag {
				continue
			}
			if err := entries[i].drop(); err != nil {
				return nil, err
			}
		}
		return entries, nil
	})
	return nil
}

// Tags calls fn with the tags after last, in byte order, once, or not at all
// when there are none.
func (a *Archive) Tags(_ context.Context, last string, fn func(tags []string) error) error {
	x, err := a.current()
	if err != nil {
		return fmt.Errorf("list tags: %w", err)
	}
	tags := x.tags(last)
	if len(tags) == 0 {
		return nil
	}
	return fn(tags)
}
