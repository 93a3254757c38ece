// Package joblib says what a model file is without loading it. A joblib file
// is a pickle, and loading a pickle runs code; [Look] only reads: it steps
// over the first opcodes with a symbolic stack and never imports, calls or
// believes a declared length.
package joblib

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// Kind is what a file's content is. The kinds for which [Kind.IsModel] holds
// are the format strings of a ModelPack config.
type Kind string

// The kinds of files.
const (
	Joblib   Kind = "joblib"      // a pickle with joblib's arrays or compression
	Pickle   Kind = "pickle"      // any other pickle
	ONNX     Kind = "onnx"        // an ONNX ModelProto
	Skops    Kind = "skops"       // a skops archive
	XGBoost  Kind = "xgboost"     // xgboost's own JSON, UBJSON or binary
	LightGBM Kind = "lightgbm"    // lightgbm's own text
	CatBoost Kind = "catboost"    // catboost's own binary
	Keras    Kind = "keras"       // a Keras archive or HDF5 file
	Pointer  Kind = "lfs-pointer" // a Git LFS pointer: the file is elsewhere
	HTML     Kind = "html"        // a web page, as a login page saved under a model's name
	Zip      Kind = "zip"         // any other zip archive, also .npz
	JSON     Kind = "json"
	Text     Kind = "text"
	Empty    Kind = "empty"
	Unknown  Kind = "unknown"
)

// IsModel reports whether k is a format in which models are kept. A pickle
// may hold anything, see [Peek].
func (k Kind) IsModel() bool {
	switch k {
	case Joblib, Pickle, ONNX, Skops, XGBoost, LightGBM, CatBoost, Keras:
		return true
	}
	return false
}

// IsPickle reports whether k is unpickled to be used.
func (k Kind) IsPickle() bool { return k == Joblib || k == Pickle }

// Peek is what the beginning of a file tells. Every value is the claim of
// whoever wrote the file.
type Peek struct {
	// Format is the kind of content. A pickle counts as [Joblib] when one
	// of joblib's arrays was seen or the file is compressed, else as
	// [Pickle]: a joblib file without arrays is a plain pickle.
	Format Kind
	// Compression is zlib, gzip, bzip2, xz, lzma, lz4 or empty, found by
	// joblib's rule: the first bytes, never the name. The content of xz,
	// lzma and lz4 files is not read; they are taken for [Joblib]. Files of
	// joblib before 0.10 are "zf", and not read either.
	Compression string
	// Class is module.name of the pickled object, of a pickled function
	// or of the callable that makes the object. Empty when unknown and for
	// plain dicts, lists and values.
	Class string
	// Top is the shape of the pickled object: object, dict, list, tuple,
	// set, array, global (a class or function itself) or value. Empty when
	// unknown and for what is no pickle.
	Top string
	// Inside lists the classes of the objects directly inside the top
	// one, in order, without those of numpy, pandas and the standard
	// library: a pipeline's steps, the model in a dict. At most 16.
	Inside []string
	// Whole reports that the pickle was read to its end, so that Inside
	// lacks nothing that comes late.
	Whole bool
}

const (
	headSize = 4 << 10 // enough for everything but pickles and archives
	window   = 1 << 20
)

// Look reads at most the first MiB of r, and inflates at most one MiB of it,
// to say what the content is. The error is r's own: bytes that make no sense
// are [Unknown].
func Look(r io.Reader) (Peek, error) {
	data, err := read(r, nil, headSize)
	if err != nil {
		return Peek{}, err
	}
	if k := sniff(data); k != "" {
		return Peek{Format: k}, nil
	}
	if !container(data) && !maybePickle(data) {
		return Peek{Format: plain(data)}, nil
	}
	if data, err = read(r, data, window); err != nil {
		return Peek{}, err
	}
	return look(data), nil
}

// read appends to data what r has, up to max bytes in all.
func read(r io.Reader, data []byte, max int) ([]byte, error) {
	more, err := io.ReadAll(io.LimitReader(r, int64(max-len(data))))
	if err != nil {
		return nil, fmt.Errorf("read model: %w", err)
	}
	return append(data, more...), nil
}

// look judges the first window of a file.
func look(data []byte) Peek {
	name := compression(data)
	switch name {
	case "":
		if k := archive(data); k != "" {
			return Peek{Format: k}
		}
		return lookPlain(data)
	case "xz", "lzma", "lz4", "zf":
		return Peek{Format: Joblib, Compression: name}
	}
	inner := inflate(name, data)
	if len(inner) == 0 {
		// Text may begin with an x, which is all that joblib looks at.
		return lookPlain(data)
	}
	p := lookPlain(inner)
	p.Compression = name
	if p.Format == Pickle {
		p.Format = Joblib
	}
	return p
}

// lookPlain judges bytes that are not compressed: joblib never looks for a
// second compression inside the first.
func lookPlain(data []byte) Peek {
	if k := sniff(data[:min(len(data), headSize)]); k != "" {
		return Peek{Format: k}
	}
	m := machine{data: data}
	end := m.run()
	cut := errors.Is(end, io.ErrUnexpectedEOF)
	switch {
	case end == nil:
	case cut && (hasProto(data) || len(data) >= window):
	case hasProto(data) && len(m.stack) > 0:
	default:
		return Peek{Format: plain(data)}
	}
	p := m.peek()
	p.Whole = end == nil
	p.Format = Pickle
	if m.wrapped {
		p.Format = Joblib
	}
	return p
}

// maybePickle reports whether more of data is worth reading as a pickle.
func maybePickle(head []byte) bool {
	if hasProto(head) {
		return true
	}
	m := machine{data: head}
	end := m.run()
	return end == nil || errors.Is(end, io.ErrUnexpectedEOF) && len(head) >= headSize
}

// hasProto reports whether data begins with the PROTO opcode of a known
// protocol. Protocols 0 and 1 have none.
func hasProto(data []byte) bool {
	return len(data) > 1 && data[0] == opProto && data[1] <= 5
}

// compression is joblib's rule, in joblib's order.
func compression(data []byte) string {
	for _, c := range []struct{ prefix, name string }{
		{"ZF", "zf"},
		{"\x78", "zlib"},
		{"\x1f\x8b", "gzip"},
		{"BZ", "bzip2"},
		{"\x5d\x00", "lzma"},
		{"\xfd7zXZ", "xz"},
		{"\x04\x22\x4d\x18", "lz4"},
	} {
		if strings.HasPrefix(string(data[:min(len(data), 8)]), c.prefix) {
			return c.name
		}
	}
	return ""
}

// inflate returns what can be had of at most window bytes: the input is cut,
// so an error at its end is expected and says nothing.
func inflate(name string, data []byte) []byte {
	var (
		r   io.Reader
		err error
	)
	src := bufio.NewReader(bytes.NewReader(data))
	switch name {
	case "zlib":
		r, err = zlib.NewReader(src)
	case "gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(src); err == nil {
			z.Multistream(false) // joblib reads one member
			r = z
		}
	case "bzip2":
		r = bzip2.NewReader(src)
	}
	if err != nil || r == nil {
		return nil
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(r, window))
	return out.Bytes()
}
