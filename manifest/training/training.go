// Package training reads the two JSON files that a training job leaves beside
// its model: the features it was trained on and the summary with its metrics.
//
// No two projects agree on the shape of these files, so only broken JSON is an
// error ([*SyntaxError], [*SizeError]). What cannot be understood is carried as
// it is, and said: in [Features.Note] and [Summary.Warnings].
//
//	f, err := training.ParseFeatures(data, "")
//	s, err := training.ParseSummary(data)
//	m, err := s.Metric("roc_auc", aliases)
//
// Metrics are the finite numbers and the booleans of a summary, under their
// path: the keys that lead to them, joined by dots. A list of objects is read
// by the objects' name or model. Numbers whose key says that they count,
// measure time or seed a generator are not metrics, nor is anything below
// parameters, configuration and feature importances. The key alone decides,
// never the value, so that a metric does not come and go between trainings.
//
// The same bytes give the same result everywhere; nothing here reads a clock, a
// file or the network. All functions may be called concurrently.
package training

import (
	"fmt"
	"strings"
	"unicode"

	"galley/manifest/internal/strictjson"
)

// MaxSize is the size in bytes up to which features and summary files are read.
const MaxSize = 4 << 20

// SyntaxError says what is wrong with a file's JSON and at which line and
// column, both counted from 1 and columns in characters. It also stands for
// duplicate keys, text that is not UTF-8, nesting deeper than 100 levels and
// more than 1,048,576 values.
type SyntaxError = strictjson.SyntaxError

// SizeError reports a file larger than [MaxSize].
type SizeError = strictjson.SizeError

// parse reads a file as Python writes it.
func parse(data []byte) (strictjson.Value, error) {
	return strictjson.Parse(data, strictjson.Options{MaxBytes: MaxSize, NonFinite: true, BOM: true})
}

// normal returns a key without case, blanks, underscores and hyphens: what
// featureNames, feature_names and "Feature Names" have in common.
func normal(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == ' ' {
			return -1
		}
		return unicode.ToLower(r)
	}, key)
}

// tally counts things and remembers the first of them, for a message whose
// length does not depend on the input.
type tally struct {
	first []string
	n     int
}

// add counts one more. Text that is not known to be short and printable must
// come quoted.
func (t *tally) add(s string) {
	if t.n++; len(t.first) < 8 {
		t.first = append(t.first, s)
	}
}

func (t *tally) String() string {
	s := strings.Join(t.first, ", ")
	if more := t.n - len(t.first); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
