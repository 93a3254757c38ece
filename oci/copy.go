package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/manifest"
)

// maxManifest bounds a manifest or index in bytes.
const maxManifest = 4 << 20

// CopyOptions say how [Copy] works. The zero value copies without tags.
type CopyOptions struct {
	// Tags point at the root once its graph is complete.
	Tags []string
	// Where tells in which repository a blob lies already; nil, or a nil
	// target: nowhere. A registry is asked to mount it from there if it is its
	// own, a layout takes it from another one; across registries never. What is
	// not mounted, for whatever reason, is copied from the source.
	Where func(v1.Descriptor) Target
	// Referrers copies what refers to the root too, as signatures and records
	// of promotions do, and what refers to that. [Copy] by itself does not.
	Referrers bool
	// Concurrency is how many blobs move at once; 0: 5.
	Concurrency int
	Progress    Progress

	fresh bool    // the root is not there, or not worth a question
	ahead *Lookup // may have sent layers already; nil: nobody has
}

// Copy copies the graph below root from src to dst and then moves the tags. It
// is the one way by which anything enters a target. Blobs that dst has are not
// moved. A registry that says it has a blob is believed until it refuses a
// manifest for want of it: then the blob is sent after all.
//
// What is cut is sent again, from where it was cut where the registry can go on
// there; src is read anew for that, so that its blobs have to be the same each
// time. [FromSource] tells the errors of src.
func Copy(ctx context.Context, dst Target, src content.ReadOnlyStorage, root v1.Descriptor, o CopyOptions) error {
	opts := o.graph(func(d v1.Descriptor) bool {
		return d.Digest == root.Digest && len(o.Tags) > 0 // tagRoot puts it under its tags at once
	})
	f := fill(dst, src, o)
	if o.fresh {
		f.root = root.Digest
	}
	return f.graph(ctx, root, opts, func() error { return tagRoot(ctx, dst, src, root, o.Tags) })
}

// copyGraphs copies several graphs as if they were one, so that what they
// share moves once. A referrer comes after what it refers to.
func copyGraphs(ctx context.Context, dst Target, src content.ReadOnlyStorage, roots []v1.Descriptor, o CopyOptions) error {
	if len(roots) == 0 {
		return nil
	}
	names := digest.Canonical.Digester()
	for _, d := range roots {
		io.WriteString(names.Hash(), d.Digest.String())
	}
	// An index that is nowhere, above them all.
	all := v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: names.Digest()}
	opts := o.graph(func(d v1.Descriptor) bool { return d.Digest == all.Digest })
	opts.FindSuccessors = func(ctx context.Context, f content.Fetcher, d v1.Descriptor) ([]v1.Descriptor, error) {
		if d.Digest == all.Digest {
			return roots, nil
		}
		return content.Successors(ctx, f, d)
	}
	f := fill(dst, src, o)
	f.root = all.Digest
	return f.graph(ctx, all, opts, func() error { return nil })
}

// graph returns the options of a copy that leaves out what skip says, but not
// what is below it.
func (o CopyOptions) graph(skip func(v1.Descriptor) bool) oras.CopyGraphOptions {
	report := func(kind EventKind) func(context.Context, v1.Descriptor) error {
		return func(_ context.Context, d v1.Descriptor) error {
			o.Progress.emit(Event{Kind: kind, Descriptor: d, Name: d.Annotations[v1.AnnotationTitle]})
			return nil
		}
	}
	started := report(Started)
	return oras.CopyGraphOptions{
		Concurrency: cmpOr(o.Concurrency, DefaultConcurrency),
		PreCopy: func(ctx context.Context, d v1.Descriptor) error {
			if skip(d) {
				return oras.SkipNode
			}
			return started(ctx, d)
		},
		PostCopy:      report(Done),
		OnCopySkipped: report(Skipped),
		OnMounted:     report(Mounted),
	}
}

// tagRoot puts the root under each tag: one request a tag where the target can
// push by reference. Then the target is as it should be.
func tagRoot(ctx context.Context, dst Target, src content.ReadOnlyStorage, root v1.Descriptor, tags []string) error {
	if err := putTags(ctx, dst, src, root, tags); err != nil || len(tags) == 0 {
		return err
	}
	return flush(ctx, dst)
}

