package training_test

import (
	"errors"
	"strings"
	"testing"

	"galley/manifest/training"
)

func TestSummaryValue(t *testing.T) {
	t.Parallel()
	s, err := training.ParseSummary([]byte(`{
		"test_rows": 20000, "rows": 2e4, "dataset": {"sha": "ab12", "rows": 1, "seed": 123456789012345678901},
		"valid": {"n": 10}, "test": {"n": 1e1, "shuffled": true, "ratio": 0.250},
		"folds": [{"name": "one", "size": 5}, {"size": 6}, 7],
		"empty": "", "nothing": null, "score": NaN, "list": [1, 2],
		"a": {"b": 1}, "a.b": 2, "deep": {"dataset": {"sha2": "x y"}}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"test_rows": "20000", "rows": "20000", "dataset.sha": "ab12", "sha": "ab12", "seed": "123456789012345678901",
		"test.n": "10", "valid.n": "10", "shuffled": "true", "ratio": "0.25", "one.size": "5", "size": "5",
		"sha2": "x y", "dataset.sha2": "x y",
	} {
		if got, err := s.Value(path); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"n": `ambiguous between valid.n, test.n`, "test_row": `not found; nearest: test_rows`, "empty": "not found",
		"nothing": "not found", "score": "score is not finite", "list": "not found", "a.b": "a.b is given twice", "": "not found",
		"ws": "not found", "dataset": "not found",
	} {
		if got, err := s.Value(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := s.Value("n"); !isAmbiguous(err) {
		t.Errorf("n: %T", err)
	}
	if _, err := new(training.Summary).Value("n"); err == nil {
		t.Error("a summary of nothing has a value")
	}
}

func isAmbiguous(err error) bool {
	_, ok := errors.AsType[*training.AmbiguousError](err)
	return ok
}
