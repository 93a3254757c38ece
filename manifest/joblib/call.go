package joblib

import (
	"fmt"
	"slices"
	"strings"
)

// call executes the opcodes that name classes and make objects of them.
func (m *machine) call(op byte) error {
	n := 2
	switch op {
	case 'o':
		return m.callMarked()
	case opNewObjEx:
		n = 3
	}
	taken, err := m.pop(n)
	if err != nil {
		return err
	}
	first, last := taken[0], taken[n-1]
	switch op {
	case opStackGlobal:
		return m.stackGlobal(first, last)
	case 'b':
		m.push(first)
		return m.build(first, last)
	case opNewObjEx:
		if last.kind() != kDict {
			return malformed("NEWOBJ_EX with %s for named arguments", last.kind())
		}
		if m.total(last) == 0 {
			return m.make(first, taken[1], m.noArguments(taken[1]))
		}
		m.use(last, UseValue)
		return m.make(first, m.newBox(kTuple, []value{taken[1], last}), false)
	case opNewObj:
		return m.make(first, last, m.noArguments(last))
	case 'R':
		return m.make(first, last, false)
	}
	return malformed("0x%02x is no opcode", op)
}

// noArguments reports whether v stands for none.
func (h *heap) noArguments(v value) bool { return v.kind() == kTuple && h.total(v) == 0 }

// callMarked executes OBJ, which makes an object of the class behind a mark.
func (m *machine) callMarked() error {
	taken, err := m.popMark()
	if err != nil {
		return err
	}
	if len(taken) == 0 {
		return malformed("OBJ without a class")
	}
	return m.makeMaybe(taken[0], taken[1:])
}

// makeMaybe is what INST and OBJ do: without arguments they instantiate a class
// and call a function, and who knows which one a name is.
func (m *machine) makeMaybe(callee value, args []value) error {
	class := callee.kind() == kGlobal && m.globals[callee.index()].entry != nil
	return m.make(callee, m.newBox(kTuple, args), len(args) == 0 && class)
}

// global is a class or function by its name, and what is known of it.
type global struct {
	module, name string
	entry        *entry // what the policy allows; nil: nothing
	denied       bool   // known to be dangerous, but for the uses of the entry
	allowed      bool   // by the caller
	verdict      Verdict
	uses         Use
	shapes       []string
	count        int // how often it was pushed
	subclass     int // how often it stood as the class of an array
	first        int64
}

func (g *global) String() string { return g.module + ":" + g.name }

// stackGlobal executes STACK_GLOBAL.
func (m *machine) stackGlobal(module, name value) error {
	a, ok1 := m.str(module)
	b, ok2 := m.str(name)
	m.view.named(m, module, name)
	if !ok1 || !ok2 {
		m.note(Unverifiable, RuleComputed, "a global whose name is computed, or too long to be kept")
		m.push(newValue(kOpaque, 0))
		return nil
	}
	g, err := m.global(a, b)
	if err == nil {
		m.push(g)
	}
	return err
}

// global looks a class or function up, by the names that today's Python gives
// to those of Python 2.
func (m *machine) global(module, name string) (value, error) {
	p := m.policy
	if m.proto < 3 {
		module, name = p.python3(module, name)
	} else if a, b := p.python3(module, name); m.outer < 3 && m.depth > 0 && (a != module || b != name) {
		// Since 1.6 joblib reads the names in an array of objects by the
		// protocol of the pickle around it.
		m.note(Unverifiable, RuleStream, "a name that means %.60q to some releases of joblib and %.60q to others", module+":"+name, a+":"+b)
	}
	i, ok := m.byName[[2]string{module, name}]
	if !ok {
		i = len(m.globals)
		m.byName[[2]string{module, name}] = i
		m.globals = append(m.globals, global{module: module, name: name, first: m.at, verdict: Pass})
		m.spent += 512 + 2*int64(len(module)+len(name))
		m.judge(&m.globals[i], p)
	}
	m.globals[i].count++
	return newValue(kGlobal, uint64(i)), nil
}

