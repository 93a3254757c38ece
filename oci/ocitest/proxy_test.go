package ocitest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	. "galley/oci/ocitest"
)

// body is what moves in these tests: no two of its pieces are alike.
var body = func() string {
	var b strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&b, "%05d", i)
	}
	return b.String()
}()

const (
	blobPath   = "/v2/ml/fraud/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000"
	uploadPath = "/v2/ml/fraud/blobs/uploads/1"
)

// store has one blob and remembers what was uploaded.
type store struct {
	mu  sync.Mutex
	got []string // bodies, "…" behind those that broke off
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	case http.MethodPost:
		w.Header().Set("Location", uploadPath+"?state=x")
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			data = append(data, "…"...)
		}
		s.mu.Lock()
		s.got = append(s.got, string(data))
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	}
}

// received returns what was uploaded.
func (s *store) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// site is a store behind a proxy, and the client before it.
type site struct {
	*Proxy
	*store
	url    string
	client *http.Client
	close  func() // ends all requests
}

// sites are the ways to reach a store.
var sites = map[string]func(t *testing.T) *site{
	"handler": func(t *testing.T) *site {
		st := &store{}
		return newSite(t, st, st)
	},
	"forward": func(t *testing.T) *site {
		st := &store{}
		far := httptest.NewServer(st)
		t.Cleanup(far.Close)
		next, err := Forward(far.URL)
		if err != nil {
			t.Fatal(err)
		}
		return newSite(t, st, next)
	},
}

func newSite(t *testing.T, st *store, next http.Handler) *site {
	p := NewProxy(next)
	server := httptest.NewServer(p)
	end := sync.OnceFunc(func() {
		p.Close()
		server.Close()
	})
	t.Cleanup(end)
	return &site{p, st, server.URL, server.Client(), end}
}

