package container

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// behind looks at what follows the first member.
func behind(src *source, m Method) ([]Oddity, error) {
	if m == Plain {
		return nil, nil
	}
	head, err := src.Peek(lzma.HeaderLen)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 0 {
		return nil, nil
	}
	if what := continues(m, head); what != "" {
		return []Oddity{{ExtraMember, src.offset(), what + " behind the first " + member(m)}}, nil
	}
	return []Oddity{{TrailingBytes, src.offset(),
		fmt.Sprintf("bytes behind the %s that begin with %x", member(m), head)}}, nil
}

// member is the format's own word for a part that stands for itself.
func member(m Method) string {
	switch m {
	case Gzip:
		return "gzip member"
	case LZ4:
		return "lz4 frame"
	}
	return string(m) + " stream"
}

// continues names what head begins, if it is something that a reader of m could
// go on with. For xz and lzma that is all that liblzma's automatic format takes.
func continues(m Method, head []byte) string {
	begins := func(s string) bool { return bytes.HasPrefix(head, []byte(s)) }
	switch m {
	case Bzip2:
		if begins("BZh") {
			return "a second bzip2 stream"
		}
	case LZMA, XZ:
		switch {
		case begins(xzMagic):
			return "an xz stream"
		case begins("LZIP"):
			return "an lzip member"
		case aloneHeader(head):
			return "an lzma stream"
		}
	case LZ4:
		switch {
		case Detect(head) == LZ4:
			return "a second lz4 frame"
		case len(head) >= 4 && head[0]>>4 == 5 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")):
			return "a skippable lz4 frame"
		}
	default:
		if Detect(head) == m {
			return "a second " + member(m)
		}
	}
	return ""
}
