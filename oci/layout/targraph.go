package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
)

var (
	_ content.Deleter         = (*Archive)(nil)
	_ registry.ReferrerLister = (*Archive)(nil)
)

// Referrers calls fn with the manifests whose subject is desc, as
// [Store.Referrers] does.
func (a *Archive) Referrers(ctx context.Context, desc v1.Descriptor, artifactType string, fn func([]v1.Descriptor) error) error {
	x, err := a.current()
	if err != nil {
		return fmt.Errorf("list referrers of %s: %w", desc.Digest, err)
	}
	var found []v1.Descriptor
	for _, raw := range elements(x.list) {
		n, d, err := a.node(ctx, decodeEntry(raw).digest)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || n.Subject == nil || n.Subject.Digest != desc.Digest {
			continue // one that is broken refers to nothing
		}
		listed := slices.ContainsFunc(found, func(f v1.Descriptor) bool { return f.Digest == d.Digest })
		if !listed && (artifactType == "" || d.ArtifactType == artifactType) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fn(found)
}

// node reads a manifest and describes it as the referrers API does.
func (a *Archive) node(ctx context.Context, dgst digest.Digest) (n node, desc v1.Descriptor, err error) {
	if err := checkDigest(dgst); err != nil {
		return node{}, v1.Descriptor{}, err
	}
	if desc, err = a.resolve(ctx, dgst.String()); err != nil {
		return node{}, v1.Descriptor{}, err
	}
	data, err := content.FetchAll(ctx, a, desc)
	if err != nil {
		return node{}, v1.Descriptor{}, err
	}
	_ = json.Unmarshal(data, &n) // what can be had of it
	desc.ArtifactType, desc.Annotations = n.ArtifactType, n.Annotations
	if desc.ArtifactType == "" && n.Config != nil {
		desc.ArtifactType = n.Config.MediaType
	}
	return n, desc, nil
}

// used returns the digests of all that index.json leads to, but for some of its
// manifests; subjects are followed if asked for.
func (a *Archive) used(ctx context.Context, without []digest.Digest, subjects bool) (map[digest.Digest]bool, error) {
	x, err := a.current()
	if err != nil {
		return nil, err
	}
	var todo []digest.Digest
	for _, raw := range elements(x.list) {
		if d := decodeEntry(raw).digest; !slices.Contains(without, d) {
			todo = append(todo, d)
		}
	}
	used := make(map[digest.Digest]bool)
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if used[d] {
			continue
		}
		used[d] = true
		n, _, err := a.node(ctx, d)
		if errors.Is(err, errdef.ErrNotFound) || errors.Is(err, errdef.ErrInvalidDigest) {
			continue // a blob, or nothing that is here
		}
		if err != nil {
			return nil, err
		}
		for _, c := range n.contents() {
			used[c.Digest] = true
		}
		for _, c := range n.Manifests {
			todo = append(todo, c.Digest)
		}
		if subjects && n.Subject != nil {
			todo = append(todo, n.Subject.Digest)
		}
	}
	return used, nil
}

// Delete removes a manifest with all its tags, as [Store.Delete] does. What it
// consists of stays, for [Archive.GC] to free.
func (a *Archive) Delete(ctx context.Context, desc v1.Descriptor) error {
	exists, err := a.Exists(ctx, desc)
	if err == nil && !exists {
		err = errdef.ErrNotFound
	}
	var used map[digest.Digest]bool
	if err == nil {
		used, err = a.used(ctx, []digest.Digest{desc.Digest}, false)
	}
	if err == nil && used[desc.Digest] {
		err = &ReferencedError{Digest: desc.Digest, By: desc.Digest}
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", desc.Digest, err)
	}
	a.change(func(entries []entry) ([]entry, error) {
		return slices.DeleteFunc(entries, func(e entry) bool { return e.digest == desc.Digest }), nil
	})
	a.forget(desc.Digest)
	return nil
}

// Remove removes tags of a manifest and, when it has no other, the manifest, as
// [Store.Remove] does.
func (a *Archive) Remove(ctx context.Context, dgst digest.Digest, tags []string, dryRun bool) (Removal, error) {
	r, err := a.planRemoval(ctx, dgst, tags)
	if err != nil {
		return Removal{}, fmt.Errorf("remove %s: %w", dgst, err)
	}
	if !dryRun {
		a.change(r.apply)
		for _, d := range r.Manifests {
			a.forget(d)
		}
	}
	return r, nil
}

func (a *Archive) planRemoval(ctx context.Context, dgst digest.Digest, tags []string) (Removal, error) {
	x, err := a.current()
	if err != nil {
		return Removal{}, err
	}
	entries, err := x.entries()
	if err != nil {
		return Removal{}, err
	}
	return planRemoval(ctx, entries, dgst, tags, func(d digest.Digest) (node, error) {
		n, _, err := a.node(ctx, d)
		if errors.Is(err, errdef.ErrNotFound) {
			err = nil // a blob, or nothing that is here
		}
		return n, err
	})
}

// forget leaves a blob out of what is written.
func (a *Archive) forget(dgst digest.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.blobs, dgst)
	delete(a.spooled, dgst)
}

// Garbage returns the blobs that [Archive.GC] would free if the manifests were
// removed, as [Store.Garbage] does; none have to wait.
func (a *Archive) Garbage(ctx context.Context, without ...digest.Digest) (now, later []v1.Descriptor, err error) {
	used, err := a.used(ctx, without, true)
	if err != nil {
		return nil, nil, fmt.Errorf("look for garbage in %q: %w", a.name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, blobs := range []map[digest.Digest]section{a.blobs, a.spooled} {
		for d, at := range blobs {
			if !used[d] && !slices.Contains(without, d) {
				now = append(now, v1.Descriptor{Digest: d, Size: at.size})
			}
		}
	}
	slices.SortFunc(now, byDigest)
	return now, nil, nil
}

// GC frees the blobs that nothing in index.json leads to, subjects included,
// and returns them; a dry run leaves them.
func (a *Archive) GC(ctx context.Context, dryRun bool) ([]v1.Descriptor, error) {
	garbage, _, err := a.Garbage(ctx)
	if err != nil || dryRun || len(garbage) == 0 {
		return garbage, err
	}
	for _, d := range garbage {
		a.forget(d.Digest)
	}
	a.change(func(entries []entry) ([]entry, error) { return entries, nil }) // so that Flush writes
	return garbage, nil
}
