//go:build e2e

package main

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"galley/oci/ocitest"
)

// e2eDownloadSteps is how many steps TestE2EDownload has.
const e2eDownloadSteps = 12

// The model of TestE2EDownload: noise behind a pickle, which no compressor makes
// smaller.
const (
	heavyModel  = "models/model.joblib"
	heavySize   = 200 << 20
	heavyPickle = "\x80\x04\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81."
)

// heavyProject is a directory with a model of so many bytes of noise behind the
// pickle.
func heavyProject(t *testing.T, pickle string, size int64) string {
	t.Helper()
	project := t.TempDir()
	check(t, os.Mkdir(filepath.Join(project, "models"), 0o777))
	f, err := os.Create(filepath.Join(project, heavyModel))
	check(t, err)
	_, err = f.WriteString(pickle)
	check(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	check(t, err)
	check(t, f.Close())
	return project
}

// proxy is one in front of the open registry, with its HOST:PORT.
func (e *e2e) proxy(t *testing.T) (*ocitest.Proxy, string) {
	t.Helper()
	next, err := ocitest.Forward("http://" + e.registry)
	check(t, err)
	p := ocitest.NewProxy(next)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	t.Cleanup(p.Close)
	return p, strings.TrimPrefix(server.URL, "http://")
}

// TestE2EDownload pulls a model of 200 MB from a real registry through a proxy
// that cuts, stalls and counts, onto disks without room, and several times at
// once.
func TestE2EDownload(t *testing.T) {
	e := prepared(t)
	project := heavyProject(t, heavyPickle, heavySize)
	d := &downloads{e2e: e, project: project}
	d.Proxy, d.host = e.proxy(t)
	for _, format := range []string{"tar+gzip", "raw"} {
		t.Run(format, func(t *testing.T) {
			repo := repositoryName(t)
			d.ref = d.host + "/" + repo + ":v1"
			e.in(t, project).run(e.galley, "push", "--layer-format", format, e.registry+"/"+repo+":v1", heavyModel)
			e.step(t, "requests", d.testRequests)
			e.step(t, "cut three times", d.testCuts)
			e.step(t, "killed", d.testKilled)
			e.step(t, "no room", d.testNoRoom)
			e.step(t, "room for the files alone", d.testLittleRoom)
			e.step(t, "at once", d.testAtOnce)
		})
	}
	e.counted(t, e2eDownloadSteps)
}

// downloads are pulls through a proxy.
type downloads struct {
	*e2e
	*ocitest.Proxy
	host, project, ref string
}

// pull pulls into dir and returns how many requests and bytes that took.
func (d *downloads) pull(t *testing.T, dir string, args ...string) (requests int, sent int64) {
	t.Helper()
	d.Moved()
	d.Requests()
	d.in(t, dir).run(append([]string{d.galley, "pull", "-q", d.ref}, args...)...)
	d.whole(t, dir)
	_, sent = d.Moved()
	requests = len(d.Requests())
	t.Logf("%d requests, %.1f MB", requests, float64(sent)/1e6)
	return requests, sent
}

// whole fails unless dir holds the model, and nothing else but what galley keeps.
func (d *downloads) whole(t *testing.T, dir string) {
	t.Helper()
	sameFiles(t, d.project, dir, []string{heavyModel})
	have := slices.DeleteFunc(everythingIn(t, dir), func(p string) bool { return p == ".galley/seen.json" })
	if want := []string{".galley/.gitignore", ".galley/installed.json", ".galley/lock", ".galley/manifest.json", heavyModel}; !slices.Equal(have, want) {
		t.Errorf("%s has %q; want %q", dir, have, want)
	}
}

// slowLine is the bandwidth of a line, in bytes a second, on which it is worth
// keeping what came.
const slowLine = 80_000_000

// most is what a pull may cost that is interrupted three times.
const most = heavySize + heavySize/10

func (d *downloads) testRequests(t *testing.T) {
	dir := t.TempDir()
	// The manifest, the first 16 MiB, and the rest at once; where the line is slow,
	// or the machine does not come to what it brings, in ranges of 16 MiB each.
	const want = 1 + heavySize/(16<<20) + 1
	if n, sent := d.pull(t, dir); n < 3 || n > want+1 || sent > heavySize+heavySize/10 {
		t.Errorf("%d requests, %d bytes; want 3 requests to %d", n, sent, want)
	}
	if n, sent := d.pull(t, dir); n != 1 || sent > 10_000 {
		t.Errorf("again: %d requests, %d bytes; want 1 request", n, sent)
	}
	d.Shape(0, slowLine)
	defer d.Shape(0, 0)
	for _, concurrency := range []string{"1", "5"} {
		if n, sent := d.pull(t, t.TempDir(), "--concurrency", concurrency); n != want || sent > heavySize+heavySize/100 {
			t.Errorf("slowly, by %s connections: %d requests, %d bytes; want %d requests", concurrency, n, sent, want)
		}
	}
}

func (d *downloads) testCuts(t *testing.T) {
	defer d.Calm()
	d.Inject(ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Blobs, Times: 3, Mishap: ocitest.Cut(ocitest.Down, 10<<20)})
	if _, sent := d.pull(t, t.TempDir()); sent > most {
		t.Errorf("%d bytes; want at most %d", sent, most)
	}
	d.Calm()
	// A registry that serves no ranges sends everything again.
	d.Inject(ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Blobs, Mishap: ocitest.IgnoreRange()},
		ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Blobs, Times: 1, Mishap: ocitest.Cut(ocitest.Down, 100<<20)})
	if n, sent := d.pull(t, t.TempDir()); n != 3 || sent > heavySize+101<<20 {
		t.Errorf("without ranges: %d requests, %d bytes", n, sent)
	}
}

