package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
)

type pullOptions struct {
	safety
	dir             string
	only            []string
	force           bool
	keepUnreachable bool
	noCache         bool
}

func (a *app) pullCmd() *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use:   "pull REF",
		Short: "Install a model's files in a directory",
		Long: `Pull installs the files of an artifact, made by galley, oras, modctl or kit.
Everything is fetched and verified before the first file gets its name: after a
failure the directory is as it was. A layer of which all files are there and right
is not fetched, and a file that nobody touched since it was last read is not read
again, unless --no-cache says so: an unchanged pull is one request, and by digest
none. A file that galley did not put there, and that is not committed in Git
as it is, is not replaced. Files of an earlier pull that this artifact lacks are
removed, unless they were changed.

A connection that is cut is taken up where it was. What came of a layer of 16 MiB
or more is kept in .galley and continued by the next pull, whatever ended this
one, unless it came faster than 1 Gbit/s and would do so again. Layers of 64 MiB
or more come over several connections, where one is slower than that.

What may be unpickled is scanned on its way, and refused (exit 3) where loading
it would run code, or nobody can tell.`,
		Example: `  galley pull ghcr.io/acme/fraud-detector:v42
  galley pull ghcr.io/acme/fraud-detector:production -o /app
  galley pull :candidate --only '*.json'`,
		GroupID: groupMake,
		Args:    exactly("REF"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.pull(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.dir, "output", "o", ".", "`directory` to install in")
	f.StringArrayVar(&o.only, "only", nil, "install only files that match `glob`, a path, directory or name")
	f.BoolVar(&o.force, "force", false, "replace files that galley did not put there")
	f.BoolVar(&o.keepUnreachable, "keep-if-unreachable", false, "when the registry cannot be reached, be content with what REF named before, if it is installed")
	f.BoolVar(&o.noCache, "no-cache", false, "read every file that is there, also where it was not touched since")
	o.safety.flags(f)
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

// pulled is the answer of pull.
type pulled struct {
	written
	Directory string   `json:"directory"`
	Installed []string `json:"installed"`
	Kept      []string `json:"kept"`
	Removed   []string `json:"removed"`
}

func (a *app) pull(ctx context.Context, s string, o pullOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if err := o.safety.check(); err != nil {
		return err
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	progress, stop := a.progress(p.ref.Registry)
	options := oci.InstallOptions{
		Only: o.only, Force: o.force, Clean: cleanIn, Concurrency: a.flags.concurrency, Progress: progress,
		Allow: append(config.Allow, o.allow...), Strict: o.strict, Unsafe: o.allowUnsafe, NoCache: o.noCache,
		Waiting: func() { a.note("waiting for another galley in %s", o.dir) },
	}
	done, err := oci.Pull(ctx, p.Target, p.ref, o.dir, options)
	stop()
	if err != nil {
		err = p.explain("pull", err)
		if o.keepUnreachable && (errors.Is(err, oci.ErrUnreachable) || a.timedOut()) {
			// The time was the registry's, not that of what is here.
			done, err = a.keepInstalled(context.WithoutCancel(ctx), p, o.dir, options, err)
		}
	}
	if err != nil {
		return a.notFound(ctx, p, &failedAt{err, p.ref})
	}
	a.warnMoving(oci.TagRules{Versions: config.Versions}, p.ref, done.Digest, "ARG MODEL=")
	a.tellScans(done.Scans, o.safety)
	for _, s := range done.Scans {
		for _, w := range s.Report.Warnings {
			a.warn("%s: %s", printable(s.Path), printable(w))
		}
	}
	a.tellPulled(p.ref, done, o.dir)
	ref := p.ref.At(done.Digest)
	return a.show(pulled{
		written{ref.String(), ref.Digest.String(), nil}, o.dir, notNil(done.Written), notNil(done.Kept), notNil(done.Removed),
	}, ref.String()+"\n")
}

// tellPulled says what an install did.
func (a *app) tellPulled(ref oci.Reference, done oci.Installed, dir string) {
	for _, f := range done.Changed {
		a.warn("%s was changed after an interrupted pull; it is left as it is", f)
	}
	for _, f := range done.Written {
		a.note("installed  %s", f)
	}
	for _, f := range done.Removed {
		a.note("removed    %s", f)
	}
	for _, f := range done.Left {
		a.warn("%s is not in %s any more, but was changed here; it is left as it is", f, ref)
	}
	if len(done.Written)+len(done.Removed) == 0 {
		a.note("unchanged: %s in %s", plural(len(done.Kept), "file"), dir)
	} else if len(done.Kept) > 0 {
		a.note("unchanged  %s", strings.Join(done.Kept, ", "))
	}
}

// keepInstalled is content with what the reference named when it was pulled
// last, if that is here and whole; else the cause is the error.
func (a *app) keepInstalled(ctx context.Context, p *place, dir string, o oci.InstallOptions, cause error) (oci.Installed, error) {
	done, ok, err := oci.Keep(ctx, p.ref, dir, o)
	if err != nil || !ok {
		return oci.Installed{}, errors.Join(cause, err)
	}
	a.warn("%s; keeping %s", cause, p.ref.At(done.Digest))
	return done, nil
}

// notNil makes an empty list of none, as JSON's readers expect.
func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
