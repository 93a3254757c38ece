package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/joblib"
)

// InstallOptions say how [Workdir.Install] treats what it finds.
type InstallOptions struct {
	// Only limits the install to the files that one of these patterns
	// matches; see [Match]. Empty: all.
	Only []string
	// Force replaces files that are a person's own.
	Force bool
	// Allow lists globals of pickles, as module:name, that somebody here has
	// looked at; what the artifact says to be allowed does not count. Strict
	// refuses what needs review. Unsafe installs whatever is in the files.
	Allow          []string
	Strict, Unsafe bool
	// Clean reports which of the paths below dir are committed in version
	// control as they are, so that replacing them loses nothing. Nil: none.
	Clean func(ctx context.Context, dir string, paths []string) map[string]bool
	// NoCache reads every file that is there to compare it, also where it was
	// seen as it is before.
	NoCache bool
	// Waiting is called if another galley process is at work in the directory
	// and has to be waited for. Nil: nobody is told.
	Waiting func()
	// Concurrency is how many requests run at once; 0: [DefaultConcurrency].
	Concurrency int
	Progress    Progress

	tuned *tuning // by tests; nil: as it is in use
}

// Installed is what an install did, each list in the order of paths.
type Installed struct {
	Digest  digest.Digest // of the artifact
	Written []string      // new or replaced
	Kept    []string      // were there already, with the right bytes
	Removed []string      // of the previous install, not in this artifact
	Left    []string      // of the previous install, but changed since
	Changed []string      // were to be replaced by an interrupted install; see [Workdir.Left]
	// Scans are what is in the files that were fetched or kept; of files that
	// were kept and seen before, only where there is something to tell.
	Scans []manifest.Scan
}

// OverwriteError says that an install would replace files that are neither
// galley's nor safe elsewhere.
type OverwriteError struct {
	Dir   string
	Paths []string
}

func (e *OverwriteError) Error() string {
	return fmt.Sprintf("install into %s: would overwrite %s, which galley did not put there", e.Dir, strings.Join(e.Paths, ", "))
}

// NoMatchError says that no file of the artifact matches the patterns.
type NoMatchError struct {
	Patterns []string
	Paths    []string // what there is
}

func (e *NoMatchError) Error() string {
	return fmt.Sprintf("no file matches %s; the artifact holds %s", strings.Join(e.Patterns, ", "), strings.Join(e.Paths, ", "))
}

// Match reports whether a pattern of --only means the file: it names the whole
// path, a directory above it, or, where the pattern has no slash, its last
// element. Stars do not match slashes; see [path.Match].
func Match(pattern, file string) bool {
	pattern = strings.TrimSuffix(pattern, "/")
	if !strings.Contains(pattern, "/") {
		if ok, err := path.Match(pattern, path.Base(file)); ok && err == nil {
			return true
		}
	}
	for p := file; p != "."; p = path.Dir(p) {
		if ok, err := path.Match(pattern, p); ok && err == nil {
			return true
		}
	}
	return false
}

// installer is one install under way.
type installer struct {
	w     *Workdir
	a     *manifest.Artifact
	o     InstallOptions
	src   *downloader
	seen  *sightings
	stage string
	next  atomic.Int64 // number of the next staged file

	mu     sync.Mutex
	staged map[string]stagedFile // by path
	done   Installed
}

// stagedFile is a verified file on its way to its path.
type stagedFile struct {
	InstalledFile
	name  string          // below the root; empty: already in place
	layer *manifest.Layer // of which the download becomes the file; else nil
}