// judge says what importing a global means, before any use.
func (m *machine) judge(g *global, p *policy) {
	top, _, _ := strings.Cut(g.module, ".")
	g.entry = p.allow[[2]string{g.module, g.name}]
	g.allowed = slices.Contains(m.sink.allow, g.String())
	reason, denied := p.denied(g.module, g.name)
	g.denied = denied
	switch {
	case !isName(g.module) || !isName(g.name):
		g.denied = true
		m.blame(g, Unverifiable, RuleName, "no name that an import could spell")
	case g.entry != nil:
	case strings.HasPrefix(g.name, "__") && strings.HasSuffix(g.name, "__"), strings.HasSuffix(g.module, ".__main__"):
		g.denied = true
		m.blame(g, Dangerous, RuleDenied, "a name of Python's own machinery")
	case strings.Contains(g.name, "."):
		g.denied = true
		m.blame(g, Dangerous, RuleDotted, "a name that walks from one object to the next")
	case denied:
		m.blame(g, Dangerous, RuleDenied, "%s", reason)
	case g.allowed:
	case p.stdlib[top]:
		g.denied = true
		m.blame(g, Dangerous, RuleStdlib, "of the standard library, and nothing that a model needs")
	case top == mainModule:
		m.blame(g, Review, RuleMain, "exists only in the script that trained the model")
	case top == "sklearn" && g.name != "" && g.name[0] >= 'A' && g.name[0] <= 'Z':
		m.blame(g, Review, RuleUnknown, "looks like a class of another scikit-learn than galley knows")
	case p.packages[top].present:
		// It is there wherever models are loaded, and not all of it is harmless.
		m.blame(g, Unverifiable, RuleUnknown, "of a library that galley knows, but not seen in models")
	default:
		m.blame(g, Review, RuleUnknown, "of a library that galley does not know")
	}
}

// blame adds a finding about a global, once for each rule.
func (m *machine) blame(g *global, v Verdict, rule Rule, format string, args ...any) {
	if g.denied && g.entry != nil {
		v = Dangerous // its only innocent uses are those of the entry
	}
	g.verdict = max(g.verdict, v)
	m.sink.add(Finding{Verdict: v, Rule: rule, Offset: m.at, Global: g.String(), Message: fmt.Sprintf(format, args...)})
}

// isName reports whether s is a name of Python's, of ASCII only, or several
// with dots between.
func isName(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || part[0] >= '0' && part[0] <= '9' || strings.ContainsFunc(part, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			return false
		}
	}
	return len(s) <= 255
}

// use notes that v stands somewhere as a value.
func (m *machine) use(v value, u Use) {
	if v.kind() != kGlobal {
		return
	}
	g := &m.globals[v.index()]
	g.uses |= u
	if u == UseValue && g.entry != nil && g.entry.uses&(UseValue|UseInstantiated) == 0 {
		m.blame(g, Review, RuleUse, "stands as a value; it is only ever called")
	}
}

// make pushes what calling callee with args makes; bare says that only its
// __new__ is called, and without arguments.
func (m *machine) make(callee, args value, bare bool) error {
	m.view.called(m, callee)
	i := m.objects.add(m.heap, 40, object{class: callee, args: args})
	v := newValue(kObject, uint64(i))
	m.push(v)
	m.use(args, UseValue)
	if err := m.placeholders(args); err != nil {
		return err
	}
	if callee.kind() != kGlobal {
		if !m.makesZone(callee, args) {
			m.note(Dangerous, RuleComputed, "a call of something computed")
		}
		return nil
	}
	g := &m.globals[callee.index()]
	if bare {
		g.uses |= UseInstantiated
	} else {
		g.uses |= UseCalled
		if len(g.shapes) < maxShapes {
			if s := m.shape(args); !slices.Contains(g.shapes, s) {
				g.shapes = append(g.shapes, s)
				m.spent += int64(len(s))
			}
		}
	}
	o := m.objects.at(i)
	if bare {
		o.flags |= made
	}
	m.checkCall(g, o, bare)
	return nil
}

const maxShapes = 4

