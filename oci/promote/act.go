package promote

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
)

const (
	// staleAfter is how old an intent is that nobody is behind any more.
	staleAfter = 2 * time.Minute
	// maxSkew is how far ahead of the registry's clock an intent may be.
	maxSkew = time.Hour
	// maxTries is how often a change waits for others before it gives up, and
	// maxRestarts how often it begins anew since somebody else was faster.
	maxTries    = 3
	maxRestarts = 10
	// firstWait is how long it waits the first time.
	firstWait = 400 * time.Millisecond
)

// Intent is the announcement of a change.
type Intent struct {
	Tag    string
	Number int // of the event to come
	Age    time.Duration
	// To is what the change would move the stage to, and Actor who says so, as
	// far as the intent tells.
	To    digest.Digest
	Actor string
}

// The annotations of an intent.
const (
	intentTo    = "ml.galley.intent.to"
	intentActor = "ml.galley.intent.actor"
	intentNonce = "ml.galley.intent.nonce"
)

// ConflictError says that somebody else changed the stage, or is about to.
type ConflictError struct {
	Stage string
	Other *Intent       // who is at work; nil: it is done
	Have  digest.Digest // what the tag names, or the other's event
	Event string        // the tag of the event of ours that counts for nothing; usually empty
	Late  bool          // it took so long that others may take us for dead
}

func (e *ConflictError) Error() string {
	if e.Late {
		return fmt.Sprintf("the change of %s took so long that others may be at work by now", e.Stage)
	}
	if e.Other == nil {
		return fmt.Sprintf("somebody else moved %s to %s meanwhile", e.Stage, e.Have)
	}
	s := fmt.Sprintf("somebody else announced a change of %s %s ago", e.Stage, e.Other.Age.Round(time.Second))
	if e.Other.To != "" {
		s += ", to " + e.Other.To.String()
	}
	if e.Other.Actor != "" {
		s += fmt.Sprintf(" (%.100q)", e.Other.Actor)
	}
	return s
}

// ListError says that a registry does not list a tag that it has just taken: then
// nobody can see what others do.
type ListError struct{ Stage, Tag string }

func (e *ListError) Error() string {
	return fmt.Sprintf("the registry took the tag %s and does not list it: nothing can be kept in order by such lists", e.Tag)
}

// liveIntents are those that somebody may still act on: younger than two
// minutes and not withdrawn. One from the future is of a clock that is wrong, and
// counts as long as it may be that of a registry's other server.
func (s *Stage) liveIntents(tags []string) []Intent {
	var live []Intent
	for _, tag := range tags {
		n, at, rest, ok := parseTag(s.Name, intentKind, tag)
		if !ok || strings.HasSuffix(rest, doneSuffix) || strings.HasSuffix(rest, leftSuffix) {
			continue
		}
		age := s.Record.Now().Sub(at)
		if age < s.stale() && age > -maxSkew && !slices.Contains(tags, tag+doneSuffix) && !slices.Contains(tags, tag+leftSuffix) {
			live = append(live, Intent{Tag: tag, Number: n, Age: max(0, age)})
		}
	}
	return live
}

func (s *Stage) stale() time.Duration {
	if s.Stale != 0 {
		return s.Stale
	}
	return staleAfter
}

// busy returns the intent that keeps everybody else from acting on the state, or
// nil: one for the next event, or one whose event is there and the tag not yet
// moved.
func (s *State) busy(ours string) *Intent {
	settled := s.Settled()
	for i := range s.intents {
		other := &s.intents[i]
		if other.Tag != ours && (other.Number > s.Number() || !settled && other.Number == s.Number()) {
			return other
		}
	}
	return nil
}

