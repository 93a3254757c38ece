// Package ocitest has what tests of targets need: a registry in memory, a proxy
// in front of it or of any other that counts what passes and harms it, and a
// suite that every [oci.Target] has to pass.
//
// A [Fault] is a way in which a registry misbehaves throughout. A [Rule] is more
// exact: this cuts the first three downloads of blobs after 50 MB.
//
//	r := ocitest.NewRegistry()
//	defer r.Close()
//	r.Inject(ocitest.Rule{
//		Method: "GET", Kind: ocitest.Blobs, Times: 3,
//		Mishap: ocitest.Cut(ocitest.Down, 50_000_000),
//	})
package ocitest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"galley/oci"
)

// Registry is a registry in memory, behind a [Proxy]. It is safe for concurrent
// use.
type Registry struct {
	*Proxy
	// Host is where it listens: 127.0.0.1:PORT.
	Host string

	content ociregistry.Interface
	tokens  tokens
	server  *httptest.Server
}

// Fault is a way to misbehave, on every request it concerns.
type Fault string

// The faults. User and password are "user" and "secret"; the token server of
// BearerAuth is content without.
const (
	None         Fault = "none"
	Unauthorized Fault = "401" // wants a login, whatever is given
	Forbidden    Fault = "403"
	NotFound     Fault = "404"
	ServerError  Fault = "500"
	Unavailable  Fault = "503"        // for an hour, which nobody waits
	HTML         Fault = "html"       // a web page, with 200
	BasicAuth    Fault = "basic"      // wants the right login
	BearerAuth   Fault = "bearer"     // wants a token, of its own server, for each repository
	Truncate     Fault = "truncate"   // cuts the connection in a blob
	Alter        Fault = "alter"      // flips a bit in each blob
	Shorten      Fault = "shorten"    // sends less of a blob, and says so
	WrongDigest  Fault = "digest"     // lies in Docker-Content-Digest
	RefuseTag    Fault = "refuse-tag" // takes blobs, but no manifest
	StallGet     Fault = "stall-get"  // sends half of a blob, then nothing
	Silent       Fault = "silent"     // takes every request and says nothing
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
	SeeOther    Fault = "see-other"    // leads to a web page where referrers are asked for
	SubjectOnly Fault = "subject-only" // says that it lists a referrer, and has no API for it
	SmallPages  Fault = "small-pages"  // lists three tags at once
	Fixed400    Fault = "fixed-400"    // refuses version tags that are there, also the same again
	Fixed401    Fault = "fixed-401"
	Fixed412    Fault = "fixed-412"
	ClockAhead  Fault = "clock-ahead" // is two days ahead
	TwoClocks   Fault = "two-clocks"  // is of two servers, one of them 20 seconds late
	TagsGo      Fault = "tags-go"     // deletes a manifest with its tags; without, they stay and name nothing
)

// NewRegistry starts a registry on loopback; the caller closes it.
func NewRegistry() *Registry {
	content := ocimem.New()
	r := &Registry{Proxy: NewProxy(mounting{ociserver.New(content, nil)}), content: content, tokens: tokens{valid: make(map[string][]string)}}
	r.server = httptest.NewServer(r.Proxy)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	return r
}

// mounting answers a mount that misses as the specification has it, with the
// beginning of an upload, where ociserver answers with an error.
type mounting struct{ http.Handler }

func (m mounting) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost || !req.URL.Query().Has("mount") {
		m.Handler.ServeHTTP(w, req)
		return
	}
	rec := httptest.NewRecorder()
	if m.Handler.ServeHTTP(rec, req.Clone(req.Context())); rec.Code != http.StatusCreated {
		req.URL.RawQuery = ""
		m.Handler.ServeHTTP(w, req)
		return
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
}

// Close stops the registry, with the requests that hang in it.
func (r *Registry) Close() {
	r.Proxy.Close()
	r.server.CloseClientConnections()
	r.server.Close()
}

// Misbehave makes the registry do so from now on, and nothing else that it was
// told by the proxy's rules.
func (r *Registry) Misbehave(faults ...Fault) {
	r.Calm()
	for _, f := range faults {
		if f != None {
			r.Inject(r.rule(f))
		}
	}
}

