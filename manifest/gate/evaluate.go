package gate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"galley/manifest"
	"galley/manifest/formula"
	"galley/manifest/project"
	"galley/manifest/training"
)

// evaluate looks up every name of an expression, and only then evaluates it.
func (p *Policy) evaluate(e Expression, candidate, current *manifest.Facts) Result {
	r := Result{Gate: oneLine(e.Text), Verdict: Fail}
	values := make(map[formula.Name]any)
	var columns [2][]string
	var faults []string
	first := 0 // of them for want of a current
	for _, name := range e.parsed.Names() {
		facts, side := candidate, 0
		if name.Scope == Current {
			facts, side = current, 1
		}
		who := [2]string{"candidate", "current"}[side]
		if facts == nil {
			columns[side] = append(columns[side], name.Path+" missing")
			faults = append(faults, who+": nothing to compare with, the stage has no model")
			first++
			continue
		}
		v, err := p.lookup(facts, name.Path)
		if err != nil {
			columns[side] = append(columns[side], name.Path+" "+err.short)
			faults = append(faults, who+": "+err.long)
			r.Hints = append(r.Hints, err.hints...)
			continue
		}
		values[name] = v
		columns[side] = append(columns[side], name.Path+" "+spell(v))
	}
	r.Candidate, r.Current = oneLine(strings.Join(columns[0], ", ")), oneLine(strings.Join(columns[1], ", "))
	value, bound := held(e.parsed, values)
	r.Bound = oneLine(bound)
	if len(faults) > 0 {
		r.First = first == len(faults)
		slices.Sort(faults)
		r.Why = oneLine(strings.Join(slices.Compact(faults), "; "))
		r.Hints = compact(r.Hints)
		return r
	}
	program, err := e.parsed.Compile(values)
	var answer any
	if err == nil {
		answer, err = program.Run(values)
	}
	switch {
	case err != nil:
		r.Why = oneLine(reason(err))
	case answer == true:
		r.Verdict = Pass
	case bound != "":
		r.Why = oneLine(value + " is not " + bound)
	default:
		r.Why = "does not hold"
	}
	return r
}

// compact returns the list without what stands in it already.
func compact(list []string) []string {
	var once []string
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

// reason returns what an error of package formula says, without the expression.
func reason(err error) string {
	if e, ok := errors.AsType[*formula.Error](err); ok {
		return e.Msg
	}
	return err.Error()
}

// held returns, of an expression that is a single comparison, what is compared
// and the operator and value that it is held against; empty where that cannot be
// told.
func held(e *formula.Expression, values map[formula.Name]any) (value, bound string) {
	c, ok := e.Comparison()
	if !ok {
		return "", ""
	}
	left, operator, right := c.Left, c.Operator, c.Right
	own := func(e *formula.Expression) bool {
		return slices.ContainsFunc(e.Names(), func(n formula.Name) bool { return n.Scope == "" })
	}
	if !own(left) && own(right) { // 0.65 <= roc_auc
		left, right = right, left
		operator = mirrored(operator)
	}
	limit, ok := worth(right, values)
	if !ok {
		return "", ""
	}
	got, ok := worth(left, values)
	if !ok {
		return "", operator + " " + spell(limit)
	}
	return spell(got), operator + " " + round(limit, got)
}

func mirrored(operator string) string {
	switch operator {
	case "<":
		return ">"
	case "<=":
		return ">="
	case ">":
		return "<"
	case ">=":
		return "<="
	}
	return operator
}

// worth evaluates one side of a comparison.
func worth(e *formula.Expression, values map[formula.Name]any) (any, bool) {
	program, err := e.Compile(values)
	if err != nil {
		return nil, false
	}
	v, err := program.Run(values)
	return v, err == nil
}

// round spells a limit with as few digits as tell on which side of it a value
// is, at least six.
func round(limit, value any) string {
	f, ok := limit.(float64)
	v, isNumber := value.(float64)
	if !ok || !isNumber {
		return spell(limit)
	}
	for digits := 6; digits < 17; digits++ {
		short, err := strconv.ParseFloat(strconv.FormatFloat(f, 'g', digits, 64), 64)
		if err == nil && cmp.Compare(short, v) == cmp.Compare(f, v) {
			return spell(short)
		}
	}
	return spell(f)
}

// spell writes a value as summaries have it.
func spell(v any) string {
	switch v := v.(type) {
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return training.Metric{Value: v}.String()
		}
	case bool:
		return strconv.FormatBool(v)
	}
	return fmt.Sprint(v)
}

// fault is why a name has no value.
type fault struct {
	short string // in a word or two
	long  string // with the name
	hints []string
}

// lookup returns what the facts have under a name: a float64 or a bool.
func (p *Policy) lookup(facts *manifest.Facts, name string) (any, *fault) {
	if _, alias := p.aliases[name]; !alias {
		switch name {
		case "features":
			if facts.Features == nil || len(facts.Features.Names) == 0 {
				return nil, &fault{short: "unknown", long: "the features are unknown"}
			}
			return float64(len(facts.Features.Names)), nil
		case "size":
			if facts.Size < 0 {
				return nil, &fault{short: "unknown", long: "the size of the model's file is unknown"}
			}
			return float64(facts.Size), nil
		}
	}
	if facts.Summary == nil {
		return nil, &fault{short: "missing", long: fmt.Sprintf("no %s, for there is no training summary", show(name))}
	}
	m, err := facts.Summary.Metric(name, p.aliases)
	if err != nil {
		return nil, p.explain(facts.Summary, name, err)
	}
	if m.IsBool {
		return m.Value != 0, nil
	}
	return m.Value, nil
}

// maxListed bounds what is listed in a row.
const maxListed = 8

// explain returns why a summary has no such metric.
func (p *Policy) explain(s *training.Summary, name string, err error) *fault {
	if e, ok := errors.AsType[*training.AmbiguousError](err); ok {
		f := &fault{short: "ambiguous", long: fmt.Sprintf("%s is ambiguous between %s", show(name), list(e.Paths))}
		for _, path := range e.Paths[:min(len(e.Paths), maxListed)] {
			f.hints = append(f.hints, project.AliasLine(name, path))
		}
		return f
	}
	if e, ok := errors.AsType[*training.UnusableMetricError](err); ok {
		return &fault{short: e.Why, long: fmt.Sprintf("%s is %s", show(e.Path), e.Why)}
	}
	f := &fault{short: "missing", long: "no " + show(name)}
	e, ok := errors.AsType[*training.UnknownMetricError](err)
	if !ok {
		return f
	}
	if e.Path != "" {
		f.long += ", an alias of " + show(e.Path)
	}
	if v, err := s.Value(cmp.Or(e.Path, name)); err == nil {
		f.short = "no metric"
		f.long = fmt.Sprintf("%s is %s, which is no metric but a text, a count or a setting", show(name), show(v))
		return f
	}
	if len(e.Nearest) > 0 {
		f.long += "; nearest: " + list(e.Nearest)
	}
	return f
}

// list joins the first few texts, and counts the others.
func list(texts []string) string { return some(texts, len(texts)) }

// some is list for texts that are the first of count.
func some(texts []string, count int) string {
	var shown []string
	for _, s := range texts[:min(len(texts), maxListed)] {
		shown = append(shown, show(s))
	}
	text := strings.Join(shown, ", ")
	if more := count - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
