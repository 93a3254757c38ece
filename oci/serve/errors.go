package serve

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"syscall"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

// failure is an answer that is an error, in the specification's words.
type failure struct {
	status  int
	code    string
	message string
	details []digest.Digest // one error in the answer for each
}

func (f *failure) Error() string { return f.message }

// writeFailure answers with the body of
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes.
func writeFailure(w http.ResponseWriter, f *failure) {
	type wireError struct {
		Code    string        `json:"code"`
		Message string        `json:"message"`
		Detail  digest.Digest `json:"detail,omitempty"`
	}
	var body struct {
		Errors []wireError `json:"errors"`
	}
	for _, d := range f.details {
		body.Errors = append(body.Errors, wireError{f.code, f.message, d})
	}
	if body.Errors == nil {
		body.Errors = []wireError{{f.code, f.message, ""}}
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	w.Header().Del(subjectHeader)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	w.Write(data)
}

// writeError answers with an error of ours, of the layout or of ociserver.
func writeError(w http.ResponseWriter, req *http.Request, log *slog.Logger, err error) {
	f := explain(err)
	if f.status >= http.StatusInternalServerError {
		log.WarnContext(req.Context(), "request failed", "method", req.Method, "url", req.URL.Redacted(), "err", err)
	}
	writeFailure(w, f)
}

// explain finds the answer to an error. What it does not know stays on this
// side, because it may name files.
func explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if missing, ok := errors.AsType[*layout.MissingError](err); ok {
		return &failure{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the manifest refers to what the repository does not have", missing.Digests}
	}
	if used, ok := errors.AsType[*layout.ReferencedError](err); ok {
		return &failure{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "not deleted: " + used.Error()}
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		return &failure{status: http.StatusRequestEntityTooLarge, code: "SIZE_INVALID", message: "a manifest has at most 4 MiB"}
	case errors.Is(err, layout.ErrInvalidManifest):
		return &failure{status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: err.Error()}
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, errdef.ErrInvalidDigest):
		return &failure{status: http.StatusBadRequest, code: "DIGEST_INVALID", message: err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{status: http.StatusBadRequest, code: "SIZE_INVALID", message: "the body ended early"}
	case errors.Is(err, syscall.ENOSPC):
		return &failure{status: http.StatusInsufficientStorage, code: "UNKNOWN", message: "no space left in the registry"}
	case errors.Is(err, fs.ErrPermission):
		return &failure{status: http.StatusInternalServerError, code: "UNKNOWN", message: "the registry may not write to its directory"}
	}
	return wire(err)
}

// wire is what ociserver would answer.
func wire(err error) *failure {
	data, status := ociregistry.MarshalError(err)
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(data, &body) != nil || len(body.Errors) == 0 || status == http.StatusInternalServerError {
		return &failure{status: http.StatusInternalServerError, code: "UNKNOWN", message: "the registry failed; its log says why"}
	}
	return &failure{status: status, code: body.Errors[0].Code, message: body.Errors[0].Message}
}
