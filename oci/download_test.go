package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/oci"
)

const kib, mib = 1 << 10, 1 << 20

// shelf is a registry of one artifact, tagged v1, whose answers about blobs a
// test may spoil.
type shelf struct {
	host  string
	root  v1.Descriptor
	files map[string]string // of the artifact
	blobs map[string][]byte // by digest

	// spoil answers a request for a blob. Nil: answer does.
	spoil func(w http.ResponseWriter, req *http.Request, blob []byte)

	mu     sync.Mutex
	ranges []string // that were asked for, "" for a whole blob
	sent   int64    // bytes of blobs
	now    int      // requests for blobs under way
	peak   int      // most of them at once
}

// newShelf serves files of these texts. Those below models go into one tar+gzip
// layer, the others lie in layers of their own as they are.
func newShelf(t testing.TB, files map[string]string) *shelf {
	t.Helper()
	fsys := fstest.MapFS{}
	var in []manifest.Input
	for _, p := range slices.Sorted(maps.Keys(files)) {
		role := manifest.RoleDoc
		if strings.HasPrefix(p, "models/") {
			role = manifest.RolePart
		}
		fsys[p] = &fstest.MapFile{Data: []byte(files[p])}
		in = append(in, manifest.FromFS(fsys, p, p, role))
	}
	p, err := manifest.Pack(t.Context(), in, manifest.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{root: p.Root, files: files, blobs: make(map[string][]byte)}
	for _, d := range append(p.Manifest.Layers, p.Root) {
		rc, err := p.Fetch(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			t.Fatal(err)
		}
		s.blobs[d.Digest.String()] = data
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	return s
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := filepath.Base(req.URL.Path)
	if strings.Contains(req.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", s.root.MediaType)
		w.Header().Set("Content-Length", strconv.FormatInt(s.root.Size, 10))
		w.Write(s.blobs[s.root.Digest.String()])
		return
	}
	s.mu.Lock()
	s.ranges = append(s.ranges, req.Header.Get("Range"))
	s.now++
	s.peak = max(s.peak, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now--
	}()
	w = &shelfWriter{w, s}
	if s.spoil != nil {
		s.spoil(w, req, s.blobs[name])
		return
	}
	answer(w, req, s.blobs[name])
}

// answer is what a registry says that serves ranges.
func answer(w http.ResponseWriter, req *http.Request, blob []byte) {
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(blob))
}

// shelfWriter counts what is sent.
type shelfWriter struct {
	http.ResponseWriter
	s *shelf
}

func (w *shelfWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.sent += int64(n)
	return n, err
}

// asked returns the ranges that were asked for, and the bytes sent, since it was
// called last.
func (s *shelf) asked() (ranges []string, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ranges, sent = s.ranges, s.sent
	s.ranges, s.sent, s.peak = nil, 0, 0
	return ranges, sent
}

// layer is the blob of the only layer.
func (s *shelf) layer() []byte {
	for d, b := range s.blobs {
		if d != s.root.Digest.String() && len(b) > kib {
			return b
		}
	}
	return nil
}

// pull pulls v1 into dir.
func (s *shelf) pull(t testing.TB, ctx context.Context, dir string, o oci.InstallOptions) (oci.Installed, error) {
	t.Helper()
	name := s.host + "/m:v1"
	ref, err := oci.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	o.Unsafe = true
	return oci.Pull(ctx, openTarget(t, name), ref, dir, o)
}

// whole fails unless dir holds the artifact and nothing besides.
func (s *shelf) whole(t testing.TB, dir string) {
	t.Helper()
	wantTree(t, dir, s.files)
}

// static is text that does not shrink.
func static(n int) string { return string(noise(n)) }

// cutter sends n bytes of what it is given, and then ends the connection.
type cutter struct {
	http.ResponseWriter
	left int
}

func (w *cutter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; w.left == 0 {
		w.ResponseWriter.(*shelfWriter).ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// cutting cuts the first n answers after so many bytes.
func cutting(n int64, after int) func(http.ResponseWriter, *http.Request, []byte) {
	var count atomic.Int64
	return func(w http.ResponseWriter, req *http.Request, blob []byte) {
		if count.Add(1) <= n {
			w = &cutter{w, after}
		}
		answer(w, req, blob)
	}
}

// ways are those in which a layer comes: as it streams, kept on the way, and in
// pieces over several connections; over a line that is fast, and one that ceases
// to be.
func ways() map[string]oci.InstallOptions {
	const never = 1 << 40
	return map[string]oci.InstallOptions{
		"streamed": oci.Tune(oci.InstallOptions{}, never, never, mib),
		"kept":     oci.Tune(oci.InstallOptions{}, 1, never, mib),
		"split":    oci.Tune(oci.InstallOptions{}, 1, 1, mib),
		"fast":     oci.Fast(oci.Tune(oci.InstallOptions{}, 1, 1, mib), never),
		"slowing":  oci.Fast(oci.Tune(oci.InstallOptions{}, 1, 1, mib), 6),
	}
}

// large are artifacts of one layer, as a file and in an archive.
func large(t testing.TB, size int) map[string]*shelf {
	return map[string]*shelf{
		"file":    newShelf(t, map[string]string{"big.bin": static(size)}),
		"archive": newShelf(t, map[string]string{"models/part.bin": static(size)}),
	}
}

// keepingWays are those in which something is kept for the next pull, by one
// connection.
func keepingWays() map[string]oci.InstallOptions {
	kept := ways()
	for _, way := range []string{"streamed", "fast", "slowing"} {
		delete(kept, way)
	}
	for way, o := range kept {
		o.Concurrency = 1
		kept[way] = o
	}
	return kept
}

// eachWay runs the test for each of the ways and kinds of layers.
func eachWay(t *testing.T, ways map[string]oci.InstallOptions, size int, test func(t *testing.T, s *shelf, way string, o oci.InstallOptions)) {
	for kind := range large(t, 1) {
		for way, o := range ways {
			t.Run(way+" "+kind, func(t *testing.T) {
				t.Parallel()
				test(t, large(t, size)[kind], way, o)
			})
		}
	}
}

// TestDownloadIsContinued cuts the connection three times: what came is not
// fetched again.
func TestDownloadIsContinued(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	eachWay(t, ways(), size, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		s.spoil = cutting(3, 700*kib)
		dir := t.TempDir()
		if _, err := s.pull(t, t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		s.whole(t, dir)
		ranges, sent := s.asked()
		if most := int64(size + size/10); sent > most {
			t.Errorf("%d bytes sent; want at most %d; ranges %q", sent, most, ranges)
		}
		split := way == "split" || way == "slowing"
		if n := len(ranges); !split && n != 4 || split && n > 8+1+3 {
			t.Errorf("%d requests: %q", n, ranges)
		}
	})
}

// TestDownloadGivesUp when the registry sends next to nothing before each cut,
// and keeps what it has.
func TestDownloadGivesUp(t *testing.T) {
	t.Parallel()
	eachWay(t, ways(), 8*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		s.spoil = cutting(1<<40, 10*kib)
		dir := t.TempDir()
		if _, err := s.pull(t, t.Context(), dir, o); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v; want %v", err, io.ErrUnexpectedEOF)
		}
		if ranges, _ := s.asked(); len(ranges) > 5*5 {
			t.Errorf("%d requests", len(ranges))
		}
		if got := tree(t, dir); len(got) > 0 {
			t.Errorf("installed %q", slices.Collect(maps.Keys(got)))
		}
	})
}

// TestRefusalIsFinal for whoever reads on: the request that would be answered is
// not sent.
func TestRefusalIsFinal(t *testing.T) {
	t.Parallel()
	eachWay(t, ways(), 8*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		var count atomic.Int64
		s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
			if count.Add(1) == 1 {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			answer(w, req, blob)
		}
		if _, err := s.pull(t, t.Context(), t.TempDir(), o); err == nil {
			t.Error("no error")
		}
		if ranges, _ := s.asked(); len(ranges) != 1 {
			t.Errorf("%d requests; want 1", len(ranges))
		}
	})
}

