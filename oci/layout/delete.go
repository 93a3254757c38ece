package layout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
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

// Removal is what [Store.Remove] removed, or would.
type Removal struct {
	Tags      []string        // sorted
	Manifests []digest.Digest // the manifest and then its referrers; none when it stays
	part      bool            // it stays as a part of something else, which lists it
}

// Remove removes tags of a manifest and, when it has no other, the manifest,
// with its referrers that have no tag of their own and whose subject is gone.
// It looks and removes under the lock, so that no tag is lost that was given
// meanwhile: then the manifest stays, as it does when it is part of another, or
// when a manifest was altered and nobody knows what that one refers to. What
// the manifests consist of stays, for [Store.GC] to free. A dry run removes
// nothing.
func (s *Store) Remove(ctx context.Context, dgst digest.Digest, tags []string, dryRun bool) (Removal, error) {
	var r Removal
	err := s.locked(ctx, func(root *os.Root) error {
		return rewriteUnless(dryRun, root, func(entries []entry) ([]entry, error) {
			var err error
			r, err = planRemoval(ctx, entries, dgst, tags, func(d digest.Digest) (node, error) {
				n, _, err := readNode(root, d)
				return n, err
			})
			if err != nil {
				return nil, err
			}
			return r.apply(entries)
		}, func() error {
			for _, d := range r.Manifests {
				name, err := blobName(d)
				if err != nil {
					return err
				}
				if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return Removal{}, fmt.Errorf("remove %s: %w", dgst, err)
	}
	return r, nil
}

// rewriteUnless rewrites index.json and calls then, or in a dry run only change.
func rewriteUnless(dryRun bool, root *os.Root, change func([]entry) ([]entry, error), then func() error) error {
	if !dryRun {
		if err := rewriteLocked(root, change); err != nil {
			return err
		}
		return then()
	}
	x, err := readIndex(root)
	if err != nil {
		return err
	}
	entries, err := x.entries()
	if err == nil {
		_, err = change(entries)
	}
	return err
}

// planRemoval decides what [Store.Remove] removes.
func planRemoval(ctx context.Context, entries []entry, dgst digest.Digest, expected []string, read func(digest.Digest) (node, error)) (Removal, error) {
	g := &graph{read: read, nodes: make(map[digest.Digest]node)}
	named := make(map[string]digest.Digest) // the last of a name counts
	for _, e := range entries {
		if (registry.Reference{Reference: e.name}).ValidateReferenceAsTag() == nil {
			named[e.name] = e.digest
		}
	}
	var r Removal
	others := false
	for name, d := range named {
		switch {
		case d == dgst && slices.Contains(expected, name):
			r.Tags = append(r.Tags, name)
		case d == dgst:
			others = true
		}
	}
	slices.Sort(r.Tags)
	if others || len(r.Tags) < len(expected) {
		return r, nil
	}
	used, err := g.reach(ctx, without(entries, map[digest.Digest]bool{dgst: true}), false)
	if err != nil && ctx.Err() == nil && errors.Is(err, content.ErrMismatchedDigest) {
		return r, nil
	}
	if err != nil {
		return Removal{}, err
	}
	if used[dgst] {
		r.part = true
		return r, nil
	}
	referrers, err := g.orphans(ctx, entries, dgst)
	r.Manifests = append([]digest.Digest{dgst}, referrers...)
	return r, err
}

// apply leaves out of the entries what is removed.
func (r Removal) apply(entries []entry) ([]entry, error) {
	for i := range entries {
		if slices.Contains(r.Tags, entries[i].name) {
			if err := entries[i].drop(); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(entries, func(e entry) bool {
		return r.part && e.dropped || slices.Contains(r.Manifests, e.digest)
	}), nil
}

// graph reads each manifest once.
type graph struct {
	read  func(digest.Digest) (node, error)
	nodes map[digest.Digest]node
}

func (g *graph) node(d digest.Digest) (node, error) {
	n, ok := g.nodes[d]
	if ok || checkDigest(d) != nil {
		return n, nil
	}
	n, err := g.read(d)
	if err == nil {
		g.nodes[d] = n
	}
	return n, err
}

// reach returns the digests and all that they lead to, with subjects if asked
// for. Beside an error it is what could be found.
func (g *graph) reach(ctx context.Context, from []digest.Digest, subjects bool) (map[digest.Digest]bool, error) {
	found, walked := make(map[digest.Digest]bool), make(map[digest.Digest]bool)
	var broken error
	for todo := slices.Clone(from); len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		found[d] = true
		if walked[d] {
			continue
		}
		walked[d] = true
		n, err := g.node(d)
		if err != nil {
			broken = err
			continue
		}
		for _, c := range n.contents() {
			found[c.Digest] = true
		}
		for _, c := range n.Manifests {
			todo = append(todo, c.Digest)
		}
		if subjects && n.Subject != nil {
			todo = append(todo, n.Subject.Digest)
		}
	}
	return found, broken
}

// orphans returns the referrers without a tag whose subject goes when dgst
// goes: first all there are, and then less those that something left leads to,
// or whose subject something left leads to, until that changes nothing.
func (g *graph) orphans(ctx context.Context, entries []entry, dgst digest.Digest) ([]digest.Digest, error) {
	named := make(map[digest.Digest]bool)
	for _, e := range entries {
		named[e.digest] = named[e.digest] || e.name != ""
	}
	below, _ := g.reach(ctx, []digest.Digest{dgst}, false) // an altered part has none of its own
	goes := map[digest.Digest]bool{dgst: true}
	for grown := true; grown; {
		grown = false
		for _, e := range entries {
			n, err := g.node(e.digest)
			if err != nil || n.Subject == nil || named[e.digest] || goes[e.digest] || !below[n.Subject.Digest] {
				continue
			}
			more, _ := g.reach(ctx, []digest.Digest{e.digest}, false)
			maps.Copy(below, more)
			goes[e.digest], grown = true, true
		}
	}
	for shrunk := true; shrunk; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		left := without(entries, goes)
		parts, _ := g.reach(ctx, left, false)
		held, err := g.reach(ctx, left, true)
		if err != nil {
			return nil, ctx.Err() // what an altered manifest holds nobody knows
		}
		shrunk = false
		for d := range goes {
			if d == dgst {
				continue
			}
			subject := g.nodes[d].Subject.Digest
			if parts[d] || !goes[subject] && held[subject] {
				delete(goes, d)
				shrunk = true
			}
		}
	}
	delete(goes, dgst)
	return slices.Sorted(maps.Keys(goes)), nil
}

// without returns the digests of the entries but for some.
func without(entries []entry, some map[digest.Digest]bool) []digest.Digest {
	var left []digest.Digest
	for _, e := range entries {
		if !some[e.digest] {
			left = append(left, e.digest)
		}
	}
	return left
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
		old, _ := listBlobs(root)
		for _, d := range old {
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

// listBlobs lists the blobs that have outlived the grace period and those that
// have not. Directories that cannot be read, and files that are no blobs, are
// passed over.
func listBlobs(root *os.Root) (old, young []v1.Descriptor) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		files, _ := fs.ReadDir(root.FS(), path.Join(blobsDir, alg.String()))
		for _, file := range files {
			d := digest.NewDigestFromEncoded(alg, file.Name())
			info, err := file.Info()
			switch {
			case err != nil || checkDigest(d) != nil || !info.Mode().IsRegular():
			case time.Since(info.ModTime()) > gracePeriod:
				old = append(old, v1.Descriptor{Digest: d, Size: info.Size()})
			default:
				young = append(young, v1.Descriptor{Digest: d, Size: info.Size()})
			}
		}
	}
	return old, young
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
