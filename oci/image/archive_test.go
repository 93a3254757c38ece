package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci/layout"
)

// tarFile writes a tar of files, and of links where a value starts with "->".
func tarFile(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(files[i+1]))}
		if to, ok := strings.CutPrefix(files[i+1], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(tw, files[i+1])
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "base.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// saved is what docker save wrote before it knew OCI layouts: a layer that is
// there twice is a link.
func saved(t testing.TB, compress bool) string {
	layers := pythonBase(t)
	text := make([]string, len(layers))
	var ids []digest.Digest
	for n, l := range layers {
		ids = append(ids, digest.FromBytes(l))
		if text[n] = string(l); compress {
			text[n] = string(gzipped(l))
		}
	}
	ids = append(ids, ids[2])
	config := toJSON(t, map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"WorkingDir": "/app"}, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	return tarFile(t,
		"a/layer.tar", text[0], "b/layer.tar", text[1], "c/layer.tar", text[2], "d/layer.tar", "->../c/layer.tar", "c.json", string(config),
		"manifest.json", `[{"Config":"c.json","RepoTags":["base:1"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar","d/layer.tar"]}]`)
}

func TestArchiveDocker(t *testing.T) {
	for _, compress := range []bool{false, true} {
		a, err := OpenArchive(saved(t, compress))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		root, err := a.Find("base:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(t.Context(), a, root); err != nil {
			t.Fatal(err)
		}
		m, _ := model(t, "a", manifest.PackOptions{})
		done := bake(t, open(t, a, root), []Model{m}, Options{})
		fsys := rootfs(t, done, open(t, done, done.Root).Images[0])
		if !strings.HasPrefix(read(t, fsys, "/app/models/forest.joblib"), "the model") || fsys["/app"] != "d 750 1000 1000" {
			t.Errorf("files %q", fsys)
		}
		if _, err := a.Find("base:2"); err == nil || !strings.Contains(err.Error(), "base:1") {
			t.Errorf("another tag: %v", err)
		}
	}
}

// TestSave writes an image and reads it back in every way there is.
func TestSave(t *testing.T) {
	s := store{}
	root := s.index(t, ociFamily, s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig}),
		s.build(t, symbolic{platform: "linux/arm64", layers: pythonBase(t), config: pythonConfig}))
	m, _ := model(t, "a", manifest.PackOptions{})
	done := bake(t, open(t, s, root), []Model{m}, Options{})
	var one, two bytes.Buffer
	o := SaveOptions{Tags: []string{"reg.example:5000/app:v1"}, Platform: "linux/arm64"}
	for _, b := range []*bytes.Buffer{&one, &two} {
		if err := Save(t.Context(), b, done, done.Root, o); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same image gives two archives")
	}
	name := filepath.Join(t.TempDir(), "out.tar")
	if err := os.WriteFile(name, one.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal("it is no layout:", err)
	}
	d, err := l.Resolve(t.Context(), "v1")
	if err != nil || d.Digest != done.Root.Digest {
		t.Errorf("layout has %s, %v", d.Digest, err)
	}
	if err := Verify(t.Context(), l, d); err != nil {
		t.Error(err)
	}
	for _, in := range [][]byte{one.Bytes(), gzipped(one.Bytes())} {
		a, err := SpoolArchive(t.Context(), iotest.HalfReader(bytes.NewReader(in)), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d, err := a.Find("reg.example:5000/app:v1")
		if err != nil || d.Digest != done.Root.Digest {
			t.Errorf("archive has %s, %v", d.Digest, err)
		}
		if err := Verify(t.Context(), a, d); err != nil {
			t.Error(err)
		}
		temp := a.f.Name()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(temp); err == nil {
			t.Error("the spooled file stays")
		}
	}
	// What docker without an image store reads.
	a := &Archive{files: map[string]section{}, links: map[string]string{}, blobs: map[digest.Digest]section{}, docs: map[digest.Digest][]byte{}}
	if a.f, err = os.Open(name); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.readDirectory(); err != nil {
		t.Fatal(err)
	}
	delete(a.files, "index.json")
	if err := a.readImages(); err != nil {
		t.Fatal(err)
	}
	b := open(t, a, a.Images[0].Root)
	if b.Images[0].Platform() != "linux/arm64" || !slices.Equal(a.Images[0].Tags, o.Tags) {
		t.Errorf("docker loads %s as %q", b.Images[0].Platform(), a.Images[0].Tags)
	}
	if err := Verify(t.Context(), a, a.Images[0].Root); err != nil {
		t.Error(err)
	}
}

