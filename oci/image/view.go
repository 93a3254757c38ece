package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
)

// The bounds of an image: manifests in an index, layers in a manifest, and the
// bytes of all its documents.
const (
	maxManifests = 1000
	maxLayers    = 1000
	maxDocuments = 64 << 20
)

// Image is one platform's image, read-only: its manifest and its config.
type Image struct {
	// Descriptor is of the manifest, with the platform.
	Descriptor v1.Descriptor
	Layers     []v1.Descriptor
	DiffIDs    []digest.Digest // of the layers, in their order
	// Config is how it runs.
	Config v1.ImageConfig
	// Annotations are the manifest's.
	Annotations map[string]string

	manifest, config object
	family           family
	at               int // in the index
}

// Platform returns OS/ARCHITECTURE[/VARIANT].
func (i *Image) Platform() string { return platformString(i.Descriptor.Platform) }

// Base is an image to build on: one platform, or an index of several.
type Base struct {
	Root   v1.Descriptor
	Images []*Image
	// Omitted are entries of the index that are no images, as attestations are,
	// and are therefore left out.
	Omitted []v1.Descriptor

	o       OpenOptions
	src     manifest.Fetcher
	index   object // nil: a single manifest, or one chosen out of an index
	family  family // of the index
	scratch bool
	read    atomic.Int64 // bytes of documents
}

// blob reads a manifest or a config.
func (b *Base) blob(ctx context.Context, d v1.Descriptor, what string) ([]byte, error) {
	if d.Size > 0 && b.read.Add(d.Size) > maxDocuments {
		return nil, fmt.Errorf("%w: manifests and configs of more than %d bytes together", manifest.ErrMalformed, maxDocuments)
	}
	return manifest.ReadBlob(ctx, b.src, d, what, maxDocument)
}

// OpenOptions say how a base is read.
type OpenOptions struct {
	// Name is the base's reference with its tag, for the annotation
	// org.opencontainers.image.base.name; "": none.
	Name string
	// Repository is where its blobs lie, for [Graph.From]; "": nowhere.
	Repository string
	// Platforms are OS/ARCHITECTURE[/VARIANT] of the images to take; none: all
	// of them. One that is asked for alone gives an image, not an index.
	Platforms []string
}

// Open reads the manifests and configs of the image at root, and no layer. src
// may be asked from several goroutines. Errors are those of src, a [*BaseError],
// a [*manifest.CorruptError], or wrap [manifest.ErrMalformed].
func Open(ctx context.Context, src manifest.Fetcher, root v1.Descriptor, o OpenOptions) (*Base, error) {
	for _, p := range o.Platforms {
		if n := strings.Count(p, "/"); n < 1 || n > 2 {
			return nil, &BaseError{Kind: ErrNoPlatform, Digest: root.Digest, Detail: fmt.Sprintf("platform %.100q is not OS/ARCHITECTURE[/VARIANT]", p)}
		}
	}
	b := &Base{Root: root, o: o, src: src}
	doc, kind, err := b.document(ctx, root)
	if err != nil {
		return nil, err
	}
	if kind != isIndex {
		i, err := b.image(ctx, root, doc)
		if err != nil {
			return nil, err
		}
		if len(o.Platforms) > 0 && !slices.ContainsFunc(o.Platforms, func(p string) bool { return matches(p, i.Descriptor.Platform) }) {
			return nil, &BaseError{Kind: ErrNoPlatform, Digest: root.Digest, Detail: fmt.Sprintf("it is for %s, not for %s", i.Platform(), strings.Join(o.Platforms, ", "))}
		}
		b.Images = []*Image{i}
		return b, nil
	}
	b.index, b.family = doc, familyOf(doc, root.MediaType)
	if err := b.images(ctx); err != nil {
		return nil, err
	}
	if len(o.Platforms) == 1 {
		b.index = nil
	}
	return b, nil
}

// kind is what a document is.
type kind int

const (
	isManifest kind = iota
	isIndex
)

