package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"galley/oci"
)

type verifyOptions struct {
	digest string
	check  bool
}

func (a *app) verifyCmd() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify REF | DIR",
		Short: "Check every byte of an artifact, an image or an installed model",
		Long: `Verify reads a whole artifact or image and recomputes every digest, size and
diffID that it tells. Of a directory it compares the files that galley installed there with
the record of the install, without a network; other files do not matter. The
directory may be read-only. An install that was interrupted is completed first;
with --check it is only reported.

Everything that does not verify is listed, and the exit code is 3. What cannot be
read at all is exit code 1. With --quiet nothing else is printed, for the
entrypoint of a container:

  galley verify --quiet --check /app && exec uvicorn main:app

Whoever may write to the directory can change the record too: verify finds
accidents there, not attacks. --digest pins which artifact it has to be.`,
		Example: `  galley verify ghcr.io/acme/fraud-detector:v42
  galley verify ghcr.io/acme/fraud-api:v42
  galley verify --quiet --check /app`,
		GroupID: groupLook,
		Args:    exactly("REF or DIR"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.digest, "digest", "", "the artifact must be the one of this `digest`")
	f.BoolVar(&o.check, "check", false, "report an interrupted install instead of completing it")
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

// verified is the answer of verify.
type verified struct {
	Reference  string   `json:"reference,omitempty"`
	Digest     string   `json:"digest,omitempty"`
	Directory  string   `json:"directory,omitempty"`
	Verified   bool     `json:"verified"`
	Partial    bool     `json:"partial,omitempty"`
	Files      int      `json:"files"`
	Blobs      int      `json:"blobs,omitempty"` // of an image
	Size       int64    `json:"size"`
	Mismatches []string `json:"mismatches"`
}

func (a *app) verify(ctx context.Context, s string, o verifyOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	vo := oci.VerifyOptions{Digest: digest.Digest(o.digest), CheckOnly: o.check, Concurrency: a.flags.concurrency}
	if o.digest != "" && vo.Digest.Validate() != nil {
		return &usageError{msg: fmt.Sprintf("--digest %.100q: want sha256: and 64 hex digits", o.digest)}
	}
	answer := verified{Mismatches: []string{}}
	var v oci.Verified
	var err error
	if isDir(s) {
		answer.Directory = s
		if v, err = oci.VerifyDir(ctx, s, vo); errors.Is(err, oci.ErrNotInstalled) {
			return &hinted{err, []string{"galley pull REF -o " + shellWord(s)}}
		}
	} else {
		v, err = a.verifyReference(ctx, s, vo)
	}
	mismatches, wrong := errors.AsType[*oci.MismatchError](err)
	if err != nil && !wrong {
		return err
	}
	if v.Digest != "" {
		answer.Reference, answer.Digest = v.Repository+"@"+v.Digest.String(), v.Digest.String()
	}
	answer.Verified, answer.Partial, answer.Files, answer.Blobs, answer.Size = err == nil, v.Partial, v.Files, v.Blobs, v.Size
	if wrong {
		for _, m := range mismatches.Mismatches {
			answer.Mismatches = append(answer.Mismatches, m.Error())
		}
	}
	text := ""
	if err == nil && !a.flags.quiet {
		what := plural(v.Files, "file")
		if v.Blobs > 0 {
			what = "an image of " + plural(v.Blobs, "blob")
		}
		a.note("verified %s, %s", what, bytesText(v.Size))
		if v.Partial {
			a.note("the install is partial: other files of the artifact are not here")
		}
		text = printable(answer.Reference) + "\n"
	}
	return errors.Join(a.show(answer, text), err)
}

func (a *app) verifyReference(ctx context.Context, s string, o oci.VerifyOptions) (oci.Verified, error) {
	p, err := a.open(ctx, s)
	if err != nil {
		return oci.Verified{}, err
	}
	progress, stop := a.progress(p.ref.Registry)
	o.Progress = progress
	v, err := oci.Verify(ctx, p.Target, p.ref, o)
	stop()
	if as[*oci.MismatchError](err) {
		return v, err
	}
	return v, a.notFound(ctx, p, p.explain("verify", err))
}
