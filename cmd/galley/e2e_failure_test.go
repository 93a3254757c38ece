//go:build e2e

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

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
