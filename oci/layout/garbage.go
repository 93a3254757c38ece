package layout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// Garbage returns the blobs that [Store.GC] would free if the manifests were
// deleted, sorted, with only digest and size.
func (s *Store) Garbage(ctx context.Context, without ...digest.Digest) ([]v1.Descriptor, error) {
	var garbage []v1.Descriptor
	err := s.locked(ctx, func(root *os.Root) error {
		x, err := readIndex(root)
		if err != nil {
			return err
		}
		entries, err := x.entries()
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e entry) bool { return slices.Contains(without, e.digest) })
		used, err := reachable(ctx, root, entries, true)
		if err != nil {
			return err
		}
		for _, d := range oldBlobs(root) {
			if _, ok := used[d.Digest]; !ok {
				garbage = append(garbage, d)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return nil, fmt.Errorf("look for garbage in %q: %w", s.dir, err)
	}
	slices.SortFunc(garbage, byDigest)
	return garbage, nil
}

func byDigest(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
