package container_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"galley/manifest/joblib/internal/container"
)

// xzBlock is a block of an xz file as xzFile writes it.
type xzBlock struct {
	dict    byte // its code: 18 is 2 MiB, 28 is 64 MiB, 36 is 1 GiB, 40 is 4 GiB - 1
	data    []byte
	size    int  // of what comes out
	declare bool // the sizes, in the block header
}

// stored is LZMA2 data of one chunk that is not compressed.
func stored(data string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{1}, uint16(len(data)-1))
	return append(append(b, data...), 0)
}

// padded fills b with zeros to a multiple of four bytes and appends a checksum
// of all of it.
func padded(b []byte) []byte {
	b = append(b, make([]byte, -len(b)&3)...)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// xzFile writes an xz file without block checks.
func xzFile(blocks ...xzBlock) []byte {
	flags := []byte{0, 0}
	out := append([]byte("\xfd7zXZ\x00"), flags...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(flags))
	index := binary.AppendUvarint([]byte{0}, uint64(len(blocks)))
	for _, b := range blocks {
		head := []byte{0, 0}
		if b.declare {
			head[1] = 0xc0
			head = binary.AppendUvarint(head, uint64(len(b.data)))
			head = binary.AppendUvarint(head, uint64(b.size))
		}
		head = append(head, 0x21, 1, b.dict)
		head[0] = byte((len(head) + 3) / 4)
		head = padded(head)
		out = slices.Concat(out, head, b.data, make([]byte, -len(b.data)&3))
		index = binary.AppendUvarint(index, uint64(len(head)+len(b.data)))
		index = binary.AppendUvarint(index, uint64(b.size))
	}
	index = padded(index)
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	foot = append(foot, flags...)
	out = append(out, index...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(foot))
	return append(append(out, foot...), "YZ"...)
}

// xzOrLZMA is the method of what xzFile and alone write; Detect takes only the
// dictionaries whose lowest byte is 0 for lzma.
func xzOrLZMA(data []byte) container.Method {
	if data[0] == 0x5d {
		return container.LZMA
	}
	return container.XZ
}

// alone writes an lzma file of dictionary size dict.
func alone(dict uint32) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0x5d}, dict)
	return append(b, strings.Repeat("\xff", 8)+strings.Repeat("\x00", 5)...)
}

func TestDictionaryLimit(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	one := func(dict byte) xzBlock { return xzBlock{dict: dict, data: stored("x"), size: 1} }
	small := slices.Repeat([]xzBlock{one(28)}, 200)
	for _, tt := range []struct {
		name  string
		data  []byte
		max   int64 // of Limits
		got   int64 // of the error; 0: it is read
		bytes int   // read before
	}{
		{"xz 64 MiB", xzFile(one(28)), 0, 0, 1},
		{"xz 96 MiB", xzFile(one(29)), 0, 96 * mib, 0},
		{"xz 1 GiB", xzFile(one(36)), 0, 1024 * mib, 0},
		{"xz 4 GiB", xzFile(one(40)), 0, 4096*mib - 1, 0},
		{"xz 4 GiB with little in it", xzFile(xzBlock{40, stored("x"), 1, true}), 0, 4096*mib - 1, 0},
		{"xz 4 GiB in the second block", xzFile(one(18), one(40)), 0, 4096*mib - 1, 1},
		{"xz over a lower limit", xzFile(one(18)), mib, 2 * mib, 0},
		{"xz at a lower limit", xzFile(one(18)), 2 * mib, 0, 1},
		{"xz small blocks, large dictionaries", xzFile(small...), 0, 128*mib - 1, 1},
		{"xz small blocks, small dictionaries", xzFile(slices.Repeat([]xzBlock{one(0)}, 200)...), 0, 0, 200},
		{"xz small blocks that say so", xzFile(slices.Repeat([]xzBlock{{28, stored("x"), 1, true}}, 200)...), 0, 0, 200},
		{"lzma 1 GiB", alone(1 << 30), 0, 1024 * mib, 0},
		{"lzma 4 GiB", alone(1<<32 - 1), 0, 4096*mib - 1, 0},
		{"lzma over a lower limit", alone(2 << 20), mib, 2 * mib, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, end, err := read(bytes.NewReader(tt.data), xzOrLZMA(tt.data), container.Limits{MaxDictionary: tt.max})
			if len(got) != tt.bytes {
				t.Errorf("%d bytes, want %d", len(got), tt.bytes)
			}
			if tt.got == 0 {
				if err != nil || end.End != int64(len(tt.data)) || end.Oddities != nil {
					t.Errorf("ending %+v, %v", end, err)
				}
				return
			}
			limit := new(container.LimitError)
			if !errors.As(err, &limit) || limit.Got != tt.got || limit.Max >= tt.got {
				t.Errorf("error %v, want a LimitError for %d bytes", err, tt.got)
			}
		})
	}
}

