package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// Carried is the model in a baked image.
type Carried struct {
	// Artifact is what the image tells of the model's artifact: the digest, in
	// Root, annotations, and in the image's own layers the files at the paths
	// they have in the artifact. An image that another tool has packed anew lists
	// no layers.
	*manifest.Artifact
}

// SeveralModelsError says that an image holds several models, so that it is not
// known which is meant.
type SeveralModelsError struct {
	Names     []string        // as they were baked in, sorted
	Artifacts []digest.Digest // of each
}

func (e *SeveralModelsError) Error() string {
	return "an image of several models: " + list(e.Names)
}

// FindCarried reads which model is in the image, or the index of images, at
// root: the first image's manifest, and its config only where the manifest has
// lost its annotations, for a label remains. The error is a
// [*manifest.NotArtifactError] if there is none, a [*SeveralModelsError], one of
// src, a [*BaseError], a [*manifest.CorruptError], or wraps
// [manifest.ErrMalformed].
func FindCarried(ctx context.Context, src manifest.Fetcher, root v1.Descriptor) (*Carried, error) {
	b := &Base{Root: root, src: src}
	d := root
	doc, kind, err := b.document(ctx, root)
	if err == nil && kind == isIndex {
		var all []v1.Descriptor
		if err := doc.into("manifests", &all); err != nil {
			return nil, err
		}
		first := slices.IndexFunc(all, isImage)
		if first < 0 {
			return nil, &manifest.NotArtifactError{MediaType: root.MediaType, What: "an index without an image"}
		}
		d = all[first]
		if doc, kind, err = b.document(ctx, d); err == nil && kind == isIndex {
			return nil, &manifest.NotArtifactError{MediaType: root.MediaType, What: "an index of indexes"}
		}
	}
	if err != nil {
		return nil, err
	}
	var config v1.Descriptor
	var told map[string]string
	if err := errors.Join(doc.into("config", &config), doc.into("annotations", &told)); err != nil {
		return nil, err
	}
	if config.MediaType != v1.MediaTypeImageConfig && config.MediaType != dockerConfig {
		return nil, &manifest.NotArtifactError{MediaType: config.MediaType, What: "something else"}
	}
	c := &Carried{&manifest.Artifact{}}
	found, err := c.told(told)
	if err == nil && !found {
		if told, err = b.labels(ctx, config); err == nil {
			found, err = c.told(told)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, &manifest.NotArtifactError{MediaType: config.MediaType, What: "a container image without a model"}
	}
	return c, c.layers(doc)
}

// labels are those of a config.
func (b *Base) labels(ctx context.Context, config v1.Descriptor) (map[string]string, error) {
	data, err := b.blob(ctx, config, "config")
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	how, err := doc.child("config")
	if err != nil {
		return nil, err
	}
	var labels map[string]string
	return labels, how.into("Labels", &labels)
}

// told takes what annotations or labels tell of a model, if they do.
func (c *Carried) told(told map[string]string) (bool, error) {
	one, several, err := artifactsIn(told)
	switch {
	case err != nil:
		return false, err
	case len(several) > 0:
		e := &SeveralModelsError{Names: slices.Sorted(maps.Keys(several))}
		for _, name := range e.Names {
			e.Artifacts = append(e.Artifacts, several[name])
		}
		return false, e
	}
	// What else is told is of the image, or of its base.
	c.Manifest.Annotations = maps.Clone(told)
	maps.DeleteFunc(c.Manifest.Annotations, func(key, _ string) bool { return !strings.HasPrefix(key, manifest.AnnotationPrefix) })
	c.Root.Digest = one
	return one != "", nil
}

// artifactsIn are the digests of the models in an image with those annotations
// or labels: one, or several by name.
func artifactsIn(told map[string]string) (one digest.Digest, several map[string]digest.Digest, err error) {
	several = map[string]digest.Digest{}
	for key, text := range told {
		name, named := strings.CutPrefix(key, AnnotationArtifact+".")
		if !named && key != AnnotationArtifact {
			continue
		}
		d := digest.Digest(text)
		if d.Validate() != nil {
			return "", nil, fmt.Errorf("%w: %s is %.100q, which is no digest", manifest.ErrMalformed, key, text)
		}
		if named {
			several[name] = d
		} else {
			one = d
		}
	}
	return one, several, nil
}

// layers are those of the image that list files of the artifact.
func (c *Carried) layers(doc object) error {
	var all []v1.Descriptor
	if err := doc.into("layers", &all); err != nil {
		return err
	}
	if len(all) > maxLayers {
		return fmt.Errorf("%w: %d layers; at most %d are read", manifest.ErrMalformed, len(all), maxLayers)
	}
	for _, d := range all {
		text := d.Annotations[manifest.AnnotationFiles]
		if text == "" {
			continue
		}
		if err := checkLayer(d, ""); err != nil {
			return err
		}
		files, err := manifest.ParseFiles(text, "")
		if err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		c.Layers = append(c.Layers, manifest.Layer{Descriptor: d, Title: path.Dir(files[0].Path), Format: layerFormats[d.MediaType], Files: files})
	}
	return nil
}

// maxHeld bounds the files of a layer that are read before it is known which
// they are, in bytes.
const maxHeld = maxSmall

// Walk reads one of the image's layers from r and calls fn for each file that it
// lists, with the path that the file has in the artifact; what fn leaves unread
// is read for it. Where the files lie in the image does not matter, and what
// else is in the layer is passed over. As in [manifest.Layer.Walk] what fn has
// seen is right only if Walk returns no error. Errors are those of r and fn, a
// [*manifest.CorruptError], or wrap [manifest.ErrBadTar].
func (c *Carried) Walk(l *manifest.Layer, r io.Reader, fn func(manifest.File, io.Reader) error) error {
	blob := newBlob(r, l.Descriptor)
	err := walkCarried(blob, l, fn)
	if err != nil && blob.err != nil {
		return blob.err
	}
	// With other bytes than promised the rest means nothing.
	if verr := blob.verify(); verr != nil {
		return verr
	}
	return err
}

func walkCarried(blob *blobReader, l *manifest.Layer, fn func(manifest.File, io.Reader) error) error {
	plain, done, err := unpack(blob, l.Descriptor)
	if err != nil {
		return fmt.Errorf("layer %s: %w: %w", l.Descriptor.Digest, manifest.ErrBadTar, err)
	}
	defer done()
	left := slices.Clone(l.Files)
	tr := tar.NewReader(plain)
	for range maxEntries {
		if len(left) == 0 {
			return nil
		}
		h, err := tr.Next()
		if err == io.EOF {
			return &manifest.CorruptError{What: "layer " + l.Descriptor.Digest.String(), Want: fmt.Sprintf("%.300q in it", left[0].Path), Got: "none"}
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w: %w", l.Descriptor.Digest, manifest.ErrBadTar, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if manifest.IsSparse(h) {
			return fmt.Errorf("layer %s: %w: %.200q is a sparse file", l.Descriptor.Digest, manifest.ErrBadTar, h.Name)
		}
		at, in, err := match(left, h, tr)
		if err != nil {
			return err
		}
		if at < 0 {
			continue
		}
		f := left[at]
		left = slices.Delete(left, at, at+1)
		if err := carry(f, in, fn); err != nil {
			return err
		}
	}
	return fmt.Errorf("layer %s: %w: more than %d entries", l.Descriptor.Digest, manifest.ErrBadTar, maxEntries)
}

// match says which of the files an entry is, or -1, and returns a reader of its
// bytes. It lies elsewhere than in the artifact, and perhaps twice: small ones
// are known by their digest, the others by name and size.
func match(files []manifest.File, h *tar.Header, r io.Reader) (int, io.Reader, error) {
	if h.Size > maxHeld {
		return slices.IndexFunc(files, func(f manifest.File) bool {
			return f.Size == h.Size && path.Base(f.Path) == path.Base(h.Name)
		}), r, nil
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return -1, nil, fmt.Errorf("%w: %w", manifest.ErrBadTar, err)
	}
	sum := digest.FromBytes(data)
	return slices.IndexFunc(files, func(f manifest.File) bool { return f.Digest == sum }), bytes.NewReader(data), nil
}

// carry gives the file to fn and checks it.
func carry(f manifest.File, r io.Reader, fn func(manifest.File, io.Reader) error) error {
	v := f.Digest.Verifier()
	r = io.TeeReader(r, v)
	if err := fn(f, r); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("%w: %w", manifest.ErrBadTar, err)
	}
	if !v.Verified() {
		return &manifest.CorruptError{What: f.Path, Want: f.Digest.String(), Got: "other bytes"}
	}
	return nil
}
