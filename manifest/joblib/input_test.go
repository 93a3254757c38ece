package joblib_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"galley/manifest/joblib"
)

// small returns the committed files of at most so many bytes, by name.
func small(t testing.TB, most int) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for _, dir := range []string{"models", "models-1.2", "attacks"} {
		found, err := filepath.Glob(filepath.Join(filepath.FromSlash(corpus), dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			if ext := filepath.Ext(name); ext == ".json" || ext == ".txt" {
				continue
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) <= most {
				files[dir+"/"+filepath.Base(name)] = data
			}
		}
	}
	return files
}

// TestReaders reads the same from sources that give little at a time, or the
// end together with the last bytes.
func TestReaders(t *testing.T) {
	t.Parallel()
	files := small(t, 4<<10)
	if len(files) < 400 {
		t.Fatalf("%d files, want at least 400", len(files))
	}
	for name, data := range files {
		want, err := joblib.Inspect(bytes.NewReader(data), joblib.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for kind, r := range map[string]io.Reader{
			"one byte at a time":     iotest.OneByteReader(bytes.NewReader(data)),
			"half of what is wanted": iotest.HalfReader(bytes.NewReader(data)),
			"the end with the data":  iotest.DataErrReader(bytes.NewReader(data)),
		} {
			if got, err := joblib.Inspect(r, joblib.Options{}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: got %+v, %v, want %+v", name, kind, got, err, want)
			}
		}
	}
}

// TestSourceErrors hands on what goes wrong with the source, as it is, wherever
// in the file that happens: it says nothing of the file.
func TestSourceErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is on fire")
	long := pickle(listOf(strings.Repeat(wrapper{shape: tupleOf(i32(10_000))}.String()+zeros(80_000), 4)))
	files := map[string][]byte{"long": []byte(long)}
	for _, name := range []string{"pipeline.p4.joblib", "object_array.joblib", "forest.joblib", "pipeline.zlib-3.joblib", "pipeline.xz-3.joblib", "pipeline.bz2-3.joblib", "pipeline.gzip-3.joblib", "pipeline.lz4-3.joblib", "pipeline.lzma-3.joblib"} {
		data, err := os.ReadFile(filepath.FromSlash(corpus + "models/" + name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	for name, data := range files {
		for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
			step := max(1, len(data)/50)
			for n := 0; n <= len(data); n += step {
				r, err := joblib.Inspect(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(cause)), joblib.Options{})
				if !errors.Is(err, cause) || r != nil {
					t.Fatalf("%s broken at %d: got %v, %v, want %v", name, n, r, err, cause)
				}
			}
		}
	}
}

// TestPrefixes cuts files at every byte. None of the parts passes.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"array.joblib", "pipeline.p0.pkl", "pipeline.p2.joblib", "pipeline.p5.joblib", "object_array.joblib", "pipeline.zlib-3.joblib", "pipeline.lz4-3.joblib", "pipeline.bz2-3.joblib", "pipeline.xz-3.joblib"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.FromSlash(corpus + "models/" + name))
			if err != nil {
				t.Fatal(err)
			}
			step := 1
			if testing.Short() {
				step = 7
			}
			for n := 0; n < len(data); n += step {
				r, err := joblib.Inspect(bytes.NewReader(data[:n]), joblib.Options{Deep: true})
				if err != nil {
					t.Fatal(err)
				}
				if r.Verdict == pass || r.Verdict == review && r.Compression == "" {
					t.Fatalf("%d of %d bytes: %s\n%s", n, len(data), r.Verdict, spell(r.Findings))
				}
			}
		})
	}
}

// TestFlips changes every byte of some files, and every bit of some bytes.
func TestFlips(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"array.joblib", "pipeline.p0.pkl", "pipeline.p4.joblib", "object_array.joblib", "pipeline.zlib-3.joblib", "pipeline.lz4-3.joblib"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.FromSlash(corpus + "models/" + name))
			if err != nil {
				t.Fatal(err)
			}
			for i := range data {
				for _, flip := range []byte{0x01, 0x80, 0xff} {
					if testing.Short() && i%5 != 0 {
						continue
					}
					data[i] ^= flip
					check(t, data, joblib.Options{Deep: true})
					data[i] ^= flip
				}
			}
		})
	}
}
