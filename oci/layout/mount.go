package layout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// Mount makes a blob of another store one of this store: by a hard link, which
// takes no space, or by a copy where the file system has none. A blob that is
// here already stays. The error wraps [errdef.ErrNotFound] when from does not
// have it, or is one of Push's.
func (s *Store) Mount(ctx context.Context, from *Store, dgst digest.Digest) error {
	if err := s.mount(ctx, from, dgst); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		return fmt.Errorf("mount %s: %w", dgst, err)
	}
	return nil
}

func (s *Store) mount(ctx context.Context, from *Store, dgst digest.Digest) error {
	f, size, err := from.Blob(ctx, dgst)
	if err != nil {
		return err
	}
	defer f.Close()
	desc := v1.Descriptor{Digest: dgst, Size: size}
	switch exists, err := s.Exists(ctx, desc); {
	case err != nil:
		return err
	case exists:
		return errdef.ErrAlreadyExists
	}
	if s.link(ctx, from, f, dgst) == nil {
		return nil
	}
	return s.push(ctx, desc, f)
}

// link mounts the blob, which is open as f, by a hard link.
func (s *Store) link(ctx context.Context, from *Store, f *os.File, dgst digest.Digest) error {
	name, err := blobName(dgst)
	if err != nil {
		return err
	}
	root, err := s.create(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	// Links are made by path, which would follow symbolic links out of the
	// directories. So ours goes where there is none, and is looked at before it
	// counts.
	if info, err := root.Lstat(stateDir); err != nil || !info.IsDir() {
		return errors.Join(err, errNotRegular)
	}
	temp := tempPrefix + rand.Text()
	err = os.Link(filepath.Join(from.dir, filepath.FromSlash(name)), filepath.Join(s.dir, filepath.FromSlash(temp)))
	if err != nil {
		return err
	}
	defer root.Remove(temp)
	want, err := f.Stat()
	if err != nil {
		return err
	}
	if got, err := root.Lstat(temp); err != nil || !os.SameFile(got, want) {
		return errors.Join(err, errNotRegular)
	}
	// The link is as old as the blob; to this store's GC it is to be new.
	if err := root.Chtimes(temp, time.Time{}, time.Now()); err != nil {
		return err
	}
	if err := makeDir(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(root, path.Dir(name))
}
