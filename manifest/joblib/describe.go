package joblib

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what a report lists.
const (
	maxModels    = 16
	maxParts     = 64
	maxDepth     = 8
	maxParams    = 200
	maxNames     = maxKept
	maxClasses   = 100
	maxArrays    = 10_000
	maxVersion   = 32
	maxAttribute = 4096
	maxDescribed = 2000      // models and parts in all
	maxVisits    = 1_000_000 // values looked at for one number
	maxReport    = 16 << 20  // bytes of text in the description
	maxMain      = 5         // names of the training script in a warning
)

// describe fills in everything but the findings.
func (m *machine) describe(r *Report, top value, whole bool) {
	r.Peek.Whole = whole
	if !whole {
		var ok bool
		if top, ok = m.bottom(); !ok {
			top = newValue(kOpaque, 0)
		}
	}
	if top.kind() != kOpaque {
		r.Peek.Top, r.Peek.Class, r.Peek.Inside = m.topShape(top), m.classOf(top), m.inside(top)
	}
	r.Globals, r.Allowed = m.sortGlobals(m.sink.allow)
	d := &describer{machine: m, path: make(map[value]bool), listed: make(map[value]bool)}
	d.models(r, top, "", 2)
	r.Sklearn = m.stamps()
	r.Writer = m.writer()
	r.Packages = m.packages(r)
	m.listArrays(r, top)
	r.Warnings = d.warnings(r)
}

// describer reads the attributes of estimators.
type describer struct {
	*machine
	path   map[value]bool // the objects being described: one may hold itself
	listed map[value]bool // the models of the report
	count  int            // of models and parts
	spent  int            // bytes of text
}

// spend reports whether n more bytes of text may be listed.
func (d *describer) spend(n int) bool {
	d.spent += n + 32
	return d.spent <= maxReport
}

// models finds the estimators in v: v itself, or those in a container, so many
// levels deep.
func (d *describer) models(r *Report, v value, key string, depth int) {
	if len(r.Models) >= maxModels {
		return
	}
	switch {
	case v.kind() == kObject && d.isMapping(v):
		d.modelsIn(r, d.objects.at(v.index()).items, key, depth)
	case v.kind() == kObject:
		if class := d.classOf(v); notable(class) && !d.listed[v] && d.isHarmless(v) {
			d.listed[v] = true
			model := d.model(v, key, 0)
			model.Trees, model.Nodes = d.countTrees(v)
			r.Models = append(r.Models, model)
		}
	case v.isContainer():
		d.modelsIn(r, v, key, depth)
	}
}

// modelsIn finds the estimators in a container, and the plain values of a dict.
func (d *describer) modelsIn(r *Report, v value, key string, depth int) {
	if depth == 0 {
		return
	}
	if v.kind() == kDict {
		for k, it := range d.pairs(v) {
			name, ok := d.str(k)
			if !ok {
				continue
			}
			name = joinKey(key, name)
			if plain, ok := d.plainValue(it); ok && len(r.Values) < maxParams {
				r.Values = append(r.Values, Param{name, plain})
			}
			d.models(r, it, name, depth-1)
		}
		return
	}
	i := 0
	for it := range d.each(v) {
		d.models(r, it, fmt.Sprintf("%s[%d]", key, i), depth-1)
		if i++; i >= maxAttribute {
			return
		}
	}
}

// isHarmless reports whether the class of v is one of which models are made, as
// far as the policy tells.
func (d *describer) isHarmless(v value) bool {
	class := d.objects.at(v.index()).class
	return class.kind() == kGlobal && d.globals[class.index()].verdict < Dangerous
}