// send sends a request and reads the answer; body may be cut.
func (s *site) send(t *testing.T, method, path, content string, header ...string) (int, string, error) {
	t.Helper()
	var in io.Reader
	if content != "" {
		in = strings.NewReader(content)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, in)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func flipped(at int) string {
	b := []byte(body)
	b[at] ^= 1
	return string(b)
}

func TestMishaps(t *testing.T) {
	t.Parallel()
	half, size := len(body)/2, len(body)
	refused := `{"errors":[{"code":"UNAVAILABLE","message":"as told"}]}`
	for _, tt := range []struct {
		name   string
		mishap Mishap
		put    bool // an upload instead of a download
		status int  // 0: no answer comes
		body   string
		cut    bool   // the answer ends early, or does not come
		got    string // by the registry
	}{
		{name: "cut answer", mishap: Cut(Down, 5000), status: 200, body: body[:5000], cut: true},
		{name: "cut answer in the middle", mishap: Cut(Down, Half), status: 200, body: body[:half], cut: true},
		{name: "cut answer before the last byte", mishap: Cut(Down, -1), status: 200, body: body[:size-1], cut: true},
		{name: "no answer", mishap: Cut(Down, 0), cut: true},
		{name: "answer shorter than the cut", mishap: Cut(Down, int64(size)), status: 200, body: body},
		{name: "answer corrupt", mishap: Corrupt(Down, 40_001), status: 200, body: flipped(40_001)},
		{name: "answer corrupt in its first byte", mishap: Corrupt(Down, 0), status: 200, body: flipped(0)},
		{name: "answer corrupt in its last byte", mishap: Corrupt(Down, -1), status: 200, body: flipped(size - 1)},
		{name: "answer short", mishap: End(Down, 70_000), status: 200, body: body[:70_000]},
		{name: "answer empty", mishap: End(Down, 0), status: 200},
		{name: "length too large", mishap: Length(1), status: 200, body: body, cut: true},
		{name: "length too small", mishap: Length(-1), status: 200, body: body[:size-1]},
		{name: "error", mishap: Answer(Up, 503, "UNAVAILABLE"), status: 503, body: refused},
		{name: "error afterwards", mishap: Answer(Down, 503, "UNAVAILABLE"), status: 503, body: refused},
		{name: "late", mishap: Delay(Down, time.Millisecond), status: 200, body: body},
		{name: "drip", mishap: Drip(Down, 30_000, time.Millisecond), status: 200, body: body},
		{name: "other handler", mishap: Serve(http.NotFoundHandler()), status: 404, body: "404 page not found\n"},

		{name: "cut request", mishap: Cut(Up, 5000), put: true, cut: true, got: body[:5000] + "…"},
		{name: "cut request in the middle", mishap: Cut(Up, Half), put: true, cut: true, got: body[:half] + "…"},
		{name: "request cut at once", mishap: Cut(Up, 0), put: true, cut: true},
		{name: "request shorter than the cut", mishap: Cut(Up, int64(size)), put: true, status: 201, got: body},
		{name: "answer to a request cut", mishap: Cut(Down, 0), put: true, cut: true, got: body},
		{name: "request corrupt", mishap: Corrupt(Up, 40_001), put: true, status: 201, got: flipped(40_001)},
		{name: "request corrupt in its last byte", mishap: Corrupt(Up, -1), put: true, status: 201, got: flipped(size - 1)},
		{name: "request short", mishap: End(Up, 70_000), put: true, status: 201, got: body[:70_000]},
		{name: "request refused", mishap: Answer(Up, 503, "UNAVAILABLE"), put: true, status: 503, body: refused},
		{name: "request refused afterwards", mishap: Answer(Down, 503, "UNAVAILABLE"), put: true, status: 503, body: refused, got: body},
		{name: "late request", mishap: Delay(Up, time.Millisecond), put: true, status: 201, got: body},
		{name: "dripping request", mishap: Drip(Up, 30_000, time.Millisecond), put: true, status: 201, got: body},
	} {
		for how, open := range sites {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				s := open(t)
				s.Inject(Rule{Times: 1, Mishap: tt.mishap})
				method, path, content := "GET", blobPath, ""
				if tt.put {
					method, path, content = "PUT", uploadPath, body
				}
				for n, want := range []int{tt.status, 200 + len(content)/len(body)} { // the second passes
					status, data, err := s.send(t, method, path, content)
					cut, wantBody := tt.cut, tt.body
					if n == 1 {
						cut, wantBody = false, body[len(content):]
					}
					if status != want || data != wantBody || (err != nil) != cut {
						t.Errorf("answer %d: status %d, %d bytes, %v; want %d, %d bytes, cut: %v", n, status, len(data), err, want, len(wantBody), cut)
					}
				}
				s.close() // all requests have come to their end
				var want []string
				if tt.got != "" {
					want = append(want, tt.got)
				}
				if tt.put {
					want = append(want, body)
				}
				if got := s.received(); !slices.Equal(got, want) {
					t.Errorf("the registry got %d bodies, want %d, or others than these", len(got), len(want))
				}
			})
		}
	}
}

