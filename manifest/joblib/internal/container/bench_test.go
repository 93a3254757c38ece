package container_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"galley/manifest/joblib/internal/container"
)

// trees is n bytes like the arrays of a forest: records of small integers and
// floats of few digits.
func trees(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = binary.LittleEndian.AppendUint64(b, uint64(i+1))
		b = binary.LittleEndian.AppendUint64(b, uint64(i+rng.IntN(64)))
		b = binary.LittleEndian.AppendUint64(b, uint64(rng.IntN(30)))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(float32(rng.NormFloat64()))))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(rng.Float64()))
		b = binary.LittleEndian.AppendUint64(b, uint64(rng.IntN(500)))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(rng.IntN(500))))
	}
	return b[:n]
}

// BenchmarkRead measures uncompressed bytes. There is no bzip2 writer, so that
// method reads its fixture.
func BenchmarkRead(b *testing.B) {
	data := trees(8 << 20)
	for _, m := range []container.Method{container.Plain, container.Zlib, container.Gzip, container.Bzip2, container.LZMA, container.XZ, container.LZ4} {
		b.Run("method="+string(m), func(b *testing.B) {
			out := data
			var packed []byte
			if m == container.Bzip2 {
				packed, _ = fixture(b, "large.bz2")
				out = want("large.bz2")
			} else {
				packed = pack(b, m, func(w io.Writer) error { _, err := w.Write(data); return err })
			}
			got, _, err := read(bytes.NewReader(packed), m, container.Limits{})
			if err != nil || !bytes.Equal(got, out) {
				b.Fatalf("%d bytes, %v", len(got), err)
			}
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(len(out)))
			b.ReportAllocs()
			for b.Loop() {
				z, err := container.Open(bufio.NewReader(bytes.NewReader(packed)), m, container.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = z.Read(buf)
				}
				if err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
