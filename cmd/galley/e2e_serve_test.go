//go:build e2e

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// e2eServeSteps is how many steps TestE2EServe has.
const e2eServeSteps = 33

// TestE2EServe has the programs that people use speak to galley serve, and
// commands and other servers work on its directory meanwhile.
func TestE2EServe(t *testing.T) {
	e := prepared(t)
	t.Run("docker", e.testServeDocker)
	t.Run("oras", e.testServeOras)
	t.Run("crane", e.testServeCrane)
	t.Run("skopeo", e.testServeSkopeo)
	t.Run("buildah", e.testServeBuildah)
	t.Run("galley", e.testServeGalley)
	t.Run("two servers", e.testServeTwo)
	t.Run("access", e.testServeAccess)
	t.Run("throughput", e.testServeThroughput)
	e.counted(t, e2eServeSteps)
}

// served is a galley serve.
type served struct {
	e          *e2e
	dir, addr  string // the registry's directory, and HOST:PORT of its loopback
	flags, env []string
	cmd        *exec.Cmd // nil: it has ended
	cancel     context.CancelFunc
	said       <-chan string // what it printed after it listened, once it has ended
}

// serve serves a directory on a free port of the loopback interface, until the
// test ends.
func (e *e2e) serve(t *testing.T, dir string, flags ...string) *served {
	t.Helper()
	s := &served{e: e, dir: dir, flags: flags, env: e.in(t, dir, "GALLEY_LOCAL="+dir).env}
	s.start(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	return s
}

var listening = regexp.MustCompile(`^listening on http://\S+:(\d+), serving /`)

func (s *served) start(t *testing.T, addr string) {
	t.Helper()
	// Another program's connection may have taken the port of a server that ended.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		said := s.begin(t, addr)
		if said == "" {
			return
		}
		if !strings.Contains(said, "address in use") || time.Now().After(end) {
			t.Fatalf("galley serve said %q", said)
		}
	}
}

// begin starts the server and returns what it said instead of listening.
func (s *served) begin(t *testing.T, addr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the test's ends before its cleanup
	cmd := exec.CommandContext(ctx, s.e.galley, append([]string{"serve", "--addr", addr}, s.flags...)...)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	m := listening.FindStringSubmatch(line)
	if m == nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		cancel()
		return fmt.Sprintf("%s%v", line, err)
	}
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(lines)
		said <- string(text)
	}()
	s.addr, s.cmd, s.cancel, s.said = "127.0.0.1:"+m[1], cmd, cancel, said
	return ""
}

// stop ends the server as init systems do, which has to go in peace.
func (s *served) stop(t *testing.T) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	check(t, s.cmd.Process.Signal(syscall.SIGTERM))
	said, err := s.wait()
	if err != nil {
		t.Errorf("galley serve: %v", err)
	}
	if said != "" {
		t.Logf("galley serve said\n%s", said)
	}
}

func (s *served) wait() (said string, err error) {
	said, err = <-s.said, s.cmd.Wait()
	s.cancel()
	s.cmd = nil
	return said, err
}

// restart kills the server with SIGKILL and starts it where it was.
func (s *served) restart(t *testing.T) {
	t.Helper()
	check(t, s.cmd.Process.Kill())
	_, _ = s.wait() // by a signal
	time.Sleep(100 * time.Millisecond)
	s.start(t, s.addr)
}

// repository is one that nobody else uses.
func (s *served) repository(t *testing.T) string { return s.addr + "/" + repositoryName(t) }

// in is a shell whose local registry is what the server serves.
func (s *served) in(t *testing.T, dir string) *shell { return s.e.in(t, dir, "GALLEY_LOCAL="+s.dir) }

// modelImage pushes the full-size project and makes an image of its model.
func (e *e2e) modelImage(t *testing.T, repo string) string {
	t.Helper()
	ref := repo + ":v1"
	e.in(t, e.full).push(ref)
	repo, layer, diffID := e.modelLayer(t, ref)
	return e.putImage(t, repo, layer, diffID)
}

// orasPush pushes files, relative to the shell's directory, and returns the
// manifest's digest.
func (s *shell) orasPush(ref string, args ...string) string {
	s.Helper()
	flags := []string{s.oras, "push", "--plain-http", "--format", "go-template={{.digest}}", ref}
	return strings.TrimSpace(s.run(append(flags, args...)...))
}