func TestSaveErrors(t *testing.T) {
	s := store{}
	root := s.build(t, symbolic{layers: pythonBase(t)})
	if err := Save(t.Context(), io.Discard, s, root, SaveOptions{Platform: "linux/s390x"}); !errors.Is(err, ErrNoPlatform) {
		t.Errorf("no such platform: %v", err)
	}
	if err := Save(t.Context(), io.Discard, s, root, SaveOptions{Platform: "x"}); !errors.Is(err, ErrNoPlatform) {
		t.Errorf("no platform: %v", err)
	}
	if err := Save(t.Context(), failing{}, s, root, SaveOptions{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nowhere to write: %v", err)
	}
	l := open(t, s, root).Images[0].Layers[0]
	s[l.Digest] = s[l.Digest][:10]
	if err := Save(t.Context(), io.Discard, s, root, SaveOptions{}); !isCorrupt(err) {
		t.Errorf("a layer that is cut: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestArchiveRefuses(t *testing.T) {
	id := digest.FromString("x").String()
	good := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + id + `"]}}`
	for name, files := range map[string][]string{
		"empty":             {},
		"no list":           {"a", "b"},
		"outside":           {"../a", "b"},
		"list of nothing":   {"manifest.json", "[]"},
		"list of no images": {"manifest.json", "{}"},
		"key twice":         {"manifest.json", `[{"Config":"a","config":"b"}]`},
		"no config":         {"manifest.json", `[{"Config":"c.json"}]`},
		"config in a loop":  {"c.json", "->c.json", "manifest.json", `[{"Config":"c.json"}]`},
		"config no object":  {"c.json", "[]", "manifest.json", `[{"Config":"c.json"}]`},
		"layers missing":    {"c.json", good, "manifest.json", `[{"Config":"c.json","Layers":[]}]`},
		"layer not there":   {"c.json", good, "manifest.json", `[{"Config":"c.json","Layers":["l"]}]`},
		"layer outside":     {"c.json", good, "l", "->../../etc/passwd", "manifest.json", `[{"Config":"c.json","Layers":["l"]}]`},
		"diff_id":           {"c.json", strings.Replace(good, id, "x", 1), "l", "lll", "manifest.json", `[{"Config":"c.json","Layers":["l"]}]`},
		"index of nothing":  {"index.json", `{"manifests":[]}`},
		"index no JSON":     {"index.json", `nope`},
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := OpenArchive(tarFile(t, files...)); !errors.Is(err, ErrNotArchive) {
				t.Errorf("error %v, archive %v", err, a)
			}
		})
	}
	if _, err := OpenArchive(t.TempDir()); !errors.Is(err, ErrNotArchive) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := OpenArchive(filepath.Join(t.TempDir(), "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	packed := filepath.Join(t.TempDir(), "base.tar.gz")
	if err := os.WriteFile(packed, gzipped([]byte("x")), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArchive(packed); !errors.Is(err, ErrNotArchive) || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("a compressed file: %v", err)
	}
	dir := t.TempDir()
	if _, err := SpoolArchive(t.Context(), iotest.ErrReader(io.ErrUnexpectedEOF), dir); err == nil {
		t.Error("a broken stream is taken")
	}
	if _, err := SpoolArchive(t.Context(), strings.NewReader("no tar"), dir); err == nil {
		t.Error("no tar is taken")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	a, err := OpenArchive(saved(t, false))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Fetch(t.Context(), v1.DescriptorEmptyJSON); err == nil {
		t.Error("anything is there")
	}
}
