package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/manifest"
)

// repository is a repository of a registry. oras-go reads it, and writes its
// manifests and tags; blobs go up galley's own way, in upload.
type repository struct {
	*remote.Repository
	c *Client
	// single says that small blobs go in one request. What one of them shows
	// counts for the next repository: how many requests a copy sends should not
	// depend on which of its blobs comes first.
	single bool
}

// Push implements [content.Pusher]. A blob that was cut is sent again if it is
// small or its content an [io.Seeker]. [Copy] reads it anew from its source.
func (r *repository) Push(ctx context.Context, d v1.Descriptor, content io.Reader) error {
	if isManifest(d) {
		return r.Repository.Push(ctx, d, content)
	}
	if _, ok := content.(io.Seeker); !ok && d.Size <= maxSingle {
		data, err := io.ReadAll(io.LimitReader(content, d.Size+1))
		if err != nil {
			return &readError{err}
		}
		content = bytes.NewReader(data)
	}
	_, err := r.upload(ctx, blob{Descriptor: d, from: r.Reference.Repository, open: reopen(content)})
	return err
}

// Mount implements [registry.Mounter].
func (r *repository) Mount(ctx context.Context, d v1.Descriptor, from string, open func() (io.ReadCloser, error)) error {
	_, err := r.upload(ctx, blob{Descriptor: d, from: from, open: func(context.Context) (io.ReadCloser, error) {
		if open == nil {
			ref := Reference{Kind: Registry, Registry: r.Reference.Registry, Repository: from}
			return r.c.repository(ref, false).Fetch(ctx, d)
		}
		return open()
	}})
	return err
}

// isManifest reports whether registries keep d as a manifest, as oras-go sees
// it.
func isManifest(d v1.Descriptor) bool {
	switch d.MediaType {
	case v1.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.artifact.manifest.v1+json":
		return true
	}
	return isIndex(d)
}

// errSpent ends a second look at content that can be read only once.
var errSpent = errors.New("content that cannot be read twice")

// reopen returns what opens content, again if it can be.
func reopen(content io.Reader) func(context.Context) (io.ReadCloser, error) {
	spent := false
	return func(context.Context) (io.ReadCloser, error) {
		if !spent {
			spent = true
			return io.NopCloser(content), nil
		}
		seeker, ok := content.(io.Seeker)
		if !ok {
			return nil, errSpent
		}
		_, err := seeker.Seek(0, io.SeekStart)
		return io.NopCloser(content), err
	}
}

// blob is what an upload brings.
type blob struct {
	v1.Descriptor
	// from is the repository that may have it: the one it goes to, or another
	// of the registry. "" asks none.
	from string
	// open opens it, as often as it has to be sent.
	open func(context.Context) (io.ReadCloser, error)
	// ahead is the stream in which it was sent while it was packed, or nil.
	ahead    *stream
	progress Progress
}

func (b *blob) tell(e Event) {
	e.Descriptor, e.Name = b.Descriptor, b.Annotations[v1.AnnotationTitle]
	b.progress.emit(e)
}

// readError is an error of where a blob comes from, not of where it goes.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// The sizes in bytes at which an upload changes its manner.
const (
	// maxSingle is the largest blob that is sent without asking whether it is
	// there: the question costs as much as the answer saves.
	maxSingle = 32 << 10
	// defaultLarge is worth a question that may spare sending it.
	defaultLarge = 16 << 20
	// defaultHuge is worth a request more so that it can go on where it was cut.
	defaultHuge = 64 << 20
)

// Bounds of trying again while a blob is sent. What was sent counts: a registry
// that goes on from there may be cut for ever.
const (
	uploadBudget = 2 * time.Minute // from the last byte that moved to the start of the last attempt
	maxLost      = 2               // sessions that a registry forgets or finds wrong
)

// upload sees to it that the registry has the blob, and says how: [Skipped] if
// it had, [Mounted], or [Done]. The session that it opens may be answered by
// another host, redirected, cut, forgotten or resumed; what counts is that the
// registry accepts the digest at the end.
func (r *repository) upload(ctx context.Context, b blob) (EventKind, error) {
	u := &upload{blob: b, r: r, host: r.Reference.Registry, release: func() {}}
	defer func() { u.release() }()
	if u.adopt(ctx) {
		err := u.finish(ctx)
		if err != nil && !u.kept {
			u.cancel(ctx, u.session)
		}
		return Done, err
	}
	how, there, err := u.begin(ctx)
	if err != nil || there {
		return how, err
	}
	return Done, u.finish(ctx)
}

