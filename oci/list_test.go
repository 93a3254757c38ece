package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci"
	"galley/oci/image"
	"galley/oci/ocitest"
)

// put pushes a manifest of that config type and those annotations.
func put(t testing.TB, target oci.Target, configType string, annotations map[string]string, tags ...string) {
	t.Helper()
	push := func(d v1.Descriptor, data []byte) v1.Descriptor {
		d.Digest, d.Size = digest.FromBytes(data), int64(len(data))
		if ok, err := target.Exists(t.Context(), d); err != nil || !ok {
			if err := target.Push(t.Context(), d, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Annotations: annotations, Layers: []v1.Descriptor{}}
	m.Config = push(v1.Descriptor{MediaType: configType}, []byte("{}"))
	doc, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := push(v1.Descriptor{MediaType: m.MediaType}, doc)
	for _, tag := range tags {
		if err := target.Tag(t.Context(), d, tag); err != nil {
			t.Fatal(err)
		}
	}
}

func putModel(t testing.TB, target oci.Target, trained, f1 string, tags ...string) {
	t.Helper()
	put(t, target, manifest.MediaTypeConfig, map[string]string{
		manifest.AnnotationTrained: trained, manifest.AnnotationMetric + "test_f1": f1, manifest.AnnotationModelClass: "sklearn.Forest",
	}, tags...)
}

func cacheIn(dir string) *oci.ManifestCache {
	return oci.NewManifestCache(func(name string) string { return map[string]string{"GALLEY_CACHE": dir}[name] })
}

// allTags are the versions' tags, a version a word.
func allTags(versions []oci.Version) string {
	var all []string
	for _, v := range versions {
		all = append(all, strings.Join(v.Tags, ","))
	}
	return strings.Join(all, " ")
}

func list(t testing.TB, target oci.Target, o oci.ListOptions) []oci.Version {
	t.Helper()
	versions, err := oci.List(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	return versions
}

func TestList(t *testing.T) {
	target, r := newTarget(t)
	putModel(t, target, "2026-01-09T00:00:00Z", "0.5", "v9", "candidate", "c-0123456789ab")
	putModel(t, target, "2026-01-10T01:00:00+02:00", "0.6", "v10", "production.h-000001-20260101T000000Z-0123abcd")
	putModel(t, target, "", "0.7", "old")
	put(t, target, v1.MediaTypeImageConfig, nil, "image")
	r.Requests()

	versions := list(t, target, oci.ListOptions{})
	if got, want := allTags(versions), "v10 v9,candidate,c-0123456789ab old image"; got != want {
		t.Errorf("List: %q; want %q", got, want)
	}
	// One listing, six tags, four manifests.
	if got := r.Requests(); len(got) != 11 {
		t.Errorf("%d requests; want 11:\n%s", len(got), strings.Join(got, "\n"))
	}
	not, ok := errors.AsType[*manifest.NotArtifactError](versions[3].Err)
	if !ok || not.What != "a container image" {
		t.Errorf("image: %v", versions[3].Err)
	}
	if v := versions[0]; v.Err != nil || v.Class != "sklearn.Forest" || v.Features != -1 || v.Size != -1 || len(v.Metrics) != 1 {
		t.Errorf("%+v", v)
	}
	if got, want := allTags(list(t, target, oci.ListOptions{All: true})), "v10,production.h-000001-20260101T000000Z-0123abcd v9,candidate,c-0123456789ab old image"; got != want {
		t.Errorf("all: %q; want %q", got, want)
	}
	if got := allTags(list(t, target, oci.ListOptions{Rules: oci.TagRules{Versions: "^candidate$"}})); !strings.Contains(got, "candidate,v9,") {
		t.Errorf("%q; want the version tag first", got)
	}
}

func TestListCaches(t *testing.T) {
	target, r := newTarget(t)
	for i := range 5 {
		putModel(t, target, fmt.Sprintf("2026-01-0%dT00:00:00Z", i+1), "0.5", fmt.Sprintf("v%d", i+1))
	}
	dir := t.TempDir()
	want := allTags(list(t, target, oci.ListOptions{Cache: cacheIn(dir)}))
	manifests := func() int {
		n := 0
		for _, line := range r.Requests() {
			if strings.HasPrefix(line, "GET ") && strings.Contains(line, "/manifests/") {
				n++
			}
		}
		return n
	}
	manifests()
	check := func(wantFetched int) {
		t.Helper()
		if got := allTags(list(t, target, oci.ListOptions{Cache: cacheIn(dir)})); got != want {
			t.Errorf("List: %q; want %q", got, want)
		}
		if got := manifests(); got != wantFetched {
			t.Errorf("%d manifests fetched; want %d", got, wantFetched)
		}
	}
	check(0)

	// A file that is altered, empty or no file is ignored, and replaced if it
	// can be.
	files, err := filepath.Glob(filepath.Join(dir, "manifests", "sha256", "*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files, %v; want 5", len(files), err)
	}
	for i, text := range []string{`{"schemaVersion":2,"config":{},"layers":[]}`, "", strings.Repeat(" ", 5<<20)} {
		if err := os.WriteFile(files[i], []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	check(3)
	check(0)
	if err := errors.Join(os.Remove(files[0]), os.Mkdir(files[0], 0o777)); err != nil {
		t.Fatal(err)
	}
	check(1)
	check(1)
	if left, _ := filepath.Glob(filepath.Join(dir, "manifests", "sha256", "*.*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	// A directory that cannot be made is no error.
	dir = files[1]
	check(5)
}

// TestListTakesWhatIsThere lists annotations that nobody who means well writes.
func TestListTakesWhatIsThere(t *testing.T) {
	target, _ := newTarget(t)
	put(t, target, manifest.MediaTypeConfig, map[string]string{
		manifest.AnnotationTrained:            "tomorrow\x1b[31m",
		manifest.AnnotationModelClass:         strings.Repeat("x", 1<<20),
		manifest.AnnotationFeaturesCount:      "-9999999999999999999999",
		manifest.AnnotationMetric + "nan":     "NaN",
		manifest.AnnotationMetric + "inf":     "1e999",
		manifest.AnnotationMetric + "a\x00b":  "1",
		manifest.AnnotationMetric + "roc_auc": "0.5",
	}, "v1")
	put(t, target, manifest.MediaTypeConfig, map[string]string{"n": strings.Repeat("[", 1<<20)}, "v2")
	versions := list(t, target, oci.ListOptions{})
	if got := allTags(versions); got != "v2 v1" {
		t.Fatalf("List: %q", got)
	}
	if v := versions[1]; v.Err != nil || !v.Time().IsZero() || v.Features != -1 || len(v.Metrics) != 1 {
		t.Errorf("time %v, features %d, metrics %v, %v", v.Time(), v.Features, v.Metrics, v.Err)
	}
}

// tagServer serves pages of tags, and the same manifest for each of them.
func tagServer(t *testing.T, tags http.HandlerFunc) oci.Target {
	t.Helper()
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			w.Header().Set("Content-Type", "application/json")
			tags(w, r)
			return
		}
		serveManifest(w, r)
	})
	return openTarget(t, hostOf(srv)+"/ml/fraud")
}

func TestListOfTagsWithoutEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		page func(n int64) string
	}{
		{"the same page", func(int64) string { return `{"tags":["v1"]}` }},
		{"empty pages", func(int64) string { return `{"tags":[]}` }},
		{"new tags", func(n int64) string {
			var page []string
			for i := range 1000 {
				page = append(page, fmt.Sprintf("v%d.%d", n, i))
			}
			text, _ := json.Marshal(map[string]any{"tags": page})
			return string(text)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pages atomic.Int64
			target := tagServer(t, func(w http.ResponseWriter, r *http.Request) {
				n := pages.Add(1)
				w.Header().Set("Link", fmt.Sprintf(`</v2/ml/fraud/tags/list?last=%d>; rel="next"`, n))
				fmt.Fprint(w, tt.page(n))
			})
			if versions, err := oci.List(t.Context(), target, oci.ListOptions{}); err == nil {
				t.Fatalf("%d versions; want an error", len(versions))
			}
			if n := pages.Load(); n > 1000 {
				t.Errorf("%d pages were asked for", n)
			}
		})
	}
}

func TestListWaitsAsAsked(t *testing.T) {
	var asked atomic.Int64
	target := tagServer(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		// Names that are no tags are not asked for.
		fmt.Fprint(w, `{"tags":["v1","a/../b","\u001b[2J","","latest?x=1"]}`)
	})
	versions, err := oci.List(t.Context(), target, oci.ListOptions{})
	if err != nil || allTags(versions) != "v1" || asked.Load() != 3 {
		t.Errorf("List: %q, %v after %d requests", allTags(versions), err, asked.Load())
	}
}

func TestRepositories(t *testing.T) {
	root := filepath.Join(t.TempDir(), "local")
	client, err := oci.NewClient(oci.Options{LocalRoot: root, Env: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	all, err := client.Repositories(t.Context())
	if err != nil || len(all) != 0 {
		t.Fatalf("without a registry: %v, %v", all, err)
	}
	for _, name := range []string{"ml", "ml/fraud", "zoo"} {
		target, err := client.Create(t.Context(), localRef(name, ""))
		if err != nil {
			t.Fatal(err)
		}
		putModel(t, target, "2026-01-01T00:00:00Z", "0.5", "v1", "candidate")
		putModel(t, target, "2026-01-02T00:00:00Z", "0.5", "v2")
	}
	write(t, root, "zoo/_oci/index.json", "broken")
	write(t, root, "Not A Repository/_oci/index.json", "broken")
	write(t, root, "file", "")
	if all, err = client.Repositories(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range all {
		newest := ""
		if r.Newest != nil {
			newest = strings.Join(r.Newest.Tags, ",")
		}
		got = append(got, fmt.Sprint(r.Name, " ", r.Tags, " ", newest, " ", r.Err != nil))
	}
	if want := []string{"local/ml 3 v2 false", "local/ml/fraud 3 v2 false", "local/zoo 0  true"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	if err := os.WriteFile(root+"2", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	client, err = oci.NewClient(oci.Options{LocalRoot: root + "2", Env: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := client.Repositories(t.Context()); err == nil {
		t.Errorf("a file for a registry: %v", all)
	}
}

// BenchmarkList lists 1,000 tags: with nothing in the cache, and with all of it.
func BenchmarkList(b *testing.B) {
	r := ocitest.NewRegistry()
	defer r.Close()
	target := openTarget(b, r.Host+"/ml/fraud")
	for i := range 1000 {
		annotations := map[string]string{manifest.AnnotationTrained: fmt.Sprintf("2026-01-01T00:%02d:%02dZ", i/60, i%60)}
		for m := range 30 {
			annotations[fmt.Sprintf("%stest_metrics.metric_%d", manifest.AnnotationMetric, m)] = fmt.Sprint(0.5 + float64(i+m)/1e4)
		}
		put(b, target, manifest.MediaTypeConfig, annotations, fmt.Sprintf("v%d", i))
	}
	warm := b.TempDir()
	for _, bb := range []struct {
		name string
		dir  func() string
	}{
		{"cold", func() string { return filepath.Join(b.TempDir(), "cache") }},
		{"warm", func() string { return warm }},
	} {
		list(b, target, oci.ListOptions{Cache: cacheIn(warm)})
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				// As a new process would: connections are not kept.
				target := openTarget(b, r.Host+"/ml/fraud")
				if n := len(list(b, target, oci.ListOptions{Cache: cacheIn(bb.dir())})); n != 1000 {
					b.Fatalf("%d versions", n)
				}
			}
		})
	}
	local := openTarget(b, "oci:"+filepath.Join(b.TempDir(), "layout"))
	for i := range 1000 {
		putModel(b, local, "2026-01-01T00:00:00Z", fmt.Sprint(i), fmt.Sprintf("v%d", i))
	}
	b.Run("layout", func(b *testing.B) {
		for b.Loop() {
			list(b, local, oci.ListOptions{})
		}
	})
}

// TestListStages tells which tags only promotion moves: those that are said to be
// stages, and those with events.
func TestListStages(t *testing.T) {
	target, r := newTarget(t)
	putModel(t, target, "2026-01-02T00:00:00Z", "0.5", "v2", "staging")
	putModel(t, target, "2026-01-01T00:00:00Z", "0.6", "v1", "production", "candidate")
	put(t, target, "application/vnd.oci.empty.v1+json", map[string]string{"n": "1"}, "production.h-000001-20260101T000000Z-0123abcd")
	put(t, target, "application/vnd.oci.empty.v1+json", map[string]string{"n": "2"}, "staging.i-000001-20260101T000000Z-0123abcd")
	r.Requests()

	stages := func(o oci.ListOptions) (all []string) {
		for _, v := range list(t, target, o) {
			all = append(all, v.Tags[0]+":"+strings.Join(v.Stages, ","))
		}
		return all
	}
	if got, want := stages(oci.ListOptions{}), []string{"v2:", "v1:production"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	// Events are neither looked up nor read unless they are asked for.
	if got := r.Requests(); len(got) != 1+5+2 {
		t.Errorf("%d requests; want 8:\n%s", len(got), strings.Join(got, "\n"))
	}
	if got, want := stages(oci.ListOptions{Stages: []string{"staging", "none"}}), []string{"v2:staging", "v1:production"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	r.Requests()
	all := list(t, target, oci.ListOptions{All: true})
	if got := r.Requests(); len(all) != 4 || len(got) != 1+7+2 {
		t.Errorf("%d versions after %d requests; want 4 after 10:\n%s", len(all), len(got), strings.Join(got, "\n"))
	}
	for i, want := range []string{"an announced change of staging", "an event of production"} {
		if not, ok := errors.AsType[*manifest.NotArtifactError](all[2+i].Err); !ok || not.What != want {
			t.Errorf("%q: %v; want %s", all[2+i].Tags, all[2+i].Err, want)
		}
	}
}

// TestListImages tells images that galley baked from models and from other
// images.
func TestListImages(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("hello"), manifest.PackOptions{Trained: "2026-01-02T00:00:00Z"})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	bakeInto(t, target, image.Scratch(), "data", target, map[string]string{"": "v1"}, image.Options{})
	bakeInto(t, target, openBase(t), "serving", target, map[string]string{"": "v1"}, image.Options{})
	bakeInto(t, target, image.Scratch(), "two", target, map[string]string{"fraud": "v1", "churn": "v1"}, image.Options{})
	tinyImage(t, target, "base", "A=1")
	dir := t.TempDir()
	for _, fetched := range []int{7, 0} { // five, and the first of two indexes
		r.Requests()
		versions := list(t, target, oci.ListOptions{Cache: cacheIn(dir)})
		got := make(map[string]string)
		for _, v := range versions {
			got[v.Tags[0]] = fmt.Sprint(v.Baked, " ", len(v.Metrics), " ", v.Size, " ", v.Err)
		}
		d := p.Root.Digest
		for tag, want := range map[string]string{
			"v1":      "[] 1 11 <nil>",
			"data":    fmt.Sprintf("[{ %s}] 1 11 <nil>", d),
			"serving": fmt.Sprintf("[{ %s}] 1 11 <nil>", d),
			"two":     fmt.Sprintf("[{churn %s} {fraud %s}] 0 -1 not a model artifact but an index of several (%s)", d, d, v1.MediaTypeImageIndex),
			"base":    fmt.Sprintf("[] 0 -1 not a model artifact but a container image (%s)", v1.MediaTypeImageConfig),
		} {
			if got[tag] != want {
				t.Errorf("%s: %s; want %s", tag, got[tag], want)
			}
		}
		if n := len(r.Requests()) - 1 - 5; n != fetched {
			t.Errorf("%d documents fetched; want %d", n, fetched)
		}
	}
}

// TestListOfManyTags lists a thousand tags beside as many events: one request a
// tag, and none for a manifest that is in the cache.
func TestListOfManyTags(t *testing.T) {
	target, r := newTarget(t)
	for i := range 100 {
		var tags []string
		for n := range 10 {
			tags = append(tags, fmt.Sprintf("v%d.%d", i, n), fmt.Sprintf("production.h-%06d-20260101T000000Z-0123abcd", 1+10*i+n))
		}
		putModel(t, target, "2026-01-01T00:00:00Z", fmt.Sprint(i), tags...)
	}
	dir := t.TempDir()
	for _, fetched := range []int{100, 0} {
		r.Requests()
		if versions := list(t, target, oci.ListOptions{Cache: cacheIn(dir)}); len(versions) != 100 {
			t.Errorf("%d versions", len(versions))
		}
		lists, heads, gets := 0, 0, 0
		for _, line := range r.Requests() {
			switch {
			case strings.HasSuffix(line, "/tags/list"):
				lists++
			case strings.HasPrefix(line, "HEAD "):
				heads++
			default:
				gets++
			}
		}
		if lists > 3 || heads != 1000 || gets != fetched {
			t.Errorf("%d pages, %d tags, %d manifests; want 1000 and %d", lists, heads, gets, fetched)
		}
	}
}
