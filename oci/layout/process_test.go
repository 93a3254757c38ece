package layout_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

// The test binary is its own child process: with childDir set it tags what it
// pushes there until it is done or killed.
const (
	childDir  = "LAYOUT_TEST_DIR"
	childName = "LAYOUT_TEST_NAME"
	childTags = "LAYOUT_TEST_TAGS"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := child(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child pushes and tags manifests, and prints each tag once Tag has returned.
// It also moves the tag "latest", which all children fight for.
func child(dir string) error {
	var tags int
	if _, err := fmt.Sscan(os.Getenv(childTags), &tags); err != nil {
		return err
	}
	s, err := layout.Create(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := range tags {
		tag := fmt.Sprintf("%s-%d", os.Getenv(childName), i)
		desc, data := manifest(tag)
		if err := s.Push(ctx, desc, strings.NewReader(string(data))); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			return err
		}
		for _, tag := range []string{"latest", tag} {
			if err := s.Tag(ctx, desc, tag); err != nil {
				return err
			}
		}
		fmt.Println(tag)
	}
	return nil
}

// startChild starts a child and returns what it prints.
func startChild(t *testing.T, dir, name string, tags int) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childName+"="+name, fmt.Sprintf("%s=%d", childTags, tags))
	cmd.Stderr = new(bytes.Buffer)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// checkTags checks that the acknowledged tags are in the layout.
func checkTags(t *testing.T, dir string, acknowledged []string) {
	t.Helper()
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	tags := listTags(t, s)
	for _, tag := range acknowledged {
		if _, found := slices.BinarySearch(tags, tag); !found {
			t.Fatalf("tag %q is lost; there are %d tags, %d were acknowledged", tag, len(tags), len(acknowledged))
		}
	}
}

// checkBlobs checks that every blob has the digest that it is named by, and
// that every tag resolves to one.
func checkBlobs(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data := readFile(t, dir, "blobs", "sha256", f.Name())
		if got := digest.FromString(data).Encoded(); got != f.Name() {
			t.Errorf("blob %s has digest %s", f.Name(), got)
		}
	}
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range listTags(t, s) {
		if ok, err := s.Exists(t.Context(), resolve(t, s, tag)); !ok || err != nil {
			t.Errorf("manifest of tag %q: exists %v, %v", tag, ok, err)
		}
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	const processes, tags = 8, 50
	dir := filepath.Join(t.TempDir(), "store") // made by the first of them
	var acknowledged []string
	var cmds []*exec.Cmd
	var outs []*bufio.Reader
	for i := range processes {
		cmd, out := startChild(t, dir, fmt.Sprintf("p%d", i), tags)
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, out := range outs {
		lines, err := io.ReadAll(out)
		if err != nil {
			t.Error(err)
		}
		if err := cmds[i].Wait(); err != nil {
			t.Errorf("%v\n%s", err, cmds[i].Stderr)
		}
		acknowledged = append(acknowledged, strings.Fields(string(lines))...)
	}
	if len(acknowledged) != processes*tags {
		t.Errorf("%d tags were acknowledged, want %d", len(acknowledged), processes*tags)
	}
	checkTags(t, dir, acknowledged)
	checkBlobs(t, dir)
}

// Processes are killed at any moment, two at a time so that one may wait for
// the lock that the other holds. What a process had acknowledged is there, and
// index.json can be read.
func TestKills(t *testing.T) {
	t.Parallel()
	kills := 300
	if testing.Short() {
		kills = 60
	}
	dir := filepath.Join(t.TempDir(), "store")
	var acknowledged []string
	for n := 0; n < kills; n += 2 {
		first, firstOut := startChild(t, dir, fmt.Sprintf("k%d", n), 1<<20)
		second, secondOut := startChild(t, dir, fmt.Sprintf("k%d", n+1), 1<<20)
		// Both are at work once they have printed a tag, and the pause puts the
		// kill anywhere in what they do next.
		for _, out := range []*bufio.Reader{firstOut, secondOut} {
			line, err := out.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			acknowledged = append(acknowledged, strings.TrimSpace(line))
		}
		time.Sleep(rand.N(5 * time.Millisecond))
		acknowledged = append(acknowledged, kill(t, first, firstOut)...)
		checkTags(t, dir, acknowledged)
		acknowledged = append(acknowledged, kill(t, second, secondOut)...)
		checkTags(t, dir, acknowledged)
	}
	checkBlobs(t, dir)

	// The layout is as good as any.
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pushTagged(t, s, "after", "after")
}

// kill kills a child and returns the tags it printed that are not read yet.
func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) []string {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	lines, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || fmt.Sprint(cmd.Stderr) != "" {
		t.Fatalf("child ended by itself: %v\n%s", err, cmd.Stderr)
	}
	// A line without its end was cut by the kill.
	whole := lines[:strings.LastIndexByte(string(lines), '\n')+1]
	return strings.Fields(string(whole))
}