// Install puts the artifact's files in the directory. Everything is fetched
// next to them and verified before the first file gets its name; layers of which
// all files are there and right are not fetched.
//
// A registry that cuts the connection is asked for the rest. What there is of a
// large layer when an install fails or is killed is kept for the next one, for a
// week at most, unless it came so fast that it is not worth it; the largest come
// over several connections where one is slow. Where the bytes of a layer turn out
// to be wrong, it is fetched once more.
//
// Files that may be unpickled are scanned on their way; those that are refused are
// a [*manifest.UnsafeError]. It returns an [*OverwriteError] before anything is
// fetched, where the manifest tells enough, and in any case before anything is
// replaced. On any error the directory is as it was. The record will
// name ref.
func (w *Workdir) Install(ctx context.Context, src manifest.Fetcher, a *manifest.Artifact, ref Reference, o InstallOptions) (Installed, error) {
	i := newInstaller(w, src, a, o)
	j, err := i.prepare(ctx, ref)
	if err != nil {
		return Installed{}, err
	}
	if err := i.commit(j); err != nil {
		return Installed{}, fmt.Errorf("install into %s: %w", w.Path, err)
	}
	i.seen.save(i.done.Kept)
	return i.done, nil
}

// keepManifest keeps the manifest beside the record, if it can. Without it the next
// pull asks the registry.
func keepManifest(ctx context.Context, root *os.Root, src manifest.Fetcher, a *manifest.Artifact) {
	if readManifest(root, a.Root.Digest) != nil {
		return
	}
	if doc, err := manifest.ReadBlob(ctx, src, a.Root, "manifest", maxManifest); err == nil {
		_ = keepState(root, manifestFile, doc, 0o666)
	}
}

// readManifest returns the artifact of that digest if its manifest was kept.
func readManifest(root *os.Root, want digest.Digest) *manifest.Artifact {
	info, err := root.Lstat(manifestFile)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxManifest || want.Validate() != nil {
		return nil
	}
	doc, err := root.ReadFile(manifestFile)
	if err != nil || want.Algorithm().FromBytes(doc) != want {
		return nil
	}
	a, err := manifest.Parse(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: want, Size: int64(len(doc))}, doc)
	if err != nil {
		return nil
	}
	return a
}

func newInstaller(w *Workdir, src manifest.Fetcher, a *manifest.Artifact, o InstallOptions) *installer {
	i := &installer{w: w, a: a, o: o, staged: make(map[string]stagedFile)}
	i.src, i.seen = newDownloader(src, w.root, o), loadSightings(w.root, o)
	i.done.Digest, i.done.Changed = a.Root.Digest, w.Left
	return i
}

// prepare fetches and verifies what is needed, and returns what is to be done
// with it. On an error nothing is left behind.
func (i *installer) prepare(ctx context.Context, ref Reference) (*journal, error) {
	layers, err := i.plan(ctx)
	if err != nil {
		return nil, err
	}
	if i.stage, err = i.w.newStage(); err != nil {
		return nil, fmt.Errorf("install into %s: %w", i.w.Path, err)
	}
	if err = i.fetch(ctx, layers); err == nil {
		err = i.checkStaged(ctx)
	}
	if err == nil {
		err = i.scanKept(ctx)
	}
	if err == nil {
		err = i.o.checkScans(i.done.Scans)
	}
	if err == nil {
		err = i.settle()
	}
	var j *journal
	if err == nil {
		j, err = i.journal(ctx, ref)
	}
	if err == nil {
		return j, nil
	}
	if isDiskFull(err) { // what is kept would fill it for everybody else
		err = errors.Join(err, i.w.dropPartials(all))
	}
	return nil, errors.Join(err, i.w.root.RemoveAll(i.stage))
}

