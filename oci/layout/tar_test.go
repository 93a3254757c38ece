package layout_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

const (
	tarMark  = `{"imageLayoutVersion":"1.0.0"}`
	tarIndex = `{"schemaVersion":2,"manifests":[]}`
)

// tarFile writes a tar of the headers, each with the body under its name.
func tarFile(t testing.TB, bodies map[string]string, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := bodies[h.Name]
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }

func TestOpenArchive(t *testing.T) {
	bodies := map[string]string{"oci-layout": tarMark, "./oci-layout": tarMark, "index.json": tarIndex, "a": "a"}
	whole := []tar.Header{file("oci-layout"), file("index.json")}
	for _, tt := range []struct {
		name string
		more []tar.Header // after a whole layout
		want string       // part of the error; empty: none
	}{
		{"plain", nil, ""},
		{"other files and directories", []tar.Header{file("manifest.json"), {Typeflag: tar.TypeDir, Name: "blobs/"}}, ""},
		{"global header", []tar.Header{{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "a commit"}}, file("a")}, ""},
		{"symbolic link", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "blobs", Linkname: "/etc"}}, `entry "blobs" is neither a file nor a directory`},
		{"hard link", []tar.Header{{Typeflag: tar.TypeLink, Name: "x", Linkname: "index.json"}}, `entry "x" is neither`},
		{"device", []tar.Header{{Typeflag: tar.TypeChar, Name: "x"}}, `entry "x" is neither`},
		{"twice", []tar.Header{file("index.json")}, `entry "index.json" is there twice`},
		{"twice by another spelling", []tar.Header{file("./oci-layout")}, `entry "./oci-layout" is there twice`},
		{"above", []tar.Header{file("../x")}, `entry "../x" is outside the archive`},
		{"absolute", []tar.Header{file("/x")}, `entry "/x" is outside the archive`},
		{"long name", []tar.Header{file(strings.Repeat("a/", 600) + "a")}, "a name of 1201 bytes, at most 1024"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := layout.OpenArchive(tarFile(t, bodies, append(slices.Clone(whole), tt.more...)...))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, layout.ErrNotLayout) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %v, %q", err, layout.ErrNotLayout, tt.want)
			}
		})
	}
	if _, err := layout.OpenArchive(t.TempDir()); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := layout.OpenArchive(filepath.Join(t.TempDir(), "none.tar")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := layout.OpenArchive(tarFile(t, bodies, file("index.json"))); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("no oci-layout: %v", err)
	}
	if _, err := layout.OpenArchive(tarFile(t, map[string]string{"oci-layout": `{"imageLayoutVersion":"2.0.0"}`}, file("oci-layout"))); !errors.Is(err, errdef.ErrUnsupportedVersion) {
		t.Errorf("version 2.0.0: %v", err)
	}
}

// TestOpenArchiveCutShort cuts an archive everywhere it could be cut.
func TestOpenArchiveCutShort(t *testing.T) {
	name := filepath.Join(t.TempDir(), "layout.tar")
	writeArchive(t, name, "one")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data)-1023; n += 256 { // one of the two blocks at the end is enough
		if err := os.WriteFile(name, data[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := layout.OpenArchive(name); !errors.Is(err, layout.ErrNotLayout) {
			t.Errorf("%d of %d bytes: %v; want %v", n, len(data), err, layout.ErrNotLayout)
		}
	}
}

// writeArchive adds a manifest to an archive, tagged with its name.
func writeArchive(t *testing.T, name, tag string) v1.Descriptor {
	t.Helper()
	a, err := layout.CreateArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	doc := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":{},"layers":[],"annotations":{"is":"` + tag + `"}}`
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(doc), Size: int64(len(doc))}
	if err := a.Push(t.Context(), d, strings.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	if err := a.Tag(t.Context(), d, tag); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestArchiveFlush(t *testing.T) {
	dir := t.TempDir()
	name, other := filepath.Join(dir, "sub", "a.tar"), filepath.Join(dir, "b.tar")
	one, two := writeArchive(t, name, "one"), writeArchive(t, name, "two")
	writeArchive(t, other, "two")
	writeArchive(t, other, "one")
	a, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(other); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the order of writing shows in the file: %v", err)
	}
	store, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]v1.Descriptor{"one": one, "two": two} {
		d, err := store.Resolve(t.Context(), tag)
		if err != nil || !content.Equal(d, want) {
			t.Errorf("%s is %v, %v; want %v", tag, d, err, want)
		}
		if _, err := content.FetchAll(t.Context(), store, d); err != nil {
			t.Error(err)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "sub", ".*")); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
}

