package joblib

import (
	"fmt"
	"maps"
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
