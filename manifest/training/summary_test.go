package training_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"galley/manifest/training"
)

func ExampleParseSummary() {
	s, err := training.ParseSummary([]byte(`{
		"best_model": "random_forest",
		"val_metrics": {"train_f1": 0.118, "val_f1": 0.070},
		"test_metrics": {"test_f1": 0.079, "test_roc_auc": NaN},
		"training_time_s": 81.2
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range s.Metrics {
		fmt.Println(m.Path, m)
	}
	fmt.Println(s.Warnings)
	// Output:
	// val_metrics.train_f1 0.118
	// val_metrics.val_f1 0.07
	// test_metrics.test_f1 0.079
	// [left out, NaN or infinite: test_metrics.test_roc_auc]
}

func paths(metrics []training.Metric) []string {
	var list []string
	for _, m := range metrics {
		list = append(list, m.Path)
	}
	return list
}

// TestKeysOfMetrics says of which keys a number is a metric.
func TestKeysOfMetrics(t *testing.T) {
	t.Parallel()
	metrics := []string{
		"accuracy", "f1", "F1", "f1-score", "F1Score", "r2", "R2 Score", "val_loss", "precision@k", "precision_at_10",
		"mean_squared_error", "neg_mean_squared_error", "true_positive_rate", "fpr", "sentiment_f1",
		"time_series_mae", "real_time_accuracy", "threshold", "best_threshold", "decisionThreshold",
		"roc_auc", "rocAuc", "ROC-AUC", "mAP50", "top_5_accuracy", "churn_rate", "silhouette", "dm_p_value",
		"val_loss_epoch", "train_acc_step", "f1_samples", "mae_days", "rmse_hours", "mae_7_days", "fold_1", "epoch_10",
		"sample_f1", "count_accuracy", "n_rmse", "lift", "score", "best_score", "mean", "std", "cost", "%",
		"timeliness", "discount", "sizeable", "resupport", "n2", "GB", "Gradient_Boosted_Trees", "KNeighbors",
	}
	others := []string{
		"n", "N", "n_samples", "nSamples", "n-estimators", "num_rows", "numTrees", "number_of_errors", "error_count", "count", "counts",
		"samples", "train_samples", "rows", "test_rows", "records", "support", "feature_count", "features", "classes",
		"seed", "random_seed", "random_state", "randomState", "fit_time", "score_time", "mean_fit_time", "time",
		"timestamp", "training_time_minutes", "inference_time_ms", "elapsed_seconds", "elapsed", "duration", "durationSec",
		"latency_p95_ms", "runtime", "train_seconds", "trained_at", "created_at", "year", "horizon_days",
		"epoch", "epochs", "best_epoch", "bestEpoch", "epochs_trained", "iterations", "best_iteration", "cv_folds", "n_splits",
		"fold", "step", "optuna_trials", "version", "model_version", "test_size", "dataset_size", "size_mb",
		"true_positives", "false_negatives", "tp", "FP", "models_trained", "id",
		"n_params", "total_parameters", "param_alpha", "importance", "config_value", "HyperParams",
	}
	for _, tt := range []struct {
		keys []string
		want int
	}{{metrics, 1}, {others, 0}} {
		for _, key := range tt.keys {
			for _, text := range []string{`{%q: 0.5}`, `{"test": {%q: 1}}`} {
				s, err := training.ParseSummary(fmt.Appendf(nil, text, key))
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Metrics) != tt.want {
					t.Errorf("a number under %q is %d metrics, want %d", key, len(s.Metrics), tt.want)
				}
			}
		}
	}
}

// TestWhatHoldsMetrics says which values are metrics and which keys have
// metrics below them.
func TestWhatHoldsMetrics(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       string // paths, joined by blanks
	}{
		{"document order", `{"z": 1, "a": {"y": 2, "b": 3}, "m": 4}`, "z a.y a.b m"},
		{"only numbers and booleans", `{"a": "0.9", "b": null, "c": true, "d": 1, "e": {}, "f": []}`, "c d"},
		{"number arrays", `{"a": [0.1, 0.2], "matrix": [[1, 2], [3, 4]], "b": 1}`, "b"},
		{"nested lists of objects", `{"a": [[{"name": "x", "f1": 1}]]}`, ""},
		{"name before model", `[{"model": "m", "name": "n", "f1": 1}]`, "n.f1"},
		{"model when the name is no text", `[{"name": null, "model": "m", "f1": 1}]`, "m.f1"},
		{"as pandas writes headers", `[{"Model Name": "rf", "F1": 1}]`, "rf.F1"},
		{"lists in lists", `{"sets": [{"name": "eu", "models": [{"name": "rf", "f1": 1}]}]}`, "sets.eu.models.rf.f1"},
		{"mixed list", `{"a": [1, {"name": "x", "f1": 1}, "s"]}`, "a.x.f1"},
		{"parameters at any depth", `{"best_params": {"score": 1}, "a": {"hyperparameters": {"b": {"c": 1}}, "configuration": {"d": true}, "f1": 1}}`, "a.f1"},
		{"importances", `{"feature_importances": {"a": 1}, "permutationImportance": [{"name": "a", "mean": 1}], "f1": 1}`, "f1"},
		{"counts and times below a key", `{"class_counts": {"a": 1}, "confusion_matrix": {"a": {"b": 1}}, "latency": {"p50": 1}, "sizes": {"a": 1}, "f1": 1}`, "f1"},
		{"settings that are booleans", `{"params": {"shuffle": true}, "use_config": true, "timed": true, "count": false}`, "timed count"},
		{"dots in keys", `{"precision@0.5": 1, "a.b": {"c.d": 1}}`, "precision@0.5 a.b.c.d"},
		{"a number alone", `0.93`, ""},
		{"null", `null`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := training.ParseSummary([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(paths(s.Metrics), " "); got != tt.want {
				t.Errorf("metrics = %q, want %q", got, tt.want)
			}
			if s.FeatureCount != -1 {
				t.Errorf("feature count = %d, want -1 for absent", s.FeatureCount)
			}
		})
	}
}

func TestSummaryFacts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text        string
		model, best string
		count       int
	}{
		{`{"model_artifact": "models/rf.joblib", "best_model": "rf", "feature_count": 52}`, "models/rf.joblib", "rf", 52},
		{`{"model_artifact": null, "best_model": {"name": "rf", "val_f1": 0.8}, "feature_count": 52.0}`, "", "rf", 52},
		{`{"model_artifact": ["a"], "best_model": 3, "feature_count": "52"}`, "", "", -1},
		{`{"feature_count": 0}`, "", "", 0},
		{`{"feature_count": -2}`, "", "", -1},
		{`{"feature_count": 5.5}`, "", "", -1},
		{`{"feature_count": 1e300}`, "", "", -1},
		{`{"feature_count": NaN}`, "", "", -1},
		{`[{"model_artifact": "x", "feature_count": 3}]`, "", "", -1},
	}
	for _, tt := range tests {
		s, err := training.ParseSummary([]byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if s.Model != tt.model || s.BestModel != tt.best || s.FeatureCount != tt.count {
			t.Errorf("%s: %q, %q, %d, want %q, %q, %d", tt.text, s.Model, s.BestModel, s.FeatureCount, tt.model, tt.best, tt.count)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing", `{"f1": 1, "history": [{"epoch": 1}, {"note": "x"}], "fit_time": NaN}`, nil},
		{"not finite", `{"a": NaN, "b": -Infinity, "c": 1e999}`, []string{"left out, NaN or infinite: a, b, c"}},
		{"many", "{" + many("m%d", "NaN", 1000) + "}", []string{"left out, NaN or infinite: m0, m1, m2, m3, m4, m5, m6, m7 and 992 more"}},
		{"same path", `{"a": {"b": 1}, "a.b": 2, "c": 3}`, []string{"left out, several values for one path: a.b"}},
		{"no name", `{"runs": [{"f1": 1}, {"f1": 2}], "top": {"runs": [{"f1": 1}]}}`, []string{"left out, list entries without name or model: runs, top.runs"}},
		{"no name in no name", `[{"runs": [{"f1": 1}]}]`, []string{"left out, list entries without name or model: (top level)"}},
		{"odd keys", `{"": 1, "\u001b[2J": {"f1": 1, "auc": 1}, "` + strings.Repeat("k", 257) + `": {"f1": true}}`, []string{"left out, keys empty, too long or not printable: 4 values"}},
		{"long paths", strings.Repeat(`{"`+strings.Repeat("k", 20)+`": `, 20) + "1" + strings.Repeat("}", 20), []string{"left out, keys empty, too long or not printable: 1 values"}},
		{"very many", "{" + many("m%d", "1", 10_001) + "}", []string{"left out, only 10000 metrics are read: the rest"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := training.ParseSummary([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Warnings, tt.want) {
				t.Errorf("warnings = %q, want %q", s.Warnings, tt.want)
			}
		})
	}
}

// many returns the members of an object with n keys.
func many(key, value string, n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("%q: %s", fmt.Sprintf(key, i), value))
	}
	return strings.Join(list, ", ")
}

// TestSummaryCost bounds what a file can make of a key that many others lie
// below: the path of each must not repeat it.
func TestSummaryCost(t *testing.T) {
	t.Parallel()
	text := `{"` + strings.Repeat("k", 1<<20) + `": {` + many("m%d", "1", 20_000) + `}}`
	s, err := training.ParseSummary([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Metrics) != 0 || len(s.Warnings) != 1 || len(s.Warnings[0]) > 100 {
		t.Errorf("%d metrics, warnings %.200q", len(s.Metrics), s.Warnings)
	}
}
