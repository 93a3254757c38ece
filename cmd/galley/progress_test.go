package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/oci"
)

func layer(name string, size int64) func(kind oci.EventKind, bytes int64) oci.Event {
	d := v1.Descriptor{Digest: digest.FromString(name), Size: size}
	return func(kind oci.EventKind, bytes int64) oci.Event {
		return oci.Event{Kind: kind, Descriptor: d, Name: name, Bytes: bytes}
	}
}

// stream is a stderr to which several write.
type stream struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what came since the last call.
func (s *stream) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// TestHeartbeat plays a transfer of a minute that is cut, and one that an
// earlier run began.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out stream
		a := &app{err: &out}
		progress, stop := a.lines("r.test")
		model, config := layer("models", 100e6), layer("", 500)
		said := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := strings.TrimSpace(out.take()); got != strings.Join(want, "\n") {
				t.Errorf("said\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		}
		progress(config(oci.Started, 0))
		progress(config(oci.Moved, 500))
		progress(model(oci.Started, 0))
		for range 4 {
			time.Sleep(time.Second)
			progress(model(oci.Moved, 10e6))
		}
		time.Sleep(time.Second + time.Millisecond)
		said("40 MB of 100 MB, 8.0 MB/s, 7s left")

		// A retry, and on from where the registry is.
		e := model(oci.Retried, 0)
		e.Reason, e.Wait = "r.test cut the connection\x1b[31m", 1500*time.Millisecond
		progress(e)
		time.Sleep(1500 * time.Millisecond)
		progress(model(oci.Resumed, 25e6))
		said("r.test cut the connection[31m; again in 1.5 s", "resumed models at 25 MB")
		time.Sleep(3500 * time.Millisecond)
		said("25 MB of 100 MB, 4.0 MB/s, 18s left")
		progress(model(oci.Moved, 75e6))
		time.Sleep(5 * time.Second)
		said("100 MB of 100 MB, 7.7 MB/s")
		progress(model(oci.Resumed, 0)) // from the beginning, in silence
		time.Sleep(5 * time.Second)
		said("500 B of 100 MB, 5.8 MB/s, 17s left")
		progress(model(oci.Moved, 100e6))
		progress(model(oci.Done, 0))
		stop()

		// What an earlier run moved is no speed of this one.
		progress, stop = a.lines("r.test")
		progress(model(oci.Started, 0))
		progress(model(oci.Resumed, 90e6))
		time.Sleep(time.Second)
		progress(model(oci.Moved, 1e6))
		time.Sleep(4*time.Second + time.Millisecond)
		said("resumed models at 90 MB", "91 MB of 100 MB, 200 kB/s, 45s left")
		stop()

		// What is sent while it is read is no more to be done, and then none at all.
		progress, stop = a.lines("r.test")
		read := reading(progress)
		read("models/model.joblib", 400e6, 50e6)
		progress(oci.Event{Kind: oci.Ahead, Name: "models", Bytes: 40e6})
		time.Sleep(5*time.Second + time.Millisecond)
		said("50 MB of 400 MB, 10 MB/s, 35s left, 40 MB sent")
		stop()
		progress, stop = a.lines("r.test")
		progress(model(oci.Started, 0))
		e = model(oci.Resumed, 100e6)
		e.Reason = "sent while it was packed"
		progress(e)
		time.Sleep(5*time.Second + time.Millisecond)
		said("100 MB of models sent while it was packed", "100 MB of 100 MB")
		stop()

		// And what is there already moves nothing, and what has not begun.
		for _, host := range []string{"r.test", ""} {
			progress, stop = a.lines(host)
			progress(model(oci.Skipped, 0))
			time.Sleep(6 * time.Second)
			if host != "" {
				said("waiting for r.test")
			} else {
				said()
			}
			progress(model(oci.Started, 0))
			time.Sleep(5 * time.Second)
			said("0 B of 100 MB")
			stop()
		}
	})
}

// TestQuietProgress says nothing.
func TestQuietProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{err: &out, flags: sharedFlags{quiet: true}}
	progress, stop := a.progress("r.test")
	a.retried(oci.Event{Kind: oci.Retried, Reason: "r.test answered 503"})
	stop()
	if progress != nil || out.Len() > 0 {
		t.Errorf("said %q", out.String())
	}
}

// TestBars shows bars as a terminal gets them.
func TestBars(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{err: &out}
	progress, stop := a.bars()
	model, features, summary := layer("models", 1000), layer("features.json", 10), layer("summary.json", 20)
	progress(model(oci.Started, 0))
	progress(model(oci.Moved, 1000))
	e := model(oci.Retried, 0)
	e.Reason, e.Wait = "r.test answered 503", 2*time.Second
	progress(e)
	progress(model(oci.Resumed, 400))
	progress(features(oci.Skipped, 0))
	progress(summary(oci.Mounted, 0))
	progress(model(oci.Moved, 600))
	progress(model(oci.Done, 0))
	stop()
	for _, want := range []string{"r.test answered 503; again in 2.0 s", "resumed models at 400 B", "features.json", "already there", "mounted", "1.0 kB of 1.0 kB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal got %q; want %q in it", out.String(), want)
		}
	}
}
