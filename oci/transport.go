package oci

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// session is the HTTP client of one repository.
type session struct {
	auth  *auth.Client
	ref   registry.Reference
	write bool
	tell  Progress // of manifests and lists that are asked for again
}

// maxReplay bounds in bytes a manifest that is kept to be sent twice.
const maxReplay = 4 << 20

// Do sends the request with the repository's credentials.
func (s *session) Do(req *http.Request) (*http.Response, error) {
	if s.write {
		// Otherwise the HEAD of a push would fetch a token that is good
		// for pulling only, and the first POST another one.
		ctx := auth.AppendRepositoryScope(req.Context(), s.ref, auth.ActionPull, auth.ActionPush)
		req = req.WithContext(ctx)
	}
	if req.Body != nil && req.GetBody == nil && isManifestPath(req) {
		// A manifest copied from elsewhere: keep it, for the answer may be
		// that it has to be sent again with a token.
		body, err := io.ReadAll(io.LimitReader(req.Body, maxReplay+1))
		if err = errors.Join(err, req.Body.Close()); err != nil {
			return nil, err
		}
		if len(body) > maxReplay {
			return nil, fmt.Errorf("%s %s: manifest is larger than %d bytes", req.Method, req.URL.Redacted(), maxReplay)
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	resp, err := s.auth.Do(req)
	for n := 1; n < maxManifestTries && err == nil && altered(req, resp); n++ {
		// A tag takes whatever comes: it names what was altered on its way.
		resp.Body.Close()
		if req.Body, err = req.GetBody(); err == nil {
			resp, err = s.auth.Do(req)
		}
	}
	if err == nil && reads(req) && (isManifestPath(req) || isListPath(req)) {
		return s.whole(req, resp)
	}
	return resp, err
}

// altered reports whether a registry took another manifest than was sent.
func altered(req *http.Request, resp *http.Response) bool {
	took := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if req.Method != http.MethodPut || req.GetBody == nil || resp.StatusCode != http.StatusCreated || !isManifestPath(req) || took.Validate() != nil {
		return false
	}
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	defer body.Close()
	sent, err := took.Algorithm().FromReader(body)
	return err == nil && sent != took
}

// newHTTPTransport returns the connections to all registries.
func newHTTPTransport(config *tls.Config, concurrency int) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		// A custom TLS configuration turns HTTP/2 off unless asked for.
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2 * concurrency, // as many as List keeps busy
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		// Blobs are compressed already, and their length must be seen.
		DisableCompression: true,
	}
}

// maxRedirects is as many as net/http follows by itself.
const maxRedirects = 10

// checkRedirect sees to it that nothing goes on without TLS but the reading of
// blobs: neither what is sent, nor what a tag is. A blob has a digest to be
// verified by, and whether one is there is believed only until a manifest is
// refused for want of it. Another host does not learn of the session that sent it
// there. oras-go keeps credentials back.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https" && !(reads(first) && isBlob(first.URL.Path)):
		return &answerError{first.URL.Host, req.Response.StatusCode, nil, "redirects to " + clean(req.URL.Host) + ", where there is no TLS", nil}
	case !sameOrigin(first.URL, req.URL):
		req.Header.Del("Referer")
	}
	return nil
}

// reads reports whether a request changes nothing.
func reads(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

// isBlob reports whether the path is that of a blob, by its digest.
func isBlob(api string) bool {
	return parent(api) == "blobs" && digest.Digest(path.Base(api)).Validate() == nil
}

// transport sends requests, again if that can help, logs them and refuses
// answers that are none of a registry.
type transport struct {
	base    http.RoundTripper
	log     *slog.Logger
	webPage func(host string) // called when a registry request is answered with HTML
	tell    Progress          // told of requests that are sent again
}

// RoundTrip implements [http.RoundTripper]. Other than that interface wants
// it, some answers are errors: see check.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	retrier := retry.Transport{
		Base:   logged{t.base, t.log},
		Policy: func() retry.Policy { return &policy{req: req, deadline: start.Add(retryBudget), tell: t.tell} },
	}
	resp, err := retrier.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := t.check(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// logged logs each attempt.
type logged struct {
	http.RoundTripper
	log *slog.Logger
}

func (l logged) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := l.RoundTripper.RoundTrip(req)
	if !l.log.Enabled(req.Context(), slog.LevelDebug) {
		return resp, err
	}
	// A query may hold a signature or an upload's state.
	where := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path}
	attrs := []any{"method", req.Method, "url", where.String(), "took", time.Since(start)}
	if err != nil {
		attrs = append(attrs, "error", clean(err.Error()))
	} else {
		attrs = append(attrs, "status", resp.StatusCode)
	}
	l.log.DebugContext(req.Context(), "request", attrs...)
	return resp, err
}

