package image

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
)

// AnnotationArtifact is the annotation, and label, of a baked image that holds
// the digest of the model's artifact. Of several models each has its own, with
// the model's name behind a dot.
const AnnotationArtifact = "ml.galley.artifact"

// annotationOf is the prefix, before NAME and a dot, of the ml.galley.*
// annotations of one of several models.
const annotationOf = "ml.galley.of."

// maxSmall bounds the files that go into bake's own layer, in bytes.
const maxSmall = 4 << 20

// Model is a model to bake in.
type Model struct {
	// Name is below what its files go, and part of its variables; "": they lie
	// where the artifact says.
	Name string
	// Repository is where its blobs lie, for [Graph.From]; "": nowhere.
	Repository string
	// Artifact is what [manifest.Read] read from Source. What it does not tell of
	// its layers is filled in.
	Artifact *manifest.Artifact
	Source   manifest.Fetcher
}

// Options say what [Baking.Bake] makes. The zero value is ready for use.
type Options struct {
	// Dest is where the app looks for the model, absolute or below the base's
	// working directory; "": the working directory.
	Dest string
	// Copy writes the model's files there themselves, and nothing in /models.
	Copy bool
	// NoLook writes nothing below the working directory, where nothing is known
	// of the base's own directories.
	NoLook bool

	Env             []string // NAME=VALUE
	Labels          map[string]string
	Annotations     map[string]string
	Entrypoint, Cmd []string // nil: the base's; see [Changes]
	User            string
	Created         time.Time // zero: the base's
	UID, GID        int       // of what bake writes itself
	Chmod           int64     // of files that bake writes itself; 0: 0644
}

func (o *Options) owner() (uid, gid int) { return o.UID, o.GID }

func (o *Options) fileMode(exec bool) int64 {
	switch {
	case o.Chmod != 0:
		return o.Chmod & 0o7777
	case exec:
		return 0o755
	}
	return 0o644
}

// Baking is a plan to put models into a base.
type Baking struct {
	Base   *Base
	Models []Model
	// Looks are at the base's images, in their order; nil before [Baking.Look],
	// and for a base that needs none.
	Looks []*Look

	o     Options
	mu    sync.Mutex
	small map[digest.Digest][]byte // of the models' small files
	retar map[string]Layer         // by retar.key
}

// Baked is a finished image.
type Baked struct {
	*Graph
	// Models are where the models are, in their order, in the first image.
	Models []Placed
	// Retarred are the layers that could not be shared.
	Retarred []Retarred
}

// Placed is where an app finds a model.
type Placed struct {
	Name string
	Path string // of the model file; "" when the artifact has none
	Dir  string // in which it is
}

// Retarred is a model's layer that was written anew, and why.
type Retarred struct {
	Name   string // of the model
	Layer  v1.Descriptor
	Reason string
}

