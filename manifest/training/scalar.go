package training

import (
	"strings"

	"galley/manifest/internal/strictjson"
)

// Value returns what the summary has at path: a text, a number in its canonical
// form, true or false. Unlike [Summary.Metric] it knows whatever stands in the
// file, counts, times and settings too: test_rows, dataset_sha. The path is one
// as metrics have it, or the end of exactly one such path.
//
// Errors are an [*UnknownMetricError], also for null and an empty text, which
// tell nothing, an [*AmbiguousError], or an [*UnusableMetricError].
func (s *Summary) Value(path string) (string, error) {
	var all []scalar
	scalars(s.root, "", &all)
	exact := func(p string) bool { return p == path }
	ending := func(p string) bool { return strings.HasSuffix(p, "."+path) }
	for _, matches := range []func(string) bool{exact, ending} {
		var found []scalar
		for _, v := range all {
			if matches(v.path) {
				found = append(found, v)
			}
		}
		if len(found) == 0 {
			continue
		}
		if twice := found[len(found)-1].path == found[0].path; twice && len(found) > 1 {
			return "", &UnusableMetricError{Name: path, Path: found[0].path, Why: "given twice"}
		}
		if len(found) > 1 {
			e := &AmbiguousError{Name: path}
			for _, v := range found {
				e.Paths = append(e.Paths, v.path)
			}
			return "", e
		}
		return found[0].text(path)
	}
	var paths []Metric
	for _, v := range all {
		paths = append(paths, Metric{Path: v.path})
	}
	return "", &UnknownMetricError{Name: path, Nearest: resembling(paths, path)}
}

// scalar is a value that is neither an object nor an array.
type scalar struct {
	path  string
	value strictjson.Value
}

// text returns the value, for a look-up of name.
func (v scalar) text(name string) (string, error) {
	text := v.value.Text()
	if v.value.Kind() != strictjson.Number {
		return text, nil
	}
	f, finite := v.value.Float()
	switch {
	case !finite:
		return "", &UnusableMetricError{Name: name, Path: v.path, Why: "not finite"}
	case strings.ContainsAny(text, ".eE"):
		return canonicalNumber(f), nil
	}
	return text, nil // of more digits than a float64 has, if it is a hash
}

// scalars appends what stands in v, an object or a list of objects with names,
// at paths that a metric could have. Null and empty texts are left out.
func scalars(v strictjson.Value, path string, all *[]scalar) {
	if path == bad {
		return
	}
	switch v.Kind() {
	case strictjson.Object:
		for key, member := range v.Members() {
			scalars(member, join(path, key), all)
		}
	case strictjson.Array:
		for item := range v.Items() {
			if name := nameOf(item); name != "" {
				scalars(item, join(path, name), all)
			}
		}
	case strictjson.String:
		if v.Text() != "" {
			*all = append(*all, scalar{path, v})
		}
	case strictjson.Number, strictjson.Bool:
		*all = append(*all, scalar{path, v})
	}
}