// inTheWay is busy with what the intent tells. An intent that is listed and gone,
// for some registries keep the tag of a manifest that was deleted, joins the dead:
// what was listed before that may be out of date, so the caller begins anew.
func (s *Stage) inTheWay(ctx context.Context, st *State, ours string, dead map[string]bool) (other *Intent, anew bool, err error) {
	st.intents = slices.DeleteFunc(st.intents, func(i Intent) bool { return dead[i.Tag] })
	if other = st.busy(ours); other == nil {
		return nil, false, nil
	}
	_, doc, err := s.Record.Get(ctx, other.Tag)
	if errors.Is(err, oci.ErrNotFound) {
		// Others list a tag just before it names anything: nobody alive may be
		// taken for dead.
		if err := s.pause(ctx, 1, *other); err != nil {
			return nil, false, err
		}
		_, doc, err = s.Record.Get(ctx, other.Tag)
	}
	if errors.Is(err, oci.ErrNotFound) {
		dead[other.Tag] = true
		return nil, true, nil
	}
	if err == nil {
		other.To, other.Actor = readIntent(doc)
	}
	return other, false, err
}

// decision is what to do about a stage in some state.
type decision struct {
	event *Event        // to record; nil: nothing
	about v1.Descriptor // event.To's
	doc   []byte        // the manifest, if the tag is to move to it
	stays bool          // the tag does not move
}

// act changes the stage as decide says for the state it finds, which it may do
// several times, and returns the event. decide may leave the event nil: then
// only a change that was interrupted is completed. Any error but a
// [*ConflictError] with an Event, and those of the requests that follow it,
// leaves everything as it was.
//
// The order of what is written is the protocol; see the package comment.
func (s *Stage) act(ctx context.Context, decide func(context.Context, *State) (decision, error)) (*Event, error) {
	tries, restarts, dead := 0, 0, map[string]bool{}
	for {
		st, err := s.Read(ctx)
		if err != nil {
			return nil, err
		}
		other, anew, err := s.inTheWay(ctx, st, "", dead)
		if err != nil {
			return nil, err
		}
		if anew {
			continue
		}
		if other != nil {
			if err := s.waitFor(ctx, &tries, *other); err != nil {
				return nil, err
			}
			continue
		}
		d, err := decide(ctx, st)
		if err != nil {
			return nil, err
		}
		if d.event == nil && !st.Pending() {
			return nil, nil
		}
		a := &attempt{Stage: s, st: st, decision: d, number: st.Number() + 1, dead: dead}
		other, done, err := a.run(ctx)
		dead[a.tag] = true // ours; it may be there still
		switch {
		case err != nil:
			return nil, err
		case done:
			return d.event, nil
		case other != nil:
			if err := s.waitFor(ctx, &tries, *other); err != nil {
				return nil, err
			}
		case restarts == maxRestarts:
			return nil, &ConflictError{Stage: s.Name, Have: st.At.Digest}
		default:
			restarts++
		}
	}
}

// waitFor waits until another's change is done, or says that it takes too long.
func (s *Stage) waitFor(ctx context.Context, tries *int, other Intent) error {
	if *tries == maxTries {
		return &ConflictError{Stage: s.Name, Other: &other, Have: other.To}
	}
	*tries++
	return s.pause(ctx, *tries-1, other)
}