func joinKey(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// attributes returns an object's, by name.
func (d *describer) attributes(v value) map[string]value {
	all := make(map[string]value)
	if v.kind() != kObject {
		return all
	}
	state := d.objects.at(v.index()).state
	dicts := []value{state}
	if pair, ok := d.tuple(state, 2); ok {
		dicts = pair
	}
	for _, dict := range dicts {
		for k, it := range d.pairs(dict) {
			if name, ok := d.str(k); ok && len(all) < maxAttribute {
				all[name] = it
			}
		}
	}
	return all
}

// model describes one estimator.
func (d *describer) model(v value, key string, depth int) *Model {
	d.count++
	d.path[v] = true
	defer delete(d.path, v)
	a := d.attributes(v)
	m := &Model{Key: key, Class: d.classOf(v), Features: -1}
	m.Sklearn = d.version(a["_sklearn_version"])
	for _, name := range []string{"n_features_in_", "n_features_", "_n_features"} {
		if n, ok := d.integer(a[name]); ok && m.Features < 0 && n >= 0 && n <= math.MaxInt32 {
			m.Features = int(n)
		}
	}
	m.FeatureNames = d.strings(a["feature_names_in_"])
	m.Classes, m.ClassCount = d.elements(a["classes_"], maxClasses)
	m.Params = d.params(a)
	m.Selected = d.selected(m, a)
	m.Private = d.private(m.Class, a)
	if depth < maxDepth {
		m.Parts = d.parts(a, depth+1)
	}
	d.inherit(m)
	return m
}

// inherit takes what scikit-learn computes from the parts: a pipeline's input
// is its first step's, a search's everything its best estimator's.
func (d *describer) inherit(m *Model) {
	for _, p := range m.Parts {
		first := p == m.Parts[0] && strings.HasSuffix(m.Class, ".Pipeline")
		if !first && p.Key != "best_estimator_" {
			continue
		}
		if m.Features < 0 {
			m.Features = p.Features
		}
		if m.FeatureNames == nil {
			m.FeatureNames = p.FeatureNames
		}
	}
	for _, p := range m.Parts {
		last := p == m.Parts[len(m.Parts)-1] && strings.HasSuffix(m.Class, ".Pipeline")
		if m.Classes == nil && (last || p.Key == "best_estimator_") {
			m.Classes, m.ClassCount = p.Classes, p.ClassCount
		}
	}
}

func (d *describer) version(v value) string {
	s, ok := d.str(v)
	if !ok || len(s) > maxVersion || strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz.+-_") != "" {
		return ""
	}
	return s
}

// parts describes the estimators of which one is made.
func (d *describer) parts(a map[string]value, depth int) []*Model {
	var parts []*Model
	add := func(key string, v value) {
		if v.kind() != kObject || len(parts) >= maxParts || d.count >= maxDescribed || d.path[v] || !notable(d.classOf(v)) {
			return
		}
		parts = append(parts, d.model(v, key, depth))
	}
	named := func(list value) bool {
		before := len(parts)
		for it := range d.each(list) {
			items := d.list(it, 3)
			if len(items) < 2 {
				continue
			}
			name, _ := d.str(items[0])
			add(name, items[1])
		}
		return len(parts) > before
	}
	if named(a["steps"]) || named(a["transformers_"]) || named(a["transformers"]) || named(a["transformer_list"]) {
		return parts
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		v := a[name]
		if !strings.HasSuffix(name, "_") {
			continue
		}
		_, fitted := a["estimators_"]
		if template := fitted && (name == "estimator_" || name == "base_estimator_"); !template && d.isEstimator(v) {
			add(name, v)
		}
		if v.kind() == kList && (name == "estimators_" || name == "calibrated_classifiers_" || name == "regressors_") {
			i := 0
			for it := range d.each(v) {
				if d.isEnsemblePart(it) {
					add(fmt.Sprintf("%s[%d]", name, i), it)
				}
				i++
			}
		}
	}
	if len(parts) == 0 {
		for _, name := range []string{"estimator", "base_estimator", "classifier", "regressor"} {
			if _, fitted := a["estimators_"]; !fitted && d.isEstimator(a[name]) {
				add(name, a[name])
			}
		}
	}
	return parts
}

// isEstimator reports whether v is one of scikit-learn's, by its stamp, or of a
// library that makes estimators.
func (d *describer) isEstimator(v value) bool {
	class := d.classOf(v)
	if v.kind() != kObject || !notable(class) {
		return false
	}
	if !strings.HasPrefix(class, "sklearn.") {
		return true
	}
	_, ok := d.get(d.objects.at(v.index()).state, "_sklearn_version")
	return ok
}

// isEnsemblePart reports whether v deserves a description of its own: the trees
// of a forest do not.
func (d *describer) isEnsemblePart(v value) bool {
	class := d.classOf(v)
	return d.isEstimator(v) && !strings.HasPrefix(class, "sklearn.tree.") || strings.HasSuffix(class, "._CalibratedClassifier")
}

// params lists the constructor's parameters: the attributes without an
// underscore at either end.
func (d *describer) params(a map[string]value) []Param {
	var params []Param
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if strings.HasPrefix(name, "_") || strings.HasSuffix(name, "_") || name == "" || len(params) >= maxParams {
			continue
		}
		switch name {
		case "base_estimator", "estimator_params", "class_weight_vect", "estimator":
			continue // of ensembles: not what a person chose
		}
		if v, ok := d.plainValue(a[name]); ok && d.spend(len(name)) {
			params = append(params, Param{name, v})
		}
	}
	return params
}

