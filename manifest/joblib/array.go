package joblib

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

const alignment = 16 // of the arrays of joblib 1.2 and later

// wrapped is what joblib's placeholder says of the array behind it.
type wrapped struct {
	dims    []int64
	shape   value
	fortran bool
	dtype   int
	aligned bool // a padding byte stands before the data
}

// readArray is joblib's hook: the BUILD of a placeholder is followed by the
// array itself, raw or, for one of objects, as a pickle
// (https://github.com/joblib/joblib/blob/1.5.3/joblib/numpy_pickle.py).
// The placeholder has to be as joblib writes it: any freedom there makes the
// reader lose step with joblib, which is a way to hide code.
func (m *machine) readArray(o *object, state value) error {
	if m.depth > 0 {
		return malformed("the placeholder of an array in an array of objects, which joblib does not follow")
	}
	if m.frame > m.in.pos() {
		return malformed("an array before the end of its frame")
	}
	m.frame = -1
	w, fault := m.unwrap(state)
	if fault != "" {
		return &streamError{rule: RuleArray, msg: "the placeholder of an array has " + fault}
	}
	a := array{shape: w.shape, fortran: w.fortran, dtype: int32(w.dtype), offset: m.in.pos()}
	d := &m.dtypes[w.dtype]
	var fits bool
	if a.count, fits = product(w.dims, 1); !fits {
		return &streamError{rule: RuleArray, msg: fmt.Sprintf("an array of %v elements", w.dims)}
	}
	size, fits := product(w.dims, d.size)
	if !fits {
		return &streamError{rule: RuleArray, msg: fmt.Sprintf("an array of %v elements of %d bytes", w.dims, d.size)}
	}
	err := error(nil)
	if d.object {
		a.data, err = m.nestedPickle()
	} else {
		m.viewPlain(size)
		err = m.rawArray(&a, w, size)
	}
	m.arrayView = true
	if err != nil {
		return err
	}
	m.stack[len(m.stack)-1] = newValue(kArray, uint64(m.arrays.add(m.heap, 64, a)))
	return nil
}

