package oci

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// PushOptions say how [Push] works.
type PushOptions struct {
	Tags        []string // none: a tag made of the content, and latest
	New         bool     // push even if the content is there already
	Rules       TagRules
	Concurrency int
	Progress    Progress
}

// Pushed is what a push did.
type Pushed struct {
	Root v1.Descriptor // what the tags name now
	Tags []string      // the tags asked for, or made up
	// Existing is the artifact of the same content that was there already,
	// and that the tags name instead of a new one; nil if the packed
	// artifact was pushed, or was there to the byte.
	Existing *manifest.Artifact
	// Written reports whether anything was.
	Written bool
}

// Push copies a packed model to t and moves the tags to it. Nothing is written
// where the tags name the same bytes already, or another artifact of the same
// content: a new commit with the same model is no new model. Tags that never
// move are refused with a [*TakenError] before anything is copied.
func Push(ctx context.Context, t Target, p *manifest.Packed, o PushOptions) (Pushed, error) {
	done := Pushed{Root: p.Root, Tags: o.Tags}
	content := p.Manifest.Annotations[manifest.AnnotationContent]
	if len(done.Tags) == 0 {
		done.Tags = []string{contentTag(content), "latest"}
	}
	have, err := resolveTags(ctx, t, done.Tags)
	if err != nil {
		return done, err
	}
	if !o.New {
		if done.Existing, err = sameContent(ctx, t, done.Tags, have, p); err != nil {
			return done, err
		}
	}
	if done.Existing != nil {
		done.Root = done.Existing.Root
	}
	var move []string
	for _, tag := range done.Tags {
		if have[tag].Digest != done.Root.Digest {
			move = append(move, tag)
		}
	}
	if len(move) == 0 {
		return done, nil
	}
	if done.Existing != nil && len(o.Tags) > 0 {
		// Every tag names the content, if not the same artifact.
		return done, nil
	}
	if err := o.Rules.CheckMoves(ctx, t, move, have, done.Root.Digest); err != nil {
		return done, err
	}
	done.Written = true
	if done.Existing != nil {
		return done, tagRoot(ctx, t, t, done.Root, move)
	}
	return done, Copy(ctx, t, p, p.Root, CopyOptions{Tags: move, Concurrency: o.Concurrency, Progress: o.Progress})
}

// contentTag names an artifact by what the model is.
func contentTag(content string) string {
	return contentPrefix + Short(digest.Digest(content))
}

// sameContent looks for an artifact of the same content that stands in for p:
// all the tags name one, or the tag made of the content does. It returns nil
// where p itself is there, or nothing is.
func sameContent(ctx context.Context, t Target, tags []string, have map[string]v1.Descriptor, p *manifest.Packed) (*manifest.Artifact, error) {
	var first *manifest.Artifact
	seen := make(map[digest.Digest]bool)
	for _, tag := range tags {
		d, ok := have[tag]
		if !ok {
			return nil, nil
		}
		if d.Digest == p.Root.Digest || seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		m, err := Read(ctx, t, d.Digest.String())
		if err != nil {
			return nil, nil // another kind of artifact, or broken: to be replaced
		}
		if m.Manifest.Annotations[manifest.AnnotationContent] != p.Manifest.Annotations[manifest.AnnotationContent] {
			return nil, nil
		}
		if first == nil {
			first = m.Artifact
		}
		if strings.HasPrefix(tag, contentPrefix) {
			break
		}
	}
	return first, nil
}
