package oci

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/lockedfile"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
)

// Names in a working directory. Everything galley keeps there lies below
// .galley, which no artifact may write to.
const (
	stateDir   = ".galley"
	ignoreFile = stateDir + "/.gitignore"
	lockFile   = stateDir + "/lock"
	recordFile = stateDir + "/installed.json"
	// manifestFile is the manifest of what is installed, which its digest
	// verifies; the record alone could say anything.
	manifestFile = stateDir + "/manifest.json"
	journalFile  = stateDir + "/journal.json"
	stagePrefix  = "stage-"
	// partialPrefix begins the names of unfinished downloads; see [partial].
	partialPrefix = "partial-"
	tmpSuffix     = ".tmp"
)

// Record is what galley last installed in a directory.
type Record struct {
	Repository string          `json:"repository"`        // as [Reference.Name] spells it
	Tag        string          `json:"tag,omitempty"`     // that was asked for
	Digest     digest.Digest   `json:"digest"`            // of the artifact
	Partial    bool            `json:"partial,omitempty"` // only some of the artifact's files
	Files      []InstalledFile `json:"files"`
}

// Paths returns the paths of the files.
func (r *Record) Paths() []string {
	paths := make([]string, 0, len(r.Files))
	for _, f := range r.Files {
		paths = append(paths, f.Path)
	}
	return paths
}

// InstalledFile is one file of a [Record].
type InstalledFile struct {
	Path   string        `json:"path"`
	Role   manifest.Role `json:"role,omitempty"`
	Size   int64         `json:"size"`
	Digest digest.Digest `json:"digest"`
}

// find returns the file at path, if galley installed it.
func (r *Record) find(path string) (InstalledFile, bool) {
	for _, f := range r.Files {
		if f.Path == path {
			return f, true
		}
	}
	return InstalledFile{}, false
}

// journal is an install whose files are staged and verified: what is left is
// renaming. It is synced before the first rename and removed after the last, so
// that an interrupted install is completed by whoever opens the directory next.
type journal struct {
	Stage   string  `json:"stage"`
	Moves   []move  `json:"moves"`
	Removes []move  `json:"removes"`
	Record  *Record `json:"record"`
}

// move puts a staged file at its path, or removes what is there. Before is what
// lay there when it was decided: a file that has changed since is a person's
// own and left alone.
type move struct {
	Staged string `json:"staged,omitempty"`
	Path   string `json:"path"`
	Before stamp  `json:"before"`
}

// stamp tells whether a file was touched. The zero value is no file.
type stamp struct {
	Size    int64     `json:"size,omitempty"`
	ModTime time.Time `json:"mtime,omitzero"`
}

// Workdir is a directory that artifacts are installed in, locked against other
// galley processes until it is closed. It is not safe for concurrent use.
type Workdir struct {
	Path string
	// Left names the files that an interrupted install was to replace and
	// that were changed since; they are as they were found.
	Left []string

	root   *os.Root
	unlock func()
	record *Record
}

// OpenWorkdir opens the directory, making it and its parents if they are
// missing, waits for other galley processes in it, and completes an install
// that was interrupted. The wait ends with ctx.
func OpenWorkdir(ctx context.Context, dir string) (*Workdir, error) {
	return openWorkdir(ctx, dir, nil)
}

