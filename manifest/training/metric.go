package training

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"galley/manifest/internal/strictjson"
)

// Metric is one number or boolean of a summary.
type Metric struct {
	Path   string  // the keys that lead to it, joined by dots
	Value  float64 // finite; 1 for true, 0 for false
	IsBool bool    // whether it is a boolean
}

// String returns the value in its canonical form: true, false, or a number as
// RFC 8785 has it, the shortest that reads back as the same float64.
func (m Metric) String() string {
	if m.IsBool {
		return strconv.FormatBool(m.Value != 0)
	}
	return canonicalNumber(m.Value)
}

// OnTraining reports whether the path names a score on the training data, which
// says little of the model.
func (m Metric) OnTraining() bool { return isTrain(m.Path) }

// ParseMetric returns the metric at path whose value [Metric.String] wrote. It
// is for bytes that come from a registry: a path that no summary gives, since it
// is empty, longer than 256 bytes or not printable, is an error too.
func ParseMetric(path, text string) (Metric, error) {
	if join("", path) == bad {
		return Metric{}, fmt.Errorf("metric %.80q: path is empty, too long or not printable", path)
	}
	v, err := parse([]byte(text))
	if err == nil {
		switch v.Kind() {
		case strictjson.Bool:
			return newBool(path, v), nil
		case strictjson.Number:
			if f, finite := v.Float(); finite {
				return Metric{Path: path, Value: f}, nil
			}
		}
	}
	return Metric{}, fmt.Errorf("metric %.80q: value %.40q is neither a finite number nor true or false", path, text)
}

func newBool(path string, v strictjson.Value) Metric {
	m := Metric{Path: path, IsBool: true}
	if v.Text() == "true" {
		m.Value = 1
	}
	return m
}

// Select chooses at most limit metrics: those at the paths in first, in that
// order, then the others, shallow before deep and otherwise in the order given.
// It returns how many it left out.
func Select(metrics []Metric, first []string, limit int) (chosen []Metric, omitted int) {
	rank := make(map[string]int, len(first))
	for i, path := range first {
		if _, twice := rank[path]; !twice {
			rank[path] = i
		}
	}
	order := func(m Metric) int {
		if i, ok := rank[m.Path]; ok {
			return i
		}
		return len(first) + strings.Count(m.Path, ".")
	}
	chosen = slices.SortedStableFunc(slices.Values(metrics), func(a, b Metric) int {
		return cmp.Compare(order(a), order(b))
	})
	n := min(max(limit, 0), len(chosen))
	return chosen[:n:n], len(chosen) - n
}
