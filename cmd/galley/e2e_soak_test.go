//go:build e2e

package main

import "testing"

// TestE2ESoak is [TestSoak] at its full size, with the full-size project and
// Debian's registry.
func TestE2ESoak(t *testing.T) {
	e := prepared(t)
	s := newSoak(t, e.galley, e.full)
	s.refs = []string{e.repository(t)}
	s.run(200)
}
