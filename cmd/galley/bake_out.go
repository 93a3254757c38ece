package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
	"galley/oci/image"
)

// bakedAnswer is the answer of bake. Fields are only ever added.
type bakedAnswer struct {
	written
	Unchanged bool          `json:"unchanged"`
	DryRun    bool          `json:"dryRun,omitempty"`
	File      string        `json:"file,omitempty"`
	Base      baseAnswer    `json:"base"`
	Models    []modelAnswer `json:"models"`
	Runtime   []platformFit `json:"runtime"`
	Blobs     []blobAnswer  `json:"blobs"`
	// BuildContext is the value of docker build's --build-context NAME=, for a
	// layout.
	BuildContext string   `json:"buildContext,omitempty"`
	Warnings     []string `json:"warnings"`
}

type baseAnswer struct {
	Reference string   `json:"reference"` // pinned; the file, or scratch
	Digest    string   `json:"digest,omitempty"`
	Platforms []string `json:"platforms"`
	LeftOut   int      `json:"leftOut,omitempty"` // entries of the index that are no images
}

type modelAnswer struct {
	Name      string `json:"name,omitempty"`
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Path      string `json:"path"` // where the app finds it
	Directory string `json:"directory"`
}

type blobAnswer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	What   string `json:"what"`  // base layer, model layer, layer, config, manifest or index
	State  string `json:"state"` // mounted, present, uploaded; written to a file
}

// tellBase says what is built on.
func (v *oven) tellBase() {
	if v.o.base == "scratch" {
		v.note("base      none: an image of the model's files alone")
		return
	}
	var platforms []string
	for _, i := range v.base.Images {
		platforms = append(platforms, i.Platform())
	}
	v.note("base      %s  %s", printable(v.o.base), printable(strings.Join(platforms, ", ")))
	if n := len(v.base.Omitted); n > 0 {
		v.note("left out  %s of the base's index: no images, but what was said of them", plural(n, "entry"))
	}
}

// tellBaked says where the models are.
func (v *oven) tellBaked(b *image.Baked) {
	for _, at := range b.Models {
		if at.Path != "" {
			v.note("model     %s", printable(at.Path))
		}
	}
	for _, r := range b.Retarred {
		v.note("anew      %s of the model, for %s", bytesText(r.Layer.Size), printable(r.Reason))
	}
	if (v.o.chown != "" || v.o.chmod != "") && !v.o.copy {
		v.warned("--chown and --chmod are for what bake writes; the model's own files stay root's and 0644 without --copy")
	}
}

// blobs says what became, or would become, of each blob.
func (v *oven) blobs(b *image.Baked, state func(v1.Descriptor) string) []blobAnswer {
	var all []blobAnswer
	var rows [][]string
	for _, d := range b.Blobs() {
		a := blobAnswer{d.Digest.String(), d.Size, b.What(d), state(d)}
		all = append(all, a)
		rows = append(rows, []string{fmt.Sprintf("%-8s", a.State), oci.Short(d.Digest), a.What, bytesText(d.Size)})
	}
	if !v.flags.quiet {
		fmt.Fprint(v.err, table(rows, ""))
	}
	return all
}

// answer begins the answer.
func (v *oven) answer(b *image.Baked) bakedAnswer {
	base := baseAnswer{Reference: v.baseRef.String(), Digest: v.base.Root.Digest.String(), LeftOut: len(v.base.Omitted)}
	if v.baseRef == (oci.Reference{}) {
		base.Reference = v.o.base
	}
	for _, i := range v.base.Images {
		base.Platforms = append(base.Platforms, i.Platform())
	}
	a := bakedAnswer{Base: base, Runtime: v.fits, DryRun: v.o.dryRun}
	if a.Runtime == nil {
		a.Runtime = []platformFit{}
	}
	for n, m := range v.models {
		at := b.Models[n]
		a.Models = append(a.Models, modelAnswer{m.name, m.ref.At(m.Root.Digest).String(), m.Root.Digest.String(), at.Path, at.Dir})
	}
	return a
}

// push sends the image to its repository.
func (v *oven) push(ctx context.Context, b *image.Baked) error {
	o := oci.ImageOptions{Tags: v.tags, Rules: v.rules, Concurrency: v.flags.concurrency, Where: func(d v1.Descriptor) oci.Target {
		if p := v.places[b.From(d)]; p != nil {
			return p.Target
		}
		return nil
	}}
	a := v.answer(b)
	if v.o.dryRun {
		fates, err := oci.PlanImage(ctx, v.dst.Target, b.Blobs(), o)
		if err != nil {
			return v.pushFailed(err)
		}
		n := -1
		a.Blobs = v.blobs(b, func(v1.Descriptor) string { n++; return string(fates[n]) })
		v.note("dry run: nothing was written")
	} else if err := v.send(ctx, b, o, &a); err != nil {
		return err
	}
	ref := v.dst.ref.At(b.Root.Digest)
	a.written = written{ref.String(), b.Root.Digest.String(), v.tags}
	if v.o.base == "scratch" {
		a.BuildContext = v.tellScratch(b.Root.Digest)
	}
	a.Warnings = v.warnings
	return v.show(a, ref.String()+"\n")
}

