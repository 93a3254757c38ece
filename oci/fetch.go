package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"galley/manifest"
)

// Fetch implements [content.Fetcher]. A blob, which is not verified, goes on where
// a connection was cut, and is an [io.Seeker]; a manifest comes whole, see
// [session.whole]. What it waits for is told to the client's Progress.
func (r *repository) Fetch(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if isManifest(d) {
		return r.Repository.Fetch(ctx, d)
	}
	waits := func(e Event) {
		if e.Kind == Retried { // what moves is told by who reads
			r.c.o.Progress.emit(e)
		}
	}
	p := &part{ctx: ctx, repo: r, desc: d, title: d.Annotations[v1.AnnotationTitle], progress: waits, pause: sleep, end: d.Size}
	if err := p.open(); err != nil {
		return nil, err
	}
	return p, nil
}

// Exists implements [content.ReadOnlyStorage]. A registry that has a blob need not
// say how long it is.
func (r *repository) Exists(ctx context.Context, d v1.Descriptor) (bool, error) {
	if isManifest(d) {
		return r.Repository.Exists(ctx, d)
	}
	req, err := r.blobRequest(ctx, http.MethodHead, d)
	if err != nil {
		return false, err
	}
	resp, err := r.Client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, errorResponse(resp)
}

// blobRequest asks for a blob, and for nothing else: what a descriptor calls a
// digest may be any text.
func (r *repository) blobRequest(ctx context.Context, method string, d v1.Descriptor) (*http.Request, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: digest %.100q: %w", manifest.ErrMalformed, d.Digest, err)
	}
	u := r.home()
	u.Path = "/v2/" + r.Reference.Repository + "/blobs/" + d.Digest.String()
	return http.NewRequestWithContext(auth.AppendRepositoryScope(ctx, r.Reference, auth.ActionPull), method, u.String(), nil)
}

// maxManifestTries is how often a manifest, or a list, is asked for until it comes
// whole.
const maxManifestTries = 3

// parent is the element of a path before the last: what the last one names. Those
// before it are the repository, which may be called anything.
func parent(api string) string { return path.Base(path.Dir(api)) }

// isManifestPath reports whether a request is about a manifest.
func isManifestPath(req *http.Request) bool { return parent(req.URL.Path) == "manifests" }

// isListPath reports whether a request is for a page of tags or referrers.
func isListPath(req *http.Request) bool {
	return strings.HasSuffix(req.URL.Path, "/tags/list") || parent(req.URL.Path) == "referrers"
}

// whole reads the manifest or list that a registry answered with, and asks again for
// one that was cut or altered on its way. An answer about a manifest tells its length
// and its digest then, without which oras-go takes none: a HEAD that leaves the length
// out, or the digest of a tag, becomes a GET.
func (s *session) whole(req *http.Request, resp *http.Response) (*http.Response, error) {
	head := req.Method == http.MethodHead
	if resp.StatusCode != http.StatusOK || head && tellsAll(req, resp) {
		return resp, nil
	}
	if head {
		resp.Body.Close()
		req = req.Clone(req.Context())
		req.Method = http.MethodGet
		var err error
		if resp, err = s.auth.Do(req); err != nil || resp.StatusCode != http.StatusOK {
			return resp, err
		}
	}
	for n := 1; ; n++ {
		err := takeWhole(req, resp)
		if err == nil {
			break
		}
		_, altered := errors.AsType[*manifest.CorruptError](err)
		if n == maxManifestTries || req.Context().Err() != nil || !altered && !wasCut(err) {
			return nil, err
		}
		var wait time.Duration
		if n > 1 { // most are by chance, and alone
			wait = backOff(n-2, 0)
		}
		s.tell.emit(Event{Kind: Retried, Reason: reason(s.ref.Registry, err), Wait: wait})
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
		if resp, err = s.auth.Do(req); err != nil || resp.StatusCode != http.StatusOK {
			return resp, err
		}
	}
	if head {
		resp.Body.Close() // of one that is too large to be read
		resp.Body = http.NoBody
	}
	return resp, nil
}

// tellsAll reports whether an answer says what a descriptor has to.
func tellsAll(req *http.Request, resp *http.Response) bool {
	return resp.ContentLength >= 0 && (resp.Header.Get("Docker-Content-Digest") != "" || digest.Digest(path.Base(req.URL.Path)).Validate() == nil)
}

// takeWhole reads the answer's body, for others to read it again. One that says
// that it is too large is left for whoever refuses it.
func takeWhole(req *http.Request, resp *http.Response) error {
	if resp.ContentLength > maxManifest {
		return nil
	}
	defer resp.Body.Close()
	doc, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return err
	}
	if len(doc) > maxManifest {
		return fmt.Errorf("%w: more than %d bytes", manifest.ErrMalformed, maxManifest)
	}
	if isManifestPath(req) {
		told, err := digestOf(doc, path.Base(req.URL.Path), resp.Header.Get("Docker-Content-Digest"))
		if err != nil {
			return err
		}
		resp.Header.Set("Docker-Content-Digest", told)
	}
	resp.Header.Set("Content-Length", strconv.Itoa(len(doc)))
	resp.ContentLength = int64(len(doc))
	resp.Body = io.NopCloser(bytes.NewReader(doc))
	return nil
}

// digestOf verifies a manifest by the digest that was asked for, if it was one, or
// else by the one that the registry told, and returns what it is to tell.
func digestOf(doc []byte, asked, told string) (string, error) {
	want := digest.Digest(asked)
	if want.Validate() != nil {
		want = digest.Digest(told)
	}
	switch {
	case want.Validate() != nil && told != "":
		return told, nil // which oras-go refuses
	case want.Validate() != nil:
		return digest.FromBytes(doc).String(), nil
	}
	if got := want.Algorithm().FromBytes(doc); got != want {
		return "", &manifest.CorruptError{What: "manifest", Want: want.String(), Got: got.String()}
	}
	return want.String(), nil
}
