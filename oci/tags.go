package oci

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/manifest/nearest"
)

// DefaultVersions is the pattern of tags that never move once they are there.
const DefaultVersions = `^v?[0-9]|^keep-`

// contentPrefix begins the tag that names an artifact by its content; such a
// tag never moves either.
const contentPrefix = "c-"

// historyTag matches the tags that record promotions; only promotion writes them.
// It tells the stage, and h for an event or i for an intent.
var historyTag = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(.+)\.([hi])-[0-9]+-`)
})

// stagesIn are the stages that have events among the tags.
func stagesIn(tags []string) map[string]bool {
	stages := make(map[string]bool)
	for _, tag := range tags {
		if m := historyTag().FindStringSubmatch(tag); m != nil && m[2] == "h" {
			stages[m[1]] = true
		}
	}
	return stages
}

// TakenError says that a tag that never moves names something else already.
type TakenError struct {
	Tag  string
	Have digest.Digest
	Want digest.Digest
	Next string // a free tag of the same form; empty if none was found
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("tag %s names %s already, and version tags do not move", e.Tag, Short(e.Have))
}

// HistoryTagError says that a tag belongs to the record of promotions.
type HistoryTagError struct{ Tag string }

func (e *HistoryTagError) Error() string {
	return fmt.Sprintf("tag %s records a promotion and is not written by hand", e.Tag)
}

// Short is a digest as people read it: 12 hex digits.
func Short(d digest.Digest) string {
	_, hex, _ := strings.Cut(d.String(), ":")
	return hex[:min(12, len(hex))]
}

// StageTagError says that a tag is a stage, which only promotion moves.
type StageTagError struct{ Tag string }

func (e *StageTagError) Error() string {
	return fmt.Sprintf("tag %s is a stage, which moves by promotion only", e.Tag)
}

// TagRules tell which tags may move.
type TagRules struct {
	Versions string   // regular expression; empty: [DefaultVersions]
	Stages   []string // tags that are stages, besides those that have events
}

// CheckMoves reports whether the tags of t may be put on want: a version tag
// only where it is free or names want, and a stage not at all. have is what the
// tags name now, by tag. Whether a tag that would move is a stage costs a listing.
// Between this check and the write another writer may come: registries have no
// compare-and-swap.
func (r TagRules) CheckMoves(ctx context.Context, t Target, tags []string, have map[string]v1.Descriptor, want digest.Digest) error {
	fixed, err := r.fixed()
	if err != nil {
		return err
	}
	moves := false
	for _, tag := range tags {
		d, ok := have[tag]
		switch {
		case historyTag().MatchString(tag):
			return &HistoryTagError{tag}
		case d.Digest == want:
			continue
		case slices.Contains(r.Stages, tag):
			return &StageTagError{tag}
		case !ok:
			continue
		case !fixed(tag):
			moves = true
			continue
		}
		e := &TakenError{Tag: tag, Have: d.Digest, Want: want}
		if !isContentTag(tag) {
			e.Next, err = nextFree(ctx, t, tag)
		}
		return errors.Join(e, err)
	}
	if !moves {
		return nil
	}
	all, err := allTags(ctx, t)
	if err != nil {
		return err
	}
	stages := stagesIn(all)
	for _, tag := range tags {
		if d, ok := have[tag]; ok && d.Digest != want && stages[tag] {
			return &StageTagError{tag}
		}
	}
	return nil
}

// Fixed reports whether a tag of that name never moves.
func (r TagRules) Fixed(tag string) (bool, error) {
	fixed, err := r.fixed()
	return err == nil && fixed(tag), err
}

// fixed returns what tells the tags that never move.
func (r TagRules) fixed() (func(tag string) bool, error) {
	pattern := r.Versions
	if pattern == "" {
		pattern = DefaultVersions
	}
	versions, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("versions %q: %w", pattern, err)
	}
	return func(tag string) bool {
		return versions.MatchString(tag) || isContentTag(tag) || historyTag().MatchString(tag)
	}, nil
}

// isContentTag reports whether a tag is made of a content or a digest.
func isContentTag(tag string) bool {
	hex, ok := strings.CutPrefix(tag, contentPrefix)
	if !ok {
		hex, ok = strings.CutPrefix(tag, pinPrefix)
	}
	return ok && len(hex) == 12 && strings.Trim(hex, "0123456789abcdef") == ""
}

// resolveTags looks each tag up; those that are absent are left out.
func resolveTags(ctx context.Context, t Target, tags []string) (map[string]v1.Descriptor, error) {
	have := make(map[string]v1.Descriptor)
	for _, tag := range tags {
		d, err := t.Resolve(ctx, tag)
		if errors.Is(err, errdef.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		have[tag] = d
	}
	return have, nil
}

// nextFree counts the last number of a tag up until the tag is free.
func nextFree(ctx context.Context, t Target, tag string) (string, error) {
	end := strings.LastIndexAny(tag, "0123456789") + 1
	start := end
	for start > 0 && tag[start-1] >= '0' && tag[start-1] <= '9' {
		start--
	}
	n, err := strconv.Atoi(tag[start:end])
	if err != nil {
		return "", nil // no number that could be counted up
	}
	tags, err := allTags(ctx, t)
	if err != nil {
		return "", err
	}
	taken := make(map[string]bool, len(tags))
	for _, t := range tags {
		taken[t] = true
	}
	for {
		n++
		if next := fmt.Sprintf("%s%0*d%s", tag[:start], end-start, n, tag[end:]); !taken[next] {
			return next, nil
		}
	}
}

// maxTags bounds how many tags of a repository are listed.
const maxTags = 100_000

// allTags lists the tags of t. A registry that ends a full page without a link
// to the next one is asked for what comes after. Names that are no tags, which
// a registry could use to steer a terminal or a request, are left out.
func allTags(ctx context.Context, t Target) ([]string, error) {
	var tags []string
	for page := 1; ; page++ {
		before, last := len(tags), ""
		if before > 0 {
			last = tags[before-1]
		}
		err := t.Tags(ctx, last, func(page []string) error {
			if tags = append(tags, page...); len(tags) > maxTags {
				return fmt.Errorf("more than %d tags", maxTags)
			}
			return nil
		})
		_, isRegistry := t.(registry.ReferencePusher)
		if got := len(tags) - before; err != nil || !isRegistry || got == 0 || got%tagPage != 0 || page == maxPages {
			return slices.DeleteFunc(tags, func(tag string) bool { return tagFault(tag, tag) != nil }), err
		}
	}
}

// NearestTags returns up to five tags of t that look most like tag.
func NearestTags(ctx context.Context, t Target, tag string) ([]string, error) {
	tags, err := allTags(ctx, t)
	if err != nil {
		return nil, err
	}
	return nearest.Words(tag, tags, 5), nil
}
