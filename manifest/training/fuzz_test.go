package training_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"galley/manifest/training"
)

// FuzzFeatures checks that a file either has names or a note of bounded length
// that says why not.
func FuzzFeatures(f *testing.F) {
	names, files := fixtures(f, "features", featuresFixtures)
	for _, name := range names {
		f.Add(files[name], "")
	}
	f.Add(files["nested_info"], "feature_info.feature_names")
	f.Add(files["ranked_objects"], "1.feature")
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		got, err := training.ParseFeatures(data, path)
		if err != nil {
			if got != nil {
				t.Fatal("features beside an error")
			}
			return
		}
		if known := len(got.Names) > 0; known != (got.Note == "") || known != (got.Digest() != "") {
			t.Fatalf("%d names, note %q, digest %q", len(got.Names), got.Note, got.Digest())
		}
		if len(got.Note) > 8*4*60+len(path)*4+200 {
			t.Fatalf("note of %d bytes", len(got.Note))
		}
		checkTrained(t, got.Trained)
	})
}

// FuzzSummary checks that every metric is finite, has a path of its own by which
// it is found, and survives being written to an annotation.
func FuzzSummary(f *testing.F) {
	names, files := fixtures(f, "summary", summaryFixtures)
	for _, name := range names {
		f.Add(files[name], "f1")
	}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		s, err := training.ParseSummary(data)
		if err != nil {
			if s != nil {
				t.Fatal("summary beside an error")
			}
			return
		}
		seen := map[string]bool{}
		for _, m := range s.Metrics[:min(len(s.Metrics), 1000)] {
			if seen[m.Path] || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
				t.Fatalf("metric %q = %v", m.Path, m.Value)
			}
			seen[m.Path] = true
			if found, err := s.Metric(m.Path, nil); err != nil || found != m {
				t.Fatalf("metric at %q = %+v, %v, want %+v", m.Path, found, err, m)
			}
			if back, err := training.ParseMetric(m.Path, m.String()); err != nil || back.String() != m.String() {
				t.Fatalf("ParseMetric(%q, %q) = %+v, %v", m.Path, m, back, err)
			}
		}
		if found, err := s.Metric(name, nil); err == nil && !slices.Contains(s.Metrics, found) {
			t.Fatalf("metric %q = %+v, which is none of the summary's", name, found)
		}
		chosen, omitted := training.Select(s.Metrics, []string{name}, 64)
		if len(chosen) > 64 || len(chosen)+omitted != len(s.Metrics) {
			t.Fatalf("%d chosen and %d omitted of %d", len(chosen), omitted, len(s.Metrics))
		}
		if len(strings.Join(s.Warnings, "")) > 3*9*300 {
			t.Fatalf("warnings of %d bytes", len(strings.Join(s.Warnings, "")))
		}
		checkTrained(t, s.Trained)
	})
}

// checkTrained checks that a time is in normal form.
func checkTrained(t *testing.T, trained string) {
	t.Helper()
	if trained == "" {
		return
	}
	if again, err := training.ParseTrained(trained); err != nil || again != trained {
		t.Fatalf("trained %q is read back as %q, %v", trained, again, err)
	}
}

func BenchmarkParseSummary(b *testing.B) {
	_, files := fixtures(b, "summary", summaryFixtures)
	predictions := `{"test_f1": 0.93, "y_score": [` + strings.Repeat("0.5078587107337106, ", 50_000) + "0]}"
	for name, data := range map[string][]byte{"example": files["fraud"], "predictions": []byte(predictions)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := training.ParseSummary(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
