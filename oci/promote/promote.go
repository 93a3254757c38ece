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

	"galley/manifest"
	"galley/manifest/gate"
	"galley/manifest/joblib"
	"galley/oci"
)

// Claim is who says that he changes a stage, and why.
type Claim struct {
	Actor  string // claimed
	Run    string // the CI run
	Reason string
	Tool   string // what writes the event, with its version
}

// Options say how [Stage.Promote] decides.
type Options struct {
	Claim
	// Policy is what the stage demands; nil: nothing. PolicyDigest is that of
	// the policy without what flags add; empty: there is none.
	Policy       *gate.Policy
	PolicyDigest digest.Digest
	// NewPolicy says that a policy other than the last one is meant.
	NewPolicy bool
	// Source is where the candidate is, if that is not the stage's repository; it
	// is copied, with what refers to it.
	Source oci.Target
	// From is the stage that the candidate must have passed, in all the
	// repositories where it may have; none: no stage.
	From []*Stage
	// Rules tell which tags never move.
	Rules oci.TagRules
	// ExpectCurrent is what the stage must have now; nil: whatever it has, but
	// nothing that was moved outside galley. An empty digest is an empty stage.
	ExpectCurrent *digest.Digest
	// Force promotes in spite of gates, a hold, a change of policy and a move
	// outside galley. It wants a reason.
	Force bool
	// Bootstrap waives the gates that compare with what the stage has, as long as
	// it has nothing.
	Bootstrap bool
	// AllowUnsafe promotes a model whose verdict is refused.
	AllowUnsafe bool
	// DryRun checks and writes nothing.
	DryRun bool
	// Image is what will run the model, as NAME@DIGEST; empty: unknown.
	Image string
	// At is when it happened, of an event that is brought from elsewhere; zero:
	// now.
	At time.Time
	// Facts say how the models are read.
	Facts oci.FactsOptions
	// Concurrency is how many transfers run at once; 0: [oci.DefaultConcurrency].
	Concurrency int
}

// Side is what a stage has before or after a change.
type Side struct {
	Digest  digest.Digest // what the tag names; empty: nothing
	Version string        // a tag that never moves, or what the model calls itself
	// Facts are those of the model; nil where it cannot be read.
	Facts *manifest.Facts
	// Image is what runs it, as NAME@DIGEST; empty: unknown.
	Image string
}

// Outcome is what a promotion or rollback did, or would.
type Outcome struct {
	Stage    string
	Was, Now Side
	// Event is what was recorded; nil if the stage was as it should be, and in a
	// dry run.
	Event *Event
	Gates []gate.Result
	// Pinned is the tag that keeps the artifact from being garbage.
	Pinned string
	// Interrupted says that Event is an older one, whose move was completed.
	Interrupted bool
	// Hold reports whether a hold stands.
	Hold bool
}

// Candidate is what may be promoted.
type Candidate struct {
	*oci.Subject
	// Version is the tag that never moves by which it was asked for, or else
	// what the model calls itself; it may be empty.
	Version string
	// Tag is what it was asked for by; empty: its digest.
	Tag string

	packed bool // everything is known, and nothing pushed
}

// FindCandidate reads the manifest that the tag or digest names: of a model, or of
// an image that carries one. The error is a [*manifest.NotArtifactError] for
// anything else.
func FindCandidate(ctx context.Context, t oci.Target, reference string, rules oci.TagRules) (*Candidate, error) {
	s, err := oci.FindFacts(ctx, t, reference, oci.FactsOptions{ManifestOnly: true})
	if err != nil {
		return nil, err
	}
	if s.Facts.Path == "" && !s.IsImage { // oras does not list what is in a directory
		if err := s.Read(ctx, oci.FactsOptions{Scan: true}); err != nil {
			return nil, err
		}
	}
	if s.Facts.Path == "" && !s.IsImage {
		return nil, &manifest.NotArtifactError{MediaType: s.Root.MediaType, What: "an artifact without a model"}
	}
	c := &Candidate{Subject: s, Version: s.Facts.Info.Version}
	if !oci.IsDigest(reference) {
		c.Tag = reference
	}
	fixed, err := rules.Fixed(c.Tag)
	if fixed {
		c.Version = c.Tag
	}
	return c, err
}

