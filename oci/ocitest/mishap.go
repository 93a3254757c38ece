package ocitest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Mishap is what happens to a request or to its answer. It does what is left of
// serving it, by way of [Passage.Pass] or without.
type Mishap func(p *Passage, w http.ResponseWriter, r *http.Request)

// Passage is the way of one request from a rule to the registry.
type Passage struct {
	proxy  *Proxy
	rule   *rule
	next   http.Handler
	calmed <-chan struct{}
}

// Pass hands the request on to the next rule, or to the registry.
func (p *Passage) Pass(w http.ResponseWriter, r *http.Request) { p.next.ServeHTTP(w, r) }

// Now reports whether the mishap, which is about to happen, does: it may have
// happened often enough.
func (p *Passage) Now() bool {
	p.proxy.mu.Lock()
	defer p.proxy.mu.Unlock()
	n := p.rule.seen - p.rule.Skip
	p.rule.seen++
	return n >= 0 && (p.rule.Times == 0 || n < p.rule.Times)
}

// hang waits until the client is gone, more is done, or the proxy is closed.
func (p *Passage) hang(r *http.Request, more <-chan struct{}) {
	select {
	case p.proxy.stalled <- struct{}{}:
	default: // nobody counts that far
	}
	select {
	case <-r.Context().Done():
	case <-p.proxy.closed:
	case <-more:
	}
}

// Direction is which way bytes go.
type Direction int

// The directions.
const (
	Up   Direction = iota // requests
	Down                  // answers
)

// Half is the middle of a body. It, and bytes counted from the end by a negative
// number, are those of a body whose length is told before it; else the first.
const Half int64 = math.MinInt64

// Cut cuts the connection after that many bytes of the body; after 0 of a
// request before the registry sees it, after 0 of an answer before the client
// sees its header.
func Cut(d Direction, after int64) Mishap { return atByte(d, after, cut, nil) }

// Stall sends no more after that many bytes, as [Cut] counts them, until the
// proxy is closed.
func Stall(d Direction, after int64) Mishap { return atByte(d, after, stall, nil) }

// Pause is a [Stall] that ends with the next call of [Proxy.Calm].
func Pause(d Direction, after int64) Mishap { return atByte(d, after, pause, nil) }

// Corrupt flips a bit of the byte at that offset.
func Corrupt(d Direction, at int64) Mishap { return atByte(d, at, flip, nil) }

// End ends the body after that many bytes as if that were all of it.
func End(d Direction, after int64) Mishap { return atByte(d, after, end, nil) }

// Do calls f after that many bytes, as [Cut] counts them, before any more pass.
func Do(d Direction, after int64, f func()) Mishap { return atByte(d, after, call, f) }

// action is what happens at a byte.
type action int

const (
	cut action = iota
	stall
	pause
	flip
	end
	call
)

// spoiler does something at one byte of a body.
type spoiler struct {
	*Passage
	r    *http.Request
	at   int64
	do   action
	f    func()
	seen int64       // bytes so far
	sure bool        // it will happen
	over bool        // it has happened, or will not
	gone atomic.Bool // no more of the body passes
}

func atByte(d Direction, at int64, do action, f func()) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		s := &spoiler{Passage: p, r: r, at: at, do: do, f: f}
		if d == Up {
			s.serveUp(w, r)
		} else {
			s.serveDown(w, r)
		}
	}
}

// announce is told the length of the body, -1 if unknown, and returns the one
// to tell the other side.
func (s *spoiler) announce(length int64) int64 {
	switch {
	case s.at == Half:
		s.at = max(0, length/2)
	case s.at < 0:
		s.at = max(0, length+s.at)
	}
	if s.do != end || length <= s.at {
		return length
	}
	if !s.Now() {
		s.over = true
		return length
	}
	s.sure = true
	return s.at
}

// atStart reports whether it happens before there is a body.
func (s *spoiler) atStart() bool { return s.at == 0 && s.do != flip && s.do != end }

// reached reports whether the next byte is the one.
func (s *spoiler) reached() bool { return !s.over && s.seen == s.at }

// until returns how many of the next n bytes pass before it happens.
func (s *spoiler) until(n int) int {
	if s.over || s.seen >= s.at {
		return n
	}
	return int(min(int64(n), s.at-s.seen))
}

// strike does what happens at the first byte of p, if it does happen.
func (s *spoiler) strike(p []byte) {
	s.over = true
	if !s.sure && !s.Now() {
		return
	}
	switch s.do {
	case cut, end:
		s.gone.Store(true)
	case stall:
		s.hang(s.r, nil)
		s.gone.Store(true)
	case pause:
		s.hang(s.r, s.calmed)
	case flip:
		p[0] ^= 1
	case call:
		s.f()
	}
}

// lost reports whether the connection is.
func (s *spoiler) lost() bool { return s.gone.Load() && s.do != end }

