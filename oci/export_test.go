package oci

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
)

// InterruptCommit runs an install up to its journal and stops there.
func InterruptCommit(t testing.TB, dir string, src manifest.Fetcher, a *manifest.Artifact) {
	t.Helper()
	w, err := OpenWorkdir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	i := newInstaller(w, src, a, InstallOptions{})
	j, err := i.prepare(t.Context(), Reference{Kind: Registry, Registry: "example.com", Repository: "ml/fraud"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.writeState(journalFile, j); err != nil {
		t.Fatal(err)
	}
}

// SetSizes makes blobs large, and huge, that are not.
func SetSizes(c *Client, large, huge int64) { c.large, c.huge = large, huge }

// SetAhead has layers sent while they are packed whose files are larger.
func SetAhead(c *Client, size int64) { c.ahead = size }

// SetDial has the client connect by another way.
func SetDial(c *Client, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	t := c.http.Transport.(*transport).base.(stallGuard).base.(*http.Transport)
	t.DialContext = dial
	return t
}

// Tune is o with downloads kept and split from these sizes on, in pieces of
// that size, over lines that are slow, and without waiting between attempts.
func Tune(o InstallOptions, keepFrom, splitFrom, pieceSize int64) InstallOptions {
	t := *o.tuning()
	t.keepFrom, t.splitFrom, t.pieceSize, t.pieceTime = keepFrom, splitFrom, pieceSize, 0
	t.pause = func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }
	o.tuned = &t
	return o
}

// Fast is o, as [Tune] returns it, over lines that are fast for so many reads each,
// and then slow.
func Fast(o InstallOptions, reads int64) InstallOptions {
	t := *o.tuning()
	t.pieceTime = time.Microsecond
	start := time.Now()
	var asked atomic.Int64
	t.now = func() time.Time { return start.Add(time.Microsecond * time.Duration(max(0, asked.Add(1)-2*reads))) }
	o.tuned = &t
	return o
}

// At is o with a clock that shows the present and ahead.
func At(o InstallOptions, ahead time.Duration) InstallOptions {
	t := *o.tuning()
	t.now = func() time.Time { return time.Now().Add(ahead) }
	o.tuned = &t
	return o
}

// The files of a working directory that tests look into.
const SightingsFile = sightingsFile

// PartialName is where a blob is kept while it is downloaded.
func PartialName(d digest.Digest) string { return partialName(d) }

// Identity is what the system tells of a file that cannot be set.
func Identity(t testing.TB, info fs.FileInfo) string {
	t.Helper()
	id, _, ok := inode(info)
	if !ok {
		t.Fatal("this system tells nothing")
	}
	return id
}
