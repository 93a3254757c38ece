package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/joblib"
	"galley/manifest/training"
)

// Input is one file to pack.
type Input struct {
	Path string // where it lies in the artifact; see [CheckPath]
	Role Role
	// MediaType is that of the file's layer, which is then a raw one of its
	// own; empty: by role.
	MediaType string
	// Open opens the file. It is called more than once, from several
	// goroutines, and must give the same bytes each time.
	Open func() (fs.File, error)
}

// FromFS is the file at name of fsys, to be packed at path.
func FromFS(fsys fs.FS, name, path string, role Role) Input {
	return Input{Path: path, Role: role, Open: func() (fs.File, error) { return fsys.Open(name) }}
}

// PackOptions are the facts that are not in the files. The zero value packs
// without any of them.
type PackOptions struct {
	Name     string
	Version  string
	Revision string    // commit
	Source   string    // URL without user info
	Created  time.Time // zero: none; there is no clock in here
	Trained  string    // overrides what the JSON files say

	Format       Format   // of model layers; empty: tar+gzip
	FeaturesPath string   // where the features file holds its list
	MetricsFirst []string // paths of metrics to prefer when there are too many

	Annotations map[string]string // added to the manifest's, or overriding them

	// Read is told of n more bytes of a file of that size being read to be
	// hashed, from several goroutines at once; nil: nobody is.
	Read func(path string, size int64, n int)
}

// maxMetrics bounds the metrics among the annotations.
const maxMetrics = 64

// Errors of [Pack] about what was asked for.
var (
	ErrReserved = errors.New("annotations below " + AnnotationPrefix + " are galley's own")
	ErrNoFiles  = errors.New("no files to pack")
)

// Packed is an artifact whose bytes are still in its source files: a read-only
// graph that streams a layer whenever it is fetched. It is safe for concurrent
// use.
type Packed struct {
	*Artifact
	// Warnings tell what was odd about the files, a sentence each.
	Warnings []string

	manifest []byte
	config   []byte
	layers   []*packedLayer
}

// Pack makes an artifact of the files. It reads each of them once, to hash it,
// and keeps none. The same files and options give the same digest on every
// machine. Errors wrap [ErrUnsafePath], [ErrReserved], [ErrNoFiles], an
// [*fs.PathError], or are a *[FileError] for a broken JSON file.
func Pack(ctx context.Context, inputs []Input, o PackOptions) (*Packed, error) {
	if o.Format == "" {
		o.Format = FormatTarGzip
	}
	for key := range o.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			return nil, fmt.Errorf("annotation %q: %w", key, ErrReserved)
		}
	}
	files, err := sources(inputs, o.Read)
	if err != nil {
		return nil, err
	}
	facts, err := readFacts(files, o)
	if err != nil {
		return nil, err
	}
	p := &Packed{layers: layersOf(files, o.Format), Warnings: facts.warnings}
	if err := measure(ctx, p.layers); err != nil {
		return nil, err
	}
	if p.config, err = marshal(p.modelConfig(facts, o)); err != nil {
		return nil, err
	}
	m := v1.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    v1.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       v1.Descriptor{MediaType: MediaTypeConfig, Digest: digest.FromBytes(p.config), Size: int64(len(p.config))},
		Annotations:  facts.annotations(files, o),
	}
	for _, l := range p.layers {
		m.Layers = append(m.Layers, l.desc)
	}
	if p.manifest, err = marshal(m); err != nil {
		return nil, err
	}
	root := v1.Descriptor{
		MediaType:    v1.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Digest:       digest.FromBytes(p.manifest),
		Size:         int64(len(p.manifest)),
	}
	// What was packed is read back the way any artifact is, so that the two
	// cannot disagree.
	read, err := decodeManifest(p.manifest)
	if err != nil {
		return nil, err
	}
	if p.Artifact, err = parse(root, read, p.config); err != nil {
		return nil, err
	}
	return p, nil
}

// sources opens every input, in the order of paths.
func sources(inputs []Input, read func(string, int64, int)) ([]*source, error) {
	if len(inputs) == 0 {
		return nil, ErrNoFiles
	}
	var files []*source
	paths := make(pathSet)
	for _, in := range inputs {
		if err := paths.add(in.Path); err != nil {
			return nil, err
		}
		s, err := newSource(in)
		if err != nil {
			return nil, err
		}
		s.read = read
		files = append(files, s)
	}
	slices.SortFunc(files, func(a, b *source) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// modelConfig is the ModelPack config of the layers.
func (p *Packed) modelConfig(f *facts, o PackOptions) Config {
	c := Config{
		Descriptor: ModelDescriptor{CreatedAt: o.Created, Name: o.Name, SourceURL: o.Source, Version: o.Version, Revision: o.Revision},
		ModelFS:    ModelFS{Type: "layers"},
		Config:     ModelConfig{Architecture: f.class(), Format: f.format()},
	}
	for _, l := range p.layers {
		c.ModelFS.DiffIDs = append(c.ModelFS.DiffIDs, l.diffID)
	}
	return c
}

// Fetch returns a reader of the manifest, the config or a layer, which is
// packed as it is read; reading ends with [*ChangedError] if its files have
// changed. The error wraps [fs.ErrNotExist] for anything else.
func (p *Packed) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	switch d.Digest {
	case p.Root.Digest:
		return io.NopCloser(bytes.NewReader(p.manifest)), nil
	case p.Manifest.Config.Digest:
		return io.NopCloser(bytes.NewReader(p.config)), nil
	}
	for _, l := range p.layers {
		if l.desc.Digest == d.Digest {
			return l.open(ctx), nil
		}
	}
	return nil, fmt.Errorf("%s: not in the artifact: %w", d.Digest, fs.ErrNotExist)
}

// Exists reports whether d is part of the artifact.
func (p *Packed) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	if d.Digest == p.Root.Digest || d.Digest == p.Manifest.Config.Digest {
		return true, nil
	}
	return slices.ContainsFunc(p.layers, func(l *packedLayer) bool { return l.desc.Digest == d.Digest }), nil
}

