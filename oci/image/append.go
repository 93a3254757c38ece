package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/manifest"
)

// maxStack is how many layers an engine mounts; docker's overlay2 takes no more.
const maxStack = 127

// Layer is a layer to append.
type Layer struct {
	Format manifest.Format // tar, tar+gzip or tar+zstd
	Digest digest.Digest
	Size   int64         // bytes
	DiffID digest.Digest // of the uncompressed bytes
	// Open gives the layer's bytes, as often as it is called, from several
	// goroutines.
	Open func(context.Context) (io.ReadCloser, error)
	// From is the repository in which the blob lies already; "": none.
	From string
	// CreatedBy is the text of the layer's history entry.
	CreatedBy string
	// Files are those of a model's artifact that are in the layer, at the paths
	// they have in the artifact; the descriptor is annotated with them.
	Files []manifest.File
}

// Changes are what [Append] does to one image.
type Changes struct {
	Layers []Layer
	// Env are NAME=VALUE; a name that the base sets keeps its place.
	Env         []string
	Labels      map[string]string
	Annotations map[string]string // of the manifest
	// Forget drops the base's labels and annotations whose keys begin so; "": none.
	Forget string
	// Entrypoint replaces the base's, and removes its Cmd unless Cmd is set
	// too, as in a Dockerfile. Nil: unchanged.
	Entrypoint, Cmd []string
	User            string // "": unchanged
	// Created is the image's time of creation; zero: the base's stays.
	Created time.Time
}

// Graph is a finished image: a read-only graph of manifests, configs and
// layers. What is new and small is in memory, the rest is read where it lies. It
// is safe for concurrent use as far as its sources are.
type Graph struct {
	Root   v1.Descriptor
	all    []v1.Descriptor
	blobs  map[digest.Digest][]byte
	layers map[digest.Digest]Layer
	base   map[digest.Digest]bool // layers of the base
	src    manifest.Fetcher       // of the base
	repo   string                 // of the base
}

var _ content.ReadOnlyStorage = (*Graph)(nil)

// Fetch opens a blob of the graph. The error wraps [errdef.ErrNotFound] for
// anything else.
func (g *Graph) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if b, ok := g.blobs[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if g.base[d.Digest] {
		return g.src.Fetch(ctx, d)
	}
	if l, ok := g.layers[d.Digest]; ok {
		return l.Open(ctx)
	}
	return nil, fmt.Errorf("%s: not in the image: %w", d.Digest, errdef.ErrNotFound)
}

// Exists reports whether d is part of the graph.
func (g *Graph) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	_, blob := g.blobs[d.Digest]
	_, layer := g.layers[d.Digest]
	return blob || layer || g.base[d.Digest], nil
}

// From returns the repository in which the blob lies already, as its base or
// layer was given it, or "" for what is new.
func (g *Graph) From(d v1.Descriptor) string {
	if _, ok := g.blobs[d.Digest]; ok {
		return ""
	}
	if g.base[d.Digest] {
		return g.repo
	}
	return g.layers[d.Digest].From
}

// Blobs returns every blob of the graph once, what is below a manifest before
// it and the root last.
func (g *Graph) Blobs() []v1.Descriptor { return slices.Clone(g.all) }

// What says what kind of blob it is: "base layer", "model layer", "layer" for one
// that bake made, "config", "manifest" or "index".
func (g *Graph) What(d v1.Descriptor) string {
	l, layer := g.layers[d.Digest]
	switch {
	case g.base[d.Digest]:
		return "base layer"
	case layer && l.From != "":
		return "model layer"
	case layer:
		return "layer"
	case d.MediaType == ociFamily.config() || d.MediaType == dockerFamily.config():
		return "config"
	case d.MediaType == ociFamily.index() || d.MediaType == dockerFamily.index():
		return "index"
	}
	return "manifest"
}

// add notes a blob, once.
func (g *Graph) add(d v1.Descriptor) {
	if !slices.ContainsFunc(g.all, func(have v1.Descriptor) bool { return have.Digest == d.Digest }) {
		g.all = append(g.all, d)
	}
}

