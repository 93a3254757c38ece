package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"galley/manifest"
)

// What went wrong with a place, for errors.Is. An [*Error] is at most one of
// them.
var (
	// ErrUnauthorized: the registry wants a login, or refused it (401).
	ErrUnauthorized = errors.New("not authorised")
	// ErrForbidden: the login is good, but not for this (403).
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: no such repository, tag, manifest or blob. It is oras-go's.
	ErrNotFound = errdef.ErrNotFound
	// ErrConflict: the registry refuses to change what is there, as with
	// immutable tags (409, 412).
	ErrConflict = errors.New("conflict")
	// ErrUnreachable: no usable answer in spite of retries: the name does not
	// resolve, the connection is refused, cut or silent, or the server is
	// overloaded or broken (408, 429, 5xx). Later it may work.
	ErrUnreachable = errors.New("unreachable")
	// ErrTLS: no trusted connection: an unknown or wrong certificate, a
	// client certificate missing, or TLS and plain HTTP mixed up, which is
	// also an [ErrScheme].
	ErrTLS = errors.New("no trusted connection")
	// ErrNotRegistry: something answers, but not a registry.
	ErrNotRegistry = errors.New("not a registry")
	// ErrCorrupt: the bytes are not those that were promised.
	ErrCorrupt = errors.New("corrupt content")
)

// ErrScheme is the cause of an [ErrTLS] when one side speaks plain HTTP and
// the other TLS. It is net/http's, and stands here for both ways round.
var ErrScheme = http.ErrSchemeMismatch

// Error is what went wrong between galley and a place, in words made for a
// terminal: server texts in it are stripped of control characters and cut.
type Error struct {
	Op     string // what was tried: "push", "resolve", …
	Ref    string // on what
	Kind   error  // one of this package's sentinels; nil when none fits
	Host   string // the server that answered, or did not; "" for layouts
	Status int    // its HTTP status; 0 without an answer
	Detail string // the cause in words
	Err    error  // the cause
}

// Error returns `OP REF: DETAIL`.
func (e *Error) Error() string { return e.Op + " " + e.Ref + ": " + e.Detail }

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// Explain turns what oras-go, a [Target] or the network returned when op was
// tried on r into an [*Error]. Nil stays nil, and an error that holds an
// [*Error] already is returned as it is. Call it once, where the operation's
// name is known.
func (c *Client) Explain(op string, r Reference, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	e := &Error{Op: op, Ref: r.String(), Err: err}
	if r.Kind == Registry {
		e.Host = r.Registry
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		if parsed, err := url.Parse(u.URL); err == nil && parsed.Host != "" {
			e.Host = displayHost(parsed.Host)
		}
	}
	e.Detail, e.Kind = c.classify(e, r)
	return e
}

// classify finds words for e.Err and its kind, and fills in the status.
func (c *Client) classify(e *Error, r Reference) (detail string, kind error) {
	err := e.Err
	if errors.Is(err, context.Canceled) {
		return "interrupted", nil
	}
	if changed, ok := errors.AsType[*manifest.ChangedError](err); ok {
		return clean(changed.Error()), nil // what ended the request, not the registry
	}
	if _, ok := errors.AsType[*manifest.CorruptError](err); ok || isBadContent(err) {
		return text(e), ErrCorrupt
	}
	if resp, ok := errors.AsType[*errcode.ErrorResponse](err); ok {
		e.Status = resp.StatusCode
		if resp.URL != nil {
			e.Host = displayHost(resp.URL.Host)
		}
		return c.classifyStatus(e, r, resp)
	}
	if answer, ok := errors.AsType[*answerError](err); ok {
		e.Host, e.Status = displayHost(answer.host), answer.status
		return e.Host + " " + answer.why, answer.kind
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		e.Status = http.StatusUnauthorized
		return e.Host + " wants a login (401)", ErrUnauthorized
	}
	if _, ok := errors.AsType[*CredentialsError](err); ok {
		return clean(err.Error()), nil
	}
	if e.Host != "" {
		if detail := explainTLS(e.Host, err, c.certWanted.Load()); detail != "" {
			return detail, ErrTLS
		}
		if detail := explainNetwork(e.Host, err); detail != "" {
			return detail, ErrUnreachable
		}
	}
	switch {
	case errors.Is(err, ErrNotFound):
		if c.factsOf(e.Host, r).webPages.Load() {
			return e.Host + " answers with web pages: it is not a registry", ErrNotRegistry
		}
		return notThere(r, text(e)), ErrNotFound
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData),
		errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, io.ErrUnexpectedEOF):
		return text(e), ErrCorrupt
	}
	return text(e), nil
}

