package promote

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/gate"
	"galley/oci"
)

var update = flag.Bool("update", false, "rewrite golden files")

// sample is an event with everything in it.
func sample() (*Event, v1.Descriptor) {
	about := v1.Descriptor{
		MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/vnd.cncf.model.manifest.v1+json",
		Digest: digest.FromString("the model"), Size: 2345,
	}
	return &Event{
		Repository: "ml/fraud", Stage: "production", Number: 42, Action: Promoted,
		Time: time.Date(2026, 3, 31, 12, 0, 21, 0, time.UTC), Recorded: time.Date(2026, 4, 1, 8, 30, 0, 0, time.UTC),
		From: digest.FromString("what was there"), To: about.Digest, Model: about.Digest,
		Image: "ghcr.io/acme/fraud-api@" + digest.FromString("image").String(), Version: "v42", Was: "v41", Revision: "0123abc",
		Previous: digest.FromString("event 41"), Actor: "ada", Run: "https://ci.example.com/7", Reason: "more recall: ≥ 0.9",
		Policy: digest.FromString("policy"), Gates: []gate.Result{
			{Gate: "roc_auc >= 0.65", Candidate: "roc_auc 0.673", Bound: ">= 0.65", Verdict: gate.Pass},
			{Gate: "recall > current.recall", Candidate: "recall 0.1", Current: "recall 0.2", Verdict: gate.Waived, Why: "it is not"},
		},
		Checked: 2, Scan: "safe", Forced: true, Hold: true, Tool: "galley v1.2.3",
	}, about
}

// packed is an event's manifest with its bytes and its layer.
func packed(t testing.TB, e *Event, about v1.Descriptor) (d v1.Descriptor, doc, layer []byte) {
	t.Helper()
	m, layer, err := e.pack("registry.example.com/ml/fraud", about)
	if err != nil {
		t.Fatal(err)
	}
	if d, doc, err = oci.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return d, doc, layer
}

// TestGolden keeps the bytes of an event: what is in registries has to be read for
// ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	e, about := sample()
	_, doc, layer := packed(t, e, about)
	for name, got := range map[string][]byte{"testdata/event.json": doc, "testdata/statement.json": layer} {
		if *update {
			if err := os.WriteFile(name, got, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is other than it was:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestTwice holds that the annotations of an event and its statement say the same,
// and that every field is in both.
func TestTwice(t *testing.T) {
	t.Parallel()
	e, about := sample()
	d, doc, layer := packed(t, e, about)
	e.Tag, e.Digest, e.about = tagOf(e.Stage, eventKind, e.Number, e.Time, d.Digest.Encoded()[:shortDigest]), d.Digest, about
	read, err := parseEvent(e.Stage, e.Tag, d, doc)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read, e) {
		t.Errorf("the annotations say\n%+v\nwant\n%+v", read, e)
	}
	var s statement
	if err := json.Unmarshal(layer, &s); err != nil {
		t.Fatal(err)
	}
	s.Predicate.Tag, s.Predicate.Digest, s.Predicate.about = e.Tag, e.Digest, e.about
	if !reflect.DeepEqual(s.Predicate, e) {
		t.Errorf("the statement says\n%+v\nwant\n%+v", s.Predicate, e)
	}
	if s.Subject[0].Digest["sha256"] != about.Digest.Encoded() || s.Type != statementType || s.PredicateType != PredicateType {
		t.Errorf("statement %+v", s)
	}
	v := reflect.ValueOf(*e)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the sample has no %s", v.Type().Field(i).Name)
		}
	}
}

