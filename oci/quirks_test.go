package oci_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"galley/manifest"
	"galley/oci"
	. "galley/oci/ocitest"
	local "galley/oci/serve"
)

// like makes a registry take uploads as distribution does, which has no single
// POST: it answers 202 and drops the body.
func likeDistribution(p *Passage, w http.ResponseWriter, r *http.Request) {
	if q := r.URL.Query(); r.Method == http.MethodPost && q.Has("digest") {
		q.Del("digest")
		r.URL.RawQuery = q.Encode()
		io.Copy(io.Discard, r.Body)
		r.ContentLength = 0
	}
	p.Pass(w, r)
}

// credentials are a file with those of a test registry.
func credentials(t *testing.T, host string) []string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "config.json", fmt.Sprintf(`{"auths": {%q: {"username": "user", "password": "secret"}}}`, host))
	return []string{filepath.Join(dir, "config.json")}
}

// TestRequestCounts holds how many requests a push of three files costs.
func TestRequestCounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		auth                                  Fault
		first, again, content, retag, changed int // by a fresh client each
	}{
		// HEAD of the tag; POST and PUT of config and three layers; PUT of the tag.
		{None, 10, 1, 2, 6, 10},
		{BasicAuth, 11, 2, 3, 7, 11},
		{BearerAuth, 12, 3, 4, 8, 12},
	} {
		t.Run(string(tt.auth), func(t *testing.T) {
			t.Parallel()
			r := NewRegistry()
			t.Cleanup(r.Close)
			r.Misbehave(tt.auth)
			r.Inject(Rule{Mishap: likeDistribution})
			config, cache := credentials(t, r.Host), t.TempDir()
			push := func(what string, want int, p *manifest.Packed, tag string) {
				t.Helper()
				r.Requests()
				target, err := newClient(t, oci.Options{RegistryConfig: config, CacheDir: cache}).Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{tag}}); err != nil {
					t.Fatal(err)
				}
				if got := r.Requests(); len(got) != want {
					t.Errorf("%s: %d requests, want %d:\n%s", what, len(got), want, strings.Join(got, "\n"))
				}
			}
			one := packProject(t, project("one"), manifest.PackOptions{Revision: "aaa"})
			push("first push", tt.first, one, "candidate")
			push("unchanged", tt.again, one, "candidate")
			push("same content", tt.content, packProject(t, project("one"), manifest.PackOptions{Revision: "bbb"}), "candidate")
			push("another tag", tt.retag, one, "stable")
			push("another model with the same JSON", tt.changed, packProject(t, project("two"), manifest.PackOptions{}), "candidate")
		})
	}
}

// TestSinglePost learns that a registry takes small blobs in one request.
func TestSinglePost(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	cache := t.TempDir()
	push := func(text string, want int) {
		t.Helper()
		r.Requests()
		target, err := newClient(t, oci.Options{CacheDir: cache}).Create(t.Context(), registryRef(r.Host, "ml/"+text, ""))
		if err != nil {
			t.Fatal(err)
		}
		p := packProject(t, project(text), manifest.PackOptions{})
		if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
			t.Fatal(err)
		}
		if got := r.Requests(); len(got) != want {
			t.Errorf("%d requests, want %d:\n%s", len(got), want, strings.Join(got, "\n"))
		}
		install := t.TempDir()
		if _, err := installFrom(t, target, "v1", install); err != nil {
			t.Error(err)
		}
	}
	push("one", 9) // the config alone tries
	push("two", 6) // HEAD, four blobs, tag
	kept, err := filepath.Glob(filepath.Join(cache, "registries", "hosts", "*.json"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v; want one registry", kept, err)
	}
	// Now it is another registry.
	r.Inject(Rule{Mishap: likeDistribution})
	push("three", 10)
	push("four", 10)
	data, err := os.ReadFile(kept[0])
	if err != nil || !strings.Contains(string(data), `"single-post":{"has":false`) {
		t.Errorf("%q, %v; want what was learnt last", data, err)
	}
	for _, lie := range []string{`{"single-post":{"has":true,"at":"` + time.Now().Add(-40*24*time.Hour).Format(time.RFC3339) + `"}}`, "{", "null", `[]`, `{"x":1}`} {
		write(t, "", kept[0], lie)
		push("lie-"+fmt.Sprint(len(lie)), 10)
	}
	write(t, "", kept[0], `{"no-chunks":{"has":true,"at":"`+time.Now().Format(time.RFC3339)+`"},"single-post":{"has":true,"at":"`+time.Now().Format(time.RFC3339)+`"}}`)
	push("truth", 10) // one POST each, as sessions, is no more than a mount
}

