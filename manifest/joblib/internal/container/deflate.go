package container

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// newZlib opens a zlib stream. A preset dictionary is refused here, because the
// library takes the empty one for given, and joblib has none either.
func newZlib(src *source) (io.Reader, error) {
	const preset = 0x20 // FDICT, RFC 1950, section 2.2
	head, err := src.peek(2)
	if err != nil {
		return nil, err
	}
	if head[1]&preset != 0 {
		return nil, fmt.Errorf("preset dictionary: %w", errors.ErrUnsupported)
	}
	return zlib.NewReader(src.Reader)
}

// gzipFlags names the bits of FLG, RFC 1952, section 2.3.1. The library
// refuses the reserved ones, and so does Python.
var gzipFlags = [...]string{"text flag", "header checksum", "extra field", "file name", "comment"}

// newGzip opens the first member of a gzip file.
func newGzip(src *source) (io.Reader, []Oddity, error) {
	const flags = 3 // offset of FLG
	head, err := src.peek(flags + 1)
	if err != nil {
		return nil, nil, err
	}
	flg := head[flags]
	z, err := gzip.NewReader(src.Reader)
	if err != nil {
		return nil, nil, err
	}
	z.Multistream(false)
	if flg == 0 {
		return z, nil, nil
	}
	var fields []string
	for i, name := range gzipFlags {
		if flg>>i&1 != 0 {
			fields = append(fields, name)
		}
	}
	return z, []Oddity{{HeaderFields, flags, "gzip header with " + strings.Join(fields, ", ")}}, nil
}
