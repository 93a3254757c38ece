package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
	"galley/oci/layout"
)

// bearerRegistry is a registry that wants a token for each scope, and takes
// whatever is pushed.
type bearerRegistry struct {
	mu     sync.Mutex
	scopes []string // of the tokens given out
	bodies []string // of the manifests put, complete requests only
}

func (b *bearerRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.URL.Path == "/token" {
		scope := strings.Join(r.URL.Query()["scope"], " ")
		b.scopes = append(b.scopes, scope)
		json.NewEncoder(w).Encode(map[string]string{"token": scope})
		return
	}
	body, _ := io.ReadAll(r.Body)
	action := "pull"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		action = "pull,push"
	}
	if !strings.Contains(r.Header.Get("Authorization"), ":"+action) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:acme/fraud:%s"`, r.Host, action))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch {
	case action == "pull" && strings.Contains(r.URL.Path, "/manifests/"):
		serveManifest(w, r)
	case action == "pull":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPost:
		w.Header().Set("Location", "/v2/acme/fraud/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	default:
		b.bodies = append(b.bodies, string(body))
		w.WriteHeader(http.StatusCreated)
	}
}

func TestCreateFetchesOneToken(t *testing.T) {
	t.Parallel()
	reg := &bearerRegistry{}
	srv := serve(t, reg.ServeHTTP)
	target, err := newClient(t, oci.Options{}).Create(t.Context(), registryRef(hostOf(srv), "acme/fraud", "v1"))
	if err != nil {
		t.Fatal(err)
	}
	blob := v1.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString("model"), Size: 5}
	if ok, err := target.Exists(t.Context(), blob); ok || err != nil {
		t.Fatalf("Exists = %v, %v", ok, err)
	}
	if err := target.Push(t.Context(), blob, strings.NewReader("model")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"repository:acme/fraud:pull,push"}; !slices.Equal(reg.scopes, want) {
		t.Errorf("tokens for %q, want %q", reg.scopes, want)
	}
}

func TestOpenAsksForPullOnly(t *testing.T) {
	t.Parallel()
	reg := &bearerRegistry{}
	srv := serve(t, reg.ServeHTTP)
	c := newClient(t, oci.Options{})
	for range 2 { // the second target shares the first one's token
		if err := resolve(t, c, hostOf(srv)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"repository:acme/fraud:pull"}; !slices.Equal(reg.scopes, want) {
		t.Errorf("tokens for %q, want %q", reg.scopes, want)
	}
}

// A target opened for reading learns only at the PUT that its token is not
// enough. The manifest, which streams from its old tag, has to be sent again.
func TestTagReplaysTheManifest(t *testing.T) {
	t.Parallel()
	reg := &bearerRegistry{}
	// A token of one request is of no use for the next.
	forgetful := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && len(reg.scopes) == 1 {
			r.Header.Del("Authorization")
		}
		reg.ServeHTTP(w, r)
	})
	target, err := newClient(t, oci.Options{}).Open(t.Context(), registryRef(hostOf(forgetful), "acme/fraud", "v1"))
	if err != nil {
		t.Fatal(err)
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("{}"), Size: 2}
	if err := target.Tag(t.Context(), desc, "v2"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"{}"}; !slices.Equal(reg.bodies, want) || len(reg.scopes) != 2 {
		t.Errorf("put %q with %d tokens, want %q with 2", reg.bodies, len(reg.scopes), want)
	}
}

func TestUserAgent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ set, want string }{{"", "galley"}, {"galley/1.2", "galley/1.2"}} {
		var got string
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = r.UserAgent()
			serveManifest(w, r)
		})
		if err := resolve(t, newClient(t, oci.Options{UserAgent: tt.set}), hostOf(srv)); err != nil || got != tt.want {
			t.Errorf("user agent %q, %v; want %q", got, err, tt.want)
		}
	}
}

// TestHTTP2 wants HTTP/2 in spite of the custom TLS configuration.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	var proto string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		serveManifest(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	if err := resolve(t, newClient(t, oci.Options{Insecure: true}), hostOf(srv)); err != nil || proto != "HTTP/2.0" {
		t.Errorf("protocol %q, %v; want HTTP/2.0", proto, err)
	}
}

// TestProxy runs itself in a process whose environment names a proxy, for
// net/http reads the environment only once.
func TestProxy(t *testing.T) {
	if os.Getenv("GALLEY_TEST_PROXY") != "" {
		if err := resolve(t, newClient(t, oci.Options{PlainHTTP: new(true)}), "registry.test"); err != nil {
			t.Error(err)
		}
		return
	}
	t.Parallel()
	var asked []string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		serveManifest(w, r)
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxy$")
	cmd.Env = append(os.Environ(), "GALLEY_TEST_PROXY=1", "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if want := []string{"http://registry.test/v2/acme/fraud/manifests/v1"}; !slices.Equal(asked, want) {
		t.Errorf("the proxy was asked for %q, want %q", asked, want)
	}
}