// TestFastLine: of a layer that comes fast only the first piece is kept, unless what
// is kept is the file itself; the next pull fetches the rest.
func TestFastLine(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	for kind, kept := range map[string]int64{"archive": mib, "file": 5 * mib} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, o, dir := large(t, size)[kind], ways()["fast"], t.TempDir()
			s.spoil = forbidding(2, func(w http.ResponseWriter, req *http.Request, blob []byte) {
				if req.Header.Get("Range") != "bytes=0-1048575" {
					w = &cutter{w, 4 * mib}
				}
				answer(w, req, blob)
			})
			if _, err := s.pull(t, t.Context(), dir, o); err == nil {
				t.Error("no error")
			}
			last := len(s.layer()) - 1
			want := []string{"bytes=0-1048575", fmt.Sprintf("bytes=1048576-%d", last), fmt.Sprintf("bytes=%d-%d", 5*mib, last)}
			if ranges, _ := s.asked(); !slices.Equal(ranges, want) {
				t.Errorf("ranges %q; want %q", ranges, want)
			}
			s.spoil = nil
			if _, err := s.pull(t, t.Context(), dir, o); err != nil {
				t.Fatal(err)
			}
			s.whole(t, dir)
			if ranges, sent := s.asked(); sent != int64(len(s.layer()))-kept {
				t.Errorf("then %d bytes sent, ranges %q; want all but %d", sent, ranges, kept)
			}
		})
	}
}

