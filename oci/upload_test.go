package oci_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci"
	"galley/oci/layout"
	. "galley/oci/ocitest"
	local "galley/oci/serve"
)

// site is a registry on a network in memory, on which minutes pass at once. It
// belongs into a bubble of testing/synctest.
type site struct {
	*Proxy
	dir string // of its layouts

	listener *Listener
	server   *http.Server
	mu       sync.Mutex
	dialled  []string
	idle     []*http.Transport
}

const (
	siteHost = "localhost:5000"
	siteRef  = siteHost + "/ml/fraud"
)

func newSite(t *testing.T) *site {
	dir := t.TempDir()
	s := &site{Proxy: NewProxy(local.New(dir, local.Options{Addr: siteHost})), dir: dir, listener: NewListener()}
	s.server = &http.Server{Handler: s.Proxy}
	quietServer(s.server)
	go s.server.Serve(s.listener)
	return s
}

// close ends everything, for in a bubble nothing may stay.
func (s *site) close() {
	for _, t := range s.idle {
		t.CloseIdleConnections()
	}
	s.Proxy.Close()
	s.server.Close()
	time.Sleep(time.Minute) // of the bubble: net/http lets the other side read what it closes
	synctest.Wait()         // for what still writes
}

// open opens the repository with a client of its own.
func (s *site) open(t *testing.T, o oci.Options) (*oci.Client, oci.Target) {
	t.Helper()
	c := newClient(t, o)
	oci.SetSizes(c, 20_000, 100_000)
	s.idle = append(s.idle, oci.SetDial(c, func(ctx context.Context, network, address string) (net.Conn, error) {
		s.mu.Lock()
		s.dialled = append(s.dialled, address)
		s.mu.Unlock()
		return s.listener.DialContext(ctx, network, address)
	}))
	target, err := c.Create(t.Context(), registryRef(siteHost, "ml/fraud", ""))
	if err != nil {
		t.Fatal(err)
	}
	return c, target
}

// complete fails unless the tag names root and every blob of it is right.
func (s *site) complete(t *testing.T, tag string, root v1.Descriptor) {
	t.Helper()
	store, err := layout.Open(filepath.Join(s.dir, "ml/fraud/_oci"))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := store.Resolve(t.Context(), tag); err != nil || d.Digest != root.Digest {
		t.Errorf("%s is %v, %v; want %v", tag, d.Digest, err, root.Digest)
	}
	a, err := manifest.Read(t.Context(), store, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append([]v1.Descriptor{a.Manifest.Config}, a.Manifest.Layers...) {
		if _, err := manifest.ReadBlob(t.Context(), store, d, "blob", 1<<30); err != nil {
			t.Errorf("%s: %v", d.Digest, err)
		}
	}
}

// untagged fails if a tag is there, or a blob that is not what its name says.
func (s *site) untagged(t *testing.T) {
	t.Helper()
	store, err := layout.Open(filepath.Join(s.dir, "ml/fraud/_oci"))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if d, err := store.Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("the tag is there: %v, %v", d.Digest, err)
	}
	found, _ := filepath.Glob(filepath.Join(s.dir, "ml/fraud/_oci/blobs/sha256/*"))
	for _, name := range found {
		data, err := os.ReadFile(name)
		if err != nil || NewBlob("", string(data)).Digest.Encoded() != filepath.Base(name) {
			t.Errorf("blob %s is not what its name says, %v", filepath.Base(name), err)
		}
	}
}

// heavy is a project whose model has so many bytes, which no gzip makes fewer.
func heavy(t testing.TB, size int) *manifest.Packed {
	t.Helper()
	fsys := project("one")
	model := binary.LittleEndian.AppendUint32([]byte("\x80\x04B"), uint32(size)) // BINBYTES
	fsys[modelFile] = &fstest.MapFile{Data: append(append(model, noise(size)...), '.')}
	return packProject(t, fsys, manifest.PackOptions{})
}

func noise(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	return data
}

