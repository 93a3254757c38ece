package manifest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"

	kgzip "github.com/klauspost/compress/gzip"
)

// gunzip reads everything, and says how many bytes came by way of pieces.
func gunzip(src io.Reader) (plain []byte, pieces int, err error) {
	z, err := newGzipReader(src)
	if err != nil {
		return nil, 0, err
	}
	defer z.Close()
	buf := make([]byte, 100_000)
	for {
		n, err := z.Read(buf)
		plain = append(plain, buf[:n]...)
		if z.tail == nil {
			pieces = len(plain)
		}
		if err == io.EOF {
			return plain, pieces, nil
		}
		if err != nil {
			return plain, pieces, err
		}
	}
}

// gzipMember is a gzip member of that deflate stream, with the checksums of what
// compress/flate finds in it.
func gzipMember(t testing.TB, deflated ...[]byte) []byte {
	t.Helper()
	body := slices.Concat(deflated...)
	plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	out := slices.Concat(gzipHeader[:], body)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(out, uint32(len(plain)))
}

// flushed deflates each part with a sync flush behind it, without a new window
// or an end.
func flushed(t testing.TB, parts ...[]byte) [][]byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for _, p := range parts {
		w.Write(p)
		w.Flush()
		out = append(out, bytes.Clone(b.Bytes()))
		b.Reset()
	}
	return out
}

// stored is a stored block.
func stored(final byte, data []byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{final}, uint16(len(data)))
	return append(binary.LittleEndian.AppendUint16(b, ^uint16(len(data))), data...)
}

// gzipStreams are streams of every kind, and by name how many of their bytes can
// be inflated in pieces; -1 where only the content counts.
func gzipStreams(t testing.TB) (streams map[string][]byte, pieces map[string]int) {
	zeros, mixed := make([]byte, blockSize), sample(2*blockSize+blockSize/2)
	empty := stored(0, nil)
	double := append(bytes.Clone(empty), empty...)
	block := func(data []byte) []byte { // as galley writes it
		packed := packGzip(t, data, len(data))
		return packed[len(gzipHeader) : len(packed)-len(finalBlock)-8]
	}
	trap := slices.Concat(bytes.Repeat([]byte{7}, 64), marker, bytes.Repeat([]byte{8}, 64))
	before := flushed(t, make([]byte, blockSize-64-len(marker)))[0]
	noise := sample(3 * blockSize)
	for i := range noise {
		noise[i] ^= byte(i * 7 >> 3)
	}

	random := make([]byte, 3*blockSize)
	rand.NewChaCha8([32]byte{}).Read(random)
	foreign := new(bytes.Buffer)
	w := gzip.NewWriter(foreign)
	w.Write(mixed)
	w.Close()
	galley := packGzip(t, mixed, len(mixed))
	wrongSum := bytes.Clone(galley)
	wrongSum[len(wrongSum)-5] ^= 1
	wrongSize := bytes.Clone(galley)
	wrongSize[len(wrongSize)-1] ^= 1
	damaged := bytes.Clone(galley)
	damaged[len(damaged)/2] ^= 0x55

	back := flushed(t, noise[:blockSize], bytes.Repeat(noise[blockSize-window/2:blockSize], 2*blockSize/window))
	streams = map[string][]byte{
		"nothing":    {},
		"header":     gzipHeader[:],
		"no deflate": slices.Concat(gzipHeader[:], []byte{7}, marker),
		"no gzip":    []byte("a file that is something else"),
		"reserved":   append([]byte{0x1f, 0x8b, 8, 0x80}, packGzip(t, nil, 1)[4:]...),
		"empty":      packGzip(t, nil, 1),
		"byte":       packGzip(t, []byte{1}, 1),
		"block":      packGzip(t, zeros, blockSize),
		"galley":     galley,
		"zeros":      packGzip(t, make([]byte, 5*blockSize), blockSize),
		"random":     packGzip(t, random, blockSize),
		"foreign":    foreign.Bytes(),
		"members":    append(bytes.Clone(galley), foreign.Bytes()...),
		"twice":      append(packGzip(t, zeros, blockSize), packGzip(t, zeros, blockSize)...),
		"trailing":   append(bytes.Clone(galley), "more"...),
		"cut":        galley[:len(galley)/2],
		"cut mark":   galley[:bytes.Index(galley, marker)+len(marker)],
		"cut sum":    galley[:len(galley)-5],
		"no end":     galley[:len(galley)-10],
		"wrong sum":  wrongSum,
		"wrong size": wrongSize,
		"damaged":    damaged,
		// A marker within a stored block, after as many bytes as a block has.
		"stored trap": gzipMember(t, before, stored(0, trap), block(zeros), finalBlock[:]),
		// Where nothing is compressed, it is known not to be one.
		"stored":       gzipMember(t, stored(0, trap), stored(0, trap), double, finalBlock[:]),
		"stored cut":   slices.Concat(gzipHeader[:], stored(0, trap)[:90]),
		"stored, last": gzipMember(t, stored(0, trap), stored(1, trap)),
		// A little more than a block of galley's has.
		"stored, much": gzipMember(t, bytes.Repeat(stored(0, random[:1<<15]), 32), stored(0, trap), double, finalBlock[:]),
		// The same in the last block, behind which the rest is no deflate at all.
		"final trap": gzipMember(t, before, stored(1, trap)),
		// The last block ends right at the marker.
		"final mark": append(gzipMember(t, block(zeros), stored(0, nil), stored(1, nil)), packGzip(t, zeros, blockSize)...),
		// The second block is nothing but references to the first.
		"references": gzipMember(t, back[0], empty, back[1], empty, finalBlock[:]),
		"tiny":       gzipMember(t, bytes.Repeat(double, 1000), block(zeros), finalBlock[:]),
		"short":      gzipMember(t, block(zeros), block([]byte("abc")), block(zeros), finalBlock[:]),
		"large":      gzipMember(t, flushed(t, make([]byte, 3*blockSize))[0], empty, block(zeros), finalBlock[:]),
		"unmarked":   gzipMember(t, block(zeros), bytes.Join(flushed(t, noise, noise), nil), finalBlock[:]),
	}
	return streams, map[string]int{
		"block": blockSize, "galley": len(mixed), "zeros": 5 * blockSize, "random": len(random), "members": len(mixed), "twice": blockSize,
		"stored": 2 * len(trap), "stored cut": 0, "stored, last": 0, "stored, much": 0, "stored trap": 0, "final trap": 0, "references": blockSize, "tiny": 0, "short": blockSize + 3, "large": 0, "unmarked": blockSize,
	}
}

