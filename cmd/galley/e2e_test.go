//go:build e2e

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"galley/oci/ocitest"
)

// e2eSteps is how many steps TestE2E has: none may be lost unseen.
const e2eSteps = 86

// e2eHelpers are the programs that check what galley wrote.
const e2eHelpers = "../../testdata/e2e"

// The everyday project.
const (
	e2eModel    = "models/random_forest_final_model.joblib"
	e2eFeatures = "data/selected_features.json"
	e2eSummary  = "data/training_summary.json"
)

// TestE2E carries real models through a real registry with the real binary,
// and has other tools read them. testdata/e2e/run.sh prepares what it needs;
// whatever is missing fails it.
func TestE2E(t *testing.T) {
	e := prepared(t)
	t.Run("projects", e.testProjects)
	t.Run("root directory", e.testRootDirectory)
	t.Run("layer formats", e.testLayerFormats)
	t.Run("oras push", e.testOrasPush)
	t.Run("layouts", e.testLayouts)
	t.Run("registry", e.testRegistry)
	t.Run("git", e.testGit)
	t.Run("credentials", e.testCredentials)
	t.Run("framing", e.testFraming)
	t.Run("memory", e.testMemory)
	t.Run("disk", e.testDisk)
	t.Run("kill", e.testKill)
	t.Run("processes", e.testProcesses)
	e.counted(t, e2eSteps)
}

// e2e is what run.sh prepared.
type e2e struct {
	galley, oras, python   string // programs
	crane, skopeo, buildah string // and more of them
	registry               string // HOST:PORT of a registry that is open to all
	private                string // HOST:PORT of one that wants user and password
	user, password         string
	full, next             string // directories: the full-size project, and another training of it
	projects               string // directory of small projects
	engine                 string // docker, or buildah where no dockerd starts
	dockerHost             string

	steps int // that ran to their end
}

func prepared(t *testing.T) *e2e {
	e := &e2e{}
	for name, p := range map[string]*string{
		"GALLEY": &e.galley, "ORAS": &e.oras, "PYTHON": &e.python,
		"CRANE": &e.crane, "SKOPEO": &e.skopeo, "BUILDAH": &e.buildah,
		"REGISTRY": &e.registry, "PRIVATE": &e.private, "USER": &e.user, "PASSWORD": &e.password,
		"FULL": &e.full, "NEXT": &e.next, "PROJECTS": &e.projects,
		"ENGINE": &e.engine, "DOCKER_HOST": &e.dockerHost,
	} {
		if *p = os.Getenv("GALLEY_E2E_" + name); *p == "" {
			t.Errorf("GALLEY_E2E_%s is not set; run sh testdata/e2e/run.sh", name)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return e
}

// step runs a subtest and counts it. Steps of one group run in their order,
// and what follows a failed one need not hold.
func (e *e2e) step(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		f(t)
		e.steps++
	})
}

// counted fails unless that many steps ran to their end, or only a part of the
// test was asked for, or one has failed anyway.
func (e *e2e) counted(t *testing.T, steps int) {
	t.Helper()
	part := strings.Contains(flag.Lookup("test.run").Value.String(), "/")
	if !part && !t.Failed() && e.steps != steps {
		t.Errorf("%d steps ran to their end; want %d", e.steps, steps)
	}
}

// repository is one in the open registry that nobody else uses.
func (e *e2e) repository(t *testing.T) string { return e.registry + "/" + repositoryName(t) }

func repositoryName(t *testing.T) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789/", r) {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return strings.Trim(strings.ReplaceAll(name, "-/", "/"), "-")
}

// shell runs programs as somebody who has just come to a machine: the
// environment is nothing but what is said here.
type shell struct {
	*testing.T
	*e2e
	dir string
	env []string
}

// in is a shell in dir with an empty home.
func (e *e2e) in(t *testing.T, dir string, env ...string) *shell {
	return &shell{t, e, dir, append([]string{
		"HOME=" + t.TempDir(),
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C.UTF-8",
		"PYTHONDONTWRITEBYTECODE=1",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
	}, env...)}
}

// outcome is how a program ended.
type outcome struct {
	command        string
	stdout, stderr string
	code           int // -1: by a signal, or not started
}

// want fails unless the program ended with the code and said all of that on
// stderr.
func (o outcome) want(t *testing.T, code int, says ...string) {
	t.Helper()
	if o.code != code {
		t.Fatalf("%s: exit code %d; want %d\n%s%s", o.command, o.code, code, o.stdout, o.stderr)
	}
	for _, text := range says {
		if !strings.Contains(o.stderr, text) {
			t.Errorf("%s: does not say %q:\n%s", o.command, text, o.stderr)
		}
	}
}

// start returns a command that does not outlive the test, nor five minutes.
func (s *shell) start(stdin string, args []string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	s.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = s.dir, s.env, strings.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (s *shell) outcome(stdin string, args ...string) outcome {
	s.Helper()
	cmd := s.start(stdin, args)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	line := strings.Join(args, " ")
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return outcome{line, "", err.Error(), -1}
	}
	return outcome{line, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// feed runs a program that has to succeed and returns what it printed.
func (s *shell) feed(stdin string, args ...string) string {
	s.Helper()
	o := s.outcome(stdin, args...)
	o.want(s.T, 0)
	return o.stdout
}

func (s *shell) run(args ...string) string { s.Helper(); return s.feed("", args...) }

// kill starts a program, waits, and kills it with SIGKILL. It returns false if
// the program had ended by then, well.
func (s *shell) kill(wait func(), args ...string) bool {
	s.Helper()
	cmd := s.start("", args)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	check(s.T, cmd.Start())
	if wait != nil {
		wait()
		_ = cmd.Process.Kill() // it may have ended
	}
	err := cmd.Wait()
	if err != nil && cmd.ProcessState.ExitCode() != -1 {
		s.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return err != nil
}

// refused runs galley, which has to end with the code and to say all of that
// on stderr.
func (s *shell) refused(code int, says []string, args ...string) {
	s.Helper()
	s.outcome("", append([]string{s.galley}, args...)...).want(s.T, code, says...)
}

// pushedJSON is the answer of galley push --format json.
type pushedJSON struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Files     []struct {
		Path string `json:"path"`
	} `json:"files"`
}

// paths are those of the files, sorted.
func (p pushedJSON) paths() []string {
	var paths []string
	for _, f := range p.Files {
		paths = append(paths, f.Path)
	}
	slices.Sort(paths)
	return paths
}

func (s *shell) push(args ...string) pushedJSON {
	s.Helper()
	return answerOf[pushedJSON](s, "push", args...)
}

// answerOf runs galley's verb and reads its JSON.
func answerOf[T any](s *shell, verb string, args ...string) T {
	s.Helper()
	var answer T
	text := s.run(append([]string{s.galley, verb, "--format", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		s.Fatalf("%v in\n%s", err, text)
	}
	return answer
}

// resolve asks oras what a reference names.
func (s *shell) resolve(ref string) string {
	s.Helper()
	return strings.TrimSpace(s.run(s.oras, "resolve", "--plain-http", ref))
}

// sameFiles fails unless got holds these files and no others, with the bytes
// that they have in want.
func sameFiles(t *testing.T, want, got string, paths []string) {
	t.Helper()
	if have := filesIn(t, got); !slices.Equal(have, paths) {
		t.Fatalf("%s holds\n%s\nwant\n%s", got, strings.Join(have, "\n"), strings.Join(paths, "\n"))
	}
	for _, p := range paths {
		if sum(t, filepath.Join(want, p)) != sum(t, filepath.Join(got, p)) {
			t.Errorf("%s: %s has other bytes than in %s", got, p, want)
		}
	}
}

// everyday are the files of the everyday project, sorted.
func everyday() []string { return []string{e2eFeatures, e2eSummary, e2eModel} }

// filesIn lists the files below dir but for galley's own, sorted.
func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(everythingIn(t, dir), func(p string) bool { return strings.HasPrefix(p, ".galley/") })
}

func everythingIn(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, p)
		}
		return err
	})
	check(t, err)
	slices.Sort(paths)
	return paths
}

