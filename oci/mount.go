package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/oci/layout"
)

// CopyMounting is [Copy] for a graph whose blobs lie in several repositories:
// where tells in which, or nil for nowhere. A blob that dst lacks is mounted
// from there if both are of one registry, or both layouts; across registries
// never. A registry is asked to mount right away, and only if it will not, for
// whatever reason, whether it has the blob; if not, it is copied from src. A registry that says it mounted a blob is believed until it
// refuses a manifest for want of it: then the blob is copied after all.
// [CopyOptions.MountFrom] is ignored.
func CopyMounting(ctx context.Context, dst Target, src content.ReadOnlyStorage, root v1.Descriptor, where func(v1.Descriptor) Target, o CopyOptions) error {
	m := &mounting{Target: dst, where: where}
	err := m.copy(ctx, src, root, o)
	for _, d := range m.doubtful(err) {
		if err := m.upload(ctx, src, d, o); err != nil {
			return err
		}
		m.doubts = true
	}
	if !m.doubts {
		return err
	}
	return m.copy(ctx, src, root, o)
}

// mounting is a target whose mounts may fail.
type mounting struct {
	Target
	where func(v1.Descriptor) Target

	mu      sync.Mutex
	mounted []v1.Descriptor // as the registry says
	present []digest.Digest // that were there when a mount failed
	doubts  bool            // it was not true
}

// copy is [Copy] to the target, mounting what can be.
func (m *mounting) copy(ctx context.Context, src content.ReadOnlyStorage, root v1.Descriptor, o CopyOptions) error {
	opts := o.graph(func(d v1.Descriptor) bool {
		return d.Digest == root.Digest && len(o.Tags) > 0
	})
	opts.MountFrom = func(_ context.Context, d v1.Descriptor) ([]string, error) {
		if name, ok := m.from(d); ok {
			return []string{name}, nil
		}
		return nil, nil
	}
	skipped, mounted := opts.OnCopySkipped, opts.OnMounted
	opts.OnMounted = func(ctx context.Context, d v1.Descriptor) error {
		m.mu.Lock()
		present := slices.Contains(m.present, d.Digest)
		m.mu.Unlock()
		if present {
			return skipped(ctx, d)
		}
		return mounted(ctx, d)
	}
	if err := oras.CopyGraph(ctx, &observed{src, o.Progress}, m, root, opts); err != nil {
		return err
	}
	return tagRoot(ctx, m.Target, src, root, o.Tags)
}

// Exists leaves out the question where a mount answers it.
func (m *mounting) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	if _, ok := m.from(d); ok {
		if _, ok := m.Target.(*remote.Repository); ok {
			return false, nil
		}
	}
	return m.Target.Exists(ctx, d)
}

// errPresent ends a mount that failed for a blob that is there.
var errPresent = errors.New("the blob is there")

// from is the repository to mount from, and whether that can work.
func (m *mounting) from(d v1.Descriptor) (string, bool) {
	if m.doubts {
		return "", false
	}
	switch from := m.where(d).(type) {
	case *remote.Repository:
		to, ok := m.Target.(*remote.Repository)
		return from.Reference.Repository, ok && strings.EqualFold(from.Reference.Registry, to.Reference.Registry) &&
			from.Reference.Repository != to.Reference.Repository
	case *layout.Store:
		_, ok := m.Target.(*layout.Store)
		return "a layout", ok
	}
	return "", false
}

// Mount implements [registry.Mounter].
func (m *mounting) Mount(ctx context.Context, d v1.Descriptor, from string, open func() (io.ReadCloser, error)) error {
	opened := false
	once := func() (io.ReadCloser, error) {
		if there, err := m.Target.Exists(ctx, d); err == nil && there {
			m.mu.Lock()
			m.present = append(m.present, d.Digest)
			m.mu.Unlock()
			return nil, errPresent
		}
		opened = true
		return open()
	}
	var err error
	if to, ok := m.Target.(*layout.Store); ok {
		err = to.Mount(ctx, m.where(d).(*layout.Store), d.Digest)
	} else {
		err = m.Target.(registry.Mounter).Mount(ctx, d, from, once)
	}
	if err == nil && !opened {
		m.mu.Lock()
		m.mounted = append(m.mounted, d)
		m.mu.Unlock()
	}
	if errors.Is(err, errPresent) {
		return nil
	}
	if err == nil || opened || ctx.Err() != nil || !mountRefused(err) {
		return err
	}
	rc, err := once()
	if errors.Is(err, errPresent) {
		return nil
	}
	if err != nil {
		return err
	}
	defer rc.Close()
	return m.Push(ctx, d, rc)
}

// mountRefused reports whether a mount failed so that an upload may still work.
func mountRefused(err error) bool {
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
	}
	return errors.Is(err, auth.ErrBasicCredentialNotFound) || errors.Is(err, ErrNotFound)
}

// doubtful are the mounted blobs that the registry misses in a manifest: those
// it names, or all if it names none.
func (m *mounting) doubtful(err error) []v1.Descriptor {
	resp, ok := errors.AsType[*errcode.ErrorResponse](err)
	if !ok {
		return nil
	}
	missing := false
	var named []digest.Digest
	for _, e := range resp.Errors {
		if e.Code != errcode.ErrorCodeManifestBlobUnknown && e.Code != errcode.ErrorCodeBlobUnknown {
			continue
		}
		missing = true
		detail, err := json.Marshal(e.Detail)
		if err != nil {
			continue
		}
		for _, d := range m.mounted {
			if strings.Contains(string(detail), d.Digest.String()) {
				named = append(named, d.Digest)
			}
		}
	}
	if !missing {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.mounted), func(d v1.Descriptor) bool {
		return len(named) > 0 && !slices.Contains(named, d.Digest)
	})
}

// upload copies a blob that was said to be there.
func (m *mounting) upload(ctx context.Context, src content.ReadOnlyStorage, d v1.Descriptor, o CopyOptions) error {
	o.Progress.emit(Event{Kind: Started, Descriptor: d, Name: d.Annotations[v1.AnnotationTitle]})
	rc, err := (&observed{src, o.Progress}).Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := m.Push(ctx, d, rc); err != nil {
		return err
	}
	o.Progress.emit(Event{Kind: Done, Descriptor: d, Name: d.Annotations[v1.AnnotationTitle]})
	return nil
}
