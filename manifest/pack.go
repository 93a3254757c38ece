package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/contract"
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

	// Allow lists globals of pickles, as module:name, that somebody has looked
	// at; see [joblib.Options].
	Allow []string

	// Cache remembers what files hold, so that those that have not changed are
	// not read; nil: nothing does. See [Packed.Confirm].
	Cache Cache

	// Ahead, if not nil, is asked when the packing of a layer begins of which the
	// cache knows nothing: where its bytes go, too, as they are packed. title is
	// the layer's, size that of its files. A nil stream is none.
	Ahead func(title string, size int64) Stream

	// Read is told of n more bytes of a file of that size being read to be
	// hashed, from several goroutines at once; nil: nobody is.
	Read func(path string, size int64, n int)
}

// Stream takes the bytes of a layer while they are packed, and before anybody
// knows their digest. The packing waits for it, and goes on without it after an
// error.
type Stream interface {
	// Write takes the next bytes, which it does not keep.
	io.Writer
	// End is called once, after the last Write: with the digest and the size of
	// the layer, or with what the packing failed with.
	End(layer v1.Descriptor, err error)
}

// maxMetrics bounds the metrics among the annotations.
const maxMetrics = 64

// Errors of [Pack] about what was asked for.
var (
	ErrReserved = errors.New("annotations below " + AnnotationPrefix + " are galley's own")
	ErrNoFiles  = errors.New("no files to pack")
)

// Packed is an artifact most of whose bytes are still in its source files: a
// read-only graph that streams a layer whenever it is fetched. At most 6 MiB of
// packed bytes are kept in memory, which are not packed a second time. It is safe
// for concurrent use.
type Packed struct {
	*Artifact
	// Warnings tell what was odd about the files, a sentence each.
	Warnings []string
	// Scans are what is in the files, in the order of paths. Whether that lets them
	// be carried, [CheckScans] says.
	Scans []Scan
	// Fit says whether the features file is the model's.
	Fit contract.Result

	features *training.Features
	summary  *training.Summary
	manifest []byte
	config   []byte
	layers   []*packedLayer
}

// Pack makes an artifact of the files. It reads each of them once, at most, to
// hash it and to see what is in it. The same files and options give the same digest on every
// machine. Errors wrap [ErrUnsafePath], [ErrReserved], [ErrNoFiles], an
// [*fs.PathError], or are a *[FileError] for a broken JSON file, or a
// [*ChangedError] for a file that is being written.
func Pack(ctx context.Context, inputs []Input, o PackOptions) (*Packed, error) {
	if o.Format == "" {
		o.Format = FormatTarGzip
	}
	for key := range o.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			return nil, fmt.Errorf("annotation %q: %w", key, ErrReserved)
		}
	}
	files, err := sources(inputs, o)
	if err != nil {
		return nil, err
	}
	facts, err := readFacts(files, o)
	if err != nil {
		return nil, err
	}
	p := &Packed{layers: layersOf(files, o.Format)}
	if err := measure(ctx, p.layers, o, maxKept); err != nil {
		return nil, err
	}
	facts.inspected(files)
	p.Scans, p.Fit = facts.scans, facts.fit
	p.features, p.summary = facts.features, facts.summary
	p.Warnings = facts.warnings
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
func sources(inputs []Input, o PackOptions) ([]*source, error) {
	if len(inputs) == 0 {
		return nil, ErrNoFiles
	}
	var files []*source
	paths := make(pathSet)
	for _, in := range inputs {
		if err := paths.add(in.Path); err != nil {
			return nil, err
		}
		s, err := newSource(in, o.Cache)
		if err != nil {
			return nil, err
		}
		s.read, s.scan.Allow = o.Read, o.Allow
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
// packed as it is read unless it was kept; reading ends with [*ChangedError] if
// its files have changed. The error wraps [fs.ErrNotExist] for anything else.
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