// contents maps everything below dir to its digest.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, p := range everythingIn(t, dir) {
		m[p] = sum(t, filepath.Join(dir, p))
	}
	return m
}

// sum is the SHA-256 of a file.
func sum(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	check(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	check(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// copyOf copies a directory to a place of the test's own.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	check(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// replaceIn replaces text that has to be in the file.
func replaceIn(t *testing.T, name, old, with string) {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s has no %q", name, old)
	}
	check(t, os.WriteFile(name, bytes.ReplaceAll(text, []byte(old), []byte(with)), 0o666))
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q; want %q", what, got, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testProjects carries projects as teams lay them out, and the full-size one.
func (e *e2e) testProjects(t *testing.T) {
	projects := map[string]int{ // and how many files each has to give
		"companions": 5, "compressed": 3, "dict": 3, "nested": 3, "pipeline": 3,
		"two-models": 3, "xgboost": 3, "xgboost-json": 3, "xgboost-ubj": 3,
	}
	there, err := os.ReadDir(e.projects)
	check(t, err)
	for _, d := range there {
		files, ok := projects[d.Name()]
		if !ok {
			t.Errorf("%s: not among the projects of this test", d.Name())
			continue
		}
		delete(projects, d.Name())
		t.Run(d.Name(), func(t *testing.T) { e.testProject(t, filepath.Join(e.projects, d.Name()), files) })
	}
	for name := range projects {
		t.Errorf("%s: no such project", name)
	}
	t.Run("full", func(t *testing.T) { e.testProject(t, e.full, 3) })
}

func (e *e2e) testProject(t *testing.T, dir string, files int) {
	ref := e.repository(t) + ":v1"
	p := e.in(t, dir).push(ref)
	if len(p.Files) != files {
		t.Fatalf("%d files pushed; want %d: %s", len(p.Files), files, p.paths())
	}
	pulled := t.TempDir()
	e.step(t, "oras pull", func(t *testing.T) {
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, dir, out, p.paths())
	})
	e.step(t, "galley pull", func(t *testing.T) {
		equal(t, "the answer", e.in(t, t.TempDir()).run(e.galley, "pull", ref, "-o", pulled), p.Reference+"\n")
		sameFiles(t, dir, pulled, p.paths())
	})
	e.step(t, "predictions", func(t *testing.T) {
		t.Log(strings.TrimSpace(e.in(t, pulled).run(e.python, helper(t, "fidelity.py"), dir, pulled)))
	})
}

func helper(t *testing.T, name string) string {
	t.Helper()
	name, err := filepath.Abs(filepath.Join(e2eHelpers, name))
	check(t, err)
	return name
}

// testRootDirectory packs a model that lies in the project's own directory.
func (e *e2e) testRootDirectory(t *testing.T) {
	dir, paths := t.TempDir(), []string{}
	for _, p := range everyday() {
		data, err := os.ReadFile(filepath.Join(e.projects, "nested", p))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, path.Base(p)), data, 0o666))
		paths = append(paths, path.Base(p))
	}
	slices.Sort(paths)
	replaceIn(t, filepath.Join(dir, path.Base(e2eSummary)), e2eModel, path.Base(e2eModel))
	ref := e.repository(t) + ":v1"
	p := e.in(t, dir).push(ref)
	e.step(t, "oras pull", func(t *testing.T) {
		_, layer, _ := e.modelLayer(t, ref)
		equal(t, "the layer's title", layer.Annotations["org.opencontainers.image.title"], ".")
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, dir, out, paths)
	})
	e.step(t, "galley pull", func(t *testing.T) {
		out := t.TempDir()
		equal(t, "the answer", e.in(t, out).run(e.galley, "pull", ref), p.Reference+"\n")
		sameFiles(t, dir, out, paths)
	})
}

// testLayerFormats has oras pull each format. Other than tar+gzip it leaves
// archives as they are.
func (e *e2e) testLayerFormats(t *testing.T) {
	for _, f := range []struct {
		format, archive string
		unpack          []string
	}{
		{format: "tar+gzip"},
		{format: "raw"},
		{"tar", "models.tar", []string{"tar", "-xf"}},
		{"tar+zstd", "models.tar.zst", []string{"tar", "--zstd", "-xf"}},
	} {
		e.step(t, f.format, func(t *testing.T) {
			ref := e.repository(t) + ":v1"
			p := e.in(t, e.full).push(ref, "--layer-format", f.format)
			out, pulled := t.TempDir(), t.TempDir()
			sh := e.in(t, out)
			sh.run(e.oras, "pull", "--plain-http", ref)
			if f.archive != "" {
				want := []string{e2eFeatures, e2eSummary, f.archive}
				if have := filesIn(t, out); !slices.Equal(have, want) {
					t.Fatalf("oras wrote %s; want %s", have, want)
				}
				sh.run(append(f.unpack, f.archive)...)
				check(t, os.Remove(filepath.Join(out, f.archive)))
			}
			sameFiles(t, e.full, out, p.paths())
			sh.run(e.galley, "pull", ref, "-o", pulled)
			sameFiles(t, e.full, pulled, p.paths())
		})
	}
}

// testOrasPush pulls what stock oras wrote.
func (e *e2e) testOrasPush(t *testing.T) {
	for _, what := range []struct {
		name string
		args []string
	}{
		{"files", everyday()},
		{"directories", []string{"models/", "data/"}},
	} {
		e.step(t, what.name+" to a registry", func(t *testing.T) {
			ref := e.repository(t) + ":v1"
			e.in(t, e.full).run(append([]string{e.oras, "push", "--plain-http", ref}, what.args...)...)
			e.pullsOrasArtifact(t, ref)
		})
		e.step(t, what.name+" to a layout", func(t *testing.T) {
			layout := t.TempDir() + "/layout"
			e.in(t, e.full).run(append([]string{e.oras, "push", "--oci-layout", layout + ":v1"}, what.args...)...)
			e.pullsOrasArtifact(t, "oci:"+layout+":v1")
		})
	}
}

// pullsOrasArtifact pulls and inspects the full-size project that oras pushed.
func (e *e2e) pullsOrasArtifact(t *testing.T, ref string) {
	t.Helper()
	out := t.TempDir()
	sh := e.in(t, out)
	sh.run(e.galley, "pull", ref)
	sameFiles(t, e.full, out, everyday())
	sh.outcome("", e.galley, "pull", ref).want(t, 0, "unchanged: 3 files")
	if text := sh.run(e.galley, "inspect", ref); !strings.Contains(text, "models") {
		t.Errorf("inspect does not name the model:\n%s", text)
	}
}

// testLayouts moves artifacts between galley and oras in OCI layouts.
func (e *e2e) testLayouts(t *testing.T) {
	layout := t.TempDir() + "/layout"
	var p pushedJSON
	e.step(t, "oras pulls from galley's layout", func(t *testing.T) {
		p = e.in(t, e.full).push("oci:" + layout + ":v1,candidate")
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--oci-layout", layout+":v1")
		sameFiles(t, e.full, out, everyday())
	})
	e.step(t, "oras cp from galley's layout", func(t *testing.T) {
		ref := e.repository(t) + ":v1"
		sh := e.in(t, t.TempDir())
		sh.run(e.oras, "cp", "--from-oci-layout", "--to-plain-http", layout+":candidate", ref)
		equal(t, "the digest", sh.resolve(ref), p.Digest)
		sh.run(e.galley, "pull", ref)
		sameFiles(t, e.full, sh.dir, everyday())
	})
	e.step(t, "galley pulls from the layout that oras cp wrote", func(t *testing.T) {
		ref, other := e.repository(t)+":v1", t.TempDir()+"/other"
		sh := e.in(t, t.TempDir())
		sh.run(e.galley, "cp", "oci:"+layout+":v1", ref)
		sh.run(e.oras, "cp", "--from-plain-http", "--to-oci-layout", ref, other+":v1")
		equal(t, "the digest", sh.run(e.galley, "resolve", "oci:"+other+":v1"), p.Digest+"\n")
		sh.run(e.galley, "pull", "oci:"+other+":v1")
		sameFiles(t, e.full, sh.dir, everyday())
	})
	e.step(t, "galley writes into the layout that oras made", func(t *testing.T) {
		other := t.TempDir() + "/other"
		sh := e.in(t, e.full)
		sh.run(e.oras, "cp", "--from-oci-layout", "--to-oci-layout", layout+":v1", other+":first")
		next := e.in(t, e.next).push("oci:" + other + ":second")
		for tag, want := range map[string]string{"first": p.Digest, "second": next.Digest} {
			equal(t, tag, strings.TrimSpace(sh.run(e.oras, "resolve", "--oci-layout", other+":"+tag)), want)
		}
	})
}

// requests is a registry seen through a proxy that counts.
type requests struct {
	host string
	mu   sync.Mutex
	log  []string
}

