package manifest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest/joblib"
)

// ChangedError says that a file changed while it was read, or that it was no
// longer what had been hashed when it was read again to be sent.
type ChangedError struct {
	Path string
	Err  error // why it could not be read again; nil: it has other bytes
	// Cached says that [PackOptions.Cache] had told what it holds, and has
	// forgotten it now. Packing again will do.
	Cached bool
}

func (e *ChangedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("read %s: the file changed after it was hashed: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("read %s: the file changed while it was read", e.Path)
}

// Unwrap returns the cause.
func (e *ChangedError) Unwrap() error { return e.Err }

// source is one file to pack, with what was learned of it on the first read.
type source struct {
	Input
	size int64
	exec bool
	data []byte        // what it holds, if that is known before the first read
	sum  digest.Digest // empty before the first read
	past bool          // that was another's, and the file was there
	read func(path string, size int64, n int)

	scan   joblib.Options
	report *joblib.Report // after the first read

	cache  Cache
	id     string // by the cache; empty: nothing is remembered
	steady bool   // it was the same file before and after the first read
}

// newSource looks at the file without reading it.
func newSource(in Input, cache Cache) (*source, error) {
	f, err := in.Open()
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", in.Path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", in.Path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("pack %s: not a regular file", in.Path)
	}
	return &source{
		Input: in,
		size:  info.Size(),
		exec:  in.Role == RoleCode && info.Mode()&0o100 != 0,
		cache: cache,
		id:    identify(cache, info),
	}, nil
}

// mode is the file's mode in the artifact: constant, so that umask and owner
// do not reach the digest.
func (s *source) mode() fs.FileMode {
	if s.exec {
		return 0o755
	}
	return 0o644
}

// copyTo writes the file's bytes to w. The first call records their digest and
// what is in them, every call fails with [*ChangedError] if the size is no
// longer what it was.
func (s *source) copyTo(ctx context.Context, w io.Writer) error {
	if data := s.data; data != nil {
		s.data = nil
		r := bytes.NewReader(data)
		return s.firstRead(r, ContextReader(ctx, r), w)
	}
	f, err := s.Open()
	if err != nil && (s.sum != "" || s.past) {
		return &ChangedError{Path: s.Path, Err: err}
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	defer f.Close()
	r := ContextReader(ctx, f)
	if s.sum != "" {
		return s.exactly(f, r, w)
	}
	before, err := f.Stat()
	if err == nil {
		err = s.firstRead(f, r, w)
	}
	if err != nil {
		return err
	}
	after, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return &ChangedError{Path: s.Path}
	}
	s.steady = identify(s.cache, before) == s.id && identify(s.cache, after) == s.id
	return nil
}

// firstRead copies like exactly, and hashes and inspects on the way.
func (s *source) firstRead(src, r io.Reader, w io.Writer) error {
	h := sha256.New()
	stream := joblib.NewStream(s.scan)
	err := s.exactly(src, io.TeeReader(r, io.MultiWriter(s.watch(h), stream)), w)
	report, serr := stream.Close(err)
	if err == nil && serr != nil {
		err = fmt.Errorf("pack %s: %w", s.Path, serr)
	}
	s.sum, s.report = digest.NewDigest(digest.SHA256, h), report
	return err
}

// exactly copies as many bytes as the file had from r, which reads src, to w.
func (s *source) exactly(src, r io.Reader, w io.Writer) error {
	n, err := io.Copy(w, io.LimitReader(r, s.size))
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	// One byte more than expected shows that the file grew.
	if more, _ := io.ReadFull(src, make([]byte, 1)); n != s.size || more != 0 {
		return &ChangedError{Path: s.Path}
	}
	return nil
}

// watch passes on what is written and tells how much it was.
func (s *source) watch(w io.Writer) io.Writer {
	if s.read == nil {
		return w
	}
	return writerFunc(func(p []byte) (int, error) {
		s.read(s.Path, s.size, len(p))
		return w.Write(p)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// ContextReader reads from r until ctx is done, and then fails with its cause.
func ContextReader(ctx context.Context, r io.Reader) io.Reader { return &contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// writeTar writes the files below their artifact paths as a tar that depends
// on nothing but paths, bytes and the exec bit: entries in lexical order with
// explicit directories, constant owner, mode and time, two zero blocks at the
// end and no record padding (oras verifies what the tar reader consumed).
func writeTar(ctx context.Context, w io.Writer, files []*source) error {
	byPath := make(map[string]*source, len(files))
	var paths []string
	for _, s := range files {
		byPath[s.Path] = s
		paths = append(paths, s.Path)
		for dir := path.Dir(s.Path); dir != "."; dir = path.Dir(dir) {
			paths = append(paths, dir)
		}
	}
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		if err := writeEntry(ctx, w, p, byPath[p]); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 2*tarBlock))
	return err
}

// tarBlock is the size in bytes that everything in a tar is padded to.
const tarBlock = 512

// writeEntry writes one entry: the file, or a directory where s is nil. Only the
// header is archive/tar's: its writer would copy the file in small pieces.
func writeEntry(ctx context.Context, w io.Writer, p string, s *source) error {
	h := &tar.Header{ModTime: time.Unix(0, 0), Format: tar.FormatUnknown}
	if s == nil {
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, p+"/", 0o755
		return tar.NewWriter(w).WriteHeader(h)
	}
	h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeReg, p, int64(s.mode()), s.size
	if err := tar.NewWriter(w).WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	if err := s.copyTo(ctx, w); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, -s.size&(tarBlock-1)))
	return err
}

