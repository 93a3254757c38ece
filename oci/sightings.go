package oci

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/joblib"
)

// sightingsFile is where a directory keeps what its files were when galley read
// them last.
const sightingsFile = stateDir + "/seen.json"

// sighting is what a file was when it was read. It holds as long as the system
// tells the same of the file, but only where that had been left alone for long
// enough (see [racy]) when reading it began: then whatever changes it later gives
// it another time.
type sighting struct {
	ID      string        `json:"file"`    // as inode tells it
	Changed time.Time     `json:"changed"` // its bytes or its inode
	Read    time.Time     `json:"read"`
	Digest  digest.Digest `json:"digest"`
	// Harmless is the scanner, as scannerID names it, that had nothing to
	// tell of the file; empty: none.
	Harmless string `json:"harmless,omitempty"`
}

// sightings are those of one directory. Nothing that goes wrong with the file
// they are kept in is an error: what it does not tell is read again. They are
// safe for concurrent use.
type sightings struct {
	root  *os.Root
	allow []string
	now   func() time.Time

	loaded map[string]sighting

	mu      sync.Mutex
	files   map[string]sighting
	reports map[string]*joblib.Report // of files that were read just now
}

// loadSightings reads the sightings of a directory, unless they are not to be
// believed. Scans are to let pass what allow lists.
func loadSightings(root *os.Root, o InstallOptions) *sightings {
	s := &sightings{root: root, allow: o.Allow, now: o.tuning().now, reports: make(map[string]*joblib.Report)}
	// Whoever else may write it could call anything harmless.
	if _, err := readState(root, sightingsFile, &s.loaded, private); err != nil {
		s.loaded = nil
	}
	s.files = make(map[string]sighting)
	if !o.NoCache {
		maps.Copy(s.files, s.loaded)
	}
	return s
}

// look is a sighting without what only reading tells. It reports whether the
// system tells enough for it to hold later.
func (s *sightings) look(info fs.FileInfo) (sighting, bool) {
	id, changed, ok := inode(info)
	if info.ModTime().After(changed) {
		changed = info.ModTime()
	}
	return sighting{ID: id, Changed: changed.UTC(), Read: s.now().UTC()}, ok
}

// lasts reports whether the sighting may hold later.
func (was sighting) lasts() bool { return was.Read.Sub(was.Changed) >= racy }

// sees reports whether the file is as it was at the sighting. A sighting in the
// future means that the clock was turned back: nobody knows by how much.
func (was sighting) sees(is sighting) bool {
	return was.ID == is.ID && was.lasts() && !was.Read.After(is.Read) && was.Digest.Validate() == nil
}

// digest is the digest of a regular file, which is read only if it was not seen
// as it is.
func (s *sightings) digest(ctx context.Context, name string) (digest.Digest, error) {
	info, err := s.root.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	if now, ok := s.look(info); ok {
		s.mu.Lock()
		was := s.files[name]
		s.mu.Unlock()
		if was.sees(now) {
			return was.Digest, nil
		}
	}
	return s.read(ctx, name)
}

// report says what is in a file of which digest was asked; nil: nothing that
// anybody has to know.
func (s *sightings) report(ctx context.Context, name string) (*joblib.Report, error) {
	s.mu.Lock()
	report, seen := s.reports[name], s.files[name]
	s.mu.Unlock()
	switch {
	case report != nil:
		return report, nil
	case seen.Harmless != "" && seen.Harmless == scannerID(s.allow):
		return nil, nil
	}
	if _, err := s.read(ctx, name); err != nil {
		return nil, fmt.Errorf("scan %s: %w", name, err)
	}
	return s.report(ctx, name)
}

// read hashes and scans a file in one pass, and remembers what it was.
func (s *sightings) read(ctx context.Context, name string) (digest.Digest, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return "", err
	}
	seen, told := s.look(before)
	h := digest.SHA256.Digester()
	stream := joblib.NewStream(joblib.Options{Allow: s.allow})
	_, err = io.Copy(io.MultiWriter(h.Hash(), stream), manifest.ContextReader(ctx, f))
	report, serr := stream.Close(err)
	if err = cmp.Or(err, serr); err != nil {
		return "", err
	}
	seen.Digest = h.Digest()
	if harmless(report) {
		seen.Harmless = scannerID(s.allow)
	}
	after, err := f.Stat()
	if err != nil {
		return "", err
	}
	again, _ := s.look(after)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[name] = report
	delete(s.files, name)
	if told && again.ID == seen.ID {
		s.files[name] = seen
	}
	return seen.Digest, nil
}

// harmless reports whether there is nothing to tell of a file.
func harmless(r *joblib.Report) bool {
	return (r.Verdict == joblib.Pass || r.Verdict == joblib.NotPickle) && len(r.Findings)+r.More+len(r.Warnings) == 0
}

// scannerID names this program with what it lets pass: another one may know more
// of what harms. It is empty where the system does not tell programs apart.
func scannerID(allow []string) string {
	program := running()
	if program == "" {
		return ""
	}
	return digest.FromString(program + "\n" + strings.Join(slices.Sorted(slices.Values(allow)), "\n")).Encoded()
}

// save keeps the sightings of these files for the next time, if it can: the
// directory may be read-only, and other processes may do the same.
func (s *sightings) save(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := make(map[string]sighting, len(names))
	for _, name := range names {
		if seen, ok := s.files[name]; ok && seen.lasts() {
			keep[name] = seen
		}
	}
	if maps.Equal(keep, s.loaded) {
		return
	}
	text, err := json.Marshal(keep)
	if err != nil {
		return
	}
	_ = keepState(s.root, sightingsFile, append(text, '\n'), 0o600)
}

// keepState replaces one of galley's own files that can be done without, without
// a lock: the last of several writers stays.
func keepState(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	tmp := name + "-" + strings.ToLower(rand.Text()[:12]) + tmpSuffix
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}
