package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
)

// maxManifest bounds a manifest in bytes, as registries do.
const maxManifest = 4 << 20

// Resolve returns the descriptor of a tag or of a digest.
//
// A tag is the annotation org.opencontainers.image.ref.name of an entry in
// index.json, the last one when several have it; the manifest itself is not
// looked at. A digest is that of a manifest in the store, in index.json or not;
// its media type is the one it states, or else that of its shape.
//
// The error wraps [errdef.ErrNotFound], also for the digest of a blob that is
// no manifest of at most 4 MiB; [ErrCorrupt] when index.json or the entry is broken;
// [content.ErrMismatchedDigest] when a manifest was altered on disk.
func (s *Store) Resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	desc, err := s.resolve(ctx, reference)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("resolve %q: %w", reference, err)
	}
	return desc, nil
}

func (s *Store) resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	if reference == "" {
		return v1.Descriptor{}, errdef.ErrMissingReference
	}
	root, err := s.root(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer root.Close()
	if dgst := digest.Digest(reference); checkDigest(dgst) == nil {
		return resolveDigest(root, dgst)
	}
	return s.resolveTag(root, reference)
}

func (s *Store) resolveTag(root *os.Root, tag string) (v1.Descriptor, error) {
	x, err := s.readIndex(root)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return x.tag(tag)
}

