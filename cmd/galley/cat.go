package main

import (
	"context"
	"io"
	"path"

	"github.com/spf13/cobra"

	"galley/oci"
)

func (a *app) catCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cat REF PATH",
		Short: "Print one file of an artifact",
		Long: `Cat prints one file of an artifact to stdout. Only the layer that holds it is
fetched, and verified as it streams: what came out is right only if the exit code
is 0. Binary data is not printed on a terminal.`,
		Example: `  galley cat ghcr.io/acme/fraud-detector:v42 data/training_summary.json
  galley cat :candidate data/selected_features.json`,
		GroupID: groupMake,
		Args:    exactly("REF", "PATH"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.cat(cmd.Context(), args[0], args[1]) },
	}
	a.registryFlags(cmd.Flags())
	return cmd
}

func (a *app) cat(ctx context.Context, s, file string) error {
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	m, err := oci.Read(ctx, p.Target, p.ref.TagOrDigest())
	if err != nil {
		return a.notFound(ctx, p, p.explain("cat", err))
	}
	out := a.out
	if isTerminal(out) {
		out = &terminal{w: out, hint: "galley cat " + p.ref.String() + " " + shellWord(file) + " > " + shellWord(path.Base(file))}
	}
	// No bars: they would run into the file.
	err = oci.Cat(ctx, m, path.Clean(file), out, nil)
	if as[*usageError](err) {
		return err
	}
	return p.explain("cat", err)
}

// terminal refuses what would steer it.
type terminal struct {
	w    io.Writer
	hint string
	last byte
}

func (t *terminal) Write(p []byte) (int, error) {
	for _, c := range p {
		// In UTF-8 the C1 control characters are c2 80 to c2 9f.
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f || t.last == 0xc2 && c >= 0x80 && c < 0xa0 {
			return 0, &usageError{msg: "the file is binary, and stdout is a terminal", hint: t.hint}
		}
		t.last = c
	}
	return t.w.Write(p)
}
