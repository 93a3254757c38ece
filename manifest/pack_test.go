package manifest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

var update = flag.Bool("update", false, "rewrite golden files")

const (
	modelPath    = "models/random_forest_final_model.joblib"
	featuresPath = "data/selected_features.json"
	summaryPath  = "data/training_summary.json"
)

// everyday is the three files of an everyday project in fsys.
func everyday(fsys fs.FS) []manifest.Input {
	return []manifest.Input{
		manifest.FromFS(fsys, modelPath, modelPath, manifest.RoleModel),
		manifest.FromFS(fsys, featuresPath, featuresPath, manifest.RoleFeatures),
		manifest.FromFS(fsys, summaryPath, summaryPath, manifest.RoleSummary),
	}
}

func fraud() fs.FS { return os.DirFS("../testdata/fraud") }

func pack(t testing.TB, in []manifest.Input, o manifest.PackOptions) *manifest.Packed {
	t.Helper()
	p, err := manifest.Pack(t.Context(), in, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// blobs reads every blob of a packed model and checks it against its
// descriptor.
func blobs(t testing.TB, p *manifest.Packed) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, d := range append([]v1.Descriptor{p.Root, p.Manifest.Config}, p.Manifest.Layers...) {
		data, err := manifest.ReadBlob(t.Context(), p, d, "blob", 1<<30)
		if err != nil {
			t.Fatalf("fetch %s: %v", d.MediaType, err)
		}
		all[d.Digest.String()] = data
	}
	return all
}

// TestGolden holds the bytes of the format. A change here is a change of the
// format: tags of old artifacts will no longer match a fresh push to the byte.
func TestGolden(t *testing.T) {
	full := manifest.PackOptions{
		Name: "fraud-detector", Version: "1.4.0", Revision: strings.Repeat("3f", 20), Source: "https://example.com/acme/fraud",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Annotations: map[string]string{"org.example.team": "risk <&>"},
	}
	for _, tt := range []struct {
		name string
		opts manifest.PackOptions
	}{
		{"plain", manifest.PackOptions{}},
		{"full", full},
		{"raw", manifest.PackOptions{Format: manifest.FormatRaw}},
		{"tar", manifest.PackOptions{Format: manifest.FormatTar}},
		{"zstd", manifest.PackOptions{Format: manifest.FormatTarZstd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := pack(t, everyday(fraud()), tt.opts)
			all := blobs(t, p)
			var got bytes.Buffer
			fmt.Fprintf(&got, "%s\n", p.Root.Digest)
			for _, d := range []v1.Descriptor{p.Root, p.Manifest.Config} {
				if err := json.Indent(&got, all[d.Digest.String()], "", "  "); err != nil {
					t.Fatal(err)
				}
				got.WriteByte('\n')
			}
			golden(t, filepath.Join("../testdata/golden", "manifest-"+tt.name+".txt"), got.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// TestDigestDependsOnTheFilesAlone varies everything else.
func TestDigestDependsOnTheFilesAlone(t *testing.T) {
	want := pack(t, everyday(fraud()), manifest.PackOptions{}).Root.Digest
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(dir, fraud()); err != nil {
		t.Fatal(err)
	}
	old := time.Local
	time.Local = time.FixedZone("far", 13*3600)
	t.Cleanup(func() { time.Local = old })
	mask := setUmask(0o077)
	t.Cleanup(func() { setUmask(mask) })
	for i, p := range []string{modelPath, featuresPath, summaryPath} {
		name := filepath.Join(dir, p)
		if err := os.Chmod(name, []fs.FileMode{0o600, 0o755, 0o640}[i]); err != nil {
			t.Fatal(err)
		}
		when := time.Date(2001+i, 2, 3, 4, 5, 6, 789, time.UTC)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Chown(name, 1000+i, 1000); err != nil {
				t.Fatal(err)
			}
		}
	}
	in := everyday(os.DirFS(dir))
	in[0], in[2] = in[2], in[0]
	if got := pack(t, in, manifest.PackOptions{}).Root.Digest; got != want {
		t.Errorf("digest %s; want %s", got, want)
	}
}

func TestContentIsWhatTheModelIs(t *testing.T) {
	base := fstest.MapFS{
		modelPath:    {Data: []byte("\x80\x04N.")},
		featuresPath: {Data: []byte(`{"selected_features": ["a", "b"], "created_at": "2025-12-12T12:00:21+00:00"}`)},
		summaryPath:  {Data: []byte(`{"test_metrics": {"test_f1": 0.5}, "training_time": 12.5, "feature_count": 2}`)},
	}
	content := func(fsys fs.FS, o manifest.PackOptions) string {
		return pack(t, everyday(fsys), o).Manifest.Annotations[manifest.AnnotationContent]
	}
	with := func(path, text string) fs.FS {
		m := fstest.MapFS{}
		maps.Copy(m, base)
		m[path] = &fstest.MapFile{Data: []byte(text)}
		return m
	}
	want := content(base, manifest.PackOptions{})
	for name, got := range map[string]string{
		"revision":     content(base, manifest.PackOptions{Revision: "abc", Created: time.Unix(1e9, 0), Name: "x", Version: "2"}),
		"layer format": content(base, manifest.PackOptions{Format: manifest.FormatTar}),
		"time":         content(with(featuresPath, `{"created_at": "2026-01-01T00:00:00+00:00", "selected_features": ["a", "b"]}`), manifest.PackOptions{}),
		"duration":     content(with(summaryPath, `{"test_metrics": {"test_f1": 0.50}, "training_time": 99}`), manifest.PackOptions{}),
	} {
		if got != want {
			t.Errorf("another %s gives another content", name)
		}
	}
	for name, got := range map[string]string{
		"model":   content(with(modelPath, "\x80\x04K\x01."), manifest.PackOptions{}),
		"order":   content(with(featuresPath, `["b", "a"]`), manifest.PackOptions{}),
		"metrics": content(with(summaryPath, `{"test_metrics": {"test_f1": 0.51}}`), manifest.PackOptions{}),
	} {
		if got == want {
			t.Errorf("another %s gives the same content", name)
		}
	}
}

func TestLayers(t *testing.T) {
	fsys := fstest.MapFS{
		"m": {Data: []byte("\x80\x04N.")}, "j": {Data: []byte(`["a"]`)}, "s": {Data: []byte(`{"f1": 1}`)}, "d": {Data: []byte("#")},
	}
	p := pack(t, []manifest.Input{
		manifest.FromFS(fsys, "d", "README.md", manifest.RoleDoc),
		manifest.FromFS(fsys, "m", "models/scaler.joblib", manifest.RolePart),
		manifest.FromFS(fsys, "m", "models/model.joblib", manifest.RoleModel),
		manifest.FromFS(fsys, "m", "encoder.joblib", manifest.RolePart),
		manifest.FromFS(fsys, "j", "models/features.json", manifest.RoleFeatures),
		manifest.FromFS(fsys, "s", "models/summary.json", manifest.RoleSummary),
	}, manifest.PackOptions{})
	var got []string
	for _, l := range p.Layers {
		var s strings.Builder
		fmt.Fprintf(&s, "%s %s %s:", l.Role, l.Title, strings.TrimPrefix(l.Descriptor.MediaType, "application/vnd.cncf.model."))
		for _, f := range l.Files {
			fmt.Fprintf(&s, " %s=%s", f.Path, f.Role)
		}
		got = append(got, s.String())
	}
	want := []string{
		"model models weight.v1.tar+gzip: models/model.joblib=model models/scaler.joblib=part",
		"part . weight.v1.tar+gzip: encoder.joblib=part",
		"features models/features.json weight.config.v1.raw: models/features.json=features",
		"summary models/summary.json doc.v1.raw: models/summary.json=summary",
		"doc README.md doc.v1.raw: README.md=doc",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("layers:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPackErrors(t *testing.T) {
	fsys := fstest.MapFS{
		"m": {Data: []byte("\x80\x04N.")}, "broken": {Data: []byte("{\n  \"a\": 1,\n  \"a\": 2}")},
		"huge": {Data: make([]byte, 17<<20)}, "dir/x": {Data: []byte("x")},
	}
	in := func(name, path string, role manifest.Role) []manifest.Input {
		return []manifest.Input{manifest.FromFS(fsys, name, path, role)}
	}
	for _, tt := range []struct {
		name string
		in   []manifest.Input
		opts manifest.PackOptions
		is   error
		text string
	}{
		{"nothing", nil, manifest.PackOptions{}, manifest.ErrNoFiles, "no files"},
		{"missing", in("none", "x", manifest.RoleModel), manifest.PackOptions{}, fs.ErrNotExist, "none"},
		{"directory", in("dir", "x", manifest.RoleModel), manifest.PackOptions{}, nil, "not a regular file"},
		{"unsafe", in("m", "../x", manifest.RoleModel), manifest.PackOptions{}, manifest.ErrUnsafePath, `"../x"`},
		{"twice", append(in("m", "x", manifest.RoleModel), in("m", "X", manifest.RolePart)...), manifest.PackOptions{}, manifest.ErrUnsafePath, "differ only in case"},
		{"reserved", in("m", "x", manifest.RoleModel), manifest.PackOptions{Annotations: map[string]string{"ml.galley.scan": "pass"}}, manifest.ErrReserved, "ml.galley.scan"},
		{"broken JSON", in("broken", "data/summary.json", manifest.RoleSummary), manifest.PackOptions{}, nil, "data/summary.json: line 3, column 3"},
		{"huge JSON", in("huge", "data/features.json", manifest.RoleFeatures), manifest.PackOptions{}, nil, "data/features.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := manifest.Pack(t.Context(), tt.in, tt.opts)
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.text) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Pack = %v, %v; want an error with %q", p, err, tt.text)
			}
		})
	}
}

// TestChangedFile changes the model, or the part beside it, between packing and
// sending.
func TestChangedFile(t *testing.T) {
	write := func(at int64) func(string) error {
		return func(name string) error {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("x"), at)
			return errors.Join(err, f.Close())
		}
	}
	const partPath = "models/scaler.joblib"
	for name, change := range map[string]func(string) error{
		"grows":   write(1 << 20),
		"shrinks": func(name string) error { return os.Truncate(name, 10) },
		"changes": write(100),
		"is gone": os.Remove,
		"is replaced": func(name string) error {
			return errors.Join(os.WriteFile(name+".new", []byte("another"), 0o666), os.Rename(name+".new", name))
		},
	} {
		for _, format := range []manifest.Format{manifest.FormatTarGzip, manifest.FormatTarZstd, manifest.FormatRaw} {
			for layer, path := range []string{modelPath, partPath} {
				t.Run(name+"/"+string(format)+"/"+path, func(t *testing.T) {
					dir := t.TempDir()
					if err := os.CopyFS(dir, fraud()); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, partPath), bytes.Repeat([]byte("part"), 1000), 0o666); err != nil {
						t.Fatal(err)
					}
					in := append(everyday(os.DirFS(dir)), manifest.FromFS(os.DirFS(dir), partPath, partPath, manifest.RolePart))
					p := pack(t, in, manifest.PackOptions{Format: format})
					want := blobs(t, p)
					if err := change(filepath.Join(dir, path)); err != nil {
						t.Fatal(err)
					}
					// What is in memory is what was hashed.
					if got := blobs(t, p); !maps.EqualFunc(got, want, bytes.Equal) {
						t.Error("other blobs, and no error")
					}
					p.Forget()
					if format != manifest.FormatRaw {
						layer = 0
					}
					rc, err := p.Fetch(t.Context(), p.Manifest.Layers[layer])
					if err != nil {
						t.Fatal(err)
					}
					defer rc.Close()
					_, err = io.Copy(io.Discard, rc)
					changed, ok := errors.AsType[*manifest.ChangedError](err)
					if !ok || changed.Path != path || changed.Cached || errors.Is(err, fs.ErrNotExist) != (name == "is gone") {
						t.Errorf("reading ended with %v; want a ChangedError for %s", err, path)
					}
				})
			}
		}
	}
}

// growing is a file that is written to while it is read.
type growing struct {
	fstest.MapFS
	written bool
}

func (g *growing) Open(name string) (fs.File, error) {
	f, err := g.MapFS.Open(name)
	return &growingFile{f, g}, err
}

type growingFile struct {
	fs.File
	fsys *growing
}

func (g *growingFile) Read(p []byte) (int, error) {
	g.fsys.written = true
	return g.File.Read(p)
}

func (g *growingFile) Stat() (fs.FileInfo, error) {
	info, err := g.File.Stat()
	return writtenInfo{info, g.fsys.written}, err
}

type writtenInfo struct {
	fs.FileInfo
	written bool
}

func (i writtenInfo) ModTime() time.Time {
	if i.written {
		return i.FileInfo.ModTime().Add(1)
	}
	return i.FileInfo.ModTime()
}

// TestWrittenWhileHashed writes to the model in place, while it is read first:
// what was read is neither the old model nor the new one.
func TestWrittenWhileHashed(t *testing.T) {
	fsys := &growing{MapFS: fstest.MapFS{"m": {Data: []byte("a model"), ModTime: time.Unix(1e9, 0)}}}
	_, err := manifest.Pack(t.Context(), []manifest.Input{manifest.FromFS(fsys, "m", "m", manifest.RoleModel)}, manifest.PackOptions{})
	if changed, ok := errors.AsType[*manifest.ChangedError](err); !ok || changed.Path != "m" {
		t.Errorf("Pack: %v; want a ChangedError", err)
	}
}

// TestKept counts what stays in memory of layers: all, or the beginning of one in
// blocks, or nothing.
func TestKept(t *testing.T) {
	const limit = 6 << 20
	noise := make([]byte, limit+1)
	rand.NewChaCha8([32]byte{}).Read(noise)
	for _, tt := range []struct {
		name   string
		format manifest.Format
		sizes  []int // of files in directories of their own
		noise  bool
		layers int  // that are kept
		begun  bool // and of another the beginning
	}{
		{"small", manifest.FormatTarGzip, []int{1000, 1000}, true, 2, false},
		{"shrinks", manifest.FormatTarGzip, []int{5 * limit}, false, 1, false},
		{"shrinks, zstd", manifest.FormatTarZstd, []int{2 * limit}, false, 1, false},
		{"too large", manifest.FormatTarGzip, []int{limit}, true, 0, true},
		{"one too many", manifest.FormatTarGzip, []int{limit / 2, limit / 4, limit / 2}, true, 2, true},
		{"raw", manifest.FormatRaw, []int{limit}, true, 1, false},
		{"large raw", manifest.FormatRaw, []int{limit + 1}, true, 0, false},
		{"far too large", manifest.FormatTarZstd, []int{9 * limit}, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := make(fstest.MapFS)
			var in []manifest.Input
			for i, size := range tt.sizes {
				name := fmt.Sprintf("d%d/m", i)
				data := make([]byte, size)
				if tt.noise {
					copy(data, noise)
				}
				fsys[name] = &fstest.MapFile{Data: data}
				in = append(in, manifest.FromFS(fsys, name, name, manifest.RoleModel))
			}
			p := pack(t, in, manifest.PackOptions{Format: tt.format})
			var sizes []int64
			for _, l := range p.Manifest.Layers {
				sizes = append(sizes, l.Size)
			}
			kept, layers := p.Kept(), 0
			for _, n := range sizes {
				if kept >= n {
					kept -= n
					layers++
				}
			}
			if (kept != 0) != tt.begun || layers != tt.layers || p.Kept() > limit {
				t.Errorf("%d bytes kept of layers of %d bytes; want those of %d layers, and of another: %v", p.Kept(), sizes, tt.layers, tt.begun)
			}
			blobs(t, p)
		})
	}
}

