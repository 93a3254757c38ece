package promote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/gate"
	"galley/manifest/project"
	"galley/oci"
	"galley/oci/ocitest"
	"galley/oci/promote"
)

// five is a stage that five models were promoted to, v1 to v5, with their events,
// in a registry that deletes tags with their manifest.
func five(t *testing.T) (*lab, *promote.Stage, []*promote.Event) {
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	var events []*promote.Event
	for i := range 5 {
		c := push(t, s.Tags.Target, fmt.Sprintf("v%d", i+1), 0.5)
		events = append(events, promoted(t, s, c, promote.Options{}))
		l.turn(10 * time.Second)
	}
	return l, s, events
}

// rewrite puts a manifest like the event's, but edited, under a tag; "" is the
// event's own for what it is now.
func rewrite(t *testing.T, s *promote.Stage, e *promote.Event, tag string, edit func(*v1.Manifest)) {
	t.Helper()
	_, doc, err := s.Record.Get(t.Context(), e.Tag)
	if err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatal(err)
	}
	edit(&m)
	d, doc, err := oci.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if tag == "" {
		tag = e.Tag[:len(e.Tag)-8] + d.Digest.Encoded()[:8]
	} else if strings.HasSuffix(tag, "-") {
		tag += d.Digest.Encoded()[:8]
	}
	if err := s.Record.PutDoc(t.Context(), d, doc, tag); err != nil {
		t.Fatal(err)
	}
}

func drop(t *testing.T, s *promote.Stage, e *promote.Event) {
	t.Helper()
	d, _, err := s.Record.Get(t.Context(), e.Tag)
	if err == nil {
		err = s.Record.Drop(t.Context(), d, e.Tag)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEdited has somebody edit a history. It is still read, and says what is wrong;
// what cannot be believed is refused, and with force one goes on.
func TestEdited(t *testing.T) {
	t.Parallel()
	annotate := func(key, value string) func(*v1.Manifest) {
		return func(m *v1.Manifest) { m.Annotations["ml.galley.event."+key] = value }
	}
	without := func(key string) func(*v1.Manifest) {
		return func(m *v1.Manifest) { delete(m.Annotations, "ml.galley.event."+key) }
	}
	const last = 4
	for name, tt := range map[string]struct {
		edit    func(*testing.T, *lab, *promote.Stage, []*promote.Event)
		problem string // "": none
		events  int    // that are left
		broken  bool   // promotion is refused for it
		outside bool   // or for that
	}{
		"another manifest": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			c := candidate(t, s.Tags.Target, "v1")
			if err := s.Record.PutDoc(t.Context(), c.Root, c.Doc, e[2].Tag); err != nil {
				t.Fatal(err)
			}
		}, "event 3: not the record of a promotion", 4, false, false},
		"another manifest at the end": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			c := candidate(t, s.Tags.Target, "v1")
			if err := s.Record.PutDoc(t.Context(), c.Root, c.Doc, e[last].Tag); err != nil {
				t.Fatal(err)
			}
		}, "event 5: not the record of a promotion", 4, true, false},
		"the first is gone": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) { drop(t, s, e[0]) },
			"event 1: missing", 4, false, false},
		"one is gone": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) { drop(t, s, e[2]) },
			"event 3: missing", 4, false, false},
		"two are gone": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) { drop(t, s, e[2]); drop(t, s, e[1]) },
			"event 2: missing, up to 3", 3, false, false},
		"the last two are gone": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			drop(t, s, e[last])
			drop(t, s, e[3])
		},
			"", 3, false, true},
		"the tag of one is left": {func(t *testing.T, l *lab, s *promote.Stage, e []*promote.Event) {
			l.calm()
			drop(t, s, e[2])
		}, "names nothing any more", 4, false, false},
		"the tag of the last is left": {func(t *testing.T, l *lab, s *promote.Stage, e []*promote.Event) {
			l.calm()
			drop(t, s, e[last])
		}, "names nothing any more", 4, true, false},
		"forged": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[2], e[2].Tag, annotate("actor", "eve"))
		}, "tag " + "production.h-000003", 4, false, false},
		"forged, with its tag": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[2], "", annotate("actor", "eve"))
			drop(t, s, e[2])
		}, "event 4: follows", 5, false, false},
		"a second one of a number": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[2], "production.h-000003-20000101T000000Z-", annotate("actor", "eve"))
		}, "event 3: a second one of that number", 5, false, false},
		"of no model": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[last], "", without("model"))
			drop(t, s, e[last])
		}, "without", 4, true, false},
		"of another action": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[last], "", annotate("action", "\x1b[31mpwn"))
			drop(t, s, e[last])
		}, `unknown action "\x1b[31mpwn"`, 4, true, false},
		"of another number": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[last], "production.h-000009-20300101T000000Z-", func(*v1.Manifest) {})
		}, "event 9: not the record of a promotion", 5, true, false},
		"of the greatest number": {func(t *testing.T, _ *lab, s *promote.Stage, e []*promote.Event) {
			rewrite(t, s, e[last], "production.h-999999999998-20300101T000000Z-", func(*v1.Manifest) {})
		}, "event 999999999998: not the record of a promotion", 5, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, s, events := five(t)
			next := push(t, s.Tags.Target, "v6", 0.6)
			tt.edit(t, l, s, events)
			h, err := s.History(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			found := func(p promote.Problem) bool { return strings.Contains(p.String(), tt.problem) }
			if (tt.problem != "") != (len(h.Problems) > 0) || tt.problem != "" && !slices.ContainsFunc(h.Problems, found) {
				t.Errorf("problems %q; want %q", h.Problems, tt.problem)
			}
			if len(h.Events) != tt.events {
				t.Errorf("%d events; want %d", len(h.Events), tt.events)
			}
			for _, e := range h.Events {
				if e.Number == 3 && strings.HasPrefix(name, "a second") && e.Actor == "eve" {
					t.Error("the second counts")
				}
			}
			h.Rows()
			h.Bad()
			for _, to := range []string{"sha256:0123456789", "v9", "2001"} {
				if _, err := s.Rollback(t.Context(), promote.RollbackOptions{To: to, Force: true, DryRun: true}); !is[*promote.NoWayBackError](err) {
					t.Errorf("rollback to %s: %v", to, err)
				}
			}
			if list, err := promote.StatusOf(t.Context(), "ml/fraud", s.Tags, s.Record, nil, 0); err != nil || len(list) != 1 || (list[0].Fault != nil) != tt.broken {
				t.Errorf("status %+v, %v", list, err)
			}
			if _, err = s.Rollback(t.Context(), promote.RollbackOptions{DryRun: true}); is[*promote.BrokenError](err) != tt.broken {
				t.Errorf("rollback: %v", err)
			}
			_, err = s.Promote(t.Context(), next, promote.Options{DryRun: true})
			if is[*promote.BrokenError](err) != tt.broken || is[*promote.MovedError](err) != tt.outside || err != nil && !tt.broken && !tt.outside {
				t.Errorf("promotion: %v", err)
			}
			e := promoted(t, s, next, promote.Options{Force: true, Claim: promote.Claim{Reason: "known"}})
			if e.Forced != (tt.broken || tt.outside) {
				t.Errorf("forced: %t", e.Forced)
			}
			at(t, s, next.Root.Digest)
		})
	}
}

