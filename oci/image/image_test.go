package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"galley/manifest"
)

// store holds blobs by digest.
type store map[digest.Digest][]byte

func (s store) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	b, ok := s[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, errdef.ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s store) put(mediaType string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s[d.Digest] = data
	return d
}

// both reads from the first store that has a blob.
type both []manifest.Fetcher

func (b both) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	for _, s := range b {
		if rc, err := s.Fetch(ctx, d); err == nil {
			return rc, nil
		}
	}
	return nil, errdef.ErrNotFound
}

// counting counts what is fetched.
type counting struct {
	manifest.Fetcher
	mu sync.Mutex
	n  int
}

func (c *counting) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Fetcher.Fetch(ctx, d)
}

// entry is a line of a symbolic layer: "d /app 750 1000 1000", "f /app/main.py
// text", "l /app/models /srv/m" or "w /app/old".
func tarOf(t testing.TB, lines ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, line := range lines {
		var kind, name, rest string
		kind, rest, _ = strings.Cut(line, " ")
		name, rest, _ = strings.Cut(rest, " ")
		h := &tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: 0o644, Typeflag: tar.TypeReg}
		switch kind {
		case "d":
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
			if rest != "" {
				if _, err := fmt.Sscanf(rest, "%o %d %d", &h.Mode, &h.Uid, &h.Gid); err != nil {
					t.Fatal(line, err)
				}
			}
			rest = ""
		case "l":
			h.Typeflag, h.Linkname, rest = tar.TypeSymlink, rest, ""
		case "w":
			i := strings.LastIndexByte(h.Name, '/') + 1
			h.Name = h.Name[:i] + ".wh." + h.Name[i:]
		case "f":
		default:
			t.Fatalf("line %q", line)
		}
		rest = strings.ReplaceAll(rest, `\n`, "\n")
		h.Size = int64(len(rest))
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(line, err)
		}
		io.WriteString(tw, rest)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

// symbolic is an image to be built.
type symbolic struct {
	family   family
	platform string // linux/amd64
	layers   [][]byte
	plain    bool   // layers are not compressed
	config   string // JSON of config.config
	noHist   bool
	patch    func(m, c map[string]any) // of manifest and config before they are stored
}

// build stores the image.
func (s store) build(t testing.TB, i symbolic) v1.Descriptor {
	t.Helper()
	if i.platform == "" {
		i.platform = "linux/amd64"
	}
	parts := strings.Split(i.platform, "/")
	var layers []any
	var ids, history []any
	for n, l := range i.layers {
		ids = append(ids, digest.FromBytes(l))
		d := s.put(i.family.layer(manifest.FormatTar), l)
		if !i.plain {
			d = s.put(i.family.layer(manifest.FormatTarGzip), gzipped(l))
		}
		layers = append(layers, d)
		history = append(history, map[string]any{"created": "2025-01-02T03:04:05Z", "created_by": fmt.Sprintf("layer %d", n)})
	}
	history = append(history, map[string]any{"created_by": "CMD", "empty_layer": true})
	c := map[string]any{
		"architecture": parts[1], "os": parts[0], "created": "2025-01-02T03:04:05Z",
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	}
	if len(parts) > 2 {
		c["variant"] = parts[2]
	}
	if i.config != "" {
		c["config"] = json.RawMessage(i.config)
	}
	if !i.noHist {
		c["history"] = history
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": i.family.manifest(), "layers": layers}
	if i.patch != nil {
		i.patch(m, c)
	}
	if m["config"] == nil {
		m["config"] = s.put(i.family.config(), toJSON(t, c))
	}
	d := s.put(i.family.manifest(), toJSON(t, m))
	d.Platform = &v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) > 2 {
		d.Platform.Variant = parts[2]
	}
	return d
}

// index stores an index.
func (s store) index(t testing.TB, f family, entries ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	return s.put(f.index(), toJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": f.index(), "manifests": entries, "x-unknown": 1.50,
	}))
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// model packs an artifact of the everyday project.
func model(t testing.TB, name string, o manifest.PackOptions) (Model, store) {
	t.Helper()
	files := fstest.MapFS{
		"models/forest.joblib":        {Data: []byte("the model " + strings.Repeat(name, 1000))},
		"data/selected_features.json": {Data: []byte(`{"selected_features": ["amount", "` + name + `"]}`)},
		"data/training_summary.json":  {Data: []byte(`{"test_metrics": {"test_roc_auc": 0.673}}`)},
	}
	var in []manifest.Input
	for p, role := range map[string]manifest.Role{
		"models/forest.joblib": manifest.RoleModel, "data/selected_features.json": manifest.RoleFeatures, "data/training_summary.json": manifest.RoleSummary,
	} {
		in = append(in, manifest.FromFS(files, p, p, role))
	}
	return packed(t, in, o)
}

