package promote_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"galley/oci/ocitest"
	"galley/oci/promote"
)

// lab is a registry whose requests a test looks at, and whose clock it turns.
type lab struct {
	place
	ahead atomic.Int64

	mu    sync.Mutex
	watch func(*http.Request) // before the registry sees a request
}

func newLab(t *testing.T, faults ...ocitest.Fault) *lab {
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	l := &lab{place: place{registry: r, open: opener("", r.Host+"/ml/fraud")}}
	l.calm(faults...)
	return l
}

// calm ends what a test did to the registry, but for its habits and its clock.
func (l *lab) calm(faults ...ocitest.Fault) {
	l.registry.Misbehave(faults...)
	l.registry.Inject(ocitest.Rule{Mishap: ocitest.Clock(func() time.Duration { return time.Duration(l.ahead.Load()) })})
	l.registry.Inject(ocitest.Rule{Mishap: func(p *ocitest.Passage, w http.ResponseWriter, req *http.Request) {
		l.mu.Lock()
		watch := l.watch
		l.mu.Unlock()
		if watch != nil {
			watch(req)
		}
		p.Pass(w, req)
	}})
}

func (l *lab) onRequest(f func(*http.Request)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch = f
}

func (l *lab) turn(d time.Duration) { l.ahead.Add(int64(d)) }

// puts reports whether the request puts a manifest under a tag that begins so.
func puts(req *http.Request, tag string) bool {
	_, got, _ := strings.Cut(req.URL.Path, "/manifests/")
	return req.Method == http.MethodPut && strings.HasPrefix(got, tag)
}

// promoted promotes, which has to succeed.
func promoted(t *testing.T, s *promote.Stage, c *promote.Candidate, o promote.Options) *promote.Event {
	t.Helper()
	out, err := s.Promote(t.Context(), c, o)
	if err != nil || out.Event == nil {
		t.Fatalf("promote %s: %+v, %v", c.Version, out, err)
	}
	return out.Event
}

// sound reads the history, which has to be without a problem and of that many
// events.
func sound(t *testing.T, s *promote.Stage, events int) *promote.History {
	t.Helper()
	h, err := s.History(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Problems) > 0 || len(h.Lost) > 0 || len(h.Events) != events {
		t.Fatalf("%d events, problems %v, lost %v; want %d events", len(h.Events), h.Problems, h.Lost, events)
	}
	return h
}

// TestTornList has a writer read a list of which the first page is older than a
// change and the second is newer: it sees neither the event nor the intent.
func TestTornList(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo, ocitest.SmallPages)
	s := stage(t, l.place, "production")
	promoted(t, s, push(t, s.Tags.Target, "v0", 0.5), promote.Options{})
	first, second := push(t, s.Tags.Target, "v1", 0.6), push(t, s.Tags.Target, "v2", 0.7)

	announces, records := make(chan struct{}), make(chan struct{})
	goSecond, goFirst, firstDone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var announced, recorded, tore atomic.Bool
	l.onRequest(func(req *http.Request) {
		switch {
		case puts(req, "production.i-"):
			if !announced.Swap(true) {
				close(announces)
				<-goSecond
			}
		case puts(req, "production.h-"):
			if !recorded.Swap(true) {
				close(records)
				<-goFirst
			}
		case strings.Contains(req.URL.RawQuery, "last=production.i-"):
			select {
			case <-goSecond:
				if !tore.Swap(true) {
					close(goFirst)
					<-firstDone
				}
			default:
			}
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		out, err := stage(t, l.place, "production").Promote(t.Context(), second, promote.Options{})
		if err != nil || out.Event == nil || out.Event.Number != 3 {
			t.Errorf("the second: %+v, %v", out.Event, err)
		}
	})
	<-announces // it has looked, and has not announced itself yet
	l.turn(5 * time.Second)
	wg.Go(func() {
		defer close(firstDone)
		out, err := stage(t, l.place, "production").Promote(t.Context(), first, promote.Options{})
		if err != nil || out.Event == nil || out.Event.Number != 2 {
			t.Errorf("the first: %+v, %v", out.Event, err)
		}
	})
	<-records // it has seen nobody
	close(goSecond)
	wg.Wait()
	at(t, s, second.Root.Digest)
	sound(t, s, 3)
}

// TestMoveOnce loses the answer to the move of a tag: by the time it could be sent
// again somebody else has moved it on.
func TestMoveOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	first, second := push(t, s.Tags.Target, "v1", 0.6), push(t, s.Tags.Target, "v2", 0.7)
	var lost atomic.Bool
	l.registry.Inject(ocitest.Rule{Method: http.MethodPut, Kind: ocitest.Manifests, Mishap: func(p *ocitest.Passage, w http.ResponseWriter, req *http.Request) {
		p.Pass(w, req)
		if puts(req, "production") && !puts(req, "production.") && !lost.Swap(true) {
			promoted(t, stage(t, l.place, "production"), second, promote.Options{})
			panic(http.ErrAbortHandler)
		}
	}})
	if e := promoted(t, s, first, promote.Options{}); e.Number != 1 {
		t.Errorf("event %d", e.Number)
	}
	at(t, s, second.Root.Digest)
	sound(t, s, 2)
}

