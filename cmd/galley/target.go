package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"galley/manifest/project"
	"galley/oci"
)

// place is a repository that a command opened.
type place struct {
	oci.Target
	client *oci.Client
	ref    oci.Reference
}

// explain puts an error of the repository into words.
func (p *place) explain(op string, err error) error { return p.client.Explain(op, p.ref, err) }

// parser reads the reference s. Only ":TAG" and "@DIGEST" need the project's
// repository, and so only they need galley.yaml.
func (a *app) parser(s string) (oci.Parser, error) {
	if !strings.HasPrefix(s, ":") && !strings.HasPrefix(s, "@") {
		return oci.Parser{}, nil
	}
	repository, err := a.repository(".")
	return oci.Parser{Repository: repository}, err
}

// repository is that of the project in dir, or nothing.
func (a *app) repository(dir string) (string, error) {
	if repo := a.env("GALLEY_REPOSITORY"); repo != "" {
		return repo, nil
	}
	c, err := loadConfig(dir)
	if err != nil {
		return "", err
	}
	return c.Repository, nil
}

// loadConfig reads dir's galley.yaml; none is an empty one.
func loadConfig(dir string) (*project.Config, error) {
	name := filepath.Join(dir, configName)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &project.Config{}, nil
	}
	if err != nil {
		return nil, err
	}
	return project.ParseConfig(name, data)
}

const configName = "galley.yaml"

// variable replaces a reference that is $NAME or ${NAME} by what is in that
// variable: in an image from scratch there is no shell to do so.
func (a *app) variable(s string) (string, error) {
	name, ok := strings.CutPrefix(s, "$")
	if !ok {
		return s, nil
	}
	if braced, ok := strings.CutPrefix(name, "{"); ok {
		name = strings.TrimSuffix(braced, "}")
	}
	value := a.env(name)
	if value == "" {
		return "", &usageError{msg: fmt.Sprintf("reference %q: the variable %s is not set", s, name)}
	}
	return value, nil
}

// open opens what a reference names, for reading.
func (a *app) open(ctx context.Context, s string) (*place, error) {
	s, err := a.variable(s)
	if err != nil {
		return nil, err
	}
	p, err := a.parser(s)
	if err != nil {
		return nil, err
	}
	ref, err := p.Parse(s)
	if err != nil {
		return nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	t, err := c.Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &place{t, c, ref}, nil
}

// create opens a repository for writing, and says so when it is only here.
func (a *app) create(ctx context.Context, s string) (*place, []string, error) {
	p, err := a.parser(s)
	if err != nil {
		return nil, nil, err
	}
	ref, tags, err := p.ParseTags(s)
	if err != nil {
		return nil, nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, nil, err
	}
	if ref.Kind == oci.Local {
		if a.env("CI") != "" && a.env("GALLEY_LOCAL") == "" {
			return nil, nil, &hinted{
				fmt.Errorf("write to %s: refused in CI: the local registry goes with the runner's disk", ref),
				[]string{"name a registry, as in registry.example.com/" + ref.Repository + ", or set GALLEY_LOCAL to a directory that is kept"},
			}
		}
		dir, err := oci.LocalRoot(a.env)
		if err != nil {
			return nil, nil, err
		}
		a.note("local registry %s: only on this machine", dir)
	}
	t, err := c.Create(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	return &place{t, c, ref}, tags, nil
}

// tagRules are those of the project in the current directory for a repository.
func (a *app) tagRules(ref oci.Reference) (oci.TagRules, error) {
	c, err := loadConfig(".")
	if err != nil {
		return oci.TagRules{}, err
	}
	return a.rulesOf(c, ref), nil
}

// rulesOf are those of galley.yaml, whose stages are of its own repository.
func (a *app) rulesOf(c *project.Config, ref oci.Reference) oci.TagRules {
	rules := oci.TagRules{Versions: c.Versions}
	own := cmp.Or(a.env("GALLEY_REPOSITORY"), c.Repository)
	if r, err := oci.ParseReference(own); err == nil && r.Name() == ref.Name() {
		rules.Stages = c.StageNames
	}
	return rules
}

// warnMoving warns, in a step of an image build, of a tag that moves: the step
// stays cached when it does. line is what to put before the pinned reference.
func (a *app) warnMoving(rules oci.TagRules, ref oci.Reference, d digest.Digest, line string) {
	if ref.Digest != "" || !a.isBuild() {
		return
	}
	tag := ref.TagOrDigest()
	if fixed, err := rules.Fixed(tag); err != nil || fixed {
		return
	}
	pinned := ref.WithTag(tag)
	pinned.Digest = d
	a.warn("%s moves, and the step of a build stays cached when it does: pin it", ref.WithTag(tag))
	fmt.Fprintf(a.err, "galley: hint: %s%s\n", line, pinned)
}

// isBuild reports whether galley runs in a step of docker build, buildah or
// kaniko.
func (a *app) isBuild() bool {
	const buildkit = "buildkitsandbox" // the name that BuildKit gives its containers
	if host, err := os.Hostname(); err == nil && host == buildkit || a.env("HOSTNAME") == buildkit {
		return true
	}
	data, _ := os.ReadFile("/run/.containerenv")
	return strings.Contains(string(data), `engine="buildah`) || isDir("/kaniko")
}
