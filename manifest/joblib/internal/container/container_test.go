package container_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"galley/manifest/joblib/internal/container"
)

// methods are the extensions of the fixtures.
var methods = map[string]container.Method{
	".zlib": container.Zlib,
	".gz":   container.Gzip,
	".bz2":  container.Bzip2,
	".lzma": container.LZMA,
	".xz":   container.XZ,
	".lz4":  container.LZ4,
}

// fixture returns a file of testdata and its method.
func fixture(t testing.TB, name string) ([]byte, container.Method) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data, methods[filepath.Ext(name)]
}

// fixtures returns the names of the files in testdata that match.
func fixtures(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	for i, name := range names {
		names[i] = filepath.Base(name)
	}
	return slices.DeleteFunc(names, func(s string) bool { return methods[filepath.Ext(s)] == "" })
}

// payload is what the fixtures hold, the same bytes as in testdata/gen.py.
func payload(n int) []byte {
	var out []byte
	for i := 0; len(out) < n; i++ {
		out = fmt.Appendf(out, "%d,", i*i%9973)
	}
	return out[:n]
}

// want is what the fixture of that name holds.
func want(name string) []byte {
	switch {
	case strings.HasPrefix(name, "empty"):
		return nil
	case strings.HasPrefix(name, "large"), strings.HasPrefix(name, "checked"):
		return payload(150_000)
	}
	return payload(1500)
}

// read opens r, reads all and finishes. err is the first that came; the ending
// is nil if there is no reader to finish, or Finish fails.
func read(r io.Reader, m container.Method, l container.Limits) ([]byte, *container.Ending, error) {
	z, err := container.Open(bufio.NewReader(r), m, l)
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(z)
	end, ferr := z.Finish()
	if err == nil {
		err = ferr
	}
	return data, end, err
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		head string
		want container.Method
	}{
		{"", container.Plain},
		{"\x80\x04\x95", container.Plain},
		{"Z", container.Plain},
		{"ZF0x", container.ZF},
		{"x", container.Zlib},
		{"\x78\x9c", container.Zlib},
		{"\x1f", container.Plain},
		{"\x1f\x8b", container.Gzip},
		{"B", container.Plain},
		{"BZ", container.Bzip2},
		{"]", container.Plain},
		{"]\x00", container.LZMA},
		{"]\x01", container.Plain},
		{"\xfd7zX", container.Plain},
		{"\xfd7zXZ", container.XZ},
		{"\x04\x22\x4d", container.Plain},
		{"\x04\x22\x4d\x18", container.LZ4},
		{"PK\x03\x04", container.Plain},
	} {
		if got := container.Detect([]byte(tt.head)); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.head, got, tt.want)
		}
	}
	for _, name := range fixtures(t, "*") {
		data, m := fixture(t, name)
		if got := container.Detect(data[:min(len(data), container.MaxPrefix)]); got != m {
			t.Errorf("%s is %q, want %q", name, got, m)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures(t, "*") {
		if name == "delta.xz" || name == "preset.zlib" {
			continue
		}
		data, m := fixture(t, name)
		for how, slow := range map[string]func(io.Reader) io.Reader{
			"whole":           func(r io.Reader) io.Reader { return r },
			"byte by byte":    iotest.OneByteReader,
			"by halves":       iotest.HalfReader,
			"error with data": iotest.DataErrReader,
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				got, end, err := read(slow(bytes.NewReader(data)), m, container.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want(name)) {
					t.Errorf("%d bytes differ from the payload", len(got))
				}
				if end.Unread != 0 || end.End != int64(len(data)) || len(end.Oddities) != 0 {
					t.Errorf("ending %+v, want nothing odd at %d", end, len(data))
				}
			})
		}
	}
}

func TestReadPlain(t *testing.T) {
	t.Parallel()
	data := payload(100_000)
	got, end, err := read(bytes.NewReader(data), container.Plain, container.Limits{})
	if err != nil || !bytes.Equal(got, data) || end.End != int64(len(data)) || end.Oddities != nil {
		t.Errorf("%d bytes, %+v, %v", len(got), end, err)
	}
}

// TestReadSmallPieces reads as a pickle walker does, and stops before the end.
func TestReadSmallPieces(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures(t, "large.*") {
		data, m := fixture(t, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z, err := container.Open(bufio.NewReader(bytes.NewReader(data)), m, container.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for i := 0; len(got) < 100_000; i++ {
				p := make([]byte, 1+i%700)
				n, err := io.ReadFull(z, p)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p[:n]...)
			}
			all := want(name)
			if !bytes.Equal(got, all[:len(got)]) {
				t.Error("bytes differ from the payload")
			}
			end, err := z.Finish()
			if err != nil || end.Unread != int64(len(all)-len(got)) || end.End != int64(len(data)) || end.Oddities != nil {
				t.Errorf("ending %+v, %v; want %d unread", end, err, len(all)-len(got))
			}
			if again, err := z.Finish(); again != end || err != nil {
				t.Errorf("finished again: %+v, %v", again, err)
			}
			if n, err := z.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read after Finish: %d, %v", n, err)
			}
		})
	}
}

