package serve_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
	"galley/oci/ocitest"
	"galley/oci/serve"
)

// site is a registry on a directory.
type site struct {
	testing.TB
	url, dir string
}

func newSite(t testing.TB, o serve.Options) *site {
	return newSiteOn(t, filepath.Join(t.TempDir(), "registry"), o)
}

func newSiteOn(t testing.TB, dir string, o serve.Options) *site {
	t.Helper()
	server := httptest.NewServer(serve.New(dir, o))
	t.Cleanup(server.Close)
	return &site{t, server.URL, dir}
}

// answer is a response with its whole body.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (s *site) do(method, path string, body io.Reader, headers ...string) answer {
	s.Helper()
	if !strings.HasPrefix(path, "http") {
		path = s.url + path
	}
	req, err := http.NewRequestWithContext(s.Context(), method, path, body)
	if err != nil {
		s.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// want is do for an answer of that status.
func (s *site) want(status int, method, path string, body string, headers ...string) answer {
	s.Helper()
	a := s.do(method, path, strings.NewReader(body), headers...)
	if a.status != status {
		s.Fatalf("%s %s = %d %s; want %d", method, path, a.status, a.body, status)
	}
	return a
}

// wantCode is want for an error of the specification.
func (s *site) wantCode(status int, code, method, path string, body string, headers ...string) answer {
	s.Helper()
	a := s.want(status, method, path, body, headers...)
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || len(e.Errors) == 0 || e.Errors[0].Code != code || e.Errors[0].Message == "" {
		s.Errorf("%s %s answered %s; want code %s with a message", method, path, a.body, code)
	}
	return a
}

func (s *site) wantHeader(a answer, name, want string) {
	s.Helper()
	if got := a.header.Get(name); got != want {
		s.Errorf("header %s = %q; want %q", name, got, want)
	}
}

func (s *site) pushBlob(repo, data string) digest.Digest {
	s.Helper()
	d := digest.FromString(data)
	s.want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), data)
	return d
}

// pushManifest pushes a manifest with its blobs under a tag or its digest.
func (s *site) pushManifest(repo, reference string, m ocitest.Blob, layers ...ocitest.Blob) answer {
	s.Helper()
	s.pushBlob(repo, "{}")
	for _, l := range layers {
		s.pushBlob(repo, string(l.Data))
	}
	return s.want(201, "PUT", "/v2/"+repo+"/manifests/"+reference, string(m.Data), "Content-Type: "+m.MediaType)
}

// attached returns a manifest with a subject.
func attached(name, artifactType string, subject v1.Descriptor) ocitest.Blob {
	m := ocitest.NewManifest(name)
	var doc map[string]any
	if err := json.Unmarshal(m.Data, &doc); err != nil {
		panic(err) // it was marshalled just now
	}
	doc["subject"], doc["artifactType"] = subject, artifactType
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return ocitest.NewBlob(v1.MediaTypeImageManifest, string(data))
}

func absent() digest.Digest { return digest.FromString("absent") }

