package joblib

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// dtype is numpy's description of an array's elements.
type dtype struct {
	code   string // as numpy spells it: f8, U12, V64, O8
	order  byte   // < > | =
	size   int64  // of an element in bytes; -1 until its state is known
	object bool   // it holds Python objects
	fields []field
	base   int     // 1 + the index of a subarray's element; 0: none
	dims   []int64 // of a subarray
	depth  int     // how many levels of fields and subarrays it has
}

type field struct {
	name   string
	dtype  int
	offset int64
}

const (
	maxFields     = 4096
	maxFieldDepth = 8
	maxDims       = 32 // numpy before 2.0; since then 64, which joblib's files do not need
)

// dtypeRule is for numpy.dtype(code, False, True), which is all that numpy
// writes.
func dtypeRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 3)
	if !ok || !isSwitch(a[1]) || !isSwitch(a[2]) || a[2].payload() != 1 {
		return false
	}
	code, ok := m.str(a[0])
	if m.isGlobal(a[0], "numpy", "record") || m.isGlobal(a[0], "numpy.core.records", "record") || m.isGlobal(a[0], "numpy.rec", "record") {
		code, ok = "V", true
	}
	d := dtype{code: code, size: -1, order: '='}
	if !ok || !d.known() {
		return false
	}
	m.dtypes = append(m.dtypes, d)
	m.spent += 160
	o.flags |= dtypeAt
	o.info = int32(len(m.dtypes))
	return true
}

// isSwitch reports whether v is a bool, or a number that numpy before 1.20 wrote
// for one.
func isSwitch(v value) bool {
	return v.kind() == kBool || v.kind() == kInt && v.payload() <= 1
}

// known reports whether the code is one that numpy writes, and takes the size
// of an element from it where it tells.
func (d *dtype) known() bool {
	if d.code == "V" {
		return true // of a record, whose size its state tells
	}
	if len(d.code) < 2 {
		return false
	}
	n, err := strconv.ParseUint(d.code[1:], 10, 31)
	if err != nil {
		return false
	}
	sizes := map[byte][]uint64{
		'b': {1}, 'i': {1, 2, 4, 8}, 'u': {1, 2, 4, 8}, 'f': {2, 4, 8, 12, 16}, 'c': {8, 16, 24, 32}, 'O': {4, 8}, 'M': {8}, 'm': {8},
	}
	switch kind := d.code[0]; kind {
	case 'S', 'V', 'U':
		if d.size = int64(n); kind == 'U' {
			d.size = 4 * int64(n)
		}
	default:
		if !slices.Contains(sizes[kind], n) {
			return false
		}
		d.size, d.object = int64(n), kind == 'O'
	}
	return true
}

// buildDtype takes a dtype's state: version, byte order, subarray, names,
// fields, element size, alignment, flags, and for dates the unit. numpy
// believes it, also where it contradicts the code; a file in which it does is
// made to be misread.
func (m *machine) buildDtype(o *object, state value) error {
	d := &m.dtypes[o.info-1]
	a := m.list(state, 9)
	bad := func(what string) error { return &streamError{rule: RuleArray, msg: "a dtype with " + what} }
	if state.kind() != kTuple || len(a) < 8 {
		return bad("a state that is no tuple of 8 or 9")
	}
	if v, ok := m.integer(a[0]); !ok || v != 3 && v != 4 || (v == 4) != (len(a) == 9) {
		return bad("a state of another version than 3 and 4")
	}
	if order, ok := m.str(a[1]); !ok || len(order) != 1 || !strings.Contains("<>|=", order) {
		return bad("no byte order")
	} else {
		d.order = order[0]
	}
	size, ok1 := m.integer(a[5])
	align, ok2 := m.integer(a[6])
	numFlags, ok3 := m.integer(a[7])
	switch {
	case !ok1 || !ok2 || !ok3 || align < -1 || align > 64 || numFlags < -128 || numFlags > 255:
		return bad("a size, alignment or flags that are none")
	case size == -1 && d.size >= 0 && !strings.ContainsAny(d.code[:1], "SUV"):
	case d.code == "V" && size >= 0 && size <= math.MaxInt32:
		d.size = size
	case size != d.size:
		return bad(fmt.Sprintf("elements of %d bytes, but the code %s", size, d.code))
	}
	if err := m.buildFields(d, a[2], a[3], a[4]); err != "" {
		return bad(err)
	}
	// numpy reads objects by one of the lowest two bits in one place and by the
	// other in another.
	if lowest := numFlags & 3; d.object && lowest != 3 || !d.object && lowest != 0 {
		return bad("flags that contradict its code: objects where there are none, or none where there are")
	}
	if len(a) == 9 && !m.isPlain(a[8]) {
		return bad("a unit that is none")
	}
	return nil
}