// unwrap reads a placeholder's state, and says what is wrong with it.
func (m *machine) unwrap(state value) (w wrapped, fault string) {
	if state.kind() != kDict || m.total(state) > 12 {
		return w, "a state that is not joblib's"
	}
	seen := make(map[string]value)
	known := []string{"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
	for k, v := range m.pairs(state) {
		key, _ := m.str(k)
		if _, twice := seen[key]; twice {
			return w, "an attribute twice"
		}
		if !slices.Contains(known, key) {
			return w, fmt.Sprintf("the attribute %.40q", key)
		}
		seen[key] = v
	}
	switch align, there := seen["numpy_array_alignment_bytes"]; {
	case !there || align.kind() == kNone:
		m.unpadded = m.unpadded || !there
	case align.kind() == kInt && align.smallInt() == alignment:
		w.aligned = true
	default:
		return w, "an alignment other than 16"
	}
	ok := false
	if w.dims, ok = m.dims(seen["shape"]); !ok || seen["shape"].kind() != kTuple {
		return w, "a shape that is none"
	}
	w.shape = seen["shape"]
	if !m.takesClass(seen["subclass"]) {
		return w, "a class that is not numpy's array"
	}
	order, _ := m.str(seen["order"])
	if w.fortran = order == "F"; !w.fortran && order != "C" {
		return w, "an order other than C and F"
	}
	if seen["allow_mmap"].kind() != kBool && len(seen) > 4 {
		return w, "an allow_mmap that is none"
	}
	if _, ok = m.dtypeOf(seen["dtype"]); !ok {
		return w, "a dtype that is none"
	}
	w.dtype = m.dtypeIndex(seen["dtype"])
	return w, ""
}

// rawArray steps over the bytes of an array.
func (m *machine) rawArray(a *array, w wrapped, size int64) error {
	var padding []byte
	if w.aligned {
		var err error
		if padding, err = m.padding(); err != nil {
			return err
		}
		m.padded = true
	}
	a.offset = m.in.pos()
	see, done := m.watchNodes(a, w.dtype)
	end := min(size, int64(max(len(padding), 1))) // the last byte has to be there
	keep := size <= maxRaw && m.dtypes[w.dtype].listable(w.dims)
	if keep {
		end = size
	}
	if m.limit > 0 && size > m.limit {
		return &streamError{rule: RuleLimit, msg: fmt.Sprintf("an array of %d bytes", size)}
	}
	if err := m.in.skip(size-end, see); err != nil {
		return err
	}
	b, err := m.in.take(int(end))
	if err != nil {
		return err
	}
	if see != nil {
		see(b)
	}
	done()
	if keep {
		a.raw = m.keep(kBytes, b)
	}
	// As much as was skipped before is left over behind, to who does not skip.
	all := append(padding, b[len(b)-int(min(end, int64(len(padding)))):]...)
	m.viewUnpadded(all[len(all)-len(padding):])
	return nil
}

// padding steps over the bytes that align an array, the first of which says how
// many follow, and returns them.
func (m *machine) padding() ([]byte, error) {
	want := alignment - byte((m.in.pos()+1)%alignment)
	n, err := m.in.byte()
	if err != nil {
		return nil, err
	}
	fill, err := m.in.take(int(n))
	if err != nil {
		return nil, err
	}
	if n != want || len(bytes.Trim(fill, "\xff")) > 0 {
		m.note(Review, RuleArray, "an array is padded as joblib does not pad it")
	}
	return append([]byte{n}, fill...), nil
}

// nestedPickle walks the pickle that stands for an array of objects. It has a
// memo of its own, and Python reads it without joblib's hook.
func (m *machine) nestedPickle() (value, error) {
	outer := *m
	if !m.arrayView && !m.plain {
		m.view = newPlainView(&outer.memo)
	}
	m.held = m.memory() - m.spent
	m.stack, m.marks, m.memo = nil, nil, memo{}
	m.proto, m.outer, m.protoSeen, m.frame, m.depth = 0, outer.proto, false, -1, 1
	m.maxProto = 0
	v, err := m.run()
	m.nested = max(m.nested, m.maxProto)
	m.stack, m.marks, m.memo = outer.stack, outer.marks, outer.memo
	m.proto, m.protoSeen, m.frame, m.depth = outer.proto, outer.protoSeen, outer.frame, 0
	m.maxProto, m.view, m.held = outer.maxProto, nil, 0
	return v, err
}

// reconstructRule is for numpy's _reconstruct(ndarray, (0,), b"b"); BUILD then
// makes the array.
func reconstructRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 3)
	if !ok || !m.takesClass(a[0]) {
		return false
	}
	_, ok = m.dims(a[1])
	b, n := m.data(a[2])
	if s, isText := m.str(a[2]); isText {
		b, n = []byte(s), int64(len(s))
	}
	if !ok || n != 1 || b[0] != 'b' {
		return false
	}
	o.flags |= arrayAt
	return true
}

// buildArray takes the state of numpy's own pickle of an array: version, shape,
// dtype, whether in Fortran's order, and the bytes or the list of objects.
func (m *machine) buildArray(o *object, state value) error {
	bad := func(what string) error { return &streamError{rule: RuleArray, msg: "an array with " + what} }
	s := m.list(state, 5)
	if state.kind() != kTuple || len(s) != 5 {
		if m.isMasked(o) {
			o.flags &^= arrayAt // its state holds the mask, and is of its own shape
			o.state = state
			return nil
		}
		return bad("a state that is no tuple of 5")
	}
	d, ok := m.dtypeOf(s[2])
	if v, isInt := m.integer(s[0]); !ok || !isInt || v != 1 || !isSwitch(s[3]) {
		return bad("a version or dtype that is none")
	}
	return m.addArray(o, s[1], s[4], d, m.dtypeIndex(s[2]), s[3].payload() == 1)
}

func (m *machine) isMasked(o *object) bool {
	a := m.list(o.args, 3)
	return len(a) > 0 && (m.isGlobal(a[0], "numpy.ma.core", "MaskedArray") || m.isGlobal(a[0], "numpy.ma", "MaskedArray"))
}

