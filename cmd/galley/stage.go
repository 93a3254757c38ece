package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"galley/manifest/diff"
	"galley/manifest/gate"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
	"galley/oci/promote"
)

// stagePlace is a stage that a command opened.
type stagePlace struct {
	*promote.Stage
	*place        // where its tag is
	record *place // where its events are; the same, as a rule
}

// explain puts an error of the stage into words.
func (s *stagePlace) explain(op string, err error) error {
	return &failedAt{s.place.client.Explain(op, s.place.ref.WithTag(s.Name), err), s.place.ref.WithTag(s.Name)}
}

// stageArg splits what names a stage: REPO STAGE, REPO:STAGE, :STAGE, or STAGE
// alone, which is one of the project's repository.
func (a *app) stageArg(args []string) (repository, name string, err error) {
	if len(args) == 2 {
		return args[0], args[1], promote.CheckName(args[1])
	}
	arg := args[0]
	if promote.CheckName(arg) == nil {
		project, err := a.repository(".")
		if err != nil || project != "" {
			return project, arg, err
		}
		return "", "", &usageError{
			msg:  fmt.Sprintf("%s: the stage %s of which repository?", arg, arg),
			hint: "registry.example.com/team/model:" + arg + ", or repository: in galley.yaml",
		}
	}
	p, err := a.parser(arg)
	if err != nil {
		return "", "", err
	}
	ref, err := p.Parse(arg)
	switch {
	case err != nil:
		return "", "", err
	case ref.Digest != "" || ref.Tag == "":
		return "", "", &usageError{msg: fmt.Sprintf("%s: which stage?", arg), hint: ref.Name() + ":production"}
	}
	return ref.Name(), ref.Tag, promote.CheckName(ref.Tag)
}

// openStage opens a stage of a repository.
func (a *app) openStage(ctx context.Context, repository, name string, config *project.Config, write bool) (*stagePlace, error) {
	open := func(s string) (*place, error) {
		if !write {
			return a.open(ctx, s)
		}
		p, tags, err := a.create(ctx, s)
		if err == nil && len(tags) > 0 {
			err = &usageError{msg: fmt.Sprintf("%s: a repository is wanted, without a tag", s)}
		}
		return p, err
	}
	at, err := open(repository)
	if err != nil {
		return nil, err
	}
	record := at
	if a.keepsElsewhere(config, at.ref) {
		if record, err = open(config.History); err != nil {
			return nil, err
		}
	}
	tags := oci.NewKeeper(at.Target)
	s := &promote.Stage{Name: name, Repository: at.ref.Name(), Tags: tags, Record: tags}
	if record != at {
		s.Record = oci.NewKeeper(record.Target)
	}
	return &stagePlace{s, at, record}, nil
}

// keepsElsewhere reports whether the repository's events are in galley.yaml's
// history, which is that of its own repository.
func (a *app) keepsElsewhere(config *project.Config, ref oci.Reference) bool {
	own, err := oci.ParseReference(cmp.Or(a.env("GALLEY_REPOSITORY"), config.Repository))
	return config.History != "" && err == nil && own.Name() == ref.Name()
}

// stage opens the stage that the arguments name.
func (a *app) stage(ctx context.Context, args []string, write bool) (*stagePlace, *project.Config, error) {
	repository, name, err := a.stageArg(args)
	if err != nil {
		return nil, nil, err
	}
	config, err := loadConfig(".")
	if err != nil {
		return nil, nil, err
	}
	s, err := a.openStage(ctx, repository, name, config, write)
	return s, config, err
}

// claimFlags say why a stage is changed.
type claimFlags struct{ reason string }

func (c *claimFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&c.reason, "reason", "", "why; recorded in the history as `text`")
}

func (a *app) claim(c claimFlags) promote.Claim {
	return promote.Claim{Actor: actor(a.env), Run: runURL(a.env), Reason: c.reason, Tool: "galley " + buildVersion().Version}
}

// bakeHint is the command that makes what runs a model.
func bakeHint(ref oci.Reference) string {
	return "galley bake " + ref.String() + " --base IMAGE --tag IMAGE"
}

// versionText names what is in a stage: its version and the beginning of its
// digest.
func versionText(s promote.Side) string {
	if s.Digest == "" {
		return "nothing"
	}
	if s.Version == "" {
		return oci.Short(s.Digest)
	}
	return cell(s.Version)
}

