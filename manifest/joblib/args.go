package joblib

import "strings"

// argumentRules are the shapes of calls, by their names in the policy.
var argumentRules = map[string]argumentRule{
	"dtype":       dtypeRule,
	"reconstruct": reconstructRule,
	"scalar":      scalarRule,
	"frombuffer":  frombufferRule,
	"mareconstruct": func(m *machine, _ *global, o *object) bool {
		a, ok := m.tuple(o.args, 4)
		return ok && m.takesClass(a[0]) && m.takesClass(a[1]) && m.isPlain(a[2]) && m.isPlain(a[3])
	},
	"latin1": func(m *machine, _ *global, o *object) bool {
		a, ok := m.tuple(o.args, 2)
		return ok && m.isText(a[0]) && (m.is(a[1], "latin1") || m.is(a[1], "latin-1"))
	},
	"randomstate": randomStateRule,
	"bitgen":      bitGeneratorRule,
	"newobj":      newObjectRule,
	"literals": func(m *machine, g *global, o *object) bool {
		return m.isPlain(o.args) && m.isModest(g, o.args)
	},
	"items": func(m *machine, _ *global, o *object) bool {
		a := m.list(o.args, 1)
		return m.total(o.args) == 0 || len(a) == 1 && a[0].isContainer() && a[0].kind() != kDict
	},
	"factory": func(m *machine, _ *global, o *object) bool {
		a := m.list(o.args, 2)
		if len(a) == 0 {
			return m.total(o.args) == 0
		}
		return m.isFactory(a[0]) && (len(a) == 1 || m.isPlain(a[1]))
	},
	"cyclass": func(m *machine, g *global, o *object) bool {
		a := m.list(o.args, 8)
		return len(a) > 0 && m.isClassOf(a[0], g.module) && m.areData(a[1:])
	},
	"ownclass": func(m *machine, g *global, o *object) bool {
		a := m.list(o.args, 16)
		return len(a) > 0 && m.isClassOf(a[0], g.module) && m.areData(a[1:])
	},
	"sameclass": func(m *machine, g *global, o *object) bool {
		a, ok := m.tuple(o.args, 1)
		return ok && m.isClassNear(a[0], g.module)
	},
	"tree": func(m *machine, _ *global, o *object) bool {
		a, ok := m.tuple(o.args, 3)
		return ok && a[0].kind() == kInt && m.isArray(a[1]) && a[2].kind() == kInt
	},
	"values": func(m *machine, g *global, o *object) bool {
		return m.total(o.args) == 0 || m.areData(m.list(o.args, maxKept)) && m.isModest(g, o.args)
	},
	"method":  methodRule,
	"partial": partialRule,
	"ufunc": func(m *machine, _ *global, o *object) bool {
		// It imports what its arguments name.
		a, ok := m.tuple(o.args, 2)
		if !ok {
			return false
		}
		module, _ := m.str(a[0])
		name, _ := m.str(a[1])
		e := m.policy.allow[[2]string{"numpy", name}]
		return e != nil && e.uses&UseValue != 0 && (module == "numpy" || strings.HasPrefix(module, "numpy.core."))
	},
}

// stateRules are the shapes of states, by the names of their argument rules.
var stateRules = map[string]stateRule{
	"partial":      partialState,
	"vectorize":    vectorizeState,
	"distribution": distributionState,
}

// isModest refuses literals by which a call takes memory or time without end, or
// opens the file of a time zone that is none.
func (m *machine) isModest(g *global, args value) bool {
	for _, v := range m.list(args, 16) {
		n, isNumber := m.integer(v)
		text, isString := m.str(v)
		switch {
		case g.module == "builtins" && strings.HasPrefix(g.name, "byte") && isNumber && (n < 0 || n > 1<<20),
			v.kind() == kLong && g.module == "builtins",
			g.module == "fractions" && isString && strings.Trim(text, "0123456789-/ ") != "",
			isPandas(g.module) && isString && (strings.Contains(text, "..") || strings.Contains(text, "//") || strings.HasPrefix(text, "/")):
			return false
		}
	}
	return true
}

// isPlain reports whether v is made of literals alone: numbers, text, bytes and
// containers of them, a few levels deep.
func (m *machine) isPlain(v value) bool { return m.isPlainTo(v, 4, false) }