// TestLate has a writer sleep until the others take it for dead.
func TestLate(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	old := push(t, s.Tags.Target, "v1", 0.6)
	promoted(t, s, old, promote.Options{})
	c := push(t, s.Tags.Target, "v2", 0.7)
	l.onRequest(func(req *http.Request) {
		if puts(req, "production.i-") {
			l.turn(90 * time.Second)
		}
	})
	_, err := s.Promote(t.Context(), c, promote.Options{})
	if e, ok := as[*promote.ConflictError](err); !ok || !e.Late {
		t.Fatalf("%v; want a conflict for it was late", err)
	}
	at(t, s, old.Root.Digest)
	sound(t, s, 1)
}

// TestListWithout holds that a registry whose lists lack what was just written is
// refused, for nobody sees there what others do.
func TestListWithout(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := stage(t, l.place, "production")
	c := push(t, s.Tags.Target, "v1", 0.6)
	l.registry.Inject(ocitest.Rule{Kind: ocitest.Tags, Mishap: ocitest.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"ml/fraud","tags":["v1"]}`)
	}))})
	if _, err := s.Promote(t.Context(), c, promote.Options{}); !is[*promote.ListError](err) {
		t.Errorf("%v; want an error of the list", err)
	}
	l.calm()
	if st, err := s.Read(t.Context()); err != nil || st.At.Digest != "" || st.Last != nil {
		t.Errorf("afterwards %+v, %v", st, err)
	}
}

// TestNoRight holds that an intent that its writer may not delete keeps nobody
// waiting.
func TestNoRight(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	s := stage(t, l.place, "production")
	c := push(t, s.Tags.Target, "v1", 0.6)
	l.registry.Inject(
		ocitest.Rule{Method: http.MethodDelete, Mishap: ocitest.Answer(ocitest.Up, http.StatusForbidden, "DENIED")},
		ocitest.Rule{Method: http.MethodPut, Kind: ocitest.Uploads, Times: 1, Mishap: ocitest.Answer(ocitest.Up, http.StatusForbidden, "DENIED")},
	)
	if _, err := s.Promote(t.Context(), c, promote.Options{}); err == nil {
		t.Fatal("promoted without the right to write")
	}
	waits := 0
	other := stage(t, l.place, "production")
	other.Wait = func(int, promote.Intent) time.Duration { waits++; return 0 }
	promoted(t, other, c, promote.Options{})
	if waits > 0 {
		t.Errorf("waited %d times for somebody who gave up", waits)
	}
}

// TestIntents tells which intents others wait for.
func TestIntents(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		age  time.Duration
		busy bool
	}{
		"fresh":             {0, true},
		"of a minute":       {time.Minute, true},
		"dead":              {3 * time.Minute, false},
		"of another server": {-time.Minute, true},
		"of a wrong clock":  {-24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, ocitest.TagsGo)
			s := stage(t, l.place, "production")
			c := push(t, s.Tags.Target, "v1", 0.6)
			st := promote.Stage{Name: "production"}
			tag := promote.IntentTag(&st, 1, s.Tags.Now().Add(-tt.age), "abcdefghij")
			if err := s.Tags.PutDoc(t.Context(), c.Root, c.Doc, tag); err != nil {
				t.Fatal(err)
			}
			_, err := s.Promote(t.Context(), c, promote.Options{})
			if e, ok := as[*promote.ConflictError](err); ok != tt.busy || ok && (e.Other == nil || e.Other.Tag != tag) || !ok && err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestKill cuts a client off at every one of its requests, before the registry sees
// it and after, as if it had been killed there. Whatever is left, the stage is at
// the old or the new, its history tells which, and the next one goes on.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do    func(*testing.T, *promote.Stage, *promote.Candidate) error
		to    string // where it leads
		moves bool
	}{
		"promote": {func(t *testing.T, s *promote.Stage, c *promote.Candidate) error {
			_, err := s.Promote(t.Context(), c, promote.Options{})
			return err
		}, "v3", true},
		"rollback": {func(t *testing.T, s *promote.Stage, _ *promote.Candidate) error {
			_, err := s.Rollback(t.Context(), promote.RollbackOptions{})
			return err
		}, "v1", true},
		"hold": {func(t *testing.T, s *promote.Stage, _ *promote.Candidate) error {
			_, err := s.Hold(t.Context(), true, promote.Claim{})
			return err
		}, "v2", false},
	} {
		for _, seen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the last request seen %t", name, seen), func(t *testing.T) {
				t.Parallel()
				pending, n := 0, 0
				for done := false; !done; {
					n++
					l := newLab(t, ocitest.TagsGo)
					s := stage(t, l.place, "production")
					for _, v := range []string{"v1", "v2", "v3", "v4"} {
						c := push(t, s.Tags.Target, v, 0.5)
						if v < "v3" {
							promoted(t, s, c, promote.Options{})
						}
					}
					c := candidate(t, s.Tags.Target, tt.to)
					old, to := candidate(t, s.Tags.Target, "v2").Root.Digest, c.Root.Digest
					reached := l.kill(n, seen)
					err := tt.do(t, stage(t, l.place, "production"), c)
					if done = !reached(); done && err != nil {
						t.Fatalf("not cut, and %v", err)
					}
					l.calm(ocitest.TagsGo)
					l.turn(time.Hour) // and the intents are of the dead

					s = stage(t, l.place, "production")
					st, err := s.Read(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if at := st.At.Digest; at != old && at != to || st.Outside() || st.Fault != nil || st.Last.To != old && st.Last.To != to {
						t.Fatalf("cut at request %d: the stage is at %s, its last event %+v", n, at, st.Last)
					}
					if st.Pending() {
						pending++
					}
					h := sound(t, s, st.Number())
					if h.Events[len(h.Events)-1].To != st.At.Digest && !st.Pending() {
						t.Errorf("cut at request %d: the history does not tell where the stage is", n)
					}
					if st.Number() == 2 || st.Pending() {
						if err := tt.do(t, s, c); err != nil {
							t.Fatalf("cut at request %d, and again: %v", n, err)
						}
					}
					at(t, s, to) // and not further
					if _, err := s.Hold(t.Context(), false, promote.Claim{}); err != nil {
						t.Fatal(err)
					}
					promoted(t, s, candidate(t, s.Tags.Target, "v4"), promote.Options{})
					last := at(t, s, candidate(t, s.Tags.Target, "v4").Root.Digest)
					sound(t, s, last.Number())
				}
				if n < 8 || (pending > 0) != tt.moves {
					t.Errorf("%d requests, %d times it was left half done", n, pending)
				}
			})
		}
	}
}

// kill lets the n-th request from now, and all that follow, come to nothing; or the
// n-th only its answer. reached reports whether there were that many.
func (l *lab) kill(n int, seen bool) (reached func() bool) {
	var count atomic.Int64
	l.registry.Inject(ocitest.Rule{Mishap: func(p *ocitest.Passage, w http.ResponseWriter, req *http.Request) {
		d := ocitest.Up
		switch i := count.Add(1); {
		case i < int64(n):
			p.Pass(w, req)
			return
		case i == int64(n) && seen:
			d = ocitest.Down
		}
		ocitest.Answer(d, http.StatusForbidden, "DENIED")(p, w, req)
	}})
	return func() bool { return count.Load() >= int64(n) }
}

// TestOneWinner lets four contend for one number, again and again.
func TestOneWinner(t *testing.T) {
	t.Parallel()
	l := newLab(t, ocitest.TagsGo)
	const contenders, rounds = 4, 40
	s := stage(t, l.place, "production")
	var all []*promote.Candidate
	for i := range contenders + 1 {
		all = append(all, push(t, s.Tags.Target, fmt.Sprintf("v%d", i), 0.5))
	}
	promoted(t, s, all[contenders], promote.Options{})
	winners := 0
	for round := range rounds {
		st, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var won [contenders]*promote.Event
		var wg sync.WaitGroup
		for i := range contenders {
			wg.Go(func() {
				c := *all[(i+round)%(contenders+1)]
				if c.Root.Digest == st.At.Digest {
					return
				}
				// Whoever comes too late finds that the stage is not what it was.
				out, err := stage(t, l.place, "production").Promote(t.Context(), &c, promote.Options{ExpectCurrent: &st.At.Digest})
				if err != nil && !is[*promote.ConflictError](err) && !is[*promote.MovedError](err) {
					t.Error(err)
				}
				if err == nil {
					won[i] = out.Event
				}
			})
		}
		wg.Wait()
		got := slices.DeleteFunc(won[:], func(e *promote.Event) bool { return e == nil })
		if len(got) > 1 {
			t.Fatalf("round %d: %d winners", round, len(got))
		}
		if len(got) == 1 {
			at(t, s, got[0].To)
		}
		winners += len(got)
	}
	if winners == 0 {
		t.Error("nobody ever won")
	}
	sound(t, s, winners+1)
	t.Logf("%d of %d rounds had a winner", winners, rounds)
}
