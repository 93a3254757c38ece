package layout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// ReferencedError says that content stays because something refers to it.
type ReferencedError struct {
	Digest digest.Digest
	By     digest.Digest // a manifest; Digest itself when index.json lists it
}

// Error names both digests.
func (e *ReferencedError) Error() string {
	if e.By == e.Digest {
		return fmt.Sprintf("%s is a manifest of %s", e.Digest, indexFile)
	}
	return fmt.Sprintf("%s is part of %s", e.Digest, e.By)
}

// gracePeriod is how long a blob is safe from GC after it was pushed or found
// there by someone who is about to refer to it.
const gracePeriod = time.Hour

// Delete removes a manifest with all its tags. What it consists of stays, for
// [Store.GC] to free. The error is a [*ReferencedError] when the manifest is
// part of another, or wraps [errdef.ErrNotFound] or [ErrCorrupt]; then nothing
// is deleted.
func (s *Store) Delete(ctx context.Context, desc v1.Descriptor) error {
	return s.delete(ctx, desc.Digest, func(root *os.Root) error {
		return rewriteLocked(root, func(entries []entry) ([]entry, error) {
			entries = slices.DeleteFunc(entries, func(e entry) bool { return e.digest == desc.Digest })
			return entries, checkUnreferenced(ctx, root, entries, desc.Digest)
		})
	})
}

// DeleteBlob removes a blob that no manifest of index.json consists of. The
// errors are those of [Store.Delete].
func (s *Store) DeleteBlob(ctx context.Context, dgst digest.Digest) error {
	return s.delete(ctx, dgst, func(root *os.Root) error {
		x, err := readIndex(root)
		if err != nil {
			return err
		}
		entries, err := x.entries()
		if err != nil {
			return err
		}
		return checkUnreferenced(ctx, root, entries, dgst)
	})
}

// delete removes a blob after unlist, which has the lock too.
func (s *Store) delete(ctx context.Context, dgst digest.Digest, unlist func(*os.Root) error) error {
	name, err := blobName(dgst)
	if err == nil {
		err = s.locked(ctx, func(root *os.Root) error {
			if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
				return errdef.ErrNotFound
			}
			if err := unlist(root); err != nil {
				return err
			}
			return root.Remove(name)
		})
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", dgst, err)
	}
	return nil
}

// checkUnreferenced returns a [*ReferencedError] when the entries lead to dgst.
func checkUnreferenced(ctx context.Context, root *os.Root, entries []entry, dgst digest.Digest) error {
	parents, err := reachable(ctx, root, entries, false)
	if err != nil {
		return err
	}
	if by, ok := parents[dgst]; ok {
		return &ReferencedError{dgst, by}
	}
	return nil
}

// GC frees the blobs that nothing in index.json leads to, subjects included, and
// returns them, with only digest and size. A dry run returns them and leaves
// them. Blobs that were pushed, or found by [Store.Exists], within the last
// hour are spared, so that GC may run beside writers of any kind.
//
// A layout that is missing has nothing to free. The error wraps [ErrCorrupt],
// or content.ErrMismatchedDigest when a manifest was altered, so that nobody
// knows what it refers to: then nothing is freed.
func (s *Store) GC(ctx context.Context, dryRun bool) ([]v1.Descriptor, error) {
	var freed []v1.Descriptor
	err := s.locked(ctx, func(root *os.Root) error {
		x, err := readIndex(root)
		if err != nil {
			return err
		}
		entries, err := x.entries()
		if err != nil {
			return err
		}
		parents, err := reachable(ctx, root, entries, true)
		if err != nil {
			return err
		}
		if !dryRun {
			removeLeftovers(root)
		}
		for _, d := range oldBlobs(root) {
			if _, ok := parents[d.Digest]; !ok && (dryRun || free(root, d.Digest)) {
				freed = append(freed, d)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return freed, fmt.Errorf("free blobs of %q: %w", s.dir, err)
	}
	return freed, nil
}

// locked calls fn with the lock, if there is a layout.
func (s *Store) locked(ctx context.Context, fn func(*os.Root) error) error {
	root, err := s.root(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := checkMark(root); err != nil {
		return err
	}
	if err := makeDir(root, stateDir); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	return fn(root)
}

// oldBlobs lists the blobs that have outlived the grace period. Directories
// that cannot be read, and files that are no blobs, are passed over.
func oldBlobs(root *os.Root) []v1.Descriptor {
	var all []v1.Descriptor
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		files, _ := fs.ReadDir(root.FS(), path.Join(blobsDir, alg.String()))
		for _, file := range files {
			d := digest.NewDigestFromEncoded(alg, file.Name())
			info, err := file.Info()
			if err == nil && checkDigest(d) == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > gracePeriod {
				all = append(all, v1.Descriptor{Digest: d, Size: info.Size()})
			}
		}
	}
	return all
}

// free removes a blob, unless someone has renewed it, and reports whether it
// did. The blob loses its name before its age is looked at once more: who finds
// it after that finds nothing, and who found it before has renewed it.
func free(root *os.Root, dgst digest.Digest) bool {
	name, err := blobName(dgst)
	if err != nil {
		return false
	}
	temp := tempPrefix + rand.Text()
	if err := root.Rename(name, temp); err != nil {
		return false
	}
	if info, err := root.Lstat(temp); err == nil && time.Since(info.ModTime()) < gracePeriod {
		root.Rename(temp, name)
		return false
	}
	return root.Remove(temp) == nil
}

// renew begins the grace period of a blob anew, and reports whether the blob is
// still there. It is a courtesy where the files belong to somebody else.
func (s *Store) renew(ctx context.Context, dgst digest.Digest) (bool, error) {
	root, err := s.root(ctx)
	if err != nil {
		return false, err
	}
	defer root.Close()
	name, err := blobName(dgst)
	if err != nil {
		return false, err
	}
	err = root.Chtimes(name, time.Time{}, time.Now())
	return !errors.Is(err, fs.ErrNotExist), nil
}