// isPlainTo is isPlain to a depth; listed lets names pass that the policy lists
// as values.
func (m *machine) isPlainTo(v value, depth int, listed bool) bool {
	m.ops++
	switch k := v.kind(); {
	case k <= kCut, listed && m.isListed(v):
		return true
	case !v.isContainer():
		return m.isLatin1(v)
	case depth == 0 && m.total(v) > 0, m.boxes.at(v.index()).opaque:
		return false
	}
	for it := range m.each(v) {
		if !m.isPlainTo(it, depth-1, listed) {
			return false
		}
	}
	return true
}

// isText reports whether v is a string, be it one that is not kept whole.
func (h *heap) isText(v value) bool {
	return v.kind() == kStr || v.kind() == kCut && h.cuts.at(v.index()).kept.kind() == kStr
}

// isLatin1 reports whether v stands for bytes as protocols before 3 write them.
func (h *heap) isLatin1(v value) bool {
	return h.isMadeBy(v, "_codecs", "encode")
}

// isMadeBy reports whether v is an object that this global made.
func (h *heap) isMadeBy(v value, module, name string) bool {
	if v.kind() != kObject {
		return false
	}
	return h.isGlobal(h.objects.at(v.index()).class, module, name)
}

func (h *heap) isGlobal(v value, module, name string) bool {
	if v.kind() != kGlobal {
		return false
	}
	g := &h.globals[v.index()]
	return g.module == module && g.name == name
}

// data returns the bytes that v stands for, as far as they are kept, and how
// many there are in all; -1 if v is no bytes.
func (h *heap) data(v value) ([]byte, int64) {
	switch v.kind() {
	case kBytes, kByteArray:
		b := h.bytes(v)
		return b, int64(len(b))
	case kCut:
		if c := h.cuts.at(v.index()); c.kept.kind() != kStr {
			if c.whole != nil {
				return c.whole, c.total
			}
			return h.bytes(c.kept), c.total
		}
	case kObject:
		if h.isLatin1(v) {
			return h.latin1(h.objects.at(v.index()).args)
		}
		if h.isMadeBy(v, "builtins", "bytearray") || h.isMadeBy(v, "builtins", "bytes") {
			args := h.objects.at(v.index()).args
			if h.total(args) == 0 {
				return []byte{}, 0
			}
			if a, ok := h.tuple(args, 1); ok && (a[0].kind() != kObject || h.isLatin1(a[0])) {
				return h.data(a[0])
			}
		}
	}
	return nil, -1
}

// latin1 decodes the text of _codecs.encode's arguments.
func (h *heap) latin1(args value) ([]byte, int64) {
	a := h.list(args, 2)
	if len(a) != 2 || !h.isText(a[0]) {
		return nil, -1
	}
	text, total := h.bytes(a[0]), h.size(a[0])
	if a[0].kind() == kCut {
		if whole := h.cuts.at(a[0].index()).whole; whole != nil {
			text = whole
		}
	}
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if r > 0xff {
			break // also at a character that is cut
		}
		out = append(out, byte(r))
	}
	if int64(len(text)) < total {
		return out, maxBlob // how many is not known
	}
	return out, int64(len(out))
}

// areData reports whether no class or function is among the values themselves;
// what they hold has been looked at when it was made.
func (m *machine) areData(values []value) bool {
	for _, v := range values {
		if m.holdsCallable(v, 2) {
			return false
		}
	}
	return values != nil
}

// isClassNear reports whether v is a class that the policy lists, of the module
// itself.
func (m *machine) isClassNear(v value, module string) bool {
	if v.kind() != kGlobal {
		return false
	}
	g := &m.globals[v.index()]
	return g.entry != nil && g.module == module
}

// isClassOf reports whether v is a class that the policy lists, of the same
// top-level package.
func (m *machine) isClassOf(v value, module string) bool {
	if v.kind() != kGlobal {
		return false
	}
	g := &m.globals[v.index()]
	own, _, _ := strings.Cut(module, ".")
	top, _, _ := strings.Cut(g.module, ".")
	return g.entry != nil && own == top
}

// takesClass is isArrayClass, and notes that v stands where it belongs.
func (m *machine) takesClass(v value) bool {
	if !m.isArrayClass(v) {
		return false
	}
	m.globals[v.index()].subclass++
	return true
}

// checkClasses refuses numpy's array classes anywhere but where the class of an
// array stands: they are listed for that. Calling memmap creates and truncates
// files, and calling ndarray reads memory by its address.
func (m *machine) checkClasses() {
	for i := range m.globals {
		if g := &m.globals[i]; m.isArrayClass(newValue(kGlobal, uint64(i))) && g.count > g.subclass {
			m.blame(g, Dangerous, RuleUse, "stands as a value; who calls it writes files or reads any memory")
		}
	}
}

