package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/lockedfile"

	"galley/manifest"
)

// allot returns a part of the spool to write size bytes to.
func (a *Archive) allot(size int64) (*os.File, int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spool == nil {
		a.removeLeftovers()
		f, err := a.temp()
		if err != nil {
			return nil, 0, err
		}
		// Nameless from now on, so that no kill leaves it behind. Windows
		// refuses that; there it is removed in the end, or a day later.
		os.Remove(f.Name())
		a.spool, a.spooled = f, make(map[digest.Digest]section)
	}
	at := a.end
	a.end += size
	return a.spool, at, nil
}

// tempPrefix begins the names of temporary files next to the archive.
func (a *Archive) tempPrefix() string { return "." + filepath.Base(a.name) + "-" }

// temp makes a temporary file next to the archive, with its directory.
func (a *Archive) temp() (*os.File, error) {
	dir := filepath.Dir(a.name)
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	perm := fs.FileMode(filePerm)
	if a.info != nil { // nobody reads what is to come who may not read what is there
		perm = a.info.Mode().Perm()
	}
	return os.OpenFile(filepath.Join(dir, a.tempPrefix()+rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}

// removeLeftovers removes temporary files of processes long dead. It is a
// courtesy: what it cannot remove stays.
func (a *Archive) removeLeftovers() {
	dir := filepath.Dir(a.name)
	found, _ := os.ReadDir(dir)
	for _, e := range found {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() &&
			strings.HasPrefix(e.Name(), a.tempPrefix()) && time.Since(info.ModTime()) > maxTempAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Flush writes the archive with everything that was pushed and tagged: to a
// temporary file next to it, which takes its place when it is whole and on
// disk. The same content gives the same bytes, whatever the order it came in.
// Without a change nothing is written. The error wraps [ErrChanged] when the
// file is no longer the one that was opened; it is left as it is then.
func (a *Archive) Flush(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dirty && len(a.spooled) == 0 {
		return nil
	}
	if err := a.flush(ctx); err != nil {
		return fmt.Errorf("write layout %q: %w", a.name, err)
	}
	return nil
}

func (a *Archive) flush(ctx context.Context) error {
	x, err := a.apply()
	if err != nil {
		return err
	}
	f, err := a.temp()
	if err != nil {
		return err
	}
	err = a.write(ctx, f, x)
	if err == nil {
		// Before the rename, or a power loss could leave an empty file there.
		err = f.Sync()
	}
	if err == nil && a.info != nil {
		err = f.Chmod(a.info.Mode().Perm()) // whatever umask made of it
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = a.replace(f.Name())
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	a.discard()
	a.dirty = false
	if err := a.load(); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(a.name))
	if err != nil {
		return err
	}
	defer root.Close()
	return syncDir(root, ".")
}

// replace puts a file in the archive's place, unless another process was faster.
func (a *Archive) replace(name string) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.unchanged(); err != nil {
		return err
	}
	if a.info == nil {
		// A link fails where a rename would replace what others just wrote
		// without the lock; not every file system has them.
		err := os.Link(name, a.name)
		if errors.Is(err, fs.ErrExist) {
			return ErrChanged
		}
		if err == nil {
			return os.Remove(name)
		}
	}
	return os.Rename(name, a.name)
}

// lock excludes other processes by a file next to the archive. It is removed
// in the end, because people look into that directory and copy it; who waited
// for a file that has no name by then locks the next one. Windows refuses to
// remove it while it is open, and there it stays, which does no harm.
func (a *Archive) lock() (unlock func(), err error) {
	name := filepath.Join(filepath.Dir(a.name), "."+filepath.Base(a.name)+".lock")
	for {
		// A link would lead the lock, and the file it makes, anywhere.
		if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("open %s: %w", name, errNotRegular)
		}
		f, err := lockedfile.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
		if err != nil {
			return nil, err
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if info, err := os.Lstat(name); err == nil && os.SameFile(mine, info) {
			return func() {
				os.Remove(name)
				f.Close()
			}, nil
		}
		f.Close()
	}
}

// discard forgets the spool.
func (a *Archive) discard() {
	if a.spool != nil {
		a.spool.Close()
		os.Remove(a.spool.Name()) // where it still has a name
	}
	a.spool, a.spooled, a.end = nil, nil, 0
}

// unchanged reports whether the file is still the one that was opened.
func (a *Archive) unchanged() error {
	info, err := os.Stat(a.name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.info == nil:
		return nil
	case err != nil:
		return err
	case a.info == nil || !a.same(info):
		return ErrChanged
	}
	return nil
}

// write writes the tar: the two files by which it is known, and the blobs in
// the order of their names.
func (a *Archive) write(ctx context.Context, to io.Writer, x index) error {
	var old *os.File
	if a.info != nil {
		var err error
		if old, err = a.open(); err != nil {
			return err
		}
		defer old.Close()
	}
	mark, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	w := tar.NewWriter(to)
	add := func(name string, r io.Reader, size int64) error {
		// Neither time, owner nor mode of this machine.
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.CopyN(w, manifest.ContextReader(ctx, r), size)
		return err
	}
	doc := slices.Concat(x.head, x.list, x.tail)
	if err := errors.Join(
		add(markFile, bytes.NewReader(mark), int64(len(mark))),
		add(indexFile, bytes.NewReader(doc), int64(len(doc))),
	); err != nil {
		return err
	}
	all := maps.Clone(a.blobs)
	if all == nil {
		all = make(map[digest.Digest]section)
	}
	maps.Copy(all, a.spooled)
	for _, dgst := range slices.Sorted(maps.Keys(all)) {
		file := old
		if _, ok := a.spooled[dgst]; ok {
			file = a.spool
		}
		name, err := blobName(dgst)
		if err != nil {
			return err
		}
		if err := add(name, io.NewSectionReader(file, all[dgst].at, all[dgst].size), all[dgst].size); err != nil {
			return fmt.Errorf("%s: %w", dgst, err)
		}
	}
	return w.Close()
}
