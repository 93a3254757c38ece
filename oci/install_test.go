package oci_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci"
	"galley/oci/ocitest"
)

// installed is what the record of install says.
var installed = oci.Reference{Kind: oci.Registry, Registry: "example.com", Repository: "ml/fraud", Tag: "v1"}

// install pulls an artifact into dir.
func install(t testing.TB, dir string, src manifest.Fetcher, a *manifest.Artifact, o oci.InstallOptions) (oci.Installed, error) {
	t.Helper()
	w, err := oci.OpenWorkdir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.Install(t.Context(), src, a, installed, o)
}

// tree is what lies in dir, galley's own files aside.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if p == ".galley" {
				return fs.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		files[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantTree(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	got := tree(t, dir)
	if !maps.Equal(got, want) {
		t.Errorf("files %q; want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	entries, err := os.ReadDir(filepath.Join(dir, ".galley"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{".gitignore", "lock", "installed.json", "manifest.json"}, e.Name()) {
			t.Errorf(".galley/%s was left behind", e.Name())
		}
	}
}

func texts(fsys fs.FS) map[string]string {
	files := make(map[string]string)
	for _, p := range []string{modelFile, "data/features.json", "data/summary.json"} {
		data, _ := fs.ReadFile(fsys, p)
		files[p] = string(data)
	}
	return files
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o777), os.WriteFile(p, []byte(text), 0o666)); err != nil {
		t.Fatal(err)
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	one, two := packProject(t, project("one"), manifest.PackOptions{}), packProject(t, project("two"), manifest.PackOptions{})

	done, err := install(t, dir, one, one.Artifact, oci.InstallOptions{})
	if err != nil || len(done.Written) != 3 {
		t.Fatalf("first: %+v, %v", done, err)
	}
	wantTree(t, dir, texts(project("one")))

	// Nothing is fetched for what is there.
	nothing := fetchFunc(func(d v1.Descriptor) (io.ReadCloser, error) {
		return nil, fmt.Errorf("fetched %s", d.Annotations[v1.AnnotationTitle])
	})
	done, err = install(t, dir, nothing, one.Artifact, oci.InstallOptions{})
	if err != nil || len(done.Written) != 0 || len(done.Kept) != 3 {
		t.Errorf("again: %+v, %v", done, err)
	}

	// Another model replaces what galley installed, and only the model moves.
	var fetched []string
	done, err = install(t, dir, fetchFunc(func(d v1.Descriptor) (io.ReadCloser, error) {
		fetched = append(fetched, d.Annotations[v1.AnnotationTitle])
		return two.Fetch(t.Context(), d)
	}), two.Artifact, oci.InstallOptions{})
	if err != nil || !slices.Equal(done.Written, []string{modelFile}) || !slices.Equal(fetched, []string{"models"}) {
		t.Errorf("other model: %+v, fetched %q, %v", done, fetched, err)
	}
	wantTree(t, dir, texts(project("two")))
}

type fetchFunc func(v1.Descriptor) (io.ReadCloser, error)

func (f fetchFunc) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) { return f(d) }

