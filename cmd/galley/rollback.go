package main

import (
	"context"

	"github.com/spf13/cobra"

	"galley/manifest/project"
	"galley/oci"
	"galley/oci/promote"
)

type rollbackOptions struct {
	claimFlags
	to            string
	force, dryRun bool
}

func (a *app) rollbackCmd() *cobra.Command {
	var o rollbackOptions
	cmd := &cobra.Command{
		Use:   "rollback REPO:STAGE",
		Short: "Move a stage back to what it had before, and hold it there",
		Long: `Rollback points a stage at the last model in its history that it was not rolled
back from before: a second rollback goes further back. --to names a version, a
digest or a time instead. It asks no gates, but looks whether what it goes to is
still whole, and sets a hold: promotions are refused until galley unhold.

It ends with what to deploy: the image that was recorded with the promotion, or
the command that bakes one.`,
		Example: `  galley rollback :production --reason incident-7
  galley rollback ghcr.io/acme/fraud-detector production --to v41
  galley rollback :production --to 2026-03-31`,
		GroupID: groupShip,
		Args:    atLeast(1, "REPO:STAGE", "STAGE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.rollback(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "a `version`, digest or time in the stage's history")
	f.BoolVar(&o.force, "force", false, "go also to what was rolled back from, or on from a broken history; wants --reason")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "say where it would go, and write nothing")
	o.claimFlags.flags(f)
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

func (a *app) rollback(ctx context.Context, args []string, o rollbackOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if o.force && o.reason == "" {
		return &usageError{msg: "--force wants a --reason, which is recorded"}
	}
	s, config, err := a.stage(ctx, args, !o.dryRun)
	if err != nil {
		return err
	}
	out, err := s.Rollback(ctx, promote.RollbackOptions{
		Claim: a.claim(o.claimFlags), To: o.to, Force: o.force, DryRun: o.dryRun,
		Facts: oci.FactsOptions{FeaturesPath: config.Features.Path}, Concurrency: a.flags.concurrency,
	})
	if err != nil {
		return s.explain("roll back", err)
	}
	return a.showRollback(s, config, out, o)
}

// showRollback says where the stage is now, and what to deploy.
func (a *app) showRollback(s *stagePlace, config *project.Config, out *promote.Outcome, o rollbackOptions) error {
	ref := s.place.ref.At(out.Now.Digest)
	switch {
	case o.dryRun:
		a.note("dry run: %s would go back from %s to %s", out.Stage, versionText(out.Was), versionText(out.Now))
	case out.Event == nil:
		a.note("unchanged: %s has %s", out.Stage, versionText(out.Now))
	case out.Interrupted:
		a.note("completed the rollback of %s to %s that was interrupted", out.Stage, versionText(out.Now))
	default:
		a.note("rolled back %s: %s → %s", out.Stage, versionText(out.Was), versionText(out.Now))
	}
	a.tellMetrics(out, config)
	if out.Event != nil {
		a.note("%s is on hold until galley unhold %s", out.Stage, s.place.ref.WithTag(s.Name))
	}
	if out.Now.Image != "" {
		a.note("deploy %s", printable(out.Now.Image))
	} else {
		a.note("no image was recorded; to deploy it: %s", bakeHint(ref))
	}
	return a.show(promoteJSON{
		Stage: out.Stage, Reference: ref.String(), Changed: out.Event != nil, DryRun: o.dryRun,
		From: sideAnswer(out.Was), To: sideAnswer(out.Now), Hold: out.Hold, Event: out.Event, Deploy: out.Now.Image,
	}, ref.String()+"\n")
}

func (a *app) holdCmd() *cobra.Command {
	return a.holdOrUnhold(true, &cobra.Command{
		Use:   "hold REPO:STAGE",
		Short: "Refuse promotions of a stage until unhold",
		Long: `Hold makes promotions of a stage refuse (exit 3), so that no job undoes what a
person did; rollback holds by itself. Promote --force goes on all the same, and
is recorded. The hold is an event in the stage's history.`,
		Example: `  galley hold :production --reason audit`,
	})
}

func (a *app) unholdCmd() *cobra.Command {
	return a.holdOrUnhold(false, &cobra.Command{
		Use:     "unhold REPO:STAGE",
		Short:   "Let promotions of a stage go on",
		Long:    `Unhold ends a hold, of galley hold or of a rollback. It is an event in the stage's history.`,
		Example: `  galley unhold :production`,
	})
}

func (a *app) holdOrUnhold(hold bool, cmd *cobra.Command) *cobra.Command {
	var o claimFlags
	cmd.GroupID = groupShip
	cmd.Args = atLeast(1, "REPO:STAGE", "STAGE")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.hold(cmd.Context(), args, hold, o) }
	o.flags(cmd.Flags())
	a.registryFlags(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

// holdJSON is the answer of hold and unhold. Fields are only ever added.
type holdJSON struct {
	Stage     string         `json:"stage"`
	Reference string         `json:"reference"`
	Changed   bool           `json:"changed"`
	Hold      bool           `json:"hold"`
	Event     *promote.Event `json:"event,omitempty"`
}

func (a *app) hold(ctx context.Context, args []string, hold bool, o claimFlags) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	s, _, err := a.stage(ctx, args, true)
	if err != nil {
		return err
	}
	op := "hold"
	if !hold {
		op = "unhold"
	}
	e, err := s.Hold(ctx, hold, a.claim(o))
	if err != nil {
		return s.explain(op, err)
	}
	ref := s.place.ref.WithTag(s.Name)
	switch {
	case e == nil && hold:
		a.note("unchanged: %s is on hold", s.Name)
	case e == nil:
		a.note("unchanged: %s is not on hold", s.Name)
	case hold:
		a.note("%s is on hold: promotions are refused until galley unhold %s", s.Name, ref)
	default:
		a.note("%s is not on hold any more", s.Name)
	}
	j := holdJSON{Stage: s.Name, Reference: ref.String(), Changed: e != nil, Hold: hold, Event: e}
	if e != nil {
		j.Reference = s.place.ref.At(e.To).String()
	}
	return a.show(j, j.Reference+"\n")
}