// TestSlowLine: a line that ceases to be fast is helped, and what comes from then on
// is kept.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	for kind, s := range large(t, size) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o, dir := ways()["slowing"], t.TempDir()
			o.Concurrency = 1
			last := fmt.Sprintf("bytes=%d-%d", 7*mib, 8*mib-1)
			s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
				if req.Header.Get("Range") == last { // which somebody else than the reader asks for
					w.WriteHeader(http.StatusForbidden)
					return
				}
				answer(w, req, blob)
			}
			if _, err := s.pull(t, t.Context(), dir, o); err == nil {
				t.Error("no error")
			}
			if ranges, _ := s.asked(); !slices.Contains(ranges, last) {
				t.Errorf("ranges %q; want %q among them", ranges, last)
			}
			// A piece is four reads or more: the second may have begun to come while
			// the line was fast, and is fetched again. What the next pulls fetch first
			// is kept, wherever it is.
			if _, err := s.pull(t, t.Context(), dir, o); err == nil {
				t.Error("no error")
			}
			if ranges, sent := s.asked(); sent > mib {
				t.Errorf("then %d bytes sent, ranges %q", sent, ranges)
			}
			s.spoil = nil
			if _, err := s.pull(t, t.Context(), dir, o); err != nil {
				t.Fatal(err)
			}
			s.whole(t, dir)
			if ranges, sent := s.asked(); sent > mib+mib/4 {
				t.Errorf("at last %d bytes sent, ranges %q", sent, ranges)
			}
		})
	}
}

// forbidding answers the first n requests, and refuses those that follow.
func forbidding(n int64, next func(http.ResponseWriter, *http.Request, []byte)) func(http.ResponseWriter, *http.Request, []byte) {
	var count atomic.Int64
	return func(w http.ResponseWriter, req *http.Request, blob []byte) {
		if count.Add(1) > n {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, req, blob)
	}
}

// interrupted pulls into a new directory, and fails when 5 of 8 MiB are there.
func interrupted(t *testing.T, s *shelf, way string, o oci.InstallOptions) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s.spoil = forbidding(1, cutting(1, 5*mib))
	if way == "split" {
		s.spoil = forbidding(5, answer)
	}
	if _, err := s.pull(t, t.Context(), dir, o); err == nil {
		t.Fatal("no error")
	}
	if got := tree(t, dir); len(got) > 0 {
		t.Errorf("installed %q", slices.Collect(maps.Keys(got)))
	}
	s.spoil = nil
	s.asked()
	return dir
}

// TestNextPullContinues what one began that failed.
func TestNextPullContinues(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	eachWay(t, keepingWays(), size, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		dir := interrupted(t, s, way, o)
		if _, err := s.pull(t, t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		s.whole(t, dir)
		rest := int64(len(s.layer())) - 5*mib
		if ranges, sent := s.asked(); sent != rest {
			t.Errorf("%d bytes sent, ranges %q; want %d", sent, ranges, rest)
		}
	})
}

