package serve

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"galley/oci/layout"
)

// blob answers GET and HEAD of a blob, with any ranges.
func (h *handler) blob(w http.ResponseWriter, req *http.Request, repo, name string) error {
	store, err := h.registry.open(repo)
	if err != nil {
		return err
	}
	dgst := digest.Digest(name)
	f, size, err := store.Blob(req.Context(), dgst)
	if err != nil {
		return unknown(err, ociregistry.ErrBlobUnknown)
	}
	defer f.Close()
	if req.Method == http.MethodHead {
		// Who asks is about to rely on it.
		if _, err := store.Exists(req.Context(), v1.Descriptor{Digest: dgst, Size: size}); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", name)
	w.Header().Set("Etag", strconv.Quote(name))
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

// start answers a POST that begins an upload, brings a whole blob, or mounts
// one.
func (h *handler) start(w http.ResponseWriter, req *http.Request, repo string) error {
	if req.Method != http.MethodPost {
		return notAllowed(w, http.MethodPost)
	}
	store, err := h.registry.create(repo)
	if err != nil {
		return err
	}
	q := req.URL.Query()
	mount, from, whole := digest.Digest(q.Get("mount")), q.Get("from"), digest.Digest(q.Get("digest"))
	for _, d := range []digest.Digest{mount, whole} {
		if err := d.Validate(); d != "" && err != nil {
			return fmt.Errorf("%w: %w", errdef.ErrInvalidDigest, err)
		}
	}
	if mount != "" && h.mount(req, store, from, mount) {
		return created(w, repo, mount)
	}
	u, err := store.StartUpload(req.Context())
	if err != nil {
		return err
	}
	if whole == "" || mount != "" {
		return rest(w, u, repo, http.StatusAccepted)
	}
	if _, err := u.Commit(req.Context(), whole, req.Body); err != nil {
		return err
	}
	return created(w, repo, whole)
}

// mount reports whether it could. What it could not, the client uploads.
func (h *handler) mount(req *http.Request, store *layout.Store, from string, dgst digest.Digest) bool {
	source, err := h.registry.open(from)
	if err != nil {
		return false
	}
	err = store.Mount(req.Context(), source, dgst)
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		h.log.WarnContext(req.Context(), "not mounted", "digest", dgst, "from", from, "err", err)
	}
	return err == nil
}

// upload answers requests to an upload that was begun.
func (h *handler) upload(w http.ResponseWriter, req *http.Request, repo, id string) error {
	dgst := digest.Digest(req.URL.Query().Get("digest"))
	switch req.Method {
	case http.MethodGet, http.MethodPatch, http.MethodDelete:
	case http.MethodPut:
		if err := dgst.Validate(); err != nil {
			return fmt.Errorf("%w: %w", errdef.ErrInvalidDigest, err)
		}
	default:
		return notAllowed(w, "GET, PATCH, PUT, DELETE")
	}
	chunk, err := parseChunk(req)
	if err != nil {
		return err
	}
	store, err := h.registry.open(repo)
	if err != nil {
		return err
	}
	u, err := store.ResumeUpload(req.Context(), id)
	if err != nil {
		return unknown(err, ociregistry.ErrBlobUploadUnknown)
	}
	if chunk.known && chunk.start != u.Size() {
		size := u.Size()
		if err := rest(w, u, repo, 0); err != nil {
			return err
		}
		return &failure{status: http.StatusRequestedRangeNotSatisfiable, code: "BLOB_UPLOAD_INVALID",
			message: fmt.Sprintf("the chunk begins at %d, the upload has %d bytes", chunk.start, size)}
	}
	switch req.Method {
	case http.MethodPatch:
		before := u.Size()
		if err := u.Append(req.Context(), chunk.body(req)); err != nil {
			if _, lie := errors.AsType[*failure](err); lie {
				err = errors.Join(err, u.Rewind(before))
			}
			return errors.Join(err, u.Close())
		}
		return rest(w, u, repo, http.StatusAccepted)
	case http.MethodPut:
		if _, err := u.Commit(req.Context(), dgst, chunk.body(req)); err != nil {
			return err
		}
		return created(w, repo, dgst)
	case http.MethodDelete:
		u.Cancel()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return rest(w, u, repo, http.StatusNoContent)
}

// rest lets an upload rest and says where it goes on; without a status the
// answer is yet to be written.
func rest(w http.ResponseWriter, u *layout.Upload, repo string, status int) error {
	if err := u.Close(); err != nil {
		return err
	}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+u.ID())
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.Size()-1, 0))) // docker's word for nothing is 0-0
	w.Header().Set("Docker-Upload-UUID", u.ID())
	if status != 0 {
		w.WriteHeader(status)
	}
	return nil
}

func created(w http.ResponseWriter, repo string, dgst digest.Digest) error {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+dgst.String())
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

func notAllowed(w http.ResponseWriter, methods string) error {
	w.Header().Set("Allow", methods)
	return &failure{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "only " + methods}
}
