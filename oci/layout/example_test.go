package layout_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"galley/oci/layout"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	s, err := layout.Create(filepath.Join(dir, "models"))
	if err != nil {
		fmt.Println(err)
		return
	}
	index := []byte(`{"schemaVersion":2,"manifests":[]}`)
	if _, err := oras.TagBytes(ctx, s, v1.MediaTypeImageIndex, index, "v1"); err != nil {
		fmt.Println(err)
		return
	}
	desc, err := s.Resolve(ctx, "v1")
	fmt.Println(desc.Digest, desc.Size, err)
	// Output: sha256:bc5857ac9458293d5111ab85c952172cd7f56bceb4e3014ddc4cafac8927b313 34 <nil>
}
