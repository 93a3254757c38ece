package joblib

import (
	"encoding/binary"
	"iter"
	"math"
	"slices"
)

// kind is what a symbolic value stands for.
type kind uint8

const (
	kNone kind = iota
	kBool
	kInt       // of at most 56 bits
	kLong      // of more: its little-endian bytes
	kFloat     // an index into the heap's floats
	kStr       // a span of the heap's text
	kBytes     // a span
	kByteArray // a span
	kCut       // a string or bytes of which only the beginning is kept
	kGlobal    // a class or function, by name
	kTuple     // the containers: an index into the heap's boxes
	kList
	kDict
	kSet
	kObject // what a global made
	kArray  // one of joblib's arrays
	kOpaque // what cannot be known
)

// value is a symbolic value in 8 bytes: the kind, and below it the payload:
// the number itself, an index, or a span of text. Files with millions of small
// values exist; a pointer for each would cost 20 times their size.
type value uint64

const (
	payloadBits = 56
	spanBits    = 24 // of a span's length; its offset has the other 32
)

func newValue(k kind, payload uint64) value { return value(k)<<payloadBits | value(payload) }

func (v value) kind() kind      { return kind(v >> payloadBits) }
func (v value) payload() uint64 { return uint64(v) & (1<<payloadBits - 1) }
func (v value) index() int      { return int(v.payload()) }
func (v value) bool() bool      { return v.kind() == kBool && v.payload() == 1 }

// smallInt is the number of a kInt.
func (v value) smallInt() int64 { return int64(v<<(64-payloadBits)) >> (64 - payloadBits) }

func boolValue(b bool) value {
	if b {
		return newValue(kBool, 1)
	}
	return newValue(kBool, 0)
}

// isContainer reports whether v has items.
func (v value) isContainer() bool { return v.kind() >= kTuple && v.kind() <= kSet }

const (
	chunkSize = 1 << 10
	textChunk = 256 << 10

	// maxKept is how many items of one container are kept; the others are
	// counted.
	maxKept = 1 << 16
	// maxText is how many bytes of one string are kept, maxRaw of bytes and
	// arrays.
	maxText = 4 << 10
	maxRaw  = inputSize - 1
)

// arena is a growing array that never moves what is in it.
type arena[T any] struct {
	chunks [][]T
	n      int
}

func (a *arena[T]) at(i int) *T { return &a.chunks[i/chunkSize][i%chunkSize] }

// add appends t, of size bytes, at the expense of h.
func (a *arena[T]) add(h *heap, size int64, t T) int {
	if a.n/chunkSize == len(a.chunks) {
		h.spent += chunkSize * size
		a.chunks = append(a.chunks, make([]T, chunkSize))
	}
	*a.at(a.n) = t
	a.n++
	return a.n - 1
}

// box is a container: runs of items, each but the first in a box of its own.
type box struct {
	first, n   uint32 // the run in the heap's items
	next, last uint32 // the box of the next run, and of the last; 0: none
	total      uint32 // how many items it has been given
	frozen     bool   // an object was made of it, and refers to it
	opaque     bool   // among those that are not kept is more than numbers and text
}

// object is what a global made: by NEWOBJ, INST, OBJ or REDUCE.
type object struct {
	class value // the callable
	args  value // a tuple; kNone where there are none
	state value // of the first BUILD; kNone before
	items value // a box that holds what SETITEM and APPEND gave; kNone before
	info  int32 // of numpy's dtypes and arrays: 1 + the index; else 0
	flags flags
}

type flags uint8

const (
	built     flags = 1 << iota // BUILD has given it its state
	made                        // by NEWOBJ or like it, without running __init__
	wrapperAt                   // it is joblib's placeholder of an array
	dtypeAt                     // it is a numpy.dtype; info counts from 1
	arrayAt                     // it is a numpy array; info counts from 1
)

// cut is a string or bytes of which only the beginning is kept.
type cut struct {
	kept  value // a span
	total int64
	whole []byte // everything, where the nodes of trees are checked
}

// array is one in the file, of joblib's or of numpy's own making.
type array struct {
	offset  int64
	count   int64 // of elements
	shape   value // a tuple
	raw     value // the bytes, as a span, where they are few; else kNone
	data    value // what stands for the elements of an array of objects
	nodes   int32 // 1 + the index of the summary of tree nodes; 0: none
	dtype   int32
	fortran bool
}

// heap holds what the values stand for. It never shrinks.
type heap struct {
	text    [][]byte // chunks of textChunk bytes of capacity
	floats  arena[float64]
	items   arena[value]
	boxes   arena[box]
	objects arena[object]
	arrays  arena[array]
	cuts    arena[cut]
	dtypes  []dtype
	nodes   []nodes
	globals []global
	byName  map[[2]string]int
	spent   int64  // bytes
	undo    []undo // how boxes were before a view changed them; nil: no view
}

// undo is a box as it was.
type undo struct {
	index int
	box   box
}

// remember keeps a box as it is, where that is asked for.
func (h *heap) remember(i int) {
	if h.undo != nil {
		h.undo = append(h.undo, undo{i, *h.boxes.at(i)})
	}
}

// restore undoes what was remembered.
func (h *heap) restore() {
	for _, u := range slices.Backward(h.undo) {
		*h.boxes.at(u.index) = u.box
	}
}

// keep copies b, of at most maxRaw bytes, and returns its span.
func (h *heap) keep(k kind, b []byte) value {
	last := len(h.text) - 1
	if last < 0 || len(h.text[last])+len(b) > textChunk {
		h.text = append(h.text, make([]byte, 0, textChunk))
		h.spent += textChunk
		last++
	}
	at := last*textChunk + len(h.text[last])
	h.text[last] = append(h.text[last], b...)
	return newValue(k, uint64(at)<<spanBits|uint64(len(b)))
}

// bytes returns what a span or a cut keeps.
func (h *heap) bytes(v value) []byte {
	switch v.kind() {
	case kStr, kBytes, kByteArray, kLong:
		at, n := int(v.payload()>>spanBits), int(v.payload()&(1<<spanBits-1))
		if n == 0 {
			return nil // it may lie where the next chunk would begin
		}
		return h.text[at/textChunk][at%textChunk:][:n]
	case kCut:
		return h.bytes(h.cuts.at(v.index()).kept)
	}
	return nil
}

// size is the length of a string or bytes in the file.
func (h *heap) size(v value) int64 {
	if v.kind() == kCut {
		return h.cuts.at(v.index()).total
	}
	return int64(len(h.bytes(v)))
}

// str returns a whole string.
func (h *heap) str(v value) (string, bool) {
	if v.kind() != kStr {
		return "", false
	}
	return string(h.bytes(v)), true
}

// is reports whether v is this string.
func (h *heap) is(v value, s string) bool { return v.kind() == kStr && string(h.bytes(v)) == s }

// integer returns a whole number, also one that numpy keeps, of at most 64
// bits.
func (h *heap) integer(v value) (int64, bool) {
	switch v.kind() {
	case kInt:
		return v.smallInt(), true
	case kLong:
		b := h.bytes(v)
		if len(b) == 0 || len(b) > 8 {
			return 0, false
		}
		return littleEndian(b), true
	case kObject:
		s, _ := h.scalar(v)
		n, ok := s.(int64)
		return n, ok
	}
	return 0, false
}

// littleEndian reads a two's complement number of 1 to 8 bytes.
func littleEndian(b []byte) int64 {
	var full [8]byte
	n := copy(full[:], b)
	shift := 64 - 8*n
	return int64(binary.LittleEndian.Uint64(full[:])<<shift) >> shift
}

func (h *heap) newInt(n int64) value {
	if v := newValue(kInt, uint64(n)&(1<<payloadBits-1)); v.smallInt() == n {
		return v
	}
	return h.keep(kLong, binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func (h *heap) newFloat(bits uint64) value {
	return newValue(kFloat, uint64(h.floats.add(h, 8, math.Float64frombits(bits))))
}

func (h *heap) float(v value) float64 { return *h.floats.at(v.index()) }

// newBox makes a container of the items.
func (h *heap) newBox(k kind, items []value) value {
	if h.boxes.n == 0 {
		h.boxes.add(h, 24, box{}) // 0 stands for none
	}
	i := h.boxes.add(h, 24, box{})
	v := newValue(k, uint64(i))
	h.extend(v, items)
	return v
}

// extend appends items to a container, and keeps the first of them.
func (h *heap) extend(v value, items []value) {
	b := h.boxes.at(v.index())
	h.remember(v.index())
	before := b.total
	b.total += uint32(min(uint64(len(items)), math.MaxUint32-uint64(before)))
	kept := max(0, min(len(items), maxKept-int(before)))
	for _, it := range items[kept:] {
		b.opaque = b.opaque || it.kind() > kCut
	}
	if items = items[:kept]; kept == 0 {
		return
	}
	run := b
	if b.last != 0 {
		h.remember(int(b.last))
		run = h.boxes.at(int(b.last))
	}
	if int(run.first+run.n) != h.items.n {
		if run.n > 0 {
			i := h.boxes.add(h, 24, box{})
			run.next, b.last = uint32(i), uint32(i)
			run = h.boxes.at(i)
		}
		run.first = uint32(h.items.n)
	}
	for _, it := range items {
		h.items.add(h, 8, it)
	}
	run.n += uint32(len(items))
}

// each yields the items that are kept of a container; of a dict keys and
// values in turn.
func (h *heap) each(v value) iter.Seq[value] {
	return func(yield func(value) bool) {
		if !v.isContainer() {
			return
		}
		for i := v.index(); i != 0; {
			b := *h.boxes.at(i)
			for j := b.first; j < b.first+b.n; j++ {
				if !yield(*h.items.at(int(j))) {
					return
				}
			}
			i = int(b.next)
		}
	}
}

// pairs yields the keys and values of a dict.
func (h *heap) pairs(v value) iter.Seq2[value, value] {
	return func(yield func(value, value) bool) {
		if v.kind() != kDict {
			return
		}
		key, odd := value(0), false
		for it := range h.each(v) {
			if odd = !odd; odd {
				key = it
			} else if !yield(key, it) {
				return
			}
		}
	}
}

// total is how many items a container was given.
func (h *heap) total(v value) int {
	if !v.isContainer() {
		return 0
	}
	return int(h.boxes.at(v.index()).total)
}

// list returns the items of a container of at most max; nil for others.
func (h *heap) list(v value, max int) []value {
	if h.total(v) > max || !v.isContainer() {
		return nil
	}
	items := make([]value, 0, h.total(v))
	for it := range h.each(v) {
		items = append(items, it)
	}
	return items
}

// tuple returns the items of a tuple of exactly n.
func (h *heap) tuple(v value, n int) ([]value, bool) {
	if v.kind() != kTuple || h.total(v) != n {
		return nil, false
	}
	return h.list(v, n), true
}

// cut reports whether a container has more items than are kept.
func (h *heap) cut(v value) bool { return h.total(v) > maxKept }

// get returns the value of a dict's key; the last one counts, as in Python.
func (h *heap) get(v value, key string) (value, bool) {
	var found value
	ok := false
	for k, val := range h.pairs(v) {
		if h.is(k, key) {
			found, ok = val, true
		}
	}
	return found, ok
}
