package layout_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/oci/layout"
)

// An index.json that cannot be read is an error, and is not overwritten.
func TestCorruptIndex(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	e := entry(a, "v1")
	tests := map[string]string{
		"empty":            "",
		"space":            " \n",
		"zeros":            "\x00\x00\x00",
		"garbage":          "not json",
		"truncated":        `{"manifests":[` + e[:len(e)-9],
		"truncated later":  `{"manifests":[` + e + `]`,
		"two documents":    `{"manifests":[]}{}`,
		"array":            `[` + e + `]`,
		"string":           `"{}"`,
		"null":             `null`,
		"manifests object": `{"manifests":{}}`,
		"manifests string": `{"manifests":"[]"}`,
		"manifests twice":  `{"manifests":[` + e + `],"manifests":[]}`,
		"escaped twin":     `{"manifests":[` + e + `],"manifest\u0073":[]}`,
		"nested":           strings.Repeat(`{"manifests":[`, 100_000),
	}
	for name, index := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, index, data)
			_, resolveErr := s.Resolve(t.Context(), "v1")
			_, tagsErr := registry.Tags(t.Context(), s)
			tagErr := s.Tag(t.Context(), a, "v1")
			untagErr := s.Untag(t.Context(), "v1")
			for _, err := range []error{resolveErr, tagsErr, tagErr, untagErr} {
				if !errors.Is(err, layout.ErrCorrupt) {
					t.Errorf("got error %v, want %v", err, layout.ErrCorrupt)
				}
			}
			if got := readFile(t, s.Dir(), "index.json"); got != index {
				t.Errorf("index.json was overwritten with %q", got)
			}
			// What is asked for by digest does not depend on it.
			resolve(t, s, a.Digest.String())
		})
	}
}

func TestOddIndex(t *testing.T) {
	t.Parallel()
	a, aData := manifest("a")
	b, _ := manifest("b")
	with := func(old, new string) string { return strings.Replace(entry(a, "v1"), old, new, 1) }
	inList := func(entries ...string) string { return `{"manifests":[` + strings.Join(entries, ",") + `]}` }
	tests := []struct {
		name  string
		index string
		want  error  // of resolving v1, a manifest of id a
		tags  string // before
		after string // after tagging v2
	}{
		{"no members", `{}`, errdef.ErrNotFound, "", "v2"},
		{"no manifests", `{"schemaVersion":2}`, errdef.ErrNotFound, "", "v2"},
		{"null", `{"manifests":null,"x":[]}`, errdef.ErrNotFound, "", "v2"},
		{"space", " { \n\"manifests\" :\t[ " + entry(a, "v1") + " \r\n] } \n", nil, "v1", "v1 v2"},
		{"escapes", inList(with(`"v1"`, `"\u0076\u0031"`), with(`"v1"`, `"\"}],\\"`)), nil, "\"}],\\ v1", "\"}],\\ v1 v2"},
		{"not UTF-8", inList(with(`"v1"`, "\"\xff\"")), errdef.ErrNotFound, "\ufffd", "v2 \ufffd"},
		{"last of a name", inList(entry(b, "v1"), entry(a, "v1")), nil, "v1", "v1 v2"},
		{"last is broken", inList(entry(a, "v1"), with("sha256:", "sha256:x")), layout.ErrCorrupt, "v1", "v1 v2"},
		{"first is broken", inList(with("sha256:", "md5:"), entry(a, "v1")), nil, "v1", "v1 v2"},
		{"no digest", inList(with(`"digest"`, `"digits"`)), layout.ErrCorrupt, "v1", "v1 v2"},
		{"negative size", inList(with(`"size":`, `"size":-`)), layout.ErrCorrupt, "v1", "v1 v2"},
		{"size is a string", inList(with(`"size":`, `"size":"1","x":`)), layout.ErrCorrupt, "v1", "v1 v2"},
		{"huge size", inList(with(`"size":`, `"size":99999999999999999999`)), layout.ErrCorrupt, "v1", "v1 v2"},
		{"name is a number", inList(with(`"v1"`, `1`)), errdef.ErrNotFound, "", "v2"},
		{"annotation is a number", inList(with(`"annotations":{`, `"annotations":{"x":1,`)), layout.ErrCorrupt, "v1", "v1 v2"},
		{"name is a digest", inList(entry(b, a.Digest.String())), errdef.ErrNotFound, "", "v2"},
		{"name is no tag", inList(entry(a, "example.com/a:v1")), errdef.ErrNotFound, "example.com/a:v1", "example.com/a:v1 v2"},
		{"no objects", inList("null", "1", `"v1"`, "[[]]", "{}", entry(a, "v1")), nil, "v1", "v1 v2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, test.index, aData)
			check := func() {
				t.Helper()
				got, err := s.Resolve(t.Context(), "v1")
				if !errors.Is(err, test.want) || err == nil && !reflect.DeepEqual(got, a) {
					t.Errorf("got %+v, %v, want %+v, %v", got, err, a, test.want)
				}
			}
			check()
			if got := strings.Join(listTags(t, s), " "); got != test.tags {
				t.Errorf("got tags %q, want %q", got, test.tags)
			}
			pushTagged(t, s, "a", "v2")
			check()
			if got := strings.Join(listTags(t, s), " "); got != test.after {
				t.Errorf("after Tag: got tags %q, want %q", got, test.after)
			}
			// A broken tag is healed by tagging it, and any can be removed.
			pushTagged(t, s, "a", "v1")
			resolve(t, s, "v1")
			if err := s.Untag(t.Context(), "v1"); err != nil {
				t.Error(err)
			}
			if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, errdef.ErrNotFound) {
				t.Errorf("after Untag: got error %v, want %v", err, errdef.ErrNotFound)
			}
		})
	}
}

