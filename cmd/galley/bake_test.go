package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"galley/oci/layout"
	"galley/oci/ocitest"
)

// baseImageCmd writes a base image into an OCI layout:
//
//	baseimage DIR:TAG [OPTION...] [PACKAGE=VERSION...]
//
// It has 200 kB, a Python 3.11 with the packages, and /app, of user 1000 and
// mode 0750. The options are docker (media types of that family), multi (for
// linux/amd64 and linux/arm64, with an attestation), python (a second one),
// none (no Python), urls (a foreign layer), encrypted, diffids (a config that
// lacks one) and schema1.
func baseImageCmd(ts *testscript.TestScript, _ bool, args []string) {
	dir, tag, _ := strings.Cut(args[0], ":")
	store, err := layout.Create(ts.MkAbs(dir))
	ts.Check(err)
	b := &baseBuilder{ts: ts, store: store, options: map[string]bool{}}
	for _, arg := range args[1:] {
		name, version, isPackage := strings.Cut(arg, "=")
		if isPackage {
			b.packages = append(b.packages, strings.ReplaceAll(name, "-", "_")+"-"+version)
		} else {
			b.options[name] = true
		}
	}
	if b.options["schema1"] {
		const old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
		ts.Check(store.Tag(context.Background(), b.push(old, []byte(`{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}`)), tag))
		return
	}
	root := b.image("amd64")
	if b.options["multi"] {
		root = b.index(root, b.image("arm64"))
	}
	ts.Check(store.Tag(context.Background(), root, tag))
}

type baseBuilder struct {
	ts       *testscript.TestScript
	store    *layout.Store
	options  map[string]bool
	packages []string
}

// mediaType is that of the OCI family, or docker's.
func (b *baseBuilder) mediaType(oci string) string {
	if !b.options["docker"] {
		return oci
	}
	return map[string]string{
		v1.MediaTypeImageManifest:  "application/vnd.docker.distribution.manifest.v2+json",
		v1.MediaTypeImageIndex:     "application/vnd.docker.distribution.manifest.list.v2+json",
		v1.MediaTypeImageConfig:    "application/vnd.docker.container.image.v1+json",
		v1.MediaTypeImageLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}[oci]
}

func (b *baseBuilder) push(mediaType string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if ok, err := b.store.Exists(context.Background(), d); err != nil || !ok {
		b.ts.Check(b.store.Push(context.Background(), d, bytes.NewReader(data)))
	}
	return d
}

func (b *baseBuilder) json(mediaType string, v any) v1.Descriptor {
	data, err := json.Marshal(v)
	b.ts.Check(err)
	return b.push(mediaType, data)
}

// entry is of a layer's tar: a directory if its name ends so.
type entry struct {
	name, target string
	data         []byte
	mode         int64
	owner        int
}

func (b *baseBuilder) layer(entries ...entry) (v1.Descriptor, digest.Digest) {
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: e.mode, Size: int64(len(e.data)), Uid: e.owner, Gid: e.owner, ModTime: time.Unix(1, 0)}
		switch {
		case e.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.target
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		b.ts.Check(tw.WriteHeader(h))
		_, err := tw.Write(e.data)
		b.ts.Check(err)
	}
	b.ts.Check(tw.Close())
	z := gzip.NewWriter(&packed)
	_, err := z.Write(plain.Bytes())
	b.ts.Check(err)
	b.ts.Check(z.Close())
	mediaType := b.mediaType(v1.MediaTypeImageLayerGzip)
	if b.options["encrypted"] {
		mediaType += "+encrypted"
	}
	d := b.push(mediaType, packed.Bytes())
	if b.options["urls"] {
		d.URLs = []string{"https://example.com/layer"}
	}
	return d, digest.FromBytes(plain.Bytes())
}

// image writes one platform's image.
func (b *baseBuilder) image(arch string) v1.Descriptor {
	noise := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	bottom := []entry{{name: "opt/noise", data: append(noise, arch...), mode: 0o644}}
	if !b.options["none"] {
		bottom = append(bottom, entry{name: "usr/local/bin/python3.11", data: []byte("ELF"), mode: 0o755}, entry{name: "usr/local/bin/python3", target: "python3.11"})
	}
	if b.options["python"] {
		bottom = append(bottom, entry{name: "opt/py/bin/python3.9", data: []byte("ELF"), mode: 0o755}, entry{name: "opt/py/bin/python3", target: "python3.9"})
	}
	for _, p := range b.packages {
		bottom = append(bottom, entry{name: "usr/local/lib/python3.11/site-packages/" + p + ".dist-info/METADATA", data: []byte("x"), mode: 0o644})
	}
	system, id1 := b.layer(bottom...)
	app, id2 := b.layer(entry{name: "app/", mode: 0o750, owner: 1000}, entry{name: "app/main.py", data: []byte("print(1)"), mode: 0o640, owner: 1000})
	created := time.Unix(1_700_000_000, 0).UTC()
	config := v1.Image{Created: &created, Platform: v1.Platform{OS: "linux", Architecture: arch}}
	config.Config = v1.ImageConfig{WorkingDir: "/app", Env: []string{"PATH=/usr/local/bin:/usr/bin"}, Cmd: []string{"python3", "main.py"}, User: "1000"}
	if b.options["python"] {
		config.Config.Env = []string{"PATH=/nowhere"}
	}
	config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{id1, id2}}
	if b.options["diffids"] {
		config.RootFS.DiffIDs = config.RootFS.DiffIDs[:1]
	}
	config.History = []v1.History{{CreatedBy: "the system", Created: &created}, {CreatedBy: "the app", Created: &created}}
	m := v1.Manifest{MediaType: b.mediaType(v1.MediaTypeImageManifest), Config: b.json(b.mediaType(v1.MediaTypeImageConfig), config), Layers: []v1.Descriptor{system, app}}
	m.SchemaVersion = 2
	d := b.json(m.MediaType, m)
	d.Platform = &config.Platform
	return d
}