// With a body of unknown length nothing is known of its end.
func TestMishapsOfStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mishap Mishap
		got    string
	}{
		{"cut", Cut(Up, 5000), body[:5000] + "…"},
		{"short", End(Up, 5000), body[:5000]},
		{"corrupt", Corrupt(Up, 5000), flipped(5000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := sites["handler"](t)
			s.Inject(Rule{Mishap: tt.mishap})
			req, err := http.NewRequestWithContext(t.Context(), "PUT", s.url+uploadPath, io.MultiReader(strings.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := s.client.Do(req); err == nil {
				resp.Body.Close()
			}
			s.close()
			if got := s.received(); !slices.Equal(got, []string{tt.got}) {
				t.Errorf("the registry got %d bodies, or not what it should", len(got))
			}
		})
	}
}

// TestStall is about time and leaks, so it runs in a bubble: a minute is over
// at once, and a goroutine that stays fails the test.
func TestStall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		direction Direction
		after     int64
		method    string
	}{
		{"download", Down, 5000, "GET"},
		{"answer", Down, 0, "GET"},
		{"request", Up, 0, "GET"},
		{"upload", Up, 5000, "PUT"},
		{"answer to an upload", Down, 0, "PUT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, l := NewProxy(&store{}), NewListener()
				server := &http.Server{Handler: p}
				go server.Serve(l)
				s := &site{p, nil, "http://far.test", &http.Client{
					Timeout: time.Minute, Transport: &http.Transport{DialContext: l.DialContext, DisableKeepAlives: true},
				}, nil}
				p.Inject(Rule{Times: 1, Mishap: Stall(tt.direction, tt.after)})
				start := time.Now()
				content := ""
				if tt.method == "PUT" {
					content = body
				}
				_, got, err := s.send(t, tt.method, uploadPath, content)
				want := ""
				if tt.direction == Down && tt.after > 0 {
					want = body[:tt.after]
				}
				if timeout, ok := errors.AsType[interface {
					error
					Timeout() bool
				}](err); !ok || !timeout.Timeout() || time.Since(start) != time.Minute || got != want {
					t.Errorf("got %d bytes, %v after %v; want %d and a time-out", len(got), err, time.Since(start), len(want))
				}
				select {
				case <-p.Stalled():
				default:
					t.Error("Stalled tells nothing")
				}
				if _, _, err := s.send(t, tt.method, uploadPath, content); err != nil {
					t.Errorf("the next request: %v", err)
				}
				p.Close()
				server.Close()
			})
		})
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	s := sites["handler"](t)
	s.Inject(Rule{Method: "PUT", Mishap: Pause(Up, Half)})
	done := make(chan error)
	go func() {
		_, _, err := s.send(t, "PUT", uploadPath, body)
		done <- err
	}()
	<-s.Stalled()
	if received, _ := s.Moved(); received < int64(len(body)/2) || received == int64(len(body)) {
		t.Errorf("%d bytes passed before the pause", received)
	}
	s.Calm()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := s.received(); !slices.Equal(got, []string{body}) {
		t.Errorf("the registry got %d bodies, or other bytes", len(got))
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	s := sites["handler"](t)
	var seen int64
	s.Inject(Rule{Method: "PUT", Mishap: Do(Up, 50_000, func() { seen, _ = s.Moved() })})
	if status, _, err := s.send(t, "PUT", uploadPath, body); status != 201 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if seen < 50_000 || seen == int64(len(body)) {
		t.Errorf("called after %d bytes; want it in the middle", seen)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	gone := func() Mishap { return Answer(Up, 410, "GONE") }
	blob := digest.Digest(strings.TrimPrefix(blobPath, "/v2/ml/fraud/blobs/"))
	for _, tt := range []struct {
		name string
		rule Rule
		want string // what becomes of the requests below
	}{
		{"always", Rule{Mishap: gone()}, "xxxxxxxx"},
		{"once", Rule{Times: 1, Mishap: gone()}, "x......."},
		{"the third", Rule{Skip: 2, Times: 1, Mishap: gone()}, "..x....."},
		{"from the third on", Rule{Skip: 2, Mishap: gone()}, "..xxxxxx"},
		{"method", Rule{Method: "PUT", Mishap: gone()}, ".....xx."},
		{"blobs", Rule{Kind: Blobs, Mishap: gone()}, "..xx...."},
		{"manifests", Rule{Kind: Manifests, Mishap: gone()}, "......x."},
		{"one of two", Rule{Kind: Blobs, Skip: 1, Mishap: gone()}, "...x...."},
		{"one blob", Rule{Blob: blob, Mishap: gone()}, "..x....."},
		{"uploads", Rule{Kind: Uploads, Mishap: gone()}, "....xx.."},
		{"tags", Rule{Kind: Tags, Mishap: gone()}, ".x......"},
		{"tokens", Rule{Kind: Tokens, Mishap: gone()}, "x......."},
		{"referrers", Rule{Kind: Referrers, Mishap: gone()}, ".......x"},
		// Three bodies are longer than that, and the first two are let go.
		{"not in short bodies", Rule{Skip: 2, Times: 1, Mishap: Cut(Down, int64(len(body)-1))}, "..x....."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := sites["handler"](t)
			s.Inject(tt.rule)
			var got strings.Builder
			for _, request := range []string{
				"GET /token", "GET /v2/ml/fraud/tags/list", "GET " + blobPath, "GET /v2/ml/fraud/blobs/sha256:1",
				"POST /v2/ml/fraud/blobs/uploads/", "PUT " + uploadPath, "PUT /v2/ml/fraud/manifests/v1", "GET /v2/ml/fraud/referrers/sha256:1",
			} {
				method, path, _ := strings.Cut(request, " ")
				status, _, err := s.send(t, method, path, "")
				if status == 410 || err != nil {
					got.WriteByte('x')
				} else {
					got.WriteByte('.')
				}
			}
			if got.String() != tt.want {
				t.Errorf("requests %s; want %s", got.String(), tt.want)
			}
			s.Requests()
			s.Calm()
			if status, _, err := s.send(t, "GET", blobPath, ""); status != 200 || err != nil {
				t.Errorf("after Calm: %d, %v", status, err)
			}
		})
	}
}

