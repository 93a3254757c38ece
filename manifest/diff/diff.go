// Package diff compares what is known of two models, as a person would who has
// to decide which one to ship: metrics with what improved, features, parameters,
// and what is told of the models.
//
// The inputs are [manifest.Facts], from wherever they were read; what one side
// does not tell is no difference, but unknown. A [Diff] marshals to the JSON of
// `galley diff`, whose fields are only ever added. Strings in it are whatever the
// models' authors wrote; lists are bounded, and say how much they leave out.
package diff

import (
	"strconv"
	"strings"

	"galley/manifest"
	"galley/manifest/training"
)

// maxListed bounds each list of a [Diff].
const maxListed = 1000

// Options say what metrics are called and which way they improve.
type Options struct {
	// Aliases name metrics; these come first, in this order.
	Aliases []Alias
	// Better tells which way the metric at a path improves; nil:
	// [training.Better].
	Better func(path string) training.Direction
}

// Alias is a short name for the metric at a path.
type Alias struct{ Name, Path string }

// Result says whether two things are the same.
type Result string

// The results. Unknown is what one side does not tell.
const (
	Same    Result = "same"
	Differs Result = "differs"
	Unknown Result = "unknown"
)

// Diff is how a model differs from an older one.
type Diff struct {
	// Result is about what the model is, which is what ml.galley.content digests:
	// its files and where they lie, the features in their order, and the metrics.
	Result Result `json:"result"`
	// Model is about the bytes of the model's file alone.
	Model Result `json:"model"`

	Metrics        []Metric `json:"metrics"`        // equal ones too
	MetricsChanged int      `json:"metricsChanged"` // those omitted among them
	MetricsOmitted int      `json:"metricsOmitted,omitempty"`
	Features       Features `json:"features"`
	// Params are those that differ; they are unknown where the model of a side
	// was not read.
	Params        []Param `json:"parameters"`
	ParamsOmitted int     `json:"parametersOmitted,omitempty"`
	ParamsKnown   bool    `json:"parametersKnown"`
	// Changes are what else both sides tell, and differently.
	Changes []Change `json:"changes"`
}

// Change is one thing that both sides tell differently.
type Change struct {
	What What   `json:"what"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// What names a [Change].
type What string

// What changes, in the order in which it is listed.
const (
	Name     What = "name"
	Version  What = "version"
	Trained  What = "trained"
	Revision What = "revision"
	Class    What = "class"
	Steps    What = "steps" // classes, separated by commas
	Sklearn  What = "scikit-learn"
	Numpy    What = "numpy"
	Joblib   What = "joblib"
	Imports  What = "imports" // separated by commas
	Path     What = "path"
	Size     What = "size" // of the model's file in bytes
	Scan     What = "scan"
)

// Compare says how b differs from a, the older.
func Compare(a, b *manifest.Facts, o Options) *Diff {
	if o.Better == nil {
		o.Better = training.Better
	}
	d := &Diff{Model: Unknown, Features: features(a, b), Changes: changes(a, b), Params: []Param{}}
	if a.FileDigest != "" && b.FileDigest != "" {
		d.Model = result(a.FileDigest == b.FileDigest)
	}
	metrics := d.compareMetrics(a, b, o)
	switch {
	case d.Model == Same:
		d.ParamsKnown = true
	case a.Scans != nil && b.Scans != nil:
		d.ParamsKnown = true
		d.Params, d.ParamsOmitted = params(a.Scans, b.Scans)
	}
	d.Result = whole(a, b, d.Model, metrics, d.Features.Result)
	return d
}

// Same reports whether nothing differs at all, as far as both sides tell.
func (d *Diff) Same() bool {
	return d.Result == Same && len(d.Changes) == 0 && len(d.Params) == 0
}

func result(same bool) Result {
	if same {
		return Same
	}
	return Differs
}

// whole makes one result of those of the parts. The digests of the content are
// claims: where they are equal, what was read has the last word.
func whole(a, b *manifest.Facts, parts ...Result) Result {
	told := a.Info.Content != "" && b.Info.Content != ""
	all := Unknown
	if told && a.Info.Content == b.Info.Content {
		all = Same
	} else if told {
		return Differs
	}
	hasModel := func(f *manifest.Facts) bool { return f.Size >= 0 || f.Path != "" || f.FileDigest != "" }
	if !told && a.Path != "" && b.Path != "" && a.Path != b.Path {
		return Differs
	}
	for i, r := range parts {
		switch {
		case r == Differs:
			return Differs
		case r == Same && all == Unknown:
			all = Same
		case i == 0 && r == Unknown && !told && hasModel(a) && hasModel(b):
			return Unknown // of the models themselves
		}
	}
	return all
}

// isWhole reports whether the facts are of a whole artifact or project, and not
// of one file or of an image of which only labels are left: then a file that is
// not known is not there.
func isWhole(f *manifest.Facts) bool {
	return f.Path != "" && (f.Digest != "" || f.Info.Content != "")
}

// changes lists what both sides tell and differs.
func changes(a, b *manifest.Facts) []Change {
	list := []Change{}
	add := func(what What, old, new string) {
		if old != "" && new != "" && old != new {
			list = append(list, Change{what, old, new})
		}
	}
	x, y := &a.Info, &b.Info
	add(Name, x.Name, y.Name)
	add(Version, x.Version, y.Version)
	add(Trained, x.Trained, y.Trained)
	add(Revision, x.Revision, y.Revision)
	add(Class, x.Class, y.Class)
	if x.Class == y.Class { // else there may be no steps to compare
		add(Steps, strings.Join(x.Steps, ","), strings.Join(y.Steps, ","))
	}
	add(Sklearn, strings.Join(x.Sklearn, ","), strings.Join(y.Sklearn, ","))
	add(Numpy, x.Numpy, y.Numpy)
	add(Joblib, x.Joblib, y.Joblib)
	add(Imports, strings.Join(x.Imports, ","), strings.Join(y.Imports, ","))
	add(Path, a.Path, b.Path)
	if a.Size >= 0 && b.Size >= 0 {
		add(Size, strconv.FormatInt(a.Size, 10), strconv.FormatInt(b.Size, 10))
	}
	add(Scan, verdict(a), verdict(b))
	return list
}

// verdict is that of what was read, else the one that is told.
func verdict(f *manifest.Facts) string {
	if len(f.Scans) > 0 {
		return manifest.Worst(f.Scans).String()
	}
	return f.Info.Scan
}
