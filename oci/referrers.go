package oci

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// The bounds of a search for referrers: how many links from the root, and how
// many in all.
const (
	maxReferrerDepth = 8
	maxReferrers     = 10_000
)

// ErrTooManyReferrers says that there are more than 10,000 referrers, or a
// chain of more than 8.
var ErrTooManyReferrers = errors.New("too many referrers")

// copyReferrers copies root with all its referrers, which a layout then lists.
// from is where blobs come from: src, with what is at hand already.
func copyReferrers(ctx context.Context, dst, src Target, from content.ReadOnlyStorage, root v1.Descriptor, o CopyOptions) error {
	found, err := referrers(ctx, src, root)
	if err != nil {
		return sourceError("Referrers", err)
	}
	if err := copyGraphs(ctx, dst, from, append([]v1.Descriptor{root}, found...), o); err != nil {
		return err
	}
	return listAll(ctx, dst, found)
}

func listAll(ctx context.Context, dst Target, all []v1.Descriptor) error {
	for _, d := range all {
		if err := list(ctx, dst, d); err != nil {
			return err
		}
	}
	return nil
}

// sourceError marks an error of the side that is read; see [FromSource].
func sourceError(op string, err error) error {
	return &oras.CopyError{Op: op, Origin: oras.CopyErrorOriginSource, Err: err}
}

// referrers returns the manifests whose subject is root, one of the manifests
// of root where that is an index, or one of the referrers themselves.
func referrers(ctx context.Context, src Target, root v1.Descriptor) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	seen := map[digest.Digest]bool{root.Digest: true}
	level := []v1.Descriptor{root}
	for depth := 0; len(level) > 0; depth++ {
		var next []v1.Descriptor
		for len(level) > 0 {
			d := level[0]
			level = level[1:]
			direct, err := directReferrers(ctx, src, d)
			if err != nil {
				return nil, err
			}
			for _, r := range direct {
				if !seen[r.Digest] {
					seen[r.Digest] = true
					next = append(next, r)
				}
			}
			if !isIndex(d) {
				continue
			}
			children, err := content.Successors(ctx, src, d)
			if err != nil {
				return nil, err
			}
			for _, c := range children {
				if !seen[c.Digest] && len(seen) <= maxReferrers {
					seen[c.Digest] = true
					level = append(level, c)
				}
			}
		}
		if len(seen) > maxReferrers || depth == maxReferrerDepth && len(next) > 0 {
			return nil, fmt.Errorf("%s: %w: at most %d, and chains of %d", root.Digest, ErrTooManyReferrers, maxReferrers, maxReferrerDepth)
		}
		found = append(found, next...)
		level = next
	}
	return found, nil
}

func isIndex(d v1.Descriptor) bool {
	return d.MediaType == v1.MediaTypeImageIndex || d.MediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// directReferrers asks a registry, which has an API for it or tags by a scheme,
// or a layout. Some registries say that they have the API and do not, and one
// leads from it to a web page: the tags tell there, too.
func directReferrers(ctx context.Context, src Target, d v1.Descriptor) ([]v1.Descriptor, error) {
	lister, ok := src.(registry.ReferrerLister)
	if !ok {
		return nil, fmt.Errorf("%s: %w: a source that does not tell referrers", d.Digest, errdef.ErrUnsupported)
	}
	found, err := listReferrers(ctx, lister, d)
	answer, _ := errors.AsType[*answerError](err)
	repo, ok := src.(*repository)
	if ok && (errors.Is(err, errdef.ErrUnsupported) || answer != nil && answer.kind == ErrNotRegistry) {
		tagged := &remote.Repository{
			Client: repo.Client, Reference: repo.Reference, PlainHTTP: repo.PlainHTTP, ReferrerListMaxPages: repo.ReferrerListMaxPages,
		}
		tagged.SetReferrersCapability(false) // of a new one: cannot fail
		return listReferrers(ctx, tagged, d)
	}
	return found, err
}

func listReferrers(ctx context.Context, lister registry.ReferrerLister, d v1.Descriptor) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	err := lister.Referrers(ctx, d, "", func(page []v1.Descriptor) error {
		if found = append(found, page...); len(found) > maxReferrers {
			return fmt.Errorf("%s: %w: at most %d", d.Digest, ErrTooManyReferrers, maxReferrers)
		}
		return nil
	})
	return found, err
}

// CopiedTags is what [CopyAll] did with each tag.
type CopiedTags struct {
	Tags      map[string]v1.Descriptor // every tag of the source
	Written   []string                 // the tags written, sorted
	Conflicts []*TakenError            // tags that never move and name something else, sorted by tag; not copied
}