var modelName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`) })

// NewBaking plans to bake the models into the base. It reads the layers of
// artifacts of other tools that do not tell their files, the config where a
// zstd layer's diffID is only there, and else nothing. The
// error is one of a source, a [*PathError], a [*CollisionError], or tells what is
// wrong with a name.
func NewBaking(ctx context.Context, b *Base, models []Model, o Options) (*Baking, error) {
	k := &Baking{Base: b, Models: models, o: o, small: map[digest.Digest][]byte{}, retar: map[string]Layer{}}
	variables := map[string]string{}
	unnamed := 0
	for _, m := range models {
		name := variable(m.Name)
		if m.Name == "" {
			unnamed++
		}
		switch {
		case unnamed > 1:
			return nil, &CollisionError{"/", []string{"", ""}}
		case m.Name != "" && (!modelName().MatchString(m.Name) || name == "GALLEY_MODEL_DIR"):
			return nil, fmt.Errorf("model name %.100q: not letters, digits and _.- with a letter or digit first, or taken", m.Name)
		case m.Name != "" && variables[name] != "":
			return nil, fmt.Errorf("model names %q and %q: both are %s", variables[name], m.Name, name)
		}
		variables[name] = m.Name
		if err := m.complete(ctx); err != nil {
			return nil, err
		}
		for f := range m.Artifact.Files() {
			for elem := range strings.SplitSeq(f.Path, "/") {
				if strings.HasPrefix(elem, ".wh.") {
					return nil, &PathError{"/" + f.Path, "would remove a file from the image"}
				}
			}
		}
	}
	return k, nil
}

// complete finds out what the manifest does not tell: from the layers which
// files they have, and from the config what zstd layers unpack to.
func (m *Model) complete(ctx context.Context) error {
	unknown := func(f func(manifest.Layer) bool) bool { return slices.ContainsFunc(m.Artifact.Layers, f) }
	if unknown(func(l manifest.Layer) bool { return l.Files == nil }) {
		return m.Artifact.Expand(ctx, m.Source)
	}
	if unknown(func(l manifest.Layer) bool {
		return l.DiffID == "" && l.Descriptor.Annotations[manifest.AnnotationFiles] != ""
	}) {
		return m.Artifact.VerifyConfig(ctx, m.Source)
	}
	return nil
}

// variable is the name of the model's environment variable.
func variable(name string) string {
	if name == "" {
		return "GALLEY_MODEL"
	}
	return "GALLEY_MODEL_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}

// home is the directory in which the image's app looks for the models, or "/".
func (k *Baking) home(i *Image) string {
	if k.o.NoLook || k.Base.scratch {
		return "/"
	}
	if path.IsAbs(k.o.Dest) {
		return path.Clean(k.o.Dest)
	}
	return path.Join("/", i.Config.WorkingDir, k.o.Dest)
}

// dirs are the directories into which files go in one image.
func (k *Baking) dirs(i *Image) []string {
	all := map[string]bool{}
	for _, m := range k.Models {
		for f := range m.Artifact.Files() {
			for _, root := range []string{"/", path.Join("/", m.Name), path.Join(k.home(i), m.Name)} {
				all[path.Dir(path.Join(root, f.Path))] = true
			}
		}
	}
	delete(all, "/")
	return slices.Sorted(maps.Keys(all))
}

// Look looks at the base's images, whose layers it reads unless a cache or
// [LookOptions.Known] tell enough. It does nothing for a base that needs no
// look. Errors are those of the source, a [*manifest.CorruptError], a
// [*PathError], or wrap [manifest.ErrBadTar] or [manifest.ErrBadLayer].
func (k *Baking) Look(ctx context.Context, o LookOptions) error {
	if k.o.NoLook || k.Base.scratch {
		return nil
	}
	looks := make([]*Look, len(k.Base.Images))
	for n, i := range k.Base.Images { // one after the other: platforms share what was cached
		var err error
		if looks[n], err = lookAt(ctx, k.Base.src, i, k.dirs(i), o); err != nil {
			return err
		}
	}
	k.Looks = looks
	return nil
}

// Bake makes the image. It reads the models' small files and, where layers must
// be written anew, these; and nothing of the base. Errors are those of the
// sources, a [*PathError], a [*CollisionError], or those of [Append].
func (k *Baking) Bake(ctx context.Context) (*Baked, error) {
	if k.Looks == nil && !k.o.NoLook && !k.Base.scratch {
		return nil, fmt.Errorf("bake into %s: not looked at yet", k.Base.Root.Digest)
	}
	if err := k.fetchSmall(ctx); err != nil {
		return nil, err
	}
	done := &Baked{}
	n := 0
	g, err := Append(k.Base, func(i *Image) (Changes, error) {
		var l *Look
		if k.Looks != nil {
			l = k.Looks[n]
		}
		p := &placement{k: k, home: k.home(i), scratch: k.Base.scratch, tree: newTree(l, &k.o), taken: map[string]string{}, have: map[digest.Digest]bool{}}
		if err := p.all(ctx); err != nil {
			return Changes{}, err
		}
		if n == 0 {
			done.Models, done.Retarred = p.placed, p.retarred
		}
		n++
		return k.changes(p, l)
	})
	if err != nil {
		return nil, err
	}
	done.Graph = g
	return done, nil
}

// fetchSmall reads the files for bake's own layer.
func (k *Baking) fetchSmall(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, m := range k.Models {
		for n := range m.Artifact.Layers {
			l := &m.Artifact.Layers[n]
			if !isSmall(l) {
				continue
			}
			g.Go(func() error {
				data, err := manifest.ReadBlob(ctx, m.Source, l.Descriptor, "layer "+l.Title, maxSmall)
				k.mu.Lock()
				defer k.mu.Unlock()
				k.small[l.Descriptor.Digest] = data
				return err
			})
		}
	}
	return g.Wait()
}

// changes are what Append shall do to one image.
func (k *Baking) changes(p *placement, l *Look) (Changes, error) {
	c := Changes{
		Layers: p.layers, Entrypoint: k.o.Entrypoint, Cmd: k.o.Cmd, User: k.o.User, Created: k.o.Created,
		Labels: map[string]string{}, Annotations: map[string]string{},
		Forget: manifest.AnnotationPrefix, // what a base that was baked itself tells of its model and base
	}
	if len(p.tree.nodes) > 0 {
		own, err := p.tree.layer(createdBy("files"))
		if err != nil {
			return c, err
		}
		own.Files = p.small
		c.Layers = append(c.Layers, own)
	}
	if len(k.Models) > 1 { // of which two may have files of one path
		for i := range c.Layers {
			c.Layers[i].Files = nil
		}
	}
	if !p.scratch {
		c.Env = p.env()
	}
	c.Env = append(c.Env, k.o.Env...)
	for _, m := range k.Models {
		k.describe(m, &c)
	}
	if l != nil {
		c.Labels[LabelLook] = l.Encode()
	}
	maps.Copy(c.Labels, k.o.Labels)
	maps.Copy(c.Annotations, k.o.Annotations)
	return c, nil
}

// labelled are the model's annotations that are labels too, where `docker
// inspect` shows them.
var labelled = []string{manifest.AnnotationContent, manifest.AnnotationTrained, manifest.AnnotationModelClass, manifest.AnnotationFeaturesDigest}

// describe adds what the artifact tells of the model.
func (k *Baking) describe(m Model, c *Changes) {
	name := func(key string) string { return key }
	artifact := AnnotationArtifact
	if len(k.Models) > 1 {
		own := cmp.Or(m.Name, "model")
		artifact += "." + own
		name = func(key string) string {
			return annotationOf + own + "." + strings.TrimPrefix(key, manifest.AnnotationPrefix)
		}
	}
	c.Annotations[artifact] = m.Artifact.Root.Digest.String()
	c.Labels[artifact] = m.Artifact.Root.Digest.String()
	for key, v := range m.Artifact.Manifest.Annotations {
		if !strings.HasPrefix(key, manifest.AnnotationPrefix) {
			continue
		}
		c.Annotations[name(key)] = v
		if slices.Contains(labelled, key) {
			c.Labels[name(key)] = v
		}
	}
	if created := m.Artifact.Manifest.Annotations[v1.AnnotationCreated]; k.Base.scratch && c.Created.IsZero() {
		if at, err := time.Parse(time.RFC3339, created); err == nil {
			c.Created = at
		}
	}
}
