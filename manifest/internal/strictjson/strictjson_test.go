package strictjson_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"galley/manifest/internal/strictjson"
)

func mustParse(t *testing.T, text string, o strictjson.Options) strictjson.Value {
	t.Helper()
	v, err := strictjson.Parse([]byte(text), o)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return v
}

func TestParseKeepsOrderAndText(t *testing.T) {
	t.Parallel()
	v := mustParse(t, ` {"b": [1.50, "x\n\u00e9"], "a": {"z": null, "y": true}, "": -0e+1} `, strictjson.Options{})

	var keys []string
	for k := range v.Members() {
		keys = append(keys, k)
	}
	if want := []string{"b", "a", ""}; !slices.Equal(keys, want) {
		t.Errorf("keys = %q, want %q", keys, want)
	}
	var texts []string
	for item := range v.Member("b").Items() {
		texts = append(texts, item.Text())
	}
	if want := []string{"1.50", "x\né"}; !slices.Equal(texts, want) {
		t.Errorf("items = %q, want %q", texts, want)
	}
	if got := v.Member("a").Member("y"); got.Kind() != strictjson.Bool || got.Text() != "true" {
		t.Errorf("a.y = %s %q, want a boolean true", got.Kind(), got.Text())
	}
	if got := v.Member("").Text(); got != "-0e+1" {
		t.Errorf("empty key = %q, want the literal -0e+1", got)
	}
	if got := v.Member("none").Kind(); got != strictjson.Invalid {
		t.Errorf("absent member is %s", got)
	}
}

