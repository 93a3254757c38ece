package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

const site = "/usr/local/lib/python3.11/site-packages/"

// TestLookPython finds the interpreter that runs and what it imports.
func TestLookPython(t *testing.T) {
	local := []string{"f /usr/local/bin/python3.11 x", "l /usr/local/bin/python3 python3.11", "l /usr/local/bin/python python3"}
	debian := []string{"f /usr/bin/python3.13 x", "l /usr/bin/python3 python3.13", "d /usr/lib/python3/dist-packages/numpy-2.2.0.dist-info", "f /usr/lib/python3/dist-packages/scikit_learn-1.6.1.egg-info/PKG-INFO x"}
	venv := []string{"l /opt/venv/bin/python3 /usr/local/bin/python3.11", `f /opt/venv/pyvenv.cfg home = /usr/local/bin\ninclude-system-site-packages = false\nversion = 3.11.9\n`,
		"f /opt/venv/lib/python3.11/site-packages/joblib-1.4.2.dist-info/METADATA x"}
	env := func(kv ...string) v1.ImageConfig { return v1.ImageConfig{Env: kv} }
	tests := []struct {
		name    string
		layers  [][]string // the lowest first
		config  v1.ImageConfig
		python  string
		want    map[string]string
		pythons int
	}{
		{"none", [][]string{{"d /app"}}, env(), "", map[string]string{}, 0},
		{"plain", [][]string{local, {"f " + site + "NumPy-1.26.4.dist-info/METADATA x", "f " + site + "typing_extensions-4.1.dist-info/RECORD x"}}, env(), "3.11",
			map[string]string{"numpy": "1.26.4", "typing-extensions": "4.1"}, 0},
		{"upgraded by a layer above", [][]string{local, {"f " + site + "numpy-1.25.0.dist-info/METADATA x"}, {"w " + site + "numpy-1.25.0.dist-info", "f " + site + "numpy-1.26.4.dist-info/METADATA x"}}, env(), "3.11",
			map[string]string{"numpy": "1.26.4"}, 0},
		{"removed", [][]string{local, {"f " + site + "numpy-1.25.0.dist-info/METADATA x"}, {"w " + site + "numpy-1.25.0.dist-info"}}, env(), "3.11", map[string]string{}, 0},
		{"removed with its directory", [][]string{local, {"f " + site + "numpy-1.25.0.dist-info/METADATA x"}, {"w /usr/local/lib/python3.11"}}, env(), "3.11", map[string]string{}, 0},
		{"opaque", [][]string{local, {"f " + site + "numpy-1.25.0.dist-info/METADATA x"}, {"f " + site + ".wh..wh..opq ", "f " + site + "joblib-1.dist-info/METADATA x"}}, env(), "3.11", map[string]string{"joblib": "1"}, 0},
		{"a link over the directory", [][]string{local, {"f " + site + "numpy-1.25.0.dist-info/METADATA x"}, {"l /usr/local/lib/python3.11 /elsewhere"}}, env(), "3.11", map[string]string{}, 0},
		{"Debian", [][]string{debian}, env("PATH=/usr/local/bin:/usr/bin"), "3.13", map[string]string{"numpy": "2.2.0", "scikit-learn": "1.6.1"}, 0},
		{"merged usr", [][]string{{"l /bin usr/bin"}, debian}, env("PATH=/bin"), "3.13", map[string]string{"numpy": "2.2.0", "scikit-learn": "1.6.1"}, 0},
		{"two, PATH chooses", [][]string{debian, local, {"f " + site + "numpy-1.26.4.dist-info/METADATA x"}}, env("PATH=/usr/local/bin:/usr/bin"), "3.11", map[string]string{"numpy": "1.26.4"}, 0},
		{"two, PATH chooses the other", [][]string{debian, local, {"f " + site + "numpy-1.26.4.dist-info/METADATA x"}}, env("PATH=/usr/bin:/usr/local/bin"), "3.13", map[string]string{"numpy": "2.2.0", "scikit-learn": "1.6.1"}, 0},
		{"two, nothing chooses", [][]string{debian, local}, env("PATH=/sbin"), "", map[string]string{}, 2},
		{"VIRTUAL_ENV", [][]string{local, venv, {"f " + site + "numpy-1.26.4.dist-info/METADATA x"}}, env("VIRTUAL_ENV=/opt/venv", "PATH=/usr/local/bin"), "3.11", map[string]string{"joblib": "1.4.2"}, 0},
		{"entrypoint in a venv", [][]string{local, venv}, v1.ImageConfig{Entrypoint: []string{"/opt/venv/bin/uvicorn"}}, "3.11", map[string]string{"joblib": "1.4.2"}, 0},
		{"venv with system packages", [][]string{local, venv, {`f /opt/venv/pyvenv.cfg home = /usr/local/bin\ninclude-system-site-packages = true\nversion = 3.11.9\n`, "f " + site + "numpy-1.26.4.dist-info/METADATA x", "f " + site + "joblib-1.0.dist-info/METADATA x"}},
			env("VIRTUAL_ENV=/opt/venv"), "3.11", map[string]string{"joblib": "1.4.2", "numpy": "1.26.4"}, 0},
		{"PYTHONPATH first", [][]string{local, {"f /deps/numpy-9.dist-info/METADATA x", "f " + site + "numpy-1.26.4.dist-info/METADATA x"}}, env("PYTHONPATH=/deps"), "3.11", map[string]string{"numpy": "9"}, 0},
		{"egg-info of all kinds", [][]string{local, {"f " + site + "a-1.0-py3.11.egg-info x", "f " + site + "b.egg-info/PKG-INFO Metadata-Version: 2.1\\nName: B_b\\nVersion: 2.0\\n\\nbody", "f " + site + "c-3.0.egg-info/top_level.txt c", "f " + site + "d.egg-info/PKG-INFO broken"}}, env(), "3.11",
			map[string]string{"a": "1.0", "b-b": "2.0", "c": "3.0"}, 0},
		{"other directories do not count", [][]string{local, {"f /usr/share/numpy-1.0.dist-info/METADATA x"}}, env(), "3.11", map[string]string{}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := store{}
			var layers [][]byte
			for _, l := range test.layers {
				layers = append(layers, tarOf(t, l...))
			}
			root := s.build(t, symbolic{layers: layers, config: string(toJSON(t, test.config))})
			l, err := lookAt(t.Context(), s, open(t, s, root).Images[0], []string{"/app"}, LookOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if l.Python != test.python || !maps.Equal(l.Packages, test.want) || len(l.Pythons) != test.pythons || !l.Complete {
				t.Errorf("look %+v, want %s %v", l, test.python, test.want)
			}
			back, err := DecodeLook(l.Encode())
			if err != nil || !reflect.DeepEqual(normal(l), normal(back)) {
				t.Errorf("encoded %s, read back %+v, %v", l.Encode(), back, err)
			}
		})
	}
}

