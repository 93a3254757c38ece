package image

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// SaveOptions say what [Save] writes.
type SaveOptions struct {
	// Tags are the names that docker shall give the image, as it spells them:
	// "registry.example.com/app:v1".
	Tags []string
	// Platform is OS/ARCHITECTURE of the one image of several that an engine
	// without its own image store shall load; "": linux/amd64, or the first.
	Platform string
}

// Save writes the image at root, with all its platforms, as a tar that `docker
// load`, `podman load` and skopeo read, and that is an OCI layout besides. It
// streams: blobs are read from src once, one after the other, and checked. The
// same image gives the same bytes. When it fails, what was written is no archive.
// Errors are those of [Open], src and w.
func Save(ctx context.Context, w io.Writer, src manifest.Fetcher, root v1.Descriptor, o SaveOptions) error {
	b, err := Open(ctx, src, root, OpenOptions{})
	if err != nil {
		return err
	}
	loaded, err := b.loaded(o)
	if err != nil {
		return err
	}
	s := &saver{ctx: ctx, tw: tar.NewWriter(w), src: src, written: map[digest.Digest]bool{}}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	if err := s.blob(root); err != nil {
		return err
	}
	for _, i := range b.Images {
		var config v1.Descriptor
		if err := i.manifest.into("config", &config); err != nil {
			return err
		}
		for _, d := range append([]v1.Descriptor{i.Descriptor, config}, i.Layers...) {
			if err := s.blob(d); err != nil {
				return err
			}
		}
	}
	if err := s.lists(b, loaded, o); err != nil {
		return err
	}
	return s.tw.Close()
}

type saver struct {
	ctx     context.Context
	tw      *tar.Writer
	src     manifest.Fetcher
	written map[digest.Digest]bool
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// blob writes a blob, once.
func (s *saver) blob(d v1.Descriptor) error {
	if s.written[d.Digest] {
		return nil
	}
	s.written[d.Digest] = true
	rc, err := s.src.Fetch(s.ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d.Digest), Mode: 0o644, Size: d.Size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	in := newBlob(manifest.ContextReader(s.ctx, rc), d)
	if _, err := io.CopyN(s.tw, in, d.Size); err != nil && err != io.EOF {
		return err
	}
	return in.verify()
}

func (s *saver) file(name string, data []byte) error {
	if err := s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := s.tw.Write(data)
	return err
}

// loaded is the image that an engine without an image store of its own loads.
func (b *Base) loaded(o SaveOptions) (*Image, error) {
	want := cmp.Or(o.Platform, "linux/amd64")
	if n := slices.IndexFunc(b.Images, func(i *Image) bool { return matches(want, i.Descriptor.Platform) }); n >= 0 {
		return b.Images[n], nil
	}
	if o.Platform != "" {
		return nil, &BaseError{Kind: ErrNoPlatform, Digest: b.Root.Digest, Detail: fmt.Sprintf("no image for %s", o.Platform)}
	}
	return b.Images[0], nil
}

// lists writes what tells readers of the two formats what there is.
func (s *saver) lists(b *Base, loaded *Image, o SaveOptions) error {
	var entries []json.RawMessage
	plain := v1.Descriptor{MediaType: b.Root.MediaType, Digest: b.Root.Digest, Size: b.Root.Size}
	for _, tag := range o.Tags {
		d := plain
		d.Annotations = map[string]string{imageName: tag, v1.AnnotationRefName: shortTag(tag)}
		entries = append(entries, marshal(d))
	}
	if len(entries) == 0 {
		entries = append(entries, marshal(plain))
	}
	index := object{}.with("schemaVersion", 2).with("mediaType", v1.MediaTypeImageIndex).with("manifests", entries)
	var config v1.Descriptor
	if err := loaded.manifest.into("config", &config); err != nil {
		return err
	}
	saved := savedImage{Config: blobPath(config.Digest), RepoTags: o.Tags}
	for _, l := range loaded.Layers {
		saved.Layers = append(saved.Layers, blobPath(l.Digest))
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"index.json", index.raw()},
		{"manifest.json", marshal([]savedImage{saved})},
		{v1.ImageLayoutFile, marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})},
	} {
		if err := s.file(f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}

// shortTag is what stands behind the name: a layout's reference.
func shortTag(name string) string {
	return name[strings.LastIndexByte(name, ':')+1:]
}
