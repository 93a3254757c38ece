package diff

import (
	"errors"
	"math"

	"galley/manifest"
	"galley/manifest/training"
)

// Verdict says what a change of a metric means.
type Verdict string

// The verdicts. Indifferent is a change that is neither, of a boolean or of a
// metric that only one side has.
const (
	Better      Verdict = "better"
	Worse       Verdict = "worse"
	Equal       Verdict = "equal"
	Indifferent Verdict = "unknown"
)

// Metric is how one metric changed.
type Metric struct {
	Name string `json:"name,omitempty"` // the alias; "" if it has none
	Path string `json:"path"`
	// Old and New are numbers or booleans; nil where a side has none, and then
	// OldNote or NewNote may say why: "NaN", "infinite".
	Old     *Value   `json:"old,omitempty"`
	New     *Value   `json:"new,omitempty"`
	OldNote string   `json:"oldNote,omitempty"`
	NewNote string   `json:"newNote,omitempty"`
	Delta   *float64 `json:"delta,omitempty"` // of numbers, unless it is out of range
	Verdict Verdict  `json:"verdict"`
	// Lower says that the metric improves downwards.
	Lower bool `json:"lowerIsBetter,omitempty"`
}

// Judge says what the change of a metric means that improves that way.
func Judge(old, new training.Metric, way training.Direction) Verdict {
	switch {
	case old.IsBool == new.IsBool && old.Value == new.Value:
		return Equal
	case old.IsBool || new.IsBool:
		return Indifferent
	case (new.Value > old.Value) == (way == training.Higher):
		return Better
	}
	return Worse
}

// compareMetrics compares the metrics of both sides: aliases first, scores on
// the training data last, and else in the newer one's order.
func (d *Diff) compareMetrics(a, b *manifest.Facts, o Options) Result {
	x, y := newScores(a), newScores(b)
	d.Metrics = []Metric{}
	if x == nil || y == nil || len(x.all)+len(y.all) == 0 {
		return Unknown
	}
	seen := map[string]bool{}
	var list, last []Metric
	add := func(name, path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		m, known := compareMetric(name, path, x, y, o.Better(path))
		switch {
		case !known:
			return
		case m.Verdict != Equal:
			d.MetricsChanged++
		}
		if name == "" && (training.Metric{Path: path}).OnTraining() {
			last = append(last, m)
		} else {
			list = append(list, m)
		}
	}
	for _, alias := range o.Aliases {
		add(alias.Name, alias.Path)
	}
	for _, s := range []*scores{y, x} {
		for _, m := range s.all {
			add("", m.Path)
		}
	}
	list = append(list, last...)
	n := min(len(list), maxListed)
	d.Metrics, d.MetricsOmitted = append(d.Metrics, list[:n]...), len(list)-n
	return result(d.MetricsChanged == 0)
}

// compareMetric compares one metric; known is false where no side has it.
func compareMetric(name, path string, x, y *scores, way training.Direction) (m Metric, known bool) {
	m = Metric{Name: name, Path: path, Verdict: Indifferent, Lower: way == training.Lower}
	old, ok1 := x.at[path]
	new, ok2 := y.at[path]
	if ok1 {
		m.Old = metricValue(old)
	} else {
		m.OldNote = x.why(path)
	}
	if ok2 {
		m.New = metricValue(new)
	} else {
		m.NewNote = y.why(path)
	}
	if ok1 && ok2 {
		m.Verdict = Judge(old, new, way)
		if delta := new.Value - old.Value; !old.IsBool && !new.IsBool && !math.IsInf(delta, 0) {
			m.Delta = &delta
		}
	}
	return m, ok1 || ok2
}

// scores are one side's metrics.
type scores struct {
	all     []training.Metric
	at      map[string]training.Metric
	summary *training.Summary
}

// newScores returns nil where no metrics are known: of a file that is no
// summary.
func newScores(f *manifest.Facts) *scores {
	s := &scores{all: f.Info.Metrics, at: map[string]training.Metric{}, summary: f.Summary}
	switch {
	case f.Summary != nil:
		s.all = f.Summary.Metrics
	case len(s.all) == 0 && !isWhole(f):
		return nil
	}
	for _, m := range s.all {
		s.at[m.Path] = m
	}
	return s
}

// why says why the metric has no value, if it is there without one.
func (s *scores) why(path string) string {
	if s.summary == nil {
		return ""
	}
	_, err := s.summary.Metric(path, nil)
	if e, ok := errors.AsType[*training.UnusableMetricError](err); ok && e.Path == path {
		return e.Why
	}
	return ""
}
