package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/errdef"

	"galley/manifest"
)

// Verify reads everything below root, which is an image or an index of several,
// and compares it with all that is told of it: each digest and size, each diffID
// in a config with the layer's uncompressed bytes, and each platform in an index
// with the config's. Memory does not depend on the sizes.
//
// It returns everything that is wrong, joined in the order of the texts:
// [*manifest.CorruptError]s, [*BaseError]s and errors that wrap
// [manifest.ErrMalformed]. An error of src ends the reading and is joined too.
func Verify(ctx context.Context, src manifest.Fetcher, root v1.Descriptor) error {
	v := &verifier{b: &Base{Root: root, src: src}, layers: map[digest.Digest]*verified{}}
	err := v.keep(v.top(ctx, root))
	if err == nil {
		err = v.readLayers(ctx)
	}
	slices.SortFunc(v.found, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(append(v.found, err)...)
}

type verifier struct {
	b      *Base
	layers map[digest.Digest]*verified

	mu    sync.Mutex
	found []error
}

// verified is a layer and what the configs say of it.
type verified struct {
	v1.Descriptor
	diffIDs map[digest.Digest]string // to the platform
	blob    bool                     // no layer of a root filesystem
}

// keep collects what is a finding and returns what is not.
func (v *verifier) keep(err error) error {
	if err == nil {
		return nil
	}
	_, corrupt := errors.AsType[*manifest.CorruptError](err)
	_, base := errors.AsType[*BaseError](err)
	if !corrupt && !base && !errors.Is(err, manifest.ErrMalformed) {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found = append(v.found, err)
	return nil
}

// missing makes a finding of content that nobody has.
func missing(err error, what string, d digest.Digest) error {
	if errors.Is(err, errdef.ErrNotFound) {
		return &manifest.CorruptError{What: what, Want: d.String(), Got: "none of that size"}
	}
	return err
}

// top reads a manifest or an index.
func (v *verifier) top(ctx context.Context, root v1.Descriptor) error {
	doc, kind, err := v.b.document(ctx, root)
	if err != nil {
		return missing(err, "manifest", root.Digest)
	}
	if kind == isManifest {
		return v.image(ctx, root, doc)
	}
	var all []v1.Descriptor
	if err := doc.into("manifests", &all); err != nil {
		return err
	}
	if len(all) > maxManifests {
		return fmt.Errorf("%w: an index of %d manifests; at most %d are read", manifest.ErrMalformed, len(all), maxManifests)
	}
	for _, d := range all {
		if err := v.keep(v.entry(ctx, d)); err != nil {
			return err
		}
	}
	return nil
}

// entry reads what an index lists.
func (v *verifier) entry(ctx context.Context, d v1.Descriptor) error {
	doc, kind, err := v.b.document(ctx, d)
	switch {
	case err != nil:
		return missing(err, "manifest", d.Digest)
	case kind == isIndex:
		return &BaseError{Kind: ErrNotImage, Digest: d.Digest, Detail: "an index within an index"}
	case isImage(d):
		return v.image(ctx, d, doc)
	}
	return v.artifact(ctx, d, doc)
}

// artifact notes the blobs of a manifest that is no image.
func (v *verifier) artifact(ctx context.Context, d v1.Descriptor, doc object) error {
	var config v1.Descriptor
	var layers []v1.Descriptor
	if err := errors.Join(doc.into("config", &config), doc.into("layers", &layers)); err != nil {
		return err
	}
	for _, l := range append(layers, config) {
		if l.Digest.Validate() != nil || l.Size < 0 {
			return fmt.Errorf("%w: %s: blob %.100q of %d bytes", manifest.ErrMalformed, d.Digest, l.Digest, l.Size)
		}
		if v.layers[l.Digest] == nil {
			v.layers[l.Digest] = &verified{Descriptor: l, blob: true}
		}
	}
	return nil
}

// image reads an image's config and notes its layers.
func (v *verifier) image(ctx context.Context, d v1.Descriptor, doc object) error {
	i, err := v.b.image(ctx, d, doc)
	if err != nil {
		return missing(err, "config of "+d.Digest.String(), d.Digest)
	}
	var own v1.Platform
	if err := errors.Join(i.config.into("os", &own.OS), i.config.into("architecture", &own.Architecture), i.config.into("variant", &own.Variant)); err != nil {
		return err
	}
	if d.Platform != nil && (own.OS != d.Platform.OS || own.Architecture != d.Platform.Architecture) {
		v.keep(&manifest.CorruptError{What: "platform of " + d.Digest.String(), Want: platformString(d.Platform), Got: platformString(&own)})
	}
	var steps []struct {
		Empty bool `json:"empty_layer"`
	}
	if err := i.config.into("history", &steps); err != nil {
		return err
	}
	full := 0
	for _, s := range steps {
		if !s.Empty {
			full++
		}
	}
	if len(steps) > 0 && full != len(i.Layers) {
		v.keep(&manifest.CorruptError{What: "history of " + d.Digest.String(), Want: fmt.Sprintf("%d layers", len(i.Layers)), Got: fmt.Sprintf("%d", full)})
	}
	for n, l := range i.Layers {
		seen := v.layers[l.Digest]
		if seen == nil || seen.blob {
			seen = &verified{Descriptor: l, diffIDs: map[digest.Digest]string{}}
			v.layers[l.Digest] = seen
		}
		if seen.Size != l.Size {
			v.keep(&manifest.CorruptError{What: "size of layer " + l.Digest.String(), Want: fmt.Sprintf("%d bytes", seen.Size), Got: fmt.Sprintf("%d", l.Size)})
		}
		seen.diffIDs[i.DiffIDs[n]] = i.Platform()
	}
	return nil
}

// readLayers reads each layer once.
func (v *verifier) readLayers(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, l := range v.layers {
		g.Go(func() error { return v.keep(missing(v.layer(ctx, l), "layer", l.Digest)) })
	}
	return g.Wait()
}

func (v *verifier) layer(ctx context.Context, l *verified) error {
	rc, err := v.b.src.Fetch(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer rc.Close()
	blob := newBlob(manifest.ContextReader(ctx, rc), l.Descriptor)
	if l.blob {
		return blob.verify()
	}
	got, err := diffID(blob)
	if verr := blob.verify(); verr != nil {
		return verr // with other bytes the rest means nothing
	}
	if err != nil {
		return &manifest.CorruptError{What: "layer " + l.Digest.String(), Want: l.MediaType, Got: err.Error()}
	}
	for want, platform := range l.diffIDs {
		if want != got {
			v.keep(&manifest.CorruptError{What: fmt.Sprintf("diff_id of layer %s for %s", l.Digest, platform), Want: want.String(), Got: got.String()})
		}
	}
	return nil
}

// diffID is the digest of what a layer unpacks to.
func diffID(blob *blobReader) (digest.Digest, error) {
	plain, done, err := unpack(blob, blob.d)
	if err != nil {
		return "", err
	}
	defer done()
	return digest.SHA256.FromReader(plain)
}

// unpack returns what a layer unpacks to, bounded by what compression can
// reach, by the layer's type. done frees it.
func unpack(r io.Reader, d v1.Descriptor) (plain io.Reader, done func(), err error) {
	const room = 1 << 20
	switch layerFormats[d.MediaType] {
	case manifest.FormatTarGzip: // 1032 to 1 at the most
		z, err := gzip.NewReader(r)
		return &bounded{z, 1100*d.Size + room}, func() {}, err
	case manifest.FormatTarZstd: // a block of 128 KiB in 4 bytes
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return &bounded{z, 40_000*d.Size + room}, z.Close, nil
	}
	return r, func() {}, nil
}

// bounded fails past a limit, where io.LimitReader ends.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errors.New("it inflates to more than its format can hold")
	}
	return n, err
}

// blobReader reads a blob and checks its size and digest at its end.
type blobReader struct {
	r io.Reader
	d v1.Descriptor
	v digest.Verifier
	n int64
	// err is the source's.
	err error
}

func newBlob(r io.Reader, d v1.Descriptor) *blobReader {
	return &blobReader{r: io.LimitReader(r, d.Size+1), d: d, v: d.Digest.Verifier()}
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	b.v.Write(p[:n])
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// verify reads what is left and compares the whole.
func (b *blobReader) verify() error {
	what := "layer " + b.d.Digest.String()
	if _, err := io.Copy(io.Discard, b); err != nil || b.err != nil {
		return errors.Join(b.err, err)
	}
	if b.n != b.d.Size {
		got := fmt.Sprintf("%d", b.n)
		if b.n > b.d.Size {
			got = "more"
		}
		return &manifest.CorruptError{What: what, Want: fmt.Sprintf("%d bytes", b.d.Size), Got: got}
	}
	if !b.v.Verified() {
		return &manifest.CorruptError{What: what, Want: b.d.Digest.String(), Got: "other bytes"}
	}
	return nil
}
