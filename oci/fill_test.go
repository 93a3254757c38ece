package oci_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
)

// mounter is a registry that does with mounts what it is told.
type mounter struct {
	host string
	// answer is what a mount gets: 0 for what the server says, 1 for a 201 that
	// is not true.
	answer int

	mu       sync.Mutex
	uploads  int
	mounts   int
	pretends map[string]bool // digests that are not there
}

func newMounter(t *testing.T, answer int) *mounter {
	m := &mounter{answer: answer, pretends: map[string]bool{}}
	next := ociserver.New(ocimem.New(), nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		mount, digest := req.URL.Query().Get("mount"), req.URL.Query().Get("digest")
		switch {
		case mount != "":
			m.mounts++
			if m.answer == 1 && !m.pretends[mount] {
				m.pretends[mount] = true
				w.Header().Set("Location", "/v2/x/blobs/"+mount)
				w.Header().Set("Docker-Content-Digest", mount)
				w.WriteHeader(http.StatusCreated)
				return
			}
			if m.answer == http.StatusAccepted {
				req.URL.RawQuery = ""
				break
			}
			if m.answer > 1 {
				w.WriteHeader(m.answer)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED"}]}`)
				return
			}
		case (req.Method == http.MethodPut || req.Method == http.MethodPost) && digest != "":
			m.uploads++
			delete(m.pretends, digest)
		case req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") && len(m.pretends) > 0:
			w.WriteHeader(http.StatusBadRequest)
			var errs []string
			for d := range m.pretends {
				errs = append(errs, `{"code":"MANIFEST_BLOB_UNKNOWN","detail":{"digest":"`+d+`"}}`)
			}
			fmt.Fprintf(w, `{"errors":[%s]}`, strings.Join(errs, ","))
			return
		}
		next.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	m.host = strings.TrimPrefix(s.URL, "http://")
	return m
}

// TestCopyMounts copies an image whose two blobs lie elsewhere.
func TestCopyMounts(t *testing.T) {
	c, err := oci.NewClient(oci.Options{LocalRoot: t.TempDir(), Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	create := func(ref string) oci.Target {
		r, err := oci.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		target, err := c.Create(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	blob := func(text string) v1.Descriptor {
		return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString(text), Size: int64(len(text))}
	}
	config, a, b := blob("{}"), blob("a layer"), blob("another layer")
	config.MediaType = v1.MediaTypeImageConfig
	doc, err := json.Marshal(v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{a, b}})
	if err != nil {
		t.Fatal(err)
	}
	root := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	src := create("oci:" + t.TempDir() + "/src")
	push := func(t *testing.T, to oci.Target, d v1.Descriptor, text string) {
		if err := to.Push(t.Context(), d, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	push(t, src, config, "{}")
	push(t, src, a, "a layer")
	push(t, src, b, "another layer")
	push(t, src, root, string(doc))

	local := func(string) string { return "local/image" }
	tests := []struct {
		name            string
		answer          int
		from, to        func(host string) string
		mounted, upload int // of the two layers
	}{
		{"mounts", 0, nil, nil, 2, 0},
		{"202", http.StatusAccepted, nil, nil, 0, 2},
		{"401", http.StatusUnauthorized, nil, nil, 0, 2},
		{"403", http.StatusForbidden, nil, nil, 0, 2},
		{"404", http.StatusNotFound, nil, nil, 0, 2},
		{"a 201 that is not true", 1, nil, nil, 2, 2},
		{"from a layout to a registry", 0, func(string) string { return "local/mine" }, nil, 0, 2},
		{"between layouts", 0, func(string) string { return "local/model" }, local, 2, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMounter(t, 0)
			from, to := m.host+"/ml/model", m.host+"/ml/image"
			if test.from != nil {
				from = test.from(m.host)
			}
			if test.to != nil {
				to = test.to(m.host)
			}
			home, dst := create(from), create(to)
			push(t, home, a, "a layer")
			push(t, home, b, "another layer")
			m.mu.Lock()
			m.answer, m.uploads = test.answer, 0
			m.mu.Unlock()
			var mu sync.Mutex
			got := map[oci.EventKind]int{}
			err := oci.Copy(t.Context(), dst, src, root, oci.CopyOptions{Tags: []string{"v1"}, Where: func(d v1.Descriptor) oci.Target {
				if d.Digest == a.Digest || d.Digest == b.Digest {
					return home
				}
				return nil
			}, Progress: func(e oci.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Descriptor.MediaType == v1.MediaTypeImageLayer {
					got[e.Kind]++
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got[oci.Mounted] != test.mounted || got[oci.Done] != test.upload {
				t.Errorf("%d mounted, %d uploaded; want %d, %d", got[oci.Mounted], got[oci.Done], test.mounted, test.upload)
			}
			if d, err := dst.Resolve(t.Context(), "v1"); err != nil || d.Digest != root.Digest {
				t.Errorf("v1 is %s, %v", d.Digest, err)
			}
			for d, text := range map[*v1.Descriptor]string{&a: "a layer", &b: "another layer"} {
				rc, err := dst.Fetch(t.Context(), *d)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(rc)
				if err != nil || !bytes.Equal(data, []byte(text)) {
					t.Errorf("blob %q, %v", data, err)
				}
				rc.Close()
			}
		})
	}
}
