package project

import (
	"errors"
	"fmt"
	"strings"

	"galley/manifest/joblib"
)

// Why a file cannot be taken; a [FileError] wraps one of these or what reading
// the file returned.
var (
	ErrNotRegular = errors.New("a regular file is wanted")
	ErrEmpty      = errors.New("is empty")
	ErrPointer    = errors.New("is a Git LFS pointer, not the file")
	ErrPage       = errors.New("is an HTML page, not the file")
	ErrOutside    = errors.New("lies outside the project, so its path in the artifact has to be given")
	ErrNoMatch    = errors.New("no file matches")
)

// FileError says why the file or pattern at Path cannot be taken.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("select %q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// NoModelError reports that no file is a model.
type NoModelError struct {
	Looked []string // the places or files that were looked at
	Left   []Left   // what was seen there, and why it is none
}

func (e *NoModelError) Error() string {
	return "find model: none in " + strings.Join(e.Looked, ", ")
}

// Model is a file that could be the model.
type Model struct {
	Path   string
	Format joblib.Kind
	Class  string // as in [joblib.Peek], or empty
}

// SeveralModelsError reports that nothing tells which of several files is the
// model.
type SeveralModelsError struct {
	Models []Model // at least two, sorted by path
}

func (e *SeveralModelsError) Error() string {
	var paths []string
	for _, m := range e.Models {
		paths = append(paths, m.Path)
	}
	return fmt.Sprintf("find model: %d files could be it: %s", len(paths), strings.Join(paths, ", "))
}

// ClashError reports two files that would lie at one path in the artifact, as
// systems see it that ignore case, or one at a directory of the other's.
type ClashError struct {
	As    [2]string // their paths in the artifact
	Paths [2]string // their paths on disk
}

func (e *ClashError) Error() string {
	return fmt.Sprintf("select %q as %q: clashes with %q as %q", e.Paths[1], e.As[1], e.Paths[0], e.As[0])
}