// The bounds of trying again: first after a quarter of a second, then after
// twice as long each time.
const (
	retryBudget = 20 * time.Second // from the first attempt to the start of the last
	askedBudget = 2 * time.Minute  // the same, where the server asks to wait
	maxRetries  = 5
	maxStalls   = 2 // after a silence, which the budget leaves out
	firstWait   = 250 * time.Millisecond
)

// backOff is how long to wait after so many attempts, and after the server asked
// to wait so long: to be back at once is none of what it can ask for.
func backOff(attempts int, asked time.Duration) time.Duration {
	wait := max(firstWait<<attempts, asked)
	return wait + rand.N(wait/5) // so that the jobs of one CI run do not return together
}

// sleep waits, as long as ctx lives.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// policy decides whether one request is sent again.
type policy struct {
	req      *http.Request
	deadline time.Time
	tell     Progress
	stalls   int
}

// Retry implements [retry.Policy].
func (p *policy) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
	const no = time.Duration(-1)
	if !p.canSucceed(resp, err) {
		return no, nil
	}
	deadline, asked := p.deadline, retryAfter(resp)
	if asked > 0 {
		deadline = deadline.Add(askedBudget - retryBudget)
	}
	wait := backOff(attempt, asked)
	if stall, ok := errors.AsType[*stallError](err); ok {
		if p.stalls++; p.stalls > maxStalls {
			return no, nil
		}
		p.deadline = p.deadline.Add(stall.silent)
		deadline = p.deadline
	}
	if attempt >= maxRetries || time.Now().Add(wait).After(deadline) {
		if asked > 0 {
			return no, newRefusal(resp) // the answer as it is would not tell what was asked
		}
		return no, nil
	}
	if err == nil {
		err = &errcode.ErrorResponse{URL: p.req.URL, StatusCode: resp.StatusCode}
	}
	p.tell.emit(Event{Kind: Retried, Reason: reason(displayHost(p.req.URL.Host), err), Wait: wait})
	return wait, nil
}

// reason says in words for a terminal why something is tried again.
func reason(host string, err error) string {
	if answer, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		if answer.URL != nil {
			host = displayHost(answer.URL.Host)
		}
		return fmt.Sprintf("%s answered %d", host, answer.StatusCode)
	}
	if answer, ok := errors.AsType[*answerError](err); ok {
		return displayHost(answer.host) + " " + answer.why
	}
	if why := explainNetwork(host, err); why != "" {
		return why
	}
	return host + " failed: " + clean(err.Error())
}

// onceKey is the key of [Once].
type onceKey struct{}

// Once returns a context whose requests are not sent again after they may have
// done what they are for: not a second time to move a tag, when by then somebody
// else may have moved it on.
func Once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

type withoutRetryKey struct{}

// withoutRetry is for requests that change something and whose sender decides
// himself whether to send them again.
func withoutRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutRetryKey{}, true)
}

// canSucceed reports whether the request could do better a second time, and
// does no harm.
func (p *policy) canSucceed(resp *http.Response, err error) bool {
	if p.req.Context().Value(onceKey{}) != nil && (err != nil || resp.StatusCode != http.StatusTooManyRequests) {
		return false
	}
	switch p.req.Method {
	case http.MethodPut, http.MethodPatch, http.MethodDelete: // not those for a token on the way
		if p.req.Context().Value(withoutRetryKey{}) != nil {
			return false
		}
	}
	if err == nil {
		return p.req.Method != http.MethodPatch && mayPass(resp.StatusCode)
	}
	return idempotent(p.req) && p.req.Context().Err() == nil && wasCut(err)
}

// mayPass reports whether a status is one of a registry that is overloaded or
// broken for a while.
func mayPass(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return status >= 500
}