// Two writers: the second one finds out, and the first one's file stays.
func TestArchiveChanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.tar")
	one := writeArchive(t, name, "one")
	slow, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Tag(t.Context(), one, "late"); err != nil {
		t.Fatal(err)
	}
	writeArchive(t, name, "two")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Flush(t.Context()); !errors.Is(err, layout.ErrChanged) {
		t.Errorf("Flush: %v; want %v", err, layout.ErrChanged)
	}
	if _, err := slow.Fetch(t.Context(), one); !errors.Is(err, layout.ErrChanged) {
		t.Errorf("Fetch: %v; want %v", err, layout.ErrChanged)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".*")); len(found) > 0 {
		t.Errorf("left behind: %q", found)
	}
}

// Many writers at once: each tag whose Flush went well is there.
func TestArchiveWriters(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.tar")
	const writers, tags = 8, 10
	start := make(chan struct{})
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			<-start
			for n := 0; n < tags; {
				a, err := layout.CreateArchive(name)
				if err != nil {
					t.Error(err)
					return
				}
				tag := fmt.Sprintf("w%d-%d", w, n)
				d, doc := manifest(tag)
				err = errors.Join(a.Push(t.Context(), d, bytes.NewReader(doc)), a.Tag(t.Context(), d, tag), a.Flush(t.Context()))
				switch {
				case err == nil:
					n++
				case !errors.Is(err, layout.ErrChanged):
					t.Error(err)
					return
				}
			}
		})
	}
	close(start)
	all.Wait()
	a, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	for w := range writers {
		for n := range tags {
			if _, err := a.Resolve(t.Context(), fmt.Sprintf("w%d-%d", w, n)); err != nil {
				t.Error(err)
			}
		}
	}
	if found, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".*")); len(found) > 0 && runtime.GOOS != "windows" {
		t.Errorf("left behind: %q", found)
	}
}

// A look at the archive between a change and Flush takes nothing from either.
func TestArchiveLook(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.tar")
	d := writeArchive(t, name, "one")
	a, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Tag(t.Context(), d, "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Resolve(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err = layout.OpenArchive(name); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Resolve(t.Context(), "two"); err != nil {
		t.Error(err)
	}
}

// What is written keeps the mode of the file and the link to it.
func TestArchiveLink(t *testing.T) {
	dir := t.TempDir()
	name, link := filepath.Join(dir, "a.tar"), filepath.Join(dir, "link.tar")
	writeArchive(t, name, "one")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.tar", link); err != nil {
		t.Fatal(err)
	}
	two := writeArchive(t, link, "two")
	if to, err := os.Readlink(link); err != nil || to != "a.tar" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	a, err := layout.OpenArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := a.Resolve(t.Context(), "two"); err != nil || d.Digest != two.Digest {
		t.Errorf("two is %v, %v", d, err)
	}
	if err := os.Symlink("nothing", filepath.Join(dir, "dangling.tar")); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.CreateArchive(filepath.Join(dir, "dangling.tar")); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("a link to nothing: %v", err)
	}
}

func FuzzOpenArchive(f *testing.F) {
	bodies := map[string]string{"oci-layout": tarMark, "index.json": tarIndex}
	for _, headers := range [][]tar.Header{
		{file("oci-layout"), file("index.json")},
		{file("oci-layout"), file("oci-layout")},
		{file("../x")},
		{{Typeflag: tar.TypeSymlink, Name: "blobs", Linkname: "/etc"}},
	} {
		data, err := os.ReadFile(tarFile(f, bodies, headers...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	name := filepath.Join(f.TempDir(), "x.tar") // each fuzzing process has its own
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(name, data, 0o666); err != nil {
			t.Fatal(err)
		}
		a, err := layout.OpenArchive(name)
		if err != nil {
			return
		}
		if err := a.Tags(t.Context(), "", func([]string) error { return nil }); err != nil {
			t.Error(err)
		}
		a.Garbage(t.Context())
	})
}
