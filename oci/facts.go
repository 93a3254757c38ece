package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/manifest/training"
	"galley/oci/image"
)

// FactsOptions say how much of a model is read. The zero value reads the two
// JSON files and not the model.
type FactsOptions struct {
	// ManifestOnly reads no file at all; [Subject.Read] can do so later.
	ManifestOnly bool
	// FeaturesPath is where the features file has its list, as in
	// [manifest.PackOptions].
	FeaturesPath string
	// Scan reads every file, and so the model's bytes.
	Scan bool
	// Allow lists globals of pickles that somebody has looked at; see
	// [joblib.Options].
	Allow    []string
	Progress Progress
}

// Subject is a model in a target, or the image that carries it.
type Subject struct {
	// Root is what the reference names: the model's manifest, or the image's, or
	// an index of images.
	Root v1.Descriptor
	Doc  []byte // that manifest
	// IsImage reports whether that is an image. What is told of its model is what
	// the image tells, unless it was packed anew by another tool: then it has
	// only labels, and the artifact is asked where the target has it.
	IsImage bool
	// Model is the digest of the model's artifact; Root's if that is the model.
	Model digest.Digest
	Facts *manifest.Facts

	src    manifest.Fetcher
	layers []manifest.Layer
	walk   walker
	json   map[manifest.Role]*factsFile // that were chosen; nil before
	whole  bool                         // they were read
}

// factsFile is a JSON file that tells of the model.
type factsFile struct {
	layer int
	path  string
	data  []byte // nil: not read yet
}

// FindFacts reads what is known of the model that the tag or digest names in t,
// or of the model in the image: one request for a manifest where the target can
// fetch by reference, one more for an index, and one for each layer that has
// something to read, together. It is never more for artifacts of galley; those
// of other tools that do not list their files cost their layers.
//
// Errors are those of t, [*manifest.NotArtifactError],
// [*image.SeveralModelsError], those of reading documents, and of [Subject.Read].
func FindFacts(ctx context.Context, t Target, reference string, o FactsOptions) (*Subject, error) {
	root, doc, err := fetchReference(ctx, t, reference)
	if err != nil {
		return nil, err
	}
	s, err := SubjectOf(ctx, t, root, doc)
	if err != nil || o.ManifestOnly {
		return s, err
	}
	return s, s.Read(ctx, o)
}

// SubjectOf is [FindFacts] of the manifest doc, which is at hand; files are read
// by [Subject.Read].
func SubjectOf(ctx context.Context, t Target, root v1.Descriptor, doc []byte) (*Subject, error) {
	s := &Subject{Root: root, Doc: doc, Model: root.Digest, src: &memo{t, root, doc}, walk: walkArtifact}
	a, err := manifest.Read(ctx, s.src, root)
	if _, other := errors.AsType[*manifest.NotArtifactError](err); other {
		a, err = s.findCarried(ctx, t)
	}
	if err != nil {
		return nil, err
	}
	s.Facts, s.layers = a.Facts(), a.Layers
	return s, nil
}

// findCarried finds the model in an image.
func (s *Subject) findCarried(ctx context.Context, t Target) (*manifest.Artifact, error) {
	c, err := image.FindCarried(ctx, s.src, s.Root)
	if err != nil {
		return nil, err
	}
	s.IsImage, s.Model = true, c.Root.Digest
	if len(c.Layers) > 0 {
		s.walk = c.Walk
		return c.Artifact, nil
	}
	m, err := Read(ctx, t, s.Model.String())
	if errors.Is(err, ErrNotFound) {
		return c.Artifact, nil
	}
	if err != nil {
		return nil, err
	}
	s.src = m
	return m.Artifact, nil
}

