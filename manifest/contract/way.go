package contract

import (
	"cmp"
	"fmt"
	"slices"

	"galley/manifest/joblib"
)

// maxPlaces bounds the places that are looked at.
const maxPlaces = 32

// columns are what flows from one step of a model to the next.
type columns struct {
	names  []string // nil: not known
	within []string // where names is nil: all are among these; nil: not known either
	count  int      // -1: not known
	blind  bool     // made of texts: their number says nothing about the input
}

// place is where columns pass.
type place struct {
	columns
	what string // "the pipeline's input"
	// anyOrder names what selects by name there; "" where the order counts.
	anyOrder string
}

// way is what columns pass on their way through a model.
type way struct {
	places []place // the model's input first
	// front says what stands between the input and an estimator that would
	// fail on other columns; "" if nothing does.
	front string
	// why says why the model's input is not known.
	why string
}

// tracer follows the columns.
type tracer struct {
	places  []place
	pending int // the place whose columns the next step tells, or -1
}

// trace follows the columns through m. Beside it lie transformers that may have
// their turn before, and whose input and output count too.
func trace(m *joblib.Model, beside []*joblib.Model) way {
	t := &tracer{pending: -1}
	in := inputOf(m)
	what := "the input of " + title(m)
	if isPipeline(core(m)) {
		what = "the pipeline's input"
		if m.Key != "" {
			what = "the input of the pipeline " + quote(m.Key)
		}
	}
	t.places = append(t.places, place{columns: in, what: what, anyOrder: byName(m)})
	w := way{why: reason(m)}
	if roleOf(m) == transformer {
		t.through(m, in, title(m))
		w.front = "not refused, since it does not predict"
	} else {
		w.front = t.follow(m, in, "")
	}
	for _, b := range beside {
		w.front = cmp.Or(w.front, fmt.Sprintf("not refused, since %s may come first", title(b)))
		t.pending = -1
		at := inputOf(b)
		t.add(place{columns: at, what: "the input of " + title(b), anyOrder: byName(b)})
		t.through(b, at, title(b))
	}
	w.places = t.places
	return w
}

// add adds a place unless its columns have been seen.
func (t *tracer) add(p place) {
	same := func(q place) bool {
		return q.names != nil && p.anyOrder == q.anyOrder && slices.Equal(p.names, q.names) ||
			q.names == nil && p.names == nil && q.within == nil && p.within == nil && p.count == q.count && p.blind == q.blind
	}
	if len(t.places) < maxPlaces && !slices.ContainsFunc(t.places, same) {
		t.places = append(t.places, p)
	}
}

// arrive returns what is known of the columns where they arrive at a part, and
// completes the place that waits for it.
func (t *tracer) arrive(in columns, m *joblib.Model) columns {
	in = in.meet(inputOf(m))
	if t.pending >= 0 {
		t.places[t.pending].columns = in
		t.pending = -1
	}
	return in
}

// follow follows the columns into an estimator, a place that is worth a name of
// its own if it has a label. It returns what stands in front of what checks
// the columns, or "".
func (t *tracer) follow(m *joblib.Model, in columns, label string) (front string) {
	in = t.arrive(in, m)
	if label != "" {
		t.add(place{columns: in, what: label})
	}
	if isPipeline(m) {
		return t.steps(m, in)
	}
	if roleOf(m) == stranger {
		return fmt.Sprintf("not refused, since it is not known what %s does with them", className(m))
	}
	open := false
	for _, p := range inner(m) {
		at := inputOf(p)
		if in.count >= 0 && at.count >= 0 && in.count != at.count {
			continue // it gets a part of them, or more
		}
		f := t.follow(p, in, "")
		t.pending = -1
		open = open || f == ""
		front = cmp.Or(front, f)
	}
	if open {
		return ""
	}
	return front
}

// steps follows the columns through a pipeline that predicts.
func (t *tracer) steps(m *joblib.Model, in columns) (front string) {
	last := m.Parts[len(m.Parts)-1]
	for _, s := range m.Parts[:len(m.Parts)-1] {
		var f string
		f, in = t.through(s, in, step(s))
		front = cmp.Or(front, f)
	}
	f := t.follow(last, in, "the input of the final estimator "+className(last))
	return cmp.Or(front, f)
}