// TestKeptBytesAreNotBelieved: whatever lies where a download is kept, the right
// bytes are installed, and nothing else is touched.
func TestKeptBytesAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]func(t *testing.T, dir, partial string){
		"wrong bytes": func(t *testing.T, _, partial string) { patch(t, partial, 2*mib+7, []byte("wrong")) },
		"wrong counts": func(t *testing.T, _, partial string) {
			patch(t, partial, 8*mib, bytes.Repeat([]byte{0xff}, 8*8))
		},
		"all counted": func(t *testing.T, _, partial string) {
			for i := range int64(8) {
				patch(t, partial, 8*mib+8*i, []byte{0, 0, 16})
			}
		},
		"cut":   func(t *testing.T, _, partial string) { check(t, os.Truncate(partial, 3*mib)) },
		"empty": func(t *testing.T, _, partial string) { check(t, os.Truncate(partial, 0)) },
		"a link": func(t *testing.T, dir, partial string) {
			check(t, os.Remove(partial))
			write(t, dir, "precious", strings.Repeat("x", 8*mib+8*8))
			check(t, os.Symlink("../precious", partial))
		},
		"a directory": func(t *testing.T, dir, partial string) {
			check(t, os.Remove(partial))
			write(t, partial, "x", "x")
		},
	} {
		for way, o := range keepingWays() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				s := newShelf(t, map[string]string{"big.bin": static(8 * mib)})
				dir := interrupted(t, s, way, o)
				forge(t, dir, filepath.Join(dir, oci.PartialName(digest.FromBytes(s.layer()))))
				want := tree(t, dir)
				if _, err := s.pull(t, t.Context(), dir, o); err != nil {
					t.Fatal(err)
				}
				maps.Copy(want, s.files)
				wantTree(t, dir, want)
			})
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patch replaces bytes of a file.
func patch(t testing.TB, name string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt(b, off)
	check(t, errors.Join(err, f.Close()))
}

// TestRangesThatAreNone: registries that serve ranges in other ways than they
// should, or not at all, are read all the same.
func TestRangesThatAreNone(t *testing.T) {
	t.Parallel()
	const size = 8 * mib
	whole := func(w http.ResponseWriter, blob []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
		w.Write(blob)
	}
	wrong := func(header string) func(w http.ResponseWriter, req *http.Request, blob []byte) {
		return func(w http.ResponseWriter, req *http.Request, blob []byte) {
			if req.Header.Get("Range") == "" {
				whole(w, blob)
				return
			}
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(blob[:mib])
		}
	}
	for name, spoil := range map[string]func(w http.ResponseWriter, req *http.Request, blob []byte){
		"ignored": func(w http.ResponseWriter, _ *http.Request, blob []byte) { whole(w, blob) },
		"refused": func(w http.ResponseWriter, req *http.Request, blob []byte) {
			if req.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			whole(w, blob)
		},
		"of another place": wrong("bytes 1-1048576/8388608"),
		"of another size":  wrong("bytes 5242880-6291455/9"),
		"backwards":        wrong("bytes 5242880-5/8388608"),
		"in lines":         wrong("lines 5242880-6291455/8388608"),
		"without a header": wrong(""),
		"in bits": func(w http.ResponseWriter, req *http.Request, blob []byte) { // less than was asked for
			var from, to int
			if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
				whole(w, blob)
				return
			}
			to = min(to, from+300*kib)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", from, to))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(blob[from : to+1])
		},
		"now and then": func() func(w http.ResponseWriter, req *http.Request, blob []byte) {
			var count atomic.Int64
			return func(w http.ResponseWriter, req *http.Request, blob []byte) {
				if count.Add(1)%2 == 0 {
					whole(w, blob)
					return
				}
				answer(w, req, blob)
			}
		}(),
	} {
		for way, o := range ways() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				s := newShelf(t, map[string]string{"big.bin": static(size)})
				var cut atomic.Bool
				s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
					if req.Header.Get("Range") == "" && cut.CompareAndSwap(false, true) {
						w = &cutter{w, 5 * mib} // so that the rest is asked for
					}
					spoil(w, req, blob)
				}
				dir := t.TempDir()
				if _, err := s.pull(t, t.Context(), dir, o); err != nil {
					ranges, _ := s.asked()
					t.Fatalf("%v; ranges %q", err, ranges)
				}
				s.whole(t, dir)
			})
		}
	}
}