// settle makes the staged files durable. Until then what was downloaded would
// serve the next install, should this one fail; now it goes, before the system
// comes to write it to the disk with them.
func (i *installer) settle() error {
	for _, s := range i.staged {
		if s.layer == nil {
			continue
		}
		if err := i.src.release(s.layer, s.name); err != nil {
			return fmt.Errorf("write %s: %w", s.Path, err)
		}
	}
	if err := i.w.dropPartials(all); err != nil {
		return fmt.Errorf("install into %s: %w", i.w.Path, err)
	}
	var g errgroup.Group
	g.SetLimit(maxSyncs)
	g.Go(func() error { return i.w.syncDir(i.stage) })
	for _, s := range i.staged {
		if s.name == "" {
			continue
		}
		g.Go(func() error {
			if err := i.w.syncFile(s.name); err != nil {
				return fmt.Errorf("write %s: %w", s.Path, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// wanted reports whether the file is among those asked for.
func (i *installer) wanted(file string) bool {
	return len(i.o.Only) == 0 || slices.ContainsFunc(i.o.Only, func(p string) bool { return Match(p, file) })
}

// plan decides which layers to fetch, and refuses to overwrite.
func (i *installer) plan(ctx context.Context) ([]*manifest.Layer, error) {
	states, err := i.lookAll(ctx)
	if err != nil {
		return nil, err
	}
	var layers []*manifest.Layer
	var foreign, all []string
	known := true
	for n := range i.a.Layers {
		l := &i.a.Layers[n]
		known = known && l.Files != nil
		needed := l.Files == nil
		for _, f := range l.Files {
			all = append(all, f.Path)
			if !i.wanted(f.Path) {
				continue
			}
			s := states[f.Path]
			if s == personal {
				foreign = append(foreign, f.Path)
			}
			needed = needed || s != right
		}
		if needed {
			layers = append(layers, l)
		}
	}
	if known && !slices.ContainsFunc(all, i.wanted) {
		return nil, &NoMatchError{i.o.Only, all}
	}
	return layers, i.refuse(ctx, foreign)
}

// lookAll looks at every path where a file is to go, at several at once: most
// of it is hashing.
func (i *installer) lookAll(ctx context.Context) (map[string]state, error) {
	states := make(map[string]state)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for f := range i.a.Files() {
		if !i.wanted(f.Path) {
			continue
		}
		g.Go(func() error {
			s, err := i.look(ctx, f)
			mu.Lock()
			defer mu.Unlock()
			states[f.Path] = s
			return err
		})
	}
	return states, g.Wait()
}

// state is what lies at a path where a file is to go.
type state int

const (
	replaceable state = iota // nothing, or an earlier install
	right                    // the very bytes
	undecided                // only the layer tells whether these are the bytes
	personal                 // anything else
)

// look compares what lies at f's path with f.
func (i *installer) look(ctx context.Context, f manifest.File) (state, error) {
	info, err := i.w.root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replaceable, nil
	case errors.Is(err, syscall.ENOTDIR):
		return i.lookAbove(ctx, f.Path)
	case err != nil:
		return 0, i.w.failed(f.Path, err)
	case info.IsDir():
		return i.lookBelow(ctx, f.Path)
	case !info.Mode().IsRegular():
		return personal, nil
	}
	previous, ours := i.previous(f.Path)
	want := f.Digest
	if want == "" && ours && i.w.record.Digest == i.a.Root.Digest {
		want = previous.Digest // another tool's artifact: the record knows
	}
	sizeFits := f.Size < 0 || f.Size == info.Size()
	if want == "" && sizeFits {
		return undecided, nil
	}
	if !sizeFits && (!ours || previous.Size != info.Size()) {
		return personal, nil // no need to read it to know that it differs
	}
	have, err := i.seen.digest(ctx, f.Path)
	switch {
	case err != nil:
		return 0, i.w.failed(f.Path, err)
	case have == want:
		i.keep(f, info.Size(), have)
		return right, nil
	case ours && have == previous.Digest:
		return replaceable, nil
	}
	return personal, nil
}

// BlockedError says that something other than a file is where a file has to go,
// or a file where a directory has to be, and that galley did not put it there.
type BlockedError struct{ Dir, Path, By string }

func (e *BlockedError) Error() string {
	return fmt.Sprintf("install into %s: %s cannot be written: %s is in the way", e.Dir, e.Path, e.By)
}

// lookAbove decides about a path that would lie below a file: that may go, if
// it is galley's, as it was left, and so not in this artifact.
func (i *installer) lookAbove(ctx context.Context, file string) (state, error) {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if info, err := i.w.root.Lstat(dir); err != nil || info.IsDir() {
			continue
		}
		if goes, err := i.goes(ctx, dir); err != nil || goes {
			return replaceable, err
		}
		return 0, &BlockedError{i.w.Path, file, "the file " + dir}
	}
	return 0, &BlockedError{i.w.Path, file, "a file"}
}

// lookBelow decides about a path where a directory is: every file in it has to
// go, and every directory with its files.
func (i *installer) lookBelow(ctx context.Context, file string) (state, error) {
	empty := make(map[string]bool) // directories that no file's going removes
	err := fs.WalkDir(i.w.root.FS(), file, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			empty[p] = true
			return nil
		}
		goes, err := i.goes(ctx, p)
		if err == nil && !goes {
			err = &BlockedError{i.w.Path, file, p}
		}
		for dir := path.Dir(p); empty[dir]; dir = path.Dir(dir) {
			delete(empty, dir)
		}
		return err
	})
	if err == nil && len(empty) > 0 {
		err = &BlockedError{i.w.Path, file, "a directory"}
	}
	return replaceable, err
}

// goes reports whether the file is of the previous install and unchanged, so
// that it is removed where this artifact lacks it.
func (i *installer) goes(ctx context.Context, file string) (bool, error) {
	previous, ours := i.previous(file)
	if !ours || len(i.o.Only) > 0 {
		return false, nil
	}
	have, err := i.seen.digest(ctx, file)
	return have == previous.Digest, err
}

func (i *installer) previous(path string) (InstalledFile, bool) {
	if i.w.record == nil {
		return InstalledFile{}, false
	}
	return i.w.record.find(path)
}

func (i *installer) keep(f manifest.File, size int64, d digest.Digest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.staged[f.Path] = stagedFile{InstalledFile: InstalledFile{f.Path, f.Role, size, d}}
	i.done.Kept = append(i.done.Kept, f.Path)
}

// refuse fails if any of the paths holds a person's own file.
func (i *installer) refuse(ctx context.Context, paths []string) error {
	if len(paths) == 0 || i.o.Force {
		return nil
	}
	if i.o.Clean != nil {
		clean := i.o.Clean(ctx, i.w.Path, paths)
		paths = slices.DeleteFunc(paths, func(p string) bool { return clean[p] })
	}
	if len(paths) == 0 {
		return nil
	}
	slices.Sort(paths)
	return &OverwriteError{i.w.Path, paths}
}

// fetch stages the layers' files.
func (i *installer) fetch(ctx context.Context, layers []*manifest.Layer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmpOr(i.o.Concurrency, DefaultConcurrency))
	for _, l := range layers {
		g.Go(func() error { return i.fetchLayer(ctx, l) })
	}
	return g.Wait()
}

// fetchLayer stages the files of one layer. Wrong bytes are fetched once more:
// they may be those of an earlier run, or have changed on their way. A disk that
// has no room for the packed bytes beside the files gets the files alone.
func (i *installer) fetchLayer(ctx context.Context, l *manifest.Layer) error {
	i.o.Progress.emit(Event{Kind: Started, Descriptor: l.Descriptor, Name: l.Title})
	aside, again := true, i.src.repo != nil
	for {
		got, err := i.readLayer(ctx, l, aside)
		if err == nil {
			i.o.Progress.emit(Event{Kind: Done, Descriptor: l.Descriptor, Name: l.Title})
			return i.adopt(got)
		}
		switch {
		case ctx.Err() != nil:
			return err
		case aside && isDiskFull(err) && l.Format != manifest.FormatRaw && i.src.keeps(l.Descriptor):
			aside = false
		case again && isWrong(err, l.Descriptor):
			again = false
			i.o.Progress.emit(Event{Kind: Retried, Descriptor: l.Descriptor, Name: l.Title, Reason: clean(err.Error())})
		default:
			return err
		}
		i.o.Progress.emit(Event{Kind: Resumed, Descriptor: l.Descriptor, Name: l.Title})
		if err := i.discard(got); err != nil {
			return fmt.Errorf("install into %s: %w", i.w.Path, err)
		}
	}
}

// isWrong reports whether the blob's bytes came, and are others than promised.
func isWrong(err error, d v1.Descriptor) bool {
	corrupt, ok := errors.AsType[*manifest.CorruptError](err)
	return ok && corrupt.Want == d.Digest.String()
}

// isDiskFull reports whether there is no room for a file.
func isDiskFull(err error) bool {
	return slices.ContainsFunc(diskFull, func(full error) bool { return errors.Is(err, full) })
}

// layerFiles are the files of one layer that was read.
type layerFiles struct {
	files []stagedFile
	scans []manifest.Scan
}

// readLayer stages the files of a layer as it streams by. Only a file that is a
// large layer by itself is first written and then read, for what is fetched is
// the file; see [partial].
func (i *installer) readLayer(ctx context.Context, l *manifest.Layer, aside bool) (*layerFiles, error) {
	got := new(layerFiles)
	mode := fs.FileMode(0o644)
	if l.Format == manifest.FormatRaw && len(l.Files) > 0 {
		mode = modeOf(l.Files[0])
	}
	b, err := i.src.open(ctx, l, mode, aside)
	if err != nil {
		return got, err
	}
	itself := l.Format == manifest.FormatRaw && b.partial != nil
	_, err = l.Walk(b, func(f manifest.File, r io.Reader) error {
		switch {
		case !i.wanted(f.Path) || i.isKept(f.Path):
			return nil
		case itself:
			n, err := i.scan(got, f, io.Discard, r)
			got.files = append(got.files, stagedFile{InstalledFile{f.Path, f.Role, n, f.Digest}, i.newName(), l})
			return err
		}
		return i.stageFile(got, f, r)
	})
	return got, b.end(err)
}

// adopt takes the files of a layer that is verified.
func (i *installer) adopt(got *layerFiles) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done.Scans = append(i.done.Scans, got.scans...)
	for _, f := range got.files {
		if _, twice := i.staged[f.Path]; twice {
			return fmt.Errorf("%w: %q is in two layers", manifest.ErrUnsafePath, f.Path)
		}
		i.staged[f.Path] = f
	}
	return nil
}

