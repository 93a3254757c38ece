package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"galley/manifest"
	"galley/manifest/gate"
	"galley/manifest/nearest"
	"galley/manifest/project"
	"galley/oci"
	"galley/oci/promote"
)

type promoteOptions struct {
	claimFlags
	image, expect, policy, at string
	require, warn             []string
	dryRun, force             bool
	bootstrap, allowUnsafe    bool
	allow                     []string
}

func (a *app) promoteCmd() *cobra.Command {
	var o promoteOptions
	cmd := &cobra.Command{
		Use:   "promote REF STAGE",
		Short: "Move a stage to a model, if its gates hold",
		Long: `Promote points a stage, which is a tag such as staging or production, at a model
or at an image that bake made of it. It checks the gates of galley.yaml, records
the event in the registry, and moves the tag. The digest never changes. Where
the stage has the model already, nothing is done.

Gates are expressions over the metrics of the candidate and of what the stage has
now: roc_auc >= 0.65, recall >= current.recall * 0.97. A metric that is missing,
NaN or ambiguous fails its gate, and so does a comparison with a stage that is
empty, unless --bootstrap waives it. --require and --warn add to those of galley.yaml.
A gate that does not hold is exit 3, with a table. --dry-run only checks; REF may
then be a project's directory, before anything is pushed.

STAGE is in the repository of REF, or REPO:STAGE elsewhere: then the model is
copied there first. Where galley.yaml names stages, it has to be one of them.

Registries do not compare and swap. Promote announces itself, looks who else is
there, and reads back what it wrote: of those who use galley at most one moves a
stage at a time, as long as the registry lists what was just written. Whoever may
write to the registry can move the tag past galley; it shows in galley status.
Only a lock in Git or CI is more. --expect-current DIGEST fails unless the stage
has that now.`,
		Example: `  galley promote ghcr.io/acme/fraud-detector:v42 staging
  galley promote :candidate production --image ghcr.io/acme/fraud-api@sha256:…
  galley promote . production --dry-run
  galley promote :v42 registry.example.com/prod/fraud:production --reason release-12`,
		GroupID: groupShip,
		Args:    exactly("REF", "STAGE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.promote(cmd.Context(), args[0], args[1], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.image, "image", "", "record that this `image`, NAME@DIGEST, runs the model")
	f.StringVar(&o.expect, "expect-current", "", "fail unless the stage has this `digest` now; none: nothing")
	f.StringVar(&o.policy, "policy", "", "take the gates from this galley.yaml `file`, also if they are others than last time")
	f.StringArrayVar(&o.require, "require", nil, "a gate more: an `expression` that has to be true")
	f.StringArrayVar(&o.warn, "warn", nil, "an `expression` that warns when it is not true")
	f.StringVar(&o.at, "at", "", "record an event that happened elsewhere at this `time`, as imported")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "check the gates and write nothing")
	f.BoolVar(&o.force, "force", false, "promote in spite of gates, a hold or a move outside galley; wants --reason")
	f.BoolVar(&o.bootstrap, "bootstrap", false, "the stage is empty: waive the gates that compare with what it has")
	f.BoolVar(&o.allowUnsafe, "allow-unsafe", false, "promote although loading the model may run anything")
	f.StringArrayVar(&o.allow, "allow", nil, "let `module:name` of a pickle pass, for somebody has looked at it")
	o.claimFlags.flags(f)
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

// check fails on flags that do not go together.
func (o *promoteOptions) check() error {
	switch {
	case o.force && o.reason == "":
		return &usageError{msg: "--force wants a --reason, which is recorded"}
	case o.expect != "" && o.expect != "none" && !oci.IsDigest(o.expect):
		return &usageError{msg: fmt.Sprintf("--expect-current %q: want a digest, sha256:…, or none", o.expect)}
	case o.image != "":
		if _, d, ok := strings.Cut(o.image, "@"); !ok || !oci.IsDigest(d) {
			return &usageError{msg: fmt.Sprintf("--image %q: want NAME@sha256:…, for a tag may move", o.image), hint: "galley resolve " + shellWord(o.image)}
		}
	}
	return nil
}

// promoteJSON is the answer of promote and rollback. Fields are only ever added.
type promoteJSON struct {
	Stage     string         `json:"stage"`
	Reference string         `json:"reference"` // what the stage names now, or would
	Changed   bool           `json:"changed"`
	DryRun    bool           `json:"dryRun,omitempty"`
	Refused   string         `json:"refused,omitempty"` // why the answer is no
	From      sideJSON       `json:"from"`
	To        sideJSON       `json:"to"`
	Hold      bool           `json:"hold"`
	Gates     []gate.Result  `json:"gates,omitempty"`
	Event     *promote.Event `json:"event,omitempty"`
	Pinned    string         `json:"pinned,omitempty"` // the tag that keeps the artifact
	Deploy    string         `json:"deploy,omitempty"` // the image that runs it
}

type sideJSON struct {
	Digest  string         `json:"digest,omitempty"`
	Version string         `json:"version,omitempty"`
	Metrics map[string]any `json:"metrics,omitempty"`
}

func sideAnswer(s promote.Side) sideJSON {
	j := sideJSON{Digest: s.Digest.String(), Version: s.Version}
	if s.Facts != nil {
		j.Metrics = metricsJSON(s.Facts.Info.Metrics)
		if s.Facts.Summary != nil {
			j.Metrics = metricsJSON(s.Facts.Summary.Metrics)
		}
	}
	return j
}

func (a *app) promote(ctx context.Context, from, to string, o promoteOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	m, err := a.openMove(ctx, from, to, o)
	if err != nil {
		return err
	}
	defer m.close()
	opts, err := m.options(ctx)
	if err != nil {
		return err
	}
	out, err := m.stage.Promote(ctx, m.candidate, opts)
	if out == nil {
		return m.stage.explain("promote", err)
	}
	a.tellGates(out, opts.PolicyDigest == "" && len(o.require)+len(o.warn) == 0)
	if err != nil && (!as[*promote.RefusedError](err) || a.flags.format == "text") {
		return m.stage.explain("promote", err)
	}
	return m.answer(out, err)
}

// move is one promotion that a command is about.
type move struct {
	*app
	o         promoteOptions
	config    *project.Config // whose policy counts
	source    *place          // nil for a project
	stage     *stagePlace
	candidate *promote.Candidate
	close     func()
}

// openMove finds the candidate and the stage.
func (a *app) openMove(ctx context.Context, from, to string, o promoteOptions) (*move, error) {
	m := &move{app: a, o: o, close: func() {}}
	var err error
	if m.config, err = loadConfig("."); err != nil {
		return nil, err
	}
	if o.policy != "" {
		data, err := os.ReadFile(o.policy)
		if err != nil {
			return nil, err
		}
		policy, err := project.ParseConfig(o.policy, data)
		if err != nil {
			return nil, err
		}
		m.config.Stages, m.config.StageNames, m.config.Metrics = policy.Stages, policy.StageNames, policy.Metrics
	}
	repository, name := "", to
	if refNames(to) {
		if repository, name, err = a.stageArg([]string{to}); err != nil {
			return nil, err
		}
	} else if err := promote.CheckName(to); err != nil {
		return nil, err
	}
	if err := m.checkStage(name); err != nil {
		return nil, err
	}
	if isDir(from) {
		return m, m.openProject(ctx, from, repository, name)
	}
	if m.source, err = a.open(ctx, from); err != nil {
		return nil, err
	}
	if repository == "" {
		repository = m.source.ref.Name()
	}
	if m.stage, err = a.openStage(ctx, repository, name, m.config, !o.dryRun); err != nil {
		return nil, err
	}
	if m.candidate, err = m.find(ctx); err != nil {
		return nil, err
	}
	return m, m.checkImage(ctx)
}

// otherModelError says that an image carries another model than is promoted.
type otherModelError struct {
	image       string
	model, want digest.Digest
}

func (e *otherModelError) Error() string {
	return fmt.Sprintf("image %s carries the model %s, not %s", e.image, oci.Short(e.model), oci.Short(e.want))
}

// checkImage looks whether the image that is to be recorded carries the model.
func (m *move) checkImage(ctx context.Context) error {
	if m.o.image == "" {
		return nil
	}
	p, err := m.open(ctx, m.o.image)
	if err != nil {
		return err
	}
	c, err := promote.FindCandidate(ctx, p.Target, p.ref.TagOrDigest(), m.rules())
	m.o.image = p.ref.String()
	switch {
	case as[*manifest.NotArtifactError](err):
		m.warn("%s does not say which model it carries", m.o.image)
	case err != nil:
		return p.explain("read image", err)
	case c.Model != m.candidate.Model:
		return fmt.Errorf("promote %s: %w", m.source.ref, &otherModelError{m.o.image, c.Model, m.candidate.Model})
	}
	return nil
}

// unknownStage is a stage that galley.yaml does not know, though it knows others.
type unknownStage struct {
	*usageError
	near []string
}

func (e *unknownStage) Unwrap() error { return e.usageError }

// checkStage refuses what cannot be a stage, or is hardly meant to be one.
func (m *move) checkStage(name string) error {
	fixed, err := m.rules().Fixed(name)
	switch {
	case err != nil:
		return err
	case fixed:
		return &usageError{msg: name + " is a version, which never moves: it cannot be a stage"}
	case name == oci.DefaultTag:
		return &usageError{msg: name + " moves with every push: it cannot be a stage"}
	case len(m.config.StageNames) == 0 && m.o.policy != "" || len(m.config.StageNames) > 0 && !slices.Contains(m.config.StageNames, name):
		file := cmp.Or(m.o.policy, configName)
		near := nearest.Words(name, m.config.StageNames, 3)
		return &unknownStage{&usageError{msg: fmt.Sprintf("%s names no stage %s, so there would be no gates", file, name)},
			append(near, "in "+file+": stages: {"+name+": {}}")}
	}
	return nil
}

// find reads the candidate's manifest.
func (m *move) find(ctx context.Context) (*promote.Candidate, error) {
	ref := m.source.ref
	c, err := promote.FindCandidate(ctx, m.source.Target, ref.TagOrDigest(), m.rules())
	if err != nil {
		return nil, m.notFound(ctx, m.source, m.source.explain("promote", err))
	}
	return c, nil
}

func (m *move) rules() oci.TagRules { return oci.TagRules{Versions: m.config.Versions} }

// openProject packs the project in dir, of which only a dry run asks.
func (m *move) openProject(ctx context.Context, dir, repository, name string) error {
	if !m.o.dryRun {
		return &usageError{msg: dir + " is a directory: promote moves what is pushed", hint: "galley push, or --dry-run to ask the gates before"}
	}
	if repository == "" {
		var err error
		if repository, err = m.repository(dir); err != nil {
			return err
		}
		if repository == "" {
			return &usageError{msg: "the stage " + name + " of which repository?", hint: "galley promote " + dir + " registry.example.com/team/model:" + name + " --dry-run"}
		}
	}
	var err error
	if m.stage, err = m.openStage(ctx, repository, name, m.config, false); err != nil {
		return err
	}
	p, err := m.packDir(ctx, dir)
	if err != nil {
		return err
	}
	m.close = func() { p.Close() }
	m.candidate = promote.PackedCandidate(p.Packed)
	return nil
}

// options are what flags and galley.yaml say.
func (m *move) options(ctx context.Context) (promote.Options, error) {
	o := promote.Options{
		Claim: m.claim(m.o.claimFlags), NewPolicy: m.o.policy != "", Force: m.o.force, Bootstrap: m.o.bootstrap, AllowUnsafe: m.o.allowUnsafe,
		Rules: m.rules(), DryRun: m.o.dryRun, Image: m.o.image, Concurrency: m.flags.concurrency,
		Facts: oci.FactsOptions{FeaturesPath: m.config.Features.Path, Allow: append(m.config.Allow, m.o.allow...)},
	}
	var err error
	if m.o.at != "" {
		if o.At, _, err = promote.ParseTime(m.o.at); err != nil {
			return o, &usageError{msg: "--at: " + err.Error()}
		}
	}
	switch m.o.expect {
	case "":
	case "none":
		o.ExpectCurrent = new(digest.Digest(""))
	default:
		o.ExpectCurrent = new(digest.Digest(m.o.expect))
	}
	if m.source != nil && m.source.ref.Name() != m.stage.place.ref.Name() {
		o.Source = m.source.Target
	}
	name := m.stage.Name
	base, err := gate.New(m.config, name, nil, nil)
	if err != nil {
		return o, err
	}
	o.PolicyDigest = base.Digest()
	if o.Policy, err = gate.New(m.config, name, m.o.require, m.o.warn); err != nil {
		return o, err
	}
	if o.Policy.Empty() {
		o.Policy = nil
		return o, nil
	}
	if o.Policy.From != "" {
		o.From, err = m.fromStages(ctx, o.Policy.From)
	}
	return o, err
}

// fromStages opens the stage before: REPO:STAGE, or one of the candidate's
// repository. An image's model may have passed it in galley.yaml's.
func (m *move) fromStages(ctx context.Context, from string) ([]*promote.Stage, error) {
	if refNames(from) {
		repository, name, err := m.stageArg([]string{from})
		if err != nil {
			return nil, err
		}
		s, err := m.openStage(ctx, repository, name, m.config, false)
		if err != nil {
			return nil, err
		}
		return []*promote.Stage{s.Stage}, nil
	}
	source := m.stage.place
	if m.source != nil {
		source = m.source
	}
	stages := make([]*promote.Stage, 1)
	if source.ref.Name() == m.stage.place.ref.Name() {
		stages[0] = new(*m.stage.Stage) // with the same record, which is read once
		stages[0].Name = from
	} else if s, err := m.openStage(ctx, source.ref.Name(), from, m.config, false); err == nil {
		stages[0] = s.Stage
	} else {
		return nil, err
	}
	own, err := m.repository(".")
	if err != nil || !m.candidate.IsImage || own == "" {
		return stages, err
	}
	s, err := m.openStage(ctx, own, from, m.config, false)
	if err == nil && s.Repository != source.ref.Name() {
		stages = append(stages, s.Stage)
	}
	return stages, err
}

// tellGates shows what the gates said.
func (a *app) tellGates(out *promote.Outcome, none bool) {
	if none && out.Gates != nil {
		a.note("no gates: nothing was checked")
	}
	if len(out.Gates) == 0 || a.flags.quiet && !gate.Failed(out.Gates) {
		return
	}
	rows := [][]string{{"gate", "candidate", "current", "bound", "verdict"}}
	for _, g := range out.Gates {
		verdict := string(g.Verdict)
		if g.Why != "" {
			verdict += ": " + g.Why
		}
		rows = append(rows, []string{cell(g.Gate), cell(g.Candidate), cell(g.Current), cell(g.Bound), printable(verdict)})
	}
	fmt.Fprint(a.err, table(rows, ""))
}

// answer says what came of it.
func (m *move) answer(out *promote.Outcome, refused error) error {
	ref := m.stage.place.ref.At(out.Now.Digest)
	j := promoteJSON{
		Stage: out.Stage, Reference: ref.String(), Changed: out.Event != nil, DryRun: m.o.dryRun,
		From: sideAnswer(out.Was), To: sideAnswer(out.Now), Hold: out.Hold, Gates: out.Gates, Event: out.Event, Pinned: out.Pinned,
		Deploy: out.Now.Image,
	}
	switch {
	case refused != nil:
		j.Refused = refused.Error()
	case m.o.dryRun && out.Was.Digest == out.Now.Digest:
		m.note("dry run: %s has it already", out.Stage)
	case m.o.dryRun:
		m.note("dry run: %s would go from %s to %s", out.Stage, versionText(out.Was), versionText(out.Now))
	case out.Event == nil:
		m.note("unchanged: %s has %s", out.Stage, versionText(out.Now))
	case out.Interrupted:
		m.note("completed the promotion of %s to %s that was interrupted", out.Stage, versionText(out.Now))
	case m.o.at != "":
		m.note("imported into the history of %s: %s → %s; the tag stays where it is, if it is there", out.Stage, versionText(out.Was), versionText(out.Now))
	default:
		m.note("promoted %s: %s → %s", out.Stage, versionText(out.Was), versionText(out.Now))
	}
	m.tellMetrics(out, m.config)
	if m.o.dryRun && out.Hold {
		m.note("%s is on hold: a promotion would be refused", out.Stage)
	} else if out.Hold {
		m.note("the hold of %s still stands", out.Stage)
	}
	if err := m.show(j, ref.String()+"\n"); err != nil || refused == nil {
		return err
	}
	return m.stage.explain("promote", refused)
}

// ago is how long ago something was, as people say it.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}