// through follows the columns through a transformer that messages call name.
func (t *tracer) through(m *joblib.Model, in columns, name string) (front string, out columns) {
	in = t.arrive(in, m)
	role := roleOf(m)
	if role == sampler {
		return "", in
	}
	if isPipeline(m) && role == transformer {
		for _, s := range m.Parts {
			var f string
			f, in = t.through(s, in, step(s))
			front = cmp.Or(front, f)
		}
		return front, in
	}
	front = fmt.Sprintf("not refused, since %s comes first", name)
	switch {
	case isSelector(m):
		return front, t.choose(m, in, name)
	case keeps(m):
		return front, in
	case short(m.Class) == "ColumnTransformer":
		t.used(m, in, name)
	}
	return front, columns{count: -1, blind: in.blind || isVectorizer(m)}
}

// choose returns what a selector passes on. Where the file does not tell, the
// next step knows how many columns that are.
func (t *tracer) choose(m *joblib.Model, in columns, name string) columns {
	out := columns{within: in.within, count: -1, blind: in.blind}
	if in.names != nil {
		out.within = in.names
	}
	p := place{columns: out, what: "what " + name + " passes on"}
	if m.Selected == nil {
		if len(t.places) < maxPlaces {
			t.pending = len(t.places)
			t.places = append(t.places, p)
		}
		return out
	}
	p.count = len(m.Selected)
	if names := pick(in.names, m.Selected); names != nil {
		p.names, p.within = names, nil
	}
	t.add(p)
	return p.columns
}

// pick returns the names at positions; nil if there are none at one of them.
func pick(names []string, positions []int) []string {
	picked := make([]string, 0, len(positions))
	for _, i := range positions {
		if i < 0 || i >= len(names) {
			return nil
		}
		picked = append(picked, names[i])
	}
	return picked
}

// used adds the columns that a ColumnTransformer takes, where its parts store
// their names: it drops the others, and does not miss them.
func (t *tracer) used(m *joblib.Model, in columns, name string) {
	taken := make(map[string]bool)
	for _, p := range m.Parts {
		at := inputOf(p)
		if at.names == nil {
			return
		}
		for _, n := range at.names {
			taken[n] = true
		}
	}
	var names []string
	for _, n := range in.names {
		if taken[n] {
			names = append(names, n)
		}
	}
	if len(names) > 0 && len(names) < len(in.names) {
		t.add(place{columns: columns{names: names, count: len(names)}, what: "what " + name + " uses", anyOrder: name})
	}
}

// meet returns what is known of columns that arrive at a part, which may know
// them better.
func (c columns) meet(own columns) columns {
	switch {
	case own.names != nil:
		return columns{names: own.names, count: len(own.names)}
	case own.count >= 0 && c.count >= 0 && own.count != c.count:
		return columns{count: own.count, blind: c.blind}
	case own.count >= 0:
		c.count = own.count
	}
	return c
}

// inputOf is what a model tells of its input, itself or through its parts.
func inputOf(m *joblib.Model) columns {
	in := columns{count: m.Features}
	if m.FeatureNames != nil && (m.Features < 0 || m.Features == len(m.FeatureNames)) {
		return columns{names: m.FeatureNames, count: len(m.FeatureNames)}
	}
	parts := inner(m)
	switch {
	case isPipeline(m):
		parts = m.Parts[:1]
		for i, s := range m.Parts {
			parts = m.Parts[:i+1]
			if roleOf(s) != sampler && !keeps(s) {
				break
			}
		}
	case short(m.Class) == "FeatureUnion":
		parts = m.Parts
	}
	for _, p := range parts {
		at := inputOf(p)
		if in.count >= 0 && at.count != in.count {
			continue
		}
		in.count = at.count
		if at.names != nil {
			return at
		}
	}
	return in
}

// byName names what in front of a model selects its columns by name, whatever
// their order; "" if the order counts.
func byName(m *joblib.Model) string {
	if short(m.Class) == "ColumnTransformer" && m.FeatureNames != nil {
		return step(m)
	}
	if isPipeline(m) {
		return byName(first(m))
	}
	name := ""
	for _, p := range inner(m) {
		n := byName(p)
		if n == "" {
			return ""
		}
		name = cmp.Or(name, n)
	}
	return name
}

// first is a pipeline's first step at predict.
func first(m *joblib.Model) *joblib.Model {
	for _, s := range m.Parts {
		if roleOf(s) != sampler {
			return s
		}
	}
	return m.Parts[0]
}

// reason says why a model's input is not known.
func reason(m *joblib.Model) string {
	name := title(m)
	for m = core(m); isPipeline(m); m = core(m) {
		m = first(m)
		name = step(m)
	}
	if isVectorizer(m) {
		return name + " takes texts or dicts, and no columns"
	}
	return name + " stores neither the names nor the number of its features"
}

// step is a step of a pipeline in a message.
func step(m *joblib.Model) string {
	if m.Key == "" {
		return className(m)
	}
	return "step " + title(m)
}
