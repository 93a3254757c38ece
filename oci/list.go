package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
)

// ListOptions say what [List] shows.
type ListOptions struct {
	// All lists the tags that record promotions too.
	All bool
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
	Tags   []string // versions first, tags made of the content last
	Digest digest.Digest
	manifest.Info
	Size int64 // of the model files in bytes; -1: unknown
	// Err says why there is no more to tell: a [*manifest.NotArtifactError]
	// for images and the like, or what is wrong with the manifest.
	Err error
}

// List returns the versions in a repository, the one trained last first, from
// the manifests alone: one request a tag for its digest, and one for each
// manifest that is not in the cache. Whatever is in the repository has its
// place in the list; only what cannot be read is an error. A tag that goes away
// meanwhile is left out.
func List(ctx context.Context, t Target, o ListOptions) ([]Version, error) {
	tags, err := listTags(ctx, t, o.All)
	if err != nil {
		return nil, err
	}
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
		g.Go(func() error { return v.read(ctx, t, roots[v.Tags[0]], o.Cache) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	o.Cache.trim()
	return versions, SortVersions(versions, "-trained", nil)
}

// listTags returns the tags of t, each once, and those that record promotions
// only if all are wanted.
func listTags(ctx context.Context, t Target, all bool) ([]string, error) {
	tags, err := allTags(ctx, t)
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !all && historyTag().MatchString(tag) })
	slices.Sort(tags)
	return slices.Compact(tags), err
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
		case isVersion.MatchString(tag):
			return 0
		case isContentTag(tag):
			return 2
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
	doc, ok := cache.get(d.Digest)
	if !ok {
		var err error
		if doc, err = manifest.ReadBlob(ctx, t, d, "manifest", maxManifest); err != nil {
			if isMismatch(err) || errors.Is(err, ErrNotFound) {
				v.Err = cleaned{err}
				return nil
			}
			return err
		}
		cache.put(d.Digest, doc)
	}
	a, err := manifest.Parse(d, doc)
	if err != nil {
		v.Err = cleaned{err}
		return nil
	}
	v.Info, v.Size = a.Info(), modelSize(a)
	return nil
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
