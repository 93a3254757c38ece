package oci

import (
	"context"
	"slices"
	"sync"
	"time"

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
	// Ahead has looked the tags up already, or is about to; nil: Push does.
	Ahead *Lookup
}

// Lookup is a question what tags name, which is under way while the answer to
// another is sought: what they should. See also [Lookup.Ahead]. A nil Lookup asks
// nothing and sends nothing.
type Lookup struct {
	ctx  context.Context
	t    Target
	tags []string
	done chan struct{} // closed when the rest is there
	have map[string]v1.Descriptor
	err  error
	at   time.Time

	mu      sync.Mutex
	streams []*stream
}

// LookUp begins to ask what the tags of t name. ctx ends it. It has to be closed.
func LookUp(ctx context.Context, t Target, tags []string) *Lookup {
	l := &Lookup{ctx: ctx, t: t, tags: slices.Clone(tags), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.have, l.err = resolveTags(ctx, t, tags)
		l.at = time.Now()
	}()
	return l
}

// lookupLife is how long an answer is as good as a new one: about as long as a
// small push takes.
const lookupLife = 5 * time.Second

// wait returns what the tags of t name.
func (l *Lookup) wait(ctx context.Context, t Target, tags []string) (map[string]v1.Descriptor, error) {
	if l != nil && slices.Equal(l.tags, tags) {
		<-l.done
		if l.err != nil || time.Since(l.at) < lookupLife {
			return l.have, l.err
		}
	}
	return resolveTags(ctx, t, tags)
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

// Push copies a packed model to t and moves the tags to it. A tag that names the
// same bytes, or another artifact of the same content, stays where it is: a new
// commit with the same model is no new model. Where one does, the other tags
// come to it, and nothing is copied. Tags that never move are refused with a
// [*TakenError] before anything is written, and files that are not what a cache
// told of them with a [*manifest.ChangedError].
func Push(ctx context.Context, t Target, p *manifest.Packed, o PushOptions) (Pushed, error) {
	done := Pushed{Root: p.Root, Tags: o.Tags}
	if len(o.Tags) == 0 {
		done.Tags = []string{contentTag(p.Artifact), "latest"}
	}
	have, err := o.Ahead.wait(ctx, t, done.Tags)
	if err != nil {
		return done, err
	}
	same, err := sameContent(ctx, t, done.Tags, have, p)
	if err != nil {
		return done, err
	}
	if !o.New {
		done.Existing = standIn(done.Tags, have, same, p)
	}
	if done.Existing != nil {
		done.Root = done.Existing.Root
	}
	var move []string
	for _, tag := range done.Tags {
		stays := have[tag].Digest == done.Root.Digest || same[tag] != nil && !o.New
		if len(o.Tags) == 0 && same[tag] != nil && isContentTag(tag) {
			stays = true // it names the content, whoever pushed it first
		}
		if !stays {
			move = append(move, tag)
		}
	}
	if len(move) == 0 {
		return done, nil
	}
	if err := o.Rules.CheckMoves(ctx, t, move, have, done.Root.Digest); err != nil {
		return done, err
	}
	// Until here a cache may have told what the files hold.
	if err := p.Confirm(ctx); err != nil {
		return done, err
	}
	done.Written = true
	if done.Existing != nil {
		return done, tagRoot(ctx, t, t, done.Root, move)
	}
	return done, Copy(ctx, t, p, p.Root, CopyOptions{Tags: move, Concurrency: o.Concurrency, Progress: o.Progress, fresh: true, ahead: o.Ahead})
}

// contentTag names an artifact by what the model is.
func contentTag(a *manifest.Artifact) string {
	return contentPrefix + Short(a.Info().Content)
}

// sameContent returns, by tag, the artifacts that the tags name and whose
// content is p's. A tag that names p itself needs no request.
func sameContent(ctx context.Context, t Target, tags []string, have map[string]v1.Descriptor, p *manifest.Packed) (map[string]*manifest.Artifact, error) {
	read := map[digest.Digest]*manifest.Artifact{p.Root.Digest: p.Artifact}
	same := make(map[string]*manifest.Artifact)
	for _, tag := range tags {
		d, ok := have[tag]
		if !ok {
			continue
		}
		a, ok := read[d.Digest]
		if !ok {
			m, err := Read(ctx, t, d.Digest.String())
			switch {
			case err == nil:
				a = m.Artifact
			case ctx.Err() != nil:
				return nil, err
			default:
				a = nil // another kind of artifact, or a broken one: no model that stays
			}
			read[d.Digest] = a
		}
		if a != nil && a.Info().Content == p.Info().Content {
			same[tag] = a
		}
	}
	return same, nil
}

// standIn returns the artifact that stands in for p, because a tag names it and
// it is of the same content; nil where p itself is there, or nothing is.
func standIn(tags []string, have map[string]v1.Descriptor, same map[string]*manifest.Artifact, p *manifest.Packed) *manifest.Artifact {
	var first *manifest.Artifact
	for _, tag := range tags {
		if have[tag].Digest == p.Root.Digest {
			return nil
		}
		if first == nil {
			first = same[tag]
		}
	}
	return first
}
