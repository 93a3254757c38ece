package layout_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"galley/oci/layout"
)

// manyTags returns a layout with n tags v0, v1 … and one manifest.
func manyTags(b *testing.B, n int) (*layout.Store, v1.Descriptor) {
	desc, data := manifest("a")
	var list []string
	for i := range n {
		list = append(list, entry(desc, fmt.Sprint("v", i)))
	}
	return open(b, `{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`, data), desc
}

func BenchmarkOpenResolve(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("tags=%d", n), func(b *testing.B) {
			s, want := manyTags(b, n)
			b.ReportAllocs()
			for b.Loop() {
				s, err := layout.Open(s.Dir())
				if err != nil {
					b.Fatal(err)
				}
				if got := resolve(b, s, fmt.Sprint("v", n/2)); !content.Equal(got, want) {
					b.Fatalf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}

// As a server answers those who list a repository: one store, every tag.
func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("tags=%d", n), func(b *testing.B) {
			s, want := manyTags(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if got := resolve(b, s, fmt.Sprint("v", i%n)); !content.Equal(got, want) {
					b.Fatalf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}

func BenchmarkTag(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("tags=%d", n), func(b *testing.B) {
			s, _ := manyTags(b, n)
			descs := []v1.Descriptor{pushTagged(b, s, "b"), pushTagged(b, s, "c")}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Tag(b.Context(), descs[i%2], "latest"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTags(b *testing.B) {
	s, _ := manyTags(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if tags := listTags(b, s); len(tags) != 10_000 {
			b.Fatalf("got %d tags", len(tags))
		}
	}
}

func BenchmarkPush(b *testing.B) {
	const size = 64 << 20
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	desc := content.NewDescriptorFromBytes("application/octet-stream", data)
	s := create(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		// A reader without WriteTo, like a network body.
		if err := s.Push(b.Context(), desc, io.MultiReader(bytes.NewReader(data))); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.Remove(blobPath(s, desc.Digest)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
