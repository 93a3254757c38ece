package oci_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/oci"
)

// noEnv is an environment without credentials.
func noEnv(string) string { return "" }

func newClient(t *testing.T, o oci.Options) *oci.Client {
	t.Helper()
	if o.Env == nil {
		o.Env = noEnv
	}
	c, err := oci.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hostOf is the host[:port] of a test server.
func hostOf(srv *httptest.Server) string { return srv.Listener.Addr().String() }

// serve starts a server that says nothing to the test's log.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	quiet(srv)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func quiet(srv *httptest.Server) { quietServer(srv.Config) }

func quietServer(srv *http.Server) { srv.ErrorLog = log.New(io.Discard, "", 0) }

// resolve opens HOST/acme/fraud and resolves v1, with the error explained.
func resolve(t *testing.T, c *oci.Client, host string) error {
	t.Helper()
	r := registryRef(host, "acme/fraud", "v1")
	target, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = target.Resolve(t.Context(), r.TagOrDigest())
	return c.Explain("resolve", r, err)
}

// tags lists the tags of HOST/acme/fraud, with the error explained.
func tags(t *testing.T, c *oci.Client, host string) error {
	t.Helper()
	r := registryRef(host, "acme/fraud", "")
	target, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	err = target.Tags(t.Context(), "", func([]string) error { return nil })
	return c.Explain("list", r, err)
}

// fetchBlob fetches a blob of HOST/acme/fraud, with the error explained.
func fetchBlob(t *testing.T, c *oci.Client, host string, desc v1.Descriptor) error {
	t.Helper()
	r := registryRef(host, "acme/fraud", "v1")
	target, err := c.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = content.FetchAll(t.Context(), target, desc)
	return c.Explain("pull", r, err)
}

// checkError compares an error with its kind and its message, in which HOST
// stands for the server.
func checkError(t *testing.T, err error, host string, kind error, status int, want string) {
	t.Helper()
	e, ok := errors.AsType[*oci.Error](err)
	if !ok {
		t.Fatalf("got %#v, want an *oci.Error", err)
	}
	if e.Kind != kind || kind != nil && !errors.Is(err, kind) {
		t.Errorf("kind %v, want %v", e.Kind, kind)
	}
	if e.Status != status {
		t.Errorf("status %d, want %d", e.Status, status)
	}
	if got := strings.ReplaceAll(err.Error(), host, "HOST"); got != want {
		t.Errorf("message\n     %s\nwant %s", got, want)
	}
	if strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Errorf("control character in %q", err)
	}
}

func errorsJSON(code, message string) string {
	b, _ := json.Marshal(map[string]any{"errors": []errcode.Error{{Code: code, Message: message, Detail: map[string]string{"a": "b"}}}})
	return string(b)
}

