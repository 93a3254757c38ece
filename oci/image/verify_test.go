package image

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// TestVerify breaks one thing at a time and wants it named.
func TestVerify(t *testing.T) {
	layer := tarOf(t, "d /app", "f /app/x y")
	other := digest.FromString("other")
	flip := func(s store, d digest.Digest) { s[d] = append([]byte{s[d][0] ^ 1}, s[d][1:]...) }
	tests := []struct {
		name string
		make func(s store) v1.Descriptor
		want []string // each a part of the text
	}{
		{"good", func(s store) v1.Descriptor { return s.build(t, symbolic{layers: [][]byte{layer}}) }, nil},
		{"good docker, plain", func(s store) v1.Descriptor {
			return s.build(t, symbolic{family: dockerFamily, plain: true, layers: [][]byte{layer}})
		}, nil},
		{"layer bytes", func(s store) v1.Descriptor {
			d := s.build(t, symbolic{layers: [][]byte{layer}})
			flip(s, digest.FromBytes(gzipped(layer)))
			return d
		}, []string{"other bytes"}},
		{"layer too long", func(s store) v1.Descriptor {
			d := s.build(t, symbolic{layers: [][]byte{layer}})
			l := digest.FromBytes(gzipped(layer))
			s[l] = append(s[l], 0)
			return d
		}, []string{"got more"}},
		{"layer missing", func(s store) v1.Descriptor {
			d := s.build(t, symbolic{layers: [][]byte{layer}})
			delete(s, digest.FromBytes(gzipped(layer)))
			return d
		}, []string{"got none"}},
		{"diff_id", func(s store) v1.Descriptor {
			return s.build(t, symbolic{layers: [][]byte{layer}, patch: func(_, c map[string]any) {
				c["rootfs"].(map[string]any)["diff_ids"] = []any{other}
			}})
		}, []string{"diff_id of layer", other.String()}},
		{"no gzip", func(s store) v1.Descriptor {
			return s.build(t, symbolic{layers: [][]byte{layer}, patch: func(m, _ map[string]any) {
				m["layers"] = []any{s.put(v1.MediaTypeImageLayerGzip, layer)}
			}})
		}, []string{"tar+gzip"}},
		{"history", func(s store) v1.Descriptor {
			return s.build(t, symbolic{layers: [][]byte{layer}, patch: func(_, c map[string]any) { c["history"] = []any{map[string]any{}, map[string]any{}} }})
		}, []string{"history", "want 1 layers, got 2"}},
		{"platform", func(s store) v1.Descriptor {
			d := s.build(t, symbolic{layers: [][]byte{layer}})
			d.Platform.Architecture = "arm64"
			return s.index(t, ociFamily, d)
		}, []string{"want linux/arm64, got linux/amd64"}},
		{"several at once", func(s store) v1.Descriptor {
			a := s.build(t, symbolic{layers: [][]byte{layer}, patch: func(_, c map[string]any) { c["rootfs"].(map[string]any)["diff_ids"] = []any{other} }})
			b := s.build(t, symbolic{platform: "linux/arm64", layers: [][]byte{tarOf(t, "d /b")}})
			c := s.build(t, symbolic{platform: "linux/s390x", layers: [][]byte{tarOf(t, "d /c")}})
			flip(s, digest.FromBytes(gzipped(tarOf(t, "d /b"))))
			delete(s, c.Digest)
			return s.index(t, dockerFamily, a, b, c)
		}, []string{"diff_id", "other bytes", "got none"}},
		{"attestation", func(s store) v1.Descriptor {
			a := s.build(t, symbolic{layers: [][]byte{layer}})
			blob := s.put("application/vnd.in-toto+json", []byte("{}"))
			d := s.put(v1.MediaTypeImageManifest, toJSON(t, v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: blob, Layers: []v1.Descriptor{blob}}))
			d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
			s[blob.Digest] = []byte("[]")
			return s.index(t, ociFamily, a, d)
		}, []string{"other bytes"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := store{}
			root := test.make(s)
			before := maps.Clone(s)
			err := Verify(t.Context(), s, root)
			if len(test.want) == 0 {
				if err != nil {
					t.Errorf("error %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("it verifies")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
			joined, ok := err.(interface{ Unwrap() []error })
			if !ok {
				t.Fatalf("error %T", err)
			}
			for _, e := range joined.Unwrap() {
				if _, ok := errors.AsType[*manifest.CorruptError](e); !ok {
					t.Errorf("%T: %v", e, e)
				}
			}
			if len(before) != len(s) {
				t.Error("the store changed")
			}
		})
	}
}