// TestExchanges lets a download be cut three times, with a refusal between, and
// counts what it costs.
func TestExchanges(t *testing.T) {
	t.Parallel()
	s := sites["forward"](t)
	s.Inject(Rule{Method: "GET", Times: 3, Mishap: Cut(Down, 30_000)}, Rule{Skip: 1, Times: 1, Mishap: Answer(Up, 429, "TOOMANYREQUESTS", "Retry-After", "7")})
	var got bytes.Buffer
	for got.Len() < len(body) {
		_, data, err := s.send(t, "GET", blobPath, "", "Range", fmt.Sprintf("bytes=%d-", got.Len()))
		if !strings.HasPrefix(data, "{") {
			got.WriteString(data)
		} else if err != nil {
			t.Error(err)
		}
	}
	if got.String() != body {
		t.Error("other bytes")
	}
	want := []Exchange{
		{"GET", blobPath, Blobs, "bytes=0-", 206, 0, 30_000},
		{"GET", blobPath, Blobs, "bytes=30000-", 429, 0, 59},
		{"GET", blobPath, Blobs, "bytes=30000-", 206, 0, 30_000},
		{"GET", blobPath, Blobs, "bytes=60000-", 206, 0, 30_000},
		{"GET", blobPath, Blobs, "bytes=90000-", 206, 0, 10_000},
	}
	if got := s.Exchanges(); !slices.Equal(got, want) {
		t.Errorf("exchanges\n%v; want\n%v", got, want)
	}
	if received, sent := s.Moved(); received != 0 || sent != int64(len(body)+59) {
		t.Errorf("moved %d up, %d down", received, sent)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mishap Mishap
		status int
		body   string
		ranged string
	}{
		{"right", Header(func(http.Header) {}), 206, body[100:300], "bytes 100-299/100000"},
		{"ignored", IgnoreRange(), 200, body, ""},
		{"another one", OtherRange(5), 206, body[105:300], "bytes 105-299/100000"},
		{"not satisfiable", Answer(Up, 416, "RANGE_INVALID"), 416, `{"errors":[{"code":"RANGE_INVALID","message":"as told"}]}`, ""},
	} {
		s := sites["handler"](t)
		ranged := ""
		s.Inject(Rule{Mishap: Header(func(h http.Header) { ranged = h.Get("Content-Range") })}, Rule{Mishap: tt.mishap})
		status, data, err := s.send(t, "GET", blobPath, "", "Range", "bytes=100-299")
		if status != tt.status || data != tt.body || err != nil || ranged != tt.ranged {
			t.Errorf("%s: status %d, %d bytes of %q, %v", tt.name, status, len(data), ranged, err)
		}
	}
}