// facts is what the files say about the model.
type facts struct {
	model    *source // nil when there is none
	look     joblib.Peek
	features *training.Features
	summary  *training.Summary
	raw      map[Role]digest.Digest // of the JSON files
	warnings []string
}

// FileError is a features or summary file that cannot be read as JSON.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("read %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// readFacts reads the JSON files and looks at the model.
func readFacts(files []*source, o PackOptions) (*facts, error) {
	f := &facts{raw: make(map[Role]digest.Digest)}
	for _, s := range files {
		var err error
		switch {
		case s.Role == RoleModel && f.model == nil:
			f.model = s
			err = f.lookAt(s)
		case s.Role == RoleFeatures && f.features == nil:
			err = f.readJSON(s, func(data []byte) (err error) {
				f.features, err = training.ParseFeatures(data, o.FeaturesPath)
				return err
			})
		case s.Role == RoleSummary && f.summary == nil:
			err = f.readJSON(s, func(data []byte) (err error) {
				f.summary, err = training.ParseSummary(data)
				return err
			})
		}
		if err != nil {
			return nil, err
		}
	}
	f.check()
	return f, nil
}

func (f *facts) lookAt(s *source) error {
	file, err := s.Open()
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	defer file.Close()
	if f.look, err = joblib.Look(file); err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	return nil
}

func (f *facts) readJSON(s *source, parse func([]byte) error) error {
	if s.size > training.MaxSize {
		return &FileError{s.Path, &training.SizeError{Size: s.size, Max: training.MaxSize}}
	}
	file, err := s.Open()
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, training.MaxSize))
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	f.raw[s.Role] = digest.FromBytes(data)
	if err := parse(data); err != nil {
		return &FileError{s.Path, err}
	}
	return nil
}

// check compares what the files say about one another.
func (f *facts) check() {
	if f.features != nil && f.features.Note != "" {
		f.warnings = append(f.warnings, f.features.Note)
	}
	if f.summary == nil {
		return
	}
	f.warnings = append(f.warnings, f.summary.Warnings...)
	if f.features == nil || f.features.Names == nil || f.summary.FeatureCount < 0 {
		return
	}
	if n := len(f.features.Names); n != f.summary.FeatureCount {
		f.warnings = append(f.warnings, fmt.Sprintf("the summary counts %d features, the features file lists %d", f.summary.FeatureCount, n))
	}
}

func (f *facts) class() string { return f.look.Class }

func (f *facts) format() string {
	if f.model == nil {
		return ""
	}
	return string(f.look.Format)
}

func (f *facts) trained(o PackOptions) string {
	switch {
	case o.Trained != "":
		return o.Trained
	case f.summary != nil && f.summary.Trained != "":
		return f.summary.Trained
	case f.features != nil:
		return f.features.Trained
	}
	return ""
}

func (f *facts) metrics() []training.Metric {
	if f.summary == nil {
		return nil
	}
	return f.summary.Metrics
}

// annotations are the manifest's. Values that are unknown are left out.
func (f *facts) annotations(files []*source, o PackOptions) map[string]string {
	a := map[string]string{
		v1.AnnotationTitle:    o.Name,
		v1.AnnotationVersion:  o.Version,
		v1.AnnotationRevision: o.Revision,
		v1.AnnotationSource:   o.Source,
		AnnotationTrained:     f.trained(o),
		AnnotationModelClass:  f.class(),
		AnnotationContent:     f.content(files).String(),
	}
	if !o.Created.IsZero() {
		a[v1.AnnotationCreated] = o.Created.UTC().Format(time.RFC3339)
	}
	if f.model != nil {
		a[AnnotationModelDigest] = f.model.sum.Encoded()
		a[AnnotationModelSize] = strconv.FormatInt(f.model.size, 10)
	}
	if f.features != nil && f.features.Names != nil {
		a[AnnotationFeaturesCount] = strconv.Itoa(len(f.features.Names))
		a[AnnotationFeaturesDigest] = f.features.Digest().String()
	}
	chosen, omitted := training.Select(f.metrics(), o.MetricsFirst, maxMetrics)
	for _, m := range chosen {
		a[AnnotationMetric+m.Path] = m.String()
	}
	if omitted > 0 {
		a[AnnotationMetricsOmitted] = strconv.Itoa(omitted)
	}
	maps.Copy(a, o.Annotations)
	maps.DeleteFunc(a, func(_, v string) bool { return v == "" })
	return a
}

// content is the digest of what the model is: where its files lie and their
// bytes, the ordered feature names and the metrics. FORMAT.md has the form.
func (f *facts) content(files []*source) digest.Digest {
	c := struct {
		Features any               `json:"features"`
		Files    [][2]string       `json:"files"`
		Metrics  map[string]string `json:"metrics"`
	}{Metrics: make(map[string]string)}
	for _, s := range files {
		if s.Role == RoleModel || s.Role == RolePart {
			c.Files = append(c.Files, [2]string{s.Path, s.sum.Encoded()})
		}
	}
	switch {
	case f.features != nil && f.features.Names != nil:
		c.Features = f.features.Names
	case f.features != nil:
		c.Features = f.raw[RoleFeatures].Encoded()
	}
	for _, m := range f.metrics() {
		c.Metrics[m.Path] = m.String()
	}
	text, _ := marshal(c) // strings always marshal
	return digest.FromBytes(text)
}
