package layout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/manifest"
)

// Upload is a blob that comes in parts and whose digest is told last. Between
// two parts it lies in the layout's directory under its ID, where any process
// may take it up with [Store.ResumeUpload]; one that nobody went on with for a
// day is removed.
//
// Who has an Upload has it alone: until it is closed nobody else finds its ID.
// Its methods must not be called at the same time.
type Upload struct {
	id   string
	root *os.Root
	f    *os.File
	temp string // what the file is called now
	size int64
}

// StartUpload begins an upload. The caller ends it with [Upload.Commit] or
// [Upload.Cancel], or lets it rest with [Upload.Close].
func (s *Store) StartUpload(ctx context.Context) (*Upload, error) {
	u, err := s.startUpload(ctx)
	if err != nil {
		return nil, fmt.Errorf("start upload: %w", err)
	}
	return u, nil
}

func (s *Store) startUpload(ctx context.Context) (*Upload, error) {
	root, err := s.create(ctx)
	if err != nil {
		return nil, err
	}
	s.sweep(root)
	u := &Upload{id: rand.Text(), root: root, temp: tempPrefix + rand.Text()}
	u.f, err = root.OpenFile(u.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		root.Close()
		return nil, err
	}
	return u, nil
}

// ResumeUpload takes up an upload that was closed, as long as it was. The error
// wraps [errdef.ErrNotFound] when there is none of the ID, or another caller
// has it.
func (s *Store) ResumeUpload(ctx context.Context, id string) (*Upload, error) {
	u, err := s.resumeUpload(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("resume upload %.40q: %w", id, err)
	}
	return u, nil
}

func (s *Store) resumeUpload(ctx context.Context, id string) (*Upload, error) {
	if id == "" || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" { // of rand.Text
		return nil, errdef.ErrNotFound
	}
	root, err := s.root(ctx)
	if err != nil {
		return nil, err
	}
	u := &Upload{id: id, root: root, temp: tempPrefix + rand.Text()}
	if err := u.take(); err != nil {
		root.Close()
		return nil, err
	}
	return u, nil
}

// take renames the upload, which only one can do, and opens it.
func (u *Upload) take() error {
	name := uploadPrefix + u.id
	info, err := u.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		return errNotRegular
	}
	if err == nil && time.Since(info.ModTime()) > maxTempAge {
		return errdef.ErrNotFound // to be swept any moment
	}
	if err == nil {
		err = u.root.Rename(name, u.temp)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errdef.ErrNotFound
	}
	if err != nil {
		return err
	}
	u.size = info.Size()
	u.f, err = u.root.OpenFile(u.temp, os.O_RDWR, 0)
	return err
}

// ID is by what [Store.ResumeUpload] finds the upload.
func (u *Upload) ID() string { return u.id }

// Size is how many bytes have been uploaded.
func (u *Upload) Size() int64 { return u.size }

// Append adds what r has. When r or the disk fails, what came before stays, so
// that a client that was cut can go on there: [Upload.Size] says where.
func (u *Upload) Append(ctx context.Context, r io.Reader) error {
	if err := u.append(ctx, u.f, r); err != nil {
		return errors.Join(fmt.Errorf("append to upload: %w", err), u.f.Truncate(u.size))
	}
	return nil
}

// Rewind forgets all but the first size bytes.
func (u *Upload) Rewind(size int64) error {
	u.size = min(u.size, size)
	return u.f.Truncate(u.size)
}

// append adds what r has by way of w, which writes to the file.
func (u *Upload) append(ctx context.Context, w io.Writer, r io.Reader) error {
	if _, err := u.f.Seek(u.size, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(w, manifest.ContextReader(ctx, r))
	u.size += n
	return err
}

// Commit adds what r has and makes the upload the blob of dgst, on disk. The
// error is that of r, or wraps [content.ErrMismatchedDigest] or
// [errdef.ErrInvalidDigest]. In any case the upload is over and closed.
func (u *Upload) Commit(ctx context.Context, dgst digest.Digest, r io.Reader) (v1.Descriptor, error) {
	if err := u.commit(ctx, dgst, r); err != nil {
		u.Cancel()
		return v1.Descriptor{}, fmt.Errorf("commit upload as %s: %w", dgst, err)
	}
	return v1.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: u.size}, nil
}

func (u *Upload) commit(ctx context.Context, dgst digest.Digest, r io.Reader) error {
	name, err := blobName(dgst)
	if err != nil {
		return err
	}
	// What came before is read again, and the rest hashed as it comes: the
	// usual upload, of one part, is never read.
	hash := dgst.Algorithm().Hash()
	if _, err := io.Copy(hash, manifest.ContextReader(ctx, io.NewSectionReader(u.f, 0, u.size))); err != nil {
		return err
	}
	if err := u.append(ctx, io.MultiWriter(u.f, hash), r); err != nil {
		return err
	}
	if got := digest.NewDigest(dgst.Algorithm(), hash); got != dgst {
		return fmt.Errorf("got %s: %w", got, content.ErrMismatchedDigest)
	}
	if err := u.f.Sync(); err != nil {
		return err
	}
	if err := u.f.Close(); err != nil {
		return err
	}
	dir := path.Dir(name)
	if err := makeDir(u.root, dir); err != nil {
		return err
	}
	if err := u.root.Rename(u.temp, name); err != nil {
		return err
	}
	if err := syncDir(u.root, dir); err != nil {
		return err
	}
	return u.root.Close()
}

// Close lets the upload rest until [Store.ResumeUpload].
func (u *Upload) Close() error {
	err := u.f.Close()
	if err == nil {
		err = u.root.Rename(u.temp, uploadPrefix+u.id)
	}
	return errors.Join(err, u.root.Close())
}

// Cancel ends the upload and frees what it took.
func (u *Upload) Cancel() {
	u.f.Close() // it may be closed
	u.root.Remove(u.temp)
	u.root.Close()
}
