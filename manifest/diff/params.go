package diff

import (
	"encoding/json"
	"slices"
	"strings"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// Value is a number, a boolean, a text or nothing, which is Python's None.
type Value struct {
	V any // nil, bool, int64, float64 or string
	// class says that a text is the name of a class.
	class bool
}

// MarshalJSON writes the value alone.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.V) }

// String spells the value as Python does.
func (v Value) String() string {
	if text, ok := v.V.(string); ok && v.class {
		return text[strings.LastIndexByte(text, '.')+1:]
	}
	return joblib.Param{Value: v.V}.String()
}

func metricValue(m training.Metric) *Value {
	if m.IsBool {
		return &Value{V: m.Value != 0}
	}
	return &Value{V: m.Value}
}

// Param is a parameter that differs, named as scikit-learn names it:
// step__parameter. The name of a step alone stands for its class.
type Param struct {
	// File is the path of the part that has it; "" for the model.
	File string `json:"file,omitempty"`
	Name string `json:"name"`
	Old  *Value `json:"old,omitempty"` // nil where a side does not have it
	New  *Value `json:"new,omitempty"`
}

// params compares the parameters in the model's file and in those of parts that
// both sides have.
func params(a, b []manifest.Scan) (list []Param, omitted int) {
	c := &comparer{list: []Param{}}
	c.models(modelsIn(a, manifest.RoleModel, ""), modelsIn(b, manifest.RoleModel, ""))
	for _, s := range b {
		if s.Role == manifest.RolePart {
			if c.file = s.Path; hasPart(a, s.Path) {
				c.models(modelsIn(a, s.Role, s.Path), modelsIn(b, s.Role, s.Path))
			}
		}
	}
	return c.list, c.omitted
}

func hasPart(scans []manifest.Scan, path string) bool {
	return slices.ContainsFunc(scans, func(s manifest.Scan) bool { return s.Role == manifest.RolePart && s.Path == path })
}

// modelsIn are the estimators in the first file of the role, or in that at path.
func modelsIn(scans []manifest.Scan, role manifest.Role, path string) []*joblib.Model {
	for _, s := range scans {
		if s.Role == role && (path == "" || s.Path == path) {
			return s.Report.Models
		}
	}
	return nil
}

// comparer gathers parameters that differ.
type comparer struct {
	file    string
	list    []Param
	omitted int
}

func (c *comparer) add(name string, old, new *Value) {
	if len(c.list) == maxListed {
		c.omitted++
		return
	}
	c.list = append(c.list, Param{c.file, name, old, new})
}

// models compares the estimators of two files. One that is alone in its file is
// the same wherever it lies there.
func (c *comparer) models(a, b []*joblib.Model) {
	if len(a) == 1 && len(b) == 1 {
		c.model("", a[0], b[0])
		return
	}
	c.parts("", a, b)
}

// parts compares estimators by their keys.
func (c *comparer) parts(prefix string, a, b []*joblib.Model) {
	left := slices.Clone(a)
	for _, n := range b {
		i := slices.IndexFunc(left, func(m *joblib.Model) bool { return m.Key == n.Key })
		if i < 0 {
			c.add(prefix+n.Key, nil, classValue(n))
			continue
		}
		c.model(prefix+n.Key+"__", left[i], n)
		left = slices.Delete(left, i, i+1)
	}
	for _, m := range left {
		c.add(prefix+m.Key, classValue(m), nil)
	}
}

func classValue(m *joblib.Model) *Value { return &Value{m.Class, true} }

// model compares two estimators in the same place. Of different classes the
// parameters have nothing in common, though their parts may.
func (c *comparer) model(prefix string, a, b *joblib.Model) {
	if a.Class != b.Class {
		if name := strings.TrimSuffix(prefix, "__"); name != "" {
			c.add(name, classValue(a), classValue(b))
		}
	} else {
		c.params(prefix, a.Params, b.Params)
	}
	c.parts(prefix, a.Parts, b.Parts)
}

func (c *comparer) params(prefix string, a, b []joblib.Param) {
	// The members of an ensemble have their seeds from it.
	seeded := strings.HasSuffix(prefix, "]__")
	at := map[string]joblib.Param{}
	for _, p := range a {
		at[p.Name] = p
	}
	for _, n := range b {
		old, ok := at[n.Name]
		delete(at, n.Name)
		switch {
		case seeded && n.Name == "random_state":
		case !ok:
			c.add(prefix+n.Name, nil, &Value{V: n.Value})
		case !equal(old.Value, n.Value):
			c.add(prefix+n.Name, &Value{V: old.Value}, &Value{V: n.Value})
		}
	}
	for _, p := range a {
		if _, left := at[p.Name]; left && !(seeded && p.Name == "random_state") {
			c.add(prefix+p.Name, &Value{V: p.Value}, nil)
		}
	}
}

// equal reports whether two values are the same to Python: 1 and 1.0 are.
func equal(a, b any) bool {
	if i, ok := a.(int64); ok {
		if f, ok := b.(float64); ok {
			return float64(i) == f
		}
	}
	if f, ok := a.(float64); ok {
		if i, ok := b.(int64); ok {
			return float64(i) == f
		}
	}
	return a == b
}
