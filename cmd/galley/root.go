package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"

	"galley/oci"
)

// app is what every command shares.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	flags    sharedFlags

	opening sync.Mutex
	opened  *oci.Client                  // by client; nil until then
	limited context.Context              // of the command, with --timeout; nil without
	release context.CancelFunc           // of that
	shown   atomic.Pointer[mpb.Progress] // bars that lines have to stay above
	last    struct {                     // line that told of a retry
		sync.Mutex
		reason string
		at     time.Time
	}
}

// sharedFlags are the flags of several commands, with oras' names.
type sharedFlags struct {
	plainHTTP, insecure       bool
	caFile, certFile, keyFile string
	registryConfig            []string
	concurrency               int
	timeout                   time.Duration
	format                    string
	noTTY, quiet, debug       bool
	noCache                   bool // nothing is kept of registries either
}

// Command groups of the help.
const (
	groupMake  = "make"
	groupLook  = "look"
	groupShip  = "ship"
	groupOther = "other"
)

const exitCodes = `
Exit codes:
  0    done
  1    failed
  2    usage
  3    the answer is no
  4    not authorised
  5    conflict: taken, or would overwrite
  130  interrupted
`

// run is the program: it builds a fresh command tree, runs it and returns the
// exit code. It is the only place where errors are shown. Transfers write to
// errOut from several goroutines at once.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer, env func(string) string) int {
	a := &app{in: in, out: out, err: errOut, env: env, release: func() {}}
	root := a.rootCmd()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.release()
	if err == nil {
		return 0
	}
	if cause := context.Cause(ctx); cause != nil {
		err = &interruptedError{cause}
	} else if a.timedOut() && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimeout)) {
		err = &timeoutError{a.flags.timeout, err}
	}
	if !as[*differsError](err) { // which has been said
		a.showError(err)
	}
	return exitCode(err)
}

// timedOut reports whether --timeout struck.
func (a *app) timedOut() bool { return a.limited != nil && context.Cause(a.limited) == errTimeout }

func (a *app) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "galley",
		Short: "Carry a trained model to the serving container through a container registry",
		Long: `Galley carries a trained model from the training job to the serving container
through a container registry. It packs the model with its feature list and its
training summary as one OCI artifact, which any registry keeps and stock oras
can pull.

In a project, without a flag:

  galley push ghcr.io/acme/fraud-detector:v1
  galley pull ghcr.io/acme/fraud-detector:v1 -o app
`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return &usageError{msg: fmt.Sprintf("unknown command %q", args[0]), hint: "galley --help"}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch d := a.flags.timeout; {
			case d < 0:
				return &usageError{msg: fmt.Sprintf("--timeout %v: less than nothing", d), hint: cmd.CommandPath() + " --help"}
			case d > 0:
				a.limited, a.release = context.WithTimeoutCause(cmd.Context(), d, errTimeout)
				cmd.SetContext(a.limited)
			}
			return nil
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{msg: err.Error(), hint: cmd.CommandPath() + " --help"}
	})
	root.SetUsageTemplate(root.UsageTemplate() + exitCodes)
	root.AddGroup(
		&cobra.Group{ID: groupMake, Title: "Carry a model:"},
		&cobra.Group{ID: groupLook, Title: "Look at it:"},
		&cobra.Group{ID: groupShip, Title: "Ship it:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	for _, c := range []*cobra.Command{
		a.initCmd(), a.pushCmd(), a.pullCmd(), a.catCmd(), a.copyCmd(), a.tagCmd(), a.resolveCmd(), a.loginCmd(), a.logoutCmd(), a.serveCmd(),
		a.inspectCmd(), a.scanCmd(), a.diffCmd(), a.listCmd(), a.verifyCmd(), a.historyCmd(), a.statusCmd(), a.rmCmd(), a.bakeCmd(),
		a.promoteCmd(), a.rollbackCmd(), a.holdCmd(), a.unholdCmd(), a.manCmd(), a.versionCmd(),
	} {
		root.AddCommand(c)
	}
	root.AddCommand(topics()...)
	helpOf(root)
	f := root.PersistentFlags()
	f.BoolVarP(&a.flags.quiet, "quiet", "q", false, "print the answer and errors only")
	f.BoolVar(&a.flags.debug, "debug", false, "log requests to stderr")
	f.BoolVar(&a.flags.noTTY, "no-tty", false, "no progress bars, even on a terminal")
	return root
}