// normal makes looks that are equal deeply equal.
func normal(l *Look) Look {
	n := *l
	if len(n.Packages) == 0 {
		n.Packages = nil
	}
	return n
}

// TestLookEarly reads no more than it must.
func TestLookEarly(t *testing.T) {
	s := store{}
	layers := append([][]byte{tarOf(t, "d /etc", "f /etc/debian x", "f /bin/big "+strings.Repeat("x", 100_000))}, pythonBase(t)...)
	root := s.build(t, symbolic{layers: layers, config: pythonConfig})
	i := open(t, s, root).Images[0]
	tests := []struct {
		dirs, packages []string
		read           int
	}{
		{[]string{"/app"}, []string{}, 1},
		{[]string{"/app"}, []string{"scikit-learn", "NumPy"}, 3},
		{[]string{"/app"}, []string{"scikit-learn", "pandas"}, 4},
		{[]string{"/app/models"}, []string{}, 4}, // that it is not there only all layers tell
		{[]string{"/app"}, nil, 4},
	}
	for _, test := range tests {
		var announced []digest.Digest
		read := 0
		l, err := lookAt(t.Context(), s, i, test.dirs, LookOptions{Packages: test.packages, Announce: func(_ *Image, d v1.Descriptor) { announced = append(announced, d.Digest) }, Read: func(n int) { read += n }})
		if err != nil {
			t.Fatal(err)
		}
		if len(announced) != test.read || announced[0] != i.Layers[3].Digest || read == 0 {
			t.Errorf("%v %v: %d layers read, want %d", test.dirs, test.packages, len(announced), test.read)
		}
		if !l.Covers(test.dirs, test.packages) || l.Dirs["/app"].String() != "d 750 1000 1000" {
			t.Errorf("%v %v: look %s", test.dirs, test.packages, l.Encode())
		}
		if l.Covers([]string{"/elsewhere"}, nil) || l.Covers(nil, []string{"torch"}) != l.Complete {
			t.Errorf("look %s covers anything", l.Encode())
		}
	}
}

