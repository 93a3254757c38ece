package container_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"galley/manifest/joblib/internal/container"
)

// seeds are the files FuzzOpen starts from: the small fixtures, what can stand
// behind them, and made-up headers.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	var all [][]byte
	for _, name := range fixtures(t, "*") {
		if strings.HasPrefix(name, "large") || strings.HasPrefix(name, "checked") {
			continue
		}
		data, _ := fixture(t, name)
		all = append(all, data, append(slices.Clone(data), data...), append(slices.Clone(data), "junk"...))
	}
	block := xzBlock{0, stored("abc"), 3, true}
	return append(all,
		nil, []byte("ZF0x"), []byte("\x80\x04N."), []byte("\x78\xbb\x00\x00\x00\x01"),
		xzFile(block, block), xzFile(xzBlock{40, stored("x"), 1, false}), alone(1<<30), alone(4096), []byte(bzip2Zeros))
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	if got, want := len(seeds(t)), 3*17+9; got != want {
		t.Errorf("%d seeds, want %d", got, want)
	}
}

// FuzzOpen: no panic, no more output than allowed, only the documented errors,
// the same answer however the bytes arrive, and the first member is what it is
// without the bytes behind it, and is not complete without its last byte.
func FuzzOpen(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	limits := container.Limits{MaxOutput: 1 << 20, MaxDictionary: 1 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := container.Detect(data)
		got, end, err := read(bytes.NewReader(data), m, limits)
		if int64(len(got)) > limits.MaxOutput {
			t.Fatalf("%d bytes", len(got))
		}
		limit := errors.As(err, new(*container.LimitError))
		switch {
		case err == nil, limit, errors.As(err, new(*container.FormatError)), m == container.ZF:
		default:
			t.Fatalf("error %#v", err)
		}
		again, end2, err2 := read(iotest.OneByteReader(bytes.NewReader(data)), m, limits)
		if !bytes.Equal(got, again) || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("%d bytes, %v; byte by byte %d, %v", len(got), err, len(again), err2)
		}
		if end == nil {
			return
		}
		if end2 == nil || end.End != end2.End || !slices.Equal(end.Oddities, end2.Oddities) || end.End > int64(len(data)) || limit {
			t.Fatalf("ending %+v; byte by byte %+v", end, end2)
		}
		var kinds []container.Kind
		for _, o := range end.Oddities {
			if o.Offset < 0 || o.Offset > end.End || o.Detail == "" {
				t.Fatalf("oddity %+v", o)
			}
			kinds = append(kinds, o.Kind)
		}
		if damaged := slices.Contains(kinds, container.Damaged); damaged != (err != nil) {
			t.Fatalf("oddities %+v, error %v", end.Oddities, err)
		}
		if err != nil || m == container.Plain {
			return
		}
		if behind := slices.Contains(kinds, container.ExtraMember) || slices.Contains(kinds, container.TrailingBytes); behind != (end.End < int64(len(data))) {
			t.Fatalf("ends at %d of %d, oddities %+v", end.End, len(data), end.Oddities)
		}
		first := data[:end.End]
		again, end2, err2 = read(bytes.NewReader(first), m, limits)
		if err2 != nil || !bytes.Equal(got, again) || end2.End != end.End {
			t.Fatalf("first member alone: %d bytes, %+v, %v", len(again), end2, err2)
		}
		if _, _, err := read(bytes.NewReader(first[:len(first)-1]), m, limits); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("first member without its last byte: %v", err)
		}
	})
}
