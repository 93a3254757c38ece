package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// roundTrips is an [http.RoundTripper] that plays its answers one after the
// other, the last for ever, and remembers when it was asked.
type roundTrips struct {
	answers []answer
	asked   []time.Duration // since the first request
	bodies  []string

	start time.Time
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (rt *roundTrips) RoundTrip(req *http.Request) (*http.Response, error) {
	if rt.start.IsZero() {
		rt.start = time.Now()
	}
	a := rt.answers[min(len(rt.asked), len(rt.answers)-1)]
	rt.asked = append(rt.asked, time.Since(rt.start))
	if req.Body != nil {
		b, _ := io.ReadAll(req.Body)
		rt.bodies = append(rt.bodies, string(b))
	}
	if a.err != nil {
		return nil, a.err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if a.header != nil {
		header = a.header
	}
	return &http.Response{StatusCode: a.status, Header: header, Request: req, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

// opError is a failure of a connection as package net reports it.
func opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Err: &os.SyscallError{Syscall: op, Err: err}}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	const manifest, upload = "http://r.test/v2/a/manifests/v1", "http://r.test/v2/a/blobs/uploads/1"
	after := func(value string) http.Header { return http.Header{"Retry-After": {value}} }
	date := func(d time.Duration) string {
		// The clock of a bubble starts here.
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
	}
	for _, tt := range []struct {
		name     string
		method   string // GET
		url      string // manifest
		body     string
		answers  []answer
		status   int           // of the answer that comes out; 0: an error does
		asks     string        // the end of the error about it; "": it comes out as it is
		attempts int           // want
		atLeast  time.Duration // that the last attempt came after
	}{
		{name: "success at once", answers: []answer{{status: 200}}, status: 200, attempts: 1},
		{name: "not found is final", answers: []answer{{status: 404}}, status: 404, attempts: 1},
		{name: "unauthorized is final", answers: []answer{{status: 401}}, status: 401, attempts: 1},
		{name: "server error then success", answers: []answer{{status: 500}, {status: 503}, {status: 200}}, status: 200, attempts: 3, atLeast: 750 * time.Millisecond},
		{name: "request timeout", answers: []answer{{status: 408}, {status: 200}}, status: 200, attempts: 2},
		{name: "server error for ever", answers: []answer{{status: 502}}, status: 502, attempts: 6, atLeast: 7 * time.Second},
		{name: "not implemented is final", answers: []answer{{status: 501}}, status: 501, attempts: 1},
		{name: "rate limit with seconds", answers: []answer{{status: 429, header: after("7")}, {status: 200}}, status: 200, attempts: 2, atLeast: 7 * time.Second},
		{name: "rate limit with a date", answers: []answer{{status: 429, header: after(date(9 * time.Second))}, {status: 200}}, status: 200, attempts: 2, atLeast: 9 * time.Second},
		{name: "rate limit with a date gone by", answers: []answer{{status: 429, header: after(date(-time.Hour))}}, status: 429, attempts: 6, atLeast: 7 * time.Second},
		{name: "rate limit with no wait", answers: []answer{{status: 429, header: after("0")}}, status: 429, attempts: 6, atLeast: 7 * time.Second},
		{name: "rate limit with nonsense", answers: []answer{{status: 429, header: after("soon")}, {status: 200}}, status: 200, attempts: 2},
		{name: "rate limit of half a minute", answers: []answer{{status: 429, header: after("30")}, {status: 200}}, status: 200, attempts: 2, atLeast: 30 * time.Second},
		{name: "rate limit of a minute", answers: []answer{{status: 503, header: after("60")}, {status: 200}}, status: 200, attempts: 2, atLeast: time.Minute},
		{name: "rate limit beyond the budget", answers: []answer{{status: 429, header: after("121")}}, status: 429, asks: "and asks to wait 121 s", attempts: 1},
		{name: "rate limit of 30 years", answers: []answer{{status: 429, header: after("1000000000")}}, status: 429, asks: "and asks to wait 1000000000 s", attempts: 1},
		{name: "rate limit beyond all numbers", answers: []answer{{status: 429, header: after("99999999999999999999")}}, status: 429, asks: "and asks to wait 2147483647 s", attempts: 1},
		{name: "rate limit with a date far away", answers: []answer{{status: 429, header: after("Fri, 31 Dec 9999 23:59:59 GMT")}}, status: 429, asks: "and asks to wait 2147483647 s", attempts: 1},
		{name: "rate limits that add up", answers: []answer{{status: 429, header: after("50")}}, status: 429, asks: "and asks to wait 50 s", attempts: 3, atLeast: 100 * time.Second},
		{name: "unavailable with seconds", answers: []answer{{status: 503, header: after("3")}, {status: 200}}, status: 200, attempts: 2, atLeast: 3 * time.Second},

		{name: "refused connection is final", answers: []answer{{err: opError("dial", syscall.ECONNREFUSED)}}, attempts: 1},
		{name: "unknown host is final", answers: []answer{{err: &net.DNSError{Name: "r.test", IsNotFound: true}}}, attempts: 1},
		{name: "name server out of order", answers: []answer{{err: &net.DNSError{Name: "r.test", IsTemporary: true}}, {status: 200}}, status: 200, attempts: 2},
		{name: "cut connection", answers: []answer{{err: opError("read", syscall.ECONNRESET)}, {status: 200}}, status: 200, attempts: 2},
		{name: "closed connection", answers: []answer{{err: io.ErrUnexpectedEOF}, {err: io.EOF}, {status: 200}}, status: 200, attempts: 3},
		{name: "dial timeout", answers: []answer{{err: opError("dial", os.ErrDeadlineExceeded)}, {status: 200}}, status: 200, attempts: 2},
		{name: "TLS alert is final", answers: []answer{{err: &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}}}, attempts: 1},
		{name: "HTTP on TLS is final", answers: []answer{{err: http.ErrSchemeMismatch}}, attempts: 1},

		{name: "manifest put again in full", method: "PUT", body: "{}", answers: []answer{{err: opError("write", syscall.EPIPE)}, {status: 503}, {status: 201}}, status: 201, attempts: 3},
		{name: "upload not after a cut", method: "PUT", url: upload, body: "blob", answers: []answer{{err: opError("write", syscall.EPIPE)}}, attempts: 1},
		{name: "upload after a refusal", method: "PUT", url: upload, body: "blob", answers: []answer{{status: 503}, {status: 201}}, status: 201, attempts: 2},
		{name: "start of an upload not after a cut", method: "POST", url: upload, answers: []answer{{err: io.EOF}}, attempts: 1},
		{name: "start of an upload after a cut", method: "POST", url: strings.TrimSuffix(upload, "1"), answers: []answer{{err: io.EOF}, {status: 202}}, status: 202, attempts: 2},
		{name: "silence", answers: []answer{{err: &stallError{30 * time.Second}}}, attempts: 3},
		{name: "lost stream", answers: []answer{{err: streamError{1, 7, nil}}, {status: 200}}, status: 200, attempts: 2},
		{name: "broken stream is final", answers: []answer{{err: streamError{1, 1, nil}}}, attempts: 1},
		{name: "chunk never", method: "PATCH", url: upload, body: "chunk", answers: []answer{{status: 503}}, status: 503, attempts: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rt := &roundTrips{answers: tt.answers}
				client := &http.Client{Transport: &transport{base: rt, log: slog.New(slog.DiscardHandler), webPage: func(string) {}}}
				method, url := tt.method, tt.url
				if method == "" {
					method = "GET"
				}
				if url == "" {
					url = manifest
				}
				var body io.Reader
				if tt.body != "" {
					body = strings.NewReader(tt.body)
				}
				req, err := http.NewRequestWithContext(t.Context(), method, url, body)
				if err != nil {
					t.Fatal(err)
				}
				status := 0
				if resp, err := client.Do(req); err == nil {
					status = resp.StatusCode
					resp.Body.Close()
				} else if tt.asks != "" {
					e, _ := errors.AsType[*Error](new(Client).Explain("pull", Reference{Kind: Registry, Registry: "r.test", Repository: "a"}, err))
					if status = e.Status; !strings.HasSuffix(e.Detail, tt.asks) || !errors.Is(e, ErrUnreachable) {
						t.Errorf("%v; want an %v that ends so: %s", e, ErrUnreachable, tt.asks)
					}
				}
				last := rt.asked[len(rt.asked)-1]
				if status != tt.status || len(rt.asked) != tt.attempts || last < tt.atLeast || last > askedBudget {
					t.Errorf("status %d after %d attempts, the last after %v; want %d, %d, %v at least", status, len(rt.asked), last, tt.status, tt.attempts, tt.atLeast)
				}
				for _, b := range rt.bodies {
					if b != tt.body {
						t.Errorf("sent body %q, want %q each time", rt.bodies, tt.body)
					}
				}
			})
		})
	}
}

func TestRetryStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rt := &roundTrips{answers: []answer{{status: 503}}}
		client := &http.Client{Transport: &transport{base: rt, log: slog.New(slog.DiscardHandler)}}
		req, err := http.NewRequestWithContext(ctx, "GET", "http://r.test/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if _, err := client.Do(req); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if d := time.Since(rt.start); d != time.Second {
			t.Errorf("took %v, want 1s", d)
		}
	})
}

func TestRequestLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rt := &roundTrips{answers: []answer{{status: 200}, {err: opError("dial", syscall.ECONNREFUSED)}}}
	client := &http.Client{Transport: &transport{base: rt, log: logger, webPage: func(string) {}}}
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://ada:s3cret@store.test/blob?X-Amz-Signature=s3cret", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer s3cret")
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || strings.Contains(log.String(), "s3cret") {
		t.Fatalf("log:\n%s\nwant two lines without secrets", log.String())
	}
	for i, want := range []string{"method=GET url=http://store.test/blob", "method=GET url=http://store.test/blob"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("log line %q lacks %q", lines[i], want)
		}
	}
	if !strings.Contains(lines[0], "status=200") || !strings.Contains(lines[1], "connection refused") {
		t.Errorf("log lacks the outcomes:\n%s", log.String())
	}
}

