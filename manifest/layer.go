package manifest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// packedLayer is a layer that streams from its source files as often as it is
// opened, unless it is small enough to be kept.
type packedLayer struct {
	role   Role
	format Format
	title  string
	files  []*source
	desc   v1.Descriptor
	diffID digest.Digest
	kept   [][]byte // its first bytes, or all; the rest is packed again

	cache    Cache
	key      string // of what the cache remembers of it; empty: nothing
	recalled bool   // the files were not read
}

// maxKept bounds the packed bytes of an artifact, in all, that are kept in
// memory between hashing and sending: a forest of the usual size is packed once,
// and no push takes more than 40 MB in all.
const maxKept = 6 << 20

// layersOf groups the files into layers: model files by their top-level
// directory, because oras refuses two layers of one title and titles that
// nest; every other file on its own.
func layersOf(files []*source, format Format) []*packedLayer {
	var layers []*packedLayer
	dirs := make(map[string]*packedLayer)
	for _, role := range Roles() {
		for _, s := range files {
			if s.Role != role {
				continue
			}
			if role != RoleModel && role != RolePart || format == FormatRaw || s.MediaType != "" {
				layers = append(layers, &packedLayer{role: role, format: FormatRaw, title: s.Path, files: []*source{s}})
				continue
			}
			dir, _, below := strings.Cut(s.Path, "/")
			if !below {
				dir = "."
			}
			if dirs[dir] == nil {
				dirs[dir] = &packedLayer{role: role, format: format, title: tarTitle(dir, format)}
				layers = append(layers, dirs[dir])
			}
			dirs[dir].files = append(dirs[dir].files, s)
		}
	}
	return layers
}

// tarTitle names a tar layer. What oras unpacks is titled with the directory
// it makes, anything else with a file name of its own.
func tarTitle(dir string, f Format) string {
	if f == FormatTarGzip {
		return dir
	}
	if dir == "." {
		dir = "model"
	}
	return dir + map[Format]string{FormatTar: ".tar", FormatTarZstd: ".tar.zst"}[f]
}

// measure reads the layers' files once and fills in digests, sizes and
// annotations. A tar layer keeps every core busy by itself, so these go one
// after another; the rest are small and go along. What the cache remembers is
// not read. At most room bytes of the layers are kept.
func measure(ctx context.Context, layers []*packedLayer, o PackOptions, room int64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	var left atomic.Int64
	left.Store(room)
	g.Go(func() error {
		for _, l := range layers {
			if l.format == FormatRaw {
				continue
			}
			if err := l.measure(ctx, o, &left); err != nil {
				return err
			}
		}
		return nil
	})
	for _, l := range layers {
		if l.format == FormatRaw {
			g.Go(func() error { return l.measure(ctx, o, &left) })
		}
	}
	return g.Wait()
}

func (l *packedLayer) measure(ctx context.Context, o PackOptions, room *atomic.Int64) (err error) {
	if l.recall(o.Cache) {
		return l.describe()
	}
	c := &counter{h: sha256.New()}
	diff := sha256.New()
	if l.format == FormatRaw {
		// The file's own digest is the layer's.
		c.h, diff = nil, nil
	}
	to := []io.Writer{c}
	k := &keeper{room: room, begin: l.format == FormatTarGzip}
	if l.keepable() {
		to = append(to, k)
	}
	if s := l.ahead(o); s != nil {
		defer func() { s.End(v1.Descriptor{Digest: l.desc.Digest, Size: l.desc.Size}, err) }()
		to = append(to, &tap{s})
	}
	if err := l.write(ctx, io.MultiWriter(to...), diff); err != nil {
		return err
	}
	l.kept = k.chunks
	l.desc.Digest, l.desc.Size = l.files[0].sum, c.n
	l.diffID = l.desc.Digest
	if l.format != FormatRaw {
		l.desc.Digest = digest.NewDigest(digest.SHA256, c.h)
		l.diffID = digest.NewDigest(digest.SHA256, diff)
	}
	l.remember()
	return l.describe()
}

// ahead is where the layer's bytes go while they are packed, or nil.
func (l *packedLayer) ahead(o PackOptions) Stream {
	if o.Ahead == nil {
		return nil
	}
	return o.Ahead(l.title, l.filesSize())
}

func (l *packedLayer) filesSize() (n int64) {
	for _, s := range l.files {
		n += s.size
	}
	return n
}

// tap writes to a stream until that fails.
type tap struct{ s Stream }

func (t *tap) Write(p []byte) (int, error) {
	if t.s != nil {
		if _, err := t.s.Write(p); err != nil {
			t.s = nil
		}
	}
	return len(p), nil
}

// describe completes the descriptor, when the files are known.
func (l *packedLayer) describe() (err error) {
	l.desc.MediaType = mediaType(l.role, l.format)
	if custom := l.files[0].MediaType; custom != "" {
		l.desc.MediaType = custom
	}
	l.desc.Annotations, err = l.annotations()
	return err
}

// keepable reports whether it is worth trying to keep the layer. What is larger
// would have to shrink more than models do, or to be packed again but for a small
// part of it, and fill the memory in vain.
func (l *packedLayer) keepable() bool {
	most := int64(maxKept)
	switch l.format {
	case FormatTarGzip:
		most *= 32
	case FormatTarZstd:
		most *= 8
	}
	return l.filesSize() <= most
}

func (l *packedLayer) keptSize() (n int64) {
	for _, c := range l.kept {
		n += int64(len(c))
	}
	return n
}

// keeper holds on to what is written to it while there is room, which it shares
// with others. If that is not all, it holds the beginning or nothing.
type keeper struct {
	room   *atomic.Int64 // bytes
	begin  bool
	size   int64
	full   bool
	chunks [][]byte
}

