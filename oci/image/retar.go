package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
)

// retar is a model's layer whose files are put elsewhere than it says, or which
// is no tar at all. It is read twice, to find its digest and to be sent, and
// never kept.
type retar struct {
	src   manifest.Fetcher
	layer *manifest.Layer
	to    map[string]string // where each file goes: absolute, without links on the way
	dirs  map[string]*node  // above them
	o     *Options
}

// newRetar places the layer's files.
func newRetar(t *tree, src manifest.Fetcher, l *manifest.Layer, to map[string]string) *retar {
	r := &retar{src, l, to, map[string]*node{}, t.o}
	for _, p := range to {
		for _, above := range parents(path.Dir(p)) {
			r.dirs[above] = t.dir(above)
		}
	}
	return r
}

// key is equal for layers that come out equal.
func (r *retar) key() string {
	var b strings.Builder
	fmt.Fprintln(&b, r.layer.Descriptor.Digest)
	for _, p := range slices.Sorted(maps.Keys(r.to)) {
		fmt.Fprintf(&b, "%q %q\n", p, r.to[p])
	}
	for _, p := range slices.Sorted(maps.Keys(r.dirs)) {
		fmt.Fprintf(&b, "%q %s\n", p, r.dirs[p].Dir)
	}
	return b.String()
}

// measure reads the layer once and says what it becomes.
func (r *retar) measure(ctx context.Context) (Layer, error) {
	l, err := r.write(ctx, io.Discard)
	if err != nil {
		return l, err
	}
	l.Open = func(ctx context.Context) (io.ReadCloser, error) { return r.open(ctx, l), nil }
	return l, nil
}

// open writes the layer anew into a reader, which fails if it is no longer the
// same.
func (r *retar) open(ctx context.Context, want Layer) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err := r.write(ctx, pw)
		if err == nil && got.Digest != want.Digest {
			err = &manifest.CorruptError{What: "layer " + r.layer.Title, Want: want.Digest.String(), Got: got.Digest.String()}
		}
		pw.CloseWithError(err)
	}()
	return &pipe{pr, cancel, done}
}

// pipe is the reading end of a layer being written.
type pipe struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close stops the writing and waits for it.
func (p *pipe) Close() error {
	p.cancel()
	p.PipeReader.Close()
	<-p.done
	return nil
}

func (r *retar) write(ctx context.Context, w io.Writer) (Layer, error) {
	rc, err := r.src.Fetch(ctx, r.layer.Descriptor)
	if err != nil {
		return Layer{}, err
	}
	defer rc.Close()
	var files []manifest.File
	l, err := pack(w, func(tw *tar.Writer) error {
		written := map[string]bool{}
		_, err := r.layer.Walk(manifest.ContextReader(ctx, rc), func(f manifest.File, in io.Reader) (err error) {
			f, err = r.file(tw, f, in, written)
			files = append(files, f)
			return err
		})
		return err
	})
	l.CreatedBy, l.Files = createdBy(r.layer.Title), files
	return l, err
}

// file writes one file and the directories above it, and returns it with its
// size and digest.
func (r *retar) file(tw *tar.Writer, f manifest.File, in io.Reader, written map[string]bool) (manifest.File, error) {
	p, ok := r.to[f.Path]
	if !ok {
		return f, &manifest.CorruptError{What: "layer " + r.layer.Title, Want: "the files it has at first", Got: fmt.Sprintf("also %.200q", f.Path)}
	}
	for _, above := range parents(path.Dir(p)) {
		if written[above] {
			continue
		}
		written[above] = true
		if err := writeNode(tw, above, r.dirs[above]); err != nil {
			return f, err
		}
	}
	d := Dir{Type: Other, Mode: r.o.fileMode(f.Exec)}
	d.UID, d.GID = r.o.owner()
	h := header(p, d)
	if h.Size = f.Size; r.layer.Format == manifest.FormatRaw {
		h.Size = r.layer.Descriptor.Size
	}
	if err := tw.WriteHeader(h); err != nil {
		return f, fmt.Errorf("write %s: %w", p, err)
	}
	f.Size = h.Size
	if f.Digest != "" { // which Walk checks
		_, err := io.Copy(tw, in)
		return f, err
	}
	sum := sha256.New()
	_, err := io.Copy(io.MultiWriter(tw, sum), in)
	f.Digest = digest.NewDigest(digest.SHA256, sum)
	return f, err
}

// createdBy is the text of a layer's history entry.
func createdBy(title string) string { return "galley bake " + title }