// discard removes what was staged of a layer that did not come whole.
func (i *installer) discard(got *layerFiles) error {
	for _, f := range got.files {
		if err := i.w.root.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isKept reports whether the file was there. That another layer has one of the
// same path is for adopt to find.
func (i *installer) isKept(path string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, ok := i.staged[path]
	return ok && s.name == ""
}

// newName is a name in the stage.
func (i *installer) newName() string { return fmt.Sprintf("%s/%d", i.stage, i.next.Add(1)-1) }

func modeOf(f manifest.File) fs.FileMode {
	if f.Exec {
		return 0o755
	}
	return 0o644
}

// stageFile writes one file below the stage.
func (i *installer) stageFile(got *layerFiles, f manifest.File, r io.Reader) error {
	name := i.newName()
	out, err := i.w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, modeOf(f))
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	got.files = append(got.files, stagedFile{InstalledFile{Path: f.Path}, name, nil})
	h := digest.SHA256.Digester()
	var w io.Writer = &earlyWriter{File: out}
	if f.Digest == "" {
		w = io.MultiWriter(w, h.Hash())
	}
	n, err := i.scan(got, f, w, r)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	if f.Digest == "" {
		f.Digest = h.Digest()
	}
	got.files[len(got.files)-1].InstalledFile = InstalledFile{f.Path, f.Role, n, f.Digest}
	return nil
}

// writeback is how many bytes of a file are written before the system is to bring
// them to the disk: enough for it to do so at once, and so that little is left when
// the file is synced.
const writeback = 8 << 20

// earlyWriter writes a file that is going to be synced.
type earlyWriter struct {
	*os.File
	n, begun int64 // bytes written, and those of them on their way to the disk
}

// Write implements [io.Writer].
func (w *earlyWriter) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if w.n += int64(n); w.n-w.begun >= writeback {
		beginWriteback(w.File, w.begun, w.n-w.begun)
		w.begun = w.n
	}
	return n, err
}