// TestWrongBytesAreFetchedOnceMore, and when they are wrong again that is an
// error which names both digests.
func TestWrongBytesAreFetchedOnceMore(t *testing.T) {
	t.Parallel()
	eachWay(t, ways(), 3*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		right := s.layer()
		wrong := bytes.Clone(right)
		wrong[mib+5] ^= 1
		var times atomic.Int64
		spoilt := int64(1)
		s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
			if n := req.Header.Get("Range"); (n == "" || strings.HasPrefix(n, "bytes=1048576-")) && times.Add(1) <= spoilt {
				blob = wrong
			}
			answer(w, req, blob)
		}
		dir := t.TempDir()
		if _, err := s.pull(t, t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		s.whole(t, dir)
		if n := times.Load(); n != 2 {
			t.Errorf("asked %d times for the wrong bytes; want 2", n)
		}

		dir = t.TempDir()
		times.Store(0)
		spoilt = 1 << 40
		_, err := s.pull(t, t.Context(), dir, o)
		corrupt, ok := errors.AsType[*manifest.CorruptError](err)
		if !ok || corrupt.Want != digest.FromBytes(right).String() || corrupt.Got != digest.FromBytes(wrong).String() {
			t.Errorf("%v; want both digests", err)
		}
		if n := times.Load(); n != 2 {
			t.Errorf("asked %d times for the wrong bytes; want 2", n)
		}
		wantTree(t, dir, nil)
	})
}

// TestWrongLengths are cause to ask once more.
func TestWrongLengths(t *testing.T) {
	t.Parallel()
	for way, o := range ways() {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, map[string]string{"big.bin": static(3 * mib)})
			s.spoil = func(w http.ResponseWriter, _ *http.Request, blob []byte) {
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)+1))
				w.Write(append(bytes.Clone(blob), 0))
			}
			dir := t.TempDir()
			_, err := s.pull(t, t.Context(), dir, o)
			if !isCorrupt(err) {
				t.Errorf("%v; want an %v", err, oci.ErrCorrupt)
			}
			if ranges, _ := s.asked(); len(ranges) != 2 && way != "split" {
				t.Errorf("asked for %q", ranges)
			}
			wantTree(t, dir, nil)
		})
	}
}

// TestBodiesOfOtherLengths, which no header tells, are never kept.
func TestBodiesOfOtherLengths(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]func([]byte) []byte{
		"longer": func(blob []byte) []byte { return append(bytes.Clone(blob), 0) },
		"other":  func(blob []byte) []byte { return []byte("upstream timed out") },
	} {
		for way, o := range ways() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				s := newShelf(t, map[string]string{"big.bin": static(3 * mib)})
				s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
					w.Header().Set("Content-Type", "text/plain")
					w.Header().Set("Transfer-Encoding", "chunked")
					w.Write(body(blob))
				}
				dir := t.TempDir()
				if _, err := s.pull(t, t.Context(), dir, o); err == nil {
					t.Error("no error")
				}
				wantTree(t, dir, nil)
				s.spoil = nil
				if _, err := s.pull(t, t.Context(), dir, o); err != nil {
					t.Fatal(err)
				}
				s.whole(t, dir)
				if _, err := os.Stat(filepath.Join(dir, oci.PartialName(digest.FromBytes(s.layer())))); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("kept: %v", err)
				}
			})
		}
	}
}

// isCorrupt reports whether the client says of an error that bytes are not those
// that were promised.
func isCorrupt(err error) bool {
	return errors.Is(new(oci.Client).Explain("pull", installed, err), oci.ErrCorrupt)
}

// TestPagesCostNothing: a proxy's page in place of a range leaves what was kept,
// whether it says how long it is or not.
func TestPagesCostNothing(t *testing.T) {
	t.Parallel()
	const page = "<html>no room upstream</html>"
	for said, length := range map[string]string{fmt.Sprintf("%d bytes", len(page)): strconv.Itoa(len(page)), "a page": ""} {
		t.Run(said, func(t *testing.T) {
			t.Parallel()
			eachWay(t, keepingWays(), 8*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
				pages := func(n int64) func(http.ResponseWriter, *http.Request, []byte) {
					var count atomic.Int64
					return func(w http.ResponseWriter, req *http.Request, blob []byte) {
						if count.Add(1) > n {
							answer(w, req, blob)
							return
						}
						w.Header().Set("Content-Type", "text/html")
						if length != "" {
							w.Header().Set("Content-Length", length)
						} else {
							w.Header().Set("Transfer-Encoding", "chunked")
						}
						io.WriteString(w, page)
					}
				}
				dir := interrupted(t, s, way, o)
				s.spoil = pages(2)
				_, err := s.pull(t, t.Context(), dir, o)
				size := len(s.layer())
				want := fmt.Sprintf("answers with %s of text/html instead of the %d bytes of layer ", said, size)
				if err == nil || !strings.Contains(err.Error(), want) || !isCorrupt(err) {
					t.Errorf("%v; want an %v: %s", err, oci.ErrCorrupt, want)
				}
				if ranges, _ := s.asked(); len(ranges) != 2 {
					t.Errorf("asked for %q; want two", ranges)
				}
				s.spoil = pages(1)
				var told string
				o.Progress = func(e oci.Event) {
					if e.Kind == oci.Retried {
						told = e.Reason
					}
				}
				if _, err := s.pull(t, t.Context(), dir, o); err != nil {
					t.Fatal(err)
				}
				s.whole(t, dir)
				if ranges, sent := s.asked(); sent != int64(size-5*mib+len(page)) {
					t.Errorf("%d bytes sent, ranges %q; want the page and what was not there", sent, ranges)
				}
				if !strings.HasPrefix(told, s.host+" answers with ") {
					t.Errorf("told %q", told)
				}
			})
		})
	}
}

