package layout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/lockedfile"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

func resolve(t testing.TB, s *layout.Store, ref string) v1.Descriptor {
	t.Helper()
	desc, err := s.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// entry is the JSON of an index entry.
func entry(desc v1.Descriptor, name string) string {
	if name != "" {
		desc.Annotations = map[string]string{v1.AnnotationRefName: name}
	}
	data, err := json.Marshal(desc)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// entries returns name and digest of each entry of index.json, as name=id
// where ids has the digest.
func entries(t testing.TB, s *layout.Store, ids map[digest.Digest]string) []string {
	t.Helper()
	var index v1.Index
	if err := json.Unmarshal([]byte(readFile(t, s.Dir(), "index.json")), &index); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range index.Manifests {
		all = append(all, m.Annotations[v1.AnnotationRefName]+"="+ids[m.Digest])
	}
	return all
}

func TestTag(t *testing.T) {
	t.Parallel()
	s := create(t)
	a := pushTagged(t, s, "a", "v1", "latest")
	if got := resolve(t, s, "latest"); !reflect.DeepEqual(got, a) {
		t.Errorf("got %+v, want %+v", got, a)
	}
	b := pushTagged(t, s, "b", "v2", "latest")
	ids := map[digest.Digest]string{a.Digest: "a", b.Digest: "b"}
	if got, want := entries(t, s, ids), []string{"latest=b", "v1=a", "v2=b"}; !slices.Equal(got, want) {
		t.Errorf("after two tags: got %q, want %q", got, want)
	}

	// A manifest that loses its last tag stays listed.
	pushTagged(t, s, "b", "v1")
	if got, want := entries(t, s, ids), []string{"latest=b", "v1=b", "v2=b", "=a"}; !slices.Equal(got, want) {
		t.Errorf("after the move: got %q, want %q", got, want)
	}
	for _, tag := range []string{"v1", "v2", "latest"} {
		if err := s.Untag(t.Context(), tag); err != nil {
			t.Error(err)
		}
	}
	if got, want := entries(t, s, ids), []string{"=b", "=a"}; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("after Untag: got %q, want %q", got, want)
	}
	if err := s.Untag(t.Context(), "v1"); !errors.Is(err, errdef.ErrNotFound) {
		t.Errorf("second Untag: got error %v, want %v", err, errdef.ErrNotFound)
	}
	pushTagged(t, s, "a", "v3")
	if got, want := entries(t, s, ids), []string{"v3=a", "=a", "=b"}; len(got) != 3 || got[0] != want[0] {
		t.Errorf("tagged again: got %q, want %q", got, want)
	}
	for _, desc := range []v1.Descriptor{a, b} {
		if got := resolve(t, s, desc.Digest.String()); !reflect.DeepEqual(got, desc) {
			t.Errorf("got %+v, want %+v", got, desc)
		}
	}
}

// A store sees what others write, also when size and time of index.json stay.
func TestResolveIsNeverStale(t *testing.T) {
	t.Parallel()
	s := create(t)
	ids := []v1.Descriptor{pushTagged(t, s, "a", "v1", "v2"), pushTagged(t, s, "b", "w1")}
	index := filepath.Join(s.Dir(), "index.json")
	before := time.Now().Add(-time.Hour)
	text := readFile(t, s.Dir(), "index.json")
	swap := strings.NewReplacer(ids[0].Digest.String(), ids[1].Digest.String(), ids[1].Digest.String(), ids[0].Digest.String())
	for i := range 4 {
		for range 3 { // by search, by name, and again
			if got := resolve(t, s, "v1"); got.Digest != ids[i%2].Digest {
				t.Fatalf("round %d: v1 is %s", i, got.Digest)
			}
			if got := resolve(t, s, "w1"); got.Digest != ids[1-i%2].Digest {
				t.Fatalf("round %d: w1 is %s", i, got.Digest)
			}
			if _, err := s.Resolve(t.Context(), "x1"); !errors.Is(err, errdef.ErrNotFound) {
				t.Fatalf("round %d: x1: %v", i, err)
			}
		}
		text = swap.Replace(text)
		writeFile(t, index, text)
		if err := os.Chtimes(index, before, before); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, index, text[1:])
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, layout.ErrCorrupt) {
		t.Errorf("got %v, want %v", err, layout.ErrCorrupt)
	}
}

