package joblib_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"galley/manifest/joblib"
)

// forest is a file of so many bytes in arrays of the size of trees.
func forest(size int) []byte {
	const each = 128 << 10
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, each)
	for i := range data {
		data[i] = byte(random.IntN(64))
	}
	var b bytes.Buffer
	b.WriteString(proto(4) + emptyList + mark)
	w := wrapper{shape: tupleOf(i32(each / 8))}.String()
	for b.Len() < size {
		b.WriteString(w)
		b.Write(data)
	}
	b.WriteString(appends + stop)
	return b.Bytes()
}

// compress returns data as a method writes it.
func compress(b *testing.B, data []byte, to func(io.Writer) io.WriteCloser) []byte {
	b.Helper()
	var out bytes.Buffer
	w := to(&out)
	if _, err := w.Write(data); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func BenchmarkInspect(b *testing.B) {
	committed, err := os.ReadFile(filepath.FromSlash(corpus + "models/forest.joblib"))
	if err != nil {
		b.Fatal(err)
	}
	arrays, packed := forest(64<<20), forest(16<<20)
	var vocabulary strings.Builder
	vocabulary.WriteString(proto(4) + emptyDict + memoize + mark)
	for i := range 200_000 {
		fmt.Fprintf(&vocabulary, "\x8c\x08%08d\x94%s", i, i32(i))
	}
	vocabulary.WriteString(setItems + stop)
	for _, c := range []struct {
		name string
		data []byte
		size int // of what is inside
	}{
		{"arrays", arrays, len(arrays)},
		{"arrays-zlib", compress(b, packed, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }), len(packed)},
		{"arrays-gzip", compress(b, packed, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }), len(packed)},
		{"arrays-lz4", compress(b, packed, func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }), len(packed)},
		{"vocabulary", []byte(vocabulary.String()), vocabulary.Len()},
		{"floats", []byte(pickle(listOf(strings.Repeat(f64(0.1), 500_000)))), 9 * 500_000},
		{"committed-forest", committed, len(committed)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			var r *joblib.Report
			for b.Loop() {
				if r, err = joblib.Inspect(bytes.NewReader(c.data), joblib.Options{}); err != nil {
					b.Fatal(err)
				}
			}
			if r.Verdict != pass || r.Size != int64(c.size) && !strings.HasPrefix(c.name, "floats") {
				b.Fatalf("%s\n%s", r.Verdict, spell(r.Findings))
			}
		})
	}
}