// openWorkdir is OpenWorkdir, and calls waiting when it has to wait.
func openWorkdir(ctx context.Context, dir string, waiting func()) (*Workdir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	w := &Workdir{Path: dir, root: root}
	if err := w.open(ctx, waiting); err != nil {
		w.Close()
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	return w, nil
}

func (w *Workdir) open(ctx context.Context, waiting func()) error {
	if err := w.root.Mkdir(stateDir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A checkout may bring a .galley of its own. Nothing in it leads elsewhere.
	if info, err := w.root.Lstat(stateDir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a directory", stateDir)
	}
	for name, text := range map[string]string{ignoreFile: "*\n", lockFile: ""} {
		if err := w.ensure(name, text); err != nil {
			return err
		}
	}
	var err error
	if w.unlock, err = lock(ctx, filepath.Join(w.Path, filepath.FromSlash(lockFile)), waiting); err != nil {
		return err
	}
	if w.record, err = readRecord(w.root); err != nil {
		return err
	}
	if err := w.recover(); err != nil {
		return err
	}
	return w.sweep()
}

// ensure makes one of galley's own files where there is none.
func (w *Workdir) ensure(name, text string) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	info, serr := w.root.Lstat(name)
	switch {
	case serr != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", name)
	}
	return nil
}

// patience is how long a lock may take before it is said that it is waited for:
// most commands are done sooner.
const patience = time.Second

// lock takes the lock file, or gives up with ctx. It calls waiting, if that is
// not nil, where this takes long.
func lock(ctx context.Context, name string, waiting func()) (func(), error) {
	type result struct {
		unlock func()
		err    error
	}
	got := make(chan result, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(name).Lock()
		got <- result{unlock, err}
	}()
	long := time.NewTimer(patience)
	defer long.Stop()
	for {
		select {
		case r := <-got:
			return r.unlock, r.err
		case <-long.C:
			if waiting != nil {
				waiting()
			}
		case <-ctx.Done():
			go func() {
				if r := <-got; r.err == nil {
					r.unlock()
				}
			}()
			return nil, context.Cause(ctx)
		}
	}
}

// Close releases the directory.
func (w *Workdir) Close() error {
	if w.unlock != nil {
		w.unlock()
		w.unlock = nil
	}
	return w.root.Close()
}

// LinkError says that a directory in a path is a symbolic link that leads out
// of the directory to install in.
type LinkError struct{ Dir, Link string }

func (e *LinkError) Error() string {
	return fmt.Sprintf("install into %s: %s is a symbolic link that leads out of it", e.Dir, e.Link)
}

// failed puts an error about a file into words. An os.Root does not tell that
// it met a link that leads out.
func (w *Workdir) failed(file string, err error) error {
	if link := linkAbove(w.root, file); link != "" {
		return &LinkError{w.Path, link}
	}
	return fmt.Errorf("install into %s: %w", w.Path, err)
}

// linkAbove is the directory above file that is a link out of root, or nothing.
func linkAbove(root *os.Root, file string) string {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		info, err := root.Lstat(dir)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if _, err := root.Stat(dir); err != nil {
			return dir
		}
	}
	return ""
}

// ReadRecord returns what galley installed in the directory, or nil. It takes
// no lock and completes nothing.
func ReadRecord(dir string) (*Record, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readRecord(root)
}

// maxState bounds galley's own files in bytes.
const maxState = 64 << 20

func readRecord(root *os.Root) (*Record, error) {
	var r Record
	ok, err := readState(root, recordFile, &r)
	if !ok {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", recordFile, err)
	}
	return &r, nil
}

// check refuses a record that no install of galley's can have written.
func (r *Record) check() error {
	for _, f := range r.Files {
		if err := errors.Join(manifest.CheckPath(f.Path), f.Digest.Validate()); err != nil {
			return err
		}
	}
	return r.Digest.Validate()
}

