package layout_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"galley/oci/layout"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
)

const mark = `{"imageLayoutVersion":"1.0.0"}`

// makeFiles writes files, by slash-separated name, below a new directory.
func makeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		writeFile(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	return dir
}

func writeFile(t testing.TB, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, name ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// create returns a store of a layout yet to be made.
func create(t testing.TB) *layout.Store {
	t.Helper()
	s, err := layout.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open returns a store of a layout with the given index.json and blobs.
func open(t testing.TB, index string, blobs ...[]byte) *layout.Store {
	t.Helper()
	files := map[string]string{"oci-layout": mark, "index.json": index}
	for _, b := range blobs {
		files["blobs/sha256/"+digest.FromBytes(b).Encoded()] = string(b)
	}
	s, err := layout.Open(makeFiles(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// manifest returns a manifest that differs from those of other ids.
func manifest(id string) (v1.Descriptor, []byte) {
	config := v1.DescriptorEmptyJSON
	data := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[],"annotations":{"id":%q}}`,
		v1.MediaTypeImageManifest, config.MediaType, config.Digest, config.Size, id)
	return content.NewDescriptorFromBytes(v1.MediaTypeImageManifest, data), data
}

func push(t testing.TB, s *layout.Store, desc v1.Descriptor, data []byte) {
	t.Helper()
	if err := s.Push(t.Context(), desc, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

// pushTagged pushes the manifest of an id and tags it.
func pushTagged(t testing.TB, s *layout.Store, id string, tags ...string) v1.Descriptor {
	t.Helper()
	desc, data := manifest(id)
	if err := s.Push(t.Context(), desc, bytes.NewReader(data)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		t.Fatal(err)
	}
	for _, tag := range tags {
		if err := s.Tag(t.Context(), desc, tag); err != nil {
			t.Fatal(err)
		}
	}
	return desc
}

func listTags(t testing.TB, s *layout.Store) []string {
	t.Helper()
	tags, err := registry.Tags(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return tags
}

func TestOpen(t *testing.T) {
	t.Parallel()
	const other = `{"imageLayoutVersion":"2.0.0"}`
	tests := []struct {
		name      string
		files     map[string]string
		dir       string // below the files
		openErr   error
		createErr error
	}{
		{"layout", map[string]string{"oci-layout": mark}, "", nil, nil},
		{"trailing separator", map[string]string{"d/oci-layout": mark}, "d/", nil, nil},
		{"further members", map[string]string{"oci-layout": `{"x":1,"imageLayoutVersion":"1.0.0"}`}, "", nil, nil},
		{"broken index", map[string]string{"oci-layout": mark, "index.json": "{"}, "", nil, nil},
		{"missing", nil, "a/b", fs.ErrNotExist, nil},
		{"empty", nil, "", fs.ErrNotExist, nil},
		{"killed while made", map[string]string{".galley-layout/tmp-A": "{"}, "", fs.ErrNotExist, nil},
		{"something else", map[string]string{"model.joblib": ""}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"index without oci-layout", map[string]string{"index.json": "{}"}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"file", map[string]string{"f": ""}, "f", layout.ErrNotLayout, layout.ErrNotLayout},
		{"empty oci-layout", map[string]string{"oci-layout": ""}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"garbage oci-layout", map[string]string{"oci-layout": "\x00\x01"}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"no version", map[string]string{"oci-layout": "{}"}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"oci-layout is a directory", map[string]string{"oci-layout/x": ""}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"huge oci-layout", map[string]string{"oci-layout": mark + string(make([]byte, 1<<20))}, "", layout.ErrNotLayout, layout.ErrNotLayout},
		{"other version", map[string]string{"oci-layout": other}, "", errdef.ErrUnsupportedVersion, errdef.ErrUnsupportedVersion},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := makeFiles(t, test.files) + "/" + test.dir
			s, err := layout.Open(dir)
			if !errors.Is(err, test.openErr) {
				t.Errorf("Open: got error %v, want %v", err, test.openErr)
			}
			if err == nil && s.Dir() != filepath.Clean(dir) {
				t.Errorf("Dir: got %q, want %q", s.Dir(), filepath.Clean(dir))
			}
			s, err = layout.Create(dir)
			if !errors.Is(err, test.createErr) {
				t.Fatalf("Create: got error %v, want %v", err, test.createErr)
			}
			if err == nil && test.name != "broken index" {
				pushTagged(t, s, "a", "v1")
			}
		})
	}
	for _, f := range []func(string) (*layout.Store, error){layout.Open, layout.Create} {
		if _, err := f(""); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("empty name: got error %v, want %v", err, fs.ErrInvalid)
		}
	}
}

func TestCreateWritesNothingUntilPush(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	s, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	desc, data := manifest("a")
	if _, err := s.Fetch(ctx, desc); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Fetch: got error %v, want %v", err, errdef.ErrNotFound)
	}
	if ok, err := s.Exists(ctx, desc); ok || err != nil {
		t.Errorf("Exists: got %v, %v, want false", ok, err)
	}
	for _, ref := range []string{"v1", desc.Digest.String()} {
		if _, err := s.Resolve(ctx, ref); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("Resolve: got error %v, want %v", err, errdef.ErrNotFound)
		}
	}
	if err := s.Tag(ctx, desc, "v1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Tag: got error %v, want %v", err, errdef.ErrNotFound)
	}
	if err := s.Untag(ctx, "v1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("Untag: got error %v, want %v", err, errdef.ErrNotFound)
	}
	if tags := listTags(t, s); len(tags) > 0 {
		t.Errorf("Tags: got %q, want none", tags)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(dir))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was made: %v", err)
	}

	// One push makes a layout that is complete for every tool.
	push(t, s, desc, data)
	if got := readFile(t, dir, "oci-layout"); got != mark {
		t.Errorf("oci-layout: got %s, want %s", got, mark)
	}
	var index v1.Index
	if err := json.Unmarshal([]byte(readFile(t, dir, "index.json")), &index); err != nil {
		t.Fatal(err)
	}
	if index.SchemaVersion != 2 || index.MediaType != v1.MediaTypeImageIndex || index.Manifests == nil {
		t.Errorf("index.json: got %+v", index)
	}
	if _, err := layout.Open(dir); err != nil {
		t.Error(err)
	}
}

func TestCreateRefusesWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "README.md"), "mine")
	desc, data := manifest("a")
	if err := s.Push(t.Context(), desc, bytes.NewReader(data)); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("got error %v, want %v", err, layout.ErrNotLayout)
	}
}

// Many stores on one directory that does not exist yet, all of them at once.
func TestConcurrentStores(t *testing.T) {
	t.Parallel()
	const stores, tags = 8, 5
	dir := filepath.Join(t.TempDir(), "a", "store")
	var wg sync.WaitGroup
	for i := range stores {
		s, err := layout.Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		for j := range tags {
			wg.Go(func() {
				desc, data := manifest(fmt.Sprint(j)) // the same of all stores
				err := s.Push(t.Context(), desc, bytes.NewReader(data))
				if err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
					t.Error(err)
				}
				if err := s.Tag(t.Context(), desc, fmt.Sprintf("v%d.%d", i, j)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := listTags(t, s); len(got) != stores*tags {
		t.Errorf("got %d tags, want %d: %q", len(got), stores*tags, got)
	}
}

// Layouts made by other tools can be read, and copied by oras-go.
func TestPeers(t *testing.T) {
	t.Parallel()
	marks, err := filepath.Glob("../../testdata/peers/*/oci-layout")
	if err != nil {
		t.Fatal(err)
	}
	if len(marks) < 6 {
		t.Fatalf("found %d layouts of peers, want at least 6", len(marks))
	}
	for _, name := range marks {
		dir := filepath.Dir(name)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			src, err := layout.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			want, err := src.Resolve(ctx, "v1")
			if err != nil {
				t.Fatal(err)
			}
			byDigest, err := src.Resolve(ctx, want.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			if !content.Equal(byDigest, want) {
				t.Errorf("by digest: got %+v, want %+v", byDigest, want)
			}
			if tags := listTags(t, src); len(tags) != 1 || tags[0] != "v1" {
				t.Errorf("got tags %q, want v1", tags)
			}
			// Says what is so already, which must not write.
			if err := src.Tag(ctx, want, "v1"); err != nil {
				t.Error(err)
			}

			dst := create(t)
			if _, err := oras.Copy(ctx, src, "v1", dst, "v2", oras.DefaultCopyOptions); err != nil {
				t.Fatal(err)
			}
			got, err := dst.Resolve(ctx, "v2")
			if err != nil {
				t.Fatal(err)
			}
			if !content.Equal(got, want) {
				t.Errorf("copy: got %+v, want %+v", got, want)
			}
			if _, err := os.Lstat(filepath.Join(dir, ".galley-layout")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("reading wrote: %v", err)
			}
		})
	}
}