func TestIterationStops(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"a": [1, 2], "b": 3}`, strictjson.Options{})
	n := 0
	for range v.Members() {
		n++
		break
	}
	for range v.Member("a").Items() {
		n++
		break
	}
	for range v.Items() { // not an array
		n++
	}
	for range v.Member("a").Members() { // not an object
		n++
	}
	if n != 2 {
		t.Errorf("%d steps, want 2", n)
	}
}

func TestZeroValue(t *testing.T) {
	t.Parallel()
	var v strictjson.Value
	for range v.Members() {
		t.Error("zero value has members")
	}
	f, finite := v.Float()
	line, column := v.Position()
	if v.Kind() != strictjson.Invalid || v.Text() != "" || finite || !math.IsNaN(f) || line != 0 || column != 0 {
		t.Errorf("zero value: %s, %q, %v, %d:%d", v.Kind(), v.Text(), f, line, column)
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	v := mustParse(t, "\ufeff{\"é\": \"x\",\r\n  \"b\": [1,\n2]}", strictjson.Options{BOM: true})
	line, column := v.Member("é").Position()
	if line != 1 || column != 7 {
		t.Errorf("first value at %d:%d, want 1:7", line, column)
	}
	items := slices.Collect(v.Member("b").Items())
	if line, column = items[1].Position(); line != 3 || column != 1 {
		t.Errorf("second item at %d:%d, want 3:1", line, column)
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		`""`:                     "",
		`"\"\\\/\b\f\n\r\t"`:     "\"\\/\b\f\n\r\t",
		`"\u0041\u00E9\u20ac"`:   "Aé€",
		`"\ud83d\ude00!"`:        "😀!",
		`"\ud83d"`:               "\ufffd",
		`"\ud83dx"`:              "\ufffdx",
		`"\ude00\ud83d\ude00"`:   "\ufffd😀",
		`"\ud83d\u0041"`:         "\ufffdA",
		"\"\u2028<>&\u007f\"":    "\u2028<>&\u007f",
		`"plain and \\ escaped"`: `plain and \ escaped`,
	}
	for text, want := range tests {
		if got := mustParse(t, text, strictjson.Options{}).Text(); got != want {
			t.Errorf("%s = %q, want %q", text, got, want)
		}
	}
}

func TestFloat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text   string
		want   float64
		finite bool
	}{
		{"0.25", 0.25, true},
		{"-12", -12, true},
		{"1e308", 1e308, true},
		{"1e-999", 0, true},
		{"1e999", math.Inf(1), false},
		{"-1e999", math.Inf(-1), false},
		{"Infinity", math.Inf(1), false},
		{"-Infinity", math.Inf(-1), false},
		{"NaN", math.NaN(), false},
		{`"0.25"`, math.NaN(), false},
		{"true", math.NaN(), false},
	}
	for _, tt := range tests {
		v := mustParse(t, tt.text, strictjson.Options{NonFinite: true})
		got, finite := v.Float()
		same := got == tt.want || math.IsNaN(got) && math.IsNaN(tt.want)
		if !same || finite != tt.finite {
			t.Errorf("%s = %v, %v, want %v, %v", tt.text, got, finite, tt.want, tt.finite)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	var manyKeys strings.Builder
	manyKeys.WriteString("{")
	for i := range 40 {
		fmt.Fprintf(&manyKeys, `"k%d": 0, `, i)
	}
	tests := []struct {
		name, text, want string
	}{
		{"empty", "", "line 1, column 1: no JSON: the text is empty"},
		{"blank", " \n\t", "line 2, column 2: no JSON: the text is empty"},
		{"cut object", "{\"a\": 1,\n", `line 2, column 1: want a key in double quotes, got the end`},
		{"cut array", `[1`, `line 1, column 3: want "," or "]", got the end`},
		{"cut string", `{"a": "b`, "line 1, column 7: string is not closed"},
		{"cut escape", `"\`, "line 1, column 2: bad escape in a string"},
		{"bad escape", `"\x41"`, "line 1, column 2: bad escape in a string"},
		{"bad unicode escape", `"é\u00g0"`, "line 1, column 3: bad escape in a string"},
		{"newline in string", "\"a\nb\"", "line 1, column 3: control character U+000A in a string"},
		{"trailing comma in object", "{\"a\": 1,\n}", `line 1, column 8: "," before "}"`},
		{"trailing comma in array", `[1,]`, `line 1, column 3: "," before "]"`},
		{"two commas", `[1,,2]`, `line 1, column 4: want a value, got ","`},
		{"no colon", `{"a" 1}`, `line 1, column 6: want ":", got "1"`},
		{"no comma", `{"a": 1 "b": 2}`, `line 1, column 9: want "," or "}", got "\""`},
		{"python literal", `{"a": None}`, `line 1, column 7: want a value, got "None"`},
		{"single quotes", `{'a': 1}`, `line 1, column 2: want a key in double quotes, got "'"`},
		{"number key", `{1: 1}`, `line 1, column 2: want a key in double quotes, got "1"`},
		{"two texts", "{}\n{}", `line 2, column 1: want nothing after the value, got "{"`},
		{"html", "<!DOCTYPE html>", `line 1, column 1: want a value, got "<"`},
		{"word", "nullx", `line 1, column 1: want a value, got "nullx"`},
		{"leading zero", "[01]", "line 1, column 2: number has a leading zero"},
		{"bare point", "[1.]", "line 1, column 2: number lacks a digit"},
		{"bare exponent", "[1e]", "line 1, column 2: number lacks a digit"},
		{"bare minus", "-", "line 1, column 1: number lacks a digit"},
		{"plus", "+1", `line 1, column 1: want a value, got "+"`},
		{"point first", ".5", `line 1, column 1: want a value, got "."`},
		{"nan", `{"é": NaN}`, "line 1, column 7: NaN is not JSON"},
		{"infinity", "[-Infinity]", "line 1, column 2: number lacks a digit"},
		{"bom", "\ufeff1", `line 1, column 1: want a value, got "\ufeff"`},
		{"latin-1", "{\"a\": \"caf\xe9\"}", "line 1, column 11: byte 0xe9 is not UTF-8"},
		{"utf-16", "\xff\xfe{\x00}\x00", "line 1, column 1: text is UTF-16, not UTF-8"},
		{"duplicate key", "{\"a\": 1,\n \"b\": 2,\n \"\\u0061\": 3}", `line 3, column 2: duplicate key "a" (first at line 1)`},
		{"duplicate of many", manyKeys.String() + "\n" + `"k7": 1}`, `line 2, column 1: duplicate key "k7" (first at line 1)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := strictjson.Parse([]byte(tt.text), strictjson.Options{})
			if _, ok := errors.AsType[*strictjson.SyntaxError](err); !ok {
				t.Fatalf("error = %v, want a *SyntaxError", err)
			}
			if err.Error() != tt.want {
				t.Errorf("error = %s\nwant    %s", err, tt.want)
			}
			if v != (strictjson.Value{}) {
				t.Error("value beside an error")
			}
		})
	}
}

