package oci

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
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
