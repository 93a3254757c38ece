package manifest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

type tarEntry struct {
	header tar.Header
	body   string
}

func makeTar(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.header.Typeflag == 0 {
			e.header.Typeflag = tar.TypeReg
		}
		if e.header.Typeflag == tar.TypeReg {
			e.header.Size = int64(len(e.body))
		}
		if err := w.WriteHeader(&e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, body string) tarEntry {
	return tarEntry{tar.Header{Name: name, Mode: 0o644}, body}
}

func untar(data []byte) (map[string]string, error) {
	files := make(map[string]string)
	err := Untar(bytes.NewReader(data), func(f TarFile, r io.Reader) error {
		b, err := io.ReadAll(r)
		files[f.Path] = string(b)
		return err
	})
	return files, err
}

func TestWriteTarIsPlain(t *testing.T) {
	fsys := fstest.MapFS{
		"in/model": {Data: []byte("model"), Mode: 0o600},
		"in/run":   {Data: []byte("#!"), Mode: 0o700},
		"in/b":     {Data: []byte("b"), Mode: 0o777},
	}
	files, err := sources([]Input{
		FromFS(fsys, "in/run", "src/run", RoleCode),
		FromFS(fsys, "in/model", "models/sub/model", RoleModel),
		FromFS(fsys, "in/b", "models-b", RoleModel),
	}, PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeTar(t.Context(), &b, files); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := tar.NewReader(bytes.NewReader(b.Bytes()))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 || h.Format != tar.FormatUSTAR || h.PAXRecords != nil {
			t.Errorf("%s: %+v has more than bytes and path in it", h.Name, h)
		}
		got = append(got, h.Name+" "+h.FileInfo().Mode().String())
	}
	want := []string{
		"models/ drwxr-xr-x", "models-b -rw-r--r--", "models/sub/ drwxr-xr-x", "models/sub/model -rw-r--r--",
		"src/ drwxr-xr-x", "src/run -rwxr-xr-x",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("entries:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Six headers, three bodies, two zero blocks, no record padding.
	if b.Len() != (6+3+2)*512 {
		t.Errorf("%d bytes; want %d", b.Len(), (6+3+2)*512)
	}
}

func TestUntar(t *testing.T) {
	link := func(flag byte) tarEntry {
		return tarEntry{tar.Header{Name: "models/x", Typeflag: flag, Linkname: "/etc/passwd"}, ""}
	}
	ok := makeTar(t, tarEntry{tar.Header{Name: "models/", Typeflag: tar.TypeDir}, ""}, file("models/m", "abc"), file("./data/x", ""))
	for _, tt := range []struct {
		name string
		data []byte
		want error // nil: the files of ok
	}{
		{"plain", ok, nil},
		{"with record padding", append(bytes.Clone(ok), make([]byte, 10240)...), nil},
		{"no end", ok[:len(ok)-1024], nil},
		{"cut in a body", ok[:1025], io.ErrUnexpectedEOF},
		{"not a tar", bytes.Repeat([]byte("x"), 1024), ErrBadTar},
		{"data after the end", append(bytes.Clone(ok), 'x'), ErrBadTar},
		{"endless zeros", append(bytes.Clone(ok), make([]byte, 2<<20)...), ErrBadTar},
		{"absolute", makeTar(t, file("/etc/passwd", "x")), ErrUnsafePath},
		{"dot dot", makeTar(t, file("models/../../x", "x")), ErrUnsafePath},
		{"dot dot in a directory", makeTar(t, tarEntry{tar.Header{Name: "../x/", Typeflag: tar.TypeDir}, ""}), ErrUnsafePath},
		{"drive", makeTar(t, file(`C:\x`, "x")), ErrUnsafePath},
		{"galley's own", makeTar(t, file(".galley/journal.json", "x")), ErrUnsafePath},
		{"git's own", makeTar(t, file("sub/.GIT/hooks/pre-commit", "x")), ErrUnsafePath},
		{"twice", makeTar(t, file("m", "1"), file("m", "2")), ErrUnsafePath},
		{"differ in case", makeTar(t, file("models/m", "1"), file("Models/M", "2")), ErrUnsafePath},
		{"file and directory", makeTar(t, file("m", "1"), file("m/x", "2")), ErrUnsafePath},
		{"directory and file", makeTar(t, file("m/x", "2"), file("m", "1")), ErrUnsafePath},
		{"symbolic link", makeTar(t, link(tar.TypeSymlink)), ErrUnsafePath},
		{"hard link", makeTar(t, link(tar.TypeLink)), ErrUnsafePath},
		{"character device", makeTar(t, link(tar.TypeChar)), ErrUnsafePath},
		{"block device", makeTar(t, link(tar.TypeBlock)), ErrUnsafePath},
		{"sparse", sparseTar(t), ErrBadTar},
		{"pipe", makeTar(t, link(tar.TypeFifo)), ErrUnsafePath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files, err := untar(tt.data)
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v; want %v", err, tt.want)
			}
			if tt.want == nil && (len(files) != 2 || files["models/m"] != "abc" || files["data/x"] != "") {
				t.Errorf("files %v", files)
			}
		})
	}
}

// sparseTar says in a few hundred bytes that it holds 3 GB (PAX format 1.0).
func sparseTar(t *testing.T) []byte {
	var pax strings.Builder
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=m", "GNU.sparse.realsize=3000000000"} {
		fmt.Fprintf(&pax, "%d %s\n", len(kv)+4, kv)
	}
	data := makeTar(t, file("pax", pax.String()), file("m", "1\n2999999488\n512\n"+strings.Repeat("\x00", 512-17)+strings.Repeat("x", 512)))
	data[156] = tar.TypeXHeader
	copy(data[148:156], "        ")
	sum := 0
	for _, b := range data[:512] {
		sum += int(b)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

func FuzzUntar(f *testing.F) {
	seeds := [][]byte{
		makeTar(f, file("models/m", "abc")),
		makeTar(f, tarEntry{tar.Header{Name: "d/", Typeflag: tar.TypeDir}, ""}, file("d/"+strings.Repeat("long/", 40)+"x", "y")),
		makeTar(f, tarEntry{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, ""}),
		nil,
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := untar(data)
		for p := range files {
			if cerr := CheckPath(p); cerr != nil {
				t.Errorf("visited %q: %v (%v)", p, cerr, err)
			}
		}
	})
}

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"m", "models/m.joblib", "a b/c", "ünï/ко", "...x", "a/.hidden", "COMMON", "nulls"} {
		if err := CheckPath(p); err != nil {
			t.Errorf("CheckPath(%q) = %v; want nil", p, err)
		}
	}
	for _, p := range []string{
		"", ".", "/m", "../m", "a/../m", "a//m", "a/", "./m", `a\m`, "C:m", "a\x00", "a\nb", "a\x7f", "\xff", ".galley/x", "x/.Git/y",
		"con", "a/NUL.txt", "com1", "lpt9.x", "a.", "a ", "a?b", strings.Repeat("a/", 3000) + "b", strings.Repeat("a", 256), "\u0085", "a\u202eb",
	} {
		if err := CheckPath(p); !errors.Is(err, ErrUnsafePath) {
			t.Errorf("CheckPath(%q) = %v; want %v", p, err, ErrUnsafePath)
		}
	}
}

// BenchmarkFirstRead reads a forest once, to be hashed, without and with a look
// at what is in it.
func BenchmarkFirstRead(b *testing.B) {
	model, err := os.ReadFile("../testdata/fraud/models/random_forest_final_model.joblib")
	if err != nil {
		b.Fatal(err)
	}
	// One pickle behind another: reading goes on, and so does the size.
	large := slices.Repeat(model, 64<<20/len(model))
	for name, data := range map[string][]byte{"small": model, "large": large} {
		b.Run(name+"/hash", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := io.Copy(sha256.New(), struct{ io.Reader }{bytes.NewReader(data)}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/hash and scan", func(b *testing.B) {
			in := FromFS(fstest.MapFS{"m": {Data: data}}, "m", "m", RoleModel)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := newSource(in, nil)
				if err == nil {
					err = s.copyTo(b.Context(), io.Discard)
				}
				if err != nil || s.report.Models == nil {
					b.Fatal(err, s.report)
				}
			}
		})
	}
}
