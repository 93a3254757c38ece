package oci_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"galley/manifest"
	"galley/manifest/training"
	"galley/oci"
)

// history are versions as List returns them.
func history() []oci.Version {
	model := func(tags, trained string, metrics ...training.Metric) oci.Version {
		return oci.Version{
			Tags: strings.Split(tags, ","), Size: 100,
			Info: manifest.Info{Class: "sklearn.Forest", Trained: trained, Features: 30, Metrics: metrics},
		}
	}
	auc := func(v float64) training.Metric { return training.Metric{Path: "test_metrics.test_roc_auc", Value: v} }
	passed := training.Metric{Path: "gates.passed", Value: 1, IsBool: true}
	bare := model("v1", "2026-01-01")
	bare.Features, bare.Class, bare.Size = -1, "", -1
	return []oci.Version{
		model("v10,candidate", "2026-03-01T00:00:00Z", auc(0.7), training.Metric{Path: "train_f1", Value: 0.9}, passed),
		model("v9", "2026-02-01T01:00:00+02:00", auc(0.8), training.Metric{Path: "train_f1", Value: 1}),
		model("v2", "2026-01-02", auc(0.6)),
		bare,
		{Tags: []string{"image"}, Size: -1, Info: manifest.Info{Features: -1}, Err: &manifest.NotArtifactError{What: "a container image"}},
	}
}

var aliases = map[string]string{"auc": "test_metrics.test_roc_auc", "missing": "nowhere"}

func TestFilterVersions(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{"true", "v10,candidate v9 v2 v1 image"},
		{"roc_auc >= 0.7", "v10,candidate v9"},
		{"auc < 0.7", "v2"},
		{"!(auc >= 0.7)", "v2"}, // what has no value does not match
		{"missing > 0", ""},
		{"!(missing > 0)", ""},
		{"test_metrics.test_roc_auc > 0.75", "v9"},
		{`metric("test_metrics.test_roc_auc") > 0.75`, "v9"},
		{"train_f1 > roc_auc", "v10,candidate v9"},
		{"passed", "v10,candidate"},
		{"gates.passed", "v10,candidate"},
		{`tag == "candidate"`, "v10,candidate"},
		{`tag matches "^v[0-9]+$"`, "v10,candidate v9 v2 v1"},
		{`trained < "2026-02"`, "v9 v2 v1"}, // v9 by UTC
		{`class contains "Forest" && size < 1e6 && features == 30`, "v10,candidate v9 v2"},
		{`let best = auc; best > 0.75`, "v9"},
		{`auc in 0..1`, ""},
	} {
		versions, err := oci.FilterVersions(history(), tt.expression, aliases)
		if got := allTags(versions); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.expression, got, err, tt.want)
		}
	}
	if versions, err := oci.FilterVersions(nil, "anything > 0", nil); err != nil || versions != nil {
		t.Errorf("of nothing: %v, %v", versions, err)
	}
}

func TestFilterVersionsRefuses(t *testing.T) {
	for _, tt := range []struct {
		expression string
		as         func(error) bool
		text       string
	}{
		{"any([auc], # > 0.75)", isA[*oci.FilterError], "does not loop"},
		{"", isA[*oci.FilterError], "unexpected token EOF"},
		{"auc >", isA[*oci.FilterError], "unexpected token EOF"},
		{"auc", isA[*oci.FilterError], "a condition is wanted, this is a number"},
		{`auc > "high"`, isA[*oci.FilterError], "mismatched types"},
		{"1 % 0 == 1", isA[*oci.FilterError], "divide by zero"},
		{"now() > 1", isA[*oci.FilterError], "unknown function; there are metric, m, abs"},
		{"$env", isA[*oci.UnknownNameError], ""},
		{strings.Repeat("(", 10000), isA[*oci.FilterError], "longer than 4096 bytes"},
		{strings.Repeat("!", 100000) + "true", isA[*oci.FilterError], ""},
		{"len(1..999999999) > 1", isA[*oci.FilterError], "memory"},
		{"auk > 1", isA[*oci.UnknownNameError], "nearest: auc"},
		{"test_metrics.test_roc_auk > 1", isA[*oci.UnknownNameError], "nearest: test_metrics.test_roc_auc"},
		{"metrics > 1", isA[*oci.UnknownNameError], "neither a column nor a metric"},
		{"metric > 1", isA[*oci.UnknownNameError], "neither a column nor a metric"},
		{"f1 > 1", isA[*oci.UnknownNameError], ""}, // only a score on training data
	} {
		_, err := oci.FilterVersions(history(), tt.expression, aliases)
		if !tt.as(err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.40s: %v; want %q", tt.expression, err, tt.text)
		}
	}
	versions := history()
	versions[2].Metrics = append(versions[2].Metrics, training.Metric{Path: "val_roc_auc"})
	if _, err := oci.FilterVersions(versions, "roc_auc > 0", nil); !isA[*training.AmbiguousError](err) {
		t.Errorf("%v; want an AmbiguousError", err)
	}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func TestSortVersions(t *testing.T) {
	for _, tt := range []struct{ by, want string }{
		{"-trained", "v10,candidate v9 v2 v1 image"},
		{"trained", "v1 v2 v9 v10,candidate image"},
		{"tag", "image v1 v2 v9 v10,candidate"},
		{"-tag", "v10,candidate v9 v2 v1 image"},
		{"auc", "v2 v10,candidate v9 v1 image"},
		{"-roc_auc", "v9 v10,candidate v2 v1 image"},
		{"-passed", "v10,candidate v9 v2 v1 image"},
		{"size", "v10,candidate v9 v2 v1 image"},
	} {
		versions := history()
		slices.Reverse(versions)
		if err := oci.SortVersions(versions, tt.by, aliases); err != nil || allTags(versions) != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.by, allTags(versions), err, tt.want)
		}
	}
	for _, by := range []string{"", "-", "--tag", "tagg"} {
		if err := oci.SortVersions(history(), by, aliases); !isA[*oci.UnknownNameError](err) {
			t.Errorf("%q: %v; want an UnknownNameError", by, err)
		}
	}
}

func TestMetricColumns(t *testing.T) {
	versions := history()
	if got, want := oci.MetricColumns(versions, nil, 4), []string{"test_metrics.test_roc_auc", "train_f1"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	if got := oci.MetricColumns(versions, nil, 1); len(got) != 1 {
		t.Errorf("%q; want one", got)
	}
	if got, want := oci.MetricColumns(versions, []string{"a", "b", "c"}, 2), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

// FuzzFilterVersions holds that no expression does more than match or fail.
func FuzzFilterVersions(f *testing.F) {
	for _, s := range []string{`auc > 0.7 && tag matches "v.*"`, `metric("f1") ?? 0 > 1`, `let x = size; any(1..3, # > x)`, `class[0:3] + trained`, "passed ? true : false"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		if len(expression) > 200 {
			return // what is slow is the language's business
		}
		versions, err := oci.FilterVersions(history(), expression, aliases)
		if err != nil && versions != nil {
			t.Errorf("%q: %d versions and %v", expression, len(versions), err)
		}
	})
}
