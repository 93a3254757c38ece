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
// removed, now and, those within their hour of grace, later. The manifests
// themselves are not among them. Both are sorted, with only digest and size.
func (s *Store) Garbage(ctx context.Context, without ...digest.Digest) (now, later []v1.Descriptor, err error) {
	err = s.locked(ctx, func(root *os.Root) error {
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
		now, later = listBlobs(root)
		stays := func(d v1.Descriptor) bool {
			_, ok := used[d.Digest]
			return ok || slices.Contains(without, d.Digest)
		}
		now, later = slices.DeleteFunc(now, stays), slices.DeleteFunc(later, stays)
		return nil
	})
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return nil, nil, fmt.Errorf("look for garbage in %q: %w", s.dir, err)
	}
	slices.SortFunc(now, byDigest)
	slices.SortFunc(later, byDigest)
	return now, later, nil
}

func byDigest(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }
