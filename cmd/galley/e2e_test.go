//go:build e2e

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
