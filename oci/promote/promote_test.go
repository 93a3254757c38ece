package promote_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/oci"
	"galley/oci/ocitest"
	"galley/oci/promote"
)

// place is a repository under test.
type place struct {
	registry *ocitest.Registry // nil: not one of those
	open     func(t *testing.T) oci.Target
}

// places are the repositories that promotion has to work in. GALLEY_TEST_REGISTRY
// names a further registry, HOST:PORT, that the end-to-end tests start.
func places(t *testing.T) map[string]place {
	dir := t.TempDir()
	all := map[string]place{
		"local registry": {open: opener(dir, "local/ml/fraud")},
		"layout":         {open: opener(dir, "oci:"+dir+"/layout")},
	}
	for _, f := range []ocitest.Fault{
		ocitest.None, ocitest.NoReferrers, ocitest.NoLink, ocitest.NoDigest, ocitest.DigestOnly, ocitest.NoDelete,
		ocitest.SeeOther, ocitest.SubjectOnly, ocitest.SmallPages, ocitest.Fixed400, ocitest.Fixed401, ocitest.Fixed412,
		ocitest.ClockAhead, ocitest.TwoClocks, ocitest.TagsGo,
	} {
		r := ocitest.NewRegistry()
		t.Cleanup(r.Close)
		r.Misbehave(f)
		all["registry "+string(f)] = place{r, opener("", r.Host+"/ml/fraud")}
	}
	if host := os.Getenv("GALLEY_TEST_REGISTRY"); host != "" {
		all[host] = place{open: opener("", fmt.Sprintf("%s/promote/%x", host, rand.Uint64()))}
	}
	return all
}

