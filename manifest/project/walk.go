package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"galley/manifest/joblib"
)

// The bounds of the search below each directory.
const (
	maxDepth   = 4
	maxEntries = 10_000
)

// places are where a training job leaves its files.
func places() []string { return []string{"models", "artifacts", "data", "."} }

// file is one that was looked at.
type file struct {
	path    string
	target  string // what a symbolic link leads to, when that is a path in the project
	open    func() (fs.File, error)
	size    int64
	peek    joblib.Peek
	verdict verdict
	what    string // it, in a few words
	err     error  // why it cannot be taken

	artifact func() string // the model that it names, if it is a summary
}

func (f *file) dir() string  { return path.Dir(f.path) }
func (f *file) base() string { return path.Base(f.path) }

// probe looks at what open opens. Every error is the file's own.
func probe(name string, open func() (fs.File, error)) *file {
	f := &file{path: name, open: open}
	f.artifact = sync.OnceValue(f.modelArtifact)
	err := func() error {
		src, err := open()
		if err != nil {
			return err
		}
		defer src.Close()
		info, err := src.Stat()
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return fmt.Errorf("is a directory: %w", ErrNotRegular)
		case !info.Mode().IsRegular():
			return fmt.Errorf("is a special file: %w", ErrNotRegular)
		}
		f.size = info.Size()
		f.peek, err = joblib.Look(src)
		return err
	}()
	if err != nil {
		// The path stands in the message already.
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		f.err = &FileError{Path: name, Err: err}
		f.what = err.Error()
		return f
	}
	f.verdict, f.what = judge(f.peek)
	return f
}

// at looks at a file of the project, opening it only where the name leads to
// a regular one: opening a named pipe would wait for a writer.
func (f *finder) at(name string) *file {
	open := func() (fs.File, error) { return f.fsys.Open(name) }
	if info, err := fs.Stat(f.fsys, name); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		open = func() (fs.File, error) { return nil, fmt.Errorf("is a special file: %w", ErrNotRegular) }
	}
	found := probe(name, open)
	if to, err := fs.ReadLink(f.fsys, name); err == nil {
		found.target = path.Join(path.Dir(name), to)
	}
	return found
}

// taken reports why f cannot be taken for a file of an artifact that is read
// by galley or by the application, or nothing.
func (f *file) taken() error {
	cause := error(nil)
	switch {
	case f.err != nil:
		return f.err
	case f.peek.Format == joblib.Pointer:
		cause = ErrPointer
	case f.peek.Format == joblib.HTML:
		cause = ErrPage
	case f.size == 0:
		cause = ErrEmpty
	default:
		return nil
	}
	return &FileError{Path: f.path, Err: cause}
}

// search looks at every file of the places, and at those in the directory of
// galley.yaml's model.
func (f *finder) search(ctx context.Context) error {
	dirs := places()
	top, _, _ := strings.Cut(f.config.Files.Model, "/")
	if dir := path.Dir(f.config.Files.Model); !isPattern(dir) && dir != "." && !slices.Contains(dirs, top) {
		dirs = append(dirs, dir)
	}
	for i, dir := range dirs {
		info, err := fs.Stat(f.fsys, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.leave(dir+"/", fmt.Sprintf("not searched: %v", err))
		}
		if err != nil || !info.IsDir() {
			continue
		}
		depth, budget := 1, maxEntries
		if i >= slices.Index(dirs, ".") {
			depth = 0
		}
		if err := f.walk(ctx, dir, depth, &budget); err != nil {
			return err
		}
	}
	return nil
}

// walk looks at the files in dir and, unless depth is 0, below. A directory with more entries than
// the budget is passed over whole, so that what is found does not depend on
// the order in which a system lists it.
func (f *finder) walk(ctx context.Context, dir string, depth int, budget *int) error {
	entries, err := readDir(f.fsys, dir, *budget)
	switch {
	case errors.Is(err, errTooMany):
		f.leave(dir+"/", fmt.Sprintf("not searched: more than %d entries", maxEntries))
		return nil
	case err != nil:
		f.leave(dir+"/", fmt.Sprintf("not searched: %v", err))
		return nil
	}
	*budget -= len(entries)
	for _, e := range entries {
		if e.Name() == "pyvenv.cfg" {
			return nil // a virtual environment
		}
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name := path.Join(dir, e.Name())
		switch {
		case skipped(e.Name()):
		case !e.IsDir():
			found := f.at(name)
			if errors.Is(found.err, ErrNotRegular) {
				if depth > 0 {
					f.leave(name, "a linked directory or a special file")
				}
				continue
			}
			f.seen = append(f.seen, found)
		case depth == 0:
		case depth == maxDepth:
			f.leave(name+"/", fmt.Sprintf("not searched: deeper than %d directories", maxDepth))
		default:
			if err := f.walk(ctx, name, depth+1, budget); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipped reports whether an entry is never looked at: hidden, or what Python
// and its tools put beside a project.
func skipped(name string) bool {
	switch name {
	case "node_modules", "__pycache__", "mlruns", "venv", "site-packages":
		return true
	}
	return strings.HasPrefix(name, ".")
}

var errTooMany = errors.New("too many entries")

// readDir is fs.ReadDir, but stops reading after max entries, with errTooMany.
func readDir(fsys fs.FS, dir string, max int) ([]fs.DirEntry, error) {
	d, err := fsys.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, ok := d.(fs.ReadDirFile)
	if !ok {
		return nil, ErrNotRegular
	}
	entries, err := list.ReadDir(max + 1)
	for err == nil && len(entries) <= max {
		var more []fs.DirEntry
		more, err = list.ReadDir(max + 1 - len(entries))
		entries = append(entries, more...)
	}
	if len(entries) > max {
		return nil, errTooMany
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	sortEntries(entries)
	return entries, nil
}
