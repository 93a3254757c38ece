//go:build linux || darwin

package oci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"galley/manifest"
)

// later is a clock by which files that were written just now are old.
func later() time.Time { return time.Now().Add(time.Minute) }

// cachedFile is a model in a directory of its own.
type cachedFile struct{ dir string }

func newCachedFile(t *testing.T, text string) *cachedFile {
	t.Helper()
	f := &cachedFile{dir: t.TempDir()}
	if err := os.WriteFile(f.name(), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *cachedFile) name() string { return filepath.Join(f.dir, "m") }

// pack packs the model and returns how many bytes of it were read.
func (f *cachedFile) pack(t *testing.T, c *FileCache) (p *manifest.Packed, read int) {
	t.Helper()
	o := manifest.PackOptions{Cache: c, Read: func(_ string, _ int64, n int) { read += n }}
	p, err := manifest.Pack(t.Context(), []manifest.Input{manifest.FromFS(os.DirFS(f.dir), "m", "models/m", manifest.RoleModel)}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, read
}

// id is what the system tells of the file.
func (f *cachedFile) id(t *testing.T) string {
	t.Helper()
	info, err := os.Stat(f.name())
	if err != nil {
		t.Fatal(err)
	}
	id, _, ok := inode(info)
	if !ok {
		t.Fatal("the system tells no inode")
	}
	return id
}

// untouched sets the file's time back to what it was, so that only the system
// can tell, and waits for the clock of the file system to move on.
func (f *cachedFile) untouched(t *testing.T, was fs.FileInfo, id string) {
	t.Helper()
	for {
		if err := os.Chtimes(f.name(), was.ModTime(), was.ModTime()); err != nil {
			t.Fatal(err)
		}
		if f.id(t) != id {
			return
		}
	}
}

// TestFileCache reads an unchanged model once, and every other again.
func TestFileCache(t *testing.T) {
	const honest, other = "\x80\x04\x8c\x0fa fitted forest\x94.", "cos\nsystem\n(S'id'\ntR."
	if len(honest) != len(other) {
		t.Fatal("the sizes tell the files")
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, f *cachedFile, c *FileCache)
		text   string // that is packed then
		cached bool
	}{
		{"nothing", func(*testing.T, *cachedFile, *FileCache) {}, honest, true},
		{"written in place", func(t *testing.T, f *cachedFile, _ *FileCache) {
			if err := os.WriteFile(f.name(), []byte(other), 0o666); err != nil {
				t.Fatal(err)
			}
		}, other, false},
		{"replaced", func(t *testing.T, f *cachedFile, _ *FileCache) {
			if err := errors.Join(os.WriteFile(f.name()+".new", []byte(other), 0o666), os.Rename(f.name()+".new", f.name())); err != nil {
				t.Fatal(err)
			}
		}, other, false},
		{"touched", func(*testing.T, *cachedFile, *FileCache) {}, honest, false},
		{"young", func(_ *testing.T, _ *cachedFile, c *FileCache) { c.now = time.Now }, honest, false},
		{"clock set back", func(_ *testing.T, _ *cachedFile, c *FileCache) {
			c.now = func() time.Time { return time.Now().Add(-time.Hour) }
		}, honest, false},
		{"another build", func(_ *testing.T, _ *cachedFile, c *FileCache) { c.program = "another" }, honest, false},
		{"record that others write", func(t *testing.T, _ *cachedFile, c *FileCache) {
			eachRecord(t, c, func(name string) error { return os.Chmod(name, 0o666) })
		}, honest, false},
		{"record that is a link", func(t *testing.T, _ *cachedFile, c *FileCache) {
			eachRecord(t, c, func(name string) error {
				return errors.Join(os.Rename(name, name+".real"), os.Symlink(name+".real", name))
			})
		}, honest, false},
		{"record that is a directory", func(t *testing.T, _ *cachedFile, c *FileCache) {
			eachRecord(t, c, func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) })
		}, honest, false},
		{"record that is cut", func(t *testing.T, _ *cachedFile, c *FileCache) {
			eachRecord(t, c, func(name string) error { return os.Truncate(name, 20) })
		}, honest, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, c := newCachedFile(t, honest), newFileCache(t.TempDir(), "this", later)
			first, read := f.pack(t, c)
			if read != len(honest) {
				t.Fatalf("%d bytes read at first; want %d", read, len(honest))
			}
			was, err := os.Stat(f.name())
			if err != nil {
				t.Fatal(err)
			}
			id := f.id(t)
			tt.change(t, f, c)
			if tt.name == "touched" || tt.text == other {
				// With the same size and the same time.
				f.untouched(t, was, id)
			}
			p, read := f.pack(t, c)
			if want := len(honest); tt.cached && read != 0 || !tt.cached && read != want {
				t.Errorf("%d bytes read again", read)
			}
			if same := p.Root.Digest == first.Root.Digest; same != (tt.text == honest) {
				t.Errorf("the same artifact: %v", same)
			}
			if tt.text == other && !p.Scans[0].Verdict().Refused(false) {
				t.Errorf("%s lets a dangerous file through: %s", tt.name, p.Scans[0].Verdict())
			}
		})
	}
}

// eachRecord does something to every record of the cache, of which there must be
// one.
func eachRecord(t *testing.T, c *FileCache, f func(string) error) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d records, %v", len(names), err)
	}
	for _, name := range names {
		if err := f(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFileCachePlace has no place, one that cannot be, and one that is full.
func TestFileCachePlace(t *testing.T) {
	f := newCachedFile(t, "\x80\x04\x8c\x03one\x94.")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	var none *FileCache
	for name, c := range map[string]*FileCache{"none": none, "a file": newFileCache(filepath.Join(file, "x"), "this", later)} {
		for range 2 {
			if _, read := f.pack(t, c); read == 0 {
				t.Errorf("%s: the model was not read", name)
			}
		}
	}

	c := newFileCache(filepath.Join(t.TempDir(), "new"), "this", later)
	c.limit = 10_000
	for i := range 10 {
		f := newCachedFile(t, strings.Repeat("x", i+1))
		f.pack(t, c)
		if _, read := f.pack(t, c); read != 0 {
			t.Errorf("file %d was read again", i)
		}
	}
	var total int64
	eachRecord(t, c, func(name string) error {
		info, err := os.Stat(name)
		if err == nil {
			total += info.Size()
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		return err
	})
	if total > c.limit {
		t.Errorf("%d bytes of records; want at most %d", total, c.limit)
	}
}

// TestNewFileCache finds its place, and tells this program from others.
func TestNewFileCache(t *testing.T) {
	dir := t.TempDir()
	c := NewFileCache(func(name string) string { return map[string]string{"GALLEY_CACHE": dir}[name] })
	if c == nil || c.dir != filepath.Join(dir, "files") || !strings.Contains(c.program, "inode ") {
		t.Errorf("%+v", c)
	}
}
