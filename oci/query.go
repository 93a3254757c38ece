package oci

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"galley/manifest/formula"
	"galley/manifest/nearest"
	"galley/manifest/training"
)

// Columns are the names that every version answers to, beside its metrics.
func Columns() []string {
	return []string{"tag", "version", "trained", "class", "size", "features"}
}

// UnknownNameError reports a name that is neither a column nor a metric of any
// version.
type UnknownNameError struct {
	Name    string
	Nearest []string // at most three names that may be meant, the likeliest first
}

func (e *UnknownNameError) Error() string {
	s := fmt.Sprintf("name %q: neither a column nor a metric", e.Name)
	if len(e.Nearest) > 0 {
		s += "; nearest: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// FilterError says what is wrong with an expression.
type FilterError struct{ Expression, Msg string }

func (e *FilterError) Error() string { return fmt.Sprintf("filter %q: %s", e.Expression, e.Msg) }

// value is what the version answers to a name: a string, an int, a float64 or a
// bool; nil if it has no such thing.
func (v *Version) value(name string, alias map[string]string) (any, error) {
	text := func(s string) (any, error) {
		if s == "" {
			return nil, nil
		}
		return s, nil
	}
	number := func(n int64) (any, error) {
		if n < 0 {
			return nil, nil
		}
		return int(n), nil
	}
	switch name {
	case "tag":
		return text(v.Tags[0])
	case "version":
		return text(v.Version)
	case "trained":
		if t := v.Time(); !t.IsZero() {
			return t.Format(time.RFC3339), nil
		}
		return nil, nil
	case "class":
		return text(v.Class)
	case "size":
		return number(v.Size)
	case "features":
		return number(int64(v.Features))
	}
	m, err := training.Find(v.Metrics, name, alias)
	if _, unknown := errors.AsType[*training.UnknownMetricError](err); unknown {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if m.IsBool {
		return m.Value != 0, nil
	}
	return m.Value, nil
}

// answers returns each version's answer to the name. The error is an
// [*UnknownNameError] or a [*training.AmbiguousError].
func answers(versions []Version, name string, alias map[string]string) ([]any, error) {
	_, known := alias[name]
	known = known || slices.Contains(Columns(), name) || len(versions) == 0
	values := make([]any, len(versions))
	for i := range versions {
		var err error
		if values[i], err = versions[i].value(name, alias); err != nil {
			return nil, err
		}
		known = known || values[i] != nil
	}
	if !known {
		return nil, &UnknownNameError{name, nearest.Words(name, names(versions, alias), 3)}
	}
	return values, nil
}

// names are all that answers knows.
func names(versions []Version, alias map[string]string) []string {
	all := append(Columns(), slices.Sorted(maps.Keys(alias))...)
	seen := make(map[string]bool)
	for _, v := range versions {
		for _, m := range v.Metrics {
			if !seen[m.Path] {
				seen[m.Path] = true
				all = append(all, m.Path)
			}
		}
	}
	return all
}

// SortVersions sorts by one of [Columns] or a metric, named as
// [training.Find] has it; a minus in front turns the order around. What has no
// value comes last either way, and equals are in the order of [List]: trained
// last first, then the higher tag. Errors are as in [FilterVersions].
func SortVersions(versions []Version, by string, alias map[string]string) error {
	name, reverse := strings.CutPrefix(by, "-")
	values, err := answers(versions, name, alias)
	if err != nil {
		return err
	}
	type row struct {
		Version
		value any
	}
	rows := make([]row, len(versions))
	for i, v := range versions {
		rows[i] = row{v, values[i]}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		order := compareValues(a.value, b.value)
		if reverse {
			order = -order
		}
		return cmp.Or(boolInt(a.value == nil)-boolInt(b.value == nil), order,
			b.Time().Compare(a.Time()), compareNatural(b.Tags[0], a.Tags[0]))
	})
	for i := range rows {
		versions[i] = rows[i].Version
	}
	return nil
}

// compareValues orders two answers to one name; those of different types are
// equal.
func compareValues(a, b any) int {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return 0
	}
	switch a := a.(type) {
	case string:
		return compareNatural(a, b.(string))
	case int:
		return cmp.Compare(a, b.(int))
	case float64:
		return cmp.Compare(a, b.(float64))
	case bool:
		return boolInt(a) - boolInt(b.(bool))
	}
	return 0
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareNatural orders text with the numbers in it by their value: v9 comes
// before v10.
func compareNatural(a, b string) int {
	const digits = "0123456789"
	for a != "" && b != "" {
		x, y := len(a)-len(strings.TrimLeft(a, digits)), len(b)-len(strings.TrimLeft(b, digits))
		if x > 0 && y > 0 {
			m, n := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), strings.Compare(m, n)); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// FilterVersions returns the versions for which the expression, in the language
// of https://expr-lang.org, is true. It may use [Columns], metrics by the names
// that [training.Find] takes, and metric("NAME") for those that are no
// identifiers. A version that lacks a value it uses does not match, whatever the
// expression would make of that; one with several tags matches if it does with
// any of them.
//
// Errors are a [*FilterError], an [*UnknownNameError] or a
// [*training.AmbiguousError].
func FilterVersions(versions []Version, expression string, alias map[string]string) ([]Version, error) {
	fail := func(err error) error {
		msg := err.Error()
		if e, ok := errors.AsType[*formula.Error](err); ok {
			msg = e.Msg
		}
		return &FilterError{expression, msg}
	}
	parsed, err := formula.Parse(expression, formula.Options{})
	if err != nil {
		return nil, fail(err)
	}
	used := parsed.Names()
	values := make(map[formula.Name][]any, len(used))
	sample := make(map[formula.Name]any, len(used)) // gives the names their types
	for _, name := range used {
		if values[name], err = answers(versions, name.Path, alias); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(values[name], func(v any) bool { return v != nil })
		if i < 0 {
			return nil, nil // every version lacks it
		}
		sample[name] = values[name][i]
	}
	program, err := parsed.Compile(sample)
	if err != nil {
		return nil, fail(err)
	}
	var matching []Version
	for i, v := range versions {
		env := make(map[formula.Name]any, len(used))
		whole := true
		for _, name := range used {
			env[name] = values[name][i]
			whole = whole && env[name] != nil && reflect.TypeOf(env[name]) == reflect.TypeOf(sample[name])
		}
		if !whole {
			continue
		}
		for _, tag := range v.Tags {
			if byTag := (formula.Name{Path: "tag"}); env[byTag] != nil {
				env[byTag] = tag
			}
			answer, err := program.Run(env)
			if err != nil {
				return nil, fail(err)
			}
			if answer == true {
				matching = append(matching, v)
				break
			}
		}
	}
	return matching, nil
}

// MetricColumns names the metrics that are worth a column, at most n: the
// aliases, or else those of the first versions that have any, scores on test
// data first and on training data last.
func MetricColumns(versions []Version, aliases []string, n int) []string {
	if len(aliases) > 0 {
		return aliases[:min(n, len(aliases))]
	}
	rank := func(m training.Metric) int {
		key := m.Path[strings.LastIndexByte(m.Path, '.')+1:]
		switch {
		case m.OnTraining():
			return 2
		case strings.HasPrefix(key, "test"):
			return 0
		}
		return 1
	}
	seen := make(map[string]bool)
	var metrics []training.Metric
	for _, v := range versions {
		for _, m := range v.Metrics {
			if !seen[m.Path] && !m.IsBool {
				seen[m.Path] = true
				metrics = append(metrics, m)
			}
		}
	}
	slices.SortStableFunc(metrics, func(a, b training.Metric) int { return cmp.Compare(rank(a), rank(b)) })
	var paths []string
	for _, m := range metrics[:min(n, len(metrics))] {
		paths = append(paths, m.Path)
	}
	return paths
}