// fallbackTag matches the tags by which a registry without the referrers API
// finds referrers.
var fallbackTag = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^sha(256-[0-9a-f]{64}|512-[0-9a-f]{128})$`)
})

// CopyAll copies every tag of src with everything below it, those that record
// promotions too, and moves dst's tags when all of that is there. What several
// tags share moves once; tags that are right already cost one look, so an
// interrupted copy goes on where it was. Tags that never move and name
// something else in dst are conflicts: the rest is copied.
//
// The tags that list referrers in registries without an API for it count as
// such, too; with o.Referrers they are left to dst, which writes its own.
func CopyAll(ctx context.Context, dst, src Target, rules TagRules, o CopyOptions) (*CopiedTags, error) {
	fixed, err := rules.fixed()
	if err != nil {
		return nil, err
	}
	tags, err := allTags(ctx, src)
	if err != nil {
		return nil, sourceError("Tags", err)
	}
	if o.Referrers {
		tags = slices.DeleteFunc(tags, fallbackTag().MatchString)
	}
	done := &CopiedTags{}
	if done.Tags, err = resolveAll(ctx, src, tags, cmpOr(o.Concurrency, DefaultConcurrency)); err != nil {
		return nil, sourceError("Resolve", err)
	}
	have, err := haveOf(ctx, dst, done.Tags, o)
	if err != nil {
		return nil, err
	}
	roots := make(map[digest.Digest]v1.Descriptor) // that have to be copied
	for _, tag := range slices.Sorted(maps.Keys(done.Tags)) {
		want, at := done.Tags[tag], have[tag].Digest
		switch {
		case at != "" && at != want.Digest && (fixed(tag) || fallbackTag().MatchString(tag)):
			done.Conflicts = append(done.Conflicts, &TakenError{Tag: tag, Have: at, Want: want.Digest})
			continue
		case at != want.Digest:
			done.Written = append(done.Written, tag)
		case !o.Referrers:
			continue
		}
		roots[want.Digest] = want
	}
	all := slices.SortedFunc(maps.Values(roots), byDigest)
	var refs []v1.Descriptor
	if o.Referrers {
		if refs, err = referrersOf(ctx, src, all, o); err != nil {
			return nil, sourceError("Referrers", err)
		}
	}
	if err := copyGraphs(ctx, dst, src, append(all, refs...), o); err != nil {
		return nil, err
	}
	if err := listAll(ctx, dst, refs); err != nil {
		return nil, err
	}
	byRoot := make(map[digest.Digest][]string)
	for _, tag := range done.Written {
		d := done.Tags[tag].Digest
		byRoot[d] = append(byRoot[d], tag)
	}
	if err := each(ctx, o, slices.Sorted(maps.Keys(byRoot)), func(ctx context.Context, d digest.Digest) error {
		return putTags(ctx, dst, src, roots[d], byRoot[d])
	}); err != nil {
		return nil, err
	}
	return done, flush(ctx, dst)
}

func byDigest(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }

// each calls f for every item, several at once, until one fails.
func each[T any](ctx context.Context, o CopyOptions, items []T, f func(context.Context, T) error) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(cmpOr(o.Concurrency, DefaultConcurrency))
	for _, item := range items {
		if inner.Err() != nil {
			break
		}
		g.Go(func() error { return f(inner, item) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// haveOf returns those of the tags that t has. One listing says which they can
// be; a repository that is yet to be made has none.
func haveOf(ctx context.Context, t Target, tags map[string]v1.Descriptor, o CopyOptions) (map[string]v1.Descriptor, error) {
	listed, err := allTags(ctx, t)
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok && resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	listed = slices.DeleteFunc(listed, func(tag string) bool {
		_, ok := tags[tag]
		return !ok
	})
	return resolveAll(ctx, t, listed, cmpOr(o.Concurrency, DefaultConcurrency))
}

// referrersOf returns the referrers of all roots, none twice.
func referrersOf(ctx context.Context, src Target, roots []v1.Descriptor, o CopyOptions) ([]v1.Descriptor, error) {
	var mu sync.Mutex
	all := make(map[digest.Digest]v1.Descriptor)
	err := each(ctx, o, roots, func(ctx context.Context, root v1.Descriptor) error {
		found, err := referrers(ctx, src, root)
		mu.Lock()
		defer mu.Unlock()
		for _, r := range found {
			all[r.Digest] = r
		}
		return err
	})
	return slices.SortedFunc(maps.Values(all), byDigest), err
}
