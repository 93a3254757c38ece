package joblib

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// call executes the opcodes that name classes and make objects of them.
func (m *machine) call(op byte, arg []byte) error {
	var (
		taken []*node
		err   error
	)
	switch op {
	case 'c', 'i':
		return m.global(op, arg)
	case opNewObjEx:
		taken, err = m.pop(3)
	case 'o':
		taken, err = m.popMark()
	default:
		taken, err = m.pop(2)
	}
	if err != nil {
		return err
	}
	if len(taken) == 0 {
		return errBad
	}
	switch first, last := taken[0], taken[len(taken)-1]; op {
	case opStackGlobal:
		if first.shape != text || last.shape != text {
			return errBad
		}
		m.push(&node{shape: global, text: join(first.text, last.text)})
	case 'b':
		return m.build(first, last)
	case 'o':
		m.push(newObject(first, newTuple(taken[1:])))
	default:
		m.push(newObject(first, taken[1]))
	}
	return nil
}

// global executes GLOBAL and INST, whose names are two lines.
func (m *machine) global(op byte, arg []byte) error {
	module, name, _ := bytes.Cut(arg, []byte("\n"))
	g := &node{shape: global, text: join(string(module), string(name))}
	if g.text == "" {
		return errBad // no pickle but text, most likely
	}
	if op == 'c' {
		m.push(g)
		return nil
	}
	args, err := m.popMark()
	if err != nil {
		return err
	}
	m.push(newObject(g, newTuple(args)))
	return nil
}

// join spells module.name, with Python 2's two modules under today's names.
// What cannot be a name comes out empty: it would be printed.
func join(module, name string) string {
	if !isName(module) || !isName(name) {
		return ""
	}
	switch module {
	case "copy_reg":
		module = "copyreg"
	case "__builtin__":
		module = "builtins"
	}
	return module + "." + name
}

func isName(s string) bool {
	return s != "" && len(s) <= 255 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !unicode.IsLetter(r)
	})
}

// newTuple keeps the first few of items, and what all of them hold.
func newTuple(items []*node) *node {
	n := &node{shape: tuple, items: slices.Clone(items[:min(len(items), maxKept)])}
	n.hold(items...)
	return n
}

const wrapper = "joblib.numpy_pickle.NumpyArrayWrapper"

// newObject is what calling class with args stands for.
func newObject(class, args *node) *node {
	n := &node{shape: object, items: args.items}
	n.hold(args)
	if class.shape == global {
		n.text = class.text
	}
	switch n.text {
	case "copyreg._reconstructor", "copyreg.__newobj__":
		// Before protocol 2 the class is the first argument.
		if len(args.items) > 0 && args.items[0].shape == global {
			n.text = args.items[0].text
		}
	case "collections.OrderedDict", "collections.defaultdict", "collections.Counter":
		n.shape, n.text = dict, ""
	case "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
		"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer":
		n.shape, n.text = array, "numpy.ndarray"
	}
	return n
}

// build gives n its state. For joblib's placeholder that is where the raw
// bytes of the array follow.
func (m *machine) build(n, state *node) error {
	if !m.nested && n.shape == object && strings.HasSuffix(n.text, wrapper) {
		m.wrapped = true
		*n = node{shape: array, text: "numpy.ndarray"}
		m.push(n)
		return m.skipArray(state)
	}
	n.built = true
	n.hold(state)
	m.push(n)
	return nil
}

// skipArray steps over the bytes of the array that state describes, or over
// the pickle that stands for an array of objects.
func (m *machine) skipArray(state *node) error {
	dtype := state.get("dtype")
	if dtype == nil || len(dtype.items) == 0 || dtype.items[0].shape != text {
		return errBad
	}
	code := dtype.items[0].text
	if strings.HasPrefix(code, "O") {
		inner := machine{data: m.data, pos: m.pos, ops: m.ops, nested: true}
		err := inner.run()
		m.pos, m.ops = inner.pos, inner.ops
		return err
	}
	size, err := itemSize(code)
	if err != nil {
		return errBad
	}
	if dims := state.get("shape"); dims != nil {
		for _, d := range dims.items {
			if d.num < 0 || d.num > 0 && size > window/d.num {
				return io.ErrUnexpectedEOF // longer than what is looked at
			}
			size *= d.num
		}
	}
	if a := state.get("numpy_array_alignment_bytes"); a != nil && a.num > 0 {
		if m.pos >= len(m.data) {
			return io.ErrUnexpectedEOF
		}
		size += 1 + int64(m.data[m.pos])
	}
	if size > int64(len(m.data)-m.pos) {
		m.pos = len(m.data)
		return io.ErrUnexpectedEOF
	}
	m.pos += int(size)
	return nil
}

// itemSize is the bytes of one element of a dtype code such as f8 or U12.
func itemSize(code string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimLeft(code, "?bBiufcSUVMm"), 10, 20)
	if strings.HasPrefix(code, "U") {
		n *= 4
	}
	return int64(n), err
}

// get returns the value of a dict's key, or nil.
func (n *node) get(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.values[i]
	}
	return nil
}

// set takes pairs of keys and values in, and keeps the first few.
func (n *node) set(pairs []*node) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if len(n.keys) < maxKept && pairs[i].shape == text {
			n.keys = append(n.keys, pairs[i].text)
			n.values = append(n.values, pairs[i+1])
		}
		n.hold(pairs[i+1])
	}
}

// hold notes the classes that items bring into n: an object its own, a
// container those in it.
func (n *node) hold(items ...*node) {
	for _, it := range items {
		found := it.inside
		if it.shape == object {
			found = nil
			if notable(it.text) {
				found = []string{it.text}
			}
		}
		for _, class := range found {
			if len(n.inside) < maxKept && !slices.Contains(n.inside, class) {
				n.inside = append(n.inside, class)
			}
		}
	}
}

// notable reports whether a class may be an estimator: it is not one of those
// with which every pickle is put together.
func notable(class string) bool {
	root, _, _ := strings.Cut(class, ".")
	switch root {
	case "", "builtins", "copyreg", "collections", "datetime", "decimal", "fractions", "functools", "operator",
		"types", "pathlib", "uuid", "re", "enum", "_codecs", "zoneinfo", "pytz", "dateutil",
		"joblib", "numpy", "scipy", "pandas", "polars", "pyarrow":
		return false
	}
	return !strings.HasSuffix(class, wrapper)
}

// peek describes the top object: the lowest on the stack, whether or not the
// walk reached the end of it.
func (m *machine) peek() Peek {
	if len(m.stack) == 0 {
		return Peek{}
	}
	top := m.stack[0]
	// What has not found its place yet: everything above belongs to top,
	// up to the first object that is still without its state.
	for _, n := range m.stack[1:] {
		top.hold(n)
		if n.shape == global || n.shape == object && notable(n.text) && !n.built {
			break
		}
	}
	p := Peek{Top: top.shape.String(), Class: top.text, Inside: top.inside}
	switch top.shape {
	case text, value:
		p.Class = ""
	case mark:
		p.Top = tuple.String() // or a list or dict of protocol 0
	}
	return p
}
