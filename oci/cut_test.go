package oci_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci/ocitest"
)

// TestCutLarge sends a blob that is large enough for the operating system to be
// given all of it at once: a cut shows otherwise then.
func TestCutLarge(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 20_000_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	d := v1.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(noise), Size: int64(len(noise))}
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	target := create(t, r.Host+"/m")
	r.Inject(
		ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Times: 3, Mishap: ocitest.Cut(ocitest.Up, ocitest.Half)},
		ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Skip: 3, Times: 1, Mishap: ocitest.Cut(ocitest.Down, 0)},
	)
	if err := target.Push(t.Context(), d, bytes.NewReader(noise)); err != nil {
		t.Fatal(err)
	}
	if there, err := target.Exists(t.Context(), d); err != nil || !there {
		t.Errorf("the blob is there: %t, %v", there, err)
	}
}
