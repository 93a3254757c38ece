package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"sync"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

// layoutDir is the directory of a repository's layout, in the repository's. No
// component of a name begins with an underscore, so that no repository can lie
// in the layout of another.
const layoutDir = "_oci"

// maxName bounds the name of a repository in bytes: docker's clients allow no
// more, nor do file systems in one component.
const maxName = 255

// registry is what ociserver serves: everything but the bytes of blobs. What
// it does not define is refused by [ociregistry.Funcs].
type registry struct {
	*ociregistry.Funcs
	root   string
	stores sync.Map // of *layout.Store by name: one each, so that few wait for a lock at once
}

var _ ociregistry.Interface = (*registry)(nil)

// dir returns the directory of a repository's layout.
func (r *registry) dir(repo string) (string, error) {
	name := filepath.FromSlash(repo)
	if !ociref.IsValidRepository(repo) || len(repo) > maxName || !filepath.IsLocal(name) { // as a device of Windows
		return "", ociregistry.ErrNameInvalid
	}
	return filepath.Join(r.root, name, layoutDir), nil
}

// open returns a repository that is there.
func (r *registry) open(repo string) (*layout.Store, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	store, err := layout.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ociregistry.ErrNameUnknown
	}
	return r.one(repo, store, err)
}

// create returns a repository for writing.
func (r *registry) create(repo string) (*layout.Store, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	store, err := layout.Create(dir)
	return r.one(repo, store, err)
}

func (r *registry) one(repo string, store *layout.Store, err error) (*layout.Store, error) {
	if err != nil {
		return nil, err
	}
	one, _ := r.stores.LoadOrStore(repo, store)
	return one.(*layout.Store), nil
}

// unknown is absent when err says that something is. Otherwise it is the
// registry's content that is wrong, not the request: err loses its kind.
func unknown(err, absent error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errdef.ErrNotFound):
		return absent
	case errors.Is(err, errdef.ErrInvalidDigest) && !errors.Is(err, layout.ErrCorrupt):
		return err
	}
	return fmt.Errorf("%v", err)
}

// resolve returns the manifest that a tag or digest names, as it describes
// itself: entries of index.json may have been written by hand.
func (r *registry) resolve(ctx context.Context, repo, reference string) (*layout.Store, v1.Descriptor, error) {
	store, err := r.open(repo)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	d, err := store.Resolve(ctx, reference)
	if err == nil && d.Digest.String() != reference {
		d, err = store.Resolve(ctx, d.Digest.String())
	}
	return store, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, unknown(err, ociregistry.ErrManifestUnknown)
}

// ResolveManifest implements [ociregistry.Reader].
func (r *registry) ResolveManifest(ctx context.Context, repo string, digest ociregistry.Digest) (v1.Descriptor, error) {
	_, d, err := r.resolve(ctx, repo, string(digest))
	return d, err
}

// ResolveTag implements [ociregistry.Reader].
func (r *registry) ResolveTag(ctx context.Context, repo, tag string) (v1.Descriptor, error) {
	_, d, err := r.resolve(ctx, repo, tag)
	return d, err
}

// GetManifest implements [ociregistry.Reader].
func (r *registry) GetManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	return r.get(ctx, repo, string(digest))
}

// GetTag implements [ociregistry.Reader].
func (r *registry) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	return r.get(ctx, repo, tag)
}

func (r *registry) get(ctx context.Context, repo, reference string) (ociregistry.BlobReader, error) {
	store, d, err := r.resolve(ctx, repo, reference)
	if err != nil {
		return nil, err
	}
	data, err := content.FetchAll(ctx, store, d) // at most 4 MiB, or it had not been resolved
	if err != nil {
		return nil, unknown(err, ociregistry.ErrManifestUnknown)
	}
	return manifestReader{bytes.NewReader(data), d}, nil
}

type manifestReader struct {
	*bytes.Reader
	desc v1.Descriptor
}

// Close implements [io.Closer].
func (manifestReader) Close() error { return nil }

