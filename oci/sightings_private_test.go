//go:build linux || darwin

package oci

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSightingsOfOthers holds that nobody else can call a file harmless.
func TestSightingsOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, filepath.FromSlash(sightingsFile))
	if err := os.Mkdir(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(`{"model.joblib": {"harmless": "x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for mode, believed := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o664: false, 0o666: false} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if s := loadSightings(root, InstallOptions{}); (len(s.loaded) > 0) != believed {
			t.Errorf("mode %o: %d sightings", mode, len(s.loaded))
		}
	}
	if os.Geteuid() != 0 {
		return // only root can give files away
	}
	if err := os.Chown(name, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if s := loadSightings(root, InstallOptions{}); len(s.loaded) > 0 {
		t.Error("what another user wrote is believed")
	}
}