// document reads a manifest or index and says which it is.
func (b *Base) document(ctx context.Context, d v1.Descriptor) (object, kind, error) {
	if strings.HasPrefix(d.MediaType, schema1Prefix) {
		return nil, 0, &BaseError{Kind: ErrSchema1, Digest: d.Digest, Detail: "a schema 1 image, which has no config and is long deprecated"}
	}
	data, err := b.blob(ctx, d, "manifest")
	if err != nil {
		return nil, 0, err
	}
	doc, err := parseDocument(data)
	if err != nil {
		return nil, 0, err
	}
	var version int
	if err := doc.into("schemaVersion", &version); err != nil {
		return nil, 0, err
	}
	var mediaType string
	if err := doc.into("mediaType", &mediaType); err != nil {
		return nil, 0, err
	}
	if mediaType == "" {
		mediaType = d.MediaType
	}
	switch {
	case version == 1 || strings.HasPrefix(mediaType, schema1Prefix):
		return nil, 0, &BaseError{Kind: ErrSchema1, Digest: d.Digest, Detail: "a schema 1 image, which has no config and is long deprecated"}
	case mediaType == v1.MediaTypeImageIndex || mediaType == dockerList || doc.get("manifests") != nil && doc.get("config") == nil:
		return doc, isIndex, nil
	case doc.get("config") == nil:
		return nil, 0, &BaseError{Kind: ErrNotImage, Digest: d.Digest, Detail: fmt.Sprintf("not a container image but %.100q", mediaType)}
	}
	return doc, isManifest, nil
}