func countRequests(t *testing.T, registry string) *requests {
	r := &requests{}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		r.mu.Lock()
		r.log = append(r.log, p.In.Method+" "+p.In.URL.Path)
		r.mu.Unlock()
		p.SetURL(&url.URL{Scheme: "http", Host: registry})
		p.Out.Host = p.In.Host // so that uploads come back through here
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// want fails unless that many requests came since the last call. Unless
// writes, all of them have to be reading ones.
func (r *requests) want(t *testing.T, n int, writes bool) {
	t.Helper()
	r.mu.Lock()
	log := r.log
	r.log = nil
	r.mu.Unlock()
	reads := func(s string) bool { return strings.HasPrefix(s, "GET ") || strings.HasPrefix(s, "HEAD ") }
	wrote := slices.ContainsFunc(log, func(s string) bool { return !reads(s) })
	if len(log) != n && n >= 0 || wrote != writes {
		t.Errorf("%d requests; want %d, writes: %v\n%s", len(log), n, writes, strings.Join(log, "\n"))
	}
	t.Logf("%d requests", len(log))
}

const anyNumber = -1

// testRegistry uses each command on a registry that has no referrers API.
func (e *e2e) testRegistry(t *testing.T) {
	r := countRequests(t, e.registry)
	repo := r.host + "/" + repositoryName(t)
	app := t.TempDir()
	var ref string // by digest
	galley := func(t *testing.T, want string, args ...string) {
		t.Helper()
		equal(t, "galley "+args[0], e.in(t, e.full).run(append([]string{e.galley}, args...)...), want)
	}
	e.step(t, "push", func(t *testing.T) {
		ref = strings.TrimSpace(e.in(t, e.full).run(e.galley, "push", repo+":v1,candidate"))
		r.want(t, 12, true) // HEAD of two tags, POST and PUT of four blobs, PUT of two tags
		for _, tag := range []string{"v1", "candidate"} {
			equal(t, tag, repo+"@"+e.in(t, e.full).resolve(repo+":"+tag), ref)
		}
		r.want(t, anyNumber, false)
	})
	e.step(t, "push again", func(t *testing.T) {
		galley(t, ref+"\n", "push", repo+":v1")
		r.want(t, 1, false)
		galley(t, ref+"\n", "push", repo+":v1,candidate")
		r.want(t, 2, false)
	})
	e.step(t, "pull", func(t *testing.T) {
		galley(t, ref+"\n", "pull", repo+":v1", "-o", app)
		r.want(t, 4, false)
		sameFiles(t, e.full, app, everyday())
	})
	e.step(t, "pull again", func(t *testing.T) {
		galley(t, ref+"\n", "pull", repo+":v1", "-o", app)
		r.want(t, 1, false)
		galley(t, ref+"\n", "pull", ref, "-o", app)
		r.want(t, 0, false)
	})
	e.step(t, "resolve", func(t *testing.T) {
		galley(t, ref+"\n", "resolve", "-l", repo+":candidate")
		r.want(t, 1, false)
	})
	e.step(t, "tag", func(t *testing.T) {
		galley(t, ref+"\n", "tag", repo+":v1", "stable")
		r.want(t, anyNumber, true)
		equal(t, "stable", repo+"@"+e.in(t, e.full).resolve(repo+":stable"), ref)
	})
	e.step(t, "cp", func(t *testing.T) { e.testCopy(t, repo, ref) })
	e.step(t, "inspect", func(t *testing.T) {
		text := e.in(t, e.full).run(e.galley, "inspect", repo+":v1")
		for _, want := range []string{"RandomForestClassifier", "test_metrics.test_roc_auc", e2eModel, "galley pull " + ref} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	})
	e.step(t, "uploads that are cut", func(t *testing.T) {
		registry, err := ocitest.Forward("http://" + e.registry)
		check(t, err)
		proxy := ocitest.NewProxy(registry)
		server := httptest.NewServer(proxy)
		t.Cleanup(func() { proxy.Close(); server.Close() })
		proxy.Inject(ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Times: 3, Mishap: ocitest.Cut(ocitest.Up, ocitest.Half)},
			ocitest.Rule{Method: "PUT", Kind: ocitest.Uploads, Skip: 3, Times: 1, Mishap: ocitest.Cut(ocitest.Down, 0)})
		sh := e.in(t, copyOf(t, e.full))
		noise := make([]byte, 70_000_000) // as large as what would go on elsewhere
		rand.NewChaCha8([32]byte{}).Read(noise)
		check(t, os.WriteFile(filepath.Join(sh.dir, "rows.bin"), noise, 0o666))
		ref := strings.TrimPrefix(server.URL, "http://") + "/" + repositoryName(t) + ":v1"
		files := append(everyday(), "rows.bin")
		o := sh.outcome("", append([]string{e.galley, "push", ref}, append(everyday(), "rows.bin:dataset")...)...)
		o.want(t, 0, "; again in ")
		for _, request := range proxy.Requests() {
			if strings.HasPrefix(request, "PATCH ") {
				t.Errorf("%s: this registry does not go on with what was cut", request)
			}
		}
		out := t.TempDir()
		sh.run(e.galley, "pull", ref, "-o", out)
		sameFiles(t, sh.dir, out, files)
	})
	e.step(t, "version tags stay, others move", func(t *testing.T) {
		next := e.in(t, e.next)
		next.refused(5, []string{"galley: hint: "}, "push", repo+":v1")
		p := next.push(repo + ":candidate")
		equal(t, "candidate", next.resolve(repo+":candidate"), p.Digest)
		equal(t, "v1", repo+"@"+next.resolve(repo+":v1"), ref)
	})
}

// testCopy copies to another repository, to a layout, and from there.
func (e *e2e) testCopy(t *testing.T, repo, ref string) {
	sh := e.in(t, t.TempDir())
	_, digest, _ := strings.Cut(ref, "@")
	layout, other := "oci:"+t.TempDir()+"/layout", repo+"/other"
	equal(t, "to a repository", sh.run(e.galley, "cp", repo+":v1", other+":v1"), other+"@"+digest+"\n")
	sh.run(e.galley, "cp", ref, layout+":outbox")
	sh.run(e.galley, "cp", layout+":outbox", other+":v2")
	equal(t, "from a layout", sh.resolve(other+":v2"), digest)
	sh.run(e.oras, "pull", "--plain-http", other+":v2")
	sameFiles(t, e.full, sh.dir, everyday())
}

// testGit pushes the same model from a later commit.
func (e *e2e) testGit(t *testing.T) {
	e.step(t, "the same model from a later commit", func(t *testing.T) {
		r := countRequests(t, e.registry)
		ref := r.host + "/" + repositoryName(t) + ":candidate"
		sh := e.in(t, copyOf(t, e.full))
		commit := func(text string) {
			t.Helper()
			check(t, os.WriteFile(filepath.Join(sh.dir, "README.md"), []byte(text), 0o666))
			sh.run("git", "add", ".")
			sh.run("git", "commit", "-q", "-m", text)
		}
		sh.run("git", "init", "-q")
		commit("first")
		want := sh.run(e.galley, "push", ref)
		r.want(t, anyNumber, true)
		commit("second")
		o := sh.outcome("", e.galley, "push", ref)
		o.want(t, 0, "unchanged since")
		equal(t, "the answer", o.stdout, want)
		r.want(t, 2, false)
	})
}

// testCredentials uses a registry that wants a password.
func (e *e2e) testCredentials(t *testing.T) {
	ref := e.private + "/" + repositoryName(t) + ":v1"
	project := filepath.Join(e.projects, "nested")
	login := []string{e.galley, "login", e.private, "-u", e.user, "--password-stdin"}
	auth := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, e.private, basic(e.user, e.password))

	e.step(t, "none", func(t *testing.T) {
		sh := e.in(t, project)
		says := []string{"401", "galley: hint: galley login " + e.private}
		sh.refused(4, says, "push", ref)
		sh.refused(4, says, "pull", ref, "-o", t.TempDir())
		sh.refused(4, says, "inspect", ref)
	})
	e.step(t, "wrong", func(t *testing.T) {
		sh := e.in(t, project)
		says := []string{"401", "galley: hint: galley login " + e.private}
		sh.outcome("not it\n", login...).want(t, 4, says...)
		file := filepath.Join(t.TempDir(), "config.json")
		check(t, os.WriteFile(file, []byte(strings.ReplaceAll(auth, basic(e.user, e.password), basic(e.user, "not it"))), 0o600))
		sh.refused(4, says, "push", ref, "--registry-config", file)
	})
	e.step(t, "login", func(t *testing.T) {
		sh := e.in(t, project)
		sh.feed(e.password+"\n", login...)
		e.usesCredentials(t, sh, ref)
		out := t.TempDir()
		e.in(t, out, sh.env[0]).run(e.oras, "pull", "--plain-http", ref) // finds what login wrote
		sameFiles(t, project, out, everyday())
		sh.run(e.galley, "logout", e.private)
		sh.refused(4, nil, "resolve", ref)
	})
	e.step(t, "requests", func(t *testing.T) {
		for registry, more := range map[string]int{e.registry: 0, e.private: 1} { // the first answer is 401
			r := countRequests(t, registry)
			repo := r.host + "/" + repositoryName(t)
			config := filepath.Join(t.TempDir(), "config.json")
			check(t, os.WriteFile(config, []byte(fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.host, basic(e.user, e.password))), 0o600))
			galley := func(dir string, args ...string) {
				t.Helper()
				e.in(t, dir).run(append([]string{e.galley}, append(args, "--registry-config", config)...)...)
			}
			galley(e.full, "push", repo+":candidate")
			r.want(t, 10+more, true)
			galley(e.full, "push", repo+":candidate")
			r.want(t, 1+more, false)
			galley(e.full, "tag", repo+":candidate", "stable")
			r.want(t, 3+more, true) // the manifest, HEAD of the new tag, PUT of it
			galley(e.full, "cp", repo+":stable", repo+"/other:v1")
			r.want(t, anyNumber, true)
		}
	})
	e.step(t, "podman's file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "auth.json")
		check(t, os.WriteFile(file, []byte(auth), 0o600))
		e.usesCredentials(t, e.in(t, project, "REGISTRY_AUTH_FILE="+file), ref)
	})
	e.step(t, "docker's credential helper", func(t *testing.T) { e.testHelper(t, project, ref, login) })
}