// isArrayClass reports whether v is numpy's array class or one of its own
// subclasses.
func (h *heap) isArrayClass(v value) bool {
	if v.kind() != kGlobal {
		return false
	}
	switch h.globals[v.index()].String() {
	case "numpy:ndarray", "numpy:matrix", "numpy:recarray", "numpy:memmap", "numpy:chararray",
		"numpy.ma.core:MaskedArray", "numpy.ma:MaskedArray", "numpy.core.records:recarray", "numpy.rec:recarray",
		"numpy.core.defchararray:chararray", "numpy.char:chararray", "numpy.matrixlib.defmatrix:matrix",
		"pandas.core.indexes.frozen:FrozenNDArray":
		return true
	}
	return false
}

// isArray reports whether v is an array, of joblib's or numpy's making.
func (h *heap) isArray(v value) bool { return h.arrayOf(v) != nil }

// arrayOf returns the array that v is, or nil.
func (h *heap) arrayOf(v value) *array {
	switch v.kind() {
	case kArray:
		return h.arrays.at(v.index())
	case kObject:
		if o := h.objects.at(v.index()); o.flags&arrayAt != 0 && o.info > 0 {
			return h.arrays.at(int(o.info) - 1)
		}
	}
	return nil
}

// isFactory reports whether v is a builtin that makes an empty value.
func (m *machine) isFactory(v value) bool {
	if v.kind() == kNone {
		return true
	}
	if v.kind() != kGlobal {
		return false
	}
	switch m.globals[v.index()].String() {
	case "builtins:list", "builtins:int", "builtins:dict", "builtins:set", "builtins:float", "builtins:str", "collections:OrderedDict":
		return true
	}
	return false
}

// randomStateRule is for numpy's constructors of random generators, which call
// their second argument.
func randomStateRule(m *machine, _ *global, o *object) bool {
	a := m.list(o.args, 2)
	if len(a) > 1 && !m.isGlobal(a[1], "numpy.random._pickle", "__bit_generator_ctor") {
		return false
	}
	if len(a) == 0 {
		return m.total(o.args) == 0
	}
	return m.isBitGenerator(a[0])
}

// bitGeneratorRule is for the constructor of numpy's bit generators.
func bitGeneratorRule(m *machine, _ *global, o *object) bool {
	a := m.list(o.args, 1)
	return len(a) == 1 && m.isBitGenerator(a[0])
}

// isBitGenerator reports whether v names one of numpy's bit generators, is its
// class or such a generator.
func (m *machine) isBitGenerator(v value) bool {
	name, ok := m.str(v)
	switch v.kind() {
	case kGlobal:
		g := &m.globals[v.index()]
		name, ok = g.name, strings.HasPrefix(g.module, "numpy.random._")
	case kObject:
		return m.isMadeBy(v, "numpy.random._pickle", "__bit_generator_ctor")
	}
	switch name {
	case "MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64":
		return ok
	}
	return false
}

// newObjectRule is for copyreg._reconstructor, by which protocols 0 and 1 make
// objects: its first argument is the class.
func newObjectRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 3)
	if !ok || a[0].kind() != kGlobal {
		return false
	}
	g := &m.globals[a[0].index()]
	dict := m.isGlobal(a[1], "builtins", "dict") && a[2].kind() == kDict && (g.entry == nil || g.entry.uses&UseSetItem != 0)
	if !dict && (!m.isGlobal(a[1], "builtins", "object") || a[2].kind() != kNone) {
		return false
	}
	g.uses |= UseInstantiated
	o.class, o.flags = a[0], o.flags|made
	if dict {
		// A copy, as Python makes one: what is done to it is not done to a[2].
		m.ops += m.total(a[2])
		o.items = m.newBox(kDict, m.list(a[2], maxKept))
		if m.cut(a[2]) {
			return false
		}
	}
	switch {
	case g.entry == nil:
	case g.entry.uses&UseInstantiated == 0:
		m.blame(g, Dangerous, RuleUse, "instantiated; only its name is ever written")
	case g.isWrapper():
		o.flags |= wrapperAt
	}
	return true
}

// methodRule is for getattr: of a distribution of scipy's, before it has
// attributes of its own, its method _entropy, and zoneinfo.ZoneInfo._unpickle.
func methodRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 2)
	if !ok {
		return false
	}
	if m.isGlobal(a[0], "zoneinfo", "ZoneInfo") {
		return m.is(a[1], "_unpickle")
	}
	if a[0].kind() != kObject || !m.is(a[1], "_entropy") {
		return false
	}
	of := m.objects.at(a[0].index())
	if of.class.kind() != kGlobal || of.flags&built != 0 || of.items != 0 {
		return false
	}
	g := &m.globals[of.class.index()]
	return g.entry != nil && (g.module == "scipy.stats._discrete_distns" || g.module == "scipy.stats._continuous_distns")
}

