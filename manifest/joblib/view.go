package joblib

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
)

// A file can mean one thing to joblib.load and another to whatever else may
// load it: pickle.load knows of no arrays and takes their bytes for opcodes, and
// joblib before 1.2 does not skip the padding before an array and takes its last
// bytes for opcodes. Honest files end such a view within a few bytes. What it
// imports that is dangerous counts, for nobody knows how the file will be
// loaded.

// viewPlain looks at the first array as pickle.load would.
func (m *machine) viewPlain(size int64) {
	if m.arrayView || m.plain {
		return
	}
	m.arrayView = true
	err := m.viewAs(nil, m.in.pos()+min(size, inputSize)+alignment, "pickle.load, unlike joblib.load, reads the first array as opcodes")
	if errors.Is(err, io.ErrUnexpectedEOF) && m.in.err == nil {
		m.note(Unverifiable, RulePlainView, "pickle.load reads the first array as opcodes, for longer than is followed here")
	}
}

// viewUnpadded looks at the end of a padded array, which are as many bytes as
// the padding has, as joblib before 1.2 would.
func (m *machine) viewUnpadded(end []byte) {
	if len(end) == 0 || !operands[end[0]].legal {
		return
	}
	_ = m.viewAs(end, m.in.pos(), "joblib before 1.2, which skips no padding, reads the end of an array as opcodes")
}

// viewAs walks end and what comes behind it as opcodes on a copy of the state,
// and adds what is found in the bytes of the array, which lie before until.
// Behind them, where the views may meet again with something more on the stack,
// only names count that are dangerous by themselves.
func (m *machine) viewAs(end []byte, until int64, message string) error {
	// A copy, for reading moves what is in a buffer.
	m.scratch = append(append(m.scratch[:0], end...), m.in.ahead()...)
	h := *m.heap
	h.globals = slices.Clone(m.globals)
	h.byName = maps.Clone(m.byName)
	h.undo = []undo{}
	p := &machine{
		heap: &h, in: &input{src: eof{}, buf: m.scratch, w: len(m.scratch), base: m.in.pos() - int64(len(end))}, sink: &sink{}, policy: m.policy,
		stack: slices.Clone(m.stack), marks: slices.Clone(m.marks), memo: m.memo.over(),
		proto: m.proto, protoSeen: m.protoSeen, frame: -1, plain: true, nested: -1,
	}
	_, err := p.run()
	h.restore()
	for _, f := range p.sink.findings {
		_, name, _ := strings.Cut(f.Global, ":")
		if f.Verdict < Unverifiable || !acts(f.Rule) || fromNumpy(name) || f.Offset >= until && f.Rule != RuleDenied && f.Rule != RuleStdlib {
			continue
		}
		m.sink.add(Finding{Verdict: f.Verdict, Rule: RulePlainView, Offset: f.Offset, Global: f.Global, Message: message + ": " + f.Message})
	}
	return err
}

// acts reports whether findings of a rule are about what is run. The others are
// what bytes that are no opcodes come to.
func acts(rule Rule) bool {
	switch rule {
	case RuleDenied, RuleStdlib, RuleDotted, RuleArguments, RuleUnknownCall, RuleState:
		return true
	}
	return false
}

// eof is a reader of nothing.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// fromNumpy reports whether a name is one that the pickle of an array of
// objects imports. Read as a part of the outer pickle, its references lead to
// other strings: a key called time makes time.dtype of numpy.dtype.
func fromNumpy(name string) bool {
	switch name {
	case "dtype", "ndarray", "scalar", "_reconstruct", "_frombuffer", "encode":
		return true
	}
	return false
}

// plainView follows what pickle.load makes of the pickle that stands for the
// first array, if that is one of objects. It is the same but for what is fetched
// from the memo, which for pickle.load is still that of the pickle around it. A
// nil view follows nothing: pickle.load has failed.
type plainView struct {
	outer *memo
	put   map[uint64]bool // slots that were written by number
	got   map[int]fetch   // what was fetched, by its place on the stack
}

type fetch struct{ value, plain value }

func newPlainView(outer *memo) *plainView {
	return &plainView{outer, make(map[uint64]bool), make(map[int]fetch)}
}

// wrote notes that a slot is written by its number, for both.
func (p *plainView) wrote(slot uint64) {
	if p != nil {
		p.put[slot] = true
	}
}

// fetched notes what pickle.load fetches where m has fetched the top of the
// stack.
func (p *plainView) fetched(m *machine, slot uint64) {
	if p == nil {
		return
	}
	at := len(m.stack) - 1
	v, ok := m.stack[at], true
	if n := p.outer.size(); !p.put[slot] && slot < n {
		v, ok = p.outer.get(slot)
	} else if !p.put[slot] {
		v, ok = m.memo.get(slot - n)
	}
	if !ok {
		m.view = nil
		return
	}
	p.got[at] = fetch{m.stack[at], v}
}

// plain returns what stands for pickle.load where m has v, at a place on the
// stack.
func (p *plainView) plain(at int, v value) value {
	if f, ok := p.got[at]; ok && f.value == v {
		return f.plain
	}
	return v
}

// named judges the global that pickle.load makes of the names that m has just
// taken off the stack.
func (p *plainView) named(m *machine, module, name value) {
	if p == nil {
		return
	}
	at := len(m.stack)
	a, ok1 := m.str(p.plain(at, module))
	b, ok2 := m.str(p.plain(at+1, name))
	if !ok1 || !ok2 {
		m.view = nil
		return
	}
	h := heap{byName: make(map[[2]string]int)}
	probe := &machine{heap: &h, sink: &sink{}, policy: m.policy, proto: m.proto, at: m.at}
	if _, err := probe.global(a, b); err != nil || len(h.globals) == 0 {
		return
	}
	g := h.globals[0]
	if g.entry == nil && fromNumpy(b) {
		m.view = nil // no module but numpy's has it
		return
	}
	own, _ := m.str(module)
	ownName, _ := m.str(name)
	if a == own && b == ownName || !isName(a) || !isName(b) {
		return
	}
	m.sink.add(Finding{
		Verdict: max(Unverifiable, g.verdict), Rule: RulePlainView, Offset: m.at, Global: g.String(),
		Message: "pickle.load, unlike joblib.load, imports this: to it references lead to the pickle around the array",
	})
}

// called notes a call of what pickle.load takes for another callable.
func (p *plainView) called(m *machine, callee value) {
	if p == nil {
		return
	}
	if other := p.plain(len(m.stack), callee); other != callee && other.kind() == kGlobal {
		m.note(Unverifiable, RulePlainView, "pickle.load, unlike joblib.load, calls something else here")
	}
}
