package gate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"galley/manifest"
	"galley/manifest/diff"
	"galley/manifest/joblib"
	"galley/manifest/project"
	"galley/manifest/training"
)

// nothing is why a comparison passes if the stage has no model.
const nothing = "nothing to compare with"

// show returns a text that may hold anything as one that is short and printable.
func show(s string) string {
	const most = 80
	if s == "" || len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return fmt.Sprintf("%.80q", s)
	}
	return s
}

// oneLine returns a text for a table: on one line, and of some hundred bytes at
// most.
func oneLine(s string) string {
	const most = 1000
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}

// scan is the row of what the files are known to do when they are loaded.
func (p *Policy) scan(candidate *manifest.Facts) (r Result, demanded bool) {
	r = Result{Gate: "scan: " + cmp.Or(p.Scan, "declared"), Verdict: Pass}
	if p.Scan == "pass" {
		if candidate.Scans == nil {
			r.Verdict, r.Why = Fail, "the files were not read"
			return r, true
		}
		r.Candidate = manifest.Worst(candidate.Scans).String()
		if r.Why = unsafe(candidate.Scans); r.Why != "" {
			r.Verdict = Fail
		}
		return r, true
	}
	r.Candidate = show(candidate.Info.Scan)
	var claim joblib.Verdict
	err := claim.UnmarshalText([]byte(candidate.Info.Scan))
	switch {
	case candidate.Info.Scan == "":
		r.Candidate, r.Verdict, r.Why = "none", Fail, "nobody says that it was read; read it: scan: pass"
		if p.Scan == "" {
			r.Verdict = Warn
		}
	case err != nil:
		r.Verdict, r.Why = Fail, "a verdict that this galley does not know; read it: scan: pass"
	case claim.Refused(false):
		r.Verdict, r.Why = Fail, "pushed in spite of its verdict"
	case claim.Refused(true):
		r.Verdict, r.Why = Warn, "somebody should look at it: galley scan"
	}
	return r, true
}

// unsafe names the files that are not plainly good; empty if all are.
func unsafe(scans []manifest.Scan) string {
	var files []string
	for _, s := range scans {
		if s.Verdict().Refused(true) {
			files = append(files, show(s.Path)+": "+show(manifest.Reason(s)))
		}
	}
	return oneLine(list(files))
}

// age is the row of how long ago the candidate was trained.
func (p *Policy) age(candidate *manifest.Facts, now, first time.Time) (r Result, demanded bool) {
	// A time without a zone may be ahead of UTC by fourteen hours.
	const ahead = 24 * time.Hour
	r = Result{Gate: "max-age: " + project.FormatDuration(p.MaxAge), Bound: "<= " + project.FormatDuration(p.MaxAge), Verdict: Fail}
	trained, what := candidate.Info.Time(), "trained"
	if trained.IsZero() {
		trained, what = first, "first seen"
	}
	age := now.Sub(trained)
	switch {
	case trained.IsZero():
		r.Candidate, r.Why = "unknown", "nobody knows when it was trained; say it: galley push --trained TIME"
	case age < -ahead:
		r.Candidate, r.Why = what+" "+trained.UTC().Format(time.RFC3339), "lies in the future"
	default:
		r.Candidate = fmt.Sprintf("%s %s, %s ago", what, trained.UTC().Format(time.DateOnly), about(max(age, 0)))
		if r.Verdict = Pass; age > p.MaxAge {
			r.Verdict, r.Why = Fail, "too long ago by "+about(age-p.MaxAge)
		}
	}
	return r, p.MaxAge > 0
}

// about writes a time span in one or two units, rounded up so that what is over
// a limit does not read like the limit.
func about(d time.Duration) string {
	const day = 24 * time.Hour
	unit := time.Minute
	switch {
	case d >= 10*day:
		unit = day
	case d >= day:
		unit = time.Hour
	}
	if rest := d % unit; rest > 0 && d < 1<<62 {
		d += unit - rest
	}
	return project.FormatDuration(d)
}

// features is the row of the feature contract.
func (p *Policy) features(candidate, current *manifest.Facts) (r Result, demanded bool) {
	r = Result{Gate: "features: " + p.Features, Candidate: counted(candidate), Verdict: Pass}
	if current == nil {
		r.Why = nothing
		return r, p.Features != "any"
	}
	r.Current = counted(current)
	var unknown []string
	for i, f := range []*manifest.Facts{candidate, current} {
		if f.Features == nil || len(f.Features.Names) == 0 {
			unknown = append(unknown, [2]string{"the candidate's", "current's"}[i])
		}
	}
	if unknown != nil {
		r.Verdict = Fail
		r.Why = strings.Join(unknown, " and ") + " features are unknown: push a features file, or say features: any"
		return r, p.Features != "any"
	}
	d := diff.CompareNames(current.Features.Names, candidate.Features.Names)
	var differences []string
	say := func(what string, count int, names []string) {
		if count > 0 {
			differences = append(differences, what+": "+some(names, count))
		}
	}
	name := func(f diff.Feature) string { return f.Name }
	say("added", d.AddedCount, texts(d.Added, name))
	say("removed", d.RemovedCount, texts(d.Removed, name))
	say("moved", d.MovedCount, texts(d.Moved, func(m diff.Move) string { return fmt.Sprintf("%s from %d to %d", m.Name, m.From, m.To) }))
	r.Why = oneLine(strings.Join(differences, "; "))
	if d.RemovedCount > 0 || d.MovedCount > 0 || d.AddedCount > 0 && p.Features != "superset" {
		r.Verdict = Fail
	}
	return r, p.Features != "any"
}

