package oci_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci"
	"galley/oci/ocitest"
)

// stored puts a packed project into a layout, with a manifest that edit has
// changed, and returns the layout's directory.
func stored(t *testing.T, format manifest.Format, edit func(*manifest.Packed, string) string) (oci.Target, *manifest.Packed, string) {
	t.Helper()
	p := packProject(t, project("sklearn.ensemble"), manifest.PackOptions{Format: format})
	dir := filepath.Join(t.TempDir(), "layout")
	target := openTarget(t, "oci:"+dir)
	if err := oci.Copy(t.Context(), target, p, p.Root, oci.CopyOptions{Tags: []string{"good"}}); err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.ReadBlob(t.Context(), p, p.Root, "manifest", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc)
	if edit != nil {
		if text = edit(p, text); text == string(doc) {
			t.Fatal("the edit changed nothing")
		}
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(text), Size: int64(len(text))}
	if edit != nil {
		if err := target.Push(t.Context(), d, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Tag(t.Context(), d, "v1"); err != nil {
		t.Fatal(err)
	}
	return target, p, dir
}

// wantMismatches checks that err is of these mismatches and nothing else.
func wantMismatches(t *testing.T, err error, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Error(err)
		}
		return
	}
	e, ok := errors.AsType[*oci.MismatchError](err)
	if !ok || len(e.Mismatches) != len(want) {
		t.Fatalf("%v; want %d mismatches", err, len(want))
	}
	for i, m := range e.Mismatches {
		if !strings.Contains(m.Error(), want[i]) {
			t.Errorf("mismatch %d: %v; want %q", i, m, want[i])
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != len(want) {
		t.Errorf("%d lines; want %d:\n%v", n, len(want), err)
	}
}

func TestVerify(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	blob := func(p *manifest.Packed, i int) string {
		return filepath.Join("blobs", "sha256", p.Layers[i].Descriptor.Digest.Encoded())
	}
	for _, tt := range []struct {
		name   string
		format manifest.Format
		edit   func(*manifest.Packed, string) string
		spoil  func(t *testing.T, p *manifest.Packed, dir string)
		want   []string
	}{
		{name: "good"},
		{name: "good tar", format: manifest.FormatTar},
		{name: "good zstd", format: manifest.FormatTarZstd},
		{name: "good raw", format: manifest.FormatRaw},
		{
			name: "lying diffID",
			edit: func(p *manifest.Packed, doc string) string {
				return strings.ReplaceAll(doc, p.Layers[0].DiffID.Encoded(), zeros)
			},
			want: []string{"config: diffID of layer models", "layer models, uncompressed, is not what was promised: want sha256:" + zeros},
		},
		{
			name: "lying file digest",
			edit: func(p *manifest.Packed, doc string) string {
				return strings.ReplaceAll(doc, p.Layers[0].Files[0].Digest.Encoded(), zeros)
			},
			want: []string{modelFile + " is not what was promised"},
		},
		{
			name: "lying model digest",
			edit: func(p *manifest.Packed, doc string) string {
				return strings.Replace(doc, `"ml.galley.model.file.sha256":"`, `"ml.galley.model.file.sha256":"x\u001b`, 1)
			},
			want: []string{"model file is not what was promised"},
		},
		{
			name:  "altered layer",
			spoil: func(t *testing.T, p *manifest.Packed, dir string) { flip(t, filepath.Join(dir, blob(p, 0))) },
			want:  []string{"layer models is not what was promised"},
		},
		{
			name: "everything altered",
			spoil: func(t *testing.T, p *manifest.Packed, dir string) {
				for i := range p.Layers {
					flip(t, filepath.Join(dir, blob(p, i)))
				}
				flip(t, filepath.Join(dir, "blobs", "sha256", p.Manifest.Config.Digest.Encoded()))
			},
			want: []string{"config", "layer data/features.json", "layer data/summary.json", "layer models"},
		},
		{
			name: "missing and cut layers",
			spoil: func(t *testing.T, p *manifest.Packed, dir string) {
				err := errors.Join(os.Remove(filepath.Join(dir, blob(p, 0))), os.Truncate(filepath.Join(dir, blob(p, 1)), 3))
				if err != nil {
					t.Fatal(err)
				}
			},
			want: []string{"layer data/features.json", "layer models"},
		},
		{
			name: "altered manifest",
			spoil: func(t *testing.T, p *manifest.Packed, dir string) {
				flip(t, filepath.Join(dir, "blobs", "sha256", p.Root.Digest.Encoded()))
			},
			want: []string{"manifest"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			format := tt.format
			if format == "" {
				format = manifest.FormatTarGzip
			}
			target, p, dir := stored(t, format, tt.edit)
			if tt.spoil != nil {
				tt.spoil(t, p, dir)
			}
			v, err := oci.Verify(t.Context(), target, layoutRef(dir, "v1"), oci.VerifyOptions{})
			wantMismatches(t, err, tt.want...)
			if err == nil && (v.Files != 3 || v.Digest != p.Root.Digest || v.Size == 0) {
				t.Errorf("%+v", v)
			}
			if err != nil && strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%q steers a terminal", err)
			}
		})
	}
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyWantsTheDigest(t *testing.T) {
	target, p, dir := stored(t, manifest.FormatTarGzip, nil)
	ref := layoutRef(dir, "v1")
	if _, err := oci.Verify(t.Context(), target, ref, oci.VerifyOptions{Digest: p.Root.Digest}); err != nil {
		t.Error(err)
	}
	_, err := oci.Verify(t.Context(), target, ref, oci.VerifyOptions{Digest: digest.FromString("x")})
	wantMismatches(t, err, "the artifact is not what was promised")
	if _, err := oci.Verify(t.Context(), target, layoutRef(dir, "v2"), oci.VerifyOptions{}); !errors.Is(err, oci.ErrNotFound) || isA[*oci.MismatchError](err) {
		t.Errorf("unknown tag: %v", err)
	}
}

// TestVerifyTellsUnreadableFromWrong does not call a broken connection wrong.
func TestVerifyTellsUnreadableFromWrong(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("sklearn.ensemble"), manifest.PackOptions{})
	if err := oci.Copy(t.Context(), target, p, p.Root, oci.CopyOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		fault ocitest.Fault
		wrong bool
	}{{ocitest.None, false}, {ocitest.Alter, true}, {ocitest.WrongDigest, true}, {ocitest.Truncate, false}, {ocitest.Forbidden, false}} {
		r.Misbehave(tt.fault)
		_, err := oci.Verify(t.Context(), target, registryRef(r.Host, "ml/fraud", "v1"), oci.VerifyOptions{})
		if (err == nil) != (tt.fault == ocitest.None) || isA[*oci.MismatchError](err) != tt.wrong {
			t.Errorf("%s: %v; want a mismatch: %v", tt.fault, err, tt.wrong)
		}
	}
}

func TestVerifyDir(t *testing.T) {
	fsys := project("sklearn.ensemble")
	p := packProject(t, fsys, manifest.PackOptions{})
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string) error
		want  []string
	}{
		{name: "good"},
		{name: "files of one's own", spoil: func(t *testing.T, dir string) error {
			write(t, dir, "models/mine.joblib", "x")
			return nil
		}},
		{
			name: "altered, longer, missing and no files",
			spoil: func(t *testing.T, dir string) error {
				flip(t, filepath.Join(dir, modelFile))
				write(t, dir, "data/features.json", "longer than before, by all means")
				return os.Remove(filepath.Join(dir, "data/summary.json"))
			},
			want: []string{"data/features.json is not what was promised: want 17 bytes", "data/summary.json", modelFile},
		},
		{
			name: "a link in its place",
			spoil: func(t *testing.T, dir string) error {
				name := filepath.Join(dir, modelFile)
				return errors.Join(os.Rename(name, name+".real"), os.Symlink(filepath.Base(name)+".real", name))
			},
			want: []string{modelFile + " is not what was promised: want a regular file"},
		},
		{
			name: "a file for a directory",
			spoil: func(t *testing.T, dir string) error {
				return errors.Join(os.RemoveAll(filepath.Join(dir, "data")), os.WriteFile(filepath.Join(dir, "data"), nil, 0o666))
			},
			want: []string{"data/features.json", "data/summary.json"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := install(t, dir, p, p.Artifact, oci.InstallOptions{}); err != nil {
				t.Fatal(err)
			}
			if tt.spoil != nil {
				if err := tt.spoil(t, dir); err != nil {
					t.Fatal(err)
				}
			}
			// Nothing is written, so not even the lock comes back.
			if err := os.Remove(filepath.Join(dir, ".galley/lock")); err != nil {
				t.Fatal(err)
			}
			v, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{Digest: p.Root.Digest})
			wantMismatches(t, err, tt.want...)
			if v.Digest != p.Root.Digest || v.Files != 3 {
				t.Errorf("%+v", v)
			}
			if _, err := os.Stat(filepath.Join(dir, ".galley/lock")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("lock: %v", err)
			}
			_, err = oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{Digest: digest.FromString("x")})
			wantMismatches(t, err, append(append([]string{}, tt.want...), "the artifact")...)
		})
	}
}

