package serve

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// chunk is where a part of an upload belongs, if its client says so. Most
// clients of docker's descent do not.
type chunk struct {
	known      bool
	start, end int64 // end is past the last byte
}

// parseChunk reads the header Content-Range, START-END with END included: the
// specification's form, not HTTP's.
func parseChunk(req *http.Request) (chunk, error) {
	header := req.Header.Get("Content-Range")
	if header == "" {
		return chunk{}, nil
	}
	first, last, _ := strings.Cut(header, "-")
	start, err := strconv.ParseUint(first, 10, 62)
	if err != nil {
		return chunk{}, invalidChunk("Content-Range is not START-END")
	}
	end, err := strconv.ParseUint(last, 10, 62)
	if err != nil || end < start {
		return chunk{}, invalidChunk("Content-Range is not START-END")
	}
	c := chunk{true, int64(start), int64(end) + 1}
	if n := req.ContentLength; n >= 0 && n != c.end-c.start {
		return chunk{}, invalidChunk(fmt.Sprintf("Content-Range means %d bytes, Content-Length %d", c.end-c.start, n))
	}
	return c, nil
}

// body is the request's, which fails where it is not as long as was said.
func (c chunk) body(req *http.Request) io.Reader {
	if !c.known || req.ContentLength >= 0 { // net/http checks it then
		return req.Body
	}
	return &exactReader{req.Body, c.end - c.start}
}

// exactReader fails unless r has exactly n bytes.
type exactReader struct {
	r io.Reader
	n int64
}

// Read implements [io.Reader].
func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.n -= int64(n)
	if e.n < 0 || err == io.EOF && e.n > 0 {
		return n, invalidChunk("the body is not as long as Content-Range says")
	}
	return n, err
}

func invalidChunk(message string) error {
	return &failure{status: http.StatusBadRequest, code: "SIZE_INVALID", message: message}
}