// checkCall compares a call with what the policy knows of the callable.
func (m *machine) checkCall(g *global, o *object, bare bool) {
	e := g.entry
	switch {
	case o.args.kind() != kTuple && o.args.kind() != kList && !g.denied:
		// Python takes whatever can be iterated over, in its own way.
		v := Unverifiable
		if k := o.args.kind(); k == kGlobal || k >= kObject {
			v = Dangerous
		}
		m.blame(g, v, RuleArguments, "called with %s for arguments", o.args.kind())
	case e == nil && (bare || g.allowed || g.denied):
	case e == nil:
		m.blame(g, Unverifiable, RuleUnknownCall, "called with %s, and nobody here knows what it does%s", m.shape(o.args), m.guess(g, o.args))
	case bare && e.uses&UseInstantiated != 0:
		if g.isWrapper() {
			o.flags |= wrapperAt
		}
	case !bare && e.uses&UseCalled != 0:
		if !e.rule(m, g, o) {
			m.blameArguments(g, o.args)
		}
	case e.uses&(UseInstantiated|UseCalled) == 0:
		m.blame(g, Dangerous, RuleUse, "called; only its name is ever written")
	case g.isWrapper():
		m.blame(g, Unverifiable, RuleArray, "the placeholder of an array is made in a way that joblib does not use")
	default:
		m.blame(g, Unverifiable, RuleUse, "made in a way that its library does not use")
	}
}

// guess says what a call may be, where that is likely.
func (m *machine) guess(g *global, args value) string {
	if g.name != "" && g.name[0] >= 'A' && g.name[0] <= 'Z' && m.isPlain(args) {
		return "; is it an enum or a named tuple?"
	}
	return ""
}

func (m *machine) blameArguments(g *global, args value) {
	v := Unverifiable
	if m.holdsCallable(args, 4) {
		v = Dangerous
	}
	m.blame(g, v, RuleArguments, "called with %s, which its library never writes", m.shape(args))
}

// holdsCallable reports whether a class, a function or something unknown is
// among the items of v, as many levels deep.
func (m *machine) holdsCallable(v value, depth int) bool {
	m.ops++
	switch k := v.kind(); {
	case k == kGlobal:
		return !m.isMissing(v)
	case k == kOpaque:
		return true
	case !v.isContainer():
		return false
	case depth == 0 && m.total(v) > 0, m.boxes.at(v.index()).opaque:
		return true
	}
	for it := range m.each(v) {
		if m.holdsCallable(it, depth-1) {
			return true
		}
	}
	return false
}

// isMissing reports whether v is pandas' NA, which is pickled by its name.
func (h *heap) isMissing(v value) bool {
	return h.isGlobal(v, "pandas", "NA") || h.isGlobal(v, "pandas._libs.missing", "NA") || h.isGlobal(v, "pandas._libs.missing", "_NA")
}

// shape spells the kinds of arguments, as (str, int, global:numpy.ndarray).
func (m *machine) shape(args value) string {
	const longest = 300
	items := m.list(args, 16)
	if items == nil {
		return args.kind().String()
	}
	var names []string
	for _, it := range items {
		name := it.kind().String()
		if it.kind() == kGlobal {
			g := &m.globals[it.index()]
			name = fmt.Sprintf("global:%.80s.%.80s", g.module, g.name)
		}
		names = append(names, name)
	}
	text := "(" + strings.Join(names, ", ") + ")"
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}

func (k kind) String() string {
	return [...]string{"None", "bool", "int", "int", "float", "str", "bytes", "bytearray", "long data", "global", "tuple", "list", "dict", "set", "object", "array", "unknown"}[k]
}

// isWrapper reports whether g is the class of joblib's placeholders.
func (g *global) isWrapper() bool {
	return g.name == "NumpyArrayWrapper" && (g.module == "joblib.numpy_pickle" || g.module == "sklearn.externals.joblib.numpy_pickle")
}

// fillObject gives items to an object: it is a kind of dict or list, or has
// methods that take them.
func (m *machine) fillObject(v value, items []value, pairs bool) error {
	o := m.objects.at(v.index())
	if m.isMadeBy(v, "builtins", "getattr") {
		m.note(Dangerous, RuleState, "items are set in what another object gave out")
		return nil
	}
	u, k := UseAppend, kList
	if pairs {
		u, k = UseSetItem, kDict
	}
	if o.class.kind() == kGlobal {
		g := &m.globals[o.class.index()]
		g.uses |= u
		if g.entry != nil && g.entry.uses&u == 0 {
			m.blame(g, Unverifiable, RuleUse, "given items, which its library's pickles do not do")
		}
	}
	if m.plain {
		return nil
	}
	if o.items == 0 {
		o.items = m.newBox(k, nil)
	}
	if o.items.kind() != k {
		m.note(Review, RuleOpcode, "an object is given items as a list and as a dict")
		return nil
	}
	m.extend(o.items, items)
	return nil
}
