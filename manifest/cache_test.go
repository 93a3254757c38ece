package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"galley/manifest"
)

// memory is a cache that tells files by name, size and time: enough for files
// that nobody writes to behind its back.
type memory struct {
	mu      sync.Mutex
	records map[string][]byte
	blind   bool // tells no file
}

func newMemory() *memory { return &memory{records: make(map[string][]byte)} }

func (m *memory) Identify(info fs.FileInfo) string {
	if m.blind {
		return ""
	}
	return fmt.Sprint(info.Name(), info.Size(), info.ModTime().UnixNano())
}

func (m *memory) Get(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.records[key]
	return data, ok
}

func (m *memory) Put(key string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records[key] = data; data == nil {
		delete(m.records, key)
	}
}

// countFS counts the bytes that are read of each file.
type countFS struct {
	fs.FS
	mu   sync.Mutex
	read map[string]int
}

func (c *countFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	return &countFile{f, c, name}, err
}

type countFile struct {
	fs.File
	fsys *countFS
	name string
}

func (f *countFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	f.fsys.read[f.name] += n
	return n, err
}

// TestCache packs a project again: of the model nothing is read, and what is
// known of it is the same.
func TestCache(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, fraud()); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(dir, modelPath)
	info, err := os.Stat(model)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []manifest.Format{manifest.FormatTarGzip, manifest.FormatTar, manifest.FormatTarZstd, manifest.FormatRaw} {
		cache, fsys := newMemory(), &countFS{FS: os.DirFS(dir), read: make(map[string]int)}
		o := manifest.PackOptions{Name: "fraud", Format: format, Cache: cache}
		want := pack(t, everyday(fsys), o)
		if fsys.read[modelPath] != int(info.Size()) || len(cache.records) != 1 {
			t.Fatalf("%s: %d bytes of the model read, %d records; want %d and 1", format, fsys.read[modelPath], len(cache.records), info.Size())
		}
		for _, path := range []string{featuresPath, summaryPath} {
			if info, err := fs.Stat(fsys, path); err != nil || int64(fsys.read[path]) != info.Size() {
				t.Errorf("%s: %d bytes of %s read, %v; want it to be read once", format, fsys.read[path], path, err)
			}
		}
		clear(fsys.read)
		got := pack(t, everyday(fsys), o)
		if n, ok := fsys.read[modelPath]; ok {
			t.Errorf("%s: %d bytes of the model read again", format, n)
		}
		if got.Root.Digest != want.Root.Digest || !reflect.DeepEqual(got.Scans, want.Scans) || !reflect.DeepEqual(got.Fit, want.Fit) || !reflect.DeepEqual(got.Warnings, want.Warnings) {
			t.Errorf("%s: another artifact comes out of the cache", format)
		}
		if !maps.EqualFunc(blobs(t, got), blobs(t, want), bytes.Equal) {
			t.Errorf("%s: other blobs", format)
		}

		clear(fsys.read)
		if err := errors.Join(got.Confirm(t.Context()), got.Confirm(t.Context()), want.Confirm(t.Context())); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if n := fsys.read[modelPath]; n != int(info.Size()) {
			t.Errorf("%s: %d bytes of the model read to confirm it; want %d", format, n, info.Size())
		}
		if !maps.EqualFunc(blobs(t, got), blobs(t, want), bytes.Equal) {
			t.Errorf("%s: other blobs, confirmed", format)
		}

		// What makes a difference makes a difference.
		for name, other := range map[string]manifest.PackOptions{
			"allow":  {Cache: cache, Format: format, Allow: []string{"a:b"}},
			"format": {Cache: cache, Format: map[bool]manifest.Format{true: manifest.FormatRaw, false: manifest.FormatTar}[format == manifest.FormatTar]},
		} {
			clear(fsys.read)
			pack(t, everyday(fsys), other)
			if fsys.read[modelPath] == 0 {
				t.Errorf("%s, other %s: the model was not read", format, name)
			}
		}
	}
}