// isBadContent reports whether all bytes came, and make no sense.
func isBadContent(err error) bool {
	return errors.Is(err, manifest.ErrBadTar) || errors.Is(err, manifest.ErrMalformed) || errors.Is(err, manifest.ErrBadLayer) ||
		errors.Is(err, manifest.ErrUnsafePath)
}

// notThere names what was not found, where the cause says no more than that.
func notThere(r Reference, text string) string {
	switch {
	case text != errdef.ErrNotFound.Error():
		return text
	case r.Digest != "":
		return "no manifest of that digest there"
	}
	return "no tag " + r.TagOrDigest() + " there"
}

// classifyStatus explains an answer that is an error.
func (c *Client) classifyStatus(e *Error, r Reference, resp *errcode.ErrorResponse) (detail string, kind error) {
	facts := c.factsOf(e.Host, r)
	anonymous, webPages := facts.anonymous.Load(), facts.webPages.Load()
	var what string
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized && anonymous:
		kind, what = ErrUnauthorized, "wants a login"
	case status == http.StatusUnauthorized:
		kind, what = ErrUnauthorized, "refused the credentials"
	case status == http.StatusForbidden && anonymous:
		kind, what = ErrForbidden, "denies access without a login"
	case status == http.StatusForbidden:
		kind, what = ErrForbidden, "denies access"
	case status == http.StatusNotFound && webPages:
		kind, what = ErrNotRegistry, "answers with web pages: it is not a registry"
	case status == http.StatusNotFound:
		kind, what = ErrNotFound, "does not have it"
	case status == http.StatusConflict || status == http.StatusPreconditionFailed:
		kind, what = ErrConflict, "refuses to change what is there"
	case status == http.StatusBadRequest && resp.Method != http.MethodGet && resp.Method != http.MethodHead && slices.ContainsFunc(resp.Errors, isDigestInvalid):
		kind, what = ErrCorrupt, "received other bytes than were sent"
	case status == http.StatusRequestEntityTooLarge:
		what = "takes no uploads of this size"
	case status == http.StatusTooManyRequests:
		kind, what = ErrUnreachable, "limits the rate of requests"
	case status >= 500 && status != http.StatusNotImplemented, status == http.StatusRequestTimeout:
		kind, what = ErrUnreachable, "cannot answer now: "+http.StatusText(status)
	default:
		what = "answered: " + http.StatusText(status)
	}
	detail = fmt.Sprintf("%s %s (%d)", e.Host, what, resp.StatusCode)
	if refused, ok := errors.AsType[*refusal](e.Err); ok && refused.after > 0 {
		detail += fmt.Sprintf(" and asks to wait %.0f s", refused.after.Seconds())
	}
	if said := serverText(resp.Errors); said != "" {
		detail += ": " + said
	}
	return detail, kind
}

func isDigestInvalid(e errcode.Error) bool { return e.Code == errcode.ErrorCodeDigestInvalid }

// serverText is what a registry said, cleaned. Its details are left out: they
// are structures meant for programs.
func serverText(errs errcode.Errors) string {
	var all []string
	for _, e := range errs {
		all = append(all, errcode.Error{Code: e.Code, Message: e.Message}.Error())
	}
	return clean(strings.Join(all, "; "))
}