// Append returns the base with what change wants for each of its images: an
// index of as many images, or one. Media types follow the base's family, unless
// a layer is of one that Docker's has no type for: then all become OCI's. Each
// manifest is annotated with the base's name and, in an index, with the digest
// of that platform's manifest. A subject is dropped, for the result refers to
// nothing the base referred to. The error is one of change, or tells of too many
// layers.
func Append(b *Base, change func(*Image) (Changes, error)) (*Graph, error) {
	g := &Graph{
		blobs: map[digest.Digest][]byte{}, layers: map[digest.Digest]Layer{}, base: map[digest.Digest]bool{},
		src: b.src, repo: b.o.Repository,
	}
	all := make([]Changes, len(b.Images))
	oci := false
	for n, i := range b.Images {
		c, err := change(i)
		if err != nil {
			return nil, err
		}
		if len(i.Layers)+len(c.Layers) > maxStack {
			return nil, fmt.Errorf("append to %s: %d layers on %d; engines mount %d at most", i.Descriptor.Digest, len(c.Layers), len(i.Layers), maxStack)
		}
		all[n] = c
		oci = oci || slices.ContainsFunc(c.Layers, func(l Layer) bool { return l.Format == manifest.FormatTarZstd })
	}
	images := make([]v1.Descriptor, len(b.Images))
	for n, i := range b.Images {
		f := i.family
		if oci {
			f = ociFamily
		}
		var err error
		if images[n], err = g.image(b, i, all[n], f); err != nil {
			return nil, err
		}
	}
	g.Root = images[0]
	if b.index != nil {
		f := b.family
		if oci {
			f = ociFamily
		}
		return g, g.list(b, images, f)
	}
	g.Root.Platform = nil
	return g, nil
}

// put keeps a document.
func (g *Graph) put(mediaType string, doc object) v1.Descriptor {
	raw := doc.raw()
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	g.blobs[d.Digest] = raw
	g.add(d)
	return d
}

// image makes one image's config and manifest.
func (g *Graph) image(b *Base, i *Image, c Changes, f family) (v1.Descriptor, error) {
	none := v1.Descriptor{}
	doc, err := patchConfig(i.config, c)
	if err != nil {
		return none, fmt.Errorf("config of %s: %w", i.Descriptor.Digest, err)
	}
	config := g.put(f.config(), doc)
	m := i.manifest.without("subject")
	old, err := m.child("config")
	if err != nil {
		return none, err
	}
	m = m.with("config", repoint(old, config))
	layers, err := m.items("layers")
	if err != nil {
		return none, err
	}
	for n, l := range i.Layers {
		g.base[l.Digest] = true
		g.add(l)
		if own := f.layer(layerFormats[l.MediaType]); f != i.family && own != l.MediaType {
			o, err := parseObject(layers[n])
			if err != nil {
				return none, err
			}
			layers[n] = o.with("mediaType", own).raw()
		}
	}
	for _, l := range c.Layers {
		d := v1.Descriptor{MediaType: f.layer(l.Format), Digest: l.Digest, Size: l.Size}
		if len(l.Files) > 0 {
			d.Annotations = map[string]string{manifest.AnnotationFiles: manifest.FormatFiles(l.Files, "")}
		}
		layers = append(layers, marshal(d))
		g.layers[l.Digest] = l
		g.add(d)
	}
	m = m.with("layers", layers)
	if m.get("mediaType") != nil || f != i.family {
		m = m.with("mediaType", f.manifest())
	}
	a, err := m.child("annotations")
	if err != nil {
		return none, err
	}
	add := maps.Clone(c.Annotations)
	if add == nil {
		add = map[string]string{}
	}
	b.provenance(add, i.Descriptor.Digest)
	if a = a.forget(c.Forget).withStrings(add); len(a) > 0 {
		m = m.with("annotations", a)
	}
	if raw := m.raw(); len(raw) > maxDocument {
		return none, fmt.Errorf("the manifest has %d bytes; registries take %d", len(raw), maxDocument)
	}
	d := g.put(f.manifest(), m)
	d.Platform = i.Descriptor.Platform
	return d, nil
}

// provenance adds what the image was made of.
func (b *Base) provenance(a map[string]string, d digest.Digest) {
	if b.scratch {
		return
	}
	if b.o.Name != "" {
		a[v1.AnnotationBaseImageName] = b.o.Name
	}
	a[v1.AnnotationBaseImageDigest] = d.String()
}

// repoint makes a foreign descriptor one of d. What only the old content had is
// dropped.
func repoint(o object, d v1.Descriptor) object {
	return o.without("data", "urls").with("mediaType", d.MediaType).with("digest", d.Digest).with("size", d.Size)
}