// testHelper keeps credentials with a program of the user's.
func (e *e2e) testHelper(t *testing.T, project, ref string, login []string) {
	dir := t.TempDir()
	config := fmt.Sprintf(`{"credHelpers": {%q: "e2e"}}`, e.private)
	check(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	const program = `#!/bin/sh
case $1 in
store) cat >"$HELPER_STORE" ;;
get) if test -e "$HELPER_STORE"; then cat "$HELPER_STORE"; else echo 'credentials not found in native keychain'; exit 1; fi ;;
esac
`
	check(t, os.WriteFile(filepath.Join(dir, "docker-credential-e2e"), []byte(program), 0o777))
	store := filepath.Join(dir, "store")
	sh := e.in(t, project, "DOCKER_CONFIG="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "HELPER_STORE="+store)
	sh.refused(4, nil, "push", ref)
	sh.feed(e.password+"\n", login...)
	var kept struct{ ServerURL, Username, Secret string }
	text, err := os.ReadFile(store)
	check(t, err)
	check(t, json.Unmarshal(text, &kept))
	if kept.ServerURL != e.private || kept.Username != e.user || kept.Secret != e.password {
		t.Errorf("the helper was given %+v", kept)
	}
	e.usesCredentials(t, sh, ref)
	after, err := os.ReadFile(filepath.Join(dir, "config.json"))
	check(t, err)
	if bytes.Contains(after, []byte("auth\"")) {
		t.Errorf("login wrote the password to the file too:\n%s", after)
	}
}

// usesCredentials pushes, pulls and inspects.
func (e *e2e) usesCredentials(t *testing.T, sh *shell, ref string) {
	t.Helper()
	out := t.TempDir()
	sh.run(e.galley, "push", ref)
	sh.run(e.galley, "pull", ref, "-o", out)
	sameFiles(t, sh.dir, out, everyday())
	sh.run(e.galley, "inspect", ref)
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}

// descriptor is what a manifest says of a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// modelLayer returns the repository that ref, a tag in the open registry, lies
// in, the first layer of its artifact and the digest of the layer's tar.
func (e *e2e) modelLayer(t *testing.T, ref string) (repo string, layer descriptor, diffID string) {
	t.Helper()
	repo, tag := ref[:strings.LastIndexByte(ref, ':')], ref[strings.LastIndexByte(ref, ':')+1:]
	var m struct {
		Config descriptor
		Layers []descriptor
	}
	var config struct {
		ModelFS struct {
			DiffIDs []string `json:"diffIds"`
		} `json:"modelfs"`
	}
	e.fetchJSON(t, repo, "manifests/"+tag, &m)
	e.fetchJSON(t, repo, "blobs/"+m.Config.Digest, &config)
	if len(m.Layers) == 0 || len(config.ModelFS.DiffIDs) != len(m.Layers) {
		t.Fatalf("%s: %d layers, %d diffIDs", ref, len(m.Layers), len(config.ModelFS.DiffIDs))
	}
	return repo, m.Layers[0], config.ModelFS.DiffIDs[0]
}

func (e *e2e) fetchJSON(t *testing.T, repo, what string, v any) {
	t.Helper()
	resp := e.request(t, http.MethodGet, api(repo, what), "", nil)
	check(t, json.Unmarshal(resp, v))
}

// api is the URL of something in a repository.
func api(repo, what string) string {
	host, name, _ := strings.Cut(repo, "/")
	return "http://" + host + "/v2/" + name + "/" + what
}

func (e *e2e) request(t *testing.T, method, address, contentType string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	check(t, err)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	check(t, err)
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s\n%s", method, address, resp.Status, data)
	}
	if next, err := resp.Location(); method == http.MethodPost && err == nil {
		return []byte(next.String())
	}
	return data
}

// testFraming has every reader of gzip that is at hand read the model layer,
// and a container engine use it as the only layer of an image.
func (e *e2e) testFraming(t *testing.T) {
	ref := e.repository(t) + ":v1"
	e.in(t, e.full).push(ref)
	sums := sum(t, filepath.Join(e.full, e2eModel)) + "  " + e2eModel + "\n"
	repo, layer, diffID := e.modelLayer(t, ref)
	blob := filepath.Join(t.TempDir(), "layer")
	e.step(t, "one member", func(t *testing.T) {
		e.in(t, t.TempDir()).run(e.oras, "blob", "fetch", "--plain-http", "--output", blob, repo+"@"+layer.Digest)
		equal(t, "the blob", "sha256:"+sum(t, blob), layer.Digest)
		oneMember(t, blob, diffID)
	})
	for name, reader := range map[string][]string{
		"tarfile r:gz": {e.python, "read_tarfile.py", "r:gz"},
		"tarfile r|gz": {e.python, "read_tarfile.py", "r|gz"},
		"zlib":         {e.python, "read_zlib.py"},
		"Perl":         {"perl", "read.pl"},
		"Node":         {"node", "read.js"},
		"GNU tar":      {"sh", "read_gnutar.sh"},
	} {
		e.step(t, name, func(t *testing.T) {
			reader[1] = helper(t, "readers/"+reader[1])
			e.in(t, t.TempDir()).feed(sums, append(reader, blob)...)
		})
	}
	image := e.putImage(t, repo, layer, diffID)
	switch e.engine {
	case "docker":
		e.step(t, "Docker Engine", func(t *testing.T) { e.testDocker(t, image) })
	case "buildah":
		t.Log("NO DOCKER ENGINE: dockerd does not start here, so buildah reads the layer instead")
		e.step(t, "Buildah for want of Docker", func(t *testing.T) { e.testBuildah(t, image) })
	default:
		t.Errorf("GALLEY_E2E_ENGINE is %q; want docker or buildah", e.engine)
	}
}