func TestExplainStatus(t *testing.T) {
	t.Parallel()
	const html = "<!DOCTYPE html><html><body>\x1b[31mNot here</body></html>"
	for _, tt := range []struct {
		name        string
		status      int
		contentType string // application/json
		body        string
		kind        error
		want        string
	}{
		{"not authorised", 401, "", errorsJSON("UNAUTHORIZED", "authentication required"), oci.ErrUnauthorized,
			"list HOST/acme/fraud: HOST refused the credentials (401): unauthorized: authentication required"},
		{"forbidden", 403, "", errorsJSON("DENIED", "permission_denied: write_package"), oci.ErrForbidden,
			"list HOST/acme/fraud: HOST denies access (403): denied: permission_denied: write_package"},
		{"no repository", 404, "", errorsJSON("NAME_UNKNOWN", "repository name not known to registry"), oci.ErrNotFound,
			"list HOST/acme/fraud: HOST does not have it (404): name unknown: repository name not known to registry"},
		{"conflict", 409, "", errorsJSON("DENIED", "tag v1 is immutable"), oci.ErrConflict,
			"list HOST/acme/fraud: HOST refuses to change what is there (409): denied: tag v1 is immutable"},
		{"precondition", 412, "", errorsJSON("PRECONDITION", "configured as immutable"), oci.ErrConflict,
			"list HOST/acme/fraud: HOST refuses to change what is there (412): precondition: configured as immutable"},
		{"too large", 413, "text/html", html, nil,
			"list HOST/acme/fraud: HOST takes no uploads of this size (413)"},
		{"something else", 400, "", errorsJSON("NAME_INVALID", "invalid"), nil,
			"list HOST/acme/fraud: HOST answered: Bad Request (400): name invalid: invalid"},
		{"a digest it does not like", 400, "", errorsJSON("DIGEST_INVALID", "invalid"), nil,
			"list HOST/acme/fraud: HOST answered: Bad Request (400): digest invalid: invalid"},
		{"not implemented", 501, "text/html", html, nil,
			"list HOST/acme/fraud: HOST answered: Not Implemented (501)"},
		{"hostile text", 403, "", errorsJSON("DENIED", "\x1b]0;gotcha\x07\u202e"+strings.Repeat("no\n", 400)), oci.ErrForbidden,
			"list HOST/acme/fraud: HOST denies access (403): denied: ]0;gotcha " + strings.Repeat("no ", 60) + "no…o" + strings.Repeat(" no", 33)},
		{"web page not found", 404, "text/html; charset=utf-8", html, oci.ErrNotRegistry,
			"list HOST/acme/fraud: HOST answers with web pages: it is not a registry (404)"},
		{"web page", 200, "text/html; charset=utf-8", html, oci.ErrNotRegistry,
			"list HOST/acme/fraud: HOST answers with a web page: it is not a registry"},
		{"not JSON", 200, "text/plain", "hello", oci.ErrNotRegistry,
			`list HOST/acme/fraud: HOST answers with something other than JSON: it is not a registry`},
		{"other JSON", 200, "", `{"tags":"v1"}`, nil,
			`list HOST/acme/fraud: GET "http://HOST/v2/acme/fraud/tags/list": failed to decode response: json: cannot unmarshal string into Go struct field .tags of type []string`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if tt.contentType != "" {
					w.Header().Set("Content-Type", tt.contentType)
				}
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			err := tags(t, newClient(t, oci.Options{}), hostOf(srv))
			status := tt.status
			if tt.name == "other JSON" {
				status = 0
			}
			checkError(t, err, hostOf(srv), tt.kind, status, tt.want)
		})
	}
}