func (s *spoiler) serveUp(w http.ResponseWriter, r *http.Request) {
	if length := s.announce(r.ContentLength); length != r.ContentLength {
		r.ContentLength = length
		r.Header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	if s.atStart() {
		s.strike(nil)
	}
	if !s.lost() {
		body := r.Body
		r.Body = &spoiledBody{body, s}
		s.Pass(&muteWriter{w, s}, r)
		if !s.lost() {
			io.Copy(io.Discard, body)
		}
	}
	if s.lost() {
		panic(http.ErrAbortHandler)
	}
}

// errCut is what a registry gets instead of the rest of a request.
var errCut = errors.New("the connection was cut")

// spoiledBody is the body of a request on its way to the registry.
type spoiledBody struct {
	io.ReadCloser
	s *spoiler
}

func (b *spoiledBody) Read(p []byte) (int, error) {
	var n int
	var err error
	if !b.s.gone.Load() {
		n, err = b.ReadCloser.Read(p[:b.s.until(len(p))])
		if n > 0 && b.s.reached() {
			b.s.strike(p)
		}
	}
	switch {
	case b.s.lost():
		return 0, errCut
	case b.s.gone.Load():
		return 0, io.EOF
	}
	b.s.seen += int64(n)
	return n, err
}

// muteWriter keeps the answer from a client whose connection is lost.
type muteWriter struct {
	http.ResponseWriter
	s *spoiler
}

func (w *muteWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *muteWriter) WriteHeader(status int) {
	if !w.s.lost() {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *muteWriter) Write(p []byte) (int, error) {
	if w.s.lost() {
		return 0, errCut
	}
	return w.ResponseWriter.Write(p)
}

func (s *spoiler) serveDown(w http.ResponseWriter, r *http.Request) {
	spoiled := &spoiledWriter{s: s}
	spoiled.headed = headed{ResponseWriter: w, edit: spoiled.start}
	s.Pass(spoiled, r)
	spoiled.finish()
}

// spoiledWriter is an answer on its way to the client.
type spoiledWriter struct {
	headed
	s *spoiler
}

// start sees the header before the client does.
func (w *spoiledWriter) start(h http.Header) {
	if w.s.r.Method != http.MethodHead {
		length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
		if err != nil {
			length = -1
		}
		if told := w.s.announce(length); told != length {
			h.Set("Content-Length", strconv.FormatInt(told, 10))
		}
	}
	if w.s.atStart() {
		w.strike(nil)
	}
}

func (w *spoiledWriter) strike(p []byte) {
	w.s.strike(p)
	if w.s.lost() {
		panic(http.ErrAbortHandler)
	}
}

func (w *spoiledWriter) Write(p []byte) (int, error) {
	w.finish()
	for done := 0; done < len(p); {
		piece := p[done:]
		if w.s.reached() {
			flush(w.ResponseWriter)
			if w.s.do == flip {
				piece = slices.Clone(piece) // a writer leaves what it is given alone
			}
			w.strike(piece)
		}
		if w.s.gone.Load() {
			break
		}
		n, err := w.ResponseWriter.Write(piece[:w.s.until(len(piece))])
		done += n
		w.s.seen += int64(n)
		if err != nil {
			return done, err
		}
	}
	return len(p), nil
}

// headed sees to the header of an answer before it goes.
type headed struct {
	http.ResponseWriter
	edit  func(http.Header)
	wrote bool
}

func (w *headed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *headed) WriteHeader(status int) {
	if !w.wrote && status >= 200 {
		w.wrote = true
		w.edit(w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

// finish writes the header of an answer that has nothing else to say.
func (w *headed) finish() {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *headed) Write(p []byte) (int, error) {
	w.finish()
	return w.ResponseWriter.Write(p)
}

func flush(w http.ResponseWriter) { http.NewResponseController(w).Flush() }

// Delay holds back the request, or the answer with its header.
func Delay(d Direction, by time.Duration) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		atByte(d, 0, call, func() { p.proxy.sleep(by) })(p, w, r)
	}
}

// Drip lets so many bytes of the body pass at once, and then none for a while.
func Drip(d Direction, piece int, every time.Duration) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		wait := func() { p.proxy.sleep(every) }
		switch {
		case !p.Now():
		case d == Up:
			r.Body = &drippingBody{r.Body, piece, wait}
		default:
			w = &drippingWriter{w, piece, wait}
		}
		p.Pass(w, r)
	}
}

type drippingBody struct {
	io.ReadCloser
	piece int
	wait  func()
}

func (b *drippingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.piece)])
	if n > 0 {
		b.wait()
	}
	return n, err
}

type drippingWriter struct {
	http.ResponseWriter
	piece int
	wait  func()
}

