package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	_ "crypto/sha256" // so that go-digest has both algorithms
	_ "crypto/sha512"

	"galley/manifest"
)

// Fetch opens the blob of desc. The reader is an [*os.File], so it can seek
// and read at an offset; it is the caller's to close. The bytes are not
// verified: wrap the reader with [content.NewVerifyReader].
//
// The error wraps [errdef.ErrNotFound] when the blob is absent or its size is
// not desc.Size, and [errdef.ErrInvalidDigest].
func (s *Store) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	f, size, err := s.openBlob(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", desc.Digest, err)
	}
	if size != desc.Size {
		f.Close()
		return nil, fmt.Errorf("fetch %s: want %d bytes, the stored blob has %d: %w", desc.Digest, desc.Size, size, errdef.ErrNotFound)
	}
	return f, nil
}

// Blob opens a blob of which only the digest is known, and returns its size in
// bytes. The file is the caller's to close, and not verified. The error wraps
// [errdef.ErrInvalidDigest], or [errdef.ErrNotFound], also when the size is none
// that a manifest in the store says the blob has.
func (s *Store) Blob(ctx context.Context, dgst digest.Digest) (*os.File, int64, error) {
	f, size, err := s.openBlob(ctx, dgst)
	if err != nil {
		return nil, 0, fmt.Errorf("open blob %s: %w", dgst, err)
	}
	switch torn, err := s.torn(ctx, dgst, size); {
	case ctx.Err() != nil:
		f.Close()
		return nil, 0, fmt.Errorf("open blob %s: %w", dgst, ctx.Err())
	case err == nil && torn: // without a sound index.json nobody knows
		f.Close()
		return nil, 0, fmt.Errorf("open blob %s: the stored blob has %d bytes, which is not its size: %w", dgst, size, errdef.ErrNotFound)
	}
	return f, size, nil
}

func (s *Store) openBlob(ctx context.Context, dgst digest.Digest) (*os.File, int64, error) {
	root, err := s.root(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	return openBlob(root, dgst)
}

// Exists reports whether the store has a blob of desc's digest and size; a
// blob of another size was torn by a power loss and counts as absent. As the
// caller may now rely on the blob, [Store.GC] spares it for another hour. The
// error wraps [errdef.ErrInvalidDigest].
func (s *Store) Exists(ctx context.Context, desc v1.Descriptor) (bool, error) {
	f, err := s.Fetch(ctx, desc)
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f.Close()
	return s.renew(ctx, desc.Digest)
}

// Push stores the bytes of r as the blob of desc. It reads no further than one
// byte past desc.Size, and returns once the blob is on disk.
//
// The error wraps [errdef.ErrAlreadyExists] when the blob is there, which is
// told by its size and not by reading it; [io.ErrUnexpectedEOF] or
// [content.ErrTrailingData] when r is shorter or longer than desc.Size;
// [content.ErrMismatchedDigest]; [errdef.ErrInvalidDigest]; or the error of r.
// In all these cases the store is as it was.
func (s *Store) Push(ctx context.Context, desc v1.Descriptor, r io.Reader) error {
	if err := s.push(ctx, desc, r); err != nil {
		return fmt.Errorf("push %s: %w", desc.Digest, err)
	}
	return nil
}

func (s *Store) push(ctx context.Context, desc v1.Descriptor, r io.Reader) error {
	name, err := blobName(desc.Digest)
	if err != nil {
		return err
	}
	if desc.Size < 0 {
		return fmt.Errorf("size %d: %w", desc.Size, content.ErrInvalidDescriptorSize)
	}
	switch exists, err := s.Exists(ctx, desc); {
	case err != nil:
		return err
	case exists:
		return errdef.ErrAlreadyExists
	}
	root, err := s.create(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	s.sweep(root)
	if err := makeDir(root, path.Dir(name)); err != nil {
		return err
	}
	return replaceFile(root, name, func(w io.Writer) error {
		return copyVerified(w, manifest.ContextReader(ctx, r), desc)
	})
}

// copyVerified copies r to w and fails unless desc describes what it copied.
func copyVerified(w io.Writer, r io.Reader, desc v1.Descriptor) error {
	hash := desc.Digest.Algorithm().Hash()
	n, err := io.Copy(io.MultiWriter(w, hash), &io.LimitedReader{R: r, N: desc.Size})
	if err != nil {
		return err
	}
	if n < desc.Size {
		return fmt.Errorf("want %d bytes, got %d: %w", desc.Size, n, io.ErrUnexpectedEOF)
	}
	switch _, err := io.ReadFull(r, make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("want %d bytes, got more: %w", desc.Size, content.ErrTrailingData)
	case !errors.Is(err, io.EOF):
		return err
	}
	if got := digest.NewDigest(desc.Digest.Algorithm(), hash); got != desc.Digest {
		return fmt.Errorf("got %s: %w", got, content.ErrMismatchedDigest)
	}
	return nil
}

// openBlob opens a blob and returns its size on disk in bytes.
func openBlob(root *os.Root, dgst digest.Digest) (*os.File, int64, error) {
	name, err := blobName(dgst)
	if err != nil {
		return nil, 0, err
	}
	f, size, err := openFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, errdef.ErrNotFound
	}
	return f, size, err
}

// blobName returns the file name of a blob, having checked that it is one.
func blobName(dgst digest.Digest) (string, error) {
	if err := checkDigest(dgst); err != nil {
		return "", err
	}
	return path.Join(blobsDir, dgst.Algorithm().String(), dgst.Encoded()), nil
}

func checkDigest(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("%.200q: %w: %w", dgst, errdef.ErrInvalidDigest, err)
	}
	switch alg := dgst.Algorithm(); alg {
	case digest.SHA256, digest.SHA512:
		return nil
	default:
		return fmt.Errorf("algorithm %s: %w", alg, errdef.ErrInvalidDigest)
	}
}
