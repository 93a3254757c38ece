package contract

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"galley/manifest/joblib"
)

// Outcome is the answer to whether the features fit the model.
type Outcome string

// The outcomes.
const (
	// Unknown: there is nothing to compare.
	Unknown Outcome = "unknown"
	// Matches: the features are what some place in the model takes.
	Matches Outcome = "matches"
	// Differs: they are not, but a transformer in front may well make of them
	// what the model takes. To be warned of.
	Differs Outcome = "differs"
	// Mismatch: predict would fail on these features, or mix columns. To be
	// refused.
	Mismatch Outcome = "mismatch"
)

// Input is what [Check] compares. Everything may be missing.
type Input struct {
	Features []string       // the ordered names of the features file; empty: unknown
	Note     string         // why Features is empty, as training.Features has it
	Params   map[string]any // of the training summary, by [Params]
	Model    *joblib.Report
	// Parts are the files that go with the model and may prepare its input:
	// scalers, encoders, selectors.
	Parts []*joblib.Report

	// By what messages call the files; empty: "the features file" and "the
	// training summary".
	FeaturesFile, SummaryFile string
}

// Result is what [Check] found.
type Result struct {
	Outcome Outcome `json:"outcome"`
	// Summary is the outcome in one line, with its reason.
	Summary string `json:"summary"`
	// With is the place in the model that the features match or, where none
	// does, from which they differ least: "the pipeline's input". By is
	// "names", or "count" where the place has no names to compare. Both are
	// empty when the outcome is Unknown.
	With string `json:"with,omitempty"`
	By   string `json:"by,omitempty"`
	// Difference is set when the outcome is Differs or Mismatch.
	Difference *Difference `json:"difference,omitempty"`
	// Warnings tell what else does not fit, a line each: names that stand
	// twice, models in the same file that take other features, parameters.
	// The outcome is not repeated here.
	Warnings []string `json:"warnings,omitempty"`
}

// Check compares the features and the parameters with the model.
func Check(in Input) Result {
	in.FeaturesFile = cmp.Or(in.FeaturesFile, "the features file")
	in.SummaryFile = cmp.Or(in.SummaryFile, "the training summary")
	r := checkFeatures(in)
	if twice := repeated(in.Features); twice.Count > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s has names more than once: %s", in.FeaturesFile, twice))
	}
	r.Warnings = append(r.Warnings, checkParams(in)...)
	return r
}

// unknown is the result where there is nothing to compare.
func unknown(why string) Result {
	const prefix = "feature contract unknown: "
	return Result{Outcome: Unknown, Summary: prefix + strings.TrimPrefix(why, prefix)}
}

func checkFeatures(in Input) Result {
	switch {
	case len(in.Features) == 0:
		return unknown(cmp.Or(in.Note, "there are no feature names"))
	case in.Model == nil:
		return unknown("the model was not read")
	case len(in.Model.Models) == 0 && !in.Model.Format.IsPickle():
		return unknown(fmt.Sprintf("the model is no pickle but %s", in.Model.Format))
	case len(in.Model.Models) == 0:
		return unknown("the model file holds no estimator")
	}
	c := divide(in.Model, in.Parts)
	results := make([]Result, len(c.models))
	for i, m := range c.models {
		results[i] = compare(in.Features, trace(m, c.beside))
	}
	r := choose(results)
	if r.Outcome != Matches {
		return r
	}
	for i, other := range results {
		if other.Outcome == Differs || other.Outcome == Mismatch {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s takes other features: %s", title(c.models[i]), other.Summary))
		}
	}
	return r
}

// choose answers for all models of a file: one that matches is enough, and to
// be refused all have to be.
func choose(results []Result) Result {
	first := func(o Outcome) int {
		return slices.IndexFunc(results, func(r Result) bool { return r.Outcome == o })
	}
	if i := first(Matches); i >= 0 {
		return results[i]
	}
	if i := first(Differs); i >= 0 {
		return results[i]
	}
	i, j := first(Mismatch), first(Unknown)
	if i < 0 || j < 0 {
		return results[0]
	}
	r := results[i]
	r.Outcome = Differs
	r.Summary += "; what another model in the file takes is not known"
	return r
}

// matches is the result where the features fit.
func matches(have []string, p place, by, how string) Result {
	s := fmt.Sprintf("%s match %s%s", plural(len(have), "feature"), p.what, how)
	if len(have) == 1 {
		s = fmt.Sprintf("1 feature matches %s%s", p.what, how)
	}
	return Result{Outcome: Matches, With: p.what, By: by, Summary: s}
}

// compare compares the features with the places on the way through a model.
func compare(have []string, w way) Result {
	input := w.places[0]
	for _, p := range w.places {
		if p.names == nil {
			continue
		}
		how := ""
		switch {
		case slices.Equal(have, p.names):
		case p.anyOrder != "" && sameNames(have, p.names):
			how = fmt.Sprintf("; the order is another, but %s selects by name", p.anyOrder)
		default:
			continue
		}
		return matches(have, p, "names", how)
	}
	for _, p := range w.places {
		if how := countFits(have, p, input); how != "" {
			return matches(have, p, "count", " by count: "+how)
		}
	}
	named := func(p place) bool { return p.names != nil }
	if input.count < 0 && !slices.ContainsFunc(w.places, named) {
		return unknown(w.why)
	}
	return differ(have, w)
}

// countFits says how the features match a place that has no names; "" if they
// do not.
func countFits(have []string, p, input place) string {
	if p.names != nil || p.blind || p.count != len(have) {
		return ""
	}
	if p.within != nil {
		if !containsAll(p.within, have) {
			return ""
		}
		return "its names are not stored, but all are names of the input"
	}
	if input.names != nil && len(input.names) == p.count {
		return "" // the names of the input say more, and they differ
	}
	return "its names are not stored"
}

// maxNames is how many names of a features file are compared with more places
// than one.
const maxNames = 1 << 16

// differ describes how the features differ from the place they are closest to.
func differ(have []string, w way) Result {
	best := w.places[0]
	diff := best.difference(have)
	for _, p := range w.places[1:] {
		if p.names == nil || len(have) > maxNames {
			continue
		}
		if d := p.difference(have); best.names == nil || d.distance() < diff.distance() {
			best, diff = p, d
		}
	}
	r := Result{Outcome: Mismatch, With: best.what, By: "names", Difference: diff}
	if best.names == nil {
		r.By = "count"
	}
	r.Summary = diff.headline(best.what)
	if w.front != "" {
		r.Outcome = Differs
		r.Summary += "; " + w.front
		return r
	}
	r.Summary += "; " + diff.consequence()
	return r
}

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// quote makes text from a file fit for a message.
func quote(s string) string { return fmt.Sprintf("%.60q", s) }
