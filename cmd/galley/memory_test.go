//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMemory pushes and pulls a sparse model of 2 GiB: the memory of either
// does not depend on its size, and nothing is copied to a temporary directory.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 2 GiB four times")
	}
	const size, limit = 2 << 30, 40 << 20
	dir := t.TempDir()
	bin := filepath.Join(dir, "galley")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	project, tmp := filepath.Join(dir, "project"), filepath.Join(dir, "tmp")
	for _, d := range []string{filepath.Join(project, "models"), tmp} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	model := filepath.Join(project, "models", "model.joblib")
	// An estimator without arrays, and two GiB of zeros behind it.
	if err := os.WriteFile(model, []byte("\x80\x04\x8c\x18sklearn.ensemble._forest\x8c\x16RandomForestClassifier\x93)\x81."), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(model, size); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"push", "oci:" + filepath.Join(dir, "layout") + ":v1"},
		{"pull", "oci:" + filepath.Join(dir, "layout") + ":v1", "-o", filepath.Join(dir, "out")},
	} {
		cmd := exec.Command(bin, args...)
		cmd.Dir = project
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Fatal("no resource usage")
		}
		if peak := usage.Maxrss << 10; peak > limit {
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
