//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"galley/oci/ocitest"
)

// e2ePromoteSteps is how many steps TestE2EPromote has.
const e2ePromoteSteps = 18

// TestE2EPromote moves real models from stage to stage with the real binary, in a
// registry that deletes nothing, in one that deletes by digest only, and in galley
// serve.
func TestE2EPromote(t *testing.T) {
	e := prepared(t)
	for _, deletes := range []bool{false, true} {
		t.Run(fmt.Sprintf("docker-registry, deletes %t", deletes), func(t *testing.T) {
			d := startDistribution(t, deletes)
			(&promotion{e2e: e, addr: d.addr, collect: d.collect}).test(t)
		})
	}
	t.Run("galley serve", func(t *testing.T) {
		s := e.serve(t, t.TempDir())
		(&promotion{e2e: e, addr: s.addr, lists: true, env: s.env}).test(t)
	})
	e.counted(t, e2ePromoteSteps)
}

// distribution is a docker-registry of the test's own.
type distribution struct {
	config, addr string
	cmd          *exec.Cmd
	said         *bytes.Buffer
}

func startDistribution(t *testing.T, deletes bool) *distribution {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	d := &distribution{config: filepath.Join(t.TempDir(), "config.yml"), addr: l.Addr().String()}
	check(t, l.Close())
	write(t, d.config, fmt.Appendf(nil, `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: %t}}
http: {addr: "%s"}
`, t.TempDir(), deletes, d.addr))
	d.start(t)
	t.Cleanup(func() { d.stop() })
	return d
}

func (d *distribution) start(t *testing.T) {
	t.Helper()
	d.said = &bytes.Buffer{}
	d.cmd = exec.Command("docker-registry", "serve", d.config)
	d.cmd.Stdout, d.cmd.Stderr = d.said, d.said
	check(t, d.cmd.Start())
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + d.addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			d.stop()
			t.Fatalf("docker-registry: %v\n%s", err, d.said)
		}
	}
}

func (d *distribution) stop() {
	_ = d.cmd.Process.Kill() // it may have ended
	_ = d.cmd.Wait()
}

// collect stops the registry and has its garbage collector take what has no tag.
func (d *distribution) collect(t *testing.T) {
	t.Helper()
	d.stop()
	out, err := exec.Command("docker-registry", "garbage-collect", "--delete-untagged", d.config).CombinedOutput()
	if err != nil {
		t.Fatalf("garbage-collect: %v\n%s", err, out)
	}
	d.start(t)
}

// promotion is a registry in which models are promoted.
type promotion struct {
	*e2e
	addr    string
	lists   bool // has the referrers API
	env     []string
	collect func(*testing.T) // garbage; nil: it has no collector

	repo string
	ci   *shell // in a project with galley.yaml
	tags []string
}

func (p *promotion) test(t *testing.T) {
	p.repo = p.addr + "/" + repositoryName(t)
	p.ci = p.in(t, copyOf(t, p.full), append(p.env, "GALLEY_REPOSITORY="+p.repo, "GITHUB_ACTOR=ada")...)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"story", p.story}, {"what others see", p.others}, {"removal", p.removal},
		{"garbage", p.garbage}, {"processes", p.processes}, {"kill", p.kill},
	} {
		if p.step(t, step.name, step.do); t.Failed() {
			return
		}
	}
}

// on is the shell for another test.
func (p *promotion) on(t *testing.T) *shell {
	s := *p.ci
	s.T = t
	return &s
}

// The answers of commands, as far as anybody here asks.
type (
	movedJSON struct {
		Reference, Deploy string
		Changed, Hold     bool
		From, To          struct{ Version string }
		Event             struct{ Number int }
	}
	eventsJSON struct {
		Rows []struct {
			Action, Version, Tag, To, Image, Actor, Reason, Outside string
			Number                                                  int
		}
		Problems []struct{ What string }
	}
)

// release pushes a model of that recall under a version, and as candidate.
func (p *promotion) release(s *shell, version string, recall float64) {
	s.Helper()
	name := filepath.Join(s.dir, e2eSummary)
	text, err := os.ReadFile(name)
	check(s.T, err)
	number := regexp.MustCompile(`"test_recall": [0-9.e-]+`)
	if !number.Match(text) {
		s.Fatalf("%s has no test_recall", name)
	}
	write(s.T, name, number.ReplaceAll(text, fmt.Appendf(nil, `"test_recall": %g`, recall)))
	s.push(p.repo + ":" + version + ",candidate")
	p.tags = append(p.tags, version)
}

func (p *promotion) promote(s *shell, args ...string) movedJSON {
	s.Helper()
	return answerOf[movedJSON](s, "promote", args...)
}

// actions are those of the stage's history, oldest first, which has no problem.
func (p *promotion) actions(s *shell, stage string) []string {
	s.Helper()
	h := answerOf[eventsJSON](s, "history", p.repo, stage)
	if len(h.Problems) > 0 {
		s.Errorf("problems %+v", h.Problems)
	}
	var all []string
	for i, r := range slices.Backward(h.Rows) {
		if r.Outside != "" || r.Number != len(h.Rows)-i {
			s.Errorf("row %+v", r)
		}
		all = append(all, r.Action+" "+r.Version)
	}
	return all
}