// TestFetchStops stops in the middle, of a layer in memory and of one that is
// packed: the bubble ends only when every goroutine has.
func TestFetchStops(t *testing.T) {
	for _, kept := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := pack(t, everyday(fraud()), manifest.PackOptions{})
			if !kept {
				p.Forget()
			}
			ctx, cancel := context.WithCancel(t.Context())
			rc, err := p.Fetch(ctx, p.Manifest.Layers[0])
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := io.Copy(io.Discard, rc); !errors.Is(err, context.Canceled) {
				t.Errorf("after cancel: %v", err)
			}
			rc.Close()

			if rc, err = p.Fetch(t.Context(), p.Manifest.Layers[0]); err != nil {
				t.Fatal(err)
			}
			rc.Read(make([]byte, 10))
			rc.Close()
			if _, err := p.Fetch(t.Context(), v1.Descriptor{Digest: "sha256:00"}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("unknown blob: %v", err)
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	info, err := fs.Stat(fraud(), modelPath)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	b.ReportAllocs()
	for b.Loop() {
		pack(b, everyday(fraud()), manifest.PackOptions{})
	}
}

// BenchmarkPackNoise packs what does not shrink, and packs it again to be sent.
func BenchmarkPackNoise(b *testing.B) {
	noise := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	fsys := fstest.MapFS{"m": {Data: noise}}
	b.SetBytes(int64(len(noise)))
	b.ReportAllocs()
	for b.Loop() {
		p := pack(b, []manifest.Input{manifest.FromFS(fsys, "m", "m", manifest.RoleModel)}, manifest.PackOptions{})
		rc, err := p.Fetch(b.Context(), p.Manifest.Layers[0])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			b.Fatal(err)
		}
		rc.Close()
	}
}
