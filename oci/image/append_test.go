package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, bytes.TrimSuffix(want, []byte("\n"))) {
		t.Errorf("%s differs:\n got %s\nwant %s", name, got, want)
	}
}

// TestAppendPatches appends to documents full of what galley does not know.
func TestAppendPatches(t *testing.T) {
	s := store{}
	layer := tarOf(t, "d /app")
	l := s.put(dockerLayerTar, layer)
	config := s.put(dockerConfig, []byte(`{
  "z": [1.0, 1e400, 12345678901234567890],
  "architecture": "amd64", "os": "linux", "os.version": "\u0031",
  "config": {"Healthcheck": {"Interval": 30000000000}, "Env": ["A=<b>", "PATH=/bin"], "Labels": {"k": "v", "K": "V"}, "Cmd": ["x"], "Volumes": {"/Data": {}, "/data": {}}},
  "history": [{"created_by": "FROM <x>", "y": null}],
  "created": "2025-01-02T03:04:05.000000001Z",
  "rootfs": {"diff_ids": ["`+digest.FromBytes(layer).String()+`"], "type": "layers", "base_layer": "q"},
  "docker_version": "1"
}`))
	root := s.put(dockerManifest, []byte(`{"x":{"b":1,"a":2.50},"schemaVersion":2,"mediaType":"`+dockerManifest+`",
  "config":`+string(marshal(config))+`, "layers":[{"extra":true,"digest":"`+l.Digest.String()+`","size":`+string(marshal(l.Size))+`,"mediaType":"`+dockerLayerTar+`"}],
  "subject":`+string(marshal(config))+`}`))
	added := tarOf(t, "f /new x")
	if err := Verify(t.Context(), s, root); err != nil {
		t.Fatal("the base does not verify:", err)
	}
	for name, format := range map[string]manifest.Format{"docker": manifest.FormatTar, "oci": manifest.FormatTarZstd} {
		t.Run(name, func(t *testing.T) {
			add := Layer{Format: format, Digest: digest.FromBytes(added), Size: int64(len(added)), DiffID: digest.FromBytes(added), CreatedBy: "galley bake <new>"}
			g, err := Append(open(t, s, root), func(*Image) (Changes, error) {
				return Changes{
					Layers: []Layer{add}, Env: []string{"PATH=/x", "Q=1"}, Labels: map[string]string{"new": "&", "k": "w"},
					Entrypoint: []string{"run"}, User: "7", Annotations: map[string]string{"a": "b"},
				}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			var m v1.Manifest
			if err := json.Unmarshal(g.blobs[g.Root.Digest], &m); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".manifest.json", g.blobs[g.Root.Digest])
			golden(t, name+".config.json", g.blobs[m.Config.Digest])
			if m.Subject != nil {
				t.Error("the subject stays")
			}
			if exists, _ := g.Exists(t.Context(), l); !exists {
				t.Error("the base's layer is not in the graph")
			}
			if _, err := g.Fetch(t.Context(), v1.DescriptorEmptyJSON); err == nil {
				t.Error("anything is in the graph")
			}
		})
	}
}

func TestAppendHistory(t *testing.T) {
	for _, none := range []bool{false, true} {
		s := store{}
		root := s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig, noHist: none})
		m, _ := model(t, "a", manifest.PackOptions{})
		done := bake(t, open(t, s, root), []Model{m}, Options{Cmd: []string{"serve"}})
		i := open(t, done, done.Root).Images[0]
		var h []v1.History
		if err := i.config.into("history", &h); err != nil {
			t.Fatal(err)
		}
		switch {
		case none && i.config.get("history") != nil:
			t.Errorf("a history appears: %v", h)
		case !none && (len(h) != 6 || h[4].CreatedBy != "galley bake models" || h[5].CreatedBy != "galley bake files" || h[5].Created == nil || h[5].Created.Year() != 2025):
			t.Errorf("history %+v", h)
		}
		if len(i.Config.Entrypoint) != 0 || len(i.Config.Cmd) != 1 || string(i.config.get("config")) == "" || !strings.Contains(string(i.config.raw()), `"X-Unknown":1e400`) {
			t.Errorf("config %s", i.config.raw())
		}
	}
}

func TestAppendErrors(t *testing.T) {
	s := store{}
	b := open(t, s, s.build(t, symbolic{layers: pythonBase(t)}))
	boom := errors.New("boom")
	if _, err := Append(b, func(*Image) (Changes, error) { return Changes{}, boom }); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if _, err := Append(b, func(*Image) (Changes, error) { return Changes{Layers: make([]Layer, 125)}, nil }); err == nil || !strings.Contains(err.Error(), "127") {
		t.Errorf("too many layers: %v", err)
	}
}

func TestObject(t *testing.T) {
	for _, text := range []string{
		`{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a":{"b":1,"b":2}}`, `{"annotations":{"a":1,"a":2}}`, `[{"x":1,"X":2}]`, `{"a":1,}`, `{1:2}`, `{"a"}`, "\xff", ``, `{} {}`,
		`{"annotations":{"a":{"x":1,"X":2}}}`,
	} {
		if err := checkJSON([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	for _, text := range []string{`{"annotations":{"a":1,"A":2}}`, `{"Labels":{"a":1,"A":2},"x":["y","y"],"z":{"y":"y"}}`, `[1,"a",{"b":[]}]`, `"x"`} {
		if err := checkJSON([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	o, err := parseObject([]byte(` { "b\u0061" : 1.0 , "c" : [ 1 , 2 ] } `))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(o.with("ba", 2).with("d", "<>").raw()); got != `{"b\u0061":2,"c":[1,2],"d":"<>"}` {
		t.Errorf("patched %s", got)
	}
	if got := string(o.without("ba").raw()); got != `{"c":[1,2]}` {
		t.Errorf("patched %s", got)
	}
	if got := string(o.raw()); got != `{"b\u0061":1.0,"c":[1,2]}` {
		t.Errorf("the first was changed: %s", got)
	}
}