// story: a candidate that a gate refuses, a better one that goes to staging and
// production, a bad release, and the way back.
func (p *promotion) story(t *testing.T) {
	s := p.on(t)
	write(t, filepath.Join(s.dir, "galley.yaml"), []byte(`metrics:
  recall: {path: test_metrics.test_recall}
stages:
  staging: {}
  production: {from: staging, require: ["recall >= current.recall * 0.97"]}
`))
	p.release(s, "v1", 0.5)
	p.promote(s, ":candidate", "staging")
	p.promote(s, ":v1", "production", "--bootstrap", "--reason", "first")
	p.release(s, "v2", 0.3)
	p.promote(s, ":candidate", "staging")
	s.refused(exitNo, []string{"recall 0.3", "a gate does not hold"}, "promote", ":candidate", "production")
	equal(t, "production", s.resolve(p.repo+":production"), s.resolve(p.repo+":v1"))
	p.release(s, "v3", 0.6)
	image := s.bake(":v3", "--base", "scratch", "--tag", p.repo+"-image:v3")
	p.promote(s, ":candidate", "staging")
	m := p.promote(s, ":candidate", "production", "--image", image.Reference, "--reason", "better")
	if !m.Changed || m.From.Version != "v1" || m.To.Version != "v3" || m.Deploy != image.Reference {
		t.Errorf("promoted %+v", m)
	}
	if again := p.promote(s, ":v3", "production"); again.Changed {
		t.Errorf("promoted again %+v", again)
	}
	p.release(s, "v4", 0.7)
	p.promote(s, ":v4", "staging")
	p.promote(s, ":v4", "production")
	back := answerOf[movedJSON](s, "rollback", ":production", "--reason", "incident 7")
	if back.To.Version != "v3" || back.Deploy != image.Reference || !back.Hold {
		t.Errorf("rolled back %+v", back)
	}
	equal(t, "production", s.resolve(p.repo+":production"), s.resolve(p.repo+":v3"))
	s.refused(exitNo, []string{"on hold"}, "promote", ":v4", "production")
	s.run(s.galley, "unhold", ":production")
	s.run(s.galley, "hold", ":production", "--reason", "audit")
	s.refused(exitNo, []string{"on hold"}, "promote", ":v4", "production")
	s.run(s.galley, "unhold", ":production")
	want := []string{"promote v1", "promote v3", "promote v4", "rollback v3", "unhold v3", "hold v3", "unhold v3"}
	if got := p.actions(s, "production"); !slices.Equal(got, want) {
		t.Errorf("history %q; want %q", got, want)
	}
}

// others: stock oras sees every event, by its tag and, where there is an API for it,
// by its model.
func (p *promotion) others(t *testing.T) {
	s := p.on(t)
	h := answerOf[eventsJSON](s, "history", ":production")
	tags := s.tags(p.repo)
	for _, r := range h.Rows {
		if !slices.Contains(tags, r.Tag) {
			t.Errorf("oras does not list %s", r.Tag)
		}
		var m struct {
			ArtifactType string
			Subject      struct{ Digest string }
			Annotations  map[string]string
		}
		check(t, json.Unmarshal([]byte(s.run(s.oras, "manifest", "fetch", "--plain-http", p.repo+":"+r.Tag)), &m))
		if m.ArtifactType != "application/vnd.galley.promotion.v1+json" || m.Subject.Digest != r.To || m.Annotations["ml.galley.event.action"] != r.Action {
			t.Errorf("%s is %+v", r.Tag, m)
		}
		if digest := s.resolve(p.repo + ":" + r.Tag); p.lists && !slices.Contains(s.referrers(p.repo+"@"+r.To), digest) {
			t.Errorf("oras discover does not find %s", r.Tag)
		}
	}
	for _, tag := range tags {
		if strings.Contains(tag, ".i-") && p.lists {
			t.Errorf("an announcement is left: %s", tag)
		}
	}
}

// removal: whatever is removed, no version goes with it.
func (p *promotion) removal(t *testing.T) {
	s := p.on(t)
	was := map[string]string{}
	for _, tag := range append([]string{"production", "staging"}, p.tags...) {
		was[tag] = s.resolve(p.repo + ":" + tag)
	}
	code := exitNo // for the tag does not go alone
	if p.lists {
		code = 0
	}
	s.outcome("", s.galley, "rm", p.repo+":candidate").want(t, code)
	s.refused(exitNo, nil, "rm", p.repo+":production")
	s.refused(exitNo, nil, "rm", p.repo+"@"+was["v3"])
	s.refused(exitNo, nil, "rm", p.repo+"@"+was["v3"], "--all-tags")
	for tag, digest := range was {
		equal(t, tag, s.resolve(p.repo+":"+tag), digest)
	}
	s.run(s.galley, "pull", p.repo+"@"+was["v3"], "-o", t.TempDir())
}

