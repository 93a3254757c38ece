package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"galley/oci/ocitest"
)

// exampleFiles are those of testdata/fraud that a push takes.
var exampleFiles = []string{"models/random_forest_final_model.joblib", "data/selected_features.json", "data/training_summary.json"}

// fault is what a proxy does to the push or the pull of a test.
type fault struct {
	name  string
	rules []ocitest.Rule
	code  int // exit code
}

// chance is 0 or 1: which of the layers meets with the rule is left to chance.
const chance = -1

// rule is short for the rules below.
func rule(method string, kind ocitest.Kind, times int, m ocitest.Mishap) []ocitest.Rule {
	return []ocitest.Rule{{Method: method, Kind: kind, Times: times, Mishap: m}}
}

func refuse(d ocitest.Direction, status int, code string, header ...string) ocitest.Mishap {
	return ocitest.Answer(d, status, code, header...)
}

// otherName is another name of a registry on the loopback.
func otherName(host string) string { return strings.Replace(host, "127.0.0.1", "localhost", 1) }

// toOtherName sends a client to the registry's other name.
func toOtherName(p *ocitest.Passage, w http.ResponseWriter, r *http.Request) {
	ocitest.Redirect(otherName(r.Host))(p, w, r)
}

// page is what a proxy says in place of a registry.
var page = ocitest.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Transfer-Encoding", "chunked")
	fmt.Fprint(w, "<html><title>Please wait</title></html>")
}))