func TestExplainManifest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		kind   error
		status int
		want   string
	}{
		{"no tag", http.NotFound, oci.ErrNotFound, 0, "resolve HOST/acme/fraud:v1: no tag v1 there"},
		{"web page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
		}, oci.ErrNotRegistry, 200, "resolve HOST/acme/fraud:v1: HOST answers with a web page: it is not a registry"},
		{"login page", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v2/") {
				http.Redirect(w, r, "/login?next=x", http.StatusFound)
				return
			}
			w.Header().Set("Content-Type", "text/html")
		}, oci.ErrNotRegistry, 200, "resolve HOST/acme/fraud:v1: HOST answers with a web page: it is not a registry"},
		{"web page not found", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(404)
		}, oci.ErrNotRegistry, 0, "resolve HOST/acme/fraud:v1: HOST answers with web pages: it is not a registry"},
		{"text", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
		}, oci.ErrNotRegistry, 200, `resolve HOST/acme/fraud:v1: HOST answers with content type "text/plain" instead of a manifest: it is not a registry`},
		{"anonymous without a login", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="acme"`)
			w.WriteHeader(401)
		}, oci.ErrUnauthorized, 401, "resolve HOST/acme/fraud:v1: HOST wants a login (401)"},
		{"anonymous token is not enough", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				io.WriteString(w, `{"token":"anonymous"}`)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="acme"`, r.Host))
			w.WriteHeader(401)
		}, oci.ErrUnauthorized, 401, "resolve HOST/acme/fraud:v1: HOST wants a login (401)"},
		{"anonymous token is denied", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				w.WriteHeader(403)
				io.WriteString(w, errorsJSON("DENIED", "requested access to the resource is denied"))
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="acme"`, r.Host))
			w.WriteHeader(401)
		}, oci.ErrForbidden, 403, "resolve HOST/acme/fraud:v1: HOST denies access without a login (403): denied: requested access to the resource is denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, tt.handle)
			err := resolve(t, newClient(t, oci.Options{}), hostOf(srv))
			checkError(t, err, hostOf(srv), tt.kind, tt.status, tt.want)
		})
	}
}

func TestExplainBytes(t *testing.T) {
	t.Parallel()
	desc := v1.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString("model"), Size: 5}
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		kind   error
		want   string
	}{
		{"other bytes", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "mudel") }, oci.ErrCorrupt,
			"pull HOST/acme/fraud:v1: mismatched digest"},
		{"other digest", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", digest256)
			io.WriteString(w, "model")
		}, oci.ErrCorrupt, "pull HOST/acme/fraud:v1: HOST answers with " + digest256 + " when asked for " + desc.Digest.String()},
		{"more bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() // no Content-Length
			io.WriteString(w, "models")
		}, oci.ErrCorrupt, fmt.Sprintf("pull HOST/acme/fraud:v1: read failed: blob %s is not what was promised: want %[1]s, got more than 5 bytes", desc.Digest)},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "mo")
		}, oci.ErrUnreachable, "pull HOST/acme/fraud:v1: HOST cut the connection"},
		{"no blob", http.NotFound, oci.ErrNotFound, "pull HOST/acme/fraud:v1: " + desc.Digest.String() + ": not found"},
		{"a blob that is a web page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html")
		}, oci.ErrCorrupt, "pull HOST/acme/fraud:v1: mismatched digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, tt.handle)
			err := fetchBlob(t, newClient(t, oci.Options{}), hostOf(srv), desc)
			status := 0
			if tt.name == "other digest" {
				status = 200
			}
			checkError(t, err, hostOf(srv), tt.kind, status, tt.want)
		})
	}
}

// testPKI is an authority with one certificate for servers and one for
// clients, as files in PEM format.
type testPKI struct {
	caFile, certFile, keyFile string
	pool                      *x509.CertPool
	server                    tls.Certificate
	expired, foreign          tls.Certificate
}

func newPKI(t *testing.T) *testPKI {
	t.Helper()
	dir := t.TempDir()
	caKey, caDER := newCertificate(t, nil, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	pair := func(c *x509.Certificate) tls.Certificate {
		key, der := newCertificate(t, ca, caKey, c)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	p := &testPKI{
		caFile: filepath.Join(dir, "ca.pem"), certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"),
		pool:    x509.NewCertPool(),
		server:  pair(&x509.Certificate{IPAddresses: loopback}),
		expired: pair(&x509.Certificate{IPAddresses: loopback, NotBefore: time.Unix(1, 0), NotAfter: time.Unix(2, 0)}),
		foreign: pair(&x509.Certificate{DNSNames: []string{"registry.example"}}),
	}
	p.pool.AddCert(ca)
	client := pair(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, p.caFile, "CERTIFICATE", caDER)
	writePEM(t, p.certFile, "CERTIFICATE", client.Certificate[0])
	writePEM(t, p.keyFile, "PRIVATE KEY", key)
	return p
}

func newCertificate(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, c *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: "galley test"}
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveTLS starts a registry of one manifest behind TLS.
func serveTLS(t *testing.T, config *tls.Config) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(serveManifest))
	quiet(srv)
	srv.TLS = config
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func serveManifest(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
	w.Header().Set("Content-Length", "2")
	w.Header().Set("Docker-Content-Digest", digest.FromString("{}").String())
	io.WriteString(w, "{}")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	for _, tt := range []struct {
		name   string
		server *tls.Config // nil: plain HTTP
		o      oci.Options
		kind   error
		scheme bool   // want ErrScheme too
		want   string // "": success
	}{
		{"with the authority", &tls.Config{Certificates: []tls.Certificate{pki.server}}, oci.Options{CAFile: pki.caFile}, nil, false, ""},
		{"insecure", &tls.Config{Certificates: []tls.Certificate{pki.foreign}}, oci.Options{Insecure: true}, nil, false, ""},
		{"with a client certificate", &tls.Config{Certificates: []tls.Certificate{pki.server}, ClientCAs: pki.pool, ClientAuth: tls.RequireAndVerifyClientCert},
			oci.Options{CAFile: pki.caFile, CertFile: pki.certFile, KeyFile: pki.keyFile}, nil, false, ""},
		{"without a client certificate", &tls.Config{Certificates: []tls.Certificate{pki.server}, ClientCAs: pki.pool, ClientAuth: tls.RequireAndVerifyClientCert},
			oci.Options{CAFile: pki.caFile}, oci.ErrTLS, false,
			"resolve HOST/acme/fraud:v1: HOST broke off the connection: it asks for a client certificate"},
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{pki.server}}, oci.Options{PlainHTTP: new(false)}, oci.ErrTLS, false,
			"resolve HOST/acme/fraud:v1: the certificate of HOST is signed by an authority unknown here"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{pki.expired}}, oci.Options{CAFile: pki.caFile}, oci.ErrTLS, false,
			"resolve HOST/acme/fraud:v1: the certificate of HOST has expired or is not yet valid"},
		{"of another host", &tls.Config{Certificates: []tls.Certificate{pki.foreign}}, oci.Options{CAFile: pki.caFile}, oci.ErrTLS, false,
			"resolve HOST/acme/fraud:v1: the certificate of HOST is for registry.example"},
		{"plain HTTP where TLS is spoken", &tls.Config{Certificates: []tls.Certificate{pki.server}}, oci.Options{}, oci.ErrTLS, true,
			"resolve HOST/acme/fraud:v1: HOST does not take plain HTTP (400): it seems to speak TLS"},
		{"TLS where plain HTTP is spoken", nil, oci.Options{PlainHTTP: new(false)}, oci.ErrTLS, true,
			"resolve HOST/acme/fraud:v1: HOST speaks plain HTTP, not TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var srv *httptest.Server
			if tt.server == nil {
				srv = serve(t, serveManifest)
			} else {
				srv = serveTLS(t, tt.server.Clone())
			}
			err := resolve(t, newClient(t, tt.o), hostOf(srv))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			status := 0
			if strings.Contains(tt.want, "(400)") {
				status = 400
			}
			checkError(t, err, hostOf(srv), tt.kind, status, tt.want)
			if errors.Is(err, oci.ErrScheme) != tt.scheme {
				t.Errorf("is ErrScheme: %v, want %v", !tt.scheme, tt.scheme)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	// A port that nobody listens on any more.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	err = resolve(t, newClient(t, oci.Options{}), host)
	if !errors.Is(err, oci.ErrUnreachable) || !strings.HasPrefix(err.Error(), "resolve "+host+"/acme/fraud:v1: "+host+" does not answer: ") {
		t.Errorf("refused connection: %v", err)
	}
}

func TestExplainNetwork(t *testing.T) {
	t.Parallel()
	c := newClient(t, oci.Options{})
	r := registryRef("ghcr.io", "acme/fraud", "v1")
	for _, tt := range []struct {
		name string
		err  error
		kind error
		want string
	}{
		{"unknown host", &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "ghcr.io", IsNotFound: true}}, oci.ErrUnreachable,
			`push ghcr.io/acme/fraud:v1: no such host "ghcr.io"`},
		{"name server", &net.DNSError{Err: "server misbehaving", Name: "ghcr.io"}, oci.ErrUnreachable,
			`push ghcr.io/acme/fraud:v1: host name "ghcr.io" cannot be looked up: server misbehaving`},
		{"timeout", &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: ghcr.io did not answer in time"},
		{"proxy", &net.OpError{Op: "proxyconnect", Net: "tcp", Err: errors.New("connection refused")}, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: the proxy does not answer: connection refused"},
		{"reset", &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: ghcr.io cut the connection: connection reset by peer"},
		{"deadline", context.DeadlineExceeded, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: ghcr.io did not answer in time"},
		{"interrupt", fmt.Errorf("copy: %w", context.Canceled), nil,
			"push ghcr.io/acme/fraud:v1: interrupted"},
		{"a file of ours", &fs.PathError{Op: "open", Path: "model.joblib", Err: fs.ErrNotExist}, nil,
			"push ghcr.io/acme/fraud:v1: open model.joblib: file does not exist"},
		{"rate limit", &errcode.ErrorResponse{Method: "GET", URL: &url.URL{Scheme: "https", Host: "ghcr.io"}, StatusCode: 429}, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: ghcr.io limits the rate of requests (429)"},
		{"server error", &errcode.ErrorResponse{Method: "GET", URL: &url.URL{Scheme: "https", Host: "auth.example"}, StatusCode: 503}, oci.ErrUnreachable,
			"push ghcr.io/acme/fraud:v1: auth.example cannot answer now: Service Unavailable (503)"},
		{"Docker Hub", &errcode.ErrorResponse{Method: "GET", URL: &url.URL{Scheme: "https", Host: "registry-1.docker.io"}, StatusCode: 403}, oci.ErrForbidden,
			"push ghcr.io/acme/fraud:v1: docker.io denies access (403)"},
		{"no HTTP", &url.Error{Op: "Get", URL: "https://ghcr.io/v2/?sig=s3cret", Err: errors.New("malformed HTTP response")}, nil,
			"push ghcr.io/acme/fraud:v1: malformed HTTP response"},
		{"no TLS", &url.Error{Op: "Get", URL: "https://ghcr.io/v2/", Err: tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}}, oci.ErrTLS,
			"push ghcr.io/acme/fraud:v1: ghcr.io does not speak TLS: first record does not look like a TLS handshake"},
		{"alert", &net.OpError{Op: "remote error", Err: errors.New("tls: protocol version not supported")}, oci.ErrTLS,
			"push ghcr.io/acme/fraud:v1: ghcr.io broke off the TLS handshake: tls: protocol version not supported"},
		{"certificate for another use", x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}, oci.ErrTLS,
			"push ghcr.io/acme/fraud:v1: the certificate of ghcr.io is invalid: x509: certificate specifies an incompatible key usage"},
		{"certificate refused", &tls.CertificateVerificationError{Err: errors.New("no")}, oci.ErrTLS,
			"push ghcr.io/acme/fraud:v1: the certificate of ghcr.io is refused: no"},
		{"one side of a copy", &oras.CopyError{Op: "Fetch", Origin: oras.CopyErrorOriginSource, Err: errors.New("odd")}, nil,
			"push ghcr.io/acme/fraud:v1: odd"},
		{"a URL with a signature", errors.New(`GET "https://s3.test/blob?X-Amz-Signature=s3cret": mismatch Content-Length`), nil,
			`push ghcr.io/acme/fraud:v1: GET "https://s3.test/blob": mismatch Content-Length`},
	} {
		err := c.Explain("push", r, tt.err)
		status := 0
		if resp, ok := tt.err.(*errcode.ErrorResponse); ok {
			status = resp.StatusCode
		}
		checkError(t, err, "no-host", tt.kind, status, tt.want)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: the cause is lost", tt.name)
		}
		if again := c.Explain("push again", r, fmt.Errorf("layer: %w", err)); again.Error() != "layer: "+tt.want {
			t.Errorf("%s: explained twice: %v", tt.name, again)
		}
	}
	if err := c.Explain("push", r, nil); err != nil {
		t.Errorf("Explain(nil) = %v", err)
	}
}

// The host in the message is the one that failed, not the one that was asked.
func TestExplainNamesTheHost(t *testing.T) {
	t.Parallel()
	store := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+"/bucket?sig=s3cret", http.StatusTemporaryRedirect)
	})
	desc := v1.Descriptor{MediaType: "application/octet-stream", Digest: digest256, Size: 0}
	err := fetchBlob(t, newClient(t, oci.Options{}), hostOf(srv), desc)
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || e.Host != hostOf(store) || e.Kind != oci.ErrForbidden || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v of host %q, want %q to deny access", err, e.Host, hostOf(store))
	}
}

func TestNewClientTLSFiles(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	dir := t.TempDir()
	missing, junk := filepath.Join(dir, "missing.pem"), filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		o    oci.Options
		want string
	}{
		{oci.Options{CAFile: missing}, "read CA file: open " + missing},
		{oci.Options{CAFile: junk}, fmt.Sprintf("read CA file %q: no certificate in PEM format", junk)},
		{oci.Options{CertFile: pki.certFile}, "client certificate: certificate file and key file are needed together"},
		{oci.Options{KeyFile: pki.keyFile}, "client certificate: certificate file and key file are needed together"},
		{oci.Options{CertFile: junk, KeyFile: pki.keyFile}, fmt.Sprintf("client certificate %q with key %q: ", junk, pki.keyFile)},
	} {
		if _, err := oci.NewClient(tt.o); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("NewClient(%+v): %v, want %s…", tt.o, err, tt.want)
		}
	}
}
