package project

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"galley/manifest"
)

// Arg is one file named on the command line.
type Arg struct {
	// File is the path as given, but with slashes: on Windows the caller
	// has to convert it. It may be absolute, or lead out of the project by
	// "..": see [Options].Open.
	File      string
	As        string        // the path in the artifact; empty: as File
	Role      manifest.Role // empty: by content and name
	MediaType string        // as in oras; empty: by role
}

// ArgError reports an argument that is not FILE[=PATH][:ROLE].
type ArgError struct {
	Arg string
	Err error
}

func (e *ArgError) Error() string { return fmt.Sprintf("read argument %q: %v", e.Arg, e.Err) }

// Unwrap returns the cause.
func (e *ArgError) Unwrap() error { return e.Err }

// ParseArg reads FILE[=PATH][:ROLE], where ROLE is one of [manifest.Roles] or,
// as in oras, a media type. It splits at the last colon and only before one of
// these, so that a colon in a file's name and a Windows drive letter survive;
// and at the last equals sign, which [Find] takes back where a file's own name
// has one. Errors are an [*ArgError], which wraps [manifest.ErrUnsafePath]
// when PATH is none an artifact may have.
func ParseArg(s string) (Arg, error) {
	a := Arg{File: s}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		switch suffix := s[i+1:]; {
		case slices.Contains(manifest.Roles(), manifest.Role(suffix)):
			a.File, a.Role = s[:i], manifest.Role(suffix)
		case mediaType().MatchString(suffix):
			a.File, a.MediaType = s[:i], suffix
		}
	}
	if i := strings.LastIndexByte(a.File, '='); i >= 0 {
		a.File, a.As = a.File[:i], a.File[i+1:]
		if err := manifest.CheckPath(a.As); err != nil {
			return Arg{}, &ArgError{Arg: s, Err: err}
		}
	}
	if a.File == "" {
		return Arg{}, &ArgError{Arg: s, Err: errors.New("a file is missing")}
	}
	return a, nil
}

// mediaType is type/subtype by RFC 6838, section 4.2.
var mediaType = sync.OnceValue(func() *regexp.Regexp {
	const name = `[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}`
	return regexp.MustCompile(`^` + name + `/` + name + `$`)
})

// inside returns the clean path of a file below the project, or false for one
// that an fs.FS cannot reach.
func (a Arg) inside() (string, bool) {
	if isAbs(a.File) {
		return "", false
	}
	clean := path.Clean(a.File)
	return clean, clean != ".." && !strings.HasPrefix(clean, "../")
}

// isAbs reports whether file is absolute on any system: galley.yaml and
// scripts travel.
func isAbs(file string) bool {
	if strings.HasPrefix(file, "/") || strings.HasPrefix(file, `\`) {
		return true
	}
	letter := len(file) > 2 && ('a' <= file[0]|0x20 && file[0]|0x20 <= 'z')
	return letter && file[1] == ':' && (file[2] == '/' || file[2] == '\\')
}
