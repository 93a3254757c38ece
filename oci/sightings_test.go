package oci_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/oci"
)

// later is a pull when the files have been left alone for long enough.
func later(o oci.InstallOptions) oci.InstallOptions { return oci.At(o, 10*time.Second) }

// seen is a directory in which v1 of a project was pulled, and found unchanged
// when it had settled.
func seen(t *testing.T) (dir string, pull func(byDigest bool, o oci.InstallOptions) (oci.Installed, int, error)) {
	t.Helper()
	target, r := newTarget(t)
	p := packProject(t, project("one"), manifest.PackOptions{})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference(r.Host + "/ml/fraud:v1")
	check(t, err)
	dir = t.TempDir()
	pull = func(byDigest bool, o oci.InstallOptions) (oci.Installed, int, error) {
		at := ref
		if byDigest {
			at = ref.At(p.Root.Digest)
		}
		r.Requests()
		done, err := oci.Pull(t.Context(), target, at, dir, o)
		return done, len(r.Requests()), err
	}
	for range 2 {
		if _, _, err := pull(false, later(oci.InstallOptions{})); err != nil {
			t.Fatal(err)
		}
	}
	return dir, pull
}

// forge changes what is remembered of the model.
func forge(t *testing.T, dir string, change func(entry map[string]any)) {
	t.Helper()
	name := filepath.Join(dir, oci.SightingsFile)
	text, err := os.ReadFile(name)
	check(t, err)
	var all map[string]map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	check(t, decoder.Decode(&all))
	if all[modelFile] == nil || len(all) != 3 {
		t.Fatalf("remembered: %s", text)
	}
	change(all[modelFile])
	text, err = json.Marshal(all)
	check(t, err)
	check(t, os.WriteFile(name, text, 0o666))
}

// TestUnchangedPullReadsNothing: what is remembered of a file is believed, as
// shows when it is a lie, and only as long as the file is not touched.
func TestUnchangedPullReadsNothing(t *testing.T) {
	lie := func(entry map[string]any) { entry["digest"] = digest.FromString("a lie").String() }
	for _, tt := range []struct {
		name     string
		change   func(t *testing.T, dir string)
		o        oci.InstallOptions
		believed bool
	}{
		{"untouched", func(*testing.T, string) {}, later(oci.InstallOptions{}), true},
		{"not to be believed", func(*testing.T, string) {}, later(oci.InstallOptions{NoCache: true}), false},
		{"time set", func(t *testing.T, dir string) {
			then := time.Unix(1_000_000_000, 0)
			check(t, os.Chtimes(filepath.Join(dir, modelFile), then, then))
		}, later(oci.InstallOptions{}), false},
		{"replaced, with size and time", func(t *testing.T, dir string) {
			name := filepath.Join(dir, modelFile)
			info, err := os.Stat(name)
			check(t, err)
			text, err := os.ReadFile(name)
			check(t, err)
			check(t, os.WriteFile(name+".new", text, 0o666))
			check(t, os.Chtimes(name+".new", time.Time{}, info.ModTime()))
			check(t, os.Rename(name+".new", name))
		}, later(oci.InstallOptions{}), false},
		{"the clock was turned back", func(*testing.T, string) {}, oci.At(oci.InstallOptions{}, -time.Hour), false},
		{"another user's policy", func(*testing.T, string) {}, later(oci.InstallOptions{Allow: []string{"a:b"}}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, pull := seen(t)
			forge(t, dir, lie)
			tt.change(t, dir)
			before := texts(project("one"))
			for _, byDigest := range []bool{true, false} {
				done, requests, err := pull(byDigest, tt.o)
				if !tt.believed {
					if want := map[bool]int{true: 0, false: 1}[byDigest]; err != nil || requests != want || len(done.Kept) != 3 {
						t.Errorf("by digest %v: %+v, %d requests, %v; want it unchanged", byDigest, done, requests, err)
					}
					continue
				}
				// The file is taken for one that somebody changed.
				over, ok := errors.AsType[*oci.OverwriteError](err)
				if !ok || !slices.Equal(over.Paths, []string{modelFile}) || requests != 1 {
					t.Errorf("by digest %v: %v, %d requests; want the lie believed", byDigest, err, requests)
				}
			}
			if got := tree(t, dir); got[modelFile] != before[modelFile] {
				t.Error("the model was changed")
			}
		})
	}
}

