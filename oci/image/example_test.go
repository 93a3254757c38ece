package image

import (
	"context"
	"fmt"
	"io"
	"testing/fstest"

	"galley/manifest"
)

// A data-only image of a model, as an archive that docker loads.
func Example() {
	ctx := context.Background()
	files := fstest.MapFS{"models/forest.joblib": {Data: []byte("the model")}}
	packed, err := manifest.Pack(ctx, []manifest.Input{
		manifest.FromFS(files, "models/forest.joblib", "models/forest.joblib", manifest.RoleModel),
	}, manifest.PackOptions{Name: "fraud"})
	if err != nil {
		fmt.Println(err)
		return
	}
	baking, err := NewBaking(ctx, Scratch(), []Model{{Artifact: packed.Artifact, Source: packed}}, Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	baked, err := baking.Bake(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(baked.Models[0].Path, "shared:", len(baked.Retarred) == 0)
	fmt.Println("verified:", Verify(ctx, baked, baked.Root) == nil)
	fmt.Println("saved:", Save(ctx, io.Discard, baked, baked.Root, SaveOptions{Tags: []string{"fraud:v1"}}) == nil)
	// Output:
	// /models/forest.joblib shared: true
	// verified: true
	// saved: true
}
