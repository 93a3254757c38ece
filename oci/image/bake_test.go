package image

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// pythonBase are the layers of an image with an app that belongs to user 1000.
func pythonBase(t testing.TB) [][]byte {
	return [][]byte{
		tarOf(t, "d /usr", "d /usr/bin", "d /usr/local", "d /usr/local/bin", "f /usr/local/bin/python3.11 elf", "l /usr/local/bin/python3 python3.11",
			"d /usr/local/lib", "d /usr/local/lib/python3.11", "d /usr/local/lib/python3.11/site-packages"),
		tarOf(t, "d /usr", "d /usr/local", "d /usr/local/lib", "d /usr/local/lib/python3.11", "d /usr/local/lib/python3.11/site-packages",
			"d /usr/local/lib/python3.11/site-packages/scikit_learn-1.3.2.dist-info", "f /usr/local/lib/python3.11/site-packages/scikit_learn-1.3.2.dist-info/METADATA x",
			"d /usr/local/lib/python3.11/site-packages/numpy-1.26.4.dist-info", "f /usr/local/lib/python3.11/site-packages/numpy-1.26.4.dist-info/METADATA x"),
		tarOf(t, "d /app 750 1000 1000", "f /app/main.py print()"),
	}
}

const pythonConfig = `{"Env":["PATH=/usr/local/bin:/usr/bin:/bin","LANG=C"],"WorkingDir":"/app","Cmd":["uvicorn","main:app"],"User":"1000","X-Unknown":1e400}`

func TestBake(t *testing.T) {
	for _, f := range []family{ociFamily, dockerFamily} {
		t.Run(f.manifest(), func(t *testing.T) {
			s := store{}
			root := s.build(t, symbolic{family: f, layers: pythonBase(t), config: pythonConfig})
			m, _ := model(t, "a", manifest.PackOptions{Name: "fraud"})
			base := &counting{Fetcher: s}
			done := bake(t, open(t, base, root), []Model{m}, Options{Env: []string{"LANG=de", "NEW=1"}, Labels: map[string]string{"team": "<ml>"}})
			i := open(t, done, done.Root).Images[0]
			fsys := rootfs(t, done, i)
			if got := read(t, fsys, "/app/models/forest.joblib"); !strings.HasPrefix(got, "the model") {
				t.Errorf("model %q", got)
			}
			for p, want := range map[string]string{
				"/app": "d 750 1000 1000", "/app/models": "d 755 0 0", "/models": "d 755 0 0",
				"/app/models/forest.joblib": "l /models/forest.joblib",
			} {
				if fsys[p] != want {
					t.Errorf("%s is %q, want %q", p, fsys[p], want)
				}
			}
			for _, p := range []string{"/data/selected_features.json", "/app/data/selected_features.json"} {
				if !strings.HasPrefix(fsys[p], "f 644 0 0 {") {
					t.Errorf("%s is %q", p, fsys[p])
				}
			}
			wantEnv := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=de", "GALLEY_MODEL=/app/models/forest.joblib", "GALLEY_MODEL_DIR=/app/models", "NEW=1"}
			if !slices.Equal(i.Config.Env, wantEnv) {
				t.Errorf("env %q, want %q", i.Config.Env, wantEnv)
			}
			if i.Config.Labels["team"] != "<ml>" || i.Config.Labels[AnnotationArtifact] != m.Artifact.Root.Digest.String() {
				t.Errorf("labels %q", i.Config.Labels)
			}
			a := i.Annotations
			if a[v1.AnnotationBaseImageName] != "reg.example/base:1" || a[v1.AnnotationBaseImageDigest] != root.Digest.String() ||
				a[manifest.AnnotationContent] != m.Artifact.Manifest.Annotations[manifest.AnnotationContent] {
				t.Errorf("annotations %q", a)
			}
			shared := m.Artifact.Manifest.Layers[0]
			l := i.Layers[3]
			if l.Digest != shared.Digest || l.MediaType != f.layer(manifest.FormatTarGzip) || len(i.Layers) != 5 {
				t.Errorf("layers %v, want %s shared", i.Layers, shared.Digest)
			}
			if got := done.From(l); got != "reg.example/ml/model" {
				t.Errorf("the model's layer comes from %q", got)
			}
			if got := done.From(i.Layers[0]); got != "reg.example/base" {
				t.Errorf("the base's layer comes from %q", got)
			}
			if done.From(i.Layers[4]) != "" || done.From(done.Root) != "" {
				t.Error("what is new comes from somewhere")
			}
			if all := done.Blobs(); len(all) != 7 || all[6].Digest != done.Root.Digest {
				t.Errorf("blobs %v", all)
			}
			look, err := DecodeLook(i.Config.Labels[LabelLook])
			if err != nil {
				t.Fatal(err)
			}
			if look.Python != "3.11" || look.Packages["scikit-learn"] != "1.3.2" || look.Packages["numpy"] != "1.26.4" || !look.Complete {
				t.Errorf("look %+v", look)
			}
		})
	}
}