// garbage: nothing that a history names is garbage.
func (p *promotion) garbage(t *testing.T) {
	s := p.on(t)
	before := p.actions(s, "production")
	if p.collect != nil {
		p.collect(t)
	} else {
		s.run(s.galley, "push", p.repo+":junk", "--no-vcs", "--name", "junk")
		s.run(s.galley, "rm", p.repo+":junk") // which frees what nothing names
	}
	if got := p.actions(s, "production"); !slices.Equal(got, before) {
		t.Errorf("history %q; before %q", got, before)
	}
	for _, version := range []string{"v1", "v4"} {
		s.run(s.galley, "pull", p.repo+":"+version, "-o", t.TempDir())
	}
	back := answerOf[movedJSON](s, "rollback", ":production", "--reason", "once more")
	if back.To.Version != "v1" {
		t.Errorf("rolled back %+v", back)
	}
	equal(t, "production", s.resolve(p.repo+":production"), s.resolve(p.repo+":v1"))
	s.run(s.galley, "unhold", ":production")
}

// processes: eight of them, ten promotions each, and none is lost.
func (p *promotion) processes(t *testing.T) {
	const writers, rounds = 8, 10
	var mu sync.Mutex
	won := map[int]string{} // what a process said of the event that it recorded
	var wg sync.WaitGroup
	for i := range writers {
		// Without galley.yaml any tag is a stage, and nothing is checked.
		s := p.in(t, t.TempDir(), p.env...)
		wg.Go(func() {
			for done, try := 0, 0; done < rounds && !t.Failed(); try++ {
				o := s.outcome("", s.galley, "promote", "--format", "json", p.repo+":"+p.tags[(i+try)%len(p.tags)], "race")
				var m movedJSON
				if o.code != exitConflict && (o.code != 0 || json.Unmarshal([]byte(o.stdout), &m) != nil) {
					t.Errorf("%s: exit code %d\n%s", o.command, o.code, o.stderr)
				}
				if m.Changed {
					done++
					mu.Lock()
					if before, ok := won[m.Event.Number]; ok {
						t.Errorf("two say that they recorded event %d:\n%s\n%s", m.Event.Number, before, o.stderr)
					}
					won[m.Event.Number] = o.stderr
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	s := p.on(t)
	all := p.actions(s, "race")
	if len(all) != writers*rounds {
		t.Fatalf("%d events; want %d", len(all), writers*rounds)
	}
	_, version, _ := strings.Cut(all[len(all)-1], " ")
	equal(t, "the stage", s.resolve(p.repo+":race"), s.resolve(p.repo+":"+version))
}

// kill: a promotion that is killed at any moment leaves the stage at the old or the
// new, and another one goes on from there.
func (p *promotion) kill(t *testing.T) {
	s := p.in(t, t.TempDir(), p.env...)
	old, to := s.resolve(p.repo+":v1"), s.resolve(p.repo+":v3")
	later := p.hourLater(t)
	var killed, moved atomic.Int64
	for i := range 20 {
		stage := fmt.Sprintf("kill%d", i)
		s.run(s.galley, "promote", p.repo+":v1", stage)
		if s.kill(func() { time.Sleep(rand.N(100 * time.Millisecond)) }, s.galley, "promote", p.repo+":v3", stage) {
			killed.Add(1)
		}
		at := s.resolve(p.repo + ":" + stage)
		if at != old && at != to {
			t.Fatalf("%s is at %s", stage, at)
		}
		if at == to {
			moved.Add(1)
		}
		if got := p.actions(s, stage); at == to && len(got) != 2 || len(got) > 2 {
			t.Errorf("%s is at %s, history %q", stage, at, got)
		}
		s.run(s.galley, "promote", later+":v3", stage)
		equal(t, stage, s.resolve(p.repo+":"+stage), to)
		if got := p.actions(s, stage); !slices.Equal(got, []string{"promote v1", "promote v3"}) {
			t.Errorf("%s: history %q", stage, got)
		}
	}
	if killed.Load() == 0 {
		t.Error("nothing was killed")
	}
	t.Logf("%d killed, %d of 20 stages had moved", killed.Load(), moved.Load())
}

// hourLater is the repository by an address whose clock is an hour ahead: there, who
// was killed has been dead for long.
func (p *promotion) hourLater(t *testing.T) string {
	t.Helper()
	next, err := ocitest.Forward("http://" + p.addr)
	check(t, err)
	proxy := ocitest.NewProxy(next)
	proxy.Inject(ocitest.Rule{Mishap: ocitest.Clock(func() time.Duration { return time.Hour })})
	server := httptest.NewServer(proxy)
	t.Cleanup(func() {
		proxy.Close()
		server.Close()
	})
	_, name, _ := strings.Cut(p.repo, "/")
	return strings.TrimPrefix(server.URL, "http://") + "/" + name
}
