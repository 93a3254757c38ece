//go:build unix

package layout_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"galley/oci/layout"
)

// A named pipe is refused, and not waited for.
func TestNamedPipes(t *testing.T) {
	t.Parallel()
	a, data := manifest("a")
	for _, name := range []string{"oci-layout", "index.json", "blobs/sha256/" + a.Digest.Encoded(), ".galley-layout/lock"} {
		s := open(t, `{"manifests":[]}`, data)
		pushTagged(t, s, "a", "v1")
		name = filepath.Join(s.Dir(), filepath.FromSlash(name))
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(name, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := s.Tag(t.Context(), a, "v2"); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := layout.Open(s.Dir()); (err != nil) != (filepath.Base(name) == "oci-layout") {
			t.Errorf("%s: Open: got error %v", name, err)
		}
	}
}