// makesZone reports whether a call is that of zoneinfo.ZoneInfo._unpickle with
// the name of a time zone.
func (m *machine) makesZone(callee, args value) bool {
	if !m.isMadeBy(callee, "builtins", "getattr") {
		return false
	}
	from := m.list(m.objects.at(callee.index()).args, 2)
	a, ok := m.tuple(args, 2)
	if !ok || len(from) != 2 || !m.isGlobal(from[0], "zoneinfo", "ZoneInfo") || a[1].kind() != kBool && a[1].kind() != kInt {
		return false
	}
	name, ok := m.str(a[0])
	return ok && !strings.Contains(name, "..") && !strings.HasPrefix(name, "/") && !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("/_+-", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// partialRule is for functools.partial of a function of scikit-learn's or
// numpy's that the policy lists: making one calls nothing, and they compute.
func partialRule(m *machine, _ *global, o *object) bool {
	a, ok := m.tuple(o.args, 1)
	return ok && m.isFunction(a[0])
}

func (m *machine) isFunction(v value) bool {
	if !m.isListed(v) || m.isArrayClass(v) {
		return false
	}
	top, _, _ := strings.Cut(m.globals[v.index()].module, ".")
	return top == "sklearn" || top == "numpy"
}

func partialState(m *machine, _ *object, state value) bool {
	a, ok := m.tuple(state, 4)
	return ok && m.isFunction(a[0]) && a[1].kind() == kTuple && m.isPlainTo(a[1], 4, true) &&
		(a[2].kind() == kDict && m.isPlainTo(a[2], 4, true) || a[2].kind() == kNone) && a[3].kind() == kNone
}

// isListed reports whether v is a name that the policy lists as a value.
func (m *machine) isListed(v value) bool {
	if v.kind() != kGlobal {
		return false
	}
	e := m.globals[v.index()].entry
	return e != nil && e.uses&UseValue != 0
}

// vectorizeState is for the numpy.vectorize that a discrete distribution of
// scipy's keeps of its own method.
func vectorizeState(m *machine, _ *object, state value) bool {
	f, ok := m.get(state, "pyfunc")
	return ok && !m.cut(state) && m.isMadeBy(f, "builtins", "getattr")
}

// distributionState is for scipy's distributions, which execute a text of their
// state when they are unpickled. It is the same for all but for the names of
// parameters (https://github.com/scipy/scipy/blob/v1.17.1/scipy/stats/_distn_infrastructure.py).
func distributionState(m *machine, _ *object, state value) bool {
	if pair, ok := m.tuple(state, 2); ok && (m.isMadeBy(pair[1], "numpy.random._pickle", "__randomstate_ctor") || m.isMadeBy(pair[1], "numpy.random", "__RandomState_ctor")) {
		state = pair[0] // scipy before 1.6 adds a random state
	}
	if state.kind() != kDict || m.cut(state) {
		return false
	}
	for k, v := range m.pairs(state) {
		if m.is(k, "_parse_arg_template") && !m.isTemplate(v) {
			return false
		}
	}
	return true
}

// isTemplate reports whether v is the text that scipy's distributions execute.
func (m *machine) isTemplate(v value) bool {
	text, ok := m.str(v)
	return ok && isDistributionTemplate(text)
}

func isDistributionTemplate(text string) bool {
	const head = "\ndef _parse_args(self, "
	rest, ok := strings.CutPrefix(text, head)
	if !ok {
		return false
	}
	for _, in := range []string{"loc=0, scale=1", "loc=0"} {
		shapes, _, ok := strings.Cut(rest, " "+in+"):\n")
		if !ok || strings.ContainsFunc(shapes, func(r rune) bool {
			return r != ',' && r != ' ' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			continue
		}
		for _, out := range []string{"loc, scale", "loc, 1"} {
			if text == head+shapes+" "+in+"):\n    return ("+shapes+"), "+out+"\n\n"+
				"def _parse_args_rvs(self, "+shapes+" "+in+", size=None):\n    return self._argcheck_rvs("+shapes+" "+out+", size=size)\n\n"+
				"def _parse_args_stats(self, "+shapes+" "+in+", moments='mv'):\n    return ("+shapes+"), "+out+", moments\n" {
				return true
			}
		}
	}
	return false
}