// TestFaults pushes and pulls through everything that a proxy can do to a
// request or an answer. What galley says is true: done, and the right bytes are
// there, or failed, and nothing wrong is; and the next try makes it good. No
// goroutine is left in the end.
func TestFaults(t *testing.T) {
	const up, down = ocitest.Up, ocitest.Down
	const get, put, post, head = "GET", "PUT", "POST", "HEAD"
	const blobs, manifests, uploads = ocitest.Blobs, ocitest.Manifests, ocitest.Uploads
	later := time.Millisecond
	pulls := []fault{
		{"none", nil, 0},
		{"late answer", rule(get, blobs, 0, ocitest.Delay(down, later)), 0},
		{"late request", rule(get, blobs, 0, ocitest.Delay(up, later)), 0},
		{"cut", rule(get, blobs, 1, ocitest.Cut(down, 50_000)), 0},
		{"cut three times", rule(get, blobs, 3, ocitest.Cut(down, 30_000)), 0},
		{"cut before the answer", rule(get, blobs, 1, ocitest.Cut(down, 0)), 0},
		{"cut before the request", rule(get, blobs, 1, ocitest.Cut(up, 0)), 0},
		{"corrupt", rule(get, blobs, 1, ocitest.Corrupt(down, 50_000)), 0},
		{"corrupt in its last byte", rule(get, blobs, 1, ocitest.Corrupt(down, -1)), 0},
		{"always corrupt", rule(get, blobs, 0, ocitest.Corrupt(down, 50_000)), 1},
		{"short", rule(get, blobs, 1, ocitest.End(down, 50_000)), chance},
		{"always short", rule(get, blobs, 0, ocitest.End(down, 50_000)), 1},
		{"stalled", rule(get, blobs, 0, ocitest.Stall(down, 50_000)), 130},
		{"stalled before the answer", rule(get, blobs, 0, ocitest.Stall(down, 0)), 130},
		{"drip", rule(get, blobs, 0, ocitest.Drip(down, 10_000, later)), 0},
		{"length too large", rule(get, blobs, 1, ocitest.Length(1)), chance},
		{"length too small", rule(get, blobs, 1, ocitest.Length(-1)), chance},
		{"no length", append(rule("", manifests, 0, ocitest.Chunked()), rule(get, blobs, 0, ocitest.Chunked())...), 0},
		{"a page of no length", rule(get, blobs, 1, page), 0},
		{"always a page of no length", rule(get, blobs, 0, page), 1},
		{"429", rule(get, blobs, 1, refuse(up, 429, "TOOMANYREQUESTS", "Retry-After", "0")), 0},
		{"503", rule(get, blobs, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"401 in the middle", rule(get, blobs, 1, refuse(up, 401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="test"`)), 4},
		{"416", rule(get, blobs, 1, refuse(up, 416, "RANGE_INVALID")), 1},
		{"redirect", rule(get, blobs, 0, toOtherName), 0},
		{"403", rule(get, blobs, 0, refuse(up, 403, "DENIED")), 4},
		{"404", rule(get, blobs, 0, refuse(up, 404, "BLOB_UNKNOWN")), 1},
		{"cut, then all again", append(rule(get, blobs, 1, ocitest.Cut(down, 50_000)), rule(get, blobs, 0, ocitest.IgnoreRange())...), chance},
		{"cut, then another range", append(rule(get, blobs, 1, ocitest.Cut(down, 50_000)), rule(get, blobs, 1, ocitest.OtherRange(5))...), chance},
		{"cut, then 416", append(rule(get, blobs, 1, ocitest.Cut(down, 50_000)), ocitest.Rule{Method: get, Kind: blobs, Skip: 3, Times: 1, Mishap: refuse(up, 416, "RANGE_INVALID")}), chance},
		{"manifest cut", rule(get, manifests, 1, ocitest.Cut(down, ocitest.Half)), 0},
		{"manifest corrupt", rule(get, manifests, 1, ocitest.Corrupt(down, ocitest.Half)), 0},
		{"manifest short", rule(get, manifests, 1, ocitest.End(down, ocitest.Half)), 0},
		{"manifest 503", rule(get, manifests, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"manifest stalled", rule(get, manifests, 0, ocitest.Stall(down, ocitest.Half)), 130},
	}
	pushes := []fault{
		{"none", nil, 0},
		{"late answer", rule("", "", 0, ocitest.Delay(down, later)), 0},
		{"session cut before", rule(post, uploads, 1, ocitest.Cut(up, 0)), 0},
		{"session cut after", rule(post, uploads, 1, ocitest.Cut(down, 0)), 0},
		{"session 503", rule(post, uploads, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"session 429", rule(post, uploads, 1, refuse(up, 429, "TOOMANYREQUESTS", "Retry-After", "0")), 0},
		{"relative location", rule(post, uploads, 0, ocitest.Location(ocitest.RelativeLocation)), 0},
		{"signed location", rule("", uploads, 0, ocitest.SignedLocation()), 0},
		{"location elsewhere", rule(post, uploads, 0, ocitest.Location(func(u *url.URL) { u.Host = otherName(u.Host) })), 0},
		{"upload cut", rule(put, uploads, 1, ocitest.Cut(up, 50_000)), 0},
		{"upload cut three times", rule("", uploads, 3, ocitest.Cut(up, 30_000)), 0},
		{"upload cut before", rule(put, uploads, 1, ocitest.Cut(up, 0)), 0},
		{"upload cut after", rule(put, uploads, 1, ocitest.Cut(down, 0)), 0},
		{"upload corrupt", rule("", uploads, 1, ocitest.Corrupt(up, 50_000)), 0},
		{"upload always corrupt", rule("", uploads, 0, ocitest.Corrupt(up, 50_000)), 1},
		{"upload short", rule("", uploads, 1, ocitest.End(up, 50_000)), 0},
		{"upload stalled", rule("", uploads, 0, ocitest.Stall(up, 50_000)), 130},
		{"upload without an answer", rule(put, uploads, 0, ocitest.Stall(down, 0)), 130},
		{"upload drips", rule("", uploads, 0, ocitest.Drip(up, 10_000, later)), 0},
		{"upload 503", rule(put, uploads, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"upload 503 afterwards", rule(put, uploads, 1, refuse(down, 503, "UNAVAILABLE")), 0},
		{"upload 429", rule(put, uploads, 1, refuse(up, 429, "TOOMANYREQUESTS", "Retry-After", "0")), 0},
		{"upload 401", rule(put, uploads, 1, refuse(up, 401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="test"`)), 4},
		{"upload forgotten", rule(put, uploads, 1, refuse(up, 404, "BLOB_UPLOAD_UNKNOWN")), 0},
		{"manifest cut before", rule(put, manifests, 1, ocitest.Cut(up, 0)), 0},
		{"manifest cut", rule(put, manifests, 1, ocitest.Cut(up, ocitest.Half)), 0},
		{"manifest cut after", rule(put, manifests, 1, ocitest.Cut(down, 0)), 0},
		{"manifest corrupt", rule(put, manifests, 1, ocitest.Corrupt(up, ocitest.Half)), 0},
		{"manifest 503", rule(put, manifests, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"manifest 503 afterwards", rule(put, manifests, 1, refuse(down, 503, "UNAVAILABLE")), 0},
		{"manifest 409", rule(put, manifests, 0, refuse(up, 409, "DENIED")), 5},
		{"tag 503", rule(head, manifests, 1, refuse(up, 503, "UNAVAILABLE")), 0},
		{"tag of no length", rule(head, manifests, 0, ocitest.Chunked()), 0},
		{"tag of a wrong length", rule(head, manifests, 0, ocitest.Length(7)), 0},
	}
	before := runtime.NumGoroutine()
	t.Run("all", func(t *testing.T) {
		for _, f := range pulls {
			t.Run("pull/"+f.name, func(t *testing.T) {
				t.Parallel()
				newFaulty(t).testPull(f)
			})
		}
		for _, f := range pulls {
			for _, command := range []string{"verify", "scan", "cat", "cp"} {
				t.Run(command+"/"+f.name, func(t *testing.T) {
					t.Parallel()
					newFaulty(t).testRead(f, command)
				})
			}
		}
		for _, f := range pushes {
			t.Run("push/"+f.name, func(t *testing.T) {
				t.Parallel()
				newFaulty(t).testPush(f)
			})
		}
		// Tokens run out once, with the answer to a manifest, or in an upload.
		t.Run("pull/tokens expire", func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			f.Misbehave(ocitest.BearerAuth)
			f.testPull(fault{"", rule(get, manifests, 1, ocitest.Do(down, 0, f.ExpireTokens)), 0})
		})
		t.Run("push/tokens expire", func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			f.Misbehave(ocitest.BearerAuth)
			f.testPush(fault{"", rule(put, uploads, 1, ocitest.Do(up, 50_000, f.ExpireTokens)), 0})
		})
	})
	settle(t, before)
}