// oneMember checks that the blob is one gzip member, that its tar is diffID's,
// and that the tar ends with two zero blocks and nothing else.
func oneMember(t *testing.T, blob, diffID string) {
	t.Helper()
	data, err := os.ReadFile(blob)
	check(t, err)
	source := bytes.NewReader(data)
	z, err := gzip.NewReader(source)
	check(t, err)
	z.Multistream(false)
	archive, err := io.ReadAll(z)
	check(t, err)
	if source.Len() > 0 {
		t.Errorf("%d bytes follow the gzip member", source.Len())
	}
	equal(t, "the tar", fmt.Sprintf("sha256:%x", sha256.Sum256(archive)), diffID)
	r := bytes.NewReader(archive)
	for tr := tar.NewReader(r); ; {
		if _, err := tr.Next(); errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
	}
	if r.Len() > 0 {
		t.Errorf("%d bytes follow the end of the tar", r.Len())
	}
}

// putImage makes an image whose only layer is the artifact's, and returns its
// reference.
func (e *e2e) putImage(t *testing.T, repo string, layer descriptor, diffID string) string {
	t.Helper()
	config := fmt.Appendf(nil, `{"architecture": %q, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [%q]}}`, runtime.GOARCH, diffID)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(config))
	upload, err := url.Parse(string(e.request(t, http.MethodPost, api(repo, "blobs/uploads/"), "", nil)))
	check(t, err)
	query := upload.Query()
	query.Set("digest", digest)
	upload.RawQuery = query.Encode()
	e.request(t, http.MethodPut, upload.String(), "application/octet-stream", config)

	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        descriptor{"application/vnd.oci.image.config.v1+json", digest, int64(len(config)), nil},
		"layers":        []descriptor{{"application/vnd.oci.image.layer.v1.tar+gzip", layer.Digest, layer.Size, nil}},
	})
	check(t, err)
	e.request(t, http.MethodPut, api(repo, "manifests/image"), manifestType, m)
	return repo + ":image"
}

// testDocker looks into the image with a Docker Engine.
func (e *e2e) testDocker(t *testing.T, image string) {
	sh := e.in(t, t.TempDir(), "DOCKER_HOST="+e.dockerHost)
	t.Logf("Docker Engine %s", strings.TrimSpace(sh.run("docker", "version", "--format", "{{.Server.Version}}")))
	sh.run("docker", "pull", image)
	id := strings.TrimSpace(sh.run("docker", "create", image, "none"))
	sh.run("docker", "cp", id+":/models", "copied")
	sh.run("docker", "export", "--output", "image.tar", id)
	sh.run("docker", "rm", id)
	sh.run("docker", "rmi", image)
	sh.run("tar", "-xf", "image.tar", "models")
	want := sum(t, filepath.Join(e.full, e2eModel))
	equal(t, "docker cp", sum(t, filepath.Join(sh.dir, "copied", path.Base(e2eModel))), want)
	equal(t, "docker export", sum(t, filepath.Join(sh.dir, e2eModel)), want)
}

// testBuildah looks into the image with Buildah.
func (e *e2e) testBuildah(t *testing.T, image string) {
	sh := e.in(t, t.TempDir())
	container := sh.buildah("from", "--isolation", "chroot", "--tls-verify=false", image)
	root := sh.buildah("mount", container)
	equal(t, "buildah mount", sum(t, filepath.Join(root, e2eModel)), sum(t, filepath.Join(e.full, e2eModel)))
	sh.buildah("umount", container)
	sh.buildah("rm", container)
}

// buildah runs Buildah, whose images and containers stay in the shell's
// directory.
func (s *shell) buildah(args ...string) string {
	s.Helper()
	flags := []string{s.e2e.buildah, "--root", s.dir + "/root", "--runroot", s.dir + "/run", "--storage-driver", "vfs"}
	return strings.TrimSpace(s.run(append(flags, args...)...))
}

// testMemory carries a model of 2 GiB. As raw layer it moves in full, else
// little remains of it.
func (e *e2e) testMemory(t *testing.T) {
	const limit = 40_000_000
	project := t.TempDir()
	check(t, os.Mkdir(filepath.Join(project, "models"), 0o777))
	model := filepath.Join(project, "models/model.joblib")
	e.in(t, project).run(e.python, "-c", "import joblib, numpy; joblib.dump(numpy.zeros(1 << 28), 'models/model.joblib')")
	want := sum(t, model)
	for _, to := range []struct{ name, ref, format string }{
		{"layout", "oci:" + t.TempDir() + "/layout:v1", "tar+gzip"},
		{"registry", e.repository(t) + ":v1", "tar+gzip"},
		{"registry in full", e.repository(t) + ":raw", "raw"},
	} {
		e.step(t, "push to a "+to.name, func(t *testing.T) {
			e.within(t, limit, project, "push", "--layer-format", to.format, to.ref, "models/model.joblib:model")
		})
		e.step(t, "pull from a "+to.name, func(t *testing.T) {
			out := t.TempDir()
			e.within(t, limit, out, "pull", to.ref)
			equal(t, "the model", sum(t, filepath.Join(out, "models/model.joblib")), want)
		})
	}
}

// within runs galley, which may hold no more than limit bytes in memory and
// put nothing aside.
func (e *e2e) within(t *testing.T, limit int64, dir string, args ...string) {
	t.Helper()
	aside, peak := t.TempDir(), filepath.Join(t.TempDir(), "peak")
	check(t, os.Chtimes(aside, time.Unix(0, 0), time.Unix(0, 0)))
	sh := e.in(t, dir, "TMPDIR="+aside, "HOME="+aside, "GALLEY_CACHE="+t.TempDir())
	start := time.Now()
	sh.run(append([]string{e.python, helper(t, "peak.py"), peak, e.galley}, args...)...)
	text, err := os.ReadFile(peak)
	check(t, err)
	bytes, err := strconv.ParseInt(string(text), 10, 64)
	check(t, err)
	t.Logf("peak %.1f MB, %.1f s", float64(bytes)/1e6, time.Since(start).Seconds())
	if bytes > limit {
		t.Errorf("peak memory %d bytes; want at most %d", bytes, limit)
	}
	// Anything made there, even for a moment, moves the directory's time.
	if info, err := os.Stat(aside); err != nil || info.ModTime().Unix() != 0 {
		t.Errorf("something was put into the directory for temporary files: %v", err)
	}
}

