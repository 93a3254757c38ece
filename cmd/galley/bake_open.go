package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/oci"
	"galley/oci/image"
)

// ingredient is a model to bake in.
type ingredient struct {
	*oci.Model
	*place
	name  string // that was given to it, or ""
	scans []manifest.Scan
}

// modelArg is NAME=REF. No reference has an equals sign before a colon.
var modelArg = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)$`) })

// open opens the models, the base and where the image goes. What is wrong with
// the words is told before anything is asked for.
func (v *oven) open(ctx context.Context, args []string) error {
	for _, arg := range args {
		if err := v.openModel(ctx, arg); err != nil {
			return err
		}
	}
	if err := v.openDestination(ctx); err != nil {
		return err
	}
	readBase, err := v.openBase(ctx)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return readBase(gctx) })
	for _, m := range v.models {
		g.Go(func() error {
			var err error
			m.Model, err = oci.Read(gctx, m.Target, m.ref.TagOrDigest())
			if err != nil {
				return v.notFound(ctx, m.place, m.explain("bake", err))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range v.models {
		v.warnMoving(v.rules, m.ref, m.Root.Digest, "ARG MODEL=")
	}
	return nil
}

// openModel opens the repository of one model.
func (v *oven) openModel(ctx context.Context, arg string) error {
	m := &ingredient{}
	ref := arg
	if found := modelArg().FindStringSubmatch(arg); found != nil {
		m.name, ref = found[1], found[2]
	}
	if isFile(ref) && looksLikeFile(ref) {
		return &usageError{
			msg:  fmt.Sprintf("%q is a file: bake takes an artifact", ref),
			hint: "galley push fraud:v1 " + shellWord(ref) + ", and then galley bake fraud:v1",
		}
	}
	var err error
	if m.place, err = v.app.open(ctx, ref); err != nil {
		return err
	}
	v.places[m.ref.Name()] = m.place
	v.models = append(v.models, m)
	return nil
}

// openDestination opens where the image goes, if it is a repository.
func (v *oven) openDestination(ctx context.Context) error {
	if v.o.output != "" {
		return nil
	}
	var err error
	if v.dst, v.tags, err = v.create(ctx, v.o.tag); err != nil {
		return err
	}
	if len(v.tags) == 0 {
		v.tags = []string{oci.DefaultTag}
	}
	return nil
}

// openBase opens the base, and returns what reads its manifests and configs.
func (v *oven) openBase(ctx context.Context) (read func(context.Context) error, err error) {
	file, tag, isArchive := archiveArg(v.o.base)
	switch {
	case v.o.base == "scratch":
		v.base = image.Scratch()
		if len(v.o.platforms) > 0 {
			return nil, &usageError{msg: "--platform does not go with --base scratch: its files are for every platform"}
		}
		return func(context.Context) error { return nil }, nil
	case isArchive:
		return func(ctx context.Context) error { return v.readArchive(ctx, file, tag) }, nil
	}
	parser, err := v.parser(v.o.base)
	if err != nil {
		return nil, err
	}
	ref, err := parser.ParseBase(v.o.base)
	if err != nil {
		return nil, err
	}
	c, err := v.client()
	if err != nil {
		return nil, err
	}
	target, err := c.Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	p := &place{target, c, ref}
	v.places[ref.Name()] = p
	return func(ctx context.Context) error { return v.readBase(ctx, p) }, nil
}

// readBase reads the base from its repository.
func (v *oven) readBase(ctx context.Context, p *place) error {
	root, src, err := oci.Find(ctx, p.Target, p.ref.TagOrDigest())
	if err != nil {
		return v.notFound(ctx, p, p.explain("read base", err))
	}
	o := image.OpenOptions{Repository: p.ref.Name(), Platforms: v.o.platforms}
	if p.ref.Kind == oci.Registry { // elsewhere a name means nothing to others
		o.Name = p.ref.WithTag(p.ref.Tag).String()
	}
	if v.base, err = image.Open(ctx, p.source("read base", src), root, o); err != nil {
		return p.explain("read base", err)
	}
	v.baseRef = p.ref.At(root.Digest)
	v.warnMoving(v.rules, p.ref, root.Digest, "--base ")
	return nil
}

// archiveArg tells files of docker save, with the name of an image in them if
// one follows, from references.
func archiveArg(s string) (file, tag string, ok bool) {
	if s == "-" || isFile(s) {
		return s, "", true
	}
	if ref, err := oci.ParseReference(s); strings.HasPrefix(s, "oci:") || err == nil && ref.Kind == oci.Registry {
		return "", "", false
	}
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(s, end) {
			return s, "", true
		}
		if at := strings.Index(s, end+":"); at >= 0 {
			return s[:at+len(end)], s[at+len(end)+1:], true
		}
	}
	return "", "", false
}

// readArchive reads a base that docker save wrote. A stream, or a file that is
// compressed, is unpacked into a temporary file.
func (v *oven) readArchive(ctx context.Context, file, tag string) error {
	var archive *image.Archive
	var err error
	if file == "-" {
		archive, err = image.SpoolArchive(ctx, v.in, "")
	} else if archive, err = image.OpenArchive(file); errors.Is(err, image.ErrNotArchive) && strings.Contains(path.Ext(file), "z") {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			archive, err = image.SpoolArchive(ctx, f, "")
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("read base %s: %w", file, pathCause(err))
	}
	v.close = func() { archive.Close() }
	root, err := archive.Find(tag)
	if err != nil {
		err = fmt.Errorf("read base %s: %w", file, err)
		if len(archive.Images) > 0 && len(archive.Images[0].Tags) > 0 {
			return &hinted{err, []string{"--base " + shellWord(file+":"+archive.Images[0].Tags[0])}}
		}
		return err
	}
	if v.base, err = image.Open(ctx, archive, root, image.OpenOptions{Platforms: v.o.platforms}); err != nil {
		return fmt.Errorf("read base %s: %w", file, err)
	}
	return nil
}

// ingredients are the models as a baking takes them.
func (v *oven) ingredients() []image.Model {
	var models []image.Model
	for _, m := range v.models {
		models = append(models, image.Model{
			Name: m.name, Repository: m.ref.Name(), Artifact: m.Artifact, Source: m.source("read", m.Model),
		})
	}
	return models
}

// explaining puts the errors of reading into words while it is known where they
// arose.
type explaining struct {
	p   *place
	op  string
	src manifest.Fetcher
}

func (e *explaining) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := e.src.Fetch(ctx, d)
	if err != nil {
		return nil, e.p.explain(e.op, err)
	}
	return &explainingReader{rc, e}, nil
}

type explainingReader struct {
	io.ReadCloser
	e *explaining
}

func (r *explainingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, context.Canceled) {
		err = r.e.p.explain(r.e.op, err)
	}
	return n, err
}

// source reads from a place, and puts what goes wrong on the way into words.
func (p *place) source(op string, from manifest.Fetcher) manifest.Fetcher {
	return &explaining{p, op, from}
}