// TestBackAgain is rollback after all that may have happened before.
func TestBackAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before func(*testing.T, *lab, *promote.Stage)
		o      promote.RollbackOptions
		to     string // version; "": there is no way
	}{
		"a promotion between two": {before: func(t *testing.T, _ *lab, s *promote.Stage) {
			if _, err := s.Rollback(t.Context(), promote.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Hold(t.Context(), false, promote.Claim{}); err != nil {
				t.Fatal(err)
			}
			promoted(t, s, push(t, s.Tags.Target, "v6", 0.6), promote.Options{})
		}, to: "v4"},
		"moved outside": {before: func(t *testing.T, _ *lab, s *promote.Stage) { retag(t, s, "v2") }, to: "v1"},
		"removed outside": {before: func(t *testing.T, l *lab, s *promote.Stage) {
			retag(t, s, "v5")
			l.untag(t, s)
		}, to: "v5"},
		"moved outside to where it was before": {before: func(t *testing.T, _ *lab, s *promote.Stage) { retag(t, s, "v4") }, to: "v3"},
		"to a version":                         {o: promote.RollbackOptions{To: "v2"}, to: "v2"},
		"to what it is":                        {o: promote.RollbackOptions{To: "v5"}, to: "v5"},
		"to a time before everything":          {o: promote.RollbackOptions{To: "2001-01-01"}, to: ""},
		"promoted again since": {before: func(t *testing.T, _ *lab, s *promote.Stage) {
			if _, err := s.Rollback(t.Context(), promote.RollbackOptions{}); err != nil { // v5 is bad
				t.Fatal(err)
			}
			promoted(t, s, candidate(t, s.Tags.Target, "v5"), promote.Options{Force: true, Claim: promote.Claim{Reason: "mended"}})
			if _, err := s.Hold(t.Context(), false, promote.Claim{}); err != nil {
				t.Fatal(err)
			}
			promoted(t, s, push(t, s.Tags.Target, "v6", 0.6), promote.Options{})
		}, to: "v5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, s, events := five(t)
			if tt.before != nil {
				tt.before(t, l, s)
			}
			out, err := s.Rollback(t.Context(), tt.o)
			if tt.to == "" {
				if !is[*promote.NoWayBackError](err) {
					t.Errorf("%+v, %v; want no way back", out.Event, err)
				}
				at(t, s, events[4].To)
				return
			}
			if err != nil || out.Event == nil || out.Event.Version != tt.to {
				t.Fatalf("%+v, %v; want %s", out.Event, err, tt.to)
			}
			st := at(t, s, candidate(t, s.Tags.Target, tt.to).Root.Digest)
			if !st.Held() {
				t.Error("no hold")
			}
			if tt.o.To != "" { // once more is nothing
				if again, err := s.Rollback(t.Context(), tt.o); err != nil || again.Event != nil {
					t.Errorf("again: %+v, %v", again.Event, err)
				}
			}
			sound(t, s, st.Number())
		})
	}
}

