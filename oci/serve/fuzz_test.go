package serve_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"galley/oci/ocitest"
	"galley/oci/serve"
)

// FuzzServe sends any request to a registry with some content: it never
// panics, answers with a status that HTTP has, and writes nowhere but below its
// directory.
func FuzzServe(f *testing.F) {
	m := ocitest.NewManifest("m")
	d := digest.FromString("{}").String()
	for _, seed := range []struct{ method, target, headers, body string }{
		{"GET", "/v2/", "", ""},
		{"GET", "/v2/_catalog?n=1&last=a", "", ""},
		{"GET", "/v2/r/tags/list?n=-1", "", ""},
		{"GET", "/v2/r/manifests/", "", ""},
		{"GET", "/v2/r/manifests/v1", "Accept: */*", ""},
		{"PUT", "/v2/r/manifests/v2", "Content-Type: " + m.MediaType, string(m.Data)},
		{"DELETE", "/v2/r/manifests/" + m.Digest.String(), "", ""},
		{"GET", "/v2/r/blobs/" + d, "Range: bytes=1-", ""},
		{"HEAD", "/v2/r/blobs/" + d, "Range: bytes=-0,9-1,,", ""},
		{"DELETE", "/v2/r/blobs/" + d, "", ""},
		{"POST", "/v2/r/blobs/uploads/", "", ""},
		{"POST", "/v2/r/blobs/uploads/?digest=" + d, "", "{}"},
		{"POST", "/v2/s/blobs/uploads/?mount=" + d + "&from=r", "", ""},
		{"PATCH", "/v2/r/blobs/uploads/AAAAAAAAAAAAAAAAAAAAAAAAAA", "Content-Range: 0-1", "{}"},
		{"PUT", "/v2/r/blobs/uploads/../../x?digest=" + d, "Content-Range: 18446744073709551615-0", "{}"},
		{"GET", "/v2/r/referrers/" + d + "?artifactType=%00", "", ""},
		{"POST", "/v2/../../x/_oci/blobs/uploads/", "", ""},
		{"POST", "/v2/%2e%2e/x/blobs/uploads/", "", ""},
	} {
		f.Add(seed.method, seed.target, seed.headers, []byte(seed.body))
	}
	// One for all requests, because filling it takes longer than they do.
	outside := f.TempDir()
	root := filepath.Join(outside, "a", "b", "registry")
	h := serve.New(root, serve.Options{})
	fill := func(method, target string, data []byte) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(method, target, bytes.NewReader(data)))
		if rec.Code != http.StatusCreated {
			f.Fatalf("%s %s = %d %s", method, target, rec.Code, rec.Body)
		}
	}
	fill("POST", "/v2/r/blobs/uploads/?digest="+d, []byte("{}"))
	fill("PUT", "/v2/r/manifests/v1", m.Data)
	f.Fuzz(func(t *testing.T, method, target, headers string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		req := &http.Request{
			Method: method, URL: u, Host: "localhost", Header: make(http.Header), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "127.0.0.1:1",
		}
		for line := range strings.Lines(headers) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
			req.Header.Add(name, value)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req.WithContext(t.Context()))
		if rec.Code < 200 || rec.Code > 599 {
			t.Errorf("status %d", rec.Code)
		}
		for dir := filepath.Dir(root); len(dir) >= len(outside); dir = filepath.Dir(dir) {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Fatalf("%s has %v, %v; want one", dir, entries, err)
			}
		}
	})
}
