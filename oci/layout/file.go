package layout

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
	"oras.land/oras-go/v2/errdef"
)

// Files and directories are made with these permissions before umask, so that
// a team may share a layout by its umask.
const (
	filePerm = 0o666
	dirPerm  = 0o777
)

// The names of files in stateDir begin with these: of temporary files, which
// belong to one process, and of uploads, which nobody holds.
const (
	tempPrefix   = stateDir + "/tmp-"
	uploadPrefix = stateDir + "/upload-"
)

// maxTempAge is how long one of them may go without a write before it counts
// as left by a killed process, or by a client that is gone.
const maxTempAge = 24 * time.Hour

var errNotRegular = errors.New("not a regular file")

// openFile opens a regular file for reading and returns its size in bytes.
func openFile(root *os.Root, name string) (*os.File, int64, error) {
	// Before opening, because opening a named pipe waits for its writer.
	info, err := root.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("open %s: %w", name, errNotRegular)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, size, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d: %w", name, size, limit, errdef.ErrSizeExceedsLimit)
	}
	var buf bytes.Buffer
	buf.Grow(int(size) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("read %s: more than %d bytes: %w", name, limit, errdef.ErrSizeExceedsLimit)
	}
	return buf.Bytes(), err
}

// writeFile replaces the file name with data; see [replaceFile].
func writeFile(root *os.Root, name string, data []byte) error {
	return replaceFile(root, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFile writes a file that is at name either whole and on disk, or not
// at all. An error of write is returned as it is.
func replaceFile(root *os.Root, name string, write func(io.Writer) error) error {
	temp := tempPrefix + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		// Before the rename, or a power loss could leave an empty file there.
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		root.Remove(temp) // what cannot be removed now is swept a day later
		return err
	}
	return syncDir(root, path.Dir(name))
}

// syncDir brings the entries of a directory to disk, as far as the system can:
// Windows and some network file systems cannot.
func syncDir(root *os.Root, name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

// makeDir makes one directory unless it exists.
func makeDir(root *os.Root, name string) error {
	err := root.Mkdir(name, dirPerm)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return syncDir(root, path.Dir(name))
}

// makeDirs is [os.MkdirAll], with every new directory's entry on disk.
func makeDirs(dir string) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || parent == dir {
		return err
	}
	if err := makeDirs(parent); err != nil {
		return err
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer root.Close()
	return makeDir(root, filepath.Base(dir))
}

// lock takes the layout's lock, which excludes other processes and other
// stores, and gives up when ctx ends first.
func (s *Store) lock(ctx context.Context, root *os.Root) (unlock func(), err error) {
	// First among the callers of this store, so that however many of them give
	// up, no more than one goroutine is left in the uninterruptible wait below.
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := makeLockFile(root); err != nil {
		<-s.busy
		return nil, err
	}
	type locked struct {
		unlock func()
		err    error
	}
	done := make(chan locked, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(filepath.Join(s.dir, filepath.FromSlash(lockFile))).Lock()
		done <- locked{unlock, err}
	}()
	release := func(l locked) {
		if l.err == nil {
			l.unlock()
		}
		<-s.busy
	}
	select {
	case l := <-done:
		if l.err != nil {
			release(l)
			return nil, l.err
		}
		return func() { release(l) }, nil
	case <-ctx.Done():
		go func() { release(<-done) }()
		return nil, ctx.Err()
	}
}

// makeLockFile sees to it that the lock file is a file in the layout:
// lockedfile opens it by path and would follow a link anywhere.
func makeLockFile(root *os.Root) error {
	info, err := root.Lstat(lockFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f, err := root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
		if errors.Is(err, fs.ErrExist) {
			return nil // by another process, just now
		}
		if err != nil {
			return err
		}
		return f.Close()
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("open %s: %w", lockFile, errNotRegular)
	}
	return nil
}

// sweepInterval is how often a store looks for leftovers, which are a day old.
const sweepInterval = time.Hour

// sweep removes leftovers now and then.
func (s *Store) sweep(root *os.Root) {
	last, now := s.swept.Load(), time.Now()
	if now.Sub(time.Unix(last, 0)) > sweepInterval && s.swept.CompareAndSwap(last, now.Unix()) {
		removeLeftovers(root)
	}
}

// removeLeftovers removes temporary files of processes long dead, and uploads
// that nobody went on with. It is a courtesy: what it cannot remove stays.
func removeLeftovers(root *os.Root) {
	d, err := root.Open(stateDir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		name = path.Join(stateDir, name)
		if !strings.HasPrefix(name, tempPrefix) && !strings.HasPrefix(name, uploadPrefix) {
			continue
		}
		if info, err := root.Lstat(name); err == nil && time.Since(info.ModTime()) > maxTempAge {
			root.Remove(name)
		}
	}
}
