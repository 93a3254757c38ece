package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
)

// tinyImage writes an image whose two layers are plain tars into t, which is
// tagged, and returns its blobs, the root last.
func tinyImage(t *testing.T, to oci.Target, tag, env string) []v1.Descriptor {
	t.Helper()
	push := func(mediaType string, data []byte) v1.Descriptor {
		d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if ok, err := to.Exists(t.Context(), d); err == nil && ok {
			return d
		}
		if err := to.Push(t.Context(), d, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	doc := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a, b := make([]byte, 1024), make([]byte, 1536)
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, Config: v1.ImageConfig{Env: []string{env}}}
	config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(a), digest.FromBytes(b)}}
	blobs := []v1.Descriptor{push(v1.MediaTypeImageConfig, doc(config)), push(v1.MediaTypeImageLayer, a), push(v1.MediaTypeImageLayer, b)}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: blobs[0], Layers: blobs[1:]}
	root := push(m.MediaType, doc(m))
	if err := to.Tag(t.Context(), root, tag); err != nil {
		t.Fatal(err)
	}
	return append(blobs, root)
}

// TestPushImage pushes an image, and says before what would become of each blob.
func TestPushImage(t *testing.T) {
	for _, answer := range []int{0, http.StatusAccepted, http.StatusForbidden} {
		m := newMounter(t, answer)
		src := openTarget(t, "oci:"+t.TempDir()+"/src")
		home, dst := openTarget(t, m.host+"/ml/base"), openTarget(t, m.host+"/ml/image")
		blobs := tinyImage(t, src, "v1", "A=1")
		layers, root := blobs[1:3], blobs[3]
		tinyImage(t, home, "v1", "A=1")
		var events []oci.EventKind
		o := oci.ImageOptions{Tags: []string{"v1"}, Concurrency: 1, Where: func(d v1.Descriptor) oci.Target {
			if slices.ContainsFunc(layers, func(l v1.Descriptor) bool { return l.Digest == d.Digest }) {
				return home
			}
			return nil
		}, Progress: func(e oci.Event) {
			if e.Kind != oci.Moved && e.Descriptor.MediaType == v1.MediaTypeImageLayer {
				events = append(events, e.Kind)
			}
		}}
		fates, err := oci.PlanImage(t.Context(), dst, blobs, o)
		if want := []oci.Fate{oci.FateUploaded, oci.FateMounted, oci.FateMounted, oci.FateUploaded}; err != nil || !slices.Equal(fates, want) {
			t.Errorf("%q, %v; want %q", fates, err, want)
		}
		if done, err := oci.PushImage(t.Context(), dst, src, root, o); err != nil || !done.Written {
			t.Fatal(done, err)
		}
		if done, err := oci.PushImage(t.Context(), dst, src, root, o); err != nil || done.Written {
			t.Errorf("again: %+v, %v; want nothing to be written", done, err)
		}
		fates, err = oci.PlanImage(t.Context(), dst, blobs, o)
		if want := slices.Repeat([]oci.Fate{oci.FatePresent}, 4); err != nil || !slices.Equal(fates, want) {
			t.Errorf("%q, %v; want %q", fates, err, want)
		}

		// Another image of the same layers: they are not sent again, even where
		// nothing is mounted.
		m.mu.Lock()
		m.uploads = 0
		m.mu.Unlock()
		events = nil
		other := tinyImage(t, src, "v2", "A=2")
		o.Tags = []string{"candidate"}
		if _, err := oci.PushImage(t.Context(), dst, src, other[3], o); err != nil {
			t.Fatal(err)
		}
		want := oci.Skipped
		if answer == 0 {
			want = oci.Mounted
		}
		if m.uploads != 1 || !slices.Equal(events, []oci.EventKind{want, want}) {
			t.Errorf("mounts are answered with %d: %d uploads, events %d; want the config alone, and %d twice", answer, m.uploads, events, want)
		}
		o.Tags = []string{"v1"}
		var taken *oci.TakenError
		_, err = oci.PushImage(t.Context(), dst, src, other[3], o)
		if !errors.As(err, &taken) || taken.Next != "v2" {
			t.Errorf("%v; want v1 to be taken, and v2 free", err)
		}
		if _, err = oci.PlanImage(t.Context(), dst, other, o); !errors.As(err, &taken) {
			t.Errorf("plan: %v; want v1 to be taken", err)
		}
	}
}

func TestFormerTags(t *testing.T) {
	target := openTarget(t, "oci:"+t.TempDir()+"/x")
	if got := oci.FormerTags(t.Context(), target, []string{"v1"}, 3); len(got) > 0 {
		t.Errorf("%q of nothing", got)
	}
	for _, tag := range []string{"v2", "v10", "candidate", "v1", "production.h-000001-x", "v9"} {
		tinyImage(t, target, tag, "A=1")
	}
	if got, want := oci.FormerTags(t.Context(), target, []string{"v11", "candidate"}, 3), []string{"candidate", "v10", "v9"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

// TestVerifyImage finds what is wrong with an image, and what is no image.
func TestVerifyImage(t *testing.T) {
	dir := t.TempDir() + "/x"
	target := openTarget(t, "oci:"+dir)
	blobs := tinyImage(t, target, "v1", "A=1")
	ref, err := oci.ParseReference("oci:" + dir + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	v, err := oci.Verify(t.Context(), target, ref, oci.VerifyOptions{Digest: blobs[3].Digest})
	if err != nil || v.Blobs != 4 || v.Digest != blobs[3].Digest {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = oci.Verify(t.Context(), target, ref, oci.VerifyOptions{Digest: blobs[0].Digest})
	wantMismatches(t, err, "the artifact is not what was promised")
	flip(t, dir+"/blobs/sha256/"+blobs[1].Digest.Encoded())
	_, err = oci.Verify(t.Context(), openTarget(t, "oci:"+dir), ref, oci.VerifyOptions{})
	wantMismatches(t, err, "layer "+blobs[1].Digest.String())

	// Of what is no image of Linux, the first complaint stands.
	config := `{"os":"windows","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`
	c := v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromString(config), Size: int64(len(config))}
	doc, err := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: c, Layers: []v1.Descriptor{}})
	if err != nil {
		t.Fatal(err)
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	err = errors.Join(target.Push(t.Context(), c, strings.NewReader(config)), target.Push(t.Context(), d, bytes.NewReader(doc)), target.Tag(t.Context(), d, "windows"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Verify(t.Context(), target, ref.WithTag("windows"), oci.VerifyOptions{}); err == nil || !strings.Contains(err.Error(), "not a model artifact but") {
		t.Errorf("an image of Windows: %v", err)
	}
}
