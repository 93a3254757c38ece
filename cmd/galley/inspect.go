package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"galley/manifest"
	"galley/manifest/diff"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
)

type inspectOptions struct {
	against                               string
	globals, arrays, params, requirements bool
}

// deep reports whether the model itself has to be read.
func (o inspectOptions) deep() bool { return o.globals || o.arrays || o.params }

func (a *app) inspectCmd() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect REF | DIR | FILE",
		Short: "Show what a model is, without loading it",
		Long: `Inspect shows what an artifact tells of its model: name and version, when it was
trained and from which commit, class, features, files, and the metrics with the
change against what the production tag names. It reads manifests only, and of
artifacts that other tools made the small JSON files. --globals, --arrays and
--params read the model itself.

With a directory it shows what a push from there would make.

With a model file it shows what is pickled in it: the class and its parts, the
version of scikit-learn, features, classes, parameters, arrays, and what loading
it would import. The file is read, never loaded.`,
		Example: `  galley inspect ghcr.io/acme/fraud-detector:v42
  galley inspect models/random_forest_final_model.joblib --params
  galley inspect :production --requirements
  galley inspect . --format json`,
		GroupID: groupLook,
		Args:    exactly("REF, DIR or FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0], o) },
	}
	cmd.Flags().StringVar(&o.against, "against", "production", "compare the metrics with what this `tag` names")
	f := cmd.Flags()
	f.BoolVar(&o.globals, "globals", false, "list the classes and functions that loading imports")
	f.BoolVar(&o.arrays, "arrays", false, "list the arrays")
	f.BoolVar(&o.params, "params", false, "list the parameters")
	f.BoolVar(&o.requirements, "requirements", false, "print only what has to be installed to load it, for pip")
	a.registryFlags(f)
	a.formatFlag(f)
	return cmd
}

func (a *app) inspect(ctx context.Context, s string, o inspectOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if o.requirements && (o.deep() || a.flags.format != "text") {
		return &usageError{msg: "--requirements prints lines for pip, and nothing else"}
	}
	switch {
	case isDir(s):
		return a.inspectDir(ctx, s, o)
	case isFile(s), looksLikeFile(s):
		return a.inspectFile(ctx, s, o)
	}
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	m, err := oci.Read(ctx, p.Target, p.ref.TagOrDigest())
	if err != nil {
		return a.notFound(ctx, p, p.explain("inspect", err))
	}
	if o.deep() {
		return a.inspectFiles(ctx, p, m, o)
	}
	info, err := m.Describe(ctx, m)
	if err != nil {
		return p.explain("inspect", err)
	}
	if o.requirements {
		if info.Imports == nil {
			return &hinted{
				fmt.Errorf("inspect %s: the artifact does not tell what its model needs", p.ref),
				[]string{"galley inspect " + p.ref.String() + " --globals   # reads the model"},
			}
		}
		return a.showRequirements(info.Requirements())
	}
	c := &card{info: info, artifact: m.Artifact, reference: p.ref.At(m.Root.Digest).String()}
	if p.ref.Tag != "" {
		c.shown = p.ref.WithTag(p.ref.Tag).String()
	}
	if a.flags.format == "text" {
		c.config, _ = loadConfig(".") // one that is broken says nothing
		c.baseline(ctx, p, o.against)
	}
	return a.show(c.json(), c.text())
}

// isDir reports whether the argument is a directory, and so no reference.
func isDir(s string) bool {
	info, err := os.Stat(s)
	return err == nil && info.IsDir()
}

// inspectDir shows what a push would make of the project in dir, and what is
// installed there.
func (a *app) inspectDir(ctx context.Context, dir string, o inspectOptions) error {
	p, err := a.packDir(ctx, dir)
	if err != nil {
		return err
	}
	defer p.Close()
	if o.requirements {
		return a.showRequirements(p.Info().Requirements())
	}
	if o.deep() {
		return a.showCards(fileCards(p.Scans, o))
	}
	c := &card{info: p.Info(), artifact: p.Artifact, directory: dir}
	record, err := oci.ReadRecord(dir)
	if err != nil {
		return err
	}
	if record != nil {
		c.installed = record.Repository + "@" + record.Digest.String()
		if record.Partial {
			c.installed += " (in part)"
		}
	}
	return a.show(c.json(), c.text())
}