// installFrom pulls what the tag names into dir.
func installFrom(t *testing.T, target oci.Target, tag, dir string) (oci.Installed, error) {
	t.Helper()
	m, err := oci.Read(t.Context(), target, tag)
	if err != nil {
		t.Fatal(err)
	}
	return install(t, dir, m, m.Artifact, oci.InstallOptions{})
}

// TestIgnoredMounts pushes to a registry that answers every mount with an
// upload: what is large is not sent twice, and then it is asked for first.
func TestIgnoredMounts(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	r.Inject(Rule{Method: "POST", Kind: Uploads, Mishap: func(p *Passage, w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = ""
		p.Pass(w, r)
	}})
	cache := t.TempDir()
	p := heavy(t, 50_000)
	for i, want := range []int64{50_000, 0, 0} {
		r.Moved()
		c := newClient(t, oci.Options{CacheDir: cache})
		oci.SetSizes(c, 20_000, 1<<30)
		target, err := c.Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[oci.EventKind]int{}
		var mu sync.Mutex
		r.Requests()
		_, err = oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{fmt.Sprint("v", i)}, Progress: func(e oci.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Descriptor.Size > 50_000 {
				kinds[e.Kind]++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := r.Moved(); got < want || got > want+10_000 {
			t.Errorf("push %d: %d bytes went up; want %d and a bit", i, got, want)
		}
		posts := 0
		for _, request := range r.Requests() {
			if strings.HasPrefix(request, "POST ") {
				posts++
			}
		}
		// What the large blob shows may come in time for the others.
		if want := []int{4, 4, 0}[i]; posts > want || i != 1 && posts < want || kinds[oci.Skipped] != min(i, 1) {
			t.Errorf("push %d: %d uploads begun, %v; want %d", i, posts, kinds, want)
		}
	}
}

// TestNoChunksIsLearnt asks a registry once whether it takes chunks.
func TestNoChunksIsLearnt(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	r.Inject(Rule{Method: "PATCH", Mishap: Answer(Up, 405, "UNSUPPORTED")})
	c := newClient(t, oci.Options{})
	oci.SetSizes(c, 1<<30, 20_000)
	for i, want := range []int{1, 0} {
		target, err := c.Create(t.Context(), registryRef(r.Host, fmt.Sprint("ml/", i), ""))
		if err != nil {
			t.Fatal(err)
		}
		r.Requests()
		if _, err := oci.Push(t.Context(), target, heavy(t, 50_000), oci.PushOptions{Tags: []string{"v1"}}); err != nil {
			t.Fatal(err)
		}
		patches := len(slices.DeleteFunc(r.Requests(), func(s string) bool { return !strings.HasPrefix(s, "PATCH ") }))
		if patches != want {
			t.Errorf("push %d: %d chunks; want %d", i, patches, want)
		}
	}
}

// TestTokenExpires loses the token in the middle of an upload.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	for _, huge := range []int64{1 << 30, 20_000} {
		for _, method := range []string{"POST", "PUT", "PATCH"} {
			t.Run(fmt.Sprint(method, huge), func(t *testing.T) {
				t.Parallel()
				r := NewRegistry()
				t.Cleanup(r.Close)
				r.Misbehave(BearerAuth)
				// After the answer of one request and before the next.
				r.Inject(Rule{Method: method, Kind: Uploads, Times: 2, Mishap: Do(Down, 0, r.ExpireTokens)})
				c := newClient(t, oci.Options{RegistryConfig: credentials(t, r.Host)})
				oci.SetSizes(c, 30_000, huge)
				target, err := c.Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
				if err != nil {
					t.Fatal(err)
				}
				p := heavy(t, 200_000)
				if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}, Concurrency: 1}); err != nil {
					t.Fatal(err)
				}
				if _, err := installFrom(t, target, "v1", t.TempDir()); err != nil {
					t.Error(err)
				}
				tokens := 0
				for _, e := range r.Exchanges() {
					if e.Kind == Tokens {
						tokens++
					}
				}
				if want := 3; tokens != want && !(method == "PATCH" && tokens < want) {
					t.Errorf("%d tokens; want %d", tokens, want)
				}
			})
		}
	}
}

// secure is a registry with TLS, and what is asked of it.
type secure struct {
	*Proxy
	*httptest.Server
	Host string
	ca   string

	mu       sync.Mutex
	requests []*http.Request
	conns    atomic.Int32
}