// retag moves the stage's tag past galley.
func retag(t *testing.T, s *promote.Stage, version string) {
	t.Helper()
	c := candidate(t, s.Tags.Target, version)
	if err := s.Tags.PutDoc(t.Context(), c.Root, c.Doc, s.Name); err != nil {
		t.Fatal(err)
	}
}

// untag removes the stage's tag past galley.
func (l *lab) untag(t *testing.T, s *promote.Stage) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+l.registry.Host+"/v2/ml/fraud/manifests/"+s.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp.Status)
	}
}

// TestAdopted begins with a tag that others moved so far. What it named can be gone
// back to, and no garbage collector takes it.
func TestAdopted(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	old := push(t, s.Tags.Target, "production", 0.5)
	e := promoted(t, s, push(t, s.Tags.Target, "v1", 0.6), promote.Options{})
	if e.From != old.Root.Digest || !strings.HasPrefix(e.Was, "keep-") {
		t.Errorf("event %+v", e)
	}
	if kept := candidate(t, s.Tags.Target, e.Was); kept.Root.Digest != old.Root.Digest {
		t.Errorf("%s names %s", e.Was, kept.Root.Digest)
	}
	out, err := s.Rollback(t.Context(), promote.RollbackOptions{})
	if err != nil || out.Event == nil || out.Event.To != old.Root.Digest {
		t.Fatalf("%+v, %v", out, err)
	}
	at(t, s, old.Root.Digest)
	sound(t, s, 2)
}

// TestGone rolls back to a model of which a layer is gone.
func TestGone(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	first := push(t, s.Tags.Target, "v1", 0.5)
	promoted(t, s, first, promote.Options{})
	promoted(t, s, push(t, s.Tags.Target, "v2", 0.6), promote.Options{})
	var m v1.Manifest
	if err := json.Unmarshal(first.Doc, &m); err != nil {
		t.Fatal(err)
	}
	for _, layer := range m.Layers {
		l.registry.Inject(ocitest.Rule{Method: http.MethodHead, Blob: layer.Digest, Mishap: ocitest.Answer(ocitest.Up, http.StatusNotFound, "BLOB_UNKNOWN")})
	}
	_, err := s.Rollback(t.Context(), promote.RollbackOptions{})
	if e, ok := as[*promote.GoneError](err); !ok || e.Version != "v1" {
		t.Fatalf("%v", err)
	}
	at(t, s, candidate(t, s.Tags.Target, "v2").Root.Digest)
	sound(t, s, 2)
}

// TestSideRepository keeps the record in another repository than the tag, and brings
// the candidate from a third one, with what refers to it.
func TestSideRepository(t *testing.T) {
	t.Parallel()
	for _, fault := range []ocitest.Fault{ocitest.None, ocitest.NoReferrers, ocitest.SeeOther, ocitest.SubjectOnly} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			l, from := newLab(t, fault), newLab(t, fault)
			host := l.registry.Host
			s := stage(t, l.place, "production")
			s.Record = oci.NewKeeper(opener("", host+"/ml/fraud-record")(t))
			source := from.open(t)
			c := push(t, source, "v7", 0.5)
			signature := ocitest.NewBlob("application/x-signature", "signature")
			empty := ocitest.NewBlob(v1.MediaTypeEmptyJSON, "{}")
			d, doc, err := oci.Marshal(v1.Manifest{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/x-signed",
				Config: empty.Descriptor, Layers: []v1.Descriptor{signature.Descriptor}, Subject: &c.Root,
			})
			for _, b := range []ocitest.Blob{signature, empty, {Descriptor: d, Data: doc}} {
				if err == nil {
					err = source.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data))
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			promoted(t, s, c, promote.Options{Source: from.open(t)})
			at(t, s, c.Root.Digest)
			sound(t, s, 1)
			if kept := candidate(t, s.Tags.Target, "v7"); kept.Root.Digest != c.Root.Digest {
				t.Errorf("v7 is %s there", kept.Root.Digest)
			}
			tags, err := s.Tags.AllTags(t.Context())
			if err != nil || slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, "production.") }) {
				t.Errorf("the model's repository has %q, %v", tags, err)
			}
			var found []digest.Digest
			lister := s.Tags.Given().(interface {
				Referrers(ctx context.Context, desc v1.Descriptor, artifactType string, fn func([]v1.Descriptor) error) error
			})
			if err := lister.Referrers(t.Context(), c.Root, "", func(page []v1.Descriptor) error {
				for _, r := range page {
					found = append(found, r.Digest)
				}
				return nil
			}); (err != nil || !slices.Contains(found, d.Digest)) && (fault == ocitest.None || fault == ocitest.NoReferrers) {
				t.Errorf("the signature is not among %q: %v", found, err)
			}
			if _, err := s.Rollback(t.Context(), promote.RollbackOptions{}); !is[*promote.NoWayBackError](err) {
				t.Errorf("rollback: %v", err)
			}
			// A version that is another one there is not overwritten.
			other := push(t, source, "v8", 0.6)
			push(t, s.Tags.Target, "v8", 0.7)
			if _, err := s.Promote(t.Context(), other, promote.Options{Source: source}); !is[*oci.TakenError](err) {
				t.Errorf("%v; want a taken tag", err)
			}
			at(t, s, c.Root.Digest)
		})
	}
}