// plainValue returns a value that can be shown: nil, bool, int64, float64 or
// string.
func (d *describer) plainValue(v value) (any, bool) {
	switch v.kind() {
	case kNone:
		return nil, true
	case kBool:
		return v.bool(), true
	case kInt, kLong:
		n, ok := d.integer(v)
		return n, ok
	case kFloat:
		return finite(d.float(v)), true
	case kStr:
		s, ok := d.str(v)
		return s, ok && len(s) <= 1000 && d.spend(len(s))
	case kObject:
		s, ok := d.scalar(v)
		if f, isFloat := s.(float64); isFloat {
			return finite(f), true
		}
		return s, ok
	}
	return nil, false
}

// finite returns f, or its name if JSON has no number for it.
func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return f
}

// strings returns the texts of a list or an array; nil if it holds others, or
// is not kept whole.
func (d *describer) strings(v value) []string {
	if v == 0 {
		return nil
	}
	all, n := d.elements(v, maxNames)
	if n != len(all) || !d.areTexts(v) {
		return nil
	}
	return all
}

// areTexts reports whether the elements of v are strings.
func (d *describer) areTexts(v value) bool {
	if a := d.arrayOf(v); a != nil {
		if a.data == 0 {
			return d.dtypes[a.dtype].code[0] == 'U'
		}
		return d.areTexts(d.listOf(a))
	}
	for it := range d.each(v) {
		if it.kind() != kStr {
			return false
		}
	}
	return v.kind() == kList || v.kind() == kTuple
}

// listOf returns the elements of an array of objects: the pickle that stands
// for it holds the array again.
func (d *describer) listOf(a *array) value {
	v := a.data
	for range 3 {
		inner := d.arrayOf(v)
		if inner == nil {
			break
		}
		v = inner.data
	}
	return v
}

// elements spells the elements of a list or of an array of one dimension, as
// Python's str does, at most max; n is how many there are.
func (d *describer) elements(v value, max int) (all []string, n int) {
	a := d.arrayOf(v)
	if a == nil {
		if v.kind() != kList && v.kind() != kTuple {
			return nil, 0
		}
		return d.spell(v, max), d.total(v)
	}
	if dims, _ := d.dims(a.shape); len(dims) != 1 {
		return nil, 0
	}
	if a.data != 0 {
		list := d.listOf(a)
		return d.spell(list, max), d.total(list)
	}
	dt := &d.dtypes[a.dtype]
	raw := d.bytes(a.raw)
	for i := int64(0); dt.size > 0 && (i+1)*dt.size <= int64(len(raw)) && len(all) < max; i++ {
		e, ok := dt.element(raw[i*dt.size : (i+1)*dt.size])
		if !ok || !d.spend(int(dt.size)) {
			return nil, 0
		}
		if s, isText := e.(string); isText && dt.code[0] == 'S' {
			e = "b'" + s + "'"
		}
		all = append(all, spellOne(e))
	}
	return all, int(a.count)
}

func (d *describer) spell(v value, max int) (all []string) {
	for it := range d.each(v) {
		if len(all) == max {
			break
		}
		p, ok := d.plainValue(it)
		if !ok || !d.spend(0) {
			return nil
		}
		all = append(all, spellOne(p))
	}
	return all
}

// String spells the value as Python's repr does.
func (p Param) String() string {
	if s, ok := p.Value.(string); ok {
		return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
	}
	return spellOne(p.Value)
}

// spellOne spells a value as Python's str does.
func spellOne(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case float64:
		return spellFloat(v)
	}
	return fmt.Sprint(v)
}

