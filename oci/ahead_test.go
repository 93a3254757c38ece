package oci_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"galley/manifest"
	"galley/oci"
	. "galley/oci/ocitest"
)

// aheadPush is a push that may send the model while it packs it.
type aheadPush struct {
	*manifest.Packed
	ahead  *oci.Lookup
	target oci.Target
	read   atomic.Int64 // bytes of the model

	mu   sync.Mutex
	told []oci.Event // of the model's layer
}

// packAhead packs a project, whose model may be read in a way of its own.
func packAhead(ctx context.Context, target oci.Target, fsys fs.FS, tags ...string) (*aheadPush, error) {
	a := &aheadPush{target: target}
	a.ahead = oci.LookUp(ctx, target, tags)
	inputs := []manifest.Input{
		{Path: modelFile, Role: manifest.RoleModel, Open: func() (fs.File, error) {
			f, err := fsys.Open(modelFile)
			return countedFile{f, &a.read}, err
		}},
		manifest.FromFS(fsys, "data/features.json", "data/features.json", manifest.RoleFeatures),
		manifest.FromFS(fsys, "data/summary.json", "data/summary.json", manifest.RoleSummary),
	}
	var err error
	a.Packed, err = manifest.Pack(ctx, inputs, manifest.PackOptions{Ahead: a.ahead.Ahead(oci.TagRules{}, a.tell)})
	return a, err
}

// push sends the rest, under tags.
func (a *aheadPush) push(ctx context.Context, tags ...string) (oci.Pushed, error) {
	defer a.ahead.Close()
	return oci.Push(ctx, a.target, a.Packed, oci.PushOptions{Tags: tags, Ahead: a.ahead, Progress: a.tell})
}

func (a *aheadPush) tell(e oci.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Name == "models" {
		a.told = append(a.told, e)
	}
}

// count is how often that was told, and of how many bytes.
func (a *aheadPush) count(kind oci.EventKind) (times int, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.told {
		if e.Kind == kind {
			times++
			bytes += e.Bytes
		}
	}
	return times, bytes
}

type countedFile struct {
	fs.File
	n *atomic.Int64
}

func (f countedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.n.Add(int64(n))
	return n, err
}

// noisy is a project whose model has so many bytes, which no gzip makes fewer.
func noisy(size int) fstest.MapFS {
	fsys := project("one")
	fsys[modelFile] = &fstest.MapFile{Data: noise(size)}
	return fsys
}

// openAhead opens the site for layers that are sent while they are packed.
func (s *site) openAhead(t *testing.T, o oci.Options) (*oci.Client, oci.Target) {
	c, target := s.open(t, o)
	oci.SetSizes(c, 1<<40, 1<<40)
	oci.SetAhead(c, 100_000)
	return c, target
}

// methods counts the requests of uploads, without the POST and the PUT that
// every blob has.
func methods(log []Exchange) (patch, get, del int) {
	for _, e := range log {
		switch {
		case e.Kind != Uploads:
		case e.Method == "PATCH":
			patch++
		case e.Method == "GET":
			get++
		case e.Method == "DELETE":
			del++
		}
	}
	return patch, get, del
}

// uploaded checks how many such requests there were.
func (s *site) uploaded(t *testing.T, patch, get, del int) {
	t.Helper()
	if p, g, d := methods(s.Exchanges()); p != patch || g != get || d != del {
		t.Errorf("%d chunks, %d questions, %d sessions deleted; want %d, %d, %d", p, g, d, patch, get, del)
	}
}

// where has only some requests suffer a mishap.
func where(some func(*http.Request) bool, m Mishap) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if some(r) {
			m(p, w, r)
		} else {
			p.Pass(w, r)
		}
	}
}

// bodiless is the PUT of a layer that came in chunks.
func bodiless(r *http.Request) bool { return r.ContentLength == 0 }

// ofTheRest is a chunk that is not the first.
func ofTheRest(r *http.Request) bool { return r.Header.Get("Content-Range") != "" }

