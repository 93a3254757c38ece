// Package container opens the compression of a joblib file: bytes in, the
// uncompressed pickle stream out, in one forward pass.
//
// [Detect] names the method from the first bytes, by joblib's own rule and
// without a look at the file name. [Open] returns a [Reader] of the
// uncompressed bytes; when the pickle in them is over, [Reader.Finish] reads
// the rest and says what is odd about the container:
//
//	head, err := r.Peek(container.MaxPrefix) // io.EOF: a short file has a short head
//	z, err := container.Open(r, container.Detect(head), container.Limits{})
//	… read from z until the pickle's STOP …
//	end, err := z.Finish()
//
// # One member
//
// Only the first member (zlib stream, gzip member, bzip2 or xz stream, lz4
// frame) is read. Python differs by method about what follows it: joblib cannot
// load a zlib or gzip file with anything behind its first member; bzip2, xz,
// lzma and lz4 files continue with the next one, and xz and lzma even change
// the format on the way. So more of the same is an [ExtraMember], never data,
// and anything else is [TrailingBytes].
//
// # Limits
//
// Two numbers in a file decide what reading it costs: how much comes out, and
// how large the dictionary of an xz or lzma stream is, for that is allocated
// before the first byte is decoded. Both have a cap ([Limits]) that ends
// reading with a [*LimitError]. Besides the dictionary no method holds more
// than about 20 MiB (lz4 with blocks of 4 MiB), and nothing is allocated from a
// declared length.
//
// # What is refused
//
// Some containers that Python opens end in a [*FormatError] here: xz with
// filters besides LZMA2 or with an unknown check, bzip2 with randomised blocks
// (not written since 1998), gzip with a name or comment of more than 511 bytes.
// joblib writes none of them. The reverse is rarer: compress/bzip2 reads a few
// damaged Huffman tables that libbz2 does not.
//
// # Errors
//
// Three kinds, told apart by type: a [*LimitError]; a [*FormatError] for data
// that is damaged, cut or of a kind that is not read; and an error of the
// underlying reader, which comes through as it is. No input makes this package
// panic: the panic of a decoder counts as damage.
package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Method is how a joblib file is compressed.
type Method string

// The methods joblib knows.
const (
	Plain Method = ""      // not compressed
	Zlib  Method = "zlib"  // RFC 1950
	Gzip  Method = "gzip"  // RFC 1952
	Bzip2 Method = "bzip2" // as of bzip2 1.0
	LZMA  Method = "lzma"  // the older container, .lzma, "LZMA alone"
	XZ    Method = "xz"    // https://tukaani.org/xz/xz-file-format-1.2.1.txt
	LZ4   Method = "lz4"   // frames, as of the LZ4 frame format 1.6
	ZF    Method = "zf"    // joblib before 0.10: recognised, not read
)

// MaxPrefix is how many bytes [Detect] looks at.
const MaxPrefix = 5

// prefixes has joblib's order, which matters: the first that fits wins.
var prefixes = []struct {
	prefix string
	method Method
}{
	{"ZF", ZF},
	{"\x78", Zlib},
	{"\x1f\x8b", Gzip},
	{"BZ", Bzip2},
	{"\x5d\x00", LZMA},
	{"\xfd7zXZ", XZ},
	{"\x04\x22\x4d\x18", LZ4},
}

// Detect names the method of a file that begins with head, as joblib does
// (_detect_compressor in joblib/numpy_pickle_utils.py): by prefix alone, so a
// file that is called compressed may well be something else. It looks at the
// first [MaxPrefix] bytes; head may be shorter if the file is.
func Detect(head []byte) Method {
	for _, p := range prefixes {
		if bytes.HasPrefix(head, []byte(p.prefix)) {
			return p.method
		}
	}
	return Plain
}

// The limits that a zero [Limits] stands for, in bytes.
const (
	DefaultMaxOutput     = 16 << 30
	DefaultMaxDictionary = 64 << 20 // what xz -9 declares, the largest preset
)

