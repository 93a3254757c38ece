package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/oci/layout"
)

// RemoveOptions say what [Remove] may do.
type RemoveOptions struct {
	// AllTags removes the manifest with all its tags.
	AllTags bool
	// Stages are tags that are not removed, nor the manifests they name.
	Stages []string
	// DryRun looks and removes nothing.
	DryRun bool
	// Concurrency is how many tags are looked up at once; 0: [DefaultConcurrency].
	Concurrency int
}

// Removed is what [Remove] removed, or would.
type Removed struct {
	Tags     []string        // sorted
	Digest   digest.Digest   // what they named
	Manifest bool            // whether that manifest is gone, too
	Freed    []v1.Descriptor // blobs of a layout that nothing refers to any more; digest and size only
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
	content.Untagger
	content.Deleter
	Garbage(ctx context.Context, without ...digest.Digest) ([]v1.Descriptor, error)
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
// have no tag of their own and all that nothing refers to any more.
func Remove(ctx context.Context, t Target, r Reference, o RemoveOptions) (Removed, error) {
	d, err := t.Resolve(ctx, r.TagOrDigest())
	if err != nil {
		return Removed{}, err
	}
	done := Removed{Digest: d.Digest}
	tag := r.TagOrDigest()
	byTag := r.Digest == "" && !o.AllTags
	if byTag && slices.Contains(o.Stages, tag) {
		return done, &StageError{d.Digest, tag}
	}
	local, isLocal := t.(store)
	if byTag && !isLocal {
		if o.DryRun {
			done.Tags = []string{tag}
			return done, nil
		}
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
	tags := slices.Sorted(maps.Keys(all))
	tags = slices.DeleteFunc(tags, func(tag string) bool { return all[tag].Digest != d.Digest })
	others := slices.DeleteFunc(slices.Clone(tags), func(other string) bool { return byTag && other == tag })
	switch {
	case isLocal && byTag && len(others) > 0:
		done.Tags = []string{tag}
		if o.DryRun {
			return done, nil
		}
		if err := local.Untag(ctx, tag); err != nil {
			return Removed{Digest: d.Digest}, err
		}
		return done, flush(ctx, t)
	case len(others) > 0 && !o.AllTags:
		return done, errors.Join(stageFault(o, all, d.Digest), &SharedError{d.Digest, tags})
	}
	if err := stageFault(o, all, d.Digest); err != nil {
		return done, err
	}
	if isLocal {
		return removeLocal(ctx, t, local, d, all, tags, o)
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

// removeLocal removes a manifest of a layout with its tags and the referrers
// without one, and frees what is left over.
func removeLocal(ctx context.Context, t Target, local store, d v1.Descriptor, all map[string]v1.Descriptor, tags []string, o RemoveOptions) (Removed, error) {
	done := Removed{Tags: tags, Digest: d.Digest, Manifest: true}
	found, err := referrers(ctx, t, d)
	if err != nil {
		return Removed{Digest: d.Digest}, err
	}
	for _, other := range all {
		found = slices.DeleteFunc(found, func(r v1.Descriptor) bool { return r.Digest == other.Digest })
	}
	doomed := append(found, d)
	if o.DryRun {
		var digests []digest.Digest
		for _, d := range doomed {
			digests = append(digests, d.Digest)
		}
		done.Freed, err = local.Garbage(ctx, digests...)
		return done, err
	}
	for _, d := range doomed {
		err := local.Delete(ctx, d)
		if _, ok := errors.AsType[*layout.ReferencedError](err); ok {
			// Part of an index: it only loses its names.
			if d.Digest != done.Digest {
				continue
			}
			done.Manifest = false
			for _, tag := range tags {
				if err := local.Untag(ctx, tag); err != nil {
					return done, err
				}
			}
			continue
		}
		if err != nil && !errors.Is(err, errdef.ErrNotFound) {
			return Removed{Digest: done.Digest}, err
		}
	}
	if done.Freed, err = local.GC(ctx, false); err != nil {
		return done, err
	}
	return done, flush(ctx, t)
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
	repo, ok := t.(*remote.Repository)
	if !ok {
		return errdef.ErrUnsupported
	}
	scheme := "https"
	if repo.PlainHTTP {
		scheme = "http"
	}
	u := url.URL{Scheme: scheme, Host: repo.Reference.Host(), Path: "/v2/" + repo.Reference.Repository + "/manifests/" + tag}
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
	answer := &errcode.ErrorResponse{Method: req.Method, URL: &u, StatusCode: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	// What is no JSON says nothing beyond its status.
	if json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&body) == nil {
		answer.Errors = body.Errors
	}
	return answer
}