// TestDictionaryMemory does not run beside others: it looks at what is
// allocated.
func TestDictionaryMemory(t *testing.T) {
	for _, data := range [][]byte{
		xzFile(xzBlock{36, stored("x"), 1, false}),
		xzFile(xzBlock{40, stored("x"), 1, false}),
		alone(1 << 30),
		alone(1<<32 - 1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := read(bytes.NewReader(data), xzOrLZMA(data), container.Limits{})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 1<<20 {
			t.Errorf("%.12x: %d bytes allocated, %v", data, n, err)
		}
	}
}

// packer makes a writer of a method.
type packer func(io.Writer) (io.WriteCloser, error)

// packers are the methods that have a writer in Go.
var packers = map[container.Method]packer{
	container.Zlib: func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriterLevel(w, 3) },
	container.Gzip: func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, 3) },
	container.LZMA: func(w io.Writer) (io.WriteCloser, error) { return lzma.WriterConfig{DictCap: 1 << 20}.NewWriter(w) },
	container.XZ: func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{DictCap: 1 << 20, BlockSize: 4 << 20}.NewWriter(w)
	},
	container.LZ4:   func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
	container.Plain: func(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil },
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// pack compresses data.
func pack(t testing.TB, m container.Method, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packers[m](&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zeros is 16 MiB of zeros, which all methods make very small.
func zeros(w io.Writer) error {
	b := make([]byte, 1<<20)
	for range 16 {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// bzip2Zeros is 16 MiB of zeros by Python's bz2.
const bzip2Zeros = "BZh91AY&SY\x52\x85\x3e\x25\x00\x80\x80\xc0\x00\xc0\x00\x00\x08\x20\x00\x30\x80\x29\x1a\x01\x00\xd2\x01\x00" +
	"\xe2\xee\x48\xa7\x0a\x12\x0a\x50\xa7\xc4\xa0"

// TestBomb does not run beside others: it looks at what is allocated while a
// small file becomes a large one, and when that is stopped.
func TestBomb(t *testing.T) {
	bombs := map[container.Method][]byte{
		container.Bzip2: []byte(bzip2Zeros),
	}
	for m := range packers {
		if m != container.Plain {
			bombs[m] = pack(t, m, zeros)
		}
	}
	for m, data := range bombs {
		t.Run(string(m), func(t *testing.T) {
			const max, memory = 8 << 20, 24 << 20
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			z, err := container.Open(bufio.NewReader(bytes.NewReader(data)), m, container.Limits{MaxOutput: max})
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, z, make([]byte, 32<<10))
			if limit := new(container.LimitError); n != max || !errors.As(err, &limit) {
				t.Errorf("%d of %d bytes give %d, %v; want %d and a LimitError", len(data), max, n, err, max)
			}
			if _, err := z.Finish(); !errors.As(err, new(*container.LimitError)) {
				t.Errorf("Finish: %v, want a LimitError", err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > memory {
				t.Errorf("%d bytes allocated, want at most %d", n, memory)
			}
		})
	}
}

// TestXZ reads what Python does not write but others do, and refuses what the
// library would let pass.
func TestXZ(t *testing.T) {
	t.Parallel()
	small, _ := fixture(t, "none.xz")
	const header = 24                                                                         // of the stream and the first block
	data := slices.Clone(small[header:][:6+int(binary.BigEndian.Uint16(small[header+3:]))+1]) // one LZMA2 chunk
	data = append(data, 0)
	// edited returns a file of the chunk after f has changed it.
	edited := func(f func([]byte) []byte) []byte {
		return xzFile(xzBlock{dict: 18, data: f(slices.Clone(data)), size: 1500})
	}
	size := func(b []byte, more int) { // the declared size of the compressed data
		binary.BigEndian.PutUint16(b[3:], uint16(int(binary.BigEndian.Uint16(b[3:]))+more))
	}
	for _, tt := range []struct {
		name string
		data []byte
		err  string // its end; empty: it is read
	}{
		{"as it is", edited(func(b []byte) []byte { return b }), ""},
		{"two blocks", xzFile(xzBlock{18, data, 1500, false}, xzBlock{18, stored("x"), 1, true}), ""},
		{"chunk with an end mark within its size", edited(func(b []byte) []byte {
			size(b, 4)
			return append(b, 0, 0, 0, 0)
		}), "size of an lzma2 chunk is not the declared one"},
		{"chunk with a header within its size", edited(func(b []byte) []byte {
			size(b, 4)
			return append(b[:len(b)-1], 2, 0, 0, 'x', 0)
		}), "size of an lzma2 chunk is not the declared one"},
		{"chunk too long", edited(func(b []byte) []byte { size(b, -1); return b }), "a part is shorter than it has to be"},
		{"chunk of four bytes", edited(func([]byte) []byte {
			return []byte{0xe0, 0, 0, 0, 3, 0x5d, 0, 0, 0, 0, 0}
		}), "size of an lzma2 chunk is not the declared one"},
		{"literal bits", edited(func(b []byte) []byte { b[5] = 4*9 + 8; return b }), "invalid properties of an lzma2 chunk"},
		{"declared size too small", xzFile(xzBlock{18, data, 1499, true}), "size of an xz block is not the declared one"},
		{"declared size too large", xzFile(xzBlock{18, data, 1501, true}), "size of an xz block is not the declared one"},
		{"size in the index", xzFile(xzBlock{18, data, 1499, false}), "xz index does not match the blocks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, end, err := read(bytes.NewReader(tt.data), container.XZ, container.Limits{})
			switch {
			case tt.err == "" && (err != nil || end.Oddities != nil):
				t.Errorf("ending %+v, %v", end, err)
			case tt.err != "" && (!errors.As(err, new(*container.FormatError)) || !strings.HasSuffix(err.Error(), ": "+tt.err)):
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