// TestPushAhead sends a layer while it is packed, in spite of all that a registry
// can do about that. What comes of it is there and right, and no session is left.
func TestPushAhead(t *testing.T) {
	t.Parallel()
	const size = 300_000
	patch := func(times int, m Mishap) []Rule {
		return []Rule{{Method: "PATCH", Kind: Uploads, Times: times, Mishap: m}}
	}
	refused := func(status int, code string) []Rule { return patch(1, Answer(Up, status, code)) }
	state := Location(func(u *url.URL) { u.RawQuery = "_state=x" })
	put := func(m Mishap) []Rule {
		return []Rule{{Method: "PUT", Kind: Uploads, Mishap: where(bodiless, m), Times: 1}}
	}
	for _, tt := range []struct {
		name            string
		rules           []Rule
		patch, get, del int
		again           bool // what went ahead was in vain
		left            bool // the registry does not know that a session is over
		bound           time.Duration
	}{
		{name: "nothing", patch: 1},
		{name: "cut", rules: patch(1, Cut(Up, 200_000)), patch: 2, get: 1},
		{name: "cut twice", rules: patch(2, Cut(Up, 100_000)), patch: 3, get: 2},
		{name: "cut before it begins", rules: patch(1, Cut(Up, 0)), patch: 1, get: 1, del: 1},
		{name: "cut always", rules: patch(0, Cut(Up, 0)), patch: 1, get: 1, del: 1},
		{name: "cut, and not to be asked", rules: append(patch(1, Cut(Up, 200_000)), Rule{Method: "GET", Kind: Uploads, Mishap: Answer(Up, 405, "UNSUPPORTED")}),
			patch: 1, get: 1, del: 1, again: true},
		{name: "cut where locations are signed", rules: append([]Rule{{Kind: Uploads, Mishap: state}}, patch(1, Cut(Up, 200_000))...), patch: 1, del: 1, again: true},
		{name: "answer lost", rules: patch(1, Cut(Down, 0)), patch: 1, get: 1},
		{name: "stalls", rules: patch(1, Stall(Up, 200_000)), patch: 1, get: 1, del: 1, again: true, left: true, bound: time.Minute},
		{name: "answer stalls", rules: patch(1, Stall(Down, 0)), patch: 1, get: 1, bound: time.Minute},
		{name: "corrupt", rules: patch(1, Corrupt(Up, 200_000)), patch: 1, del: 1, again: true},
		{name: "short", rules: patch(1, End(Up, 200_000)), patch: 1, del: 1, again: true},
		{name: "400", rules: refused(400, "UNSUPPORTED"), patch: 1, del: 1, again: true},
		{name: "401", rules: patch(0, Answer(Up, 401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="x"`)), patch: 1, get: 1, del: 1, again: true},
		{name: "403", rules: refused(403, "DENIED"), patch: 1, del: 1, again: true},
		{name: "404", rules: refused(404, "BLOB_UPLOAD_UNKNOWN"), patch: 1, del: 1, again: true},
		{name: "405", rules: refused(405, "UNSUPPORTED"), patch: 1, del: 1, again: true},
		{name: "416 for more than 4 MB", rules: refused(416, "BLOB_UPLOAD_INVALID"), patch: 1, del: 1, again: true},
		{name: "429", rules: refused(429, "TOOMANYREQUESTS"), patch: 1, del: 1, again: true},
		{name: "500", rules: refused(500, "UNKNOWN"), patch: 1, del: 1, again: true},
		{name: "501", rules: refused(501, "UNSUPPORTED"), patch: 1, del: 1, again: true},
		{name: "503 when it was taken", rules: patch(1, Answer(Down, 503, "UNAVAILABLE")), patch: 1, del: 1, again: true},
		{name: "201 as if it were all", rules: refused(201, ""), patch: 1, del: 1, again: true},
		{name: "elsewhere", rules: []Rule{{Kind: Uploads, Mishap: Location(func(u *url.URL) { u.Scheme, u.Host = "http", "store.example:5000" })}}, patch: 1},
		{name: "relative", rules: []Rule{{Kind: Uploads, Mishap: Location(RelativeLocation)}}, patch: 1},
		{name: "signed", rules: []Rule{{Kind: Uploads, Mishap: state}}, patch: 1},
		{name: "no range", rules: []Rule{{Mishap: Header(func(h http.Header) { h.Del("Range") })}}, patch: 1},
		{name: "a range that lies", rules: patch(1, Header(func(h http.Header) { h.Set("Range", "0-77") })), patch: 1, del: 1, again: true},
		{name: "no location", rules: patch(1, Header(func(h http.Header) { h.Del("Location") })), patch: 1, get: 1},

		{name: "start refused", rules: []Rule{{Method: "POST", Kind: Uploads, Times: 1, Mishap: Answer(Up, 403, "DENIED")}}},
		{name: "start 503", rules: []Rule{{Method: "POST", Kind: Uploads, Times: 1, Mishap: Answer(Up, 503, "UNAVAILABLE")}}},
		{name: "start stalls", rules: []Rule{{Method: "POST", Kind: Uploads, Times: 1, Mishap: Stall(Down, 0)}}, left: true, bound: 11 * time.Second},
		{name: "start cut", rules: []Rule{{Method: "POST", Kind: Uploads, Times: 1, Mishap: Cut(Up, 0)}}},
		{name: "tag late", rules: []Rule{{Method: "HEAD", Kind: Manifests, Times: 1, Mishap: Delay(Down, 20*time.Second)}}, bound: 21 * time.Second},

		{name: "end 503", rules: put(Answer(Up, 503, "UNAVAILABLE")), patch: 1, get: 1},
		{name: "end 503 when it was taken", rules: put(Answer(Down, 503, "UNAVAILABLE")), patch: 1, get: 1},
		{name: "end lost", rules: put(Cut(Down, 0)), patch: 1, get: 1},
		{name: "end 404", rules: put(Answer(Up, 404, "BLOB_UPLOAD_UNKNOWN")), patch: 1, again: true, left: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				s.Inject(tt.rules...)
				_, target := s.openAhead(t, oci.Options{CacheDir: t.TempDir()})
				start := time.Now()
				p, err := packAhead(t.Context(), target, noisy(size), "v1")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // of the bubble: the registry sees what was cut
				if _, err := p.push(t.Context(), "v1"); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > tt.bound+2*time.Second {
					t.Errorf("took %v; want at most %v", took, tt.bound+2*time.Second)
				}
				s.Calm()
				s.complete(t, "v1", p.Root)
				s.uploaded(t, tt.patch, tt.get, tt.del)
				most := int64(size + 10_000) // with what else there is
				if tt.again {
					most += size
				} else if tt.patch > 1 {
					most += 64_000 // what was on its way
				}
				if received, _ := s.Moved(); received > most {
					t.Errorf("%d bytes went up for %d", received, size)
				}
				if n, _ := p.count(oci.Done); n != 1 {
					t.Errorf("done %d times", n)
				}
				if left := s.sessions(t); len(left) > 0 && !tt.left {
					t.Errorf("%q stayed", left)
				}
			})
		})
	}
}

// TestPushAheadSlow packs a layer that the line does not carry as fast: the packing
// does not wait for long, and what was sent until then counts.
func TestPushAheadSlow(t *testing.T) {
	t.Parallel()
	const size = 40 << 20
	for _, tt := range []struct {
		name            string
		line            int64 // bytes a second
		rules           []Rule
		patch, get, del int
		again           bool // what went ahead was in vain
		waits           time.Duration
	}{
		{name: "slow", line: 1e6, patch: 2, waits: 11 * time.Second},
		{name: "fast enough", line: 5e6, patch: 1, waits: 9 * time.Second},
		{name: "silent", rules: []Rule{{Method: "PATCH", Times: 1, Mishap: Pause(Up, 200_000)}}, patch: 2, waits: 11 * time.Second},
		{name: "slow where locations are signed", line: 1e6, rules: []Rule{{Kind: Uploads, Mishap: Location(func(u *url.URL) { u.RawQuery = "_state=x" })}},
			patch: 2, waits: 11 * time.Second},
		{name: "the rest refused", line: 1e6, rules: []Rule{{Method: "PATCH", Times: 1, Mishap: where(ofTheRest, Answer(Up, 416, "RANGE_INVALID"))}},
			patch: 2, del: 1, again: true, waits: 11 * time.Second},
		{name: "the rest refused, and gone", line: 1e6, rules: []Rule{{Method: "PATCH", Times: 1, Mishap: where(ofTheRest, Answer(Up, 404, "BLOB_UPLOAD_UNKNOWN"))}},
			patch: 2, again: true, waits: 11 * time.Second},
		{name: "the rest cut", line: 1e6, rules: []Rule{{Method: "PATCH", Times: 1, Mishap: where(ofTheRest, Cut(Up, 200_000))}},
			patch: 3, get: 1, waits: 11 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				s.Inject(tt.rules...)
				s.Shape(0, tt.line)
				_, target := s.openAhead(t, oci.Options{CacheDir: t.TempDir()})
				start := time.Now()
				p, err := packAhead(t.Context(), target, noisy(size), "v1")
				if err != nil {
					t.Fatal(err)
				}
				// Of the bubble, where only what waits takes time.
				if took := time.Since(start); took > tt.waits {
					t.Errorf("the packing took %v; want at most %v", took, tt.waits)
				}
				if tt.name == "silent" {
					s.Calm()
				}
				if _, err := p.push(t.Context(), "v1"); err != nil {
					t.Fatal(err)
				}
				s.Calm()
				s.complete(t, "v1", p.Root)
				s.uploaded(t, tt.patch, tt.get, tt.del)
				layer := layerOf(p.Packed, size).Size
				most := layer + 10_000 // with what else there is
				if tt.again {
					most += layer
				} else if tt.patch > 2 {
					most += 1 << 20 // what was on its way
				}
				if received, _ := s.Moved(); received > most {
					t.Errorf("%d bytes went up for %d", received, layer)
				}
				if left := s.sessions(t); len(left) > 0 && tt.name != "the rest refused, and gone" {
					t.Errorf("%q stayed", left)
				}
			})
		})
	}
}

// sessions are the uploads that the registry keeps, and what lies in the place of
// others.
func (s *site) sessions(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "ml/fraud/_oci/.galley-layout/*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPushAheadOnce reads a model once that is too large to be kept, and tells of
// its bytes once.
func TestPushAheadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		const size = 10 << 20
		_, target := s.openAhead(t, oci.Options{})
		p, err := packAhead(t.Context(), target, noisy(size), "v1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.push(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
		s.complete(t, "v1", p.Root)
		if n := p.read.Load(); n != size {
			t.Errorf("%d bytes of the model read; want %d", n, size)
		}
		layer := layerOf(p.Packed, size)
		_, ahead := p.count(oci.Ahead)
		_, moved := p.count(oci.Moved)
		if resumed, at := p.count(oci.Resumed); ahead != layer.Size || moved != 0 || resumed != 1 || at != layer.Size {
			t.Errorf("%d bytes ahead, %d moved, resumed %d times at %d; want the layer's %d, 0, once, all", ahead, moved, resumed, at, layer.Size)
		}
		var posts, puts int
		for _, e := range s.Exchanges() {
			switch {
			case e.Method == "POST":
				posts++
			case e.Method == "PUT" && e.Kind == Uploads:
				puts++
				if e.Received >= size {
					t.Errorf("a PUT has %d bytes", e.Received)
				}
			}
		}
		// Here configs go in one request, as all small blobs then do.
		if posts != 4 || puts > 3 {
			t.Errorf("%d POST, %d PUT of blobs; want 4, 3 at most", posts, puts)
		}
	})
}

// TestPushNotAhead sends nothing of what may not be wanted, or not be taken.
func TestPushNotAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, s *site, c *oci.Client, target oci.Target)
		tags    []string
		rules   oci.TagRules
	}{
		{name: "tag there", prepare: func(t *testing.T, _ *site, _ *oci.Client, target oci.Target) {
			if _, err := oci.Push(t.Context(), target, packProject(t, project("two"), manifest.PackOptions{}), oci.PushOptions{Tags: []string{"candidate"}}); err != nil {
				t.Fatal(err)
			}
		}, tags: []string{"other", "candidate"}},
		{name: "small", prepare: func(_ *testing.T, _ *site, c *oci.Client, _ oci.Target) { oci.SetAhead(c, 300_000) }},
		{name: "no chunks", prepare: func(t *testing.T, s *site, _ *oci.Client, target oci.Target) {
			s.Inject(Rule{Method: "PATCH", Kind: Uploads, Mishap: Answer(Up, 405, "UNSUPPORTED")})
			p, err := packAhead(t.Context(), target, noisy(200_000), "v0")
			if err == nil {
				_, err = p.push(t.Context(), "v0")
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{name: "stage", rules: oci.TagRules{Stages: []string{"production"}}, tags: []string{"production"}},
		{name: "history", tags: []string{"production.h-000001-x"}},
		{name: "broken rules", rules: oci.TagRules{Versions: "("}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				c, target := s.openAhead(t, oci.Options{})
				if tt.prepare != nil {
					tt.prepare(t, s, c, target)
				}
				s.Calm()
				s.Exchanges()
				tags := tt.tags
				if tags == nil {
					tags = []string{"v1"}
				}
				l := oci.LookUp(t.Context(), target, tags)
				defer l.Close()
				packProject(t, noisy(300_000), manifest.PackOptions{Ahead: l.Ahead(tt.rules, nil)})
				if log := s.Exchanges(); slices.ContainsFunc(log, func(e Exchange) bool { return e.Method != "HEAD" }) {
					t.Errorf("%v; want to look the tags up, and no more", log)
				}
			})
		})
	}
	t.Run("layout", func(t *testing.T) {
		t.Parallel()
		l := oci.LookUp(t.Context(), create(t, "oci:"+t.TempDir()), []string{"v1"})
		defer l.Close()
		if l.Ahead(oci.TagRules{}, nil) != nil {
			t.Error("a layout has files sent ahead")
		}
	})
}

// TestPushAheadGivenUp sends a layer while it is packed, and has it deleted when
// the push does not come to it.
func TestPushAheadGivenUp(t *testing.T) {
	t.Parallel()
	packed := func(t *testing.T, ctx context.Context, target oci.Target) *aheadPush {
		t.Helper()
		p, err := packAhead(ctx, target, noisy(300_000), "v1")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		name string
		// give packs, with the way to cancel its context, and gives up.
		give func(t *testing.T, s *site, ctx context.Context, stop func(), target oci.Target) error
		want error // nil: any
		left bool  // it does not know of all that is over
	}{
		{name: "refused", give: func(t *testing.T, _ *site, ctx context.Context, _ func(), target oci.Target) error {
			p, err := packAhead(ctx, target, noisy(300_000), "v1")
			p.ahead.Close()
			return errors.Join(err, errors.ErrUnsupported) // what its model is, say
		}, want: errors.ErrUnsupported},
		{name: "refused on a slow line", give: func(t *testing.T, s *site, ctx context.Context, _ func(), target oci.Target) error {
			s.Shape(0, 1e6)
			start := time.Now()
			p, err := packAhead(ctx, target, noisy(40<<20), "v1")
			p.ahead.Close()
			if took := time.Since(start); took > 13*time.Second {
				t.Errorf("told after %v", took)
			}
			time.Sleep(time.Minute) // of the bubble
			return errors.Join(err, errors.ErrUnsupported)
		}, want: errors.ErrUnsupported},
		{name: "interrupted", give: func(t *testing.T, s *site, ctx context.Context, stop func(), target oci.Target) error {
			s.Inject(Rule{Method: "PATCH", Mishap: Do(Up, 200_000, stop)})
			p, err := packAhead(ctx, target, noisy(20<<20), "v1")
			p.ahead.Close()
			return err
		}, want: context.Canceled},
		{name: "interrupted in a stall", give: func(t *testing.T, s *site, ctx context.Context, stop func(), target oci.Target) error {
			s.Inject(Rule{Method: "PATCH", Mishap: Stall(Up, 200_000)})
			go func() { <-s.Stalled(); stop() }()
			p, err := packAhead(ctx, target, noisy(20<<20), "v1")
			p.ahead.Close()
			return err
		}, want: context.Canceled, left: true},
		{name: "interrupted before the end", give: func(t *testing.T, s *site, ctx context.Context, stop func(), target oci.Target) error {
			p := packed(t, ctx, target)
			stop()
			_, err := p.push(ctx, "v1")
			return err
		}, want: context.Canceled},
		{name: "interrupted at the end", give: func(t *testing.T, s *site, ctx context.Context, stop func(), target oci.Target) error {
			p := packed(t, ctx, target)
			s.Inject(Rule{Method: "PUT", Kind: Uploads, Mishap: func(p *Passage, w http.ResponseWriter, r *http.Request) {
				if r.ContentLength == 0 {
					stop()
					<-r.Context().Done()
					return
				}
				p.Pass(w, r)
			}})
			_, err := p.push(ctx, "v1")
			return err
		}, want: context.Canceled, left: true},
		{name: "changed", give: func(t *testing.T, _ *site, ctx context.Context, _ func(), target oci.Target) error {
			p, err := packAhead(ctx, target, growing{noisy(300_000)}, "v1")
			p.ahead.Close()
			if changed, ok := errors.AsType[*manifest.ChangedError](err); ok && changed.Path == modelFile {
				return errors.ErrUnsupported
			}
			return err
		}, want: errors.ErrUnsupported},
		{name: "tag taken", give: func(t *testing.T, s *site, ctx context.Context, _ func(), target oci.Target) error {
			p := packed(t, ctx, target)
			_, other := s.open(t, oci.Options{})
			if _, err := oci.Push(ctx, other, packProject(t, project("two"), manifest.PackOptions{}), oci.PushOptions{Tags: []string{"v1"}}); err != nil {
				return err
			}
			time.Sleep(time.Minute) // of the bubble: to know of the tag is long ago
			_, err := p.push(ctx, "v1")
			if err == nil {
				return nil
			}
			if _, ok := errors.AsType[*oci.TakenError](err); ok {
				return errors.ErrUnsupported
			}
			return err
		}, want: errors.ErrUnsupported},
		{name: "there already", give: func(t *testing.T, s *site, ctx context.Context, _ func(), target oci.Target) error {
			p := packed(t, ctx, target)
			_, other := s.open(t, oci.Options{})
			if _, err := oci.Push(ctx, other, p.Packed, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
				return err
			}
			time.Sleep(time.Minute)
			if done, err := p.push(ctx, "v1"); err != nil || done.Written {
				t.Errorf("%v, %v; want nothing to be written", done, err)
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				_, target := s.openAhead(t, oci.Options{})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				start := time.Now()
				if err := tt.give(t, s, ctx, stop, target); !errors.Is(err, tt.want) {
					t.Errorf("%v; want %v", err, tt.want)
				}
				if took := time.Since(start); took > 5*time.Second && took < time.Minute {
					t.Errorf("took %v", took)
				}
				if patch, _, del := methods(s.Exchanges()); patch == 0 || del != 1 {
					t.Errorf("%d chunks, %d sessions deleted; want some, one", patch, del)
				}
				if left := s.sessions(t); len(left) > 0 && !tt.left {
					t.Errorf("%q stayed", left)
				}
			})
		})
	}
}

// TestPushAheadPatience waits for a line that is slower than the packing, but not
// slow.
func TestPushAheadPatience(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line int64 // bytes a second
		ends bool
	}{{30e6, false}, {15e6, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			defer s.close()
			s.Inject(Rule{Method: "PATCH", Mishap: func(_ *Passage, w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Location", r.URL.Path)
				w.WriteHeader(http.StatusAccepted)
			}})
			s.Shape(0, tt.line)
			_, target := s.openAhead(t, oci.Options{})
			l := oci.LookUp(t.Context(), target, []string{"v1"})
			defer l.Close()
			const size = 400_000_000
			w := l.Ahead(oci.TagRules{}, nil)("models", size)
			var n, sent int
			var err error
			for piece := make([]byte, 1_000_000); n < size && err == nil; n += sent {
				sent, err = w.Write(piece)
			}
			if (err != nil) != tt.ends {
				t.Errorf("%d bytes a second: %v after %d bytes; want an end: %v", tt.line, err, n, tt.ends)
			}
		})
	}
}

// TestPushAheadSilent closes what a registry never answers to: within seconds, and
// of two layers as soon as of one.
func TestPushAheadSilent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		rule Rule
		most time.Duration
	}{
		{"tags", Rule{Kind: Manifests, Mishap: Stall(Down, 0)}, 0},
		{"start", Rule{Method: "POST", Mishap: Stall(Down, 0)}, 0},
		{"chunks", Rule{Method: "PATCH", Mishap: Stall(Up, 1000)}, 2 * time.Second},
		{"all but the start", Rule{Kind: Uploads, Mishap: where(func(r *http.Request) bool { return r.Method != "POST" }, Stall(Up, 0))}, 7 * time.Second}, // with the DELETE
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				s.Inject(tt.rule)
				_, target := s.openAhead(t, oci.Options{})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				l := oci.LookUp(ctx, target, []string{"v1"})
				open := l.Ahead(oci.TagRules{}, nil)
				for _, title := range []string{"models", "data"} {
					w := open(title, 300_000)
					go w.Write(noise(300_000))
				}
				synctest.Wait()
				start := time.Now()
				l.Close()
				if took := time.Since(start); took > tt.most {
					t.Errorf("closed after %v; want at most %v", took, tt.most)
				}
			})
		})
	}
}

// TestPushAheadKilled goes on with what was sent ahead when the push is killed
// before the registry has confirmed it.
func TestPushAheadKilled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		line  int64
		rules []Rule
		patch int
	}{
		{name: "sent whole", patch: 1, rules: []Rule{{Method: "PUT", Kind: Uploads, Mishap: where(bodiless, Stall(Up, 0))}}},
		{name: "given up", line: 1e6, patch: 3, rules: []Rule{{Method: "PATCH", Mishap: where(ofTheRest, Stall(Up, 0))}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				const size = 20 << 20
				fsys := noisy(size)
				s.Shape(0, tt.line)
				s.Inject(tt.rules...)
				cache := t.TempDir()
				c, target := s.openAhead(t, oci.Options{CacheDir: cache})
				oci.SetSizes(c, 20_000, 100_000)
				ctx, stop := context.WithCancel(t.Context())
				p, err := packAhead(ctx, target, fsys, "v1")
				if err != nil {
					t.Fatal(err)
				}
				go func() { <-s.Stalled(); stop() }()
				if _, err := p.push(ctx, "v1"); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				s.Calm()
				s.Shape(0, 0)
				_, target = s.open(t, oci.Options{CacheDir: cache})
				// The next run remembers what the layer is, and packs nothing.
				if _, err := oci.Push(t.Context(), target, p.Packed, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
					t.Fatal(err)
				}
				s.complete(t, "v1", p.Root)
				layer := layerOf(p.Packed, size).Size
				received, _ := s.Moved()
				if patch, _, _ := methods(s.Exchanges()); patch != tt.patch || received > layer+1<<20 {
					t.Errorf("%d chunks, %d bytes for %d; want %d chunks, no byte twice", patch, received, layer, tt.patch)
				}
			})
		})
	}
}

// growing has a model of a byte more than its size says.
type growing struct{ fs.FS }

func (g growing) Open(name string) (fs.File, error) {
	f, err := g.FS.Open(name)
	if name == modelFile {
		f = longerFile{f}
	}
	return f, err
}

type longerFile struct{ fs.File }

func (f longerFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return longerInfo{info}, err
}

type longerInfo struct{ fs.FileInfo }

func (i longerInfo) Size() int64 { return i.FileInfo.Size() - 1 }

// TestPushAheadTokenExpires has a token run out in the middle.
func TestPushAheadTokenExpires(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	r.Misbehave(BearerAuth)
	r.Inject(Rule{Method: "PATCH", Kind: Uploads, Times: 1, Mishap: Do(Up, 200_000, r.ExpireTokens)})
	c := newClient(t, oci.Options{})
	oci.SetAhead(c, 100_000)
	target, err := c.Create(t.Context(), registryRef(r.Host, "ml/fraud", ""))
	if err != nil {
		t.Fatal(err)
	}
	p, err := packAhead(t.Context(), target, noisy(300_000), "v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.push(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	received, _ := r.Moved()
	if patch, get, del := methods(r.Exchanges()); patch != 1 || get != 0 || del != 0 || received > 310_000 {
		t.Errorf("%d chunks, %d questions, %d sessions deleted, %d bytes; want one chunk of all", patch, get, del, received)
	}
	d, err := target.Resolve(t.Context(), "v1")
	if err != nil || d.Digest != p.Root.Digest {
		t.Errorf("%v, %v", d.Digest, err)
	}
}
