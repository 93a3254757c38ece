package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"galley/oci"
)

// copyFlags say how much of the source is copied.
type copyFlags struct{ referrers, allTags bool }

func (a *app) copyCmd() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "cp SOURCE TARGET",
		Short: "Copy an artifact between registries and layouts",
		Long: `Cp copies an artifact, or anything else in a registry, with everything below it.
The digest stays the same. Tags move last; a version tag that names something
else is not moved (checking and writing are two requests, for registries have no
compare-and-swap). Without a tag, the target gets the source's.

With --all-tags it copies whole repositories: a version tag that names something
else in the target is a conflict, which is told at the end; the rest is copied.
A layout may be a directory or a .tar file, which is written anew as a whole.`,
		Example: `  galley cp oci:outbox:v42 ghcr.io/acme/fraud-detector:v42
  galley cp -r ghcr.io/acme/fraud-detector:v42 oci:/media/usb/fraud.tar
  galley cp --all-tags ghcr.io/acme/fraud-detector registry.example.com/models/fraud
  galley cp ghcr.io/acme/fraud-detector:v42 registry.example.com/models/fraud:v42,candidate`,
		GroupID: groupMake,
		Args:    exactly("SOURCE", "TARGET"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.copy(cmd.Context(), args[0], args[1], f) },
	}
	cmd.Flags().BoolVarP(&f.referrers, "recursive", "r", false, "copy what refers to it, too: signatures, records of promotions")
	cmd.Flags().BoolVar(&f.allTags, "all-tags", false, "copy every tag of a repository")
	a.registryFlags(cmd.Flags())
	a.concurrencyFlag(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

func (a *app) copy(ctx context.Context, from, to string, f copyFlags) error {
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
	if f.allTags && (len(tags) > 0 || src.ref.Name() != src.ref.String()) {
		return &usageError{msg: "--all-tags copies repositories: name them without tag and digest", hint: "galley cp --all-tags " + src.ref.Name() + " " + dst.ref.Name()}
	}
	if len(tags) == 0 && src.ref.Digest == "" {
		tags = []string{src.ref.TagOrDigest()}
	}
	rules, err := a.tagRules(dst.ref)
	if err != nil {
		return err
	}
	o := oci.CopyOptions{Tags: tags, Referrers: f.referrers, Concurrency: a.flags.concurrency}
	if src.ref.Kind == oci.Registry {
		o.Where = func(v1.Descriptor) oci.Target { return src.Target }
	}
	progress, stop := a.progress(cmp.Or(src.ref.Registry, dst.ref.Registry))
	o.Progress = progress
	if f.allTags {
		o.Tags = nil
		done, err := oci.CopyAll(ctx, dst.Target, src.Target, rules, o)
		stop()
		if err != nil {
			return a.copyFailed(ctx, dst, src, "copy", err)
		}
		return a.copiedAll(src, dst, done)
	}
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

// copiedAll answers with one reference for every artifact, in the order of its
// first tag, and ends in the conflicts.
func (a *app) copiedAll(src, dst *place, done *oci.CopiedTags) error {
	answers := []*written{}
	byDigest := make(map[string]*written)
	for _, tag := range slices.Sorted(maps.Keys(done.Tags)) {
		if slices.ContainsFunc(done.Conflicts, func(e *oci.TakenError) bool { return e.Tag == tag }) {
			continue
		}
		ref := dst.ref.At(done.Tags[tag].Digest)
		w := byDigest[ref.String()]
		if w == nil {
			w = &written{Reference: ref.String(), Digest: ref.Digest.String()}
			byDigest[w.Reference] = w
			answers = append(answers, w)
		}
		w.Tags = append(w.Tags, tag)
	}
	a.note("copied %s of %s from %s to %s", plural(len(done.Written), "tag"), plural(len(done.Tags), "tag"), src.ref, dst.ref)
	var text strings.Builder
	for _, w := range answers {
		text.WriteString(w.Reference + "\n")
	}
	err := a.show(answers, text.String())
	for _, e := range done.Conflicts {
		err = errors.Join(err, fmt.Errorf("copy %s: %w", dst.ref, e))
	}
	return err
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
	rules, err := a.tagRules(dst.ref)
	if err != nil {
		return err
	}
	from := src.Target
	if src.ref.Kind == oci.Registry {
		from = dst.Target // so that one token is good for all
	}
	root, err := oci.CopyReference(ctx, dst.Target, from, src.ref.TagOrDigest(), rules, oci.CopyOptions{Tags: tags})
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
