package joblib_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

// expected is what Python said of a file when it had written it: see
// testdata/joblib/gen.py.
type expected struct {
	Top          string         `json:"top"`
	Class        string         `json:"class"`
	Sklearn      string         `json:"sklearn"`
	Features     *int           `json:"n_features"`
	FeatureNames []string       `json:"feature_names"`
	Classes      []string       `json:"classes"`
	Params       map[string]any `json:"params"`
	Steps        [][2]string    `json:"steps"`
	Verdict      joblib.Verdict `json:"verdict"`
	Globals      []string       `json:"globals"`
	Compression  string         `json:"compression"`
	Protocol     int            `json:"protocol"`
	Needs        []string       `json:"needs"`
}

// models are the directories of files with an expected.json, and how many files
// each has at least. GALLEY_JOBLIB_FIXTURES names more of them.
func models(t *testing.T) map[string]int {
	dirs := map[string]int{
		filepath.FromSlash(corpus + "models"):     50,
		filepath.FromSlash(corpus + "models-1.2"): 15,
	}
	for _, dir := range filepath.SplitList(os.Getenv("GALLEY_JOBLIB_FIXTURES")) {
		dirs[dir] = 1000
	}
	return dirs
}

// TestModels compares what is found in files of many libraries and releases
// with what Python found that wrote and loaded them. The globals are those that
// joblib.load asked for under an audit hook. What Python computes when it is
// asked, as the classes of a search, may be unknown here, and is never wrong.
func TestModels(t *testing.T) {
	t.Parallel()
	for dir, least := range models(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			table, err := os.ReadFile(filepath.Join(dir, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			var files map[string]expected
			if err := json.Unmarshal(table, &files); err != nil {
				t.Fatal(err)
			}
			if len(files) < least {
				t.Fatalf("%d files, want at least %d", len(files), least)
			}
			var facts tally
			for name, want := range files {
				t.Run(name, func(t *testing.T) { facts.compare(t, filepath.Join(dir, name), want) })
			}
			if facts.known*20 < facts.all*17 {
				t.Errorf("%d of %d facts are known, want 85 in 100", facts.known, facts.all)
			}
		})
	}
}

// tally counts what Python knows of estimators, and how much of it is found.
type tally struct{ all, known int }

func (c *tally) compare(t *testing.T, file string, want expected) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := joblib.Inspect(f, joblib.Options{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != want.Verdict {
		t.Errorf("verdict: got %s, want %s\n%s", r.Verdict, want.Verdict, spell(r.Findings))
	}
	if other, ok := map[string]string{"none": "", "bz2": "bzip2"}[want.Compression]; ok {
		want.Compression = other
	}
	same(t, "compression", r.Compression, want.Compression)
	same(t, "protocol", r.Writer.Protocol, want.Protocol)
	same(t, "stamps", strings.Join(r.Sklearn, ", "), want.Sklearn)
	same(t, "globals", names(r), want.Globals)
	if slices.ContainsFunc(want.Globals, func(g string) bool {
		return strings.HasPrefix(g, "xgboost.sklearn:") || strings.HasPrefix(g, "lightgbm.sklearn:")
	}) {
		want.Needs = slices.Compact(slices.Sorted(slices.Values(append(want.Needs, "sklearn")))) // their wrappers need it, and do not name it
	}
	same(t, "needs", needs(r), slices.DeleteFunc(want.Needs, func(module string) bool {
		return slices.Contains([]string{"decimal", "fractions", "uuid"}, module) // Python 3.9 cannot list its own
	}))
	if isSubclass := want.Top != "array" && r.Peek.Class == "numpy.ndarray"; isSubclass {
		return // of numpy's array, whose pickle is an array's
	}
	same(t, "top", r.Peek.Top, want.Top)
	switch {
	case want.Top == "object" && strings.Contains(want.Class, "sklearn."):
		same(t, "class", r.Peek.Class, want.Class)
		if len(r.Models) != 1 {
			t.Fatalf("%d models, want 1", len(r.Models))
		}
		fallthrough
	case len(r.Models) == 1 && r.Models[0].Key == "":
		c.model(t, r.Models[0], want)
	case len(want.Params) > 0:
		t.Errorf("%d models, want 1", len(r.Models))
	}
}

func (c *tally) model(t *testing.T, m *joblib.Model, want expected) {
	// fact compares what Python knows, if it is known here.
	fact := func(what string, known bool, got, want any) {
		if c.all++; known {
			c.known++
			same(t, what, got, want)
		}
	}
	same(t, "model", m.Class, want.Class)
	if want.Features != nil {
		fact("features", m.Features >= 0, m.Features, *want.Features)
	}
	if len(want.FeatureNames) > 0 {
		fact("feature names", m.FeatureNames != nil, m.FeatureNames, want.FeatureNames)
	}
	if len(want.Classes) > 0 {
		fact("classes", m.Classes != nil, m.Classes, want.Classes)
		fact("number of classes", m.Classes != nil, m.ClassCount, len(want.Classes))
	}
	if want.Steps != nil {
		var steps [][2]string
		for _, p := range m.Parts {
			steps = append(steps, [2]string{p.Key, p.Class})
		}
		// A step can be a word, passthrough, and is no part then.
		same(t, "steps", steps, slices.DeleteFunc(want.Steps, func(s [2]string) bool { return !strings.Contains(s[1], ".") }))
	}
	params := make(map[string]any)
	for _, p := range m.Params {
		params[p.Name] = p.Value
	}
	for name, value := range want.Params {
		if name == "estimator" || name == "base_estimator" {
			continue // not what a person chose
		}
		got, ok := params[name]
		// xgboost fills in what is None from the model itself.
		ok = ok && (got != nil || strings.HasPrefix(want.Class, "sklearn."))
		fact("parameter "+name, ok, number(got), value)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// number makes a float of an integer, as JSON does.
func number(v any) any {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return v
}

// names lists the globals that were found, as module:name.
func names(r *joblib.Report) []string {
	all := []string{}
	for _, g := range r.Globals {
		all = append(all, g.Module+":"+g.Name)
	}
	slices.Sort(all)
	return all
}

func needs(r *joblib.Report) []string {
	all := []string{}
	for _, p := range r.Packages {
		all = append(all, p.Import)
	}
	slices.Sort(all)
	return all
}

// TestModelsAllowed lets a file through whose class somebody has looked at.
func TestModelsAllowed(t *testing.T) {
	t.Parallel()
	custom, err := os.ReadFile(filepath.FromSlash(corpus + "models/custom.joblib"))
	if errors.Is(err, os.ErrNotExist) {
		t.Fatal("the corpus has no model with a class of its own")
	}
	if err != nil {
		t.Fatal(err)
	}
	allow := []string{"__main__:Clip", "mypkg:Other"}
	r := inspect(t, string(custom), joblib.Options{Allow: allow})
	if r.Verdict != joblib.Pass || fmt.Sprint(r.Allowed) != "[__main__:Clip]" {
		t.Errorf("got %s, allowed %v\n%s", r.Verdict, r.Allowed, spell(r.Findings))
	}
}
