package oci_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"galley/manifest"
	"galley/oci"
	. "galley/oci/ocitest"
)

// oneBlob is a registry with one blob.
func oneBlob(t *testing.T, size int, o oci.Options) (oci.Target, *Registry, Blob) {
	t.Helper()
	r := NewRegistry()
	t.Cleanup(r.Close)
	target, err := newClient(t, o).Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
	check(t, err)
	b := NewBlob("application/x-layer", string(noise(size)))
	check(t, target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data)))
	r.Exchanges()
	return target, r, b
}

// ranges are those that were asked for.
func ranges(all []Exchange) []string {
	var out []string
	for _, e := range all {
		out = append(out, e.Range)
	}
	return out
}

func get(times int, m Mishap) Rule {
	return Rule{Method: http.MethodGet, Kind: Blobs, Times: times, Mishap: m}
}

// TestFetchGoesOn reads a blob that is cut: from where it was, as often as it makes
// way, and not after a refusal.
func TestFetchGoesOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		rules  []Rule
		kind   error // nil: it is well
		ranges []string
	}{
		{"whole", nil, nil, []string{""}},
		{"cut", []Rule{get(1, Cut(Down, 700*kib))}, nil, []string{"", "bytes=716800-3145727"}},
		{"cut thrice", []Rule{get(3, Cut(Down, mib))}, nil, []string{"", "bytes=1048576-3145727", "bytes=2097152-3145727"}},
		{"cut always", []Rule{get(0, Cut(Down, 100))}, oci.ErrUnreachable,
			[]string{"", "bytes=100-3145727", "bytes=200-3145727", "bytes=300-3145727", "bytes=400-3145727"}},
		{"cut, then refused", []Rule{get(1, Cut(Down, mib)), {Method: "GET", Kind: Blobs, Skip: 1, Mishap: Answer(Up, 403, "DENIED")}},
			oci.ErrForbidden, []string{"", "bytes=1048576-3145727"}},
		{"cut, then all again", []Rule{get(1, Cut(Down, mib)), get(0, IgnoreRange())}, nil, []string{"", "bytes=1048576-3145727"}},
		{"no length", []Rule{get(0, Chunked())}, nil, []string{""}},
		{"no length, and cut", []Rule{get(0, Chunked()), get(1, Cut(Down, mib))}, nil, []string{"", "bytes=1048576-3145727"}},
		{"not there", []Rule{get(0, Answer(Up, 404, "BLOB_UNKNOWN"))}, oci.ErrNotFound, []string{""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var told []oci.Event
			target, r, b := oneBlob(t, 3*mib, oci.Options{Progress: func(e oci.Event) { told = append(told, e) }})
			r.Inject(tt.rules...)
			data, err := manifest.ReadBlob(t.Context(), target, b.Descriptor, "blob", 1<<30)
			err = new(oci.Client).Explain("read", registryRef(r.Host, "ml/fraud", "v1"), err)
			if tt.kind == nil && (err != nil || !bytes.Equal(data, b.Data)) || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("%d bytes, %v; want %v", len(data), err, tt.kind)
			}
			got := ranges(r.Exchanges())
			if !slices.Equal(got, tt.ranges) {
				t.Errorf("asked for %q; want %q", got, tt.ranges)
			}
			if len(told) != len(got)-1 {
				t.Errorf("told of %d requests more; want %d: %v", len(told), len(got)-1, told)
			}
			for _, e := range told {
				if e.Kind != oci.Retried || e.Reason != r.Host+" cut the connection" {
					t.Errorf("told %v, %q", e.Kind, e.Reason)
				}
			}
		})
	}
}

