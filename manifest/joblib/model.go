package joblib

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

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
