package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/oci/layout"
)

// RemoveOptions say what [Remove] may do.
type RemoveOptions struct {
	// AllTags removes the manifest with all its tags.
	AllTags bool
	// Stages are tags that are not removed, nor the manifests they name; so are
	// tags that have events.
	Stages []string
	Rules  TagRules
	// DryRun looks and removes nothing.
	DryRun bool
	// Concurrency is how many tags are looked up at once; 0: [DefaultConcurrency].
	Concurrency int
}

// Removed is what [Remove] removed, or would.
type Removed struct {
	Tags      []string        // sorted
	Digest    digest.Digest   // what they named
	Manifest  bool            // whether that manifest is gone, too
	Referrers []digest.Digest // manifests of a layout that referred to it and are gone with it
	Freed     []v1.Descriptor // blobs of a layout that nothing refers to any more; digest and size only
	Later     []v1.Descriptor // such blobs that are too young to be freed

	// MayShare says that only the registry knows whether it deletes a tag
	// alone; otherwise the manifest goes with it, unless it has Others.
	MayShare bool
	Others   []string // sorted
}

// SharedError says that a manifest cannot be removed without all its tags.
type SharedError struct {
	Digest digest.Digest
	Tags   []string // sorted
}

func (e *SharedError) Error() string {
	return fmt.Sprintf("%s would go with all its tags: %s", Short(e.Digest), strings.Join(e.Tags, ", "))
}

// StageError says that a stage points at what was to be removed.
type StageError struct {
	Digest digest.Digest
	Stage  string
}

func (e *StageError) Error() string {
	return fmt.Sprintf("stage %s points at %s", e.Stage, Short(e.Digest))
}

// NoDeleteError says that a registry does not let anything be deleted.
type NoDeleteError struct{ Err error }

func (e *NoDeleteError) Error() string { return "registry deletes nothing: " + e.Err.Error() }

// Unwrap returns the registry's answer.
func (e *NoDeleteError) Unwrap() error { return e.Err }

// store is a target whose content is ours to free.
type store interface {
	Remove(ctx context.Context, dgst digest.Digest, tags []string, dryRun bool) (layout.Removal, error)
	Garbage(ctx context.Context, without ...digest.Digest) (now, later []v1.Descriptor, err error)
	GC(ctx context.Context, dryRun bool) ([]v1.Descriptor, error)
}

var (
	_ store = (*layout.Store)(nil)
	_ store = (*layout.Archive)(nil)
)

// Remove removes r's tag, or with r's digest a manifest. A tag goes alone where
// that is possible. Some registries delete by digest only, and then the
// manifest goes with all its tags: if there are others, and for a digest if
// there are any, that is a [*SharedError] unless o.AllTags allows it. What a
// stage points at is a [*StageError], and a registry that refuses either kind
// of deletion a [*NoDeleteError]. Removed says what is gone even then.
//
// In a layout the last tag takes the manifest along, with its referrers that
// have no tag of their own, and all that nothing refers to any more is freed,
// also when r is not there.
func Remove(ctx context.Context, t Target, r Reference, o RemoveOptions) (Removed, error) {
	local, isLocal := t.(store)
	d, err := t.Resolve(ctx, r.TagOrDigest())
	switch {
	case isLocal && r.Digest != "" && errors.Is(err, content.ErrMismatchedDigest):
		d = v1.Descriptor{Digest: r.Digest} // altered, and good for removal only
	case isLocal && errors.Is(err, errdef.ErrNotFound):
		done, freeErr := Free(ctx, t, o.DryRun)
		return done, errors.Join(err, freeErr)
	case err != nil:
		return Removed{}, err
	}
	done := Removed{Digest: d.Digest}
	tag := r.TagOrDigest()
	byTag := r.Digest == "" && !o.AllTags
	if byTag && slices.Contains(o.Stages, tag) {
		return done, &StageError{d.Digest, tag}
	}
	if fixed, err := o.Rules.Fixed(tag); byTag && (err != nil || !fixed) {
		// It may be a stage that has events.
		names, lerr := allTags(ctx, t)
		if err = cmp.Or(err, lerr); err != nil {
			return done, err
		}
		if stagesIn(names)[tag] {
			return done, &StageError{d.Digest, tag}
		}
	}
	if byTag && isLocal {
		return removeLocal(ctx, t, local, d.Digest, []string{tag}, o)
	}
	if byTag && !o.DryRun {
		err := deleteTag(ctx, t, tag)
		if err == nil {
			done.Tags = []string{tag}
		}
		if !refused(err) {
			return done, err
		}
	}
	names, err := allTags(ctx, t)
	if err != nil {
		return done, err
	}
	all, err := resolveAll(ctx, t, names, cmpOr(o.Concurrency, DefaultConcurrency))
	if err != nil {
		return done, err
	}
	o.Stages = slices.AppendSeq(slices.Clone(o.Stages), maps.Keys(stagesIn(names)))
	tags := slices.Sorted(maps.Keys(all))
	tags = slices.DeleteFunc(tags, func(tag string) bool { return all[tag].Digest != d.Digest })
	others := slices.DeleteFunc(slices.Clone(tags), func(other string) bool { return byTag && other == tag })
	if byTag && o.DryRun {
		// Only deleting would tell whether the registry deletes a tag alone.
		done.Tags, done.MayShare, done.Others = []string{tag}, true, others
		return done, nil
	}
	if len(others) > 0 && !o.AllTags {
		return done, errors.Join(stageFault(o, all, d.Digest), &SharedError{d.Digest, tags})
	}
	if err := stageFault(o, all, d.Digest); err != nil {
		return done, err
	}
	if isLocal {
		return removeLocal(ctx, t, local, d.Digest, tags, o)
	}
	done.Tags, done.Manifest = tags, true
	if o.DryRun {
		return done, nil
	}
	return removeRemote(ctx, t, d, tags)
}

