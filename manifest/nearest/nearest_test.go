package nearest_test

import (
	"slices"
	"strings"
	"testing"

	"galley/manifest/nearest"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "a", 0}, {"metrcs", "metrics", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2},
		{"", "abc", 1 << 20}, {strings.Repeat("x", 200), "x", 1 << 20},
	} {
		if got := nearest.Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("Distance(%q, %q) = %d; want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	tags := []string{"v1", "v10", "v2", "candidate", "latest", "production"}
	for _, tt := range []struct {
		word string
		want []string
	}{
		{"candidat", []string{"candidate"}},
		{"Prodution", []string{"production"}},
		{"v3", []string{"v1", "v2"}},
		{"v10", []string{"v10", "v1"}},
		{"unlike-anything", nil},
	} {
		if got := nearest.Words(tt.word, tags, 2); !slices.Equal(got, tt.want) {
			t.Errorf("Words(%q) = %q; want %q", tt.word, got, tt.want)
		}
	}
}