// attach attaches a file of this text and type and returns its manifest's
// digest.
func (s *shell) attach(ref, artifactType, text string) string {
	s.Helper()
	check(s.T, os.WriteFile(filepath.Join(s.dir, "attached"), []byte(text), 0o666))
	return strings.TrimSpace(s.run(s.oras, "attach", "--plain-http", "--format", "go-template={{.digest}}",
		"--artifact-type", artifactType, ref, "attached"))
}

// referrers are the digests that the registry's referrers API names, sorted.
func (s *shell) referrers(ref string, flags ...string) []string {
	s.Helper()
	var index struct{ Referrers []descriptor }
	text := s.run(append([]string{s.oras, "discover", "--plain-http", "--depth", "1", "--format", "json",
		"--distribution-spec", "v1.1-referrers-api", ref}, flags...)...)
	check(s.T, json.Unmarshal([]byte(text), &index))
	var digests []string
	for _, d := range index.Referrers {
		digests = append(digests, d.Digest)
	}
	slices.Sort(digests)
	return digests
}

// tags are those of a repository, sorted.
func (s *shell) tags(repo string) []string {
	s.Helper()
	tags := strings.Fields(s.run(s.oras, "repo", "tags", "--plain-http", repo))
	slices.Sort(tags)
	return tags
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q; want %q", what, got, want)
	}
}

// write makes a file, with its directory.
func write(t *testing.T, name string, data []byte) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(name), 0o777))
	check(t, os.WriteFile(name, data, 0o666))
}

// testServeDocker pushes and pulls with a Docker Engine, or with Buildah where
// none starts.
func (e *e2e) testServeDocker(t *testing.T) {
	s := e.serve(t, t.TempDir())
	sh := e.in(t, t.TempDir(), "DOCKER_HOST="+e.dockerHost)
	images := []string{s.repository(t) + ":v1", s.repository(t) + "/other:v2"}
	files := filepath.Join(sh.dir, "in/files")
	write(t, files+"/first", bytes.Repeat([]byte("first"), 100_000))
	write(t, files+"/second", []byte("second\n"))
	if e.engine != "docker" {
		t.Log("NO DOCKER ENGINE: dockerd does not start here, so buildah pushes and pulls instead")
		e.step(t, "push", func(t *testing.T) {
			container := sh.buildah("from", "scratch")
			sh.buildah("copy", container, "in", "/")
			for _, image := range images {
				sh.buildah("commit", "--tls-verify=false", container, "docker://"+image)
			}
		})
		e.step(t, "pull", func(t *testing.T) {
			for _, image := range images {
				container := sh.buildah("from", "--isolation", "chroot", "--pull-always", "--tls-verify=false", image)
				sameFiles(t, files, sh.buildah("mount", container)+"/files", []string{"first", "second"})
			}
		})
		return
	}
	create := func(image string) string { return strings.TrimSpace(sh.run("docker", "create", image, "none")) }
	e.step(t, "push", func(t *testing.T) {
		sh.run("tar", "-C", "in", "--exclude=second", "-cf", "first.tar", "files")
		sh.run("docker", "import", "first.tar", images[0])
		id := create(images[0])
		sh.run("docker", "cp", "in/files/second", id+":/files/second")
		sh.run("docker", "commit", id, images[0]) // a second layer
		sh.run("docker", "rm", id)
		sh.run("docker", "tag", images[0], images[1])
		sh.run("docker", "push", images[0])
		if text := sh.run("docker", "push", images[1]); !strings.Contains(text, "Mounted from ") {
			t.Errorf("docker sent again what the other repository has:\n%s", text)
		}
		equal(t, "the other", sh.resolve(images[1]), sh.resolve(images[0]))
	})
	e.step(t, "pull", func(t *testing.T) {
		sh.run(append([]string{"docker", "rmi"}, images...)...)
		for i, image := range images {
			sh.run("docker", "pull", image)
			id, out := create(image), fmt.Sprintf("out%d", i)
			sh.run("docker", "cp", id+":/files", out)
			sameFiles(t, files, filepath.Join(sh.dir, out), []string{"first", "second"})
			sh.run("docker", "rm", id)
			sh.run("docker", "rmi", image)
		}
	})
}

