// Package gate judges whether a model may come to a stage: it holds a candidate
// against what galley.yaml demands, and against the model that the stage has
// now.
//
//	policy, err := gate.New(config, "production", nil, nil)
//	results := policy.Check(candidate, current, now, time.Time{})
//	if gate.Failed(results) {
//		…
//	}
//
// Gates fail closed. Every name that an expression uses is looked up before
// anything is evaluated: one that is missing, ambiguous, NaN, infinite or no
// number fails the gate, whatever the expression would have made of it, so that
// !(f1 < 0.9) does not pass for want of an f1.
//
// Nothing here reads a clock, a file or the network. A [Policy] may be used
// concurrently.
package gate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/formula"
	"galley/manifest/project"
)

// Current is the identifier below which expressions find the metrics of the
// model that the stage has now.
const Current = "current"

// Policy is what a stage demands. From and Soak are for whoever knows the
// history: [Policy.Check] does not look at them.
type Policy struct {
	Stage    string
	From     string        // the stage or tag the candidate has to come from; empty: any
	Soak     time.Duration // how long it has to have been there
	Require  []Expression  // that fail
	Warn     []Expression  // that warn
	Features string        // same, superset or any
	Runtime  string        // same or any
	Path     string        // same or any
	Scan     string        // pass, declared, or empty: declared, if anything is
	MaxAge   time.Duration // since it was trained; 0: any
	Same     []string      // what the summaries must have in common

	aliases map[string]string // paths of metrics, by name
	empty   bool
}

// Expression is a condition over metrics of candidate and current.
type Expression struct {
	Text   string
	parsed *formula.Expression
}

// New returns the policy of a stage: what config, which may be nil, says of it,
// and the expressions of the flags --require and --warn. The errors are joined
// [*ExpressionError]s. That From names a stage is not checked.
func New(config *project.Config, stage string, require, warn []string) (*Policy, error) {
	if config == nil {
		config = &project.Config{}
	}
	s, known := config.Stages[stage]
	p := &Policy{
		Stage: stage, From: s.From, Soak: s.Soak, MaxAge: s.MaxAge, Scan: s.Scan,
		Features: cmp.Or(s.Features, "same"), Runtime: cmp.Or(s.Runtime, "any"), Path: cmp.Or(s.Path, "any"),
		Same:    slices.Clone(s.Same),
		aliases: make(map[string]string),
		empty:   !known && len(require)+len(warn) == 0,
	}
	for name, m := range config.Metrics {
		if m.Path != "" {
			p.aliases[name] = m.Path
		}
	}
	r := reader{file: cmp.Or(config.File, "galley.yaml")}
	p.Require = append(r.written("require", s.Require), r.given("--require", require)...)
	p.Warn = append(r.written("warn", s.Warn), r.given("--warn", warn)...)
	if r.errs != nil {
		return nil, errors.Join(r.errs...)
	}
	return p, nil
}

// reader reads expressions and keeps what is wrong with them.
type reader struct {
	file string
	errs []error
}

// written reads what stands under a key of galley.yaml.
func (r *reader) written(key string, list []project.Expression) (read []Expression) {
	for _, e := range list {
		read = append(read, r.read(&ExpressionError{File: r.file, Gate: key}, e))
	}
	return read
}

// given reads what was given with a flag.
func (r *reader) given(flag string, list []string) (read []Expression) {
	for _, text := range list {
		read = append(read, r.read(&ExpressionError{Gate: flag}, project.Expression{Text: text}))
	}
	return read
}

// read reads one expression; e is the error that it may turn out to be.
func (r *reader) read(e *ExpressionError, written project.Expression) Expression {
	parsed, err := formula.Parse(written.Text, formula.Options{Numeric: true, Scopes: []string{Current}})
	if err != nil {
		e.at(written, err)
		r.errs = append(r.errs, e)
	}
	return Expression{written.Text, parsed}
}

// ExpressionError says what is wrong with the expression of a gate, and where.
type ExpressionError struct {
	File         string // empty for a flag's
	Line, Column int    // of the fault in File, from 1, in characters; 0 where that is unknown
	Gate         string // require or warn, or the flag: --require, --warn
	Expression   string
	Mark         int // where the fault is in Expression: characters before it; -1: everywhere
	Msg          string
}

// at sets what is wrong from the error of formula.Parse.
func (e *ExpressionError) at(written project.Expression, err error) {
	e.Line, e.Column = written.Line, written.Column
	e.Expression, e.Mark, e.Msg = written.Text, -1, err.Error()
	fault, ok := errors.AsType[*formula.Error](err)
	if !ok {
		return
	}
	e.Msg = fault.Msg
	if fault.Line == 0 {
		return
	}
	before := 0
	for i, line := range strings.Split(written.Text, "\n") {
		if i+1 == fault.Line {
			break
		}
		before += len([]rune(line)) + 1
	}
	e.Mark = before + fault.Column - 1
	if written.Verbatim {
		e.Column += e.Mark
	}
}

