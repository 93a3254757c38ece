package joblib_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"galley/manifest/joblib"
)

const corpus = "../../testdata/joblib/"

// attack is a line of the table that testdata/joblib/attacks.py writes.
type attack struct {
	file, about string
	want        joblib.Verdict // at least; 0: anything but pass
}

func attacks(t testing.TB) []attack {
	t.Helper()
	table, err := os.ReadFile(filepath.FromSlash(corpus + "attacks/expected.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []attack
	for line := range strings.Lines(string(table)) {
		facts, about, _ := strings.Cut(strings.TrimSpace(line), " # ")
		f := strings.Fields(facts)
		if len(f) < 3 {
			t.Fatalf("expected.txt: %q", line)
		}
		a := attack{file: f[0], about: about}
		if f[1] != "error" {
			if err := a.want.UnmarshalText([]byte(f[1])); err != nil {
				t.Fatalf("expected.txt: %q: %v", line, err)
			}
		}
		all = append(all, a)
	}
	if len(all) < 650 {
		t.Fatalf("%d attacks, want at least 650", len(all))
	}
	return all
}

// TestAttacks reads files that were made to run code unseen, to crash readers
// or to use up what they run on: none passes.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range attacks(t) {
		t.Run(a.file, func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(filepath.FromSlash(corpus + "attacks/" + a.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			r, err := joblib.Inspect(f, joblib.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict < a.want || a.want == 0 && r.Verdict == joblib.Pass {
				t.Errorf("%s: %s, want at least %s\n%+v", a.about, r.Verdict, a.want, r.Findings)
			}
		})
	}
}