// testServeOras uses every oras command that people use on a registry.
func (e *e2e) testServeOras(t *testing.T) {
	s := e.serve(t, t.TempDir())
	repo := s.repository(t)
	ref := repo + ":v1"
	sh := e.in(t, copyOf(t, e.full))
	var digest, attached, nested string
	pulls := func(t *testing.T, ref string) {
		t.Helper()
		out := t.TempDir()
		e.in(t, out).run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, e.full, out, everyday())
	}
	e.step(t, "push and pull", func(t *testing.T) {
		digest = sh.orasPush(ref, everyday()...)
		pulls(t, ref)
		pulls(t, repo+"@"+digest)
	})
	e.step(t, "attach and discover", func(t *testing.T) {
		attached = sh.attach(ref, "application/vnd.example.report", "report")
		other := sh.attach(ref, "application/vnd.example.signature", "signature")
		nested = sh.attach(repo+"@"+attached, "application/vnd.example.signature", "signature of the report")
		same(t, "referrers", sh.referrers(ref), attached, other)
		same(t, "reports", sh.referrers(ref, "--artifact-type", "application/vnd.example.report"), attached)
		same(t, "others", sh.referrers(ref, "--artifact-type", "application/vnd.example.other"))
		same(t, "referrers of the report", sh.referrers(repo+"@"+attached), nested)
		same(t, "tags", sh.tags(repo), "v1")
	})
	e.step(t, "cp -r to docker-registry and back", func(t *testing.T) {
		away, back := e.repository(t)+":v1", s.repository(t)+"/back"
		sh.run(e.oras, "cp", "-r", "--from-plain-http", "--to-plain-http", ref, away)
		sh.run(e.oras, "cp", "-r", "--from-plain-http", "--to-plain-http", away, back+":v1")
		equal(t, "the digest", sh.resolve(back+":v1"), digest)
		same(t, "referrers", sh.referrers(back+":v1"), sh.referrers(ref)...)
		same(t, "referrers of the report", sh.referrers(back+"@"+attached), nested)
		pulls(t, back+":v1")
	})
	e.step(t, "cp within the registry", func(t *testing.T) {
		to := s.repository(t) + ":v1"
		sh.run(e.oras, "cp", "--from-plain-http", "--to-plain-http", ref, to)
		equal(t, "the digest", sh.resolve(to), digest)
		pulls(t, to)
	})
	e.step(t, "tag, list and delete", func(t *testing.T) {
		sh.run(e.oras, "tag", "--plain-http", ref, "v2", "candidate")
		same(t, "tags", sh.tags(repo), "candidate", "v1", "v2")
		if text := sh.run(e.oras, "repo", "ls", "--plain-http", s.addr); !strings.Contains(text, strings.TrimPrefix(repo, s.addr+"/")+"\n") {
			t.Errorf("the catalog lacks %s:\n%s", repo, text)
		}
		sh.run(e.oras, "manifest", "delete", "--plain-http", "--force", repo+"@"+nested)
		same(t, "referrers of the report", sh.referrers(repo+"@"+attached))
		sh.run(e.oras, "manifest", "delete", "--plain-http", "--force", repo+"@"+digest)
		same(t, "tags", sh.tags(repo))
		sh.outcome("", e.oras, "pull", "--plain-http", ref).want(t, 1, "not found")
	})
}

// testServeCrane copies, extends and checks an image.
func (e *e2e) testServeCrane(t *testing.T) {
	s := e.serve(t, t.TempDir())
	sh := e.in(t, t.TempDir())
	image := e.modelImage(t, s.repository(t))
	e.step(t, "copy", func(t *testing.T) {
		away, back := e.repository(t)+":v1", s.repository(t)+":v1"
		sh.run(e.crane, "copy", "--insecure", image, away)
		sh.run(e.crane, "copy", "--insecure", away, back)
		sh.run(e.crane, "copy", "--insecure", image, s.repository(t)+"/other:v1")
		equal(t, "the copy", sh.run(e.crane, "digest", back), sh.run(e.crane, "digest", image))
	})
	e.step(t, "append and validate", func(t *testing.T) {
		more := s.repository(t) + ":v2"
		write(t, sh.dir+"/etc/more", []byte("more\n"))
		sh.run("tar", "-czf", "more.tar.gz", "etc")
		sh.run(e.crane, "append", "--insecure", "--base", image, "--new_layer", "more.tar.gz", "--new_tag", more)
		for _, ref := range []string{image, more} {
			sh.run(e.crane, "validate", "--insecure", "--remote", ref)
		}
		sh.run(e.crane, "export", "--insecure", more, "image.tar")
		sh.run("tar", "--one-top-level=out", "-xf", "image.tar")
		equal(t, "the model", sum(t, filepath.Join(sh.dir, "out", e2eModel)), sum(t, filepath.Join(e.full, e2eModel)))
		equal(t, "the new file", sum(t, sh.dir+"/out/etc/more"), sum(t, sh.dir+"/etc/more"))
		equal(t, "tags", sh.run(e.crane, "ls", "--insecure", s.repository(t)), "v2\n")
	})
}

