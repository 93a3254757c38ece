package layout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"galley/oci/layout"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
)

func blobPath(s *layout.Store, dgst digest.Digest) string {
	return filepath.Join(s.Dir(), "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

func fetch(t testing.TB, s *layout.Store, desc v1.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := s.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	return content.ReadAll(rc, desc)
}

// leftovers returns the names of temporary files.
func leftovers(t testing.TB, s *layout.Store) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.Dir(), ".galley-layout", "tmp-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPushFetch(t *testing.T) {
	t.Parallel()
	s := create(t)
	for _, data := range []string{"", "x", strings.Repeat("forest", 100_000)} {
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			desc := v1.Descriptor{Digest: alg.FromString(data), Size: int64(len(data))}
			push(t, s, desc, []byte(data))
			if err := s.Push(t.Context(), desc, strings.NewReader(data)); !errors.Is(err, errdef.ErrAlreadyExists) {
				t.Errorf("second push: got error %v, want %v", err, errdef.ErrAlreadyExists)
			}
			if ok, err := s.Exists(t.Context(), desc); !ok || err != nil {
				t.Errorf("Exists: got %v, %v, want true", ok, err)
			}
			if got, err := fetch(t, s, desc); err != nil || string(got) != data {
				t.Errorf("%s of %d bytes: got %d bytes, %v", alg, len(data), len(got), err)
			}
		}
	}
	if names := leftovers(t, s); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestFetchSeeks(t *testing.T) {
	t.Parallel()
	s := create(t)
	desc := content.NewDescriptorFromBytes("text/plain", []byte("0123456789"))
	push(t, s, desc, []byte("0123456789"))
	rc, err := s.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := rc.(io.Seeker).Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(rc); err != nil || string(got) != "789" {
		t.Errorf("got %q, %v, want 789", got, err)
	}
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	errRead := errors.New("read broke")
	good := content.NewDescriptorFromBytes("text/plain", []byte("model"))
	with := func(dgst digest.Digest, size int64) v1.Descriptor {
		return v1.Descriptor{Digest: dgst, Size: size}
	}
	tests := []struct {
		name string
		desc v1.Descriptor
		r    io.Reader
		want error
	}{
		{"too short", good, strings.NewReader("mode"), io.ErrUnexpectedEOF},
		{"empty", good, strings.NewReader(""), io.ErrUnexpectedEOF},
		{"too long", good, strings.NewReader("models"), content.ErrTrailingData},
		{"without end", good, strings.NewReader(strings.Repeat("model", 1<<20)), content.ErrTrailingData},
		{"other bytes", good, strings.NewReader("Model"), content.ErrMismatchedDigest},
		{"reader fails", good, iotest.ErrReader(errRead), errRead},
		{"reader fails late", good, io.MultiReader(strings.NewReader("mode"), iotest.ErrReader(errRead)), errRead},
		{"reader fails at the end", good, io.MultiReader(strings.NewReader("model"), iotest.ErrReader(errRead)), errRead},
		{"negative size", with(good.Digest, -1), strings.NewReader(""), content.ErrInvalidDescriptorSize},
		{"no digest", with("", 5), strings.NewReader("model"), errdef.ErrInvalidDigest},
		{"path as digest", with("sha256:../../../etc/passwd", 5), strings.NewReader("model"), errdef.ErrInvalidDigest},
		{"upper case", with(digest.Digest("sha256:"+strings.ToUpper(good.Digest.Encoded())), 5), strings.NewReader("model"), errdef.ErrInvalidDigest},
		{"sha384", with(digest.SHA384.FromString("model"), 5), strings.NewReader("model"), errdef.ErrInvalidDigest},
		{"md5", with("md5:d41d8cd98f00b204e9800998ecf8427e", 5), strings.NewReader("model"), errdef.ErrInvalidDigest},
	}
	s := create(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := s.Push(t.Context(), test.desc, test.r); !errors.Is(err, test.want) {
				t.Errorf("got error %v, want %v", err, test.want)
			}
			if ok, _ := s.Exists(t.Context(), test.desc); ok {
				t.Error("the blob exists")
			}
		})
	}
	if names := leftovers(t, s); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestPushStopsWithContext(t *testing.T) {
	t.Parallel()
	s := create(t)
	ctx, cancel := context.WithCancel(t.Context())
	desc := content.NewDescriptorFromBytes("text/plain", []byte("model"))
	r := io.MultiReader(strings.NewReader("mo"), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, nil
	}))
	if err := s.Push(ctx, desc, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if names := leftovers(t, s); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A blob that a power loss cut short is absent, and a push heals it.
func TestTornBlob(t *testing.T) {
	t.Parallel()
	for _, torn := range []string{"", "mod", "model and more"} {
		s := create(t)
		data := []byte("model")
		desc := content.NewDescriptorFromBytes("text/plain", data)
		push(t, s, desc, data)
		writeFile(t, blobPath(s, desc.Digest), torn)
		if ok, err := s.Exists(t.Context(), desc); ok || err != nil {
			t.Errorf("Exists: got %v, %v, want false", ok, err)
		}
		if _, err := s.Fetch(t.Context(), desc); !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("Fetch: got error %v, want %v", err, errdef.ErrNotFound)
		}
		push(t, s, desc, data)
		if got, err := fetch(t, s, desc); err != nil || !bytes.Equal(got, data) {
			t.Errorf("got %q, %v, want %q", got, err, data)
		}
	}
}

