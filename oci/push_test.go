package oci_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"galley/manifest"
	"galley/oci"
	. "galley/oci/ocitest"
)

const modelFile = "models/model.joblib"

// project is a small project; text tells its models apart.
func project(text string) fstest.MapFS {
	return fstest.MapFS{
		modelFile:            {Data: []byte("\x80\x04\x8c" + string(rune(len(text))) + text + "\x94.")},
		"data/features.json": {Data: []byte(`["amount","hour"]`)},
		"data/summary.json":  {Data: []byte(`{"test_f1": 0.5}`)},
	}
}

func packProject(t testing.TB, fsys fs.FS, o manifest.PackOptions) *manifest.Packed {
	t.Helper()
	p, err := manifest.Pack(t.Context(), []manifest.Input{
		manifest.FromFS(fsys, modelFile, modelFile, manifest.RoleModel),
		manifest.FromFS(fsys, "data/features.json", "data/features.json", manifest.RoleFeatures),
		manifest.FromFS(fsys, "data/summary.json", "data/summary.json", manifest.RoleSummary),
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newTarget is an empty repository of a registry, and what it is asked.
func newTarget(t testing.TB) (oci.Target, *Registry) {
	t.Helper()
	r := NewRegistry()
	t.Cleanup(r.Close)
	return openTarget(t, r.Host+"/ml/fraud"), r
}

func openTarget(t testing.TB, name string) oci.Target {
	t.Helper()
	c, err := oci.NewClient(oci.Options{Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	target, err := c.Create(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestPush(t *testing.T) {
	target, r := newTarget(t)
	push := func(p *manifest.Packed, o oci.PushOptions) oci.Pushed {
		t.Helper()
		r.Requests()
		done, err := oci.Push(t.Context(), target, p, o)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	resolve := func(tag string) string {
		t.Helper()
		d, err := target.Resolve(t.Context(), tag)
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest.String()
	}

	v1 := packProject(t, project("one"), manifest.PackOptions{Revision: "aaa"})
	if done := push(v1, oci.PushOptions{Tags: []string{"v1", "candidate"}}); !done.Written || done.Root.Digest != v1.Root.Digest {
		t.Errorf("first push: %+v", done)
	}

	// The same bytes: one request a tag, nothing written.
	if done := push(v1, oci.PushOptions{Tags: []string{"v1"}}); done.Written || done.Existing != nil {
		t.Errorf("same push: %+v", done)
	}
	if got := r.Requests(); !slices.Equal(got, []string{"HEAD /v2/ml/fraud/manifests/v1"}) {
		t.Errorf("an unchanged push asked %q", got)
	}

	// The same model from a later commit: one request more, nothing written.
	later := packProject(t, project("one"), manifest.PackOptions{Revision: "bbb"})
	done := push(later, oci.PushOptions{Tags: []string{"candidate"}})
	if done.Written || done.Existing == nil || done.Root.Digest != v1.Root.Digest {
		t.Errorf("same model: %+v", done)
	}
	if got := r.Requests(); len(got) != 2 {
		t.Errorf("a push of the same content asked %q; want 2 requests", got)
	}

	// Unless it is asked for.
	if done := push(later, oci.PushOptions{Tags: []string{"candidate"}, New: true}); !done.Written || resolve("candidate") != later.Root.Digest.String() {
		t.Errorf("--new: %+v", done)
	}

	// Another model moves the candidate, but no version.
	v2 := packProject(t, project("two"), manifest.PackOptions{})
	_, err := oci.Push(t.Context(), target, v2, oci.PushOptions{Tags: []string{"candidate", "v1"}})
	taken, ok := errors.AsType[*oci.TakenError](err)
	if !ok || taken.Tag != "v1" || taken.Next != "v2" {
		t.Errorf("push onto v1: %v", err)
	}
	if resolve("candidate") == v2.Root.Digest.String() {
		t.Error("candidate moved although v1 was refused")
	}
	_, err = oci.Push(t.Context(), target, v2, oci.PushOptions{Tags: []string{"production.h-000001-20260101T000000Z-0123abcd"}})
	if _, ok := errors.AsType[*oci.HistoryTagError](err); !ok {
		t.Errorf("push onto a history tag: %v", err)
	}
}

func TestPushWithoutTag(t *testing.T) {
	target, _ := newTarget(t)
	one := packProject(t, project("one"), manifest.PackOptions{Revision: "aaa"})
	two := packProject(t, project("two"), manifest.PackOptions{Revision: "bbb"})
	again := packProject(t, project("one"), manifest.PackOptions{Revision: "ccc"})
	var tags []string
	for _, p := range []*manifest.Packed{one, two, again} {
		done, err := oci.Push(t.Context(), target, p, oci.PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(done.Tags) != 2 || !strings.HasPrefix(done.Tags[0], "c-") || len(done.Tags[0]) != 14 || done.Tags[1] != "latest" {
			t.Fatalf("tags %q", done.Tags)
		}
		tags = append(tags, done.Tags[0])
	}
	if tags[0] != tags[2] || tags[0] == tags[1] {
		t.Errorf("tags %q do not follow the content", tags)
	}
	// Back to the first model: latest names the artifact that was there.
	for _, tag := range []string{"latest", tags[0]} {
		if d, err := target.Resolve(t.Context(), tag); err != nil || d.Digest != one.Root.Digest {
			t.Errorf("%s = %v, %v; want the first push", tag, d.Digest, err)
		}
	}
}

// TestPushOfContentThatIsThere looks at each tag on its own.
func TestPushOfContentThatIsThere(t *testing.T) {
	target, _ := newTarget(t)
	one := packProject(t, project("one"), manifest.PackOptions{Revision: "aaa"})
	again := packProject(t, project("one"), manifest.PackOptions{Revision: "bbb"})
	two := packProject(t, project("two"), manifest.PackOptions{})
	for _, step := range []struct {
		p    *manifest.Packed
		o    oci.PushOptions
		want map[string]*manifest.Packed
	}{
		{one, oci.PushOptions{Tags: []string{"v1", "c-foo"}}, map[string]*manifest.Packed{"v1": one, "c-foo": one}},
		// A tag that is not there comes to the artifact that is.
		{again, oci.PushOptions{Tags: []string{"v1", "candidate"}}, map[string]*manifest.Packed{"v1": one, "candidate": one}},
		{two, oci.PushOptions{Tags: []string{"candidate"}}, map[string]*manifest.Packed{"candidate": two}},
		// One that names another model does too, and c-foo is a tag like any other.
		{again, oci.PushOptions{Tags: []string{"c-foo", "candidate"}}, map[string]*manifest.Packed{"c-foo": one, "candidate": one}},
		{one, oci.PushOptions{}, map[string]*manifest.Packed{"latest": one}},
		// The tag of the content stays where it is when the same model is pushed anew.
		{again, oci.PushOptions{New: true}, map[string]*manifest.Packed{"latest": again}},
		{one, oci.PushOptions{}, map[string]*manifest.Packed{"latest": again}},
	} {
		if _, err := oci.Push(t.Context(), target, step.p, step.o); err != nil {
			t.Fatalf("push %q: %v", step.o.Tags, err)
		}
		for tag, want := range step.want {
			if d, err := target.Resolve(t.Context(), tag); err != nil || d.Digest != want.Root.Digest {
				t.Errorf("after push %q: %s = %s, %v; want %s", step.o.Tags, tag, d.Digest, err, want.Root.Digest)
			}
		}
	}
}

// TestPushReportsChange changes a model after it was hashed. One that is small is
// sent as it was then; one that is not kept in memory is not sent.
func TestPushReportsChange(t *testing.T) {
	for name, size := range map[string]int{"small": 0, "large": 17 << 20} {
		t.Run(name, func(t *testing.T) {
			target, _ := newTarget(t)
			noise := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(noise)
			fsys := project("one")
			fsys[modelFile].Data = append(fsys[modelFile].Data, noise...)
			p := packProject(t, fsys, manifest.PackOptions{})
			fsys[modelFile].Data = append(project("two")[modelFile].Data, noise...)
			_, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}})
			d, rerr := target.Resolve(t.Context(), "v1")
			if size == 0 {
				if err != nil || rerr != nil || d.Digest != p.Root.Digest {
					t.Errorf("push: %v, and then v1 is %v, %v", err, d.Digest, rerr)
				}
				return
			}
			if changed, ok := errors.AsType[*manifest.ChangedError](err); !ok || changed.Path != modelFile {
				t.Errorf("push of a changed file: %v", err)
			}
			if !errors.Is(rerr, oci.ErrNotFound) {
				t.Errorf("the tag is there: %v", rerr)
			}
		})
	}
}

// TestLookUp asks for the tags before the artifact is known: that is no request
// more, unless the answer is old by then.
func TestLookUp(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]int{0: 10, time.Minute: 11} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			defer s.close()
			s.Inject(Rule{Mishap: likeDistribution})
			_, target := s.open(t, oci.Options{})
			tags := []string{"v1"}
			ahead := oci.LookUp(t.Context(), target, tags)
			p := packProject(t, project("one"), manifest.PackOptions{})
			time.Sleep(wait)
			if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: tags, Ahead: ahead}); err != nil {
				t.Fatal(err)
			}
			if got := s.Requests(); len(got) != want || got[0] != "HEAD /v2/ml/fraud/manifests/v1" {
				t.Errorf("%d requests after %v, want %d:\n%s", len(got), wait, want, strings.Join(got, "\n"))
			}
			s.complete(t, "v1", p.Root)

			// What it meets with is the push's.
			s.Inject(Rule{Mishap: Answer(Up, 403, "DENIED")})
			ahead = oci.LookUp(t.Context(), target, tags)
			if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: tags, Ahead: ahead}); err == nil {
				t.Error("no error")
			}
		})
	}
}