// TestTruncated cuts a file of every method at every byte.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, name := range append(fixtures(t, "small.*"), "empty.lzma", "empty.xz", "empty.bz2", "none.xz") {
		data, m := fixture(t, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for cut := range data {
				got, end, err := read(bytes.NewReader(data[:cut]), m, container.Limits{})
				format := new(container.FormatError)
				if !errors.As(err, &format) || !errors.Is(err, io.ErrUnexpectedEOF) || format.Method != m || format.Offset > int64(cut) {
					t.Fatalf("cut at %d: error %#v, want a FormatError for an unexpected EOF", cut, err)
				}
				if !bytes.HasPrefix(want(name), got) {
					t.Fatalf("cut at %d: bytes differ from the payload", cut)
				}
				if end != nil && (len(end.Oddities) != 1 || end.Oddities[0].Kind != container.Damaged) {
					t.Fatalf("cut at %d: ending %+v, want damage", cut, end)
				}
			}
		})
	}
}

// TestFlipped flips bits of every byte: formats with checksums let none pass.
func TestFlipped(t *testing.T) {
	t.Parallel()
	for name, free := range map[string][]int{ // bytes without a meaning here
		"small.zlib":  nil,
		"small.gz":    {3, 4, 5, 6, 7, 8, 9}, // flags (TestGzipHeader), time, level, system
		"small.bz2":   {3, 700},              // block size; padding
		"small.xz":    nil,
		"crc32.xz":    nil,
		"sha256.xz":   nil,
		"checked.lz4": nil,
		"small.lzma":  nil,
	} {
		data, m := fixture(t, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			step := 1 + len(data)/2000
			for at := 0; at < len(data); at += step {
				bad := slices.Clone(data)
				bad[at] ^= 1 << (at % 8)
				got, end, err := read(bytes.NewReader(bad), m, container.Limits{MaxOutput: 1 << 20})
				if name == "small.lzma" || slices.Contains(free, at) {
					continue // no checksum: only that it returns
				}
				if err == nil && bytes.Equal(got, want(name)) {
					continue // the bit belongs to a code that nothing uses
				}
				if err == nil {
					t.Fatalf("bit flipped in byte %d: %d bytes and %+v without error", at, len(got), end)
				}
				if format, limit := new(container.FormatError), new(container.LimitError); !errors.As(err, &format) && !errors.As(err, &limit) {
					t.Fatalf("bit flipped in byte %d: %v", at, err)
				}
			}
		})
	}
}

// TestChecksum damages only what stands behind the last useful byte: joblib
// loads such files, for it stops reading at the pickle's end.
func TestChecksum(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]int{ // from the end
		"small.zlib":  1,
		"small.gz":    8, // the checksum
		"large.gz":    1, // the size
		"small.bz2":   3,
		"small.xz":    1, // the footer
		"large.xz":    28,
		"crc32.xz":    26,
		"checked.lz4": 1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, m := fixture(t, name)
			data[len(data)-back] ^= 0x40
			z, err := container.Open(bufio.NewReader(bytes.NewReader(data)), m, container.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want(name))-1)
			if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, want(name)[:len(got)]) {
				t.Fatalf("payload: %v", err)
			}
			end, err := z.Finish()
			if err != nil || len(end.Oddities) != 1 || end.Oddities[0].Kind != container.Damaged {
				t.Fatalf("ending %+v, %v; want damage", end, err)
			}
		})
	}
}

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	for _, name := range fixtures(t, "*") {
		data, m := fixture(t, name)
		all := want(name)
		if len(all) == 0 || name == "delta.xz" || name == "preset.zlib" {
			continue
		}
		n := int64(len(all))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for max, over := range map[int64]bool{n: false, n + 1: false, n - 1: true, 1: true} {
				got, end, err := read(bytes.NewReader(data), m, container.Limits{MaxOutput: max})
				if !over {
					if err != nil || int64(len(got)) != n || end.Oddities != nil {
						t.Errorf("limit %d: %d bytes, %+v, %v", max, len(got), end, err)
					}
					continue
				}
				limit := new(container.LimitError)
				if !errors.As(err, &limit) || limit.Max != max || int64(len(got)) != max || end != nil {
					t.Errorf("limit %d: %d bytes, ending %+v, error %v; want a LimitError", max, len(got), end, err)
				}
			}
		})
	}
	got, _, err := read(strings.NewReader("four"), container.Plain, container.Limits{MaxOutput: 3})
	if limit := new(container.LimitError); !errors.As(err, &limit) || string(got) != "fou" {
		t.Errorf("plain: %q, %v; want three bytes and a LimitError", got, err)
	}
	if want := "decompress: uncompressed size is over the limit of 3 bytes"; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