// TestLookCache reads a layer once, and a base whose look is known never.
func TestLookCache(t *testing.T) {
	s := store{}
	root := s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})
	i := open(t, s, root).Images[0]
	dir := t.TempDir()
	want := ""
	for n, asked := range [][]string{{"/app/models"}, {"/app/models"}, {"/srv/a/b/c"}, {"/app/models"}, {"/srv/a/b/c"}} {
		src := &counting{Fetcher: s}
		l, err := lookAt(t.Context(), src, i, asked, LookOptions{Cache: DirCache(dir), Packages: []string{"numpy"}})
		if err != nil {
			t.Fatal(err)
		}
		if fetches := []int{3, 0, 3, 0, 0}[n]; src.n != fetches {
			t.Errorf("pass %d: %d layers fetched, want %d", n, src.n, fetches)
		}
		if n == 0 {
			want = l.Encode()
		} else if asked[0] == "/app/models" && l.Encode() != want {
			t.Errorf("pass %d: look %s, want %s", n, l.Encode(), want)
		}
	}
	// A cache that lies in its form is none.
	for _, junk := range []string{"", "{}", `{"v":1,"dirs":{"/app":"q"}}`, `{"v":1,"dirs":{"":"-"}}`, `{"v":1,"packages":[{"path":"x"}]}`, `{"v":1,"venvs":{".":{}}}`, "\x00"} {
		for _, l := range i.Layers {
			if err := os.WriteFile(DirCache(dir).file(l.Digest), []byte(junk), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		l, err := lookAt(t.Context(), s, i, []string{"/app/models"}, LookOptions{Cache: DirCache(dir), Packages: []string{"numpy"}})
		if err != nil || l.Encode() != want {
			t.Errorf("after %q: %v, %v", junk, l, err)
		}
	}
	// What was baked carries the look, and it is enough.
	m, _ := model(t, "a", manifest.PackOptions{})
	first := bake(t, open(t, s, root), []Model{m}, Options{})
	src := &counting{Fetcher: s}
	k, err := NewBaking(t.Context(), open(t, src, root), []Model{m}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	src.n = 0
	if err := k.Look(t.Context(), LookOptions{Known: Remembered(open(t, first, first.Root))}); err != nil {
		t.Fatal(err)
	}
	again, err := k.Bake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if Remembered(open(t, s, root))(k.Base.Images[0]) != nil {
		t.Error("an image that was not baked remembers something")
	}
	if src.n != 0 || again.Root.Digest != first.Root.Digest {
		t.Errorf("%d fetches, digest %s, want %s", src.n, again.Root.Digest, first.Root.Digest)
	}
}

// TestLookAsksTheCacheFirst holds that what others know is asked for only when
// the cache does not do: it costs requests.
func TestLookAsksTheCacheFirst(t *testing.T) {
	s := store{}
	i := open(t, s, s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})).Images[0]
	asked := 0
	o := LookOptions{Packages: []string{"numpy"}, Cache: DirCache(t.TempDir()), Known: func(*Image) *Look {
		asked++
		return nil
	}}
	src := &counting{Fetcher: s}
	first, err := lookAt(t.Context(), src, i, []string{"/app"}, o)
	if err != nil || asked != 1 || src.n == 0 {
		t.Fatalf("%v; asked %d times, %d layers read", err, asked, src.n)
	}
	src.n = 0
	again, err := lookAt(t.Context(), src, i, []string{"/app"}, o)
	if err != nil || asked != 1 || src.n != 0 || again.Encode() != first.Encode() {
		t.Errorf("%v; asked %d times, %d layers read", err, asked, src.n)
	}
}