// checkScans refuses what the options do not let pass.
func (o *InstallOptions) checkScans(scans []manifest.Scan) error {
	if o.Unsafe {
		return nil
	}
	return manifest.CheckScans("", scans, o.Strict)
}

// scanKept looks at what is in the files that are not fetched.
func (i *installer) scanKept(ctx context.Context) error {
	scans, err := i.seen.scans(ctx, i.done.Kept)
	i.done.Scans = append(i.done.Scans, scans...)
	return err
}

// copySize is how many bytes go into a file at once: the system takes longer for
// the same in smaller portions.
const copySize = 256 << 10

// scan copies a file from r to w and looks at what it holds.
func (i *installer) scan(got *layerFiles, f manifest.File, w io.Writer, r io.Reader) (int64, error) {
	stream := joblib.NewStream(joblib.Options{Allow: i.o.Allow})
	n, err := io.CopyBuffer(io.MultiWriter(w, stream), r, make([]byte, copySize))
	report, serr := stream.Close(err)
	if err = cmp.Or(err, serr); err != nil {
		return n, err
	}
	got.scans = append(got.scans, manifest.Scan{Path: f.Path, Role: f.Role, Report: report})
	return n, nil
}

// checkStaged does for the files of which only the layers told enough what
// plan did for the others.
func (i *installer) checkStaged(ctx context.Context) error {
	if err := manifest.CheckPaths(maps.Keys(i.staged)); err != nil {
		return err
	}
	decided := make(map[string]bool)
	for f := range i.a.Files() {
		decided[f.Path] = f.Digest != ""
	}
	var foreign []string
	for p, s := range i.staged {
		if decided[p] || s.name == "" {
			continue
		}
		st, err := i.look(ctx, manifest.File{Path: p, Size: s.Size, Digest: s.Digest})
		if err != nil {
			return err
		}
		if st == personal {
			foreign = append(foreign, p)
		}
	}
	if len(i.staged) == 0 {
		return &NoMatchError{i.o.Only, nil}
	}
	return i.refuse(ctx, foreign)
}