func TestInstallKeepsAPersonsFiles(t *testing.T) {
	p := packProject(t, project("one"), manifest.PackOptions{})
	two := packProject(t, project("two"), manifest.PackOptions{})
	never := fetchFunc(func(v1.Descriptor) (io.ReadCloser, error) { return nil, errors.New("fetched") })
	for _, tt := range []struct {
		name    string
		prepare func(dir string)
	}{
		{"never pulled", func(dir string) { write(t, dir, modelFile, "three hours of training") }},
		{"trained after a pull", func(dir string) {
			if _, err := install(t, dir, two, two.Artifact, oci.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			write(t, dir, modelFile, "three hours of training")
		}},
		{"a symbolic link", func(dir string) {
			write(t, dir, "elsewhere", "three hours of training")
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "models"), 0o777), os.Symlink("../elsewhere", filepath.Join(dir, modelFile))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.prepare(dir)
			before := tree(t, dir)
			_, err := install(t, dir, never, p.Artifact, oci.InstallOptions{})
			over, ok := errors.AsType[*oci.OverwriteError](err)
			if !ok || !slices.Equal(over.Paths, []string{modelFile}) {
				t.Fatalf("%v; want an OverwriteError for the model", err)
			}
			wantTree(t, dir, before)

			clean := func(_ context.Context, _ string, paths []string) map[string]bool {
				return map[string]bool{paths[0]: true}
			}
			if _, err := install(t, dir, p, p.Artifact, oci.InstallOptions{Clean: clean}); err != nil {
				t.Errorf("a file that is clean in Git: %v", err)
			}
			if got := tree(t, dir)[modelFile]; got != texts(project("one"))[modelFile] {
				t.Errorf("model %q", got)
			}
			if target, ok := tree(t, dir)["elsewhere"]; ok && target != "three hours of training" {
				t.Error("the link was written through")
			}
		})
	}
	t.Run("forced", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, modelFile, "mine")
		if _, err := install(t, dir, p, p.Artifact, oci.InstallOptions{Force: true}); err != nil {
			t.Error(err)
		}
		wantTree(t, dir, texts(project("one")))
	})
	t.Run("identical", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, modelFile, texts(project("one"))[modelFile])
		if done, err := install(t, dir, p, p.Artifact, oci.InstallOptions{}); err != nil || !slices.Contains(done.Kept, modelFile) {
			t.Errorf("%+v, %v", done, err)
		}
	})
}

func TestInstallRemovesWhatIsGone(t *testing.T) {
	dir := t.TempDir()
	fsys := project("one")
	fsys["old/a.md"], fsys["old/b.md"] = fsys["data/summary.json"], fsys["data/summary.json"]
	with, err := manifest.Pack(t.Context(), []manifest.Input{
		manifest.FromFS(fsys, modelFile, modelFile, manifest.RoleModel),
		manifest.FromFS(fsys, "old/a.md", "old/a.md", manifest.RoleDoc),
		manifest.FromFS(fsys, "old/b.md", "old/b.md", manifest.RoleDoc),
	}, manifest.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, dir, with, with.Artifact, oci.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "old/b.md", "noted by hand")
	write(t, dir, "mine.md", "mine")
	p := packProject(t, project("one"), manifest.PackOptions{})
	done, err := install(t, dir, p, p.Artifact, oci.InstallOptions{})
	if err != nil || !slices.Equal(done.Removed, []string{"old/a.md"}) || !slices.Equal(done.Left, []string{"old/b.md"}) {
		t.Errorf("%+v, %v", done, err)
	}
	want := texts(project("one"))
	want["old/b.md"], want["mine.md"] = "noted by hand", "mine"
	wantTree(t, dir, want)
}

func TestInstallOnly(t *testing.T) {
	dir := t.TempDir()
	p := packProject(t, project("one"), manifest.PackOptions{})
	var fetched []string
	src := fetchFunc(func(d v1.Descriptor) (io.ReadCloser, error) {
		fetched = append(fetched, d.Annotations[v1.AnnotationTitle])
		return p.Fetch(t.Context(), d)
	})
	done, err := install(t, dir, src, p.Artifact, oci.InstallOptions{Only: []string{"features.json"}})
	if err != nil || !slices.Equal(done.Written, []string{"data/features.json"}) || !slices.Equal(fetched, []string{"data/features.json"}) {
		t.Errorf("%+v, fetched %q, %v", done, fetched, err)
	}
	_, err = install(t, dir, src, p.Artifact, oci.InstallOptions{Only: []string{"*.onnx"}})
	if no, ok := errors.AsType[*oci.NoMatchError](err); !ok || len(no.Paths) != 3 {
		t.Errorf("no match: %v", err)
	}
	for _, tt := range []struct {
		pattern, file string
		want          bool
	}{
		{"*.json", "data/features.json", true}, {"data", "data/features.json", true}, {"data/", "data/a/b", true},
		{"data/*", "data/a", true}, {"data/*.json", "models/x.json", false}, {"features.json", "data/features.json", true},
		{"dat", "data/features.json", false}, {"[", "x", false}, {"models/model.joblib", modelFile, true},
	} {
		if got := oci.Match(tt.pattern, tt.file); got != tt.want {
			t.Errorf("Match(%q, %q) = %v", tt.pattern, tt.file, got)
		}
	}
}

