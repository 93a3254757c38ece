package oci_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"galley/oci"
	"galley/oci/ocitest"
)

// TestTargets runs the suite over every kind of target. GALLEY_TEST_REGISTRY
// names a further registry, HOST:PORT, that the end-to-end tests start.
func TestTargets(t *testing.T) {
	client := func(t *testing.T) *oci.Client {
		c, err := oci.NewClient(oci.Options{LocalRoot: t.TempDir(), Env: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	open := func(t *testing.T, ref string) oci.Target {
		r, err := oci.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		target, err := client(t).Create(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	t.Run("layout", func(t *testing.T) {
		ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, "oci:"+t.TempDir()+"/layout") })
	})
	t.Run("tar", func(t *testing.T) {
		ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, "oci:"+t.TempDir()+"/layout.tar") })
	})
	t.Run("local registry", func(t *testing.T) {
		ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, "local/ml/fraud") })
	})
	t.Run("registry", func(t *testing.T) {
		r := ocitest.NewRegistry()
		t.Cleanup(r.Close)
		ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, r.Host+"/"+fresh()) })
	})
	for _, quirk := range []ocitest.Fault{
		ocitest.NoReferrers, ocitest.NoFilter, ocitest.NoLink, ocitest.PageCap, ocitest.NoDigest,
	} {
		t.Run(string(quirk), func(t *testing.T) {
			r := ocitest.NewRegistry()
			t.Cleanup(r.Close)
			r.Misbehave(quirk)
			ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, r.Host+"/"+fresh()) })
		})
	}
	if host := os.Getenv("GALLEY_TEST_REGISTRY"); host != "" {
		t.Run(host, func(t *testing.T) {
			ocitest.Suite(t, func(t *testing.T) oci.Target { return open(t, host+"/"+fresh()) })
		})
	}
}

// fresh is the name of a repository that nobody has used.
func fresh() string { return "test/" + strings.ToLower(rand.Text()) }
