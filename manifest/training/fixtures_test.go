package training_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"galley/manifest/training"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fixtures returns the files of testdata/kind by name without .json, and fails
// unless there are count of them.
func fixtures(tb testing.TB, kind string, count int) (names []string, files map[string][]byte) {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", kind, "*.json"))
	if err != nil {
		tb.Fatal(err)
	}
	if len(paths) != count {
		tb.Fatalf("%d fixtures of %s, want %d", len(paths), kind, count)
	}
	files = map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		names = append(names, name)
		files[name] = data
	}
	return names, files
}

const (
	featuresFixtures = 21
	summaryFixtures  = 20
)

// TestFeaturesGolden shows what is read from the shapes of features files that
// projects have.
func TestFeaturesGolden(t *testing.T) {
	t.Parallel()
	names, files := fixtures(t, "features", featuresFixtures)
	var b strings.Builder
	for _, name := range names {
		f, err := training.ParseFeatures(files[name], "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		fmt.Fprintf(&b, "== %s\n", name)
		field(&b, "names", len(f.Names) > 0, "%d at %q: %.6q", len(f.Names), f.Path, f.Names[:min(len(f.Names), 6)])
		field(&b, "digest", f.Digest() != "", "%s", f.Digest())
		field(&b, "trained", f.Trained != "", "%s", f.Trained)
		field(&b, "note", f.Note != "", "%s", f.Note)
	}
	golden(t, "features", b.String())
}

// TestSummaryGolden shows what is read from the shapes of summaries that
// projects have.
func TestSummaryGolden(t *testing.T) {
	t.Parallel()
	names, files := fixtures(t, "summary", summaryFixtures)
	var b strings.Builder
	for _, name := range names {
		s, err := training.ParseSummary(files[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		fmt.Fprintf(&b, "== %s\n", name)
		field(&b, "best model", s.BestModel != "", "%s", s.BestModel)
		field(&b, "model", s.Model != "", "%s", s.Model)
		field(&b, "features", s.FeatureCount >= 0, "%d", s.FeatureCount)
		field(&b, "trained", s.Trained != "", "%s", s.Trained)
		for _, m := range s.Metrics {
			field(&b, "metric", true, "%s = %s", m.Path, m)
		}
		for _, w := range s.Warnings {
			field(&b, "warning", true, "%s", w)
		}
	}
	golden(t, "summary", b.String())
}

// field writes one line when there is something to say.
func field(b *strings.Builder, name string, present bool, format string, args ...any) {
	if present {
		fmt.Fprintf(b, "%s: %s\n", name, fmt.Sprintf(format, args...))
	}
}

// golden compares got with testdata/name.golden, which -update rewrites.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("%s:%d: got %q; after a wanted change run go test -update", path, i+1, line)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != len(want) {
		t.Fatalf("%s: %d lines, want %d", path, n, len(want))
	}
}
