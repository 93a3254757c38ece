//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMemory pushes and pulls models of 2 GiB that are sparse, and of 256 MiB that
// are noise: the memory of either does not depend on the size, and nothing is
// copied to a temporary directory. More cores take more buffers, up to a limit.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 2 GiB four times")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "galley")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, fill := range map[string]func(*os.File) (int64, error){
		"sparse": func(f *os.File) (int64, error) { return 2 << 30, f.Truncate(2 << 30) },
		"noise": func(f *os.File) (int64, error) {
			_, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), 256<<20)
			if err != nil {
				return 0, err
			}
			return f.Seek(0, io.SeekCurrent)
		},
	} {
		t.Run(name, func(t *testing.T) { testMemory(t, bin, fill) })
	}
}

// testMemory pushes and pulls one model, that fill completes.
func testMemory(t *testing.T, bin string, fill func(*os.File) (int64, error)) {
	const limit = 40 << 20
	dir := t.TempDir()
	project, tmp := filepath.Join(dir, "project"), filepath.Join(dir, "tmp")
	for _, d := range []string{filepath.Join(project, "models"), tmp} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	model, err := os.Create(filepath.Join(project, "models", "model.joblib"))
	if err != nil {
		t.Fatal(err)
	}
	// An estimator without arrays, and what fills the file behind it.
	_, err = model.WriteString("\x80\x04\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81.")
	if err != nil {
		t.Fatal(err)
	}
	size, err := fill(model)
	if err := errors.Join(err, model.Close()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"push", "oci:" + filepath.Join(dir, "layout") + ":v1"},
		{"pull", "oci:" + filepath.Join(dir, "layout") + ":v1", "-o", filepath.Join(dir, "out")},
	} {
		cmd := exec.Command(bin, args...)
		cmd.Dir = project
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "GALLEY_CACHE="+filepath.Join(dir, "cache"), "GOMAXPROCS=8")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		measured := make(chan int64)
		go func() { measured <- highWater(cmd.Process.Pid, stop) }()
		err := cmd.Wait()
		close(stop)
		if peak := <-measured; err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, &out)
		} else if peak > limit || peak == 0 {
			t.Errorf("%s: %d MiB resident at the peak; want at most %d", args[0], peak>>20, limit>>20)
		} else {
			t.Logf("%s: %d MiB resident at the peak", args[0], peak>>20)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: TMPDIR holds %v, %v", args[0], left, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "out", "models", "model.joblib")); err != nil || info.Size() != size {
		t.Errorf("pulled %v, %v", info, err)
	}
}

// highWater is the most memory, in bytes, that a process had until stop. What
// its resource usage says begins with the memory of the process that started it:
// https://man7.org/linux/man-pages/man2/getrusage.2.html
func highWater(pid int, stop <-chan struct{}) (peak int64) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			var kilobytes int64
			if _, err := fmt.Sscan(rest, &kilobytes); err == nil {
				peak = max(peak, kilobytes<<10)
			}
		}
		select {
		case <-stop:
			return peak
		case <-tick.C:
		}
	}
}