// PackedCandidate is a model that was not pushed yet, for a dry run.
func PackedCandidate(p *manifest.Packed) *Candidate {
	f := p.Facts()
	return &Candidate{Subject: &oci.Subject{Root: p.Root, Model: p.Root.Digest, Facts: f}, Version: f.Info.Version, packed: true}
}

// RefusedError says that gates did not hold. Nothing was changed.
type RefusedError struct {
	Stage  string
	Digest digest.Digest
	Gates  []gate.Result
}

func (e *RefusedError) Error() string {
	n := 0
	for _, g := range e.Gates {
		if g.Verdict == gate.Fail {
			n++
		}
	}
	if n == 1 {
		return fmt.Sprintf("%s refuses %s: a gate does not hold", e.Stage, oci.Short(e.Digest))
	}
	return fmt.Sprintf("%s refuses %s: %d gates do not hold", e.Stage, oci.Short(e.Digest), n)
}

// HeldError says that a hold stands.
type HeldError struct {
	Stage string
	Event *Event // the newest, which says so
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is on hold since %s", e.Stage, e.Event.Time.Format(time.RFC3339))
}

// PolicyError says that the policy is not the one of the stage's last event.
type PolicyError struct {
	Stage    string
	Was, Now digest.Digest // Now is empty where there is no policy any more
}

func (e *PolicyError) Error() string {
	if e.Now == "" {
		return fmt.Sprintf("%s had a policy at its last event (%s), and there is none now", e.Stage, oci.Short(e.Was))
	}
	return fmt.Sprintf("%s had another policy at its last event: %s, now %s", e.Stage, oci.Short(e.Was), oci.Short(e.Now))
}

// MovedError says that the tag was moved, and not by galley, or is not what it
// was expected to be.
type MovedError struct {
	Stage      string
	Have, Want digest.Digest // empty: nothing
	Expected   bool          // Want was asked for; otherwise it is the last event's
}

func (e *MovedError) Error() string {
	have := "is not there"
	if e.Have != "" {
		have = "is " + e.Have.String()
	}
	switch {
	case e.Expected && e.Want == "":
		return fmt.Sprintf("%s %s, expected nothing", e.Stage, have)
	case e.Expected:
		return fmt.Sprintf("%s %s, expected %s", e.Stage, have, e.Want)
	}
	return fmt.Sprintf("%s was moved outside galley: it %s, by its history %s", e.Stage, have, e.Want)
}

// TimeError says that an imported event does not come after those that are there,
// or has not happened yet.
type TimeError struct {
	Stage string
	At    time.Time
	Last  *Event // nil: there is none
}

func (e *TimeError) Error() string {
	at := e.At.Format(time.RFC3339)
	if e.Last != nil && e.At.Before(e.Last.Time) {
		return fmt.Sprintf("%s is before the last event of %s, at %s: histories are imported from their beginning", at, e.Stage, e.Last.Time.Format(time.RFC3339))
	}
	return at + " has not come yet"
}

// BrokenError says that the newest event of a stage cannot be believed.
type BrokenError struct {
	Stage string
	Err   error
}

func (e *BrokenError) Error() string { return fmt.Sprintf("history of %s: %v", e.Stage, e.Err) }

// Unwrap returns what is wrong with it.
func (e *BrokenError) Unwrap() error { return e.Err }

// Promote points the stage at the candidate, which its repository has, if its
// gates hold. It is idempotent: where the stage has the candidate, nothing is
// done. The outcome tells what was looked at even if the error is a
// [*RefusedError], [*HeldError], [*PolicyError] or [*MovedError]; then, and
// after any other error but a [*ConflictError], nothing was changed.
func (s *Stage) Promote(ctx context.Context, c *Candidate, o Options) (*Outcome, error) {
	if o.Image == "" && c.IsImage {
		o.Image = s.Repository + "@" + c.Root.Digest.String()
	}
	p := &promotion{change: change{Stage: s}, c: c, o: o}
	return p.do(ctx, o.DryRun, p.decide)
}

