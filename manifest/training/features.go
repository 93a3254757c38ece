package training

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"galley/manifest/internal/strictjson"
)

// Features is what a features file says.
type Features struct {
	Names   []string // the feature names in order; empty when the contract is unknown
	Path    string   // where the list stands: its key, or features.path; "" for a list at the top
	Trained string   // as in [Summary]; "" when the file has no such time
	Note    string   // why no list of names was found, with the keys seen; "" when one was
}

// ParseFeatures reads a features file of at most [MaxSize] bytes. The names are
// a list at the top, or one under the key selected_features, features,
// feature_names or columns, or the only list of strings under a key that is
// "selected" or ends in "features"; keys are compared without case, underscores
// and hyphens, and lists of what was dropped are passed over. With a path, keys
// and list indices joined by dots, only what stands there is looked at.
//
// Errors are a [*SyntaxError] or [*SizeError]; a file without a list of names
// is none.
func ParseFeatures(data []byte, path string) (*Features, error) {
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	f := &Features{Trained: trained(v)}
	var why string
	if path != "" {
		f.Names, why = namesAt(v, path)
		f.Path = path
	} else {
		f.Names, f.Path, why = findNames(v)
	}
	if f.Names == nil {
		f.Path = ""
		f.Note = "feature contract unknown: " + why
	}
	return f, nil
}

// Digest returns the feature contract: the SHA-256 of the names, in order, as a
// compact JSON array in the canonical form of RFC 8785. It is "" when the
// contract is unknown.
func (f *Features) Digest() digest.Digest {
	if len(f.Names) == 0 {
		return ""
	}
	return digest.FromBytes(appendStrings(nil, f.Names))
}

// namesAt returns the names at path, or says why there are none.
func namesAt(v strictjson.Value, path string) (names []string, why string) {
	at := lookup(v, path)
	if names = namesOf(at); names != nil {
		return names, ""
	}
	if at.Kind() == strictjson.Invalid {
		return nil, fmt.Sprintf("nothing at features.path %q; the file has %s", path, shape(v))
	}
	return nil, fmt.Sprintf("features.path %q leads to %s", path, shape(at))
}

// lookup returns the value at path. A key that has dots itself is found too.
func lookup(v strictjson.Value, path string) strictjson.Value {
	if path == "" {
		return v
	}
	for key, member := range v.Members() {
		if key == path {
			return member
		}
		if rest, ok := strings.CutPrefix(path, key+"."); ok {
			if found := lookup(member, rest); found.Kind() != strictjson.Invalid {
				return found
			}
		}
	}
	head, rest, _ := strings.Cut(path, ".")
	i := 0
	for item := range v.Items() {
		if strconv.Itoa(i) == head {
			return lookup(item, rest)
		}
		i++
	}
	return strictjson.Value{}
}

// findNames returns the names and the key they stand under, or says why there
// are none.
func findNames(v strictjson.Value) (names []string, key, why string) {
	if v.Kind() != strictjson.Object {
		if names = namesOf(v); names != nil {
			return names, "", ""
		}
		return nil, "", "the file has " + shape(v)
	}
	for _, known := range []string{"selectedfeatures", "features", "featurenames", "columns"} {
		for k, member := range v.Members() {
			if normal(k) != known || known == "columns" && isFrame(v) {
				continue
			}
			if names = namesOf(member); names != nil {
				return names, k, ""
			}
		}
	}
	var others tally
	for k, member := range v.Members() {
		if list := namesOf(member); list != nil && endsInFeatures(k) {
			names, key = list, k
			others.add(fmt.Sprintf("%.40q", k))
		}
	}
	switch others.n {
	case 0:
		return nil, "", "the file has " + shape(v)
	case 1:
		return names, key, ""
	}
	return nil, "", "several lists of names, under " + others.String()
}

// isFrame reports whether v is a data frame as pandas' to_json(orient="split")
// writes it: its columns are those of the table, which may well be a table
// about features.
func isFrame(v strictjson.Value) bool {
	return v.Member("index").Kind() == strictjson.Array && v.Member("data").Kind() == strictjson.Array
}

// endsInFeatures reports whether a list under key can be the features.
func endsInFeatures(key string) bool {
	for _, w := range words(key) {
		switch w {
		case "discarded", "dropped", "eliminated", "excluded", "ignored", "rejected", "removed", "unused":
			return false
		}
	}
	key = normal(key)
	return key == "selected" || strings.HasSuffix(key, "features")
}

// namesOf returns the strings of a list that has nothing else and is not empty,
// or nil.
func namesOf(v strictjson.Value) []string {
	var names []string
	for item := range v.Items() {
		if item.Kind() != strictjson.String {
			return nil
		}
		names = append(names, item.Text())
	}
	return slices.Clip(names)
}

// shape describes what stands where names were expected, and the keys seen.
func shape(v strictjson.Value) string {
	switch v.Kind() {
	case strictjson.Object:
		return "an object" + keysOf(v)
	case strictjson.Array:
		for item := range v.Items() {
			if item.Kind() == strictjson.Object {
				return "a list of objects" + keysOf(item)
			}
			return "a list that is not of strings alone"
		}
		return "an empty list"
	}
	return v.Kind().String()
}

func keysOf(object strictjson.Value) string {
	var keys tally
	for k := range object.Members() {
		keys.add(fmt.Sprintf("%.40q", k))
	}
	if keys.n == 0 {
		return " without keys"
	}
	return " with the keys " + keys.String()
}
