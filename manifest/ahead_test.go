package manifest_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// sinks are the streams that were asked for.
type sinks struct {
	mu    sync.Mutex
	limit int // bytes that one takes before it fails; 0: all
	all   map[string]*sink
}

type sink struct {
	bytes.Buffer
	limit, size int
	refused     int
	layer       v1.Descriptor
	err         error
	ends        int
}

// ahead is an option of [manifest.Pack].
func (s *sinks) ahead(title string, size int64) manifest.Stream {
	if title == featuresPath {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &sink{limit: s.limit, size: int(size)}
	s.all[title] = k
	return k
}

func (k *sink) Write(p []byte) (int, error) {
	if k.limit > 0 && k.Len()+len(p) > k.limit {
		k.refused++
		return 0, io.ErrClosedPipe
	}
	return k.Buffer.Write(p)
}

func (k *sink) End(layer v1.Descriptor, err error) {
	k.layer, k.err = layer, err
	k.ends++
}

// TestPackAhead streams the layers that are read: the bytes that are hashed, and
// all of them, unless the stream fails, which is nobody's fault.
func TestPackAhead(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, fraud()); err != nil {
		t.Fatal(err)
	}
	fsys := os.DirFS(dir)
	for _, format := range []manifest.Format{manifest.FormatTarGzip, manifest.FormatTar, manifest.FormatTarZstd, manifest.FormatRaw} {
		o := manifest.PackOptions{Format: format}
		plain := pack(t, everyday(fsys), o)
		want := blobs(t, plain)
		s := &sinks{all: map[string]*sink{}}
		o.Ahead = s.ahead
		if got := pack(t, everyday(fsys), o); got.Root.Digest != plain.Root.Digest {
			t.Errorf("%s: another artifact when it is streamed", format)
		}
		for _, l := range plain.Layers {
			k := s.all[l.Title]
			if l.Title == featuresPath {
				continue
			}
			if k == nil || k.ends != 1 || k.err != nil || k.layer.Digest != l.Descriptor.Digest || k.layer.Size != l.Descriptor.Size {
				t.Fatalf("%s: stream of %s ended with %+v", format, l.Title, k)
			}
			var files int64
			for _, f := range l.Files {
				files += f.Size
			}
			if !bytes.Equal(k.Bytes(), want[l.Descriptor.Digest.String()]) || int64(k.size) != files {
				t.Errorf("%s: stream of %s has other bytes, or says it is of %d", format, l.Title, k.size)
			}
		}

		s = &sinks{all: map[string]*sink{}, limit: 1}
		o.Ahead = s.ahead
		if got := pack(t, everyday(fsys), o); got.Root.Digest != plain.Root.Digest {
			t.Errorf("%s: another artifact when the stream fails", format)
		}
		for title, k := range s.all {
			if k.refused != 1 || k.ends != 1 || k.err != nil {
				t.Errorf("%s: stream of %s was written to %d times after it failed, and ended %d times with %v", format, title, k.refused-1, k.ends, k.err)
			}
		}

		// Nothing is streamed of what is not read, or is read to be confirmed.
		o.Cache, s.all = newMemory(), map[string]*sink{}
		o.Ahead = nil
		pack(t, everyday(fsys), o)
		o.Ahead = s.ahead
		if err := pack(t, everyday(fsys), o).Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.all["models"] != nil || s.all[modelPath] != nil {
			t.Errorf("%s: the model is streamed although it is known", format)
		}
	}
}

// TestPackAheadFails ends the stream when the packing does.
func TestPackAheadFails(t *testing.T) {
	s := &sinks{all: map[string]*sink{}}
	in := manifest.FromFS(fraud(), modelPath, modelPath, manifest.RoleModel)
	open := in.Open
	n := 0
	in.Open = func() (fs.File, error) {
		if n++; n > 1 {
			return nil, os.ErrPermission
		}
		return open()
	}
	_, err := manifest.Pack(t.Context(), []manifest.Input{in}, manifest.PackOptions{Ahead: s.ahead})
	k := s.all["models"]
	if !errors.Is(err, os.ErrPermission) || k == nil || k.ends != 1 || !errors.Is(k.err, os.ErrPermission) || k.layer.Digest != "" {
		t.Errorf("%v; the stream ended with %+v", err, k)
	}
}
