//go:build unix

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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

	"github.com/opencontainers/go-digest"
)

var soakSize = flag.Int("soak", 40, "how many pushes and pulls TestSoak makes")

// TestSoak pushes and pulls with eight processes at once, many of which are
// killed, to one repository of galley serve and of the directory behind it, and
// into one directory. With -soak 200 it is the full size.
func TestSoak(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("galley")
	if err != nil {
		t.Fatal(err)
	}
	s := newSoak(t, program, "../../testdata/fraud")
	s.refs = []string{startServe(t, s) + "/ml/fraud", "local/ml/fraud"}
	s.state = filepath.Join(s.store, "ml/fraud/_oci/.galley-layout")
	s.run(*soakSize)
}

// startServe starts galley serve and returns where it listens.
func startServe(t *testing.T, s *soak) string {
	t.Helper()
	cmd := s.command("", "serve", "--addr", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(stderr)
	line, err := lines.ReadString('\n')
	_, rest, _ := strings.Cut(line, "http://")
	host, _, ok := strings.Cut(rest, ",")
	if !ok {
		t.Fatalf("galley serve said %q, %v", line, err)
	}
	go lines.WriteTo(io.Discard)
	return host
}

// soak is many processes at work on the same things.
type soak struct {
	*testing.T
	galley   string
	refs     []string // the repository, by every way that leads to it
	store    string   // the local registry
	state    string   // its directory of temporary files, if it is the registry
	home     string
	dir      string // that all pull into
	versions []*soakVersion
	later    []*soakVersion // that are pushed after the others

	mu   sync.Mutex
	tags map[string]*soakTag
}

// soakTag is what a tag may name by now.
type soakTag struct {
	there bool // a push to it was not killed
	names []digest.Digest
}

// soakVersion is one of the models that are pushed.
type soakVersion struct {
	dir    string
	digest digest.Digest            // of the artifact
	files  map[string]digest.Digest // by path
}

// newSoak makes some versions of a project.
func newSoak(t *testing.T, program, project string) *soak {
	t.Helper()
	s := &soak{T: t, galley: program, store: filepath.Join(t.TempDir(), "store"), home: t.TempDir(), dir: t.TempDir(), tags: map[string]*soakTag{"candidate": {there: true}}}
	for i := range 7 {
		v := &soakVersion{dir: t.TempDir(), files: make(map[string]digest.Digest)}
		for _, sub := range []string{"models", "data"} {
			if err := os.CopyFS(filepath.Join(v.dir, sub), os.DirFS(filepath.Join(project, sub))); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range exampleFiles {
			name := filepath.Join(v.dir, path)
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			data = fmt.Appendf(data, "%*s", i, "") // blanks harm neither JSON nor pickle
			if err := os.WriteFile(name, data, 0o666); err != nil {
				t.Fatal(err)
			}
			v.files[path] = digest.FromBytes(data)
		}
		s.versions = append(s.versions, v)
	}
	s.versions, s.later = s.versions[:5], s.versions[5:]
	return s
}

// command is a galley of its own, in dir.
func (s *soak) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.Context(), s.galley, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), "GALLEY_LOCAL=" + s.store}
	return cmd
}