// buildFields takes the parts of a dtype, and says what is wrong with them.
func (m *machine) buildFields(d *dtype, sub, names, fields value) string {
	if sub.kind() != kNone {
		return m.buildSubarray(d, sub)
	}
	if names.kind() == kNone && fields.kind() == kNone {
		return ""
	}
	list := m.list(names, maxFields)
	if d.code[0] != 'V' || names.kind() != kTuple || list == nil || fields.kind() != kDict {
		return "fields that are none"
	}
	m.ops += len(list) + m.total(fields)
	m.boxes.at(fields.index()).frozen = true // the dtype keeps it
	described := make(map[string]value, len(list))
	for k, v := range m.pairs(fields) {
		if name, ok := m.str(k); ok {
			described[name] = v
		}
	}
	for _, n := range list {
		name, ok := m.str(n)
		f, found := described[name]
		if !ok || !found {
			return "a field that is not described"
		}
		parts := m.list(f, 3)
		if f.kind() != kTuple || len(parts) < 2 {
			return "a field that is not described"
		}
		inner, ok := m.dtypeOf(parts[0])
		offset, ok2 := m.integer(parts[1])
		if !ok || !ok2 || offset < 0 || inner.size < 0 || offset+inner.size > d.size {
			return "a field that does not lie in it"
		}
		if d.depth = max(d.depth, 1+inner.depth); d.depth > maxFieldDepth {
			return "fields in too many levels"
		}
		d.object = d.object || inner.object
		d.fields = append(d.fields, field{name, m.dtypeIndex(parts[0]), offset})
	}
	m.spent += int64(len(d.fields)) * 48
	return ""
}

func (m *machine) buildSubarray(d *dtype, sub value) string {
	parts, ok := m.tuple(sub, 2)
	if !ok || d.code[0] != 'V' {
		return "a subarray that is none"
	}
	inner, ok := m.dtypeOf(parts[0])
	dims, ok2 := m.dims(parts[1])
	if n, fits := product(dims, inner.size); !ok || !ok2 || !fits || n != d.size {
		return "a subarray that does not fill it"
	}
	if d.depth = 1 + inner.depth; d.depth > maxFieldDepth {
		return "subarrays in too many levels"
	}
	d.object, d.base, d.dims = inner.object, m.dtypeIndex(parts[0])+1, dims
	return ""
}

func (h *heap) dtypeIndex(v value) int { return int(h.objects.at(v.index()).info) - 1 }

// dtypeOf returns the dtype that v is, if its state is known.
func (h *heap) dtypeOf(v value) (dtype, bool) {
	if v.kind() != kObject {
		return dtype{}, false
	}
	o := h.objects.at(v.index())
	if o.flags&dtypeAt == 0 || o.flags&built == 0 {
		return dtype{}, false
	}
	return h.dtypes[o.info-1], true
}

// dims reads a shape: one number, or a tuple of them, none negative.
func (h *heap) dims(v value) ([]int64, bool) {
	if n, ok := h.integer(v); ok && v.kind() == kInt {
		return []int64{n}, n >= 0
	}
	if v.kind() != kTuple || h.total(v) > maxDims {
		return nil, false
	}
	dims := make([]int64, 0, h.total(v))
	for it := range h.each(v) {
		n, ok := h.integer(it)
		if !ok || n < 0 || it.kind() == kObject {
			return nil, false
		}
		dims = append(dims, n)
	}
	return dims, true
}

// product is size times all of dims, if that can be a number of bytes.
func product(dims []int64, size int64) (int64, bool) {
	n := size
	for _, d := range dims {
		if d == 0 || n == 0 {
			return 0, n >= 0
		}
		if n < 0 || n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, n >= 0
}

// maxDtypeText bounds the text of a dtype, in bytes.
const maxDtypeText = 500

// dtypeText spells a dtype as numpy's str does, records by their fields.
func (h *heap) dtypeText(i int) string {
	var b strings.Builder
	h.spellDtype(&b, i)
	if b.Len() > maxDtypeText {
		return b.String()[:maxDtypeText] + "…"
	}
	return b.String()
}

func (h *heap) spellDtype(b *strings.Builder, i int) {
	d := &h.dtypes[i]
	switch {
	case b.Len() > maxDtypeText:
	case d.base > 0:
		fmt.Fprintf(b, "%v", d.dims)
		h.spellDtype(b, d.base-1)
	case len(d.fields) > 0:
		sep := "{"
		for _, f := range d.fields {
			b.WriteString(sep + f.name + ":")
			if sep = ","; b.Len() > maxDtypeText {
				break
			}
			h.spellDtype(b, f.dtype)
		}
		b.WriteString("}")
	case d.code[0] == 'O':
		b.WriteString("O")
	case d.code == "V":
		fmt.Fprintf(b, "|V%d", d.size)
	default:
		order := d.order
		if d.size == 1 || strings.Contains("SVb", d.code[:1]) {
			order = '|'
		}
		b.WriteString(string(order) + d.code)
	}
}
