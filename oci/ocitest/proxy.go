package ocitest

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Proxy stands in front of a registry, counts what passes and does to it what
// its rules say. It works on the level of HTTP and holds no body in memory. It
// is safe for concurrent use.
type Proxy struct {
	next    http.Handler
	closed  chan struct{}
	stalled chan struct{} // one for each request that was left hanging

	received, sent atomic.Int64 // bytes of bodies
	up, down       link

	mu     sync.Mutex
	rules  []*rule
	calmed chan struct{} // closed by Calm
	log    []*Exchange
	delay  time.Duration
}

// NewProxy returns a proxy in front of a registry, here ([Registry] has one) or
// elsewhere ([Forward]). Whoever serves it closes it before the server, which
// would wait for requests that hang.
func NewProxy(next http.Handler) *Proxy {
	return &Proxy{next: next, closed: make(chan struct{}), calmed: make(chan struct{}), stalled: make(chan struct{}, 1000)}
}

// Forward hands requests on to the registry at a URL such as
// http://127.0.0.1:5000, with the host the client asked for, so that locations
// lead back here. Where the registry fails, the client's connection is cut.
func Forward(registry string) (http.Handler, error) {
	to, err := url.Parse(registry)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy, transport.DisableCompression, transport.MaxIdleConnsPerHost = nil, true, 100
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, r.In.Host
		},
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}, nil
}

// Close ends what hangs in the proxy.
func (p *Proxy) Close() { close(p.closed) }

// Kind is what a request is about.
type Kind string

// The kinds of requests.
const (
	Manifests Kind = "manifest"
	Blobs     Kind = "blob"
	Uploads   Kind = "upload" // of blobs, and their mounts
	Tags      Kind = "tags"
	Referrers Kind = "referrers"
	Tokens    Kind = "token" // and all that is not the registry's API
	Others    Kind = "other"
)

// KindOf tells what the request is about by its path.
func KindOf(r *http.Request) Kind {
	path := r.URL.Path
	if !strings.HasPrefix(path, "/v2/") {
		return Tokens
	}
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	parent := parts[max(0, len(parts)-2)]
	switch {
	case strings.Contains(path, "/blobs/uploads/"):
		return Uploads
	case parent == "blobs":
		return Blobs
	case parent == "manifests":
		return Manifests
	case parent == "referrers":
		return Referrers
	case strings.HasSuffix(path, "/tags/list"):
		return Tags
	}
	return Others
}

// Exchange is a request with its answer.
type Exchange struct {
	Method, Path   string
	Kind           Kind
	Range          string // that was asked for, or that a chunk is
	Status         int    // 0: none was sent
	Received, Sent int64  // bytes of the bodies
}

// Exchanges returns what passed since the last call of it or Requests, in the
// order in which it came. What is under way is returned as far as it got.
func (p *Proxy) Exchanges() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Exchange, 0, len(p.log))
	for _, e := range p.log {
		out = append(out, *e)
	}
	p.log = nil
	return out
}

// Requests returns the same as "METHOD PATH".
func (p *Proxy) Requests() []string {
	var out []string
	for _, e := range p.Exchanges() {
		out = append(out, e.Method+" "+e.Path)
	}
	return out
}

// Moved returns how many bytes of bodies came and went since the last call.
func (p *Proxy) Moved() (received, sent int64) { return p.received.Swap(0), p.sent.Swap(0) }

// Stalled receives once for every request that is left hanging since the last
// call of Calm.
func (p *Proxy) Stalled() <-chan struct{} { return p.stalled }

// Rule says which requests meet with which mishap.
type Rule struct {
	Method string // "": any
	Kind   Kind   // "": any
	// Blob is the blob or manifest that the path names. "": any
	Blob digest.Digest
	// Skip is how often the mishap would happen before it does, and Times how
	// often it happens then; 0: always. A mishap at a byte that a body has not
	// does not count.
	Skip, Times int
	Mishap      Mishap
}