// TestFetchSeeks to where an upload goes on.
func TestFetchSeeks(t *testing.T) {
	t.Parallel()
	target, r, b := oneBlob(t, 3*mib, oci.Options{})
	rc, err := target.Fetch(t.Context(), b.Descriptor)
	check(t, err)
	defer rc.Close()
	seeker := rc.(io.Seeker)
	for _, tt := range []struct {
		offset int64
		whence int
		want   int64
	}{{2 * mib, io.SeekStart, 2 * mib}, {-mib, io.SeekEnd, 2 * mib}, {0, io.SeekStart, 0}, {5, io.SeekStart, 5}} {
		at, err := seeker.Seek(tt.offset, tt.whence)
		if err != nil || at != tt.want {
			t.Fatalf("%d, %v; want %d", at, err, tt.want)
		}
		data, err := io.ReadAll(rc)
		if err != nil || !bytes.Equal(data, b.Data[at:]) {
			t.Errorf("%d bytes from %d on, %v", len(data), at, err)
		}
	}
	for _, to := range []int64{-1, 3*mib + 1} {
		if at, err := seeker.Seek(to, io.SeekStart); err == nil {
			t.Errorf("is at %d", at)
		}
	}
	want := []string{"", "bytes=2097152-3145727", "bytes=2097152-3145727", "", "bytes=5-3145727"}
	if got := ranges(r.Exchanges()); !slices.Equal(got, want) {
		t.Errorf("asked for %q; want %q", got, want)
	}
}

// TestFetchAsksForBlobsOnly, whatever a manifest calls a digest.
func TestFetchAsksForBlobsOnly(t *testing.T) {
	t.Parallel()
	target, r, _ := oneBlob(t, 5, oci.Options{})
	for _, d := range []digest.Digest{"", "sha256", "sha256:abc", "../manifests/v1", "sha256:../../manifests/v1"} {
		desc := v1.Descriptor{MediaType: "application/x-layer", Digest: d, Size: 5}
		if rc, err := target.Fetch(t.Context(), desc); !errors.Is(err, manifest.ErrMalformed) {
			t.Errorf("fetched %q: %v, %v", d, rc, err)
		}
		if _, err := target.Exists(t.Context(), desc); !errors.Is(err, manifest.ErrMalformed) {
			t.Errorf("%q exists: %v", d, err)
		}
	}
	if got := r.Requests(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
}

// TestPullOfStalls goes on by a range on another connection when nothing comes for
// a while, and ends when nothing ever does.
func TestPullOfStalls(t *testing.T) {
	t.Parallel()
	const size, stall = 300_000, 3 * time.Second
	for _, tt := range []struct {
		name   string
		times  int
		ranges []string
	}{
		{"once", 1, []string{"", "bytes=50000-"}},
		{"always", 0, []string{"", "bytes=50000-", "bytes=100000-", "bytes=150000-", "bytes=200000-"}},
	} {
		for way, o := range ways() {
			if way == "split" {
				continue // as kept, for each piece
			}
			t.Run(tt.name+" "+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t)
					defer s.close()
					c, target := s.open(t, oci.Options{Stall: stall})
					p := heavy(t, size)
					_, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}})
					check(t, err)
					layer := layerOf(p, size)
					s.Exchanges()
					s.dialled = nil
					s.idle[0].CloseIdleConnections()
					s.Inject(Rule{Method: "GET", Blob: layer.Digest, Times: tt.times, Mishap: Stall(Down, 50_000)})
					var mu sync.Mutex
					var told []string
					o := o
					o.Unsafe, o.Concurrency = true, 1
					o.Progress = func(e oci.Event) {
						if e.Kind == oci.Retried {
							mu.Lock()
							told = append(told, e.Reason)
							mu.Unlock()
						}
					}
					start := time.Now()
					ref := registryRef(siteHost, "ml/fraud", "v1")
					_, err = oci.Pull(t.Context(), target, ref, t.TempDir(), o)
					took := time.Since(start)
					silent := siteHost + " is silent: no byte went either way for 3s"
					if tt.times > 0 && err != nil {
						t.Error(err)
					}
					if e := c.Explain("pull", ref, err); tt.times == 0 && (!errors.Is(e, oci.ErrUnreachable) || !strings.HasSuffix(e.Error(), silent)) {
						t.Errorf("%v; want %s", e, silent)
					}
					var got []string
					for _, e := range s.Exchanges() {
						if strings.HasSuffix(e.Path, layer.Digest.String()) {
							got = append(got, strings.TrimSuffix(e.Range, fmt.Sprint(layer.Size-1)))
						}
					}
					if !slices.Equal(got, tt.ranges) {
						t.Errorf("asked for %q; want %q", got, tt.ranges)
					}
					if len(s.dialled) != len(tt.ranges) {
						t.Errorf("%d connections; want one for each of %q", len(s.dialled), tt.ranges)
					}
					if want := len(tt.ranges) - 1; len(told) != want || slices.ContainsFunc(told, func(s string) bool { return s != silent }) {
						t.Errorf("told %q; want %d", told, want)
					}
					if most := 5 * (stall + 2*time.Second); took < stall || took > most {
						t.Errorf("took %v; want at most %v", took, most)
					}
				})
			})
		}
	}
}