// tellMetrics shows how the metrics changed: those that galley.yaml names, or
// else the first few that did.
func (a *app) tellMetrics(out *promote.Outcome, config *project.Config) {
	const most = 6
	if out.Now.Facts == nil || out.Was.Facts == nil || out.Was.Digest == out.Now.Digest {
		return
	}
	var rows [][]string
	for _, m := range diff.Compare(out.Was.Facts, out.Now.Facts, metricOptions(config)).Metrics {
		other := len(config.MetricNames) > 0 || m.Verdict == diff.Equal || training.Metric{Path: m.Path}.OnTraining()
		if len(rows) == most || m.Name == "" && other {
			continue
		}
		c := metricChange(m)
		rows = append(rows, []string{"  " + cell(c.name), c.old + " → " + c.new, c.delta, c.mark})
	}
	if len(rows) > 0 && !a.flags.quiet {
		fmt.Fprint(a.err, table(rows, ""))
	}
}

// stageHints are the rows of the table about a stage that did not change.
var stageHints = []func(error) []string{
	hint(func(e *unknownStage) []string { return e.near }),
	hint(func(e *otherModelError) []string {
		return []string{"galley bake makes an image of this model, and names it", "galley inspect " + e.image}
	}),
	hint(refusedHint),
	stageHint(func(_ *promote.HeldError, stage string) []string {
		return []string{"galley history " + stage, "galley unhold " + stage}
	}),
	hint(func(e *promote.PolicyError) []string {
		if e.Now == "" {
			return []string{"--policy FILE names the galley.yaml that has it", "--force --reason TEXT promotes without, and is recorded"}
		}
		return []string{"--policy galley.yaml, if the change is meant", "--force --reason TEXT promotes it all the same, and is recorded"}
	}),
	stageHint(func(e *promote.MovedError, stage string) []string {
		if e.Expected {
			return []string{"galley history " + stage}
		}
		return []string{
			"galley history " + stage,
			"--expect-current " + cmp.Or(e.Have.String(), "none") + " promotes over it, if that is known",
			"galley rollback " + stage + " goes back from there, by the history",
		}
	}),
	stageHint(func(e *promote.ConflictError, stage string) []string {
		if e.Other == nil {
			return []string{"galley history " + stage}
		}
		return []string{"try again when it is done; the intent of a run that was killed counts for two minutes"}
	}),
	stageHint(func(e *promote.NoWayBackError, stage string) []string {
		if e.Bad {
			return []string{"--force --reason TEXT goes there all the same, and is recorded"}
		}
		return []string{"galley history " + stage}
	}),
	stageHint(func(_ *promote.GoneError, stage string) []string {
		return []string{"galley history " + stage, "galley rollback " + stage + " --to VERSION goes to another"}
	}),
	hint(func(*promote.ListError) []string {
		return []string{"in galley.yaml: history: REPO, of a registry that lists what it takes"}
	}),
	hint(nearestStages),
	stageHint(func(_ *promote.BrokenError, stage string) []string {
		return []string{"galley history " + stage + " shows what is wrong", "--force --reason TEXT goes on from it, and is recorded"}
	}),
}

// stageHint is a row for errors that hold an E, and may tell of which stage.
func stageHint[E error](f func(e E, stage string) []string) func(error) []string {
	return func(err error) []string {
		stage := "REPO:STAGE"
		if at, ok := errors.AsType[*failedAt](err); ok {
			stage = at.ref.String()
		}
		return hint(func(e E) []string { return f(e, stage) })(err)
	}
}

// refusedHint says what would let the gates hold.
func refusedHint(e *promote.RefusedError) []string {
	var out []string
	first := false
	for _, g := range e.Gates {
		if g.Verdict == gate.Fail {
			out = append(out, g.Hints...)
			first = first || g.First
		}
	}
	if first {
		out = append(out, "--bootstrap, for "+e.Stage+" is empty and there is nothing to compare with")
	}
	return append(out, "--force --reason TEXT promotes it all the same, and is recorded")
}

// nearestStages are those that may have been meant.
func nearestStages(at *failedAt) []string {
	e, ok := errors.AsType[*promote.UnknownStageError](at)
	if !ok {
		return nil
	}
	var out []string
	for _, name := range e.Nearest {
		out = append(out, at.ref.WithTag(name).String())
	}
	return out
}

// refNames reports whether s names a repository or an artifact in it, rather
// than a stage alone.
func refNames(s string) bool { return strings.ContainsAny(s, "/:") }