func resolveDigest(root *os.Root, dgst digest.Digest) (v1.Descriptor, error) {
	f, size, err := openBlob(root, dgst)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	desc := v1.Descriptor{Digest: dgst, Size: size}
	if size <= maxManifest {
		data, err := content.ReadAll(f, desc)
		if err != nil {
			return v1.Descriptor{}, err
		}
		if desc.MediaType = manifestType(data); desc.MediaType != "" {
			return desc, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("a blob, but no manifest: %w", errdef.ErrNotFound)
}

// manifestType returns the media type of a manifest, which older ones do not
// state, or nothing.
func manifestType(data []byte) string {
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
	}
	switch err := json.Unmarshal(data, &m); {
	case err != nil:
		return ""
	case m.MediaType != "":
		return m.MediaType
	case m.Manifests != nil && m.Layers == nil:
		return v1.MediaTypeImageIndex
	case m.Config != nil && m.Layers != nil && m.Manifests == nil:
		return v1.MediaTypeImageManifest
	}
	return ""
}

// Tag points a tag at the manifest of desc, or lists the manifest in
// index.json without a name when reference is its digest. It returns once that
// is on disk. What is so already is left as it is, without a write. The manifest
// that a tag pointed to before stays listed, without a name.
//
// The entry keeps desc's annotations, platform and artifact type.
//
// The error wraps [errdef.ErrInvalidReference] when reference is neither a tag
// that a registry would take nor desc's digest, [errdef.ErrNotFound] when the
// store has no blob of desc, [errdef.ErrInvalidMediaType] when desc has none,
// [errdef.ErrSizeExceedsLimit] when index.json would grow too large, and
// [ErrCorrupt] when it is broken: it is not overwritten then.
func (s *Store) Tag(ctx context.Context, desc v1.Descriptor, reference string) error {
	err := s.tag(ctx, desc, reference, func() error { return s.stored(ctx, desc) })
	if err != nil {
		return fmt.Errorf("tag %s as %q: %w", desc.Digest, reference, err)
	}
	return nil
}

// stored is Exists for those who want to know why not.
func (s *Store) stored(ctx context.Context, desc v1.Descriptor) error {
	f, err := s.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	return f.Close()
}

// tag is Tag of what the function check finds no fault with.
func (s *Store) tag(ctx context.Context, desc v1.Descriptor, reference string, check func() error) error {
	name := reference
	if reference == desc.Digest.String() {
		name = ""
	} else if err := (registry.Reference{Reference: reference}).ValidateReferenceAsTag(); err != nil {
		return err
	}
	if desc.MediaType == "" {
		return fmt.Errorf("%q: %w", desc.MediaType, errdef.ErrInvalidMediaType)
	}
	if err := check(); err != nil {
		return err
	}
	// Asked without the lock first: a tag that is right needs no write access.
	if same, err := s.tagged(ctx, desc, name); err != nil || same {
		return err
	}
	added, err := newEntry(desc, name)
	if err != nil {
		return err
	}
	return s.update(ctx, func(entries []entry) ([]entry, error) {
		// Again, because only under the lock nothing is deleted meanwhile.
		if err := check(); err != nil {
			return nil, err
		}
		if name == "" {
			// In place of one that says something else of the same manifest.
			entries = slices.DeleteFunc(entries, func(e entry) bool {
				return e.name == "" && e.digest == desc.Digest
			})
		}
		return append(entries, added), nil // the last of a name stays
	})
}

// tagged reports whether the entry of that name, or any entry when name is
// empty, is of desc.
func (s *Store) tagged(ctx context.Context, desc v1.Descriptor, name string) (bool, error) {
	root, err := s.root(ctx)
	if err != nil {
		return false, err
	}
	defer root.Close()
	x, err := s.readIndex(root)
	if err != nil {
		return false, err
	}
	text, match := name, func(e entry) bool { return e.name == name }
	if name == "" {
		text, match = desc.Digest.String(), func(e entry) bool { return e.digest == desc.Digest }
	}
	// An entry that is broken is not of desc, but to be replaced.
	found, err := x.find(text, match)
	return err == nil && content.Equal(found, desc), nil
}

// Untag removes a tag. Its manifest stays, listed in index.json without a name
// unless it has another. The error wraps [errdef.ErrNotFound] when there is no
// such tag, and [ErrCorrupt].
func (s *Store) Untag(ctx context.Context, tag string) error {
	if err := s.untag(ctx, tag); err != nil {
		return fmt.Errorf("untag %q: %w", tag, err)
	}
	return nil
}

func (s *Store) untag(ctx context.Context, tag string) error {
	if tag == "" {
		return errdef.ErrMissingReference
	}
	// Asked first, so that a layout that is yet to be made is not made for it.
	root, err := s.root(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := s.resolveTag(root, tag); errors.Is(err, errdef.ErrNotFound) {
		return err
	}
	return s.update(ctx, func(entries []entry) ([]entry, error) {
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
}

// Tags calls fn with the tags after last, in byte order, once, or not at all
// when there are none. An error of fn is returned as it is; others may wrap
// [ErrCorrupt].
func (s *Store) Tags(ctx context.Context, last string, fn func(tags []string) error) error {
	tags, err := s.tags(ctx, last)
	if err != nil {
		return fmt.Errorf("list tags: %w", err)
	}
	if len(tags) == 0 {
		return nil
	}
	return fn(tags)
}

func (s *Store) tags(ctx context.Context, last string) ([]string, error) {
	root, err := s.root(ctx)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	x, err := s.readIndex(root)
	if err != nil {
		return nil, err
	}
	return x.tags(last), nil
}

// update replaces the entries of index.json by what change makes of them. No
// other process changes them meanwhile.
func (s *Store) update(ctx context.Context, change func([]entry) ([]entry, error)) error {
	root, err := s.create(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	return s.rewrite(ctx, root, change)
}

// rewrite is update in a layout that is complete but for index.json.
func (s *Store) rewrite(ctx context.Context, root *os.Root, change func([]entry) ([]entry, error)) error {
	unlock, err := s.lock(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	return rewriteLocked(root, change)
}

// rewriteLocked is rewrite for those who have the lock.
func rewriteLocked(root *os.Root, change func([]entry) ([]entry, error)) error {
	x, err := readIndex(root)
	if err != nil {
		return err
	}
	entries, err := x.entries()
	if err != nil {
		return err
	}
	if entries, err = change(entries); err != nil {
		return err
	}
	doc, err := x.withEntries(entries)
	if err != nil {
		return err
	}
	return writeFile(root, indexFile, doc)
}
