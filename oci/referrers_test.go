package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"galley/oci"
	"galley/oci/ocitest"
)

func create(t *testing.T, ref string) oci.Target {
	t.Helper()
	r, err := oci.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	c, err := oci.NewClient(oci.Options{LocalRoot: t.TempDir(), Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	target, err := c.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// pushBlobs pushes the blobs with what every manifest needs.
func pushBlobs(t *testing.T, target oci.Target, blobs ...ocitest.Blob) {
	t.Helper()
	for _, b := range append([]ocitest.Blob{ocitest.NewBlob(v1.MediaTypeEmptyJSON, "{}")}, blobs...) {
		err := target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data))
		if err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			t.Fatal(err)
		}
	}
}

// referrer returns a manifest that refers to another.
func referrer(t *testing.T, name string, subject ocitest.Blob) ocitest.Blob {
	t.Helper()
	var m v1.Manifest
	if err := json.Unmarshal(ocitest.NewManifest(name).Data, &m); err != nil {
		t.Fatal(err)
	}
	m.Subject = &v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	doc, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return ocitest.NewBlob(v1.MediaTypeImageManifest, string(doc))
}

// TestCopyAll copies more tags than a page holds, whatever the registry leaves
// out, and what they share once.
func TestCopyAll(t *testing.T) {
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	src := create(t, r.Host+"/src")
	shared := ocitest.NewBlob("application/x-layer", strings.Repeat("shared", 1000))
	one, two := ocitest.NewManifest("one", shared), ocitest.NewManifest("two", shared)
	pushBlobs(t, src, shared, one, two)
	const tags = 1001
	for i := range tags {
		m := one
		if i%2 == 1 {
			m = two
		}
		if err := src.Tag(t.Context(), m.Descriptor, fmt.Sprintf("v%04d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, quirk := range []ocitest.Fault{ocitest.None, ocitest.NoLink, ocitest.PageCap, ocitest.NoDigest} {
		t.Run(string(quirk), func(t *testing.T) {
			r.Misbehave(quirk)
			dst := create(t, "oci:"+t.TempDir()+"/x.tar")
			r.Requests()
			done, err := oci.CopyAll(t.Context(), dst, src, oci.TagRules{}, oci.CopyOptions{})
			if err != nil || len(done.Written) != tags || len(done.Tags) != tags || done.Conflicts != nil {
				t.Fatalf("%v; want %d tags written", err, tags)
			}
			blobs := slices.DeleteFunc(r.Requests(), func(s string) bool { return !strings.Contains(s, "/blobs/") })
			if len(blobs) != 2 { // the layer and the config
				t.Errorf("%d requests for blobs; want 2: %q", len(blobs), blobs)
			}
			if d, err := dst.Resolve(t.Context(), "v0999"); err != nil || d.Digest != two.Digest {
				t.Errorf("v0999 is %v, %v", d, err)
			}
			again, err := oci.CopyAll(t.Context(), dst, src, oci.TagRules{}, oci.CopyOptions{})
			if err != nil || len(again.Written) != 0 {
				t.Errorf("again: %d tags written, %v", len(again.Written), err)
			}
		})
	}
}

// TestCopyAllContinues breaks a copy off and goes on with it.
func TestCopyAllContinues(t *testing.T) {
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	src, dst := create(t, "oci:"+t.TempDir()+"/src"), create(t, r.Host+"/dst")
	layer := ocitest.NewBlob("application/x-layer", "layer")
	for _, name := range []string{"a", "b", "c"} {
		m := ocitest.NewManifest(name, layer)
		pushBlobs(t, src, layer, m)
		if err := src.Tag(t.Context(), m.Descriptor, name); err != nil {
			t.Fatal(err)
		}
	}
	r.Misbehave(ocitest.RefuseTag)
	if _, err := oci.CopyAll(t.Context(), dst, src, oci.TagRules{}, oci.CopyOptions{}); err == nil {
		t.Fatal("manifests were refused, and the copy was well")
	}
	r.Misbehave(ocitest.None)
	r.Requests()
	done, err := oci.CopyAll(t.Context(), dst, src, oci.TagRules{}, oci.CopyOptions{})
	if err != nil || len(done.Written) != 3 {
		t.Fatalf("%v, %v; want 3 tags written", done, err)
	}
	for _, request := range r.Requests() {
		if strings.HasPrefix(request, "PUT ") && strings.Contains(request, "/blobs/") {
			t.Errorf("%s: the blob was there", request)
		}
	}
}

func TestReferrersBounded(t *testing.T) {
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	for name, open := range map[string]func(*testing.T) oci.Target{
		"registry": func(t *testing.T) oci.Target { return create(t, r.Host+"/deep") },
		"layout":   func(t *testing.T) oci.Target { return create(t, "oci:"+t.TempDir()+"/deep") },
		"tar":      func(t *testing.T) oci.Target { return create(t, "oci:"+t.TempDir()+"/deep.tar") },
	} {
		t.Run(name, func(t *testing.T) {
			src := open(t)
			m := ocitest.NewManifest("root")
			pushBlobs(t, src, m)
			if err := src.Tag(t.Context(), m.Descriptor, "root"); err != nil {
				t.Fatal(err)
			}
			for depth := range 9 {
				m = referrer(t, fmt.Sprint(depth), m)
				pushBlobs(t, src, m)
				if err := src.Tag(t.Context(), m.Descriptor, fmt.Sprintf("r%d", depth)); err != nil {
					t.Fatal(err)
				}
				dst := create(t, "oci:"+t.TempDir()+"/dst")
				_, err := oci.CopyReference(t.Context(), dst, src, "root", oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}, Referrers: true})
				if depth < 8 && err != nil {
					t.Fatalf("depth %d: %v", depth+1, err)
				}
				if depth == 8 && (!errors.Is(err, oci.ErrTooManyReferrers) || !oci.FromSource(err)) {
					t.Errorf("depth 9: %v; want %v", err, oci.ErrTooManyReferrers)
				}
				if ok, err := dst.Exists(t.Context(), m.Descriptor); depth < 8 && !ok || err != nil {
					t.Errorf("depth %d: the referrer is missing: %v", depth+1, err)
				}
			}
		})
	}
}

// TestCopyReferrersOfIndex finds what refers to a part of an index, too.
func TestCopyReferrersOfIndex(t *testing.T) {
	src, dst := create(t, "oci:"+t.TempDir()+"/src"), create(t, "oci:"+t.TempDir()+"/dst")
	part := ocitest.NewManifest("amd64")
	index := ocitest.NewBlob(v1.MediaTypeImageIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		v1.MediaTypeImageIndex, part.MediaType, part.Digest, part.Size))
	signature := referrer(t, "signature", part)
	pushBlobs(t, src, part, index, signature)
	for _, m := range []ocitest.Blob{index, signature} {
		if err := src.Tag(t.Context(), m.Descriptor, m.Digest.String()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := oci.CopyReference(t.Context(), dst, src, index.Digest.String(), oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}, Referrers: true}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []ocitest.Blob{part, index, signature} {
		if ok, err := dst.Exists(t.Context(), m.Descriptor); !ok || err != nil {
			t.Errorf("%s is missing: %v", m.Digest, err)
		}
	}
}