// Read reads what the options ask for and was not read yet, each layer at most
// once and three at a time. Errors are those of the target, a
// [*manifest.FileError] for JSON that cannot be read, a
// [*manifest.CorruptError], or wrap [manifest.ErrBadTar] or
// [manifest.ErrBadLayer].
func (s *Subject) Read(ctx context.Context, o FactsOptions) error {
	if s.json == nil {
		if err := s.choose(); err != nil {
			return err
		}
	}
	scan := o.Scan && s.Facts.Scans == nil
	r := &factsReader{Subject: s, o: joblib.Options{Allow: o.Allow}, scan: scan, extra: map[manifest.Role]*factsFile{}, model: map[int]manifest.File{}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for i := range s.layers {
		if !r.needs(i) {
			continue
		}
		l := &s.layers[i]
		g.Go(func() error {
			return readLayer(ctx, s.src, l, s.walk, o.Progress, func(f manifest.File, in io.Reader) error { return r.visit(i, f, in) })
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return r.finish(o)
}

// choose decides which JSON files tell of the model: the first of each role that
// is listed.
func (s *Subject) choose() error {
	s.json = map[manifest.Role]*factsFile{}
	for i, l := range s.layers {
		for _, f := range l.Files {
			if !f.Role.IsJSON() || s.json[f.Role] != nil {
				continue
			}
			if f.Size > training.MaxSize {
				return &manifest.FileError{Path: f.Path, Err: &training.SizeError{Size: f.Size, Max: training.MaxSize}}
			}
			s.json[f.Role] = &factsFile{layer: i, path: f.Path}
		}
	}
	return nil
}

// chosen returns the file if it is one of the two, else nil.
func (s *Subject) chosen(layer int, f manifest.File) *factsFile {
	if c := s.json[f.Role]; c != nil && c.layer == layer && c.path == f.Path {
		return c
	}
	return nil
}

// factsReader reads what is missing of a subject's facts.
type factsReader struct {
	*Subject
	o    joblib.Options
	scan bool

	mu    sync.Mutex
	extra map[manifest.Role]*factsFile // in layers that do not list their files
	scans []manifest.Scan
	model map[int]manifest.File // by layer
}

// needs reports whether something is to be read in the layer.
func (r *factsReader) needs(i int) bool {
	l := &r.layers[i]
	if l.Files == nil {
		return r.scan || !r.whole && (r.json[manifest.RoleFeatures] == nil || r.json[manifest.RoleSummary] == nil)
	}
	return slices.ContainsFunc(l.Files, func(f manifest.File) bool {
		if c := r.chosen(i, f); c != nil {
			return c.data == nil
		}
		return r.scan
	})
}

// visit takes one file of a layer.
func (r *factsReader) visit(layer int, f manifest.File, in io.Reader) error {
	unlisted := r.layers[layer].Files == nil
	c := r.chosen(layer, f)
	if c == nil && unlisted && f.Role.IsJSON() {
		c = &factsFile{layer: layer, path: f.Path}
	}
	if c != nil {
		if err := c.read(f, in); err != nil {
			return err
		}
		in = bytes.NewReader(c.data)
	}
	var report *joblib.Report
	if r.scan && (c == nil || unlisted) {
		var err error
		if report, f, err = r.inspect(f, in); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if report != nil {
		r.scans = append(r.scans, manifest.Scan{Path: f.Path, Role: f.Role, Report: report})
	}
	if old := r.extra[f.Role]; c != nil && unlisted && (old == nil || old.layer > layer) {
		r.extra[f.Role] = c
	}
	if _, ok := r.model[layer]; !ok && f.Role == manifest.RoleModel {
		r.model[layer] = f
	}
	return nil
}

// inspect says what is in the file, and completes what is known of it.
func (r *factsReader) inspect(f manifest.File, in io.Reader) (*joblib.Report, manifest.File, error) {
	if f.Digest != "" {
		report, err := joblib.Inspect(in, r.o)
		return report, f, err
	}
	sum := digest.SHA256.Digester()
	in = io.TeeReader(in, sum.Hash())
	report, err := joblib.Inspect(in, r.o)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	f.Digest = sum.Digest()
	return report, f, err
}

// read keeps the file's bytes.
func (c *factsFile) read(f manifest.File, in io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(in, training.MaxSize+1))
	if err != nil {
		return err
	}
	if len(data) > training.MaxSize {
		return &manifest.FileError{Path: f.Path, Err: &training.SizeError{Size: max(f.Size, int64(len(data))), Max: training.MaxSize}}
	}
	c.data = data
	return nil
}

// finish makes facts of what was read.
func (r *factsReader) finish(o FactsOptions) error {
	for _, layer := range slices.Sorted(maps.Keys(r.model)) {
		r.Facts.AddModel(r.model[layer])
	}
	for _, role := range manifest.Roles() {
		if !r.whole && role.IsJSON() && r.json[role] == nil && r.extra[role] != nil {
			r.json[role] = r.extra[role]
		}
		c := r.json[role]
		if c == nil || r.whole {
			continue
		}
		if err := r.Facts.AddJSON(role, c.path, c.data, o.FeaturesPath); err != nil {
			return err
		}
	}
	r.whole = true
	if r.scan {
		scans := slices.DeleteFunc(r.scans, func(s manifest.Scan) bool {
			c := r.json[s.Role]
			return c != nil && c.path == s.Path
		})
		slices.SortFunc(scans, func(a, b manifest.Scan) int { return strings.Compare(a.Path, b.Path) })
		r.Facts.AddScans(scans)
		if r.Facts.Scans == nil {
			r.Facts.Scans = []manifest.Scan{} // they were read, and there are none
		}
	}
	return nil
}

// InstalledFacts returns what is known of the artifact that galley installed in
// dir, if all its files are there as they were installed; else nil. It reads
// them all, each once, writes nothing and takes no lock.
func InstalledFacts(ctx context.Context, dir string, o FactsOptions) (*manifest.Facts, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer root.Close()
	record, err := readRecord(root)
	if err != nil || record == nil || record.Partial {
		return nil, err
	}
	want := map[string]digest.Digest{}
	var in []manifest.Input
	for _, f := range record.Files {
		if f.Role == "" {
			return nil, nil // nothing says what it is
		}
		want[f.Path] = f.Digest
		in = append(in, manifest.FromFS(root.FS(), f.Path, f.Path, f.Role))
	}
	p, err := manifest.Pack(ctx, in, manifest.PackOptions{FeaturesPath: o.FeaturesPath, Allow: o.Allow})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil { // gone, or changed since
		return nil, nil
	}
	for f := range p.Files() {
		if want[f.Path] != f.Digest {
			return nil, nil
		}
	}
	facts := p.Facts()
	facts.Digest = record.Digest
	return facts, nil
}