// TestManifestsWithoutLength are read all the same, by tag and by digest, and asked
// for again when they are cut or altered.
func TestManifestsWithoutLength(t *testing.T) {
	t.Parallel()
	bare := Header(func(h http.Header) { h.Del("Docker-Content-Digest") })
	of := func(method string, times int, m Mishap) Rule {
		return Rule{Method: method, Kind: Manifests, Times: times, Mishap: m}
	}
	huge := Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
		for range 5 {
			w.Write(bytes.Repeat([]byte(" "), mib))
		}
	}))
	for _, tt := range []struct {
		name     string
		rules    []Rule
		kind     error // nil: all is well
		requests string
	}{
		{"as it should be", nil, nil, "find 1 1, resolve 1 1, fetch 1, exists 1"},
		{"no length", []Rule{of("GET", 0, Chunked())}, nil, "find 1 1, resolve 1 1, fetch 1, exists 1"},
		{"no length anywhere", []Rule{of("", 0, Chunked())}, nil, "find 1 1, resolve 2 2, fetch 1, exists 2"},
		{"no digest", []Rule{of("", 0, bare)}, nil, "find 1 1, resolve 2 1, fetch 1, exists 1"},
		{"neither", []Rule{of("", 0, bare), of("", 0, Chunked())}, nil, "find 1 1, resolve 2 2, fetch 1, exists 2"},
		{"cut twice", []Rule{of("GET", 2, Cut(Down, 100)), of("", 0, Chunked())}, nil, "find 3 1, resolve 2 2, fetch 1, exists 2"},
		{"altered twice", []Rule{of("GET", 2, Corrupt(Down, 100))}, nil, "find 3 1, resolve 1 1, fetch 1, exists 1"},
		{"altered always", []Rule{of("GET", 0, Corrupt(Down, 100))}, oci.ErrCorrupt, "find 3 3, resolve 1 1, fetch 3, exists 1"},
		{"cut always", []Rule{of("GET", 0, Cut(Down, 100))}, oci.ErrUnreachable, "find 3 3, resolve 1 1, fetch 3, exists 1"},
		{"of 5 MiB", []Rule{of("GET", 0, huge)}, oci.ErrCorrupt, "find 1 1, resolve 1 1, fetch 1, exists 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, r := newTarget(t)
			m := NewManifest("one")
			pushBlobs(t, target, m)
			check(t, target.Tag(t.Context(), m.Descriptor, "v1"))
			r.Exchanges()
			r.Inject(tt.rules...)
			asked := func() int { return len(r.Exchanges()) }
			verdict := func(what string, d v1.Descriptor, doc []byte, err error) {
				err = new(oci.Client).Explain(what, registryRef(r.Host, "ml/fraud", "v1"), err)
				switch {
				case tt.kind != nil && !errors.Is(err, tt.kind):
					t.Errorf("%s: %v; want %v", what, err, tt.kind)
				case tt.kind == nil && (err != nil || !content.Equal(d, m.Descriptor) || doc != nil && !bytes.Equal(doc, m.Data)):
					t.Errorf("%s: %v, %q, %v; want %v", what, d, doc, err, m.Descriptor)
				}
			}
			var got []string
			find := func(reference string) int {
				d, src, err := oci.Find(t.Context(), target, reference)
				var doc []byte
				if err == nil {
					doc, err = manifest.ReadBlob(t.Context(), src, d, "manifest", mib)
				}
				verdict("find "+reference, d, doc, err)
				return asked()
			}
			byDigest := m.Digest.String()
			got = append(got, fmt.Sprintf("find %d %d", find("v1"), find(byDigest)))
			head := func(reference string) int {
				d, err := target.Resolve(t.Context(), reference)
				if err != nil || !content.Equal(d, m.Descriptor) {
					t.Errorf("resolve %s: %v, %v", reference, d, err)
				}
				return asked()
			}
			got = append(got, fmt.Sprintf("resolve %d %d", head("v1"), head(byDigest)))
			doc, err := manifest.ReadBlob(t.Context(), target, m.Descriptor, "manifest", mib)
			verdict("fetch", m.Descriptor, doc, err)
			got = append(got, fmt.Sprintf("fetch %d", asked()))
			if there, err := target.Exists(t.Context(), m.Descriptor); err != nil || !there {
				t.Errorf("exists: %v, %v", there, err)
			}
			got = append(got, fmt.Sprintf("exists %d", asked()))
			if got := strings.Join(got, ", "); got != tt.requests {
				t.Errorf("%s; want %s", got, tt.requests)
			}
		})
	}
}

