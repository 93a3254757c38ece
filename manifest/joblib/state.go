package joblib

import (
	"strings"
)

// build executes BUILD on target, which is on top of the stack.
func (m *machine) build(target, state value) error {
	m.use(state, UseValue)
	switch target.kind() {
	case kObject:
	case kGlobal:
		m.blame(&m.globals[target.index()], Dangerous, RuleState, "attributes are set on a class, function or module")
		return nil
	case kOpaque:
		return nil
	default:
		if state.kind() == kNone || state.isContainer() && m.total(state) == 0 {
			return nil // as in Python, whatever target is
		}
		return malformed("BUILD on a %s", target.kind())
	}
	if err := m.placeholders(state); err != nil {
		return err
	}
	o := m.objects.at(target.index())
	if m.isMadeBy(target, "builtins", "getattr") {
		m.note(Dangerous, RuleState, "attributes are set on what another object gave out")
		return nil
	}
	if !m.plain {
		m.freeze(state)
	}
	if m.plain {
		m.checkState(o, state)
		return nil
	}
	again := o.flags&built != 0
	o.flags |= built
	switch {
	case o.flags&wrapperAt != 0:
		if again {
			return malformed("the placeholder of an array gets a second state")
		}
		return m.readArray(o, state)
	case o.flags&dtypeAt != 0:
		if again {
			return malformed("a dtype gets a second state")
		}
		return m.buildDtype(o, state)
	case o.flags&arrayAt != 0:
		if again {
			return malformed("an array gets a second state")
		}
		return m.buildArray(o, state)
	case again:
		m.note(Review, RuleState, "an object gets a second state")
	}
	o.state = state
	m.checkState(o, state)
	return nil
}

// freeze notes that an object refers to v, a dict or a tuple of dicts, so that
// changing it changes the object.
func (m *machine) freeze(v value) {
	if v.isContainer() {
		m.boxes.at(v.index()).frozen = true
	}
	if v.kind() == kTuple {
		for _, it := range m.list(v, 16) {
			if it.kind() == kDict {
				m.boxes.at(it.index()).frozen = true
			}
		}
	}
}

// placeholders refuses joblib's placeholder of an array, and a dtype without its
// state, where they stand as values: picklers give them their state at once.
// Under another name that would happen where nobody expects it.
func (m *machine) placeholders(values ...value) error {
	for _, v := range values {
		if v.kind() != kObject || m.plain {
			continue
		}
		switch f := m.objects.at(v.index()).flags; {
		case f&wrapperAt != 0:
			return &streamError{rule: RuleArray, msg: "the placeholder of an array stands as a value"}
		case f&dtypeAt != 0 && f&built == 0:
			return &streamError{rule: RuleArray, msg: "a dtype stands as a value before it has its state"}
		}
	}
	return nil
}

// checkState looks at the attributes that BUILD sets. The second dict of a pair
// is set by setattr, which can change what the object is.
func (m *machine) checkState(o *object, state value) {
	if o.class.kind() == kGlobal {
		if g := &m.globals[o.class.index()]; g.entry != nil && g.entry.state != nil && !g.entry.state(m, o, state) {
			m.blame(g, Dangerous, RuleState, "given a state that its library never writes, and that decides what is run")
		}
	}
	own := false // the class is known to read its state in its own way
	if o.class.kind() == kGlobal {
		g := &m.globals[o.class.index()]
		own = g.entry != nil && g.entry.own && o.flags&made == 0
		if g.entry != nil && g.entry.state == nil && isPandas(g.module) {
			m.checkManager(g, state)
		}
	}
	pair, isPair := m.tuple(state, 2)
	switch {
	case own:
	case m.mayMap(state), isPair && (m.mayMap(pair[0]) || m.mayMap(pair[1])):
		m.note(Unverifiable, RuleState, "the state of an object is another object's items")
	}
	m.checkKeys(state, Review, !m.isRouting(o.class))
	if isPair {
		m.checkKeys(pair[0], Dangerous, true)
		m.checkKeys(pair[1], Dangerous, true)
		for k := range m.pairs(pair[1]) {
			if k.kind() != kStr {
				m.note(Unverifiable, RuleState, "an attribute is set whose name is no string")
			}
		}
	}
}