// TestConcurrency counts the requests that run at once: as many as are allowed,
// over all layers, of which each byte is sent once.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			const size = 6*mib + 5
			s := newShelf(t, map[string]string{"a.bin": static(size), "b.bin": static(size + 1), "c.bin": static(size + 2), "small": "x"})
			// The first requests are answered when as many run as may; four
			// layers begin at once.
			first := min(n, 4)
			var running sync.WaitGroup
			running.Add(first)
			var count atomic.Int64
			s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
				if count.Add(1) <= int64(first) {
					running.Done()
					running.Wait()
				}
				answer(w, req, blob)
			}
			dir := t.TempDir()
			o := ways()["split"]
			o.Concurrency = n
			if _, err := s.pull(t, t.Context(), dir, o); err != nil {
				t.Fatal(err)
			}
			s.whole(t, dir)
			s.mu.Lock()
			peak := s.peak
			s.mu.Unlock()
			if peak > n || peak < first {
				t.Errorf("%d requests at once; want %d", peak, n)
			}
			ranges, sent := s.asked()
			if want := int64(3*size + 3 + 1); len(ranges) != 3*7+1 || sent != want {
				t.Errorf("%d requests, %d bytes; want %d and %d", len(ranges), sent, 3*7+1, want)
			}
		})
	}
}

// TestLayersTogether: the requests for all layers are under way before the first
// is answered, and for each there is one.
func TestLayersTogether(t *testing.T) {
	t.Parallel()
	s := newShelf(t, map[string]string{"models/part.bin": "model", "data/a.json": "{}", "data/b.json": "[]"})
	var all sync.WaitGroup
	all.Add(3)
	s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
		all.Done()
		all.Wait()
		answer(w, req, blob)
	}
	dir := t.TempDir()
	if _, err := s.pull(t, t.Context(), dir, oci.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	s.whole(t, dir)
}

// TestRedirects go to a storage elsewhere, as ranges, and without credentials.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for way, o := range ways() {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, map[string]string{"big.bin": static(3 * mib)})
			var ranges, secrets atomic.Int64
			storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Range") != "" {
					ranges.Add(1)
				}
				if req.Header.Get("Authorization") != "" || req.Header.Get("Cookie") != "" || req.URL.User != nil {
					secrets.Add(1)
				}
				answer(w, req, s.layer())
			}))
			defer storage.Close()
			var open atomic.Int64
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if user, password, _ := req.BasicAuth(); user != "ada" || password != "secret" {
					w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				if strings.Contains(req.URL.Path, "/blobs/") {
					open.Add(1)
					http.Redirect(w, req, storage.URL+"/bucket?signature=x", http.StatusTemporaryRedirect)
					return
				}
				s.ServeHTTP(w, req)
			}))
			defer registry.Close()
			host := strings.TrimPrefix(registry.URL, "http://")
			config := t.TempDir()
			write(t, config, "config.json", `{"auths":{"`+host+`":{"username":"ada","password":"secret"}}}`)
			c, err := oci.NewClient(oci.Options{RegistryConfig: []string{filepath.Join(config, "config.json")}})
			check(t, err)
			ref, err := oci.ParseReference(host + "/m:v1")
			check(t, err)
			target, err := c.Open(t.Context(), ref)
			check(t, err)
			dir := t.TempDir()
			o.Unsafe = true
			_, err = oci.Pull(t.Context(), target, ref, dir, o)
			check(t, err)
			s.whole(t, dir)
			if n := secrets.Load(); n > 0 {
				t.Errorf("the storage saw credentials %d times", n)
			}
			want := map[string]int64{"streamed": 0, "kept": 0, "split": 3, "fast": 2, "slowing": 3}[way]
			if got := ranges.Load(); got != want || open.Load() < max(want, 1) {
				t.Errorf("%d requests of ranges in the storage, %d of the registry; want %d", got, open.Load(), want)
			}
		})
	}
}

