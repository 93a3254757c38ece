package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"galley/oci/ocitest"
)

var update = flag.Bool("update", false, "rewrite what scripts compare with")

const scripts = "../../testdata/script"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"galley": main})
}

// TestScript runs the real binary as its users do. The first lines of each
// script say what it promises.
func TestScript(t *testing.T) {
	found, err := filepath.Glob(scripts + "/*.txtar")
	if err != nil || len(found) < 15 {
		t.Fatalf("%d scripts, %v; want at least 15", len(found), err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 scripts,
		Setup:               setup,
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"registry":  registryCmd,
			"stalled":   stalledCmd,
			"requests":  requestsCmd,
			"exits":     exitsCmd,
			"bytes":     bytesCmd,
			"sed":       sedCmd,
			"project":   projectCmd,
			"hostile":   hostileCmd,
			"attach":    attachCmd,
			"referrers": referrersCmd,
			"serve":     serveCmd,
			"moved":     movedCmd,
			"baseimage": baseImageCmd,
			"moves":     movesCmd,
			"keep":      keepCmd,
			"forge":     forgeCmd,
			"webproxy":  webProxyCmd,
			"proxied":   proxiedCmd,
		},
	})
}

// registries are the servers of one script.
type registries struct {
	mu    sync.Mutex
	last  *ocitest.Registry
	proxy *webProxy // before it, if there is one
}

func setup(env *testscript.Env) error {
	project, err := filepath.Abs("../../testdata/fraud")
	if err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, ".home")
	if err := os.MkdirAll(home, 0o777); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
	env.Setenv("FRAUD", project)
	env.Setenv("JOBLIB", filepath.Join(filepath.Dir(project), "joblib"))
	env.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		env.Setenv("GIT_"+who+"_NAME", "Ada")
		env.Setenv("GIT_"+who+"_EMAIL", "ada@example.com")
		env.Setenv("GIT_"+who+"_DATE", "2026-01-02T03:04:05Z")
	}
	env.Values[registries{}] = &registries{}
	env.Values[serving{}] = new(server)
	return nil
}

// registryCmd starts a registry as $REGISTRY, or tells the last one how to
// misbehave: registry [FAULT].
func registryCmd(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.Value(registries{}).(*registries)
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.last == nil {
		r := ocitest.NewRegistry()
		ts.Defer(r.Close)
		ts.Setenv("REGISTRY", r.Host)
		all.last = r
	}
	if len(args) > 0 {
		all.last.Misbehave(ocitest.Fault(args[0]))
	}
}

// forgeCmd alters an installed file, and the record of it: forge DIR PATH.
func forgeCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: forge DIR PATH")
	}
	name, record := filepath.Join(args[0], args[1]), filepath.Join(args[0], ".galley/installed.json")
	was, err := os.ReadFile(name)
	ts.Check(err)
	now := append(bytes.TrimSpace(was), " \n"...)
	ts.Check(os.WriteFile(name, now, 0o666))
	text, err := os.ReadFile(record)
	ts.Check(err)
	text = bytes.ReplaceAll(text, []byte(digest.FromBytes(was)), []byte(digest.FromBytes(now)))
	text = bytes.ReplaceAll(text, fmt.Appendf(nil, `"size": %d`, len(was)), fmt.Appendf(nil, `"size": %d`, len(now)))
	ts.Check(os.WriteFile(record, text, 0o666))
}

// keepCmd sets a variable to the first line of what was printed: keep NAME.
func keepCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: keep NAME")
	}
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	ts.Setenv(args[0], line)
}

// movesCmd puts a tag on what another one names, past galley: moves REPO FROM TO.
func movesCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: moves REPO FROM TO")
	}
	host, name, _ := strings.Cut(args[0], "/")
	url := "http://" + host + "/v2/" + name + "/manifests/"
	resp, err := http.Get(url + args[1])
	ts.Check(err)
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	ts.Check(err)
	req, err := http.NewRequest(http.MethodPut, url+args[2], bytes.NewReader(doc))
	ts.Check(err)
	req.Header.Set("Content-Type", resp.Header.Get("Content-Type"))
	put, err := http.DefaultClient.Do(req)
	ts.Check(err)
	put.Body.Close()
	if put.StatusCode != http.StatusCreated {
		ts.Fatalf("moves %v: %s", args, put.Status)
	}
}

// stalledCmd waits until a request hangs in the registry.
func stalledCmd(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-ts.Value(registries{}).(*registries).last.Stalled():
	case <-time.After(time.Minute):
		ts.Fatalf("no request was left hanging")
	}
}

// requestsCmd checks how many requests the registry got since the last call:
// requests [N].
func requestsCmd(ts *testscript.TestScript, _ bool, args []string) {
	got := ts.Value(registries{}).(*registries).last.Requests()
	if len(args) == 0 {
		return
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if len(got) != want {
		ts.Fatalf("%d requests; want %d:\n%s", len(got), want, strings.Join(got, "\n"))
	}
}

// movedCmd checks how many bytes of bodies the registry got and sent since the
// last call, at most: moved [RECEIVED SENT].
func movedCmd(ts *testscript.TestScript, _ bool, args []string) {
	received, sent := ts.Value(registries{}).(*registries).last.Moved()
	for n, got := range []int64{received, sent} {
		if len(args) == 0 {
			return
		}
		most, err := strconv.ParseInt(args[n], 10, 64)
		ts.Check(err)
		if got > most {
			ts.Fatalf("%d bytes received, %d sent; want at most %s", received, sent, args)
		}
	}
}

// exitsCmd runs a command and checks its exit code: exits CODE COMMAND....
// What it prints is left for stdout and stderr.
func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		if got = exitStatus(err); got < 0 {
			ts.Fatalf("%v", err)
		}
	}
	if got != want {
		ts.Fatalf("exit code %d; want %d", got, want)
	}
}

func exitStatus(err error) int {
	if e, ok := err.(interface{ ExitCode() int }); ok {
		return e.ExitCode()
	}
	return -1
}

// bytesCmd writes COUNT bytes of VALUE to a file: bytes FILE COUNT [VALUE].
// Zeros make a sparse file.
func bytesCmd(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(args) > 2 {
		_, err = io.CopyN(f, repeat(args[2]), n)
		ts.Check(err)
	}
	ts.Check(f.Truncate(n))
	ts.Check(f.Close())
}

type repeat string

func (r repeat) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte(r), len(p)/len(r)+1)), nil
}

// projectCmd puts the example project into a directory: project DIR.
func projectCmd(ts *testscript.TestScript, _ bool, args []string) {
	for _, sub := range []string{"models", "data"} {
		ts.Check(os.CopyFS(ts.MkAbs(filepath.Join(args[0], sub)), os.DirFS(filepath.Join(ts.Getenv("FRAUD"), sub))))
	}
}

// sedCmd replaces text in a file: sed FILE OLD NEW.
func sedCmd(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	if !bytes.Contains(data, []byte(args[1])) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, bytes.ReplaceAll(data, []byte(args[1]), []byte(args[2])), 0o666))
}
