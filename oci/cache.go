package oci

import (
	"cmp"
	"crypto/rand"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"galley/oci/image"
)

// maxCache bounds the manifests that are kept, in bytes.
const maxCache = 64 << 20

// CacheDir returns the directory of galley's caches: $GALLEY_CACHE, else
// galley's place in the user's cache directory; "" if there is no such place.
// A relative path is ignored, as XDG has it: it would name another directory
// wherever galley runs. env looks up environment variables, as [os.Getenv] does.
func CacheDir(env func(string) string) string {
	if dir := env("GALLEY_CACHE"); filepath.IsAbs(dir) {
		return dir
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(user, "galley")
}

// cacheDir is a directory of files that can be done without: nothing that goes
// wrong with it is an error. It is safe for use by several goroutines and
// processes.
type cacheDir struct {
	dir   string
	limit int64 // bytes of all files
	// mode is that of the files; directories can be searched as well.
	mode fs.FileMode
	grew atomic.Bool // since it was trimmed
}

// read returns a file of at most so many bytes, and what its system tells of it.
func (c *cacheDir) read(name string, limit int64) ([]byte, fs.FileInfo) {
	name = filepath.Join(c.dir, name)
	if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil || int64(len(data)) > limit {
		return nil, nil
	}
	return data, info
}

// write writes a file, whole or not at all.
func (c *cacheDir) write(name string, data []byte) {
	name = filepath.Join(c.dir, name)
	if os.MkdirAll(filepath.Dir(name), c.mode|c.mode>>2&0o111) != nil {
		return
	}
	temp := name + "." + rand.Text()
	if os.WriteFile(temp, data, c.mode) != nil || os.Rename(temp, name) != nil {
		os.Remove(temp)
		return
	}
	c.grew.Store(true)
}

// trim removes the oldest files until the rest is within bounds. What killed
// processes left half-written is among them.
func (c *cacheDir) trim() {
	if !c.grew.Swap(false) {
		return
	}
	type file struct {
		name string
		info fs.FileInfo
	}
	var files []file
	var total int64
	filepath.WalkDir(c.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			files = append(files, file{name, info})
			total += info.Size()
		}
		return nil
	})
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(a.info.ModTime().Compare(b.info.ModTime()), cmp.Compare(a.name, b.name))
	})
	for _, f := range files {
		if total <= c.limit {
			return
		}
		if os.Remove(f.name) == nil {
			total -= f.info.Size()
		}
	}
}

// ManifestCache keeps manifests by their digest in a directory. They never
// change, and are verified whenever they are read back: a file that is altered
// is as good as none. Nothing that goes wrong with the directory is an error,
// for what is not kept is fetched again. A nil cache keeps nothing; it is safe
// for use by several goroutines and processes.
type ManifestCache struct{ cacheDir }

// NewManifestCache returns the cache in [CacheDir], or nil if there is no such
// place. It writes nothing yet.
func NewManifestCache(env func(string) string) *ManifestCache {
	root := CacheDir(env)
	if root == "" {
		return nil
	}
	return &ManifestCache{cacheDir{dir: filepath.Join(root, "manifests"), limit: maxCache, mode: 0o666}}
}

// file is where the manifest of that digest lies in the directory.
func (c *ManifestCache) file(d digest.Digest) string {
	return filepath.Join(d.Algorithm().String(), d.Encoded())
}

// get returns the manifest of that digest, if it is here.
func (c *ManifestCache) get(d digest.Digest) ([]byte, bool) {
	if c == nil || d.Validate() != nil {
		return nil, false
	}
	doc, info := c.read(c.file(d), maxManifest)
	return doc, info != nil && d.Algorithm().FromBytes(doc) == d
}

// put keeps a manifest of that digest.
func (c *ManifestCache) put(d digest.Digest, doc []byte) {
	if c != nil {
		c.write(c.file(d), doc)
	}
}

// trim keeps the cache within bounds.
func (c *ManifestCache) trim() {
	if c != nil {
		c.cacheDir.trim()
	}
}

// LookCache is where what was found in the layers of base images is kept, next
// to the manifests; "" if there is no such place. See [NewManifestCache].
func LookCache(env func(string) string) image.DirCache {
	root := CacheDir(env)
	if root == "" {
		return ""
	}
	return image.DirCache(filepath.Join(root, "looks"))
}
