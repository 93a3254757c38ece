package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/manifest/training"
	"galley/oci"
	"galley/oci/image"
	"galley/oci/ocitest"
)

func findFacts(t testing.TB, target oci.Target, reference string, o oci.FactsOptions) *oci.Subject {
	t.Helper()
	s, err := oci.FindFacts(t.Context(), target, reference, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// told is a line of what facts say, whatever they were read from.
func told(f *manifest.Facts) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d", f.Path, oci.Short(f.FileDigest), f.Size)
	if f.Features != nil {
		fmt.Fprintf(&b, " %v", f.Features.Names)
	}
	if f.Summary != nil {
		for _, m := range f.Summary.Metrics {
			fmt.Fprintf(&b, " %s=%s", m.Path, m)
		}
	}
	for _, s := range f.Scans {
		fmt.Fprintf(&b, " %s:%s", s.Path, s.Verdict())
	}
	return b.String()
}

// wantRequests compares how many requests of each kind were sent.
func wantRequests(t *testing.T, got []string, manifests, blobs int) {
	t.Helper()
	m, b := 0, 0
	for _, line := range got {
		switch {
		case strings.HasPrefix(line, "GET ") && strings.Contains(line, "/manifests/"):
			m++
		case strings.HasPrefix(line, "GET ") && strings.Contains(line, "/blobs/"):
			b++
		}
	}
	if m != manifests || b != blobs || len(got) != m+b {
		t.Errorf("%d manifests and %d blobs; want %d and %d, and nothing else:\n%s", m, b, manifests, blobs, strings.Join(got, "\n"))
	}
}

func TestFindFacts(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("hello"), manifest.PackOptions{Version: "1.2"})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	r.Requests()

	s := findFacts(t, target, "v1", oci.FactsOptions{})
	wantRequests(t, r.Requests(), 1, 2)
	if s.IsImage || s.Model != p.Root.Digest || s.Root.Digest != p.Root.Digest || s.Facts.Digest != p.Root.Digest || s.Facts.Info.Version != "1.2" {
		t.Errorf("%+v", s)
	}
	scanned := told(p.Facts())
	unscanned, _, _ := strings.Cut(scanned, " models/model.joblib:")
	if got := told(s.Facts); got != unscanned || s.Facts.Scans != nil {
		t.Errorf("facts %q; want %q", got, unscanned)
	}
	// What was read is not read again.
	for range 2 {
		if err := s.Read(t.Context(), oci.FactsOptions{Scan: true}); err != nil {
			t.Fatal(err)
		}
	}
	wantRequests(t, r.Requests(), 0, 1)
	if got := told(s.Facts); got != scanned {
		t.Errorf("facts %q; want %q", got, scanned)
	}
	if got := told(findFacts(t, target, "v1", oci.FactsOptions{Scan: true}).Facts); got != scanned {
		t.Errorf("facts %q; want %q", got, scanned)
	}
	wantRequests(t, r.Requests(), 1, 3)
	s = findFacts(t, target, "v1", oci.FactsOptions{ManifestOnly: true})
	wantRequests(t, r.Requests(), 1, 0)
	if len(s.Facts.Info.Metrics) != 1 || s.Facts.Summary != nil || s.Facts.Path != modelFile {
		t.Errorf("facts of the manifest alone: %+v", s.Facts)
	}
	r.Misbehave(ocitest.Alter)
	_, err := oci.FindFacts(t.Context(), target, "v1", oci.FactsOptions{})
	if _, ok := errors.AsType[*manifest.CorruptError](err); !ok {
		t.Errorf("of other bytes: %v; want a CorruptError", err)
	}
}

// TestFindFactsOfPeers reads what other tools packed: everything is found, in
// layers that do not list their files too.
func TestFindFactsOfPeers(t *testing.T) {
	names, err := filepath.Glob("../testdata/peers/*/oci-layout")
	if err != nil || len(names) < 6 {
		t.Fatalf("%d layouts, %v; want at least 6", len(names), err)
	}
	model, err := os.ReadFile("../testdata/peers/source/models/random_forest_final_model.joblib")
	if err != nil {
		t.Fatal(err)
	}
	size, sum := int64(len(model)), digest.FromBytes(model)
	for _, name := range names {
		name = filepath.Base(filepath.Dir(name))
		t.Run(name, func(t *testing.T) {
			target := openTarget(t, "oci:../testdata/peers/"+name)
			for _, scan := range []bool{false, true} {
				s := findFacts(t, target, "v1", oci.FactsOptions{})
				if scan {
					if err := s.Read(t.Context(), oci.FactsOptions{Scan: true}); err != nil {
						t.Fatal(err)
					}
				}
				f := s.Facts
				if f.Features == nil || !slices.Equal(f.Features.Names, []string{"amount", "hour", "country"}) || f.Info.Features != 3 {
					t.Errorf("features %+v", f.Features)
				}
				if f.Summary == nil || len(f.Summary.Metrics) != 2 || len(f.Info.Metrics) != 2 {
					t.Errorf("summary %+v", f.Summary)
				}
				if f.Path != "models/random_forest_final_model.joblib" || scan && (f.Size != size || f.FileDigest != sum) {
					t.Errorf("model %q of %d bytes, %s", f.Path, f.Size, f.FileDigest)
				}
				if got := fmt.Sprint(len(f.Scans)); scan && (got != "1" || f.Info.Scan == "") || !scan && f.Scans != nil {
					t.Errorf("%s scans, %q", got, f.Info.Scan)
				}
			}
		})
	}
}