// TestPartialsGo when they are of no use any more.
func TestPartialsGo(t *testing.T) {
	t.Parallel()
	o := keepingWays()["kept"]
	s := newShelf(t, map[string]string{"big.bin": static(8 * mib)})
	other := newShelf(t, map[string]string{"other.bin": static(kib)})
	partial := func(dir string) bool {
		_, err := os.Lstat(filepath.Join(dir, oci.PartialName(digest.FromBytes(s.layer()))))
		return err == nil
	}

	dir := interrupted(t, s, "kept", o)
	if !partial(dir) {
		t.Fatal("nothing was kept")
	}
	if _, err := other.pull(t, t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	if partial(dir) {
		t.Error("kept although something else was installed")
	}

	for age, want := range map[time.Duration]bool{6 * 24 * time.Hour: true, 8 * 24 * time.Hour: false, -time.Hour: true} {
		dir := interrupted(t, s, "kept", o)
		then := time.Now().Add(-age)
		check(t, os.Chtimes(filepath.Join(dir, oci.PartialName(digest.FromBytes(s.layer()))), then, then))
		w, err := oci.OpenWorkdir(t.Context(), dir)
		check(t, err)
		check(t, w.Close())
		if got := partial(dir); got != want {
			t.Errorf("after %v: kept %v; want %v", age, got, want)
		}
	}
}

// TestPullsAtOnce: the second pull into a directory says that it waits, and then
// finds everything there.
func TestPullsAtOnce(t *testing.T) {
	t.Parallel()
	s := newShelf(t, map[string]string{"models/part.bin": "model", "data/a.json": "{}"})
	waits := make(chan struct{})
	s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
		<-waits
		answer(w, req, blob)
	}
	dir := t.TempDir()
	type result struct {
		done oci.Installed
		err  error
	}
	results := make(chan result)
	waiting := sync.OnceFunc(func() { close(waits) })
	for range 2 {
		go func() {
			done, err := s.pull(t, t.Context(), dir, oci.InstallOptions{Waiting: waiting})
			results <- result{done, err}
		}()
	}
	var written []int
	for range 2 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		}
		written = append(written, len(r.done.Written))
	}
	slices.Sort(written)
	if ranges, _ := s.asked(); !slices.Equal(written, []int{0, 2}) || len(ranges) != 2 {
		t.Errorf("%v files written, %d requests for blobs", written, len(ranges))
	}
	s.whole(t, dir)
}

// TestProgressCountsWhatComes over the network, and nothing else.
func TestProgressCountsWhatComes(t *testing.T) {
	t.Parallel()
	eachWay(t, keepingWays(), 8*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		dir := interrupted(t, s, way, o)
		var moved atomic.Int64
		o.Progress = func(e oci.Event) {
			if e.Kind == oci.Moved {
				moved.Add(e.Bytes)
			}
		}
		if _, err := s.pull(t, t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		if _, sent := s.asked(); moved.Load() != sent {
			t.Errorf("told of %d bytes; %d came", moved.Load(), sent)
		}
	})
}

// TestPullStops with its context, whatever it waits for, and what came is kept.
func TestPullStops(t *testing.T) {
	t.Parallel()
	eachWay(t, ways(), 8*mib, func(t *testing.T, s *shelf, way string, o oci.InstallOptions) {
		ctx, cancel := context.WithCancel(t.Context())
		s.spoil = func(w http.ResponseWriter, req *http.Request, blob []byte) {
			cancel()
			<-req.Context().Done()
		}
		dir := t.TempDir()
		if _, err := s.pull(t, ctx, dir, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%v; want %v", err, context.Canceled)
		}
		if got := tree(t, dir); len(got) > 0 {
			t.Errorf("installed %q", slices.Collect(maps.Keys(got)))
		}
	})
}

func BenchmarkPull(b *testing.B) {
	const size = 64 * mib
	for kind, s := range large(b, size) {
		for way, o := range ways() {
			b.Run(way+" "+kind, func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.pull(b, b.Context(), b.TempDir(), o); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
