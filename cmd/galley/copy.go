package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
)

func (a *app) copyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cp SOURCE TARGET",
		Short: "Copy an artifact between registries and layouts",
		Long: `Cp copies an artifact, or anything else in a registry, with everything below it.
The digest stays the same. Tags move last; a version tag that names something
else is not moved (checking and writing are two requests, for registries have no
compare-and-swap). Without a tag, the target gets the source's.`,
		Example: `  galley cp oci:outbox:v42 ghcr.io/acme/fraud-detector:v42
  galley cp ghcr.io/acme/fraud-detector:v42 registry.example.com/models/fraud:v42,candidate`,
		GroupID: groupMake,
		Args:    exactly("SOURCE", "TARGET"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.copy(cmd.Context(), args[0], args[1]) },
	}
	a.registryFlags(cmd.Flags())
	a.concurrencyFlag(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

func (a *app) copy(ctx context.Context, from, to string) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	src, err := a.open(ctx, from)
	if err != nil {
		return err
	}
	dst, tags, err := a.create(ctx, to)
	if err != nil {
		return err
	}
	if len(tags) == 0 && src.ref.Digest == "" {
		tags = []string{src.ref.TagOrDigest()}
	}
	rules, err := tagRules()
	if err != nil {
		return err
	}
	o := oci.CopyOptions{Tags: tags, Concurrency: a.flags.concurrency}
	if src.ref.Kind == oci.Registry && src.ref.Registry == dst.ref.Registry && src.ref.Repository != dst.ref.Repository {
		o.MountFrom = src.ref.Repository
	}
	progress, stop := a.progress()
	o.Progress = progress
	root, err := oci.CopyReference(ctx, dst.Target, src.Target, src.ref.TagOrDigest(), rules, o)
	stop()
	if err != nil {
		return a.copyFailed(ctx, dst, src, "copy", err)
	}
	if len(tags) > 0 {
		a.note("copied %s to %s", src.ref, dst.ref.WithTag(strings.Join(tags, ",")))
	} else {
		a.note("copied %s to %s", src.ref, dst.ref.At(root.Digest))
	}
	return a.answer(dst.ref.At(root.Digest), tags)
}

func (a *app) tagCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag REF TAG...",
		Short: "Put more tags on an artifact",
		Long: `Tag puts more tags on an artifact, in its repository. A version tag that names
something else is not moved; checking and writing are two requests, for
registries have no compare-and-swap.`,
		Example: `  galley tag ghcr.io/acme/fraud-detector:v42 candidate`,
		GroupID: groupMake,
		Args:    atLeast(2, "REF", "TAG..."),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.tag(cmd.Context(), args[0], args[1:]) },
	}
	a.registryFlags(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

func (a *app) tag(ctx context.Context, ref string, tags []string) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	src, err := a.open(ctx, ref)
	if err != nil {
		return err
	}
	// The tags are read as a push reads them, so that they meet its rules.
	dst, tags, err := a.create(ctx, src.ref.WithTag("").Name()+":"+strings.Join(tags, ","))
	if err != nil {
		return err
	}
	rules, err := tagRules()
	if err != nil {
		return err
	}
	root, err := oci.CopyReference(ctx, dst.Target, src.Target, src.ref.TagOrDigest(), rules, oci.CopyOptions{Tags: tags})
	if err != nil {
		return a.copyFailed(ctx, dst, src, "tag", err)
	}
	a.note("tagged %s as %s", src.ref, strings.Join(tags, ", "))
	return a.answer(dst.ref.At(root.Digest), tags)
}

func (a *app) resolveCmd() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:     "resolve REF",
		Aliases: []string{"digest"},
		Short:   "Print the digest that a tag names now",
		Example: `  galley resolve ghcr.io/acme/fraud-detector:candidate
  galley resolve -l :candidate`,
		GroupID: groupLook,
		Args:    exactly("REF"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.resolve(cmd.Context(), args[0], full) },
	}
	cmd.Flags().BoolVarP(&full, "full-reference", "l", false, "print repository@digest")
	a.registryFlags(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

func (a *app) resolve(ctx context.Context, s string, full bool) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	d, err := p.Resolve(ctx, p.ref.TagOrDigest())
	if err != nil {
		return a.notFound(ctx, p, p.explain("resolve", err))
	}
	pinned := p.ref.At(d.Digest)
	text := d.Digest.String()
	if full {
		text = pinned.String()
	}
	return a.show(written{pinned.String(), d.Digest.String(), nil}, text+"\n")
}

// written is the answer of a command that writes.
type written struct {
	Reference string   `json:"reference"`
	Digest    string   `json:"digest"`
	Tags      []string `json:"tags,omitempty"`
}

// answer prints the digest-pinned reference.
func (a *app) answer(ref oci.Reference, tags []string) error {
	return a.show(written{ref.String(), ref.Digest.String(), tags}, ref.String()+"\n")
}