func newSecure(t *testing.T, next http.Handler) *secure {
	t.Helper()
	s := &secure{Proxy: NewProxy(next)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Clone(r.Context()))
		s.mu.Unlock()
		s.Proxy.ServeHTTP(w, r)
	}))
	quiet(s.Server)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(func() {
		s.Proxy.Close()
		s.Server.CloseClientConnections()
		s.Server.Close()
	})
	s.Host = hostOf(s.Server)
	s.ca = filepath.Join(t.TempDir(), "ca.pem")
	write(t, "", s.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return s
}

func (s *secure) open(t *testing.T, o oci.Options) (*oci.Client, oci.Target) {
	t.Helper()
	o.CAFile = s.ca
	c := newClient(t, o)
	target, err := c.Create(t.Context(), registryRef(s.Host, "ml/fraud", ""))
	if err != nil {
		t.Fatal(err)
	}
	return c, target
}

// layouts is a registry that goes on with uploads.
func layouts(t *testing.T) http.Handler {
	h := local.New(t.TempDir(), local.Options{Addr: "127.0.0.1"})
	var open sync.RWMutex // locked for good at the end
	t.Cleanup(open.Lock)  // a server of HTTP/2 does not wait for what was cut
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open.TryRLock() {
			panic(http.ErrAbortHandler)
		}
		defer open.RUnlock()
		h.ServeHTTP(w, r)
	})
}

// guarded wants the credentials of a test registry.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// TestUploadElsewhere has another host take the uploads, by location and by
// redirect. It learns no more than it has to.
func TestUploadElsewhere(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]func(host string) Rule{
		"location": func(host string) Rule { return Rule{Method: "POST", Kind: Uploads, Mishap: Location(OtherHost(host))} },
		"redirect": func(host string) Rule { return Rule{Method: "PUT", Kind: Uploads, Mishap: Redirect(host)} },
		"redirect of a chunk": func(host string) Rule {
			return Rule{Method: "PATCH", Kind: Uploads, Mishap: Redirect(host)}
		},
		"redirect of a download": func(host string) Rule { return Rule{Method: "GET", Kind: Blobs, Mishap: Redirect(host)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			content := layouts(t)
			registry, storage := newSecure(t, guarded(content)), newSecure(t, content)
			registry.Inject(rule(storage.Host))
			c, target := registry.open(t, oci.Options{RegistryConfig: credentials(t, registry.Host)})
			oci.SetSizes(c, 20_000, 100_000)
			p := heavy(t, 300_000)
			if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := installFrom(t, target, "v1", t.TempDir()); err != nil {
				t.Error(err)
			}
			if len(storage.requests) == 0 {
				t.Error("nothing went elsewhere")
			}
			for _, r := range storage.requests {
				if got := r.Header.Get("Authorization") + r.Header.Get("Referer") + r.Header.Get("Cookie"); got != "" || r.UserAgent() != "galley" {
					t.Errorf("%s %s told the storage %q, agent %q", r.Method, r.URL.Path, got, r.UserAgent())
				}
			}
		})
	}
}

// TestUploadWithoutTLS does not send what came by TLS further without it, but
// sees through a registry that does not know of the TLS before it.
func TestUploadWithoutTLS(t *testing.T) {
	t.Parallel()
	plain := serve(t, layouts(t).ServeHTTP)
	downgrade := func(host string) func(*url.URL) {
		return func(u *url.URL) {
			u.Scheme = "http"
			if host != "" {
				u.Host = host
			}
		}
	}
	for _, tt := range []struct {
		name string
		rule Rule
		want string // the end of the error; "": none
	}{
		{"location elsewhere", Rule{Method: "POST", Mishap: Location(downgrade(hostOf(plain)))}, "sends uploads to " + hostOf(plain) + ", where there is no TLS"},
		{"location here", Rule{Method: "POST", Mishap: Location(downgrade(""))}, ""},
		{"redirect", Rule{Method: "PUT", Kind: Uploads, Mishap: func(p *Passage, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+hostOf(plain)+r.URL.Path, http.StatusTemporaryRedirect)
		}}, "redirects to " + hostOf(plain) + ", where there is no TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			registry := newSecure(t, layouts(t))
			registry.Inject(tt.rule)
			c, target := registry.open(t, oci.Options{})
			_, err := oci.Push(t.Context(), target, heavy(t, 50_000), oci.PushOptions{Tags: []string{tt.name[:3]}})
			err = c.Explain("push", registryRef(registry.Host, "ml/fraud", ""), err)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasSuffix(err.Error(), registry.Host+" "+tt.want) {
				t.Errorf("%v; want … %s %s", err, registry.Host, tt.want)
			}
		})
	}
}