// bakeInto bakes the models, which are in from, and pushes the image to target.
func bakeInto(t *testing.T, target oci.Target, base *image.Base, tag string, from oci.Target, models map[string]string, o image.Options) v1.Descriptor {
	t.Helper()
	var all []image.Model
	for _, name := range slices.Sorted(maps.Keys(models)) {
		m, err := oci.Read(t.Context(), from, models[name])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, image.Model{Name: name, Artifact: m.Artifact, Source: m})
	}
	k, err := image.NewBaking(t.Context(), base, all, o)
	if err == nil {
		err = k.Look(t.Context(), image.LookOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	done, err := k.Bake(t.Context())
	if err == nil {
		_, err = oci.PushImage(t.Context(), target, done, done.Root, oci.ImageOptions{Tags: []string{tag}, Where: func(v1.Descriptor) oci.Target { return nil }})
	}
	if err != nil {
		t.Fatal(err)
	}
	return done.Root
}

// openBase is a tiny image in a layout.
func openBase(t *testing.T) *image.Base {
	t.Helper()
	home := openTarget(t, "oci:"+t.TempDir()+"/base")
	blobs := tinyImage(t, home, "v1", "A=1")
	b, err := image.Open(t.Context(), home, blobs[3], image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFindFactsOfImages(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("hello"), manifest.PackOptions{Version: "1.2"})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	images, ri := newTarget(t)
	want := told(p.Facts())
	for _, tt := range []struct {
		name      string
		base      *image.Base
		model     string // its name
		o         image.Options
		manifests int
	}{
		{name: "index", base: image.Scratch(), manifests: 2},
		{name: "one", base: openBase(t), manifests: 1},
		{name: "elsewhere", base: openBase(t), o: image.Options{Dest: "/srv/app"}, manifests: 1},
		{name: "copied", base: openBase(t), o: image.Options{Dest: "/srv/app", Copy: true}, manifests: 1},
		{name: "named", base: openBase(t), model: "fraud", manifests: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := bakeInto(t, images, tt.base, tt.name, target, map[string]string{tt.model: "v1"}, tt.o)
			r.Requests()
			ri.Requests()
			s := findFacts(t, images, tt.name, oci.FactsOptions{})
			wantRequests(t, ri.Requests(), tt.manifests, 1)
			if !s.IsImage || s.Model != p.Root.Digest || s.Root.Digest != root.Digest || s.Facts.Digest != p.Root.Digest || s.Facts.Info.Content != p.Info().Content {
				t.Errorf("%+v", s)
			}
			if err := s.Read(t.Context(), oci.FactsOptions{Scan: true}); err != nil {
				t.Fatal(err)
			}
			wantRequests(t, ri.Requests(), 0, 1)
			if got := told(s.Facts); got != want {
				t.Errorf("facts %q; want %q", got, want)
			}
			if got := r.Requests(); len(got) > 0 {
				t.Errorf("the model's repository was asked: %q", got)
			}
		})
	}

	t.Run("several", func(t *testing.T) {
		bakeInto(t, images, image.Scratch(), "several", target, map[string]string{"fraud": "v1", "churn": "v1"}, image.Options{})
		_, err := oci.FindFacts(t.Context(), images, "several", oci.FactsOptions{})
		several, ok := errors.AsType[*image.SeveralModelsError](err)
		if !ok || !slices.Equal(several.Names, []string{"churn", "fraud"}) || several.Artifacts[0] != p.Root.Digest {
			t.Errorf("%v", err)
		}
	})
	t.Run("no model", func(t *testing.T) {
		tinyImage(t, images, "base", "A=1")
		_, err := oci.FindFacts(t.Context(), images, "base", oci.FactsOptions{})
		if _, ok := errors.AsType[*manifest.NotArtifactError](err); !ok {
			t.Errorf("%v", err)
		}
	})

	// docker pull and docker push write another manifest, and keep the labels.
	t.Run("pushed by docker", func(t *testing.T) {
		repush(t, images, "one", "again")
		s := findFacts(t, images, "again", oci.FactsOptions{Scan: true})
		if !s.IsImage || s.Model != p.Root.Digest || s.Facts.Summary != nil || s.Facts.Info.Content != p.Info().Content {
			t.Errorf("without the artifact: %+v, %+v", s, s.Facts)
		}
		if _, err := oci.CopyReference(t.Context(), images, target, "v1", oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}}); err != nil {
			t.Fatal(err)
		}
		s = findFacts(t, images, "again", oci.FactsOptions{Scan: true})
		if got := told(s.Facts); !s.IsImage || s.Model != p.Root.Digest || s.Root.Digest == s.Model || got != want {
			t.Errorf("with it: %q; want %q", got, want)
		}
	})
}

