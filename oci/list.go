package oci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/oci/image"
)

// ListOptions say what [List] shows.
type ListOptions struct {
	// All lists the tags that record promotions too.
	All bool
	// Stages are tags that are stages, besides those that have events.
	Stages []string
	// Rules tell which of an artifact's tags are versions and come first.
	Rules TagRules
	// Cache keeps manifests for the next time; nil: nothing does.
	Cache *ManifestCache
	// Concurrency is half of how many requests run at once, for these are
	// small; 0: [DefaultConcurrency].
	Concurrency int
}

// Version is one artifact of a repository, with all the tags that name it.
type Version struct {
	Tags   []string // versions first, tags made of the content late, those that record promotions last
	Digest digest.Digest
	// Stages are those of the tags that only promotion moves.
	Stages []string
	manifest.Info
	Size int64 // of the model files in bytes; -1: unknown
	// Baked are the models in an image that galley baked; of a single one the
	// image tells the rest.
	Baked []BakedModel
	// Err says why there is no more to tell: a [*manifest.NotArtifactError]
	// for images and the like, or what is wrong with the manifest.
	Err error
}

// BakedModel is a model in an image.
type BakedModel struct {
	Name     string        // "" where it is the only one
	Artifact digest.Digest // of the model
}

// List returns the versions in a repository, the one trained last first, from
// the manifests alone: one request a tag for its digest, and one for each
// manifest that is not in the cache, and of an index one more for its first
// image. Whatever is in the repository has its
// place in the list; only what cannot be read is an error. A tag that goes away
// meanwhile is left out.
func List(ctx context.Context, t Target, o ListOptions) ([]Version, error) {
	tags, err := allTags(ctx, t)
	if err != nil {
		return nil, err
	}
	stages := stagesIn(tags)
	for _, s := range o.Stages {
		stages[s] = true
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !o.All && historyTag().MatchString(tag) })
	slices.Sort(tags)
	tags = slices.Compact(tags)
	limit := 2 * cmpOr(o.Concurrency, DefaultConcurrency)
	roots, err := resolveAll(ctx, t, tags, limit)
	if err != nil {
		return nil, err
	}
	versions, err := groupTags(tags, roots, o.Rules)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for i := range versions {
		v := &versions[i]
		for _, tag := range v.Tags {
			if stages[tag] {
				v.Stages = append(v.Stages, tag)
			}
		}
		g.Go(func() error { return v.read(ctx, t, roots[v.Tags[0]], o.Cache) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	o.Cache.trim()
	return versions, SortVersions(versions, "-trained", nil)
}

// resolveAll looks the tags up, limit at once. Those that are gone have none.
func resolveAll(ctx context.Context, t Target, tags []string, limit int) (map[string]v1.Descriptor, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	var mu sync.Mutex
	roots := make(map[string]v1.Descriptor, len(tags))
	for _, tag := range tags {
		g.Go(func() error {
			d, err := t.Resolve(ctx, tag)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			roots[tag] = d
			return err
		})
	}
	return roots, g.Wait()
}

// groupTags makes one version of the tags that name the same digest.
func groupTags(tags []string, roots map[string]v1.Descriptor, rules TagRules) ([]Version, error) {
	pattern := cmp.Or(rules.Versions, DefaultVersions)
	isVersion, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("versions %q: %w", pattern, err)
	}
	kind := func(tag string) int {
		switch {
		case isContentTag(tag):
			return 2
		case isVersion.MatchString(tag):
			return 0
		case historyTag().MatchString(tag):
			return 3
		}
		return 1
	}
	var versions []Version
	at := make(map[digest.Digest]int)
	for _, tag := range tags {
		d, ok := roots[tag]
		if !ok {
			continue
		}
		i, ok := at[d.Digest]
		if !ok {
			i = len(versions)
			at[d.Digest] = i
			versions = append(versions, Version{Digest: d.Digest})
		}
		versions[i].Tags = append(versions[i].Tags, tag)
	}
	for _, v := range versions {
		slices.SortFunc(v.Tags, func(a, b string) int {
			return cmp.Or(cmp.Compare(kind(a), kind(b)), compareNatural(a, b))
		})
	}
	return versions, nil
}

// read fills in what the manifest tells.
func (v *Version) read(ctx context.Context, t Target, d v1.Descriptor, cache *ManifestCache) error {
	v.Features, v.Size = -1, -1
	if m := historyTag().FindStringSubmatch(v.Tags[0]); m != nil {
		what := map[string]string{"h": "an event of ", "i": "an announced change of "}[m[2]]
		v.Err = &manifest.NotArtifactError{MediaType: d.MediaType, What: what + m[1]}
		return nil
	}
	doc, err := manifest.ReadBlob(ctx, &cached{t, cache}, d, "manifest", maxManifest)
	if isMismatch(err) || errors.Is(err, ErrNotFound) {
		v.Err = cleaned{err}
		return nil
	}
	if err != nil {
		return err
	}
	a, err := manifest.Parse(d, doc)
	if err != nil {
		v.Err = cleaned{err}
		if _, other := errors.AsType[*manifest.NotArtifactError](err); other {
			return v.readImage(ctx, &cached{&memo{t, d, doc}, cache}, d)
		}
		return nil
	}
	v.Info, v.Size = a.Info(), modelSize(a)
	return nil
}

// readImage fills in what an image tells of its models, if it has any.
func (v *Version) readImage(ctx context.Context, src manifest.Fetcher, d v1.Descriptor) error {
	c, err := image.FindCarried(ctx, fetchFunc(func(ctx context.Context, m v1.Descriptor) (io.ReadCloser, error) {
		if strings.Contains(m.MediaType, ".image.config.") || strings.Contains(m.MediaType, ".container.image.") {
			return nil, ErrNotFound // the config, which is not worth a request here
		}
		return src.Fetch(ctx, m)
	}), d)
	if err == nil {
		f := c.Facts()
		v.Info, v.Size, v.Baked, v.Err = f.Info, f.Size, []BakedModel{{Artifact: c.Root.Digest}}, nil
		return nil
	}
	if several, ok := errors.AsType[*image.SeveralModelsError](err); ok {
		for i, name := range several.Names {
			v.Baked = append(v.Baked, BakedModel{name, several.Artifacts[i]})
		}
		return nil
	}
	_, other := errors.AsType[*manifest.NotArtifactError](err)
	_, base := errors.AsType[*image.BaseError](err)
	if other || base || isMismatch(err) || errors.Is(err, manifest.ErrMalformed) || errors.Is(err, manifest.ErrUnsafePath) || errors.Is(err, ErrNotFound) {
		return nil // an image of something else
	}
	return err
}

// cached reads documents from a cache, and puts there what it fetches.
type cached struct {
	src   manifest.Fetcher
	cache *ManifestCache
}

func (c *cached) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	doc, ok := c.cache.get(d.Digest)
	if !ok {
		var err error
		if doc, err = manifest.ReadBlob(ctx, c.src, d, "manifest", maxManifest); err != nil {
			return nil, err
		}
		c.cache.put(d.Digest, doc)
	}
	return io.NopCloser(bytes.NewReader(doc)), nil
}