func (w *drippingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *drippingWriter) Write(p []byte) (int, error) {
	done := 0
	for piece := range slices.Chunk(p, w.piece) {
		n, err := w.ResponseWriter.Write(piece)
		done += n
		if err != nil {
			return done, err
		}
		flush(w.ResponseWriter)
		w.wait()
	}
	return done, nil
}

// Answer gives an error of a registry, with more header fields: name, value, and
// so on. Up, the registry does not see the request; Down, it has done what was
// asked.
func Answer(d Direction, status int, code string, header ...string) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if !p.Now() {
			p.Pass(w, r)
			return
		}
		if d == Down {
			p.Pass(silent{}, r)
		}
		io.Copy(io.Discard, r.Body)
		for pair := range slices.Chunk(header, 2) {
			w.Header().Set(pair[0], pair[1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"as told"}]}`, code)
	}
}

// silent is an answer that nobody gets.
type silent http.Header

func (s silent) Header() http.Header         { return http.Header(s) }
func (s silent) Write(p []byte) (int, error) { return len(p), nil }
func (s silent) WriteHeader(int)             {}

// Header edits the header of the answer.
func Header(edit func(http.Header)) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		edited := &headed{ResponseWriter: w, edit: func(h http.Header) {
			if p.Now() {
				edit(h)
			}
		}}
		p.Pass(edited, r)
		edited.finish()
	}
}

// Clock tells a time in Date that is ahead of the true one.
func Clock(ahead func() time.Duration) Mishap {
	return Header(func(h http.Header) { h.Set("Date", time.Now().Add(ahead()).UTC().Format(http.TimeFormat)) })
}

// Length tells a Content-Length that is off by so many bytes: with more, the
// connection ends before the body does; with less, the body ends early.
func Length(by int64) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if by < 0 && r.Method != http.MethodHead {
			End(Down, by)(p, w, r)
			return
		}
		Header(func(h http.Header) {
			if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
				h.Set("Content-Length", strconv.FormatInt(max(0, length+by), 10))
			}
		})(p, w, r)
	}
}

// Chunked tells no Content-Length.
func Chunked() Mishap {
	return Header(func(h http.Header) {
		h.Del("Content-Length")
		h.Set("Transfer-Encoding", "chunked") // else net/http counts what is short
	})
}

// Location edits where an answer says that something is; u has scheme and host.
func Location(edit func(u *url.URL)) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		edited := &headed{ResponseWriter: w, edit: func(h http.Header) {
			u, err := url.Parse(h.Get("Location"))
			if err == nil && h.Get("Location") != "" && p.Now() {
				u = origin(r).ResolveReference(u)
				edit(u)
				h.Set("Location", u.String())
			}
		}}
		p.Pass(edited, r)
		edited.finish()
	}
}

// origin is the URL of the request as the client sees it.
func origin(r *http.Request) *url.URL {
	u := *r.URL
	u.Scheme, u.Host = "http", r.Host
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return &u
}

// RelativeLocation leaves scheme and host out.
func RelativeLocation(u *url.URL) { u.Scheme, u.Host = "", "" }

// OtherHost returns an edit that leads to host[:port].
func OtherHost(host string) func(*url.URL) { return func(u *url.URL) { u.Host = host } }

// The query of a location that [SignedLocation] gives: not in the order of the
// names, and with characters that have to stay escaped.
const signature = "z=1&sig=a%2Bb%2F%3D&a=2"

// SignedLocation gives uploads a location with a query of its own, and knows no
// upload by another location.
func SignedLocation() Mishap {
	sign := Location(func(u *url.URL) {
		if u.RawQuery != "" {
			u.RawQuery = "&" + u.RawQuery
		}
		u.RawQuery = signature + u.RawQuery
	})
	refuse := Answer(Up, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		signed := q.Get("z") == "1" && q.Get("sig") == "a+b/=" && q.Get("a") == "2"
		if KindOf(r) == Uploads && r.Method != http.MethodPost && !signed {
			refuse(p, w, r)
			return
		}
		sign(p, w, r)
	}
}

// Redirect sends the client to the same path on another host[:port].
func Redirect(host string) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if r.Host == host || !p.Now() {
			p.Pass(w, r)
			return
		}
		to := origin(r)
		to.Host = host
		http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
	}
}

// IgnoreRange answers with all of a blob where a part was asked for.
func IgnoreRange() Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" && p.Now() {
			r.Header.Del("Range")
		}
		p.Pass(w, r)
	}
}

// OtherRange answers with a part that starts so many bytes later than the one
// asked for, and says so in Content-Range.
func OtherRange(by int64) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		var from int64
		var rest string
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d%s", &from, &rest); n == 2 && p.Now() {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d%s", max(0, from+by), rest))
		}
		p.Pass(w, r)
	}
}

// Serve has another handler serve the request.
func Serve(h http.Handler) Mishap {
	return func(p *Passage, w http.ResponseWriter, r *http.Request) {
		if !p.Now() {
			p.Pass(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}
}