func TestSessionRefusesWhatItCannotReplay(t *testing.T) {
	t.Parallel()
	c, err := NewClient(Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := c.repository(Reference{Kind: Registry, Registry: "localhost:1", Repository: "a"}, true).Client
	broken := errors.New("disk on fire")
	for _, tt := range []struct {
		body io.Reader
		want string
	}{
		{io.LimitReader(endless{}, maxReplay+1), "PUT http://localhost:1/v2/a/manifests/v1: manifest is larger than 4194304 bytes"},
		{iotest.ErrReader(broken), broken.Error()},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://localhost:1/v2/a/manifests/v1", tt.body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Do(req); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// endless is a reader without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestLocalRootOnEverySystem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		goos string
		env  map[string]string
		want string // with slashes; "": an error
	}{
		{"linux", map[string]string{"GALLEY_LOCAL": "/srv/galley", "HOME": "/home/ada"}, "/srv/galley"},
		{"linux", map[string]string{"HOME": "/home/ada"}, "/home/ada/.local/share/galley"},
		{"linux", map[string]string{"HOME": "/home/ada", "XDG_DATA_HOME": "/data"}, "/data/galley"},
		{"linux", map[string]string{"XDG_DATA_HOME": "/data"}, "/data/galley"},
		{"linux", map[string]string{"HOME": "/home/ada", "XDG_DATA_HOME": "data"}, "/home/ada/.local/share/galley"},
		{"freebsd", map[string]string{"HOME": "/home/ada"}, "/home/ada/.local/share/galley"},
		{"darwin", map[string]string{"HOME": "/Users/ada", "XDG_DATA_HOME": "/data"}, "/Users/ada/Library/Application Support/galley"},
		{"windows", map[string]string{"LocalAppData": "/AppData", "HOME": "/home/ada"}, "/AppData/galley"},
		{"windows", map[string]string{"GALLEY_LOCAL": "/srv", "LocalAppData": "/AppData"}, "/srv"},
		{"windows", map[string]string{"HOME": "/home/ada"}, ""},
		{"linux", nil, ""},
		{"darwin", nil, ""},
	} {
		got, err := localRoot(tt.goos, func(key string) string { return tt.env[key] })
		if strings.ReplaceAll(got, `\`, "/") != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("localRoot(%s, %v) = %q, %v; want %q", tt.goos, tt.env, got, err, tt.want)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.1.2.3:80": true, "[::1]": true, "[::1]:5000": true,
		"[::ffff:127.0.0.1]:5000": true, "ghcr.io": false, "localhost.example": false, "10.0.0.1:5000": false, "128.0.0.1": false, "[fd00::1]:5000": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                string
		o                   Options
		loopback, elsewhere bool
	}{
		{"by default", Options{}, true, false},
		{"forced", Options{PlainHTTP: new(true)}, true, true},
		{"forbidden", Options{PlainHTTP: new(false)}, false, false},
		{"with a TLS option", Options{Insecure: true}, false, false},
		{"forced with a TLS option", Options{PlainHTTP: new(true), Insecure: true}, true, true},
	} {
		c, err := NewClient(tt.o)
		if err != nil {
			t.Fatal(err)
		}
		if got, other := c.plainHTTP("localhost:5000"), c.plainHTTP("ghcr.io"); got != tt.loopback || other != tt.elsewhere {
			t.Errorf("plain HTTP %s: %v on the loopback, %v else; want %v, %v", tt.name, got, other, tt.loopback, tt.elsewhere)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                             "plain",
		"two\nlines\tand\r\x1b[31m red":     "two lines and [31m red",
		"right\u202eleft\u200b":             "right left",
		"bad \xff byte":                     "bad ? byte",
		"\u009b2J":                          "2J",
		strings.Repeat("ä", 200):            strings.Repeat("ä", 100) + "…" + strings.Repeat("ä", 50),
		strings.Repeat("x", 300):            strings.Repeat("x", 300),
		"a" + strings.Repeat("ä", 150):      "a" + strings.Repeat("ä", 99) + "…" + strings.Repeat("ä", 50),
		`GET "https://s3.test/b?sig=x": no`: `GET "https://s3.test/b": no`,
		"what? no URL":                      "what? no URL",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
