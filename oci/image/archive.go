package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"galley/manifest"
)

// ErrNotArchive says that a file is not what `docker save` writes.
var ErrNotArchive = errors.New("not an archive of docker save")

// maxImages bounds the images of one archive.
const maxImages = 100

// Archive is what `docker save`, podman and skopeo write: docker's own format,
// or an OCI layout in a tar file. It reads the blobs where they lie in the file.
// It is safe for concurrent use.
type Archive struct {
	// Images are what is in it.
	Images []ArchiveImage

	f     *os.File
	temp  bool // the file is ours
	files map[string]section
	links map[string]string
	blobs map[digest.Digest]section
	docs  map[digest.Digest][]byte // that are made up
}

// ArchiveImage is one image of an [Archive].
type ArchiveImage struct {
	Root v1.Descriptor
	Tags []string // as docker spells them: "python:3.11-slim"
}

// section is where bytes lie in the file.
type section struct{ at, size int64 }

// OpenArchive reads the directory of the archive in the file name, which must
// not change while it is open. The error wraps [ErrNotArchive] or is the file's.
func OpenArchive(name string) (*Archive, error) {
	info, err := os.Stat(name) // before opening: a named pipe would wait
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is not a regular file", ErrNotArchive, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	magic := make([]byte, 4)
	if n, _ := f.ReadAt(magic, 0); compression(magic[:n]) != manifest.FormatTar {
		f.Close()
		return nil, fmt.Errorf("%w: %q is compressed, which only a stream may be", ErrNotArchive, name)
	}
	return newArchive(f, false)
}

// SpoolArchive reads an archive from a stream, which may be compressed with gzip
// or zstd, into a temporary file below dir, as [os.CreateTemp] takes it.
// [Archive.Close] removes the file.
func SpoolArchive(ctx context.Context, r io.Reader, dir string) (*Archive, error) {
	b := bufio.NewReader(manifest.ContextReader(ctx, r))
	plain := io.Reader(b)
	magic, _ := b.Peek(4)
	switch compression(magic) {
	case manifest.FormatTarGzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotArchive, err)
		}
		plain = z
	case manifest.FormatTarZstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotArchive, err)
		}
		defer z.Close()
		plain = z
	}
	f, err := os.CreateTemp(dir, "galley-*.tar")
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, plain); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return newArchive(f, true)
}

// compression tells by its first bytes how a stream is packed.
func compression(magic []byte) manifest.Format {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return manifest.FormatTarGzip
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return manifest.FormatTarZstd
	}
	return manifest.FormatTar
}

// Close closes the file.
func (a *Archive) Close() error {
	err := a.f.Close()
	if a.temp {
		err = errors.Join(err, os.Remove(a.f.Name()))
	}
	return err
}

// Find returns the image of that tag, or the only one for "". The error names
// the tags there are.
func (a *Archive) Find(tag string) (v1.Descriptor, error) {
	var have []string
	for _, i := range a.Images {
		if slices.Contains(i.Tags, tag) || tag == "" && len(a.Images) == 1 {
			return i.Root, nil
		}
		have = append(have, i.Tags...)
	}
	return v1.Descriptor{}, fmt.Errorf("%w: no image %q among %d: %s", errdef.ErrNotFound, tag, len(a.Images), list(have))
}

func newArchive(f *os.File, temp bool) (*Archive, error) {
	a := &Archive{
		f: f, temp: temp, files: map[string]section{}, links: map[string]string{},
		blobs: map[digest.Digest]section{}, docs: map[digest.Digest][]byte{},
	}
	err := a.readDirectory()
	if err == nil {
		err = a.readImages()
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("%w: %w", ErrNotArchive, err)
	}
	return a, nil
}

// readDirectory finds the files of the tar, and the links by which docker avoids
// writing a layer twice.
func (a *Archive) readDirectory() error {
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at, err := a.f.Seek(0, io.SeekCurrent) // tar reads whole blocks, nothing ahead
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		switch {
		case n == maxEntries || len(h.Name) > maxPath:
			return fmt.Errorf("more than %d entries, or a name of %d bytes", n, len(h.Name))
		case h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader:
			continue
		case !fs.ValidPath(name):
			return fmt.Errorf("entry %.100q is outside the archive", h.Name)
		case h.Typeflag == tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
			continue
		case h.Typeflag == tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
			continue
		case h.Typeflag != tar.TypeReg || sparse(h):
			return fmt.Errorf("entry %.100q is neither a file nor a directory", h.Name)
		}
		a.files[name] = section{at, h.Size}
		if alg, hex, ok := strings.Cut(strings.TrimPrefix(name, "blobs/"), "/"); ok && strings.HasPrefix(name, "blobs/") {
			if d := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex); d.Validate() == nil {
				a.blobs[d] = section{at, h.Size}
			}
		}
	}
}

// sparse reports whether an entry's bytes are not those that lie in the tar.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// file finds a file, through links.
func (a *Archive) file(name string) (section, bool) {
	name = path.Clean(name)
	for range maxLinks {
		if s, ok := a.files[name]; ok {
			return s, true
		}
		next, ok := a.links[name]
		if !ok {
			break
		}
		name = next
	}
	return section{}, false
}

// read reads a small file.
func (a *Archive) read(name string) ([]byte, error) {
	s, ok := a.file(name)
	if !ok {
		return nil, fmt.Errorf("no file %.200q", name)
	}
	if s.size > maxDocument {
		return nil, fmt.Errorf("file %.200q has %d bytes; at most %d are read", name, s.size, maxDocument)
	}
	data := make([]byte, s.size)
	_, err := io.ReadFull(io.NewSectionReader(a.f, s.at, s.size), data)
	return data, err
}