// pause waits for the n-th time.
func (s *Stage) pause(ctx context.Context, n int, other Intent) error {
	wait := s.Wait
	if wait == nil {
		wait = func(n int, _ Intent) time.Duration { return firstWait<<n + mrand.N(firstWait<<n) }
	}
	timer := time.NewTimer(wait(n, other))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// readIntent reads what an intent tells of its change.
func readIntent(doc []byte) (to digest.Digest, actor string) {
	var i v1.Index
	if json.Unmarshal(doc, &i) != nil {
		return "", ""
	}
	if to = digest.Digest(i.Annotations[intentTo]); to.Validate() != nil {
		to = ""
	}
	return to, i.Annotations[intentActor]
}

// attempt is one try to change a stage.
type attempt struct {
	*Stage
	st *State
	decision
	number int
	dead   map[string]bool // intents that are listed and gone

	intent v1.Descriptor
	tag    string    // of the intent
	at     time.Time // that it says
	began  time.Time

	recorded bool // the event counts, and the tag has to follow
}

// run tries. It reports whether it is done; if not, it left nothing behind, and
// other is who was in the way, or nil if there is a new state.
func (a *attempt) run(ctx context.Context) (other *Intent, done bool, err error) {
	err = a.announce(ctx)
	if oci.Refused(err) {
		return nil, false, err // nothing is there
	}
	defer func() {
		// Also after an interrupt, so that nobody waits for us in vain.
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		a.withdraw(tidy, done)
	}()
	if err != nil {
		return nil, false, err
	}
	tags, err := a.listed(ctx, a.tag)
	if err != nil {
		return nil, false, err
	}
	now := &State{Last: a.st.Last, At: a.st.At, events: a.eventTags(tags), intents: a.liveIntents(tags)}
	if now.Number() != a.st.Number() {
		return nil, false, nil
	}
	if other, anew, err := a.inTheWay(ctx, now, a.tag, a.dead); err != nil || anew || other != nil {
		return other, false, err
	}
	// A list is not read at once. Whoever was done while we read it may be in
	// neither part: not yet with the event, no more with the intent. Now the
	// event is there.
	if tags, err = a.Record.AllTags(ctx); err != nil {
		return nil, false, err
	}
	if now = (&State{events: a.eventTags(tags)}); now.Number() != a.st.Number() {
		return nil, false, nil
	}
	if err := a.settle(ctx); err != nil {
		return nil, false, err
	}
	if a.event == nil {
		return nil, true, nil
	}
	if err := a.record(ctx); err != nil {
		return nil, false, err
	}
	if a.doc != nil && !a.stays && a.st.At.Digest != a.about.Digest {
		if err := a.move(ctx, a.about, a.doc); err != nil {
			return nil, false, err
		}
	}
	return nil, true, nil
}

// announce puts the intent, an empty index that is like no other.
func (a *attempt) announce(ctx context.Context) error {
	a.at = a.Record.Now()
	a.tag = tagOf(a.Name, intentKind, a.number, a.at, strings.ToLower(rand.Text()[:10]))
	annotations := map[string]string{intentNonce: rand.Text()}
	if a.event != nil {
		annotations[intentTo], annotations[intentActor] = a.event.To.String(), a.event.Actor
	}
	a.began = time.Now()
	var err error
	a.intent, err = a.Record.PutIndex(ctx, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{}, Annotations: annotations,
	}, a.tag)
	return err
}

// withdraw removes the intent, or marks it where it cannot be deleted, by anybody or
// by us. What cannot be written either ends by itself in two minutes. One whose
// event is there and whose tag is not stays, marked so that nobody waits for us: it
// says that there is something to complete.
func (a *attempt) withdraw(ctx context.Context, done bool) {
	if !done && a.recorded {
		a.mark(ctx, a.tag+leftSuffix)
	} else if err := a.Record.Drop(ctx, a.intent, a.tag); err != nil {
		a.mark(ctx, a.tag+doneSuffix)
	}
}

// mark puts a tag that says something by being there.
func (a *attempt) mark(ctx context.Context, tag string) error {
	_, err := a.Record.PutIndex(ctx, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{}, Annotations: map[string]string{intentNonce: rand.Text()},
	}, tag)
	return err
}

// listed lists the tags, among them the one that was just written.
func (a *attempt) listed(ctx context.Context, tag string) ([]string, error) {
	for n := 0; ; n++ {
		tags, err := a.Record.AllTags(ctx)
		if err != nil || slices.Contains(tags, tag) {
			return tags, err
		}
		if n == maxTries {
			return nil, &ListError{a.Name, tag}
		}
		if err := a.pause(ctx, n, Intent{Tag: tag}); err != nil {
			return nil, err
		}
	}
}

// settle moves the tag to what the newest event says, if that was interrupted, and
// tells the event to come from what. What goes back to where the tag still is
// needs no way there first, least of all a rollback.
func (a *attempt) settle(ctx context.Context) error {
	from := a.st.At.Digest
	if e := a.event; e != nil && e.To == from && from != "" && (e.Action == Held || e.Action == Unheld) {
		return nil // a hold leaves the stage where it is
	}
	if a.stays {
		if from = ""; a.st.Last != nil {
			from = a.st.Last.To
		}
	} else if a.st.Pending() {
		from = a.st.Last.To
		if a.doc == nil || a.about.Digest != a.st.At.Digest {
			d, doc, err := a.Tags.Get(ctx, from.String())
			switch {
			case errors.Is(err, oci.ErrNotFound) && a.event != nil:
				from = a.st.At.Digest // it was removed: nobody can go there
			case errors.Is(err, oci.ErrNotFound):
				return &GoneError{a.Name, from, a.st.Last.Version, err}
			case err != nil:
				return err
			default:
				if err := a.move(ctx, d, doc); err != nil {
					return err
				}
				a.st.At, a.st.Doc = d, doc
				for _, tag := range a.open(a.st.Tags, a.st.Last.Number) {
					if err := a.mark(ctx, tag+doneSuffix); err != nil {
						return err
					}
				}
			}
		}
	}
	if e := a.event; e != nil && (e.Action == Promoted || e.Action == RolledBack) {
		e.From = from
	}
	return nil
}

