package strictjson

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// manyKeys is the number of keys above which an object's keys are looked up in
// a map: below it a scan is faster, and most objects are small.
const manyKeys = 16

// Parse reads data as one JSON text. Its errors are a [*SizeError] and a
// [*SyntaxError]; the latter also stands for duplicate keys, text that is not
// UTF-8, and nesting or a number of values beyond the limits. The result does
// not refer to data.
func Parse(data []byte, o Options) (Value, error) {
	return parse(data, o, false)
}

// CheckFold reports an error where [Parse] would with zero [Options], and when
// an object holds two keys that differ in nothing but case. encoding/json takes
// such keys for the same struct field, so that two readers of one text could
// see different values. Below a key "annotations" case matters, for there keys
// are read into a map.
func CheckFold(data []byte) error {
	_, err := parse(data, Options{}, true)
	return err
}

func parse(data []byte, o Options, fold bool) (Value, error) {
	o.MaxBytes = min(cmp.Or(o.MaxBytes, DefaultMaxBytes), math.MaxUint32)
	o.MaxDepth = cmp.Or(o.MaxDepth, DefaultMaxDepth)
	o.MaxValues = cmp.Or(o.MaxValues, DefaultMaxValues)
	if int64(len(data)) > o.MaxBytes {
		return Value{}, &SizeError{Size: int64(len(data)), Max: o.MaxBytes}
	}
	if o.BOM {
		data = bytes.TrimPrefix(data, []byte("\ufeff"))
	}
	p := parser{text: string(data), opts: o, fold: fold}
	p.nodes = make([]node, 0, min(len(data)/16, o.MaxValues)+1)
	if err := p.run(); err != nil {
		return Value{}, err
	}
	return Value{doc: &document{text: p.text, nodes: p.nodes}}, nil
}

// parser is a recursive descent over text; its recursion ends at
// opts.MaxDepth.
type parser struct {
	text  string
	pos   int
	depth int
	opts  Options
	fold  bool
	nodes []node
	keys  []keyAt // of all objects that are open, the innermost last
}

// keyAt is a key and the offset at which it stands.
type keyAt struct {
	key string
	off int
}

func (p *parser) run() error {
	if err := p.checkUTF8(); err != nil {
		return err
	}
	p.space()
	if p.pos == len(p.text) {
		return p.fail(p.pos, "no JSON: the text is empty")
	}
	if err := p.value(); err != nil {
		return err
	}
	p.space()
	if p.pos < len(p.text) {
		return p.want("nothing after the value")
	}
	return nil
}

// checkUTF8 fails at the first byte that is not UTF-8.
func (p *parser) checkUTF8() error {
	if strings.HasPrefix(p.text, "\xff\xfe") || strings.HasPrefix(p.text, "\xfe\xff") {
		return p.fail(0, "text is UTF-16, not UTF-8")
	}
	if utf8.ValidString(p.text) {
		return nil
	}
	for i, r := range p.text {
		if r == utf8.RuneError && !strings.HasPrefix(p.text[i:], "\ufffd") {
			return p.fail(i, "byte 0x%02x is not UTF-8", p.text[i])
		}
	}
	return nil
}

// value reads the value at pos.
func (p *parser) value() error {
	switch p.peek() {
	case '{':
		return p.object()
	case '[':
		return p.array()
	case '"':
		return p.string()
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return p.number()
	}
	switch w := p.word(); w {
	case "true", "false":
		return p.add(Bool, len(w))
	case "null":
		return p.add(Null, len(w))
	case "NaN", "Infinity":
		if p.opts.NonFinite {
			return p.add(Number, len(w))
		}
		return p.fail(p.pos, "%s is not JSON", w)
	}
	return p.want("a value")
}

func (p *parser) array() error {
	self, err := p.open(Array)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		done, err := p.next(']', first)
		if err != nil {
			return err
		}
		if done {
			p.close(self)
			return nil
		}
		if err := p.value(); err != nil {
			return err
		}
	}
}

func (p *parser) object() error {
	self, err := p.open(Object)
	if err != nil {
		return err
	}
	base := len(p.keys)
	var seen map[string]int // nil while the object has few keys
	for first := true; ; first = false {
		done, err := p.next('}', first)
		if err != nil {
			return err
		}
		if done {
			p.keys = p.keys[:base]
			p.close(self)
			return nil
		}
		if seen, err = p.key(base, seen); err != nil {
			return err
		}
		p.space()
		if p.peek() != ':' {
			return p.want(`":"`)
		}
		p.pos++
		p.space()
		fold := p.fold
		if fold && p.keys[len(p.keys)-1].key == foldKey("annotations") {
			p.fold = false // a map: its keys are no struct's fields
		}
		if err := p.value(); err != nil {
			return err
		}
		p.fold = fold
	}
}

// next moves past what stands between an array's or object's elements, and
// reports whether it ended.
func (p *parser) next(end byte, first bool) (done bool, err error) {
	p.space()
	if p.peek() == end {
		p.pos++
		return true, nil
	}
	if first {
		return false, nil
	}
	if p.peek() != ',' {
		return false, p.want(fmt.Sprintf(`"," or "%c"`, end))
	}
	comma := p.pos
	p.pos++
	p.space()
	if p.peek() == end {
		return false, p.fail(comma, `"," before "%c"`, end)
	}
	return false, nil
}

