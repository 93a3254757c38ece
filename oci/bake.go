package oci

import (
	"context"
	"errors"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// Find returns what the tag or digest names, and a storage to read it from, in
// which its manifest is at hand: one request where the target can fetch by
// reference.
func Find(ctx context.Context, t Target, reference string) (v1.Descriptor, content.ReadOnlyStorage, error) {
	d, doc, err := fetchReference(ctx, t, reference)
	if err != nil {
		return d, nil, err
	}
	return d, &memo{t, d, doc}, nil
}

// ImageOptions say how [PushImage] and [PlanImage] work.
type ImageOptions struct {
	Tags  []string
	Rules TagRules
	// Where tells in which repository a blob lies already; see [CopyOptions].
	Where       func(v1.Descriptor) Target
	Concurrency int
	Progress    Progress
}

// PushImage copies an image to dst, mounting what can be, and moves the tags to
// it. Where all the tags name it, nothing is written. A tag that never moves is
// refused with a [*TakenError] before anything is written.
func PushImage(ctx context.Context, dst Target, src content.ReadOnlyStorage, root v1.Descriptor, o ImageOptions) (Pushed, error) {
	done := Pushed{Root: root, Tags: o.Tags}
	move, err := o.move(ctx, dst, root)
	if err != nil || len(move) == 0 && len(o.Tags) > 0 {
		return done, err
	}
	done.Written = true
	err = Copy(ctx, dst, src, root, CopyOptions{Tags: move, Where: o.Where, Concurrency: o.Concurrency, Progress: o.Progress, fresh: len(move) > 0})
	return done, err
}

// move lists the tags that have to move to the root.
func (o *ImageOptions) move(ctx context.Context, dst Target, root v1.Descriptor) ([]string, error) {
	have, err := resolveTags(ctx, dst, o.Tags)
	if err != nil {
		return nil, err
	}
	if err := o.Rules.CheckMoves(ctx, dst, o.Tags, have, root.Digest); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(o.Tags), func(tag string) bool { return have[tag].Digest == root.Digest }), nil
}

// Fate is what a copy does with a blob.
type Fate string

// The fates of blobs.
const (
	FatePresent  Fate = "present"  // the target has it
	FateMounted  Fate = "mounted"  // the target takes it from another of its repositories
	FateUploaded Fate = "uploaded" // its bytes are sent
)

// PlanImage says what [PushImage] would do with each of the blobs, the last of
// which is the root, and writes nothing. Whether a registry does mount a blob
// shows only when it is asked to.
func PlanImage(ctx context.Context, dst Target, blobs []v1.Descriptor, o ImageOptions) ([]Fate, error) {
	if _, err := o.move(ctx, dst, blobs[len(blobs)-1]); err != nil {
		return nil, err
	}
	mount := CopyOptions{Where: o.Where}
	fates := make([]Fate, 0, len(blobs))
	for _, d := range blobs {
		fate := FateUploaded
		there, err := dst.Exists(ctx, d)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if there {
			fate = FatePresent
		} else if mount.mountable(dst, d) != nil {
			fate = FateMounted
		}
		fates = append(fates, fate)
	}
	return fates, nil
}

// FormerTags lists tags of t under which an earlier image of the same kind may
// be: those wanted, as far as they are there, then the others from the last in
// natural order on, n at most. Where tags cannot be listed there are none.
func FormerTags(ctx context.Context, t Target, wanted []string, n int) []string {
	all, err := allTags(ctx, t)
	if err != nil {
		return nil
	}
	var former []string
	for _, tag := range wanted {
		if slices.Contains(all, tag) {
			former = append(former, tag)
		}
	}
	all = slices.DeleteFunc(all, func(tag string) bool {
		return slices.Contains(former, tag) || historyTag().MatchString(tag)
	})
	slices.SortFunc(all, func(a, b string) int { return compareNatural(b, a) })
	former = append(former, all...)
	return former[:min(n, len(former))]
}