// What a rewrite does not understand it writes as it was.
func TestRewriteKeepsUnknown(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	b, _ := manifest("b")
	c, _ := manifest("c")
	in := `{ "z": {"manifests": [1, 2.50]}, "schemaVersion": 2,
		"manifests": [
			` + strings.Replace(entry(c, ""), "{", `{"platform": {"os": "linux", "x": 1e400}, `, 1) + `,
			` + strings.Replace(entry(b, "w"), "{", `{"unknown": {"a": [ ]}, `, 1) + `,
			` + strings.Replace(entry(c, "v"), `"annotations":{`, `"other":"<é>","annotations":{"kept":"yes",`, 1) + `
		], "annotations": {"a": "b"} }` + "\n"
	want := `{ "z": {"manifests": [1, 2.50]}, "schemaVersion": 2,
		"manifests": [` +
		entry(a, "v") + `,` +
		strings.Replace(entry(b, "w"), "{", `{"unknown": {"a": [ ]}, `, 1) + `,` +
		strings.Replace(entry(c, ""), "{", `{"platform": {"os": "linux", "x": 1e400}, `, 1) +
		`], "annotations": {"a": "b"} }` + "\n"
	s := open(t, in, data)
	pushTagged(t, s, "a", "v")
	if got := readFile(t, s.Dir(), "index.json"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	// An entry that loses its name keeps the rest.
	in = `{"manifests":[` + strings.Replace(entry(b, "v"), `"annotations":{`, `"other":1e400,"Annotations":{"kept":"yes",`, 1) + `]}`
	s = open(t, in, data)
	pushTagged(t, s, "a", "v")
	got := readFile(t, s.Dir(), "index.json")
	if !strings.Contains(got, `"Annotations":{"kept":"yes"}`) || !strings.Contains(got, `"other":1e400`) || strings.Count(got, v1.AnnotationRefName) != 1 {
		t.Errorf("got %s", got)
	}
}

// One entry of a name is left by a rewrite; no manifest is lost by that.
func TestRewriteRemovesDuplicates(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	b, _ := manifest("b")
	c, _ := manifest("c")
	s := open(t, `{"manifests":[`+strings.Join([]string{
		entry(a, "v"), entry(b, "v"), entry(c, "w"), entry(b, "v"), entry(c, "v"),
	}, ",")+`]}`, data)
	pushTagged(t, s, "a", "x")
	var index v1.Index
	if err := json.Unmarshal([]byte(readFile(t, s.Dir(), "index.json")), &index); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range index.Manifests {
		id := map[string]string{a.Digest.String(): "a", b.Digest.String(): "b", c.Digest.String(): "c"}[m.Digest.String()]
		got = append(got, m.Annotations[v1.AnnotationRefName]+"="+id)
	}
	if want := []string{"v=c", "w=c", "x=a", "=b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIndexLimits(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	s := open(t, `{"manifests":[`+entry(a, "v1")+`]}`, data)
	name := filepath.Join(s.Dir(), "index.json")
	if err := os.Truncate(name, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, errdef.ErrSizeExceedsLimit) {
		t.Errorf("too large: got error %v, want %v", err, errdef.ErrSizeExceedsLimit)
	}
	// Nothing is written that could not be read again.
	writeFile(t, name, `{"manifests":[]}`+strings.Repeat(" ", 64<<20-16))
	resolveErr := s.Tag(t.Context(), a, "v1")
	writeFile(t, name, `{"manifests":[{}`+strings.Repeat(",{}", 1<<20)+`]}`)
	for _, err := range []error{resolveErr, s.Tag(t.Context(), a, "v1")} {
		if !errors.Is(err, errdef.ErrSizeExceedsLimit) {
			t.Errorf("would grow too large: got error %v, want %v", err, errdef.ErrSizeExceedsLimit)
		}
	}
}

// indexSeeds are what FuzzIndex starts from.
func indexSeeds() []string {
	a, _ := manifest("a")
	b, _ := manifest("b")
	e := entry(a, "v1")
	return []string{
		`{"schemaVersion":2,"manifests":[` + e + `]}`,
		`{"manifests":[` + entry(b, "v1") + `,` + e + `,` + entry(b, "") + `],"annotations":{"a":"b"}}`,
		`{"manifests":[` + entry(b, "fuzz") + `,` + entry(a, "fuzz") + `]}`,
		`{"manifests":[` + strings.Replace(e, "annotations", "Annotations", 1) + `,null,1,"x",[],{}]}`,
		`{"manifests":[` + strings.Replace(e, `"v1"`, `"\u0076\"1"`, 1) + `]}`,
		`{"manifests":[` + strings.Replace(e, `"v1"`, "\"\xff\"", 1) + `]}`,
		`{"manifests":[` + strings.Replace(e, "sha256:", "sha256:x", 1) + `]}`,
		`{"manifests":[` + strings.Replace(e, `"annotations":{`, `"annotations":{},"annotations":{`, 1) + `]}`,
		`{"manifest\u0073":[` + e + `], "x":{"manifests":[]}}`,
		`{"manifests":null}`, `{"manifests":[],"manifests":[]}`, ` { } `, ``, `[]`, `{"manifests":[`,
	}
}

func TestIndexSeeds(t *testing.T) {
	t.Parallel()
	if n := len(indexSeeds()); n != 15 {
		t.Errorf("got %d seeds, want 15", n)
	}
}

// FuzzIndex reads and rewrites any index.json. Nothing panics, a refused index
// stays as it is, and a rewritten one has lost nothing.
func FuzzIndex(f *testing.F) {
	for _, seed := range indexSeeds() {
		f.Add([]byte(seed))
	}
	a, data := manifest("a")
	f.Fuzz(func(t *testing.T, index []byte) {
		s := open(t, string(index), data)
		before, err := snapshot(t, s)
		if tagErr := s.Tag(t.Context(), a, "fuzz"); (tagErr == nil) != (err == nil) {
			t.Fatalf("Tags: %v, but Tag: %v", err, tagErr)
		}
		if err != nil {
			if got := readFile(t, s.Dir(), "index.json"); got != string(index) {
				t.Fatalf("refused, but written: %q", got)
			}
			return
		}
		before["fuzz"] = fmt.Sprintf("%+v %v", resolve(t, s, "fuzz"), error(nil))
		if after, err := snapshot(t, s); err != nil || !reflect.DeepEqual(after, before) {
			t.Fatalf("after Tag: got %q, %v, want %q", after, err, before)
		}
		if err := s.Untag(t.Context(), "fuzz"); err != nil {
			t.Fatal(err)
		}
		delete(before, "fuzz")
		if after, err := snapshot(t, s); err != nil || !reflect.DeepEqual(after, before) {
			t.Fatalf("after Untag: got %q, %v, want %q", after, err, before)
		}
		if !reflect.DeepEqual(members(t, index), members(t, []byte(readFile(t, s.Dir(), "index.json")))) {
			t.Fatal("other members changed")
		}
	})
}

// snapshot returns what every tag resolves to, as text, an error included.
func snapshot(t *testing.T, s *layout.Store) (map[string]string, error) {
	tags, err := registry.Tags(t.Context(), s)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, tag := range tags {
		desc, err := s.Resolve(t.Context(), tag)
		if errors.Is(err, errdef.ErrNotFound) {
			t.Fatalf("%q is listed, but: %v", tag, err)
		}
		all[tag] = fmt.Sprintf("%+v %v", desc, err)
	}
	return all, nil
}

// members returns the members of an index but its manifests.
func members(t *testing.T, index []byte) map[string]json.RawMessage {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(index, &all); err != nil {
		t.Fatal(err)
	}
	delete(all, "manifests")
	return all
}