// images reads those of the index that are asked for.
func (b *Base) images(ctx context.Context) error {
	var all []v1.Descriptor
	if err := b.index.into("manifests", &all); err != nil {
		return err
	}
	if len(all) > maxManifests {
		return fmt.Errorf("%w: an index of %d manifests; at most %d are read", manifest.ErrMalformed, len(all), maxManifests)
	}
	var have []string
	for at, d := range all {
		if !isImage(d) {
			b.Omitted = append(b.Omitted, d)
			continue
		}
		have = append(have, platformString(d.Platform))
		if len(b.o.Platforms) == 0 || slices.ContainsFunc(b.o.Platforms, func(p string) bool { return matches(p, d.Platform) }) {
			b.Images = append(b.Images, &Image{Descriptor: d, at: at})
		}
	}
	for _, p := range b.o.Platforms {
		if !slices.ContainsFunc(b.Images, func(i *Image) bool { return matches(p, i.Descriptor.Platform) }) {
			return &BaseError{Kind: ErrNoPlatform, Digest: b.Root.Digest, Detail: fmt.Sprintf("no image for %s; there are %s", p, list(have))}
		}
	}
	if len(b.Images) == 0 {
		return &BaseError{Kind: ErrNotImage, Digest: b.Root.Digest, Detail: "an index without an image"}
	}
	if len(b.o.Platforms) == 1 {
		b.Images = b.Images[:1] // variants and versions of one system: the first is preferred
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(5)
	for n, i := range b.Images {
		g.Go(func() error {
			doc, kind, err := b.document(ctx, i.Descriptor)
			if err != nil {
				return err
			}
			if kind == isIndex {
				return &BaseError{Kind: ErrNotImage, Digest: i.Descriptor.Digest, Detail: "an index within an index"}
			}
			read, err := b.image(ctx, i.Descriptor, doc)
			if err == nil {
				read.at, b.Images[n] = i.at, read
			}
			return err
		})
	}
	return g.Wait()
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// isImage tells images from attestations and other artifacts in an index.
func isImage(d v1.Descriptor) bool {
	if d.ArtifactType != "" || d.Annotations["vnd.docker.reference.type"] != "" {
		return false
	}
	return d.Platform == nil || d.Platform.OS != "unknown" && d.Platform.Architecture != "unknown"
}

// image reads one image whose manifest is at hand.
func (b *Base) image(ctx context.Context, d v1.Descriptor, doc object) (*Image, error) {
	i := &Image{Descriptor: d, manifest: doc, family: familyOf(doc, d.MediaType)}
	var config v1.Descriptor
	if err := doc.into("config", &config); err != nil {
		return nil, err
	}
	if config.MediaType != v1.MediaTypeImageConfig && config.MediaType != dockerConfig {
		return nil, &BaseError{Kind: ErrNotImage, Digest: d.Digest, Platform: platformString(d.Platform),
			Detail: fmt.Sprintf("not a container image but an artifact with config %.100q", config.MediaType)}
	}
	if err := doc.into("layers", &i.Layers); err != nil {
		return nil, err
	}
	if err := doc.into("annotations", &i.Annotations); err != nil {
		return nil, err
	}
	if len(i.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: %d layers; at most %d are read", manifest.ErrMalformed, len(i.Layers), maxLayers)
	}
	for _, l := range i.Layers {
		if err := checkLayer(l, platformString(d.Platform)); err != nil {
			return nil, err
		}
	}
	data, err := b.blob(ctx, config, "config")
	if err != nil {
		return nil, err
	}
	if i.config, err = parseDocument(data); err != nil {
		return nil, fmt.Errorf("config %s: %w", config.Digest, err)
	}
	if err := i.readConfig(config.Digest); err != nil {
		return nil, err
	}
	return i, nil
}

// readConfig takes from the config what galley needs of it.
func (i *Image) readConfig(d digest.Digest) error {
	var p v1.Platform
	var rootfs v1.RootFS
	if err := json.Unmarshal(i.config.raw(), &p); err != nil {
		return fmt.Errorf("%w: config %s: %w", manifest.ErrMalformed, d, err)
	}
	for key, v := range map[string]any{"config": &i.Config, "rootfs": &rootfs} {
		if err := i.config.into(key, v); err != nil {
			return fmt.Errorf("config %s: %w", d, err)
		}
	}
	if i.Descriptor.Platform == nil {
		i.Descriptor.Platform = &p
	}
	if p.OS != "linux" {
		return &BaseError{Kind: ErrNotImage, Digest: d, Platform: i.Platform(), Detail: fmt.Sprintf("an image for the system %.40q; galley bakes into Linux images", p.OS)}
	}
	if len(rootfs.DiffIDs) != len(i.Layers) || rootfs.Type != "" && rootfs.Type != "layers" {
		return &BaseError{Kind: ErrDiffIDs, Digest: d, Platform: i.Platform(),
			Detail: fmt.Sprintf("the config lists %d diff_ids (rootfs type %.40q), the manifest %d layers", len(rootfs.DiffIDs), rootfs.Type, len(i.Layers))}
	}
	for _, id := range rootfs.DiffIDs {
		if id.Validate() != nil {
			return &BaseError{Kind: ErrDiffIDs, Digest: d, Platform: i.Platform(), Detail: fmt.Sprintf("the config lists %.100q, which is no digest, as a diff_id", id)}
		}
	}
	i.DiffIDs = rootfs.DiffIDs
	return nil
}

// checkLayer refuses layers that galley must not or cannot copy.
func checkLayer(l v1.Descriptor, platform string) error {
	e := &BaseError{Digest: l.Digest, Platform: platform}
	_, known := layerFormats[l.MediaType]
	switch {
	case l.Digest.Validate() != nil || l.Size < 0:
		return fmt.Errorf("%w: layer %.100q of %d bytes", manifest.ErrMalformed, l.Digest, l.Size)
	case strings.HasSuffix(l.MediaType, "+encrypted"):
		e.Kind, e.Detail = ErrEncryptedLayer, fmt.Sprintf("an encrypted layer (%.100s), which nothing can be checked of", l.MediaType)
	case strings.Contains(l.MediaType, ".foreign.") || strings.Contains(l.MediaType, ".nondistributable.") || len(l.URLs) > 0:
		e.Kind, e.Detail = ErrForeignLayer, fmt.Sprintf("a foreign layer (%.100s), which lies outside the registry", l.MediaType)
	case !known:
		e.Kind, e.Detail = ErrNotImage, fmt.Sprintf("a layer of type %.100q, which is no part of a root filesystem", l.MediaType)
	default:
		return nil
	}
	return e
}