// repush writes the image's manifest without annotations.
func repush(t *testing.T, target oci.Target, tag, as string) {
	t.Helper()
	root, src, err := oci.Find(t.Context(), target, tag)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.ReadBlob(t.Context(), src, root, "manifest", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatal(err)
	}
	m.Annotations = nil
	for i := range m.Layers {
		m.Layers[i].Annotations = nil
	}
	if doc, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	root.Digest, root.Size = digest.FromBytes(doc), int64(len(doc))
	if ok, err := target.Exists(t.Context(), root); err != nil || !ok {
		if err := target.Push(t.Context(), root, bytes.NewReader(doc)); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Tag(t.Context(), root, as); err != nil {
		t.Fatal(err)
	}
}

// TestFindFactsOfBadFiles reads JSON that is broken or too large.
func TestFindFactsOfBadFiles(t *testing.T) {
	target := openTarget(t, "oci:"+t.TempDir()+"/layout")
	push := func(mediaType string, data []byte, annotations map[string]string) v1.Descriptor {
		d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data)), Annotations: annotations}
		if ok, err := target.Exists(t.Context(), d); err != nil || !ok {
			if err := target.Push(t.Context(), d, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	for _, tt := range []struct {
		name, text string
		lie        int64 // about the size
		want       func(error) bool
	}{
		{"broken", `{"f1": 0.5,`, 0, func(err error) bool {
			e, ok := errors.AsType[*manifest.FileError](err)
			_, syntax := errors.AsType[*training.SyntaxError](err)
			return ok && e.Path == "data/summary.json" && syntax
		}},
		{"too large", `{"f1": 0.5` + strings.Repeat(" ", training.MaxSize) + "}", 0, func(err error) bool {
			_, ok := errors.AsType[*training.SizeError](err)
			return ok
		}},
		{"too large, it says", `{"f1": 0.5}`, 1 << 40, func(err error) bool {
			_, ok := errors.AsType[*training.SizeError](err)
			return ok
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := push("application/vnd.cncf.model.doc.v1.raw", []byte(tt.text), map[string]string{
				v1.AnnotationTitle: "data/summary.json", manifest.AnnotationRole: string(manifest.RoleSummary),
			})
			if tt.lie > 0 {
				l.Size = tt.lie
			}
			m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: manifest.ArtifactType, Config: push(manifest.MediaTypeConfig, []byte("{}"), nil), Layers: []v1.Descriptor{l}}
			m.SchemaVersion = 2
			doc, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := target.Tag(t.Context(), push(m.MediaType, doc, nil), "v1"); err != nil {
				t.Fatal(err)
			}
			if _, err := oci.FindFacts(t.Context(), target, "v1", oci.FactsOptions{}); err == nil || !tt.want(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestInstalledFacts(t *testing.T) {
	target := openTarget(t, "oci:"+t.TempDir()+"/layout")
	fsys := fstest.MapFS{"conf/columns.txt": {Data: []byte(`["amount"]`)}}
	maps.Copy(fsys, project("hello"))
	p, err := manifest.Pack(t.Context(), []manifest.Input{
		manifest.FromFS(fsys, modelFile, "m.bin", manifest.RoleModel),
		manifest.FromFS(fsys, "conf/columns.txt", "conf/columns.txt", manifest.RoleFeatures),
		manifest.FromFS(fsys, "data/summary.json", "s.json", manifest.RoleSummary),
	}, manifest.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	facts := func() *manifest.Facts {
		t.Helper()
		f, err := oci.InstalledFacts(t.Context(), dir, oci.FactsOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := facts(); f != nil {
		t.Errorf("of an empty directory: %+v", f)
	}
	m, err := oci.Read(t.Context(), target, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, dir, m, m.Artifact, oci.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	f := facts()
	if f == nil {
		t.Fatal("not found")
	}
	if got, want := told(f), told(p.Facts()); got != want || f.Digest != p.Root.Digest || f.Info.Content != p.Info().Content {
		t.Errorf("facts %q; want %q\n%+v", got, want, f)
	}
	write(t, dir, "s.json", `{"test_f1": 0.6}`)
	if f := facts(); f != nil {
		t.Errorf("of changed files: %+v", f)
	}
	if err := os.Remove(filepath.Join(dir, "s.json")); err != nil {
		t.Fatal(err)
	}
	if f := facts(); f != nil {
		t.Errorf("of files that are gone: %+v", f)
	}
}
