package training

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"galley/manifest/nearest"
)

// AmbiguousError reports a name that several metrics answer to.
type AmbiguousError struct {
	Name  string
	Paths []string // of all of them, in the order of the summary
}

func (e *AmbiguousError) Error() string {
	var paths tally
	for _, p := range e.Paths {
		paths.add(p)
	}
	return fmt.Sprintf("metric %q: ambiguous between %s", e.Name, &paths)
}

// UnknownMetricError reports a name that no metric answers to.
type UnknownMetricError struct {
	Name    string
	Path    string   // what the name is an alias of, if it is one
	Nearest []string // at most three paths that may be meant, the likeliest first
}

func (e *UnknownMetricError) Error() string {
	s := fmt.Sprintf("metric %q: not found", e.Name)
	if e.Path != "" {
		s += fmt.Sprintf(" at its alias's path %q", e.Path)
	}
	if len(e.Nearest) > 0 {
		s += "; nearest: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// UnusableMetricError reports a metric that stands in the summary but has no
// value to compare.
type UnusableMetricError struct {
	Name string
	Path string
	Why  string // "NaN", "infinite" or "given twice"
}

func (e *UnusableMetricError) Error() string {
	return fmt.Sprintf("metric %q: %s is %s", e.Name, e.Path, e.Why)
}

// Find returns the metric that name means: the one at alias[name] if there is
// such an alias, else the one at exactly this path, else the only one whose
// path ends in name after a dot, else the only one that does when its last key
// loses a leading test_, val_, valid_ or validation_. Scores on the training
// data are passed over in the last two, unless the name asks for them as
// train_f1 does.
//
// Errors are an [*AmbiguousError] or an [*UnknownMetricError]. A name can seem
// unambiguous when metrics contains only a part of a summary's.
func Find(metrics []Metric, name string, alias map[string]string) (Metric, error) {
	if path, ok := alias[name]; ok {
		if m, ok := at(metrics, path); ok {
			return m, nil
		}
		return Metric{}, &UnknownMetricError{Name: name, Path: path, Nearest: resembling(metrics, path)}
	}
	if m, ok := at(metrics, name); ok {
		return m, nil
	}
	heads := [][]string{{""}, {"test_", "val_", "valid_", "validation_"}}
	for _, prefixes := range heads {
		found := endingIn(metrics, name, prefixes)
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		e := &AmbiguousError{Name: name}
		for _, m := range found {
			e.Paths = append(e.Paths, m.Path)
		}
		return Metric{}, e
	}
	return Metric{}, &UnknownMetricError{Name: name, Nearest: resembling(metrics, name)}
}

// at returns the metric at exactly this path.
func at(metrics []Metric, path string) (Metric, bool) {
	i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Path == path })
	if i < 0 {
		return Metric{}, false
	}
	return metrics[i], true
}

// endingIn returns the metrics whose path is or ends in name with one of the
// prefixes before it. Comparing ends of paths rather than keys finds keys that
// have a dot themselves, such as precision@0.5.
func endingIn(metrics []Metric, name string, prefixes []string) []Metric {
	if name == "" {
		return nil
	}
	train := isTrain(name)
	var found []Metric
	for _, m := range metrics {
		head, ok := strings.CutSuffix(m.Path, name)
		if !ok || isTrain(m.Path) && !train {
			continue
		}
		for _, prefix := range prefixes {
			if rest, ok := strings.CutSuffix(head, prefix); ok && (rest == "" || strings.HasSuffix(rest, ".")) {
				found = append(found, m)
				break
			}
		}
	}
	return found
}

// resembling returns the paths of up to three metrics that a mistyped name may
// mean.
func resembling(metrics []Metric, name string) []string {
	type guess struct {
		path     string
		distance int
	}
	var guesses []guess
	for _, m := range metrics {
		key := m.Path[strings.LastIndexByte(m.Path, '.')+1:]
		if name == "" || key == "" {
			continue
		}
		d := min(distance(key, name), distance(m.Path, name))
		for _, prefix := range []string{"test_", "val_", "train_"} {
			d = min(d, distance(strings.TrimPrefix(key, prefix), name))
		}
		if d <= max(1, len(name)/3) {
			guesses = append(guesses, guess{m.Path, d})
		}
	}
	slices.SortStableFunc(guesses, func(a, b guess) int { return cmp.Compare(a.distance, b.distance) })
	var paths []string
	for _, g := range guesses[:min(len(guesses), 3)] {
		paths = append(paths, g.path)
	}
	return paths
}

// distance returns how many bytes must be changed, added or removed to make a
// into b, whatever their case, or 1 when one contains the other as auc and
// roc_auc do.
func distance(a, b string) int {
	a, b = normal(a), normal(b)
	if a != b && min(len(a), len(b)) > 2 && (strings.Contains(a, b) || strings.Contains(b, a)) {
		return 1
	}
	return nearest.Distance(a, b)
}