func TestCacheKeepsNothing(t *testing.T) {
	blind := newMemory()
	blind.blind = true
	pack(t, everyday(fraud()), manifest.PackOptions{Cache: blind})
	if len(blind.records) != 0 {
		t.Error("a file that nothing tells is remembered")
	}
	cache := newMemory()
	fsys := &growing{MapFS: fstest.MapFS{"m": {Data: []byte("a model"), ModTime: time.Unix(1e9, 0)}}}
	in := []manifest.Input{manifest.FromFS(fsys, "m", "m", manifest.RoleModel)}
	if _, err := manifest.Pack(t.Context(), in, manifest.PackOptions{Cache: cache}); err == nil || len(cache.records) != 0 {
		t.Errorf("Pack: %v; a file that changed is remembered", err)
	}
}

// TestCacheLies gives the cache what is not true. That is found out before
// anything is written, and forgotten.
func TestCacheLies(t *testing.T) {
	data, err := fs.ReadFile(fraud(), modelPath)
	if err != nil {
		t.Fatal(err)
	}
	evil := bytes.Clone(data)
	copy(evil, "cos\nsystem\n(S'id'\ntR.")
	edit := func(old, new string) func(*memory, *fstest.MapFile) {
		return func(m *memory, _ *fstest.MapFile) {
			for key, record := range m.records {
				text := strings.Replace(string(record), old, new, 1)
				if text == string(record) {
					t.Errorf("no %q in the record", old)
				}
				m.records[key] = []byte(text)
			}
		}
	}
	for _, format := range []manifest.Format{manifest.FormatTarGzip, manifest.FormatRaw} {
		for name, lie := range map[string]func(*memory, *fstest.MapFile){
			"other bytes":  func(_ *memory, f *fstest.MapFile) { f.Data = evil },
			"verdict":      edit(`"verdict":"pass"`, `"verdict":"review"`),
			"class":        edit(`RandomForestClassifier`, `SomethingElse`),
			"file digest":  nil,
			"layer digest": nil,
		} {
			t.Run(name+"/"+string(format), func(t *testing.T) {
				cache := newMemory()
				file := &fstest.MapFile{Data: bytes.Clone(data), ModTime: time.Unix(1e9, 0)}
				in := []manifest.Input{manifest.FromFS(fstest.MapFS{"m": file}, "m", "m", manifest.RoleModel)}
				o := manifest.PackOptions{Cache: cache, Format: format}
				honest := pack(t, in, o)
				sum, layer := honest.Layers[0].Files[0].Digest.Encoded(), honest.Manifest.Layers[0].Digest.Encoded()
				zeros := strings.Repeat("0", 64)
				switch {
				case name == "file digest":
					lie = edit(`"digest":"sha256:`+sum+`","report"`, `"digest":"sha256:`+zeros+`","report"`)
				case name == "layer digest":
					lie = edit(`{"digest":"sha256:`+layer, `{"digest":"sha256:`+zeros)
				}
				lie(cache, file)
				p := pack(t, in, o)
				if format == manifest.FormatRaw && strings.HasSuffix(name, "digest") {
					// A raw layer is the file: the two disagree, so it was read.
					if p.Root.Digest != honest.Root.Digest {
						t.Error("a record that contradicts itself is believed")
					}
					return
				}
				err := p.Confirm(t.Context())
				if changed, ok := errors.AsType[*manifest.ChangedError](err); !ok || !changed.Cached || changed.Path != "m" {
					t.Errorf("Confirm: %v; want a ChangedError that blames the cache", err)
				}
				// Whoever does not ask first gets no wrong bytes either.
				switch rc, err := p.Fetch(t.Context(), p.Manifest.Layers[0]); name {
				case "other bytes", "file digest", "layer digest":
					if err == nil {
						_, err = io.Copy(io.Discard, rc)
						rc.Close()
					}
					if (err == nil) != (name == "file digest") { // which no layer of the tar depends on
						t.Errorf("reading ended with %v", err)
					}
				}
				if len(cache.records) != 0 {
					t.Error("the lie is not forgotten")
				}
				again := pack(t, in, o)
				blobs(t, again)
				if name == "other bytes" && again.Scans[0].Verdict() == honest.Scans[0].Verdict() {
					t.Errorf("the second time: %s; want the verdict on what is there", again.Scans[0].Verdict())
				}
			})
		}
	}
}

