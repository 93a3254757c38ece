package oci_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"testing"
	"testing/fstest"
	"time"

	"galley/manifest"
	"galley/oci"
	"galley/oci/ocitest"
)

// TestPullThroughMishaps: after whatever happens to its answers, a pull has the
// right bytes, or says what is wrong and leaves nothing; and it asks so often and
// no more.
func TestPullThroughMishaps(t *testing.T) {
	t.Parallel()
	const size = 3 * mib
	busy := func(d ocitest.Direction, status int) ocitest.Mishap {
		return ocitest.Answer(d, status, "UNKNOWN", "Retry-After", "0")
	}
	drop := func(name string) ocitest.Mishap {
		return ocitest.Header(func(h http.Header) { h.Del(name) })
	}
	blobs := func(times int, m ocitest.Mishap) ocitest.Rule {
		return ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Blobs, Times: times, Mishap: m}
	}
	manifests := func(times int, m ocitest.Mishap) ocitest.Rule {
		return ocitest.Rule{Method: http.MethodGet, Kind: ocitest.Manifests, Times: times, Mishap: m}
	}
	cutOnce := blobs(1, ocitest.Cut(ocitest.Down, 700*kib))
	corrupt := func(err error) bool {
		_, ok := errors.AsType[*manifest.CorruptError](err)
		return ok
	}
	cut := func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
	anything := func(err error) bool { return err != nil }
	for name, tt := range map[string]struct {
		rules    []ocitest.Rule
		fails    func(error) bool // nil: it succeeds
		requests int              // at most, with that of the manifest, by one connection
	}{
		"nothing":               {nil, nil, 4},
		"cut before the answer": {[]ocitest.Rule{blobs(1, ocitest.Cut(ocitest.Down, 0))}, nil, 5},
		"cut before the manifest": {
			[]ocitest.Rule{manifests(1, ocitest.Cut(ocitest.Down, 0))}, nil, 5},
		"cut once":          {[]ocitest.Rule{cutOnce}, nil, 5},
		"cut at the end":    {[]ocitest.Rule{blobs(1, ocitest.Cut(ocitest.Down, -1))}, nil, 5},
		"cut three times":   {[]ocitest.Rule{blobs(3, ocitest.Cut(ocitest.Down, 300*kib))}, nil, 7},
		"cut for ever":      {[]ocitest.Rule{blobs(0, ocitest.Cut(ocitest.Down, 100*kib))}, cut, 40},
		"corrupt once":      {[]ocitest.Rule{blobs(1, ocitest.Corrupt(ocitest.Down, 900*kib))}, nil, 7},
		"corrupt for ever":  {[]ocitest.Rule{blobs(0, ocitest.Corrupt(ocitest.Down, 900*kib))}, corrupt, 7},
		"corrupt manifest":  {[]ocitest.Rule{manifests(0, ocitest.Corrupt(ocitest.Down, ocitest.Half))}, anything, 3},
		"manifest cut once": {[]ocitest.Rule{manifests(1, ocitest.Cut(ocitest.Down, ocitest.Half))}, nil, 5},
		"ended early":       {[]ocitest.Rule{blobs(0, ocitest.End(ocitest.Down, 900*kib))}, isCorrupt, 7},
		"a length too long": {[]ocitest.Rule{blobs(0, ocitest.Length(10))}, isCorrupt, 7},
		"a length too short": {
			[]ocitest.Rule{blobs(0, ocitest.Length(-10))}, isCorrupt, 7},
		"no length":              {[]ocitest.Rule{blobs(0, drop("Content-Length"))}, nil, 4},
		"no digest":              {[]ocitest.Rule{blobs(0, drop("Docker-Content-Digest"))}, nil, 4},
		"busy once":              {[]ocitest.Rule{blobs(1, busy(ocitest.Up, 503))}, nil, 5},
		"busy for ever":          {[]ocitest.Rule{blobs(0, ocitest.Answer(ocitest.Up, 503, "UNKNOWN", "Retry-After", "3600"))}, anything, 4},
		"too many requests once": {[]ocitest.Rule{blobs(1, busy(ocitest.Up, 429))}, nil, 5},
		"manifest busy once":     {[]ocitest.Rule{manifests(1, busy(ocitest.Up, 503))}, nil, 5},
		"gone":                   {[]ocitest.Rule{blobs(0, busy(ocitest.Up, 404))}, func(err error) bool { return errors.Is(err, oci.ErrNotFound) }, 4},
		"forbidden":              {[]ocitest.Rule{blobs(0, busy(ocitest.Up, 403))}, anything, 4},
		"slow":                   {[]ocitest.Rule{blobs(0, ocitest.Drip(ocitest.Down, 512*kib, time.Millisecond))}, nil, 4},
		"late":                   {[]ocitest.Rule{blobs(0, ocitest.Delay(ocitest.Down, time.Millisecond))}, nil, 4},
		"range ignored":          {[]ocitest.Rule{cutOnce, blobs(0, ocitest.IgnoreRange())}, nil, 5},
		"range from elsewhere":   {[]ocitest.Rule{cutOnce, blobs(0, ocitest.OtherRange(5))}, nil, 6 + 3},
		"range refused": {
			[]ocitest.Rule{cutOnce, blobs(1, ifRanged(busy(ocitest.Up, 416)))}, nil, 6 + 3},
	} {
		for way, o := range ways() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				most, split := tt.requests, false
				switch way { // each of three pieces meets with it
				case "split", "fast", "slowing":
					most, split = 3*most, true
				}
				target, r := newTarget(t)
				fsys := fstest.MapFS{}
				files := map[string]string{"big.bin": static(size), "data/a.json": "{}", "data/b.json": "[]"}
				for p, text := range files {
					fsys[p] = &fstest.MapFile{Data: []byte(text)}
				}
				p := packFiles(t, files)
				if _, err := oci.Push(t.Context(), target, p, oci.PushOptions{Tags: []string{"v1"}}); err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				write(t, dir, "mine", "mine")
				r.Requests()
				r.Inject(tt.rules...)
				_, err := oci.Pull(t.Context(), target, installed, dir, o)
				want := map[string]string{"mine": "mine"}
				switch {
				case tt.fails == nil:
					if err != nil {
						t.Error(err)
					}
					maps.Copy(want, files)
				case err == nil && split: // a range that is short is not all there is
					maps.Copy(want, files)
				case !tt.fails(err):
					t.Errorf("unexpected: %v", err)
				}
				if got := tree(t, dir); !maps.Equal(got, want) {
					t.Errorf("%d files; want %d", len(got), len(want))
				}
				if got := r.Exchanges(); len(got) > most {
					t.Errorf("%d requests; want at most %d:\n%+v", len(got), most, got)
				}

				// Whatever was left behind, the next one succeeds.
				r.Calm()
				if _, err := oci.Pull(t.Context(), target, installed, dir, o); err != nil {
					t.Error(err)
				}
				maps.Copy(want, files)
				wantTree(t, dir, want)
			})
		}
	}
}

// ifRanged is a mishap of requests for a part.
func ifRanged(m ocitest.Mishap) ocitest.Mishap {
	return func(p *ocitest.Passage, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			p.Pass(w, r)
			return
		}
		m(p, w, r)
	}
}
