package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"galley/oci"
)

// slowRead is the size in bytes from which hashing a file takes long enough to
// be shown.
const slowRead = 64 << 20

// reading tells progress of files that are being hashed.
func reading(progress oci.Progress) func(path string, size int64, n int) {
	if progress == nil {
		return nil
	}
	var mu sync.Mutex
	started := make(map[string]oci.Event)
	return func(path string, size int64, n int) {
		if size < slowRead {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		e, ok := started[path]
		if !ok {
			e = oci.Event{Descriptor: v1.Descriptor{Digest: digest.FromString(path), Size: size}, Name: "read " + path}
			e.Kind = oci.Started
			started[path] = e
			progress(e)
		}
		e.Kind, e.Bytes = oci.Moved, int64(n)
		progress(e)
	}
}

// heartbeat is how often a transfer without a terminal says that it lives, so
// that a CI log never looks hung.
const heartbeat = 5 * time.Second

// progress returns what shows a transfer, and a function that ends the show.
func (a *app) progress() (oci.Progress, func()) {
	switch {
	case a.flags.quiet:
		return nil, func() {}
	case isTerminal(a.err) && !a.flags.noTTY:
		return a.bars()
	}
	return a.lines()
}

// bars shows one bar a layer.
func (a *app) bars() (oci.Progress, func()) {
	p := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	var mu sync.Mutex
	bars := make(map[digest.Digest]*mpb.Bar)
	progress := func(e oci.Event) {
		if e.Name == "" {
			return // config and manifest: a few hundred bytes
		}
		mu.Lock()
		defer mu.Unlock()
		switch e.Kind {
		case oci.Started:
			bars[e.Descriptor.Digest] = p.AddBar(e.Descriptor.Size,
				mpb.PrependDecorators(decor.Name(printable(e.Name), decor.WCSyncSpaceR)),
				mpb.AppendDecorators(
					decor.Any(func(s decor.Statistics) string { return bytesText(s.Current) + " / " + bytesText(s.Total) }, decor.WCSyncSpace),
					decor.AverageSpeed(decor.SizeB1000(0), "% .1f", decor.WCSyncSpace)))
		case oci.Moved:
			if b := bars[e.Descriptor.Digest]; b != nil {
				b.IncrInt64(e.Bytes)
			}
		case oci.Skipped, oci.Mounted:
			p.AddBar(0, mpb.BarFillerClearOnComplete(),
				mpb.PrependDecorators(decor.Name(printable(e.Name), decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.Name(how[e.Kind]))).SetTotal(0, true)
		}
	}
	return progress, func() {
		mu.Lock()
		for _, b := range bars {
			if !b.Completed() {
				b.Abort(false)
			}
		}
		mu.Unlock()
		p.Wait()
	}
}

var how = map[oci.EventKind]string{oci.Skipped: "already there", oci.Mounted: "mounted"}

// lines says on a plain stream how far a long transfer is, every few seconds.
func (a *app) lines() (oci.Progress, func()) {
	var mu sync.Mutex
	var moved, total int64
	start := time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(heartbeat)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				mu.Lock()
				m, n := moved, total
				mu.Unlock()
				rate := float64(m) / time.Since(start).Seconds()
				fmt.Fprintf(a.err, "%s of %s, %s/s\n", bytesText(m), bytesText(n), bytesText(int64(rate)))
			}
		}
	})
	progress := func(e oci.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Kind {
		case oci.Started:
			total += e.Descriptor.Size
		case oci.Moved:
			moved += e.Bytes
		}
	}
	return progress, func() { close(stop); wg.Wait() }
}
