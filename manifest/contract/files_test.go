package contract_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"galley/manifest/contract"
	"galley/manifest/joblib"
)

func inspect(tb testing.TB, path string) *joblib.Report {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r, err := joblib.Inspect(f, joblib.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestFiles reads models as scikit-learn wrote them.
func TestFiles(t *testing.T) {
	t.Parallel()
	all, target := names("amount hour risk"), names("amount hour risk fraud")
	for _, tt := range []struct {
		file     string
		features []string
		outcome  contract.Outcome
		with     string
	}{
		{"pipeline", all, contract.Matches, "the pipeline's input"},
		{"pipeline", names("amount risk"), contract.Matches, `what step "select" (SelectKBest) passes on`},
		{"pipeline", target, contract.Differs, "the pipeline's input"},
		{"forest", all, contract.Matches, "the input of RandomForestClassifier"},
		{"forest", target, contract.Mismatch, "the input of RandomForestClassifier"},
		{"forest", names("hour amount risk"), contract.Mismatch, "the input of RandomForestClassifier"},
		{"search", all, contract.Matches, "the input of LogisticRegression"},
		{"search", target, contract.Mismatch, "the input of LogisticRegression"},
		{"calibrated", all, contract.Matches, "the input of CalibratedClassifierCV"},
		{"calibrated", target, contract.Mismatch, "the input of CalibratedClassifierCV"},
		{"dict", all, contract.Matches, `the input of "model" (LogisticRegression)`},
		{"dict", target, contract.Differs, `the input of "model" (LogisticRegression)`},
		{"prepare", target, contract.Differs, "the pipeline's input"},
		{"words", all, contract.Unknown, ""},
		{"xgb", all, contract.Unknown, ""},
	} {
		t.Run(fmt.Sprintf("%s takes %d", tt.file, len(tt.features)), func(t *testing.T) {
			model := inspect(t, filepath.Join("..", "joblib", "testdata", tt.file+".joblib"))
			r := contract.Check(contract.Input{Features: tt.features, Model: model})
			if r.Outcome != tt.outcome || r.With != tt.with {
				t.Errorf("%s with %s (%s); want %s with %s", r.Outcome, r.With, r.Summary, tt.outcome, tt.with)
			}
		})
	}
}

// TestExpected holds the outcomes against what Python says of the same files:
// their own features and parameters fit, and others never do.
func TestExpected(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "testdata", "joblib", "models")
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	var files map[string]struct {
		Features *int            `json:"n_features"`
		Names    []string        `json:"feature_names"`
		Params   json.RawMessage `json:"params"`
	}
	if err := errors.Join(err, json.Unmarshal(data, &files)); err != nil {
		t.Fatal(err)
	}
	fitted := 0
	for file, want := range files {
		if len(want.Names) == 0 && want.Features != nil {
			for i := range *want.Features {
				want.Names = append(want.Names, fmt.Sprintf("x%d", i))
			}
		}
		model := inspect(t, filepath.Join(dir, file))
		r := contract.Check(contract.Input{
			Features: want.Names, Model: model, Params: contract.Params([]byte(`{"params": ` + string(want.Params) + `}`)),
		})
		if len(r.Warnings) > 0 {
			t.Errorf("%s: warnings %q", file, r.Warnings)
		}
		if len(want.Names) == 0 || r.Outcome == contract.Unknown {
			continue
		}
		fitted++
		if r.Outcome != contract.Matches {
			t.Errorf("%s: %s: %s", file, r.Outcome, r.Summary)
		}
		more := append(slices.Clone(want.Names), "fraud")
		r = contract.Check(contract.Input{Features: more, Model: model})
		if r.Outcome == contract.Matches || r.Difference != nil && !strings.Contains(r.Difference.Hint, "target") {
			t.Errorf("%s, one too many: %s: %s (%v)", file, r.Outcome, r.Summary, r.Difference)
		}
	}
	if fitted < 15 {
		t.Errorf("%d files with features; want at least 15", fitted)
	}
}
