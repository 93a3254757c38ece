package serve_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"galley/oci/serve"
)

// A web page whose name was made to mean this machine is of the same origin as
// the registry, and still has its own name.
func TestHosts(t *testing.T) {
	u, err := serve.ParseUsers(strings.NewReader(users))
	if err != nil {
		t.Fatal(err)
	}
	const rebound = "evil.example:5117"
	for _, tt := range []struct {
		o    serve.Options
		host string
		want int
	}{
		{serve.Options{}, rebound, 403},
		{serve.Options{}, "localhost.evil.example", 403},
		{serve.Options{}, "192.0.2.1:5117", 403},
		{serve.Options{}, "localhost:5117", 200},
		{serve.Options{}, "LOCALHOST", 200},
		{serve.Options{}, "[::1]:5117", 200},
		{serve.Options{}, "127.0.0.2", 200},
		{serve.Options{Addr: "127.0.0.1:5117", ReadOnly: true}, rebound, 403},
		{serve.Options{Addr: "models.example:5117"}, rebound, 403},
		{serve.Options{Addr: "models.example:5117"}, "models.example:5117", 200},
		{serve.Options{Addr: "models.example:5117"}, "Models.Example", 200},
		{serve.Options{Addr: ":5117", ReadOnly: true}, rebound, 200},
		{serve.Options{Addr: "[::]:5117", ReadOnly: true}, rebound, 200},
		{serve.Options{Users: u}, rebound, 401},
	} {
		s := newSite(t, tt.o)
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("listening on %q, for %q: %d; want %d", tt.o.Addr, tt.host, resp.StatusCode, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t, serve.Options{})
	s.pushBlob("r", "x")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{s.dir, filepath.Join(s.dir, "r"), filepath.Join(s.dir, "absent", "too")} {
		if err := serve.Check(root); err != nil {
			t.Error(err)
		}
	}
	for _, root := range []string{
		file, filepath.Join(file, "x"), filepath.Join(s.dir, "r", "_oci"), filepath.Join(s.dir, "r", "_oci", "blobs"),
	} {
		if err := serve.Check(root); !errors.Is(err, serve.ErrRoot) {
			t.Errorf("%s: %v; want %v", root, err, serve.ErrRoot)
		}
	}
}
