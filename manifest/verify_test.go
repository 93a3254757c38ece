package manifest_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
)

// TestLayerVerify finds what Walk takes for granted, and all of it.
func TestLayerVerify(t *testing.T) {
	p := pack(t, everyday(fraud()), manifest.PackOptions{})
	good := p.Layers[0]
	blob := blobs(t, p)[good.Descriptor.Digest.String()]
	other := digest.FromString("x")
	// replaced lets the descriptor promise other bytes.
	replaced := func(data []byte) func(*manifest.Layer) []byte {
		return func(l *manifest.Layer) []byte {
			l.Descriptor.Digest, l.Descriptor.Size = digest.FromBytes(data), int64(len(data))
			return data
		}
	}
	var notTar bytes.Buffer
	z := gzip.NewWriter(&notTar)
	io.WriteString(z, strings.Repeat("not a tar", 1000))
	z.Close()
	for _, tt := range []struct {
		name   string
		change func(*manifest.Layer) []byte // returns the blob
		want   []string                     // one a mismatch
	}{
		{"good", func(*manifest.Layer) []byte { return blob }, nil},
		{"diffID", func(l *manifest.Layer) []byte { l.DiffID = other; return blob }, []string{"uncompressed"}},
		{"everything that is told", func(l *manifest.Layer) []byte {
			l.Files[0].Digest = other
			l.Files = append(l.Files, manifest.File{Path: "models/z"}, manifest.File{Path: "models/y"})
			l.DiffID = other
			return blob
		}, []string{modelPath, `"models/y" in it`, `"models/z" in it`, "uncompressed"}},
		{"size and diffID", func(l *manifest.Layer) []byte { l.Files[0].Size++; l.DiffID = other; return blob }, []string{modelPath, "uncompressed"}},
		{"another file", func(l *manifest.Layer) []byte { l.Files[0].Path = "models/x"; return blob }, []string{"also", `"models/x" in it`}},
		{"blob", func(*manifest.Layer) []byte { return append(bytes.Clone(blob), 0) }, []string{"got more"}},
		{"no gzip", replaced([]byte("not gzip at all")), []string{"want tar+gzip"}},
		{"cut gzip", replaced(blob[:len(blob)/2]), []string{"want tar+gzip"}},
		{"no tar", replaced(notTar.Bytes()), []string{"want tar+gzip"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := good
			l.Files = slices.Clone(l.Files)
			data := tt.change(&l)
			err := l.Verify(bytes.NewReader(data))
			if (err == nil) != (tt.want == nil) {
				t.Fatalf("Verify: %v; want %d mismatches", err, len(tt.want))
			}
			if err == nil {
				return
			}
			lines := strings.Split(err.Error(), "\n")
			if _, ok := errors.AsType[*manifest.CorruptError](err); !ok || len(lines) != len(tt.want) {
				t.Fatalf("Verify: %v; want %d mismatches", err, len(tt.want))
			}
			for i, line := range lines {
				if !strings.Contains(line, tt.want[i]) {
					t.Errorf("%q; want %q", line, tt.want[i])
				}
			}
		})
	}
	cut := errors.New("connection cut")
	if err := good.Verify(io.MultiReader(bytes.NewReader(blob[:1000]), errReader{cut})); !errors.Is(err, cut) {
		t.Errorf("%v; want the error of the reader", err)
	}
}

// TestVerifyPeers verifies what other tools made.
func TestVerifyPeers(t *testing.T) {
	for _, name := range []string{"kit", "kit-gzip", "modctl-raw", "modctl-tar", "oras-dir", "oras-files"} {
		src := layoutDir("../testdata/peers/" + name)
		a, err := manifest.Read(t.Context(), src, src.root(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.VerifyConfig(t.Context(), src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, l := range a.Layers {
			rc, err := src.Fetch(t.Context(), l.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Verify(rc); err != nil {
				t.Errorf("%s: layer %s: %v", name, l.Title, err)
			}
			rc.Close()
		}
	}
}