// TestRepositoriesOfAnyName reads a blob that is larger than any manifest or list,
// from repositories that are called like these.
func TestRepositoriesOfAnyName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"referrers/x", "ml/manifests/x", "tags/list/x", "blobs/x"} {
		r := NewRegistry()
		t.Cleanup(r.Close)
		target, err := newClient(t, oci.Options{}).Create(t.Context(), registryRef(r.Host, name, ""))
		check(t, err)
		b := NewBlob("application/x-layer", string(noise(6*mib)))
		check(t, target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data)))
		r.Inject(get(0, Chunked()))
		data, err := manifest.ReadBlob(t.Context(), target, b.Descriptor, "blob", 1<<30)
		if err != nil || !bytes.Equal(data, b.Data) {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		if there, err := target.Exists(t.Context(), b.Descriptor); err != nil || !there {
			t.Errorf("%s: there: %v, %v", name, there, err)
		}
	}
}

// TestLargeAnswerIsLetGo asks what a tag names of a registry that says too little,
// and then too much: nobody goes on reading that.
func TestLargeAnswerIsLetGo(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
		w.Header().Set("Content-Length", fmt.Sprint(64*mib))
		if r.Method == http.MethodHead {
			return
		}
		defer close(ended)
		for range 64 {
			if _, err := w.Write(make([]byte, mib)); err != nil {
				return
			}
		}
	})
	target, err := newClient(t, oci.Options{}).Open(t.Context(), registryRef(hostOf(srv), "ml/fraud", ""))
	check(t, err)
	if d, err := target.Resolve(t.Context(), "v1"); err == nil {
		t.Errorf("resolved to %v", d)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the answer is still being sent")
	}
}

