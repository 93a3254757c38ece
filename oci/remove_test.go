package oci_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
	"galley/oci/ocitest"
)

// TestRemoveKeepsSignatures removes an index or a tag of what stays in one:
// what is attached to a manifest goes with that manifest only.
func TestRemoveKeepsSignatures(t *testing.T) {
	m, child := ocitest.NewManifest("m"), ocitest.NewManifest("child")
	doc, err := json.Marshal(v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{m.Descriptor, child.Descriptor}})
	if err != nil {
		t.Fatal(err)
	}
	index := ocitest.NewBlob(v1.MediaTypeImageIndex, string(doc))
	ofM, ofChild, ofIndex := referrer(t, "of m", m), referrer(t, "of child", child), referrer(t, "of index", index)
	ofOfM := referrer(t, "of of m", ofM)
	for _, tt := range []struct {
		name string
		rm   []string
		kept []ocitest.Blob // of m and the referrers
	}{
		{"the index", []string{"multi"}, []ocitest.Blob{m, ofM, ofOfM}},
		{"a part", []string{"v1"}, []ocitest.Blob{m, ofM, ofOfM, ofChild, ofIndex}},
		{"a part first", []string{"v1", "multi"}, nil},
		{"the index first", []string{"multi", "v1"}, nil},
	} {
		for _, kind := range []string{"/dir", "/x.tar"} {
			t.Run(tt.name+kind, func(t *testing.T) {
				name := "oci:" + filepath.Join(t.TempDir(), kind)
				target := create(t, name)
				pushBlobs(t, target, m, child, index, ofM, ofChild, ofIndex, ofOfM)
				for tag, b := range map[string]ocitest.Blob{"v1": m, "multi": index} {
					if err := target.Tag(t.Context(), b.Descriptor, tag); err != nil {
						t.Fatal(err)
					}
				}
				all := []ocitest.Blob{ofM, ofOfM, ofChild, ofIndex}
				for _, b := range all {
					if err := target.Tag(t.Context(), b.Descriptor, b.Digest.String()); err != nil {
						t.Fatal(err)
					}
				}
				for _, tag := range tt.rm {
					ref, err := oci.ParseReference(name + ":" + tag)
					if err != nil {
						t.Fatal(err)
					}
					would, err := oci.Remove(t.Context(), target, ref, oci.RemoveOptions{DryRun: true})
					if err != nil {
						t.Fatal(err)
					}
					done, err := oci.Remove(t.Context(), target, ref, oci.RemoveOptions{})
					if err != nil || !slices.Equal(done.Referrers, would.Referrers) || done.Manifest != would.Manifest ||
						!slices.Equal(done.Tags, would.Tags) || len(done.Freed) != len(would.Freed) || len(done.Later) != len(would.Later) {
						t.Errorf("rm %s: %+v, %v; the dry run said %+v", tag, done, err, would)
					}
				}
				if kind == "/x.tar" { // as it is in the file
					target = create(t, name)
				}
				for _, b := range append(all, m) {
					want := slices.ContainsFunc(tt.kept, func(k ocitest.Blob) bool { return k.Digest == b.Digest })
					young := kind == "/dir" && b.Digest == m.Digest // where no tag takes it along
					if got, err := target.Exists(t.Context(), b.Descriptor); err != nil || got != want && (want || !young) {
						t.Errorf("%s: kept %v, %v; want %v", b.Data, got, err, want)
					}
				}
			})
		}
	}
}

// TestRemoveAltered removes beside and in place of a manifest that was altered
// on disk.
func TestRemoveAltered(t *testing.T) {
	dir := t.TempDir()
	target := create(t, "oci:"+dir)
	one, two := ocitest.NewManifest("one"), ocitest.NewManifest("two")
	pushBlobs(t, target, one, two)
	for tag, b := range map[string]ocitest.Blob{"one": one, "two": two} {
		if err := target.Tag(t.Context(), b.Descriptor, tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", two.Digest.Encoded()), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	rm := func(ref string) (oci.Removed, error) {
		r, err := oci.ParseReference("oci:" + dir + ref)
		if err != nil {
			t.Fatal(err)
		}
		return oci.Remove(t.Context(), target, r, oci.RemoveOptions{AllTags: true})
	}
	if done, err := rm(":one"); err == nil || !slices.Equal(done.Tags, []string{"one"}) || done.Manifest {
		t.Errorf("rm one: %+v, %v; want the tag gone and an error about garbage", done, err)
	}
	if done, err := rm("@" + two.Digest.String()); err != nil || !slices.Equal(done.Tags, []string{"two"}) || !done.Manifest {
		t.Errorf("rm the altered one: %+v, %v", done, err)
	}
}
