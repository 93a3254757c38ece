package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"

	"galley/manifest"
	"galley/oci/image"
)

// VerifyOptions say what [Verify] and [VerifyDir] compare with.
type VerifyOptions struct {
	// Digest is what the artifact must be; "": whatever it is.
	Digest digest.Digest
	// CheckOnly makes VerifyDir report an interrupted install instead of
	// completing it.
	CheckOnly bool
	// Concurrency is how many layers are read at once; 0: 3.
	Concurrency int
	Progress    Progress
}

// Verified is what was verified.
type Verified struct {
	Repository string        // as [Reference.Name] spells it
	Digest     digest.Digest // of the artifact
	Partial    bool          // only some of its files are installed
	Files      int
	Blobs      int   // of an image, which has no files to count
	Size       int64 // bytes that were read
}

// ErrNotInstalled says that a directory has no record of an install.
var ErrNotInstalled = errors.New("galley has installed nothing there")

// MismatchError lists everything that does not verify.
type MismatchError struct {
	Subject    string  // the reference or directory
	Mismatches []error // in the order of their texts, which are fit for a terminal
}

// Error returns one line, `verify SUBJECT: MISMATCH`, for each mismatch.
func (e *MismatchError) Error() string {
	lines := make([]string, 0, len(e.Mismatches))
	for _, m := range e.Mismatches {
		lines = append(lines, "verify "+e.Subject+": "+m.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mismatches.
func (e *MismatchError) Unwrap() []error { return e.Mismatches }

// InterruptedError is the mismatch of a directory in which an install was
// interrupted.
type InterruptedError struct {
	Digest digest.Digest // of the artifact that was being installed
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("the install of %s was interrupted", e.Digest)
}

// cleaned is an error that holds foreign text, fit for a terminal.
type cleaned struct{ error }

func (e cleaned) Error() string { return clean(e.error.Error()) }
func (e cleaned) Unwrap() error { return e.error }

// findings are the mismatches found so far.
type findings struct {
	mu  sync.Mutex
	all []error
}

// take keeps err if it is a mismatch, or several, and returns it otherwise.
func (f *findings) take(err error) error {
	if err == nil || !isMismatch(err) {
		return err
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range all {
		f.all = append(f.all, cleaned{e})
	}
	return nil
}

// err returns a [*MismatchError] if there are mismatches.
func (f *findings) err(subject string) error {
	if len(f.all) == 0 {
		return nil
	}
	slices.SortFunc(f.all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return &MismatchError{subject, f.all}
}

// isMismatch tells wrong content from content that could not be read.
func isMismatch(err error) bool {
	if _, ok := errors.AsType[*manifest.CorruptError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*InterruptedError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*image.BaseError](err); ok {
		return true
	}
	if answer, ok := errors.AsType[*answerError](err); ok {
		return answer.kind == ErrCorrupt
	}
	for _, kind := range []error{
		manifest.ErrMalformed, manifest.ErrUnsafePath, manifest.ErrBadTar,
		content.ErrMismatchedDigest, content.ErrInvalidDescriptorSize,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Verify reads everything of the artifact or image that ref names in t and
// compares it with all that is told of it: each digest, size and diffID. Memory
// does not depend on the sizes. What is wrong comes as a [*MismatchError], joined with
// the error that ended the reading if one did.
func Verify(ctx context.Context, t Target, ref Reference, o VerifyOptions) (Verified, error) {
	var found findings
	d, src, err := Find(ctx, t, ref.TagOrDigest())
	m := &Model{ReadOnlyStorage: src}
	if err == nil {
		m.Artifact, err = manifest.Read(ctx, src, d)
	}
	if _, ok := errors.AsType[*manifest.NotArtifactError](err); ok {
		v, ierr := verifyImage(ctx, src, d, ref, o)
		if errors.Is(ierr, image.ErrNotImage) {
			return Verified{}, err
		}
		return v, ierr
	}
	if err != nil {
		if d, rerr := t.Resolve(ctx, ref.TagOrDigest()); rerr == nil && ref.Digest == "" {
			err = missing(err, "manifest", d.Digest) // the tag is there
		}
		err = found.take(err)
		return Verified{}, errors.Join(found.err(ref.String()), err)
	}
	v := Verified{Repository: ref.Name(), Digest: m.Root.Digest, Size: m.Root.Size + m.Manifest.Config.Size}
	found.take(wantDigest(o.Digest, m.Root.Digest))
	err = found.take(missing(m.VerifyConfig(ctx, m), "config", m.Manifest.Config.Digest))
	if err == nil {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(cmpOr(o.Concurrency, 3))
		for i := range m.Layers {
			l := &m.Layers[i]
			v.Files += len(l.Files)
			v.Size += l.Descriptor.Size
			g.Go(func() error {
				return found.take(missing(verifyLayer(ctx, m, l, o.Progress), "layer "+l.Title, l.Descriptor.Digest))
			})
		}
		err = g.Wait()
	}
	return v, errors.Join(found.err(ref.String()), err)
}

// verifyImage is Verify of an image.
func verifyImage(ctx context.Context, src content.ReadOnlyStorage, d v1.Descriptor, ref Reference, o VerifyOptions) (Verified, error) {
	v := Verified{Repository: ref.Name(), Digest: d.Digest}
	counted := &countedFetch{src: src, p: o.Progress, v: &v}
	var found findings
	found.take(wantDigest(o.Digest, d.Digest))
	err := image.Verify(ctx, counted, d)
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // what is wrong, and perhaps what ended the reading
		err = nil
		for _, e := range joined.Unwrap() {
			if errors.Is(e, image.ErrNotImage) {
				return v, e
			}
			err = errors.Join(err, found.take(e))
		}
	}
	return v, errors.Join(found.err(ref.String()), err)
}

// countedFetch counts what is fetched, and tells of it.
type countedFetch struct {
	src content.ReadOnlyStorage
	p   Progress
	mu  sync.Mutex
	v   *Verified
}

func (c *countedFetch) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := c.src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.v.Blobs++
	c.v.Size += d.Size
	c.mu.Unlock()
	c.p.emit(Event{Kind: Started, Descriptor: d})
	return struct {
		io.Reader
		io.Closer
	}{c.p.reader(ctx, rc, d, ""), rc}, nil
}

func verifyLayer(ctx context.Context, src manifest.Fetcher, l *manifest.Layer, p Progress) error {
	p.emit(Event{Kind: Started, Descriptor: l.Descriptor, Name: l.Title})
	rc, err := src.Fetch(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer rc.Close()
	err = l.Verify(p.reader(ctx, rc, l.Descriptor, l.Title))
	if err == nil {
		p.emit(Event{Kind: Done, Descriptor: l.Descriptor, Name: l.Title})
	}
	return err
}

// missing makes a mismatch of content that the manifest promises and nobody has.
func missing(err error, what string, d digest.Digest) error {
	if errors.Is(err, ErrNotFound) {
		return &manifest.CorruptError{What: what, Want: d.String(), Got: "none of that size"}
	}
	return err
}

// wantDigest compares the artifact's digest with the one asked for, if any.
func wantDigest(want, got digest.Digest) error {
	if want == "" || want == got {
		return nil
	}
	return &manifest.CorruptError{What: "the artifact", Want: want.String(), Got: got.String()}
}

// VerifyDir compares the files that galley installed in the directory with its
// record of them, after completing an install that was interrupted. Other files
// are nobody's business. It writes nothing but what completes an install, and
// takes no lock unless there is one, so the directory may be read-only.
//
// What is wrong comes as a [*MismatchError]. The error wraps [ErrNotInstalled]
// where there is no record. Someone who may write to the directory can change
// the record too: it tells accidents, not attacks.
func VerifyDir(ctx context.Context, dir string, o VerifyOptions) (Verified, error) {
	for {
		v, before, err := verifyDir(ctx, dir, o)
		if _, ok := errors.AsType[*InterruptedError](err); ok && !o.CheckOnly {
			w, err := OpenWorkdir(ctx, dir)
			if err != nil {
				return v, err
			}
			w.Close()
			continue
		}
		if _, ok := errors.AsType[*MismatchError](err); ok && before != nil {
			// Another process may have installed something else meanwhile.
			if after, rerr := ReadRecord(dir); rerr == nil && after != nil && !after.equal(before) {
				continue
			}
		}
		return v, err
	}
}

// verifyDir looks at the directory once, and returns the record it went by.
func verifyDir(ctx context.Context, dir string, o VerifyOptions) (Verified, *Record, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Verified{}, nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	defer root.Close()
	var j journal
	var found findings
	interrupted, err := readState(root, journalFile, &j)
	if interrupted {
		if err = j.check(); err != nil {
			err = fmt.Errorf("read %s: %w", journalFile, err)
		}
	}
	if interrupted && err == nil {
		found.take(&InterruptedError{j.Record.Digest})
		return Verified{Repository: j.Record.Repository, Digest: j.Record.Digest}, nil, found.err(dir)
	}
	var r *Record
	if err == nil {
		r, err = readRecord(root)
	}
	if err == nil && r == nil {
		err = ErrNotInstalled
	}
	if err != nil {
		return Verified{}, nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	v := Verified{Repository: r.Repository, Digest: r.Digest, Partial: r.Partial, Files: len(r.Files)}
	found.take(wantDigest(o.Digest, r.Digest))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range r.Files {
		v.Size += f.Size
		g.Go(func() error { return found.take(verifyFile(ctx, root, f)) })
	}
	if err = g.Wait(); err != nil {
		err = fmt.Errorf("verify %s: %w", dir, err)
	}
	return v, r, errors.Join(found.err(dir), err)
}

// verifyFile compares one installed file with its record.
func verifyFile(ctx context.Context, root *os.Root, f InstalledFile) error {
	differs := func(want, got string) error { return &manifest.CorruptError{What: f.Path, Want: want, Got: got} }
	if err := f.Digest.Validate(); err != nil {
		return fmt.Errorf("read %s: digest %.100q: %w", recordFile, f.Digest, err)
	}
	info, err := root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return differs(f.Digest.String(), "nothing")
	case err != nil && linkAbove(root, f.Path) != "":
		return differs("a file in the directory", linkAbove(root, f.Path)+" leads out of it")
	case err != nil:
		return err
	case !info.Mode().IsRegular(): // opening a pipe would wait for its writer
		return differs("a regular file", info.Mode().Type().String())
	case info.Size() != f.Size:
		return differs(fmt.Sprintf("%d bytes", f.Size), fmt.Sprintf("%d bytes", info.Size()))
	}
	file, err := root.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	h := f.Digest.Algorithm().Hash()
	if _, err := io.Copy(h, manifest.ContextReader(ctx, file)); err != nil {
		return err
	}
	if got := digest.NewDigest(f.Digest.Algorithm(), h); got != f.Digest {
		return differs(f.Digest.String(), got.String())
	}
	return nil
}