func packed(t testing.TB, in []manifest.Input, o manifest.PackOptions) (Model, store) {
	t.Helper()
	p, err := manifest.Pack(t.Context(), in, o)
	if err != nil {
		t.Fatal(err)
	}
	s := store{}
	for _, d := range append([]v1.Descriptor{p.Root, p.Manifest.Config}, p.Manifest.Layers...) {
		rc, err := p.Fetch(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if s[d.Digest], err = io.ReadAll(rc); err != nil {
			t.Fatal(err)
		}
		rc.Close()
	}
	a, err := manifest.Read(t.Context(), s, p.Root)
	if err != nil {
		t.Fatal(err)
	}
	return Model{Artifact: a, Source: s, Repository: "reg.example/ml/model"}, s
}

// open opens a base that must be good.
func open(t testing.TB, src manifest.Fetcher, root v1.Descriptor, platforms ...string) *Base {
	t.Helper()
	b, err := Open(t.Context(), src, root, OpenOptions{Name: "reg.example/base:1", Repository: "reg.example/base", Platforms: platforms})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bake does all of it and has the result verified.
func bake(t testing.TB, b *Base, models []Model, o Options) *Baked {
	t.Helper()
	done, err := tryBake(t, b, models, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), done, done.Root); err != nil {
		t.Fatal("what was baked does not verify:", err)
	}
	return done
}

func tryBake(t testing.TB, b *Base, models []Model, o Options) (*Baked, error) {
	t.Helper()
	k, err := NewBaking(t.Context(), b, models, o)
	if err != nil {
		return nil, err
	}
	if err := k.Look(t.Context(), LookOptions{}); err != nil {
		return nil, err
	}
	return k.Bake(t.Context())
}

// rootfs applies an image's layers as an engine does and lists what is there.
func rootfs(t testing.TB, src manifest.Fetcher, i *Image) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, l := range i.Layers {
		rc, err := src.Fetch(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		blob := newBlob(rc, l)
		plain, done, err := unpack(blob, l)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, all, plain)
		done()
		rc.Close()
	}
	return all
}

// apply puts one layer over the rest: a directory over a link replaces it, as
// docker and containers/storage do.
func apply(t testing.TB, all map[string]string, r io.Reader) {
	t.Helper()
	remove := func(p string, self bool) {
		for q := range all {
			if self && q == p || strings.HasPrefix(q, p+"/") {
				delete(all, q)
			}
		}
	}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p := "/" + strings.TrimSuffix(h.Name, "/")
		dir, base := p[:strings.LastIndexByte(p, '/')], p[strings.LastIndexByte(p, '/')+1:]
		if name, ok := strings.CutPrefix(base, ".wh."); ok {
			remove(dir+"/"+name, true)
			continue
		}
		for up := dir; up != ""; up = up[:strings.LastIndexByte(up, '/')] {
			if !strings.HasPrefix(all[up], "d ") {
				t.Errorf("%s: no directory %s above it but %q", p, up, all[up])
			}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if !strings.HasPrefix(all[p], "d ") {
				remove(p, true)
			}
			all[p] = fmt.Sprintf("d %o %d %d", h.Mode, h.Uid, h.Gid)
		case tar.TypeSymlink:
			remove(p, true)
			all[p] = "l " + h.Linkname
		default:
			remove(p, true)
			data, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			all[p] = fmt.Sprintf("f %o %d %d %s", h.Mode, h.Uid, h.Gid, data)
		}
		if h.ModTime.Unix() != 0 {
			t.Errorf("%s: time %s", p, h.ModTime)
		}
	}
}

// read follows links as an app would, and returns a file's bytes.
func read(t testing.TB, fsys map[string]string, p string) string {
	t.Helper()
	at := func(p string) (Dir, bool) {
		s, ok := fsys[p]
		switch {
		case !ok:
			return Dir{Type: Absent}, true
		case strings.HasPrefix(s, "l "):
			return Dir{Type: Symlink, Target: s[2:]}, true
		case strings.HasPrefix(s, "d "):
			return Dir{Type: Directory}, true
		}
		return Dir{Type: Other}, true
	}
	for range 10 {
		i := strings.LastIndexByte(p, '/')
		dir, err := resolve(p[:i]+"/", at)
		if err != nil {
			t.Fatalf("read %s: %v", p, err)
		}
		p = strings.TrimSuffix(dir, "/") + p[i:]
		d, _ := at(p)
		if d.Type != Symlink {
			break
		}
		if p = d.Target; !strings.HasPrefix(p, "/") {
			p = dir + "/" + p
		}
	}
	s := fsys[p]
	if !strings.HasPrefix(s, "f ") {
		t.Fatalf("%s is %q, not a file", p, s)
	}
	return strings.SplitN(s, " ", 5)[4]
}