// Error tells where the fault is and what, and marks it: the expression, or the
// line of it that has the fault, follows on a line of its own, and on a third
// one a caret.
func (e *ExpressionError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Gate + ": " + e.Msg)
	line, caret := e.marked()
	b.WriteString("\n    " + line)
	if caret >= 0 {
		b.WriteString("\n    " + strings.Repeat(" ", caret) + "^")
	}
	return b.String()
}

// marked returns the line with the fault, cut to what a terminal shows, and the
// characters before the fault in it; -1 without one.
func (e *ExpressionError) marked() (line string, caret int) {
	const width = 100
	text, caret := []rune(e.Expression), e.Mark
	if caret >= 0 {
		caret = min(caret, len(text))
		begin := 0
		if i := lastIndex(text[:caret], '\n'); i >= 0 {
			begin = i + 1
		}
		text, caret = text[begin:], caret-begin
	}
	if i := slices.Index(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if from := caret - width*2/3; from > 0 {
		text, caret = text[from:], caret-from
	}
	text = text[:min(len(text), width)]
	for i, r := range text {
		if !unicode.IsGraphic(r) {
			text[i] = ' '
		}
	}
	return string(text), caret
}

func lastIndex(text []rune, r rune) int {
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == r {
			return i
		}
	}
	return -1
}

// Empty reports that there is no policy at all: galley.yaml does not know the
// stage, and no flag adds a gate. Nothing is checked then.
func (p *Policy) Empty() bool { return p.empty }

// NeedsScan reports whether the files of the candidate have to be read: see
// Scans of [manifest.Facts].
func (p *Policy) NeedsScan() bool { return !p.empty && p.Scan == "pass" }

// NeedsCurrent reports whether what the stage has now makes a difference.
func (p *Policy) NeedsCurrent() bool {
	if p.empty {
		return false
	}
	return p.Features != "any" || p.Runtime != "any" || p.Path != "any" || len(p.Same) > 0 ||
		slices.ContainsFunc(p.names(), func(n formula.Name) bool { return n.Scope == Current })
}

// names are those of all expressions.
func (p *Policy) names() []formula.Name {
	var all []formula.Name
	for _, e := range slices.Concat(p.Require, p.Warn) {
		all = append(all, e.parsed.Names()...)
	}
	return all
}

// Digest identifies what the policy demands: the gates, whatever their order and
// spacing, with what is left unsaid filled in, and the aliases that their names
// go through. It is "" for an empty policy.
func (p *Policy) Digest() digest.Digest {
	if p.empty {
		return ""
	}
	aliases := make(map[string]string)
	for _, n := range p.names() {
		if path, ok := p.aliases[n.Path]; ok {
			aliases[n.Path] = path
		}
	}
	canonical := func(list []Expression) []string {
		texts := make(map[string]bool)
		for _, e := range list {
			texts[e.parsed.Canonical()] = true
		}
		return slices.Sorted(maps.Keys(texts))
	}
	same := append([]string{}, p.Same...)
	slices.Sort(same)
	text, err := json.Marshal(map[string]any{
		"from": p.From, "soak": p.Soak.String(), "max-age": p.MaxAge.String(),
		"require": canonical(p.Require), "warn": canonical(p.Warn), "metrics": aliases,
		"features": p.Features, "runtime": p.Runtime, "path": p.Path, "scan": p.Scan,
		"same": slices.Compact(same),
	})
	if err != nil {
		panic(err) // texts always marshal
	}
	return digest.FromBytes(text)
}

// Check holds the candidate against the policy, in an order that does not
// change, and returns a row for each gate; none for an empty policy. current is
// nil if the stage has no model: then only the expressions that name it fail,
// and what is compared passes. now is for the age of the candidate, and first is
// what it is reckoned from if nobody knows when it was trained: when the history
// first saw it, or the zero time.
func (p *Policy) Check(candidate, current *manifest.Facts, now, first time.Time) []Result {
	if p.empty {
		return nil
	}
	var results []Result
	add := func(r Result, demanded bool) {
		if demanded {
			results = append(results, r)
		}
	}
	add(p.scan(candidate))
	add(p.age(candidate, now, first))
	add(p.features(candidate, current))
	add(p.runtime(candidate, current))
	add(p.path(candidate, current))
	for _, key := range p.Same {
		results = append(results, same(key, candidate, current))
	}
	for _, e := range p.Require {
		results = append(results, p.evaluate(e, candidate, current))
	}
	for _, e := range p.Warn {
		r := p.evaluate(e, candidate, current)
		if r.Verdict == Fail {
			r.Verdict = Warn
		}
		results = append(results, r)
	}
	return results
}