// addArray notes an array whose elements are in data, and checks their number.
func (m *machine) addArray(o *object, shape, data value, d dtype, index int, fortran bool) error {
	bad := func(what string) error { return &streamError{rule: RuleArray, msg: "an array with " + what} }
	dims, ok := m.dims(shape)
	count, fits := product(dims, 1)
	size, fits2 := product(dims, d.size)
	if !ok || !fits || !fits2 || shape.kind() != kTuple {
		return bad("a shape that is none")
	}
	a := array{count: count, shape: shape, fortran: fortran, dtype: int32(index), offset: m.at}
	if d.object {
		if data.kind() != kList || int64(m.total(data)) != count {
			return bad("a list of objects that does not fill it")
		}
		a.data = data
	} else {
		b, n := m.data(data)
		if n < 0 || n != size && n != maxBlob {
			return bad(fmt.Sprintf("%d bytes where %d belong", n, size))
		}
		if int64(len(b)) == size && len(b) <= maxRaw && d.listable(dims) {
			a.raw = m.keep(kBytes, b)
		}
		if see, done := m.watchNodes(&a, index); see != nil && int64(len(b)) == size {
			see(b)
			done()
		}
	}
	o.flags |= arrayAt | built
	o.info = int32(m.arrays.add(m.heap, 64, a)) + 1
	return nil
}

// frombufferRule is for numpy's _frombuffer(bytes, dtype, shape, order).
func frombufferRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 4)
	if !ok {
		return false
	}
	d, ok := m.dtypeOf(a[1])
	order, isText := m.str(a[3])
	if !ok || d.object || !isText || order != "C" && order != "F" {
		return false
	}
	return m.addArray(o, a[2], a[0], d, m.dtypeIndex(a[1]), order == "F") == nil
}

// scalarRule is for numpy's scalar(dtype, bytes).
func scalarRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 2)
	if !ok {
		return false
	}
	d, ok := m.dtypeOf(a[0])
	_, n := m.data(a[1])
	return ok && !d.object && n == d.size
}

// scalar returns the number, bool or string that a numpy scalar is: an int64,
// float64, bool or string.
func (h *heap) scalar(v value) (any, bool) {
	if v.kind() != kObject {
		return nil, false
	}
	o := h.objects.at(v.index())
	if o.class.kind() != kGlobal || h.globals[o.class.index()].name != "scalar" || o.flags&arrayAt != 0 {
		return nil, false
	}
	a, ok := h.tuple(o.args, 2)
	if !ok {
		return nil, false
	}
	d, ok := h.dtypeOf(a[0])
	b, n := h.data(a[1])
	if !ok || n != d.size || int64(len(b)) != n {
		return nil, false
	}
	return d.element(b)
}

// listable reports whether the elements of an array are of use one by one: those
// of a tree's nodes, which are most of a forest, are not.
func (d *dtype) listable(dims []int64) bool {
	return len(dims) == 1 && len(d.fields) == 0 && d.base == 0 && strings.IndexByte("biufSU", d.code[0]) >= 0
}

// element reads one element of an array.
func (d *dtype) element(b []byte) (any, bool) {
	if int64(len(b)) != d.size || d.size == 0 || len(d.fields) > 0 || d.base > 0 {
		return nil, false
	}
	if d.order == '>' && d.code[0] != 'U' && d.code[0] != 'S' {
		b = slices.Clone(b)
		slices.Reverse(b)
	}
	switch d.code[0] {
	case 'b':
		return b[0] != 0, true
	case 'i':
		return littleEndian(b), true
	case 'u':
		if n := littleEndian(append(slices.Clone(b), 0)[:min(len(b)+1, 8)]); n >= 0 {
			return n, true
		}
	case 'f':
		switch len(b) {
		case 4:
			return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), true
		case 8:
			return math.Float64frombits(binary.LittleEndian.Uint64(b)), true
		}
	case 'S':
		return strings.TrimRight(string(b), "\x00"), true
	case 'U':
		return d.unicode(b), true
	}
	return nil, false
}

// unicode reads an element of numpy's 4 bytes a character.
func (d *dtype) unicode(b []byte) string {
	order := binary.ByteOrder(binary.LittleEndian)
	if d.order == '>' {
		order = binary.BigEndian
	}
	var s strings.Builder
	for ; len(b) >= 4; b = b[4:] {
		s.WriteRune(rune(order.Uint32(b)))
	}
	return strings.TrimRight(s.String(), "\x00")
}
