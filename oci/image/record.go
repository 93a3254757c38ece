package image

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"galley/manifest"
)

// Limits on the tar of a foreign layer. A path in a container is at most
// PATH_MAX long.
const (
	maxEntries = 2_000_000
	maxFacts   = 200_000 // that are kept of one layer
	maxPath    = 4096
	maxRecord  = 16 << 20 // bytes of a record in a cache
	keptDepth  = 2        // of directories that are kept whether or not they were asked for
)

// record is what one layer tells: nothing in it depends on other layers.
type record struct {
	V     int      `json:"v"`
	Asked []string `json:"asked,omitempty"`
	// Dirs are what is at paths that are short, were asked for, or belong to a
	// Python, in the form of [Dir.String].
	Dirs map[string]string `json:"dirs,omitempty"`
	// Whiteouts hide a path of the layers below and Opaque what is in it
	// (https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts).
	Whiteouts []string         `json:"whiteouts,omitempty"`
	Opaque    []string         `json:"opaque,omitempty"`
	Packages  []recordPackage  `json:"packages,omitempty"`
	Venvs     map[string]pyenv `json:"venvs,omitempty"` // by their directory
}

// recordPackage is a *.dist-info or *.egg-info.
type recordPackage struct {
	Path    string `json:"path"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// pyenv is what pyvenv.cfg tells of a virtual environment.
type pyenv struct {
	Home    string `json:"home,omitempty"` // the directory of the interpreter it is of
	System  bool   `json:"system,omitempty"`
	Version string `json:"version,omitempty"`
}

// encode returns the record for a cache.
func (r *record) encode() []byte { return marshal(r) }

// decodeRecord reads a record back; one that is broken is none.
func decodeRecord(data []byte) *record {
	r := &record{}
	if len(data) > maxRecord || json.Unmarshal(data, r) != nil || r.V != 1 {
		return nil
	}
	for p, s := range r.Dirs {
		if _, err := parseDir(s); err != nil || !isPath(p) {
			return nil
		}
	}
	for _, p := range r.Packages {
		if !isPath(p.Path) {
			return nil
		}
	}
	for p := range r.Venvs {
		if !isPath(p) {
			return nil
		}
	}
	return r
}

// isPath reports whether p is absolute and clean.
func isPath(p string) bool { return path.IsAbs(p) && path.Clean(p) == p }

// covers reports whether the record tells what is at the path.
func (r *record) covers(p string) bool {
	return depth(p) <= keptDepth || slices.Contains(r.Asked, p)
}

// recorder reads one layer's tar.
type recorder struct {
	*record
	asked map[string]bool
	facts int
}

var (
	interpreter = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`/bin/python(3(\.\d+)?)?$`) })
	pythonDir   = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`/(lib|lib64|python3(\.\d+)?|site-packages|dist-packages)$`)
	})
)

// scan reads the uncompressed tar of a layer. The error wraps
// [manifest.ErrBadTar], or is r's.
func scan(r io.Reader, asked []string) (*record, error) {
	s := &recorder{record: &record{V: 1, Asked: asked, Dirs: map[string]string{}, Venvs: map[string]pyenv{}}, asked: map[string]bool{}}
	for _, p := range asked {
		s.asked[p] = true
	}
	tr := tar.NewReader(bufio.NewReaderSize(r, 64<<10))
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			s.compactPackages()
			return s.record, nil
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: %w", manifest.ErrBadTar, err)
		}
		if err != nil {
			return nil, err
		}
		if n == maxEntries || s.facts > maxFacts {
			return nil, fmt.Errorf("%w: more than %d entries", manifest.ErrBadTar, n)
		}
		if len(h.Name) <= maxPath && h.Typeflag != tar.TypeXGlobalHeader {
			if err := s.entry(path.Clean("/"+h.Name), h, tr); err != nil {
				return nil, err
			}
		}
	}
}

// entry takes one entry at the path p.
func (s *recorder) entry(p string, h *tar.Header, r io.Reader) error {
	dir, base := path.Split(p)
	dir = path.Clean(dir)
	if name, ok := strings.CutPrefix(base, ".wh."); ok {
		s.facts++
		switch {
		case base == ".wh..wh..opq":
			s.Opaque = append(s.Opaque, dir)
		case !strings.HasPrefix(name, ".wh."): // .wh..wh.plnk and the like are AUFS's own
			s.Whiteouts = append(s.Whiteouts, path.Join(dir, name))
		}
		return nil
	}
	s.imply(dir)
	s.keep(p, h)
	if !isSiteDepth(p) {
		return nil
	}
	if h.Typeflag == tar.TypeReg && base == "pyvenv.cfg" {
		text, err := head(r)
		s.Venvs[dir] = parseVenv(text)
		s.facts++
		return err
	}
	return s.packages(p, h, r)
}

// imply notes the directories that an entry below them needs.
func (s *recorder) imply(dir string) {
	note := func(p string) {
		if s.Dirs[p] == "" {
			s.Dirs[p] = Dir{Type: implied, Mode: 0o755}.String()
			s.facts++
		}
	}
	for end, depth := 1, 0; end <= len(dir) && depth < keptDepth && dir != "/"; end++ {
		if end == len(dir) || dir[end] == '/' {
			note(dir[:end])
			depth++
		}
	}
	for p := range s.asked {
		if len(p) <= len(dir) && dir[:len(p)] == p && (len(p) == len(dir) || dir[len(p)] == '/') {
			note(p)
		}
	}
}

// keep notes what is at a path, if that can matter.
func (s *recorder) keep(p string, h *tar.Header) {
	d := Dir{Type: Other}
	switch h.Typeflag {
	case tar.TypeDir:
		d = Dir{Type: Directory, Mode: h.Mode & 0o7777, UID: max(0, h.Uid), GID: max(0, h.Gid)}
	case tar.TypeSymlink:
		if d = (Dir{Type: Symlink, Target: h.Linkname}); h.Linkname == "" || len(h.Linkname) > maxPath {
			d = Dir{Type: Other}
		}
	}
	if p == "/" || !s.asked[p] && depth(p) > keptDepth && !(isSiteDepth(p) && (interpreter().MatchString(p) || d.Type == Symlink && pythonDir().MatchString(p))) {
		return
	}
	s.Dirs[p] = d.String()
	s.facts++
}

// depth is how many elements an absolute path has.
func depth(p string) int { return strings.Count(p, "/") }

// isSiteDepth reports whether a Python can be at the path. Deeper ones would only
// cost time.
func isSiteDepth(p string) bool { return len(p) <= 512 && depth(p) <= 32 }

// head reads the beginning of a small file.
func head(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, 64<<10))
	return string(data), err
}

// merged is what the layers read so far tell together, from the top down.
type merged struct {
	dirs     map[string]Dir
	packages map[string]recordPackage
	venvs    map[string]pyenv
	hides    map[string]hiding
}

// hiding is what a layer does to those below it.
type hiding byte

const (
	hidesPath  hiding = 1 << iota // and all in it
	hidesBelow                    // all in it
)

func newMerged() *merged {
	return &merged{map[string]Dir{}, map[string]recordPackage{}, map[string]pyenv{}, map[string]hiding{}}
}

// hidden reports whether the layers above hide a path.
func (m *merged) hidden(p string) bool {
	if m.hides[p]&hidesPath != 0 {
		return true
	}
	for ; path.IsAbs(p) && p != "/"; p = path.Dir(p) {
		if m.hides[path.Dir(p)] != 0 {
			return true
		}
	}
	return false
}

// add puts a layer below those that are there.
func (m *merged) add(r *record) {
	for p, s := range r.Dirs {
		d, err := parseDir(s)
		if old, ok := m.dirs[p]; err != nil || m.hidden(p) || ok && (old.Type != implied || d.Type != Directory) {
			continue
		}
		m.dirs[p] = d
	}
	for _, p := range r.Packages {
		if _, ok := m.packages[p.Path]; !ok && !m.hidden(p.Path) {
			m.packages[p.Path] = p
		}
	}
	for dir, v := range r.Venvs {
		if _, ok := m.venvs[dir]; !ok && !m.hidden(path.Join(dir, "pyvenv.cfg")) {
			m.venvs[dir] = v
		}
	}
	for _, p := range r.Whiteouts {
		m.hides[p] |= hidesPath
	}
	for _, p := range r.Opaque {
		m.hides[p] |= hidesBelow
	}
	for p, s := range r.Dirs {
		if t := DirType(s[0]); t == Symlink || t == Other {
			m.hides[p] |= hidesPath // nothing in a directory of that name shows through
		}
	}
}

// at is what is at a path, as far as is known.
func (m *merged) at(p string) Dir {
	d, ok := m.dirs[p]
	switch {
	case !ok:
		return Dir{Type: Absent}
	case d.Type == implied:
		d.Type = Directory
	}
	return d
}

// settled reports whether the layers below cannot change what is at a path.
func (m *merged) settled(p string) bool {
	d, ok := m.dirs[p]
	return ok && d.Type != implied || m.hidden(p)
}
