package training_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"galley/manifest/training"
)

func ExampleParseFeatures() {
	f, err := training.ParseFeatures([]byte(`{"selected_features": ["amount", "hour"], "created_at": "2025-12-12T12:00:21+01:00"}`), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Names, f.Trained)

	f, err = training.ParseFeatures([]byte(`[{"feature": "amount", "importance": 0.2}]`), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Note)
	// Output:
	// [amount hour] 2025-12-12T11:00:21Z
	// feature contract unknown: the file has a list of objects with the keys "feature", "importance"
}

func TestFindNames(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		path       string // found there
		want       string // the names, or what the note says
	}{
		{"known keys by rank, not by place", `{"columns": ["c"], "feature_names": ["n"], "features": ["f"], "selected_features": ["s"]}`, "selected_features", "s"},
		{"a known key that holds something else", `{"selected_features": 2, "features": {"a": 1}, "Feature Names": ["a"]}`, "Feature Names", "a"},
		{"an empty list is no list of names", `{"selected_features": [], "features": ["a"]}`, "features", "a"},
		{"mixed list", `{"features": ["a", 1]}`, "", `with the keys "features"`},
		{"only list ending in features", `{"top_features": ["a", "b"], "classes": ["x"]}`, "top_features", "a b"},
		{"two lists ending in features", `{"top_features": ["a"], "all_features": ["a", "b"]}`, "", `several lists of names, under "top_features", "all_features"`},
		{"only what was removed", `{"removed_features": ["a"]}`, "", `with the keys "removed_features"`},
		{"one level down", `{"info": {"features": ["a"]}}`, "", `with the keys "info"`},
		{"columns of a table about features", `{"columns": ["feature", "gain"], "index": [0], "data": [["a", 1]]}`, "", `with the keys "columns", "index", "data"`},
		{"columns of an input example", `{"columns": ["a", "b"], "data": [[1, 2]]}`, "columns", "a b"},
		{"empty list at the top", `[]`, "", "an empty list"},
		{"list of lists", `[["a"]]`, "", "a list that is not of strings alone"},
		{"empty object", `{}`, "", "an object without keys"},
		{"string", `"amount"`, "", "the file has a string"},
		{"null", `null`, "", "the file has null"},
		{"long key", `{"` + strings.Repeat("k", 1000) + `": 1}`, "", `"` + strings.Repeat("k", 40) + `"`},
		{"terminal escape in a key", `{"\u001b[2J": 1}`, "", `"\x1b[2J"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := training.ParseFeatures([]byte(tt.text), "")
			if err != nil {
				t.Fatal(err)
			}
			checkFeatures(t, f, tt.path, tt.want)
		})
	}
}

func TestFeaturesPath(t *testing.T) {
	t.Parallel()
	const text = `{"features": ["decoy"], "a.b": {"c": ["dotted"]}, "a": {"b": {"d": ["nested"]}}, "steps": [{"x": 1}, {"in": ["indexed"]}]}`
	tests := []struct {
		path string
		want string // the names, or what the note says
	}{
		{"a.b.c", "dotted"},
		{"a.b.d", "nested"},
		{"steps.1.in", "indexed"},
		{"steps.0.x", `features.path "steps.0.x" leads to a number`},
		{"steps", `features.path "steps" leads to a list of objects with the keys "x"`},
		{"steps.2.in", `nothing at features.path "steps.2.in"; the file has an object with the keys "features", "a.b", "a", "steps"`},
		{"features.0", `leads to a string`},
		{"columns", `nothing at features.path "columns"`},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			f, err := training.ParseFeatures([]byte(text), tt.path)
			if err != nil {
				t.Fatal(err)
			}
			path := tt.path
			if f.Note != "" {
				path = ""
			}
			checkFeatures(t, f, path, tt.want)
		})
	}
}

// checkFeatures compares f with the path and the names joined by blanks, or
// with a part of the note.
func checkFeatures(t *testing.T, f *training.Features, path, want string) {
	t.Helper()
	if f.Path != path {
		t.Errorf("path = %q, want %q", f.Path, path)
	}
	if got := strings.Join(f.Names, " "); f.Note == "" && got != want {
		t.Errorf("names = %q, want %q", got, want)
	}
	if f.Note != "" && !strings.Contains(f.Note, want) {
		t.Errorf("note = %q, want it to contain %q", f.Note, want)
	}
	if known := len(f.Names) > 0; known != (f.Note == "") || known != (f.Digest() != "") {
		t.Errorf("%d names, note %q, digest %q", len(f.Names), f.Note, f.Digest())
	}
}

// TestDigestIsCanonical pins the feature contract: other programs must be able
// to compute it.
func TestDigestIsCanonical(t *testing.T) {
	t.Parallel()
	tests := []struct {
		names     []string
		canonical string
	}{
		{[]string{"amount", "hour"}, `["amount","hour"]`},
		{[]string{"a<b & c", "größe", "😀"}, `["a<b & c","größe","😀"]`},
		{[]string{"\"\\/\b\t\n\f\r\x00\x0b\x1f\x7f\u2028"}, "[\"\\\"\\\\/\\b\\t\\n\\f\\r\\u0000\\u000b\\u001f\x7f\u2028\"]"},
	}
	for _, tt := range tests {
		f := training.Features{Names: tt.names}
		if got, want := f.Digest(), digest.FromString(tt.canonical); got != want {
			t.Errorf("digest of %q = %s, want that of %s", tt.names, got, tt.canonical)
		}
	}
	_, files := fixtures(t, "features", featuresFixtures)
	f, err := training.ParseFeatures(files["plain_list"], "")
	if err != nil {
		t.Fatal(err)
	}
	reversed := &training.Features{Names: slices.Clone(f.Names)}
	slices.Reverse(reversed.Names)
	if f.Digest() == reversed.Digest() {
		t.Error("order does not matter to the digest")
	}
}

// TestBrokenJSON checks that both parsers refuse what is broken, and say where.
func TestBrokenJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		text string
		want string
	}{
		{"empty", "", "line 1, column 1: no JSON: the text is empty"},
		{"cut", "{\"features\": [\"a\",\n  \"b", "line 2, column 3: string is not closed"},
		{"duplicate key", "{\"f1\": 0.5,\n \"f1\": 0.6}", `line 2, column 2: duplicate key "f1" (first at line 1)`},
		{"nesting without end", strings.Repeat(`[`, 1_000_000), "line 1, column 101: nested deeper than 100 levels"},
		{"large", strings.Repeat(" ", training.MaxSize+1), "too large: 4194305 bytes, at most 4194304 are read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, ferr := training.ParseFeatures([]byte(tt.text), "")
			s, serr := training.ParseSummary([]byte(tt.text))
			if f != nil || s != nil {
				t.Error("result beside an error")
			}
			for _, err := range []error{ferr, serr} {
				_, syntax := errors.AsType[*training.SyntaxError](err)
				_, size := errors.AsType[*training.SizeError](err)
				if !syntax && !size {
					t.Fatalf("error = %v, want a *SyntaxError or *SizeError", err)
				}
				if err.Error() != tt.want {
					t.Errorf("error = %s, want %s", err, tt.want)
				}
			}
		})
	}
}

func TestTrained(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value, want string
	}{
		{"2025-12-12T12:00:21+00:00", "2025-12-12T12:00:21Z"},
		{"2025-12-12T12:00:21.204110", "2025-12-12T12:00:21"},
		{"2025-12-12T12:00:21.204110+05:30", "2025-12-12T06:30:21Z"},
		{"2025-12-12T00:30:00,5-0800", "2025-12-12T08:30:00Z"},
		{"2025-12-31 23:30:00-01", "2026-01-01T00:30:00Z"},
		{"2025-12-12T12:00Z", "2025-12-12T12:00:00Z"},
		{"2025-12-12t12:00:21z", "2025-12-12T12:00:21Z"},
		{"2025-12-12 12:00", "2025-12-12T12:00:00"},
		{"20251212T120021Z", "2025-12-12T12:00:21Z"},
		{"20251212T1200", "2025-12-12T12:00:00"},
		{" 2025-12-12\n", "2025-12-12"},
		{"2024-02-29", "2024-02-29"},
		{"2025-02-29", ""},
		{"2025-12-12T25:00:00", ""},
		{"2025-12-12T12:00:21.", ""},
		{"2025-12-12T12:00:21.5x", ""},
		{"2025-12-12T12:00:21+5", ""},
		{"2025-12-12T12:00:21+99:00", ""},
		{"2025-12-12T1:02:03 ", ""},
		{"9999-12-31T23:59:59-01:00", ""},
		{"0000-01-01T00:00:00+01:00", ""},
		{"20251212_120021", ""},
		{"12/12/2025", ""},
		{"1765540821", ""},
		{"yesterday", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got, err := training.ParseTrained(tt.value)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ParseTrained(%q) = %q, %v, want %q", tt.value, got, err, tt.want)
		}
		s, err := training.ParseSummary(fmt.Appendf(nil, `{"trained_at": %q}`, tt.value))
		if err != nil {
			t.Fatal(err)
		}
		if s.Trained != tt.want {
			t.Errorf("trained at %q = %q, want %q", tt.value, s.Trained, tt.want)
		}
	}
}

func TestTrainedKeys(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text, want string
	}{
		{"by the order of keys", `{"generated_at": "2025-01-05", "created_at": "2025-01-04", "timestamp": "2025-01-03", "training_timestamp": "2025-01-02", "trained_at": "2025-01-01"}`, "2025-01-01"},
		{"what is no time is passed over", `{"trained_at": "in spring", "training_timestamp": 1765540821, "timestamp": null, "generated_at": "2025-01-05"}`, "2025-01-05"},
		{"the top level first", `{"meta": {"trained_at": "2025-01-01"}, "created_at": "2025-01-04"}`, "2025-01-04"},
		{"one level below by the order of keys", `{"a": {"created_at": "2025-01-04"}, "b": {"trained_at": "2025-01-01"}}`, "2025-01-01"},
		{"in a list at the top", `[{"model": "rf"}, {"model": "lr", "timestamp": "2025-01-03"}]`, "2025-01-03"},
		{"not two levels below", `{"a": {"b": {"trained_at": "2025-01-01"}}, "c": [{"trained_at": "2025-01-01"}]}`, ""},
		{"other keys", `{"date": "2025-01-01", "updated_at": "2025-01-01"}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := training.ParseSummary([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			f, err := training.ParseFeatures([]byte(tt.text), "")
			if err != nil {
				t.Fatal(err)
			}
			if s.Trained != tt.want || f.Trained != tt.want {
				t.Errorf("trained = %q in the summary and %q in the features, want %q", s.Trained, f.Trained, tt.want)
			}
		})
	}
}