// change is one call of Promote or Rollback.
type change struct {
	*Stage
	out         Outcome
	interrupted *Event // is what there is to do: to move the tag to it
}

// do carries out what decide says, which fills in the outcome; in a dry run it
// only asks.
func (c *change) do(ctx context.Context, dryRun bool, decide func(context.Context, *State) (decision, error)) (*Outcome, error) {
	if dryRun {
		st, err := c.Read(ctx)
		if err != nil {
			return nil, err
		}
		_, err = decide(ctx, st)
		return &c.out, err
	}
	var err error
	if c.out.Event, err = c.act(ctx, decide); err == nil {
		c.out.Interrupted = c.out.Event == nil && c.interrupted != nil
		c.out.Event = cmp.Or(c.out.Event, c.interrupted)
	}
	return &c.out, err
}

// promotion is one call of Promote.
type promotion struct {
	change
	c     *Candidate
	o     Options
	asked digest.Digest // what the gates were asked about last
	known string        // the version that the stage before knows the candidate by
	gates []gate.Result
	err   error // of the gates

	current *manifest.Facts // of what the gates compared with
	brought bool
	pinned  string
}

// decide checks the candidate against the state.
func (p *promotion) decide(ctx context.Context, st *State) (decision, error) {
	p.interrupted = nil
	p.out = Outcome{Stage: p.Name, Hold: st.Held(), Now: Side{Digest: p.c.Root.Digest, Version: p.c.Version, Facts: p.c.Facts, Image: p.o.Image}}
	was := st.At.Digest
	switch imports := !p.o.At.IsZero(); {
	case imports && st.Last == nil:
		was = ""
	case imports || st.Pending():
		was = st.Last.To
	}
	p.out.Was = sideOf(st, was)
	if err := p.checkState(st); err != nil {
		return decision{}, err
	}
	there := was == p.c.Root.Digest && st.Last != nil && (p.o.Image == "" || p.o.Image == st.Last.Image) && !st.Outside()
	if there && !p.o.DryRun {
		p.out.Was.Facts, p.out.Now.Image = p.c.Facts, st.Last.Image
		if st.Pending() {
			p.interrupted = st.Last
		}
		return decision{}, nil // there already
	}
	if err := p.checkFree(st); err != nil {
		return decision{}, err
	}
	gates, err := p.check(ctx, st, was)
	p.out.Gates = gates
	if err != nil || p.o.DryRun {
		return decision{}, err
	}
	if err := p.bring(ctx); err != nil {
		return decision{}, err
	}
	if err := p.pin(ctx, st); err != nil {
		return decision{}, err
	}
	p.out.Pinned = p.pinned
	p.out.Now.Version = cmp.Or(p.out.Now.Version, p.pinned)
	// What is imported happened elsewhere: it does not move what is here.
	stays := !p.o.At.IsZero() && st.At.Digest != ""
	return decision{about: p.c.Root, doc: p.c.Doc, stays: stays, event: &Event{
		Action: Promoted, Time: p.o.At, To: p.c.Root.Digest, Model: p.c.Model, Image: p.o.Image,
		Version: clip(p.out.Now.Version), Was: clip(p.out.Was.Version), Revision: clip(p.c.Facts.Info.Revision),
		Actor: clip(p.o.Actor), Run: clip(p.o.Run), Reason: clip(p.o.Reason), Tool: p.o.Tool,
		Policy: p.o.PolicyDigest, Gates: gates, Checked: len(gates), Scan: verdictOf(p.c.Facts),
		Forced: p.forced(st, gates), Hold: st.Held(),
	}}, nil
}

