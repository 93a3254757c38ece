// Package oci moves artifacts between the places they live in: registries, the
// local registry and OCI layouts.
//
// A [Parser] reads what a person typed into a [Reference]; a [Client] opens the
// [Target] behind it, the same interface for a registry and for a directory;
// [Copy] fills a target, and [Workdir.Install] takes the files of an artifact
// out of one.
//
// A tag moves only after everything below it is complete, and foreign bytes
// are read with limits and checked against their digests. What goes wrong
// comes as an [*Error] with a kind for errors.Is and words that name the
// registry; this package prints nothing and decides no exit code.
package oci

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// DefaultConcurrency is how many transfers run at once unless told otherwise.
const DefaultConcurrency = 5

// Options configure a [Client]. The zero value is ready for use, but for the
// local registry.
type Options struct {
	// PlainHTTP says whether registries are spoken to without TLS. Nil: only
	// those on the loopback interface, and not even those once an option
	// below speaks of TLS.
	PlainHTTP *bool
	// Insecure accepts any certificate.
	Insecure bool
	// CAFile is a PEM file of authorities to trust beside the system's.
	CAFile string
	// CertFile and KeyFile are PEM files with the client's certificate and
	// key; both or neither.
	CertFile, KeyFile string

	// RegistryConfig are files of credentials in the format of docker's
	// config.json, used in this order instead of docker's and podman's own.
	// Login writes to the first.
	RegistryConfig []string

	// Concurrency is how many transfers run at once; 0: [DefaultConcurrency].
	Concurrency int
	// UserAgent is sent with every request; "": "galley".
	UserAgent string
	// CacheDir is a directory in which what was learnt of registries, and
	// uploads that were cut short, outlive the client; see [CacheDir]. "" keeps
	// nothing. It need not exist, and may be removed at any time.
	CacheDir string
	// Stall is how long no byte may move on a connection that is to move some
	// before it counts as cut; 0: 30 s. Registries get more for their answer to
	// a large blob.
	Stall time.Duration
	// Progress is told of [Retried] events of single requests, and of blobs that
	// are read. Those of an install or an upload go to the Progress of its transfer.
	Progress Progress
	// LocalRoot is the directory of the local registry; see [LocalRoot]. ""
	// is an error once a local reference is opened.
	LocalRoot string
	// Log is told of every request at debug level, without secrets; nil:
	// nothing is logged.
	Log *slog.Logger
	// Env looks up environment variables; nil: [os.Getenv]. Proxy variables
	// are always those of the process.
	Env func(string) string
}

// Client opens targets. It is safe for concurrent use; its connections and
// tokens are shared by all the targets it opened.
type Client struct {
	o      Options // with every default filled in
	http   *http.Client
	memory *memory

	large, huge int64 // sizes of blobs; see defaultLarge
	ahead       int64 // the size of a layer's files; see defaultAhead

	hosts      sync.Map    // of *hostFacts by host
	certWanted atomic.Bool // a server asked for a client certificate in vain

	mu    sync.Mutex
	auths map[string]*auth.Client // by Reference.Name
}

// hostFacts is what was learnt of a registry and helps to explain its errors.
type hostFacts struct {
	anonymous atomic.Bool // it wanted a login and there were no credentials
	webPages  atomic.Bool // it answered a registry request with HTML
	manners   manners
}

// NewClient returns a client. It reads the TLS files, whose errors it returns
// with their names, and sends nothing.
func NewClient(o Options) (*Client, error) {
	tlsConfig, err := newTLSConfig(o)
	if err != nil {
		return nil, err
	}
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.UserAgent == "" {
		o.UserAgent = "galley"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	c := &Client{o: o, auths: map[string]*auth.Client{}, memory: newMemory(o.CacheDir), large: defaultLarge, huge: defaultHuge, ahead: defaultAhead}
	if o.CertFile == "" {
		// As without this function no certificate is sent: a server may
		// ask and be content with none.
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c.certWanted.Store(true)
			return &tls.Certificate{}, nil
		}
	}
	c.http = &http.Client{CheckRedirect: checkRedirect, Transport: &transport{
		base:    stallGuard{newHTTPTransport(tlsConfig, o.Concurrency), o.Stall},
		log:     o.Log,
		webPage: func(host string) { c.facts(displayHost(host)).webPages.Store(true) },
		tell:    o.Progress,
	}}
	return c, nil
}

func newTLSConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.Insecure}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA file %q: no certificate in PEM format", o.CAFile)
		}
	}
	if o.CertFile == "" && o.KeyFile == "" {
		return config, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, errors.New("client certificate: certificate file and key file are needed together")
	}
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %q with key %q: %w", o.CertFile, o.KeyFile, err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// plainHTTP reports whether the registry is spoken to without TLS.
func (c *Client) plainHTTP(host string) bool {
	if c.o.PlainHTTP != nil {
		return *c.o.PlainHTTP
	}
	wantsTLS := c.o.Insecure || c.o.CAFile != "" || c.o.CertFile != ""
	return isLoopback(host) && !wantsTLS
}

// isLoopback reports whether host[:port] is this machine by its name alone.
func isLoopback(host string) bool {
	name := host
	if strings.HasPrefix(host, "[") {
		name, _, _ = strings.Cut(host[1:], "]")
	} else {
		name, _, _ = strings.Cut(host, ":")
	}
	addr, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// The bounds of a listing. Registries allow pages of 1000 tags, some not
// more; a listing that never ends is cut.
const (
	tagPage  = 1000
	maxPages = 100
)

// repository returns r's repository in its registry. A writer asks for push
// scope from its first request on.
func (c *Client) repository(r Reference, write bool) *repository {
	ref := registry.Reference{Registry: r.Registry, Repository: r.Repository}
	return &repository{c: c, single: write && c.has(r.Registry, singlePost), Repository: &remote.Repository{
		Client:          &session{auth: c.auth(r), ref: ref, write: write, tell: c.o.Progress},
		Reference:       ref,
		PlainHTTP:       c.plainHTTP(r.Registry),
		TagListPageSize: tagPage,
		TagListMaxPages: maxPages, ReferrerListMaxPages: maxPages,
		SkipReferrersGC: true,
	}}
}

// auth returns the client that authenticates for r's repository. It is one a
// repository, not one a registry, because podman's files can hold credentials
// for a part of a registry, and the cache would mix them up.
func (c *Client) auth(r Reference) *auth.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := r.Name()
	a, ok := c.auths[name]
	if !ok {
		a = c.newAuth(c.credential(r.Registry, r.Repository))
		c.auths[name] = a
	}
	return a
}

func (c *Client) newAuth(credential auth.CredentialFunc) *auth.Client {
	return &auth.Client{
		Client:     c.http,
		Header:     http.Header{"User-Agent": {c.o.UserAgent}},
		Credential: credential,
		Cache:      auth.NewCache(),
		ClientID:   "galley",
	}
}

// facts returns what is known of a registry.
func (c *Client) facts(host string) *hostFacts {
	f, _ := c.hosts.LoadOrStore(host, &hostFacts{})
	return f.(*hostFacts)
}

// factsOf returns what is known of host, or, when it is no registry but say a
// token server, of r's registry.
func (c *Client) factsOf(host string, r Reference) *hostFacts {
	if f, ok := c.hosts.Load(host); ok {
		return f.(*hostFacts)
	}
	return c.facts(r.Registry)
}

// displayHost is the name by which people know a host.
func displayHost(host string) string {
	if host == dockerHost {
		return "docker.io"
	}
	return host
}

// dockerHost is where docker.io answers.
const dockerHost = "registry-1.docker.io"