func (k *keeper) Write(p []byte) (int, error) {
	n := int64(len(p))
	if k.full {
		return len(p), nil
	}
	if k.room.Add(-n) < 0 {
		k.room.Add(n)
		if k.full = true; !k.begin {
			k.room.Add(k.size)
			k.chunks = nil
		}
		return len(p), nil
	}
	k.size += n
	k.chunks = append(k.chunks, bytes.Clone(p))
	return len(p), nil
}

// write streams the layer's bytes to w and its uncompressed bytes to diff,
// unless that is nil. What is kept is not packed again.
func (l *packedLayer) write(ctx context.Context, w io.Writer, diff hash.Hash) error {
	switch l.format {
	case FormatTarGzip:
		z := newGzipWriter(w, diff)
		z.known = l.kept
		err := writeTar(ctx, z, l.files)
		if cerr := z.Close(); err == nil {
			err = cerr
		}
		return err
	case FormatTarZstd:
		// One goroutine: the encoder's output depends on how it splits work.
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return err
		}
		// Its ReadFrom would make other blocks than its Write.
		err = writeTar(ctx, tee(struct{ io.Writer }{z}, diff), l.files)
		if cerr := z.Close(); err == nil {
			err = cerr
		}
		return err
	case FormatTar:
		return writeTar(ctx, tee(w, diff), l.files)
	default:
		return l.files[0].copyTo(ctx, w)
	}
}

func tee(w io.Writer, h hash.Hash) io.Writer {
	if h == nil {
		return w
	}
	return io.MultiWriter(w, h)
}

// counter counts what is written and hashes it, if h is not nil.
type counter struct {
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	if c.h != nil {
		c.h.Write(p)
	}
	c.n += int64(len(p))
	return len(p), nil
}

// open returns the layer's bytes, as they are kept or packed again. Reading ends
// with [*ChangedError] instead of io.EOF if these are not those that were
// measured.
func (l *packedLayer) open(ctx context.Context) io.ReadCloser {
	if l.kept != nil && l.keptSize() == l.desc.Size {
		var all []io.Reader
		for _, c := range l.kept {
			all = append(all, bytes.NewReader(c))
		}
		return io.NopCloser(ContextReader(ctx, io.MultiReader(all...)))
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	r := &layerReader{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		c := &counter{h: sha256.New()}
		err := l.write(ctx, io.MultiWriter(pw, c), nil)
		if err == nil && digest.NewDigest(digest.SHA256, c.h) != l.desc.Digest {
			err = l.changed(ctx)
		}
		pw.CloseWithError(err)
	}()
	return r
}

// changed finds out which of the files has other bytes than when it was read
// first.
func (l *packedLayer) changed(ctx context.Context) error {
	for _, s := range l.files[1:] {
		h := sha256.New()
		if err := s.copyTo(ctx, h); err != nil {
			return err
		}
		if digest.NewDigest(digest.SHA256, h) != s.sum {
			return &ChangedError{Path: s.Path}
		}
	}
	return &ChangedError{Path: l.files[0].Path}
}

// layerReader is the reading end of a layer being packed.
type layerReader struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close stops the packing and waits for its goroutines.
func (r *layerReader) Close() error {
	r.cancel()
	r.PipeReader.Close()
	<-r.done
	return nil
}

// fileMetadata is the ModelPack annotation of a layer's file; only name, size
// and kind vary.
type fileMetadata struct {
	Name     string    `json:"name"`
	Mode     uint32    `json:"mode"`
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Size     int64     `json:"size"`
	ModTime  time.Time `json:"mtime"`
	Typeflag byte      `json:"typeflag"` // modctl writes 0 for a file, 5 for a directory
}

// packedFile is an element of the annotation ml.galley.files.
type packedFile struct {
	Path   string `json:"path"`
	Role   Role   `json:"role,omitempty"` // where it is not the layer's
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func (l *packedLayer) annotations() (map[string]string, error) {
	filepath := l.title
	first := l.files[0]
	meta := fileMetadata{Name: path.Base(first.Path), Mode: uint32(first.mode()), Size: first.size, ModTime: time.Unix(0, 0).UTC()}
	if len(l.files) == 1 {
		filepath = first.Path
	} else {
		meta.Name, meta.Mode, meta.Size, meta.Typeflag = l.title, 0o755, 0, 5
	}
	text, err := marshal(meta)
	if err != nil {
		return nil, err
	}
	a := map[string]string{
		annotationTitle:        l.title,
		annotationFilepath:     filepath,
		annotationFileMetadata: string(text),
		AnnotationRole:         string(l.role),
	}
	if l.format == FormatRaw {
		return a, nil
	}
	var files []File
	for _, s := range l.files {
		files = append(files, File{Path: s.Path, Role: s.Role, Size: s.size, Digest: s.sum})
	}
	a[AnnotationFiles] = FormatFiles(files, l.role)
	if l.format == FormatTarGzip {
		a[annotationOrasUnpack] = "true"
		a[annotationOrasDigest] = l.diffID.String()
	}
	return a, nil
}

// FormatFiles writes the annotation ml.galley.files: the path, size and SHA-256
// of each file, which must be known, and the role of those that have another
// than the one given.
func FormatFiles(files []File, role Role) string {
	packed := make([]packedFile, 0, len(files))
	for _, f := range files {
		p := packedFile{Path: f.Path, Size: f.Size, SHA256: f.Digest.Encoded()}
		if f.Role != role {
			p.Role = f.Role
		}
		packed = append(packed, p)
	}
	text, _ := marshal(packed) // strings and numbers always marshal
	return string(text)
}

// marshal writes compact JSON without HTML escapes, the one encoder behind
// every digest.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}