// card is what inspect shows.
type card struct {
	info      manifest.Info
	artifact  *manifest.Artifact
	reference string // pinned; empty for a directory
	shown     string // with the tag that was asked for
	directory string
	installed string

	against string // what the metrics are compared with
	base    []training.Metric
	config  *project.Config // says which way they improve; nil: their names do
}

// baseline reads the metrics to compare with. That there are none is fine.
func (c *card) baseline(ctx context.Context, p *place, tag string) {
	if tag == "" || tag == p.ref.Tag {
		return
	}
	m, err := oci.Read(ctx, p.Target, tag)
	if err != nil || m.Root.Digest == c.artifact.Root.Digest {
		return
	}
	c.base = m.Info().Metrics
	if c.against = tag; m.Info().Version != "" {
		c.against = tag + " " + m.Info().Version
	}
}

func (c *card) text() string {
	var b strings.Builder
	title := c.info.Name
	if title == "" {
		title = "model"
	}
	if c.info.Version != "" {
		title += " " + c.info.Version
	}
	fmt.Fprintf(&b, "%s\n", printable(title))
	b.WriteString(table(c.facts(), "  "))
	b.WriteString("\nfiles\n" + table(c.files(), "  "))
	if len(c.info.Metrics) > 0 {
		heading := "metrics"
		if c.against != "" {
			heading += " (change against " + printable(c.against) + ")"
		}
		b.WriteString("\n" + heading + "\n" + table(c.metrics(), "  "))
	}
	if lines := c.use(); len(lines) > 0 {
		b.WriteString("\nuse it\n  " + strings.Join(lines, "\n  ") + "\n")
	}
	return b.String()
}

// facts are the rows above the files; what is unknown has none.
func (c *card) facts() [][]string {
	i := c.info
	commit := shortCommit(i.Revision)
	if i.Source != "" && commit != "" {
		commit += " of " + i.Source
	}
	class := classText(i.Class)
	features := ""
	if i.Features >= 0 {
		features = fmt.Sprint(i.Features)
	}
	var rows [][]string
	for _, r := range [][]string{
		{"reference", c.shown}, {"digest", c.artifact.Root.Digest.String()}, {"trained", trainedText(i.Trained)},
		{"commit", commit}, {"model", class}, {"steps", stepsText(i.Steps)}, {"scikit-learn", strings.Join(i.Sklearn, " and ")},
		{"features", features}, {"scan", c.scanText()}, {"installed", c.installed},
	} {
		if r[1] != "" {
			rows = append(rows, []string{r[0], printable(r[1])})
		}
	}
	return rows
}

func (c *card) files() [][]string {
	var rows [][]string
	for _, l := range c.artifact.Layers {
		if l.Files == nil {
			rows = append(rows, []string{string(l.Role), printable(l.Title) + "/", bytesText(l.Descriptor.Size) + " packed"})
		}
		for _, f := range l.Files {
			rows = append(rows, []string{string(f.Role), printable(f.Path), bytesText(f.Size)})
		}
	}
	return rows
}

func (c *card) metrics() [][]string {
	var rows [][]string
	for _, m := range c.info.Metrics {
		by, mark := c.change(m)
		rows = append(rows, []string{printable(m.Path), m.String(), by, mark})
	}
	if c.info.Omitted > 0 {
		rows = append(rows, []string{fmt.Sprintf("and %d more in the summary", c.info.Omitted)})
	}
	return rows
}

// change is the difference to the baseline and what it means, where both have the
// number.
func (c *card) change(m training.Metric) (by, mark string) {
	for _, b := range c.base {
		if b.Path == m.Path && !m.IsBool && !b.IsBool {
			return changeText(m.Value-b.Value, diff.Judge(b, m, c.config.Better(m.Path)))
		}
	}
	return "", ""
}