// TestInstallPeers installs what other tools packed.
func TestInstallPeers(t *testing.T) {
	want := make(map[string]string)
	maps.Copy(want, tree(t, "../testdata/peers/source"))
	for _, name := range []string{"oras-files", "oras-dir", "modctl-raw", "modctl-tar", "kit", "kit-gzip"} {
		t.Run(name, func(t *testing.T) {
			target := openTarget(t, "oci:../testdata/peers/"+name)
			dir := t.TempDir()
			for range 2 { // the second finds it installed
				m, err := oci.Read(t.Context(), target, "v1")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := install(t, dir, m, m.Artifact, oci.InstallOptions{}); err != nil {
					t.Fatal(err)
				}
				wantTree(t, dir, want)
			}
			write(t, dir, "models/random_forest_final_model.joblib", "mine")
			m, err := oci.Read(t.Context(), target, "v1")
			if err != nil {
				t.Fatal(err)
			}
			_, err = install(t, dir, m, m.Artifact, oci.InstallOptions{})
			if _, ok := errors.AsType[*oci.OverwriteError](err); !ok {
				t.Errorf("over a changed file: %v; want an OverwriteError", err)
			}
		})
	}
}

// TestInstallFailsWhole breaks the transfer in every way; the directory stays
// as it was.
func TestInstallFailsWhole(t *testing.T) {
	one, two := packProject(t, project("one"), manifest.PackOptions{}), packProject(t, project("two"), manifest.PackOptions{})
	target, r := newTarget(t)
	if _, err := oci.Push(t.Context(), target, two, oci.PushOptions{Tags: []string{"v2"}}); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []ocitest.Fault{ocitest.Truncate, ocitest.Alter, ocitest.Shorten, ocitest.NotFound, ocitest.Forbidden, ocitest.HTML} {
		t.Run(string(fault), func(t *testing.T) {
			dir := t.TempDir()
			if _, err := install(t, dir, one, one.Artifact, oci.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			r.Misbehave(fault)
			defer r.Misbehave(ocitest.None)
			if _, err := install(t, dir, target, two.Artifact, oci.InstallOptions{}); err == nil {
				t.Error("no error")
			}
			wantTree(t, dir, texts(project("one")))
		})
	}
}

// TestInterruptedInstall stops an install after its journal was written, as a
// kill would, and opens the directory again.
func TestInterruptedInstall(t *testing.T) {
	one, two := packProject(t, project("one"), manifest.PackOptions{}), packProject(t, project("two"), manifest.PackOptions{})
	for _, tt := range []struct {
		name string
		meet func(t *testing.T, dir string) // between the kill and the next command
		left []string
	}{
		{"completes", func(*testing.T, string) {}, nil},
		{"leaves what was changed since", func(t *testing.T, dir string) { write(t, dir, modelFile, "three hours of training") }, []string{modelFile}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := install(t, dir, one, one.Artifact, oci.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			oci.InterruptCommit(t, dir, two, two.Artifact)
			tt.meet(t, dir)
			w, err := oci.OpenWorkdir(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			want := texts(project("two"))
			if tt.left != nil {
				want[modelFile] = "three hours of training"
			}
			wantTree(t, dir, want)
			record, err := oci.ReadRecord(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(w.Left, tt.left) || record.Digest != two.Root.Digest {
				t.Errorf("left %q, record %s", w.Left, record.Digest)
			}
		})
	}
}

// TestConcurrentInstalls pulls two artifacts into one directory at once.
func TestConcurrentInstalls(t *testing.T) {
	one, two := packProject(t, project("one"), manifest.PackOptions{}), packProject(t, project("two"), manifest.PackOptions{})
	dir := t.TempDir()
	errs := make(chan error)
	for i := range 8 {
		p := []*manifest.Packed{one, two}[i%2]
		go func() {
			w, err := oci.OpenWorkdir(t.Context(), dir)
			if err == nil {
				_, err = w.Install(t.Context(), p, p.Artifact, installed, oci.InstallOptions{})
				err = errors.Join(err, w.Close())
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := tree(t, dir); !maps.Equal(got, texts(project("one"))) && !maps.Equal(got, texts(project("two"))) {
		t.Errorf("a mixture: %q", got)
	}
}

func TestOpenWorkdir(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "file", "x")
	if _, err := oci.OpenWorkdir(t.Context(), filepath.Join(dir, "file")); err == nil {
		t.Error("a file was opened as a directory")
	}
	// .galley must not lead out of the directory.
	outside := t.TempDir()
	trap := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(trap, ".galley")); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.OpenWorkdir(t.Context(), trap); err == nil {
		t.Error(".galley was followed out of the directory")
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("wrote %v outside", entries)
	}
	// Waiting for the lock ends with the context.
	w, err := oci.OpenWorkdir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oci.OpenWorkdir(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a locked directory: %v; want %v", err, context.Canceled)
	}
}

// TestPullAsksLittle counts the requests of pulls.
func TestPullAsksLittle(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("one"), manifest.PackOptions{})
	if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference(r.Host + "/ml/fraud:v1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, tt := range []struct {
		ref  oci.Reference
		want int
	}{{ref, 4}, {ref, 1}, {ref.At(p.Root.Digest), 0}} {
		r.Requests()
		if _, err := oci.Pull(t.Context(), target, tt.ref, dir, oci.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := r.Requests(); len(got) != tt.want {
			t.Errorf("pull %s asked %q; want %d requests", tt.ref, got, tt.want)
		}
	}
}

func BenchmarkInstall(b *testing.B) {
	fsys := project("big")
	fsys[modelFile].Data = append(bytes.Clone(fsys[modelFile].Data), bytes.Repeat([]byte(strings.Repeat("forest", 20)+"\x00\x01"), 1<<18)...)
	p := packProject(b, fsys, manifest.PackOptions{})
	b.SetBytes(int64(len(fsys[modelFile].Data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := install(b, b.TempDir(), p, p.Artifact, oci.InstallOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// packFiles packs files of the given texts as documents.
func packFiles(t testing.TB, files map[string]string) *manifest.Packed {
	t.Helper()
	fsys := fstest.MapFS{}
	var in []manifest.Input
	for p, text := range files {
		fsys[p] = &fstest.MapFile{Data: []byte(text)}
		in = append(in, manifest.FromFS(fsys, p, p, manifest.RoleDoc))
	}
	p, err := manifest.Pack(t.Context(), in, manifest.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestInstallTurnsFilesIntoDirectories and back, unless a person's file is there.
func TestInstallTurnsFilesIntoDirectories(t *testing.T) {
	file, below := map[string]string{"a": "1", "x": "x"}, map[string]string{"a/b/c": "2", "x": "x"}
	dir := t.TempDir()
	for _, files := range []map[string]string{file, below, file} {
		p := packFiles(t, files)
		if _, err := install(t, dir, p, p.Artifact, oci.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		wantTree(t, dir, files)
	}
	p := packFiles(t, below)
	for _, force := range []bool{false, true} {
		write(t, dir, "a", "mine")
		_, err := install(t, dir, p, p.Artifact, oci.InstallOptions{Force: force})
		if _, ok := errors.AsType[*oci.BlockedError](err); !ok {
			t.Errorf("force %v: %v; want a BlockedError", force, err)
		}
		wantTree(t, dir, map[string]string{"a": "mine", "x": "x"})
	}
}

// TestInstallRefusesLayersThatDisagree, which only their bytes show.
func TestInstallRefusesLayersThatDisagree(t *testing.T) {
	for name, paths := range map[string][2]string{
		"twice": {"m/x", "m/x"}, "case": {"m/x", "m/X"}, "file and directory": {"m/x", "m/x/y"},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []ocitest.Blob
			for i, p := range paths {
				var b bytes.Buffer
				w := tar.NewWriter(&b)
				text := fmt.Sprint("layer ", i)
				if err := errors.Join(w.WriteHeader(&tar.Header{Name: p, Mode: 0o644, Size: int64(len(text))}), second(w.Write([]byte(text))), w.Close()); err != nil {
					t.Fatal(err)
				}
				layers = append(layers, ocitest.NewBlob("application/vnd.cncf.model.weight.v1.tar", b.String()))
			}
			target := openTarget(t, "oci:"+t.TempDir()+"/layout")
			m := ocitest.NewManifest("m", layers...)
			for _, b := range append(layers, m) {
				if err := target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data)); err != nil {
					t.Fatal(err)
				}
			}
			a, err := oci.Read(t.Context(), target, m.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if _, err := install(t, dir, a, a.Artifact, oci.InstallOptions{}); !errors.Is(err, manifest.ErrUnsafePath) {
				t.Errorf("%v; want %v", err, manifest.ErrUnsafePath)
			}
			wantTree(t, dir, nil)
		})
	}
}

func second[T any](_ T, err error) error { return err }

// TestForgedState opens directories whose .galley somebody else wrote.
func TestForgedState(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	record := `"record":{"repository":"x/y","digest":"` + digest + `","files":[]}`
	for name, forge := range map[string]func(dir string){
		"stage elsewhere": func(dir string) {
			write(t, dir, ".galley/journal.json", `{"stage":"precious",`+record+`}`)
		},
		"stage above": func(dir string) {
			write(t, dir, ".galley/journal.json", `{"stage":".galley/stage-a/../../precious",`+record+`}`)
		},
		"move to a hook": func(dir string) {
			write(t, dir, ".galley/stage-a/0", "#!/bin/sh")
			write(t, dir, ".galley/journal.json", `{"stage":".galley/stage-a","moves":[{"staged":".galley/stage-a/0","path":".git/hooks/post-commit"}],`+record+`}`)
		},
		"move of another file": func(dir string) {
			write(t, dir, ".galley/journal.json", `{"stage":".galley/stage-a","moves":[{"staged":"precious/x","path":"y"}],`+record+`}`)
		},
		"remove above": func(dir string) {
			write(t, dir, ".galley/journal.json", `{"stage":".galley/stage-a","removes":[{"path":"../x"}],`+record+`}`)
		},
		"record above": func(dir string) {
			write(t, dir, ".galley/installed.json", `{"digest":"`+digest+`","files":[{"path":"../x","digest":"`+digest+`"}]}`)
		},
		"ignore file is a link": func(dir string) { link(t, dir, "../precious/x", ".galley/.gitignore") },
		"lock is a link":        func(dir string) { link(t, dir, "../precious/x", ".galley/lock") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "precious/x", "precious")
			write(t, dir, ".git/hooks/x", "")
			forge(dir)
			before := tree(t, dir)
			if w, err := oci.OpenWorkdir(t.Context(), dir); err == nil {
				w.Close()
				t.Error("opened")
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("files %q; want %q", after, before)
			}
		})
	}
}

func link(t testing.TB, dir, to, name string) {
	t.Helper()
	write(t, dir, ".galley/x", "")
	if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
