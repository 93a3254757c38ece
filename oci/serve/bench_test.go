package serve_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"galley/oci/serve"
)

// benchBlob is as incompressible as a trained model may be.
func benchBlob() ([]byte, digest.Digest) {
	data := make([]byte, 256<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data, digest.FromBytes(data)
}

func BenchmarkPush(b *testing.B) {
	data, d := benchBlob()
	for _, chunked := range []bool{false, true} {
		b.Run(fmt.Sprintf("chunked=%v", chunked), func(b *testing.B) {
			s := newSite(b, serve.Options{})
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				at := s.want(202, "POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
				body := io.Reader(bytes.NewReader(data))
				if chunked { // as docker does
					if a := s.do("PATCH", at, body); a.status != 202 {
						b.Fatal(a)
					}
					body = nil
				}
				if a := s.do("PUT", at+"?digest="+d.String(), body); a.status != 201 {
					b.Fatal(a)
				}
				b.StopTimer()
				if err := os.Remove(s.blobFile("r", d)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkPull(b *testing.B) {
	data, d := benchBlob()
	s := newSite(b, serve.Options{})
	if a := s.do("POST", "/v2/r/blobs/uploads/?digest="+d.String(), bytes.NewReader(data)); a.status != 201 {
		b.Fatal(a)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		resp, err := http.Get(s.url + "/v2/r/blobs/" + d.String())
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n != int64(len(data)) {
			b.Fatalf("%d bytes, %v", n, err)
		}
	}
}