// isPandas reports whether a module is one of pandas', whose classes have items.
func isPandas(module string) bool { return module == "pandas" || strings.HasPrefix(module, "pandas.") }

// checkManager looks at what a frame or a series of pandas keeps its data in,
// whose methods are called as the other attributes are set.
func (m *machine) checkManager(g *global, state value) {
	for k, v := range m.pairs(state) {
		if !m.is(k, "_mgr") && !m.is(k, "_data") || m.isArray(v) {
			continue
		}
		ok := false
		if v.kind() == kObject {
			class := m.objects.at(v.index()).class
			ok = class.kind() == kGlobal && m.globals[class.index()].entry != nil && isPandas(m.globals[class.index()].module)
		}
		if !ok {
			m.blame(g, Dangerous, RuleState, "given something for its data whose methods are called as it is loaded")
		}
	}
}

// mayMap reports whether v is an object that may have keys and values without
// being a dict, which BUILD would take for attributes.
func (m *machine) mayMap(v value) bool {
	switch v.kind() {
	case kOpaque:
		return true
	case kObject:
		class := m.objects.at(v.index()).class
		if class.kind() != kGlobal {
			return true
		}
		g := &m.globals[class.index()]
		return g.entry == nil || g.entry.uses&UseSetItem != 0 || isPandas(g.module)
	}
	return false
}

// isRouting reports whether class is one of scikit-learn's whose attributes are
// named after the methods to which metadata is routed.
func (h *heap) isRouting(class value) bool {
	return class.kind() == kGlobal && h.globals[class.index()].module == "sklearn.utils._metadata_requests"
}

// checkKeys looks for attributes that stand for what the object is, or for its
// methods.
func (m *machine) checkKeys(dict value, dunder Verdict, methods bool) {
	if dict.kind() == kDict && m.cut(dict) {
		m.note(Unverifiable, RuleLimit, "a state of more than %d attributes", maxKept/2)
	}
	for k, v := range m.pairs(dict) {
		m.ops++
		key, ok := m.str(k)
		switch {
		case k.kind() >= kCut && k.kind() != kTuple:
			m.note(Unverifiable, RuleState, "an attribute is set whose name is computed, or too long to be kept")
		case !ok, key == "__doc__", key == "__name__":
		case key == "__class__":
			m.note(Dangerous, RuleState, "an object is turned into another by setting __class__")
		case strings.HasPrefix(key, "__") && strings.HasSuffix(key, "__"):
			found := max(dunder, Unverifiable)
			if m.isCallable(v) || strings.HasPrefix(key, "__array") {
				found = Dangerous // Python and numpy call it, or believe the addresses in it
			}
			m.note(found, RuleState, "the attribute %.40s is set", key)
		case key == "_parse_arg_template" && !m.isTemplate(v):
			m.note(Dangerous, RuleState, "a distribution of scipy's would run code of its own")
		case methods && m.policy.methods[key] && m.isCallable(v):
			m.note(Dangerous, RuleState, "the method %s is replaced, which may be called as the file is loaded", key)
		case key == "pre_dispatch" && !m.isPreDispatch(v):
			m.note(Review, RuleState, "pre_dispatch is code that joblib before 1.2 evaluates")
		}
	}
}

// isCallable reports whether v may be called: it is a class, a function or an
// object, but no number of numpy's.
func (m *machine) isCallable(v value) bool {
	switch v.kind() {
	case kGlobal, kOpaque:
		return true
	case kObject:
		_, number := m.scalar(v)
		return !number && !m.isArray(v) && m.objects.at(v.index()).flags&wrapperAt == 0
	}
	return false
}

// isPreDispatch reports whether v is a value of pre_dispatch that is no code:
// joblib before 1.2 evaluated strings (CVE-2022-21797).
func (m *machine) isPreDispatch(v value) bool {
	s, ok := m.str(v)
	if !ok {
		return v.kind() != kCut
	}
	s = strings.TrimSuffix(strings.ReplaceAll(s, " ", ""), "*n_jobs")
	return s == "all" || s == "n_jobs" || s != "" && strings.Trim(s, "0123456789.") == ""
}
