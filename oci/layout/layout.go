// Package layout is a content store in a directory: an [OCI image layout] that
// several goroutines, several processes and other tools may use at once, and
// that a killed process cannot hurt.
//
// [Open] takes a layout that is there, [Create] also one that is yet to be
// made. A [Store] is an oras-go target: blobs go in with [Store.Push] and come
// out with [Store.Fetch]; [Store.Tag] names a manifest, [Store.Resolve] finds
// it again. What a registry needs beside these is here too: [Store.PushManifest],
// [Upload], [Store.Mount], [Store.Referrers], [Store.Delete] and [Store.GC].
//
// # What it promises
//
// A blob has its name only once its size and digest are right and its bytes
// are on disk. index.json is read afresh by every call, changed under a file
// lock, and replaced by a rename: a reader sees the old tags or the new ones,
// and a tag that Tag has acknowledged is never lost to another process that
// tags at the same time. Members of index.json that this package does not know
// survive. Nothing is freed that a writer, of whatever process, found or pushed
// within the last hour.
//
// Locks bind only those who take them: a tool that rewrites index.json without
// this package's lock can still undo a tag written meanwhile.
//
// # What it refuses
//
// Nothing outside the directory is read or written, whatever symbolic links
// lie in it. Digests other than sha256 and sha512 are refused, and so is an
// index.json of more than 64 MiB; one of more than 2^20 entries is not
// rewritten.
//
// # On disk
//
// Beside the files of the specification a store keeps the directory
// .galley-layout, with the lock and with blobs and uploads that are not complete.
// The specification lets tools add files, and on the top level no tool takes
// them for blobs; it is on the same file system as the blobs, so that a rename
// is enough to finish one. What killed processes and lost clients leave there is
// removed by a later Push, upload or GC when it is a day old.
//
// [OCI image layout]: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
)

var (
	// ErrNotLayout says that a directory, or what is in its place, is
	// something other than an OCI image layout.
	ErrNotLayout = errors.New("not an OCI image layout")

	// ErrCorrupt says that index.json, or the entry asked for, is not what an
	// image index holds.
	ErrCorrupt = errors.New("corrupt index")
)

// The files of a layout, as slash-separated names below its directory.
const (
	markFile  = v1.ImageLayoutFile
	indexFile = v1.ImageIndexFile
	blobsDir  = v1.ImageBlobsDir
	stateDir  = ".galley-layout"
	lockFile  = stateDir + "/lock"
)

// maxMark bounds the file oci-layout in bytes; a usual one has 30.
const maxMark = 64 << 10

// Store is an OCI image layout. Every call looks at the directory afresh; what a
// store keeps of index.json and manifests only saves parsing the same bytes again. It holds no
// file open, and needs no closing. All methods may be called
// from several goroutines, and on several stores of one directory.
type Store struct {
	dir   string
	busy  chan struct{} // held while this store waits for or has the file lock
	swept atomic.Int64  // when leftovers were last looked for, in Unix seconds
	known atomic.Pointer[knownIndex]
	sizes sizes
}

var (
	_ content.Storage     = (*Store)(nil)
	_ content.TagResolver = (*Store)(nil)
	_ content.Untagger    = (*Store)(nil)
	_ registry.TagLister  = (*Store)(nil)

	_ content.Deleter         = (*Store)(nil)
	_ registry.ReferrerLister = (*Store)(nil)
)

// Open returns the store of the layout in dir. The error wraps
// [fs.ErrNotExist] when dir is missing or empty, [ErrNotLayout] when something
// else is there, and [errdef.ErrUnsupportedVersion] when it is a layout of
// another version than 1.0.0. A relative dir is looked up by every call.
func Open(dir string) (*Store, error) {
	s, found, err := newStore(dir)
	if err == nil && !found {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("open layout %q: %w", dir, err)
	}
	return s, nil
}

// Create is like [Open], but takes a missing or empty dir for a layout without
// content, and makes it, with its parents, on the first [Store.Push]. Until
// then nothing is written.
func Create(dir string) (*Store, error) {
	s, _, err := newStore(dir)
	if err != nil {
		return nil, fmt.Errorf("create layout %q: %w", dir, err)
	}
	return s, nil
}

func newStore(dir string) (s *Store, found bool, err error) {
	if dir == "" { // which Clean would take for the current directory
		return nil, false, fs.ErrInvalid
	}
	dir = filepath.Clean(dir)
	found, err = probe(dir)
	return &Store{dir: dir, busy: make(chan struct{}, 1)}, found, err
}

// Dir returns the cleaned path of the directory that the store was opened with.
func (s *Store) Dir() string { return s.dir }

// probe reports whether a layout is at dir: false when dir is missing or
// empty, an error when it is neither that nor a layout.
func probe(dir string) (bool, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%w: not a directory", ErrNotLayout)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()

	// Listed before oci-layout is looked for, because another process may be
	// making the layout: it writes oci-layout first, so a directory with
	// anything in it has one by now.
	empty, err := isEmpty(root)
	if err != nil || empty {
		return false, err
	}
	return true, checkMark(root)
}

// isEmpty reports whether the directory holds nothing but our own state, which
// is all that a process killed while making a layout leaves.
func isEmpty(root *os.Root) (bool, error) {
	d, err := root.Open(".")
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return !slices.ContainsFunc(names, func(name string) bool { return name != stateDir }), nil
}

// checkMark reads oci-layout.
func checkMark(root *os.Root) error {
	data, err := readFile(root, markFile, maxMark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: no file %s", ErrNotLayout, markFile)
	case errors.Is(err, errNotRegular), errors.Is(err, errdef.ErrSizeExceedsLimit):
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	case err != nil:
		return err
	}
	var mark v1.ImageLayout
	if err := json.Unmarshal(data, &mark); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotLayout, markFile, err)
	}
	switch mark.Version {
	case v1.ImageLayoutVersion:
		return nil
	case "":
		return fmt.Errorf("%w: %s has no imageLayoutVersion", ErrNotLayout, markFile)
	}
	return fmt.Errorf("layout version %.40q, want %q: %w", mark.Version, v1.ImageLayoutVersion, errdef.ErrUnsupportedVersion)
}

// root opens the directory for reading. The error wraps
// [errdef.ErrNotFound] while there is no directory.
func (s *Store) root(ctx context.Context) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("layout %q: %w", s.dir, errdef.ErrNotFound)
	}
	return root, err
}

// create opens the directory for writing and completes the layout in it. In
// each step a kill leaves something that [Create] takes.
func (s *Store) create(ctx context.Context) (*os.Root, error) {
	found, err := probe(s.dir)
	if err == nil && !found {
		err = makeDirs(s.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("layout %q: %w", s.dir, err)
	}
	root, err := s.root(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.complete(ctx, root, found); err != nil {
		root.Close()
		return nil, fmt.Errorf("layout %q: %w", s.dir, err)
	}
	return root, nil
}

// complete adds what root still lacks of a layout.
func (s *Store) complete(ctx context.Context, root *os.Root, marked bool) error {
	if err := makeDir(root, stateDir); err != nil {
		return err
	}
	if !marked {
		mark, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
		if err != nil {
			return err
		}
		if err := writeFile(root, markFile, mark); err != nil {
			return err
		}
	}
	if err := makeDir(root, blobsDir); err != nil {
		return err
	}
	if _, err := root.Lstat(indexFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.rewrite(ctx, root, func(entries []entry) ([]entry, error) { return entries, nil })
}