func TestOpenMissing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	c := newClient(t, oci.Options{LocalRoot: root})
	missing := filepath.Join(root, "missing")
	for _, tt := range []struct {
		ref  oci.Reference
		want string
	}{
		{layoutRef(missing, "v1"), fmt.Sprintf("open oci:%s:v1: no OCI layout in directory %q", missing, missing)},
		{localRef("ml/fraud", "v1"), fmt.Sprintf("open local/ml/fraud:v1: the local registry %q has no repository ml/fraud", root)},
	} {
		_, err := c.Open(t.Context(), tt.ref)
		checkError(t, err, "no-host", oci.ErrNotFound, 0, tt.want)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: the cause is lost", err)
		}
	}
}

func TestOpenNoLayout(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "notes.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, oci.Options{})
	for op, open := range map[string]func() (oci.Target, error){
		"open":   func() (oci.Target, error) { return c.Open(t.Context(), layoutRef(root, "v1")) },
		"create": func() (oci.Target, error) { return c.Create(t.Context(), layoutRef(root, "v1")) },
	} {
		target, err := open()
		e, ok := errors.AsType[*oci.Error](err)
		if !ok || target != nil || e.Op != op || !errors.Is(err, layout.ErrNotLayout) || errors.Is(err, oci.ErrNotFound) {
			t.Errorf("%s: %v, %v; want layout.ErrNotLayout", op, target, err)
		}
	}
}

// TestCreate writes a repository inside another one's directory, and reads
// both.
func TestCreate(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	c := newClient(t, oci.Options{LocalRoot: root})
	manifest := "{}"
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(manifest), Size: 2}
	for _, r := range []oci.Reference{localRef("ml", "v1"), localRef("ml/blobs", "v1"), layoutRef(filepath.Join(root, "out"), "v1")} {
		target, err := c.Create(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := c.Dir(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Create wrote %s: %v", r, dir, err)
		}
		if err := target.Push(t.Context(), desc, strings.NewReader(manifest)); err != nil {
			t.Fatal(err)
		}
		if err := target.Tag(t.Context(), desc, r.Tag); err != nil {
			t.Fatal(err)
		}
		opened, err := c.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := opened.Resolve(t.Context(), r.TagOrDigest()); err != nil || got.Digest != desc.Digest {
			t.Errorf("%s resolves to %v, %v; want %v", r, got.Digest, err, desc.Digest)
		}
		absent := r.WithTag("absent")
		_, err = opened.Resolve(t.Context(), absent.TagOrDigest())
		if err = c.Explain("resolve", absent, err); !errors.Is(err, oci.ErrNotFound) || !strings.Contains(err.Error(), "absent") {
			t.Errorf("%s: %v, want ErrNotFound with the tag", absent, err)
		}
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	c := newClient(t, oci.Options{LocalRoot: "root"})
	homeless := newClient(t, oci.Options{})
	for _, tt := range []struct {
		c         *oci.Client
		ref       oci.Reference
		want, err string
	}{
		{c, localRef("ml/fraud", "v1"), filepath.Join("root", "ml", "fraud", "_oci"), ""},
		{c, layoutRef("out/x", "v1"), "out/x", ""},
		{c, localRef("../x", ""), "", `open local/../x: "../x" cannot be a directory here`},
		{c, registryRef("ghcr.io", "acme/fraud", ""), "", "open ghcr.io/acme/fraud: a registry has no directory"},
		{homeless, localRef("fraud", ""), "", "open local/fraud: no directory for the local registry"},
	} {
		got, err := tt.c.Dir(tt.ref)
		if got != tt.want || err != nil && err.Error() != tt.err || err == nil && tt.err != "" {
			t.Errorf("Dir(%v) = %q, %v; want %q, %s", tt.ref, got, err, tt.want, tt.err)
		}
	}
	for _, open := range []func() (oci.Target, error){
		func() (oci.Target, error) { return homeless.Open(t.Context(), localRef("fraud", "")) },
		func() (oci.Target, error) { return homeless.Create(t.Context(), localRef("fraud", "")) },
	} {
		if target, err := open(); target != nil || err == nil {
			t.Errorf("opened %v, %v; want an error alone", target, err)
		}
	}
}

func TestLocalRoot(t *testing.T) {
	t.Parallel()
	env := map[string]string{"GALLEY_LOCAL": "here"}
	if got, err := oci.LocalRoot(func(key string) string { return env[key] }); got != "here" || err != nil {
		t.Errorf("LocalRoot = %q, %v; want here", got, err)
	}
}