// A store that is asked for many tags parses index.json once.
func TestResolveParsesOnce(t *testing.T) {
	desc, data := manifest("a")
	var list []string
	for i := range 1000 {
		list = append(list, entry(desc, fmt.Sprint("v", i)))
	}
	s := open(t, `{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`, data)
	resolve(t, s, "v0")
	resolve(t, s, "v1") // the second look-up makes the map
	allocs := testing.AllocsPerRun(10, func() { resolve(t, s, "v999") })
	if allocs > 100 {
		t.Errorf("%v allocations to look up a tag in an index that is known; parsing makes thousands", allocs)
	}
}

func TestTagByDigest(t *testing.T) {
	t.Parallel()
	s := create(t)
	a, _ := manifest("a")
	ids := map[digest.Digest]string{a.Digest: "a"}
	for range 2 {
		pushTagged(t, s, "a", a.Digest.String())
		if got, want := entries(t, s, ids), []string{"=a"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if tags := listTags(t, s); len(tags) > 0 {
		t.Errorf("got tags %q, want none", tags)
	}
	// What is listed wrongly is listed anew.
	wrong := a
	wrong.MediaType = "text/plain"
	s = open(t, `{"manifests":[`+entry(wrong, "")+`]}`)
	pushTagged(t, s, "a", a.Digest.String())
	if got := readFile(t, s.Dir(), "index.json"); strings.Contains(got, "text/plain") {
		t.Errorf("got %s", got)
	}
}

func TestTagKeepsDescriptor(t *testing.T) {
	t.Parallel()
	s := create(t)
	want, _ := manifest("a")
	pushTagged(t, s, "a")
	want.ArtifactType = "application/vnd.cncf.model.manifest.v1+json"
	want.Annotations = map[string]string{"a": "<b>"}
	want.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	desc := want
	desc.Annotations = map[string]string{"a": "<b>", v1.AnnotationRefName: "other"}
	desc.Data, desc.URLs = []byte("data"), []string{"https://example.com"}
	if err := s.Tag(t.Context(), desc, "v1"); err != nil {
		t.Fatal(err)
	}
	if got := resolve(t, s, "v1"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if desc.Annotations[v1.AnnotationRefName] != "other" {
		t.Error("the caller's annotations were changed")
	}
}

// A tag that is right is not written, and keeps what others wrote about it.
func TestTagAgainWritesNothing(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	index := "{ \"x\": 1,\n \"manifests\": [ " + strings.Replace(entry(a, "v1"), "{", `{"unknown": 1e400,`, 1) + " ] }\n"
	s := open(t, index, data)
	for _, ref := range []string{"v1", a.Digest.String()} {
		if err := s.Tag(t.Context(), a, ref); err != nil {
			t.Error(err)
		}
	}
	if got := readFile(t, s.Dir(), "index.json"); got != index {
		t.Errorf("got %q, want %q", got, index)
	}
}

func TestTagRefuses(t *testing.T) {
	t.Parallel()
	s := create(t)
	a := pushTagged(t, s, "a", "v1")
	absent, _ := manifest("absent")
	size, mediaType, dgst := a, a, a
	size.Size++
	mediaType.MediaType = ""
	dgst.Digest = "sha256:0"
	before := readFile(t, s.Dir(), "index.json")
	tests := []struct {
		name string
		desc v1.Descriptor
		ref  string
		want error
	}{
		{"absent manifest", absent, "v2", errdef.ErrNotFound},
		{"other size", size, "v2", errdef.ErrNotFound},
		{"no media type", mediaType, "v2", errdef.ErrInvalidMediaType},
		{"bad digest", dgst, "v2", errdef.ErrInvalidDigest},
		{"bad digest as its own name", dgst, "sha256:0", errdef.ErrInvalidDigest},
		{"nothing at all", v1.Descriptor{MediaType: "x/y"}, "", errdef.ErrInvalidDigest},
		{"empty tag", a, "", errdef.ErrInvalidReference},
		{"tag with a slash", a, "a/b", errdef.ErrInvalidReference},
		{"tag too long", a, strings.Repeat("a", 129), errdef.ErrInvalidReference},
		{"tag with a leading dot", a, ".a", errdef.ErrInvalidReference},
		{"other manifest's digest", a, absent.Digest.String(), errdef.ErrInvalidReference},
	}
	for _, test := range tests {
		if err := s.Tag(t.Context(), test.desc, test.ref); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.name, err, test.want)
		}
	}
	for _, err := range []error{s.Untag(t.Context(), ""), func() error { _, err := s.Resolve(t.Context(), ""); return err }()} {
		if !errors.Is(err, errdef.ErrMissingReference) {
			t.Errorf("no reference: got error %v, want %v", err, errdef.ErrMissingReference)
		}
	}
	if got := readFile(t, s.Dir(), "index.json"); got != before {
		t.Errorf("index.json changed: got %s, want %s", got, before)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	s := create(t)
	pushTagged(t, s, "a", "v10", "v2", "V3", "_x", "v1")
	all := []string{"V3", "_x", "v1", "v10", "v2"}
	for last, want := range map[string][]string{"": all, "V3": all[1:], "v1": all[3:], "v19": all[4:], "v2": nil, "z": nil} {
		calls := 0
		err := s.Tags(t.Context(), last, func(tags []string) error {
			calls++
			if !slices.Equal(tags, want) {
				t.Errorf("after %q: got %q, want %q", last, tags, want)
			}
			return nil
		})
		if err != nil || calls != min(1, len(want)) {
			t.Errorf("after %q: got %d calls, error %v", last, calls, err)
		}
	}
	stop := errors.New("stop")
	if err := s.Tags(t.Context(), "", func([]string) error { return stop }); err != stop {
		t.Errorf("got error %v, want %v", err, stop)
	}
}

func TestResolveDigest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, data string
		want       string // media type
	}{
		{"stated", `{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[]}`, "application/vnd.docker.distribution.manifest.v2+json"},
		{"manifest by shape", `{"schemaVersion":2,"config":{},"layers":[]}`, v1.MediaTypeImageManifest},
		{"index by shape", `{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageIndex},
		{"index and manifest", `{"config":{},"layers":[],"manifests":[]}`, ""},
		{"image config", `{"architecture":"amd64","config":{},"rootfs":{}}`, ""},
		{"no JSON", "model", ""},
		{"too large", strings.Repeat(" ", 4<<20) + `{"mediaType":"a/b"}`, ""},
	}
	s := create(t)
	for _, test := range tests {
		desc := content.NewDescriptorFromBytes(test.want, []byte(test.data))
		push(t, s, desc, []byte(test.data))
		got, err := s.Resolve(t.Context(), desc.Digest.String())
		if test.want == "" {
			if !errors.Is(err, errdef.ErrNotFound) {
				t.Errorf("%s: got error %v, want %v", test.name, err, errdef.ErrNotFound)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, desc) {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, desc)
		}
	}
}

// Waiting for the lock ends with the context, and the lock can be had later.
func TestLockHonoursContext(t *testing.T) {
	t.Parallel()
	s := create(t)
	pushTagged(t, s, "a", "v1")
	unlock, err := lockedfile.MutexAt(filepath.Join(s.Dir(), ".galley-layout", "lock")).Lock()
	if err != nil {
		t.Fatal(err)
	}
	a := resolve(t, s, "v1")
	for range 3 { // the first leaves a goroutine waiting, which the others meet
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := s.Tag(ctx, a, "v2"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
	unlock()
	if err := s.Tag(t.Context(), a, "v2"); err != nil {
		t.Error(err)
	}
	if got, want := listTags(t, s), []string{"v1", "v2"}; !slices.Equal(got, want) {
		t.Errorf("got tags %q, want %q", got, want)
	}
}

func TestDoneContext(t *testing.T) {
	t.Parallel()
	s := create(t)
	a, data := manifest("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, fetchErr := s.Fetch(ctx, a)
	_, existsErr := s.Exists(ctx, a)
	_, resolveErr := s.Resolve(ctx, "v1")
	for name, err := range map[string]error{
		"Fetch": fetchErr, "Exists": existsErr, "Resolve": resolveErr,
		"Push":  s.Push(ctx, a, strings.NewReader(string(data))),
		"Tag":   s.Tag(ctx, a, "v1"),
		"Untag": s.Untag(ctx, "v1"),
		"Tags":  s.Tags(ctx, "", func([]string) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
		}
	}
	if _, err := os.Stat(s.Dir()); err == nil {
		t.Error("the layout was made")
	}
}