// opener opens a repository, with another client each time, as another process has.
func opener(root, ref string) func(t *testing.T) oci.Target {
	return func(t *testing.T) oci.Target {
		client, err := oci.NewClient(oci.Options{LocalRoot: root, Env: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		r, err := oci.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		target, err := client.Create(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
}

// stage is the stage of that name; its waits are short.
func stage(t *testing.T, p place, name string) *promote.Stage {
	k := oci.NewKeeper(p.open(t))
	return &promote.Stage{Name: name, Repository: "ml/fraud", Tags: k, Record: k,
		Wait: func(n int, _ promote.Intent) time.Duration {
			return time.Duration(5+rand.IntN(60<<n)) * time.Millisecond
		}}
}

// push puts a model with one feature file into the repository and returns it as
// a candidate.
func push(t *testing.T, target oci.Target, tag string, score float64) *promote.Candidate {
	t.Helper()
	p := pack(t, tag, score)
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{tag}}); err != nil {
		t.Fatal(err)
	}
	return candidate(t, target, tag)
}

func pack(t *testing.T, version string, score float64) *manifest.Packed {
	t.Helper()
	file := func(path, text string, role manifest.Role) manifest.Input {
		return manifest.FromFS(fstest.MapFS{path: {Data: []byte(text)}}, path, path, role)
	}
	p, err := manifest.Pack(t.Context(), []manifest.Input{
		file("models/model.onnx", "model "+version, manifest.RoleModel),
		file("data/selected_features.json", `["amount", "hour"]`, manifest.RoleFeatures),
		file("data/training_summary.json", fmt.Sprintf(`{"test_metrics": {"roc_auc": %g}}`, score), manifest.RoleSummary),
	}, manifest.PackOptions{Name: "fraud"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func candidate(t *testing.T, target oci.Target, reference string) *promote.Candidate {
	t.Helper()
	c, err := promote.FindCandidate(t.Context(), target, reference, oci.TagRules{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at checks that the tag of the stage and its newest event are d.
func at(t *testing.T, s *promote.Stage, d digest.Digest) *promote.State {
	t.Helper()
	st, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.At.Digest != d || st.Last == nil || st.Last.To != d || st.Fault != nil {
		t.Fatalf("%s is at %s, last event %+v, fault %v; want %s", s.Name, st.At.Digest, st.Last, st.Fault, d)
	}
	return st
}

// TestStory runs a stage's life in every kind of repository.
func TestStory(t *testing.T) {
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage(t, p, "production")
			var all []*promote.Candidate
			for i, tag := range []string{"v1", "v2", "v3"} {
				c := push(t, s.Tags.Target, tag, 0.6+float64(i)/10)
				all = append(all, c)
				out, err := s.Promote(t.Context(), c, promote.Options{Claim: promote.Claim{Actor: "ada", Reason: "better"}})
				if err != nil {
					t.Fatal(err)
				}
				if e := out.Event; e == nil || e.Number != i+1 || e.To != c.Root.Digest || e.Model != c.Root.Digest || e.Version != tag || e.Actor != "ada" {
					t.Fatalf("event %+v", out.Event)
				}
				at(t, s, c.Root.Digest)
				again, err := s.Promote(t.Context(), c, promote.Options{})
				if err != nil || again.Event != nil {
					t.Fatalf("promoted again: %+v, %v", again, err)
				}
			}
			out, err := s.Rollback(t.Context(), promote.RollbackOptions{})
			if err != nil || out.Event.To != all[1].Root.Digest || out.Was.Version != "v3" || out.Now.Version != "v2" {
				t.Fatalf("rollback %+v, %v", out, err)
			}
			if st := at(t, s, all[1].Root.Digest); !st.Held() {
				t.Error("a rollback did not hold the stage")
			}
			if _, err := s.Promote(t.Context(), all[2], promote.Options{}); !is[*promote.HeldError](err) {
				t.Errorf("promotion of a held stage: %v", err)
			}
			if out, err = s.Rollback(t.Context(), promote.RollbackOptions{}); err != nil || out.Event.To != all[0].Root.Digest {
				t.Fatalf("second rollback %+v, %v", out, err)
			}
			if _, err := s.Rollback(t.Context(), promote.RollbackOptions{}); !is[*promote.NoWayBackError](err) {
				t.Errorf("third rollback: %v", err)
			}
			if out, err = s.Rollback(t.Context(), promote.RollbackOptions{To: "v3"}); !is[*promote.NoWayBackError](err) {
				t.Errorf("rollback to what was rolled back from: %+v, %v", out, err)
			}
			if e, err := s.Hold(t.Context(), false, promote.Claim{}); err != nil || e == nil {
				t.Fatalf("unhold: %+v, %v", e, err)
			}
			if e, err := s.Hold(t.Context(), false, promote.Claim{}); err != nil || e != nil {
				t.Fatalf("unhold twice: %+v, %v", e, err)
			}
			if _, err := s.Promote(t.Context(), all[2], promote.Options{}); err != nil {
				t.Fatal(err)
			}
			at(t, s, all[2].Root.Digest)
			h, err := s.History(t.Context(), 0)
			if err != nil || len(h.Problems) > 0 || len(h.Lost) > 0 {
				t.Fatalf("history %+v, %v", h, err)
			}
			var actions []string
			for _, e := range h.Events {
				actions = append(actions, string(e.Action)+" "+e.Version)
			}
			want := []string{"promote v1", "promote v2", "promote v3", "rollback v2", "rollback v1", "unhold v1", "promote v3"}
			if !slices.Equal(actions, want) {
				t.Errorf("events %q, want %q", actions, want)
			}
			for _, c := range all { // nothing that was promoted is lost
				if _, err := s.Tags.Resolve(t.Context(), c.Version); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// contended are the registries in which TestRace is worth its time.
var contended = []ocitest.Fault{ocitest.None, ocitest.NoDelete, ocitest.SmallPages, ocitest.TagsGo, ocitest.Fixed412, ocitest.TwoClocks}

// TestRace lets writers contend: none of their events is lost, never do two win
// the same number, and the tag is what the last event says.
func TestRace(t *testing.T) {
	for name, p := range places(t) {
		writers, rounds := 8, 10
		if p.registry == nil { // a layout syncs every file
			writers, rounds = 4, 4
		}
		if strings.HasSuffix(name, string(ocitest.SmallPages)) { // a list takes a page for three events
			rounds = 2
		}
		if p.registry != nil && !slices.ContainsFunc(contended, func(f ocitest.Fault) bool { return name == "registry "+string(f) }) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stage(t, p, "production")
			var all []*promote.Candidate
			for i := range writers {
				all = append(all, push(t, s.Tags.Target, fmt.Sprintf("v%d", i), 0.5))
			}
			var mu sync.Mutex
			won := map[int]int{}
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					mine := stage(t, p, "production")
					for round := range rounds {
						c := *all[(i+round)%writers]
						for {
							out, err := mine.Promote(t.Context(), &c, promote.Options{})
							if is[*promote.ConflictError](err) {
								continue
							}
							if err != nil {
								t.Error(err)
								return
							}
							if out.Event != nil {
								mu.Lock()
								won[out.Event.Number]++
								mu.Unlock()
								break
							}
							// The stage has it already: another one, then.
							c = *all[rand.IntN(writers)]
						}
					}
				})
			}
			wg.Wait()
			h, err := s.History(t.Context(), 0)
			if err != nil || len(h.Problems) > 0 {
				t.Fatalf("problems %v, %v", h.Problems, err)
			}
			if len(h.Events) != writers*rounds || len(won) != writers*rounds {
				t.Errorf("%d events, %d numbers won; want %d", len(h.Events), len(won), writers*rounds)
			}
			for n, k := range won {
				if k != 1 {
					t.Errorf("event %d was won %d times", n, k)
				}
			}
			at(t, s, h.Events[len(h.Events)-1].To)
			if rows := h.Rows(); len(rows) != len(h.Events) {
				t.Errorf("%d rows for %d events: the tag moved outside them", len(rows), len(h.Events))
			}
		})
	}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func as[E error](err error) (E, bool) { return errors.AsType[E](err) }

// TestNoModel checks that what holds no model is no candidate.
func TestNoModel(t *testing.T) {
	t.Parallel()
	p := places(t)["local registry"]
	s := stage(t, p, "production")
	text := ocitest.NewBlob("text/plain", "hello")
	text.Annotations = map[string]string{"org.opencontainers.image.title": "notes.txt"}
	other := ocitest.NewManifest("other", text)
	put := func(d ocitest.Blob) {
		if err := s.Tags.Push(t.Context(), d.Descriptor, strings.NewReader(string(d.Data))); err != nil {
			t.Fatal(err)
		}
	}
	put(text)
	put(ocitest.NewBlob("application/vnd.oci.empty.v1+json", "{}"))
	put(other)
	if err := s.Tags.Tag(t.Context(), other.Descriptor, "other"); err != nil {
		t.Fatal(err)
	}
	if c, err := promote.FindCandidate(t.Context(), s.Tags, "other", oci.TagRules{}); !is[*manifest.NotArtifactError](err) {
		t.Errorf("candidate %+v, %v; want a *manifest.NotArtifactError", c, err)
	}
	if _, err := s.Promote(t.Context(), push(t, s.Tags.Target, "v1", 0.5), promote.Options{}); err != nil {
		t.Fatal(err)
	}
	if c, err := promote.FindCandidate(t.Context(), s.Tags, at(t, s, candidate(t, s.Tags, "v1").Root.Digest).Last.Tag, oci.TagRules{}); !is[*manifest.NotArtifactError](err) {
		t.Errorf("an event is a candidate: %+v, %v", c, err)
	}
}
