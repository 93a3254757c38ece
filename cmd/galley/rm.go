package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
)

// rmFlags say what rm may do.
type rmFlags struct{ allTags, dryRun bool }

func (a *app) rmCmd() *cobra.Command {
	var f rmFlags
	cmd := &cobra.Command{
		Use:   "rm REF",
		Short: "Remove a tag, or an artifact with its tags",
		Long: `Rm removes a tag, alone where the registry can do that. Some registries delete by
digest only, and the artifact would go with all its tags: then rm lists them and
does nothing without --all-tags. It never removes what a stage of galley.yaml
points at.

In the local registry and in layouts the last tag takes the artifact along, with
what is attached to it, and rm frees what nothing refers to any more, once that is
an hour old. Without a tag it does only that.`,
		Example: `  galley rm ghcr.io/acme/fraud-detector:v41
  galley rm --all-tags ghcr.io/acme/fraud-detector:v41
  galley rm --dry-run fraud-detector:v1
  galley rm fraud-detector`,
		GroupID: groupMake,
		Args:    exactly("REF"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.rm(cmd.Context(), args[0], f) },
	}
	cmd.Flags().BoolVar(&f.allTags, "all-tags", false, "remove the artifact with every tag it has")
	cmd.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "say what would be removed, and remove nothing")
	a.registryFlags(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

func (a *app) rm(ctx context.Context, s string, f rmFlags) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	whole := p.ref.Tag == "" && p.ref.Digest == ""
	if whole && !f.allTags && p.ref.Kind != oci.Registry {
		done, err := oci.Free(ctx, p.Target, f.dryRun)
		if err != nil {
			return p.explain("free", err)
		}
		return a.showRemoved(p, done, f.dryRun)
	}
	if whole {
		return &usageError{msg: "rm " + p.ref.String() + ": which tag or digest?", hint: "galley rm " + p.ref.WithTag(oci.DefaultTag).String()}
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	done, err := oci.Remove(ctx, p.Target, p.ref, oci.RemoveOptions{AllTags: f.allTags, Stages: config.StageNames, Rules: oci.TagRules{Versions: config.Versions}, DryRun: f.dryRun})
	if err == nil || len(done.Tags)+len(done.Freed)+len(done.Later) > 0 || done.Manifest {
		err = errors.Join(a.showRemoved(p, done, f.dryRun), a.explainRemove(ctx, p, err))
	} else {
		err = a.explainRemove(ctx, p, err)
	}
	if err == nil && done.MayShare {
		a.noteShared(p, done)
	}
	return err
}

// explainRemove gives an error of rm its words and the command that would go
// through.
func (a *app) explainRemove(ctx context.Context, p *place, err error) error {
	shared, ok := errors.AsType[*oci.SharedError](err)
	if !ok {
		return a.notFound(ctx, p, p.explain("remove", err))
	}
	for _, tag := range shared.Tags {
		a.note("%s is %s", p.ref.WithTag(tag), shared.Digest)
	}
	if as[*oci.StageError](err) {
		return p.explain("remove", err)
	}
	return &hinted{p.explain("remove", err), []string{"galley rm --all-tags " + p.ref.String()}}
}

// noteShared says what becomes of a tag where the registry deletes by digest only.
func (a *app) noteShared(p *place, done oci.Removed) {
	if len(done.Others) == 0 {
		a.note("if the registry deletes by digest only, %s goes with this, its last tag", p.ref.At(done.Digest))
		return
	}
	for _, tag := range done.Others {
		a.note("%s is %s", p.ref.WithTag(tag), done.Digest)
	}
	a.note("if the registry deletes by digest only, rm does nothing without --all-tags")
}

// removal is the answer of rm.
type removal struct {
	Removed []string    `json:"removed"` // references
	Freed   []freedBlob `json:"freed"`
	Later   []freedBlob `json:"freedLater,omitempty"` // within their hour of grace
	Others  []string    `json:"sameDigest,omitempty"` // tags that a registry may not leave alone
	DryRun  bool        `json:"dryRun,omitempty"`
}

type freedBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// showRemoved confirms what is gone, one line each.
func (a *app) showRemoved(p *place, done oci.Removed, dryRun bool) error {
	r := removal{Removed: []string{}, Freed: []freedBlob{}, DryRun: dryRun}
	removed, freed := "removed ", "freed "
	if dryRun {
		removed, freed = "would remove ", "would free "
	}
	var text strings.Builder
	for _, tag := range done.Tags {
		r.Removed = append(r.Removed, p.ref.WithTag(tag).String())
	}
	if done.Manifest {
		r.Removed = append(r.Removed, p.ref.At(done.Digest).String())
	}
	for _, d := range done.Referrers {
		r.Removed = append(r.Removed, p.ref.At(d).String())
	}
	for _, tag := range done.Others {
		r.Others = append(r.Others, p.ref.WithTag(tag).String())
	}
	for _, ref := range r.Removed {
		text.WriteString(removed + ref + "\n")
	}
	for _, d := range done.Freed {
		r.Freed = append(r.Freed, freedBlob{d.Digest.String(), d.Size})
		text.WriteString(freed + d.Digest.String() + "  " + bytesText(d.Size) + "\n")
	}
	var later int64
	for _, d := range done.Later {
		r.Later = append(r.Later, freedBlob{d.Digest.String(), d.Size})
		later += d.Size
	}
	if len(r.Later) > 0 {
		fmt.Fprintf(&text, "%s, %s, to be freed by the next rm after an hour\n", plural(len(r.Later), "blob"), bytesText(later))
	}
	return a.show(r, text.String())
}
