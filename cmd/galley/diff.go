package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/diff"
	"galley/manifest/project"
	"galley/oci"
)

type diffOptions struct {
	params, exitCode, all bool
}

func (a *app) diffCmd() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff A [B]",
		Short: "Show how one model differs from another",
		Long: `Diff shows what changed from model A to model B: metrics and which of them are
better or worse, features added, removed and moved, parameters, class, versions of
libraries, where the model lies and how large it is. Each side is a reference, of
a model or of an image with one in it, a project's directory, a directory that
galley installed into, or a file: a model, a features or a summary file. Without
B it is the project here; nothing is sent.

Whether higher is better tells the metric's name, or galley.yaml. Metrics that
galley.yaml names come first, those on training data last; of the rest only what
changed is shown, unless --all is given.

From a registry it reads manifests and the two JSON files. --params reads the
models too, if their bytes differ, which costs these: then parameters and scans
are compared as well. Models in files and in layouts on this machine are always
read.

--exit-code exits with 3 unless both are the same model: the same files, features
in the same order, and the same metrics. When it was trained, by which commit and
under which name does not count.`,
		Example: `  galley diff :production
  galley diff ghcr.io/acme/fraud-detector:v41 ghcr.io/acme/fraud-detector:v42 --params
  galley diff :production . --format markdown
  galley diff old/model.joblib models/model.joblib --exit-code`,
		GroupID: groupLook,
		Args:    atLeast(1, "A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				args = append(args, ".")
			}
			return a.diff(cmd.Context(), args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.params, "params", false, "read the models too, and compare parameters and scans")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 3 if the models differ, or if that is unknown")
	f.BoolVar(&o.all, "all", false, "show metrics that did not change, and whole lists")
	a.registryFlags(f)
	f.StringVar(&a.flags.format, "format", "text", "`text`, json, markdown or go-template=TEMPLATE")
	return cmd
}

// differsError makes the exit code 3; what differs has been printed.
type differsError struct{ result diff.Result }

func (e *differsError) Error() string { return "the models: " + string(e.result) }