// testKilled kills a pull three times with SIGKILL, each time when 32 MiB more are
// there.
func (d *downloads) testKilled(t *testing.T) {
	defer d.Calm()
	d.Shape(0, slowLine)
	defer d.Shape(0, 0)
	dir := t.TempDir()
	d.Moved()
	for range 3 {
		d.Calm()
		// Each connection hangs after some more of it.
		d.Inject(ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Blobs, Skip: 2, Mishap: ocitest.Stall(ocitest.Down, 1000)})
		killed := d.in(t, dir).kill(func() {
			for range 5 {
				select {
				case <-d.Stalled():
				case <-time.After(time.Minute):
					t.Error("no request hangs")
				}
			}
		}, d.galley, "pull", "-q", d.ref)
		if !killed {
			t.Fatal("the pull ended")
		}
		if _, err := os.Lstat(filepath.Join(dir, heavyModel)); err == nil {
			t.Fatal("the model is there")
		}
	}
	_, first := d.Moved()
	d.Calm()
	_, rest := d.pull(t, dir)
	t.Logf("%.1f MB before", float64(first)/1e6)
	if first+rest > most || rest > heavySize-(5*16)<<20 {
		t.Errorf("%d and %d bytes; want at most %d", first, rest, most)
	}
}

// testNoRoom pulls onto a disk that is too small.
func (d *downloads) testNoRoom(t *testing.T) {
	dir := d.tmpfs(t)
	d.in(t, dir).refused(1, []string{"galley: error: ", ": no space left on device"}, "pull", d.ref)
	if have, want := everythingIn(t, dir), []string{".galley/.gitignore", ".galley/lock"}; !slices.Equal(have, want) {
		t.Errorf("left behind: %q; want %q", have, want)
	}
	d.remount(t, dir, "size=500m")
	d.pull(t, dir)
}

// testLittleRoom pulls onto a disk that has room for the model, and not for what
// comes of it besides.
func (d *downloads) testLittleRoom(t *testing.T) {
	dir := d.tmpfs(t)
	d.remount(t, dir, "size=230m")
	d.pull(t, dir)
}

// testAtOnce has four processes pull into one directory: one fetches, and the
// others find everything there.
func (d *downloads) testAtOnce(t *testing.T) {
	dir := t.TempDir()
	sh := d.in(t, dir)
	d.Moved()
	d.Requests()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { sh.outcome("", d.galley, "pull", "-q", d.ref).want(t, 0) })
	}
	wg.Wait()
	d.whole(t, dir)
	if _, sent := d.Moved(); sent > heavySize+heavySize/100 {
		t.Errorf("%d bytes for one model", sent)
	}
}