// testServeSkopeo copies an image between registries and into a layout.
func (e *e2e) testServeSkopeo(t *testing.T) {
	s := e.serve(t, t.TempDir())
	sh := e.in(t, t.TempDir())
	image := e.modelImage(t, s.repository(t))
	digest := sh.resolve(image)
	copies := func(from, to string) {
		t.Helper()
		sh.run(e.skopeo, "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", from, to)
	}
	e.step(t, "copy between registries", func(t *testing.T) {
		away, back := e.repository(t)+":v1", s.repository(t)+":v1"
		copies("docker://"+image, "docker://"+away)
		copies("docker://"+away, "docker://"+back)
		copies("docker://"+image, "docker://"+s.repository(t)+"/other:v1")
		equal(t, "the copy", sh.resolve(back), digest)
		equal(t, "what it says", sh.run(e.skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+back), digest+"\n")
	})
	e.step(t, "copy to a layout and back", func(t *testing.T) {
		back := s.repository(t) + ":v1"
		copies("docker://"+image, "oci:layout:v1")
		equal(t, "the layout", sh.run(e.galley, "resolve", "oci:layout:v1"), digest+"\n")
		copies("oci:layout:v1", "docker://"+back)
		equal(t, "the copy", sh.resolve(back), digest)
	})
}

// testServeBuildah pulls an image, and pushes one made of it.
func (e *e2e) testServeBuildah(t *testing.T) {
	s := e.serve(t, t.TempDir())
	sh := e.in(t, t.TempDir())
	image, next := e.modelImage(t, s.repository(t)), s.repository(t)+":next"
	want := sum(t, filepath.Join(e.full, e2eModel))
	var container string
	e.step(t, "pull", func(t *testing.T) {
		sh.buildah("pull", "--tls-verify=false", image)
		container = sh.buildah("from", "--isolation", "chroot", "--pull-never", image)
		equal(t, "the model", sum(t, filepath.Join(sh.buildah("mount", container), e2eModel)), want)
	})
	e.step(t, "push", func(t *testing.T) {
		write(t, sh.dir+"/more", []byte("more\n"))
		sh.buildah("copy", container, sh.dir+"/more", "/more")
		sh.buildah("commit", "--tls-verify=false", container, "docker://"+next)
		sh.run(e.crane, "export", "--insecure", next, "image.tar")
		sh.run("tar", "--one-top-level=out", "-xf", "image.tar")
		equal(t, "the model", sum(t, filepath.Join(sh.dir, "out", e2eModel)), want)
		equal(t, "the new file", sum(t, sh.dir+"/out/more"), sum(t, sh.dir+"/more"))
	})
}

