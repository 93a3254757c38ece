package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// tool is a program that carries files to a registry and back.
type tool struct {
	name, version string
	binary        string
	push          func(p *project, ref string) []string
	pull          func(ref, out string) []string
	tar           bool              // it pulls a tar archive instead of files
	skip          map[string]string // inputs it is spared, and why
}

// peers are the tools that galley is measured against, each used as its help
// says.
var peers = []struct {
	tool
	module string
}{
	{tool{
		name: "oras", version: "v1.3.6",
		push: func(p *project, ref string) []string {
			return append([]string{"push", "--plain-http", ref}, p.files...)
		},
		pull: func(ref, out string) []string { return []string{"pull", "--plain-http", ref, "-o", out} },
	}, "oras.land/oras/cmd/oras"},
	{tool{
		name: "crane", version: "v0.20.6",
		push: func(p *project, ref string) []string { return []string{"append", "-f", p.tar, "-t", ref} },
		pull: func(ref, out string) []string { return []string{"export", ref, filepath.Join(out, tarFile)} },
		tar:  true,
		skip: map[string]string{random1G.name: "it compresses 1 GiB of random bytes twice with one core, for more than a minute"},
	}, "github.com/google/go-containerregistry/cmd/crane"},
	{tool{
		name: "regctl", version: "v0.11.7",
		push: func(p *project, ref string) []string {
			args := []string{"artifact", "put", "--artifact-type", "application/x-model", "--file-title"}
			for _, f := range p.files {
				args = append(args, "-f", f, "-m", "application/octet-stream")
			}
			return append(args, "--host", plainHost(ref), ref)
		},
		pull: func(ref, out string) []string {
			return []string{"artifact", "get", "--host", plainHost(ref), ref, "-o", out}
		},
	}, "github.com/regclient/regclient/cmd/regctl"},
}

// plainHost tells regctl to speak plain HTTP.
func plainHost(ref string) string { return "reg=" + registryOf(ref) + ",tls=disabled" }

// install builds galley, the first, and its peers, which are kept.
func (b *bench) install(ctx context.Context) ([]tool, error) {
	galley := tool{
		name: "galley", version: "of this tree", binary: filepath.Join(b.work, "galley"),
		push: func(_ *project, ref string) []string { return []string{"push", ref} },
		pull: func(ref, out string) []string { return []string{"pull", ref, "-o", out} },
	}
	if err := b.goCommand(ctx, "", "build", "-trimpath", "-buildvcs=false", "-o", galley.binary, "./cmd/galley"); err != nil {
		return nil, err
	}
	tools := []tool{galley}
	for _, p := range peers {
		dir := filepath.Join(b.cache, "bin", p.name+"-"+p.version)
		p.binary = filepath.Join(dir, p.name)
		if _, err := os.Stat(p.binary); err != nil {
			if err := b.goCommand(ctx, dir, "install", p.module+"@"+p.version); err != nil {
				return nil, err
			}
		}
		tools = append(tools, p.tool)
	}
	return tools, nil
}

func (b *bench) goCommand(ctx context.Context, bin string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}
