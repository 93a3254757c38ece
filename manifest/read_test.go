package manifest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// layoutDir fetches from the blobs of an OCI layout.
type layoutDir string

func (l layoutDir) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(l), "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
}

func (l layoutDir) root(t testing.TB) v1.Descriptor {
	t.Helper()
	var index v1.Index
	data, err := os.ReadFile(filepath.Join(string(l), v1.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%s: %d manifests, %v", l, len(index.Manifests), err)
	}
	return index.Manifests[0]
}

// TestPeers reads the same three files out of what other tools made of them.
func TestPeers(t *testing.T) {
	source := os.DirFS("../testdata/peers/source")
	want := make(map[string]string)
	for p, role := range map[string]manifest.Role{
		modelPath: manifest.RoleModel, featuresPath: manifest.RoleFeatures, summaryPath: manifest.RoleSummary,
	} {
		data, err := fs.ReadFile(source, p)
		if err != nil {
			t.Fatal(err)
		}
		want[p] = fmt.Sprintf("%s %d %s", role, len(data), digest.FromBytes(data))
	}
	entries, err := os.ReadDir("../testdata/peers")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "source" {
			continue
		}
		read++
		t.Run(e.Name(), func(t *testing.T) {
			dir := layoutDir(filepath.Join("../testdata/peers", e.Name()))
			a, err := manifest.Read(t.Context(), dir, dir.root(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Expand(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			got := make(map[string]string)
			for f := range a.Files() {
				got[f.Path] = fmt.Sprintf("%s %d %s", f.Role, f.Size, f.Digest)
			}
			for p, w := range want {
				if got[p] != w {
					t.Errorf("%s: %q; want %q", p, got[p], w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("files %v; want %d", got, len(want))
			}
			checkDiffIDs(t, dir, a)
		})
	}
	if read != 6 {
		t.Errorf("%d artifacts read; want 6", read)
	}
}

// checkDiffIDs inflates every layer with the standard library.
func checkDiffIDs(t *testing.T, src manifest.Fetcher, a *manifest.Artifact) {
	t.Helper()
	for _, l := range a.Layers {
		data, err := manifest.ReadBlob(t.Context(), src, l.Descriptor, "layer", 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if l.Format == manifest.FormatTarGzip {
			z, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if want := digest.FromBytes(data); l.DiffID != want {
			t.Errorf("layer %s: diffID %s; want %s", l.Title, l.DiffID, want)
		}
	}
}

// TestReadBack packs and reads every layer format.
func TestReadBack(t *testing.T) {
	for _, f := range []manifest.Format{manifest.FormatTarGzip, manifest.FormatTar, manifest.FormatTarZstd, manifest.FormatRaw} {
		t.Run(string(f), func(t *testing.T) {
			p := pack(t, everyday(fraud()), manifest.PackOptions{Format: f})
			// Nothing but the manifest may be needed to know the files.
			only := fetcher(func(d v1.Descriptor) ([]byte, error) {
				if d.Digest != p.Root.Digest {
					return nil, fmt.Errorf("asked for %s", d.MediaType)
				}
				return blobs(t, p)[d.Digest.String()], nil
			})
			a, err := manifest.Read(t.Context(), only, p.Root)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := slices.Collect(a.Files()), slices.Collect(p.Files()); !slices.Equal(got, want) {
				t.Errorf("files %v; want %v", got, want)
			}
			for _, l := range a.Layers {
				rc, err := p.Fetch(t.Context(), l.Descriptor)
				if err != nil {
					t.Fatal(err)
				}
				diffID, err := l.Walk(rc, func(f manifest.File, r io.Reader) error {
					got, err := io.ReadAll(r)
					want, rerr := fs.ReadFile(fraud(), f.Path)
					if !bytes.Equal(got, want) {
						t.Errorf("%s: other bytes", f.Path)
					}
					return errors.Join(err, rerr)
				})
				if err != nil || diffID == "" && f != manifest.FormatTarZstd {
					t.Errorf("layer %s: diffID %q, %v", l.Title, diffID, err)
				}
				rc.Close()
			}
		})
	}
}

type fetcher func(v1.Descriptor) ([]byte, error)

func (f fetcher) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	data, err := f(d)
	return io.NopCloser(bytes.NewReader(data)), err
}

// readDoc reads a manifest from its text.
func readDoc(t testing.TB, doc string) (*manifest.Artifact, error) {
	t.Helper()
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(doc), Size: int64(len(doc))}
	return manifest.Read(t.Context(), fetcher(func(d v1.Descriptor) ([]byte, error) {
		if d.Digest != digest.FromString(doc) {
			return nil, fs.ErrNotExist
		}
		return []byte(doc), nil
	}), d)
}

const emptyConfig = `"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`

// oneLayer is a manifest with one layer of the given annotations, as JSON.
func oneLayer(mediaType, annotations string) string {
	return `{"schemaVersion":2,` + emptyConfig + `,"layers":[{"mediaType":"` + mediaType +
		`","digest":"sha256:` + strings.Repeat("0", 64) + `","size":1,"annotations":{` + annotations + `}}]}`
}

func TestReadRefuses(t *testing.T) {
	const raw, tgz = "application/vnd.cncf.model.weight.v1.raw", "application/vnd.cncf.model.weight.v1.tar+gzip"
	title := func(s string) string { return `"org.opencontainers.image.title":"` + s + `"` }
	files := func(s string) string {
		text, _ := json.Marshal(s)
		return `"ml.galley.files":` + string(text)
	}
	image := &manifest.NotArtifactError{}
	for _, tt := range []struct {
		name, doc string
		is        error
		text      string
	}{
		{"not JSON", `<html>`, manifest.ErrMalformed, "line 1"},
		{"wrong types", `{"schemaVersion":2,"layers":{}}`, manifest.ErrMalformed, ""},
		{"duplicate key", `{"schemaVersion":2,"layers":[],"layers":[]}`, manifest.ErrMalformed, "layers"},
		{"case variant", `{"schemaVersion":2,"layers":[],"Layers":[]}`, manifest.ErrMalformed, "Layers"},
		{"index", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, image, "index"},
		{"image", `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:00","size":1},"layers":[]}`, image, "container image"},
		{"docker image", `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json"}}`, image, "container image"},
		{"bad digest", strings.Replace(oneLayer(raw, title("x")), "sha256:0000", "md5:0000", 1), manifest.ErrMalformed, "digest"},
		{"negative size", strings.Replace(oneLayer(raw, title("x")), `"size":1`, `"size":-1`, 1), manifest.ErrMalformed, "-1"},
		{"absolute", oneLayer(raw, title("/etc/passwd")), manifest.ErrUnsafePath, "/etc/passwd"},
		{"dot dot", oneLayer(raw, title("../x")), manifest.ErrUnsafePath, "../x"},
		{"drive", oneLayer(raw, title(`C:\\x`)), manifest.ErrUnsafePath, `C:`},
		{"NUL", oneLayer(raw, title(`x\u0000y`)), manifest.ErrUnsafePath, "control"},
		{"filepath wins and is checked", oneLayer(raw, title("x")+`,"org.cncf.model.filepath":"../x"`), manifest.ErrUnsafePath, "../x"},
		{"listed path", oneLayer(tgz, title("models")+","+files(`[{"path":"../m","size":1,"sha256":"`+strings.Repeat("0", 64)+`"}]`)), manifest.ErrUnsafePath, "../m"},
		{"listed twice", oneLayer(tgz, title("models")+","+files(`[{"path":"m","size":1,"sha256":"`+strings.Repeat("0", 64)+`"},{"path":"M","size":1,"sha256":"`+strings.Repeat("0", 64)+`"}]`)), manifest.ErrUnsafePath, "case"},
		{"list without digest", oneLayer(tgz, title("models")+","+files(`[{"path":"m","size":1,"sha256":""}]`)), manifest.ErrMalformed, "digest"},
		{"list with huge size", oneLayer(tgz, title("models")+","+files(`[{"path":"m","size":9223372036854775807,"sha256":"`+strings.Repeat("0", 64)+`"}]`)), manifest.ErrMalformed, "size"},
		{"list is no JSON", oneLayer(tgz, title("models")+","+files(`[`)), manifest.ErrMalformed, "ml.galley.files"},
		{"diffID", oneLayer(tgz, title("models")+`,"io.deis.oras.content.digest":"x"`), manifest.ErrMalformed, "diffID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := readDoc(t, tt.doc)
			if a != nil || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("Read = %v, %v; want an error with %q", a, err, tt.text)
			}
			var not *manifest.NotArtifactError
			if tt.is == error(image) {
				if !errors.As(err, &not) {
					t.Errorf("%v; want a NotArtifactError", err)
				}
			} else if !errors.Is(err, tt.is) {
				t.Errorf("%v; want %v", err, tt.is)
			}
		})
	}
}

// TestWalkRefuses alters a packed layer, or what the manifest says of it.
func TestWalkRefuses(t *testing.T) {
	p := pack(t, everyday(fraud()), manifest.PackOptions{})
	good := p.Layers[0]
	blob := blobs(t, p)[good.Descriptor.Digest.String()]
	flip := bytes.Clone(blob)
	flip[len(flip)/2] ^= 1
	for _, tt := range []struct {
		name   string
		blob   []byte
		change func(*manifest.Layer)
		text   string
	}{
		{"truncated", blob[:len(blob)/2], nil, "bytes"},
		{"longer", append(bytes.Clone(blob), 0), nil, "got more"},
		{"one bit", flip, nil, ", got sha256:"},
		{"empty", nil, nil, "got 0"},
		{"another file size", blob, func(l *manifest.Layer) { l.Files[0].Size++ }, "335994 bytes"},
		{"another file digest", blob, func(l *manifest.Layer) { l.Files[0].Digest = digest.FromString("x") }, modelPath},
		{"another file", blob, func(l *manifest.Layer) { l.Files[0].Path = "models/x" }, "also"},
		{"one file more", blob, func(l *manifest.Layer) { l.Files = append(l.Files, manifest.File{Path: "y", Size: 0}) }, `"y" in it`},
		{"another diffID", blob, func(l *manifest.Layer) { l.DiffID, l.Files = digest.FromString("x"), nil }, "uncompressed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := good
			l.Files = slices.Clone(l.Files)
			if tt.change != nil {
				tt.change(&l)
			}
			_, err := l.Walk(bytes.NewReader(tt.blob), func(_ manifest.File, r io.Reader) error {
				_, err := io.Copy(io.Discard, r)
				return err
			})
			var corrupt *manifest.CorruptError
			if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Walk: %v; want a CorruptError with %q", err, tt.text)
			}
		})
	}
}

// TestWalkKeepsErrorsOfTheConnection does not call a cut connection corrupt.
func TestWalkKeepsErrorsOfTheConnection(t *testing.T) {
	p := pack(t, everyday(fraud()), manifest.PackOptions{})
	blob := blobs(t, p)[p.Layers[0].Descriptor.Digest.String()]
	cut := errors.New("connection cut")
	r := io.MultiReader(bytes.NewReader(blob[:1000]), errReader{cut})
	_, err := p.Layers[0].Walk(r, func(_ manifest.File, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, cut) {
		t.Errorf("Walk: %v; want %v", err, cut)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func manifestSeeds(t testing.TB) [][]byte {
	t.Helper()
	seeds := [][]byte{
		[]byte(`{}`),
		[]byte(oneLayer("application/vnd.oci.image.layer.v1.tar", `"org.opencontainers.image.title":"m.joblib"`)),
		[]byte(oneLayer("application/vnd.cncf.model.weight.v1.tar", `"org.cncf.model.filepath":"m","org.cncf.model.file.metadata+json":"{\"name\":\"m\",\"size\":3}"`)),
	}
	names, err := filepath.Glob("../testdata/peers/*/blobs/sha256/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(data, []byte("{")) {
			seeds = append(seeds, data)
		}
	}
	return seeds
}

func TestManifestSeeds(t *testing.T) {
	if n := len(manifestSeeds(t)); n < 15 {
		t.Errorf("%d seeds; want at least 15", n)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range manifestSeeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		a, err := readDoc(t, string(doc))
		if err != nil {
			if a != nil {
				t.Error("an artifact beside an error")
			}
			return
		}
		for file := range a.Files() {
			if err := manifest.CheckPath(file.Path); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	p := pack(b, everyday(fraud()), manifest.PackOptions{})
	l := p.Layers[0]
	blob := blobs(b, p)[l.Descriptor.Digest.String()]
	b.SetBytes(l.Files[0].Size)
	b.ReportAllocs()
	for b.Loop() {
		_, err := l.Walk(bytes.NewReader(blob), func(_ manifest.File, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestWalkOfManySmallFiles reads a layer that is mostly headers.
func TestWalkOfManySmallFiles(t *testing.T) {
	fsys := fstest.MapFS{"x": {Data: []byte("x")}}
	var in []manifest.Input
	for i := range 2500 {
		in = append(in, manifest.FromFS(fsys, "x", fmt.Sprintf("models/%d/ü/c/s.bin", i), manifest.RolePart))
	}
	p := pack(t, in, manifest.PackOptions{})
	rc, err := p.Fetch(t.Context(), p.Layers[0].Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	files := 0
	if _, err := p.Layers[0].Walk(rc, func(manifest.File, io.Reader) error { files++; return nil }); err != nil || files != len(in) {
		t.Errorf("%d files, %v; want %d", files, err, len(in))
	}
}

// TestMetricsThatDifferInCase are annotations like any other.
func TestMetricsThatDifferInCase(t *testing.T) {
	p := pack(t, everyday(fstest.MapFS{
		modelPath:    {Data: []byte("\x80\x04N.")},
		featuresPath: {Data: []byte(`["a"]`)},
		summaryPath:  {Data: []byte(`{"m": {"a": {"f1": 0.5}, "A": {"f1": 0.6}}}`)},
	}), manifest.PackOptions{})
	if got := p.Info().Metrics; len(got) != 2 || got[0].Value == got[1].Value {
		t.Errorf("metrics %v", got)
	}
}