// texts makes texts of a list.
func texts[T any](list []T, text func(T) string) []string {
	var all []string
	for _, v := range list {
		all = append(all, text(v))
	}
	return all
}

func counted(f *manifest.Facts) string {
	if f.Features == nil || len(f.Features.Names) == 0 {
		return "unknown"
	}
	if n := len(f.Features.Names); n != 1 {
		return fmt.Sprintf("%d features", n)
	}
	return "1 feature"
}

// runtime is the row of what has to be installed to load the model.
func (p *Policy) runtime(candidate, current *manifest.Facts) (r Result, demanded bool) {
	r = Result{Gate: "runtime: " + p.Runtime, Candidate: needs(candidate.Info), Verdict: Pass}
	if current == nil {
		r.Why = nothing
		return r, p.Runtime != "any"
	}
	r.Current = needs(current.Info)
	var differences []string
	say := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	a, b := candidate.Info, current.Info
	for i, info := range []manifest.Info{a, b} {
		if who := [2]string{"the candidate", "current"}[i]; len(info.Imports) == 0 {
			say("nobody knows what %s needs", who)
		} else if len(info.Sklearn) == 0 && slices.Contains(info.Imports, "sklearn") {
			say("nobody knows the scikit-learn of %s", who)
		}
	}
	if differences == nil {
		if x, y := minors(a.Sklearn), minors(b.Sklearn); !slices.Equal(x, y) && len(x) > 0 {
			say("scikit-learn %s, current has %s", list(x), cmp.Or(list(y), "none"))
		}
		if a.Numpy != b.Numpy && a.Numpy != "" {
			say("numpy %s, current has %s", show(a.Numpy), show(cmp.Or(b.Numpy, "none")))
		}
		var more []string
		for _, name := range a.Imports {
			if !slices.Contains(b.Imports, name) {
				more = append(more, name)
			}
		}
		if more != nil {
			say("needs %s, current does not", list(more))
		}
	}
	if differences != nil {
		r.Verdict, r.Why = Fail, oneLine(strings.Join(differences, "; "))
	}
	return r, p.Runtime != "any"
}

// needs lists what the model needs, as far as that is known.
func needs(i manifest.Info) string {
	lines := i.Requirements()
	if i.Numpy != "" {
		lines = append(slices.DeleteFunc(lines, func(s string) bool { return s == "numpy" }), "numpy "+i.Numpy)
	}
	if lines == nil {
		return "unknown"
	}
	return oneLine(list(lines))
}

// minors returns the minor releases of versions, sorted: 1.3 of 1.3.2.
func minors(versions []string) []string {
	var list []string
	for _, v := range versions {
		parts := strings.SplitN(v, ".", 3)
		list = append(list, strings.Join(parts[:min(len(parts), 2)], "."))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// path is the row of where the model's file lies.
func (p *Policy) path(candidate, current *manifest.Facts) (r Result, demanded bool) {
	r = Result{Gate: "path: " + p.Path, Candidate: cmp.Or(candidate.Path, "unknown"), Verdict: Pass}
	r.Candidate = show(r.Candidate)
	if current == nil {
		r.Why = nothing
		return r, p.Path != "any"
	}
	r.Current = show(cmp.Or(current.Path, "unknown"))
	switch {
	case candidate.Path == "" || current.Path == "":
		r.Verdict, r.Why = Fail, "where the model's file lies is unknown"
	case candidate.Path != current.Path:
		r.Verdict, r.Why = Fail, "applications look for the file of current; files.as in galley.yaml gives it one path"
	}
	return r, p.Path != "any"
}

// same is the row of a value on which the summaries have to agree.
func same(key string, candidate, current *manifest.Facts) Result {
	r := Result{Gate: oneLine("same: " + show(key)), Verdict: Fail}
	a, err := value(candidate, key)
	r.Candidate = oneLine(a)
	if current == nil {
		r.Verdict, r.Why = Pass, nothing
		return r
	}
	b, err2 := value(current, key)
	r.Current = oneLine(b)
	switch {
	case err != nil:
		r.Why = "candidate: " + oneLine(err.long)
	case err2 != nil:
		r.Why = "current: " + oneLine(err2.long)
	case a != b:
		r.Why = "they differ, so metrics cannot be compared"
	default:
		r.Verdict = Pass
	}
	return r
}

// value returns what a summary has under a key.
func value(facts *manifest.Facts, key string) (string, *fault) {
	if facts.Summary == nil {
		return "missing", &fault{long: "there is no training summary"}
	}
	v, err := facts.Summary.Value(key)
	if err == nil {
		return v, nil
	}
	if e, ok := errors.AsType[*training.AmbiguousError](err); ok {
		return "ambiguous", &fault{long: "ambiguous between " + list(e.Paths)}
	}
	if e, ok := errors.AsType[*training.UnusableMetricError](err); ok {
		return e.Why, &fault{long: show(e.Path) + " is " + e.Why}
	}
	f := &fault{long: "no " + show(key)}
	if e, ok := errors.AsType[*training.UnknownMetricError](err); ok && len(e.Nearest) > 0 {
		f.long += "; nearest: " + list(e.Nearest)
	}
	return "missing", f
}