// journal says where the staged files go and what goes away.
func (i *installer) journal(ctx context.Context, ref Reference) (*journal, error) {
	j := &journal{Stage: i.stage, Record: &Record{Repository: ref.Name(), Digest: i.a.Root.Digest, Partial: len(i.o.Only) > 0}}
	if ref.Digest == "" {
		j.Record.Tag = ref.TagOrDigest()
	}
	for _, s := range i.staged {
		j.Record.Files = append(j.Record.Files, s.InstalledFile)
		if s.name == "" {
			continue
		}
		before, err := i.w.stamp(s.Path)
		if err != nil {
			return nil, err
		}
		j.Moves = append(j.Moves, move{Staged: s.name, Path: s.Path, Before: before})
		i.done.Written = append(i.done.Written, s.Path)
	}
	if err := i.leave(ctx, j); err != nil {
		return nil, err
	}
	byPath := func(a, b move) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(j.Moves, byPath)
	slices.SortFunc(j.Record.Files, func(a, b InstalledFile) int { return strings.Compare(a.Path, b.Path) })
	for _, list := range [][]string{i.done.Written, i.done.Kept, i.done.Removed, i.done.Left} {
		slices.Sort(list)
	}
	return j, nil
}

// commit does what the journal says, if that is anything.
func (i *installer) commit(j *journal) error {
	if len(j.Moves)+len(j.Removes) == 0 && i.w.record != nil && i.w.record.equal(j.Record) {
		return i.w.root.RemoveAll(i.stage)
	}
	return i.w.commit(j)
}

// leave decides about files of the previous install that this one lacks: they
// go if they are as galley left them. A partial install takes nothing away.
func (i *installer) leave(ctx context.Context, j *journal) error {
	if i.w.record == nil {
		return nil
	}
	for _, f := range i.w.record.Files {
		if _, ok := i.staged[f.Path]; ok {
			continue
		}
		if j.Record.Partial {
			j.Record.Files = append(j.Record.Files, f)
			continue
		}
		before, err := i.w.stamp(f.Path)
		if err != nil {
			return err
		}
		if before == (stamp{}) {
			continue
		}
		if have, err := i.seen.digest(ctx, f.Path); err != nil || have != f.Digest {
			i.done.Left = append(i.done.Left, f.Path)
			continue
		}
		j.Removes = append(j.Removes, move{Path: f.Path, Before: before})
		i.done.Removed = append(i.done.Removed, f.Path)
	}
	return nil
}