// key reads a key and fails when the object whose keys begin at base has it
// already. It returns the set of keys, which is nil while a scan will do.
func (p *parser) key(base int, seen map[string]int) (map[string]int, error) {
	if p.peek() != '"' {
		return nil, p.want("a key in double quotes")
	}
	off := p.pos
	if err := p.string(); err != nil {
		return nil, err
	}
	n := p.nodes[len(p.nodes)-1]
	name := unquote(p.text[n.start:n.end])
	key := name
	if p.fold {
		key = foldKey(name)
	}
	earlier, dup := seen[key]
	if seen == nil {
		for _, k := range p.keys[base:] {
			if k.key == key {
				earlier, dup = k.off, true
				break
			}
		}
	}
	if dup {
		line, _ := position(p.text, earlier)
		return nil, p.fail(off, "duplicate key %.80q (first at line %d)", name, line)
	}
	if seen != nil {
		seen[key] = off
		return seen, nil
	}
	p.keys = append(p.keys, keyAt{key, off})
	if own := p.keys[base:]; len(own) > manyKeys {
		seen = make(map[string]int, 4*manyKeys)
		for _, k := range own {
			seen[k.key] = k.off
		}
		p.keys = p.keys[:base]
	}
	return seen, nil
}

// string reads the string at pos, a quote, and checks its escapes.
func (p *parser) string() error {
	for i := p.pos + 1; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			p.pos++ // the node is the text between the quotes
			err := p.add(String, i-p.pos)
			p.pos++
			return err
		case c == '\\':
			n := escapeLen(p.text[i:])
			if n == 0 {
				return p.fail(i, "bad escape in a string")
			}
			i += n - 1
		case c < ' ':
			return p.fail(i, "control character %U in a string", c)
		}
	}
	return p.fail(p.pos, "string is not closed")
}

// number reads the number at pos, a digit or minus sign.
func (p *parser) number() error {
	i := p.pos
	if p.text[i] == '-' {
		i++
		if p.opts.NonFinite && strings.HasPrefix(p.text[i:], "Infinity") {
			return p.add(Number, len("-Infinity"))
		}
	}
	whole := digits(p.text[i:])
	if whole > 1 && p.text[i] == '0' {
		return p.fail(p.pos, "number has a leading zero")
	}
	i += whole
	ok := whole > 0
	if strings.HasPrefix(p.text[i:], ".") {
		n := digits(p.text[i+1:])
		ok = ok && n > 0
		i += 1 + n
	}
	if i < len(p.text) && p.text[i]|0x20 == 'e' {
		i++
		if i < len(p.text) && (p.text[i] == '+' || p.text[i] == '-') {
			i++
		}
		n := digits(p.text[i:])
		ok = ok && n > 0
		i += n
	}
	if !ok {
		return p.fail(p.pos, "number lacks a digit")
	}
	return p.add(Number, i-p.pos)
}

// digits returns the length of the run of decimal digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// add appends the node of the n bytes at pos and moves past them.
func (p *parser) add(k Kind, n int) error {
	if len(p.nodes) >= p.opts.MaxValues {
		return p.fail(p.pos, "more than %d values", p.opts.MaxValues)
	}
	p.nodes = append(p.nodes, node{
		kind:  k,
		start: uint32(p.pos),
		end:   uint32(p.pos + n),
		next:  uint32(len(p.nodes) + 1),
	})
	p.pos += n
	return nil
}

// open begins an array or object and returns the index of its node.
func (p *parser) open(k Kind) (self int, err error) {
	if p.depth >= p.opts.MaxDepth {
		return 0, p.fail(p.pos, "nested deeper than %d levels", p.opts.MaxDepth)
	}
	p.depth++
	return len(p.nodes), p.add(k, 1)
}

// close ends the array or object of the node at index self.
func (p *parser) close(self int) {
	p.depth--
	p.nodes[self].end = uint32(p.pos)
	p.nodes[self].next = uint32(len(p.nodes))
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the byte at pos, or 0, which no JSON has outside of strings, at
// the end.
func (p *parser) peek() byte {
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// word returns the run of ASCII letters at pos, or its first 20.
func (p *parser) word() string {
	rest := p.text[p.pos:]
	n := 0
	for n < min(len(rest), 20) && 'a' <= rest[n]|0x20 && rest[n]|0x20 <= 'z' {
		n++
	}
	return rest[:n]
}

// want fails because something else than what stands at pos.
func (p *parser) want(what string) error {
	if p.pos == len(p.text) {
		return p.fail(p.pos, "want %s, got the end", what)
	}
	got := p.word()
	if got == "" {
		r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
		got = string(r)
	}
	return p.fail(p.pos, "want %s, got %q", what, got)
}

func (p *parser) fail(off int, format string, args ...any) error {
	line, column := position(p.text, off)
	return &SyntaxError{Line: line, Column: column, Msg: fmt.Sprintf(format, args...)}
}
