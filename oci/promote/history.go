package promote

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"galley/oci"
)

// Problem is something wrong with a history: an event that was edited or
// removed, or written by somebody who did not see another.
type Problem struct {
	Number int    `json:"number"`
	Tag    string `json:"tag,omitempty"`
	What   string `json:"what"`
}

func (p Problem) String() string { return fmt.Sprintf("event %d: %s", p.Number, p.What) }

// History is the record of a stage.
type History struct {
	Stage string
	// Events are those that can be read, oldest first. Of several with one
	// number only the first changed the stage; the others are in Lost.
	Events []Event
	Lost   []Event
	// Problems say where the chain is broken, oldest first. An end that was cut
	// off shows only if the tag is not what is left says: see [State.Outside].
	Problems []Problem
	// Notes are what is odd and breaks nothing: clocks that ran backwards.
	Notes []Problem
	State *State
}

// maxEvents bounds how many events of a stage are read.
const maxEvents = 20_000

// History reads every event of the stage: two requests one after the other, and
// one for each event, several at once.
func (s *Stage) History(ctx context.Context, concurrency int) (*History, error) {
	tags, err := s.Record.AllTags(ctx)
	if err != nil {
		return nil, err
	}
	names := s.eventTags(tags)
	if len(names) > maxEvents {
		return nil, fmt.Errorf("history of %s: %d events, at most %d are read", s.Name, len(names), maxEvents)
	}
	h := &History{Stage: s.Name}
	events, faults := make([]*Event, len(names)), make([]error, len(names))
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(concurrency, 2*oci.DefaultConcurrency))
	g.Go(func() (err error) {
		h.State, err = s.read(inner, tags)
		return err
	})
	for i, tag := range names {
		g.Go(func() error {
			var err error
			events[i], faults[i], err = s.readEvent(inner, tag)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	h.chain(names, events, faults)
	return h, nil
}

// chain puts the events in order and finds what is wrong with it.
func (h *History) chain(names []string, events []*Event, faults []error) {
	problem := func(n int, tag, format string, args ...any) {
		h.Problems = append(h.Problems, Problem{n, tag, fmt.Sprintf(format, args...)})
	}
	next, counted := 1, counted(names, events)
	for i, tag := range names {
		n := numberOf(tag)
		e := events[i]
		if !counted[i] {
			problem(n, tag, "a second one of that number; it changed nothing")
			if e != nil {
				h.Lost = append(h.Lost, *e)
			}
			continue
		}
		switch {
		case n > next && n-next == 1:
			problem(next, "", "missing")
		case n > next:
			problem(next, "", "missing, up to %d", n-1)
		}
		next = n + 1
		if e == nil {
			problem(n, tag, "%v", faults[i])
			continue
		}
		if len(h.Events) > 0 {
			if before := h.Events[len(h.Events)-1]; before.Number == n-1 {
				h.link(&before, e, problem)
			}
		}
		h.Events = append(h.Events, *e)
	}
}

// counted tells of each event whether it is the one of its number that counts.
func counted(names []string, events []*Event) []bool {
	all := make([]bool, len(names))
	var named digest.Digest
	for rest := names; len(rest) > 0; {
		first := len(rest) - sameNumber(rest)
		i := first + counts(rest[first:], named)
		all[i], named = true, ""
		if events[i] != nil {
			named = events[i].Previous
		}
		rest = rest[:first]
	}
	return all
}

// link compares an event with the one before.
func (h *History) link(before, e *Event, problem func(int, string, string, ...any)) {
	if e.Previous != before.Digest {
		problem(e.Number, e.Tag, "follows %s, but event %d is %s", short(e.Previous), before.Number, short(before.Digest))
	}
	if recorded(e).Before(recorded(before)) {
		h.Notes = append(h.Notes, Problem{e.Number, e.Tag, fmt.Sprintf("recorded %s, before event %d: a clock ran backwards",
			recorded(e).Format(time.RFC3339), before.Number)})
	}
}

// recorded is when an event was written.
func recorded(e *Event) time.Time {
	if e.Recorded.IsZero() {
		return e.Time
	}
	return e.Recorded
}

func short(d digest.Digest) string {
	if d == "" {
		return "nothing"
	}
	return oci.Short(d)
}

// Row is what was in a stage for a while.
type Row struct {
	// Event began it; nil: somebody moved the tag outside galley.
	Event *Event
	// Outside is what the tag was moved to outside galley, some time after Since.
	Outside digest.Digest
	Since   time.Time
	Until   time.Time // zero: it is so now
}

// Rows are what was in the stage, oldest first: every event, and between two
// events that do not fit what somebody moved outside galley.
func (h *History) Rows() []Row {
	var rows []Row
	for i := range h.Events {
		e := &h.Events[i]
		if i > 0 && e.Number == h.Events[i-1].Number+1 && e.From != h.Events[i-1].To {
			rows = append(rows, Row{Outside: e.From, Since: h.Events[i-1].Time})
		}
		rows = append(rows, Row{Event: e, Since: e.Time})
	}
	if h.State != nil && h.State.Outside() && len(h.Events) > 0 {
		rows = append(rows, Row{Outside: h.State.At.Digest, Since: h.Events[len(h.Events)-1].Time})
	}
	var until time.Time
	for i := len(rows) - 1; i >= 0; i-- {
		// What was moved outside galley was so at some time before the next event.
		if rows[i].Until = until; rows[i].Event != nil {
			until = rows[i].Since
		}
	}
	return rows
}

// Between returns the rows of which any part lies in the time from since to
// before until; zero times are no bound.
func Between(rows []Row, since, until time.Time) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool {
		over := !r.Until.IsZero() && !since.IsZero() && !r.Until.After(since)
		return over || !until.IsZero() && !r.Since.Before(until)
	})
}

// At returns what was in the stage at that time, or nil.
func (h *History) At(t time.Time) *Event {
	var found *Event
	for i := range h.Events {
		if !h.Events[i].Time.After(t) {
			found = &h.Events[i]
		}
	}
	return found
}

// before is what the tag named before the first event, as if an event had said so;
// nil if it named nothing, or if that is not known.
func (h *History) before() *Event {
	if len(h.Events) == 0 {
		return nil
	}
	first := &h.Events[0]
	if first.Number != 1 || first.Action != Promoted || first.From == "" {
		return nil
	}
	return &Event{To: first.From, Model: first.From, Version: first.Was}
}

// Bad reports, by digest, what the stage was rolled back from and has not been
// promoted to since.
func (h *History) Bad() map[digest.Digest]bool {
	bad := map[digest.Digest]bool{}
	for _, e := range h.Events {
		switch e.Action {
		case RolledBack:
			if e.From != "" && e.From != e.To {
				bad[e.From] = true
			}
			delete(bad, e.To)
		case Promoted:
			delete(bad, e.To)
		}
	}
	return bad
}