// TestLookLimited gives the same look whoever it comes from.
func TestLookLimited(t *testing.T) {
	s := store{}
	i := open(t, s, s.build(t, symbolic{layers: pythonBase(t), config: pythonConfig})).Images[0]
	want := []string{"numpy", "pandas"}
	full, err := lookAt(t.Context(), s, i, []string{"/app", "/srv/x"}, LookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := lookAt(t.Context(), s, i, []string{"/app"}, LookOptions{Packages: want})
	if err != nil {
		t.Fatal(err)
	}
	b, err := lookAt(t.Context(), store{}, i, []string{"/app"}, LookOptions{Packages: want, Known: func(*Image) *Look { return full }})
	if err != nil {
		t.Fatal(err)
	}
	if a.Encode() != b.Encode() || a.Complete || a.Packages["numpy"] != "1.26.4" {
		t.Errorf("looks %s and %s", a.Encode(), b.Encode())
	}
	if v, ok := a.Packages["pandas"]; !ok || v != "" {
		t.Errorf("pandas is %q, %v", v, ok)
	}
}

// TestLookHostile gives a look what nobody should.
func TestLookHostile(t *testing.T) {
	s := store{}
	tests := []struct {
		name  string
		layer []byte
		want  error
	}{
		{"no tar", []byte(strings.Repeat("x", 2000)), manifest.ErrBadTar},
		{"cut", tarOf(t, "d /app", "f /app/x "+strings.Repeat("y", 5000))[:3000], manifest.ErrBadTar},
	}
	for _, test := range tests {
		i := open(t, s, s.build(t, symbolic{layers: [][]byte{test.layer}})).Images[0]
		if _, err := lookAt(t.Context(), s, i, []string{"/app"}, LookOptions{}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	i := open(t, s, s.build(t, symbolic{layers: [][]byte{tarOf(t, "d /app")}})).Images[0]
	l := i.Layers[0]
	good := s[l.Digest]
	s[l.Digest] = good[:len(good)-3]
	if _, err := lookAt(t.Context(), s, i, []string{"/app"}, LookOptions{}); !isCorrupt(err) {
		t.Errorf("a layer that is cut: %v", err)
	}
	s[l.Digest] = append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1)
	if _, err := lookAt(t.Context(), s, i, []string{"/app"}, LookOptions{}); !isCorrupt(err) {
		t.Errorf("a layer with other bytes: %v", err)
	}
	s[l.Digest] = good
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lookAt(ctx, s, i, []string{"/app"}, LookOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, text := range []string{"", "{", `{"v":2}`, `{"v":1,"dirs":{"app":"-"}}`, `{"v":1,"dirs":{"/a/../b":"-"}}`, `{"v":1,"dirs":{"/a":"d 9 0 0"}}`, `{"v":1,"dirs":{"/a":"d 755 -1 0"}}`, `{"v":1,"dirs":{"/a":"l "}}`, `{"v":1,"dirs":{"/a":""}}`, strings.Repeat(" ", maxLook+1)} {
		if _, err := DecodeLook(text); !errors.Is(err, manifest.ErrMalformed) {
			t.Errorf("the look %.40q: %v", text, err)
		}
	}
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*manifest.CorruptError](err)
	return ok
}

// TestLookBomb does not unpack without end.
func TestLookBomb(t *testing.T) {
	b := &bounded{zeros{}, 1 << 20}
	if n, err := io.Copy(io.Discard, b); err == nil || n > 2<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func ExampleDecodeLook() {
	l, err := DecodeLook(`{"v":1,"python":"3.11","packages":{"scikit-learn":"1.3.2","pandas":""},"dirs":{"/app":"d 750 1000 1000"}}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Python, l.Packages["scikit-learn"], l.Covers([]string{"/app"}, []string{"pandas"}), l.Covers(nil, []string{"torch"}))
	// Output: 3.11 1.3.2 true false
}