func TestEqualKeysInDifferentObjects(t *testing.T) {
	t.Parallel()
	mustParse(t, `{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}`, strictjson.Options{})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name, text string
		opts       strictjson.Options
		want       string // "" when it is within the limits
	}{
		{"depth", nested(100), strictjson.Options{}, ""},
		{"depth exceeded", nested(101), strictjson.Options{}, "line 1, column 101: nested deeper than 100 levels"},
		{"depth without end", strings.Repeat(`{"a":`, 1e6), strictjson.Options{}, "line 1, column 501: nested deeper than 100 levels"},
		{"depth given", nested(3), strictjson.Options{MaxDepth: 2}, "line 1, column 3: nested deeper than 2 levels"},
		{"siblings are not depth", "[" + strings.Repeat("[[]],", 200) + "0]", strictjson.Options{MaxDepth: 3}, ""},
		{"bytes", "[1,2]", strictjson.Options{MaxBytes: 5}, ""},
		{"bytes exceeded", "[1,2]", strictjson.Options{MaxBytes: 4}, "too large: 5 bytes, at most 4 are read"},
		{"default bytes", strings.Repeat(" ", 16<<20) + "1", strictjson.Options{}, "too large: 16777217 bytes, at most 16777216 are read"},
		{"values", `{"a":1}`, strictjson.Options{MaxValues: 3}, ""},
		{"values exceeded", `{"a":[1]}`, strictjson.Options{MaxValues: 3}, "line 1, column 7: more than 3 values"},
		{"default values", "[" + strings.Repeat("0,", 1<<20) + "0]", strictjson.Options{}, "line 1, column 2097152: more than 1048576 values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := strictjson.Parse([]byte(tt.text), tt.opts)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("error = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckFoldLeavesAnnotations(t *testing.T) {
	for text, want := range map[string]bool{
		`{"annotations":{"a":"1","A":"2"}}`:                  true,
		`{"layers":[{"annotations":{"a":"1","A":"2"}}]}`:     true,
		`{"annotations":{"a":"1","a":"2"}}`:                  false,
		`{"annotations":{},"Annotations":{}}`:                false,
		`{"annotations":{"a":"1","A":"2"},"x":"1","X":"2"}`:  false,
		`{"annotations":{"annotations":{}},"b":[],"B":null}`: false,
	} {
		if err := strictjson.CheckFold([]byte(text)); (err == nil) != want {
			t.Errorf("CheckFold(%s) = %v", text, err)
		}
	}
}

func TestCheckFold(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text, want string
	}{
		{`{"config": {"digest": 1}, "layers": [{"digest": 2}]}`, ""},
		{`{"config": 1, "Config": 2}`, `line 1, column 15: duplicate key "Config" (first at line 1)`},
		{`{"layers": [{"size": 1, "\u017fize": 2}]}`, `line 1, column 25: duplicate key "ſize" (first at line 1)`},
		{`{"key": 1, "\u212aey": 2}`, "line 1, column 12: duplicate key \"\u212aey\" (first at line 1)"},
		{`{"a": NaN}`, "line 1, column 7: NaN is not JSON"},
	}
	for _, tt := range tests {
		got := ""
		if err := strictjson.CheckFold([]byte(tt.text)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("CheckFold(%s) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestKindString(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for k := strictjson.Invalid; k <= strictjson.Object; k++ {
		seen[k.String()] = true
	}
	if len(seen) != 7 {
		t.Errorf("%d different names of 7 kinds", len(seen))
	}
}

func BenchmarkParse(b *testing.B) {
	record := `{"name": "random_forest", "metrics": {"val_f1": 0.07035175879396985, "val_roc_auc": 0.6755293367346938}, "passed": true},`
	numbers := `0.0359217, 12, 0.5078587107337106, 1.0e-05, `
	for name, unit := range map[string]string{"objects": record, "numbers": numbers} {
		data := []byte("[" + strings.Repeat(unit, (1<<20)/len(unit)) + "0]")
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := strictjson.Parse(data, strictjson.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
