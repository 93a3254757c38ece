package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
)

// node is what a manifest of any kind says of itself and of other content.
type node struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *v1.Descriptor    `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Blobs        []v1.Descriptor   `json:"blobs"` // of an artifact manifest, which ORAS once wrote
	Manifests    []v1.Descriptor   `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// contents yields what a manifest consists of besides other manifests.
func (n *node) contents() []v1.Descriptor {
	all := slices.Concat(n.Layers, n.Blobs)
	if n.Config != nil {
		all = append(all, *n.Config)
	}
	return all
}

// readNode reads a blob that may be a manifest. A blob that is absent, too
// large or no JSON object is a node without parts; one that was altered is an
// error, for nobody knows what it referred to.
func readNode(root *os.Root, dgst digest.Digest) (n node, data []byte, err error) {
	f, size, err := openBlob(root, dgst)
	if errors.Is(err, errdef.ErrNotFound) {
		return node{}, nil, nil
	}
	if err != nil {
		return node{}, nil, err
	}
	defer f.Close()
	if size > maxManifest {
		return node{}, nil, nil
	}
	data, err = content.ReadAll(f, v1.Descriptor{Digest: dgst, Size: size})
	if err != nil {
		return node{}, nil, fmt.Errorf("manifest %s: %w", dgst, err)
	}
	_ = json.Unmarshal(data, &n) // what can be had of it
	return n, data, nil
}

// sizes are those that the manifests of a store say blobs have. Manifests never
// change, so each is read once.
type sizes struct {
	mu    sync.Mutex
	index *knownIndex // whose manifests have been read
	read  map[digest.Digest]bool
	of    map[digest.Digest][]int64
}

// torn reports whether a blob of that size on disk was cut short, by a power
// loss or by another tool, as far as that can be told without reading it.
func (s *Store) torn(ctx context.Context, dgst digest.Digest, size int64) (bool, error) {
	if size == 0 {
		return dgst != dgst.Algorithm().FromBytes(nil), nil
	}
	root, err := s.root(ctx)
	if err != nil {
		return false, err
	}
	defer root.Close()
	x, err := s.readIndex(root)
	if err != nil {
		return false, err
	}
	s.sizes.mu.Lock()
	defer s.sizes.mu.Unlock()
	if err := s.sizes.update(ctx, root, x); err != nil {
		return false, err
	}
	want := s.sizes.of[dgst]
	return len(want) > 0 && !slices.Contains(want, size), nil
}

// update reads the manifests of the index that are new.
func (z *sizes) update(ctx context.Context, root *os.Root, x *knownIndex) error {
	if z.index == x {
		return nil
	}
	if z.read == nil {
		z.read, z.of = make(map[digest.Digest]bool), make(map[digest.Digest][]int64)
	}
	var todo []digest.Digest
	for _, raw := range elements(x.list) {
		todo = append(todo, decodeEntry(raw).digest)
	}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if z.read[d] || checkDigest(d) != nil {
			continue
		}
		n, data, err := readNode(root, d)
		if err != nil || data == nil {
			continue // one that is broken or absent says nothing
		}
		z.read[d] = true
		for _, c := range n.contents() {
			if !slices.Contains(z.of[c.Digest], c.Size) {
				z.of[c.Digest] = append(z.of[c.Digest], c.Size)
			}
		}
		for _, m := range n.Manifests {
			todo = append(todo, m.Digest)
		}
	}
	z.index = x
	return nil
}

// reachable returns the digests of all that the entries lead to, each with that
// of a manifest that refers to it, or with its own when an entry does. Subjects
// are followed if asked for.
func reachable(ctx context.Context, root *os.Root, entries []entry, subjects bool) (map[digest.Digest]digest.Digest, error) {
	parents := make(map[digest.Digest]digest.Digest)
	walked := make(map[digest.Digest]bool)
	var todo []digest.Digest
	for _, e := range entries {
		parents[e.digest] = e.digest
		todo = append(todo, e.digest)
	}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if walked[d] || checkDigest(d) != nil {
			continue
		}
		walked[d] = true
		n, _, err := readNode(root, d)
		if err != nil {
			return nil, err
		}
		children := n.Manifests
		if subjects && n.Subject != nil {
			children = append(children, *n.Subject)
		}
		for _, child := range append(n.contents(), children...) {
			if parents[child.Digest] == "" {
				parents[child.Digest] = d
			}
		}
		for _, child := range children {
			todo = append(todo, child.Digest)
		}
	}
	return parents, nil
}

// Referrers calls fn with the manifests whose subject is desc, once, or not at
// all when there are none; they are looked for among those that index.json
// lists. With an artifactType only those of that type count. Each descriptor
// has the artifact type and the annotations of its manifest, as the OCI
// distribution specification has it. An error of fn is returned as it is;
// others may wrap [ErrCorrupt].
func (s *Store) Referrers(ctx context.Context, desc v1.Descriptor, artifactType string, fn func([]v1.Descriptor) error) error {
	referrers, err := s.referrers(ctx, desc.Digest, artifactType)
	if err != nil {
		return fmt.Errorf("list referrers of %s: %w", desc.Digest, err)
	}
	if len(referrers) == 0 {
		return nil
	}
	return fn(referrers)
}

func (s *Store) referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]v1.Descriptor, error) {
	root, err := s.root(ctx)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	x, err := s.readIndex(root)
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	seen := make(map[digest.Digest]bool)
	for _, raw := range elements(x.list) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dgst := decodeEntry(raw).digest
		if seen[dgst] || checkDigest(dgst) != nil {
			continue
		}
		seen[dgst] = true
		n, data, err := readNode(root, dgst)
		if err != nil || n.Subject == nil || n.Subject.Digest != subject {
			continue // one that is broken refers to nothing
		}
		d := v1.Descriptor{
			MediaType: manifestType(data), Digest: dgst, Size: int64(len(data)),
			ArtifactType: n.ArtifactType, Annotations: n.Annotations,
		}
		if d.ArtifactType == "" && n.Config != nil {
			d.ArtifactType = n.Config.MediaType
		}
		if artifactType == "" || d.ArtifactType == artifactType {
			found = append(found, d)
		}
	}
	return found, nil
}
