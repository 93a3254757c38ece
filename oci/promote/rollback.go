package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"

	"galley/manifest"
	"galley/manifest/nearest"
	"galley/oci"
)

// RollbackOptions say where [Stage.Rollback] goes.
type RollbackOptions struct {
	Claim
	// To is a version, a digest, the beginning of one, or a time (RFC 3339, or a
	// date) in the stage's history; empty: the last that was not rolled back
	// from.
	To string
	// Force goes back to what was rolled back from before, and believes a history
	// that is broken.
	Force  bool
	DryRun bool
	Facts  oci.FactsOptions
	// Concurrency is how many requests run at once; 0: ten.
	Concurrency int
}

// UnknownStageError says that a stage has no history.
type UnknownStageError struct {
	Stage   string
	IsTag   bool     // it is a tag that nobody has promoted to
	Nearest []string // stages that may be meant
}

func (e *UnknownStageError) Error() string {
	if e.IsTag {
		return fmt.Sprintf("%s has no history: nothing was promoted to it", e.Stage)
	}
	s := fmt.Sprintf("no stage %s: it has neither a tag nor a history", e.Stage)
	if len(e.Nearest) > 0 {
		s += "; nearest: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// NoWayBackError says that there is nothing to roll back to.
type NoWayBackError struct {
	Stage   string
	To      string   // what was asked for; empty: nothing in particular
	Bad     bool     // it is there, and was rolled back from
	Nearest []string // versions in the history
}

func (e *NoWayBackError) Error() string {
	switch {
	case e.Bad:
		return fmt.Sprintf("%s was rolled back from %s before", e.Stage, e.To)
	case e.To == "":
		return fmt.Sprintf("the history of %s has nothing else that is good", e.Stage)
	}
	s := fmt.Sprintf("the history of %s has no %s", e.Stage, e.To)
	if len(e.Nearest) > 0 {
		s += "; it has: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// GoneError says that what a stage should go back to cannot be read any more.
type GoneError struct {
	Stage   string
	Digest  digest.Digest
	Version string
	Err     error
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("%s (%s) is not whole any more: %v", e.Version, e.Digest, e.Err)
}

// Unwrap returns what is missing.
func (e *GoneError) Unwrap() error { return e.Err }

// Rollback moves the stage back to the last thing in its history that it was not
// rolled back from, and sets a hold. A second rollback goes further back. What
// it goes to is looked at first, every layer of it; gates are not asked.
func (s *Stage) Rollback(ctx context.Context, o RollbackOptions) (*Outcome, error) {
	r := &rollback{change: change{Stage: s}, o: o}
	return r.do(ctx, o.DryRun, r.decide)
}

// rollback is one call of Rollback.
type rollback struct {
	change
	o RollbackOptions
}

// decide finds where to go.
func (r *rollback) decide(ctx context.Context, st *State) (decision, error) {
	r.out, r.interrupted = Outcome{Stage: r.Name, Hold: true}, nil
	h, err := r.History(ctx, r.o.Concurrency)
	if err != nil {
		return decision{}, err
	}
	if len(h.Events) == 0 && len(h.Problems) == 0 {
		return decision{}, r.Unknown(st)
	}
	was, to := st.At.Digest, st.Last
	if st.Pending() {
		was = to.To
	}
	if st.Pending() && to.Action == RolledBack && r.o.To == "" {
		// Whoever asks again does not want to go further back.
		r.interrupted, was = to, to.From
	} else if to, err = h.target(was, r.o); err != nil {
		return decision{}, err
	}
	if i := slices.IndexFunc(h.Problems, func(p Problem) bool { return p.Number > to.Number }); i >= 0 && !r.o.Force {
		return decision{}, &BrokenError{r.Name, errors.New(h.Problems[i].String())}
	}
	r.out.Was, r.out.Now = sideOf(st, was), Side{Digest: to.To, Version: to.Version, Image: to.Image}
	if r.interrupted != nil {
		r.out.Was.Version = to.Was
	}
	d, doc, err := r.whole(ctx, to)
	if err != nil {
		return decision{}, err
	}
	var model digest.Digest
	r.out.Was.Facts, _ = r.facts(ctx, was, r.o.Facts)
	r.out.Now.Facts, model = r.facts(ctx, to.To, r.o.Facts)
	model = cmp.Or(model, to.Model)
	there := to.To == was && st.Held() && !st.Outside()
	if r.o.DryRun || r.interrupted != nil || there {
		return decision{}, nil
	}
	return decision{about: d, doc: doc, event: &Event{
		Action: RolledBack, To: to.To, Model: model, Image: to.Image,
		Version: to.Version, Was: clip(r.out.Was.Version), Revision: to.Revision,
		Actor: clip(r.o.Actor), Run: clip(r.o.Run), Reason: clip(r.o.Reason), Tool: r.o.Tool,
		Policy: policyOf(st.Last), Scan: to.Scan, Forced: r.o.Force, Hold: true,
	}}, nil
}

// policyOf is the policy that the stage's models were last checked against.
func policyOf(e *Event) digest.Digest {
	if e == nil {
		return ""
	}
	return e.Policy
}

// facts reads what can be read, and the model's digest; nil is nothing.
func (s *Stage) facts(ctx context.Context, d digest.Digest, o oci.FactsOptions) (*manifest.Facts, digest.Digest) {
	if d == "" {
		return nil, ""
	}
	o.Scan = false
	found, err := oci.FindFacts(ctx, s.Tags.Target, d.String(), o)
	if err != nil {
		return nil, ""
	}
	return found.Facts, found.Model
}

// Unknown is the error of a stage that is not there.
func (s *Stage) Unknown(st *State) error {
	return &UnknownStageError{s.Name, st.At.Digest != "", nearest.Words(s.Name, Names(st.Tags), 3)}
}

// target finds the event to go back to.
func (h *History) target(was digest.Digest, o RollbackOptions) (*Event, error) {
	bad := h.Bad()
	bad[was] = true
	if o.To == "" {
		for i := h.origin(was) - 1; i >= 0; i-- {
			if e := &h.Events[i]; !bad[e.To] {
				return e, nil
			}
		}
		if e := h.before(); e != nil && !bad[e.To] {
			return e, nil
		}
		return nil, &NoWayBackError{Stage: h.Stage}
	}
	e := h.find(o.To)
	switch {
	case e == nil:
		fail := &NoWayBackError{Stage: h.Stage, To: o.To}
		for i := len(h.Events) - 1; i >= 0 && len(fail.Nearest) < 5; i-- {
			if v := h.Events[i].Version; v != "" && !slices.Contains(fail.Nearest, v) {
				fail.Nearest = append(fail.Nearest, v)
			}
		}
		return nil, fail
	case e.To == was:
		return e, nil
	case bad[e.To] && !o.Force:
		return nil, &NoWayBackError{Stage: h.Stage, To: o.To, Bad: true}
	}
	return e, nil
}

// origin is the place of the event that brought what the stage has now, before any
// rollback to it; after the last event if none did.
func (h *History) origin(was digest.Digest) int {
	for i, e := range slices.Backward(h.Events) {
		if e.To == was && e.Action == Promoted {
			return i
		}
	}
	return len(h.Events)
}

// find finds the newest event to a version or digest, or the one at a time.
func (h *History) find(to string) *Event {
	is := func(e *Event) bool {
		begins := func(d digest.Digest) bool {
			return strings.HasPrefix(d.Encoded(), to) && len(to) >= 8 ||
				strings.HasPrefix(d.String(), to) && len(to) >= len(d.Algorithm())+1+8
		}
		return e.Version == to || begins(e.To) || begins(e.Model)
	}
	for i := len(h.Events) - 1; i >= 0; i-- {
		if e := &h.Events[i]; is(e) {
			return e
		}
	}
	if e := h.before(); e != nil && is(e) {
		return e
	}
	if at, _, err := ParseTime(to); err == nil {
		return h.At(at)
	}
	return nil
}

// ParseTime reads a time as RFC 3339 has it, or a date or a minute in UTC, and
// returns the first moment of it and the first after it.
func ParseTime(s string) (from, until time.Time, err error) {
	for _, f := range []struct {
		layout string
		span   func(time.Time) time.Time
	}{
		{time.RFC3339, func(t time.Time) time.Time { return t.Add(time.Second) }},
		{"2006-01-02T15:04:05", func(t time.Time) time.Time { return t.Add(time.Second) }},
		{"2006-01-02T15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
		{"2006-01-02 15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
		{time.DateOnly, func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
		{"2006-01", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }},
		{"2006", func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }},
	} {
		if t, err := time.Parse(f.layout, s); err == nil {
			return t.UTC(), f.span(t).UTC(), nil
		}
	}
	return from, until, fmt.Errorf("time %.40q: want a date as in 2026-03-31, or RFC 3339", s)
}

// whole reads the manifest of what to go back to and asks for everything below
// it.
func (s *Stage) whole(ctx context.Context, e *Event) (v1.Descriptor, []byte, error) {
	gone := func(err error) error { return &GoneError{s.Name, e.To, e.Version, err} }
	d, doc, err := s.Tags.Get(ctx, e.To.String())
	if errors.Is(err, oci.ErrNotFound) {
		return d, nil, gone(err)
	}
	if err != nil {
		return d, nil, err
	}
	return d, doc, s.below(ctx, d, maxDepth, gone)
}

// maxDepth is how deep indexes of images are looked into.
const maxDepth = 4

// below asks for everything below a manifest.
func (s *Stage) below(ctx context.Context, d v1.Descriptor, depth int, gone func(error) error) error {
	all, err := content.Successors(ctx, s.Tags.Target, d)
	if errors.Is(err, oci.ErrNotFound) {
		return gone(err)
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(oci.DefaultConcurrency)
	for _, b := range all {
		g.Go(func() error {
			if isManifest(b.MediaType) && depth > 1 {
				return s.below(ctx, b, depth-1, gone)
			}
			there, err := s.Tags.Exists(ctx, b)
			if err == nil && !there {
				err = gone(fmt.Errorf("%s: %w", b.Digest, oci.ErrNotFound))
			}
			return err
		})
	}
	return g.Wait()
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageManifest, v1.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}