// Limits bound what a container may cost. Zero values stand for the defaults.
type Limits struct {
	MaxOutput     int64 // uncompressed bytes; 0 means DefaultMaxOutput
	MaxDictionary int64 // bytes of dictionary that xz and lzma may declare; 0 means DefaultMaxDictionary
}

// LimitError reports a container that asks for more than [Limits] allow.
type LimitError struct {
	What string // "uncompressed size" or "dictionary"
	Got  int64  // in bytes; 0 if only known to be more than Max
	Max  int64  // in bytes
}

func (e *LimitError) Error() string {
	if e.Got == 0 {
		return fmt.Sprintf("decompress: %s is over the limit of %d bytes", e.What, e.Max)
	}
	return fmt.Sprintf("decompress: %s of %d bytes is over the limit of %d", e.What, e.Got, e.Max)
}

// FormatError reports compressed data that cannot be read. It wraps
// [io.ErrUnexpectedEOF] if the data is cut, and [errors.ErrUnsupported] if it
// is of a kind that this package does not read (an xz filter, a zlib preset
// dictionary), not necessarily damaged.
type FormatError struct {
	Method Method
	Offset int64 // compressed bytes that were consumed when it was noticed
	Err    error
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("decompress %s: byte %d: %v", e.Method, e.Offset, e.Err)
}

// Unwrap returns the decoder's error.
func (e *FormatError) Unwrap() error { return e.Err }

// Kind is a sort of [Oddity].
type Kind string

// The kinds of oddity.
const (
	HeaderFields  Kind = "header fields"  // a gzip header with optional fields, which joblib never writes
	Damaged       Kind = "damaged"        // cut, wrong checksum or size, or not decodable
	ExtraMember   Kind = "extra member"   // another stream that Python could go on with
	TrailingBytes Kind = "trailing bytes" // anything else behind the first member
)

// Oddity is something that a container written by joblib does not have.
type Oddity struct {
	Kind   Kind
	Offset int64 // in compressed bytes from the beginning of the container
	Detail string
}

// Ending is what [Reader.Finish] found.
type Ending struct {
	Unread   int64    // uncompressed bytes that had not been read before Finish
	End      int64    // compressed bytes up to the end of the first member, or to where reading it failed
	Oddities []Oddity // by offset; nil if there is nothing to say
}

// Reader reads the uncompressed bytes of the first member of a container. It
// is not safe for concurrent use.
type Reader struct {
	method Method
	src    *source
	dec    io.Reader
	left   int64 // output still allowed
	max    int64
	probe  [1]byte
	err    error // sticky
	odd    []Oddity
	ending *Ending
}

// Open reads the header of a container of method m from r and returns a reader
// of what is inside; with [Plain] that is r itself, within the limits. It reads
// ahead in r, never seeks, and does not close anything.
//
// Errors are a [*LimitError], a [*FormatError], an error of r as it is, or one
// that wraps [errors.ErrUnsupported] for [ZF] and unknown methods.
func Open(r *bufio.Reader, m Method, l Limits) (*Reader, error) {
	if l.MaxOutput <= 0 {
		l.MaxOutput = DefaultMaxOutput
	}
	if l.MaxDictionary <= 0 {
		l.MaxDictionary = DefaultMaxDictionary
	}
	z := &Reader{method: m, src: newSource(r), left: l.MaxOutput, max: l.MaxOutput}
	err := z.guard(func() error {
		var err error
		z.dec, z.odd, err = open(z.src, m, l)
		return err
	})
	if errors.Is(err, errMethod) {
		return nil, fmt.Errorf("decompress %q: %w", m, err)
	}
	if err != nil {
		return nil, z.judge(noEOF(err))
	}
	return z, nil
}

// errMethod is for methods without a decoder here.
var errMethod = fmt.Errorf("method is not read: %w", errors.ErrUnsupported)