// index lists images, and an attestation.
func (b *baseBuilder) index(images ...v1.Descriptor) v1.Descriptor {
	statement := v1.Manifest{
		MediaType: v1.MediaTypeImageManifest, Config: b.json(v1.MediaTypeImageConfig, struct{}{}),
		Layers: []v1.Descriptor{b.push("application/vnd.in-toto+json", []byte("{}"))},
	}
	statement.SchemaVersion = 2
	d := b.json(v1.MediaTypeImageManifest, statement)
	d.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	i := v1.Index{MediaType: b.mediaType(v1.MediaTypeImageIndex), Manifests: append(images, d)}
	i.SchemaVersion = 2
	return b.json(i.MediaType, i)
}

// TestBakeCut cuts the connection at every request of a bake in turn: alone, or
// with all that follow. The tag then names nothing, or an image that is whole.
func TestBakeCut(t *testing.T) {
	dir := t.TempDir()
	env := func(cache string) func(string) string {
		return func(name string) string {
			return map[string]string{"GALLEY_LOCAL": filepath.Join(dir, "local"), "GALLEY_CACHE": cache, "HOME": dir}[name]
		}
	}
	galley := func(t *testing.T, cache string, args ...string) (int, string) {
		var story stream
		code := run(t.Context(), args, strings.NewReader(""), io.Discard, &story, env(cache))
		return code, story.take()
	}
	warm := filepath.Join(dir, "cache")
	must := func(args ...string) {
		t.Helper()
		if code, story := galley(t, warm, args...); code != 0 {
			t.Fatalf("galley %s: exit code %d\n%s", args, code, story)
		}
	}
	must("push", "oci:"+filepath.Join(dir, "model")+":v1", "../../testdata/fraud/models/random_forest_final_model.joblib=models/m.joblib", "../../testdata/fraud/data/selected_features.json=data/f.json", "--no-vcs")
	must("bake", "oci:"+filepath.Join(dir, "model")+":v1", "--base", "scratch", "--tag", "oci:"+filepath.Join(dir, "base")+":1")
	bake := func(t *testing.T, n int, rest bool) (requests int) {
		r := ocitest.NewRegistry()
		defer r.Close()
		for _, name := range []string{"model:v1", "base:1"} {
			if code, story := galley(t, warm, "cp", "oci:"+filepath.Join(dir, name), r.Host+"/"+name); code != 0 {
				t.Fatal(story)
			}
		}
		r.Requests()
		if n > 0 {
			cut := ocitest.Rule{Skip: n - 1, Times: 1, Mishap: ocitest.Cut(ocitest.Up, 0)}
			if rest {
				cut.Times = 0
			}
			r.Inject(cut)
		}
		code, story := galley(t, t.TempDir(), "bake", r.Host+"/model:v1", "--base", r.Host+"/base:1", "--tag", r.Host+"/api:v1", "--allow-mismatch=runtime", "--dest", "/app")
		requests = len(r.Requests())
		r.Calm()
		there, _ := galley(t, warm, "resolve", r.Host+"/api:v1")
		switch {
		case code == 0 || there == 0:
			if code, story := galley(t, warm, "verify", r.Host+"/api:v1"); code != 0 {
				t.Errorf("cut at %d: the image is not whole:\n%s", n, story)
			}
			if rest && n > 0 && code == 0 {
				t.Errorf("cut from %d on, and baked:\n%s", n, story)
			}
		case !strings.Contains(story, r.Host+" cut the connection"):
			t.Errorf("cut at %d: the error does not tell:\n%s", n, story)
		}
		return requests
	}
	all := bake(t, 0, false)
	if all < 15 {
		t.Fatalf("%d requests; want more to cut", all)
	}
	for n := 1; n <= all; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			bake(t, n, false)
			if !testing.Short() && n == all/2 { // the retries take their time
				bake(t, n, true)
			}
		})
	}
}