// wasCut reports whether a connection that stood was lost, or a name could not
// be looked up for a while; but neither a connection refused nor a failed
// handshake: those stay as they are.
func wasCut(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return name.IsTemporary || name.IsTimeout
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return slices.Contains([]string{"read", "write", "readfrom", "writeto"}, op.Op)
	}
	if stream, ok := errors.AsType[streamError](err); ok {
		return slices.Contains(lostStream, stream.Code)
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// streamError is what ended one stream of HTTP/2. net/http's own type is not
// exported, and lets itself be assigned to one of this shape:
// https://go.dev/issue/53896
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string {
	return fmt.Sprintf("stream %d ended with code %d", e.StreamID, e.Code)
}

// lostStream are the codes of RFC 9113, section 7, that say that a server lost
// or refused a stream: INTERNAL_ERROR, REFUSED_STREAM and CANCEL.
var lostStream = []uint32{0x2, 0x7, 0x8}

// idempotent reports whether a request may be repeated although the first may
// have reached the registry. A part of an upload may not: its session has moved
// on. An upload that was begun and is not gone on with, the registry forgets.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return true
	case http.MethodPut:
		return isManifestPath(req)
	case http.MethodPost:
		return strings.HasSuffix(req.URL.Path, "/blobs/uploads/")
	}
	return false
}

// maxAsked is longer than anybody waits, and short enough to be reckoned with.
const maxAsked = (1<<31 - 1) * time.Second

// retryAfter returns how long the server asks to wait, in either of the two
// forms of RFC 9110, section 10.2.3; 0 if it does not, or for a time gone by.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, time.Until(at)), maxAsked)
	}
	return 0
}

// answerError is an answer that no registry gives.
type answerError struct {
	host   string
	status int
	kind   error // ErrNotRegistry, ErrCorrupt or ErrTLS
	why    string
	cause  error // ErrScheme or nil
}

func (e *answerError) Error() string { return e.host + " " + e.why }
func (e *answerError) Unwrap() error { return e.cause }

// check finds answers that oras-go would misread or accept: a web page, what
// a TLS server says to plain HTTP, and a digest other than the one asked for.
func (t *transport) check(resp *http.Response) error {
	origin := firstRequest(resp.Request)
	api := origin.URL.Path
	if !strings.HasPrefix(api, "/v2/") {
		return nil
	}
	fail := func(kind error, why string, cause error) error {
		return &answerError{resp.Request.URL.Host, resp.StatusCode, kind, why, cause}
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	asked := digest.Digest(path.Base(api))
	byDigest := asked.Validate() == nil
	ok := resp.StatusCode == http.StatusOK

	// Go's server says this without a content type, others with a page.
	if resp.StatusCode == http.StatusBadRequest && resp.Request.URL.Scheme == "http" && (mediaType == "" || isHTML(mediaType)) {
		return fail(ErrTLS, "does not take plain HTTP (400): it seems to speak TLS", ErrScheme)
	}
	// A blob may be a web page, and so may the errors of a proxy.
	found := resp.StatusCode < 300
	if (found && !isBlob(api) || resp.StatusCode == http.StatusNotFound) && isWebPage(resp, mediaType) {
		t.webPage(origin.URL.Host)
		if found {
			return fail(ErrNotRegistry, "answers with a web page: it is not a registry", nil)
		}
	}
	if ok && reads(origin) && isManifestPath(origin) && !strings.HasPrefix(mediaType, "application/") {
		return fail(ErrNotRegistry, fmt.Sprintf("answers with content type %q instead of a manifest: it is not a registry", clean(mediaType)), nil)
	}
	if ok && strings.HasSuffix(api, "/tags/list") && !startsWith(resp, "{") {
		return fail(ErrNotRegistry, "answers with something other than JSON: it is not a registry", nil)
	}
	got := resp.Header.Get("Docker-Content-Digest")
	if ok && reads(origin) && byDigest && got != "" && got != asked.String() {
		return fail(ErrCorrupt, fmt.Sprintf("answers with %s when asked for %s", clean(got), asked), nil)
	}
	return nil
}

// firstRequest is the request whose redirects led to req.
func firstRequest(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

func isHTML(mediaType string) bool {
	return mediaType == "text/html" || mediaType == "application/xhtml+xml"
}

// isWebPage reports whether the body is HTML by its type and, where there is a
// body, by its first character: Quay calls the "true" that it answers to /v2/
// HTML.
func isWebPage(resp *http.Response, mediaType string) bool {
	if !isHTML(mediaType) {
		return false
	}
	if resp.Request.Method == http.MethodHead {
		return true
	}
	return startsWith(resp, "<")
}

// startsWith reports whether the body starts so, white space aside. It does
// not take anything from the body.
func startsWith(resp *http.Response, prefix string) bool {
	body := bufio.NewReader(resp.Body)
	body.Peek(1) // fills the buffer with what has come
	start, _ := body.Peek(body.Buffered())
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return bytes.HasPrefix(bytes.TrimLeft(start, "\ufeff \t\r\n"), []byte(prefix))
}
