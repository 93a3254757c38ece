package manifest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Walk reads the layer's blob from r and calls fn for each of its files with a
// reader of the file's bytes, valid until fn returns. It holds a few MiB a core
// in memory whatever the sizes, and reads r ahead, from another goroutine; when
// it returns nobody does. The blob and its files are checked against every
// size and digest that the artifact tells; since some of these are known only
// at the end, what fn has seen is right only if Walk returns no error. It
// returns the diffID, computed where the artifact does not tell everything of
// the layer, and else taken from there. Errors are those of r and fn, a
// [*CorruptError], or wrap [ErrBadTar] or [ErrUnsafePath].
func (l *Layer) Walk(r io.Reader, fn func(File, io.Reader) error) (digest.Digest, error) {
	blob := newBlobReader(r, l.Descriptor, "layer "+l.Title)
	w := &walker{Layer: l, fn: fn}
	diffID, err := w.walk(blob)
	if err != nil {
		return "", blob.explain(err)
	}
	if err := blob.verify(); err != nil {
		return "", err
	}
	return diffID, w.checkDiffID(diffID)
}

// walker is one reading of a layer.
type walker struct {
	*Layer
	fn func(File, io.Reader) error
	// thorough readings trust no diffID, and go on after a fault.
	thorough bool
	faults   []error
}

// fault ends the reading with e, or is kept for its end.
func (l *walker) fault(e *CorruptError) error {
	if !l.thorough {
		return e
	}
	l.faults = append(l.faults, e)
	return nil
}

func (l *walker) checkDiffID(got digest.Digest) error {
	if l.DiffID != "" && got != l.DiffID {
		return &CorruptError{"layer " + l.Title + ", uncompressed,", l.DiffID.String(), got.String()}
	}
	return nil
}

func (l *walker) walk(blob *blobReader) (digest.Digest, error) {
	if l.Format == FormatRaw {
		for _, f := range l.Files { // one, or none without a path
			if err := l.fn(f, blob); err != nil {
				return "", err
			}
		}
		return l.DiffID, nil
	}
	plain, done, err := decompress(l.Format, blob)
	if err != nil {
		return "", &decodeError{err}
	}
	defer done()
	limited := &limitedReader{plain, maxPlain(l.Layer)}
	if l.complete() && !l.thorough {
		return l.DiffID, l.walkTar(limited)
	}
	h := sha256.New()
	err = l.walkTar(io.TeeReader(limited, h))
	return digest.NewDigest(digest.SHA256, h), err
}

// walkTar visits the files of the tar, which must be those that are listed,
// where there is a list.
func (l *walker) walkTar(r io.Reader) error {
	listed := make(map[string]File, len(l.Files))
	for _, f := range l.Files {
		listed[f.Path] = f
	}
	err := Untar(r, func(t TarFile, r io.Reader) error {
		f := File{Path: t.Path, Role: roleOf(l.Descriptor.MediaType, t.Path), Size: t.Size, Exec: t.Exec}
		if l.Files != nil {
			want, ok := listed[t.Path]
			if !ok {
				return l.fault(&CorruptError{"layer " + l.Title, "the files it lists", fmt.Sprintf("also %q", t.Path)})
			}
			delete(listed, t.Path)
			if want.Size >= 0 && want.Size != t.Size {
				return l.fault(&CorruptError{t.Path, fmt.Sprintf("%d bytes", want.Size), fmt.Sprintf("%d bytes", t.Size)})
			}
			f.Role, f.Digest = want.Role, want.Digest
		}
		return l.visit(f, r)
	})
	if err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(listed)) {
		if err := l.fault(&CorruptError{"layer " + l.Title, fmt.Sprintf("%q in it", p), "none"}); err != nil {
			return err
		}
	}
	return nil
}