// readImages reads the list of images: an OCI layout's where there is one, for
// it has the manifests as they were, else docker's.
func (a *Archive) readImages() error {
	if _, ok := a.file("index.json"); ok {
		return a.readIndex()
	}
	data, err := a.read("manifest.json")
	if err != nil {
		return err
	}
	var entries []savedImage
	if err := checkJSON(data); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	if len(entries) == 0 || len(entries) > maxImages {
		return fmt.Errorf("manifest.json lists %d images", len(entries))
	}
	for _, e := range entries {
		root, err := a.saved(e)
		if err != nil {
			return err
		}
		a.Images = append(a.Images, ArchiveImage{root, e.RepoTags})
	}
	return nil
}

// readIndex reads the list of an OCI layout. Docker names images in an
// annotation of containerd's.
func (a *Archive) readIndex() error {
	data, err := a.read("index.json")
	if err != nil {
		return err
	}
	doc, err := parseDocument(data)
	if err != nil {
		return err
	}
	var all []v1.Descriptor
	if err := doc.into("manifests", &all); err != nil {
		return err
	}
	at := map[digest.Digest]int{}
	for _, d := range all {
		if _, ok := at[d.Digest]; !ok {
			at[d.Digest] = len(a.Images)
			a.Images = append(a.Images, ArchiveImage{Root: v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}})
		}
		i := &a.Images[at[d.Digest]]
		for _, tag := range []string{d.Annotations[imageName], d.Annotations[v1.AnnotationRefName]} {
			if tag != "" && !slices.Contains(i.Tags, tag) {
				i.Tags = append(i.Tags, tag)
			}
		}
	}
	if len(a.Images) == 0 || len(a.Images) > maxImages {
		return fmt.Errorf("index.json lists %d images", len(a.Images))
	}
	return nil
}

// imageName is the annotation with an image's full name in a layout.
const imageName = "io.containerd.image.name"

// savedImage is an element of docker's manifest.json
// (https://github.com/moby/moby/blob/v27.0.0/image/spec/spec.md).
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saved makes a manifest for an image of which the archive has none. Its layers
// are as they lie there, uncompressed as a rule, and then known by their diffIDs.
func (a *Archive) saved(e savedImage) (v1.Descriptor, error) {
	none := v1.Descriptor{}
	config, err := a.read(e.Config)
	if err != nil {
		return none, err
	}
	doc, err := parseDocument(config)
	if err != nil {
		return none, err
	}
	var rootfs v1.RootFS
	if err := doc.into("rootfs", &rootfs); err != nil {
		return none, err
	}
	if len(rootfs.DiffIDs) != len(e.Layers) {
		return none, fmt.Errorf("config %.100q lists %d diff_ids, manifest.json %d layers", e.Config, len(rootfs.DiffIDs), len(e.Layers))
	}
	layers := make([]v1.Descriptor, 0, len(e.Layers))
	for n, name := range e.Layers {
		s, ok := a.file(name)
		if !ok {
			return none, fmt.Errorf("no file %.200q", name)
		}
		d, err := a.layer(s, rootfs.DiffIDs[n])
		if err != nil {
			return none, fmt.Errorf("layer %.200q: %w", name, err)
		}
		layers = append(layers, d)
	}
	c := v1.Descriptor{MediaType: dockerConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	a.docs[c.Digest] = config
	m := object{}.with("schemaVersion", 2).with("mediaType", dockerManifest).with("config", c).with("layers", layers).raw()
	root := v1.Descriptor{MediaType: dockerManifest, Digest: digest.FromBytes(m), Size: int64(len(m))}
	a.docs[root.Digest] = m
	return root, nil
}

// layer describes a layer in the file. Only a compressed one is read for it.
func (a *Archive) layer(s section, diffID digest.Digest) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: dockerLayerTar, Digest: diffID, Size: s.size}
	magic := make([]byte, min(2, s.size))
	if _, err := a.f.ReadAt(magic, s.at); err != nil {
		return d, err
	}
	if compression(magic) == manifest.FormatTarGzip {
		d.MediaType = dockerLayerGzip
		var err error
		if d.Digest, err = digest.SHA256.FromReader(io.NewSectionReader(a.f, s.at, s.size)); err != nil {
			return d, err
		}
	}
	if err := d.Digest.Validate(); err != nil {
		return d, fmt.Errorf("diff_id %.100q: %w", diffID, err)
	}
	a.blobs[d.Digest] = s
	return d, nil
}

// Fetch opens a blob. The error wraps [errdef.ErrNotFound] when it is not there.
func (a *Archive) Fetch(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if doc, ok := a.docs[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(doc)), nil
	}
	s, ok := a.blobs[d.Digest]
	if !ok || s.size != d.Size {
		return nil, fmt.Errorf("fetch %s from the archive: %w", cmp.Or(d.Digest, "nothing"), errdef.ErrNotFound)
	}
	return io.NopCloser(io.NewSectionReader(a.f, s.at, s.size)), nil
}

// Exists reports whether the archive has the blob.
func (a *Archive) Exists(_ context.Context, d v1.Descriptor) (bool, error) {
	_, doc := a.docs[d.Digest]
	s, ok := a.blobs[d.Digest]
	return doc || ok && s.size == d.Size, nil
}
