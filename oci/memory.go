package oci

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/lockedfile"
)

// memory keeps small JSON documents between two runs: what was learnt of
// registries, and uploads that may go on. What they say is never believed where
// it could do harm. A nil memory keeps nothing; it is safe for use by several
// goroutines and processes.
type memory struct{ cacheDir }

// The bounds of a memory in bytes.
const (
	maxMemory   = 4 << 20
	maxDocument = 64 << 10
)

// The kinds of documents.
const (
	hostsKind   = "hosts"   // what was learnt of a registry, by its host
	uploadsKind = "uploads" // a session, by HOST/REPOSITORY@DIGEST
)

// newMemory returns the memory in a directory of caches, or nil for "".
func newMemory(dir string) *memory {
	if dir == "" {
		return nil
	}
	// For this user's eyes only: a session of an upload is a capability.
	return &memory{cacheDir{dir: filepath.Join(dir, "registries"), limit: maxMemory, mode: 0o600}}
}

// file is where a document lies in the directory: keys are no names of files.
func (m *memory) file(kind, key string) string {
	return filepath.Join(kind, digest.FromString(key).Encoded()+".json")
}

// get reads the document into v, and reports whether there was one.
func (m *memory) get(kind, key string, v any) bool {
	if m == nil {
		return false
	}
	doc, info := m.read(m.file(kind, key), maxDocument)
	return info != nil && json.Unmarshal(doc, v) == nil
}

// put keeps v.
func (m *memory) put(kind, key string, v any) {
	if m == nil {
		return
	}
	if doc, err := json.Marshal(v); err == nil && len(doc) <= maxDocument {
		m.write(m.file(kind, key), doc)
		m.trim()
	}
}

// drop forgets the document.
func (m *memory) drop(kind, key string) {
	if m != nil {
		os.Remove(filepath.Join(m.dir, m.file(kind, key)))
	}
}

// claimTime is how long a claim may take: a lock that is free takes no time.
const claimTime = 500 * time.Millisecond

// claim makes the document this caller's own until release is called, among all
// processes. It reports false where it is somebody else's, or there are no locks.
func (m *memory) claim(ctx context.Context, kind, key string) (release func(), ok bool) {
	name := filepath.Join(m.dir, m.file(kind, key)+".lock")
	if os.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return nil, false
	}
	ctx, stop := context.WithTimeout(ctx, claimTime)
	defer stop()
	got := make(chan *lockedfile.File)
	go func() {
		f, err := lockedfile.OpenFile(name, os.O_RDWR|os.O_CREATE, m.mode)
		if err != nil {
			stop()
			return
		}
		select {
		case got <- f:
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case f := <-got:
		// Who had it has removed it, and another may have made it anew.
		mine, err := f.Stat()
		there, terr := os.Lstat(name)
		if err != nil || terr != nil || !os.SameFile(mine, there) {
			f.Close()
			return nil, false
		}
		return func() { os.Remove(name); f.Close() }, true
	case <-ctx.Done():
		return nil, false
	}
}