// TestPushFaults pushes while something goes wrong. In the end everything is
// there and right, or there is an error and no tag, and it is over in time.
func TestPushFaults(t *testing.T) {
	t.Parallel()
	upload := func(method string, times int, m Mishap) Rule {
		return Rule{Method: method, Kind: Uploads, Times: times, Mishap: m}
	}
	tag := func(times int, m Mishap) Rule {
		return Rule{Method: "PUT", Kind: Manifests, Times: times, Mishap: m}
	}
	bytes := func(times int, m Mishap) []Rule { // of a blob, whichever way it goes
		return []Rule{upload("PUT", times, m), upload("PATCH", times, m)}
	}
	for _, tt := range []struct {
		name  string
		rules []Rule
		kind  error         // nil: the push is well
		code  int           // the HTTP status of the error
		bound time.Duration // of the time it takes; 0: 10 s
	}{
		{name: "nothing"},
		{name: "blob cut in the middle", rules: bytes(1, Cut(Up, Half))},
		{name: "blob cut thrice", rules: bytes(3, Cut(Up, Half))},
		{name: "blob cut at its end", rules: bytes(1, Cut(Up, -1))},
		{name: "blob cut before it begins", rules: bytes(1, Cut(Up, 0))},
		{name: "blob cut always", rules: bytes(0, Cut(Up, 0)), kind: oci.ErrUnreachable, bound: 20 * time.Second},
		{name: "answer to a blob lost", rules: bytes(1, Cut(Down, 0))},
		{name: "answer to a blob lost thrice", rules: bytes(3, Cut(Down, 0))},
		{name: "blob stalls", rules: bytes(1, Stall(Up, Half)), bound: 90 * time.Second},
		{name: "blob stalls always", rules: bytes(0, Stall(Up, 1000)), kind: oci.ErrUnreachable, bound: 5 * time.Minute},
		{name: "answer to a blob stalls", rules: bytes(1, Stall(Down, 0)), bound: time.Minute},
		{name: "blob corrupt", rules: bytes(1, Corrupt(Up, Half))},
		{name: "blob corrupt always", rules: bytes(0, Corrupt(Up, Half)), kind: oci.ErrCorrupt, code: 400},
		{name: "blob truncated", rules: bytes(1, End(Up, Half))},
		{name: "blob truncated always", rules: bytes(0, End(Up, Half)), kind: oci.ErrCorrupt, code: 400},
		{name: "blob 503", rules: bytes(1, Answer(Up, 503, "UNAVAILABLE"))},
		{name: "blob 503 always", rules: bytes(0, Answer(Up, 503, "UNAVAILABLE")), kind: oci.ErrUnreachable, code: 503, bound: 20 * time.Second},
		{name: "blob 500 when it was taken", rules: bytes(1, Answer(Down, 500, "UNKNOWN"))},
		{name: "blob 429", rules: bytes(1, Answer(Up, 429, "TOOMANYREQUESTS", "Retry-After", "7")), bound: 30 * time.Second},
		{name: "blob 429 for an hour", rules: bytes(1, Answer(Up, 429, "TOOMANYREQUESTS", "Retry-After", "3600")), kind: oci.ErrUnreachable, code: 429, bound: time.Second},
		{name: "blob 404", rules: bytes(1, Answer(Up, 404, "BLOB_UPLOAD_UNKNOWN"))},
		{name: "blob 404 always", rules: bytes(0, Answer(Up, 404, "BLOB_UPLOAD_UNKNOWN")), kind: oci.ErrNotFound, code: 404},
		{name: "blob 401", rules: bytes(0, Answer(Up, 401, "UNAUTHORIZED")), kind: oci.ErrUnauthorized, code: 401, bound: time.Second},
		{name: "blob 403", rules: bytes(0, Answer(Up, 403, "DENIED")), kind: oci.ErrForbidden, code: 403, bound: time.Second},
		{name: "blob 413", rules: bytes(0, Answer(Up, 413, "SIZE_INVALID")), code: 413, bound: time.Second},
		{name: "blob 400", rules: []Rule{upload("PUT", 0, Answer(Up, 400, "NAME_INVALID"))}, code: 400},
		{name: "blob late and slow", rules: append(bytes(0, Drip(Up, 30_000, time.Second)), bytes(0, Delay(Up, 20*time.Second))...), bound: 5 * time.Minute},

		{name: "start cut", rules: []Rule{upload("POST", 1, Cut(Up, 0))}},
		{name: "start lost", rules: []Rule{upload("POST", 1, Cut(Down, 0))}},
		{name: "start stalls", rules: []Rule{upload("POST", 1, Stall(Down, 0))}, bound: time.Minute},
		{name: "start 503", rules: []Rule{upload("POST", 1, Answer(Up, 503, "UNAVAILABLE"))}},
		{name: "start 503 always", rules: []Rule{upload("POST", 0, Answer(Up, 503, "UNAVAILABLE"))}, kind: oci.ErrUnreachable, code: 503, bound: 21 * time.Second},
		{name: "start 403", rules: []Rule{upload("POST", 0, Answer(Up, 403, "DENIED"))}, kind: oci.ErrForbidden, code: 403, bound: time.Second},
		{name: "mounts refused", rules: []Rule{upload("POST", 0, ifQuery("mount", Answer(Up, 405, "UNSUPPORTED")))}},
		{name: "mounts without a login", rules: []Rule{upload("POST", 0, ifQuery("mount", Answer(Up, 401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="x"`)))}},

		{name: "relative locations", rules: []Rule{{Kind: Uploads, Mishap: Location(RelativeLocation)}}},
		{name: "locations with a query", rules: []Rule{{Kind: Uploads, Mishap: SignedLocation()}}},
		{name: "locations with credentials", rules: []Rule{{Kind: Uploads, Mishap: Location(func(u *url.URL) { u.User = url.UserPassword("a", "b") })}}},
		{name: "no location", rules: []Rule{{Kind: Uploads, Mishap: Header(func(h http.Header) { h.Del("Location") })}}, code: 202, bound: time.Second},
		{name: "no digests", rules: []Rule{{Mishap: Header(func(h http.Header) { h.Del("Docker-Content-Digest") })}}},
		{name: "no ranges", rules: []Rule{{Mishap: Header(func(h http.Header) { h.Del("Range") })}, upload("PATCH", 1, Cut(Up, Half))}},
		{name: "ranges that lie", rules: []Rule{{Method: "GET", Mishap: Header(func(h http.Header) { h.Set("Range", "0-77") })}, upload("PATCH", 1, Cut(Up, Half))}},
		{name: "ranges beyond the end", rules: []Rule{{Method: "GET", Mishap: Header(func(h http.Header) { h.Set("Range", "0-77777777777") })}, upload("PATCH", 1, Cut(Up, Half))}},
		{name: "ranges of nonsense", rules: []Rule{{Method: "GET", Mishap: Header(func(h http.Header) { h.Set("Range", "x") })}, upload("PATCH", 1, Cut(Up, Half))}},
		{name: "no chunks", rules: []Rule{upload("PATCH", 0, Answer(Up, 405, "UNSUPPORTED"))}},
		{name: "no chunks beyond 4 MB", rules: []Rule{upload("PATCH", 0, Answer(Up, 416, "BLOB_UPLOAD_INVALID"))}},
		{name: "no chunks to go on with", rules: []Rule{upload("PATCH", 1, Cut(Up, Half)), upload("PATCH", 0, Answer(Up, 400, "UNSUPPORTED"))}},
		{name: "the first chunk as if it were all", rules: []Rule{upload("PATCH", 0, Answer(Up, 201, ""))}},
		{name: "sessions that cannot be asked", rules: []Rule{upload("GET", 0, Answer(Up, 405, "UNSUPPORTED")), upload("PATCH", 1, Cut(Up, Half))}},

		{name: "manifest cut", rules: []Rule{tag(1, Cut(Up, Half))}},
		{name: "answer to the manifest lost", rules: []Rule{tag(1, Cut(Down, 0))}},
		{name: "manifest 503", rules: []Rule{tag(1, Answer(Up, 503, "UNAVAILABLE"))}},
		{name: "manifest cut always", rules: []Rule{tag(0, Cut(Up, Half))}, kind: oci.ErrUnreachable, bound: 21 * time.Second},
		{name: "manifest stalls", rules: []Rule{tag(1, Stall(Up, Half))}, bound: time.Minute},
		{name: "manifest refused", rules: []Rule{tag(0, Answer(Up, 409, "DENIED"))}, kind: oci.ErrConflict, code: 409, bound: time.Second},
	} {
		for _, size := range []int{50_000, 300_000} { // by PUT, by PATCH
			t.Run(fmt.Sprintf("%s/%d", tt.name, size), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					defer s.close()
					s.Inject(tt.rules...)
					c, target := s.open(t, oci.Options{})
					p := heavy(t, size)
					start := time.Now()
					_, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}})
					took := time.Since(start)
					if bound := max(tt.bound, 10*time.Second*time.Duration(1-min(1, tt.bound))); took > bound {
						t.Errorf("took %v; want at most %v", took, bound)
					}
					s.Calm()
					err = c.Explain("push", registryRef(siteHost, "ml/fraud", "v1"), err)
					if tt.kind == nil && tt.code == 0 {
						if err != nil {
							t.Fatal(err)
						}
						s.complete(t, "v1", p.Root)
						return
					}
					s.untagged(t)
					e, ok := errors.AsType[*oci.Error](err)
					if !ok {
						t.Fatalf("%v; want an error of the registry", err)
					}
					if e.Status != tt.code || e.Host != siteHost || tt.kind != nil && !errors.Is(err, tt.kind) {
						t.Errorf("%v (status %d, host %s); want %v, status %d", err, e.Status, e.Host, tt.kind, tt.code)
					}
				})
			})
		}
	}
}

// TestAlteredUploadIsSentOnceMore, also where the registry's answer holds all that
// it got.
func TestAlteredUploadIsSentOnceMore(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]int{1: 2, 0: 2} {
		target, r := newTarget(t)
		r.Inject(Rule{Method: "PUT", Kind: Uploads, Times: times, Mishap: Corrupt(Up, 40_000)})
		blob := NewBlob("application/octet-stream", string(noise(50_000)))
		err := target.Push(t.Context(), blob.Descriptor, bytes.NewReader(blob.Data))
		if e := new(oci.Client).Explain("push", registryRef(r.Host, "ml/fraud", ""), err); times > 0 && err != nil || times == 0 && !errors.Is(e, oci.ErrCorrupt) {
			t.Errorf("altered %d times (0: always): %v", times, e)
		}
		sent := 0
		for _, e := range r.Exchanges() {
			if e.Received > 0 {
				sent++
			}
		}
		if sent != want {
			t.Errorf("altered %d times (0: always): sent %d times; want %d", times, sent, want)
		}
	}
}

// ifQuery is a mishap of the requests that have a parameter.
func ifQuery(name string, m Mishap) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if !r.URL.Query().Has(name) {
			p.Pass(w, r)
			return
		}
		m(p, w, r)
	}
}

// TestPushResumes counts the bytes that cuts cost where a registry goes on.
func TestPushResumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		const size = 3_000_000
		s.Inject(Rule{Method: "PATCH", Kind: Uploads, Times: 3, Mishap: Cut(Up, 700_000)})
		_, target := s.open(t, oci.Options{})
		p := heavy(t, size)
		var resumed, moved, told int64
		var mu sync.Mutex
		_, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}, Progress: func(e oci.Event) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e.Descriptor.Size < size:
			case e.Kind == oci.Moved:
				moved += e.Bytes
			case e.Kind == oci.Resumed:
				resumed++
				moved = e.Bytes
			case e.Kind == oci.Retried:
				told++
				if e.Wait <= 0 || !strings.HasPrefix(e.Reason, siteHost+" cut the connection") {
					t.Errorf("%q, wait %v", e.Reason, e.Wait)
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.complete(t, "v1", p.Root)
		if received, _ := s.Moved(); received > size*11/10 {
			t.Errorf("%d bytes went up for %d", received, size)
		}
		if layer := layerOf(p, size); resumed != 3 || told != 3 || moved != layer.Size {
			t.Errorf("resumed %d times, retried %d times, %d bytes moved of %d; want 3, 3, all", resumed, told, moved, layer.Size)
		}
	})
}

// layerOf is the layer that is larger than size.
func layerOf(p *manifest.Packed, size int64) v1.Descriptor {
	return p.Manifest.Layers[slices.IndexFunc(p.Manifest.Layers, func(d v1.Descriptor) bool { return d.Size >= size })]
}

// TestPushResumesAnotherRun goes on with what a run left that was cut for good.
// What is kept of it may be old, wrong or a lie.
func TestPushResumesAnotherRun(t *testing.T) {
	t.Parallel()
	const size = 2_000_000
	for _, tt := range []struct {
		name    string
		tamper  func(t *testing.T, file string)
		resumes bool
	}{
		{"as it is", func(*testing.T, string) {}, true},
		{"garbage", func(t *testing.T, file string) { write(t, "", file, "{") }, false},
		{"empty", func(t *testing.T, file string) { write(t, "", file, "") }, false},
		{"huge", func(t *testing.T, file string) { write(t, "", file, strings.Repeat(" ", 1<<20)+"{}") }, false},
		{"a directory", func(t *testing.T, file string) {
			if err := errors.Join(os.Remove(file), os.MkdirAll(file+"/x", 0o777)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"another host", func(t *testing.T, file string) { replace(t, file, siteHost+"/v2", "evil.example:5000/v2") }, false},
		{"another scheme", func(t *testing.T, file string) { replace(t, file, "http:", "https:") }, false},
		{"another repository", func(t *testing.T, file string) { replace(t, file, "/v2/ml/fraud", "/v2/ml/other") }, false},
		{"a path that climbs", func(t *testing.T, file string) { replace(t, file, "uploads/", "uploads/../../../x/") }, false},
		{"another blob", func(t *testing.T, file string) { replace(t, file, "@sha256:", "@sha256:0") }, false},
		{"an unknown session", func(t *testing.T, file string) { replace(t, file, "uploads/", "uploads/X") }, false},
		{"of last week", func(t *testing.T, file string) {
			time.Sleep(7 * 24 * time.Hour) // of the bubble
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				cache := t.TempDir()
				p := heavy(t, size)
				_, target := s.open(t, oci.Options{CacheDir: cache})
				s.Inject(Rule{Method: "PATCH", Mishap: Cut(Up, Half)}, Rule{Method: "GET", Kind: Uploads, Mishap: Answer(Up, 401, "UNAUTHORIZED")},
					Rule{Method: "POST", Kind: Uploads, Skip: 5, Mishap: Answer(Up, 403, "DENIED")})
				if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}, Concurrency: 1}); err == nil {
					t.Fatal("the push was well although everything was cut")
				}
				s.Calm()
				found, err := filepath.Glob(filepath.Join(cache, "registries", "uploads", "*.json"))
				if err != nil || len(found) != 1 {
					t.Fatalf("%q, %v; want one upload", found, err)
				}
				if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
				}
				tt.tamper(t, found[0])
				s.Moved()
				s.Requests()
				_, target = s.open(t, oci.Options{CacheDir: cache})
				if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
					t.Fatal(err)
				}
				s.complete(t, "v1", p.Root)
				received, _ := s.Moved()
				if (received < size*6/10) != tt.resumes {
					t.Errorf("%d bytes went up for %d; want to resume: %v\n%s", received, size, tt.resumes, strings.Join(s.Requests(), "\n"))
				}
				if slices.ContainsFunc(s.dialled, func(to string) bool { return to != siteHost }) {
					t.Errorf("connected to %q", s.dialled)
				}
				if tt.name != "a directory" {
					if found, _ := filepath.Glob(filepath.Join(cache, "registries", "uploads", "*")); len(found) != 0 && tt.name != "another blob" {
						t.Errorf("%q stayed", found)
					}
				}
			})
		})
	}
}

// TestPushesAtOnce: of two pushes of one blob with one cache, neither meddles with
// the session of the other.
func TestPushesAtOnce(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	cache := t.TempDir()
	p := heavy(t, 2_000_000)
	push := func(tag string) error {
		c := newClient(t, oci.Options{CacheDir: cache})
		oci.SetSizes(c, 20_000, 100_000)
		target, err := c.Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
		if err != nil {
			return err
		}
		_, err = oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{tag}})
		return err
	}
	kept := func() []string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(cache, "registries", "uploads", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	r.Inject(Rule{Method: "PATCH", Kind: Uploads, Times: 1, Mishap: Pause(Up, 1_000_000)})
	first := make(chan error, 1)
	go func() { first <- push("v1") }()
	<-r.Stalled()
	before := kept()
	r.Requests()
	if err := push("v2"); err != nil {
		t.Error(err)
	}
	var patches int
	for _, e := range r.Requests() {
		if strings.HasPrefix(e, "PATCH ") {
			patches++
		}
		if strings.Contains(e, "/uploads/") && (strings.HasPrefix(e, "GET ") || strings.HasPrefix(e, "DELETE ")) {
			t.Errorf("%s: of the session of the other", e)
		}
	}
	if after := kept(); patches != 1 || len(before) != 2 || !slices.Equal(before, after) {
		t.Errorf("%d chunks; kept %q before and %q after the second push; want 1, and a session and its lock twice", patches, before, after)
	}
	r.Calm()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if got := r.Requests(); slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, "PATCH ") }) {
		t.Errorf("the first push began anew: %q", got)
	}
	if after := kept(); len(after) > 0 {
		t.Errorf("%q stayed", after)
	}
}

// TestPushOfOthersBytes: a session that grows without a byte of this upload is
// not gone on with for ever.
func TestPushOfOthersBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		there := 0 // one request after the other
		unread := Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
		s.Inject(Rule{Method: "PATCH", Kind: Uploads, Mishap: unread},
			Rule{Method: "GET", Kind: Uploads, Mishap: Header(func(h http.Header) {
				there += 100
				h.Set("Range", fmt.Sprintf("0-%d", there))
			})})
		c, target := s.open(t, oci.Options{})
		start := time.Now()
		_, err := oci.Push(t.Context(), target, heavy(t, 300_000), oci.PushOptions{Tags: []string{"v1"}})
		if err = c.Explain("push", registryRef(siteHost, "ml/fraud", "v1"), err); !errors.Is(err, oci.ErrUnreachable) {
			t.Errorf("%v; want %v", err, oci.ErrUnreachable)
		}
		if took := time.Since(start); took > 20*time.Second || there == 0 {
			t.Errorf("took %v, up to byte %d", took, there)
		}
	})
}

func replace(t *testing.T, file, old, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), old) {
		t.Fatalf("%q, %v: no %q", data, err, old)
	}
	write(t, "", file, strings.Replace(string(data), old, text, 1))
}

// TestPushWithoutCache pushes where nothing can be kept.
func TestPushWithoutCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		file := filepath.Join(t.TempDir(), "file")
		write(t, "", file, "no directory")
		p := heavy(t, 300_000)
		_, target := s.open(t, oci.Options{CacheDir: file})
		if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
			t.Fatal(err)
		}
		s.complete(t, "v1", p.Root)
	})
}

// TestPushOfReader pushes content that can be read once only, or again.
func TestPushOfReader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		size  int
		again bool // the content is an io.Seeker
		rule  Rule
		want  error // nil: the push is well
	}{
		{"once", 50_000, false, Rule{Method: "TRACE"}, nil},
		{"once and cut", 50_000, false, Rule{Method: "PUT", Mishap: Cut(Up, Half)}, oci.ErrUnreachable},
		{"once and refused", 50_000, false, Rule{Method: "PUT", Times: 1, Mishap: Answer(Up, 503, "UNAVAILABLE")}, oci.ErrUnreachable},
		{"once and a token wanted", 50_000, false, Rule{Method: "PUT", Times: 1, Mishap: Answer(Up, 401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="x"`)}, oci.ErrUnauthorized},
		{"small and cut", 5_000, false, Rule{Method: "PUT", Times: 1, Mishap: Cut(Up, Half)}, nil},
		{"again and cut", 50_000, true, Rule{Method: "PUT", Times: 1, Mishap: Cut(Up, Half)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				s.Inject(tt.rule)
				c, target := s.open(t, oci.Options{})
				b := NewBlob("application/x-layer", string(noise(tt.size)))
				var content io.Reader = bytes.NewReader(b.Data)
				if !tt.again {
					content = readFunc(content.Read)
				}
				err := c.Explain("push", registryRef(siteHost, "ml/fraud", ""), target.Push(t.Context(), b.Descriptor, content))
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Errorf("%v; want %v", err, tt.want)
				}
				s.Calm()
				if there, err := target.Exists(t.Context(), b.Descriptor); err != nil || there != (tt.want == nil) {
					t.Errorf("there: %v, %v", there, err)
				}
			})
		})
	}
}