// TestPushAhead pushes a model that is large enough to be sent while it is read,
// through what can happen to that: the layer arrives, or its upload is deleted.
func TestPushAhead(t *testing.T) {
	const up, patch, uploads = ocitest.Up, "PATCH", ocitest.Uploads
	for _, tt := range []struct {
		fault
		pickle  string // that the model begins with
		deleted bool
	}{
		{fault{"none", nil, 0}, "\x80\x04N.", false},
		{fault{"cut", rule(patch, uploads, 1, ocitest.Cut(up, 100_000)), 0}, "\x80\x04N.", false},
		{fault{"interrupted", rule(patch, uploads, 0, ocitest.Stall(up, 100_000)), 130}, "\x80\x04N.", true},
		{fault{"dangerous", nil, 3}, "cos\nsystem\n(S'true'\ntR.", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			model := filepath.Join(t.TempDir(), "model.pkl")
			if err := errors.Join(os.WriteFile(model, []byte(tt.pickle), 0o666), os.Truncate(model, 257<<20)); err != nil {
				t.Fatal(err)
			}
			ref := f.Host + "/ml/fraud:v1"
			code, story := f.harm(tt.fault, "push", ref, model+"=models/model.pkl:model", "--no-vcs")
			if sent := strings.Contains(story, "of models sent while it was packed"); sent != (tt.name == "none") {
				t.Errorf("sent while it was packed: %v\n%s", sent, story)
			}
			var patched, deleted bool
			for _, e := range f.Exchanges() {
				patched = patched || e.Method == patch
				deleted = deleted || e.Method == "DELETE" && e.Kind == uploads
			}
			if !patched || deleted != tt.deleted {
				t.Errorf("sent ahead: %v, deleted: %v; want true, %v", patched, deleted, tt.deleted)
			}
			if code == 0 {
				f.must(f.galley("scan", ref)) // which compares all of it with its digest
			}
		})
	}
}

// faulty is a registry with two versions of a model to move.
type faulty struct {
	*testing.T
	*ocitest.Registry
	home     string
	said     string            // on stdout, by the last galley
	old, new map[string]string // files of a project, by path
}

func newFaulty(t *testing.T) *faulty {
	r := ocitest.NewRegistry()
	t.Cleanup(r.Close)
	f := &faulty{T: t, Registry: r, home: t.TempDir(), old: make(map[string]string), new: make(map[string]string)}
	for _, path := range exampleFiles {
		data, err := os.ReadFile(filepath.Join("../../testdata/fraud", path))
		if err != nil {
			t.Fatal(err)
		}
		f.old[path] = string(data)
		f.new[path] = string(data) + " "
	}
	return f
}

// galley runs in this process.
func (f *faulty) galley(args ...string) (code int, story string) {
	f.Helper()
	return f.galleyIn(f.Context(), args...)
}

func (f *faulty) galleyIn(ctx context.Context, args ...string) (code int, story string) {
	var stdout bytes.Buffer
	var stderr stream
	code = run(ctx, args, strings.NewReader(""), &stdout, &stderr, func(name string) string {
		return map[string]string{"HOME": f.home}[name]
	})
	f.said = stdout.String()
	return code, stderr.take()
}

// harm has galley meet with the rules, until it is done or a request is left
// hanging.
func (f *faulty) harm(want fault, args ...string) (code int, story string) {
	f.Helper()
	f.Inject(want.rules...)
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	go func() {
		select {
		case <-f.Stalled():
			cancel()
		case <-ctx.Done():
		}
	}()
	code, story = f.galleyIn(ctx, args...)
	if code != want.code && (want.code != chance || code > 1) {
		f.Errorf("exit code %d; want %d\n%s", code, want.code, story)
	}
	if code != 0 && (!strings.Contains(story, "galley: error: ") || code != 130 && code != 3 && !strings.Contains(story, f.Host)) {
		f.Errorf("the error does not tell where it happened:\n%s", story)
	}
	f.Logf("exit code %d\n%s", code, story)
	f.Calm()
	return code, story
}

