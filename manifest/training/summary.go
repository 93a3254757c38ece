package training

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"unicode"

	"galley/manifest/internal/strictjson"
)

// Limits on what a summary's metrics may cost whoever carries them.
const (
	maxPath    = 256 // bytes in the path of a metric
	maxMetrics = 10_000
)

// Summary is what a training summary says. It holds on to the text.
type Summary struct {
	// Metrics are the finite numbers and booleans that measure the model, in
	// the order of the file. No two have the same path.
	Metrics []Metric

	// Warnings say what was left out: NaN and infinite values, values whose
	// path is not unique, list entries without a name. One line each.
	Warnings []string

	// Trained is when the model was trained, after the first ISO 8601 value
	// under trained_at, training_timestamp, timestamp, created_at or
	// generated_at: in UTC as RFC 3339 has it when the zone is known, without a
	// zone when it is not (2006-01-02T15:04:05), or a date alone. "" when there
	// is none.
	Trained string

	// What the file says itself, unchecked and possibly not printable.
	Model        string // model_artifact: the path of the model's file; "" when absent
	BestModel    string // best_model: the name of the model that won; "" when absent
	FeatureCount int    // feature_count; -1 when absent

	root     strictjson.Value  // the file
	all      []Metric          // Metrics and the unusable ones between them
	unusable map[string]string // why a metric has no value, by path
}

// ParseSummary reads a training summary of at most [MaxSize] bytes. Errors are
// a [*SyntaxError] or [*SizeError]; a file without metrics is none.
func ParseSummary(data []byte) (*Summary, error) {
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	c := collector{twice: map[string]bool{}}
	c.value(v, "")
	s := &Summary{
		Trained:      trained(v),
		Model:        text(v.Member("model_artifact")),
		BestModel:    cmp.Or(text(v.Member("best_model")), nameOf(v.Member("best_model"))),
		FeatureCount: wholeNumber(v.Member("feature_count")),
		root:         v,
		all:          c.metrics,
		unusable:     map[string]string{},
	}
	s.sift(&c)
	return s, nil
}

// Metric returns the metric that name means, by the rules of [Find]. Metrics
// without a value are looked up too, so that the NaN of a test score does not
// make the validation score answer in its place: when the name means one of
// those, the error is an [*UnusableMetricError].
func (s *Summary) Metric(name string, alias map[string]string) (Metric, error) {
	candidates := s.Metrics
	if len(s.unusable) > 0 {
		candidates = s.all
	}
	m, err := Find(candidates, name, alias)
	if err != nil {
		return Metric{}, err
	}
	if why, bad := s.unusable[m.Path]; bad {
		return Metric{}, &UnusableMetricError{Name: name, Path: m.Path, Why: why}
	}
	return m, nil
}

// sift sets Metrics and Warnings from what was collected.
func (s *Summary) sift(c *collector) {
	var notFinite, twice tally
	for _, m := range c.metrics {
		switch {
		case c.twice[m.Path]:
			s.unusable[m.Path] = "given twice"
			twice.add(m.Path)
		case math.IsNaN(m.Value):
			s.unusable[m.Path] = "NaN"
			notFinite.add(m.Path)
		case math.IsInf(m.Value, 0):
			s.unusable[m.Path] = "infinite"
			notFinite.add(m.Path)
		default:
			s.Metrics = append(s.Metrics, m)
		}
	}
	warn := func(t tally, why string) {
		if t.n > 0 {
			s.Warnings = append(s.Warnings, fmt.Sprintf("left out, %s: %s", why, &t))
		}
	}
	warn(notFinite, "NaN or infinite")
	warn(twice, "several values for one path")
	warn(c.nameless, "list entries without name or model")
	if c.unnameable > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("left out, keys empty, too long or not printable: %d values", c.unnameable))
	}
	if c.full {
		s.Warnings = append(s.Warnings, fmt.Sprintf("left out, only %d metrics are read: the rest", maxMetrics))
	}
}

// collector gathers the metrics of a summary.
type collector struct {
	metrics    []Metric
	twice      map[string]bool // paths seen, and whether more than once
	nameless   tally           // lists with metrics in entries without a name
	unnameable int             // metrics whose path nobody could write
	full       bool
}

// bad is the path of everything below a key that no path may have. No other
// path has a control character.
const bad = "\x00"

// value collects from the value at path, an object or a list of objects.
func (c *collector) value(v strictjson.Value, path string) {
	for key, member := range v.Members() {
		c.member(key, member, path)
	}
	warned := path == bad
	for item := range v.Items() {
		if item.Kind() != strictjson.Object {
			continue
		}
		if name := nameOf(item); name != "" {
			c.value(item, join(path, name))
			continue
		}
		before := c.unnameable
		c.value(item, bad)
		if path != bad && c.unnameable > before {
			c.unnameable = before
			if !warned {
				c.nameless.add(cmp.Or(path, "(top level)"))
			}
			warned = true
		}
	}
}

// member collects from the object member of that key; path is the object's.
func (c *collector) member(key string, v strictjson.Value, path string) {
	if isSetting(key) {
		return
	}
	switch v.Kind() {
	case strictjson.Object, strictjson.Array:
		if !isCensus(key) {
			c.value(v, join(path, key))
		}
	case strictjson.Bool:
		c.add(newBool(join(path, key), v))
	case strictjson.Number:
		if isMetric(key) {
			f, _ := v.Float()
			c.add(Metric{Path: join(path, key), Value: f})
		}
	}
}

func (c *collector) add(m Metric) {
	_, seen := c.twice[m.Path]
	switch {
	case m.Path == bad:
		c.unnameable++
	case seen:
		c.twice[m.Path] = true
	case len(c.metrics) == maxMetrics:
		c.full = true
	default:
		c.twice[m.Path] = false
		c.metrics = append(c.metrics, m)
	}
}

// join appends a key to a path.
func join(path, key string) string {
	ungraphic := func(r rune) bool { return !unicode.IsGraphic(r) }
	switch {
	case path == bad, key == "", len(path)+1+len(key) > maxPath, strings.ContainsFunc(key, ungraphic):
		return bad
	case path == "":
		return key
	}
	return path + "." + key
}

// nameOf returns the name an object gives itself, or "".
func nameOf(object strictjson.Value) string {
	for _, known := range []string{"name", "model", "modelname"} {
		for key, v := range object.Members() {
			if name := text(v); name != "" && normal(key) == known {
				return name
			}
		}
	}
	return ""
}

// text returns the text of a string, or "".
func text(v strictjson.Value) string {
	if v.Kind() != strictjson.String {
		return ""
	}
	return v.Text()
}

// wholeNumber returns a number that counts something, or -1.
func wholeNumber(v strictjson.Value) int {
	f, finite := v.Float()
	if !finite || f < 0 || f > math.MaxInt32 || f != math.Trunc(f) {
		return -1
	}
	return int(f)
}