// Requirements are those of the OCI distribution specification 1.1.1, by its
// sections and endpoints.
func TestSpecification(t *testing.T) {
	layer := ocitest.NewBlob("application/x-layer", strings.Repeat("layer ", 1000))
	m := ocitest.NewManifest("m", layer)
	tests := []struct {
		name string
		run  func(t *testing.T, s *site)
	}{
		{"Determining Support/end-1", func(t *testing.T, s *site) {
			a := s.want(200, "GET", "/v2/", "")
			s.wantHeader(a, "Docker-Distribution-API-Version", "registry/2.0")
			s.wantCode(404, "NAME_UNKNOWN", "GET", "/", "")
			s.wantCode(404, "NAME_UNKNOWN", "GET", "/v1/", "")
		}},
		{"Pull/Pulling manifests/end-3", func(t *testing.T, s *site) {
			s.pushManifest("r", "v1", m, layer)
			for _, ref := range []string{"v1", m.Digest.String()} {
				for _, method := range []string{"GET", "HEAD"} {
					a := s.want(200, method, "/v2/r/manifests/"+ref, "")
					s.wantHeader(a, "Content-Type", m.MediaType)
					s.wantHeader(a, "Docker-Content-Digest", m.Digest.String())
					s.wantHeader(a, "Content-Length", fmt.Sprint(m.Size))
					if method == "GET" && a.body != string(m.Data) {
						t.Errorf("got %s", a.body)
					}
				}
			}
			for _, ref := range []string{"v2", absent().String(), layer.Digest.String()} {
				s.wantCode(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/"+ref, "")
				s.want(404, "HEAD", "/v2/r/manifests/"+ref, "")
			}
			s.wantCode(404, "NAME_UNKNOWN", "GET", "/v2/none/manifests/v1", "")
			s.want(404, "GET", "/v2/r/manifests/", "")
			s.want(404, "GET", "/v2/r/manifests/.bad", "")
		}},
		{"Pull/Pulling blobs/end-2", func(t *testing.T, s *site) {
			s.pushBlob("r", string(layer.Data))
			url := "/v2/r/blobs/" + layer.Digest.String()
			for _, method := range []string{"GET", "HEAD"} {
				a := s.want(200, method, url, "")
				s.wantHeader(a, "Docker-Content-Digest", layer.Digest.String())
				s.wantHeader(a, "Content-Length", fmt.Sprint(layer.Size))
				s.wantHeader(a, "Accept-Ranges", "bytes")
				if method == "GET" && a.body != string(layer.Data) {
					t.Errorf("got %d other bytes", len(a.body))
				}
			}
			s.wantCode(404, "BLOB_UNKNOWN", "GET", "/v2/r/blobs/"+absent().String(), "")
			s.want(404, "HEAD", "/v2/r/blobs/"+absent().String(), "")
			s.wantCode(404, "NAME_UNKNOWN", "GET", "/v2/none/blobs/"+layer.Digest.String(), "")
			s.wantCode(400, "DIGEST_INVALID", "GET", "/v2/r/blobs/sha256:12", "")
			s.wantCode(400, "DIGEST_INVALID", "GET", "/v2/r/blobs/sha1:"+strings.Repeat("0", 40), "")
		}},
		{"Pull/Pulling blobs/ranges", func(t *testing.T, s *site) {
			d := s.pushBlob("r", "0123456789")
			for _, tt := range []struct {
				header string
				status int
				want   string
				where  string
			}{
				{"bytes=2-4", 206, "234", "bytes 2-4/10"},
				{"bytes=7-", 206, "789", "bytes 7-9/10"},
				{"bytes=-3", 206, "789", "bytes 7-9/10"},
				{"bytes=8-99", 206, "89", "bytes 8-9/10"},
				{"bytes=10-", 416, "", "bytes */10"},
				{"bytes=11-12", 416, "", "bytes */10"},
			} {
				a := s.do("GET", "/v2/r/blobs/"+d.String(), nil, "Range: "+tt.header)
				if a.status != tt.status || tt.status == 206 && a.body != tt.want {
					t.Errorf("%s = %d %q; want %d %q", tt.header, a.status, a.body, tt.status, tt.want)
				}
				s.wantHeader(a, "Content-Range", tt.where)
			}
		}},
		{"Push/POST then PUT/end-4a, end-6", func(t *testing.T, s *site) {
			a := s.want(202, "POST", "/v2/r/blobs/uploads/", "")
			a = s.want(201, "PUT", a.header.Get("Location")+"?digest="+layer.Digest.String(), string(layer.Data), "Content-Type: application/octet-stream")
			s.wantHeader(a, "Location", "/v2/r/blobs/"+layer.Digest.String())
			if got := s.want(200, "GET", a.header.Get("Location"), ""); got.body != string(layer.Data) {
				t.Errorf("got %d other bytes", len(got.body))
			}
		}},
		{"Push/Single POST/end-4b", func(t *testing.T, s *site) {
			a := s.want(201, "POST", "/v2/r/blobs/uploads/?digest="+layer.Digest.String(), string(layer.Data))
			s.wantHeader(a, "Location", "/v2/r/blobs/"+layer.Digest.String())
			// Without Content-Length too.
			other := "another"
			if a := s.do("POST", "/v2/r/blobs/uploads/?digest="+digest.FromString(other).String(), io.MultiReader(strings.NewReader(other))); a.status != 201 {
				t.Errorf("%d %s", a.status, a.body)
			}
			s.pushBlob("r", "") // the empty blob
		}},
		{"Push/chunks/end-5, end-13", func(t *testing.T, s *site) {
			data := string(layer.Data)
			a := s.want(202, "POST", "/v2/r/blobs/uploads/", "", "Content-Length: 0")
			start := a.header.Get("Location")
			// Out of order, in three ways: the first chunk is not the first, comes twice, or is skipped.
			s.wantCode(416, "BLOB_UPLOAD_INVALID", "PATCH", start, data[100:], "Content-Range: 100-5999")
			a = s.want(202, "PATCH", start, data[:100], "Content-Range: 0-99", "Content-Type: application/octet-stream")
			s.wantHeader(a, "Range", "0-99")
			again := s.wantCode(416, "BLOB_UPLOAD_INVALID", "PATCH", a.header.Get("Location"), data[:100], "Content-Range: 0-99")
			s.wantHeader(again, "Range", "0-99")
			s.wantCode(416, "BLOB_UPLOAD_INVALID", "PUT", a.header.Get("Location")+"?digest="+layer.Digest.String(), data[200:], "Content-Range: 200-5999")
			where := s.want(204, "GET", a.header.Get("Location"), "")
			s.wantHeader(where, "Range", "0-99")
			a = s.want(202, "PATCH", where.header.Get("Location"), data[100:101], "Content-Range: 100-100") // of one byte
			a = s.want(202, "PATCH", a.header.Get("Location"), data[101:200])                               // as docker does
			s.wantHeader(a, "Range", "0-199")
			a = s.want(201, "PUT", a.header.Get("Location")+"?digest="+layer.Digest.String(), data[200:], "Content-Range: 200-5999")
			if got := s.want(200, "GET", a.header.Get("Location"), ""); got.body != data {
				t.Errorf("got %d other bytes", len(got.body))
			}
			s.wantCode(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", start, "")
			s.wantCode(404, "BLOB_UPLOAD_UNKNOWN", "GET", start, "")
		}},
		{"Push/chunks/lies", func(t *testing.T, s *site) {
			location := func() string { return s.want(202, "POST", "/v2/r/blobs/uploads/", "").header.Get("Location") }
			s.wantCode(400, "SIZE_INVALID", "PATCH", location(), "four", "Content-Range: 0-99")
			s.wantCode(400, "SIZE_INVALID", "PATCH", location(), "four", "Content-Range: bytes 0-3/4")
			s.wantCode(400, "SIZE_INVALID", "PATCH", location(), "four", "Content-Range: 3-0")
			for _, body := range []string{"fou", "fourr"} {
				at := location()
				a := s.do("PATCH", at, io.MultiReader(strings.NewReader(body)), "Content-Range: 0-3")
				if a.status != 400 {
					t.Errorf("%q for four bytes = %d", body, a.status)
				}
				s.wantHeader(s.want(204, "GET", at, ""), "Range", "0-0")
			}
			s.wantCode(400, "DIGEST_INVALID", "PUT", location()+"?digest="+absent().String(), "four")
			s.wantCode(400, "DIGEST_INVALID", "PUT", location()+"?digest=sha256:1", "four")
			s.wantCode(400, "DIGEST_INVALID", "PUT", location(), "four")
			s.wantCode(400, "DIGEST_INVALID", "POST", "/v2/r/blobs/uploads/?digest="+absent().String(), "four")
			s.want(404, "HEAD", "/v2/r/blobs/"+absent().String(), "")
			at := location()
			s.want(204, "DELETE", at, "")
			s.want(404, "GET", at, "")
			s.wantCode(405, "UNSUPPORTED", "POST", location(), "")
			s.wantCode(405, "UNSUPPORTED", "GET", "/v2/r/blobs/uploads/", "")
		}},
		{"Push/Mounting a blob from another repository/end-11", func(t *testing.T, s *site) {
			d := s.pushBlob("from", "model")
			a := s.want(201, "POST", "/v2/to/blobs/uploads/?mount="+d.String()+"&from=from", "")
			s.wantHeader(a, "Location", "/v2/to/blobs/"+d.String())
			s.want(200, "HEAD", "/v2/to/blobs/"+d.String(), "")
			one, err1 := os.Stat(s.blobFile("from", d))
			two, err2 := os.Stat(s.blobFile("to", d))
			if err1 != nil || err2 != nil || !os.SameFile(one, two) {
				t.Errorf("the blob was copied, not linked: %v, %v", err1, err2)
			}
			s.want(201, "POST", "/v2/to/blobs/uploads/?mount="+d.String()+"&from=to", "") // is it here?
			for _, q := range []string{"mount=" + absent().String() + "&from=from", "mount=" + d.String() + "&from=none", "mount=" + d.String(), "mount=" + d.String() + "&from=../x"} {
				a := s.want(202, "POST", "/v2/to/blobs/uploads/?"+q, "")
				s.want(201, "PUT", a.header.Get("Location")+"?digest="+d.String(), "model")
			}
			s.wantCode(400, "DIGEST_INVALID", "POST", "/v2/to/blobs/uploads/?mount=x&from=from", "")
		}},
		{"Push/Pushing Manifests/end-7", func(t *testing.T, s *site) {
			s.wantCode(404, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/r/manifests/v1", string(m.Data), "Content-Type: "+m.MediaType)
			s.want(404, "GET", "/v2/r/manifests/v1", "")
			a := s.pushManifest("r", "v1", m, layer)
			s.wantHeader(a, "Location", "/v2/r/manifests/"+m.Digest.String())
			s.wantHeader(a, "Docker-Content-Digest", m.Digest.String())
			s.wantHeader(a, "OCI-Subject", "")
			s.pushManifest("r", m.Digest.String(), m)
			s.wantCode(400, "DIGEST_INVALID", "PUT", "/v2/r/manifests/"+absent().String(), string(m.Data), "Content-Type: "+m.MediaType)
			s.want(201, "PUT", "/v2/r/manifests/bare", string(m.Data))
			for _, bad := range []string{"", "{", "[]", "{}", `{"subject":5}`, `{"mediaType":"` + m.MediaType + `","config":{"digest":"sha256:1"}}`, `{"mediaType":"x/y","config":{},"layers":[]}`} {
				s.wantCode(400, "MANIFEST_INVALID", "PUT", "/v2/r/manifests/bad", bad, "Content-Type: "+m.MediaType)
			}
			s.wantCode(400, "MANIFEST_INVALID", "PUT", "/v2/r/manifests/bad", string(m.Data), "Content-Type: "+v1.MediaTypeImageIndex)
			// A size that lies is a blob that is not there.
			wrong := strings.Replace(string(m.Data), fmt.Sprintf(`"size":%d`, layer.Size), `"size":1`, 1)
			s.wantCode(404, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/r/manifests/bad", wrong, "Content-Type: "+m.MediaType)
			s.want(404, "GET", "/v2/r/manifests/bad", "")
		}},
		{"Push/Pushing Manifests with Subject", func(t *testing.T, s *site) {
			// The subject need not be there.
			ref := attached("r", "application/x-signature", m.Descriptor)
			a := s.pushManifest("r", ref.Digest.String(), ref)
			s.wantHeader(a, "OCI-Subject", m.Digest.String())
		}},
		{"Push/large manifests", func(t *testing.T, s *site) {
			s.pushBlob("r", "{}")
			m := ocitest.NewManifest(strings.Repeat("x", 4<<20-1000))
			s.want(201, "PUT", "/v2/r/manifests/large", string(m.Data), "Content-Type: "+m.MediaType)
			m = ocitest.NewManifest(strings.Repeat("x", 4<<20))
			s.wantCode(413, "SIZE_INVALID", "PUT", "/v2/r/manifests/larger", string(m.Data), "Content-Type: "+m.MediaType)
			if a := s.do("PUT", "/v2/r/manifests/larger", io.MultiReader(bytes.NewReader(m.Data)), "Content-Type: "+m.MediaType); a.status != 413 {
				t.Errorf("without Content-Length: %d", a.status)
			}
		}},
		{"Content Discovery/Listing Tags/end-8a, end-8b", func(t *testing.T, s *site) {
			s.wantCode(404, "NAME_UNKNOWN", "GET", "/v2/r/tags/list", "")
			s.pushBlob("r", "{}")
			if a := s.want(200, "GET", "/v2/r/tags/list", ""); a.body != `{"name":"r","tags":[]}` {
				t.Errorf("no tags: %s", a.body)
			}
			for _, tag := range []string{"b", "a", "c"} {
				s.pushManifest("r", tag, m, layer)
			}
			for _, tt := range []struct{ query, want, link string }{
				{"", `["a","b","c"]`, ""},
				{"?n=2", `["a","b"]`, `</v2/r/tags/list?last=b&n=2>;rel="next"`},
				{"?n=2&last=b", `["c"]`, ""},
				{"?last=a", `["b","c"]`, ""},
				{"?last=z", `[]`, ""},
				{"?n=0", `[]`, ""},
				{"?n=3", `["a","b","c"]`, ""},
			} {
				a := s.want(200, "GET", "/v2/r/tags/list"+tt.query, "")
				if want := `{"name":"r","tags":` + tt.want + "}"; a.body != want {
					t.Errorf("%s: %s; want %s", tt.query, a.body, want)
				}
				s.wantHeader(a, "Link", tt.link)
			}
			s.want(400, "GET", "/v2/r/tags/list?n=x", "")
		}},
		{"Content Discovery/Listing Referrers/end-12a, end-12b", func(t *testing.T, s *site) {
			url := "/v2/r/referrers/" + m.Digest.String()
			const none = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
			if a := s.want(200, "GET", url, ""); a.body != none {
				t.Errorf("no repository: %s", a.body)
			}
			s.pushManifest("r", "v1", m, layer)
			if a := s.want(200, "GET", url, ""); a.body != none {
				t.Errorf("no referrers: %s", a.body)
			}
			one, two := attached("one", "application/x-one", m.Descriptor), attached("two", "", m.Descriptor)
			s.pushManifest("r", one.Digest.String(), one)
			s.pushManifest("r", "two", two)
			for query, want := range map[string]map[digest.Digest]string{
				"":                                 {one.Digest: "application/x-one", two.Digest: v1.MediaTypeEmptyJSON},
				"?artifactType=application/x-one":  {one.Digest: "application/x-one"},
				"?artifactType=application%2Fnone": {},
			} {
				a := s.want(200, "GET", url+query, "")
				var index v1.Index
				if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.MediaType != v1.MediaTypeImageIndex || len(index.Manifests) != len(want) {
					t.Errorf("%s: %v, %s; want %d manifests", query, err, a.body, len(want))
				}
				for _, d := range index.Manifests {
					if want[d.Digest] != d.ArtifactType || d.MediaType != v1.MediaTypeImageManifest || d.Annotations["name"] == "" || d.Size == 0 {
						t.Errorf("%s: %+v", query, d)
					}
				}
				filters := ""
				if query != "" {
					filters = "artifactType"
				}
				s.wantHeader(a, "OCI-Filters-Applied", filters)
				if !strings.HasPrefix(a.header.Get("Content-Type"), v1.MediaTypeImageIndex) {
					t.Errorf("type %s", a.header.Get("Content-Type"))
				}
			}
			s.wantCode(400, "DIGEST_INVALID", "GET", "/v2/r/referrers/x", "")
		}},
		{"Content Management/Deleting tags/end-9", func(t *testing.T, s *site) {
			s.pushManifest("r", "v1", m, layer)
			s.pushManifest("r", "v2", m)
			s.want(202, "DELETE", "/v2/r/manifests/v1", "")
			s.wantCode(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/v1", "")
			s.want(200, "GET", "/v2/r/manifests/v2", "")
			s.wantCode(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/r/manifests/v1", "")
			s.want(202, "DELETE", "/v2/r/manifests/v2", "")
			s.want(200, "GET", "/v2/r/manifests/"+m.Digest.String(), "")
		}},
		{"Content Management/Deleting Manifests/end-9", func(t *testing.T, s *site) {
			s.pushManifest("r", "v1", m, layer)
			s.pushManifest("r", "v2", m)
			s.want(202, "DELETE", "/v2/r/manifests/"+m.Digest.String(), "")
			for _, ref := range []string{"v1", "v2", m.Digest.String()} {
				s.wantCode(404, "MANIFEST_UNKNOWN", "GET", "/v2/r/manifests/"+ref, "")
			}
			s.wantCode(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/r/manifests/"+m.Digest.String(), "")
			s.wantCode(404, "NAME_UNKNOWN", "DELETE", "/v2/none/manifests/"+m.Digest.String(), "")
		}},
		{"Content Management/Deleting Blobs/end-10", func(t *testing.T, s *site) {
			url := "/v2/r/blobs/" + layer.Digest.String()
			s.pushManifest("r", "v1", m, layer)
			s.wantCode(405, "UNSUPPORTED", "DELETE", url, "") // a tag needs it
			s.want(200, "HEAD", url, "")
			s.want(202, "DELETE", "/v2/r/manifests/"+m.Digest.String(), "")
			s.want(202, "DELETE", url, "")
			s.wantCode(404, "BLOB_UNKNOWN", "GET", url, "")
			s.wantCode(404, "BLOB_UNKNOWN", "DELETE", url, "")
		}},
		{"Catalog", func(t *testing.T, s *site) {
			if a := s.want(200, "GET", "/v2/_catalog", ""); a.body != `{"repositories":[]}` {
				t.Errorf("no repositories: %s", a.body)
			}
			for _, repo := range []string{"a/b", "a", "a-b", "a/blobs/uploads", "z"} {
				s.pushManifest(repo, "v1", m, layer)
				s.want(200, "GET", "/v2/"+repo+"/manifests/v1", "")
			}
			for query, want := range map[string]string{
				"":             `["a","a-b","a/b","a/blobs/uploads","z"]`,
				"?n=2":         `["a","a-b"]`,
				"?n=0":         `[]`,
				"?last=a/b":    `["a/blobs/uploads","z"]`,
				"?n=9&last=zz": `[]`,
			} {
				if a := s.want(200, "GET", "/v2/_catalog"+query, ""); a.body != `{"repositories":`+want+`}` {
					t.Errorf("%s: %s; want %s", query, a.body, want)
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, newSite(t, serve.Options{}))
		})
	}
}

// blobFile is where a blob lies.
func (s *site) blobFile(repo string, d digest.Digest) string {
	return filepath.Join(s.dir, filepath.FromSlash(repo), "_oci", "blobs", d.Algorithm().String(), d.Encoded())
}

// target is a repository of a site as galley sees it.
func target(t testing.TB, url, repo string) oci.Target {
	t.Helper()
	c, err := oci.NewClient(oci.Options{Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference(strings.TrimPrefix(url, "http://") + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	target, err := c.Create(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestSuite(t *testing.T) {
	ocitest.Suite(t, func(t *testing.T) oci.Target { return target(t, newSite(t, serve.Options{}).url, "ml/fraud") })
}