// explainTLS says why there is no trusted connection, or nothing when that is
// not the trouble. certWanted says that some server asked for a client
// certificate in vain.
func explainTLS(host string, err error, certWanted bool) string {
	if errors.Is(err, ErrScheme) {
		return host + " speaks plain HTTP, not TLS"
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		names := "no name"
		if wrong.Certificate != nil && len(wrong.Certificate.DNSNames) > 0 {
			names = clean(strings.Join(wrong.Certificate.DNSNames, ", "))
		}
		return fmt.Sprintf("the certificate of %s is for %s", host, names)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return fmt.Sprintf("the certificate of %s has expired or is not yet valid", host)
		}
		return fmt.Sprintf("the certificate of %s is invalid: %s", host, clean(invalid.Error()))
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, system := errors.AsType[x509.SystemRootsError](err)
	if unknown || system {
		return fmt.Sprintf("the certificate of %s is signed by an authority unknown here", host)
	}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("the certificate of %s is refused: %s", host, clean(bad.Err.Error()))
	}
	if record, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Sprintf("%s does not speak TLS: %s", host, clean(record.Msg))
	}
	if certWanted && brokeOff(err) {
		return host + " broke off the connection: it asks for a client certificate"
	}
	// crypto/tls reports an alert of the other side as this operation.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return fmt.Sprintf("%s broke off the TLS handshake: %s", host, clean(op.Err.Error()))
	}
	return ""
}

// brokeOff reports whether a request failed on a connection that stood. With
// TLS 1.3 a server refuses a client only then, and what net/http makes of that
// depends on the moment.
func brokeOff(err error) bool {
	if u, ok := errors.AsType[*url.Error](err); !ok || u.Timeout() {
		return false
	}
	if _, local := errors.AsType[*fs.PathError](err); local { // of a file being sent
		return false
	}
	op, ok := errors.AsType[*net.OpError](err)
	return !ok || op.Op != "dial" && op.Op != "proxyconnect"
}

// explainNetwork says why there is no answer, or nothing when that is not the
// trouble.
func explainNetwork(host string, err error) string {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		if name.IsNotFound {
			return fmt.Sprintf("no such host %q", name.Name)
		}
		return fmt.Sprintf("host name %q cannot be looked up: %s", name.Name, clean(name.Err))
	}
	if stall, ok := errors.AsType[*stallError](err); ok {
		return host + " is silent: " + stall.Error()
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return host + " did not answer in time"
	}
	if _, ok := errors.AsType[streamError](err); ok {
		return host + " cut the connection"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch {
		case op.Op == "proxyconnect":
			return "the proxy does not answer: " + clean(op.Err.Error())
		case op.Op == "dial":
			return fmt.Sprintf("%s does not answer: %s", host, clean(op.Err.Error()))
		}
		return fmt.Sprintf("%s cut the connection: %s", host, clean(op.Err.Error()))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return host + " cut the connection"
	}
	return ""
}

// text is the cause in its own words, without what e says anyway.
func text(e *Error) string {
	err := e.Err
	if side, ok := errors.AsType[*oras.CopyError](err); ok {
		err = side.Err
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	s := clean(err.Error())
	return strings.TrimPrefix(s, e.Ref+": ")
}

// maxText bounds in bytes what is shown of a foreign text.
const maxText = 300

var urlQuery = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(://[^\s"?]*)\?[^\s"]*`) })

// clean makes a foreign text fit for one line of a terminal: no control or
// invisible characters, no queries of URLs, for they carry signatures and
// tokens, and not more than maxText.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = urlQuery().ReplaceAllString(strings.Join(strings.Fields(s), " "), "$1")
	if len(s) <= maxText {
		return s
	}
	// The cause stands at the end, the subject at the beginning.
	end, begin := maxText*2/3, len(s)-maxText/3
	for !utf8.RuneStart(s[end]) {
		end--
	}
	for !utf8.RuneStart(s[begin]) {
		begin++
	}
	return s[:end] + "…" + s[begin:]
}
