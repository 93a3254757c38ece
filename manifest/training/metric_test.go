package training_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"galley/manifest/training"
)

// TestMetricString has the samples of RFC 8785, appendix B.
func TestMetricString(t *testing.T) {
	t.Parallel()
	tests := []struct {
		bits uint64
		want string
	}{
		{0x0000000000000000, "0"},
		{0x8000000000000000, "0"},
		{0x0000000000000001, "5e-324"},
		{0x8000000000000001, "-5e-324"},
		{0x7fefffffffffffff, "1.7976931348623157e+308"},
		{0xffefffffffffffff, "-1.7976931348623157e+308"},
		{0x4340000000000000, "9007199254740992"},
		{0xc340000000000000, "-9007199254740992"},
		{0x4430000000000000, "295147905179352830000"},
		{0x44b52d02c7e14af5, "9.999999999999997e+22"},
		{0x44b52d02c7e14af6, "1e+23"},
		{0x44b52d02c7e14af7, "1.0000000000000001e+23"},
		{0x444b1ae4d6e2ef4e, "999999999999999700000"},
		{0x444b1ae4d6e2ef4f, "999999999999999900000"},
		{0x444b1ae4d6e2ef50, "1e+21"},
		{0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
		{0x3eb0c6f7a0b5ed8d, "0.000001"},
		{0x41b3de4355555553, "333333333.3333332"},
		{0x41b3de4355555554, "333333333.33333325"},
		{0x41b3de4355555555, "333333333.3333333"},
		{0x41b3de4355555556, "333333333.3333334"},
		{0x41b3de4355555557, "333333333.33333343"},
		{0xbecbf647612f3696, "-0.0000033333333333333333"},
		{0x43143ff3c1cb0959, "1424953923781206.2"},
	}
	for _, tt := range tests {
		m := training.Metric{Path: "m", Value: math.Float64frombits(tt.bits)}
		if got := m.String(); got != tt.want {
			t.Errorf("%x = %s, want %s", tt.bits, got, tt.want)
		}
		back, err := training.ParseMetric("m", m.String())
		if err != nil || back.Value != m.Value {
			t.Errorf("ParseMetric(%s) = %v, %v", m, back, err)
		}
	}
}

func TestParseMetric(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]training.Metric{
		"true":  {Path: "p", Value: 1, IsBool: true},
		"false": {Path: "p", IsBool: true},
		"0.070": {Path: "p", Value: 0.07},
		"-1e-7": {Path: "p", Value: -1e-7},
	} {
		if got, err := training.ParseMetric("p", text); err != nil || got != want {
			t.Errorf("ParseMetric(%s) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "NaN", "Infinity", "1e999", "null", `"1"`, "0x1p-2", "1_000", "inf", "[1]", "1 2", "True", "\x00"} {
		if got, err := training.ParseMetric("p", text); err == nil {
			t.Errorf("ParseMetric(%q) = %+v, want an error", text, got)
		}
	}
	for _, path := range []string{"", "a\nb", "\x1b[2J", strings.Repeat("k", 257)} {
		if got, err := training.ParseMetric(path, "1"); err == nil {
			t.Errorf("ParseMetric at %q = %+v, want an error", path, got)
		}
	}
}

// metricsAt returns a metric at each path, valued by its place.
func metricsAt(paths ...string) []training.Metric {
	var list []training.Metric
	for i, path := range paths {
		list = append(list, training.Metric{Path: path, Value: float64(i)})
	}
	return list
}

func TestSelect(t *testing.T) {
	t.Parallel()
	metrics := metricsAt("a.b.c", "a.b", "z", "a.a", "y", "x.y.z")
	tests := []struct {
		name    string
		first   []string
		limit   int
		want    []string
		omitted int
	}{
		{"shallow before deep", nil, 64, []string{"z", "y", "a.b", "a.a", "a.b.c", "x.y.z"}, 0},
		{"the rest is counted", nil, 3, []string{"z", "y", "a.b"}, 3},
		{"first in their order", []string{"x.y.z", "a.a", "absent", "x.y.z"}, 3, []string{"x.y.z", "a.a", "z"}, 3},
		{"more first than room", []string{"x.y.z", "a.a"}, 1, []string{"x.y.z"}, 5},
		{"none", nil, 0, nil, 6},
		{"negative", nil, -1, nil, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			chosen, omitted := training.Select(metrics, tt.first, tt.limit)
			if got := paths(chosen); !slices.Equal(got, tt.want) || omitted != tt.omitted {
				t.Errorf("chosen %q, omitted %d, want %q, %d", got, omitted, tt.want, tt.omitted)
			}
		})
	}
	if metrics[0].Path != "a.b.c" {
		t.Error("the metrics given were reordered")
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	fraud := metricsAt("best_model_metrics.train_f1", "best_model_metrics.val_f1", "best_model_metrics.val_roc_auc",
		"test_metrics.test_f1", "test_metrics.test_recall", "threshold")
	alias := map[string]string{"f1": "test_metrics.test_f1", "gone": "test_metrics.gone", "threshold": "test_metrics.test_recall"}
	tests := []struct {
		name    string
		metrics []training.Metric
		ask     string
		alias   map[string]string
		want    string // the path, or the error
	}{
		{"alias", fraud, "f1", alias, "test_metrics.test_f1"},
		{"alias before exact path", fraud, "threshold", alias, "test_metrics.test_recall"},
		{"alias to nothing", fraud, "gone", alias, `metric "gone": not found at its alias's path "test_metrics.gone"`},
		{"exact path", fraud, "best_model_metrics.val_f1", nil, "best_model_metrics.val_f1"},
		{"exact path of a train score", fraud, "best_model_metrics.train_f1", nil, "best_model_metrics.train_f1"},
		{"last key", fraud, "test_f1", nil, "test_metrics.test_f1"},
		{"last key without test_", fraud, "recall", nil, "test_metrics.test_recall"},
		{"last key without val_", fraud, "roc_auc", nil, "best_model_metrics.val_roc_auc"},
		{"several without prefix", fraud, "f1", nil, `metric "f1": ambiguous between best_model_metrics.val_f1, test_metrics.test_f1`},
		{"a train score that is asked for", fraud, "train_f1", nil, "best_model_metrics.train_f1"},
		{"a train score never for a bare name", metricsAt("m.train_f1"), "f1", nil, `metric "f1": not found; nearest: m.train_f1`},
		{"nor one below train", metricsAt("train.f1", "training.f1", "rf.train_metrics.f1", "training_scores.f1"), "f1", nil,
			`metric "f1": not found; nearest: train.f1, training.f1, rf.train_metrics.f1`},
		{"but from the training's results", metricsAt("training_results.f1"), "f1", nil, "training_results.f1"},
		{"and a test score of the training", metricsAt("training.test_f1", "train.validation.auc"), "f1", nil, "training.test_f1"},
		{"train and test", metricsAt("train.f1", "test.f1"), "f1", nil, "test.f1"},
		{"same key twice", metricsAt("val.f1", "test.f1"), "f1", nil, `metric "f1": ambiguous between val.f1, test.f1`},
		{"full key before dropped prefix", metricsAt("a.test_f1", "b.f1"), "f1", nil, "b.f1"},
		{"other prefixes", metricsAt("a.valid_f1", "b.validation_auc"), "auc", nil, "b.validation_auc"},
		{"prefix at the top", metricsAt("val_loss"), "loss", nil, "val_loss"},
		{"end of a path", metricsAt("rf.test.f1", "svm.test.f1"), "svm.test.f1", nil, "svm.test.f1"},
		{"two keys", metricsAt("m.rf.test.f1", "m.svm.test.f1"), "svm.test.f1", nil, "m.svm.test.f1"},
		{"only whole keys", metricsAt("a.macro_f1"), "f1", nil, `metric "f1": not found`},
		{"key with a dot", metricsAt("test.precision@0.5"), "precision@0.5", nil, "test.precision@0.5"},
		{"key that is no identifier", metricsAt("weighted avg.f1-score"), "f1-score", nil, "weighted avg.f1-score"},
		{"typo", fraud, "test_recal", nil, `metric "test_recal": not found; nearest: test_metrics.test_recall`},
		{"case", metricsAt("test.AUC", "test.F1"), "auc", nil, `metric "auc": not found; nearest: test.AUC`},
		{"part of a key", metricsAt("test.roc_auc", "test.recall"), "auc", nil, `metric "auc": not found; nearest: test.roc_auc`},
		{"nothing alike", fraud, "brier", nil, `metric "brier": not found`},
		{"empty", metricsAt("a."), "", nil, `metric "": not found`},
		{"long", fraud, strings.Repeat("f", 1000), nil, `metric "` + strings.Repeat("f", 1000) + `": not found`},
		{"no metrics", nil, "f1", nil, `metric "f1": not found`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := training.Find(tt.metrics, tt.ask, tt.alias)
			got := m.Path
			if err != nil {
				got = err.Error()
				if m != (training.Metric{}) {
					t.Error("metric beside an error")
				}
			}
			if got != tt.want {
				t.Errorf("Find(%q) = %s, want %s", tt.ask, got, tt.want)
			}
		})
	}
}

func TestLookupErrors(t *testing.T) {
	t.Parallel()
	_, err := training.Find(metricsAt("a.f1", "b.f1"), "f1", nil)
	if e, ok := errors.AsType[*training.AmbiguousError](err); !ok || e.Name != "f1" || !slices.Equal(e.Paths, []string{"a.f1", "b.f1"}) {
		t.Errorf("error = %#v, want an *AmbiguousError with both paths", err)
	}
	_, err = training.Find(metricsAt("a.f1"), "x", map[string]string{"x": "b.f1"})
	if e, ok := errors.AsType[*training.UnknownMetricError](err); !ok || e.Name != "x" || e.Path != "b.f1" || !slices.Equal(e.Nearest, []string{"a.f1"}) {
		t.Errorf("error = %#v, want an *UnknownMetricError with the path", err)
	}
}

// TestUnusableMetrics checks that a metric without a value is not replaced by
// another that its name would otherwise mean.
func TestUnusableMetrics(t *testing.T) {
	t.Parallel()
	s, err := training.ParseSummary([]byte(`{"test": {"roc_auc": NaN, "loss": 1e999}, "val": {"roc_auc": 0.9, "f1": 0.5}, "runs": [{"name": "a", "mcc": 1}, {"name": "a", "mcc": 2}]}`))
	if err != nil {
		t.Fatal(err)
	}
	alias := map[string]string{"auc": "test.roc_auc"}
	for name, want := range map[string]string{
		"f1":      "",
		"roc_auc": `metric "roc_auc": ambiguous between test.roc_auc, val.roc_auc`,
		"auc":     `metric "auc": test.roc_auc is NaN`,
		"loss":    `metric "loss": test.loss is infinite`,
		"mcc":     `metric "mcc": runs.a.mcc is given twice`,
	} {
		_, err := s.Metric(name, alias)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Metric(%q): %q, want %q", name, got, want)
		}
	}
	_, err = s.Metric("auc", alias)
	if e, ok := errors.AsType[*training.UnusableMetricError](err); !ok || e.Path != "test.roc_auc" || e.Name != "auc" || e.Why != "NaN" {
		t.Errorf("error = %#v, want an *UnusableMetricError", err)
	}
}
