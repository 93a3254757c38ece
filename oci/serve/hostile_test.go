package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci/ocitest"
	"galley/oci/serve"
)

// files lists what is below dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func TestNames(t *testing.T) {
	s := newSite(t, serve.Options{})
	d := digest.FromString("x")
	for _, repo := range []string{"_oci", "a/_oci", "a/_oci/blobs", "..", "../up", "a/../b", "a//b", "A", "a.", "-a", "a/", "%2e%2e", "a%2f..%2f..%2fb", `a\b`, "a:b", strings.Repeat("a", 256)} {
		for _, path := range []string{"/blobs/uploads/?digest=" + d.String(), "/blobs/uploads/"} {
			a := s.do("POST", "/v2/"+repo+path, strings.NewReader("x"))
			// A path with dots goes where it leads, if anywhere.
			if a.status < 300 && !strings.Contains(repo, "..") {
				t.Errorf("POST to %q = %d", repo, a.status)
			}
		}
		if a := s.do("PUT", "/v2/"+repo+"/manifests/v1", strings.NewReader("{}")); a.status < 300 {
			t.Errorf("PUT to %q = %d", repo, a.status)
		}
	}
	for _, name := range files(t, filepath.Dir(s.dir)) {
		if !strings.HasPrefix(name, s.dir+string(filepath.Separator)) {
			t.Errorf("%s was written", name)
		}
	}
}

// counter counts what is read of an endless body.
type counter struct{ n int64 }

func (c *counter) Read(p []byte) (int, error) {
	c.n += int64(len(p))
	clear(p)
	return len(p), nil
}

func TestHugeManifest(t *testing.T) {
	for _, length := range []int64{100 << 20, -1} {
		var body counter
		req := httptest.NewRequest("PUT", "/v2/r/manifests/v1", io.LimitReader(&body, 100<<20))
		req.ContentLength = length
		rec := httptest.NewRecorder()
		serve.New(t.TempDir(), serve.Options{}).ServeHTTP(rec, req)
		if rec.Code != http.StatusRequestEntityTooLarge || body.n > 9<<20 {
			t.Errorf("Content-Length %d: %d after %d bytes; want 413 after 4 MiB", length, rec.Code, body.n)
		}
	}
}