func TestLengthOfHead(t *testing.T) {
	t.Parallel()
	for _, by := range []int64{7, -7} {
		s := sites["handler"](t)
		s.Inject(Rule{Method: "HEAD", Mishap: Length(by)})
		resp, err := s.client.Head(s.url + blobPath)
		if err != nil || resp.ContentLength != int64(len(body))+by {
			t.Errorf("length %d, %v", resp.ContentLength, err)
		}
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mishap Mishap
		want   string // %s is the URL of the proxy
	}{
		{"absolute", Location(func(*url.URL) {}), "%s" + uploadPath + "?state=x"},
		{"relative", Location(RelativeLocation), uploadPath + "?state=x"},
		{"other host", Location(OtherHost("store.test:8")), "http://store.test:8" + uploadPath + "?state=x"},
		{"signed", SignedLocation(), "%s" + uploadPath + "?z=1&sig=a%%2Bb%%2F%%3D&a=2&state=x"},
	} {
		s := sites["handler"](t)
		s.Inject(Rule{Mishap: tt.mishap})
		resp, err := s.client.Post(s.url+"/v2/ml/fraud/blobs/uploads/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		if strings.Contains(want, "%") {
			want = fmt.Sprintf(want, s.url)
		}
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("%s: %s; want %s", tt.name, got, want)
		}
	}
}

func TestSignedLocation(t *testing.T) {
	t.Parallel()
	s := sites["handler"](t)
	s.Inject(Rule{Mishap: SignedLocation()})
	for query, want := range map[string]int{
		"?z=1&sig=a%2Bb%2F%3D&a=2&digest=d": 201,
		"?a=2&digest=d&sig=a%2Bb%2F%3D&z=1": 201,
		"?digest=d":                         404,
		"?z=1&sig=a+b/=&a=2":                404,
	} {
		if status, _, err := s.send(t, "PUT", uploadPath+query, body); status != want || err != nil {
			t.Errorf("%s: status %d, %v; want %d", query, status, err, want)
		}
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	s, far := sites["handler"](t), sites["handler"](t)
	host := strings.TrimPrefix(far.url, "http://")
	s.Inject(Rule{Kind: Blobs, Mishap: Redirect(host)})
	if status, data, err := s.send(t, "GET", blobPath, ""); status != 200 || data != body || err != nil {
		t.Errorf("status %d, %d bytes, %v", status, len(data), err)
	}
	if got := far.Requests(); !slices.Equal(got, []string{"GET " + blobPath}) {
		t.Errorf("the other host got %q", got)
	}
}

// A registry that goes away takes the connections of its clients with it.
func TestForwardToNowhere(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(&store{})
	next, err := Forward(far.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil, next)
	far.Close()
	if status, _, err := s.send(t, "GET", blobPath, ""); err == nil {
		t.Errorf("status %d; want a cut connection", status)
	}
	if _, err := Forward("http://%zz"); err == nil {
		t.Error("Forward takes what is no URL")
	}
}

// TestShape measures the line in a bubble, where a sleep is exact.
func TestShape(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		delay     time.Duration
		bandwidth int64
		method    string
		clients   int
		want      time.Duration
	}{
		{"free", 0, 0, "GET", 3, 0},
		{"long", 50 * time.Millisecond, 0, "GET", 3, 50 * time.Millisecond},
		{"narrow down", 0, 10_000, "GET", 1, 10 * time.Second},
		{"narrow down for all", 0, 10_000, "GET", 3, 30 * time.Second},
		{"narrow up for all", 0, 10_000, "PUT", 3, 30 * time.Second},
		{"long and narrow", 5 * time.Second, 100_000, "PUT", 2, 7 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := NewProxy(&store{})
				p.Shape(tt.delay, tt.bandwidth)
				start := time.Now()
				var all sync.WaitGroup
				for range tt.clients {
					all.Go(func() {
						req := httptest.NewRequestWithContext(t.Context(), tt.method, uploadPath, strings.NewReader(body))
						p.ServeHTTP(httptest.NewRecorder(), req)
					})
				}
				all.Wait()
				if took := time.Since(start); took > tt.want || took < tt.want-10*time.Millisecond {
					t.Errorf("took %v; want %v", took, tt.want)
				}
			})
		})
	}
}