// open returns the decoder of m. A decoder reads no byte of src behind its
// member, and returns io.EOF when its member is complete and checked.
func open(src *source, m Method, l Limits) (io.Reader, []Oddity, error) {
	var (
		dec io.Reader
		odd []Oddity
		err error
	)
	switch m {
	case Plain:
		dec = src
	case Zlib:
		dec, err = newZlib(src)
	case Gzip:
		dec, odd, err = newGzip(src)
	case Bzip2:
		dec = newBzip2(src)
	case LZMA:
		dec, err = newAlone(src, l.MaxDictionary)
	case XZ:
		dec, err = newXZ(src, l.MaxDictionary)
	case LZ4:
		dec, err = newLZ4(src)
	default:
		err = errMethod
	}
	return dec, odd, err
}

// Read reads uncompressed bytes. At the end of the first member, its checksums
// verified, it returns io.EOF, whatever follows it. It never returns more than
// [Limits.MaxOutput] bytes in all; if there are more, a [*LimitError] comes
// behind them. Other errors are as for [Open]; bytes that were read before one
// are what the decoder made of the data, good or not. Every error is final.
func (z *Reader) Read(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	over := z.left == 0
	if over {
		p = z.probe[:] // is there more, or is this the end?
	}
	n, err := z.decode(p[:min(int64(len(p)), max(z.left, 1))])
	switch {
	case over && n > 0:
		n, z.err = 0, &LimitError{What: "uncompressed size", Max: z.max}
	case err != nil:
		z.err = z.judge(err)
	}
	z.left -= int64(n)
	return n, z.err
}

// maxEmpty is how often in a row a decoder may return nothing.
const maxEmpty = 100

// decode reads from the decoder until there is something.
func (z *Reader) decode(p []byte) (n int, err error) {
	err = z.guard(func() error {
		for range maxEmpty {
			var err error
			if n, err = z.dec.Read(p); n > 0 || err != nil {
				return err
			}
		}
		return io.ErrNoProgress
	})
	return n, err
}

// guard calls f, a use of a decoder, and turns its panic into an error. A panic
// of the reader below is not ours to hide.
func (z *Reader) guard(f func() error) (err error) {
	defer func() {
		if z.src.tap.busy {
			return // the panic goes on
		}
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}

// judge says what an error of a decoder is: the end, a limit, the reader's own
// error, or else a matter of format.
func (z *Reader) judge(err error) error {
	if z.src.tap.err != nil && z.src.tap.err != io.EOF {
		return z.src.tap.err
	}
	var limit *LimitError
	if err == io.EOF || errors.As(err, &limit) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && !z.src.isCut() {
		err = errShort
	}
	return &FormatError{Method: z.method, Offset: z.src.offset(), Err: err}
}

// errShort takes the place of an unexpected end inside the data, so that
// io.ErrUnexpectedEOF always means a container that is cut.
var errShort = errors.New("a part is shorter than it has to be")

// Finish reads what is left of the first member, within the limits, and looks
// at what is behind it, without reading that. Damage is an [Oddity] here,
// wherever it was noticed. The error is a [*LimitError] or an error of the
// underlying reader; the ending is then nil, because nothing can be said about
// bytes that were not seen. Calls after the first return the same.
func (z *Reader) Finish() (*Ending, error) {
	if z.ending != nil {
		return z.ending, nil
	}
	end := &Ending{Oddities: z.odd}
	buf := make([]byte, bufferSize)
	var err error
	for err == nil {
		var n int
		n, err = z.Read(buf)
		end.Unread += int64(n)
	}
	end.End = z.src.offset()
	var format *FormatError
	switch {
	case errors.As(err, &format):
		end.Oddities = append(end.Oddities, Oddity{Damaged, format.Offset, format.Err.Error()})
	case err != io.EOF:
		return nil, err
	default:
		odd, err := behind(z.src, z.method)
		if err != nil {
			return nil, err
		}
		end.Oddities = append(end.Oddities, odd...)
	}
	z.ending = end
	return end, nil
}