func TestGunzip(t *testing.T) {
	streams, pieces := gzipStreams(t)
	for name, data := range streams {
		t.Run(name, func(t *testing.T) {
			n := checkGunzip(t, data)
			if want, ok := pieces[name]; ok && n != want {
				t.Errorf("%d bytes came in pieces; want %d", n, want)
			}
			if _, _, err := gunzip(iotest.ErrReader(io.ErrNoProgress)); !errors.Is(err, io.ErrNoProgress) {
				t.Errorf("error of the source: %v", err)
			}
		})
	}
}

// checkGunzip compares the reader with that of the standard library, and returns
// how many bytes came in pieces.
func checkGunzip(t *testing.T, data []byte) int {
	t.Helper()
	var want []byte
	r, wantErr := gzip.NewReader(bytes.NewReader(data))
	if wantErr == nil {
		want, wantErr = io.ReadAll(r)
	}
	got, pieces, err := gunzip(bytes.NewReader(data))
	if errors.Is(err, kgzip.ErrHeader) && wantErr == nil {
		// RFC 1952, section 2.3.1.2: reserved flags are refused. The standard
		// library reads on.
		var r *kgzip.Reader
		if r, wantErr = kgzip.NewReader(bytes.NewReader(data)); wantErr == nil {
			_, wantErr = io.Copy(io.Discard, r)
		}
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%v; compress/gzip: %v", err, wantErr)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, and not those of compress/gzip, %d", len(got), len(want))
	}
	if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
		t.Fatalf("before the error: not the bytes of compress/gzip")
	}
	return pieces
}

func TestGunzipCutsSource(t *testing.T) {
	data := packGzip(t, sample(3*blockSize+5), 100_000)
	cut := errors.New("cut")
	for _, n := range []int{0, 5, 10, 11, 1000, len(data) / 2, len(data) - 9, len(data) - 1} {
		for name, src := range map[string]io.Reader{
			"at once":   io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(cut)),
			"in halves": io.MultiReader(iotest.HalfReader(bytes.NewReader(data[:n])), iotest.ErrReader(cut)),
			"with data": iotest.DataErrReader(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(cut))),
		} {
			if _, _, err := gunzip(src); !errors.Is(err, cut) {
				t.Errorf("%s, after %d bytes: %v; want the error of the source", name, n, err)
			}
		}
		if _, _, err := gunzip(io.MultiReader(bytes.NewReader(data[:n]), &failsOnce{cut, bytes.NewReader(data[n:])})); !errors.Is(err, cut) {
			t.Errorf("after %d bytes, and none the first time it is asked for more: %v; want the error of the source", n, err)
		}
	}
}

// failsOnce is a source that fails the first time it is read, and only then.
type failsOnce struct {
	err error
	io.Reader
}

func (f *failsOnce) Read(p []byte) (int, error) {
	if err := f.err; err != nil {
		f.err = nil
		return 0, err
	}
	return f.Reader.Read(p)
}

// TestGunzipCloses leaves the reader at all stages: the bubble ends only when
// every goroutine has.
func TestGunzipCloses(t *testing.T) {
	data := packGzip(t, sample(20*blockSize), 100_000)
	for _, n := range []int{0, 1, blockSize, 3*blockSize + 1, 20 * blockSize} {
		synctest.Test(t, func(t *testing.T) {
			z, err := newGzipReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, z, int64(n)); err != nil {
				t.Fatal(err)
			}
			z.Close()
			z.Close()
			if n, err := z.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("Read after Close = %d, %v", n, err)
			}
		})
	}
}

// maxSeed bounds what fuzzing inflates to 16 MiB.
const maxSeed = 16 << 10

// FuzzGunzip holds the reader against compress/gzip on arbitrary bytes.
func FuzzGunzip(f *testing.F) {
	streams, _ := gzipStreams(f)
	for _, data := range streams {
		if len(data) <= maxSeed {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxSeed {
			t.Skip("inflates to more than is compared")
		}
		checkGunzip(t, data)
	})
}

// TestFuzzGunzipSeeds counts what the fuzzing starts from.
func TestFuzzGunzipSeeds(t *testing.T) {
	streams, _ := gzipStreams(t)
	small := 0
	for _, data := range streams {
		if len(data) <= maxSeed {
			small++
		}
	}
	if small < 12 {
		t.Errorf("%d seeds; want at least 12", small)
	}
}