// Descriptor implements [ociregistry.BlobReader].
func (m manifestReader) Descriptor() v1.Descriptor { return m.desc }

// PushManifest implements [ociregistry.Writer].
func (r *registry) PushManifest(ctx context.Context, repo, tag string, data []byte, mediaType string) (v1.Descriptor, error) {
	store, err := r.create(repo)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if mediaType == "application/octet-stream" { // ociserver's word for none
		mediaType = ""
	}
	return store.PushManifest(ctx, mediaType, tag, data)
}

// DeleteManifest implements [ociregistry.Deleter].
func (r *registry) DeleteManifest(ctx context.Context, repo string, digest ociregistry.Digest) error {
	store, d, err := r.resolve(ctx, repo, string(digest))
	if err != nil {
		return err
	}
	return gone(store.Delete(ctx, d), ociregistry.ErrManifestUnknown)
}

// DeleteTag implements [ociregistry.Deleter]. The manifest stays.
func (r *registry) DeleteTag(ctx context.Context, repo, tag string) error {
	store, err := r.open(repo)
	if err != nil {
		return err
	}
	return gone(store.Untag(ctx, tag), ociregistry.ErrManifestUnknown)
}

// DeleteBlob implements [ociregistry.Deleter].
func (r *registry) DeleteBlob(ctx context.Context, repo string, digest ociregistry.Digest) error {
	store, err := r.open(repo)
	if err != nil {
		return err
	}
	return gone(store.DeleteBlob(ctx, digest), ociregistry.ErrBlobUnknown)
}

// gone is unknown, but for content that is in use.
func gone(err, absent error) error {
	if _, ok := errors.AsType[*layout.ReferencedError](err); ok {
		return err
	}
	return unknown(err, absent)
}

// Repositories implements [ociregistry.Lister].
func (r *registry) Repositories(ctx context.Context, last string) iter.Seq2[string, error] {
	var names []string
	err := filepath.WalkDir(r.root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && name == r.root && !errors.Is(err, fs.ErrNotExist):
			return err
		case err != nil || !d.IsDir():
			return nil // gone meanwhile, or not for us
		case d.Name() != layoutDir:
			return nil
		}
		rel, err := filepath.Rel(r.root, filepath.Dir(name))
		if err != nil {
			return err
		}
		if repo := filepath.ToSlash(rel); repo > last {
			if _, err := r.open(repo); err == nil {
				names = append(names, repo)
			}
		}
		return filepath.SkipDir
	})
	if err != nil {
		return ociregistry.ErrorSeq[string](err)
	}
	slices.Sort(names)
	return ociregistry.SliceSeq(names)
}

// Tags implements [ociregistry.Lister].
func (r *registry) Tags(ctx context.Context, repo, last string) iter.Seq2[string, error] {
	var tags []string
	store, err := r.open(repo)
	if err == nil {
		err = unknown(store.Tags(ctx, last, func(page []string) error {
			tags = page
			return nil
		}), ociregistry.ErrNameUnknown)
	}
	if err != nil {
		return ociregistry.ErrorSeq[string](err)
	}
	// Other tools write names into layouts that no registry knows.
	return ociregistry.SliceSeq(slices.DeleteFunc(tags, func(tag string) bool { return !ociref.IsValidTag(tag) }))
}

// Referrers implements [ociregistry.Lister]. Of what is not there it is an empty
// list, for a 404 would say that there is no such API.
func (r *registry) Referrers(ctx context.Context, repo string, digest ociregistry.Digest, artifactType string) iter.Seq2[v1.Descriptor, error] {
	var referrers []v1.Descriptor
	store, err := r.open(repo)
	if err == nil {
		err = unknown(store.Referrers(ctx, v1.Descriptor{Digest: digest}, artifactType, func(all []v1.Descriptor) error {
			referrers = all
			return nil
		}), ociregistry.ErrNameUnknown)
	}
	if err != nil && !errors.Is(err, ociregistry.ErrNameUnknown) {
		return ociregistry.ErrorSeq[v1.Descriptor](err)
	}
	return ociregistry.SliceSeq(referrers)
}