// requests counts them by kind, as in 3 tags, 2 manifests.
func requests(l *lab, f func()) (n int, kinds string) {
	l.registry.Exchanges()
	f()
	count := map[string]int{}
	for _, e := range l.registry.Exchanges() {
		count[e.Method+" "+string(e.Kind)]++
		n++
	}
	var all []string
	for k, v := range count {
		all = append(all, fmt.Sprintf("%d %s", v, k))
	}
	slices.Sort(all)
	return n, strings.Join(all, ", ")
}

// TestCosts counts the requests, those for the candidate among them.
func TestCosts(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	for i := range 4 {
		push(t, s.Tags.Target, fmt.Sprintf("v%d", i), 0.6+float64(i)/10)
	}
	config, err := project.ParseConfig("galley.yaml", []byte(`
stages:
  staging: {}
  production: {from: staging, require: ["roc_auc >= 0.65"]}
`))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := gate.New(config, "production", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// As a process has it: everything anew.
	run := func(name, version string, o promote.Options) func() error {
		return func() error {
			mine := stage(t, l.place, name)
			if len(o.From) > 0 {
				from := *mine
				from.Name = "staging"
				o.From = []*promote.Stage{&from}
			}
			_, err := mine.Promote(t.Context(), candidate(t, mine.Tags.Target, version), o)
			return err
		}
	}
	gated := promote.Options{Policy: policy, PolicyDigest: policy.Digest(), From: []*promote.Stage{s}}
	for _, tt := range []struct {
		name    string
		do      func() error
		refused bool
		want    int
	}{
		{"first promotion", run("staging", "v1", promote.Options{}), false, 16},
		{"another", run("staging", "v2", promote.Options{}), false, 15},
		{"the same again", run("staging", "v2", promote.Options{}), false, 4},
		// The gates read the features and the summary.
		{"from a stage, with a policy", run("production", "v1", gated), false, 18},
		{"another of those, against what the stage has", run("production", "v2", gated), false, 20},
		{"refused, for it was not in staging", run("production", "v3", gated), true, 10},
	} {
		n, kinds := requests(l, func() {
			if err := tt.do(); is[*promote.RefusedError](err) != tt.refused || err != nil && !tt.refused {
				t.Errorf("%s: %v", tt.name, err)
			}
		})
		if n != tt.want {
			t.Errorf("%s: %d requests: %s; want %d", tt.name, n, kinds, tt.want)
		}
	}
	if n, kinds := requests(l, func() {
		if list, err := promote.StatusOf(t.Context(), "ml/fraud", s.Tags, s.Record, []string{"staging", "production"}, 0); err != nil || len(list) != 2 {
			t.Errorf("%+v, %v", list, err)
		}
	}); n != 5 {
		t.Errorf("status: %d requests: %s; want 1 and 2 for each of 2 stages", n, kinds)
	}
}

// TestLongHistory reads a hundred events: a list, and then all at once.
func TestLongHistory(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	const events = 100
	c := push(t, s.Tags.Target, "v1", 0.5)
	promoted(t, s, c, promote.Options{})
	for n := 2; n <= events; n++ {
		if e, err := s.Hold(t.Context(), n%2 == 0, promote.Claim{}); err != nil || e == nil || e.Number != n {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	n, kinds := requests(l, func() { sound(t, s, events) })
	if want := 1 + events + 2; n != want || !strings.HasSuffix(kinds, ", 1 GET tags") && !strings.HasPrefix(kinds, "1 GET tags") {
		t.Errorf("%d requests: %s; want %d, of which one lists", n, kinds, want)
	}
}