// stageFault returns a [*StageError] when a stage points at the manifest.
func stageFault(o RemoveOptions, all map[string]v1.Descriptor, d digest.Digest) error {
	for _, stage := range o.Stages {
		if all[stage].Digest == d {
			return &StageError{d, stage}
		}
	}
	return nil
}

// removeLocal removes tags of a manifest of a layout, the manifest and its
// referrers where the layout does, and frees what is left over.
func removeLocal(ctx context.Context, t Target, local store, d digest.Digest, tags []string, o RemoveOptions) (Removed, error) {
	r, err := local.Remove(ctx, d, tags, o.DryRun)
	if err != nil {
		return Removed{Digest: d}, err
	}
	done, freeErr := free(ctx, local, o.DryRun, r.Manifests...)
	if !o.DryRun {
		if err := flush(ctx, t); err != nil {
			return Removed{Digest: d}, errors.Join(err, freeErr)
		}
	}
	done.Tags, done.Digest = r.Tags, d
	if len(r.Manifests) == 0 && len(tags) == 0 {
		return done, errors.Join(fmt.Errorf("%s is part of another manifest, or has a tag by now", Short(d)), freeErr)
	}
	if len(r.Manifests) > 0 {
		done.Manifest, done.Referrers = true, r.Manifests[1:]
	}
	return done, freeErr
}

// Free frees what nothing refers to any more in a layout. Other targets do that
// themselves: the error wraps [errdef.ErrUnsupported].
func Free(ctx context.Context, t Target, dryRun bool) (Removed, error) {
	local, ok := t.(store)
	if !ok {
		return Removed{}, errdef.ErrUnsupported
	}
	done, err := free(ctx, local, dryRun)
	if err != nil || dryRun {
		return done, err
	}
	if err := flush(ctx, t); err != nil {
		return Removed{}, err
	}
	return done, nil
}

// free is Free, in a dry run as if the manifests were gone.
func free(ctx context.Context, local store, dryRun bool, without ...digest.Digest) (Removed, error) {
	var done Removed
	var err error
	if dryRun {
		done.Freed, done.Later, err = local.Garbage(ctx, without...)
		return done, err
	}
	if done.Freed, err = local.GC(ctx, false); err != nil {
		return done, err
	}
	_, done.Later, err = local.Garbage(ctx)
	return done, err
}

// removeRemote removes a manifest of a registry with its tags. Those come
// first: some registries keep tags of a manifest that is gone.
func removeRemote(ctx context.Context, t Target, d v1.Descriptor, tags []string) (Removed, error) {
	done := Removed{Digest: d.Digest}
	for _, tag := range tags {
		err := deleteTag(ctx, t, tag)
		if refused(err) {
			break
		}
		if err != nil && !errors.Is(err, errdef.ErrNotFound) {
			return done, err
		}
		done.Tags = append(done.Tags, tag)
	}
	deleter, ok := t.(content.Deleter)
	if !ok {
		return done, errdef.ErrUnsupported
	}
	switch err := deleter.Delete(ctx, d); {
	case refused(err):
		return done, &NoDeleteError{err}
	case err != nil && !errors.Is(err, errdef.ErrNotFound): // gone with its last tag
		return done, err
	}
	done.Tags, done.Manifest = tags, true
	return done, nil
}

// refused reports whether the registry does not delete in the way it was asked
// to: the specification leaves it free to.
func refused(err error) bool {
	resp, ok := errors.AsType[*errcode.ErrorResponse](err)
	if !ok {
		return false
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return slices.ContainsFunc(resp.Errors, func(e errcode.Error) bool { return e.Code == errcode.ErrorCodeUnsupported })
}

// maxErrorBody bounds in bytes what is read of an error.
const maxErrorBody = 8 << 10

// deleteTag removes a tag and leaves its manifest, which oras-go does not offer:
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#deleting-tags
func deleteTag(ctx context.Context, t Target, tag string) error {
	repo, ok := t.(*repository)
	if !ok {
		return errdef.ErrUnsupported
	}
	u := repo.home()
	u.Path = "/v2/" + repo.Reference.Repository + "/manifests/" + tag
	ctx = auth.AppendRepositoryScope(ctx, repo.Reference, auth.ActionDelete)
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := repo.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		return nil
	case http.StatusNotFound:
		return fmt.Errorf("tag %s: %w", tag, errdef.ErrNotFound)
	}
	return errorResponse(resp)
}
