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

// ManifestCache keeps manifests by their digest in a directory. They never
// change, and are verified whenever they are read back: a file that is altered
// is as good as none. Nothing that goes wrong with the directory is an error,
// for what is not kept is fetched again. A nil cache keeps nothing; it is safe
// for use by several goroutines and processes.
type ManifestCache struct {
	dir   string
	limit int64
	grew  atomic.Bool // since it was trimmed
}

// NewManifestCache returns the cache in $GALLEY_CACHE, else in galley's place in
// the user's cache directory, or nil if there is no such place. It writes
// nothing yet. env looks up environment variables, as [os.Getenv] does.
func NewManifestCache(env func(string) string) *ManifestCache {
	dir := env("GALLEY_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil
		}
		dir = filepath.Join(user, "galley")
	}
	return &ManifestCache{dir: filepath.Join(dir, "manifests"), limit: maxCache}
}

func (c *ManifestCache) file(d digest.Digest) string {
	return filepath.Join(c.dir, d.Algorithm().String(), d.Encoded())
}

// get returns the manifest of that digest, if it is here.
func (c *ManifestCache) get(d digest.Digest) ([]byte, bool) {
	if c == nil || d.Validate() != nil {
		return nil, false
	}
	name := c.file(d)
	if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() || info.Size() > maxManifest {
		return nil, false
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	return doc, err == nil && d.Algorithm().FromBytes(doc) == d
}

// put keeps a manifest of that digest, whole or not at all.
func (c *ManifestCache) put(d digest.Digest, doc []byte) {
	if c == nil {
		return
	}
	name := c.file(d)
	if os.MkdirAll(filepath.Dir(name), 0o777) != nil {
		return
	}
	temp := name + "." + rand.Text()
	if os.WriteFile(temp, doc, 0o666) != nil || os.Rename(temp, name) != nil {
		os.Remove(temp)
		return
	}
	c.grew.Store(true)
}

// trim removes the oldest files until the rest is within bounds. What killed
// processes left half-written is among them.
func (c *ManifestCache) trim() {
	if c == nil || !c.grew.Swap(false) {
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

// LookCache is where what was found in the layers of base images is kept, next
// to the manifests; "" if there is no such place. See [NewManifestCache].
func LookCache(env func(string) string) image.DirCache {
	c := NewManifestCache(env)
	if c == nil {
		return ""
	}
	return image.DirCache(filepath.Join(filepath.Dir(c.dir), "looks"))
}