// pin sees to it that a tag that never moves keeps the candidate, and names it by
// that if nothing better is known; and before the first event the same for what the
// stage has, so that there is a way back to it.
func (p *promotion) pin(ctx context.Context, st *State) error {
	first := st.Number() == 0 && st.At.Digest != "" && st.At.Digest != p.c.Root.Digest && p.o.At.IsZero()
	if p.pinned != "" && !first {
		return nil // when somebody else was at work
	}
	tags := st.Tags
	var err error
	if p.Tags != p.Record || p.o.Source != nil {
		if tags, err = p.Tags.AllTags(ctx); err != nil {
			return err
		}
	}
	if p.pinned, err = p.Tags.Pin(ctx, p.o.Rules, p.c.Root, p.c.Doc, tags, p.c.Tag, p.known); err != nil || !first {
		return err
	}
	p.out.Was.Version, err = p.Tags.Pin(ctx, p.o.Rules, st.At, st.Doc, tags)
	return err
}

// bring copies the candidate to the stage's repository, and its version tag.
func (p *promotion) bring(ctx context.Context) error {
	if p.o.Source == nil || p.brought {
		return nil
	}
	o := oci.CopyOptions{Referrers: true, Concurrency: p.o.Concurrency, Progress: p.o.Facts.Progress}
	fixed, err := p.o.Rules.Fixed(p.c.Tag)
	if err != nil {
		return err
	}
	if fixed && p.c.Tag != "" {
		o.Tags = []string{p.c.Tag}
	}
	_, err = oci.CopyReference(ctx, p.Tags.Given(), p.o.Source, p.c.Root.Digest.String(), p.o.Rules, o)
	p.brought = err == nil
	return err
}

// checkState refuses what has nothing to do with the candidate.
func (p *promotion) checkState(st *State) error {
	o := p.o
	have := st.At.Digest
	if st.Pending() {
		have = st.Last.To
	}
	switch {
	case st.Fault != nil && !o.Force:
		return &BrokenError{p.Name, st.Fault}
	case !o.At.IsZero() && (o.At.After(p.Record.Now()) || st.Last != nil && o.At.Before(st.Last.Time)):
		return &TimeError{p.Name, o.At, st.Last}
	case o.ExpectCurrent != nil && *o.ExpectCurrent != have && *o.ExpectCurrent != st.At.Digest:
		return &MovedError{Stage: p.Name, Have: st.At.Digest, Want: *o.ExpectCurrent, Expected: true}
	case st.Outside() && o.ExpectCurrent == nil && !o.Force && o.At.IsZero():
		return &MovedError{Stage: p.Name, Have: have, Want: st.Last.To}
	}
	return nil
}

// checkFree refuses a change of a stage that may not be changed, or not under this
// policy.
func (p *promotion) checkFree(st *State) error {
	o := p.o
	switch {
	case o.Force:
		return nil
	case st.Held() && !o.DryRun:
		return &HeldError{p.Name, st.Last}
	case o.DryRun && o.PolicyDigest != "": // where else should a new policy be tried?
		return nil
	case st.Last != nil && st.Last.Policy != "" && st.Last.Policy != o.PolicyDigest && !o.NewPolicy:
		return &PolicyError{p.Name, st.Last.Policy, o.PolicyDigest}
	}
	return nil
}

// forced reports whether the promotion needed force.
func (p *promotion) forced(st *State, gates []gate.Result) bool {
	if !p.o.Force {
		return false
	}
	o := p.o
	o.Force = false
	calm := &promotion{change: change{Stage: p.Stage}, c: p.c, o: o}
	return calm.checkState(st) != nil || calm.checkFree(st) != nil || gate.Failed(gates) || hasWaived(gates)
}

func hasWaived(gates []gate.Result) bool {
	return slices.ContainsFunc(gates, func(g gate.Result) bool { return g.Verdict == gate.Waived })
}

