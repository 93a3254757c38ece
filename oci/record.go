package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/manifest"
)

// Keeper is what keeping a record in a repository takes beyond a [Target]: small
// manifests that are written once, each under a tag of its own. It is safe for
// concurrent use.
type Keeper struct {
	Target
	given Target
	clock *clock
}

// NewKeeper returns a keeper of t. In registries without the referrers API it
// does not maintain the index that lists referrers instead: that is one tag,
// read, changed and written by every writer, and loses most of what several
// write at once.
func NewKeeper(t Target) *Keeper {
	k := &Keeper{Target: t, given: t}
	repo, ok := t.(*repository)
	if !ok {
		return k
	}
	k.clock = &clock{}
	plain := &remote.Repository{
		Client: &timed{repo.Client, k.clock}, Reference: repo.Reference, PlainHTTP: repo.PlainHTTP,
		TagListPageSize: repo.TagListPageSize, TagListMaxPages: repo.TagListMaxPages,
	}
	plain.SetReferrersCapability(true) // of a new one: cannot fail
	k.Target = &repository{c: repo.c, Repository: plain}
	return k
}

// Given is the target of [NewKeeper], which also keeps the index of referrers.
func (k *Keeper) Given() Target { return k.given }

// clock is how far a registry's clock is ahead of ours.
type clock struct{ ahead atomic.Int64 }

// timed reads the registry's clock off its answers.
type timed struct {
	remote.Client
	clock *clock
}

// Do implements [remote.Client].
func (c *timed) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.Client.Do(req)
	if err == nil && ownAnswer(req, resp) {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			c.clock.ahead.Store(int64(time.Until(at)))
		}
	}
	return resp, err
}

// ownAnswer reports whether the registry itself answers, and now: not the storage
// that it redirected to, nor a cache with what it said some time ago.
func ownAnswer(req *http.Request, resp *http.Response) bool {
	return resp.Header.Get("Age") == "" && (resp.Request == nil || resp.Request.URL.Host == req.URL.Host)
}

// Now is the time by the registry's clock, as its last answer told it, to the
// second; of layouts, and before any answer, by the clock of this machine.
func (k *Keeper) Now() time.Time {
	now := time.Now()
	if k.clock != nil {
		now = now.Add(time.Duration(k.clock.ahead.Load()))
	}
	return now.UTC().Truncate(time.Second)
}

// AllTags lists every tag, those that record promotions too. A repository that
// is yet to be made has none.
func (k *Keeper) AllTags(ctx context.Context) ([]string, error) {
	tags, err := allTags(ctx, k.Target)
	resp, ok := errors.AsType[*errcode.ErrorResponse](err)
	if ok && resp.StatusCode == http.StatusNotFound && len(tags) == 0 { // not that a page is missing
		return nil, nil
	}
	return tags, err
}

// Get reads the manifest that a tag or digest names, of at most 4 MiB. The
// error wraps [ErrNotFound].
func (k *Keeper) Get(ctx context.Context, reference string) (v1.Descriptor, []byte, error) {
	return fetchReference(ctx, k.Target, reference)
}

// Marshal returns a manifest's bytes and their descriptor.
func Marshal(m v1.Manifest) (v1.Descriptor, []byte, error) {
	doc, err := json.Marshal(m)
	d := content.NewDescriptorFromBytes(m.MediaType, doc)
	d.ArtifactType = m.ArtifactType
	return d, doc, err
}

// Put writes a manifest of the empty config and one layer, with both of them, and
// tags it. d and doc are m's, as [Marshal] returns them. At most six requests,
// four where the repository has the empty config.
func (k *Keeper) Put(ctx context.Context, m v1.Manifest, d v1.Descriptor, doc, layer []byte, tag string) error {
	there, err := k.Exists(ctx, m.Config) // as a rule: every record has it
	if err != nil {
		return err
	}
	if !there {
		err = k.Push(ctx, m.Config, bytes.NewReader(v1.DescriptorEmptyJSON.Data))
	}
	if err == nil || errors.Is(err, errdef.ErrAlreadyExists) {
		err = k.Push(ctx, m.Layers[0], bytes.NewReader(layer))
	}
	if err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		return err
	}
	return k.PutDoc(ctx, d, doc, tag)
}