// ExpireTokens makes all tokens that were given out under [BearerAuth] invalid.
func (r *Registry) ExpireTokens() { r.tokens.expire() }

// rule is what makes a fault.
func (r *Registry) rule(f Fault) Rule {
	every := func(m Mishap) Rule { return Rule{Mishap: m} }
	blob := func(m Mishap) Rule { return Rule{Method: http.MethodGet, Kind: Blobs, Mishap: m} }
	upload := func(m Mishap) Rule { return Rule{Kind: Uploads, Mishap: unless(bodiless, m)} }
	tag := func(m Mishap) Rule { return Rule{Method: http.MethodPut, Kind: Manifests, Mishap: m} }
	unauthorized := Answer(Up, http.StatusUnauthorized, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="test"`)
	switch f {
	case Unauthorized:
		return every(unauthorized)
	case BasicAuth:
		return every(unless(loggedIn, unauthorized))
	case BearerAuth:
		return every(r.tokens.guard)
	case Forbidden:
		return every(Answer(Up, http.StatusForbidden, "DENIED"))
	case NotFound:
		return every(Answer(Up, http.StatusNotFound, "NAME_UNKNOWN"))
	case ServerError:
		return every(Answer(Up, http.StatusInternalServerError, "UNKNOWN"))
	case Unavailable:
		return every(Answer(Up, http.StatusServiceUnavailable, "UNKNOWN", "Retry-After", "3600"))
	case HTML:
		return every(Serve(http.HandlerFunc(webPage)))
	case RateLimit:
		return every(unless(seen(), Answer(Up, http.StatusTooManyRequests, "TOOMANYREQUESTS", "Retry-After", "0")))
	case WrongDigest:
		return every(Header(wrongDigest))
	case Truncate:
		return blob(Cut(Down, Half))
	case Alter:
		return blob(Corrupt(Down, Half))
	case Shorten:
		return blob(End(Down, Half))
	case StallGet:
		return blob(Stall(Down, Half))
	case Silent:
		return every(Stall(Down, 0))
	case StallPut:
		return upload(Stall(Up, 1000))
	case PausePut:
		return upload(Pause(Up, 1000))
	case CutPut:
		return upload(Cut(Up, 1000))
	case RefuseTag:
		return tag(Answer(Up, http.StatusBadRequest, "MANIFEST_INVALID"))
	case Immutable:
		return tag(Answer(Up, http.StatusConflict, "DENIED"))
	case HugeManifest:
		return Rule{Method: http.MethodGet, Kind: Manifests, Mishap: Serve(http.HandlerFunc(hugeManifest))}
	case NoDelete, DigestOnly:
		allowed := func(req *http.Request) bool { return f == DigestOnly && strings.Contains(req.URL.Path, ":") }
		return Rule{Method: http.MethodDelete, Mishap: unless(allowed, Answer(Up, http.StatusMethodNotAllowed, "UNSUPPORTED"))}
	case NoReferrers:
		next := r.quirky(ociserver.Options{DisableReferrersAPI: true})
		return every(func(p *Passage, w http.ResponseWriter, req *http.Request) {
			// The server says all the same that it has listed a referrer.
			h := &headed{ResponseWriter: w, edit: func(h http.Header) { h.Del("OCI-Subject") }}
			next(p, h, req)
			h.finish()
		})
	case TagsGo:
		return Rule{Method: http.MethodDelete, Kind: Manifests, Mishap: func(p *Passage, w http.ResponseWriter, req *http.Request) {
			tags := r.tagsOf(req)
			seen := &statusWriter{ResponseWriter: w}
			if p.Pass(seen, req); seen.status == http.StatusAccepted {
				repository, _ := manifestOf(req)
				for _, tag := range tags {
					r.content.DeleteTag(req.Context(), repository, tag)
				}
			}
		}}
	case SubjectOnly:
		return every(r.quirky(ociserver.Options{DisableReferrersAPI: true}))
	case SeeOther:
		return every(seeOther)
	case SmallPages:
		return Rule{Method: http.MethodGet, Kind: Tags, Mishap: fewTags}
	case Fixed400:
		return tag(unless(r.free, Answer(Up, http.StatusBadRequest, "TAG_INVALID")))
	case Fixed401:
		return tag(unless(r.free, unauthorized))
	case Fixed412:
		return tag(unless(r.free, Answer(Up, http.StatusPreconditionFailed, "DENIED")))
	case ClockAhead:
		return every(Clock(func() time.Duration { return 48 * time.Hour }))
	case TwoClocks:
		var n atomic.Int64
		return every(Clock(func() time.Duration { return time.Duration(n.Add(1)%2) * -20 * time.Second }))
	case NoFilter:
		return every(r.quirky(ociserver.Options{DisableReferrersFiltering: true}))
	case NoLink:
		return every(r.quirky(ociserver.Options{OmitLinkHeaderFromResponses: true}))
	case PageCap:
		return every(r.quirky(ociserver.Options{MaxListPageSize: 1000}))
	case NoDigest:
		return every(r.quirky(ociserver.Options{OmitDigestFromTagGetResponse: true}))
	}
	panic("no fault " + string(f))
}

// seeOther redirects to a page of the registry's web site.
func seeOther(p *Passage, w http.ResponseWriter, req *http.Request) {
	const page = "/search"
	switch {
	case req.URL.Path == page:
		webPage(w, req)
	case KindOf(req) == Referrers:
		http.Redirect(w, req, page, http.StatusSeeOther)
	default:
		p.Pass(w, req)
	}
}

// fewTags ends a page of tags after three, with a link to the next.
func fewTags(p *Passage, w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	q.Set("n", "3")
	req.URL.RawQuery = q.Encode()
	p.Pass(w, req)
}

// free reports whether a manifest may be put: by digest, under a tag that may move,
// or under one that is not there.
func (r *Registry) free(req *http.Request) bool {
	repository, reference := manifestOf(req)
	if fixed, err := (oci.TagRules{}).Fixed(reference); err != nil || !fixed {
		return true
	}
	_, err := r.content.ResolveTag(req.Context(), repository, reference)
	return err != nil
}

// manifestOf is what the request's path names.
func manifestOf(req *http.Request) (repository, reference string) {
	repository, reference, _ = strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
	return repository, reference
}

// tagsOf are the tags of the manifest that the request is about.
func (r *Registry) tagsOf(req *http.Request) []string {
	repository, reference := manifestOf(req)
	var all []string
	for tag, err := range r.content.Tags(req.Context(), repository, "") {
		if err != nil {
			return nil // there is no such repository
		}
		all = append(all, tag)
	}
	return slices.DeleteFunc(all, func(tag string) bool {
		d, err := r.content.ResolveTag(req.Context(), repository, tag)
		return err != nil || d.Digest.String() != reference
	})
}

// statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// quirky has the same content served in another way.
func (r *Registry) quirky(o ociserver.Options) Mishap {
	return Serve(mounting{ociserver.New(r.content, &o)})
}

// unless is a mishap that does not happen to some requests.
func unless(spared func(*http.Request) bool, m Mishap) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if spared(r) {
			p.Pass(w, r)
		} else {
			m(p, w, r)
		}
	}
}

func bodiless(req *http.Request) bool { return req.ContentLength == 0 }

func loggedIn(req *http.Request) bool {
	user, password, _ := req.BasicAuth()
	return user == "user" && password == "secret"
}

// seen reports of a request whether one like it has come before.
func seen() func(*http.Request) bool {
	var before sync.Map
	return func(req *http.Request) bool {
		_, ok := before.LoadOrStore(req.Method+" "+req.URL.Path, true)
		return ok
	}
}

func webPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, "<html><title>Welcome</title>\x1b[31m</html>")
}

func hugeManifest(w http.ResponseWriter, _ *http.Request) {
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

// wrongDigest changes the digest that a header tells.
func wrongDigest(h http.Header) {
	if h.Get("Docker-Content-Digest") != "" {
		h.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
	}
}
