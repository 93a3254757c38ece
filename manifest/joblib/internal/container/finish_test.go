package container_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"galley/manifest/joblib/internal/container"
)

func TestFinish(t *testing.T) {
	t.Parallel()
	const extra, trailing = container.ExtraMember, container.TrailingBytes
	skippable := "\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
	for _, tt := range []struct {
		name   string // of the fixture
		behind string // a fixture if it begins with @
		kind   container.Kind
		detail string
	}{
		{"small.zlib", "@small.zlib", extra, "a second zlib stream behind the first zlib stream"},
		{"small.zlib", "junkjunk", trailing, "bytes behind the zlib stream that begin with 6a756e6b6a756e6b"},
		{"small.zlib", "@small.gz", trailing, "bytes behind the zlib stream that begin with 1f8b08000000000000032594c9"},
		{"small.gz", "@small.gz", extra, "a second gzip member behind the first gzip member"},
		{"small.gz", "\x00", trailing, "bytes behind the gzip member that begin with 00"},
		{"empty.gz", "@small.gz", extra, ""},
		{"small.bz2", "@small.bz2", extra, "a second bzip2 stream behind the first bzip2 stream"},
		{"large.bz2", "@small.bz2", extra, ""},
		{"empty.bz2", "@small.bz2", extra, ""},
		{"small.bz2", "@empty.bz2", extra, ""},
		{"small.bz2", "BZ", trailing, ""},
		{"small.bz2", "junk", trailing, "bytes behind the bzip2 stream that begin with 6a756e6b"},
		{"small.bz2", "\x00", trailing, ""},
		{"small.xz", "@small.xz", extra, "an xz stream behind the first xz stream"},
		{"large.xz", "@small.xz", extra, ""},
		{"empty.xz", "@small.xz", extra, ""},
		{"small.xz", "@small.lzma", extra, "an lzma stream behind the first xz stream"},
		{"small.xz", "LZIP\x01", extra, "an lzip member behind the first xz stream"},
		{"small.xz", strings.Repeat("\x00", 16), extra, ""}, // lc, lp, pb 0, no dictionary, no data: liblzma takes it
		{"small.xz", "\x00\x00\x00\x00", trailing, "bytes behind the xz stream that begin with 00000000"},
		{"small.xz", "\x5d\x01\x00\x40\x00\xff\xff\xff\xff\xff\xff\xff\xff", trailing, ""},
		{"small.lzma", "@small.lzma", extra, "an lzma stream behind the first lzma stream"},
		{"small.lzma", "@small.xz", extra, "an xz stream behind the first lzma stream"},
		{"empty.lzma", "@small.lzma", extra, ""},
		{"small.lzma", "junk, and more of it", trailing, ""},
		{"small.lz4", "@small.lz4", extra, "a second lz4 frame behind the first lz4 frame"},
		{"checked.lz4", "@small.lz4", extra, ""},
		{"empty.lz4", "@small.lz4", extra, ""},
		{"small.lz4", skippable, extra, "a skippable lz4 frame behind the first lz4 frame"},
		{"small.lz4", "\x02\x21\x4c\x18", trailing, ""},
		{"small.lz4", "j", trailing, "bytes behind the lz4 frame that begin with 6a"},
	} {
		t.Run(fmt.Sprintf("%s and %.12q", tt.name, tt.behind), func(t *testing.T) {
			t.Parallel()
			data, m := fixture(t, tt.name)
			behind := []byte(tt.behind)
			if name, ok := strings.CutPrefix(tt.behind, "@"); ok {
				behind, _ = fixture(t, name)
			}
			got, end, err := read(iotest.HalfReader(bytes.NewReader(slices.Concat(data, behind))), m, container.Limits{})
			if err != nil || !bytes.Equal(got, want(tt.name)) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if end.End != int64(len(data)) || len(end.Oddities) != 1 {
				t.Fatalf("ending %+v, want one oddity at %d", end, len(data))
			}
			o := end.Oddities[0]
			if o.Kind != tt.kind || o.Offset != int64(len(data)) || tt.detail != "" && o.Detail != tt.detail {
				t.Errorf("oddity %+v, want %s: %s", o, tt.kind, tt.detail)
			}
		})
	}
}

// gzipWith returns small.gz with other flags and the fields they announce.
func gzipWith(t *testing.T, flags byte, fields string) []byte {
	data, _ := fixture(t, "small.gz")
	out := append(slices.Clone(data[:10]), fields...)
	out[3] = flags
	return append(out, data[10:]...)
}

func TestGzipHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		flags  byte
		fields string
		detail string // of the oddity; empty: the header is refused
	}{
		{"text", 1, "", "gzip header with text flag"},
		{"name", 8, "model.pkl\x00", "gzip header with file name"},
		{"extra field, name and comment", 4 | 8 | 16, "\x02\x00xya\x00b\x00", "gzip header with extra field, file name, comment"},
		{"wrong header checksum", 2, "\x00\x00", ""},
		{"reserved", 0x20, "", ""},
		{"name without end", 8, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, end, err := read(bytes.NewReader(gzipWith(t, tt.flags, tt.fields)), container.Gzip, container.Limits{})
			if tt.detail == "" {
				if format := new(container.FormatError); !errors.As(err, &format) {
					t.Errorf("error %v, want a FormatError", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, want("small.gz")) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if o := (container.Oddity{Kind: container.HeaderFields, Offset: 3, Detail: tt.detail}); !slices.Equal(end.Oddities, []container.Oddity{o}) {
				t.Errorf("oddities %+v, want %+v", end.Oddities, o)
			}
		})
	}
}
