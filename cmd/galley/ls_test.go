package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"galley/manifest"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
)

func TestTrend(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   string
	}{
		{nil, ""},
		{[]float64{0.5}, "▅"},
		{[]float64{0.5, 0.5}, "▅▅"},
		{[]float64{0, 1}, "▁█"},
		{[]float64{0.6, 0.65, 0.7, 0.6}, "▁▅█▁"},
		{[]float64{-1, 0, 1, 2, 3, 4, 5, 6}, "▁▂▃▄▅▆▇█"},
		{[]float64{-math.MaxFloat64, 0, math.MaxFloat64}, "▁▅█"},
	} {
		if got := trend(tt.values); got != tt.want {
			t.Errorf("trend(%v) = %q; want %q", tt.values, got, tt.want)
		}
	}
}

// TestListingIsFitForATerminal shows what others wrote.
func TestListingIsFitForATerminal(t *testing.T) {
	l := newListing("local/m", &project.Config{})
	l.versions = []oci.Version{
		{Tags: []string{"v1"}, Size: -1, Info: manifest.Info{
			Class: "x.\x1b[2J\u009b31m" + strings.Repeat("y", 1<<20), Trained: "\x1b]0;owned\a",
			Metrics: []training.Metric{{Path: "a", Value: 1.23456789e9}, {Path: "b.ok", IsBool: true}},
		}},
		{Tags: []string{"v2"}, Size: -1, Err: &manifest.NotArtifactError{What: "a container image"}},
	}
	l.columns = []string{"a", "b.ok", "none"}
	text := l.text()
	if strings.ContainsAny(text, "\x1b\a\u009b") {
		t.Errorf("%q steers a terminal", text)
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || len([]rune(lines[1])) > 200 {
		t.Errorf("%d lines, one of %d characters", len(lines), len([]rune(lines[1])))
	}
	for i, want := range []string{"version  trained", "1.235e+09  false", "not a model: a container image"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("%q; want %q", lines[i], want)
		}
	}
	l.dim = true
	if lines := strings.Split(l.text(), "\n"); !strings.HasPrefix(lines[2], "\x1b[2mv2") || !strings.HasSuffix(lines[2], "image\x1b[0m") || strings.Contains(lines[1], "\x1b") {
		t.Errorf("%q", lines)
	}
}

func TestTerminalRefusesBinary(t *testing.T) {
	for _, tt := range []struct {
		writes []string
		ok     bool
	}{
		{[]string{"{\"f1\": 1}\r\n\t", "größer ✓"}, true},
		{[]string{"\xc2", "\xa0"}, true}, // a character over two writes
		{[]string{"text", "\x1b[2J"}, false},
		{[]string{"\x80\x04\x95\x00"}, false},
		{[]string{"\u009b31m"}, false},
		{[]string{"\xc2", "\x9b31m"}, false},
		{[]string{"\x7f"}, false},
	} {
		var out bytes.Buffer
		w := &terminal{w: &out, hint: "galley cat … > file"}
		var err error
		for _, s := range tt.writes {
			if err == nil {
				_, err = w.Write([]byte(s))
			}
		}
		if (err == nil) != tt.ok || !tt.ok && !as[*usageError](err) {
			t.Errorf("%q: %v", tt.writes, err)
		}
		if tt.ok && out.String() != strings.Join(tt.writes, "") {
			t.Errorf("%q came out as %q", tt.writes, &out)
		}
	}
}