// list makes the index.
func (g *Graph) list(b *Base, images []v1.Descriptor, f family) error {
	old, err := b.index.items("manifests")
	if err != nil {
		return err
	}
	entries := make([]json.RawMessage, 0, len(images))
	for n, d := range images {
		o, err := parseObject(old[b.Images[n].at])
		if err != nil {
			return err
		}
		o = repoint(o, d)
		if o.get("platform") == nil {
			o = o.with("platform", d.Platform)
		}
		a, err := o.child("annotations")
		if err != nil {
			return err
		}
		if a.get(v1.AnnotationBaseImageDigest) != nil || a.get(v1.AnnotationBaseImageName) != nil { // the base's own base
			add := map[string]string{}
			b.provenance(add, b.Images[n].Descriptor.Digest)
			o = o.with("annotations", a.without(v1.AnnotationBaseImageName).withStrings(add))
		}
		entries = append(entries, o.raw())
	}
	doc := b.index.without("subject").with("manifests", entries)
	if doc.get("mediaType") != nil || f != b.family {
		doc = doc.with("mediaType", f.index())
	}
	a, err := doc.child("annotations")
	if err != nil {
		return err
	}
	add := map[string]string{}
	b.provenance(add, b.Root.Digest)
	if a = a.withStrings(add); len(a) > 0 {
		doc = doc.with("annotations", a)
	}
	g.Root = g.put(f.index(), doc)
	return nil
}

// patchConfig applies the changes to a config.
func patchConfig(doc object, c Changes) (object, error) {
	created, err := history(&doc, c)
	if err != nil {
		return nil, err
	}
	if !c.Created.IsZero() {
		doc = doc.with("created", created)
	}
	rootfs, err := doc.child("rootfs")
	if err != nil {
		return nil, err
	}
	ids, err := rootfs.items("diff_ids")
	if err != nil {
		return nil, err
	}
	for _, l := range c.Layers {
		ids = append(ids, marshal(l.DiffID))
	}
	doc = doc.with("rootfs", rootfs.with("diff_ids", ids))
	config, err := doc.child("config")
	if err != nil {
		return nil, err
	}
	if len(c.Env) > 0 {
		var env []string
		if err := config.into("Env", &env); err != nil {
			return nil, err
		}
		config = config.with("Env", mergeEnv(env, c.Env))
	}
	labels, err := config.child("Labels")
	if err != nil {
		return nil, err
	}
	if after := labels.forget(c.Forget).withStrings(c.Labels); len(c.Labels) > 0 || len(after) < len(labels) {
		config = config.with("Labels", after)
	}
	if c.Entrypoint != nil {
		config = config.with("Entrypoint", c.Entrypoint).without("Cmd")
	}
	if c.Cmd != nil {
		config = config.with("Cmd", c.Cmd)
	}
	if c.User != "" {
		config = config.with("User", c.User)
	}
	return doc.with("config", config), nil
}

// history adds an entry for each layer to a history that has any, and returns
// the time of creation.
func history(doc *object, c Changes) (created json.RawMessage, err error) {
	if !c.Created.IsZero() {
		created = marshal(c.Created.UTC().Format(time.RFC3339Nano))
	} else {
		created = doc.get("created")
	}
	entries, err := doc.items("history")
	if err != nil || len(entries) == 0 {
		return created, err
	}
	for _, l := range c.Layers {
		e := object{}
		if created != nil {
			e = e.with("created", created)
		}
		entries = append(entries, e.with("created_by", l.CreatedBy).raw())
	}
	*doc = doc.with("history", entries)
	return created, nil
}

// mergeEnv sets each NAME=VALUE in its place, or at the end.
func mergeEnv(env, add []string) []string {
	env = slices.Clone(env)
	for _, kv := range add {
		name, _, _ := strings.Cut(kv, "=")
		at := slices.IndexFunc(env, func(old string) bool {
			n, _, _ := strings.Cut(old, "=")
			return n == name
		})
		if at < 0 {
			env = append(env, kv)
			continue
		}
		env[at] = kv
	}
	return env
}

// opener opens a blob of src.
func opener(src manifest.Fetcher, d v1.Descriptor) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return src.Fetch(ctx, d) }
}
