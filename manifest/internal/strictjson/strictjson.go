// Package strictjson reads JSON from files and registries that nobody vouches
// for into an ordered tree.
//
// It differs from encoding/json where that package is too kind or too strict
// for such bytes: a key that stands twice in an object is an error, and so is
// text that is not UTF-8; size, depth and number of values are limited; NaN
// and Infinity, which Python writes, can be accepted; members keep their order,
// numbers their literal text; and every value and every error knows its line
// and column.
//
// [Parse] gives the tree. [CheckFold] only checks, for bytes that encoding/json
// is about to decode.
package strictjson

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits that a zero [Options] stands for.
const (
	DefaultMaxBytes  = 16 << 20
	DefaultMaxDepth  = 100
	DefaultMaxValues = 1 << 20
)

// Options say what [Parse] accepts. The zero value is JSON as RFC 8259 has it,
// within the default limits.
type Options struct {
	MaxBytes  int64 // size of the input in bytes; 0 means DefaultMaxBytes, the most is 4 GiB - 1
	MaxDepth  int   // how deep arrays and objects nest; 0 means DefaultMaxDepth
	MaxValues int   // number of values, keys included; 0 means DefaultMaxValues
	NonFinite bool  // accept NaN, Infinity and -Infinity as Python's json module writes them
	BOM       bool  // accept a leading UTF-8 byte order mark
}

// SyntaxError says what is wrong with the JSON, and where. Line and Column
// count from 1, columns in characters (not bytes), as Python's json module
// counts them; a byte order mark is not counted.
type SyntaxError struct {
	Line, Column int
	Msg          string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Msg)
}

// SizeError reports an input that is too large to be read, in bytes.
type SizeError struct {
	Size, Max int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("too large: %d bytes, at most %d are read", e.Size, e.Max)
}

// Kind is the type of a [Value].
type Kind uint8

// The kinds of values. Invalid is the kind of the zero Value.
const (
	Invalid Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// String returns the kind with its article, for messages: "an object".
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case Array:
		return "a list"
	case Object:
		return "an object"
	}
	return "nothing"
}

// Value is one value of a parsed text: a small handle, to be copied freely and
// safe for concurrent use. All values of a text share its memory: a copy of the
// input and 16 bytes for each value and key.
type Value struct {
	doc *document
	i   int // in doc.nodes
}

// document is a parsed text: its nodes in the order in which they stand, an
// object's as key, value, key, value.
type document struct {
	text  string
	nodes []node
}

// node is a value or a key. Its text is text[start:end], for a string without
// the quotes; next is the index of the node after it and all it holds.
type node struct {
	kind             Kind
	start, end, next uint32
}

func (v Value) node() node {
	if v.doc == nil {
		return node{}
	}
	return v.doc.nodes[v.i]
}

// Kind returns the value's type.
func (v Value) Kind() Kind { return v.node().kind }

// Text returns a string's decoded text, or the literal of a number, a boolean
// or null as it stands in the input. It is empty for arrays and objects.
// Surrogates without a partner are decoded as U+FFFD, as encoding/json does.
func (v Value) Text() string {
	n := v.node()
	switch n.kind {
	case String:
		return unquote(v.doc.text[n.start:n.end])
	case Number, Bool, Null:
		return v.doc.text[n.start:n.end]
	}
	return ""
}

// Float returns a number's nearest float64 and whether it is finite: NaN, the
// infinities and what is too large for a float64, such as 1e999, are not. It is
// NaN for everything that is no number.
func (v Value) Float() (f float64, finite bool) {
	if v.Kind() != Number {
		return math.NaN(), false
	}
	// The only error left is ErrRange, with an infinity as the result.
	f, _ = strconv.ParseFloat(v.Text(), 64)
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// Members yields an object's keys and values in the order of the input, and
// nothing for other kinds.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		n := v.node()
		if n.kind != Object {
			return
		}
		for i := v.i + 1; i < int(n.next); {
			key, val := Value{v.doc, i}, Value{v.doc, i + 1}
			if !yield(key.Text(), val) {
				return
			}
			i = int(val.node().next)
		}
	}
}

// Items yields an array's values in order, and nothing for other kinds.
func (v Value) Items() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		n := v.node()
		if n.kind != Array {
			return
		}
		for i := v.i + 1; i < int(n.next); {
			item := Value{v.doc, i}
			if !yield(item) {
				return
			}
			i = int(item.node().next)
		}
	}
}

// Member returns the value under key, or the zero Value, whose kind is
// [Invalid].
func (v Value) Member(key string) Value {
	for k, val := range v.Members() {
		if k == key {
			return val
		}
	}
	return Value{}
}

// Position returns the line and column at which the value begins, counted as
// in [SyntaxError]. It takes time proportional to the text before the value.
func (v Value) Position() (line, column int) {
	if v.doc == nil {
		return 0, 0
	}
	n := v.node()
	start := int(n.start)
	if n.kind == String {
		start-- // its quote
	}
	return position(v.doc.text, start)
}

// position returns the line and column of a byte offset.
func position(text string, off int) (line, column int) {
	before := text[:off]
	line = strings.Count(before, "\n") + 1
	return line, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}