// TestConfirmChanged changes a file after the cache told what it holds.
func TestConfirmChanged(t *testing.T) {
	for name, change := range map[string]func(fstest.MapFS){
		"changes": func(fsys fstest.MapFS) { fsys["m"].Data = []byte("A model") },
		"grows":   func(fsys fstest.MapFS) { fsys["m"].Data = []byte("a model and more") },
		"shrinks": func(fsys fstest.MapFS) { fsys["m"].Data = nil },
		"is gone": func(fsys fstest.MapFS) { delete(fsys, "m") },
	} {
		cache := newMemory()
		fsys := fstest.MapFS{"m": {Data: []byte("a model"), ModTime: time.Unix(1e9, 0)}}
		in := []manifest.Input{manifest.FromFS(fsys, "m", "m", manifest.RoleModel)}
		pack(t, in, manifest.PackOptions{Cache: cache})
		p := pack(t, in, manifest.PackOptions{Cache: cache})
		change(fsys)
		err := p.Confirm(t.Context())
		changed, ok := errors.AsType[*manifest.ChangedError](err)
		if !ok || !changed.Cached || changed.Path != "m" || errors.Is(err, fs.ErrNotExist) != (name == "is gone") || len(cache.records) != 0 {
			t.Errorf("a file that %s: %v, %d records", name, err, len(cache.records))
		}
	}
}

// TestCacheIgnoresJunk reads records that are none.
func TestCacheIgnoresJunk(t *testing.T) {
	cache := newMemory()
	o := manifest.PackOptions{Cache: cache}
	want := pack(t, everyday(fraud()), o)
	var key string
	var record map[string]any
	for k, data := range cache.records {
		key = k
		if err := json.Unmarshal(data, &record); err != nil {
			t.Fatal(err)
		}
	}
	with := func(field string, value any) string {
		other := maps.Clone(record)
		other[field] = value
		text, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	file := maps.Clone(record["files"].([]any)[0].(map[string]any))
	file["report"] = nil
	for _, junk := range []string{
		"", "null", "{}", "[]", "no JSON", with("digest", "sha256:00"), with("diffID", nil), with("size", -1), with("files", nil),
		with("files", []any{file}), with("files", append(record["files"].([]any), record["files"].([]any)...)), with("size", "1"),
		strings.Repeat(" ", 5<<20) + with("size", record["size"]),
	} {
		cache.Put(key, []byte(junk))
		if p := pack(t, everyday(fraud()), o); p.Root.Digest != want.Root.Digest {
			t.Errorf("%.50q makes another artifact", junk)
		}
		if data, _ := cache.Get(key); string(data) == junk {
			t.Errorf("%.50q was not replaced", junk)
		}
	}
}

// TestCacheKeepsReports packs what many libraries write: what is found in it
// reads back from the cache as it was.
func TestCacheKeepsReports(t *testing.T) {
	files, err := filepath.Glob("../testdata/joblib/models*/*")
	if err != nil {
		t.Fatal(err)
	}
	packed := 0
	for _, name := range files {
		if filepath.Base(name) == "expected.json" {
			continue
		}
		packed++
		cache := newMemory()
		dir, base := filepath.Split(name)
		pack(t, []manifest.Input{manifest.FromFS(os.DirFS(dir), base, "m", manifest.RoleModel)}, manifest.PackOptions{Cache: cache})
		if len(cache.records) != 1 {
			t.Errorf("%s is not remembered", name)
		}
	}
	if packed < 65 {
		t.Errorf("%d files; want at least 65", packed)
	}
}
