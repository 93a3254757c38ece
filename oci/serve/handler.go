package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds a manifest in bytes, as the specification advises.
const maxManifest = 4 << 20

// handler serves blobs, and passes everything else on to ociserver, having
// mended what ociserver does not do as the specification says.
type handler struct {
	registry *registry
	rest     http.Handler
	log      *slog.Logger
}

func newHandler(root string, log *slog.Logger) *handler {
	r := &registry{root: root}
	return &handler{registry: r, log: log, rest: ociserver.New(r, &ociserver.Options{
		WriteError: func(w http.ResponseWriter, req *http.Request, err error) { writeError(w, req, log, err) },
	})}
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	path := req.URL.Path
	read := req.Method == http.MethodGet || req.Method == http.MethodHead
	repo, name, isBlob := cutBlob(path)
	var err error
	switch {
	case isBlob && name == "uploads":
		err = h.start(w, req, repo)
	case isBlob && strings.HasPrefix(name, "uploads/"):
		err = h.upload(w, req, repo, strings.TrimPrefix(name, "uploads/"))
	case isBlob && read:
		err = h.blob(w, req, repo, name)
	case strings.HasSuffix(path, "/manifests/"): // ociserver panics
		err = &failure{status: http.StatusNotFound, code: "MANIFEST_UNKNOWN", message: "no tag and no digest"}
	case req.Method == http.MethodPut && kind(path) == "manifests":
		err = h.putManifest(w, req)
	case isList(path):
		h.list(w, req)
	default:
		h.rest.ServeHTTP(w, req)
	}
	if err != nil {
		writeError(w, req, h.log, err)
	}
}

// cutBlob takes the path of a blob or of an upload apart; name is the blob's
// digest, "uploads" or "uploads/ID". A repository may have a component "blobs"
// or "uploads" too, so what follows has to look like one.
func cutBlob(path string) (repo, name string, ok bool) {
	path, ok = strings.CutPrefix(path, "/v2/")
	i := strings.LastIndex(path, "/blobs/")
	if !ok || i < 0 {
		return "", "", false
	}
	repo, name = path[:i], strings.TrimSuffix(path[i+len("/blobs/"):], "/")
	id, _ := strings.CutPrefix(name, "uploads/")
	return repo, name, name != "" && !strings.Contains(id, "/")
}

// putManifest reads the manifest, with a limit, before ociserver would.
func (h *handler) putManifest(w http.ResponseWriter, req *http.Request) error {
	if req.ContentLength > maxManifest {
		return &http.MaxBytesError{Limit: maxManifest}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		return err
	}
	// To ociserver it would be a failure of its own.
	var m struct {
		Subject *v1.Descriptor `json:"subject"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%w: %w", ociregistry.ErrManifestInvalid, err)
	}
	req.Body = io.NopCloser(bytes.NewReader(data))
	if mediaType, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err == nil {
		req.Header.Set("Content-Type", mediaType) // without parameters
	}
	// ociserver does so only for manifests that come with their media type.
	if m.Subject != nil {
		w.Header().Set(subjectHeader, m.Subject.Digest.String())
	}
	h.rest.ServeHTTP(w, req)
	return nil
}

// subjectHeader tells who pushed a manifest that its subject was understood.
const subjectHeader = "OCI-Subject"

// kind returns the last component but one of a path, which says what the last
// one names. What stands before belongs to the repository, whose components may
// be any of these words.
func kind(url string) string { return path.Base(path.Dir(url)) }

// isList reports whether the path is of a list.
func isList(url string) bool {
	return url == "/v2/_catalog" || strings.HasSuffix(url, "/tags/list") || kind(url) == "referrers"
}

// list answers requests for lists. One for no elements at all, which ociserver
// takes for one without limit, becomes one for those after the last.
func (h *handler) list(w http.ResponseWriter, req *http.Request) {
	if q := req.URL.Query(); q.Get("n") == "0" {
		q.Set("last", afterAll)
		req.URL.RawQuery = q.Encode()
	}
	h.rest.ServeHTTP(listWriter{w}, req)
}

// afterAll sorts after every repository and tag.
const afterAll = "~"

// listWriter turns the null that ociserver sends for an empty list into [].
// Clients in other languages would fail on it.
type listWriter struct{ http.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (w listWriter) WriteHeader(status int) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer]; ociserver calls it once.
func (w listWriter) Write(p []byte) (int, error) {
	for _, member := range []string{`"tags":`, `"repositories":`, `"manifests":`} {
		if head, ok := bytes.CutSuffix(p, []byte(member+"null}")); ok {
			_, err := w.ResponseWriter.Write(slices.Concat(head, []byte(member+"[]}")))
			return len(p), err
		}
	}
	return w.ResponseWriter.Write(p)
}
