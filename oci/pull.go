package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
)

// Pull installs what ref names in t into dir, which it makes only when there is
// something to install. It sends one request for the manifest and one for each
// layer of which dir lacks a file, these together; see [Workdir.Install] for
// what becomes of a connection that is cut. Where dir holds all of it already,
// no file is touched and nothing but the manifest asked for, and where ref is a
// digest, no request is sent at all.
func Pull(ctx context.Context, t Target, ref Reference, dir string, o InstallOptions) (Installed, error) {
	var changed []string
	if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(journalFile))); err == nil {
		// Whatever comes of this pull, the interrupted one is completed.
		w, err := openWorkdir(ctx, dir, o.Waiting)
		if err != nil {
			return Installed{}, err
		}
		changed = w.Left
		w.Close()
	}
	kept := func(want digest.Digest, a *manifest.Artifact) (Installed, bool, error) {
		if len(o.Only) > 0 || want == "" {
			return Installed{}, false, nil
		}
		done, ok, err := keep(ctx, ref, want, a, dir, o)
		done.Changed = changed
		return done, ok, err
	}
	if done, ok, err := kept(ref.Digest, nil); ok || err != nil {
		return done, err
	}
	m, err := Read(ctx, t, ref.TagOrDigest())
	if err != nil {
		return Installed{}, err
	}
	if done, ok, err := kept(m.Root.Digest, m.Artifact); ok || err != nil {
		if root, rerr := os.OpenRoot(dir); ok && rerr == nil {
			keepManifest(ctx, root, m, m.Artifact)
			root.Close()
		}
		return done, err
	}
	w, err := openWorkdir(ctx, dir, o.Waiting)
	if err != nil {
		return Installed{}, err
	}
	defer w.Close()
	done, err := w.Install(ctx, m, m.Artifact, ref, o)
	if err == nil && len(o.Only) == 0 {
		keepManifest(ctx, w.root, m, m.Artifact)
	}
	done.Changed = append(changed, done.Changed...)
	return done, err
}

// Keep is a [Pull] that asks nobody: it reports whether dir holds what ref named
// when it was pulled last, whole and unchanged. What is there is scanned all the
// same, for it may have been installed when nobody minded. It takes no lock and
// writes nothing but what spares the next one from reading the files again, so
// that it works where nothing can be written.
func Keep(ctx context.Context, ref Reference, dir string, o InstallOptions) (Installed, bool, error) {
	return keep(ctx, ref, ref.Digest, nil, dir, o)
}

// keep is Keep where it is known which artifact is wanted, if that is not empty. a
// is that artifact; nil: what the directory has of its manifest.
func keep(ctx context.Context, ref Reference, want digest.Digest, a *manifest.Artifact, dir string, o InstallOptions) (Installed, bool, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Installed{}, false, nil
	}
	if err != nil {
		return Installed{}, false, fmt.Errorf("open directory %s: %w", dir, err)
	}
	defer root.Close()
	r, err := readRecord(root)
	if err != nil || !r.answers(ref) || want != "" && r.Digest != want {
		return Installed{}, false, err
	}
	if a == nil {
		a = readManifest(root, r.Digest)
	}
	if !r.agrees(a) {
		return Installed{}, false, nil
	}
	seen := loadSightings(root, o)
	if whole, err := r.intact(ctx, seen); err != nil || !whole {
		return Installed{}, false, err
	}
	done := Installed{Digest: r.Digest, Kept: r.Paths()}
	if done.Scans, err = seen.scans(ctx, done.Kept); err != nil {
		return Installed{}, false, err
	}
	seen.save(done.Kept)
	return done, true, o.checkScans(done.Scans)
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

// agrees reports whether the record has what the artifact has, as far as that
// tells: the record lies where anybody may have written it.
func (r *Record) agrees(a *manifest.Artifact) bool {
	if a == nil {
		return false
	}
	have := make(map[string]InstalledFile, len(r.Files))
	for _, f := range r.Files {
		have[f.Path] = f
	}
	listed := 0
	for f := range a.Files() {
		listed++
		if at, ok := have[f.Path]; !ok || f.Digest != "" && at.Digest != f.Digest || f.Size >= 0 && at.Size != f.Size {
			return false
		}
	}
	whole := !slices.ContainsFunc(a.Layers, func(l manifest.Layer) bool { return l.Files == nil })
	return !whole || listed == len(r.Files)
}

func (r *Record) equal(o *Record) bool {
	return r.Repository == o.Repository && r.Tag == o.Tag && r.Digest == o.Digest && r.Partial == o.Partial && slices.Equal(r.Files, o.Files)
}

// errDiffers ends the reading of files of which one is not as it was.
var errDiffers = errors.New("a file is not as it was installed")

// intact reports whether every file of the record is there with its bytes. The
// error is that of ctx; a file that cannot be read is not as it was.
func (r *Record) intact(ctx context.Context, seen *sightings) (bool, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range r.Files {
		g.Go(func() error {
			if have, err := seen.digest(gctx, f.Path); err != nil || have != f.Digest {
				return errDiffers
			}
			return nil
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil, nil
}

// scans says what is in files of which the digest was asked. Files of which
// there is nothing to tell may be left out.
func (s *sightings) scans(ctx context.Context, paths []string) ([]manifest.Scan, error) {
	var scans []manifest.Scan
	for _, p := range paths {
		report, err := s.report(ctx, p)
		if err != nil {
			return nil, err
		}
		if report != nil {
			scans = append(scans, manifest.Scan{Path: p, Report: report})
		}
	}
	return scans, nil
}
