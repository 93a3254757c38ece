package oci

import (
	"context"
	"net"
	"net/http"
	"testing"

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

// SetDial has the client connect by another way.
func SetDial(c *Client, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	t := c.http.Transport.(*transport).base.(stallGuard).base.(*http.Transport)
	t.DialContext = dial
	return t
}