type rule struct {
	Rule
	seen int
}

func (r *rule) matches(req *http.Request) bool {
	return (r.Method == "" || r.Method == req.Method) && (r.Kind == "" || r.Kind == KindOf(req)) &&
		(r.Blob == "" || strings.HasSuffix(req.URL.Path, "/"+r.Blob.String()))
}

// Inject adds rules. A request meets with all that match it: what comes in goes
// through the first rule first, what goes out through the last.
func (p *Proxy) Inject(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range rules {
		p.rules = append(p.rules, &rule{Rule: r})
	}
}

// Calm removes all rules and goes on with what [Pause] holds.
func (p *Proxy) Calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
	close(p.calmed)
	p.calmed = make(chan struct{})
	for len(p.stalled) > 0 {
		<-p.stalled
	}
}

// Shape makes the way to the registry long and narrow: each request is held
// back for delay, and each direction carries so many bytes a second, all
// connections together; 0: without limit.
func (p *Proxy) Shape(delay time.Duration, bandwidth int64) {
	p.mu.Lock()
	p.delay = delay
	p.mu.Unlock()
	p.up.set(bandwidth)
	p.down.set(bandwidth)
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &Exchange{Method: r.Method, Path: r.URL.Path, Kind: KindOf(r), Range: r.Header.Get("Range") + r.Header.Get("Content-Range")}
	p.mu.Lock()
	p.log = append(p.log, e)
	delay, calmed := p.delay, p.calmed
	var rules []*rule
	for _, rule := range p.rules {
		if rule.matches(r) {
			rules = append(rules, rule)
		}
	}
	p.mu.Unlock()
	p.sleep(delay)

	r = r.Clone(r.Context()) // mishaps change it
	r.Body = &meteredBody{r.Body, p, e}
	w = &meteredWriter{w, p, e}
	next := p.next
	for _, rule := range slices.Backward(rules) {
		inner := next
		next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rule.Mishap(&Passage{p, rule, inner, calmed}, w, r)
		})
	}
	next.ServeHTTP(w, r)
}

// sleep waits, but not longer than the proxy is open.
func (p *Proxy) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closed:
	}
}

// meteredBody counts the bytes of a request before anybody sees them.
type meteredBody struct {
	io.ReadCloser
	p *Proxy
	e *Exchange
}

func (b *meteredBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.p.sleep(b.p.up.take(n))
	b.p.received.Add(int64(n))
	b.p.mu.Lock()
	b.e.Received += int64(n)
	b.p.mu.Unlock()
	return n, err
}

// meteredWriter counts the bytes of an answer before the client sees them.
type meteredWriter struct {
	http.ResponseWriter
	p *Proxy
	e *Exchange
}

func (w *meteredWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *meteredWriter) WriteHeader(status int) {
	w.p.mu.Lock()
	w.e.Status = status
	w.p.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *meteredWriter) Write(buf []byte) (int, error) {
	w.p.sleep(w.p.down.take(len(buf)))
	w.p.sent.Add(int64(len(buf)))
	w.p.mu.Lock()
	w.e.Sent += int64(len(buf))
	if w.e.Status == 0 {
		w.e.Status = http.StatusOK
	}
	w.p.mu.Unlock()
	return w.ResponseWriter.Write(buf)
}

// link is a line of limited bandwidth: a token bucket.
type link struct {
	mu   sync.Mutex
	rate int64     // bytes a second; 0: without limit
	free time.Time // when all that was taken has passed
}

// burst is how long a line that was idle makes up for it: about as long as a
// sleep may be late.
const burst = 5 * time.Millisecond

func (l *link) set(rate int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// take returns how long n bytes are under way.
func (l *link) take(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate <= 0 {
		return 0
	}
	now := time.Now()
	if idle := now.Add(-burst); l.free.Before(idle) {
		l.free = idle
	}
	l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	return l.free.Sub(now)
}
