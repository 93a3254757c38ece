package ocitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/oci"
)

// Blob is content with its descriptor.
type Blob struct {
	v1.Descriptor
	Data []byte
}

// NewBlob returns a blob of the media type.
func NewBlob(mediaType, data string) Blob {
	return Blob{v1.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}, []byte(data)}
}

// NewManifest returns a manifest of the layers. Its annotation sets it apart
// from others of the same layers.
func NewManifest(name string, layers ...Blob) Blob {
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: "application/x-test", Config: v1.DescriptorEmptyJSON,
		Annotations: map[string]string{"name": name}, Layers: []v1.Descriptor{},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // the struct above always marshals
	}
	b := NewBlob(v1.MediaTypeImageManifest, string(text))
	b.ArtifactType = m.ArtifactType
	return b
}

// Suite checks that what open returns behaves as an [oci.Target]. open is
// called once for every test and returns an empty repository each time.
func Suite(t *testing.T, open func(t *testing.T) oci.Target) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, oci.Target)
	}{
		{"blobs", testBlobs},
		{"refuses wrong bytes", testWrongBytes},
		{"tags", testTags},
		{"lists tags", testList},
		{"copies graphs", testCopy},
		{"moves tags last", testTagsLast},
		{"keeps version tags", testVersionTags},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

func push(t *testing.T, target oci.Target, blobs ...Blob) {
	t.Helper()
	for _, b := range blobs {
		err := target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data))
		if err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			t.Fatalf("push %s: %v", b.MediaType, err)
		}
	}
}

// pushGraph pushes a manifest with what it needs.
func pushGraph(t *testing.T, target oci.Target, m Blob, layers ...Blob) {
	t.Helper()
	push(t, target, append(layers, NewBlob(v1.MediaTypeEmptyJSON, "{}"), m)...)
}

func fetch(t *testing.T, target oci.Target, d v1.Descriptor) []byte {
	t.Helper()
	rc, err := target.Fetch(t.Context(), d)
	if err != nil {
		t.Fatalf("fetch %s: %v", d.Digest, err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func testBlobs(t *testing.T, target oci.Target) {
	b := NewBlob("application/octet-stream", strings.Repeat("blob", 100_000))
	if ok, err := target.Exists(t.Context(), b.Descriptor); ok || err != nil {
		t.Errorf("Exists before the push = %v, %v", ok, err)
	}
	if _, err := target.Fetch(t.Context(), b.Descriptor); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Fetch before the push: %v; want %v", err, errdef.ErrNotFound)
	}
	push(t, target, b, b)
	if ok, err := target.Exists(t.Context(), b.Descriptor); !ok || err != nil {
		t.Errorf("Exists = %v, %v", ok, err)
	}
	if got := fetch(t, target, b.Descriptor); !bytes.Equal(got, b.Data) {
		t.Errorf("fetched %d other bytes", len(got))
	}
}

func testWrongBytes(t *testing.T, target oci.Target) {
	good := NewBlob("application/octet-stream", "the right bytes")
	for _, wrong := range []string{"the wrong bytes", "the right", "the right bytes and more"} {
		if err := target.Push(t.Context(), good.Descriptor, strings.NewReader(wrong)); err == nil {
			t.Errorf("%q was taken for %q", wrong, good.Data)
		}
	}
	if ok, err := target.Exists(t.Context(), good.Descriptor); ok || err != nil {
		t.Errorf("Exists = %v, %v; want nothing", ok, err)
	}
}

func testTags(t *testing.T, target oci.Target) {
	one, two := NewManifest("one"), NewManifest("two")
	pushGraph(t, target, one)
	pushGraph(t, target, two)
	if _, err := target.Resolve(t.Context(), "v1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Resolve before tagging: %v; want %v", err, errdef.ErrNotFound)
	}
	for _, m := range []Blob{one, two, one} {
		if err := target.Tag(t.Context(), m.Descriptor, "latest"); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"latest", m.Digest.String()} {
			d, err := target.Resolve(t.Context(), ref)
			if err != nil || d.Digest != m.Digest || d.Size != m.Size || d.MediaType != m.MediaType {
				t.Errorf("Resolve %s = %v, %v; want %v", ref, d, err, m.Descriptor)
			}
		}
	}
}

func testList(t *testing.T, target oci.Target) {
	m := NewManifest("m")
	pushGraph(t, target, m)
	want := []string{"a", "b-1", "c.2", "v1", "v10", "v2"}
	for _, tag := range []string{"v2", "a", "c.2", "v10", "b-1", "v1"} {
		if err := target.Tag(t.Context(), m.Descriptor, tag); err != nil {
			t.Fatal(err)
		}
	}
	got, err := registry.Tags(t.Context(), target)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Tags = %v, %v; want %v", got, err, want)
	}
}

// graph is a small source.
type graph map[digest.Digest]Blob

func newGraph(blobs ...Blob) graph {
	g := make(graph)
	for _, b := range append(blobs, NewBlob(v1.MediaTypeEmptyJSON, "{}")) {
		g[b.Digest] = b
	}
	return g
}

func (g graph) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	b, ok := g[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, errdef.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(b.Data)), nil
}

func (g graph) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	_, ok := g[d.Digest]
	return ok, nil
}

func testCopy(t *testing.T, target oci.Target) {
	layer := NewBlob("application/x-layer", strings.Repeat("layer", 50_000))
	m := NewManifest("m", layer)
	g := newGraph(layer, m)
	for range 2 { // the second finds everything there
		if err := oci.Copy(t.Context(), target, g, m.Descriptor, oci.CopyOptions{Tags: []string{"v1", "candidate"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range g {
		if got := fetch(t, target, b.Descriptor); !bytes.Equal(got, b.Data) {
			t.Errorf("%s: other bytes", b.MediaType)
		}
	}
	for _, tag := range []string{"v1", "candidate"} {
		if d, err := target.Resolve(t.Context(), tag); err != nil || d.Digest != m.Digest {
			t.Errorf("Resolve %s = %v, %v", tag, d, err)
		}
	}
}

func testTagsLast(t *testing.T, target oci.Target) {
	layer := NewBlob("application/x-layer", "layer")
	m := NewManifest("m", layer)
	g := newGraph(m) // the layer is missing
	if err := oci.Copy(t.Context(), target, g, m.Descriptor, oci.CopyOptions{Tags: []string{"latest"}}); err == nil {
		t.Fatal("a graph without its layer was copied")
	}
	if d, err := target.Resolve(t.Context(), "latest"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Resolve = %v, %v; want no tag", d, err)
	}
}

func testVersionTags(t *testing.T, target oci.Target) {
	one, two := NewManifest("one"), NewManifest("two")
	pushGraph(t, target, one)
	pushGraph(t, target, two)
	if err := target.Tag(t.Context(), one.Descriptor, "v1"); err != nil {
		t.Fatal(err)
	}
	_, err := oci.CopyReference(t.Context(), target, target, two.Digest.String(), oci.TagRules{}, oci.CopyOptions{Tags: []string{"candidate", "v1"}})
	taken, ok := errors.AsType[*oci.TakenError](err)
	if !ok || taken.Tag != "v1" || taken.Have != one.Digest || taken.Next != "v2" {
		t.Fatalf("moving v1: %v; want a TakenError for v1 with v2 next", err)
	}
	if _, err := target.Resolve(t.Context(), "candidate"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("candidate was written although v1 was refused: %v", err)
	}
	if _, err := oci.CopyReference(t.Context(), target, target, two.Digest.String(), oci.TagRules{}, oci.CopyOptions{Tags: []string{"v2"}}); err != nil {
		t.Error(err)
	}
}
