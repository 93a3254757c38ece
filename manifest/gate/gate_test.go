package gate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/gate"
	"galley/manifest/joblib"
	"galley/manifest/project"
	"galley/manifest/training"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The summaries of the models that most tests compare.
const (
	candidateSummary = `{
		"test_metrics": {"test_f1": 0.70, "test_roc_auc": 0.673, "test_recall": 0.60, "zero": 0},
		"val": {"precision": 0.5}, "test": {"precision": 0.6}, "weighted avg": {"f1-score": 0.66},
		"nan_auc": NaN, "inf": Infinity, "test_ap": NaN, "val_ap": 0.9,
		"calibrated": true, "drift": false, "test_rows": 20000, "dataset_sha": "ab12", "note": "0.99",
		"current": {"g1": 0.1}, "twice": [{"name": "a", "auc": 1}, {"name": "a", "auc": 2}], "train_only": {"train_kappa": 1}
	}`
	currentSummary = `{"test_metrics": {"test_f1": 0.69, "test_roc_auc": 0.7, "test_recall": 0.61}, "nan_auc": 0.5, "lift": 3,
		"val": {"precision": 0.5}, "test": {"precision": 0.6}, "test_rows": 2e4, "dataset_sha": "cd34", "weighted avg": {"f1-score": 0.6}}`
)