// shortCommit is a commit as people read it.
func shortCommit(revision string) string {
	hash, dirty := strings.CutSuffix(revision, "-dirty")
	hash = hash[:min(12, len(hash))]
	if dirty {
		hash += "-dirty"
	}
	return hash
}

// stepsText shows a pipeline's steps.
func stepsText(steps []string) string {
	var names []string
	for _, s := range steps {
		names = append(names, shortClass(s))
	}
	return strings.Join(names, " → ")
}

// scanText is the verdict when the artifact was pushed, and what was allowed.
func (c *card) scanText() string {
	text := c.info.Scan
	if text != "" && c.directory == "" {
		text += ", says who pushed it"
	}
	if allowed := c.artifact.Allowed(); len(allowed) > 0 {
		text += "; allowed: " + strings.Join(allowed, ", ")
	}
	return text
}

// use are the lines to paste.
func (c *card) use() []string {
	if c.reference == "" {
		return nil
	}
	lines := []string{"galley pull " + c.reference}
	if need := c.info.Requirements(); len(need) > 0 {
		lines = append(lines, "pip install "+strings.Join(need, " "))
	}
	for f := range c.artifact.Files() {
		if f.Role == manifest.RoleModel && strings.HasSuffix(f.Path, ".joblib") {
			lines = append(lines, fmt.Sprintf("joblib.load(%q)", f.Path))
		}
	}
	return lines
}

// cardJSON is inspect's JSON. Fields are only ever added.
type cardJSON struct {
	Reference string            `json:"reference,omitempty"`
	Directory string            `json:"directory,omitempty"`
	Installed string            `json:"installed,omitempty"`
	Digest    string            `json:"digest"`
	MediaType string            `json:"artifactType,omitempty"`
	Name      string            `json:"name,omitempty"`
	Version   string            `json:"version,omitempty"`
	Trained   string            `json:"trained,omitempty"`
	Created   string            `json:"created,omitempty"`
	Revision  string            `json:"revision,omitempty"`
	Source    string            `json:"source,omitempty"`
	Class     string            `json:"class,omitempty"`
	Steps     []string          `json:"steps,omitempty"`
	Sklearn   []string          `json:"sklearn,omitempty"`
	Scan      string            `json:"scan,omitempty"`
	Needs     []string          `json:"requirements,omitempty"`
	Content   string            `json:"content,omitempty"`
	Features  *featuresJSON     `json:"features,omitempty"`
	Metrics   map[string]any    `json:"metrics"`
	Omitted   int               `json:"metricsOmitted,omitempty"`
	Files     []fileAnswer      `json:"files"`
	Notes     map[string]string `json:"annotations,omitempty"`
}

type featuresJSON struct {
	Count  int    `json:"count"`
	Digest string `json:"digest"`
}

func (c *card) json() cardJSON {
	i := c.info
	j := cardJSON{
		Reference: c.reference, Directory: c.directory, Installed: c.installed,
		Digest: c.artifact.Root.Digest.String(), MediaType: c.artifact.Manifest.ArtifactType,
		Name: i.Name, Version: i.Version, Trained: i.Trained, Created: i.Created, Revision: i.Revision, Source: i.Source,
		Class: i.Class, Steps: i.Steps, Sklearn: i.Sklearn, Scan: i.Scan, Needs: i.Requirements(), Content: i.Content.String(), Metrics: metricsJSON(i.Metrics), Omitted: i.Omitted,
		Files: fileAnswers(c.artifact), Notes: c.artifact.Manifest.Annotations,
	}
	if i.Features >= 0 {
		j.Features = &featuresJSON{i.Features, i.FeaturesDigest.String()}
	}
	return j
}

// notFound adds to an unknown tag the ones that look like it.
func (a *app) notFound(ctx context.Context, p *place, err error) error {
	if !errors.Is(err, oci.ErrNotFound) || p.ref.Digest != "" || p.Target == nil {
		return err
	}
	near, lerr := oci.NearestTags(ctx, p.Target, p.ref.TagOrDigest())
	if lerr != nil || len(near) == 0 || slices.Contains(near, p.ref.TagOrDigest()) {
		return err
	}
	return &unknownTag{err, p.ref, near}
}
