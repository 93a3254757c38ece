package joblib

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// Report is what a file holds. All of it but the verdict and the findings is
// the claim of whoever wrote the file, and strings may hold anything.
type Report struct {
	Format      Kind   `json:"format"`
	Compression string `json:"compression,omitempty"`
	// Unloadable says that readers of pickles fail on it before they have
	// imported anything: as a pickle it does nothing.
	Unloadable bool `json:"unloadable,omitempty"`
	// Size is that of the uncompressed pickle and what follows it, in bytes.
	Size     int64     `json:"size"`
	Verdict  Verdict   `json:"verdict"`
	Findings []Finding `json:"findings"`
	More     int       `json:"moreFindings,omitempty"` // that are not listed
	Globals  []Global  `json:"globals,omitempty"`      // by module and name

	// Peek says the same as [Look], of the whole file.
	Peek Peek `json:"-"`
	// Models are the estimators in the file: the object itself, or those in a
	// dict or list, at most 16.
	Models []*Model `json:"models,omitempty"`
	// Values are the other values of a dict that was saved: numbers, text.
	Values []Param `json:"values,omitempty"`

	Arrays     []Array `json:"arrays,omitempty"` // in the order of the file, at most 10,000
	ArrayCount int     `json:"arrayCount,omitempty"`
	ArrayBytes int64   `json:"arrayBytes,omitempty"` // of all arrays

	Writer   Writer    `json:"writer"`
	Packages []Package `json:"packages,omitempty"` // that loading needs, by name
	// Sklearn lists the version stamps of scikit-learn's objects, without
	// repetition and in order; more than one means parts of several releases.
	Sklearn []string `json:"sklearn,omitempty"`
	// Warnings tell what will fail or surprise where the file is loaded, a
	// sentence each.
	Warnings []string `json:"warnings,omitempty"`
	// Allowed lists the entries of [Options.Allow] that the file holds.
	Allowed []string `json:"allowed,omitempty"`
}

// Writer is what wrote the file, as far as the bytes show it.
type Writer struct {
	Protocol int    `json:"protocol"`         // of pickle, the highest in the file
	Joblib   string `json:"joblib,omitempty"` // "<1.2", ">=1.2,<1.5" or ">=1.5", or what of these is known
	Numpy    string `json:"numpy,omitempty"`  // "1" or "2"
	Python2  bool   `json:"python2,omitempty"`
}

// Package is a library that has to be installed where the file is loaded.
type Package struct {
	Import  string `json:"import"`            // the top-level module
	Name    string `json:"name"`              // by which pip installs it; empty: not known
	Version string `json:"version,omitempty"` // as stamped in the file
	Note    string `json:"note,omitempty"`
}

// Requirement is the line of a requirements file. A package whose name on the
// index is not known stands as it is imported.
func (p Package) Requirement() string {
	name := p.Name
	if name == "" {
		name = p.Import
	}
	if p.Version == "" {
		return name
	}
	return name + "==" + p.Version
}

// Model is an estimator, or a part of one.
type Model struct {
	// Key is where it lies in what holds it: a step's name, a dict's key, an
	// attribute. Empty for the pickled object itself.
	Key     string `json:"key,omitempty"`
	Class   string `json:"class"`
	Sklearn string `json:"sklearn,omitempty"`
	// Features is n_features_in_, taken from the first step of a pipeline and
	// the best estimator of a search; -1 where it is unknown.
	Features     int      `json:"features"`
	FeatureNames []string `json:"featureNames,omitempty"`
	Classes      []string `json:"classes,omitempty"` // at most 100, or all
	ClassCount   int      `json:"classCount,omitempty"`
	Params       []Param  `json:"params,omitempty"`
	Trees        int      `json:"trees,omitempty"`
	Nodes        int64    `json:"nodes,omitempty"` // of all trees
	// Selected are the positions, in what comes in, of the features that a
	// selector keeps; nil where it is none or does not store them.
	Selected []int    `json:"selected,omitempty"`
	Private  []string `json:"trainingData,omitempty"` // attributes that hold rows of the training data
	Parts    []*Model `json:"parts,omitempty"`
}

// Param is a constructor parameter, or a value in a dict that was saved.
type Param struct {
	Name string `json:"name"`
	// Value is nil, a bool, int64, float64 or string. What is none of these
	// is not listed. A float is finite: others are their names, as strings.
	Value any `json:"value"`
}

// MarshalJSON writes a float as Python does, with a point or an exponent, so that
// it reads back as one.
func (p Param) MarshalJSON() ([]byte, error) {
	wire := struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}{p.Name, p.Value}
	if f, ok := p.Value.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1e21 {
		wire.Value = json.RawMessage(strconv.FormatFloat(f, 'f', 1, 64))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // that is for whoever encodes the whole to say
	err := e.Encode(wire)
	return b.Bytes(), err
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Param) UnmarshalJSON(data []byte) error {
	var wire struct {
		Name  string          `json:"name"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	p.Name = wire.Name
	if n, err := strconv.ParseInt(string(wire.Value), 10, 64); err == nil {
		p.Value = n
		return nil
	}
	return json.Unmarshal(wire.Value, &p.Value)
}

// Find returns the first model of the tree below m, m itself included, for
// which f holds, or nil.
func (m *Model) Find(f func(*Model) bool) *Model {
	if m == nil || f(m) {
		return m
	}
	for _, p := range m.Parts {
		if found := p.Find(f); found != nil {
			return found
		}
	}
	return nil
}

// Imports lists the top-level modules that loading imports, __main__ among
// them.
func (r *Report) Imports() []string {
	var list []string
	for _, p := range r.Packages {
		list = append(list, p.Import)
	}
	if slices.ContainsFunc(r.Globals, func(g Global) bool { return g.Module == mainModule }) {
		list = append(list, mainModule)
	}
	return list
}

// Requirements returns the packages as lines of a requirements file.
func Requirements(packages []Package) []string {
	var lines []string
	for _, p := range packages {
		lines = append(lines, p.Requirement())
	}
	return lines
}
