package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"galley/manifest"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
)

// packOptions are the flags of commands that pack a project.
type packOptions struct {
	name, version, created, trained string
	layerFormat                     string
	annotations                     []string
	noVCS                           bool
	noCache                         bool
	allow                           []string // globals of pickles, besides galley.yaml's
	// lookUp asks for the tags, where the artifact is to be pushed, as soon as its
	// files are found; or nil.
	lookUp func() *oci.Lookup
}

func (o *packOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "name", "", "the model's `name` (galley.yaml's, else from the repository)")
	f.StringVar(&o.version, "model-version", "", "the model's `version` (galley.yaml's, else none)")
	f.StringVar(&o.created, "created", "", "creation `time`, RFC 3339 (SOURCE_DATE_EPOCH, else the commit's)")
	f.StringVar(&o.trained, "trained", "", "training `time`, ISO 8601 (else from the JSON files)")
	f.StringVar(&o.layerFormat, "layer-format", string(manifest.FormatTarGzip), "how the model is packed: tar+gzip, tar, tar+zstd or raw")
	f.StringArrayVarP(&o.annotations, "annotation", "a", nil, "add `key=value` to the manifest's annotations")
	f.BoolVar(&o.noVCS, "no-vcs", false, "do not ask Git or the CI for revision and source")
}

// keepArgs are the flags that make the same artifact for another repository.
func (o *packOptions) keepArgs(p *packed) []string {
	var args []string
	for _, f := range []struct{ flag, value string }{
		{"--name", p.Info().Name}, {"--model-version", o.version}, {"--created", o.created}, {"--trained", o.trained},
	} {
		if f.value != "" && (f.flag != "--name" || f.value != p.config.Name) {
			args = append(args, f.flag, f.value)
		}
	}
	if o.layerFormat != string(manifest.FormatTarGzip) {
		args = append(args, "--layer-format", o.layerFormat)
	}
	for _, a := range o.annotations {
		args = append(args, "-a", a)
	}
	if o.noVCS {
		args = append(args, "--no-vcs")
	}
	return args
}

// packed is a project, packed.
type packed struct {
	*manifest.Packed
	selection *project.Selection
	config    *project.Config
	root      *os.Root
}

// Close releases the project's directory.
func (p *packed) Close() error { return p.root.Close() }

// pack packs the project in dir: what args name, else what is found.
func (a *app) pack(ctx context.Context, dir string, args []string, repository oci.Reference, o packOptions) (*packed, error) {
	config, err := loadConfig(dir)
	if err != nil {
		return nil, err
	}
	opts, err := a.manifestOptions(o, config)
	if err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = lastComponent(repository)
	}
	find := project.Options{Config: config, Open: openRegular}
	for _, s := range args {
		arg, err := project.ParseArg(s)
		if err != nil {
			return nil, err
		}
		find.Args = append(find.Args, arg)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	p := &packed{config: config, root: root}
	if p.selection, err = project.Find(ctx, root.FS(), find); err != nil {
		err = severalModels(ctx, root.FS(), find, args, repository, err)
	} else {
		var ahead *oci.Lookup
		if o.lookUp != nil {
			ahead = o.lookUp()
		}
		a.addVCS(ctx, dir, p.selection, o, &opts)
		progress, stop := a.progress("")
		opts.Read, opts.Ahead = reading(progress), ahead.Ahead(a.rulesOf(config, repository), progress)
		if !o.noCache {
			opts.Cache = oci.NewFileCache(a.env)
		}
		p.Packed, err = manifest.Pack(ctx, p.inputs(), opts)
		stop()
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return p, nil
}

// packDir packs the project in dir as a push from there would, and says what is
// odd about it.
func (a *app) packDir(ctx context.Context, dir string) (*packed, error) {
	repository, err := a.repository(dir)
	if err != nil {
		return nil, err
	}
	ref, err := oci.ParseReference(repository)
	if repository != "" && err != nil {
		return nil, err
	}
	p, err := a.pack(ctx, dir, nil, ref, packOptions{layerFormat: string(manifest.FormatTarGzip)})
	if err != nil {
		return nil, err
	}
	for _, w := range p.Warnings {
		a.warn("%s", printable(w))
	}
	return p, nil
}

// openRegular opens a file outside the project. Opening a pipe would wait for
// its other end.
func openRegular(name string) (fs.File, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: project.ErrNotRegular}
	}
	return os.Open(name)
}

// severalModels adds to the error that there are several models one ready
// command for each, with everything that goes with it.
func severalModels(ctx context.Context, fsys fs.FS, find project.Options, args []string, to oci.Reference, err error) error {
	several, ok := errors.AsType[*project.SeveralModelsError](err)
	if !ok {
		return err
	}
	ref := "REF"
	if to != (oci.Reference{}) {
		ref = to.String()
	}
	var hints []string
	for _, m := range several.Models {
		words := []string{"galley push", ref}
		if len(args) > 0 {
			for _, arg := range args {
				if arg == m.Path {
					arg += ":" + string(manifest.RoleModel)
				}
				words = append(words, shellWord(arg))
			}
			hints = append(hints, strings.Join(words, " "))
			continue
		}
		config := *find.Config
		config.Files.Model = m.Path
		selection, ferr := project.Find(ctx, fsys, project.Options{Config: &config})
		if ferr != nil {
			return err
		}
		for _, f := range selection.Files {
			words = append(words, shellWord(f.Path+":"+string(f.Role)))
		}
		hints = append(hints, strings.Join(words, " "))
	}
	return &hinted{err, hints}
}

