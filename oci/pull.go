package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Pull installs what ref names in t into dir, which it makes only when there is
// something to install. Where dir holds all of it already, nothing is written,
// and where ref is a digest, no request is sent.
func Pull(ctx context.Context, t Target, ref Reference, dir string, o InstallOptions) (Installed, error) {
	var changed []string
	if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(journalFile))); err == nil {
		// Whatever comes of this pull, the interrupted one is completed.
		w, err := OpenWorkdir(ctx, dir)
		if err != nil {
			return Installed{}, err
		}
		changed = w.Left
		w.Close()
	}
	all := len(o.Only) == 0
	if all && ref.Digest != "" {
		if r, err := Keep(ctx, ref, dir); err != nil || r != nil {
			return r.kept(ctx, dir, changed, o, err)
		}
	}
	m, err := Read(ctx, t, ref.TagOrDigest())
	if err != nil {
		return Installed{}, err
	}
	if all {
		if r, err := Keep(ctx, ref, dir); err != nil || r != nil && r.Digest == m.Root.Digest {
			return r.kept(ctx, dir, changed, o, err)
		}
	}
	w, err := OpenWorkdir(ctx, dir)
	if err != nil {
		return Installed{}, err
	}
	defer w.Close()
	done, err := w.Install(ctx, m, m.Artifact, ref, o)
	done.Changed = append(changed, done.Changed...)
	return done, err
}

// kept is an install that found everything there. What is there is scanned all
// the same: it may have been installed when nobody minded.
func (r *Record) kept(ctx context.Context, dir string, changed []string, o InstallOptions, err error) (Installed, error) {
	if r == nil || err != nil {
		return Installed{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Installed{}, fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer root.Close()
	done := Installed{Digest: r.Digest, Kept: r.Paths(), Changed: changed}
	if done.Scans, err = scanFiles(ctx, root, done.Kept, o.Allow); err != nil {
		return Installed{}, err
	}
	return done, o.checkScans(done.Scans)
}

// Keep returns what dir holds, if that is what ref named when it was pulled
// last, whole and unchanged; else nil. It writes nothing and takes no lock, so
// that it works where nothing can be written.
func Keep(ctx context.Context, ref Reference, dir string) (*Record, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer root.Close()
	r, err := readRecord(root)
	if err != nil || !r.answers(ref) {
		return nil, err
	}
	if whole, err := r.intact(ctx, root); err != nil || !whole {
		return nil, err
	}
	return r, nil
}

// answers reports whether the record is of all that ref names: by digest, else
// by the tag it was pulled by.
func (r *Record) answers(ref Reference) bool {
	if r == nil || r.Partial || r.Repository != ref.Name() {
		return false
	}
	if ref.Digest != "" {
		return r.Digest == ref.Digest
	}
	return r.Tag == ref.TagOrDigest()
}

func (r *Record) equal(o *Record) bool {
	return r.Repository == o.Repository && r.Tag == o.Tag && r.Digest == o.Digest && r.Partial == o.Partial && slices.Equal(r.Files, o.Files)
}

// intact reports whether every file of the record is there with its bytes. The
// error is that of ctx; a file that cannot be read is not as it was.
func (r *Record) intact(ctx context.Context, root *os.Root) (bool, error) {
	for _, f := range r.Files {
		have, err := hashFile(ctx, root, f.Path)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil || have != f.Digest {
			return false, nil
		}
	}
	return true, nil
}
