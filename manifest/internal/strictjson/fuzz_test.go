package strictjson_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"galley/manifest/internal/strictjson"
)

// seeds are the texts FuzzParse starts from.
func seeds() []string {
	return []string{
		``, ` `, `0`, `-0.5e+10`, `1e999`, `"a\u00e9\ud83d\ude00\ud83d"`, `true`, `null`,
		`{"a": [1, {"b": "c"}, []], "": {}}`,
		`{"a": 1, "\u0061": 2}`, `{"a": 1, "A": 2}`,
		`[[[[[[[[[[]]]]]]]]]]`, `[1,]`, `{"a" 1}`, `01`, `NaN`, `[-Infinity]`,
		"\ufeff{}", "\"\xff\"", "\"\n\"", `"\x"`, `nul`, `{}{}`,
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	accepted := 0
	for _, s := range seeds() {
		if _, err := strictjson.Parse([]byte(s), strictjson.Options{}); err == nil {
			accepted++
		}
	}
	if accepted < 8 || len(seeds())-accepted < 8 {
		t.Errorf("%d of %d seeds are accepted, want at least 8 of each sort", accepted, len(seeds()))
	}
}

// FuzzParse holds Parse against encoding/json: they accept the same texts and
// see the same values in them, but for duplicate keys, depth and bytes that are
// not UTF-8.
func FuzzParse(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := strictjson.Parse(data, strictjson.Options{})
		valid := json.Valid(data)
		switch {
		case err == nil && !valid:
			t.Fatal("accepts what encoding/json refuses")
		case err != nil && valid && utf8.Valid(data) && plain(t, data):
			t.Fatalf("refuses what encoding/json accepts: %v", err)
		case err == nil:
			d := json.NewDecoder(bytes.NewReader(data))
			d.UseNumber()
			var want any
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if got := tree(v); !reflect.DeepEqual(got, want) {
				t.Fatalf("value = %#v, want %#v", got, want)
			}
		}
		if _, loose := strictjson.Parse(data, strictjson.Options{NonFinite: true, BOM: true}); err == nil && loose != nil {
			t.Fatalf("options refuse what the default accepts: %v", loose)
		}
		if strictjson.CheckFold(data) == nil && err != nil {
			t.Fatalf("CheckFold accepts what Parse refuses: %v", err)
		}
	})
}

// plain reports whether valid JSON has no duplicate keys and nests within the
// default limit.
func plain(t *testing.T, data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	var open []map[string]bool // nil for an array
	key := false
	for {
		tok, err := d.Token()
		if err != nil {
			return true
		}
		if name, ok := tok.(string); ok && key {
			if open[len(open)-1][name] {
				return false
			}
			open[len(open)-1][name] = true
			key = false
			continue
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, map[string]bool{})
		case json.Delim('['):
			open = append(open, nil)
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) > strictjson.DefaultMaxDepth {
			return false
		}
		key = len(open) > 0 && open[len(open)-1] != nil
	}
}

// tree converts v to what encoding/json decodes into an any.
func tree(v strictjson.Value) any {
	switch v.Kind() {
	case strictjson.Bool:
		return v.Text() == "true"
	case strictjson.Number:
		return json.Number(v.Text())
	case strictjson.String:
		return v.Text()
	case strictjson.Array:
		list := []any{}
		for item := range v.Items() {
			list = append(list, tree(item))
		}
		return list
	case strictjson.Object:
		object := map[string]any{}
		for k, member := range v.Members() {
			object[k] = tree(member)
		}
		return object
	}
	return nil
}
