// Package ocitest has what tests of targets need: a registry in memory that can
// be told to misbehave, and a suite that every [oci.Target] has to pass.
package ocitest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// Registry is a registry in memory. It is safe for concurrent use.
type Registry struct {
	// Host is where it listens: 127.0.0.1:PORT.
	Host string

	server  *httptest.Server
	fault   atomic.Value  // of Fault
	stalled chan struct{} // one for each request that was left hanging
	closed  chan struct{}
	resume  atomic.Value // of chan struct{}, which Misbehave closes

	received, sent atomic.Int64 // bytes of bodies

	mu       sync.Mutex
	requests []string
	cutAt    int             // how many more requests until one is cut; 0: none is
	cutRest  bool            // and all that follow
	limited  map[string]bool // requests that were answered with 429 since the last call of Misbehave
}

// Fault is a way to misbehave, on every request it concerns.
type Fault string

// The faults. User and password of BasicAuth are "user" and "secret".
const (
	None         Fault = "none"
	Unauthorized Fault = "401" // wants a login, whatever is given
	Forbidden    Fault = "403"
	NotFound     Fault = "404"
	ServerError  Fault = "500"
	HTML         Fault = "html"       // a web page, with 200
	BasicAuth    Fault = "basic"      // wants the right login
	Truncate     Fault = "truncate"   // cuts the connection in a blob
	Alter        Fault = "alter"      // flips a bit in each blob
	Shorten      Fault = "shorten"    // sends less of a blob, and says so
	WrongDigest  Fault = "digest"     // lies in Docker-Content-Digest
	RefuseTag    Fault = "refuse-tag" // takes blobs, but no manifest
	StallGet     Fault = "stall-get"  // sends half of a blob, then nothing
	StallPut     Fault = "stall-put"  // reads a bit of an upload, then nothing
	PausePut     Fault = "pause-put"  // reads a bit of an upload, the rest after the next call of Misbehave
	CutPut       Fault = "cut-put"    // cuts the connection in an upload
	HugeManifest Fault = "huge"       // a manifest of 100 MB
	Immutable    Fault = "immutable"  // answers 409 to every manifest
	RateLimit    Fault = "429"        // answers the first of equal requests with 429
)

// Quirks: what registries in use do or leave out.
const (
	NoReferrers Fault = "no-referrers" // has no referrers API
	NoFilter    Fault = "no-filter"    // does not filter referrers
	NoLink      Fault = "no-link"      // ends a page of tags without a link to the next
	PageCap     Fault = "page-cap"     // refuses pages of more than 1000 tags
	NoDigest    Fault = "no-digest"    // leaves Docker-Content-Digest out when a tag is fetched
	DigestOnly  Fault = "digest-only"  // deletes by digest, not by tag
	NoDelete    Fault = "no-delete"    // deletes nothing
)

// quirks are those that the server knows itself.
var quirks = map[Fault]*ociserver.Options{
	NoReferrers: {DisableReferrersAPI: true},
	NoFilter:    {DisableReferrersFiltering: true},
	NoLink:      {OmitLinkHeaderFromResponses: true},
	PageCap:     {MaxListPageSize: 1000},
	NoDigest:    {OmitDigestFromTagGetResponse: true},
}

// NewRegistry starts a registry on loopback; the caller closes it.
func NewRegistry() *Registry {
	r := &Registry{stalled: make(chan struct{}, 1000), closed: make(chan struct{})}
	r.fault.Store(None)
	r.resume.Store(make(chan struct{}))
	content := ocimem.New()
	next, quirky := ociserver.New(content, nil), make(map[Fault]http.Handler)
	for f, o := range quirks {
		quirky[f] = ociserver.New(content, o)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		cut := r.cutNow()
		r.mu.Unlock()
		if cut {
			panic(http.ErrAbortHandler)
		}
		req.Body = &countedBody{req.Body, &r.received}
		w = &countedWriter{w, &r.sent}
		if h, ok := quirky[r.fault.Load().(Fault)]; ok {
			if r.fault.Load() == NoReferrers {
				w = &noSubject{w} // which the server sends all the same
			}
			h.ServeHTTP(w, req)
			return
		}
		r.serve(w, req, next)
	}))
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

// Close stops the registry, with the requests that hang in it.
func (r *Registry) Close() {
	close(r.closed)
	r.server.CloseClientConnections()
	r.server.Close()
}

// Misbehave makes the registry do so from now on.
func (r *Registry) Misbehave(f Fault) {
	for len(r.stalled) > 0 {
		<-r.stalled
	}
	r.mu.Lock()
	r.limited = make(map[string]bool)
	r.mu.Unlock()
	r.fault.Store(f)
	close(r.resume.Swap(make(chan struct{})).(chan struct{}))
}

