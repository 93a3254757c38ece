package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// ErrInvalidManifest says that bytes are no manifest, or one of another media
// type than they came with.
var ErrInvalidManifest = errors.New("invalid manifest")

// MissingError says that a manifest refers to content that the store lacks.
type MissingError struct{ Digests []digest.Digest }

// Error names the digests.
func (e *MissingError) Error() string {
	return fmt.Sprintf("it refers to what is not here: %s", e.Digests)
}

// PushManifest stores a manifest and points the tag at it, or lists it in
// index.json without a name when tag is empty. Unlike [Store.Push] and
// [Store.Tag] it is for writers who are not trusted to come in the right order:
// the manifest must be of the media type, which "" leaves to the manifest, and
// everything it consists of must be in the store, in its size. A subject may be
// absent, and so may layers that have URLs.
//
// The error wraps [ErrInvalidManifest], is a [*MissingError], or is one of Tag's.
func (s *Store) PushManifest(ctx context.Context, mediaType, tag string, data []byte) (v1.Descriptor, error) {
	desc, err := s.pushManifest(ctx, mediaType, tag, data)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("push manifest: %w", err)
	}
	return desc, nil
}

func (s *Store) pushManifest(ctx context.Context, mediaType, tag string, data []byte) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: manifestType(data), Digest: digest.FromBytes(data), Size: int64(len(data))}
	n, err := checkManifest(desc, data)
	if err == nil && mediaType != "" && mediaType != desc.MediaType {
		err = fmt.Errorf("sent as %q, it is %q", mediaType, desc.MediaType)
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	if err := s.checkContents(ctx, n); err != nil { // before anything is written
		return v1.Descriptor{}, err
	}
	if err := s.push(ctx, desc, bytes.NewReader(data)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		return v1.Descriptor{}, err
	}
	desc.ArtifactType = n.ArtifactType
	if tag == "" {
		tag = desc.Digest.String()
	}
	return desc, s.tag(ctx, desc, tag, func() error {
		return errors.Join(s.stored(ctx, desc), s.checkContents(ctx, n))
	})
}

// checkManifest decodes a manifest as strictly as its readers might.
func checkManifest(desc v1.Descriptor, data []byte) (*node, error) {
	n := new(node)
	if err := json.Unmarshal(data, n); err != nil {
		return nil, err
	}
	if desc.MediaType == "" {
		return nil, errors.New("no media type, and the shape of none")
	}
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("%d bytes, at most %d", desc.Size, maxManifest)
	}
	all := append(n.contents(), n.Manifests...)
	if n.Subject != nil {
		all = append(all, *n.Subject)
	}
	for _, d := range all {
		if err := checkDigest(d.Digest); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			return nil, fmt.Errorf("%s of size %d", d.Digest, d.Size)
		}
	}
	return n, nil
}

// checkContents returns a [*MissingError] unless all is there.
func (s *Store) checkContents(ctx context.Context, n *node) error {
	var missing []digest.Digest
	for _, d := range append(n.contents(), n.Manifests...) {
		if len(d.URLs) > 0 {
			continue
		}
		ok, err := s.Exists(ctx, d)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, d.Digest)
		}
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}