// TestReadWithoutTLS follows a registry to where there is no TLS for blobs only:
// nothing else says by itself that nobody on the way has changed it.
func TestReadWithoutTLS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		kind Kind
		read func(*testing.T, oci.Target) error
		want bool // that it is refused
	}{
		{"tag", Manifests, func(t *testing.T, target oci.Target) error { return second(oci.Read(t.Context(), target, "v1")) }, true},
		{"tags", Tags, func(t *testing.T, target oci.Target) error {
			return second(oci.List(t.Context(), target, oci.ListOptions{}))
		}, true},
		{"blob", Blobs, func(t *testing.T, target oci.Target) error { return second(installFrom(t, target, "v1", t.TempDir())) }, false},
		{"whether a blob is there", Blobs, func(t *testing.T, target oci.Target) error {
			return second(target.Exists(t.Context(), NewBlob("application/x-layer", "one").Descriptor))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			content := layouts(t)
			plain, registry := serve(t, content.ServeHTTP), newSecure(t, content)
			c, target := registry.open(t, oci.Options{})
			if _, err := oci.Push(t.Context(), target, heavy(t, 50_000), oci.PushOptions{Tags: []string{"v1"}}); err != nil {
				t.Fatal(err)
			}
			registry.Inject(Rule{Kind: tt.kind, Mishap: func(p *Passage, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+hostOf(plain)+r.URL.Path, http.StatusTemporaryRedirect)
			}})
			err := c.Explain("pull", registryRef(registry.Host, "ml/fraud", "v1"), tt.read(t, target))
			want := registry.Host + " redirects to " + hostOf(plain) + ", where there is no TLS"
			if !tt.want && err != nil || tt.want && (err == nil || !strings.HasSuffix(err.Error(), want)) {
				t.Errorf("%v; want it refused: %v: %s", err, tt.want, want)
			}
		})
	}
}

// TestPushOverHTTP2 pushes and pulls over one connection with an authority of its own,
// and survives the loss of streams.
func TestPushOverHTTP2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		rule Rule
		kind error
	}{
		{"well", Rule{Times: 1, Method: "TRACE"}, nil},
		{"upload cut", Rule{Method: "PUT", Kind: Uploads, Times: 1, Mishap: Cut(Up, Half)}, nil},
		{"chunk cut", Rule{Method: "PATCH", Times: 1, Mishap: Cut(Up, Half)}, nil},
		{"answer lost", Rule{Method: "POST", Times: 1, Mishap: Cut(Down, 0)}, nil},
		{"upload refused", Rule{Method: "PUT", Kind: Uploads, Mishap: Answer(Up, 403, "DENIED")}, oci.ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSecure(t, layouts(t))
			if tt.rule.Mishap != nil {
				s.Inject(tt.rule)
			}
			c, target := s.open(t, oci.Options{})
			oci.SetSizes(c, 20_000, 100_000)
			for _, size := range []int{50_000, 300_000} {
				_, err := oci.Push(t.Context(), target, heavy(t, size), oci.PushOptions{Tags: []string{fmt.Sprint("v", size)}})
				if err = c.Explain("push", registryRef(s.Host, "ml/fraud", ""), err); !errors.Is(err, tt.kind) {
					t.Fatalf("%v; want %v", err, tt.kind)
				}
				if tt.kind == nil {
					if _, err := installFrom(t, target, fmt.Sprint("v", size), t.TempDir()); err != nil {
						t.Error(err)
					}
				}
			}
			for _, r := range s.requests {
				if r.ProtoMajor != 2 {
					t.Errorf("%s %s by %s", r.Method, r.URL.Path, r.Proto)
				}
			}
			if n := s.conns.Load(); n != 1 {
				t.Errorf("%d connections; want 1", n)
			}
		})
	}
}

// TestConnectionsAreKept pushes over HTTP/1.1: as many connections as transfers
// at once, and the next push opens none.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	const concurrency = 7
	c := newClient(t, oci.Options{Concurrency: concurrency})
	if n := oci.SetDial(c, (&net.Dialer{}).DialContext).MaxIdleConnsPerHost; n < concurrency {
		t.Errorf("%d connections are kept; want %d", n, concurrency)
	}
	if oci.SetDial(c, (&net.Dialer{}).DialContext).ForceAttemptHTTP2 != true {
		t.Error("a TLS configuration of its own turns HTTP/2 off")
	}
}