func summary(t testing.TB, text string) *training.Summary {
	t.Helper()
	s, err := training.ParseSummary([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func facts(t testing.TB, text string) *manifest.Facts {
	return &manifest.Facts{Summary: summary(t, text), Size: -1}
}

func config(t testing.TB, text string) *project.Config {
	t.Helper()
	c, err := project.ParseConfig("galley.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func policy(t testing.TB, text, stage string, require ...string) *gate.Policy {
	t.Helper()
	p, err := gate.New(config(t, text), stage, require, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// one checks a single expression, and returns its row.
func one(t testing.TB, expression string, candidate, current *manifest.Facts) gate.Result {
	t.Helper()
	p := policy(t, "metrics: {auc: test_metrics.test_roc_auc, gone: nowhere.f1, ll: {better: lower}}\nstages: {s: {features: any}}", "s", expression)
	results := p.Check(candidate, current, now, time.Time{})
	return results[len(results)-1]
}

// TestExpressions has expressions that hold, and that do not.
func TestExpressions(t *testing.T) {
	t.Parallel()
	candidate, current := facts(t, candidateSummary), facts(t, currentSummary)
	candidate.Features, candidate.Size = &training.Features{Names: []string{"a", "b"}}, 1<<20
	for _, tt := range []struct{ expression, candidate, current, bound, why string }{
		{"f1 >= 0.65", "f1 0.7", "", ">= 0.65", ""},
		{"f1 > 0.7", "f1 0.7", "", "> 0.7", "0.7 is not > 0.7"},
		{"0.65 <= f1", "f1 0.7", "", ">= 0.65", ""},
		{"roc_auc >= current.roc_auc", "roc_auc 0.673", "roc_auc 0.7", ">= 0.7", "0.673 is not >= 0.7"},
		{"roc_auc >= current.roc_auc * 0.96", "roc_auc 0.673", "roc_auc 0.7", ">= 0.672", ""},
		{"recall >= current.recall * 0.97", "recall 0.6", "recall 0.61", ">= 0.5917", ""},
		{"test_metrics.test_f1 > current.test_metrics.test_f1", "test_metrics.test_f1 0.7", "test_metrics.test_f1 0.69", "> 0.69", ""},
		{"auc > 0.6", "auc 0.673", "", "> 0.6", ""},
		{`metric("auc") < 0.6`, "auc 0.673", "", "< 0.6", "0.673 is not < 0.6"},
		{`m("weighted avg.f1-score") > current.m("f1-score")`, "weighted avg.f1-score 0.66", "f1-score 0.6", "> 0.6", ""},
		{`m("f1-score") > current["weighted avg.f1-score"]`, "f1-score 0.66", "weighted avg.f1-score 0.6", "> 0.6", ""},
		{`m("current.g1") < 0.2`, "current.g1 0.1", "", "< 0.2", ""},
		{"calibrated", "calibrated true", "", "", ""},
		{"not drift", "drift false", "", "", ""},
		{"drift", "drift false", "", "", "does not hold"},
		{"calibrated == true", "calibrated true", "", "== true", ""},
		{"calibrated && f1 > 0.5", "calibrated true, f1 0.7", "", "", ""},
		{"drift || f1 > 0.8", "drift false, f1 0.7", "", "", "does not hold"},
		{"0.5 < f1 < 0.8", "f1 0.7", "", "", ""},
		{"features <= 2 && size < 2e6", "features 2, size 1048576", "", "", ""},
		{"let d = f1 - current.f1; d > 0", "f1 0.7", "f1 0.69", "", ""},
		{"abs(f1 - current.f1) < 0.1", "f1 0.7", "f1 0.69", "< 0.1", ""},
		{"f1 >= 0.1 + 0.2 + 0.4", "f1 0.7", "", ">= 0.7000000000000001", "0.7 is not >= 0.7000000000000001"},
		{"f1 >= current.f1 / 3 * 3", "f1 0.7", "f1 0.69", ">= 0.69", ""},
		{"true", "", "", "", ""},
		{"1 > 2", "", "", "> 2", "1 is not > 2"},
	} {
		got := one(t, tt.expression, candidate, current)
		want := gate.Result{Gate: tt.expression, Candidate: tt.candidate, Current: tt.current, Bound: tt.bound, Why: tt.why, Verdict: gate.Pass}
		if tt.why != "" {
			want.Verdict = gate.Fail
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// TestExpressionsFailClosed turns every fault every way: an expression that
// would be true with any value, or without one, fails too.
func TestExpressionsFailClosed(t *testing.T) {
	t.Parallel()
	candidate, current := facts(t, candidateSummary), facts(t, currentSummary)
	shapes := []string{
		"X > 0.5", "!(X < 0.9)", "X != 0.5", "calibrated || X > 1", "X > 1 || calibrated", "(X ?? 1) > 0", "true ? 1 > 0 : X > 1",
		"let y = X; true", "let y = X; 1 > 0", "X == X", "!(X == 12345)", "abs(X) >= 0 || true", "max(1, X) >= 1", "0 * X == 0",
		"if calibrated { true } else { X > 1 }", "calibrated or X", "!X || true", "(let a = 1; a > 0) || X > 0",
	}
	faults := map[string]string{
		"missing":                  "candidate: no missing",
		"f2":                       "candidate: no f2; nearest: test_metrics.test_f1",
		"kappa":                    "candidate: no kappa; nearest: train_only.train_kappa", // on training data
		"gone":                     "candidate: no gone, an alias of nowhere.f1",
		"lift":                     "candidate: no lift",
		"nan_auc":                  "candidate: nan_auc is NaN",
		"inf":                      "candidate: inf is infinite",
		"ap":                       "candidate: ap is ambiguous between test_ap, val_ap", // val_ap does not answer for the NaN
		"a.auc":                    "candidate: twice.a.auc is given twice",
		"precision":                "candidate: precision is ambiguous between val.precision, test.precision",
		"test_rows":                "candidate: test_rows is 20000, which is no metric but a text, a count or a setting",
		"note":                     "candidate: note is 0.99, which is no metric",
		"test_metrics":             "candidate: no test_metrics",
		"features":                 "candidate: the features are unknown",
		"size":                     "candidate: the size of the model's file is unknown",
		`m("no such")`:             "candidate: no no such",
		`m("")`:                    `candidate: no ""`,
		"current.missing":          "current: no missing",
		"current.test_metrics.f1":  "current: no test_metrics.f1",
		"current.calibrated":       "current: no calibrated",
		"current.precision":        "current: precision is ambiguous between",
		"current.auc2":             "current: no auc2",
		`current.m("weighted.f1")`: "current: no weighted.f1",
		"current.dataset_sha":      "current: dataset_sha is cd34, which is no metric",
		"$env":                     "candidate: no $env",
	}
	n := 0
	for name, why := range faults {
		for _, shape := range shapes {
			text := strings.ReplaceAll(shape, "X", name)
			p, err := gate.New(&project.Config{Metrics: map[string]project.Metric{"gone": {Path: "nowhere.f1"}}}, "s", []string{text}, nil)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			results := p.Check(candidate, current, now, time.Time{})
			got := results[len(results)-1]
			if got.Gate != text || got.Verdict != gate.Fail || !strings.Contains(got.Why, why) {
				t.Errorf("%s: %+v, want %q", text, got, why)
			}
			n++
		}
	}
	if n != len(shapes)*len(faults) || n < 400 {
		t.Errorf("%d expressions", n)
	}
}

// TestArithmeticFailsClosed has names that are all there.
func TestArithmeticFailsClosed(t *testing.T) {
	t.Parallel()
	candidate, current := facts(t, candidateSummary), facts(t, currentSummary)
	for expression, why := range map[string]string{
		"!(f1 / zero < 0.9)":          "the result is infinite, as of 1 / 0",
		"zero / zero != 1":            "the result is not a number, as of 0 / 0",
		"!((f1 - f1) / zero < 0.9)":   "the result is not a number",
		"f1 > 1e308 * 10 || true":     "the result is infinite",
		"calibrated > 0.5":            "mismatched types bool and float64",
		"f1":                          "a condition is wanted, this is a number",
		"f1 || calibrated":            "mismatched types float64 and bool",
		"current.f1":                  "a condition is wanted, this is a number",
		"calibrated ? f1 : drift":     "float64",
		"current.recall ** 9999 > -1": "",
	} {
		got := one(t, expression, candidate, current)
		if want := why != ""; (got.Verdict == gate.Fail) != want || !strings.Contains(got.Why, why) {
			t.Errorf("%s: %+v, want %q", expression, got, why)
		}
	}
}

func TestHints(t *testing.T) {
	t.Parallel()
	candidate := facts(t, candidateSummary)
	got := one(t, "precision >= current.precision", candidate, facts(t, currentSummary))
	want := []string{"metrics: {precision: val.precision}", "metrics: {precision: test.precision}"}
	if fmt.Sprint(got.Hints) != fmt.Sprint(want) || got.Candidate != "precision ambiguous" || got.Current != "precision ambiguous" ||
		!strings.Contains(got.Why, "candidate: ") || !strings.Contains(got.Why, "current: ") {
		t.Errorf("%+v", got)
	}
	for _, line := range got.Hints {
		p := policy(t, line, "s", "precision > 0.4")
		results := p.Check(candidate, nil, now, time.Time{})
		if r := results[len(results)-1]; r.Verdict != gate.Pass {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// TestStageWithoutModel has the first promotion: what compares passes, what
// names current fails.
func TestStageWithoutModel(t *testing.T) {
	t.Parallel()
	p, err := gate.New(config(t, `stages: {s: {runtime: same, path: same, same: [test_rows, nothing], scan: declared,
		require: ["f1 > 0.5", "f1 > current.f1", "calibrated || current.f1 > 0"], warn: ["f1 > current.f1"]}}`), "s", nil, []string{"recall > 0.99"})
	if err != nil {
		t.Fatal(err)
	}
	candidate := facts(t, candidateSummary)
	candidate.Info.Scan = "pass"
	var got []string
	results := p.Check(candidate, nil, now, time.Time{})
	for _, r := range results {
		got = append(got, fmt.Sprintf("%s: %s (%s)", r.Gate, r.Verdict, r.Why))
	}
	want := `scan: declared: pass ()
features: same: pass (nothing to compare with)
runtime: same: pass (nothing to compare with)
path: same: pass (nothing to compare with)
same: test_rows: pass (nothing to compare with)
same: nothing: pass (nothing to compare with)
f1 > 0.5: pass ()
f1 > current.f1: fail (current: nothing to compare with, the stage has no model)
calibrated || current.f1 > 0: fail (current: nothing to compare with, the stage has no model)
f1 > current.f1: warn (current: nothing to compare with, the stage has no model)
recall > 0.99: warn (0.6 is not > 0.99)`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if !gate.Failed(results) || gate.Failed(results[:7]) || gate.Failed(results[9:]) {
		t.Error("Failed does not tell what fails")
	}
}

func TestFeatures(t *testing.T) {
	t.Parallel()
	named := func(names string) *manifest.Facts {
		return &manifest.Facts{Features: &training.Features{Names: strings.Fields(names)}}
	}
	many := &manifest.Facts{Features: &training.Features{Names: []string{"x"}}}
	for i := range 30 {
		many.Features.Names = append(many.Features.Names, fmt.Sprintf("n%d", i))
	}
	for _, tt := range []struct {
		rule               string
		candidate, current *manifest.Facts
		why                string
		fails              bool
	}{
		{"same", named("a b c"), named("a b c"), "", false},
		{"same", named("a b c d"), named("a b c"), "added: d", true},
		{"same", named("a c"), named("a b c"), "removed: b", true},
		{"same", named("a c b"), named("a b c"), "moved: c from 3 to 2", true},
		{"same", named("x a c b"), named("a b c d"), "added: x; removed: d; moved: c from 3 to 3", true},
		{"same", named("a a b"), named("a b"), "added: a", true},
		{"same", named("a b"), named("b a a"), "removed: a; moved: a from 2 to 1", true},
		{"same", many, named("x"), "added: n0, n1, n2, n3, n4, n5, n6, n7 and 22 more", true},
		{"superset", named("a b c"), named("a b c"), "", false},
		{"superset", named("x a b c y"), named("a b c"), "added: x, y", false},
		{"superset", named("a b"), named("a b c"), "removed: c", true},
		{"superset", named("b a c"), named("a b"), "added: c; moved: b from 2 to 1", true},
		{"same", new(manifest.Facts), named("a"), "the candidate's features are unknown: push a features file, or say features: any", true},
		{"superset", named("a"), new(manifest.Facts), "current's features are unknown", true},
		{"same", named(""), new(manifest.Facts), "the candidate's and current's features are unknown", true},
		{"same", named("a"), nil, "nothing to compare with", false},
		{"superset", new(manifest.Facts), nil, "nothing to compare with", false},
		{"same", &manifest.Facts{Features: &training.Features{Names: []string{"a\n\x1b[31m"}}}, named("a"), `added: "a\n\x1b[31m"; removed: a`, true},
	} {
		got := row(t, "features: "+tt.rule, tt.candidate, tt.current)
		if (got.Verdict == gate.Fail) != tt.fails || !strings.HasPrefix(got.Why, tt.why) || tt.why == "" && got.Why != "" {
			t.Errorf("%+v, want %q", got, tt.why)
		}
	}
	if r := row(t, "features: same", named("a b"), named("a")); r.Candidate != "2 features" || r.Current != "1 feature" {
		t.Errorf("%+v", r)
	}
	if results := policy(t, "stages: {s: {features: any}}", "s").Check(named("a"), named("b"), now, now); len(results) != 1 {
		t.Errorf("features: any gives %+v", results)
	}
}

// row checks a policy of one rule and returns its row.
func row(t *testing.T, rule string, candidate, current *manifest.Facts) gate.Result {
	t.Helper()
	text := "stages: {s: {" + rule + "}}"
	for _, r := range policy(t, text, "s").Check(candidate, current, now, time.Time{}) {
		if key, _, _ := strings.Cut(rule, ":"); strings.HasPrefix(r.Gate, key+":") {
			return r
		}
	}
	t.Fatalf("%s gives no row", rule)
	return gate.Result{}
}

func TestRuntime(t *testing.T) {
	t.Parallel()
	made := func(sklearn, numpy, imports string) *manifest.Facts {
		return &manifest.Facts{Info: manifest.Info{Sklearn: strings.Fields(sklearn), Numpy: numpy, Imports: strings.Fields(imports)}}
	}
	current := made("1.3.2", "1", "joblib numpy sklearn")
	for _, tt := range []struct {
		candidate, current *manifest.Facts
		why                string
	}{
		{current, current, ""},
		{made("1.3.0", "1", "joblib numpy sklearn"), current, ""},
		{made("1.3.0", "", "sklearn"), current, ""}, // it needs less
		{made("1.4.0", "1", "joblib numpy sklearn"), current, "scikit-learn 1.4, current has 1.3"},
		{made("1.3.2 1.4.0", "1", "numpy sklearn"), current, "scikit-learn 1.3, 1.4, current has 1.3"},
		{made("1.3.2", "2", "numpy sklearn"), current, "numpy 2, current has 1"},
		{made("1.3.2", "1", "numpy sklearn lightgbm xgboost"), current, "needs lightgbm, xgboost, current does not"},
		{made("1.13.2", "2", "sklearn x"), current, "scikit-learn 1.13, current has 1.3; numpy 2, current has 1; needs x, current does not"},
		{made("", "1", "numpy sklearn"), current, "nobody knows the scikit-learn of the candidate"},
		{new(manifest.Facts), current, "nobody knows what the candidate needs"},
		{current, new(manifest.Facts), "nobody knows what current needs"},
		{made("1.3.2", "1", "sklearn"), made("", "", "xgboost"), "scikit-learn 1.3, current has none; numpy 1, current has none; needs sklearn, current does not"},
		{new(manifest.Facts), nil, "nothing to compare with"},
	} {
		got := row(t, "runtime: same", tt.candidate, tt.current)
		if (got.Verdict == gate.Fail) != (tt.why != "" && tt.current != nil) || got.Why != tt.why {
			t.Errorf("%+v, want %q", got, tt.why)
		}
	}
	if r := row(t, "runtime: same", current, new(manifest.Facts)); r.Candidate != "joblib, numpy 1, scikit-learn==1.3.2" && r.Candidate != "joblib, scikit-learn==1.3.2, numpy 1" || r.Current != "unknown" {
		t.Errorf("%+v", r)
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	at := func(path string) *manifest.Facts { return &manifest.Facts{Path: path} }
	for _, tt := range []struct {
		candidate, current *manifest.Facts
		why                string
		fails              bool
	}{
		{at("models/m.joblib"), at("models/m.joblib"), "", false},
		{at("models/x.joblib"), at("models/m.joblib"), "applications look for the file of current", true},
		{at(""), at(""), "unknown", true},
		{at("m"), at(""), "unknown", true},
		{at(""), nil, "nothing to compare with", false},
	} {
		got := row(t, "path: same", tt.candidate, tt.current)
		if (got.Verdict == gate.Fail) != tt.fails || !strings.Contains(got.Why, tt.why) {
			t.Errorf("%+v, want %q", got, tt.why)
		}
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	claims := func(verdict string) *manifest.Facts { return &manifest.Facts{Info: manifest.Info{Scan: verdict}} }
	read := func(verdicts ...joblib.Verdict) *manifest.Facts {
		f := claims("dangerous") // what was read counts, not the claim
		f.Scans = []manifest.Scan{}
		for i, v := range verdicts {
			report := &joblib.Report{Verdict: v, Findings: []joblib.Finding{{Verdict: v, Global: "os:system", Message: "runs a command"}}}
			f.Scans = append(f.Scans, manifest.Scan{Path: fmt.Sprintf("models/%d.joblib", i), Role: manifest.RoleModel, Report: report})
		}
		return f
	}
	for _, tt := range []struct {
		rule      string
		facts     *manifest.Facts
		verdict   gate.Verdict
		candidate string
		why       string
	}{
		{"scan: pass", read(joblib.Pass), gate.Pass, "pass", ""},
		{"scan: pass", read(joblib.NotPickle), gate.Pass, "not-a-pickle", ""},
		{"scan: pass", read(joblib.Pass, joblib.Review), gate.Fail, "review", "models/1.joblib: review: os:system: runs a command"},
		{"scan: pass", read(joblib.Unverifiable), gate.Fail, "unverifiable", "models/0.joblib"},
		{"scan: pass", read(joblib.Dangerous, joblib.Dangerous), gate.Fail, "dangerous", "models/1.joblib"},
		{"scan: pass", read(joblib.Verdict(0), joblib.Pass), gate.Fail, "pass", "models/0.joblib: unknown"},
		{"scan: pass", claims("pass"), gate.Fail, "", "the files were not read"},
		{"scan: declared", claims("pass"), gate.Pass, "pass", ""},
		{"scan: declared", claims("not-a-pickle"), gate.Pass, "not-a-pickle", ""},
		{"scan: declared", claims("review"), gate.Warn, "review", "somebody should look at it"},
		{"scan: declared", claims("dangerous"), gate.Fail, "dangerous", "pushed in spite of its verdict"},
		{"scan: declared", claims("unverifiable"), gate.Fail, "unverifiable", "pushed in spite of its verdict"},
		{"scan: declared", claims("good\n"), gate.Fail, `"good\n"`, "a verdict that this galley does not know"},
		{"scan: declared", claims(""), gate.Fail, "none", "read it: scan: pass"},
		{"scan:", claims(""), gate.Warn, "none", "read it: scan: pass"},
		{"scan:", claims("pass"), gate.Pass, "pass", ""},
		{"scan:", claims("dangerous"), gate.Fail, "dangerous", "pushed in spite of its verdict"},
	} {
		got := row(t, tt.rule, tt.facts, nil)
		if got.Verdict != tt.verdict || got.Candidate != tt.candidate || !strings.Contains(got.Why, tt.why) || tt.why == "" && got.Why != "" {
			t.Errorf("%s: %+v, want %s, %s, %q", tt.rule, got, tt.verdict, tt.candidate, tt.why)
		}
	}
}

func TestMaxAge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		trained   string
		first     time.Time
		candidate string
		why       string
	}{
		{"2026-02-20T12:00:00Z", time.Time{}, "trained 2026-02-20, 9d ago", ""},
		{"2026-02-19T12:00:00Z", now, "trained 2026-02-19, 10d ago", ""},
		{"2026-02-19T11:59:59Z", now, "trained 2026-02-19, 11d ago", "too long ago by 1m"},
		{"2026-02-19T11:00:00", now, "trained 2026-02-19, 11d ago", "too long ago by 1h"}, // without a zone: UTC
		{"2026-02-28", time.Time{}, "trained 2026-02-28, 1d12h ago", ""},
		{"2026-03-02T02:00:00", time.Time{}, "trained 2026-03-02, 0s ago", ""}, // a zone ahead of UTC
		{"2026-03-03T02:00:00", now, "trained 2026-03-03T02:00:00Z", "lies in the future"},
		{"", now.Add(-time.Hour), "first seen 2026-03-01, 1h ago", ""},
		{"yesterday", now.AddDate(-1, 0, 0), "first seen 2025-03-01, 365d ago", "too long ago by 355d"},
		{"", time.Time{}, "unknown", "galley push --trained TIME"},
	} {
		f := &manifest.Facts{Info: manifest.Info{Trained: tt.trained}}
		got := policy(t, "stages: {s: {max-age: 10d}}", "s").Check(f, nil, now, tt.first)[1]
		if got.Gate != "max-age: 10d" || got.Bound != "<= 10d" || (got.Verdict == gate.Pass) != (tt.why == "") ||
			got.Candidate != tt.candidate || !strings.Contains(got.Why, tt.why) {
			t.Errorf("%+v, want %q, %q", got, tt.candidate, tt.why)
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	candidate, current := facts(t, candidateSummary), facts(t, currentSummary)
	for key, want := range map[string]string{
		"test_rows":            "pass: 20000 20000",
		"dataset_sha":          "fail: ab12 cd34 they differ, so metrics cannot be compared",
		"calibrated":           "fail: true missing current: no calibrated",
		"lift":                 "fail: missing 3 candidate: no lift",
		"precision":            "fail: ambiguous ambiguous candidate: ambiguous between val.precision, test.precision",
		"nan_auc":              "fail: not finite 0.5 candidate: nan_auc is not finite",
		"test_row":             "fail: missing missing candidate: no test_row; nearest: test_rows",
		"test_metrics.test_f1": "fail: 0.7 0.69 they differ",
	} {
		r := row(t, "same: ["+key+"]", candidate, current)
		if got := fmt.Sprintf("%s: %s %s %s", r.Verdict, r.Candidate, r.Current, r.Why); !strings.HasPrefix(got, want) || r.Gate != "same: "+key {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if r := row(t, "same: [a]", new(manifest.Facts), current); r.Verdict != gate.Fail || r.Why != "candidate: there is no training summary" {
		t.Errorf("%+v", r)
	}
}

func TestNewMarksTheFault(t *testing.T) {
	t.Parallel()
	c := config(t, `# gates
stages:
  production:
    require:
      - "roc_auc >= 0.65"
      - "roc_auc >== 0.65"
      - "f1 * 0.97"
    warn:
      - >
        a &&
        now() > 1
      - 'it > ''1'
`)
	_, err := gate.New(c, "production", []string{"f1 >= current"}, []string{strings.Repeat("a + ", 100) + "# > 1"})
	want := `galley.yaml:6:20: require: unexpected token Operator("=")
    roc_auc >== 0.65
              ^
galley.yaml:7:10: require: a condition is wanted, this is a number
    f1 * 0.97
--require: current is a model, and no value: name one of its metrics, as in current.f1
    f1 >= current
          ^
galley.yaml:9:9: warn: unknown function; there are metric, m, abs, ceil, floor, round, max, min
    a && now() > 1
         ^
galley.yaml:12:9: warn: literal not terminated
    it > '1
           ^
--warn: unexpected token Operator("#")
    ` + strings.Repeat("+ a ", 16) + `+ # > 1
    ` + strings.Repeat(" ", 66) + "^"
	if err == nil || err.Error() != want {
		t.Fatalf("got\n%v\nwant\n%s", err, want)
	}
	e, ok := errors.AsType[*gate.ExpressionError](err)
	if !ok || e.Line != 6 || e.Column != 20 || e.Mark != 10 || e.Expression != "roc_auc >== 0.65" || e.Gate != "require" || e.File != "galley.yaml" {
		t.Errorf("%+v", e)
	}
	if _, err := gate.New(c, "staging", nil, nil); err != nil {
		t.Errorf("another stage's gates are read: %v", err)
	}
}

func TestEmptyPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range []*project.Config{nil, config(t, "stages: {staging: {}}")} {
		p, err := gate.New(c, "production", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Empty() || p.Digest() != "" || p.NeedsCurrent() || p.NeedsScan() || p.Check(new(manifest.Facts), nil, now, now) != nil {
			t.Errorf("%+v", p)
		}
		if p, err = gate.New(c, "production", nil, []string{"f1 > 0"}); err != nil || p.Empty() || p.Features != "same" || p.Digest() == "" {
			t.Errorf("%+v, %v", p, err)
		}
	}
	p := policy(t, "stages: {staging: }", "staging")
	if p.Empty() || p.Digest() == "" || len(p.Check(new(manifest.Facts), nil, now, now)) != 2 {
		t.Errorf("%+v", p)
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		stage         string
		current, scan bool
	}{
		{"", true, false}, {"features: any", false, false}, {"features: any, runtime: same", true, false}, {"features: any, path: same", true, false},
		{"features: any, same: [a]", true, false}, {"features: any, require: [a > 1]", false, false}, {"features: any, require: [a > current.b]", true, false},
		{"features: any, warn: ['current.m(\"x\") > 1']", true, false}, {"features: any, scan: pass", false, true}, {"features: any, scan: declared", false, false},
	} {
		p := policy(t, "stages: {s: {"+tt.stage+"}}", "s")
		if p.NeedsCurrent() != tt.current || p.NeedsScan() != tt.scan {
			t.Errorf("%s: current %t, scan %t", tt.stage, p.NeedsCurrent(), p.NeedsScan())
		}
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	sum := func(text string, flags ...string) digest.Digest { return policy(t, text, "s", flags...).Digest() }
	const plain = `
metrics: {f1: test.f1, auc: test.auc}
stages:
  t: {}
  u: {}
  s: {from: t, soak: 24h, require: ["f1 >= 0.65", "recall > current.recall"], warn: [auc > 1], same: [a, b], max-age: 7d}
`
	want := sum(plain)
	// The golden digest: another one makes every policy a changed one.
	if got := want.Encoded()[:16]; got != "00b0eae04999749e" {
		t.Errorf("digest %s", got)
	}
	for what, text := range map[string]string{
		"comments, order and spacing": `# ours
stages:
  other: {require: [x > 1]}
  t: {}
  s:
    warn: "auc>1"
    features: same # the default
    runtime: any
    same: [b, a, b]
    require: ["recall >current.recall","( f1 >= 0.650 )", "f1 >= 0.65"]
    max-age: 168h
    soak: 1d
    from: t
metrics: {auc: test.auc, f1: test.f1, unused: x.y}
`,
		"better": strings.Replace(plain, "auc: test.auc", "auc: {path: test.auc, better: lower}", 1),
	} {
		if got := sum(text); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	seen := map[digest.Digest]string{want: "plain"}
	for old, changed := range map[string]string{
		"0.65": "0.66", "soak: 24h": "soak: 25h", "from: t,": "from: u,", "f1: test.f1": "f1: val.f1", "warn: [auc > 1]": "warn: [auc > 2]", "[a, b]": "[a]",
		"7d": "8d", "  s: {": "  s: {features: any, ", "from:": "scan: pass, from:", "from: ": "path: same, from: ", "from": "runtime: same, from", ", warn": ", scan: declared, warn",
		"require: [": "require: [auc > 1, ",
	} {
		text := strings.Replace(plain, old, changed, 1)
		got := sum(text)
		if was, twice := seen[got]; twice {
			t.Errorf("%q has the digest of %s", changed, was)
		}
		seen[got] = changed
	}
	if got := sum(plain, "f1 > 0.9"); got == want {
		t.Error("a flag does not show")
	}
	if got := sum(plain, "f1 >= 0.65"); got != want {
		t.Error("a flag that repeats a gate shows")
	}
}

func TestResultJSON(t *testing.T) {
	t.Parallel()
	r := gate.Result{Gate: "f1 > 1", Candidate: "f1 0.5", Bound: "> 1", Verdict: gate.Waived, Why: "0.5 is not > 1"}
	text, err := json.Marshal(r)
	if want := `{"gate":"f1 \u003e 1","candidate":"f1 0.5","bound":"\u003e 1","verdict":"waived","why":"0.5 is not \u003e 1"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
	var again gate.Result
	if err := json.Unmarshal(text, &again); err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
		t.Errorf("%+v, %v", again, err)
	}
}

// TestUnknownVerdict holds that what is no verdict fails.
func TestUnknownVerdict(t *testing.T) {
	t.Parallel()
	for _, v := range []gate.Verdict{"", "ok", "Pass"} {
		if !gate.Failed([]gate.Result{{Verdict: v}}) {
			t.Errorf("%q passes", v)
		}
	}
}
