package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"galley/manifest"
)

// LabelLook is the label that keeps the [Look] at a base on what was baked from
// it, for whoever bakes from the same base next.
const LabelLook = "ml.galley.base.look"

// maxLook bounds an encoded look in bytes, maxLinks how many symbolic links are
// followed on one path.
const (
	maxLook  = 256 << 10
	maxLinks = 40
)

// Look is what one pass over a base's layers tells.
type Look struct {
	// Python is the version, "3.11", of the interpreter that runs; "" when
	// there is none, or several of which none is selected.
	Python string
	// Packages are the versions of its packages by their normalised names
	// (https://packaging.python.org/en/latest/specifications/name-normalization/);
	// "" for one that was asked for and is not there.
	Packages map[string]string
	// Pythons are the interpreters found where several are and neither
	// VIRTUAL_ENV, nor PATH, nor the entrypoint selects one.
	Pythons []string
	// Dirs are the directories that were asked for, those above them, and
	// where links lead, by their absolute paths.
	Dirs map[string]Dir
	// Complete says that all packages are listed, not only those asked for.
	Complete bool
}

// Dir is what is at a path of the base.
type Dir struct {
	Type     DirType
	Mode     int64 // permission bits, with setuid, setgid and sticky as tar has them
	UID, GID int
	Target   string // of a link
}

// DirType is the type of a [Dir].
type DirType byte

// The types of what is at a path.
const (
	Absent    DirType = '-'
	Directory DirType = 'd'
	Symlink   DirType = 'l'
	Other     DirType = 'f'
	// implied is a directory that only has files in it: its own entry may be
	// in a layer below.
	implied DirType = 'i'
)

// wireLook is the JSON form of a Look.
type wireLook struct {
	V        int               `json:"v"`
	Python   string            `json:"python,omitempty"`
	Packages map[string]string `json:"packages,omitempty"`
	Pythons  []string          `json:"pythons,omitempty"`
	Dirs     map[string]string `json:"dirs,omitempty"`
	Complete bool              `json:"complete,omitempty"`
}

// Encode returns the look as compact JSON, for [LabelLook].
func (l *Look) Encode() string {
	w := wireLook{1, l.Python, l.Packages, l.Pythons, map[string]string{}, l.Complete}
	for p, d := range l.Dirs {
		w.Dirs[p] = d.String()
	}
	return string(marshal(w))
}

// String returns "d 755 0 0", "l TARGET", "f" or "-".
func (d Dir) String() string {
	switch d.Type {
	case Directory, implied:
		return fmt.Sprintf("%c %o %d %d", d.Type, d.Mode, d.UID, d.GID)
	case Symlink:
		return "l " + d.Target
	}
	return string(rune(d.Type))
}

// DecodeLook reads what [Look.Encode] wrote. It is a claim of whoever made the
// image it comes from. The error wraps [manifest.ErrMalformed].
func DecodeLook(text string) (*Look, error) {
	bad := func(err error) (*Look, error) {
		return nil, fmt.Errorf("%w: %s: %w", manifest.ErrMalformed, LabelLook, err)
	}
	if len(text) > maxLook {
		return bad(fmt.Errorf("%d bytes; at most %d are read", len(text), maxLook))
	}
	var w wireLook
	if err := checkJSON([]byte(text)); err != nil && text != "" {
		return bad(err)
	}
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return bad(err)
	}
	if w.V != 1 {
		return bad(fmt.Errorf("version %d", w.V))
	}
	l := &Look{Python: w.Python, Packages: w.Packages, Pythons: w.Pythons, Dirs: map[string]Dir{}, Complete: w.Complete}
	for p, s := range w.Dirs {
		d, err := parseDir(s)
		if err == nil && !isPath(p) {
			err = errors.New("it is not absolute and clean")
		}
		if err != nil {
			return bad(fmt.Errorf("path %.100q: %w", p, err))
		}
		l.Dirs[p] = d
	}
	return l, nil
}