func (v *oven) send(ctx context.Context, b *image.Baked, o oci.ImageOptions, a *bakedAnswer) error {
	progress, stop := v.progress(v.dst.ref.Registry)
	var mu sync.Mutex
	fates := map[digest.Digest]oci.Fate{b.Root.Digest: oci.FateUploaded}
	o.Progress = func(e oci.Event) {
		mu.Lock()
		if fate, ok := fateOf[e.Kind]; ok {
			fates[e.Descriptor.Digest] = fate
		}
		mu.Unlock()
		if what := b.What(e.Descriptor); e.Name == "" && strings.HasSuffix(what, "layer") {
			e.Name = what + " " + oci.Short(e.Descriptor.Digest)
		}
		if progress != nil {
			progress(e)
		}
	}
	done, err := oci.PushImage(ctx, v.dst.Target, b, b.Root, o)
	stop()
	if err != nil {
		return v.pushFailed(err)
	}
	where := v.dst.ref.WithTag(strings.Join(v.tags, ","))
	if a.Unchanged = !done.Written; a.Unchanged {
		fates = nil
	}
	a.Blobs = v.blobs(b, func(d v1.Descriptor) string { return string(cmp.Or(fates[d.Digest], oci.FatePresent)) })
	if a.Unchanged {
		v.note("unchanged: %s", where)
	} else {
		v.note("baked %s", where)
	}
	return nil
}

var fateOf = map[oci.EventKind]oci.Fate{oci.Skipped: oci.FatePresent, oci.Mounted: oci.FateMounted, oci.Done: oci.FateUploaded}

func (v *oven) pushFailed(err error) error {
	return &failedAt{v.dst.client.Explain("bake", v.dst.ref.WithTag(strings.Join(v.tags, ",")), err), v.dst.ref}
}

// tellScratch says how docker build takes an image of files.
func (v *oven) tellScratch(d digest.Digest) string {
	ref := v.dst.ref.WithTag(v.tags[0])
	ref.Digest = d
	if ref.Kind != oci.Layout {
		if ref.Kind == oci.Registry {
			v.note("use it    COPY --from=%s /models/ ./models/", ref)
		}
		return ""
	}
	if info, err := os.Stat(ref.Path); err == nil && !info.IsDir() || strings.HasSuffix(ref.Path, ".tar") {
		return "" // a context is a directory
	}
	// buildx refuses a digest without a tag.
	at := "oci-layout://" + strings.TrimPrefix(ref.String(), "oci:")
	v.note("use it    docker build --build-context model=%s .   # COPY --from=model /models/ ./models/", shellWord(at))
	return at
}

// save writes the image for docker load.
func (v *oven) save(ctx context.Context, b *image.Baked) error {
	var o image.SaveOptions
	if v.o.tag != "" {
		p, err := v.parser(v.o.tag)
		if err != nil {
			return err
		}
		ref, tags, err := p.ParseTags(v.o.tag)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			tags = []string{oci.DefaultTag}
		}
		for _, tag := range tags {
			o.Tags = append(o.Tags, strings.TrimPrefix(ref.WithTag(tag).String(), "local/"))
		}
		v.tags = tags
	}
	a := v.answer(b)
	a.File = v.o.output
	err := writeFile(v.o.output, v.out, func(w io.Writer) error { return image.Save(ctx, w, b, b.Root, o) })
	if err != nil {
		return v.failed(err)
	}
	a.Blobs = v.blobs(b, func(v1.Descriptor) string { return "written" })
	a.Warnings = v.warnings
	if v.o.output == "-" {
		v.note("baked %s", b.Root.Digest)
		return nil
	}
	text := b.Root.Digest.String()
	if strings.HasSuffix(v.o.output, ".tar") {
		text = oci.Reference{Kind: oci.Layout, Path: v.o.output}.At(b.Root.Digest).String()
	}
	a.written = written{text, b.Root.Digest.String(), o.Tags}
	v.note("baked %s: docker load -i %s", v.o.output, shellWord(v.o.output))
	return v.show(a, text+"\n")
}

// writeFile writes a file whole or not at all; "-" is stdout. What is there and
// is no regular file, as a pipe, is written to.
func writeFile(name string, stdout io.Writer, write func(io.Writer) error) error {
	if name == "-" {
		if isTerminal(stdout) {
			return &usageError{msg: "-o - writes a tar: not to a terminal"}
		}
		return write(stdout)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	temp := filepath.Join(filepath.Dir(name), ".galley-"+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: pathCause(err)}
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}
