package manifest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
)

// sample is bytes that compress like a forest: runs and noise in turn.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		if i/4096%2 == 0 {
			b[i] = byte(r.IntN(8))
		} else {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

func packGzip(t testing.TB, data []byte, chunk int) []byte {
	t.Helper()
	var out bytes.Buffer
	sum := sha256.New()
	z := newGzipWriter(&out, sum)
	for rest := data; len(rest) > 0; {
		n := min(chunk, len(rest))
		if _, err := z.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("the sum is not that of the uncompressed bytes")
	}
	return out.Bytes()
}

func TestGzipWriter(t *testing.T) {
	for _, n := range []int{0, 1, blockSize - 1, blockSize, blockSize + 1, 5*blockSize + 12345} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			data := sample(n)
			packed := packGzip(t, data, 100_000)

			r, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			r.Multistream(false)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read back %d bytes, %v; want the %d written", len(got), err, n)
			}
			if !r.ModTime.IsZero() || r.OS != 255 || r.Name != "" || r.Extra != nil {
				t.Errorf("header %+v holds more than it must", r.Header)
			}

			// Every block ends in the marker that readers cut at.
			marker := []byte{0, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff}
			if got, want := bytes.Count(packed, marker), (n+blockSize-1)/blockSize; got != want {
				t.Errorf("%d markers; want %d", got, want)
			}
		})
	}
}

func TestGzipWriterIsIndependentOfCoresAndChunks(t *testing.T) {
	data := sample(4*blockSize + 77)
	want := packGzip(t, data, len(data))
	for _, procs := range []int{1, 3, 16} {
		old := runtime.GOMAXPROCS(procs)
		got := packGzip(t, data, 10_007)
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(got, want) {
			t.Errorf("GOMAXPROCS=%d: other bytes", procs)
		}
	}
}

// TestGzipWriterReads makes the same bytes of what it reads as of what is written.
func TestGzipWriterReads(t *testing.T) {
	for _, n := range []int{0, 1, blockSize, 2*blockSize + 1, 3 * blockSize} {
		data := sample(n)
		var out bytes.Buffer
		z := newGzipWriter(&out, nil)
		read, err := z.ReadFrom(bytes.NewReader(data))
		if err = errors.Join(err, z.Close()); err != nil || read != int64(n) {
			t.Fatalf("%d bytes: read %d, %v", n, read, err)
		}
		if !bytes.Equal(out.Bytes(), packGzip(t, data, 100_000)) {
			t.Errorf("%d bytes: other bytes than by Write", n)
		}
	}
}

// failAfter accepts n bytes.
type failAfter struct{ n int }

var errFull = errors.New("full")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestGzipWriterReportsErrors(t *testing.T) {
	for _, room := range []int{0, 5, 20, blockSize} {
		z := newGzipWriter(&failAfter{room}, nil)
		_, werr := z.Write(sample(20 * blockSize))
		cerr := z.Close()
		if !errors.Is(cerr, errFull) {
			t.Errorf("room for %d: Close: %v; want %v", room, cerr, errFull)
		}
		if werr != nil && !errors.Is(werr, errFull) {
			t.Errorf("room for %d: Write: %v", room, werr)
		}
	}
}

func BenchmarkGzipWriter(b *testing.B) {
	data := sample(32 << 20)
	noise := make([]byte, len(data))
	for i, r := 0, rand.New(rand.NewPCG(3, 4)); i < len(noise); i++ {
		noise[i] = byte(r.Uint32())
	}
	for name, data := range map[string][]byte{"mixed": data, "random": noise} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				z := newGzipWriter(io.Discard, sha256.New())
				if _, err := z.Write(data); err != nil {
					b.Fatal(err)
				}
				if err := z.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