func TestVerifyDirInterrupted(t *testing.T) {
	p := packProject(t, project("sklearn.ensemble"), manifest.PackOptions{})
	dir := t.TempDir()
	oci.InterruptCommit(t, dir, p, p.Artifact)
	_, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{CheckOnly: true})
	wantMismatches(t, err, fmt.Sprintf("the install of %s was interrupted", p.Root.Digest))
	if !isA[*oci.InterruptedError](err) {
		t.Errorf("%v; want an InterruptedError", err)
	}
	if left := tree(t, dir); len(left) > 0 {
		t.Errorf("checking installed %v", left)
	}
	v, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{})
	if err != nil || v.Files != 3 {
		t.Errorf("%+v, %v", v, err)
	}
	wantTree(t, dir, texts(project("sklearn.ensemble")))
}

func TestVerifyDirRefuses(t *testing.T) {
	empty := t.TempDir()
	if _, err := oci.VerifyDir(t.Context(), empty, oci.VerifyOptions{}); !errors.Is(err, oci.ErrNotInstalled) {
		t.Errorf("%v; want ErrNotInstalled", err)
	}
	if _, err := oci.VerifyDir(t.Context(), filepath.Join(empty, "none"), oci.VerifyOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v; want ErrNotExist", err)
	}
	for _, record := range []string{
		"{", `{"files":[{"path":"../../etc/passwd","digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`,
		`{"files":[{"path":"x","digest":"md5:1"}]}`, `{"files":[{"path":"x"}]}`,
	} {
		dir := t.TempDir()
		write(t, dir, ".galley/installed.json", record)
		if _, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{}); err == nil || isA[*oci.MismatchError](err) {
			t.Errorf("%s: %v; want an error that is no mismatch", record, err)
		}
	}
	dir := t.TempDir()
	write(t, dir, ".galley/journal.json", "{}")
	if _, err := oci.VerifyDir(t.Context(), dir, oci.VerifyOptions{}); err == nil {
		t.Error("a journal without a record verifies")
	}
}