// pushArgs pushes the files.
func (f *faulty) pushArgs(ref string, files map[string]string) []string {
	f.Helper()
	dir := f.TempDir()
	args := []string{"push", ref, "--no-vcs"}
	for path, data := range files {
		name := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(name, []byte(data), 0o666); err != nil {
			f.Fatal(err)
		}
		args = append(args, name+"="+path)
	}
	return args
}

// must fails the test if galley did.
func (f *faulty) must(code int, story string) {
	f.Helper()
	if code != 0 {
		f.Fatalf("exit code %d\n%s", code, story)
	}
}

// files are those in dir, but for galley's own.
func (f *faulty) files(dir string) map[string]string {
	f.Helper()
	got := make(map[string]string)
	for _, sub := range []string{"models", "data"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			path := sub + "/" + e.Name()
			data, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				f.Fatal(err)
			}
			got[path] = string(data)
		}
	}
	return got
}

// pull pulls into a new directory and returns what is there then.
func (f *faulty) pull(ref string) map[string]string {
	f.Helper()
	dir := f.TempDir()
	f.must(f.galley("pull", ref, "-o", dir))
	return f.files(dir)
}

func (f *faulty) same(got, want map[string]string) {
	f.Helper()
	if !maps.Equal(got, want) {
		f.Errorf("%d files, or their bytes, are not what they should be", len(got))
	}
}

// testPull pulls a new version over an old one.
func (f *faulty) testPull(want fault) {
	repo, dir := f.Host+"/ml/fraud", f.TempDir()
	f.must(f.galley(f.pushArgs(repo+":old", f.old)...))
	f.must(f.galley(f.pushArgs(repo+":new", f.new)...))
	f.must(f.galley("pull", repo+":old", "-o", dir))
	if code, _ := f.harm(want, "pull", repo+":new", "-o", dir); code == 0 {
		f.same(f.files(dir), f.new)
	} else {
		f.same(f.files(dir), f.old)
	}
	f.must(f.galley("pull", repo+":new", "-o", dir))
	f.same(f.files(dir), f.new)
}

// testRead reads an artifact in another way: the answer is right, or there is an
// error, and the next one is right.
func (f *faulty) testRead(want fault, command string) {
	ref, layout := f.Host+"/ml/fraud:new", "oci:"+filepath.Join(f.TempDir(), "copy")+":new"
	f.must(f.galley(f.pushArgs(ref, f.new)...))
	once := slices.Contains([]string{"corrupt", "corrupt in its last byte"}, want.name)
	wrong := once || slices.Contains([]string{"always corrupt", "always short", "always a page of no length", "404"}, want.name)
	switch {
	case wrong && command == "verify": // that is its answer
		want.code = 3
	case once && command != "cp": // which fetches again, as pull does
		want.code = 1
	}
	args := []string{command, ref}
	switch command {
	case "cat":
		args = append(args, exampleFiles[0])
	case "cp":
		args = append(args, layout)
	}
	code, _ := f.harm(want, args...)
	said := f.said
	f.must(f.galley(args...))
	if code == 0 && said != f.said {
		f.Errorf("said %.200q; want %.200q", said, f.said)
	}
	if command == "cp" {
		f.same(f.pull(layout), f.new)
	}
}

// TestKeepingWaitsNoLonger than it may, though the registry asks for a minute.
func TestKeepingWaitsNoLonger(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	ref, dir := f.Host+"/ml/fraud:new", t.TempDir()
	f.must(f.galley(f.pushArgs(ref, f.new)...))
	f.must(f.galley("pull", ref, "-o", dir))
	f.Inject(rule("", "", 0, refuse(ocitest.Up, 503, "UNAVAILABLE", "Retry-After", "60"))...)
	code, story := f.galley("pull", ref, "-o", dir, "--keep-if-unreachable", "--timeout", "100ms")
	if code != 0 || !strings.Contains(story, "keeping ") {
		t.Errorf("exit code %d\n%s", code, story)
	}
}

// testPush moves a tag from an old version to a new one.
func (f *faulty) testPush(want fault) {
	tag := f.Host + "/ml/fraud:candidate"
	f.must(f.galley(f.pushArgs(tag, f.old)...))
	code, _ := f.harm(want, f.pushArgs(tag, f.new)...)
	// The answer to the last request may be what was lost.
	files := f.pull(tag)
	if code == 0 || files[exampleFiles[2]] != f.old[exampleFiles[2]] {
		f.same(files, f.new)
	} else {
		f.same(files, f.old)
	}
	f.must(f.galley(f.pushArgs(tag, f.new)...))
	f.same(f.pull(tag), f.new)
}

// settle waits until there are as many goroutines as before.
func settle(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			var stacks strings.Builder
			pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines; %d before\n%s", runtime.NumGoroutine(), before, stacks.String())
		}
	}
}
