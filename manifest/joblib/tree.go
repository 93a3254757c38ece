package joblib

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// nodes is what an array of tree nodes holds, summed up as it went by: the
// arrays of large forests are not kept.
type nodes struct {
	maxFeature int64  // of the splits; -1: there are none
	maxBitset  int64  // of the categorical splits; -1: there are none
	fault      string // the first thing wrong; empty: none
	at         int64  // the node where
}

// nodeLayout is where the fields of a tree node lie: of scikit-learn's Tree, or
// of the TreePredictor of its histogram gradient boosting.
type nodeLayout struct {
	size                 int64
	left, right, feature field
	leaf                 *field // nil: leaves are told by a child of -1
	categorical, bitset  *field // nil: there are no categorical splits
	dtypes               []dtype
}

// maxNode is more bytes than a node has.
const maxNode = 4096

// nodeLayoutOf returns the layout of a dtype that describes tree nodes, or nil.
func (h *heap) nodeLayoutOf(index int) *nodeLayout {
	d := &h.dtypes[index]
	find := func(name string) *field {
		for i := range d.fields {
			if d.fields[i].name == name {
				return &d.fields[i]
			}
		}
		return nil
	}
	if d.size <= 0 || d.size > maxNode {
		return nil
	}
	l := &nodeLayout{size: d.size, dtypes: h.dtypes}
	names := []string{"left_child", "right_child", "feature"}
	l.categorical, l.bitset = find("is_categorical"), find("bitset_idx")
	if l.leaf = find("is_leaf"); l.leaf != nil {
		names = []string{"left", "right", "feature_idx"}
	}
	for i, to := range []*field{&l.left, &l.right, &l.feature} {
		f := find(names[i])
		if f == nil || !strings.Contains("iu", h.dtypes[f.dtype].code[:1]) {
			return nil
		}
		*to = *f
	}
	return l
}

func (l *nodeLayout) number(f field, node []byte) int64 {
	d := &l.dtypes[f.dtype]
	b := node[f.offset : f.offset+d.size]
	var full [8]byte
	copy(full[:], b)
	if d.order == '>' {
		slices.Reverse(full[:len(b)])
		b = full[:len(b)]
	}
	if d.code[0] == 'u' {
		return int64(binary.LittleEndian.Uint64(full[:]))
	}
	return littleEndian(b)
}

// watchNodes returns a function that sees the bytes of an array of tree nodes
// as they go by, and one to be called at their end; nil and a no-op where a is
// none or nobody asked for it.
func (m *machine) watchNodes(a *array, index int) (see func([]byte), done func()) {
	if !m.deep {
		return nil, func() {}
	}
	l := m.nodeLayoutOf(index)
	if l == nil {
		return nil, func() {}
	}
	n := nodes{maxFeature: -1, maxBitset: -1}
	var part []byte // of a node that is cut between two calls
	i := int64(0)
	see = func(b []byte) {
		for len(b) > 0 {
			if len(part) > 0 || int64(len(b)) < l.size {
				take := min(int(l.size)-len(part), len(b))
				part = append(part, b[:take]...)
				if b = b[take:]; int64(len(part)) < l.size {
					return
				}
				n.check(l, part, i, a.count)
				part = part[:0]
			} else {
				n.check(l, b[:l.size], i, a.count)
				b = b[l.size:]
			}
			i++
		}
	}
	return see, func() {
		m.nodes = append(m.nodes, n)
		a.nodes = int32(len(m.nodes))
	}
}

// check looks at node i of count. The children of a node lie behind it, so that
// no walk down a tree can go round in circles.
func (n *nodes) check(l *nodeLayout, node []byte, i, count int64) {
	if n.fault != "" {
		return
	}
	left, right, feature := l.number(l.left, node), l.number(l.right, node), l.number(l.feature, node)
	leaf := left == -1 && right == -1
	if l.leaf != nil {
		leaf = l.number(*l.leaf, node) != 0
	}
	if leaf {
		return
	}
	switch {
	case left <= i || left >= count || right <= i || right >= count:
		n.fault = fmt.Sprintf("its children are %d and %d of %d nodes", left, right, count)
	case feature < 0:
		n.fault = fmt.Sprintf("it splits on feature %d", feature)
	}
	n.at = i
	n.maxFeature = max(n.maxFeature, feature)
	if l.categorical != nil && l.bitset != nil && l.number(*l.categorical, node) != 0 {
		n.maxBitset = max(n.maxBitset, l.number(*l.bitset, node))
	}
}

// maxTreeState is more keys and values than the state of a tree has.
const maxTreeState = 64

// checkOwners compares the features of trees with those of the estimators that
// they are in, which look at the input no closer than that.
func (m *machine) checkOwners() {
	for i := range m.objects.n {
		o := m.objects.at(i)
		if o.class.kind() != kGlobal || m.total(o.state) > 2*maxAttribute {
			continue
		}
		g := &m.globals[o.class.index()]
		if !strings.HasPrefix(g.module, "sklearn.ensemble.") && !strings.HasPrefix(g.module, "sklearn.tree.") {
			continue
		}
		v, _ := m.get(o.state, "n_features_in_")
		if n, ok := m.integer(v); ok {
			m.checkOwned(g, o.state, n)
		}
	}
}

