package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// TestOpenRefuses has a base for each reason not to be one.
func TestOpenRefuses(t *testing.T) {
	s := store{}
	layer := tarOf(t, "d /app")
	with := func(patch func(m, c map[string]any)) v1.Descriptor {
		return s.build(t, symbolic{layers: [][]byte{layer}, patch: patch})
	}
	asLayer := func(change func(*v1.Descriptor)) v1.Descriptor {
		return with(func(m, _ map[string]any) {
			d := m["layers"].([]any)[0].(v1.Descriptor)
			change(&d)
			m["layers"] = []any{d}
		})
	}
	good := s.build(t, symbolic{layers: [][]byte{layer}})
	windows := s.build(t, symbolic{platform: "windows/amd64", layers: [][]byte{layer}})
	schema1 := s.put(schema1Prefix+"prettyjws", []byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`))
	quiet := s.put(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":1,"name":"x","fsLayers":[]}`))
	attestation := good
	attestation.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	inner := s.index(t, ociFamily, good)
	inner.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	m, ms := model(t, "a", manifest.PackOptions{})
	gone := good
	gone.Digest = "sha256:" + v1.DescriptorEmptyJSON.Digest[7:]
	large := good
	large.Size = maxDocument + 1
	twice := s.put(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"Config":{},"layers":[]}`))
	deep := s.put(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}`))
	tests := []struct {
		name     string
		root     v1.Descriptor
		platform string
		want     error
		text     string
	}{
		{"schema 1", schema1, "", ErrSchema1, "schema 1"},
		{"schema 1 under a false type", quiet, "", ErrSchema1, "schema 1"},
		{"an artifact", m.Artifact.Root, "", ErrNotImage, manifest.MediaTypeConfig},
		{"an index without images", s.index(t, ociFamily, attestation), "", ErrNotImage, "without an image"},
		{"an index within an index", s.index(t, ociFamily, inner), "", ErrNotImage, "within an index"},
		{"Windows", windows, "", ErrNotImage, "windows"},
		{"no such platform", s.index(t, ociFamily, good), "linux/s390x", ErrNoPlatform, "there are linux/amd64"},
		{"another platform", good, "linux/arm64", ErrNoPlatform, "it is for linux/amd64"},
		{"no platform at all", good, "arm64", ErrNoPlatform, "OS/ARCHITECTURE"},
		{"foreign type", asLayer(func(d *v1.Descriptor) { d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" }), "", ErrForeignLayer, "foreign"},
		{"nondistributable", asLayer(func(d *v1.Descriptor) { d.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar" }), "", ErrForeignLayer, "foreign"},
		{"URLs", asLayer(func(d *v1.Descriptor) { d.URLs = []string{"https://evil.example/x"} }), "", ErrForeignLayer, "foreign"},
		{"encrypted", asLayer(func(d *v1.Descriptor) { d.MediaType += "+encrypted" }), "", ErrEncryptedLayer, "encrypted"},
		{"a layer of another kind", asLayer(func(d *v1.Descriptor) { d.MediaType = "application/x" }), "", ErrNotImage, "application/x"},
		{"a layer without digest", asLayer(func(d *v1.Descriptor) { d.Digest = "sha256:12" }), "", manifest.ErrMalformed, "sha256:12"},
		{"too few diff_ids", with(func(_, c map[string]any) { c["rootfs"] = map[string]any{"type": "layers", "diff_ids": []any{}} }), "", ErrDiffIDs, "0 diff_ids"},
		{"no rootfs", with(func(_, c map[string]any) { delete(c, "rootfs") }), "", ErrDiffIDs, "0 diff_ids"},
		{"a rootfs of another type", with(func(_, c map[string]any) { c["rootfs"].(map[string]any)["type"] = "x" }), "", ErrDiffIDs, `type "x"`},
		{"a diff_id that is none", with(func(_, c map[string]any) { c["rootfs"].(map[string]any)["diff_ids"] = []string{"x"} }), "", ErrDiffIDs, `"x"`},
		{"layers of a wrong type", with(func(m, _ map[string]any) { m["layers"] = 1 }), "", manifest.ErrMalformed, "layers"},
		{"a key twice", twice, "", manifest.ErrMalformed, "twice"},
		{"too deep", deep, "", manifest.ErrMalformed, "deep"},
		{"too large", large, "", manifest.ErrMalformed, "at most"},
		{"not JSON", s.put(v1.MediaTypeImageManifest, []byte("no")), "", manifest.ErrMalformed, "JSON"},
		{"not an object", s.put(v1.MediaTypeImageManifest, []byte("[]")), "", manifest.ErrMalformed, "object"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var platforms []string
			if test.platform != "" {
				platforms = []string{test.platform}
			}
			_, err := Open(t.Context(), both{s, ms}, test.root, OpenOptions{Platforms: platforms})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v, want %v with %q", err, test.want, test.text)
			}
			if e, ok := errors.AsType[*BaseError](err); ok && !strings.Contains(err.Error(), e.Digest.String()) {
				t.Errorf("error %v does not name %s", err, e.Digest)
			}
		})
	}
	var many []v1.Descriptor
	for n := range 40 {
		many = append(many, s.build(t, symbolic{platform: fmt.Sprintf("linux/p%d", n), patch: func(m, _ map[string]any) { m["x"] = strings.Repeat("x", 2<<20) }}))
	}
	if _, err := Open(t.Context(), s, s.index(t, ociFamily, many...), OpenOptions{}); !errors.Is(err, manifest.ErrMalformed) {
		t.Errorf("documents without end: %v", err)
	}
	lie := good
	lie.Size--
	if _, err := Open(t.Context(), s, lie, OpenOptions{}); err == nil {
		t.Error("a size that lies is taken")
	}
	if _, err := Open(t.Context(), s, gone, OpenOptions{}); err == nil {
		t.Error("what is not there is taken")
	}
}

func TestOpenPlatforms(t *testing.T) {
	s := store{}
	var entries []v1.Descriptor
	for _, p := range []string{"linux/amd64", "linux/arm/v7", "linux/arm64/v8", "linux/s390x"} {
		entries = append(entries, s.build(t, symbolic{platform: p, layers: [][]byte{tarOf(t, "d /"+strings.ReplaceAll(p, "/", "-"))}}))
	}
	a := entries[0]
	a.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	root := s.index(t, ociFamily, append(entries, a)...)
	tests := []struct {
		ask   []string
		want  []string
		index bool
	}{
		{nil, []string{"linux/amd64", "linux/arm/v7", "linux/arm64/v8", "linux/s390x"}, true},
		{[]string{"linux/arm64"}, []string{"linux/arm64/v8"}, false},
		{[]string{"linux/arm64/v8", "linux/amd64"}, []string{"linux/amd64", "linux/arm64/v8"}, true},
		{[]string{"linux/arm"}, []string{"linux/arm/v7"}, false},
	}
	for _, test := range tests {
		m, _ := model(t, "a", manifest.PackOptions{})
		b := open(t, s, root, test.ask...)
		if len(b.Omitted) != 1 {
			t.Errorf("%v: omitted %v", test.ask, b.Omitted)
		}
		done := bake(t, b, []Model{m}, Options{})
		if (done.Root.MediaType == v1.MediaTypeImageIndex) != test.index {
			t.Errorf("%v: a %s", test.ask, done.Root.MediaType)
		}
		b = open(t, done, done.Root)
		var got []string
		for n, i := range b.Images {
			got = append(got, i.Platform())
			if i.Layers[1].Digest != b.Images[0].Layers[1].Digest {
				t.Errorf("%s does not share the model", i.Platform())
			}
			if i.Annotations[v1.AnnotationBaseImageDigest] == root.Digest.String() && test.index {
				t.Errorf("image %d: base digest is the index's", n)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, want %v", test.ask, got, test.want)
		}
		if test.index && (b.index.get("x-unknown") == nil || len(b.Omitted) != 0) {
			t.Errorf("index %s", b.index.raw())
		}
	}
}
