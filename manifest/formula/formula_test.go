package formula_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"galley/manifest/formula"
)

var gates = formula.Options{Numeric: true, Scopes: []string{"current"}}

func TestNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"f1 > 1":                              "f1",
		"test_metrics.test_f1 > 1":            "test_metrics.test_f1",
		`a["b c"].d > 1`:                      "a.b c.d",
		`metric("f1-score") > m("a.b")`:       "f1-score a.b",
		"f1 >= current.f1 * 0.97":             "f1 current.f1",
		"current.test.f1 > 1":                 "current.test.f1",
		`current.m("x-y") > current["x-y"]`:   "current.x-y",
		`current.metric("a.b") > 1`:           "current.a.b",
		`m("current.f1") > current.f1`:        "current.f1 current.f1", // of the candidate, and of current
		"f1 > 1 || f1 > 2 || f2 > 1":          "f1 f2",
		"let best = f1; best > f2":            "f1 f2",
		"(let x = 1; x > 0) && x > f1":        "x f1", // the second x is no variable
		"let x = x; x > 1":                    "x",
		"true ? 1 > 0 : missing > 1":          "missing",
		"if a { b } else { c }":               "a b c",
		"0.5 < f1 < current.f1 + 1":           "f1 current.f1",
		"max(a, b) > abs(c)":                  "a b c",
		"a | abs() > 1":                       "a",
		"(a ?? b) > 1":                        "a b",
		"$env.f1 > 1":                         "$env.f1",
		"1 > 0":                               "",
		"f1 /* and so on */ > 1 // whatever":  "f1",
		"(let current = 1; current > 0) && a": "a",
	} {
		e, err := formula.Parse(text, gates)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, name := range e.Names() {
			got = append(got, name.String())
		}
		if list := strings.Join(got, " "); list != want {
			t.Errorf("%s: names %q, want %q", text, list, want)
		}
	}
}

