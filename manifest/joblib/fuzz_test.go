package joblib_test

import (
	"bytes"
	"reflect"
	"testing"

	"galley/manifest/joblib"
)

// check inspects data and holds the report against what is true of every
// report.
func check(t *testing.T, data []byte, o joblib.Options) *joblib.Report {
	t.Helper()
	r, err := joblib.Inspect(bytes.NewReader(data), o)
	if err != nil {
		t.Fatalf("bytes cannot fail to be read: %v", err)
	}
	worst := joblib.Verdict(0)
	for _, f := range r.Findings {
		worst = max(worst, f.Verdict)
		if f.Verdict < pass || f.Verdict > dangerous || f.Rule == "" || f.Message == "" {
			t.Fatalf("a finding that says nothing: %+v", f)
		}
		if f.Offset < -1 || f.Offset > max(r.Size, int64(len(data))) {
			t.Fatalf("a finding beyond the %d bytes: %+v", r.Size, f)
		}
	}
	switch {
	case r.Verdict < joblib.NotPickle || r.Verdict > dangerous:
		t.Fatalf("verdict %d", r.Verdict)
	case r.Verdict <= pass && len(r.Findings) > 0:
		t.Fatalf("%s, with findings\n%s", r.Verdict, spell(r.Findings))
	case r.Verdict > pass && worst != r.Verdict:
		t.Fatalf("%s, and the worst finding is %s\n%s", r.Verdict, worst, spell(r.Findings))
	case r.Format == "" || r.Verdict == joblib.NotPickle && r.Format.IsPickle():
		t.Fatalf("format %q of %s", r.Format, r.Verdict)
	}
	for _, g := range r.Globals {
		if g.Verdict > r.Verdict && !g.Allowed {
			t.Fatalf("%s, with %+v", r.Verdict, g)
		}
	}
	return r
}

func TestFuzzInspectSeeds(t *testing.T) {
	t.Parallel()
	if n := len(small(t, 64<<10)); n < 600 {
		t.Fatalf("%d seeds, want at least 600", n)
	}
}

// FuzzInspect reads anything: no panic, the same report twice, no pass with a
// reason against it, and the quick look agrees where it saw everything.
func FuzzInspect(f *testing.F) {
	for _, data := range small(f, 64<<10) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := joblib.Options{MaxSize: 4 << 20}
		first := check(t, data, o)
		if second := check(t, data, o); !reflect.DeepEqual(first, second) {
			t.Fatalf("two reports of the same:\n%+v\n%+v", first, second)
		}
		o.Deep = true
		if deep := check(t, data, o); deep.Verdict < first.Verdict {
			t.Fatalf("%s, and %s after a closer look", first.Verdict, deep.Verdict)
		}
		peek, err := joblib.Look(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if peek.Whole && peek.Format != first.Format {
			t.Fatalf("Look says %s, Inspect %s", peek.Format, first.Format)
		}
	})
}
