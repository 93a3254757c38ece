package layout_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

const octets = "application/octet-stream"

// image returns a manifest of layers, with a subject unless it has no digest.
func image(id string, subject v1.Descriptor, layers ...v1.Descriptor) (v1.Descriptor, []byte) {
	var list []string
	for _, l := range layers {
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, l.MediaType, l.Digest, l.Size))
	}
	link := ""
	if subject.Digest != "" {
		link = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, subject.MediaType, subject.Digest, subject.Size)
	}
	data := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x-%s","config":%s,"layers":[%s]%s,"annotations":{"id":%q}}`,
		v1.MediaTypeImageManifest, id, `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"`+v1.DescriptorEmptyJSON.Digest.String()+`","size":2}`,
		strings.Join(list, ","), link, id)
	return content.NewDescriptorFromBytes(v1.MediaTypeImageManifest, data), data
}

func pushBlob(t testing.TB, s *layout.Store, data string) v1.Descriptor {
	t.Helper()
	d := content.NewDescriptorFromBytes(octets, []byte(data))
	if err := s.Push(t.Context(), d, strings.NewReader(data)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		t.Fatal(err)
	}
	return d
}

// pushImage pushes a manifest as the server does.
func pushImage(t testing.TB, s *layout.Store, id, tag string, subject v1.Descriptor, layers ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	pushBlob(t, s, "{}")
	_, data := image(id, subject, layers...)
	d, err := s.PushManifest(t.Context(), v1.MediaTypeImageManifest, tag, data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func exists(t testing.TB, s *layout.Store, d digest.Digest) bool {
	t.Helper()
	f, _, err := s.Blob(t.Context(), d)
	if err == nil {
		return f.Close() == nil
	}
	if !errors.Is(err, errdef.ErrNotFound) {
		t.Fatal(err)
	}
	return false
}

// age makes all blobs of a store older than GC spares.
func age(t testing.TB, s *layout.Store) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir(), "blobs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		old := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPushManifest(t *testing.T) {
	t.Parallel()
	s := create(t)
	layer := content.NewDescriptorFromBytes(octets, []byte("layer"))
	_, data := image("a", v1.Descriptor{}, layer)
	_, err := s.PushManifest(t.Context(), "", "v1", data)
	missing, ok := errors.AsType[*layout.MissingError](err)
	if !ok || !slices.Equal(missing.Digests, []digest.Digest{layer.Digest, v1.DescriptorEmptyJSON.Digest}) {
		t.Fatalf("without its blobs: %v", err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
	pushBlob(t, s, "layer")
	d := pushImage(t, s, "a", "", v1.Descriptor{}, layer)
	if index := readFile(t, s.Dir(), "index.json"); strings.Count(index, d.Digest.String()) != 1 || strings.Contains(index, v1.AnnotationRefName) {
		t.Errorf("index.json does not list it without a name: %s", index)
	}
	pushImage(t, s, "a", "v1", v1.Descriptor{}, layer)
	if got := resolve(t, s, "v1"); got.Digest != d.Digest || got.ArtifactType != "application/x-a" {
		t.Errorf("v1 is %+v", got)
	}
	for _, bad := range []string{"", "{", "{}", "[]", `{"config":5,"layers":[]}`, `{"mediaType":"a/b","subject":{"digest":"x"}}`, `{"mediaType":"a/b","layers":[{"digest":"` + layer.Digest.String() + `","size":-1}]}`} {
		if _, err := s.PushManifest(t.Context(), "", "v2", []byte(bad)); !errors.Is(err, layout.ErrInvalidManifest) {
			t.Errorf("%s: %v; want %v", bad, err, layout.ErrInvalidManifest)
		}
	}
	if _, err := s.PushManifest(t.Context(), v1.MediaTypeImageIndex, "v2", data); !errors.Is(err, layout.ErrInvalidManifest) {
		t.Errorf("of another type: %v", err)
	}
	if _, err := s.PushManifest(t.Context(), "", "-", data); !errors.Is(err, errdef.ErrInvalidReference) {
		t.Errorf("tag -: %v", err)
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	s := create(t)
	list := func(d v1.Descriptor, artifactType string) []v1.Descriptor {
		t.Helper()
		var all []v1.Descriptor
		err := s.Referrers(t.Context(), d, artifactType, func(page []v1.Descriptor) error { all = page; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	subject, _ := image("subject", v1.Descriptor{})
	if got := list(subject, ""); got != nil {
		t.Errorf("in a layout yet to be made: %v", got)
	}
	one := pushImage(t, s, "one", "", subject)
	two := pushImage(t, s, "two", "two", subject)
	pushImage(t, s, "other", "other", one)
	pushImage(t, s, "two", "again", subject)
	got := list(subject, "")
	slices.SortFunc(got, func(a, b v1.Descriptor) int { return strings.Compare(a.ArtifactType, b.ArtifactType) })
	if len(got) != 2 || !content.Equal(got[0], one) || !content.Equal(got[1], two) || got[0].Annotations["id"] != "one" {
		t.Errorf("referrers %+v", got)
	}
	if got := list(subject, "application/x-two"); len(got) != 1 || got[0].Digest != two.Digest {
		t.Errorf("of one type: %+v", got)
	}
	stop := errors.New("stop")
	if err := s.Referrers(t.Context(), subject, "", func([]v1.Descriptor) error { return stop }); err != stop {
		t.Errorf("error of the callback: %v", err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := create(t)
	layer := pushBlob(t, s, "layer")
	a := pushImage(t, s, "a", "v1", v1.Descriptor{}, layer)
	pushImage(t, s, "a", "v2", v1.Descriptor{}, layer)
	b := pushImage(t, s, "b", "b", a, layer) // refers to a, but is not of it
	index := fmt.Appendf(nil, `{"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, v1.MediaTypeImageIndex, b.MediaType, b.Digest, b.Size)
	list, err := s.PushManifest(t.Context(), "", "list", index)
	if err != nil {
		t.Fatal(err)
	}
	wantReferenced := func(err error, by digest.Digest) {
		t.Helper()
		if used, ok := errors.AsType[*layout.ReferencedError](err); !ok || used.By != by {
			t.Errorf("%v; want what %s refers to", err, by)
		}
	}
	before := readFile(t, s.Dir(), "index.json")
	wantReferenced(s.Delete(t.Context(), b), list.Digest)
	wantReferenced(s.DeleteBlob(t.Context(), a.Digest), a.Digest)
	if err := s.DeleteBlob(t.Context(), layer.Digest); err == nil {
		t.Error("a layer in use was deleted")
	}
	if after := readFile(t, s.Dir(), "index.json"); after != before {
		t.Errorf("index.json changed:\n%s\n%s", before, after)
	}
	if err := s.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if tags := listTags(t, s); !slices.Equal(tags, []string{"b", "list"}) || exists(t, s, a.Digest) {
		t.Errorf("tags %q, blob %v", tags, exists(t, s, a.Digest))
	}
	for _, err := range []error{s.Delete(t.Context(), a), s.DeleteBlob(t.Context(), a.Digest), create(t).Delete(t.Context(), a)} {
		if !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("again: %v; want %v", err, errdef.ErrNotFound)
		}
	}
	for _, d := range []v1.Descriptor{list, b} {
		if err := s.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteBlob(t.Context(), layer.Digest); err != nil || exists(t, s, layer.Digest) {
		t.Errorf("delete a free layer: %v", err)
	}
}

func TestGC(t *testing.T) {
	t.Parallel()
	if freed, err := create(t).GC(t.Context(), false); err != nil || freed != nil {
		t.Errorf("a layout yet to be made: %v, %v", freed, err)
	}
	s := create(t)
	layer, lost := pushBlob(t, s, "layer"), pushBlob(t, s, "lost")
	a := pushImage(t, s, "a", "a", v1.Descriptor{}, layer)
	subject, data := image("subject", v1.Descriptor{})
	push(t, s, subject, data) // unlisted, but
	pushImage(t, s, "b", "b", subject)
	writeFile(t, filepath.Join(s.Dir(), "blobs", "sha256", "README"), "not a blob")
	gc := func(dryRun bool) []v1.Descriptor {
		t.Helper()
		freed, err := s.GC(t.Context(), dryRun)
		if err != nil {
			t.Fatal(err)
		}
		return freed
	}
	if freed := gc(false); freed != nil {
		t.Errorf("what is young was freed: %v", freed)
	}
	age(t, s)
	for _, dryRun := range []bool{true, false} {
		if freed := gc(dryRun); len(freed) != 1 || freed[0].Digest != lost.Digest || freed[0].Size != lost.Size {
			t.Errorf("freed %v; want %v", freed, lost.Digest)
		}
		if exists(t, s, lost.Digest) != dryRun {
			t.Errorf("dry run %v: the blob exists: %v", dryRun, !dryRun)
		}
	}
	for _, d := range []v1.Descriptor{layer, a, subject, v1.DescriptorEmptyJSON} {
		if !exists(t, s, d.Digest) {
			t.Errorf("%s is lost", d.Digest)
		}
	}
	if readFile(t, s.Dir(), "blobs", "sha256", "README") == "" {
		t.Error("what is no blob was freed")
	}

	// What somebody is about to refer to stays, however old.
	pushBlob(t, s, "wanted")
	age(t, s)
	wanted := pushBlob(t, s, "wanted")
	if freed := gc(false); freed != nil || !exists(t, s, wanted.Digest) {
		t.Errorf("what was just found was freed: %v", freed)
	}

	// Nobody knows what an altered manifest referred to.
	age(t, s)
	writeFile(t, blobPath(s, a.Digest), strings.Repeat(" ", int(a.Size)))
	if freed, err := s.GC(t.Context(), false); !errors.Is(err, content.ErrMismatchedDigest) || freed != nil {
		t.Errorf("with an altered manifest: %v, %v", freed, err)
	}
	if err := s.Delete(t.Context(), wanted); !errors.Is(err, content.ErrMismatchedDigest) {
		t.Errorf("delete with an altered manifest: %v", err)
	}
}

func TestMount(t *testing.T) {
	t.Parallel()
	from, to := create(t), create(t)
	d := pushBlob(t, from, "blob")
	age(t, from)
	for range 2 {
		if err := to.Mount(t.Context(), from, d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	one, err1 := os.Stat(blobPath(from, d.Digest))
	two, err2 := os.Stat(blobPath(to, d.Digest))
	if err1 != nil || err2 != nil || !os.SameFile(one, two) || time.Since(two.ModTime()) > time.Minute {
		t.Errorf("no young hard link: %v, %v", err1, err2)
	}
	if err := from.DeleteBlob(t.Context(), d.Digest); err != nil || !exists(t, to, d.Digest) {
		t.Errorf("the link went with the blob: %v", err)
	}
	if err := to.Mount(t.Context(), from, d.Digest); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("mount what is not there: %v", err)
	}

	// A symbolic link out of the source is not followed.
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "blob")
	if err := os.Symlink(secret, blobPath(from, d.Digest)); err != nil {
		t.Fatal(err)
	}
	if err := create(t).Mount(t.Context(), from, d.Digest); err == nil {
		t.Error("a link out of the layout was followed")
	}

	// Nor is one inside it mounted: its bytes are copied.
	inside := create(t)
	pushBlob(t, inside, "blob")
	target := filepath.Join(filepath.Dir(blobPath(inside, d.Digest)), "elsewhere")
	if err := os.Rename(blobPath(inside, d.Digest), target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", blobPath(inside, d.Digest)); err != nil {
		t.Fatal(err)
	}
	other := create(t)
	if err := other.Mount(t.Context(), inside, d.Digest); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(blobPath(other, d.Digest)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("mounted as %v, %v", info.Mode(), err)
	}
	if temps, _ := filepath.Glob(filepath.Join(other.Dir(), ".galley-layout", "tmp-*")); len(temps) != 0 {
		t.Errorf("left %q", temps)
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	s := create(t)
	state := func() int {
		found, err := filepath.Glob(filepath.Join(s.Dir(), ".galley-layout", "*-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	u, err := s.StartUpload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Append(t.Context(), strings.NewReader("one ")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResumeUpload(t.Context(), u.ID()); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("resume what another has: %v", err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := layout.Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if u, err = other.ResumeUpload(t.Context(), u.ID()); err != nil || u.Size() != 4 {
		t.Fatalf("resume: %v", err)
	}
	if err := u.Append(t.Context(), failingReader{}); !errors.Is(err, errFailing) || u.Size() != 9 { // what came stays
		t.Errorf("append what fails: %v, size %d", err, u.Size())
	}
	if err := u.Append(t.Context(), strings.NewReader("two ")); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		want := alg.FromString("one two three")
		u, err := s.StartUpload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Append(t.Context(), strings.NewReader("one two ")); err != nil {
			t.Fatal(err)
		}
		d, err := u.Commit(t.Context(), want, strings.NewReader("three"))
		if err != nil || d.Digest != want || d.Size != 13 || !exists(t, s, want) {
			t.Errorf("commit %s: %+v, %v", alg, d, err)
		}
	}
	if _, err := u.Commit(t.Context(), digest.FromString("else"), bytes.NewReader(nil)); !errors.Is(err, content.ErrMismatchedDigest) {
		t.Errorf("commit of a wrong digest: %v", err)
	}
	if u, err = s.StartUpload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(t.Context(), "sha1:x", bytes.NewReader(nil)); !errors.Is(err, errdef.ErrInvalidDigest) {
		t.Errorf("commit of no digest: %v", err)
	}
	if left := state(); left != 0 {
		t.Errorf("%d files are left", left)
	}
	for _, id := range []string{"", "../../index.json", "AAAA", u.ID()} {
		if _, err := s.ResumeUpload(t.Context(), id); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("resume %q: %v", id, err)
		}
	}
}

var errFailing = errors.New("failing")

// failingReader gives some bytes, and then fails.
type failingReader struct{}

func (failingReader) Read(p []byte) (int, error) { return copy(p, "bytes"), errFailing }

// TestRemoveTagged removes a manifest with its tag while others tag it: none of
// the tags that were acknowledged is lost.
func TestRemoveTagged(t *testing.T) {
	t.Parallel()
	for i := range 50 {
		s := create(t)
		d := pushTagged(t, s, "model", "v1")
		other, err := layout.Open(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		tagged := make(chan error)
		go func() { tagged <- other.Tag(t.Context(), d, "stable") }()
		r, err := s.Remove(t.Context(), d.Digest, []string{"v1"}, false)
		if err != nil {
			t.Fatal(err)
		}
		tagErr := <-tagged
		if tagErr == nil == (len(r.Manifests) > 0) {
			t.Fatalf("round %d: Tag: %v, and %v was removed", i, tagErr, r)
		}
		if tagErr == nil && resolve(t, s, "stable").Digest != d.Digest {
			t.Fatal("an acknowledged tag is lost")
		}
	}

	// Tags that came between looking and removing.
	s := create(t)
	d := pushTagged(t, s, "model", "v1", "late")
	r, err := s.Remove(t.Context(), d.Digest, []string{"v1"}, false)
	if err != nil || !slices.Equal(r.Tags, []string{"v1"}) || r.Manifests != nil {
		t.Errorf("%+v, %v; want only v1 gone", r, err)
	}
	if got := listTags(t, s); !slices.Equal(got, []string{"late"}) || !exists(t, s, d.Digest) {
		t.Errorf("left are %q", got)
	}
	// And one that went elsewhere.
	e := pushTagged(t, s, "other", "late")
	if r, err := s.Remove(t.Context(), d.Digest, []string{"late"}, false); err != nil || r.Tags != nil || r.Manifests != nil {
		t.Errorf("%+v, %v; want nothing gone", r, err)
	}
	if resolve(t, s, "late").Digest != e.Digest {
		t.Error("the tag that moved is lost")
	}
}