// PutIndex writes an index of nothing and tags it.
func (k *Keeper) PutIndex(ctx context.Context, i v1.Index, tag string) (v1.Descriptor, error) {
	doc, err := json.Marshal(i)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := content.NewDescriptorFromBytes(i.MediaType, doc)
	return d, k.PutDoc(ctx, d, doc, tag)
}

// PutDoc writes a manifest under a tag. Where registries have tags that do not
// move they refuse one also if it is right already: as it is after an answer that
// was lost, and if two write the same. That is no error.
func (k *Keeper) PutDoc(ctx context.Context, d v1.Descriptor, doc []byte, tag string) error {
	err := tagRoot(ctx, k.Target, &memo{k.Target, d, doc}, d, []string{tag})
	if !Refused(err) {
		return err
	}
	if at, lookErr := k.Resolve(ctx, tag); lookErr != nil || at.Digest != d.Digest {
		return err
	}
	return nil
}

// Refused reports whether err is the answer of a registry that did not do what it
// was asked for, and will not.
func Refused(err error) bool {
	resp, ok := errors.AsType[*errcode.ErrorResponse](err)
	return ok && resp.StatusCode < http.StatusInternalServerError
}

// Drop removes a manifest that only the tag names. That a registry deletes
// nothing is an error that wraps [errdef.ErrUnsupported].
func (k *Keeper) Drop(ctx context.Context, d v1.Descriptor, tag string) error {
	if local, ok := k.Target.(store); ok {
		if _, err := local.Remove(ctx, d.Digest, []string{tag}, false); err != nil {
			return err
		}
		return flush(ctx, k.Target)
	}
	deleter, ok := k.Target.(content.Deleter)
	if !ok {
		return errdef.ErrUnsupported
	}
	err := deleter.Delete(ctx, d)
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return nil
	case refused(err):
		return errors.Join(errdef.ErrUnsupported, err)
	}
	return err
}

// pinPrefix begins a tag that keeps a digest from being garbage.
const pinPrefix = "keep-"

// Pin sees to it that a tag which never moves names d, so that no garbage
// collector takes it once a tag that moves has gone elsewhere. tags are all there
// are, known are names that d goes by. It returns the tag that pins d, and writes
// one only if none of those that are likely does: the known ones, the newest
// version, and those made of the content or the digest. The first known tag, if it
// never moves and is among the tags, is believed, for it led to d.
func (k *Keeper) Pin(ctx context.Context, rules TagRules, d v1.Descriptor, doc []byte, tags []string, known ...string) (string, error) {
	fixed, err := rules.fixed()
	if err != nil {
		return "", err
	}
	if len(known) > 0 && fixed(known[0]) && slices.Contains(tags, known[0]) {
		return known[0], nil
	}
	pin := pinPrefix + Short(d.Digest)
	likely := append(slices.Clone(known), newestVersion(tags, fixed))
	if a, err := manifest.Parse(d, doc); err == nil && a.Info().Content != "" {
		likely = append(likely, contentTag(a))
	}
	likely = slices.DeleteFunc(append(likely, pin), func(tag string) bool { return !fixed(tag) && tag != pin || !slices.Contains(tags, tag) })
	at, err := resolveAll(ctx, k.Target, likely, DefaultConcurrency)
	if err != nil {
		return "", err
	}
	for _, tag := range likely {
		if at[tag].Digest == d.Digest {
			return tag, nil
		}
	}
	if _, taken := at[pin]; taken { // by a digest that begins in the same way
		hex := d.Digest.Encoded()
		pin = pinPrefix + hex[:min(64, len(hex))]
	}
	return pin, k.PutDoc(ctx, d, doc, pin)
}

// newestVersion is the version tag that comes last as people count; "" if there
// is none.
func newestVersion(tags []string, fixed func(string) bool) string {
	newest := ""
	for _, tag := range tags {
		if !fixed(tag) || isContentTag(tag) || historyTag().MatchString(tag) {
			continue
		}
		if newest == "" || compareNatural(tag, newest) > 0 {
			newest = tag
		}
	}
	return newest
}

// IsDigest reports whether s is a digest, and no tag.
func IsDigest(s string) bool { return digest.Digest(s).Validate() == nil }
