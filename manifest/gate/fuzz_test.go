package gate_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"galley/manifest"
	"galley/manifest/gate"
)

// fuzzSeeds are expressions of every kind: those that hold, those that do not,
// and those that are no gates.
func fuzzSeeds() []string {
	return []string{
		"f1 > 0.5", "0.5 < f1 < 0.8", "f1 >= current.f1 * 0.97", `metric("f1") > m("test.f1")`, `current.m("f1") > current["f1"]`,
		"calibrated", "not calibrated", "calibrated == true && f1 != 0.5", "f1 > 0.5 // enough", "let d = f1 - current.f1; abs(d) < 1",
		"let f1 = f1; f1 > 0", "(let x = 1; x > 0) || x > f1", "true", "true ? 1 > 0 : missing > 1", "a || missing > 1", "(a ?? 1) > 0",
		"missing > 1", "!(missing < 0.9)", "missing != 0.5", "current.missing > 0", "$env.f1 > 0", `$env["f1"] > 0`, "$env", "current", "current > 1",
		"any([f1], # > 1)", "all(1..9, {# > 0})", "f1 > 0; true", "now() > 1", "f1 in [0.7]", "nil == nil", `"a" == "a"`, "f1?.x > 0", "f1 | abs() > 0",
		"if calibrated { f1 > 0 } else { missing > 0 }", "if true { true } else { let m = missing; true }", "f1 / 0 > 1", "!(0 / 0 < 1)", "max(f1, 1) > 0",
		"size > 0 && features == 2", "((f1 ?: f1) ?: f1) > 0", "1_000 > f1", "0x10 > f1", "f1 > 1e999", "f1 >", "(((", "\x00", "\xff > 1", "é > 1", "::abs(f1) > 0",
		"map([1], missing) == nil", "{a: f1}.a > 0", "[f1][0] > 0", "f1[0:1] > 0", "let current = 1; current > 0", "m(\"\\x00\") > 0", "round(f1) == 1", "-f1 < +f1",
	}
}

// judge checks one expression; the row is nil if it is no gate.
func judge(t *testing.T, text string, candidate, current *manifest.Facts) *gate.Result {
	p, err := gate.New(nil, "s", []string{text}, nil)
	if err != nil {
		if text := err.Error(); text == "" || len(text) > 2000 {
			t.Errorf("error of %d bytes", len(text))
		}
		return nil
	}
	results := p.Check(candidate, current, now, time.Time{})
	if p.Digest() == "" {
		t.Error("no digest")
	}
	return &results[len(results)-1]
}

// identifiers are those that the library sees in a text, but for variables.
func identifiers(t *testing.T, text string) []string {
	tree, err := parser.Parse(text)
	if err != nil {
		t.Fatalf("%q was understood: %v", text, err)
	}
	var v collector
	ast.Walk(&tree.Node, &v)
	return slices.DeleteFunc(v.used, func(name string) bool { return slices.Contains(v.declared, name) })
}

type collector struct{ used, declared []string }

func (c *collector) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		c.used = append(c.used, n.Value)
	case *ast.VariableDeclaratorNode:
		c.declared = append(c.declared, n.Name)
	}
}

// checkText holds for every text: an expression that passes uses nothing that
// is not there, and none passes that uses what is missing.
func checkText(t *testing.T, text string, candidate, current *manifest.Facts) (passes bool) {
	r := judge(t, text, candidate, current)
	if r == nil {
		return false
	}
	for _, s := range append(r.Hints, r.Gate, r.Candidate, r.Current, r.Bound, r.Why) {
		if len(s) > 1100 || strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Errorf("%q: text of %d bytes: %.100q", text, len(s), s)
		}
	}
	if r.Verdict == gate.Pass {
		for _, name := range identifiers(t, text) {
			if !slices.Contains([]string{"f1", "test", "calibrated", "current", "metric", "m", "features", "size"}, name) {
				t.Errorf("%q passes with %q", text, name)
			}
		}
		if len(identifiers(t, text)) > 0 {
			if r := judge(t, text, &manifest.Facts{Size: -1}, &manifest.Facts{Size: -1}); r.Verdict == gate.Pass {
				t.Errorf("%q passes without a summary", text)
			}
		}
	}
	for _, with := range []string{"missing > 1 || (" + text + ")", "!(current.missing > 1) && (" + text + ")", "true ? 1 > 0 : m(\"missing\") > (" + text + ")"} {
		if r := judge(t, with, candidate, current); r != nil && r.Verdict != gate.Fail {
			t.Errorf("%q: %+v", with, r)
		}
	}
	return r.Verdict == gate.Pass
}

func fuzzFacts(t testing.TB) (candidate, current *manifest.Facts) {
	return facts(t, `{"f1": 0.7, "test": {"f1": 0.6}, "calibrated": true, "nan": NaN}`), facts(t, `{"f1": 0.65}`)
}

func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	candidate, current := fuzzFacts(t)
	passed, gates := 0, 0
	for _, text := range fuzzSeeds() {
		if checkText(t, text, candidate, current) {
			passed++
		}
		if judge(t, text, candidate, current) != nil {
			gates++
		}
	}
	if n := len(fuzzSeeds()); n != 58 || gates != 39 || passed != 18 {
		t.Errorf("%d seeds, of which %d are gates and %d pass", n, gates, passed)
	}
}

func FuzzExpression(f *testing.F) {
	for _, text := range fuzzSeeds() {
		f.Add(text)
	}
	candidate, current := fuzzFacts(f)
	f.Fuzz(func(t *testing.T, text string) { checkText(t, text, candidate, current) })
}