func parseDir(s string) (Dir, error) {
	if s == "" {
		return Dir{}, errors.New("empty")
	}
	d := Dir{Type: DirType(s[0])}
	rest := strings.TrimPrefix(s[1:], " ")
	switch d.Type {
	case Absent, Other:
		return d, nil
	case Symlink:
		if d.Target = rest; rest == "" {
			return d, errors.New("a link without a target")
		}
		return d, nil
	case Directory, implied:
		f := strings.Fields(rest)
		if len(f) != 3 {
			return d, fmt.Errorf("%.40q is no mode and owner", rest)
		}
		mode, err1 := strconv.ParseInt(f[0], 8, 32)
		uid, err2 := strconv.ParseUint(f[1], 10, 31)
		gid, err3 := strconv.ParseUint(f[2], 10, 31)
		if err := errors.Join(err1, err2, err3); err != nil || mode < 0 || mode > 0o7777 {
			return d, fmt.Errorf("%.40q is no mode and owner", rest)
		}
		d.Mode, d.UID, d.GID = mode, int(uid), int(gid)
		return d, nil
	}
	return d, fmt.Errorf("type %q", s[0])
}

// errUnknown says that the look does not tell what is at a path.
type errUnknown struct{ path string }

func (e *errUnknown) Error() string { return fmt.Sprintf("the look does not tell of %.300q", e.path) }

// resolve follows the links on the way to the directory dir, which need not
// exist, as a container would. at tells what is at a path, with false where
// that is not known. The error is an *errUnknown or a [*PathError].
func resolve(dir string, at func(string) (Dir, bool)) (string, error) {
	rest := strings.Split(strings.Trim(dir, "/"), "/")
	here, links := "/", 0
	for len(rest) > 0 {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			if here == "/" {
				return "", &PathError{dir, "leads out of the image's root"}
			}
			here = path.Dir(here)
			continue
		}
		next := path.Join(here, elem)
		d, known := at(next)
		if !known {
			return "", &errUnknown{next}
		}
		switch d.Type {
		case Other:
			return "", &PathError{next, "is a file in the base"}
		case Symlink:
			if links++; links > maxLinks {
				return "", &PathError{dir, "is a loop of symbolic links in the base"}
			}
			if path.IsAbs(d.Target) {
				here = "/"
			}
			rest = append(strings.Split(d.Target, "/"), rest...)
			if len(rest) > 4*maxLinks {
				return "", &PathError{dir, "is too long once its links are followed"}
			}
		default:
			here = next
		}
	}
	return here, nil
}

// at is what the look tells of a path.
func (l *Look) at(p string) (Dir, bool) {
	d, ok := l.Dirs[p]
	return d, ok
}

// Covers reports whether the look tells of all these directories and packages:
// where one is, or that it is not there.
func (l *Look) Covers(dirs, packages []string) bool {
	for _, dir := range dirs {
		if _, err := resolve(dir, l.at); err != nil {
			if _, unknown := errors.AsType[*errUnknown](err); unknown {
				return false
			}
		}
	}
	for _, p := range packages {
		if _, ok := l.Packages[Normalize(p)]; !ok && !l.Complete {
			return false
		}
	}
	return true
}

// parents returns every directory above p and p itself, from the top, without
// the root.
func parents(p string) []string {
	var all []string
	for ; p != "/" && p != "."; p = path.Dir(p) {
		all = append(all, p)
	}
	slices.Reverse(all)
	return all
}

// fill makes the look tell of the directories, as the merged layers have them.
func (l *Look) fill(dirs []string, m *merged) {
	at := func(p string) (Dir, bool) {
		d := m.at(p)
		l.Dirs[p] = d
		return d, true
	}
	for _, dir := range slices.Sorted(slices.Values(dirs)) {
		resolve(dir, at) // what is wrong with it is told when it is used
	}
}

// limit leaves what was asked for and nothing else, so that the look is the same
// wherever it comes from.
func (l *Look) limit(dirs, packages []string) *Look {
	few := &Look{Python: l.Python, Pythons: l.Pythons, Packages: map[string]string{}, Dirs: map[string]Dir{}, Complete: l.Complete && packages == nil}
	for _, name := range packages {
		name = Normalize(name)
		few.Packages[name] = l.Packages[name]
	}
	if packages == nil {
		few.Packages = l.Packages
	}
	for _, dir := range dirs {
		resolve(dir, func(p string) (Dir, bool) { // what is wrong with it is told when it is used
			d, ok := l.Dirs[p]
			if ok {
				few.Dirs[p] = d
			}
			return d, ok
		})
	}
	return few
}