// TestParseRefuses says what is no gate, and where.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", "1:1 unexpected token EOF"},
		{"f1 >", "1:4 unexpected token EOF"},
		{"f1 >== 1", `1:6 unexpected token Operator("=")`},
		{"f1 > 1 1", `1:8 unexpected token Number("1")`},
		{"a &&\n  b >", "2:5 unexpected token EOF"},
		{"é > 1 &&& b", `1:9`},
		{"0.5", "0:0 a condition is wanted, this is a number"},
		{"f1 * 0.97", "0:0 a condition is wanted, this is a number"},
		{"let x = f1; x + 1", "0:0 a condition is wanted, this is a number"},
		{"1 && f1", "1:3 invalid operation: && (mismatched types float64 and unknown)"},
		{"f1 + true > 1", "1:4 invalid operation: + (mismatched types"},
		{"!(f1 * 2)", "1:1 invalid operation: ! (mismatched type float64)"},
		{"current > 1", "1:1 current is a model, and no value: name one of its metrics, as in current.f1"},
		{"any([f1], # > 1)", "1:1 an expression does not loop over lists"},
		{"f1 > # ", `1:6`},
		{"count([f1]) > 1", "1:1 unknown function; there are metric, m, abs, ceil, floor, round, max, min"},
		{"now() > f1", "1:1 unknown function"},
		{"f1.abs() > 1", "1:4 unknown function"},
		{"current.f1() > 1", "1:9 unknown function"},
		{"m(f1) > 1", `1:1 m takes one name in quotes, as in m("f1-score")`},
		{`metric("a", "b") > 1`, `1:1 metric takes one name`},
		{"f1 > 1; true", "1:4 one condition is wanted: join several with &&"},
		{`f1 == "high"`, "1:7 a text is no number"},
		{"f1 in [1, 2]", "1:4 operator in is not for numbers"},
		{"f1 in 0..1", "1:4 operator in is not for numbers"},
		{"f1 % 2 == 1", "1:4 operator % is not for numbers"},
		{`f1 matches "a"`, "1:4 operator matches is not for numbers"},
		{"f1 != nil", "1:7 only numbers and conditions are wanted"},
		{"f1?.x > 1", "1:5 keys stand below names only"},
		{"(a + b).c > 1", "1:9 keys stand below names only"},
		{"f1[0] > 1", "1:3 keys stand below names only"},
		{"{a: 1} == f1", "1:1 only numbers and conditions are wanted"},
		{"1e999 > f1", "1:"},
		{"abs() > f1", "1:1"},
		{"let f1 = 1", "unexpected token EOF"},
		{strings.Repeat("!", 4097), "longer than 4096 bytes"},
		{strings.Repeat("!", 4096), ""},
		{strings.Repeat("(", 4096), ""},
		{"f1 > 1 \x00", ""},
		{nested("(", 500, "a", " ?: a)"), "too complex"},
		{nested("0 < (", 100, "a", " ? 1 : 0) + a < 1"), "too complex"},
	} {
		_, err := formula.Parse(tt.text, gates)
		e, ok := errors.AsType[*formula.Error](err)
		if !ok {
			t.Errorf("%.40q: %v, want an Error", tt.text, err)
			continue
		}
		if got := fmt.Sprintf("%d:%d %s", e.Line, e.Column, e.Msg); !strings.Contains(got, tt.want) {
			t.Errorf("%.40q:\ngot  %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

// nested puts n pairs of brackets around text.
func nested(before string, n int, text, after string) string {
	return strings.Repeat(before, n) + text + strings.Repeat(after, n)
}

func values(pairs ...any) map[formula.Name]any {
	m := make(map[formula.Name]any)
	for i := 0; i < len(pairs); i += 2 {
		scope, path, scoped := strings.Cut(pairs[i].(string), "/")
		if !scoped {
			scope, path = "", scope
		}
		m[formula.Name{Scope: scope, Path: path}] = pairs[i+1]
	}
	return m
}

func TestRun(t *testing.T) {
	t.Parallel()
	v := values("a", 0.5, "b", 2.0, "zero", 0.0, "yes", true, "no", false, "current/a", 0.4, "x-y", 7.0)
	for text, want := range map[string]any{
		"a >= current.a * 0.97": true, "a < current.a": false, "yes": true, "not no": true, "!yes": false,
		"yes == true": true, "a == 0.5 and b == 2": true, "b ** 3 == 8": true, "b ^ 2 == 4": true, "0 < a < b": true,
		"0 < a + b < 2": false, "max(a, b, 3) == 3": true, "min(a, b) == a": true, "abs(a - b) == 1.5": true,
		"round(b / 3) == 1": true, `m("x-y") == 7`: true, "let d = a - current.a; d > 0.05": true, "yes ? a > 0 : b < 0": true,
		"-a < 0": true, "+a > 0": true, "(a ?? 1) == 0.5": true, "a != 0.5": false, "1_000 > b": true, "1 / 4 == 0.25": true,
		"if yes { a < b } else { no }": true, "a > 0 || 1 / zero > 0": true, "9223372036854775807 + 1 > 0": true,
	} {
		e, err := formula.Parse(text, gates)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		p, err := e.Compile(v)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for range 2 { // a program runs as often as is wanted
			if got, err := p.Run(v); err != nil || got != want {
				t.Errorf("%s: %v, %v; want %v", text, got, err, want)
			}
		}
	}
	for text, want := range map[string]string{
		"1 / zero > 0":              "infinite",
		"!(1 / zero < 0)":           "infinite",
		"!(zero / zero < 0.9)":      "not a number",
		"zero / zero != 0.5":        "not a number",
		"b ** 10000 > 0":            "infinite",
		"1e308 * 10 * zero != 1":    "infinite",
		"(-1) ** 0.5 != 2":          "not a number",
		"max(1, zero / zero) >= 1":  "not a number",
		"let n = 0 / zero; n != 1":  "not a number",
		"0 / zero == 0 || yes":      "not a number",
		"(0 / zero > 1 ? no : yes)": "not a number",
		"yes > 0":                   "mismatched types bool and float64",
		"a":                         "a condition is wanted, this is a number",
		"a && yes":                  "mismatched types float64 and bool",
		"a == yes":                  "mismatched types float64 and bool",
		"yes + 1 > 0":               "mismatched types bool and float64",
		"abs(yes) > 0":              "invalid argument",
		"missing > 0":               "missing has no value",
		"yes || missing > 0":        "missing has no value",
		"yes ? a : no":              "",
	} {
		e, err := formula.Parse(text, gates)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		p, err := e.Compile(v)
		var got any
		if err == nil {
			got, err = p.Run(v)
		}
		if fault, ok := errors.AsType[*formula.Error](err); !ok || !strings.Contains(fault.Msg, want) {
			t.Errorf("%s: %v, %v; want %q", text, got, err, want)
		}
	}
}

func TestComparison(t *testing.T) {
	t.Parallel()
	v := values("a", 0.5, "current/a", 0.4)
	for text, want := range map[string]string{
		"a >= current.a * 0.5": "0.5 >= 0.2", "1 - a < 2": "0.5 < 2", "(a) == 0.5": "0.5 == 0.5",
		"a > 0 && a < 1": "", "0 < a < 1": "", "!(a > 0)": "", "let b = a; b > 1": "", "true": "",
	} {
		e, err := formula.Parse(text, gates)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if c, ok := e.Comparison(); ok {
			got = fmt.Sprint(run(t, c.Left, v), " ", c.Operator, " ", run(t, c.Right, v))
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func run(t *testing.T, e *formula.Expression, v map[formula.Name]any) any {
	t.Helper()
	p, err := e.Compile(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Run(v)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	canonical := func(text string) string {
		e, err := formula.Parse(text, gates)
		if err != nil {
			t.Fatal(err)
		}
		return e.Canonical()
	}
	want := canonical("roc_auc >= 0.65 && !drift")
	for _, text := range []string{"(roc_auc>=0.650)&&!drift", "  roc_auc >= 0.65 // enough\n && ! drift"} {
		if got := canonical(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"roc_auc >= 0.66 && !drift", "roc_auc > 0.65 && !drift", "roc_auc >= 0.65 || !drift", `metric("roc_auc ") >= 0.65 && !drift`} {
		if got := canonical(text); got == want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if a, b := canonical("(a - b) - c > 0"), canonical("a - (b - c) > 0"); a == b {
		t.Errorf("both are %q", a)
	}
}
