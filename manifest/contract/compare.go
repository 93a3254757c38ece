package contract

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"galley/manifest/joblib"
)

// maxDiffering is how many parameters are warned of; the others are counted.
const maxDiffering = 10

// checkParams warns of parameters that the summary and the model have with
// different values.
func checkParams(in Input) (warnings []string) {
	if in.Model == nil || len(in.Params) == 0 {
		return nil
	}
	l := lookup{models: divide(in.Model, nil).models, report: in.Model}
	more := 0
	for _, name := range slices.Sorted(maps.Keys(in.Params)) {
		said := in.Params[name]
		if !isPlain(said) {
			continue
		}
		values := l.values(name)
		same := func(v any) bool { return equal(said, v) }
		if len(values) == 0 || slices.ContainsFunc(values, same) {
			continue
		}
		if len(warnings) == maxDiffering {
			more++
			continue
		}
		label := name
		if odd := func(r rune) bool { return !unicode.IsGraphic(r) }; len(name) > 60 || strings.ContainsFunc(name, odd) {
			label = quote(name)
		}
		warnings = append(warnings, fmt.Sprintf("%s says %s %s, the model has %s", in.SummaryFile, label, spell(said), spell(values[0])))
	}
	if more > 0 {
		warnings = append(warnings, fmt.Sprintf("%s differs from the model in %s", in.SummaryFile, plural(more, "more parameter")))
	}
	return warnings
}

// isPlain reports whether v is what [Params] collects.
func isPlain(v any) bool {
	switch v.(type) {
	case nil, bool, int64, float64, string:
		return true
	}
	return false
}

// lookup finds a model's parameters.
type lookup struct {
	models []*joblib.Model
	report *joblib.Report
}

// values returns what a parameter can be: one value where it is certain, none
// where nothing has it.
func (l lookup) values(name string) []any {
	parts := strings.Split(name, "__")
	last := parts[len(parts)-1]
	if isRunning(last) {
		return nil
	}
	var found []any
	for _, m := range l.models {
		for _, at := range locate(m, parts[:len(parts)-1]) {
			found = append(found, chosen(at, last)...)
		}
	}
	if len(parts) > 1 || len(found) > 0 {
		return found
	}
	for _, v := range l.report.Values {
		if v.Name == name {
			return []any{v.Value}
		}
	}
	for _, m := range l.report.Models {
		found = anywhere(m, name, found)
	}
	if len(found) > 1 && slices.ContainsFunc(found, func(v any) bool { return v != found[0] }) {
		return nil // which one is meant?
	}
	return found
}

// isRunning reports whether a parameter is about how to run, and makes no other
// model.
func isRunning(name string) bool {
	switch name {
	case "n_jobs", "nthread", "thread_count", "verbose", "verbosity", "pre_dispatch", "copy_X":
		return true
	}
	return false
}

// chain returns the estimators that a parameter without a step is about: m, the
// last step of a pipeline, the model in a search, the members of a vote.
// Searches have no parameters of the model.
func chain(m *joblib.Model) []*joblib.Model {
	var all []*joblib.Model
	if !isSearch(m) && !isPipeline(m) {
		all = append(all, m)
	}
	if isPipeline(m) {
		return append(all, chain(m.Parts[len(m.Parts)-1])...)
	}
	for _, p := range inner(m) {
		if !isTemplate(m, p) {
			all = append(all, chain(p)...)
		}
	}
	return all
}

// isTemplate reports whether a part is what the trees of a forest were made
// from: the forest overwrites its parameters.
func isTemplate(m, p *joblib.Model) bool {
	return (p.Key == "estimator_" || p.Key == "base_estimator_") && strings.Contains(m.Class, "forest.")
}

// chosen returns the values of a parameter in the chain of m.
func chosen(m *joblib.Model, name string) (values []any) {
	for _, e := range chain(m) {
		if v, ok := param(e, name); ok {
			values = append(values, v)
		}
	}
	return values
}

// anywhere appends the values of a parameter in m and its parts.
func anywhere(m *joblib.Model, name string, values []any) []any {
	if v, ok := param(m, name); ok && !isSearch(m) && !isPipeline(m) {
		values = append(values, v)
	}
	for _, p := range m.Parts {
		if !isTemplate(m, p) {
			values = anywhere(p, name, values)
		}
	}
	return values
}

// locate returns the estimators to which the prefixes of a parameter lead: the
// names of steps, or of what the model is.
func locate(m *joblib.Model, prefixes []string) (found []*joblib.Model) {
	if len(prefixes) == 0 {
		return []*joblib.Model{m}
	}
	head, rest := prefixes[0], prefixes[1:]
	if m.Key == head {
		return locate(m, rest)
	}
	for _, p := range m.Parts {
		if p.Key == head {
			found = append(found, locate(p, rest)...)
		}
	}
	if len(found) > 0 {
		return found
	}
	if isSearch(m) {
		for _, p := range inner(m) {
			found = append(found, locate(p, prefixes)...)
		}
		return found
	}
	for _, e := range chain(m) {
		if isWordFor(head, e) {
			return locate(e, rest)
		}
	}
	for _, p := range inner(m) {
		found = append(found, locate(p, prefixes)...)
	}
	return found
}

// isWordFor reports whether a prefix means the estimator: a general word, its
// class or the beginning of it, its initials or its library.
func isWordFor(prefix string, m *joblib.Model) bool {
	switch prefix = fold(prefix); prefix {
	case "model", "bestmodel", "finalmodel", "estimator", "baseestimator", "classifier", "regressor", "clf", "reg":
		return true
	}
	if len(prefix) < 2 {
		return false
	}
	initials := strings.Map(func(r rune) rune {
		if unicode.IsUpper(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, short(m.Class))
	root, _, _ := strings.Cut(m.Class, ".")
	return prefix == root || strings.HasPrefix(initials, prefix) ||
		len(prefix) > 2 && strings.HasPrefix(fold(short(m.Class)), prefix)
}

// equal reports whether a value of the summary and one of the model are the
// same to Python: 100 and 100.0 are. Text may spell the value, since some write
// all parameters as text, and a number may be rounded to three digits or more.
func equal(said, has any) bool {
	if said == has {
		return true
	}
	if text, ok := said.(string); ok {
		if _, ok := has.(string); ok {
			return false
		}
		said = literal(text)
	}
	if said == has {
		return true
	}
	a, ok1 := number(said)
	b, ok2 := number(has)
	return ok1 && ok2 && (a == b || rounded(a, b))
}

// literal returns the value that a text spells in Python or JSON, or the text.
func literal(text string) any {
	switch text {
	case "None", "null":
		return nil
	case "True", "true":
		return true
	case "False", "false":
		return false
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return finite(f)
	}
	return text
}

// number returns the value of a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// rounded reports whether a is b, rounded to three digits or more.
func rounded(a, b float64) bool {
	s := strconv.FormatFloat(a, 'e', -1, 64)
	mantissa, _, _ := strings.Cut(s, "e")
	digits := len(strings.TrimPrefix(mantissa, "-")) - 1 // without the point
	return digits >= 3 && strconv.FormatFloat(b, 'e', digits-1, 64) == s
}

// spell writes a value as JSON does; text has an end.
func spell(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return quote(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}