// The store hands out what is on disk; whoever verifies sees that it is wrong.
func TestAlteredBlob(t *testing.T) {
	t.Parallel()
	s := create(t)
	desc := pushTagged(t, s, "a", "v1")
	data := []byte(readFile(t, blobPath(s, desc.Digest)))
	data[len(data)-4] ^= 1
	writeFile(t, blobPath(s, desc.Digest), string(data))
	if _, err := fetch(t, s, desc); !errors.Is(err, content.ErrMismatchedDigest) {
		t.Errorf("verified read: got error %v, want %v", err, content.ErrMismatchedDigest)
	}
	if _, err := s.Resolve(t.Context(), desc.Digest.String()); !errors.Is(err, content.ErrMismatchedDigest) {
		t.Errorf("Resolve: got error %v, want %v", err, content.ErrMismatchedDigest)
	}
}

// No link in a layout leads out of it, neither for reading nor for writing.
func TestLinksDoNotLeadOut(t *testing.T) {
	t.Parallel()
	desc, data := manifest("a")
	blob := "blobs/sha256/" + desc.Digest.Encoded()
	for _, link := range []string{"blobs", "blobs/sha256", blob, "index.json", ".galley-layout", ".galley-layout/lock"} {
		t.Run(link, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"oci-layout": mark, "index.json": "{}", blob: string(data), ".galley-layout/lock": ""}
			outside := makeFiles(t, files)
			dir := makeFiles(t, files)
			name := filepath.Join(dir, filepath.FromSlash(link))
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, filepath.FromSlash(link)), name); err != nil {
				t.Fatal(err)
			}
			s, err := layout.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if rc, err := s.Fetch(ctx, desc); err == nil {
				rc.Close()
				if strings.HasPrefix(link, "blobs") {
					t.Error("Fetch followed the link")
				}
			}
			other, otherData := manifest("b")
			if s.Push(ctx, other, bytes.NewReader(otherData)) == nil && (link == "blobs" || link == "blobs/sha256" || link == ".galley-layout") {
				t.Error("Push followed the link")
			}
			if err := s.Tag(ctx, desc, "v1"); err == nil {
				t.Error("Tag followed the link")
			}
			for name, want := range files {
				if got := readFile(t, outside, name); got != want {
					t.Errorf("outside, %s: got %q, want %q", name, got, want)
				}
			}
			if names, _ := filepath.Glob(filepath.Join(outside, "*", "*")); len(names) != 2 {
				t.Errorf("outside are %q", names)
			}
		})
	}
}

// A later push removes what killed processes left, once nobody can be
// writing it any more.
func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := makeFiles(t, map[string]string{
		"oci-layout":             mark,
		".galley-layout/tmp-OLD": "x",
		".galley-layout/tmp-NEW": "x",
		".galley-layout/other":   "x",
	})
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{"tmp-OLD", "other"} {
		if err := os.Chtimes(filepath.Join(dir, ".galley-layout", name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pushTagged(t, s, "a", "v1")
	for name, want := range map[string]bool{"tmp-OLD": false, "tmp-NEW": true, "other": true} {
		_, err := os.Lstat(filepath.Join(dir, ".galley-layout", name))
		if got := !errors.Is(err, fs.ErrNotExist); got != want {
			t.Errorf("%s: exists %v, want %v", name, got, want)
		}
	}
}