// testServeGalley uses galley through the server and on its directory.
func (e *e2e) testServeGalley(t *testing.T) {
	s := e.serve(t, t.TempDir())
	name := repositoryName(t)
	remote, local := s.addr+"/"+name, "local/"+name
	full, next := s.in(t, e.full), s.in(t, e.next)
	var v1, v2 pushedJSON
	pulls := func(t *testing.T, ref, want string) {
		t.Helper()
		out := t.TempDir()
		s.in(t, out).run(e.galley, "pull", ref)
		sameFiles(t, want, out, everyday())
	}
	// agree fails unless both ways show these tags.
	agree := func(t *testing.T, want map[string]string) {
		t.Helper()
		for _, repo := range []string{remote, local} {
			var list struct {
				Versions []struct {
					Tags   []string
					Digest string
				}
			}
			check(t, json.Unmarshal([]byte(full.run(e.galley, "ls", "--format", "json", repo)), &list))
			got := make(map[string]string)
			for _, v := range list.Versions {
				for _, tag := range v.Tags {
					got[tag] = v.Digest
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("galley ls %s shows\n%v\nwant\n%v", repo, got, want)
			}
		}
		same(t, "oras repo tags", full.tags(remote), slices.Collect(maps.Keys(want))...)
	}

	e.step(t, "pushed to the server", func(t *testing.T) {
		v1 = full.push(remote + ":v1")
		agree(t, map[string]string{"v1": v1.Digest})
		pulls(t, remote+":v1", e.full)
		pulls(t, local+":v1", e.full)
	})
	e.step(t, "pushed to the directory", func(t *testing.T) {
		v2 = next.push(local + ":v2,candidate")
		agree(t, map[string]string{"v1": v1.Digest, "v2": v2.Digest, "candidate": v2.Digest})
		pulls(t, remote+":v2", e.next)
		pulls(t, local+":v2", e.next)
	})
	e.step(t, "tag", func(t *testing.T) {
		full.run(e.galley, "tag", local+":v1", "stable")
		full.run(e.galley, "tag", remote+":v1", "candidate")
		agree(t, map[string]string{"v1": v1.Digest, "v2": v2.Digest, "stable": v1.Digest, "candidate": v1.Digest})
	})
	e.step(t, "ls", func(t *testing.T) {
		if text := full.run(e.galley, "ls"); !strings.Contains(text, local+" ") {
			t.Errorf("no %s in\n%s", local, text)
		}
		text := full.run(e.galley, "ls", remote)
		equal(t, "ls of the directory", full.run(e.galley, "ls", local), text)
		for _, want := range []string{"RandomForestClassifier", "v2", "candidate"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	})
	e.step(t, "cat", func(t *testing.T) {
		for _, repo := range []string{remote, local} {
			for _, p := range everyday() {
				got := sha256.Sum256([]byte(next.run(e.galley, "cat", repo+":v2", p)))
				equal(t, p, fmt.Sprintf("%x", got), sum(t, filepath.Join(e.next, p)))
			}
		}
	})
	e.step(t, "verify", func(t *testing.T) {
		for _, repo := range []string{remote, local} {
			full.outcome("", e.galley, "verify", repo+":v1").want(t, 0, "verified 3 files")
		}
	})
	e.step(t, "cp -r", func(t *testing.T) {
		sh := s.in(t, t.TempDir())
		report := sh.attach(remote+":v1", "application/vnd.example.report", "report")
		tar, away, back := "oci:"+sh.dir+"/usb.tar", e.repository(t), name+"/back"
		sh.run(e.galley, "cp", "-r", remote+":v1", tar)
		sh.run(e.galley, "cp", "-r", tar+":v1", away+":v1")
		sh.run(e.galley, "cp", "-r", away+":v1", s.addr+"/"+back+":v1")
		sh.run(e.galley, "cp", "-r", local+":v1", "local/"+back+":v2")
		for _, tag := range []string{":v1", ":v2"} {
			equal(t, tag, sh.resolve(s.addr+"/"+back+tag), v1.Digest)
			same(t, "referrers", sh.referrers(s.addr+"/"+back+tag), report)
			pulls(t, "local/"+back+tag, e.full)
		}
	})
	e.step(t, "rm", func(t *testing.T) {
		full.run(e.galley, "rm", remote+":v2")
		agree(t, map[string]string{"v1": v1.Digest, "stable": v1.Digest, "candidate": v1.Digest})
		full.run(e.galley, "rm", local+":candidate")
		full.run(e.galley, "rm", local+":stable")
		agree(t, map[string]string{"v1": v1.Digest})
		pulls(t, remote+":v1", e.full)
		full.run(e.galley, "rm", local+":v1")
		agree(t, map[string]string{})
		full.refused(1, []string{"no tag v1"}, "pull", remote+":v1", "-o", t.TempDir())
		full.refused(1, []string{"no manifest"}, "resolve", remote+"@"+v1.Digest)
		pulls(t, s.addr+"/"+name+"/back:v1", e.full)
	})
	e.step(t, "both at once", func(t *testing.T) {
		const workers, tags = 8, 5
		want := make(map[string]string)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range workers {
			sh := s.in(t, filepath.Join(e.projects, "nested"))
			repo := []string{remote, local}[i%2]
			wg.Go(func() {
				for j := range tags {
					tag := fmt.Sprintf("worker%d-%d", i, j)
					o := sh.outcome("", e.galley, "push", "-q", "--format", "go-template={{.digest}}",
						"-a", fmt.Sprintf("worker=%d", i), repo+":"+tag)
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
		agree(t, want)
	})
}

// testServeTwo has clients push to one repository through two servers.
func (e *e2e) testServeTwo(t *testing.T) {
	dir := t.TempDir()
	servers := []*served{e.serve(t, dir), e.serve(t, dir)}
	e.step(t, "8 clients", func(t *testing.T) {
		c := e.newCrowd(t, servers)
		c.push(t, nil)
		if n := c.failed.Load(); n > 0 {
			t.Errorf("%d pushes failed", n)
		}
		c.check(t)
	})
	e.step(t, "8 clients, one server killed", func(t *testing.T) {
		c := e.newCrowd(t, servers)
		kills := 0
		c.push(t, func() {
			servers[0].restart(t)
			kills++
		})
		t.Logf("%d kills, %d pushes failed and were repeated", kills, c.failed.Load())
		if kills < 3 || c.failed.Load() == 0 {
			t.Error("the server was not killed amid pushes")
		}
		c.check(t)
	})
}

// crowd is clients that push different tags of one repository at once.
type crowd struct {
	e       *e2e
	name    string // of the repository
	servers []*served
	addrs   []string // theirs: a server's own may not be read while it restarts
	mu      sync.Mutex
	pushed  map[string]string // digests by tag, of pushes that succeeded
	failed  atomic.Int32      // how many pushes did not
}

const crowdClients, crowdTags = 8, 20

func (e *e2e) newCrowd(t *testing.T, servers []*served) *crowd {
	c := &crowd{e: e, name: repositoryName(t), servers: servers, pushed: make(map[string]string)}
	for _, s := range servers {
		c.addrs = append(c.addrs, s.addr)
	}
	return c
}

// push pushes all the tags, each until it succeeds, and does disturb whenever
// some of them are there.
func (c *crowd) push(t *testing.T, disturb func()) {
	t.Helper()
	shared := bytes.Repeat([]byte("shared"), 50_000)
	var wg sync.WaitGroup
	for i := range crowdClients {
		sh := c.e.in(t, t.TempDir())
		write(t, sh.dir+"/shared", shared)
		wg.Go(func() {
			for j := range crowdTags {
				c.pushTag(sh, i+j, fmt.Sprintf("client%d-%d", i, j))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for next := crowdTags; ; {
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
		c.mu.Lock()
		n := len(c.pushed)
		c.mu.Unlock()
		if disturb != nil && n >= next {
			time.Sleep(rand.N(50 * time.Millisecond))
			disturb()
			next += crowdTags
		}
	}
}

// pushTag pushes what nobody else pushes, and something that all do.
func (c *crowd) pushTag(sh *shell, server int, tag string) {
	own := make([]byte, 100_000)
	rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%-32s", tag))).Read(own)
	if err := os.WriteFile(filepath.Join(sh.dir, "own"), own, 0o666); err != nil {
		sh.Error(err)
		return
	}
	for try := range 100 {
		ref := c.addrs[(server+try)%len(c.addrs)] + "/" + c.name + ":" + tag
		o := sh.outcome("", c.e.oras, "push", "--plain-http", "--format", "go-template={{.digest}}", ref, "own", "shared")
		if o.code == 0 {
			c.mu.Lock()
			c.pushed[tag] = strings.TrimSpace(o.stdout)
			c.mu.Unlock()
			return
		}
		c.failed.Add(1)
	}
	sh.Errorf("%s: cannot be pushed", tag)
}

// check fails unless every tag that a push has answered for is there, whole,
// through each of the servers.
func (c *crowd) check(t *testing.T) {
	t.Helper()
	if n := len(c.pushed); n != crowdClients*crowdTags {
		t.Errorf("%d tags pushed; want %d", n, crowdClients*crowdTags)
	}
	for i, s := range c.servers {
		sh := s.in(t, t.TempDir())
		repo := s.addr + "/" + c.name
		same(t, "tags", sh.tags(repo), slices.Collect(maps.Keys(c.pushed))...)
		for tag, digest := range c.pushed {
			if i == 0 {
				sh.run(c.e.galley, "verify", "-q", "--digest", digest, repo+":"+tag)
			} else {
				equal(t, tag, sh.run(c.e.galley, "resolve", "local/"+c.name+":"+tag), digest+"\n")
			}
		}
	}
}

// testServeAccess lets in whom it should.
func (e *e2e) testServeAccess(t *testing.T) {
	project := filepath.Join(e.projects, "nested")
	users := filepath.Join(t.TempDir(), "users")
	write(t, users, []byte(e.in(t, t.TempDir()).run("htpasswd", "-Bbn", e.user, e.password)))
	e.step(t, "login", func(t *testing.T) {
		s := e.serve(t, t.TempDir(), "--htpasswd", users)
		ref := s.repository(t) + ":v1"
		login := []string{e.galley, "login", s.addr, "-u", e.user, "--password-stdin"}
		says := []string{"401", "galley: hint: galley login " + s.addr}
		sh := e.in(t, project)
		sh.refused(4, says, "push", ref)
		sh.refused(4, says, "ls", s.repository(t))
		sh.outcome("not it\n", login...).want(t, 4, says...)
		sh.refused(4, says, "push", ref)
		sh.feed(e.password+"\n", login...)
		e.usesCredentials(t, sh, ref)

		own := e.in(t, t.TempDir())
		orasLogin := []string{e.oras, "login", "--plain-http", "-u", e.user, "--password-stdin", s.addr}
		own.outcome("", e.oras, "pull", "--plain-http", ref).want(t, 1)
		own.outcome("not it", orasLogin...).want(t, 1)
		own.feed(e.password, orasLogin...)
		own.run(e.oras, "pull", "--plain-http", ref)
		sameFiles(t, project, own.dir, everyday())
	})
	e.step(t, "full disk", func(t *testing.T) {
		dir := e.tmpfs(t)
		s := e.serve(t, dir)
		ref := s.repository(t) + ":v1"
		sh := e.in(t, project)
		sh.push(ref)
		e.fill(t, dir)
		next := s.repository(t) + ":v2"
		e.in(t, e.full).refused(1, []string{"galley: error: push " + next, "(507)", "galley: hint: keep the model"}, "push", next)
		sh.run(e.galley, "verify", ref)
		sh.refused(1, []string{"no tag v2"}, "resolve", next)
	})
	e.step(t, "read-only", func(t *testing.T) {
		dir := t.TempDir()
		repo := repositoryName(t)
		e.in(t, project, "GALLEY_LOCAL="+dir).push("local/" + repo + ":v1")
		before := contents(t, dir)
		s := e.serve(t, dir, "--read-only")
		sh := e.in(t, t.TempDir())
		sh.run(e.galley, "pull", s.addr+"/"+repo+":v1")
		sameFiles(t, project, sh.dir, everyday())
		sh.refused(1, []string{"galley: error: ", "read-only"}, "tag", s.addr+"/"+repo+":v1", "v2")
		sh.refused(1, []string{"galley: error: ", "read-only"}, "rm", s.addr+"/"+repo+":v1")
		e.in(t, e.full).refused(1, []string{"galley: error: ", "read-only"}, "push", s.addr+"/"+repo+":v2")
		o := e.in(t, e.full).outcome("", append([]string{e.oras, "push", "--plain-http", s.addr + "/" + repo + ":v2"}, everyday()...)...)
		o.want(t, 1, "read-only")
		sameContents(t, dir, before)
	})
	e.step(t, "open to the network", func(t *testing.T) {
		sh := e.in(t, t.TempDir(), "GALLEY_LOCAL="+t.TempDir())
		for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
			sh.refused(2, []string{"galley: error: ", "galley: hint: galley serve --addr ", addr, "--read-only", "--htpasswd"}, "serve", "--addr", addr)
		}
		for _, flags := range [][]string{{"--read-only"}, {"--htpasswd", users}} {
			s := &served{e: e, dir: sh.dir, flags: flags, env: sh.env}
			s.start(t, "0.0.0.0:0")
			s.stop(t)
		}
	})
	e.step(t, "taken port", func(t *testing.T) {
		s := e.serve(t, t.TempDir())
		host, port, _ := strings.Cut(s.addr, ":")
		n, err := strconv.Atoi(port)
		check(t, err)
		sh := e.in(t, t.TempDir(), "GALLEY_LOCAL="+t.TempDir())
		sh.refused(1, []string{
			"galley: error: ", s.addr, "address in use",
			fmt.Sprintf("galley: hint: galley serve --addr %s:%d\n", host, n+1),
		}, "serve", "--addr", s.addr)
	})
	e.step(t, "SIGTERM", func(t *testing.T) { e.testServeStop(t) })
}

// testServeStop stops a server that receives a blob.
func (e *e2e) testServeStop(t *testing.T) {
	s := e.serve(t, t.TempDir())
	data := bytes.Repeat([]byte("blob"), 100_000)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	upload, err := url.Parse(string(e.request(t, http.MethodPost, api(s.repository(t), "blobs/uploads/"), "", nil)))
	check(t, err)
	query := upload.Query()
	query.Set("digest", digest)
	upload.RawQuery = query.Encode()
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, upload.String(), body)
	check(t, err)
	req.ContentLength = int64(len(data))
	req.Header.Set("Content-Type", "application/octet-stream")
	sent := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				err = fmt.Errorf("PUT: %s", resp.Status)
			}
		}
		sent <- err
	}()
	_, err = send.Write(data[:200_000])
	check(t, err)
	time.Sleep(200 * time.Millisecond) // it has to have seen the request
	check(t, s.cmd.Process.Signal(syscall.SIGTERM))
	time.Sleep(500 * time.Millisecond)
	_, err = send.Write(data[200_000:])
	if err == nil {
		err = send.Close()
	}
	if failed := <-sent; failed != nil || err != nil {
		t.Fatalf("the blob was cut off: %v, %v", failed, err)
	}
	start := time.Now()
	if said, err := s.wait(); err != nil || said != "" {
		t.Errorf("galley serve: %v\n%s", err, said)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it ended after %v", took)
	}
	s.start(t, s.addr)
	got := e.request(t, http.MethodGet, api(s.repository(t), "blobs/"+digest), "", nil)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back; want the %d sent", len(got), len(data))
	}
}

// testServeThroughput compares with docker-registry on the same disk. Machines
// differ, so it asks for little.
func (e *e2e) testServeThroughput(t *testing.T) {
	const size, limit, rounds = 1 << 30, 60_000_000, 2
	s := e.serve(t, t.TempDir())
	sh := e.in(t, t.TempDir())
	model := filepath.Join(sh.dir, "model")
	f, err := os.Create(model)
	check(t, err)
	defer f.Close()
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	check(t, err)
	var last string // reference, of what the file still holds
	e.step(t, "push of 1 GiB", func(t *testing.T) {
		best := make(map[string]time.Duration)
		for round := range rounds {
			for _, registry := range []string{e.registry, s.addr} {
				_, err := fmt.Fprint(io.NewOffsetWriter(f, 0), round, registry) // what none has yet
				check(t, err)
				sh.run("sync", "--file-system", sh.dir)
				last = registry + "/" + repositoryName(t) + ":" + strconv.Itoa(round)
				start := time.Now()
				sh.orasPush(last, "model:application/octet-stream")
				took := time.Since(start)
				t.Logf("%s: %.2f s, %.0f MB/s", registry, took.Seconds(), size/1e6/took.Seconds())
				if b, ok := best[registry]; !ok || took < b {
					best[registry] = took
				}
			}
		}
		ratio := best[e.registry].Seconds() / best[s.addr].Seconds()
		t.Logf("galley serve takes a push %.2f times as fast as docker-registry", ratio)
		if ratio < 0.5 {
			t.Errorf("%.2f times as fast; want at least 0.5", ratio)
		}
	})
	e.step(t, "pull of 1 GiB", func(t *testing.T) {
		out := e.in(t, t.TempDir())
		out.run(e.oras, "pull", "--plain-http", last)
		equal(t, "the model", sum(t, filepath.Join(out.dir, "model")), sum(t, model))
	})
	e.step(t, "memory", func(t *testing.T) {
		peak := peakOf(t, s.cmd.Process.Pid)
		t.Logf("peak %.1f MB", float64(peak)/1e6)
		if peak > limit {
			t.Errorf("peak memory %d bytes; want at most %d", peak, limit)
		}
	})
}

// peakOf is the most that a process has had in memory.
func peakOf(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	m := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmHWM in\n%s", text)
	}
	kB, err := strconv.ParseInt(string(m[1]), 10, 64)
	check(t, err)
	return kB * 1024
}