func (a *app) diff(ctx context.Context, from, to string, o diffOptions) error {
	if err := a.checkFormat(formatMarkdown); err != nil {
		return err
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	sides, err := a.diffSides(ctx, config, from, to)
	if err != nil {
		return err
	}
	for i, s := range sides {
		if err := a.readModel(ctx, s, sides[1-i], config, o.params); err != nil {
			return err
		}
		if len(config.Metrics) == 0 && s.config != nil {
			config = s.config
		}
	}
	r := &diffReport{old: sides[0], new: sides[1], all: o.all, colour: a.colour()}
	r.Diff = diff.Compare(r.old.facts, r.new.facts, metricOptions(config))
	if r.Result == diff.Unknown && r.Model == diff.Unknown && len(r.Metrics) == 0 && r.Features.Result == diff.Unknown {
		return &usageError{msg: fmt.Sprintf("diff %s %s: they have nothing in common that could be compared", from, to)}
	}
	text := ""
	switch a.flags.format {
	case "text":
		text = r.text()
	case formatMarkdown:
		text = r.markdown()
	}
	if err := a.show(r.json(), text); err != nil {
		return err
	}
	if o.exitCode && r.Result != diff.Same {
		return &differsError{r.Result}
	}
	return nil
}

// metricOptions are the aliases of galley.yaml, and which way metrics improve.
func metricOptions(c *project.Config) diff.Options {
	o := diff.Options{Better: c.Better}
	for _, name := range c.MetricNames {
		o.Aliases = append(o.Aliases, diff.Alias{Name: name, Path: c.Metrics[name].Path})
	}
	return o
}

// diffSide is one of the two.
type diffSide struct {
	label string // as it was typed
	note  string // what it is, beyond that
	facts *manifest.Facts
	diffSideJSON

	config  *project.Config // of a project's directory
	place   *place          // of a reference
	subject *oci.Subject
}

// diffSideJSON is what a side is. Fields are only ever added.
type diffSideJSON struct {
	Reference string `json:"reference,omitempty"` // pinned
	Directory string `json:"directory,omitempty"`
	File      string `json:"file,omitempty"`
	Installed string `json:"installed,omitempty"` // from where the directory has it
	IsImage   bool   `json:"image,omitempty"`     // the reference is of an image
	Digest    string `json:"digest,omitempty"`    // of the model's artifact
	Content   string `json:"content,omitempty"`
	Name      string `json:"name,omitempty"`
	Version   string `json:"version,omitempty"`
	Trained   string `json:"trained,omitempty"`
	Revision  string `json:"revision,omitempty"`
	Class     string `json:"class,omitempty"`
}

// diffSides reads what is known of both: what lies here first, then references at
// the same time.
func (a *app) diffSides(ctx context.Context, config *project.Config, args ...string) ([]*diffSide, error) {
	sides := make([]*diffSide, len(args))
	for i, arg := range args {
		if !isHere(arg) {
			continue
		}
		var err error
		if sides[i], err = a.diffSide(ctx, config, arg); err != nil {
			return nil, err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, arg := range args {
		if isHere(arg) {
			continue
		}
		g.Go(func() (err error) {
			sides[i], err = a.diffSide(ctx, config, arg)
			return err
		})
	}
	return sides, g.Wait()
}

// isHere reports whether the argument is a directory or file, and so no reference.
func isHere(arg string) bool { return isDir(arg) || isFile(arg) || looksLikeFile(arg) }

func (a *app) diffSide(ctx context.Context, config *project.Config, arg string) (s *diffSide, err error) {
	switch {
	case isDir(arg):
		s, err = a.diffDir(ctx, arg)
	case isFile(arg), looksLikeFile(arg):
		s, err = diffFile(ctx, config, arg)
	default:
		s, err = a.diffReference(ctx, config, arg)
	}
	if err != nil {
		return nil, err
	}
	i := &s.facts.Info
	s.label, s.Digest, s.Content = arg, s.facts.Digest.String(), i.Content.String()
	s.Name, s.Version, s.Trained, s.Revision, s.Class = i.Name, i.Version, i.Trained, i.Revision, i.Class
	return s, nil
}

// diffDir takes a directory for what galley installed there, if all of it is
// there as it was, and else, or if there is a galley.yaml, for a project.
func (a *app) diffDir(ctx context.Context, dir string) (*diffSide, error) {
	s := &diffSide{diffSideJSON: diffSideJSON{Directory: dir}}
	config, err := loadConfig(dir)
	if err != nil {
		return nil, err
	}
	if !isFile(filepath.Join(dir, configName)) {
		if s.facts, err = oci.InstalledFacts(ctx, dir, oci.FactsOptions{}); err != nil {
			return nil, err
		}
	}
	if s.facts != nil {
		record, err := oci.ReadRecord(dir)
		if err != nil {
			return nil, err
		}
		s.Installed = record.Repository + "@" + record.Digest.String()
		s.note = "installed from " + record.Repository
		return s, nil
	}
	p, err := a.packDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	s.facts, s.config, s.note = p.Facts(), config, "not pushed"
	s.facts.Digest = "" // nobody has it yet
	return s, nil
}

// diffFile reads one file.
func diffFile(ctx context.Context, config *project.Config, name string) (*diffSide, error) {
	in := manifest.Input{Path: filepath.Base(name), Open: func() (fs.File, error) { return openRegular(name) }}
	if manifest.CheckPath(in.Path) != nil {
		in.Path = "file" + filepath.Ext(name) // its name does not matter
	}
	facts, err := manifest.FileFacts(ctx, in, manifest.PackOptions{FeaturesPath: config.Features.Path, Allow: config.Allow})
	if e, ok := errors.AsType[*manifest.FileError](err); ok {
		err = e.Err
	}
	if err != nil {
		return nil, fmt.Errorf("diff %s: %w", name, pathCause(err))
	}
	for _, s := range facts.Scans {
		if err := elsewhere("diff", name, s.Report); err != nil {
			return nil, err
		}
	}
	return &diffSide{facts: facts, note: "a file", diffSideJSON: diffSideJSON{File: name}}, nil
}

// diffReference reads the model, or the image with a model in it, that a
// reference names.
func (a *app) diffReference(ctx context.Context, config *project.Config, arg string) (*diffSide, error) {
	p, err := a.open(ctx, arg)
	if err != nil {
		return nil, err
	}
	found, err := oci.FindFacts(ctx, p.Target, p.ref.TagOrDigest(), oci.FactsOptions{FeaturesPath: config.Features.Path})
	if err != nil {
		return nil, a.notFound(ctx, p, p.explain("diff", err))
	}
	s := &diffSide{facts: found.Facts, place: p, subject: found}
	s.Reference, s.IsImage = p.ref.At(found.Root.Digest).String(), found.IsImage
	s.note = "sha256:" + oci.Short(found.Root.Digest)
	if s.IsImage {
		s.note = "image of sha256:" + oci.Short(found.Model)
	}
	return s, nil
}

// readModel reads the model of a side where that tells something of the other's:
// it is asked for, costs no transfer, or only the bytes tell whether they are the
// same.
func (a *app) readModel(ctx context.Context, s, other *diffSide, config *project.Config, asked bool) error {
	own, others := s.facts.FileDigest, other.facts.FileDigest
	switch {
	case s.subject == nil, others == "" && other.facts.Path == "", own == others && own != "":
		return nil
	case !asked && own != "" && s.place.ref.Kind == oci.Registry:
		return nil
	}
	progress, stop := a.progress(s.place.ref.Registry)
	err := s.subject.Read(ctx, oci.FactsOptions{Scan: true, FeaturesPath: config.Features.Path, Allow: config.Allow, Progress: progress})
	stop()
	if err != nil {
		return s.place.explain("diff", err)
	}
	s.Class = s.facts.Info.Class
	return nil
}