// Limits on foreign tar streams.
const (
	maxTarEntries = 100_000
	maxTarFile    = 1 << 40 // bytes of one file
)

// TarFile is one regular file in a layer's tar.
type TarFile struct {
	Path string
	Size int64
	Exec bool
}

// Untar calls fn for every regular file of the tar r, in order, with a reader
// of its bytes that is valid until fn returns. Directories are passed over.
// Entries that are links or devices, that leave the target, repeat a path or
// differ from an earlier one only in case are refused with an error that wraps
// [ErrUnsafePath] or [ErrBadTar]; so is a tar without an end or with more than
// 100,000 entries.
func Untar(r io.Reader, fn func(TarFile, io.Reader) error) error {
	tr := tar.NewReader(r)
	seen := make(pathSet)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			return drainTar(r)
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %w", ErrBadTar, err)
		}
		if err != nil {
			return err
		}
		if n == maxTarEntries {
			return fmt.Errorf("%w: more than %d entries", ErrBadTar, maxTarEntries)
		}
		name := strings.TrimSuffix(h.Name, "/")
		switch h.Typeflag {
		case tar.TypeDir:
			if name = path.Clean(name); name == "." {
				continue
			}
			if err := CheckPath(name); err != nil {
				return err
			}
			continue
		case tar.TypeReg:
		default:
			return fmt.Errorf("%w: %.200q is %s; artifacts hold only files and directories", ErrUnsafePath, h.Name, typeName(h.Typeflag))
		}
		if IsSparse(h) {
			return fmt.Errorf("%w: %.200q is a sparse file, which says it holds more than is there", ErrBadTar, h.Name)
		}
		// GNU tar writes ./path.
		f := TarFile{Path: strings.TrimPrefix(name, "./"), Size: h.Size, Exec: h.Mode&0o100 != 0}
		if err := seen.add(f.Path); err != nil {
			return err
		}
		if f.Size > maxTarFile {
			return fmt.Errorf("%w: %.200q says it holds %d bytes", ErrBadTar, f.Path, f.Size)
		}
		if err := fn(f, tr); err != nil {
			return err
		}
	}
}

// IsSparse reports whether archive/tar will make up zeros for the entry of a
// regular file, which no limit on the stream below would see.
func IsSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// ErrBadTar is wrapped by the errors of [Untar] for a malformed stream.
var ErrBadTar = errors.New("malformed tar")

// drainTar reads what follows the end of the archive, so that the digests over
// the whole stream can be compared. Tools pad to a record of 10 KiB or more;
// anything but zeros, or more than 1 MiB, is refused.
func drainTar(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for total := 0; ; {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return fmt.Errorf("%w: data after its end", ErrBadTar)
			}
		}
		if total += n; total > 1<<20 {
			return fmt.Errorf("%w: more than 1 MiB after its end", ErrBadTar)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func typeName(flag byte) string {
	switch flag {
	case tar.TypeSymlink:
		return "a symbolic link"
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a pipe"
	}
	return fmt.Sprintf("an entry of type %q", flag)
}

// pathSet holds the paths of one artifact, checked for collisions.
type pathSet map[string]string

// add checks p and refuses it if it was there before, in another case, or if a
// file would have to be a directory too.
func (s pathSet) add(p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	folded := strings.ToLower(p)
	if old, ok := s[folded]; ok {
		if old == "" {
			return fmt.Errorf("%w: %q is both a file and a directory", ErrUnsafePath, p)
		}
		if old == p {
			return fmt.Errorf("%w: %q is there twice", ErrUnsafePath, p)
		}
		return fmt.Errorf("%w: %q and %q differ only in case", ErrUnsafePath, old, p)
	}
	s[folded] = p
	for dir := path.Dir(folded); dir != "."; dir = path.Dir(dir) {
		if s[dir] != "" {
			return fmt.Errorf("%w: %q is both a file and a directory", ErrUnsafePath, s[dir])
		}
		s[dir] = ""
	}
	return nil
}