// visit calls l.fn with a reader of the file, reads what fn has left, and checks
// the file's digest if there is one to check.
func (l *walker) visit(f File, r io.Reader) error {
	h := sha256.New()
	if f.Digest != "" {
		r = io.TeeReader(r, h)
	}
	if err := l.fn(f, r); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if f.Digest == "" {
		return nil
	}
	if got := digest.NewDigest(digest.SHA256, h); got != f.Digest {
		return l.fault(&CorruptError{f.Path, f.Digest.String(), got.String()})
	}
	return nil
}

// decompress returns a reader of the tar and a function that frees it.
func decompress(f Format, r io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	switch f {
	case FormatTarGzip:
		z, err := newGzipReader(r)
		return &decodeReader{z}, func() { z.Close() }, err
	case FormatTarZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, nothing, err
		}
		return &decodeReader{z}, z.Close, nil
	}
	return r, nothing, nil
}

// ErrBadLayer is wrapped by the errors of [Layer.Walk] about a layer whose blob
// is the one that was promised and cannot be unpacked.
var ErrBadLayer = errors.New("malformed layer")

// decodeError marks an error of a decompressor, which may only echo that the
// blob below it is wrong.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

type decodeReader struct{ r io.Reader }

func (d *decodeReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = &decodeError{err}
	}
	return n, err
}

// maxPlain bounds what a layer may inflate to, in bytes: what its list of files
// says with room for headers and directories, or else what the compressor can
// reach at the most.
func maxPlain(l *Layer) int64 {
	const room = 1 << 20
	ratio := int64(1100) // deflate: 1032 to 1
	if l.Format == FormatTarZstd {
		ratio = 40_000 // a block of 128 KiB in 4 bytes
	}
	total := int64(room)
	for _, f := range l.Files {
		if f.Size < 0 {
			return ratio*l.Descriptor.Size + room
		}
		// A header and its PAX records for the file and each directory.
		entries := int64(strings.Count(f.Path, "/") + 1)
		total += f.Size + entries*(4096+int64(len(f.Path)))
	}
	if l.Files == nil {
		return ratio*l.Descriptor.Size + room
	}
	return total
}

// limitedReader fails past a limit, where io.LimitReader ends.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (u *limitedReader) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return n, fmt.Errorf("%w: it inflates to more than it says", ErrBadTar)
	}
	return n, err
}

// blobReader reads a blob and checks size and digest at its end. It never
// reads more than one byte past the promised size.
type blobReader struct {
	r    io.Reader
	d    v1.Descriptor
	what string
	h    hash.Hash
	n    int64
	err  error // of r
}

func newBlobReader(r io.Reader, d v1.Descriptor, what string) *blobReader {
	return &blobReader{r: io.LimitReader(r, d.Size+1), d: d, what: what, h: d.Digest.Algorithm().Hash()}
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.h.Write(p[:n])
	if b.n > b.d.Size {
		return n, b.sizeError("more")
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

func (b *blobReader) sizeError(got string) error {
	return &CorruptError{b.what, fmt.Sprintf("%d bytes", b.d.Size), got}
}

// verify reads what is left and checks the whole.
func (b *blobReader) verify() error {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return err
	}
	if b.n != b.d.Size {
		return b.sizeError(fmt.Sprintf("%d", b.n))
	}
	if got := digest.NewDigest(b.d.Digest.Algorithm(), b.h); got != b.d.Digest {
		return &CorruptError{b.what, b.d.Digest.String(), got.String()}
	}
	return nil
}

// explain tells why reading the layer ended with err: an error of the
// connection is the cause of what the readers above made of it, and so is a
// blob with other bytes than promised.
func (b *blobReader) explain(err error) error {
	if b.err != nil {
		return b.err
	}
	var decode *decodeError
	var corrupt *CorruptError
	broken := errors.As(err, &decode) || errors.Is(err, ErrBadTar) || errors.Is(err, io.ErrUnexpectedEOF)
	if broken || errors.As(err, &corrupt) {
		if verr := b.verify(); verr != nil {
			return verr
		}
	}
	if broken {
		return fmt.Errorf("%s: %w: %w", b.what, ErrBadLayer, err)
	}
	return err
}