// TestLiesAboutFilesAreBounded: who makes the directory say that a changed file
// is right is believed by pull, but not with NoCache, and not by verify.
func TestLiesAboutFilesAreBounded(t *testing.T) {
	dir, pull := seen(t)
	name := filepath.Join(dir, modelFile)
	text, err := os.ReadFile(name)
	check(t, err)
	changed := append([]byte{}, text...)
	changed[len(changed)-1] ^= 1
	check(t, os.WriteFile(name, changed, 0o666))
	info, err := os.Stat(name)
	check(t, err)
	forge(t, dir, func(entry map[string]any) {
		entry["file"] = oci.Identity(t, info)
		entry["read"] = info.ModTime().Add(5 * time.Second)
	})
	if done, requests, err := pull(true, later(oci.InstallOptions{})); err != nil || requests != 0 || len(done.Kept) != 3 {
		t.Errorf("a lie: %+v, %d requests, %v", done, requests, err)
	}
	if _, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{}); err == nil {
		t.Error("verify believed it")
	}
	_, _, err = pull(true, later(oci.InstallOptions{NoCache: true}))
	if _, ok := errors.AsType[*oci.OverwriteError](err); !ok {
		t.Errorf("with NoCache: %v; want an OverwriteError", err)
	}
}

// TestNewFilesAreReadAgain: what was written less than 2 s before it was read may
// have been changed since without a sign.
func TestNewFilesAreReadAgain(t *testing.T) {
	target, _ := newTarget(t)
	p := packProject(t, project("one"), manifest.PackOptions{})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	soon := oci.At(oci.InstallOptions{}, -time.Minute)
	for range 2 {
		if _, err := oci.Pull(t.Context(), target, installed, dir, soon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, oci.SightingsFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remembered files that are new: %v", err)
	}
}

// TestSpoiltSightings: whatever is wrong with what is remembered, the files are
// read and found unchanged.
func TestSpoiltSightings(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir, file string){
		"empty":     func(t *testing.T, _, file string) { check(t, os.WriteFile(file, nil, 0o666)) },
		"noise":     func(t *testing.T, _, file string) { check(t, os.WriteFile(file, []byte(static(10000)), 0o666)) },
		"null":      func(t *testing.T, _, file string) { check(t, os.WriteFile(file, []byte("null"), 0o666)) },
		"a list":    func(t *testing.T, _, file string) { check(t, os.WriteFile(file, []byte("[1]"), 0o666)) },
		"cut":       func(t *testing.T, _, file string) { check(t, os.Truncate(file, 100)) },
		"gone":      func(t *testing.T, _, file string) { check(t, os.Remove(file)) },
		"no digest": func(t *testing.T, dir, _ string) { forge(t, dir, func(e map[string]any) { e["digest"] = "x" }) },
		"from beyond": func(t *testing.T, dir, _ string) {
			forge(t, dir, func(e map[string]any) { e["read"] = "9999-01-01T00:00:00Z" })
		},
		"a link": func(t *testing.T, dir, file string) {
			check(t, os.Rename(file, filepath.Join(dir, "elsewhere")))
			check(t, os.Symlink("../elsewhere", file))
		},
		"a directory": func(t *testing.T, _, file string) {
			check(t, os.Remove(file))
			check(t, os.Mkdir(file, 0o777))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, pull := seen(t)
			spoil(t, dir, filepath.Join(dir, oci.SightingsFile))
			want := tree(t, dir)
			for range 2 {
				done, requests, err := pull(true, later(oci.InstallOptions{}))
				if err != nil || requests != 0 || len(done.Kept) != 3 {
					t.Errorf("%+v, %d requests, %v", done, requests, err)
				}
			}
			if got := tree(t, dir); got[modelFile] != want[modelFile] || got["elsewhere"] != want["elsewhere"] {
				t.Error("files were changed")
			}
		})
	}
}

// TestUnchangedIsScannedAnew where the directory does not say that nothing is to
// be told of a file, or says it of another program or policy.
func TestUnchangedIsScannedAnew(t *testing.T) {
	target, _ := newTarget(t)
	fsys := project("one")
	fsys[modelFile].Data = []byte("\x80\x04c__main__\nClip\n.") // for somebody to look at
	p := packProject(t, fsys, manifest.PackOptions{})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	model := func(o oci.InstallOptions) *joblib.Report {
		t.Helper()
		done, err := oci.Pull(t.Context(), target, installed, dir, o)
		if _, ok := errors.AsType[*manifest.UnsafeError](err); err != nil && !ok {
			t.Fatal(err)
		}
		for _, s := range done.Scans {
			if s.Path == modelFile {
				return s.Report
			}
		}
		return nil
	}
	allowed := later(oci.InstallOptions{Allow: []string{"__main__:Clip"}})
	unsafe := later(oci.InstallOptions{Unsafe: true})
	if model(unsafe) == nil {
		t.Error("installed without a scan")
	}
	for range 2 {
		if r := model(unsafe); r == nil || len(r.Findings) == 0 {
			t.Errorf("unchanged: %+v; want its findings", r)
		}
		model(allowed)
	}
	forge(t, dir, func(e map[string]any) { e["harmless"] = strings.Repeat("0", 64) })
	if r := model(unsafe); r == nil || len(r.Findings) == 0 {
		t.Errorf("harmless to another program: %+v; want its findings", r)
	}
}
