package oci

import (
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