// tmpfs mounts a file system of the test's own: the permissions of a directory
// do not stop root.
func (e *e2e) tmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	e.in(t, t.TempDir()).run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", dir, err, out)
		}
	})
	return dir
}

// fill leaves room for half a megabyte in a tmpfs.
func (e *e2e) fill(t *testing.T, dir string) {
	t.Helper()
	const page = 4096
	room := int64(500_000)
	for _, p := range everythingIn(t, dir) {
		info, err := os.Stat(filepath.Join(dir, p))
		check(t, err)
		room += (info.Size() + page - 1) / page * page
	}
	e.remount(t, dir, fmt.Sprintf("size=%d", room))
}

func (e *e2e) remount(t *testing.T, dir, options string) {
	t.Helper()
	e.in(t, t.TempDir()).run("mount", "-o", "remount,"+options, dir)
}

// testDisk makes disks read-only, and fills them.
func (e *e2e) testDisk(t *testing.T) {
	repo := e.repository(t)
	e.in(t, e.full).push(repo + ":v1")
	e.in(t, e.next).push(repo + ":v2")
	readOnly := []string{"galley: error: ", ": read-only file system"}
	noSpace := []string{"galley: error: ", ": no space left on device"}
	installed := func(t *testing.T, dir string) (*shell, map[string]string) {
		t.Helper()
		sh := e.in(t, t.TempDir())
		sh.run(e.galley, "pull", repo+":v1", "-o", dir)
		return sh, contents(t, dir)
	}

	e.step(t, "pull into a read-only directory", func(t *testing.T) {
		dir := e.tmpfs(t)
		sh, before := installed(t, dir)
		e.remount(t, dir, "ro")
		sh.refused(1, append(readOnly, dir), "pull", repo+":v2", "-o", dir)
		sh.run(e.galley, "pull", repo+":v1", "-o", dir) // all of it is there
		sameContents(t, dir, before)
	})
	e.step(t, "pull into a read-only empty directory", func(t *testing.T) {
		dir := e.tmpfs(t)
		e.remount(t, dir, "ro")
		e.in(t, t.TempDir()).refused(1, append(readOnly, dir), "pull", repo+":v1", "-o", dir)
	})
	e.step(t, "pull onto a full disk", func(t *testing.T) {
		dir := e.tmpfs(t)
		sh, before := installed(t, dir)
		e.fill(t, dir)
		sh.refused(1, append(noSpace, dir), "pull", repo+":v2", "-o", dir)
		sameContents(t, dir, before)
		e.remount(t, dir, "size=64m")
		sh.run(e.galley, "pull", repo+":v2", "-o", dir)
		sameFiles(t, e.next, dir, everyday())
	})
	e.step(t, "pull into an empty directory on a full disk", func(t *testing.T) {
		dir := e.tmpfs(t)
		e.fill(t, dir)
		e.in(t, t.TempDir()).refused(1, append(noSpace, dir), "pull", repo+":v1", "-o", dir)
		want := []string{".galley/.gitignore", ".galley/lock"}
		if have := everythingIn(t, dir); !slices.Equal(have, want) {
			t.Errorf("left behind: %s; want %s", have, want)
		}
	})
	e.step(t, "push to a read-only layout", func(t *testing.T) {
		dir := e.tmpfs(t)
		e.in(t, e.full).push("oci:" + dir + "/layout:candidate")
		before := contents(t, dir)
		e.remount(t, dir, "ro")
		e.in(t, e.next).refused(1, append(readOnly, dir), "push", "oci:"+dir+"/layout:candidate")
		sameContents(t, dir, before)
	})
	e.step(t, "push to a layout on a full disk", func(t *testing.T) {
		dir := e.tmpfs(t)
		ref := "oci:" + dir + "/layout:candidate"
		p := e.in(t, e.full).push(ref)
		before := contents(t, dir)
		e.fill(t, dir)
		sh := e.in(t, e.next)
		sh.refused(1, append(noSpace, dir), "push", ref)
		wholeBlobs(t, dir+"/layout", before)
		equal(t, "candidate", sh.run(e.galley, "resolve", ref), p.Digest+"\n")
		e.remount(t, dir, "size=64m")
		p = sh.push(ref)
		equal(t, "candidate", sh.run(e.galley, "resolve", ref), p.Digest+"\n")
	})
}

func sameContents(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	if after := contents(t, dir); !maps.Equal(before, after) {
		t.Errorf("%s held\n%v\nand now\n%v", dir, before, after)
	}
}

// wholeBlobs fails unless layout holds what it held before. Whole blobs of the
// failed push may have come: they are what the next push need not send.
func wholeBlobs(t *testing.T, layout string, before map[string]string) {
	t.Helper()
	for p, now := range contents(t, layout) {
		was, old := before[path.Join(path.Base(layout), p)]
		whole := path.Dir(p) == "blobs/sha256" && path.Base(p) == now
		if old && was != now || !old && !whole {
			t.Errorf("%s: left behind, or changed", p)
		}
	}
}

// testKill kills pulls that change a directory from one version to another,
// and pushes that do so to a tag.
func (e *e2e) testKill(t *testing.T) {
	repo := e.repository(t)
	k := &killed{e: e, refs: []string{repo + ":v1", repo + ":v2"}, sources: []string{e.full, e.next}}
	for i, dir := range k.sources {
		e.in(t, dir).push(k.refs[i])
	}
	e.step(t, "pull at random moments", func(t *testing.T) {
		usual := k.begin(t)
		k.rounds(t, 30, func() { time.Sleep(rand.N(usual)) })
	})
	e.step(t, "pull while it renames", func(t *testing.T) {
		usual := k.begin(t)
		amid := k.rounds(t, 15, func() {
			for end := time.Now().Add(2 * usual); time.Now().Before(end); {
				if _, err := os.Lstat(k.journal()); err == nil {
					time.Sleep(rand.N(time.Millisecond))
					return
				}
			}
		})
		if amid == 0 {
			t.Error("none was killed while it renamed")
		}
	})
	e.step(t, "push to a registry", func(t *testing.T) { e.testKilledPushes(t, e.repository(t)+":candidate") })
	e.step(t, "push to a layout", func(t *testing.T) {
		layout := t.TempDir() + "/layout"
		e.testKilledPushes(t, "oci:"+layout+":candidate")
		var left []string // it may be another process's work, and stays for a while
		for _, p := range everythingIn(t, layout) {
			if strings.Contains(p, "tmp-") {
				left = append(left, p)
				check(t, os.Chtimes(filepath.Join(layout, p), time.Unix(0, 0), time.Unix(0, 0)))
			}
		}
		e.in(t, e.next).push("oci:" + layout + ":next")
		for _, p := range left {
			if _, err := os.Lstat(filepath.Join(layout, p)); err == nil {
				t.Errorf("%s: left behind", p)
			}
		}
	})
}