func TestCat(t *testing.T) {
	target, _, _ := stored(t, manifest.FormatTarGzip, nil)
	m, err := oci.Read(t.Context(), target, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range texts(project("sklearn.ensemble")) {
		var b bytes.Buffer
		if err := oci.Cat(t.Context(), m, name, &b, nil); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v; want %q", name, &b, err, want)
		}
	}
	var b bytes.Buffer
	err = oci.Cat(t.Context(), m, "data/feature.json", &b, nil)
	e, ok := errors.AsType[*oci.UnknownFileError](err)
	if !ok || e.Files != 3 || len(e.Nearest) == 0 || e.Nearest[0] != "data/features.json" || b.Len() > 0 {
		t.Errorf("%v, %q", err, &b)
	}
	// Another tool's artifact may not list its files.
	m.Layers[0].Files = nil
	if err := oci.Cat(t.Context(), m, modelFile, &b, nil); err != nil || b.String() != texts(project("sklearn.ensemble"))[modelFile] {
		t.Errorf("unlisted: %q, %v", &b, err)
	}
	if err := oci.Cat(t.Context(), m, "models/none", &b, nil); !isA[*oci.UnknownFileError](err) {
		t.Errorf("%v; want an UnknownFileError", err)
	}
}

func TestCatFetchesOneLayer(t *testing.T) {
	target, r := newTarget(t)
	p := packProject(t, project("sklearn.ensemble"), manifest.PackOptions{})
	if err := oci.Copy(t.Context(), target, p, p.Root, oci.CopyOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	r.Requests()
	m, err := oci.Read(t.Context(), target, "v1")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := oci.Cat(t.Context(), m, "data/summary.json", &b, nil); err != nil {
		t.Fatal(err)
	}
	if got := r.Requests(); len(got) != 2 {
		t.Errorf("%d requests; want the manifest and a layer:\n%s", len(got), strings.Join(got, "\n"))
	}
	r.Misbehave(ocitest.Alter)
	if err := oci.Cat(t.Context(), m, "data/summary.json", &b, nil); !isA[*manifest.CorruptError](err) {
		t.Errorf("%v; want a CorruptError", err)
	}
}

// BenchmarkVerifyDir is what a container's entrypoint waits for: 10 MB.
func BenchmarkVerifyDir(b *testing.B) {
	fsys := project("sklearn.ensemble")
	fsys[modelFile].Data = append(fsys[modelFile].Data, make([]byte, 10<<20)...)
	p := packProject(b, fsys, manifest.PackOptions{})
	dir := b.TempDir()
	if _, err := install(b, dir, p, p.Artifact, oci.InstallOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(fsys[modelFile].Data)))
	for b.Loop() {
		if _, err := oci.VerifyDir(b.Context(), dir, oci.VerifyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
