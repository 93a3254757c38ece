package joblib

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"galley/manifest/joblib/internal/container"
)

// Peek is what the beginning of a file tells. Every value is the claim of
// whoever wrote the file.
type Peek struct {
	// Format is the kind of content. A pickle counts as [Joblib] when one
	// of joblib's arrays was seen or the file is compressed, else as
	// [Pickle]: a joblib file without arrays is a plain pickle.
	Format Kind
	// Compression is zlib, gzip, bzip2, xz, lzma, lz4 or empty, found by
	// joblib's rule: the first bytes, never the name. Files of joblib before
	// 0.10 are "zf", and not read.
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
// to say what the content is; [Inspect] reads all of it. The error is r's own:
// bytes that make no sense are [Unknown].
func Look(r io.Reader) (Peek, error) {
	data, err := read(r, nil, headSize)
	if err != nil {
		return Peek{}, err
	}
	if k := sniff(data); k != "" {
		return Peek{Format: k}, nil
	}
	if !packaged(data) && !maybePickle(data) {
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
	method := container.Detect(data)
	switch method {
	case container.Plain:
		if k := archive(data); k != "" {
			return Peek{Format: k}
		}
		return lookPlain(data)
	case container.ZF:
		return Peek{Format: Joblib, Compression: string(method)}
	}
	inner := inflate(method, data)
	if len(inner) == 0 {
		// Text may begin with an x, which is all that joblib looks at.
		p := lookPlain(data)
		if p.Format == Unknown && (method == container.XZ || method == container.LZ4) {
			p = Peek{Format: Joblib, Compression: string(method)}
		}
		return p
	}
	p := lookPlain(inner)
	p.Compression = string(method)
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
	m := newMachine(newInput(bytes.NewReader(data)), &sink{})
	top, end := m.run()
	cut := errors.Is(end, io.ErrUnexpectedEOF)
	switch {
	case end == nil:
	case cut && (hasProto(data) || len(data) >= window):
	case hasProto(data) && len(m.stack)+len(m.marks) > 0:
	default:
		return Peek{Format: plain(data)}
	}
	p := Peek{Format: Pickle, Whole: end == nil}
	if m.arrayView {
		p.Format = Joblib
	}
	if end != nil {
		var ok bool
		if top, ok = m.bottom(); !ok {
			return p
		}
	}
	p.Top, p.Class, p.Inside = m.topShape(top), m.classOf(top), m.inside(top)
	return p
}

// maybePickle reports whether more of data is worth reading as a pickle.
func maybePickle(head []byte) bool {
	if hasProto(head) {
		return true
	}
	_, end := newMachine(newInput(bytes.NewReader(head)), &sink{}).run()
	return end == nil || errors.Is(end, io.ErrUnexpectedEOF) && len(head) >= headSize
}

// hasProto reports whether data begins with the PROTO opcode of a known
// protocol. Protocols 0 and 1 have none.
func hasProto(data []byte) bool {
	return len(data) > 1 && data[0] == opProto && data[1] <= 5
}

// inflate returns what can be had of at most window bytes: the input is cut,
// so an error at its end is expected and says nothing.
func inflate(method container.Method, data []byte) []byte {
	r, err := container.Open(bufio.NewReader(bytes.NewReader(data)), method, container.Limits{})
	if err != nil {
		return nil
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(r, window))
	return out.Bytes()
}

// bottom is the lowest value on the stack, whether or not it is finished; a
// mark there stands for a tuple.
func (m *machine) bottom() (value, bool) {
	switch {
	case len(m.marks) > 0 && m.marks[0] == 0:
		return m.newBox(kTuple, nil), true // or a list or dict of protocol 0
	case len(m.stack) > 0:
		return m.stack[0], true
	}
	return 0, false
}

// topShape names what v is.
func (m *machine) topShape(v value) string {
	if v.kind() == kArray || m.makesArray(v) {
		return "array"
	}
	switch v.kind() {
	case kGlobal:
		return "global"
	case kObject:
		switch {
		case m.isMapping(v):
			return "dict"
		case m.isMadeBy(v, "builtins", "set"), m.isMadeBy(v, "builtins", "frozenset"):
			return "set"
		}
		return "object"
	case kDict, kList, kTuple, kSet:
		return v.kind().String()
	}
	return "value"
}

// isMapping reports whether v is one of Python's own dicts with another name.
func (h *heap) isMapping(v value) bool {
	return h.isMadeBy(v, "collections", "OrderedDict") || h.isMadeBy(v, "collections", "defaultdict") || h.isMadeBy(v, "collections", "Counter")
}

// makesArray reports whether v is what one of numpy's own ways to pickle an
// array makes, finished or not.
func (h *heap) makesArray(v value) bool {
	for _, core := range []string{"numpy.core.", "numpy._core."} {
		if h.isMadeBy(v, core+"multiarray", "_reconstruct") || h.isMadeBy(v, core+"numeric", "_frombuffer") {
			return true
		}
	}
	return false
}

// classOf is module.name of an object's class or of a global, or empty. What
// cannot be a name comes out empty: it would be printed.
func (m *machine) classOf(v value) string {
	switch v.kind() {
	case kArray:
		return "numpy.ndarray"
	case kObject:
		o := m.objects.at(v.index())
		switch {
		case m.makesArray(v):
			return "numpy.ndarray"
		case m.isMapping(v), m.topShape(v) == "set":
			return ""
		}
		if o.class.kind() == kGlobal {
			return m.classOf(o.class)
		}
	case kGlobal:
		g := &m.globals[v.index()]
		if isName(g.module) && isName(g.name) {
			return g.module + "." + g.name
		}
	}
	return ""
}

// inside lists the classes of the objects directly in top. After a cut, what
// has not found its place yet belongs to it too, up to the first object that is
// still without its state.
func (m *machine) inside(top value) []string {
	g := gatherer{m: m, left: 10_000}
	if top.kind() == kObject {
		o := m.objects.at(top.index())
		for _, part := range []value{o.args, o.state, o.items} {
			g.add(part, 8)
		}
	} else {
		g.add(top, 8)
	}
	for i, v := range m.stack {
		if v == top && i == 0 {
			continue
		}
		g.add(v, 8)
		if v.kind() == kGlobal || v.kind() == kObject && notable(m.classOf(v)) && m.objects.at(v.index()).flags&built == 0 {
			break
		}
	}
	return g.classes
}

// gatherer lists the classes of objects.
type gatherer struct {
	m       *machine
	left    int // how many values are still looked at
	classes []string
}

// add adds the class of v, or those of the objects in a container.
func (g *gatherer) add(v value, depth int) {
	if g.left--; g.left < 0 || len(g.classes) >= maxInside {
		return
	}
	if v.kind() == kObject && !g.m.isMapping(v) {
		if class := g.m.classOf(v); notable(class) && !slices.Contains(g.classes, class) {
			g.classes = append(g.classes, class)
		}
		return
	}
	if v.kind() == kObject {
		v = g.m.objects.at(v.index()).items
	}
	if depth == 0 {
		return
	}
	for it := range g.m.each(v) {
		g.add(it, depth-1)
	}
}

const maxInside = 16

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
	return !strings.HasSuffix(class, "joblib.numpy_pickle.NumpyArrayWrapper")
}