// check asks the gates, once for each thing that the stage has.
func (p *promotion) check(ctx context.Context, st *State, was digest.Digest) ([]gate.Result, error) {
	if p.gates == nil || p.asked != was {
		p.asked = was
		p.gates, p.err = p.ask(ctx, st, was)
	}
	p.out.Was.Facts = p.current
	return p.gates, p.err
}

func (p *promotion) ask(ctx context.Context, st *State, was digest.Digest) ([]gate.Result, error) {
	var err error
	if p.current, err = p.readCurrent(ctx, st, was); err != nil {
		return nil, err
	}
	gates := []gate.Result{}
	var first time.Time
	if len(p.o.From) > 0 {
		v, err := p.visited(ctx, st)
		if err != nil && !as[*BrokenError](err) {
			return nil, err
		}
		if v != nil {
			first, p.known = v.since, v.version
		}
		gates = append(gates, p.fromGates(v, err)...)
	}
	if err := p.read(ctx); err != nil {
		return nil, err
	}
	if p.o.Policy != nil {
		gates = append(gates, p.o.Policy.Check(p.c.Facts, p.current, p.Record.Now(), first)...)
	}
	if p.o.Policy == nil {
		gates = append(gates, p.safety()...)
	}
	for i := range gates {
		g := &gates[i]
		waived := p.o.Force || p.o.Bootstrap && g.First || p.o.AllowUnsafe && strings.HasPrefix(g.Gate, scanGate)
		if g.Verdict == gate.Fail && waived {
			g.Verdict = gate.Waived
		}
	}
	if gate.Failed(gates) {
		return gates, &RefusedError{p.Name, p.c.Root.Digest, gates}
	}
	return gates, nil
}

// read reads what the gates need to know of the candidate, and the model of one
// that nobody says anything of.
func (p *promotion) read(ctx context.Context) error {
	if p.c.packed {
		return nil
	}
	o := p.o.Facts
	unclaimed := p.c.Facts.Info.Scan == ""
	o.Scan = unclaimed || p.o.Policy != nil && p.o.Policy.NeedsScan()
	if p.o.Policy == nil && !o.Scan {
		return nil
	}
	err := p.c.Read(ctx, o)
	if unclaimed && err == nil && p.c.Facts.Scans != nil {
		p.c.Facts.Info.Scan = manifest.Worst(p.c.Facts.Scans).String()
	}
	return err
}

// readCurrent reads what the stage has; nil: nothing.
func (p *promotion) readCurrent(ctx context.Context, st *State, was digest.Digest) (*manifest.Facts, error) {
	if was == "" {
		return nil, nil
	}
	d, doc := st.At, st.Doc
	var err error
	if d.Digest != was { // it was recorded, and the tag not moved
		d, doc, err = p.Tags.Get(ctx, was.String())
	}
	var s *oci.Subject
	if err == nil {
		s, err = oci.SubjectOf(ctx, p.Tags.Target, d, doc)
	}
	if as[*manifest.NotArtifactError](err) || errors.Is(err, oci.ErrNotFound) {
		return nil, nil // nothing to compare with
	}
	if err != nil {
		return nil, err
	}
	if p.o.Policy != nil {
		err = s.Read(ctx, p.o.Facts)
	}
	return s.Facts, err
}

// scanGate begins the name of the gate of the verdict on the model.
const scanGate = "scan: "

// safety is the only gate where there is no policy: what was pushed in spite of
// its verdict does not go on.
func (p *promotion) safety() []gate.Result {
	text := verdictOf(p.c.Facts)
	var v joblib.Verdict
	if text == "" || v.UnmarshalText([]byte(text)) == nil && !v.Refused(false) {
		return nil
	}
	return []gate.Result{{Gate: scanGate + "declared", Candidate: text, Verdict: gate.Fail, Why: "pushed in spite of its verdict"}}
}

// verdictOf is the verdict on the model: what was found, or else what is claimed.
func verdictOf(f *manifest.Facts) string {
	if f.Scans != nil {
		return manifest.Worst(f.Scans).String()
	}
	return f.Info.Scan
}