// Cut cuts the connection of the n-th request from now on, unanswered, and of all
// that follow if rest is true. With n 0 nothing is cut any more.
func (r *Registry) Cut(n int, rest bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cutAt, r.cutRest = n, rest
}

func (r *Registry) cutNow() bool {
	switch r.cutAt {
	case 0:
		return false
	case 1:
		if !r.cutRest {
			r.cutAt = 0
		}
		return true
	}
	r.cutAt--
	return false
}

// Stalled receives once for every request that is left hanging since the last
// call of Misbehave.
func (r *Registry) Stalled() <-chan struct{} { return r.stalled }

// Requests returns the requests since the last call, as "METHOD PATH".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = nil
	return out
}

// Moved returns how many bytes of bodies came and went since the last call.
func (r *Registry) Moved() (received, sent int64) { return r.received.Swap(0), r.sent.Swap(0) }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

type countedWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

func (w *countedWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request, next http.Handler) {
	blob := req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
	upload := req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/blobs/")
	tag := req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/")
	switch f := r.fault.Load().(Fault); {
	case f == Unauthorized, f == BasicAuth && !loggedIn(req):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
	case f == Forbidden:
		fail(w, http.StatusForbidden, "DENIED")
	case f == NotFound:
		fail(w, http.StatusNotFound, "NAME_UNKNOWN")
	case f == ServerError:
		fail(w, http.StatusInternalServerError, "UNKNOWN")
	case f == HTML:
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html><title>Welcome</title>\x1b[31m</html>")
	case f == RefuseTag && tag:
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID")
	case f == Immutable && tag:
		fail(w, http.StatusConflict, "DENIED")
	case f == RateLimit && r.limit(req):
		w.Header().Set("Retry-After", "0")
		fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	case req.Method == http.MethodDelete && (f == NoDelete || f == DigestOnly && !strings.Contains(req.URL.Path, ":")):
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	case f == HugeManifest && req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/"):
		hugeManifest(w)
	case (f == StallPut || f == CutPut) && upload:
		io.CopyN(io.Discard, req.Body, 1000)
		r.hang(req, f == StallPut)
	case f == PausePut && upload:
		head := make([]byte, 1000)
		n, _ := io.ReadFull(req.Body, head)
		r.stalled <- struct{}{}
		<-r.resume.Load().(chan struct{})
		req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(head[:n]), req.Body))
		next.ServeHTTP(w, req)
	case blob && (f == Truncate || f == Alter || f == Shorten || f == StallGet):
		r.spoil(w, req, next, f)
	default:
		if f == WrongDigest {
			w = &lying{w}
		}
		next.ServeHTTP(w, req)
	}
}

// limit reports whether no request like this one has come yet.
func (r *Registry) limit(req *http.Request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := req.Method + " " + req.URL.Path
	first := !r.limited[key]
	r.limited[key] = true
	return first
}

func loggedIn(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	return user == "user" && password == "secret"
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"as told"}]}`, code)
}

// hang leaves the client without an answer, until it goes where it should wait.
func (r *Registry) hang(req *http.Request, wait bool) {
	if wait {
		select {
		case r.stalled <- struct{}{}:
		default: // nobody counts that far
		}
		select {
		case <-req.Context().Done():
		case <-r.closed:
		}
	}
	panic(http.ErrAbortHandler)
}

// spoil answers with the right headers and a body that is not right.
func (r *Registry) spoil(w http.ResponseWriter, req *http.Request, next http.Handler, f Fault) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, req)
	body := bytes.Clone(rec.Body.Bytes())
	maps.Copy(w.Header(), rec.Header())
	half := len(body) / 2
	switch f {
	case Alter:
		if len(body) > 0 {
			body[half] ^= 1
		}
	case Shorten:
		body = body[:half]
		w.Header().Set("Content-Length", fmt.Sprint(half))
	}
	w.WriteHeader(rec.Code)
	if f == Truncate || f == StallGet {
		w.Write(body[:half])
		w.(http.Flusher).Flush()
		r.hang(req, f == StallGet)
	}
	w.Write(body)
}

func hugeManifest(w http.ResponseWriter) {
	const size = 100 << 20
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Content-Length", fmt.Sprint(size))
	w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for range size / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// lying changes the digest header.
type lying struct{ http.ResponseWriter }

func (l *lying) WriteHeader(status int) {
	if l.Header().Get("Docker-Content-Digest") != "" {
		l.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
	}
	l.ResponseWriter.WriteHeader(status)
}

// noSubject leaves out the header by which a registry says that it has listed
// a referrer.
type noSubject struct{ http.ResponseWriter }

func (n *noSubject) WriteHeader(status int) {
	n.Header().Del("OCI-Subject")
	n.ResponseWriter.WriteHeader(status)
}
