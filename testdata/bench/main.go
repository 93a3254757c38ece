// Command bench measures galley against the tools a team would use instead,
// oras, crane and regctl, in one run on one kind of registry:
//
//	make bench
//	make bench BENCH=quick
//
// Each tool pushes the same three files to an empty registry, pushes them again
// unchanged, pulls them and pulls them again, over networks that are near, far
// and narrow. The tools take turns, so that whatever else the machine does meets
// them all, and medians are told. It prints tables in Markdown, and keeps them
// with the numbers behind them.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The networks between a tool and the registry.
var (
	near   = network{name: "loopback"}
	far    = network{name: "50 ms a request", delay: 50 * time.Millisecond}
	narrow = network{name: "100 Mbit/s", bandwidth: 100_000_000 / 8}
)

// series is what is measured of one model on one network.
type series struct {
	input   *input
	network network
	rounds  int
}

func plan(quick bool) []series {
	if quick {
		return []series{
			{&forest10, near, 3}, {&forest10, far, 3}, {&forest10, narrow, 1},
			{&forest180, near, 1}, {&forest180, far, 1},
		}
	}
	return []series{
		{&forest10, near, 5}, {&forest10, far, 5}, {&forest10, narrow, 5},
		{&forest180, near, 3}, {&forest180, far, 3}, {&forest180, narrow, 2},
		{&random1G, near, 3}, {&random1G, far, 1},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == measureArg {
		if err := measureChild(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	quick := flag.Bool("quick", false, "measure less, in two minutes")
	out := flag.String("out", "", "`directory` for results.md and results.json (testdata/bench, or .cache/bench with -quick)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick bool, out string) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	cache := filepath.Join(root, ".cache")
	work, err := os.MkdirTemp("", "galley-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{root: root, cache: cache, work: work, started: time.Now()}

	b.say("building galley, oras, crane and regctl")
	tools, err := b.install(ctx)
	if err != nil {
		return err
	}
	python := b.python(ctx)
	start, registry := b.registry(tools[0].binary)
	r := &report{
		Quick: quick, Registry: registry,
		Machine: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
	for _, t := range tools {
		r.Tools = append(r.Tools, t.name+" "+t.version)
	}
	for _, s := range plan(quick) {
		p, err := b.project(ctx, s.input, python)
		if err != nil {
			return fmt.Errorf("make the %s: %w", s.input.name, err)
		}
		r.addInput(s.input.name, p.about)
		for round := range s.rounds {
			for i := range tools {
				t := tools[(i+round)%len(tools)] // nobody is always first
				if t.skip[s.input.name] != "" {
					continue
				}
				runs, err := b.measure(ctx, t, p, s.network, start)
				if err != nil {
					return fmt.Errorf("%s, %s, %s: %w", s.input.name, s.network.name, t.name, err)
				}
				r.add(s, t.name, runs)
				b.say("%s, %s, round %d of %d: %-6s %s", s.input.name, s.network.name, round+1, s.rounds, t.name, times(runs))
			}
		}
	}
	r.Seconds = time.Since(b.started).Round(time.Second).Seconds()
	dir := cmp.Or(out, filepath.Join(root, "testdata", "bench"))
	if quick && out == "" {
		dir = filepath.Join(cache, "bench")
	}
	text := r.markdown()
	fmt.Print(text)
	b.say("written to %s", dir)
	return r.write(dir, text)
}

// bench is one run of the program.
type bench struct {
	root, cache, work string // directories: the module, what is kept, what is not
	started           time.Time
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%3.0f s] %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