// sideOf is what the state tells of what the stage has.
func sideOf(st *State, was digest.Digest) Side {
	side := Side{Digest: was}
	if st.Last != nil && st.Last.To == was {
		side.Version, side.Image = st.Last.Version, st.Last.Image
	}
	return side
}

// visit is when a model was in a stage for the last time.
type visit struct {
	version string // as the event has it
	since   time.Time
	spent   time.Duration
	leftAt  time.Time // when a rollback took it out; zero: none did
}

// visited tells of the model's last time in the stage before; nil if it was never
// there.
func (p *promotion) visited(ctx context.Context, st *State) (*visit, error) {
	for _, from := range p.o.From {
		if v, err := from.visited(ctx, p.c.Model, st, p.Record, p.o.Policy.Soak); err != nil || v != nil {
			return v, err
		}
	}
	return nil, nil
}

// fromGates are the gates of the stage before; v is nil if the model was never
// there, or if fault says why that is not known.
func (p *promotion) fromGates(v *visit, fault error) []gate.Result {
	r := gate.Result{Gate: "from " + p.o.From[0].Name, Verdict: gate.Pass, Candidate: "never there", Bound: "has been there"}
	switch {
	case fault != nil:
		r.Candidate, r.Verdict, r.Why = "unknown", gate.Fail, fault.Error()
	case v == nil:
		r.Verdict, r.Why = gate.Fail, "it was never promoted to "+p.o.From[0].Name
	case !v.leftAt.IsZero():
		r.Candidate = "rolled back " + v.leftAt.Format(time.RFC3339)
		r.Verdict, r.Why = gate.Fail, p.o.From[0].Name+" was rolled back from it"
	default:
		r.Candidate = "there since " + v.since.Format(time.RFC3339)
	}
	soak := p.o.Policy.Soak
	if soak == 0 || r.Verdict == gate.Fail {
		return []gate.Result{r}
	}
	s := gate.Result{Gate: "soak", Candidate: v.spent.Round(time.Second).String(), Bound: ">= " + soak.String(), Verdict: gate.Pass}
	switch {
	case v.spent < 0:
		s.Verdict, s.Why = gate.Fail, "the registry's clock runs backwards"
	case v.spent < soak:
		s.Verdict, s.Why = gate.Fail, "it has not been in "+p.o.From[0].Name+" for long enough"
	}
	return []gate.Result{r, s}
}

// visited tells of the model's last time in the stage; nil if it was never there.
// The newest events are read first, and no more than it takes to know that the
// model was there for soak.
func (s *Stage) visited(ctx context.Context, model digest.Digest, st *State, record *oci.Keeper, soak time.Duration) (*visit, error) {
	tags := st.Tags
	if record != s.Record {
		var err error
		if tags, err = s.Record.AllTags(ctx); err != nil {
			return nil, err
		}
	}
	until := s.Record.Now()
	var v *visit
	var after *Event
	newest := true
	for e, err := range s.newest(ctx, tags) {
		if err != nil {
			return nil, err
		}
		if e.Action != Promoted && e.Action != RolledBack {
			newest = false
			continue
		}
		if newest && len(s.open(tags, e.Number)) > 0 {
			// Its writer was interrupted, or refused the tag.
			if at, err := s.Tags.Resolve(ctx, s.Name); err == nil && at.Digest != e.To || errors.Is(err, oci.ErrNotFound) {
				newest = false
				continue
			}
		}
		newest = false
		switch {
		case e.Model != model && v != nil:
			return v, nil
		case e.Model != model:
			until, after = recorded(e), e
			continue
		case v == nil:
			v = &visit{version: e.Version}
			if after != nil && after.Action == RolledBack {
				v.leftAt = after.Time
			}
		}
		// When it was recorded here: what is imported claims its time.
		v.since, v.spent = recorded(e), until.Sub(recorded(e))
		if v.spent >= soak {
			break // of two events about one model the first began it
		}
	}
	return v, nil
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