// TestListsAreReadWhole, of tags and of referrers, though they are cut.
func TestListsAreReadWhole(t *testing.T) {
	t.Parallel()
	for _, faults := range [][]Fault{nil, {NoReferrers}} { // with an API, and by the scheme of tags
		target, r := newTarget(t)
		m := NewManifest("one")
		other := referrer(t, "signature", m)
		r.Misbehave(faults...)
		pushBlobs(t, target, m, other)
		check(t, target.Tag(t.Context(), m.Descriptor, "v1"))
		for _, kind := range []Kind{Tags, Referrers, Manifests} {
			r.Inject(Rule{Method: "GET", Kind: kind, Times: 2, Mishap: Cut(Down, 20)}, Rule{Kind: kind, Mishap: Chunked()})
		}
		versions, err := oci.List(t.Context(), target, oci.ListOptions{})
		check(t, err)
		if got := allTags(versions); !strings.HasPrefix(got, "v1") {
			t.Errorf("%v: tags %q", faults, got)
		}
		dst := create(t, "oci:"+t.TempDir())
		_, err = oci.CopyReference(t.Context(), dst, target, "v1", oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}, Referrers: true})
		check(t, err)
		if there, err := dst.Exists(t.Context(), other.Descriptor); err != nil || !there {
			t.Errorf("%v: the referrer is there: %v, %v", faults, there, err)
		}
	}
}

// TestManifestsOfOtherDigests are verified by the digest that was asked for, and
// need not be told.
func TestManifestsOfOtherDigests(t *testing.T) {
	t.Parallel()
	m := NewManifest("one")
	by512 := digest.SHA512.FromBytes(m.Data)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", m.MediaType)
		w.Write(m.Data)
	})
	target := openTarget(t, hostOf(srv)+"/ml/fraud")
	d, _, err := oci.Find(t.Context(), target, by512.String())
	if err != nil || d.Digest != by512 {
		t.Errorf("%v, %v; want %v", d, err, by512)
	}
	if _, _, err := oci.Find(t.Context(), target, digest.SHA512.FromString("other").String()); !isCorrupt(err) {
		t.Errorf("of another digest: %v", err)
	}
}

// TestBlobsWithoutLength are there all the same.
func TestBlobsWithoutLength(t *testing.T) {
	t.Parallel()
	target, r, b := oneBlob(t, 5, oci.Options{})
	r.Inject(Rule{Method: "HEAD", Kind: Blobs, Mishap: Chunked()})
	if there, err := target.Exists(t.Context(), b.Descriptor); err != nil || !there {
		t.Errorf("%v, %v", there, err)
	}
	if there, err := target.Exists(t.Context(), NewBlob("application/x-layer", "other").Descriptor); err != nil || there {
		t.Errorf("another one: %v, %v", there, err)
	}
}

// TestCopyOfWrongBytes fetches them once more, and writes none.
func TestCopyOfWrongBytes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		times int
		gets  int // of the model's layer
	}{{"once", 1, 2}, {"always", 0, 2}} {
		for _, to := range []string{"registry", "layout"} {
			t.Run(tt.name+" to a "+to, func(t *testing.T) {
				t.Parallel()
				src, from := newTarget(t)
				p := heavy(t, 300_000)
				_, err := oci.Push(t.Context(), src, p, oci.PushOptions{Tags: []string{"v1"}})
				check(t, err)
				dst, other := newTarget(t)
				if to == "layout" {
					dst = create(t, "oci:"+t.TempDir()+":v1")
				}
				from.Exchanges()
				layer := layerOf(p, 300_000)
				from.Inject(Rule{Method: "GET", Blob: layer.Digest, Times: tt.times, Mishap: Corrupt(Down, 200_000)})
				_, err = oci.CopyReference(t.Context(), dst, src, "v1", oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}})
				if tt.times > 0 {
					check(t, err)
					_, err := oci.Verify(t.Context(), dst, registryRef(other.Host, "ml/fraud", "v1"), oci.VerifyOptions{})
					check(t, err)
				} else {
					if !isCorrupt(err) || !oci.FromSource(err) {
						t.Errorf("%v; want corrupt bytes of the source", err)
					}
					if there, err := dst.Exists(t.Context(), layer); err != nil || there {
						t.Errorf("the layer is there: %v, %v", there, err)
					}
					if _, err := dst.Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrNotFound) {
						t.Errorf("the tag is there: %v", err)
					}
				}
				n := 0
				for _, e := range from.Exchanges() {
					if strings.HasSuffix(e.Path, layer.Digest.String()) {
						n++
					}
				}
				if n != tt.gets {
					t.Errorf("fetched %d times; want %d", n, tt.gets)
				}
			})
		}
	}
}