// helpOf makes help fail on what it does not know; cobra's prints the root's.
func helpOf(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() != "help" {
			continue
		}
		c.Run = nil
		c.RunE = func(_ *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return &usageError{msg: fmt.Sprintf("no help on %q", strings.Join(args, " ")), hint: "galley --help"}
			}
			return found.Help()
		}
	}
}

// registryFlags adds the flags of commands that talk to a registry.
func (a *app) registryFlags(f *pflag.FlagSet) {
	f.BoolVar(&a.flags.plainHTTP, "plain-http", false, "talk HTTP to the registry (loopback: always)")
	f.BoolVar(&a.flags.insecure, "insecure", false, "do not verify the registry's certificate")
	f.StringVar(&a.flags.caFile, "ca-file", "", "trust this `file` of PEM certificates too")
	f.StringVar(&a.flags.certFile, "cert-file", "", "client certificate `file` (PEM)")
	f.StringVar(&a.flags.keyFile, "key-file", "", "client key `file` (PEM)")
	f.DurationVar(&a.flags.timeout, "timeout", 0, "give up after this `time`, as in 90s or 10m (0: never)")
	f.StringArrayVar(&a.flags.registryConfig, "registry-config", nil, "credentials `file` instead of docker's config.json")
}

func (a *app) concurrencyFlag(f *pflag.FlagSet) {
	f.IntVar(&a.flags.concurrency, "concurrency", 0, "blobs to move at once (0: choose)")
}

func (a *app) formatFlag(f *pflag.FlagSet) {
	f.StringVar(&a.flags.format, "format", "text", "`text`, json or go-template=TEMPLATE")
}

// exactly wants one argument for each name and says which is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return atLeast(len(names), names...)
}

// atLeast is like exactly with names from the n-th on optional.
func atLeast(n int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		repeats := strings.HasSuffix(names[len(names)-1], "...")
		switch {
		case len(args) < n:
			return &usageError{msg: "missing " + strings.TrimSuffix(names[len(args)], "..."), hint: cmd.CommandPath() + " --help"}
		case len(args) > len(names) && !repeats:
			return &usageError{msg: fmt.Sprintf("one argument too many: %q", args[len(names)]), hint: cmd.CommandPath() + " --help"}
		}
		return nil
	}
}

// isTerminal reports whether w is one.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && cwriter.IsTerminal(int(f.Fd()))
}

// note tells the story on stderr.
func (a *app) note(format string, args ...any) {
	if !a.flags.quiet {
		fmt.Fprintf(a.err, format+"\n", args...)
	}
}

// warn tells what is odd, whatever the flags.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "galley: warning: "+format+"\n", args...)
}

func (a *app) log() *slog.Logger {
	if !a.flags.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// client is the way to every registry and layout, the same for all of a
// command's, so that they share connections and tokens.
func (a *app) client() (*oci.Client, error) {
	a.opening.Lock()
	defer a.opening.Unlock()
	if a.opened != nil {
		return a.opened, nil
	}
	root, err := oci.LocalRoot(a.env)
	if err != nil {
		return nil, err
	}
	cache := oci.CacheDir(a.env)
	if dir := a.env("GALLEY_CACHE"); dir != "" && dir != cache {
		a.warn(`GALLEY_CACHE=%s is ignored, for it is no absolute path; GALLEY_CACHE="$PWD"/%[1]s is one`, printable(shellWord(dir)))
	}
	if a.flags.noCache {
		cache = ""
	}
	var plain *bool
	if a.flags.plainHTTP {
		plain = new(true)
	}
	a.opened, err = oci.NewClient(oci.Options{
		PlainHTTP: plain, Insecure: a.flags.insecure,
		CAFile: a.flags.caFile, CertFile: a.flags.certFile, KeyFile: a.flags.keyFile,
		RegistryConfig: a.flags.registryConfig, Concurrency: a.flags.concurrency,
		LocalRoot: root, CacheDir: cache, Progress: a.retried, Log: a.log(), Env: a.env,
	})
	return a.opened, err
}

// none refuses any argument.
func none(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{msg: fmt.Sprintf("one argument too many: %q", args[0]), hint: cmd.CommandPath() + " --help"}
}
