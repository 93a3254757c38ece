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

// progress returns what shows a transfer with the host, which is "" where there is
// none or it is any of several, and a function that ends the show.
func (a *app) progress(host string) (oci.Progress, func()) {
	switch {
	case a.flags.quiet:
		return nil, func() {}
	case isTerminal(a.err) && !a.flags.noTTY:
		return a.bars()
	}
	return a.lines(host)
}

// retried tells of what is tried again, and why, while it waits. Transfers that
// a registry refuses or loses together are one line.
func (a *app) retried(e oci.Event) {
	if e.Kind != oci.Retried {
		return
	}
	now := time.Now()
	a.last.Lock()
	again := a.last.reason == e.Reason && now.Sub(a.last.at) < firstRetries
	if !again {
		a.last.reason, a.last.at = e.Reason, now
	}
	a.last.Unlock()
	if !again {
		a.say("%s; again %s", printable(e.Reason), waitText(e.Wait))
	}
}

// firstRetries is shorter than the first wait of a transfer.
const firstRetries = 200 * time.Millisecond

// resumed tells of what goes on where it was cut, in this run or another.
func (a *app) resumed(e oci.Event) {
	switch {
	case e.Kind != oci.Resumed || e.Bytes == 0 || e.Name == "":
	case e.Reason != "":
		a.say("%s of %s %s", bytesText(e.Bytes), printable(e.Name), printable(e.Reason))
	default:
		a.say("resumed %s at %s", printable(e.Name), bytesText(e.Bytes))
	}
}

// say is note while bars may be there.
func (a *app) say(format string, args ...any) {
	if p := a.shown.Load(); p != nil {
		fmt.Fprintf(p, format+"\n", args...)
		return
	}
	a.note(format, args...)
}

// waitText says when.
func waitText(d time.Duration) string {
	if d == 0 {
		return "at once"
	}
	if d < 10*time.Second {
		return fmt.Sprintf("in %.1f s", d.Seconds())
	}
	return fmt.Sprintf("in %.0f s", d.Seconds())
}

// meter says how far a transfer is. What moved twice counts once in where it
// is, and what an earlier run moved not in how fast it is.
type meter struct {
	mu         sync.Mutex
	start      time.Time
	moved      int64 // bytes, of this run
	done, size int64
	ahead      int64 // bytes that were sent while they were read
}

func (m *meter) add(e oci.Event, done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.start.IsZero() {
		m.start = time.Now()
	}
	switch e.Kind {
	case oci.Started:
		m.size += e.Descriptor.Size
	case oci.Moved:
		m.moved += e.Bytes
		m.done += e.Bytes
	case oci.Resumed:
		m.done += e.Bytes - done
	case oci.Ahead:
		m.ahead += e.Bytes
	}
}

// begun reports whether it is known of anything that it has to move.
func (m *meter) begun() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size > 0
}

// String is "52 MB of 180 MB, 12 MB/s, 11s left", with "50 MB sent" at its end
// where what is read is sent at once.
func (m *meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := bytesText(m.ahead) + " sent"
	switch {
	case m.ahead == 0:
		return m.place()
	case m.size == 0:
		return sent
	}
	return m.place() + ", " + sent
}

func (m *meter) place() string {
	s := fmt.Sprintf("%s of %s", bytesText(m.done), bytesText(m.size))
	seconds := time.Since(m.start).Seconds()
	if m.moved == 0 || seconds <= 0 {
		return s
	}
	rate := float64(m.moved) / seconds
	s += fmt.Sprintf(", %s/s", bytesText(int64(rate)))
	if left := float64(m.size-m.done) / rate; left >= 1 {
		s += fmt.Sprintf(", %v left", time.Duration(left)*time.Second)
	}
	return s
}

// places are how far each blob is.
type places map[digest.Digest]int64

// add follows an event, and returns how far its blob was before.
func (p places) add(e oci.Event) int64 {
	before := p[e.Descriptor.Digest]
	switch e.Kind {
	case oci.Moved:
		p[e.Descriptor.Digest] = before + e.Bytes
	case oci.Resumed:
		p[e.Descriptor.Digest] = e.Bytes
	}
	return before
}

// bars shows one bar a layer.
func (a *app) bars() (oci.Progress, func()) {
	p := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond), mpb.WithAutoRefresh())
	a.shown.Store(p)
	type bar struct {
		*mpb.Bar
		meter *meter
	}
	var mu sync.Mutex
	bars, at, over := make(map[digest.Digest]bar), places{}, false
	progress := func(e oci.Event) {
		a.retried(e)
		a.resumed(e)
		if e.Name == "" {
			return // config and manifest: a few hundred bytes
		}
		mu.Lock()
		defer mu.Unlock()
		if over {
			return // the end of what is sent ahead
		}
		before := at.add(e)
		b, ok := bars[e.Descriptor.Digest]
		add := func() bar {
			m := &meter{}
			b := bar{p.AddBar(0, // so that it is not over with the last byte: that may have to be sent again
				mpb.PrependDecorators(decor.Name(printable(e.Name), decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return m.String() }, decor.WCSyncSpaceR))), m}
			bars[e.Descriptor.Digest] = b
			return b
		}
		switch e.Kind {
		case oci.Started:
			b := add()
			b.meter.add(e, 0)
			b.SetTotal(e.Descriptor.Size, false)
		case oci.Ahead:
			if !ok {
				b = add()
			}
			b.meter.add(e, 0)
		case oci.Moved, oci.Resumed:
			if ok {
				b.meter.add(e, before)
				b.SetCurrent(at[e.Descriptor.Digest])
			}
		case oci.Done:
			if ok {
				b.SetTotal(-1, true)
			}
		case oci.Skipped, oci.Mounted:
			p.AddBar(0, mpb.BarFillerClearOnComplete(),
				mpb.PrependDecorators(decor.Name(printable(e.Name), decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.Name(how[e.Kind]))).SetTotal(0, true)
		}
	}
	return progress, func() {
		a.shown.Store(nil)
		mu.Lock()
		over = true
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

// lines says on a plain stream how far a long transfer is, every few seconds. As
// long as there is nothing to move it says what it waits for.
func (a *app) lines(host string) (oci.Progress, func()) {
	var mu sync.Mutex
	m, at := &meter{}, places{}
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
				if m.begun() {
					a.note("%s", m)
				} else if host != "" {
					a.note("waiting for %s", host)
				}
			}
		}
	})
	progress := func(e oci.Event) {
		a.retried(e)
		a.resumed(e)
		mu.Lock()
		before := at.add(e)
		mu.Unlock()
		m.add(e, before)
	}
	return progress, func() { close(stop); wg.Wait() }
}