// slow is a source that rests for minutes between two reads.
type slow struct{ *manifest.Packed }

func (s slow) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	rc, err := s.Packed.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{readFunc(func(p []byte) (int, error) {
		time.Sleep(2 * time.Minute)
		return rc.Read(p)
	}), rc}, nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestStallsAreOfTheNetwork reads and is read slowly, which is no stall.
func TestStallsAreOfTheNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		_, target := s.open(t, oci.Options{})
		p := heavy(t, 300_000)
		if err := oci.Copy(t.Context(), target, slow{p}, p.Root, oci.CopyOptions{Tags: []string{"v1"}}); err != nil {
			t.Fatal(err)
		}
		s.complete(t, "v1", p.Root)
		rc, err := target.Fetch(t.Context(), layerOf(p, 300_000))
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		for n := 0; ; n++ {
			if _, err := io.CopyN(io.Discard, rc, 50_000); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
		}
	})
}

// TestStallIsAnOption stalls for less than the default.
func TestStallIsAnOption(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		s.Inject(Rule{Method: "GET", Kind: Manifests, Mishap: Stall(Down, 0)})
		var told []string
		c, target := s.open(t, oci.Options{Stall: 2 * time.Second, Progress: func(e oci.Event) {
			told = append(told, fmt.Sprint(e.Kind == oci.Retried)+e.Reason)
		}})
		start := time.Now()
		_, _, err := oci.Find(t.Context(), target, "v1")
		err = c.Explain("find", registryRef(siteHost, "ml/fraud", "v1"), err)
		want := siteHost + " is silent: no byte went either way for 2s"
		if !errors.Is(err, oci.ErrUnreachable) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		if took := time.Since(start); took < 6*time.Second || took > 8*time.Second || len(told) != 2 || told[0] != "true"+want {
			t.Errorf("took %v, told %q; want three attempts of 2s", took, told)
		}
	})
}

