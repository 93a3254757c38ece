package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// carriedFiles reads every file that the image lists.
func carriedFiles(t testing.TB, src manifest.Fetcher, c *Carried) (map[string]string, error) {
	t.Helper()
	all := map[string]string{}
	for i := range c.Layers {
		l := &c.Layers[i]
		rc, err := src.Fetch(t.Context(), l.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		err = c.Walk(l, rc, func(f manifest.File, r io.Reader) error {
			data, err := io.ReadAll(r)
			all[f.Path] = string(data)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// TestFindCarried bakes models in every way and finds their files again, at the
// paths of the artifact.
func TestFindCarried(t *testing.T) {
	raw := manifest.PackOptions{Format: manifest.FormatRaw}
	links := append(pythonBase(t), tarOf(t, "d /srv", "d /srv/json", "l /app/data /srv/json"))
	for _, tt := range []struct {
		name   string
		layers [][]byte
		f      family
		pack   manifest.PackOptions
		model  string
		o      Options
	}{
		{name: "shared"},
		{name: "docker", f: dockerFamily},
		{name: "copied", o: Options{Copy: true}},
		{name: "named", model: "fraud"},
		{name: "raw", pack: raw},
		{name: "zstd", pack: manifest.PackOptions{Format: manifest.FormatTarZstd}},
		{name: "through a link", layers: links, o: Options{Copy: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := store{}
			if tt.layers == nil {
				tt.layers = pythonBase(t)
			}
			root := s.build(t, symbolic{family: tt.f, layers: tt.layers, config: pythonConfig, patch: func(m, _ map[string]any) {
				m["annotations"] = map[string]string{v1.AnnotationVersion: "of the base", "ml.galley.content": "of the base"}
			}})
			m, _ := model(t, "a", tt.pack)
			m.Name = tt.model
			done := bake(t, open(t, s, root), []Model{m}, tt.o)
			c, err := FindCarried(t.Context(), done, done.Root)
			if err != nil {
				t.Fatal(err)
			}
			if c.Root.Digest != m.Artifact.Root.Digest || c.Info().Content != m.Artifact.Info().Content || c.Info().Version != "" {
				t.Errorf("%s, %+v", c.Root.Digest, c.Info())
			}
			got, err := carriedFiles(t, done, c)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for i := range m.Artifact.Layers {
				l := &m.Artifact.Layers[i]
				rc, err := m.Source.Fetch(t.Context(), l.Descriptor)
				if err != nil {
					t.Fatal(err)
				}
				defer rc.Close()
				if _, err := l.Walk(rc, func(f manifest.File, r io.Reader) error {
					data, err := io.ReadAll(r)
					want[f.Path] = string(data)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			if len(want) != 3 || !maps.Equal(got, want) {
				t.Errorf("files %q; want %q", got, want)
			}
			for f := range c.Files() {
				if f.Role == "" {
					t.Errorf("%s has no role", f.Path)
				}
			}
		})
	}
}

// TestFindCarriedRefuses reads images that have no model, or lie about it.
func TestFindCarriedRefuses(t *testing.T) {
	s := store{}
	not := func(err error) bool { _, ok := errors.AsType[*manifest.NotArtifactError](err); return ok }
	malformed := func(err error) bool { return errors.Is(err, manifest.ErrMalformed) }
	annotated := func(a map[string]string) v1.Descriptor {
		return s.build(t, symbolic{layers: [][]byte{tarOf(t, "d /a")}, patch: func(m, _ map[string]any) { m["annotations"] = a }})
	}
	plain := annotated(nil)
	for _, tt := range []struct {
		name string
		root v1.Descriptor
		want func(error) bool
	}{
		{"no model", plain, not},
		{"an index without images", s.index(t, ociFamily), not},
		{"an index of indexes", s.index(t, ociFamily, s.index(t, ociFamily, plain)), not},
		{"attestations alone", s.index(t, ociFamily, v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: plain.Digest, Size: plain.Size, Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}), not},
		{"no digest", annotated(map[string]string{AnnotationArtifact: "latest"}), malformed},
		{"no label that is text", s.build(t, symbolic{layers: [][]byte{tarOf(t, "d /a")}, config: `{"Labels":{"ml.galley.artifact":{}}}`}), malformed},
		{"two models", annotated(map[string]string{AnnotationArtifact + ".b": plain.Digest.String(), AnnotationArtifact + ".a": plain.Digest.String()}), func(err error) bool {
			e, ok := errors.AsType[*SeveralModelsError](err)
			return ok && fmt.Sprint(e.Names) == "[a b]" && len(e.Artifacts) == 2
		}},
	} {
		if _, err := FindCarried(t.Context(), s, tt.root); err == nil || !tt.want(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestCarriedWalkRefuses reads layers that are not what the image tells of them.
func TestCarriedWalkRefuses(t *testing.T) {
	big := strings.Repeat("x", maxHeld+1)
	files := tarOf(t, "f /a/small.json {}", "f /a/model.joblib "+big)
	list := func(p, text string) manifest.File {
		return manifest.File{Path: p, Role: manifest.RoleModel, Size: int64(len(text)), Digest: digest.FromString(text)}
	}
	// A few hundred bytes that say they are 3 GB (PAX format 1.0).
	pax := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=m.x\n34 GNU.sparse.realsize=3000000000\n"
	sparse := tarOf(t, "f /pax "+pax, "f /m.x 1\n2999999999\n1\n"+strings.Repeat("\x00", 512-15)+"x")
	sparse[156] = tar.TypeXHeader
	copy(sparse[148:156], "        ")
	sum := 0
	for _, b := range sparse[:512] {
		sum += int(b)
	}
	copy(sparse[148:156], fmt.Sprintf("%06o\x00 ", sum))
	corrupt := func(err error) bool { _, ok := errors.AsType[*manifest.CorruptError](err); return ok }
	bad := func(err error) bool { return errors.Is(err, manifest.ErrBadTar) }
	for _, tt := range []struct {
		name  string
		data  []byte
		files []manifest.File
		want  func(error) bool
	}{
		{"all there", files, []manifest.File{list("data/small.json", "{}"), list("models/model.joblib", big)}, nil},
		{"missing", files, []manifest.File{list("data/small.json", "[]")}, corrupt},
		{"another model", files, []manifest.File{list("models/model.joblib", strings.Repeat("y", len(big)))}, corrupt},
		{"cut", files[:2000], []manifest.File{list("models/model.joblib", big)}, bad},
		{"sparse", sparse, []manifest.File{{Path: "m.x", Size: 3e9, Digest: digest.FromString("x")}}, func(err error) bool { return bad(err) && strings.Contains(err.Error(), "sparse") }},
		{"no tar", bytes.Repeat([]byte("x"), 1024), []manifest.File{list("data/small.json", "{}")}, bad},
	} {
		l := &manifest.Layer{Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(tt.data), Size: int64(len(tt.data))}, Files: tt.files}
		n := 0
		walk := func(data []byte) error {
			return (&Carried{}).Walk(l, bytes.NewReader(data), func(manifest.File, io.Reader) error { n++; return nil })
		}
		if err := walk(tt.data); (err == nil) != (tt.want == nil) || err != nil && !tt.want(err) || err == nil && n != len(tt.files) {
			t.Errorf("%s: %v after %d files", tt.name, err, n)
		}
		other := bytes.Clone(tt.data)
		other[len(other)-1]++
		if err := walk(other); !corrupt(err) {
			t.Errorf("%s, other bytes: %v", tt.name, err)
		}
	}
}
