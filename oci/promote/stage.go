package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/project"
	"galley/oci"
)

// Stage is a tag that only promotion moves, and the record of its moves.
type Stage struct {
	// Name is the tag.
	Name string
	// Repository is where the tag is, as [oci.Reference.Name] spells it.
	Repository string
	// Tags holds the tag; Record holds the events, in the same repository or
	// another.
	Tags, Record *oci.Keeper

	// Wait says how long to wait before the n-th time that somebody else was
	// at work, from 0; nil: about half a second, then twice as long. It is
	// told whom one waits for.
	Wait func(n int, other Intent) time.Duration
	// Stale is how old an intent is that nobody is behind any more; 0: two
	// minutes. It must be the same for all who use a repository.
	Stale time.Duration
}

// NameError says that no stage can have that name.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	return fmt.Sprintf("stage %.60q: want at most 40 small letters, digits, _ and -", e.Name)
}

// CheckName returns a [*NameError] if no stage can have that name.
func CheckName(name string) error {
	if project.IsStageName(name) {
		return nil
	}
	return &NameError{name}
}

// Names returns the stages that have events among the tags, sorted.
func Names(tags []string) []string {
	var names []string
	for _, tag := range tags {
		if name, ok := stageOf(tag); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// State is a stage at a moment.
type State struct {
	// At is what the tag names; the zero descriptor if it is not there. Doc is
	// that manifest.
	At  v1.Descriptor
	Doc []byte
	// Last is the newest event; nil if there is none.
	Last *Event
	// Fault says why the newest event cannot be read; nil if it can.
	Fault error
	// Tags are all of the repository that keeps the record.
	Tags []string

	events      []string // tags, oldest first
	intents     []Intent // of others, that may still be acted on
	interrupted bool     // the newest event was recorded, and the tag not moved
}

// Number is that of the newest event; 0 if there is none.
func (s *State) Number() int {
	if len(s.events) == 0 {
		return 0
	}
	return numberOf(s.events[len(s.events)-1])
}

// Held reports whether a hold stands. Where the newest event cannot be read, one
// may.
func (s *State) Held() bool { return s.Fault != nil || s.Last != nil && s.Last.Hold }

// Pending reports whether the newest event was recorded and whoever did so was
// interrupted before the tag moved: the event is the truth, and the next promotion
// moves it.
func (s *State) Pending() bool { return s.interrupted }

// Outside reports whether somebody moved the tag, or removed it, and not by
// galley; or removed the newest events.
func (s *State) Outside() bool { return !s.Settled() && !s.interrupted }

// Settled reports whether the tag is what the newest event says.
func (s *State) Settled() bool { return s.Last == nil || s.At.Digest == s.Last.To }

// Read looks at the stage: three requests, and one more for each time that it
// changed meanwhile or is not settled.
func (s *Stage) Read(ctx context.Context) (*State, error) {
	tags, err := s.Record.AllTags(ctx)
	if err != nil {
		return nil, err
	}
	return s.read(ctx, tags)
}

// read is Read with the record's tags at hand.
func (s *Stage) read(ctx context.Context, tags []string) (*State, error) {
	for {
		st, err := s.look(ctx, tags)
		if err != nil || st.Settled() {
			return st, err
		}
		// Tag and event were not read at once: is it the same event still?
		if tags, err = s.Record.AllTags(ctx); err != nil {
			return nil, err
		}
		if events := s.eventTags(tags); slices.Equal(events, st.events) {
			st.interrupted, err = s.wasInterrupted(ctx, st, tags)
			return st, err
		}
	}
}

// wasInterrupted reports whether the announcement of the newest event still stands,
// and the tag where it was: who is done removes it. A tag that somebody moved back
// afterwards looks otherwise.
func (s *Stage) wasInterrupted(ctx context.Context, st *State, tags []string) (bool, error) {
	if st.At.Digest != st.Last.From {
		return false, nil
	}
	for _, tag := range s.open(tags, st.Last.Number) {
		_, _, err := s.Record.Get(ctx, tag)
		if err == nil || !errors.Is(err, oci.ErrNotFound) { // some registries list what is gone
			return err == nil, err
		}
	}
	return false, nil
}

// open are the announcements of an event that nobody withdrew or completed.
func (s *Stage) open(tags []string, number int) []string {
	var open []string
	for _, tag := range tags {
		n, _, rest, ok := parseTag(s.Name, intentKind, tag)
		marks := strings.HasSuffix(rest, doneSuffix) || strings.HasSuffix(rest, leftSuffix)
		if ok && n == number && !marks && !slices.Contains(tags, tag+doneSuffix) {
			open = append(open, tag)
		}
	}
	return open
}

// look is read, once.
func (s *Stage) look(ctx context.Context, tags []string) (*State, error) {
	st := &State{Tags: tags, events: s.eventTags(tags)}
	st.intents = s.liveIntents(tags)
	if n := len(st.events); n > 0 {
		last := st.events[n-sameNumber(st.events)] // the first of that number; see [attempt.record]
		var err error
		if st.Last, st.Fault, err = s.readEvent(ctx, last); err != nil {
			return nil, err
		}
	}
	var err error
	if st.At, st.Doc, err = s.Tags.Get(ctx, s.Name); errors.Is(err, oci.ErrNotFound) {
		st.At, err = v1.Descriptor{}, nil
	}
	return st, err
}

// readEvent reads one event. fault says why it is none, or that nothing is there:
// some registries keep the tag of a manifest that was deleted. Some list a tag just
// before it names anything; a fresh one gets a little time.
func (s *Stage) readEvent(ctx context.Context, tag string) (e *Event, fault, err error) {
	d, doc, err := s.Record.Get(ctx, tag)
	_, at, _, _ := parseTag(s.Name, eventKind, tag)
	for n := 0; n < maxTries && errors.Is(err, oci.ErrNotFound) && s.Record.Now().Sub(at) < s.stale(); n++ {
		if err := s.pause(ctx, n, Intent{Tag: tag}); err != nil {
			return nil, nil, err
		}
		d, doc, err = s.Record.Get(ctx, tag)
	}
	if errors.Is(err, oci.ErrNotFound) {
		return nil, fmt.Errorf("%w: tag %s names nothing any more", errNotEvent, tag), nil
	}
	if err != nil {
		return nil, nil, err
	}
	e, fault = parseEvent(s.Name, tag, d, doc)
	if fault == nil && e.Repository != s.side() {
		return nil, fmt.Errorf("%w of this repository, but of %.100q: a side repository keeps the events of one", errNotEvent, e.Repository), nil
	}
	return e, fault, nil
}

// side is what events in a repository beside the stage's say that they are about;
// empty if there is none beside it. The registry is left out, for it may be known
// by several names.
func (s *Stage) side() string {
	if s.Tags == s.Record {
		return ""
	}
	_, path, _ := strings.Cut(s.Repository, "/")
	return path
}

// newest yields the events that count, newest first, as they are read; faults are
// [*BrokenError]s.
func (s *Stage) newest(ctx context.Context, tags []string) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		var named digest.Digest
		for events := s.eventTags(tags); len(events) > 0; {
			first := len(events) - sameNumber(events)
			tag := events[first+counts(events[first:], named)]
			e, fault, err := s.readEvent(ctx, tag)
			if fault != nil {
				err = &BrokenError{s.Name, fault}
			}
			if !yield(e, err) || err != nil {
				return
			}
			events, named = events[:first], e.Previous
		}
	}
}

// eventTags are those of the stage's events, oldest first.
func (s *Stage) eventTags(tags []string) []string {
	var events []string
	for _, tag := range tags {
		if isEvent(s.Name, tag) {
			events = append(events, tag)
		}
	}
	slices.SortFunc(events, func(a, b string) int { return cmp.Or(cmp.Compare(numberOf(a), numberOf(b)), cmp.Compare(a, b)) })
	return slices.Compact(events)
}