// checkOwned looks at the trees below v, which is in an estimator of so many
// features. Other estimators have an input of their own.
func (m *machine) checkOwned(owner *global, v value, features int64) {
	seen := make(map[value]bool)
	todo := []value{v}
	for len(todo) > 0 && len(seen) < maxVisits && m.ops < maxOps {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m.ops++
		if a := m.arrayOf(v); a != nil && a.data != 0 {
			v = (&describer{machine: m}).listOf(a)
		}
		if v.kind() == kObject {
			o := m.objects.at(v.index())
			if o.class.kind() != kGlobal || !strings.HasPrefix(m.globals[o.class.index()].module, "sklearn.tree.") {
				continue
			}
			args := m.list(o.args, 3)
			if n, ok := m.integer(append(args, 0)[0]); ok && len(args) == 3 && n > features {
				m.integrity(owner, -1, "a tree of %d features in an estimator of %d", n, features)
			}
			v = o.state
		}
		if !v.isContainer() || seen[v] {
			continue
		}
		seen[v] = true
		for it := range m.each(v) {
			if it.kind() > kGlobal {
				todo = append(todo, it)
			}
		}
	}
}

// checkTrees looks at every tree after the walk: its nodes, their number, and
// the features on which they split. features is how many the model takes, for
// the trees that do not tell; -1: unknown.
func (m *machine) checkTrees(features int64) {
	m.checkOwners()
	for i := range m.objects.n {
		o := m.objects.at(i)
		if o.class.kind() != kGlobal {
			continue
		}
		switch g := &m.globals[o.class.index()]; {
		case g.name == "Tree" && strings.HasPrefix(g.module, "sklearn.tree."):
			m.checkTree(g, o)
		case g.name == "TreePredictor" && strings.HasPrefix(g.module, "sklearn.ensemble._hist_gradient_boosting"):
			m.checkPredictor(g, o, features)
		}
	}
}

// checkPredictor looks at a tree of histogram gradient boosting, whose
// categorical splits look into arrays of their own.
func (m *machine) checkPredictor(g *global, o *object, features int64) {
	if m.total(o.state) > maxTreeState {
		m.integrity(g, -1, "a tree with more attributes than trees have")
		return
	}
	v, _ := m.get(o.state, "nodes")
	a := m.arrayOf(v)
	m.checkNodes(g, a, features)
	if a == nil || a.nodes == 0 {
		return
	}
	last := m.heap.nodes[a.nodes-1].maxBitset
	for _, name := range []string{"binned_left_cat_bitsets", "raw_left_cat_bitsets"} {
		v, ok := m.get(o.state, name)
		if !ok {
			continue
		}
		rows := int64(0)
		if sets := m.arrayOf(v); sets != nil {
			if dims, _ := m.dims(sets.shape); len(dims) == 2 && dims[1] >= 8 {
				rows = dims[0]
			}
		}
		if last >= rows {
			m.integrity(g, a.offset, "a tree looks for set %d of %d in %s", last, rows, name)
		}
	}
}

func (m *machine) checkTree(g *global, o *object) {
	if m.total(o.state) > maxTreeState {
		m.integrity(g, -1, "a tree with more attributes than trees have")
		return
	}
	v, _ := m.get(o.state, "nodes")
	a := m.arrayOf(v)
	args := m.list(o.args, 3)
	features, ok := int64(-1), false
	if len(args) == 3 {
		features, ok = m.integer(args[0])
	}
	if a == nil || !ok {
		m.integrity(g, -1, "a tree without nodes")
		return
	}
	m.checkNodes(g, a, features)
	if count, ok := m.get(o.state, "node_count"); ok {
		if n, _ := m.integer(count); n != a.count {
			m.integrity(g, a.offset, "a tree says that it has %d nodes, and has %d", n, a.count)
		}
	}
	if v, ok := m.get(o.state, "values"); ok {
		values := m.arrayOf(v)
		if values == nil {
			m.integrity(g, a.offset, "a tree without values")
			return
		}
		if dims, _ := m.dims(values.shape); len(dims) == 0 || dims[0] != a.count {
			m.integrity(g, a.offset, "a tree of %d nodes has values of the shape %v", a.count, dims)
		}
	}
}

func (m *machine) checkNodes(g *global, a *array, features int64) {
	if a == nil || a.nodes == 0 {
		m.integrity(g, -1, "a tree whose nodes are not understood")
		return
	}
	n := m.heap.nodes[a.nodes-1]
	switch size := m.dtypes[a.dtype].size; {
	case a.count == 0:
		m.integrity(g, a.offset, "a tree without nodes")
	case n.fault != "":
		m.integrity(g, a.offset+n.at*size, "node %d of a tree: %s", n.at, n.fault)
	case features >= 0 && n.maxFeature >= features:
		m.integrity(g, a.offset, "a tree splits on feature %d of %d", n.maxFeature, features)
	}
}

func (m *machine) integrity(g *global, offset int64, format string, args ...any) {
	m.sink.add(Finding{Verdict: Unverifiable, Rule: RuleIntegrity, Offset: offset, Global: g.String(), Message: fmt.Sprintf(format, args...)})
}
