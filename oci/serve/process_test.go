package serve_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"

	"galley/oci/layout"
	"galley/oci/ocitest"
	"galley/oci/serve"
)

// The test binary is its own server: with serveDir set it serves that
// directory until it is killed.
const serveDir = "SERVE_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(serveDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	l, err := serve.Listen(ctx, "127.0.0.1:0", serve.Options{})
	if err == nil {
		fmt.Printf("http://%s\n", l.Addr())
		err = serve.Run(ctx, l, serve.New(dir, serve.Options{}), nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// startServer starts a server and returns its address.
func startServer(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), serveDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// pushTag pushes a manifest with a layer of its own over HTTP, in the requests
// that docker and oras make, and tags it.
func pushTag(ctx context.Context, url, repo, tag string) error {
	layer := ocitest.NewBlob("application/x-layer", strings.Repeat(tag, 5000))
	m := ocitest.NewManifest(tag, layer)
	for i, b := range []ocitest.Blob{layer, ocitest.NewBlob(v1.MediaTypeEmptyJSON, "{}")} {
		resp, err := send(ctx, "POST", url+"/v2/"+repo+"/blobs/uploads/", nil, "", 202)
		if err != nil {
			return err
		}
		at := url + resp.Header.Get("Location")
		data := b.Data
		if i == 0 {
			if _, err := send(ctx, "PATCH", at, data, "", 202); err != nil {
				return err
			}
			data = nil
		}
		if _, err := send(ctx, "PUT", at+"?digest="+b.Digest.String(), data, "", 201); err != nil {
			return err
		}
	}
	_, err := send(ctx, "PUT", url+"/v2/"+repo+"/manifests/"+tag, m.Data, m.MediaType, 201)
	return err
}

func send(ctx context.Context, method, url string, data []byte, mediaType string, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(string(data)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = &statusError{fmt.Sprintf("%s %s = %d %s; want %d", method, url, resp.StatusCode, body, want)}
	}
	return resp, err
}

// statusError is an answer that a working server does not give.
type statusError struct{ text string }

func (e *statusError) Error() string { return e.text }

// checkTags checks that the tags are in the layout, each with its whole graph.
func checkTags(t *testing.T, dir string, want []string) {
	t.Helper()
	s, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := registry.Tags(t.Context(), s)
	if err != nil || len(got) < len(want) {
		t.Fatalf("%d tags, %v; %d were acknowledged", len(got), err, len(want))
	}
	for _, tag := range want {
		d, err := s.Resolve(t.Context(), tag)
		if err != nil {
			t.Fatalf("tag %s is lost: %v", tag, err)
		}
		all, err := content.Successors(t.Context(), s, d)
		if err != nil || len(all) != 2 {
			t.Fatalf("tag %s: %d blobs, %v", tag, len(all), err)
		}
		for _, d := range append(all, d) {
			if _, err := content.FetchAll(t.Context(), s, d); err != nil {
				t.Fatalf("tag %s: %v", tag, err)
			}
		}
	}
}

func TestTwoServers(t *testing.T) {
	t.Parallel()
	const clients, tags = 8, 25
	dir := t.TempDir()
	var urls []string
	for range 2 {
		_, url := startServer(t, dir)
		urls = append(urls, url)
	}
	var want []string
	g, ctx := errgroup.WithContext(t.Context())
	for c := range clients {
		for i := range tags {
			want = append(want, fmt.Sprintf("c%d-%d", c, i))
		}
		g.Go(func() error {
			for i := range tags {
				if err := pushTag(ctx, urls[(c+i)%2], "r", fmt.Sprintf("c%d-%d", c, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	checkTags(t, filepath.Join(dir, "r", "_oci"), want)
}

// A server is killed at any moment of four clients' pushes. What it had
// answered 201 is there, and the next one takes the directory as it is.
func TestKills(t *testing.T) {
	t.Parallel()
	kills := 200
	if testing.Short() {
		kills = 60
	}
	dir := t.TempDir()
	var mu sync.Mutex
	var acknowledged []string
	for n := range kills {
		server, url := startServer(t, dir)
		first := make(chan struct{}, 8) // two of each client
		var clients sync.WaitGroup
		for c := range 4 {
			clients.Go(func() {
				for i := 0; ; i++ {
					tag := fmt.Sprintf("k%d-%d-%d", n, c, i)
					err := pushTag(t.Context(), url, "r", tag)
					if wrong, ok := errors.AsType[*statusError](err); ok {
						t.Error(wrong)
					}
					if err != nil {
						first <- struct{}{}
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, tag)
					mu.Unlock()
					if i == 0 {
						first <- struct{}{}
					}
				}
			})
		}
		// The load is on once a tag was acknowledged, and the pause puts the kill
		// anywhere in what comes next.
		<-first
		time.Sleep(rand.N(10 * time.Millisecond))
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		server.Wait()
		clients.Wait()
		http.DefaultClient.CloseIdleConnections()
	}
	if len(acknowledged) < kills {
		t.Errorf("%d tags in %d rounds: no load", len(acknowledged), kills)
	}
	checkTags(t, filepath.Join(dir, "r", "_oci"), acknowledged)
	_, url := startServer(t, dir)
	if err := pushTag(t.Context(), url, "r", "after"); err != nil {
		t.Error(err)
	}
}

// Blobs that nothing refers to are freed while clients push; no push suffers.
func TestGCBesidePushes(t *testing.T) {
	t.Parallel()
	s := newSite(t, serve.Options{})
	s.pushBlob("r", "{}")
	old := s.pushBlob("r", "nobody wants this")
	day := time.Now().Add(-24 * time.Hour)
	for _, d := range []digest.Digest{old, digest.FromString("{}")} { // the second is about to be wanted
		if err := os.Chtimes(s.blobFile("r", d), day, day); err != nil {
			t.Fatal(err)
		}
	}
	store, err := layout.Open(filepath.Join(s.dir, "r", "_oci"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	done := make(chan error, 1)
	go func() {
		defer close(done)
		for i := range 30 {
			if err := pushTag(t.Context(), s.url, "r", fmt.Sprint("t", i)); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 30 {
		want = append(want, fmt.Sprint("t", i))
	}
	var freed []v1.Descriptor
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		f, err := store.GC(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		freed = append(freed, f...)
	}
	checkTags(t, store.Dir(), want)
	s.want(404, "HEAD", "/v2/r/blobs/"+old.String(), "")
	if len(freed) == 0 || len(freed) > 2 {
		t.Errorf("freed %v", freed)
	}
}