// must runs galley undisturbed.
func (s *soak) must(dir string, args ...string) string {
	s.Helper()
	var stderr strings.Builder
	cmd := s.command(dir, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("galley %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func (s *soak) pushArgs(ref string) []string {
	return []string{"push", ref, "--no-vcs", "--format", "go-template={{.digest}}"}
}

// run does so many pushes and pulls.
func (s *soak) run(operations int) {
	start := time.Now()
	for _, v := range s.versions {
		v.digest = digest.Digest(s.must(v.dir, s.pushArgs(s.refs[0]+":candidate")...))
		s.tags["candidate"].names = append(s.tags["candidate"].names, v.digest)
	}
	s.must("", "pull", s.refs[0]+":candidate", "-o", s.dir)
	usual := time.Since(start) / time.Duration(len(s.versions)+1)
	s.litter()

	watched := s.watch()
	const processes = 8
	var all sync.WaitGroup
	var done, killed atomic.Int64
	// On a machine that is busy elsewhere many are done before they are killed:
	// then there are more.
	enough := func() bool { return killed.Load() >= int64(operations/20) || done.Load() >= int64(10*operations) }
	for i := range processes {
		all.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for n := 0; n < operations/processes || !enough(); n++ {
				if s.operate(random, fmt.Sprintf("of-%d", i), usual) {
					killed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	seen := watched()
	s.Logf("%d pushes and pulls, %d of them killed; files looked at %d times", done.Load(), killed.Load(), seen)
	if killed.Load() < int64(operations/20) || seen < operations {
		s.Errorf("%d killed, files looked at %d times: too little to prove anything", killed.Load(), seen)
	}
	s.checkTags()
	s.checkLeftovers()
}

// operate runs one push or pull, and kills it or not. Every process has a tag of
// its own, and all have one in common.
func (s *soak) operate(random *rand.Rand, own string, usual time.Duration) (killed bool) {
	ref := s.refs[random.IntN(len(s.refs))]
	v := s.versions[random.IntN(len(s.versions))]
	tag := "candidate"
	args, dir := []string{"pull", "-q", ref + ":candidate", "-o", s.dir}, ""
	push := random.IntN(2) == 0
	if push {
		if random.IntN(2) == 0 {
			tag = own
		}
		args, dir = s.pushArgs(ref+":"+tag), v.dir
	}
	var stderr strings.Builder
	cmd := s.command(dir, args...)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		s.Error(err)
		return false
	}
	kill := random.IntN(2) == 0
	after := time.Duration(random.Float64() * 3 * float64(usual)) // eight at once take longer than one
	if kill {
		defer time.AfterFunc(after, func() { cmd.Process.Kill() }).Stop()
	}
	err := cmd.Wait()
	killed = err != nil && cmd.ProcessState.ExitCode() == -1
	if err != nil && !(kill && killed) {
		s.Errorf("galley %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if push && tag == own {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.tags[tag] == nil || !killed {
			s.tags[tag] = &soakTag{there: !killed}
		}
		s.tags[tag].names = append(s.tags[tag].names, v.digest)
	}
	return killed
}

// watch looks at the installed files all the time, until the function that it
// returns is called: that tells how often.
func (s *soak) watch() func() int {
	ctx, cancel := context.WithCancel(s.Context())
	known := make(map[digest.Digest]bool)
	for _, v := range s.versions {
		for _, d := range v.files {
			known[d] = true
		}
	}
	looks := make(chan int, 1)
	go func() {
		n := 0
		for tick := time.Tick(2 * time.Millisecond); ctx.Err() == nil; <-tick {
			path := exampleFiles[n%len(exampleFiles)]
			data, err := os.ReadFile(filepath.Join(s.dir, path))
			if err != nil {
				s.Errorf("in the middle: %v", err)
			} else if d := digest.FromBytes(data); !known[d] {
				s.Errorf("in the middle, %s holds %d bytes that nobody pushed", path, len(data))
			}
			n++
		}
		looks <- n
	}()
	return func() int {
		cancel()
		return <-looks
	}
}

// checkTags looks at what the tags name.
func (s *soak) checkTags() {
	for name, tag := range s.tags {
		for _, ref := range s.refs {
			ref += ":" + name
			out, err := s.command("", "resolve", ref).Output()
			if err != nil && tag.there {
				s.Errorf("resolve %s: %v", ref, err)
			}
			if err != nil {
				continue
			}
			d := digest.Digest(strings.TrimSpace(string(out)))
			if !slices.Contains(tag.names, d) {
				s.Errorf("%s names %s; want one of %v", ref, d, tag.names)
				continue
			}
			dir := s.TempDir()
			s.must("", "pull", ref, "-o", dir)
			s.same(dir, s.versions[slices.IndexFunc(s.versions, func(v *soakVersion) bool { return v.digest == d })])
		}
	}
}

// same fails unless dir holds the version.
func (s *soak) same(dir string, v *soakVersion) {
	s.Helper()
	for path, want := range v.files {
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || digest.FromBytes(data) != want {
			s.Errorf("%s: %d bytes, %v; want those of %s", path, len(data), err, want)
		}
	}
}

// temporary are the names of files that a process was in the middle of.
var temporary = regexp.MustCompile(`^(stage|partial|tmp|upload)-|\.tmp$`)

// leftovers are the temporary files.
func (s *soak) leftovers() []string {
	s.Helper()
	var found []string
	for _, dir := range []string{s.dir + "/.galley", s.state} {
		entries, err := os.ReadDir(dir)
		if err != nil && dir != "" {
			s.Fatal(err)
		}
		for _, e := range entries {
			if temporary.MatchString(e.Name()) {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	return found
}

// age makes files as old as if they were from before the run.
func (s *soak) age(names []string) {
	s.Helper()
	old := time.Now().AddDate(0, -1, 0)
	for _, name := range names {
		if err := os.Chtimes(name, old, old); err != nil {
			s.Fatal(err)
		}
	}
}

// litter leaves what processes left that were killed long ago.
func (s *soak) litter() {
	s.Helper()
	var names []string
	for dir, files := range map[string][]string{s.dir + "/.galley": {"stage-abcdefghijkl", "installed.json.tmp"}, s.state: {"tmp-abcdefghijkl", "upload-abcdefghijkl"}} {
		if dir == "" {
			continue
		}
		for _, name := range files {
			name = filepath.Join(dir, name)
			if err := os.WriteFile(name, []byte("half of a"), 0o666); err != nil {
				s.Fatal(err)
			}
			names = append(names, name)
		}
	}
	s.age(names)
}

// checkLeftovers lets somebody work there long after, undisturbed. Then nothing
// of the litter, and of what was killed, is left.
func (s *soak) checkLeftovers() {
	s.age(s.leftovers())
	ref := s.refs[len(s.refs)-1] + ":later"
	for _, v := range s.later {
		s.must(v.dir, s.pushArgs(ref)...)
		s.must("", "pull", ref, "-o", s.dir)
		s.same(s.dir, v)
	}
	if left := s.leftovers(); len(left) > 0 {
		s.Errorf("left behind: %q", left)
	}
}