// TestPushOfChange changes a file after it was hashed, one that is too large to
// be kept until it is sent: in the middle of a push nobody else could tell.
func TestPushOfChange(t *testing.T) {
	t.Parallel()
	model := noise(17 << 20)
	for name, change := range map[string]func([]byte) []byte{
		"grows":       func(b []byte) []byte { return append(b, 'x') },
		"shrinks":     func(b []byte) []byte { return b[:len(b)-1] },
		"is empty":    func([]byte) []byte { return nil },
		"is replaced": func(b []byte) []byte { return bytes.Repeat([]byte("y"), len(b)) },
		"has another last byte": func(b []byte) []byte {
			b[len(b)-1] ^= 1
			return b
		},
	} {
		for way, huge := range map[string]int64{"PUT": 1 << 40, "PATCH": 1 << 20} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					defer s.close()
					c, target := s.open(t, oci.Options{})
					oci.SetSizes(c, 1<<40, huge)
					fsys := project("one")
					fsys[modelFile] = &fstest.MapFile{Data: model}
					p := packProject(t, fsys, manifest.PackOptions{})
					fsys[modelFile].Data = change(slices.Clone(model))
					start := time.Now()
					_, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}})
					if changed, ok := errors.AsType[*manifest.ChangedError](err); !ok || changed.Path != modelFile {
						t.Fatalf("push of a changed file: %v", err)
					}
					if err = c.Explain("push", registryRef(siteHost, "ml/fraud", "v1"), err); !strings.Contains(err.Error(), modelFile) || errors.Is(err, oci.ErrUnreachable) {
						t.Errorf("%v; want the file's name", err)
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("took %v; there is nothing to wait for", took)
					}
					s.untagged(t)
					if !slices.ContainsFunc(s.Requests(), func(r string) bool { return strings.HasPrefix(r, "DELETE ") }) {
						t.Error("the registry keeps the upload")
					}
				})
			})
		}
	}
}