// modelSize is the size of the model files, or -1.
func modelSize(a *manifest.Artifact) int64 {
	total := int64(-1)
	for f := range a.Files() {
		switch {
		case f.Role != manifest.RoleModel:
		case f.Size < 0:
			return -1
		default:
			total = max(total, 0) + f.Size
		}
	}
	return total
}

// Repository is one of the local registry.
type Repository struct {
	Name   string   // as [Reference.Name] spells it
	Tags   int      // but for those that record promotions
	Newest *Version // nil if there is none
	Err    error    // why there is no more to tell
}

// Repositories returns the repositories of the local registry in the order of
// their names. A registry that is yet to be made has none.
func (c *Client) Repositories(ctx context.Context) ([]Repository, error) {
	var all []Repository
	err := filepath.WalkDir(c.o.LocalRoot, func(dir string, d fs.DirEntry, err error) error {
		if err != nil || dir == c.o.LocalRoot || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.o.LocalRoot, dir)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		parent, isLayout := strings.CutSuffix(name, "/"+repositoryDir)
		if repositoryFault(strings.TrimSuffix(name, "/"+repositoryDir)) != "" {
			return fs.SkipDir
		}
		if !isLayout {
			return nil
		}
		all = append(all, c.describe(ctx, Reference{Kind: Local, Repository: parent}))
		return cmp.Or(context.Cause(ctx), fs.SkipDir)
	})
	info, serr := os.Stat(c.o.LocalRoot)
	switch {
	case errors.Is(serr, fs.ErrNotExist):
		return nil, nil
	case serr == nil && !info.IsDir():
		err = fmt.Errorf("%s is not a directory", c.o.LocalRoot)
	}
	if err != nil {
		return nil, fmt.Errorf("list local registry: %w", err)
	}
	slices.SortFunc(all, func(a, b Repository) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (c *Client) describe(ctx context.Context, ref Reference) Repository {
	r := Repository{Name: ref.Name()}
	t, err := c.Open(ctx, ref)
	var versions []Version
	if err == nil {
		versions, err = List(ctx, t, ListOptions{})
	}
	if err != nil {
		r.Err = cleaned{err}
		return r
	}
	for _, v := range versions {
		r.Tags += len(v.Tags)
	}
	if len(versions) > 0 {
		r.Newest = &versions[0]
	}
	return r
}