// copying is a site with a model of 3 MB, and another one to copy it to.
type copying struct {
	from, to *site
	src, dst oci.Target
	c        *oci.Client // of dst
	p        *manifest.Packed
	layer    v1.Descriptor // of the model
}

func newCopying(t *testing.T) *copying {
	const size = 3_000_000
	s := &copying{from: newSite(t), to: newSite(t), p: heavy(t, size)}
	s.layer = layerOf(s.p, size)
	_, s.src = s.from.open(t, oci.Options{})
	s.c, _ = s.to.open(t, oci.Options{CacheDir: t.TempDir()})
	var err error
	s.dst, err = s.c.Create(t.Context(), registryRef("localhost:5001", "ml/fraud", ""))
	check(t, err)
	_, err = oci.Push(t.Context(), s.src, s.p, oci.PushOptions{Tags: []string{"v1"}})
	check(t, err)
	s.from.Exchanges()
	return s
}

func (s *copying) close() {
	s.from.close()
	s.to.close()
}

// copy copies, and returns the requests for the layer and how much went up.
func (s *copying) copy(t *testing.T) (gets []Exchange, received int64, err error) {
	_, err = oci.CopyReference(t.Context(), s.dst, s.src, "v1", oci.TagRules{}, oci.CopyOptions{Tags: []string{"v1"}})
	for _, e := range s.from.Exchanges() {
		if strings.HasSuffix(e.Path, s.layer.Digest.String()) {
			gets = append(gets, e)
		}
	}
	for _, e := range s.to.Exchanges() {
		received += e.Received
	}
	return gets, received, err
}

// TestCopyGoesOnAtBothEnds cuts a download and the upload that it feeds: neither
// costs the other what it has.
func TestCopyGoesOnAtBothEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newCopying(t)
		defer s.close()
		s.from.Inject(get(2, Cut(Down, 900_000)))
		s.to.Inject(Rule{Method: "PATCH", Kind: Uploads, Times: 2, Mishap: Cut(Up, 700_000)})
		gets, received, err := s.copy(t)
		check(t, err)
		s.to.complete(t, "v1", s.p.Root)
		var sent int64
		for _, e := range gets {
			sent += e.Sent
		}
		if most := s.layer.Size + s.layer.Size/10; sent > most || received > most {
			t.Errorf("%d bytes sent, %d received; want at most %d; ranges %q", sent, received, most, ranges(gets))
		}
	})
}

// TestCopyGivesUpOnItsSource when that has been asked as often as a pull would ask.
// What went up is there for the next copy.
func TestCopyGivesUpOnItsSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newCopying(t)
		defer s.close()
		s.from.Inject(Rule{Method: "GET", Blob: s.layer.Digest, Times: 1, Mishap: Cut(Down, 2_000_000)},
			Rule{Method: "GET", Blob: s.layer.Digest, Skip: 1, Mishap: Cut(Down, 0)})
		gets, _, err := s.copy(t)
		if err = s.c.Explain("copy", registryRef(siteHost, "ml/fraud", "v1"), err); !errors.Is(err, oci.ErrUnreachable) || !oci.FromSource(err) {
			t.Errorf("%v; want %v, of the source", err, oci.ErrUnreachable)
		}
		if len(gets) > 1+6+5 { // the second is sent six times, by net/http also once on each idle connection
			t.Errorf("%d requests for the layer", len(gets))
		}
		s.from.Calm()
		_, received, err := s.copy(t)
		check(t, err)
		s.to.complete(t, "v1", s.p.Root)
		if most := s.layer.Size - 1_900_000 + 50_000; received > most {
			t.Errorf("%d bytes sent again; want at most %d", received, most)
		}
	})
}
