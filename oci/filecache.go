package oci

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// maxFileCache bounds all records of a [FileCache], and maxFileRecord one
	// of them, in bytes.
	maxFileCache  = 16 << 20
	maxFileRecord = 4 << 20
	// racy is how old a file has to be before it is told by its times: what is
	// written later has others, on every file system.
	racy = 2 * time.Second
)

// FileCache is a [galley/manifest.Cache] in a directory of the user's, by which an
// unchanged push does not read the model. A file is told by its device, inode,
// size, and the times at which its bytes and its inode changed, of which no
// program can set the last; one that changed less than two seconds ago is not
// told at all. Records belong to the program that wrote them: another build
// reads and inspects everything again. What others could have written is
// ignored. Nothing that goes wrong with the directory is an error. A nil cache
// remembers nothing; it is safe for use by several goroutines and processes.
type FileCache struct {
	cacheDir
	program string // that writes and reads the records
	now     func() time.Time
}

// NewFileCache returns the cache in $GALLEY_CACHE, else in galley's place in the
// user's cache directory. Where there is no such place, or where the system does
// not tell what has to be known of a file, it is nil. It writes nothing yet. env
// looks up environment variables, as [os.Getenv] does.
func NewFileCache(env func(string) string) *FileCache {
	root := CacheDir(env)
	program := running()
	if root == "" || program == "" {
		return nil
	}
	return newFileCache(filepath.Join(root, "files"), program, time.Now)
}

func newFileCache(dir, program string, now func() time.Time) *FileCache {
	return &FileCache{cacheDir{dir: dir, limit: maxFileCache, mode: 0o600}, program, now}
}

// running tells this build of this program from every other by its file, which
// is not read: what is in it changes with the policy and the walker. It is empty
// where the system does not tell.
func running() string {
	name, err := os.Executable()
	if err != nil {
		return ""
	}
	info, err := os.Stat(name)
	if err != nil {
		return ""
	}
	id, _, _ := inode(info)
	return id
}

// Identify implements [galley/manifest.Cache].
func (c *FileCache) Identify(info fs.FileInfo) string {
	if c == nil {
		return ""
	}
	id, changed, ok := inode(info)
	if !ok || !info.Mode().IsRegular() {
		return ""
	}
	if info.ModTime().After(changed) {
		changed = info.ModTime()
	}
	if c.now().Sub(changed) < racy {
		return ""
	}
	return fmt.Sprintf("%s of %s", id, c.program)
}

// Get implements [galley/manifest.Cache].
func (c *FileCache) Get(key string) ([]byte, bool) {
	data, info := c.read(c.file(key), maxFileRecord)
	return data, info != nil && private(info)
}

// Put implements [galley/manifest.Cache].
func (c *FileCache) Put(key string, data []byte) {
	if data == nil {
		os.Remove(filepath.Join(c.dir, c.file(key)))
		return
	}
	c.write(c.file(key), data)
	c.trim()
}

func (c *FileCache) file(key string) string { return key + ".json" }
