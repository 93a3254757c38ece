package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/diff"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// hostileTexts are what somebody could write who wants more than to be read.
var hostileTexts = []string{
	"\x1b[2J\x1b]0;owned\a\u009b31m", "a|b", `a\|b`, `a\`, "`", "``", "a`b``c", "<script>alert(1)</script>", "<!-- ", "-->",
	"](http://evil)", "@team", "#1", "line\nbreak\r\n# heading", "\u202e0.1", "| --- |", "  ", "**bold**", "&lt;b&gt;", "~~~", strings.Repeat("x", 1<<12),
}

// hostileReport compares models of which all texts are hostile.
func hostileReport(t testing.TB, text string) *diffReport {
	t.Helper()
	side := func(other string, value float64) *diffSide {
		text := text + other
		report := &joblib.Report{Models: []*joblib.Model{{Class: text, Params: []joblib.Param{{Name: text, Value: text}}}}}
		f := &manifest.Facts{
			Digest: "x", Path: text, Size: int64(value), FileDigest: digest.FromString(other),
			Features: &training.Features{Names: []string{text, "amount" + text}},
			Scans:    []manifest.Scan{{Path: "m", Role: manifest.RoleModel, Report: report}},
		}
		f.Info = manifest.Info{
			Name: text, Version: text, Revision: text, Trained: text, Class: "c", Steps: []string{text}, Sklearn: []string{text}, Numpy: text,
			Joblib: text, Imports: []string{text}, Scan: text, Features: 2, Metrics: []training.Metric{{Path: "m" + strings.TrimSuffix(text, other), Value: value}, {Path: text, Value: 1}},
		}
		return &diffSide{label: text, note: text, facts: f}
	}
	r := &diffReport{old: side("1", 1), new: side("2", 2)}
	r.Diff = diff.Compare(r.old.facts, r.new.facts, diff.Options{})
	return r
}

func TestDiffIsFitForATerminal(t *testing.T) {
	for _, text := range hostileTexts {
		for _, colour := range []bool{false, true} {
			r := hostileReport(t, text)
			r.colour = colour
			got := r.text()
			if colour {
				if !strings.Contains(got, "\x1b[32m↑ better\x1b[0m\n") {
					t.Errorf("%.40q: not coloured", text)
				}
				got = strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(got)
			}
			odd := func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) }
			if strings.ContainsFunc(got, odd) {
				t.Errorf("%.40q: %q steers a terminal", text, got)
			}
			for line := range strings.Lines(got) {
				if n := len([]rune(line)); n > 250 {
					t.Errorf("%.40q: a line of %d characters", text, n)
				}
			}
		}
	}
}

// TestDiffIsFitForAComment takes the Markdown apart as GitHub does: what others
// wrote is in code spans, and no cell ends early.
func TestDiffIsFitForAComment(t *testing.T) {
	// A table's row is split first, where a backslash before a pipe keeps it.
	cells := func(row string) []string {
		var all []string
		var cell strings.Builder
		for i := 0; i < len(row); i++ {
			switch {
			case row[i] == '\\' && i+1 < len(row) && row[i+1] == '|':
				cell.WriteByte('|')
				i++
			case row[i] == '|':
				all = append(all, cell.String())
				cell.Reset()
			default:
				cell.WriteByte(row[i])
			}
		}
		return append(all, cell.String())
	}
	ours := regexp.MustCompile(`^( | [-+0-9.e]+ | (↑|↓) (better|\*\*worse\*\*) | (added|removed|moved|new|gone|=|Δ|old) | *-{3}:? *)$`)
	isSpan := func(s string) bool {
		s = strings.TrimSpace(s)
		fence := s[:len(s)-len(strings.TrimLeft(s, "`"))]
		inner := strings.TrimSuffix(strings.TrimPrefix(s, fence), fence)
		return fence != "" && len(inner) == len(s)-2*len(fence) && !strings.Contains(inner, fence)
	}
	for _, text := range hostileTexts {
		got := hostileReport(t, text).markdown()
		rows, columns := 0, 0
		for line := range strings.SplitSeq(got, "\n") {
			switch {
			case strings.HasPrefix(line, "|"):
				c := cells(line)
				if rows++; columns != 0 && len(c) != columns {
					t.Errorf("%.40q: %q has %d cells, not %d", text, line, len(c), columns)
				}
				columns = len(c)
				for _, s := range c[1 : len(c)-1] {
					if !ours.MatchString(s) && !isSpan(s) && s != "---" && s != "---:" && strings.TrimSpace(s) != "" {
						t.Errorf("%.40q: cell %q", text, s)
					}
				}
			case strings.HasPrefix(line, "**") && rows == 0 && strings.Contains(line, " → "):
				head := strings.TrimSuffix(strings.TrimPrefix(strings.Split(line, "**: ")[0], "**"), "**")
				for side := range strings.SplitSeq(head, " → ") {
					if side != "" && !isSpan(side) {
						t.Errorf("%.40q: heading %q", text, line)
					}
				}
			default:
				columns = 0
				if strings.ContainsAny(line, "<>`@#|[]") {
					t.Errorf("%.40q: line %q", text, line)
				}
			}
		}
		if rows < 15 {
			t.Errorf("%.40q: %d rows", text, rows)
		}
	}
}

func TestDiffShowsLittleOfMuch(t *testing.T) {
	facts := func(n int) *manifest.Facts {
		f := &manifest.Facts{Digest: "x", Size: -1, Features: &training.Features{}}
		for i := range 5000 {
			f.Features.Names = append(f.Features.Names, fmt.Sprint("f", i*n))
			f.Info.Metrics = append(f.Info.Metrics, training.Metric{Path: fmt.Sprint("m", i), Value: float64(n)})
		}
		return f
	}
	r := &diffReport{old: &diffSide{label: "a", facts: facts(1)}, new: &diffSide{label: "b", facts: facts(2)}}
	r.Diff = diff.Compare(r.old.facts, r.new.facts, diff.Options{})
	for _, text := range []string{r.text(), r.markdown()} {
		if n := strings.Count(text, "\n"); n > 120 {
			t.Errorf("%d lines", n)
		}
		for _, want := range []string{"5000 of 5000 metrics", "and 4960 more", "2480 more added, 2480 more removed"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in %s", want, text)
			}
		}
	}
	r.all = true
	if n := strings.Count(r.text(), "\n"); n < 3000 {
		t.Errorf("%d lines of all", n)
	}
}

// TestChangeHiddenByRounding shows all digits where four are not enough.
func TestChangeHiddenByRounding(t *testing.T) {
	delta := 0.00001
	c := metricChange(diff.Metric{Path: "f1", Old: &diff.Value{V: 0.912434}, New: &diff.Value{V: 0.912444}, Delta: &delta, Verdict: diff.Better})
	if c != (change{"f1", "0.912434", "0.912444", "+1e-05", "↑ better"}) {
		t.Errorf("%+v", c)
	}
	c = metricChange(diff.Metric{Path: "ok", Old: &diff.Value{V: true}, NewNote: "NaN", Verdict: diff.Indifferent})
	if c != (change{name: "ok", old: "true", new: "NaN", mark: "changed"}) {
		t.Errorf("%+v", c)
	}
}