// record writes the event. Of two events with one number the first counts, in
// the order of their tags.
func (a *attempt) record(ctx context.Context) error {
	if err := a.late(); err != nil {
		return err
	}
	e := a.event
	e.Stage, e.Number, e.Repository = a.Name, a.number, a.side()
	now := a.Record.Now()
	if l := a.st.Last; l != nil && now.Before(recorded(l)) && recorded(l).Sub(now) < a.stale() {
		now = recorded(l) // the servers of one registry do not agree to the second
	}
	if e.Time.IsZero() {
		e.Time = now
	} else {
		e.Recorded = now
	}
	if a.st.Last != nil {
		e.Previous = a.st.Last.Digest
	}
	m, layer, err := e.pack(a.Repository, a.about)
	if err != nil {
		return err
	}
	d, doc, err := oci.Marshal(m)
	if err != nil {
		return err
	}
	e.Digest, e.Tag = d.Digest, tagOf(a.Name, eventKind, a.number, now, d.Digest.Encoded()[:shortDigest])
	err = a.Record.Put(ctx, m, d, doc, layer, e.Tag)
	a.recorded = !oci.Refused(err) // or nobody knows
	if err != nil {
		return err
	}
	tags, err := a.listed(ctx, e.Tag)
	if err != nil {
		return err
	}
	for _, tag := range a.eventTags(tags) {
		n := numberOf(tag)
		if n == a.number && tag < e.Tag || n > a.number {
			return a.lost(ctx, tag)
		}
	}
	return nil
}

// lost says that another's event counts and ours does not.
func (a *attempt) lost(ctx context.Context, tag string) error {
	a.recorded = false
	c := &ConflictError{Stage: a.Name, Event: a.event.Tag}
	if d, doc, err := a.Record.Get(ctx, tag); err == nil {
		if other, err := parseEvent(a.Name, tag, d, doc); err == nil {
			c.Have = other.To
		}
	}
	return c
}

// late returns an error if others may take us for dead soon, by our clock or by
// that of the registry: one of them stands still while a machine sleeps.
func (a *attempt) late() error {
	if max(time.Since(a.began), a.Record.Now().Sub(a.at)) <= a.stale()/2 {
		return nil
	}
	return &ConflictError{Stage: a.Name, Have: a.st.At.Digest, Late: true}
}

// move puts the tag and reads it back. If it is not known whether the registry did
// so it looks before it tries again: once the tag has moved the next one is free
// to go on, and must not be moved back.
func (a *attempt) move(ctx context.Context, d v1.Descriptor, doc []byte) error {
	for n := 0; ; n++ {
		if err := a.late(); err != nil {
			return err
		}
		putErr := a.Tags.PutDoc(oci.Once(ctx), d, doc, a.Name)
		if oci.Refused(putErr) {
			return putErr
		}
		have, err := a.Tags.Resolve(ctx, a.Name)
		if err == nil && have.Digest == d.Digest {
			return nil
		}
		if err != nil && !errors.Is(err, oci.ErrNotFound) {
			return cmp.Or(putErr, err)
		}
		tags, err := a.Record.AllTags(ctx)
		if err != nil {
			return err
		}
		if (&State{events: a.eventTags(tags)}).Number() > a.number {
			return nil
		}
		switch {
		case putErr == nil:
			return &ConflictError{Stage: a.Name, Have: have.Digest}
		case n == maxTries:
			return putErr
		}
		if err := a.pause(ctx, n, Intent{Tag: a.tag}); err != nil {
			return err
		}
	}
}