// putTags is tagRoot for one root of several.
func putTags(ctx context.Context, dst Target, src content.ReadOnlyStorage, root v1.Descriptor, tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	doc, err := manifest.ReadBlob(ctx, src, root, "manifest", maxManifest)
	if err != nil {
		return err
	}
	pusher, ok := dst.(registry.ReferencePusher)
	if !ok {
		if err := dst.Push(ctx, root, bytes.NewReader(doc)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			return err
		}
	}
	for _, tag := range tags {
		if ok {
			err = pusher.PushReference(ctx, root, bytes.NewReader(doc), tag)
		} else {
			err = dst.Tag(ctx, root, tag)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// observed reports what is read from a source.
type observed struct {
	content.ReadOnlyStorage
	p Progress
}

func (s *observed) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := s.ReadOnlyStorage.Fetch(ctx, d)
	if err != nil || s.p == nil {
		return rc, err
	}
	return struct {
		io.Reader
		io.Closer
	}{s.p.reader(ctx, rc, d, d.Annotations[v1.AnnotationTitle]), rc}, nil
}

// fetchReference reads the manifest that the tag or digest names: one request
// where the target can fetch by reference.
func fetchReference(ctx context.Context, t Target, reference string) (v1.Descriptor, []byte, error) {
	fetcher, ok := t.(registry.ReferenceFetcher)
	if !ok {
		d, err := t.Resolve(ctx, reference)
		if err != nil {
			return d, nil, err
		}
		doc, err := manifest.ReadBlob(ctx, t, d, "manifest", maxManifest)
		return d, doc, err
	}
	d, rc, err := fetcher.FetchReference(ctx, reference)
	if err != nil {
		return d, nil, err
	}
	defer rc.Close()
	once := fetchFunc(func(context.Context, v1.Descriptor) (io.ReadCloser, error) { return rc, nil })
	doc, err := manifest.ReadBlob(ctx, once, d, "manifest", maxManifest)
	return d, doc, err
}

type fetchFunc func(context.Context, v1.Descriptor) (io.ReadCloser, error)

func (f fetchFunc) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return f(ctx, d)
}

// memo is a storage of which one small blob is at hand.
type memo struct {
	content.ReadOnlyStorage
	d   v1.Descriptor
	doc []byte
}

func (m *memo) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if d.Digest == m.d.Digest {
		return io.NopCloser(bytes.NewReader(m.doc)), nil
	}
	return m.ReadOnlyStorage.Fetch(ctx, d)
}

// Model is an artifact in a target.
type Model struct {
	*manifest.Artifact
	content.ReadOnlyStorage
}

// Read reads the artifact that the tag or digest names: its manifest, and its
// config only where another tool tells the files there.
func Read(ctx context.Context, t Target, reference string) (*Model, error) {
	d, doc, err := fetchReference(ctx, t, reference)
	if err != nil {
		return nil, err
	}
	src := &memo{t, d, doc}
	a, err := manifest.Read(ctx, src, d)
	if err != nil {
		return nil, err
	}
	return &Model{a, src}, nil
}

// CopyReference copies what the tag or digest names, with everything below it,
// and moves dst's tags to it, unless the rules forbid one: then nothing is
// written. It returns the root. [FromSource] tells the errors of src.
func CopyReference(ctx context.Context, dst, src Target, reference string, rules TagRules, o CopyOptions) (v1.Descriptor, error) {
	d, doc, err := fetchReference(ctx, src, reference)
	if err != nil {
		return d, &oras.CopyError{Op: "Fetch", Origin: oras.CopyErrorOriginSource, Err: err}
	}
	have, err := resolveTags(ctx, dst, o.Tags)
	if err != nil {
		return d, err
	}
	if err := rules.CheckMoves(ctx, dst, o.Tags, have, d.Digest); err != nil {
		return d, err
	}
	o.Tags = slices.DeleteFunc(slices.Clone(o.Tags), func(tag string) bool { return have[tag].Digest == d.Digest })
	from := &memo{src, d, doc}
	if o.Referrers {
		if err := copyReferrers(ctx, dst, src, from, d, o); err != nil {
			return d, err
		}
	}
	if len(o.Tags) == 0 && len(have) > 0 { // every tag is where it belongs, so its graph is complete
		return d, flush(ctx, dst)
	}
	if sameRepository(dst, src) {
		err = tagRoot(ctx, dst, from, d, o.Tags) // everything below it is there
	} else {
		err = Copy(ctx, dst, from, d, o)
	}
	if err != nil {
		return d, err
	}
	if len(have)+len(o.Tags) > 0 {
		return d, nil
	}
	if err := list(ctx, dst, d); err != nil {
		return d, err
	}
	return d, flush(ctx, dst)
}

// sameRepository reports whether both are one repository of a registry.
func sameRepository(a, b Target) bool {
	x, ok := a.(*repository)
	y, too := b.(*repository)
	return ok && too && x.Reference.Repository == y.Reference.Repository && strings.EqualFold(x.Reference.Registry, y.Reference.Registry)
}

// list sees to it that a layout lists a manifest that has no tag: what is not
// listed is garbage there.
func list(ctx context.Context, dst Target, d v1.Descriptor) error {
	if _, ok := dst.(registry.ReferencePusher); ok {
		return nil
	}
	return dst.Tag(ctx, d, d.Digest.String())
}

// FromSource reports whether an error of a copy arose where it read, not where
// it wrote.
func FromSource(err error) bool {
	if _, ok := errors.AsType[*readError](err); ok {
		return true
	}
	e, ok := errors.AsType[*oras.CopyError](err)
	return ok && e.Origin == oras.CopyErrorOriginSource
}