// stageName is what newStage makes.
var stageName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^` + regexp.QuoteMeta(stateDir+"/"+stagePrefix) + `[a-z0-9]+$`)
})

// check refuses a journal that no install of galley's can have written, for it
// would be obeyed.
func (j *journal) check() error {
	if j.Record == nil || !stageName().MatchString(j.Stage) {
		return errors.New("not a journal of galley's")
	}
	for _, m := range j.Moves {
		number, ok := strings.CutPrefix(m.Staged, j.Stage+"/")
		if _, err := strconv.ParseUint(number, 10, 31); !ok || err != nil {
			return errors.New("not a journal of galley's")
		}
	}
	for _, m := range slices.Concat(j.Moves, j.Removes) {
		if err := manifest.CheckPath(m.Path); err != nil {
			return err
		}
	}
	return j.Record.check()
}

func readState(root *os.Root, name string, v any, believe ...func(fs.FileInfo) bool) (bool, error) {
	fail := func(err error) (bool, error) { return false, &StateError{name, err} }
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular(): // opening a pipe would wait for its writer
		return fail(errors.New("not a regular file"))
	}
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return false, err
	}
	for _, ok := range believe {
		if !ok(info) {
			return fail(errors.New("others may write it"))
		}
	}
	if err := json.NewDecoder(io.LimitReader(f, maxState)).Decode(v); err != nil {
		return fail(err)
	}
	return true, nil
}

// StateError says that one of galley's own files in a directory cannot be read. It
// does not unwrap: the end of a file is not that of a connection.
type StateError struct {
	File string // below the directory
	Err  error
}

func (e *StateError) Error() string { return fmt.Sprintf("read %s: %v", e.File, e.Err) }

// maxSyncs is how many files and directories are brought to the disk at once: what
// is asked for together, a file system does together.
const maxSyncs = 8

// writeState replaces one of galley's own files so that a reader sees the old
// or the new one, whatever happens. When it does, the names in these directories are
// durable.
func (w *Workdir) writeState(name string, v any, dirs ...string) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := name + tmpSuffix
	f, err := w.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	var g errgroup.Group
	g.SetLimit(maxSyncs)
	g.Go(f.Sync)
	for _, dir := range dirs {
		g.Go(func() error { return w.syncDir(dir) })
	}
	if err = errors.Join(err, g.Wait(), f.Close()); err != nil {
		return err
	}
	if err := w.root.Rename(tmp, name); err != nil {
		return err
	}
	return w.syncDir(path.Dir(name))
}

// syncFile makes the bytes of a file durable.
func (w *Workdir) syncFile(name string) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable, where the system can.
func (w *Workdir) syncDir(dir string) error {
	d, err := w.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // not every system or file system syncs directories
	return nil
}

// newStage makes a directory for files that are not verified yet.
func (w *Workdir) newStage() (string, error) {
	name := stateDir + "/" + stagePrefix + strings.ToLower(rand.Text()[:12])
	return name, w.root.Mkdir(name, 0o777)
}

// sweep removes what interrupted installs staged and never finished, and
// downloads that nobody has continued for long.
func (w *Workdir) sweep() error {
	entries, err := fs.ReadDir(w.root.FS(), stateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stagePrefix) || strings.HasSuffix(e.Name(), tmpSuffix) {
			err = errors.Join(err, w.root.RemoveAll(stateDir+"/"+e.Name()))
		}
	}
	old := time.Now().Add(-partialAge)
	return errors.Join(err, w.dropPartials(func(info fs.FileInfo) bool { return info.ModTime().Before(old) }))
}

// all is what there is.
func all(fs.FileInfo) bool { return true }

// dropPartials removes the downloads of which drop says so.
func (w *Workdir) dropPartials(drop func(fs.FileInfo) bool) error {
	entries, err := fs.ReadDir(w.root.FS(), stateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), partialPrefix) {
			continue
		}
		if info, ierr := e.Info(); ierr == nil && drop(info) {
			err = errors.Join(err, w.root.RemoveAll(stateDir+"/"+e.Name()))
		}
	}
	return err
}

// commit makes a staged install real. From the moment the journal is there it
// will be completed, by this process or the next.
func (w *Workdir) commit(j *journal) error {
	if err := w.writeState(journalFile, j); err != nil {
		return err
	}
	return w.apply(j)
}

// recover completes an interrupted install.
func (w *Workdir) recover() error {
	var j journal
	ok, err := readState(w.root, journalFile, &j)
	if !ok {
		return err
	}
	if err := j.check(); err != nil {
		return fmt.Errorf("read %s: %w", journalFile, err)
	}
	return w.apply(&j)
}

// apply does what the journal says, as often as it is asked.
func (w *Workdir) apply(j *journal) error {
	// What goes makes room: a file may have become a directory.
	for _, m := range j.Removes {
		if now, err := w.stamp(m.Path); err != nil || now != m.Before || now == (stamp{}) {
			continue
		}
		if err := w.root.Remove(m.Path); err != nil {
			return err
		}
		w.removeEmpty(path.Dir(m.Path))
	}
	dirs := make(map[string]bool)
	for _, m := range j.Moves {
		if err := w.install(m); err != nil {
			return err
		}
		dirs[path.Dir(m.Path)] = true
	}
	if err := w.writeState(recordFile, j.Record, slices.Collect(maps.Keys(dirs))...); err != nil {
		return err
	}
	w.record = j.Record
	if err := w.root.Remove(journalFile); err != nil {
		return err
	}
	return w.root.RemoveAll(j.Stage)
}

// install renames one staged file into place. A staged file that is gone was
// renamed before the interruption.
func (w *Workdir) install(m move) error {
	if _, err := w.root.Lstat(m.Staged); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	now, err := w.stamp(m.Path)
	if err != nil {
		return err
	}
	if now != m.Before {
		w.Left = append(w.Left, m.Path)
		return nil
	}
	if dir := path.Dir(m.Path); dir != "." {
		if err := w.root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	return w.root.Rename(m.Staged, m.Path)
}

// stamp looks at what lies at path. A directory, or a file where a directory
// would have to be, is nothing: what is in the way goes before a file comes.
func (w *Workdir) stamp(name string) (stamp, error) {
	info, err := w.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	if info.IsDir() {
		return stamp{}, nil
	}
	return stamp{Size: info.Size(), ModTime: info.ModTime().UTC()}, nil
}

// removeEmpty removes dir and its parents as far as they are empty.
func (w *Workdir) removeEmpty(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		if w.root.Remove(dir) != nil {
			return
		}
	}
}