// upload is one blob on its way.
type upload struct {
	blob
	r    *repository
	host string // as the registry is called in references

	session *url.URL
	offset  int64 // how much of the blob the session has
	started bool  // Started was told
	lost    int   // how many sessions were given up
	failed  int   // how often a PUT of all of it was answered that it may pass another time
	inParts bool  // it is sent by PATCH, so that it can go on
	noParts bool  // that did not work
	kept    bool  // the session is in the memory
	whole   bool  // all of it was sent while it was packed, which is to be told

	asked   bool   // whether this upload may keep a session
	claimed bool   // it may, until release
	release func() // never nil

	mu    sync.Mutex
	turn  int       // how often the source was opened
	moved time.Time // when it was last read
	sent  int64     // bytes that were read to be sent, of all turns
}

// home is where the registry answers.
func (r *repository) home() *url.URL {
	u := &url.URL{Scheme: "https", Host: r.Reference.Host()}
	if r.PlainHTTP {
		u.Scheme = "http"
	}
	return u
}

// uploads is where uploads to the repository begin.
func (r *repository) uploads(query url.Values) *url.URL {
	u := r.home()
	u.Path = "/v2/" + r.Reference.Repository + "/blobs/uploads/"
	u.RawQuery = query.Encode()
	return u
}

// sameOrigin reports whether two URLs share what credentials are good for.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// do sends one request of an upload. The caller closes the answer's body.
func (u *upload) do(ctx context.Context, method string, to *url.URL, body *uploadBody, header ...string) (*http.Response, error) {
	if method == http.MethodPut || method == http.MethodPatch {
		ctx = withoutRetry(ctx) // finish knows better what may help
		ctx = withAnswerTime(ctx, u.answerTime())
	}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if body != nil && body.left() > 0 {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.ContentLength = body.left()
		req.GetBody = func() (io.ReadCloser, error) { return body.open(ctx) }
		if req.Body, err = body.open(ctx); err != nil {
			return nil, err
		}
		if body.left() >= u.r.c.large {
			// A redirect or an expired token shows before the bytes go.
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := u.roundTrip(req)
	if body != nil {
		if broken := body.broken(); broken != nil && (err != nil || resp.StatusCode >= 300) {
			if err == nil {
				resp.Body.Close()
			}
			return nil, &readError{broken}
		}
	}
	return resp, err
}

// roundTrip sends a request, with credentials if it stays with the registry.
func (u *upload) roundTrip(req *http.Request) (*http.Response, error) {
	if sameOrigin(req.URL, u.r.home()) {
		return u.r.Client.Do(req)
	}
	req.Header.Set("User-Agent", u.r.c.o.UserAgent)
	return u.r.c.http.Do(req)
}

// refusal is an answer that is none of those hoped for.
type refusal struct {
	*errcode.ErrorResponse
	after time.Duration // the registry asks to wait; 0: it does not
}

func (e *refusal) Unwrap() error { return e.ErrorResponse }

// newRefusal reads an answer that is an error.
func newRefusal(resp *http.Response) *refusal {
	return &refusal{errorResponse(resp), retryAfter(resp)}
}

// errorResponse reads what a registry says went wrong.
func errorResponse(resp *http.Response) *errcode.ErrorResponse {
	answer := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if json.NewDecoder(bytes.NewReader(text)).Decode(&body) == nil {
		answer.Errors = body.Errors
	} else if code := errorCode().FindSubmatch(text); code != nil { // more was said than is read
		answer.Errors = errcode.Errors{{Code: string(code[1])}}
	}
	return answer // what is no JSON says nothing beyond its status
}

// errorCode is the beginning of what registries say.
var errorCode = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\s*\{\s*"errors"\s*:\s*\[\s*\{\s*"code"\s*:\s*"([A-Z_]+)"`)
})

// saysCode reports whether the registry gave one of the codes as a reason.
func (e *refusal) saysCode(codes ...string) bool {
	return slices.ContainsFunc(e.Errors, func(e errcode.Error) bool { return slices.Contains(codes, e.Code) })
}

// begin asks for the blob, and, where it is not there, for a session. It
// reports whether, and how, the blob is there.
func (u *upload) begin(ctx context.Context) (how EventKind, there bool, err error) {
	u.session, u.offset = nil, 0
	own := u.from == u.r.Reference.Repository
	if own && u.Size <= maxSingle && (u.r.single || isConfig(u.Descriptor) && u.r.c.probe(u.host, singlePost)) {
		there, err = u.single(ctx)
		if err != nil || there || u.session != nil {
			return Done, there, err
		}
	}
	ask := u.from != ""
	if own && u.r.c.has(u.host, ignoresMounts) {
		if there, err = u.r.Exists(ctx, u.Descriptor); err != nil || there {
			return Skipped, there, err
		}
		ask = false
	}
	if ask {
		there, err = u.mount(ctx)
		switch {
		case err != nil:
			return Mounted, false, err
		case there && own:
			return Skipped, true, nil
		case there:
			return Mounted, true, nil
		case !own || u.session != nil && u.Size >= u.r.c.large:
			// A mount that failed does not say that the blob is not here.
			if there, err = u.r.Exists(ctx, u.Descriptor); err != nil || there {
				if there && own {
					u.r.c.learn(u.host, ignoresMounts, true)
				}
				u.cancel(ctx, u.session)
				return Skipped, there, err
			}
		}
	}
	if u.session == nil {
		if err := u.openSession(ctx); err != nil {
			return Done, false, err
		}
	}
	u.inParts = u.Size >= u.r.c.huge && !u.noParts && !u.r.c.has(u.host, noChunks) && !u.session.Query().Has(signedOffset)
	u.recall(ctx)
	return Done, false, nil
}

// openSession begins an upload.
func (u *upload) openSession(ctx context.Context) error {
	resp, err := u.do(ctx, http.MethodPost, u.r.uploads(nil), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return newRefusal(resp)
	}
	return u.follow(resp)
}

// isConfig reports whether d is a config, which tells an artifact from all
// others and so is not there before it.
func isConfig(d v1.Descriptor) bool {
	return d.MediaType == manifest.MediaTypeConfig || d.MediaType == v1.MediaTypeImageConfig
}

// single sends the blob in one request. A registry that does not take it so
// may answer with a session.
func (u *upload) single(ctx context.Context) (there bool, err error) {
	u.start()
	resp, err := u.do(ctx, http.MethodPost, u.r.uploads(url.Values{"digest": {u.Digest.String()}}), &uploadBody{u: u})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
		u.r.c.learn(u.host, singlePost, true)
		return true, nil
	case http.StatusAccepted:
		u.r.c.learn(u.host, singlePost, false)
		return false, u.follow(resp)
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		u.r.c.learn(u.host, singlePost, false)
	}
	return false, nil // the next request meets with the same, or does not
}

// mount asks the registry to take the blob from one of its repositories, be it
// the one where the blob goes. It is the one request that is both a question
// and the beginning of an upload:
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#mounting-a-blob-from-another-repository
func (u *upload) mount(ctx context.Context) (there bool, err error) {
	from := u.r.Reference
	from.Repository = u.from
	ctx = auth.AppendRepositoryScope(ctx, from, auth.ActionPull)
	resp, err := u.do(ctx, http.MethodPost, u.r.uploads(url.Values{"mount": {u.Digest.String()}, "from": {u.from}}), nil)
	if err != nil {
		if mountRefused(err) {
			return false, nil
		}
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.Digest.String() {
			return false, &answerError{resp.Request.URL.Host, resp.StatusCode, ErrCorrupt,
				fmt.Sprintf("answers with %s when asked for %s", clean(got), u.Digest), nil}
		}
		return true, nil
	case http.StatusAccepted:
		return false, u.follow(resp)
	}
	if e := newRefusal(resp); !mountRefused(e) {
		return false, e
	}
	return false, nil
}

// mountRefused reports whether a mount failed so that an upload may still work.
func mountRefused(err error) bool {
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		return resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
	}
	return errors.Is(err, auth.ErrBasicCredentialNotFound)
}

// follow takes the session from where an answer says that it goes on.
func (u *upload) follow(resp *http.Response) error {
	fail := func(why string) error {
		return &answerError{resp.Request.URL.Host, resp.StatusCode, nil, why, nil}
	}
	to, err := resp.Location()
	if err != nil {
		return fail("begins an upload without saying where it goes on")
	}
	home := u.r.home()
	if strings.EqualFold(to.Hostname(), home.Hostname()) {
		// A proxy that ends TLS often does not tell the registry behind it.
		upgraded := *to
		if home.Scheme == "https" && to.Scheme == "http" && (to.Port() == "" || portOf(to) == portOf(home)) {
			upgraded.Scheme, upgraded.Host = home.Scheme, home.Host
		}
		if sameOrigin(&upgraded, home) {
			to.Scheme, to.Host = home.Scheme, home.Host // the spelling for which there is a token
		}
	}
	if to.Scheme != "https" && !(to.Scheme == "http" && home.Scheme == "http") {
		return fail("sends uploads to " + clean(to.Host) + ", where there is no TLS")
	}
	to.User = nil
	u.session = to
	return nil
}

// start tells, once, that bytes will move.
func (u *upload) start() {
	if !u.started {
		u.started = true
		u.tell(Event{Kind: Started})
	}
}

// finish sends the blob to the session, and to others if need be.
func (u *upload) finish(ctx context.Context) error {
	u.start()
	u.moved = time.Now()
	var tries int
	var last error
	for {
		start := u.read()
		err := u.send(ctx)
		if err == nil {
			u.forget()
			return nil
		}
		if last != nil && errors.Is(err, errSpent) {
			return last // for which it would have to be sent again
		}
		last = err
		again := u.canGoOn(ctx, err)
		var asked time.Duration
		if e, ok := errors.AsType[*refusal](err); ok {
			asked = e.after
		}
		wait := backOff(tries, asked)
		if again == never || tries >= maxRetries || u.silent()+wait > uploadBudget+u.answerTime() {
			if _, ok := errors.AsType[*readError](err); ok && !wasCut(err) {
				u.cancel(ctx, u.session) // its bytes will not come any more
				u.forget()
			}
			return err
		}
		u.tell(Event{Kind: Retried, Reason: reason(u.host, err), Wait: wait})
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		before := u.offset
		there, err := u.resync(ctx, again)
		if err != nil {
			return err
		}
		if there {
			u.forget()
			return nil
		}
		tries++
		// What came to the session from elsewhere is no progress of this upload.
		if gain := u.offset - before; gain > 0 && gain <= u.read()-start {
			tries = 0
		}
	}
}

// answerTime is what a registry gets for its answer to the blob: one on object
// storage moves it before it gives it, at 10 MB a second or faster.
func (u *upload) answerTime() time.Duration {
	return min(time.Duration(u.Size/10e6)*time.Second, 10*time.Minute)
}

// read is how many bytes were read to be sent.
func (u *upload) read() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

// silent is how long no byte has moved.
func (u *upload) silent() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Since(u.moved)
}

// goOn is what may help after an attempt that failed.
type goOn int

const (
	never         goOn = iota
	asBefore           // the registry refused before it took anything, or will say that the session is gone
	inThisSession      // after what it has
	inNewSession
)

// canGoOn decides what may help.
func (u *upload) canGoOn(ctx context.Context, err error) goOn {
	if _, ok := errors.AsType[*readError](err); ok || ctx.Err() != nil {
		return never // a registry that is read has been asked as often as it helps
	}
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		if wasCut(err) {
			return inThisSession
		}
		return never
	}
	switch status := e.StatusCode; {
	case mayPass(status) && !u.inParts:
		if u.failed++; u.failed > 1 && status >= http.StatusInternalServerError {
			return inNewSession // this one may have taken the bytes before it failed
		}
		return asBefore
	case mayPass(status):
		return inThisSession
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusRequestEntityTooLarge:
	case u.lost > 0 && !u.inParts && e.saysCode(errcode.ErrorCodeDigestInvalid): // as before: it is not by chance
	case u.inParts, status == http.StatusNotFound, status == http.StatusGone,
		e.saysCode(errcode.ErrorCodeBlobUploadUnknown, errcode.ErrorCodeBlobUploadInvalid, errcode.ErrorCodeDigestInvalid, errcode.ErrorCodeSizeInvalid):
		// The session is gone, or the registry has other bytes than those
		// that were sent: its word on where it was, or a proxy, was wrong.
		if status == http.StatusNotFound || status == http.StatusGone || e.saysCode(errcode.ErrorCodeBlobUploadUnknown) {
			u.session = nil
		}
		u.noParts = u.noParts || u.inParts
		if u.lost++; u.lost <= maxLost {
			return inNewSession
		}
	}
	return never
}

// resync finds out how far the session came, or begins another one. It reports
// whether the blob is there: only the answer may have been cut.
func (u *upload) resync(ctx context.Context, how goOn) (there bool, err error) {
	if how == asBefore || how == inThisSession && u.inParts && u.ask(ctx) {
		return false, nil
	}
	if u.from != "" {
		u.from = u.r.Reference.Repository
	}
	old := u.session
	if how == inThisSession && !u.inParts {
		old = nil // a PUT that was cut may yet come to its end
	}
	_, there, err = u.begin(ctx)
	if err == nil && !there {
		u.cancel(ctx, old)
	}
	return there, err
}

// ask asks the session how far it is, and reports whether it is alive.
func (u *upload) ask(ctx context.Context) bool {
	u.offset = 0
	resp, err := u.do(ctx, http.MethodGet, u.session, nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK {
		return false
	}
	n, ok := received(resp)
	if !ok || n > u.Size {
		return false
	}
	if resp.Header.Get("Location") != "" && u.follow(resp) != nil {
		return false
	}
	u.offset = n
	return true
}

// received reads how many bytes a session has: "0-N", N being the last of them.
// For none registries say 0-0 as they do for one.
func received(resp *http.Response) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 62)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// send sends what the session lacks, and closes it: in one PUT, or in a PATCH
// before.
func (u *upload) send(ctx context.Context) error {
	body := &uploadBody{u: u}
	if u.inParts {
		if err := u.patch(ctx); err != nil {
			return err
		}
		body = nil
	}
	to := *u.session
	// Appended, not encoded anew: the rest of the query is the registry's.
	if to.RawQuery != "" {
		to.RawQuery += "&"
	}
	to.RawQuery += url.Values{"digest": {u.Digest.String()}}.Encode()
	resp, err := u.do(ctx, http.MethodPut, &to, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return newRefusal(resp)
	}
	return nil
}

// patch sends what the session lacks and leaves it open. From the beginning it
// says no more than docker does, which every registry knows.
func (u *upload) patch(ctx context.Context) error {
	body := &uploadBody{u: u, offset: u.offset}
	if body.left() == 0 {
		e := Event{Kind: Resumed, Bytes: u.offset}
		if u.whole {
			e.Reason, u.whole = "sent while it was packed", false
		}
		u.tell(e)
		return nil
	}
	var header []string
	if u.offset > 0 {
		header = []string{"Content-Range", fmt.Sprintf("%d-%d", u.offset, u.Size-1)}
	}
	resp, err := u.do(ctx, http.MethodPatch, u.session, body, header...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return u.took(resp, u.Size)
}

// took reads the answer to a PATCH, after which the session has n bytes.
func (u *upload) took(resp *http.Response, n int64) error {
	got, told := received(resp)
	if resp.StatusCode != http.StatusAccepted || told && got != n {
		e := newRefusal(resp)
		if e.StatusCode == http.StatusMethodNotAllowed || e.saysCode(errcode.ErrorCodeUnsupported) {
			u.r.c.learn(u.host, noChunks, true)
		}
		return e
	}
	return u.follow(resp)
}

// cancel ends a session, so that the registry can let go of what it has.
func (u *upload) cancel(ctx context.Context, session *url.URL) {
	if session == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if resp, err := u.do(withoutRetry(ctx), http.MethodDelete, session, nil); err == nil {
		resp.Body.Close()
	}
}

// keptSession is an upload that the next run may go on with.
type keptSession struct {
	Blob     string    `json:"blob"` // HOST/REPOSITORY@DIGEST
	Location string    `json:"location"`
	At       time.Time `json:"at"`
}

// sessionLife is how long a session is worth a question. Registries keep them
// for hours or days.
const sessionLife = 24 * time.Hour

func (u *upload) key() string {
	return u.host + "/" + u.r.Reference.Repository + "@" + u.Digest.String()
}

// recall goes on with the session of an earlier run that was killed, if the
// registry still has it, and keeps the session for the next one. Where another
// upload of the blob is under way, the one that is kept is that one's, and this
// one is not kept. Only locations in the repository itself count: whatever else a
// file says, no request is sent elsewhere for it.
func (u *upload) recall(ctx context.Context) {
	if !u.inParts || !u.claim(ctx) {
		return
	}
	begun := u.session
	var kept keptSession
	if u.lost == 0 && !u.kept && u.r.c.memory.get(uploadsKind, u.key(), &kept) &&
		kept.Blob == u.key() && fresh(kept.At, sessionLife) {
		if old, err := url.Parse(kept.Location); err == nil && u.ours(old) {
			u.session = old
			if u.ask(ctx) && u.offset > 0 {
				u.cancel(ctx, begun)
			} else {
				u.session, u.offset = begun, 0
			}
		}
	}
	u.keep()
}

// claim reports whether this upload may keep a session, which holds until release.
func (u *upload) claim(ctx context.Context) bool {
	if !u.asked && u.r.c.memory != nil {
		u.asked = true
		if release, ok := u.r.c.memory.claim(ctx, uploadsKind, u.key()); ok {
			u.claimed, u.release = true, release
		}
	}
	return u.claimed
}

// keep keeps the session for the next run.
func (u *upload) keep() {
	if u.ours(u.session) {
		u.kept = true
		u.r.c.memory.put(uploadsKind, u.key(), keptSession{u.key(), u.session.String(), time.Now().UTC()})
	}
}

// ours reports whether a session lies below the repository's uploads.
func (u *upload) ours(session *url.URL) bool {
	return sameOrigin(session, u.r.home()) && session.User == nil && path.Clean(session.Path) == session.Path &&
		strings.HasPrefix(session.Path, u.r.uploads(nil).Path)
}

// forget removes the session from the memory.
func (u *upload) forget() {
	if u.kept {
		u.r.c.memory.drop(uploadsKind, u.key())
		u.kept = false
	}
}

// uploadBody is the blob from an offset on, as often as a request needs it.
type uploadBody struct {
	u      *upload
	offset int64
	err    error // of the source; under the upload's lock
}

func (b *uploadBody) left() int64 { return b.u.Size - b.offset }

// broken is the error of the source that ended a request, or nil.
func (b *uploadBody) broken() error {
	b.u.mu.Lock()
	defer b.u.mu.Unlock()
	return b.err
}

// open opens the source and passes over what the session has.
func (b *uploadBody) open(ctx context.Context) (io.ReadCloser, error) {
	rc, err := b.u.blob.open(ctx)
	if err == nil && b.offset > 0 {
		if seeker, ok := rc.(io.Seeker); ok {
			_, err = seeker.Seek(b.offset, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, manifest.ContextReader(ctx, rc), b.offset)
		}
		if err != nil {
			rc.Close()
		}
	}
	b.u.mu.Lock()
	b.u.turn++
	turn := b.u.turn
	if err != nil && !errors.Is(err, errSpent) {
		b.err = err
	}
	b.u.mu.Unlock()
	if err != nil {
		return nil, &readError{err}
	}
	if turn > 1 || b.offset > 0 {
		b.u.tell(Event{Kind: Resumed, Bytes: b.offset})
	}
	return &bodyReader{ReadCloser: rc, b: b, ctx: ctx, turn: turn, left: b.left()}, nil
}

// bodyReader reads a body once. It ends where the blob should, and gives the
// last bytes only when the source says that it ends there, too: a source that
// has changed is never sent whole.
type bodyReader struct {
	io.ReadCloser
	b    *uploadBody
	ctx  context.Context
	turn int
	left int64

	closed bool // under the upload's lock: what fails from then on is not the source
}

func (r *bodyReader) Close() error {
	r.b.u.mu.Lock()
	r.closed = true
	r.b.u.mu.Unlock()
	return r.ReadCloser.Close()
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.read(p)
	u := r.b.u
	u.mu.Lock()
	current := r.turn == u.turn // net/http may still read the body of an earlier attempt
	if current && err != nil && err != io.EOF && !r.closed && r.ctx.Err() == nil {
		r.b.err = err
	}
	u.moved = time.Now()
	u.sent += int64(n)
	u.mu.Unlock()
	if current && n > 0 {
		u.tell(Event{Kind: Moved, Bytes: int64(n)})
	}
	return n, err
}

func (r *bodyReader) read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if r.left > 0 {
		if err == io.EOF {
			err = fmt.Errorf("%s: %d bytes are missing at its end: %w", r.b.u.Digest, r.left, content.ErrInvalidDescriptorSize)
		}
		return n, err
	}
	for err == nil {
		var more int
		if more, err = r.ReadCloser.Read(make([]byte, 1)); more > 0 {
			err = fmt.Errorf("%s: more than its %d bytes: %w", r.b.u.Digest, r.b.u.Size, content.ErrTrailingData)
		}
	}
	if err != io.EOF {
		return 0, err
	}
	return n, nil
}

var (
	_ registry.Mounter = (*repository)(nil)
	_ Target           = (*repository)(nil)
)