// spellFloat spells a number as Python does, which has no exponent from 1e-4 to
// 1e16.
func spellFloat(f float64) string {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return fmt.Sprint(finite(f))
	case f != 0 && (abs < 1e-4 || abs >= 1e16):
		return strconv.FormatFloat(f, 'e', -1, 64)
	case f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// private lists the attributes that hold rows of the training data.
func (d *describer) private(class string, a map[string]value) []string {
	names := []string{"_fit_X", "_y", "support_vectors_", "X_train_", "y_train_", "X_fit_", "X_"}
	if strings.HasSuffix(class, ".DBSCAN") {
		names = append(names, "components_")
	}
	var found []string
	for _, name := range names {
		v := a[name]
		if d.isArray(v) || v.kind() == kObject && strings.HasPrefix(d.classOf(v), "scipy.sparse") {
			found = append(found, name)
		}
	}
	return found
}

// countTrees counts the trees below v and their nodes.
func (d *describer) countTrees(v value) (trees int, count int64) {
	seen := make(map[value]bool)
	todo := []value{v}
	for len(todo) > 0 && len(seen) < maxVisits {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if a := d.arrayOf(v); a != nil && a.data != 0 {
			v = d.listOf(a)
		}
		if v.kind() != kObject && !v.isContainer() || seen[v] {
			continue
		}
		seen[v] = true
		for it := range d.each(v) {
			if it.kind() > kCut && len(todo) < maxVisits {
				todo = append(todo, it)
			}
		}
		if v.kind() != kObject {
			continue
		}
		o := d.objects.at(v.index())
		todo = append(todo, o.state, o.items)
		class := d.classOf(v)
		if strings.HasPrefix(class, "sklearn.tree.") && strings.HasSuffix(class, ".Tree") || strings.HasSuffix(class, ".TreePredictor") {
			trees++
			if nodes, ok := d.get(o.state, "nodes"); ok {
				if a := d.arrayOf(nodes); a != nil {
					count += a.count
				}
			}
		}
	}
	return trees, count
}

// stamps lists the versions of scikit-learn in the file.
func (m *machine) stamps() []string {
	d := describer{machine: m}
	found := make(map[string]bool)
	seen := make(map[value]bool)
	for i := range min(m.objects.n, maxVisits) {
		state := m.objects.at(i).state
		if state.kind() != kDict || seen[state] {
			continue
		}
		seen[state] = true
		if v, ok := m.get(state, "_sklearn_version"); ok {
			if s := d.version(v); s != "" {
				found[s] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (m *machine) writer() Writer {
	w := Writer{Protocol: m.maxProto}
	if m.binary && w.Protocol == 0 {
		w.Protocol = 1
	}
	switch {
	case m.nested == 5 && m.padded && m.maxProto < 5:
		w.Joblib = ">=1.5"
	case m.padded && m.nested >= 0 && m.nested < 5:
		w.Joblib = ">=1.2,<1.5"
	case m.padded:
		w.Joblib = ">=1.2"
	case m.unpadded:
		w.Joblib = "<1.2"
	}
	for i := range m.globals {
		switch g := &m.globals[i]; {
		case strings.HasPrefix(g.module, "numpy._core"):
			w.Numpy = "2"
		case strings.HasPrefix(g.module, "numpy.core") && w.Numpy == "":
			w.Numpy = "1"
		}
	}
	return w
}

// packages lists the libraries that loading needs.
func (m *machine) packages(r *Report) []Package {
	p := thePolicy()
	need := make(map[string]bool)
	for i := range m.globals {
		g := &m.globals[i]
		top, _, _ := strings.Cut(g.module, ".")
		if isName(g.module) && !p.stdlib[top] && top != mainModule && top != "builtins" {
			need[top] = true
		}
		if g.module == "xgboost.sklearn" || g.module == "lightgbm.sklearn" {
			need["sklearn"] = true // which these libraries do without, but not this module
		}
	}
	if r.Format == Joblib {
		need["joblib"] = true
	}
	return Packages(slices.Sorted(maps.Keys(need)), r.Sklearn)
}

// Packages returns what has to be installed for imports, top-level modules, with
// the version of scikit-learn that the stamps tell.
func Packages(imports, sklearn []string) []Package {
	var list []Package
	for _, top := range imports {
		if top == mainModule {
			continue
		}
		known := thePolicy().packages[top]
		pkg := Package{Import: top, Name: known.pip, Note: known.note}
		if top == "sklearn" && len(sklearn) > 0 {
			pkg.Version = sklearn[len(sklearn)-1]
		}
		list = append(list, pkg)
	}
	return list
}

// mainModule is the module that a script's own classes are pickled under.
const mainModule = "__main__"

// listArrays lists the arrays in the order of the file, with their places in
// top. The pickle that stands for an array of objects is an array again, which
// does not count.
func (m *machine) listArrays(r *Report, top value) {
	paths := m.arrayPaths(top)
	again := make(map[*array]bool)
	for i := range m.arrays.n {
		if a := m.arrays.at(i); a.data.kind() == kObject {
			again[m.arrayOf(a.data)] = true
		}
	}
	for i := range m.arrays.n {
		a := m.arrays.at(i)
		if again[a] {
			continue
		}
		r.ArrayCount++
		size, _ := product([]int64{a.count}, m.dtypes[a.dtype].size)
		r.ArrayBytes += size
		if len(r.Arrays) >= maxArrays {
			continue
		}
		dims, _ := m.dims(a.shape)
		order := "C"
		if a.fortran {
			order = "F"
		}
		r.Arrays = append(r.Arrays, Array{
			Path: paths[i], DType: m.dtypeText(int(a.dtype)), Shape: dims, Order: order, Offset: a.offset, Size: size,
		})
	}
	slices.SortStableFunc(r.Arrays, func(a, b Array) int { return cmp.Compare(a.Offset, b.Offset) })
}

// maxPath bounds the place of an array, in bytes, and maxPlaces how many values
// are looked at to find such places.
const (
	maxPath   = 200
	maxPlaces = 200_000
)

// arrayPaths finds where the arrays lie, by their index.
func (m *machine) arrayPaths(top value) map[int]string {
	type place struct {
		v    value
		path string
	}
	paths := make(map[int]string)
	seen := make(map[value]bool)
	todo := []place{{top, ""}}
	for len(todo) > 0 && len(seen) < maxPlaces {
		at := todo[0]
		todo = todo[1:]
		if at.v.kind() != kObject && at.v.kind() != kArray && !at.v.isContainer() || seen[at.v] || len(at.path) > maxPath {
			continue
		}
		seen[at.v] = true
		under := func(v value, key string) {
			if v.kind() > kGlobal && len(todo) < maxPlaces {
				todo = append(todo, place{v, at.path + key})
			}
		}
		switch v := at.v; v.kind() {
		case kArray:
			paths[v.index()] = at.path
			under(m.arrays.at(v.index()).data, "")
		case kObject:
			o := m.objects.at(v.index())
			if o.info > 0 && o.flags&arrayAt != 0 {
				if i := int(o.info) - 1; paths[i] == "" {
					paths[i] = at.path
				}
				under(m.arrays.at(int(o.info)-1).data, "")
				continue
			}
			under(o.state, "")
			under(o.items, "")
			for i, it := range m.list(o.args, 8) {
				under(it, fmt.Sprintf("(%d)", i))
			}
		case kDict:
			for k, it := range m.pairs(v) {
				if name, ok := m.str(k); ok {
					under(it, joinPath(at.path, name))
				}
			}
		default:
			i := 0
			for it := range m.each(v) {
				if i++; it.kind() > kGlobal {
					under(it, fmt.Sprintf("[%d]", i-1))
				}
			}
		}
	}
	return paths
}

// joinPath is what stands before a name in a path that has begun.
func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return "." + name
}

// warnings tell what will fail where the file is loaded.
func (d *describer) warnings(r *Report) []string {
	var w []string
	if len(r.Sklearn) > 1 {
		w = append(w, "its parts were made by scikit-learn "+strings.Join(r.Sklearn, " and "))
	}
	var main []string
	for _, g := range r.Globals {
		if g.Module == mainModule {
			main = append(main, fmt.Sprintf("%.80s", g.Name))
		}
	}
	if len(main) > maxMain {
		main = append(main[:maxMain], fmt.Sprintf("%d more", len(main)-maxMain))
	}
	if len(main) > 0 {
		w = append(w, fmt.Sprintf("%s of __main__ exists only in the training script: joblib.load fails in a server; move it into a module that both import", strings.Join(main, ", ")))
	}
	if size := d.nodeSize(); size > 0 && len(r.Sklearn) == 1 {
		since13 := !olderThan(r.Sklearn[0], 1, 3)
		if since13 == (size == 56) {
			w = append(w, fmt.Sprintf("its tree nodes have %d bytes, which scikit-learn %s does not read", size, r.Sklearn[0]))
		}
	}
	return w
}

// nodeSize is the size of the nodes of scikit-learn's trees in the file: 56
// bytes before 1.3, 64 since; 0 if there are none.
func (d *describer) nodeSize() int64 {
	for i := range d.arrays.n {
		index := int(d.arrays.at(i).dtype)
		if l := d.nodeLayoutOf(index); l != nil && l.leaf == nil && (l.size == 56 || l.size == 64) {
			return l.size
		}
	}
	return 0
}

// olderThan reports whether a version is before major.minor.
func olderThan(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(strings.TrimRight(parts[1], "abcdefghijklmnopqrstuvwxyz"))
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}
