package main

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"galley/oci/ocitest"
)

// webProxy is a proxy behind which every host is the registry of the script:
// with TLS by CONNECT, else without.
type webProxy struct {
	plain http.Handler
	tls   string // HOST:PORT

	mu    sync.Mutex
	asked []string
}

func (p *webProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+strings.TrimPrefix(r.URL.String(), "//"))
	p.mu.Unlock()
	if r.Method != http.MethodConnect {
		p.plain.ServeHTTP(w, r)
		return
	}
	there, err := net.Dial("tcp", p.tls)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(there, buffered)
		there.Close()
	})
	io.Copy(here, there)
	here.Close()
	wg.Wait()
}

// webProxyCmd starts a registry with TLS that only a proxy reaches, and sets
// $CA, $HTTPS_PROXY and $HTTP_PROXY.
func webProxyCmd(ts *testscript.TestScript, _ bool, _ []string) {
	all := ts.Value(registries{}).(*registries)
	all.mu.Lock()
	defer all.mu.Unlock()
	r := ocitest.NewRegistry()
	all.last = r
	secure := httptest.NewUnstartedServer(r.Proxy)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail as they should
	secure.StartTLS()                                   // its certificate is for example.com, too
	p := &webProxy{plain: r.Proxy, tls: secure.Listener.Addr().String()}
	server := httptest.NewServer(p)
	ts.Defer(func() {
		r.Close()
		secure.CloseClientConnections()
		secure.Close()
		server.Close()
	})
	all.proxy = p
	ca := filepath.Join(ts.Getenv("WORK"), "ca.pem")
	ts.Check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o666))
	ts.Setenv("CA", ca)
	ts.Setenv("HTTPS_PROXY", server.URL)
	ts.Setenv("HTTP_PROXY", server.URL)
}

// proxiedCmd checks that the proxy was asked for something: proxied REGEXP.
func proxiedCmd(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.Value(registries{}).(*registries).proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if asked := strings.Join(p.asked, "\n"); !regexp.MustCompile(`(?m)^` + args[0] + `$`).MatchString(asked) {
		ts.Fatalf("the proxy was asked for\n%s", asked)
	}
	p.asked = nil
}