// testKilledPushes kills pushes, each of a model that was never there, to one
// tag.
func (e *e2e) testKilledPushes(t *testing.T, ref string) {
	project := copyOf(t, e.full)
	sh := e.in(t, project)
	models := make(map[string]string) // the model's sum by the artifact's digest
	there := ""
	push := func(wait func()) (killed bool) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(project, e2eModel), os.O_WRONLY|os.O_APPEND, 0)
		check(t, err)
		_, err = f.WriteString("x")
		check(t, errors.Join(err, f.Close()))
		digest := sh.push(ref, "--dry-run").Digest
		models[digest] = sum(t, filepath.Join(project, e2eModel))
		killed = sh.kill(wait, e.galley, "push", "-q", ref)
		now := strings.TrimSpace(sh.run(e.galley, "resolve", ref))
		if now != digest && (!killed || now != there) {
			t.Fatalf("%s names %s; want %s, or %s", ref, now, there, digest)
		}
		there = now
		out := t.TempDir()
		sh.run(e.galley, "pull", ref, "-o", out)
		equal(t, "the model", sum(t, filepath.Join(out, e2eModel)), models[there])
		return killed
	}
	start := time.Now()
	push(nil)
	usual := time.Since(start) / 2 // the other half went into the checks
	hit, moved := 0, 0
	for try := 0; hit < 15; try++ {
		if try == 150 {
			t.Fatalf("only %d of %d pushes were killed before they ended", hit, try)
		}
		before := there
		if push(func() { time.Sleep(rand.N(usual)) }) {
			hit++
			if there != before {
				moved++
			}
		}
	}
	t.Logf("%d pushes killed, %d of them after the tag had moved", hit, moved)
	push(nil)
}

// killed is a directory whose pulls are killed.
type killed struct {
	e             *e2e
	sh            *shell
	refs, sources []string // of the two versions
}

// begin takes a new directory and returns how long a pull takes.
func (k *killed) begin(t *testing.T) time.Duration {
	k.sh = k.e.in(t, t.TempDir())
	k.whole(t, 0)
	start := time.Now()
	k.whole(t, 1)
	usual := time.Since(start)
	t.Logf("a pull takes %v", usual)
	return usual
}

// whole pulls a version undisturbed.
func (k *killed) whole(t *testing.T, version int) {
	t.Helper()
	k.sh.run(k.e.galley, "pull", k.refs[version])
	sameFiles(t, k.sources[version], k.sh.dir, everyday())
}

func (k *killed) journal() string { return filepath.Join(k.sh.dir, ".galley/journal.json") }

// rounds kills pulls of the version that is not there, until so many were hit.
// It returns how many of them had begun to rename.
func (k *killed) rounds(t *testing.T, n int, wait func()) (amid int) {
	hit, done := 0, 0
	for try := 0; hit < n; try++ {
		if try == 10*n {
			t.Fatalf("only %d of %d pulls were killed before they ended", hit, try)
		}
		there := k.versions(t)[e2eModel]
		if !k.sh.kill(wait, k.e.galley, "pull", "-q", k.refs[1-there]) {
			continue
		}
		hit++
		_, err := os.Lstat(k.journal())
		switch now := k.versions(t); {
		case err == nil: // any mixture of files may be there; the next pull makes it whole
			amid++
			k.whole(t, rand.N(2))
		case now[e2eFeatures] != now[e2eModel] || now[e2eSummary] != now[e2eModel]:
			t.Fatalf("files of both versions, and no journal: %v", now)
		case now[e2eModel] != there:
			done++
		}
		if hit%5 == 0 {
			k.whole(t, rand.N(2))
		}
	}
	k.whole(t, 0)
	k.whole(t, 1)
	want := append([]string{".galley/.gitignore", ".galley/installed.json", ".galley/lock", ".galley/manifest.json"}, everyday()...)
	seen := func(p string) bool { return p == ".galley/seen.json" } // only of files that were left alone for a while
	if have := slices.DeleteFunc(everythingIn(t, k.sh.dir), seen); !slices.Equal(have, want) {
		t.Errorf("left behind: %s; want %s", have, want)
	}
	t.Logf("%d pulls killed, %d of them while they renamed, %d after that", hit, amid, done)
	return amid
}

// versions says which version each of the files is wholly of.
func (k *killed) versions(t *testing.T) map[string]int {
	t.Helper()
	v := make(map[string]int)
	for _, p := range everyday() {
		have := sum(t, filepath.Join(k.sh.dir, p))
		v[p] = slices.IndexFunc(k.sources, func(dir string) bool { return sum(t, filepath.Join(dir, p)) == have })
		if v[p] < 0 {
			t.Fatalf("%s is of neither version", p)
		}
	}
	return v
}

// testProcesses pushes to one layout from many processes at once.
func (e *e2e) testProcesses(t *testing.T) {
	const processes, tags = 8, 20
	layout := t.TempDir() + "/layout"
	project := filepath.Join(e.projects, "nested")
	e.step(t, "8 push 20 tags each", func(t *testing.T) {
		want := make(map[string]string) // digests by tag
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range processes {
			sh := e.in(t, project)
			wg.Go(func() {
				for j := range tags {
					tag := fmt.Sprintf("worker%d-%d", i, j)
					o := sh.outcome("", e.galley, "push", "-q", "--format", "go-template={{.digest}}",
						"-a", fmt.Sprintf("worker=%d", i), "oci:"+layout+":"+tag)
					if o.code != 0 {
						t.Errorf("push %s: exit code %d\n%s", tag, o.code, o.stderr)
					}
					mu.Lock()
					want[tag] = strings.TrimSpace(o.stdout)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		var index struct{ Manifests []descriptor }
		text, err := os.ReadFile(layout + "/index.json")
		check(t, err)
		check(t, json.Unmarshal(text, &index))
		got := make(map[string]string)
		for _, d := range index.Manifests {
			got[d.Annotations["org.opencontainers.image.ref.name"]] = d.Digest
		}
		if len(want) != processes*tags || !maps.Equal(got, want) {
			t.Errorf("%d tags in the index; want the %d pushed", len(got), len(want))
		}
		sh := e.in(t, t.TempDir())
		sh.run(e.oras, "pull", "--oci-layout", layout+":worker7-19")
		sameFiles(t, project, sh.dir, everyday())
	})
}
