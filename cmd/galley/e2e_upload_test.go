//go:build e2e

package main

import (
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"galley/oci/ocitest"
)

// e2eUploadSteps is how many steps TestE2EUpload has.
const e2eUploadSteps = 6

// TestE2EUpload pushes a model that is large enough to be sent to a real registry
// while it is packed, through what can happen to that.
func TestE2EUpload(t *testing.T) {
	const size = 300 << 20
	e := prepared(t)
	u := &uploads{e2e: e, project: heavyProject(t, heavyPickle, size), size: size}
	u.Proxy, u.host = e.proxy(t)
	e.step(t, "at once", u.testAtOnce)
	e.step(t, "tag there", u.testTagThere)
	e.step(t, "cut", u.testCut)
	e.step(t, "refused", u.testRefused)
	e.step(t, "interrupted", u.testInterrupted)
	e.step(t, "killed", u.testKilled)
	e.counted(t, e2eUploadSteps)
}

// uploads are pushes through a proxy.
type uploads struct {
	*e2e
	*ocitest.Proxy
	host, project string
	size          int64 // of the model in bytes
}

// push pushes to a repository of the test's own, and returns the code and what
// passed.
func (u *uploads) push(t *testing.T, code int, args ...string) (ref string, passed []ocitest.Exchange, received int64) {
	t.Helper()
	repo := repositoryName(t)
	u.Moved()
	u.Exchanges()
	args = append([]string{u.galley, "push", "-q", u.host + "/" + repo + ":v1", heavyModel, "--no-cache"}, args...)
	u.in(t, u.project).outcome("", args...).want(t, code)
	received, _ = u.Moved()
	return u.registry + "/" + repo + ":v1", u.Exchanges(), received
}

// count is how many of the requests of uploads were of the method and answered
// with the status.
func count(passed []ocitest.Exchange, method string, status int) (n int) {
	for _, x := range passed {
		if x.Kind == ocitest.Uploads && x.Method == method && x.Status == status {
			n++
		}
	}
	return n
}

// whole fails unless oras finds the model at ref.
func (u *uploads) whole(t *testing.T, ref string) {
	t.Helper()
	out := t.TempDir()
	u.in(t, out).run(u.oras, "pull", "--plain-http", ref)
	sameFiles(t, u.project, out, []string{heavyModel})
}

func (u *uploads) testAtOnce(t *testing.T) {
	ref, passed, received := u.push(t, 0)
	// The tag, a session and all of the model in one request, what ends it, the
	// config in two, and the manifest.
	if len(passed) != 7 || count(passed, http.MethodPatch, http.StatusAccepted) != 1 || count(passed, http.MethodDelete, http.StatusNoContent) != 0 {
		t.Errorf("%d requests; want 7, one of them a PATCH: %+v", len(passed), passed)
	}
	if received > u.size+u.size/100 {
		t.Errorf("%d bytes for a model of %d", received, u.size)
	}
	u.whole(t, ref)
}

// testTagThere pushes to a tag that is something else: nothing is sent before it
// is known what.
func (u *uploads) testTagThere(t *testing.T) {
	repo := repositoryName(t)
	u.in(t, u.full).run(u.galley, "push", "-q", u.registry+"/"+repo+":v1")
	_, passed, received := u.push(t, 5)
	if n := slices.IndexFunc(passed, func(x ocitest.Exchange) bool { return x.Kind == ocitest.Uploads }); n >= 0 || received != 0 {
		t.Errorf("%d bytes were sent: %+v", received, passed)
	}
}

func (u *uploads) testCut(t *testing.T) {
	defer u.Calm()
	u.Inject(ocitest.Rule{Method: http.MethodPatch, Kind: ocitest.Uploads, Times: 1, Mishap: ocitest.Cut(ocitest.Up, 100<<20)})
	ref, _, received := u.push(t, 0)
	// Distribution forgets what came before the cut.
	if most := u.size + 110<<20; received > most {
		t.Errorf("%d bytes; want at most %d", received, most)
	}
	u.whole(t, ref)
}

func (u *uploads) testRefused(t *testing.T) {
	project := u.project
	defer func() { u.project = project }()
	u.project = heavyProject(t, "cos\nsystem\n(S'true'\ntR.", u.size)
	ref, passed, _ := u.push(t, 3)
	if count(passed, http.MethodPatch, http.StatusAccepted) != 1 || count(passed, http.MethodDelete, http.StatusNoContent) != 1 {
		t.Errorf("the upload was not begun and deleted: %+v", passed)
	}
	if o := u.in(t, project).outcome("", u.galley, "resolve", ref); o.code != 1 {
		t.Errorf("%s is there: %+v", ref, o)
	}
}

// testInterrupted ends a push as ctrl-C does, in the middle.
func (u *uploads) testInterrupted(t *testing.T) {
	u.Shape(0, slowLine)
	defer u.Shape(0, 0)
	u.Exchanges()
	sh := u.in(t, u.project)
	cmd := sh.start("", []string{u.galley, "push", "-q", u.host + "/" + repositoryName(t) + ":v1", heavyModel})
	check(t, cmd.Start())
	u.untilSent(t, 50<<20)
	check(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d; want %d", code, exitInterrupted)
	}
	if passed := u.Exchanges(); count(passed, http.MethodDelete, http.StatusNoContent) != 1 {
		t.Errorf("the upload was not deleted: %+v", passed)
	}
}

// testKilled leaves an upload behind, and pushes again.
func (u *uploads) testKilled(t *testing.T) {
	u.Shape(0, slowLine)
	u.Exchanges()
	killed := u.in(t, u.project).kill(func() { u.untilSent(t, 50<<20) },
		u.galley, "push", "-q", u.host+"/"+repositoryName(t)+":v1", heavyModel)
	if !killed {
		t.Fatal("the push ended")
	}
	u.Shape(0, 0)
	ref, _, _ := u.push(t, 0)
	u.whole(t, ref)
}

// untilSent waits until the registry received so many bytes of uploads, of all that
// Moved has not told of.
func (u *uploads) untilSent(t *testing.T, bytes int64) {
	t.Helper()
	u.Moved()
	var sent int64
	for end := time.Now().Add(time.Minute); sent < bytes; time.Sleep(10 * time.Millisecond) {
		n, _ := u.Moved()
		if sent += n; time.Now().After(end) {
			t.Fatalf("%d bytes were sent in a minute; want %d", sent, bytes)
		}
	}
}