func TestBakeDeterministic(t *testing.T) {
	s := store{}
	root := s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})
	var got []string
	for range 3 {
		m, _ := model(t, "a", manifest.PackOptions{})
		got = append(got, bake(t, open(t, s, root), []Model{m}, Options{}).Root.Digest.String())
	}
	if got[0] != got[1] || got[1] != got[2] {
		t.Errorf("digests %q", got)
	}
	m, _ := model(t, "a", manifest.PackOptions{})
	at := bake(t, open(t, s, root), []Model{m}, Options{Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	if at.Root.Digest.String() == got[0] {
		t.Error("created does not matter")
	}
	doc := open(t, at, at.Root).Images[0].config
	if string(doc.get("created")) != `"2026-01-02T03:04:05Z"` {
		t.Errorf("created %s", doc.get("created"))
	}
}

// TestBakePlaces tries working directories and links of the base.
func TestBakePlaces(t *testing.T) {
	app := "d /app 750 1000 1000"
	tests := []struct {
		name   string
		layers []string
		config string
		o      Options
		want   map[string]string // a prefix of what is there; "-": nothing
		reason string            // why the layer is written anew
		err    string
	}{
		{name: "no working directory", config: `{}`, want: map[string]string{"/models/forest.joblib": "f 644 0 0 the", "/app": "-", "/data/training_summary.json": "f 644"}},
		{name: "root", config: `{"WorkingDir":"/"}`, want: map[string]string{"/models/forest.joblib": "f", "/app": "-"}},
		{name: "new working directory", config: `{"WorkingDir":"/srv/app/"}`, want: map[string]string{"/srv/app": "d 755 0 0", "/srv/app/models/forest.joblib": "l /models/forest.joblib"}},
		{name: "relative dest", layers: []string{app}, config: `{"WorkingDir":"/app"}`, o: Options{Dest: "x"}, want: map[string]string{"/app": "d 750 1000 1000", "/app/x/models/forest.joblib": "l /models/forest.joblib"}},
		{name: "absolute dest", layers: []string{app}, config: `{"WorkingDir":"/app"}`, o: Options{Dest: "/opt/ml"}, want: map[string]string{"/opt/ml/data/training_summary.json": "f 644", "/app": "d 750 1000 1000", "/app/models": "-"}},
		{name: "linked app models", layers: []string{app, "d /srv", "d /srv/m 700 5 6", "l /app/models /srv/m"}, config: `{"WorkingDir":"/app"}`,
			want: map[string]string{"/app/models": "l /srv/m", "/srv/m": "d 700 5 6", "/srv/m/forest.joblib": "l /models/forest.joblib"}},
		{name: "deep link", layers: []string{app, "d /srv", "d /srv/a", "d /srv/a/b", "d /srv/a/b/c 711 5 6", "l /app/models ../srv/a/b/c"}, config: `{"WorkingDir":"/app"}`,
			want: map[string]string{"/app/models": "l ../srv/a/b/c", "/srv/a/b/c": "d 711 5 6", "/srv/a/b/c/forest.joblib": "l /models/forest.joblib"}},
		{name: "app models is models", layers: []string{app, "l /app/models ../models"}, config: `{"WorkingDir":"/app"}`,
			want: map[string]string{"/app/models": "l ../models", "/models/forest.joblib": "f 644"}},
		{name: "linked models", layers: []string{app, "d /mnt", "d /mnt/m 770 7 8", "l /models /mnt/m"}, config: `{"WorkingDir":"/app"}`, reason: "symbolic link",
			want: map[string]string{"/models": "l /mnt/m", "/mnt/m": "d 770 7 8", "/mnt/m/forest.joblib": "f 644 0 0 the", "/app/models/forest.joblib": "l /mnt/m/forest.joblib"}},
		{name: "owned models", layers: []string{app, "d /models 700 1000 1000"}, config: `{"WorkingDir":"/app"}`,
			want: map[string]string{"/models": "d 700 1000 1000", "/models/forest.joblib": "f 644"}},
		{name: "link out of the root", layers: []string{app, "l /app/models ../../etc"}, config: `{"WorkingDir":"/app"}`, err: "leads out of the image's root"},
		{name: "link loop", layers: []string{app, "l /app/models models"}, config: `{"WorkingDir":"/app"}`, err: "loop"},
		{name: "file in the way", layers: []string{app, "f /app/models x"}, config: `{"WorkingDir":"/app"}`, err: `"/app/models" is a file`},
		{name: "file at models", layers: []string{"f /models x"}, config: `{}`, err: `"/models" is a file`},
		{name: "implied directory", layers: []string{"f /app/main.py x"}, config: `{"WorkingDir":"/app"}`, want: map[string]string{"/app": "d 755 0 0"}},
		{name: "copy", layers: []string{app}, config: `{"WorkingDir":"/app"}`, o: Options{Copy: true, UID: 1000, GID: 1001, Chmod: 0o640}, reason: "copied",
			want: map[string]string{"/models": "-", "/data": "-", "/app": "d 750 1000 1000", "/app/models": "d 750 1000 1001", "/app/models/forest.joblib": "f 640 1000 1001 the", "/app/data/training_summary.json": "f 640 1000 1001"}},
		{name: "no look", layers: []string{app}, config: `{"WorkingDir":"/app"}`, o: Options{NoLook: true}, want: map[string]string{"/models/forest.joblib": "f", "/app/models": "-", "/app": "d 750 1000 1000"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := store{}
			lines := test.layers
			if test.name == "implied directory" {
				lines = append([]string{"d /app"}, lines...)
			}
			root := s.build(t, symbolic{layers: [][]byte{tarOf(t, lines...)}, config: test.config})
			m, _ := model(t, "a", manifest.PackOptions{})
			done, err := tryBake(t, open(t, s, root), []Model{m}, test.o)
			if test.err != "" {
				if e, ok := errors.AsType[*PathError](err); !ok || !strings.Contains(e.Error(), test.err) {
					t.Fatalf("error %v, want a PathError with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Verify(t.Context(), done, done.Root); err != nil {
				t.Fatal(err)
			}
			i := open(t, done, done.Root).Images[0]
			fsys := rootfs(t, done, i)
			for p, want := range test.want {
				if got := fsys[p]; !strings.HasPrefix(got, want) && !(want == "-" && got == "") {
					t.Errorf("%s is %.60q, want %q", p, got, want)
				}
			}
			if got := envOf(i.Config, "GALLEY_MODEL"); !strings.HasPrefix(read(t, fsys, got), "the model") {
				t.Errorf("GALLEY_MODEL=%s is not the model", got)
			}
			reasons := ""
			for _, r := range done.Retarred { // one at the most
				reasons = r.Reason
			}
			if !strings.Contains(reasons, test.reason) || (reasons == "") != (test.reason == "") {
				t.Errorf("written anew because %q, want %q", reasons, test.reason)
			}
		})
	}
}

func TestBakeFormats(t *testing.T) {
	for _, format := range []manifest.Format{manifest.FormatTar, manifest.FormatTarGzip, manifest.FormatTarZstd, manifest.FormatRaw} {
		for _, f := range []family{ociFamily, dockerFamily} {
			t.Run(string(format)+" "+f.manifest(), func(t *testing.T) {
				s := store{}
				root := s.index(t, f, s.build(t, symbolic{family: f, layers: pythonBase(t), config: pythonConfig}))
				m, _ := model(t, "a", manifest.PackOptions{Format: format})
				done := bake(t, open(t, s, root), []Model{m}, Options{})
				want := f
				if format == manifest.FormatTarZstd {
					want = ociFamily
				}
				if done.Root.MediaType != want.index() {
					t.Errorf("index %s", done.Root.MediaType)
				}
				i := open(t, done, done.Root).Images[0]
				if i.family != want || i.Descriptor.MediaType != want.manifest() {
					t.Errorf("family %d of %s, want %d", i.family, i.Descriptor.MediaType, want)
				}
				for _, l := range i.Layers {
					if strings.Contains(l.MediaType, "docker") != (want == dockerFamily) {
						t.Errorf("layer %s", l.MediaType)
					}
				}
				if (len(done.Retarred) == 1) != (format == manifest.FormatRaw) {
					t.Errorf("written anew %v", done.Retarred)
				}
				if got := read(t, rootfs(t, done, i), "/app/models/forest.joblib"); !strings.HasPrefix(got, "the model") {
					t.Errorf("model %.30q", got)
				}
			})
		}
	}
}

func TestBakeSeveral(t *testing.T) {
	s := store{}
	root := s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})
	a, _ := model(t, "a", manifest.PackOptions{})
	b, _ := model(t, "b", manifest.PackOptions{})
	if _, err := tryBake(t, open(t, s, root), []Model{a, b}, Options{}); !isCollision(err) {
		t.Errorf("two models without names: %v", err)
	}
	a.Name, b.Name = "fraud", "churn-v2"
	done := bake(t, open(t, s, root), []Model{a, b}, Options{})
	i := open(t, done, done.Root).Images[0]
	fsys := rootfs(t, done, i)
	for name, path := range map[string]string{"GALLEY_MODEL_FRAUD": "/app/fraud/models/forest.joblib", "GALLEY_MODEL_CHURN_V2": "/app/churn-v2/models/forest.joblib", "GALLEY_MODEL": ""} {
		if got := envOf(i.Config, name); got != path {
			t.Errorf("%s=%s, want %s", name, got, path)
		}
	}
	if x, y := read(t, fsys, "/app/fraud/models/forest.joblib"), read(t, fsys, "/app/churn-v2/models/forest.joblib"); x == y || !strings.HasSuffix(y, "bb") {
		t.Error("the models are mixed up")
	}
	if len(done.Retarred) != 1 || done.Retarred[0].Name != "churn-v2" || !strings.Contains(done.Retarred[0].Reason, "another model's") {
		t.Errorf("written anew %v", done.Retarred)
	}
	for _, p := range []string{"/fraud/data/selected_features.json", "/app/churn-v2/data/selected_features.json"} {
		if fsys[p] == "" {
			t.Errorf("no %s among %q", p, slices.Sorted(maps.Keys(fsys)))
		}
	}
	if i.Annotations[AnnotationArtifact+".fraud"] != a.Artifact.Root.Digest.String() || i.Annotations["ml.galley.of.churn-v2.content"] == "" {
		t.Errorf("annotations %q", i.Annotations)
	}
	// The same model under two names is shared once.
	twin := a
	twin.Name = "twin"
	if done := bake(t, open(t, s, root), []Model{a, twin}, Options{}); len(done.Retarred) != 0 {
		t.Errorf("written anew %v", done.Retarred)
	}
	for _, bad := range []string{"a/b", "dir", "..", "ä"} {
		twin.Name = bad
		if _, err := NewBaking(t.Context(), open(t, s, root), []Model{twin}, Options{}); err == nil {
			t.Errorf("the name %q is taken", bad)
		}
	}
}

func isCollision(err error) bool {
	_, ok := errors.AsType[*CollisionError](err)
	return ok
}

func TestBakeScratch(t *testing.T) {
	m, _ := model(t, "a", manifest.PackOptions{Created: time.Unix(1_700_000_000, 0)})
	done := bake(t, Scratch(), []Model{m}, Options{})
	b := open(t, done, done.Root)
	if done.Root.MediaType != v1.MediaTypeImageIndex || len(b.Images) != 2 || b.Images[0].Platform() != "linux/amd64" || b.Images[1].Platform() != "linux/arm64" {
		t.Fatalf("images %v", b.Images)
	}
	for _, i := range b.Images {
		fsys := rootfs(t, done, i)
		want := []string{"/data", "/data/selected_features.json", "/data/training_summary.json", "/models", "/models/forest.joblib", "/models/selected_features.json", "/models/training_summary.json"}
		if got := slices.Sorted(maps.Keys(fsys)); !slices.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		if i.Layers[0].Digest != m.Artifact.Manifest.Layers[0].Digest {
			t.Error("the model's layer is not shared")
		}
		if string(i.config.get("created")) != `"2023-11-14T22:13:20Z"` || i.config.get("history") != nil {
			t.Errorf("config %s", i.config.raw())
		}
		if i.Annotations[v1.AnnotationBaseImageDigest] != "" {
			t.Errorf("annotations %q", i.Annotations)
		}
	}
	a, c := m, m
	other, _ := model(t, "b", manifest.PackOptions{})
	a.Name, c = "fraud", other
	c.Name = "churn"
	done = bake(t, Scratch(), []Model{a, c}, Options{})
	fsys := rootfs(t, done, open(t, done, done.Root).Images[1])
	if read(t, fsys, done.Models[0].Path) == read(t, fsys, done.Models[1].Path) {
		t.Errorf("models %v", done.Models)
	}
}

func TestBakeHostileModel(t *testing.T) {
	m, _ := model(t, "a", manifest.PackOptions{})
	m.Artifact.Layers[0].Files[0].Path = "models/.wh.passwd"
	if _, err := NewBaking(t.Context(), Scratch(), []Model{m}, Options{}); err == nil || !strings.Contains(err.Error(), "remove a file") {
		t.Errorf("a whiteout among the files: %v", err)
	}
	// A raw file whose bytes are others the second time.
	raw, s := model(t, "a", manifest.PackOptions{Format: manifest.FormatRaw})
	done := bake(t, Scratch(), []Model{raw}, Options{})
	for d, b := range s {
		s[d] = append([]byte("X"), b[1:]...)
	}
	if err := Verify(t.Context(), done, done.Root); err == nil {
		t.Error("other bytes go through")
	}
}

// TestBakeAgain bakes into an image that was baked: what it told of another
// model, and of another base, is gone.
func TestBakeAgain(t *testing.T) {
	s := store{}
	root := s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})
	old, _ := model(t, "a", manifest.PackOptions{Name: "old"})
	first := bake(t, open(t, s, root), []Model{{Name: "old", Artifact: old.Artifact, Source: old.Source}, {Name: "more", Artifact: old.Artifact, Source: old.Source}}, Options{Labels: map[string]string{"team": "ml"}})
	m, _ := model(t, "b", manifest.PackOptions{Name: "new"})
	done := bake(t, open(t, first, first.Root), []Model{m}, Options{NoLook: true})
	i := open(t, done, done.Root).Images[0]
	if l := i.Config.Labels[LabelLook]; l != "" {
		t.Errorf("the look at another base is kept: %s", l)
	}
	for _, all := range []map[string]string{i.Annotations, i.Config.Labels} {
		for key := range all {
			if strings.HasPrefix(key, annotationOf) || strings.HasPrefix(key, AnnotationArtifact+".") {
				t.Errorf("%s is kept", key)
			}
		}
		if all[AnnotationArtifact] != m.Artifact.Root.Digest.String() {
			t.Errorf("artifact %q", all[AnnotationArtifact])
		}
	}
	if i.Config.Labels["team"] != "ml" {
		t.Errorf("labels %q", i.Config.Labels)
	}
	if base := i.Annotations[v1.AnnotationBaseImageDigest]; base != first.Root.Digest.String() {
		t.Errorf("base digest %s; want %s", base, first.Root.Digest)
	}
}