// failing fails after some bytes.
func failing(err error) io.Reader {
	return io.MultiReader(strings.NewReader(strings.Repeat("x", 100_000)), readerFunc(func([]byte) (int, error) { return 0, err }))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFailedUploads(t *testing.T) {
	s := newSite(t, serve.Options{})
	s.pushBlob("r", "{}")
	before := files(t, s.dir)
	d := digest.FromString("x")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{&fs.PathError{Op: "write", Path: "/secret", Err: syscall.ENOSPC}, http.StatusInsufficientStorage},
		{&fs.PathError{Op: "write", Path: "/secret", Err: fs.ErrPermission}, http.StatusInternalServerError},
		{io.ErrUnexpectedEOF, http.StatusBadRequest},
		{errors.New("/secret"), http.StatusInternalServerError},
	} {
		at := s.want(202, "POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
		for _, req := range []*http.Request{
			httptest.NewRequest("POST", "/v2/r/blobs/uploads/?digest="+d.String(), failing(tt.err)),
			httptest.NewRequest("PATCH", at, failing(tt.err)),
			httptest.NewRequest("PUT", at+"?digest="+d.String(), failing(tt.err)),
			httptest.NewRequest("PUT", "/v2/r/manifests/v1", failing(tt.err)),
		} {
			rec := httptest.NewRecorder()
			serve.New(s.dir, serve.Options{}).ServeHTTP(rec, req)
			if rec.Code != tt.want || strings.Contains(rec.Body.String(), "secret") {
				t.Errorf("%s %s with %v = %d %s; want %d", req.Method, req.URL.Path, tt.err, rec.Code, rec.Body, tt.want)
			}
		}
	}
	if after := files(t, s.dir); len(after) != len(before) {
		t.Errorf("files left: %q; before: %q", after, before)
	}
}

func TestHalfUploads(t *testing.T) {
	s := newSite(t, serve.Options{})
	at := s.want(202, "POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	s.want(202, "PATCH", at, "half")
	other := newSiteOn(t, s.dir, serve.Options{}) // goes on with it
	other.wantHeader(other.want(204, "GET", at, ""), "Range", "0-3")
	found, err := filepath.Glob(filepath.Join(s.dir, "r", "_oci", ".galley-layout", "upload-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("uploads %q, %v", found, err)
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(found[0], old, old); err != nil {
		t.Fatal(err)
	}
	s.wantCode(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", at, "more")
	newSiteOn(t, s.dir, serve.Options{}).pushBlob("r", "new")
	if _, err := os.Stat(found[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the upload is still there: %v", err)
	}
}

// An upload belongs to one request at a time.
func TestOneUploadTwice(t *testing.T) {
	s := newSite(t, serve.Options{})
	at := s.want(202, "POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	body, feed := io.Pipe()
	done := make(chan answer)
	go func() { done <- s.do("PUT", at+"?digest="+digest.FromString("slow").String(), body) }()
	feed.Write([]byte("sl"))
	// The first is under way once the upload has lost its name.
	for len(files(t, filepath.Join(s.dir, "r", "_oci", ".galley-layout"))) == 0 ||
		strings.Contains(strings.Join(files(t, s.dir), "\n"), "upload-") {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	s.wantCode(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", at, "fast")
	feed.Write([]byte("ow"))
	feed.Close()
	if a := <-done; a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestEditedLayouts(t *testing.T) {
	m := ocitest.NewManifest("m")
	s := newSite(t, serve.Options{})
	s.pushManifest("r", "v1", m)
	index := filepath.Join(s.dir, "r", "_oci", "index.json")
	write := func(doc string) {
		t.Helper()
		if err := os.WriteFile(index, []byte(doc), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	entry := func(name, mediaType, dgst string, size int64) string {
		data, err := json.Marshal(map[string]any{"mediaType": mediaType, "digest": dgst, "size": size, "annotations": map[string]string{v1.AnnotationRefName: name}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	write(`{"schemaVersion":2,"manifests":[` + strings.Join([]string{
		entry("good", "", m.Digest.String(), m.Size), // the manifest says what it is
		entry("example.com/not/a:tag", m.MediaType, m.Digest.String(), m.Size),
		entry("absent", m.MediaType, absent().String(), 7),
		entry("blob", m.MediaType, digest.FromString("{}").String(), 2),
		entry("broken", m.MediaType, "sha256:../../../etc/passwd", 7),
		`5`, `{"digest":7}`,
	}, ",") + `],"mine":1}`)
	if a := s.want(200, "GET", "/v2/r/tags/list", ""); a.body != `{"name":"r","tags":["absent","blob","broken","good"]}` {
		t.Errorf("tags %s", a.body)
	}
	s.wantHeader(s.want(200, "GET", "/v2/r/manifests/good", ""), "Content-Type", m.MediaType)
	s.wantCode(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/absent", "")
	s.wantCode(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/blob", "")
	s.want(500, "GET", "/v2/r/manifests/broken", "")
	s.want(200, "GET", "/v2/r/referrers/"+m.Digest.String(), "")
	s.pushManifest("r", "v2", m)
	if data, err := os.ReadFile(index); err != nil || !strings.Contains(string(data), `"mine":1`) || !strings.Contains(string(data), "not/a:tag") {
		t.Errorf("index.json lost what another tool wrote: %s, %v", data, err)
	}

	// What is altered is not passed on, and not overwritten.
	file := s.blobFile("r", m.Digest)
	if err := os.WriteFile(file, bytes.Replace(m.Data, []byte(`"m"`), []byte(`"n"`), 1), 0o666); err != nil {
		t.Fatal(err)
	}
	s.want(500, "GET", "/v2/r/manifests/v2", "")
	write("{")
	s.want(500, "PUT", "/v2/r/manifests/v3", string(ocitest.NewManifest("other").Data))
	s.want(500, "GET", "/v2/r/tags/list", "")
	if data, _ := os.ReadFile(index); string(data) != "{" {
		t.Errorf("a broken index.json was overwritten: %s", data)
	}

	// Something else in the place of a layout.
	if err := os.MkdirAll(filepath.Join(s.dir, "other", "_oci", "mine"), 0o777); err != nil {
		t.Fatal(err)
	}
	s.want(500, "POST", "/v2/other/blobs/uploads/", "")
	if a := s.want(200, "GET", "/v2/_catalog", ""); a.body != `{"repositories":["r"]}` {
		t.Errorf("catalog %s", a.body)
	}
}

// A gzip bomb is a blob like any other.
func TestOpaqueBlobs(t *testing.T) {
	s := newSite(t, serve.Options{})
	bomb := "\x1f\x8b\x08\x00" + strings.Repeat("\x00", 1000)
	d := s.pushBlob("r", bomb)
	if a := s.want(200, "GET", "/v2/r/blobs/"+d.String(), "", "Accept-Encoding: gzip"); a.body != bomb || a.header.Get("Content-Encoding") != "" {
		t.Errorf("%d bytes, %v", len(a.body), a.header)
	}
}

func TestReadOnly(t *testing.T) {
	s := newSite(t, serve.Options{})
	s.pushManifest("r", "v1", ocitest.NewManifest("m"))
	before := files(t, s.dir)
	ro := newSiteOn(t, s.dir, serve.Options{ReadOnly: true})
	ro.want(200, "GET", "/v2/r/manifests/v1", "")
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		for _, path := range []string{"/v2/r/blobs/uploads/", "/v2/r/manifests/v1", "/v2/r/blobs/" + absent().String(), "/v2/"} {
			ro.wantHeader(ro.wantCode(405, "UNSUPPORTED", method, path, ""), "Allow", "GET, HEAD")
		}
	}
	if after := files(t, s.dir); len(after) != len(before) {
		t.Errorf("files %q; want %q", after, before)
	}
}

// users are "user" and "ünïcode" with the password "secret".
const users = `# made by htpasswd -B
user:$2a$04$VPcUqFnSK8Z1QVJd3YiZMumC60/CrFv/AzG1Af5krsbbgnRGi/6Xe

ünïcode:$2a$04$VPcUqFnSK8Z1QVJd3YiZMumC60/CrFv/AzG1Af5krsbbgnRGi/6Xe
`

func TestUsers(t *testing.T) {
	u, err := serve.ParseUsers(strings.NewReader(users))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, serve.Options{Users: u})
	for _, tt := range []struct {
		name, password string
		want           int
	}{
		{"user", "secret", 200}, {"user", "secret", 200}, {"user", "wrong", 401}, {"user", "", 401},
		{"nobody", "secret", 401}, {"", "", 401}, {"ünïcode", "secret", 200}, {"user", strings.Repeat("x", 1000), 401},
	} {
		req := httptest.NewRequest("GET", "/v2/", nil)
		req.SetBasicAuth(tt.name, tt.password)
		s.wantHeader(s.wantStatusOf(req, tt.want), "WWW-Authenticate", map[int]string{401: `Basic realm="galley", charset="UTF-8"`}[tt.want])
	}
	s.wantCode(401, "UNAUTHORIZED", "GET", "/v2/", "")
	s.wantCode(401, "UNAUTHORIZED", "POST", "/v2/r/blobs/uploads/", "")
	if got := files(t, s.dir); len(got) != 0 {
		t.Errorf("written without a login: %q", got)
	}
	for _, bad := range []string{"", "# nobody\n", "user", ":x", "user:plain", "user:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "user:$apr1$x$y", strings.Repeat("# \n", 1<<20), strings.Repeat("x", 1<<20)} {
		if _, err := serve.ParseUsers(strings.NewReader(bad)); err == nil {
			t.Errorf("users %.40q were taken", bad)
		}
	}
}

// wantStatusOf sends a request made by httptest to the site.
func (s *site) wantStatusOf(req *http.Request, want int) answer {
	s.Helper()
	u, err := url.Parse(s.url + req.URL.RequestURI())
	if err != nil {
		s.Fatal(err)
	}
	req.URL, req.RequestURI, req.Host = u, "", ""
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		s.Errorf("%s %s = %d; want %d", req.Method, req.URL, resp.StatusCode, want)
	}
	return answer{resp.StatusCode, resp.Header, ""}
}

// A web page that its reader's browser shows must not write.
func TestWebPages(t *testing.T) {
	s := newSite(t, serve.Options{})
	for _, h := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
		s.wantCode(403, "DENIED", "POST", "/v2/r/blobs/uploads/", "", h)
	}
	s.wantHeader(s.want(200, "GET", "/v2/", ""), "X-Content-Type-Options", "nosniff")
}

// The components of a repository's name may be words of the API.
func TestRepositoriesNamedAsTheAPI(t *testing.T) {
	// Manifests that end as ociserver's empty lists do.
	doc := strings.TrimSuffix(string(ocitest.NewManifest("m").Data), "}")
	manifests := []ocitest.Blob{
		ocitest.NewBlob(v1.MediaTypeImageManifest, doc+`,"x":null}`),
		ocitest.NewBlob(v1.MediaTypeImageManifest, doc+`,"tags":null}`),
	}
	s := newSite(t, serve.Options{})
	for _, word := range []string{"referrers", "tags", "list", "manifests", "blobs", "uploads"} {
		for _, repo := range []string{word, "a/" + word, "a/" + word + "/b", word + "/" + word, word + "/tags/list"} {
			for _, m := range manifests {
				s.pushManifest(repo, word, m)
				for _, ref := range []string{word, m.Digest.String()} {
					a := s.want(200, "GET", "/v2/"+repo+"/manifests/"+ref, "")
					if a.body != string(m.Data) {
						t.Errorf("%s %s: got %s; want %s", repo, ref, a.body, m.Data)
					}
					s.wantHeader(a, "Content-Length", fmt.Sprint(len(m.Data)))
					s.want(200, "HEAD", "/v2/"+repo+"/manifests/"+ref, "")
				}
			}
			if a := s.want(200, "GET", "/v2/"+repo+"/tags/list", ""); !strings.Contains(a.body, `["`+word+`"]`) {
				t.Errorf("%s: %s", repo, a.body)
			}
			if a := s.want(200, "GET", "/v2/"+repo+"/referrers/"+absent().String(), ""); !strings.Contains(a.body, `"manifests":[]`) {
				t.Errorf("%s: %s", repo, a.body)
			}
			s.want(200, "GET", "/v2/"+repo+"/blobs/"+s.pushBlob(repo, "{}").String(), "")
		}
	}
}

// A blob that a power loss cut short is absent, so that it is uploaded again.
func TestTornBlob(t *testing.T) {
	layer := ocitest.NewBlob("application/octet-stream", "the bytes of a model")
	m := ocitest.NewManifest("m", layer)
	for _, torn := range []string{"", "the bytes", "the bytes of a model and more"} {
		s := newSite(t, serve.Options{})
		s.pushManifest("r", "v1", m, layer)
		path := "/v2/r/blobs/" + layer.Digest.String()
		s.want(200, "HEAD", path, "")
		if err := os.WriteFile(s.blobFile("r", layer.Digest), []byte(torn), 0o666); err != nil {
			t.Fatal(err)
		}
		s.want(404, "HEAD", path, "")
		s.wantCode(404, "BLOB_UNKNOWN", "GET", path, "")
		s.want(202, "POST", "/v2/other/blobs/uploads/?from=r&mount="+layer.Digest.String(), "")
		s.want(404, "HEAD", "/v2/other/blobs/"+layer.Digest.String(), "")
		s.pushManifest("r", "v1", m, layer)
		if a := s.want(200, "GET", path, ""); a.body != string(layer.Data) {
			t.Errorf("healed: %q", a.body)
		}
	}
}

// Its media type may be left to the manifest, and its subject is understood.
func TestSubjectWithoutContentType(t *testing.T) {
	s := newSite(t, serve.Options{})
	m := attached("s", "application/x", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: absent(), Size: 1})
	a := s.want(404, "PUT", "/v2/r/manifests/v1", string(m.Data))
	s.wantHeader(a, "OCI-Subject", "")
	s.pushBlob("r", "{}")
	a = s.want(201, "PUT", "/v2/r/manifests/v1", string(m.Data))
	s.wantHeader(a, "OCI-Subject", absent().String())
}

func TestListen(t *testing.T) {
	l, err := serve.Listen(t.Context(), "127.0.0.1:0", serve.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serve.Listen(t.Context(), l.Addr().String(), serve.Options{}); !errors.Is(err, serve.ErrTaken) {
		t.Errorf("the same address: %v; want %v", err, serve.ErrTaken)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0"} {
		if _, err := serve.Listen(t.Context(), addr, serve.Options{}); !errors.Is(err, serve.ErrOpen) {
			t.Errorf("%s: %v; want %v", addr, err, serve.ErrOpen)
		}
		open, err := serve.Listen(t.Context(), addr, serve.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		open.Close()
	}

	// A request under way ends as it would, and then Run does.
	var log bytes.Buffer
	o := serve.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	dir := t.TempDir()
	go func() { done <- serve.Run(ctx, l, serve.New(dir, o), o.Log) }()
	body, feed := io.Pipe()
	s := &site{t, "http://" + l.Addr().String(), dir}
	answered := make(chan answer)
	go func() {
		answered <- s.do("POST", "/v2/r/blobs/uploads/?digest="+digest.FromString("slow").String(), body)
	}()
	feed.Write([]byte("sl"))
	for len(files(t, dir)) == 0 { // until it is there
	}
	stop()
	feed.Write([]byte("ow"))
	feed.Close()
	if a := <-answered; a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "method=POST") || !strings.Contains(log.String(), "status=201") {
		t.Errorf("log %q", log.String())
	}
}