// TestEventTags tells which tags are those of events.
func TestEventTags(t *testing.T) {
	t.Parallel()
	for tag, number := range map[string]int{
		"production.h-000001-20260331T120021Z-0123abcd":        1,
		"production.h-1234567-20260331T120021Z-0123abcd":       1234567,
		"production.h-999999999999-20260331T120021Z-0123abcd":  999999999999,
		"production.h-1000000000000-20260331T120021Z-0123abcd": 0, // nothing could follow for long
		"production.h-000000-20260331T120021Z-0123abcd":        0,
		"production.h-00001-20260331T120021Z-0123abcd":         0,
		"production.h-000001-20261331T120021Z-0123abcd":        0,
		"production.h-000001-20260331T120021Z-0123ABCD":        0,
		"production.h-000001-20260331T120021Z-zzzzzzzz":        0,
		"production.h-000001-20260331T120021Z-0123abcde":       0,
		"production.h-+00001-20260331T120021Z-0123abcd":        0,
		"production.i-000001-20260331T120021Z-0123abcd":        0,
		"Production.h-000001-20260331T120021Z-0123abcd":        0,
		".h-000001-20260331T120021Z-0123abcd":                  0,
		"production":                                           0,
	} {
		name, ok := stageOf(tag)
		if ok != (number > 0) || ok && (name != "production" || numberOf(tag) != number || !isEvent(name, tag)) {
			t.Errorf("%s: an event %t of %q, number %d; want number %d", tag, ok, name, numberOf(tag), number)
		}
	}
}

// eventSeeds are manifests as a hostile registry may have them.
func eventSeeds(t testing.TB) [][]byte {
	e, about := sample()
	m, _, err := e.pack("ml/fraud", about)
	if err != nil {
		t.Fatal(err)
	}
	var seeds [][]byte
	add := func(edit func(*v1.Manifest)) {
		other := m
		other.Annotations = maps.Clone(m.Annotations)
		subject := *m.Subject
		other.Subject = &subject
		edit(&other)
		doc, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, doc)
	}
	add(func(*v1.Manifest) {})
	add(func(m *v1.Manifest) { m.Subject = nil })
	add(func(m *v1.Manifest) { m.Subject.Digest = "sha256:" })
	add(func(m *v1.Manifest) { m.ArtifactType = "" })
	for key := range e.fields() {
		add(func(m *v1.Manifest) { delete(m.Annotations, prefix+key) })
		for _, text := range []string{"", "x", "\x1b[2J\n", "sha512:" + strings.Repeat("a", 128), "-1", "99999999999999999999", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59"} {
			add(func(m *v1.Manifest) { m.Annotations[prefix+key] = text })
		}
	}
	for _, text := range []string{"", "null", "[]", "{}", `[{"verdict":"none"}]`, `[{"gate":1}]`, strings.Repeat("[", 10_000)} {
		add(func(m *v1.Manifest) { m.Annotations[prefix+"gates"] = text })
	}
	return append(seeds, nil, []byte("null"), []byte("[]"), []byte(`{"annotations":{"a":1}}`))
}

// FuzzEvent reads manifests that anybody may have written. Nothing panics, and what
// is an event is the same when it is written and read again.
func FuzzEvent(f *testing.F) {
	seeds := eventSeeds(f)
	if len(seeds) < 200 {
		f.Fatalf("%d seeds; want more", len(seeds))
	}
	for _, doc := range seeds {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		read := func(doc []byte, number int, at time.Time) (*Event, error) {
			d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
			return parseEvent("production", tagOf("production", eventKind, number, at, d.Digest.Encoded()[:shortDigest]), d, doc)
		}
		e, err := read(doc, 42, time.Unix(0, 0))
		if err != nil {
			return
		}
		h := &History{Stage: e.Stage}
		h.chain([]string{e.Tag}, []*Event{e}, make([]error, 1))
		h.Rows()
		h.Bad()
		for _, to := range []string{"", "v1", "sha256:01234567", "0123456789", "2026"} {
			h.target("", RollbackOptions{To: to})
		}
		if gates, _ := json.Marshal(e.Gates); len(gates) > maxGates {
			return // they are cut short when they are written
		}
		if json.Valid(doc) && !bytes.Contains(doc, []byte(`\ufffd`)) {
			_, again, _ := packed(t, e, e.about)
			b, err := read(again, e.Number, e.Time)
			if err != nil {
				t.Fatalf("%v in\n%s", err, again)
			}
			b.Tag, b.Digest = e.Tag, e.Digest
			b.about, e.about = v1.Descriptor{}, v1.Descriptor{} // its own fields are the registry's affair
			if len(e.Gates) == 0 {
				b.Gates, e.Gates = nil, nil
			}
			if !reflect.DeepEqual(b, e) {
				t.Errorf("read again\n%+v\nwant\n%+v", b, e)
			}
		}
	})
}