// inputs are the selected files.
func (p *packed) inputs() []manifest.Input {
	var in []manifest.Input
	for _, f := range p.selection.Files {
		i := manifest.FromFS(p.root.FS(), f.Path, f.As, f.Role)
		if f.External {
			i.Open = func() (fs.File, error) { return openRegular(f.Path) }
		}
		i.MediaType = f.MediaType
		in = append(in, i)
	}
	return in
}

// manifestOptions are what flags, galley.yaml and the environment say.
func (a *app) manifestOptions(o packOptions, c *project.Config) (opts manifest.PackOptions, err error) {
	opts = manifest.PackOptions{Name: c.Name, Version: c.Version, FeaturesPath: c.Features.Path, Allow: append(c.Allow, o.allow...)}
	if o.name != "" {
		opts.Name = o.name
	}
	if o.version != "" {
		opts.Version = o.version
	}
	for _, alias := range c.MetricNames {
		opts.MetricsFirst = append(opts.MetricsFirst, c.Metrics[alias].Path)
	}
	if opts.Format, err = manifest.ParseFormat(o.layerFormat); err != nil {
		return opts, &usageError{msg: err.Error()}
	}
	if opts.Annotations, err = keyValues(o.annotations); err != nil {
		return opts, err
	}
	if opts.Created, err = a.created(o.created); err != nil {
		return opts, err
	}
	if o.trained != "" {
		if opts.Trained, err = training.ParseTrained(o.trained); err != nil {
			return opts, &usageError{msg: fmt.Sprintf("--trained %q: want a time as in 2026-01-02T03:04:05Z", o.trained)}
		}
	}
	return opts, nil
}

func keyValues(list []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, &usageError{msg: fmt.Sprintf("--annotation %q: want key=value", s)}
		}
		m[k] = v
	}
	return m, nil
}

// created is --created or SOURCE_DATE_EPOCH; zero: what Git says.
func (a *app) created(flag string) (time.Time, error) {
	if flag != "" {
		t, err := time.Parse(time.RFC3339, flag)
		if err != nil {
			return t, &usageError{msg: fmt.Sprintf("--created %q: want a time as in 2026-01-02T03:04:05Z", flag)}
		}
		return t, nil
	}
	epoch := a.env("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, &usageError{msg: fmt.Sprintf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)}
	}
	return time.Unix(seconds, 0), nil
}

// addVCS adds what version control knows.
func (a *app) addVCS(ctx context.Context, dir string, s *project.Selection, o packOptions, opts *manifest.PackOptions) {
	if o.noVCS {
		return
	}
	var files []string
	for _, f := range s.Files {
		name := f.Path
		if !f.External {
			name = filepath.Join(dir, filepath.FromSlash(name))
		}
		files = append(files, name)
	}
	v := readVCS(ctx, dir, files, a.env)
	if v.note != "" {
		a.warn("no revision from Git: %s", v.note)
	}
	opts.Revision, opts.Source = v.revision, v.source
	if opts.Created.IsZero() {
		opts.Created = v.commit
	}
}

// lastComponent names a model after its repository.
func lastComponent(r oci.Reference) string {
	if r.Kind == oci.Layout {
		return ""
	}
	return r.Repository[strings.LastIndexByte(r.Repository, '/')+1:]
}

// tellPacked says what was taken, what was left, and why.
func (a *app) tellPacked(p *packed) {
	var rows [][]string
	sizes := make(map[string]int64)
	for f := range p.Files() {
		sizes[f.Path] = f.Size
	}
	for _, f := range p.selection.Files {
		name := f.Path
		if f.As != f.Path {
			name += " as " + f.As
		}
		rows = append(rows, []string{string(f.Role), printable(name), bytesText(sizes[f.As]), printable(f.Why)})
	}
	if !a.flags.quiet {
		fmt.Fprint(a.err, table(rows, ""))
	}
	const most = 5
	for i, l := range p.selection.Left {
		if i == most {
			a.note("left       and %d more", len(p.selection.Left)-most)
			break
		}
		a.note("left       %s: %s", printable(l.Path), printable(l.Why))
	}
	for _, w := range p.Warnings {
		a.warn("%s", printable(w))
	}
	if want := p.selection.ModelArtifact; want != "" && !p.holds(want) {
		a.warn("the summary is about %s, which is not among the files", printable(want))
	}
}

// path is where the first file of a role lies.
func (p *packed) path(role manifest.Role) string {
	for _, f := range p.selection.Files {
		if f.Role == role {
			return f.Path
		}
	}
	return string(role)
}

// holds reports whether the file was taken.
func (p *packed) holds(name string) bool {
	for _, f := range p.selection.Files {
		if f.Path == strings.TrimPrefix(name, "./") {
			return true
		}
	}
	return false
}
