package oci

import (
	"context"
	"io"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// Progress is told what a transfer does, from several goroutines at once. It
// must return quickly. A nil Progress is told nothing.
type Progress func(Event)

// Event is one step of a transfer.
type Event struct {
	Kind       EventKind
	Descriptor v1.Descriptor
	Name       string // what people call it: a layer's title, or empty
	Bytes      int64  // of a Moved event: bytes since the last one; of a Resumed event: see there

	// Of a Retried event: why, in words for a terminal, and how long the
	// transfer waits before it tries again. Of a Resumed event: when its first
	// Bytes were sent, if nothing was cut.
	Reason string
	Wait   time.Duration
}

// EventKind says what happened to the event's descriptor.
type EventKind int

// The kinds of events. A descriptor is either Skipped or Mounted, or Started,
// Moved any number of times, and Done unless the transfer fails. In between it
// may be Retried and Resumed.
const (
	Started EventKind = iota
	Moved
	Done
	Skipped // the target had it
	Mounted // the registry took it from another of its repositories
	Resumed // it goes on after its first Bytes, whatever moved before: 0 is the beginning
	Ahead   // Bytes more of what has only a name were sent while it is packed: its descriptor is not known yet
	Retried // something failed that may succeed the next time; without descriptor where it concerns all
)

func (p Progress) emit(e Event) {
	if p != nil {
		p(e)
	}
}

// reader reports what is read from r, and stops with ctx.
func (p Progress) reader(ctx context.Context, r io.Reader, d v1.Descriptor, name string) io.Reader {
	return &progressReader{manifest.ContextReader(ctx, r), p, d, name}
}

type progressReader struct {
	r    io.Reader
	p    Progress
	d    v1.Descriptor
	name string
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if n > 0 {
		r.p.emit(Event{Kind: Moved, Descriptor: r.d, Name: r.name, Bytes: int64(n)})
	}
	return n, err
}

// cmpOr is v, or or if v is not positive.
func cmpOr(v, or int) int {
	if v > 0 {
		return v
	}
	return or
}
