package oci

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"galley/manifest"
	"galley/manifest/nearest"
)

// UnknownFileError says that an artifact has no file at a path.
type UnknownFileError struct {
	Path    string
	Nearest []string // at most three paths that may be meant, the likeliest first
	Files   int      // how many there are
}

func (e *UnknownFileError) Error() string {
	s := fmt.Sprintf("no file %q among %d", e.Path, e.Files)
	if len(e.Nearest) > 0 {
		s += "; nearest: " + strings.Join(e.Nearest, ", ")
	}
	return s
}

// Cat writes the artifact's file at path to w, fetching no layer but the one
// that holds it; only where another tool does not tell which one that is, it
// looks into those that it may be. The layer is verified as it is read, so w has
// the right bytes only if Cat returns nil. The error is an [*UnknownFileError]
// if there is no such file, one of w as it is, or one of reading.
func Cat(ctx context.Context, m *Model, path string, w io.Writer, p Progress) error {
	var files []string
	var unlisted []*manifest.Layer
	for i := range m.Layers {
		l := &m.Layers[i]
		if l.Files == nil {
			unlisted = append(unlisted, l)
		}
		for _, f := range l.Files {
			if f.Path == path {
				_, err := catLayer(ctx, m, l, path, w, p)
				return err
			}
			files = append(files, f.Path)
		}
	}
	for _, l := range unlisted {
		inside, err := catLayer(ctx, m, l, path, w, p)
		if err != nil || slices.Contains(inside, path) {
			return err
		}
		files = append(files, inside...)
	}
	near := nearest.Words(path, files, 3)
	if near == nil && len(files) <= 3 {
		near = files
	}
	return &UnknownFileError{path, near, len(files)}
}

// catLayer writes the file at path to w if the layer has it, and returns the
// paths of all its files.
func catLayer(ctx context.Context, src manifest.Fetcher, l *manifest.Layer, path string, w io.Writer, p Progress) ([]string, error) {
	var files []string
	err := readLayer(ctx, src, l, walkArtifact, p, func(f manifest.File, r io.Reader) error {
		files = append(files, f.Path)
		if f.Path != path {
			return nil
		}
		_, err := io.Copy(w, r)
		return err
	})
	return files, err
}