// TestReaderError cuts a file of every method at every byte by an error of the
// reader below, which must come through whatever the decoder makes of it.
func TestReaderError(t *testing.T) {
	t.Parallel()
	disk := errors.New("disk on fire")
	for _, name := range append(fixtures(t, "small.*"), "empty.lzma", "empty.xz", "empty.bz2", "empty.lz4") {
		data, m := fixture(t, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for cut := range len(data) + 1 {
				r := io.MultiReader(bytes.NewReader(data[:cut]), iotest.ErrReader(disk))
				if _, end, err := read(r, m, container.Limits{}); err != disk || end != nil {
					t.Fatalf("after %d bytes: ending %+v, error %v; want %v", cut, end, err, disk)
				}
			}
		})
	}
	r := io.MultiReader(strings.NewReader("x"), iotest.ErrReader(disk))
	if got, _, err := read(r, container.Plain, container.Limits{}); err != disk || string(got) != "x" {
		t.Errorf("plain: %q, %v", got, err)
	}
}

// idle never gives anything.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestReaderIdle(t *testing.T) {
	t.Parallel()
	for _, m := range append(slices.Collect(maps.Values(methods)), container.Plain) {
		if _, _, err := read(idle{}, m, container.Limits{}); err != io.ErrNoProgress {
			t.Errorf("%q: %v, want %v", m, err, io.ErrNoProgress)
		}
	}
}

// faulty panics.
type faulty struct{}

func (faulty) Read([]byte) (int, error) { panic("not the decoder's") }

func TestReaderPanic(t *testing.T) {
	t.Parallel()
	defer func() {
		if v := recover(); v != "not the decoder's" {
			t.Errorf("panic %v does not come through", v)
		}
	}()
	read(faulty{}, container.Gzip, container.Limits{})
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	small := func(name string) string { data, _ := fixture(t, name); return string(data) }
	for _, tt := range []struct {
		name        string
		data        string
		method      container.Method
		unsupported bool
		format      bool
	}{
		{"joblib before 0.10", "ZF0x1234", container.ZF, true, false},
		{"unknown method", "", "zip", true, false},
		{"zlib preset dictionary", small("preset.zlib"), container.Zlib, true, true},
		{"zlib empty preset dictionary", "\x78\xbb\x00\x00\x00\x01\x03\x00\x00\x00\x00\x01", container.Zlib, true, true},
		{"xz delta filter", small("delta.xz"), container.XZ, true, true},
		{"zlib header checksum", "\x78\x00\x03\x00\x00\x00\x00\x01", container.Zlib, false, true},
		{"gzip method", "\x1f\x8b\x07\x00\x00\x00\x00\x00\x00\x00", container.Gzip, false, true},
		{"bzip2 level", "BZh0" + small("small.bz2")[4:], container.Bzip2, false, true},
		{"xz header", "\xfd7zXZ\x00\x00\x04\x00\x00\x00\x00", container.XZ, false, true},
		{"lzma properties", "\xff\x00\x00\x40\x00" + strings.Repeat("\xff", 13), container.LZMA, false, true},
		{"lzma literal bits", "\x65\x00\x00\x40\x00" + strings.Repeat("\xff", 13), container.LZMA, false, true},
		{"lzma dictionary liblzma refuses", "\x5d\x00\x00\x50\x00" + small("small.lzma")[5:], container.LZMA, false, true},
		{"lzma size liblzma refuses", "\x5d\x00\x00\x40\x00\x00\x00\x00\x00\x40\x00\x00\x00" + small("small.lzma")[13:], container.LZMA, false, true},
		{"lz4 magic", "\x02\x21\x4c\x18\x00\x00\x00\x00", container.LZ4, false, true},
		{"lz4 skippable first", "\x50\x2a\x4d\x18\x00\x00\x00\x00" + small("small.lz4"), container.LZ4, false, true},
		{"lz4 version", "\x04\x22\x4d\x18\x00\x40\xc0\x00\x00\x00\x00", container.LZ4, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := read(strings.NewReader(tt.data), tt.method, container.Limits{})
			if got := errors.Is(err, errors.ErrUnsupported); got != tt.unsupported {
				t.Errorf("error %v: unsupported %v, want %v", err, got, tt.unsupported)
			}
			if got := errors.As(err, new(*container.FormatError)); got != tt.format {
				t.Errorf("error %v: FormatError %v, want %v", err, got, tt.format)
			}
		})
	}
}
