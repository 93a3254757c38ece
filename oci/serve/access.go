package serve

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// readOnly refuses requests that would write.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeFailure(w, &failure{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "this registry is read-only"})
			return
		}
		next.ServeHTTP(w, req)
	})
}

func denied(message string) *failure {
	return &failure{status: http.StatusForbidden, code: "DENIED", message: message}
}

// sameHost refuses requests over the loopback interface that are for another
// host: a web page may have its own name resolved to this machine, and is then of
// the same origin. addr is where the registry listens; on all interfaces, it
// goes by names that nobody here knows.
func sameHost(next http.Handler, addr string) http.Handler {
	own, all := "", false
	if addr != "" {
		own = hostname(addr)
		ip := net.ParseIP(own)
		all = own == "" || ip != nil && ip.IsUnspecified()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		local, ok := req.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		host := hostname(req.Host)
		ip := net.ParseIP(host)
		switch {
		case all || !ok || !local.IP.IsLoopback(),
			strings.EqualFold(host, own) || strings.EqualFold(host, "localhost"),
			ip != nil && ip.IsLoopback():
			next.ServeHTTP(w, req)
		default:
			writeFailure(w, denied("this registry is for its own machine only, and not known as the host of the request"))
		}
	})
}

// hostname is HOST, HOST:PORT, [IP] or [IP]:PORT without what is not its host.
func hostname(addr string) string { return (&url.URL{Host: addr}).Hostname() }

// noSniff keeps browsers from taking a blob for a page.
func noSniff(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, req)
	})
}

// authenticate lets users pass.
func authenticate(next http.Handler, users *Users) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, password, ok := req.BasicAuth()
		if !ok || !users.allow(name, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="galley", charset="UTF-8"`)
			writeFailure(w, &failure{status: http.StatusUnauthorized, code: "UNAUTHORIZED", message: "a login is needed"})
			return
		}
		next.ServeHTTP(w, req)
	})
}

// Users are names with hashed passwords.
type Users struct {
	hashes map[string][]byte
	nobody []byte   // a hash to compare with when there is no such user
	known  sync.Map // of [sha256.Size]byte by name: passwords found right, for bcrypt is slow on purpose
}

// maxUsers bounds a file of users in bytes.
const maxUsers = 1 << 20

// ParseUsers reads lines of NAME:HASH as `htpasswd -B` writes them, with hashes
// by bcrypt; others are refused. Empty lines and those that begin with # are
// passed over. The error says which line is wrong, and never shows it.
func ParseUsers(r io.Reader) (*Users, error) {
	u := &Users{hashes: make(map[string][]byte)}
	lines := bufio.NewScanner(io.LimitReader(r, maxUsers+1))
	size := 0
	for n := 1; lines.Scan(); n++ {
		size += len(lines.Bytes()) + 1
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d: want NAME:HASH", n)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: no hash by bcrypt, as htpasswd -B makes it", n)
		}
		if u.nobody == nil {
			u.nobody = []byte(hash)
		}
		u.hashes[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if size > maxUsers {
		return nil, fmt.Errorf("more than %d bytes", maxUsers)
	}
	if len(u.hashes) == 0 {
		return nil, fmt.Errorf("no users")
	}
	return u, nil
}

// allow reports whether the password is the user's.
func (u *Users) allow(name, password string) bool {
	sum := sha256.Sum256([]byte(password))
	if known, ok := u.known.Load(name); ok {
		known := known.([sha256.Size]byte)
		if subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
			return true
		}
	}
	hash, ok := u.hashes[name]
	if !ok {
		// As slow as for a user, so that nobody finds out who there is.
		bcrypt.CompareHashAndPassword(u.nobody, []byte(password))
		return false
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return false
	}
	u.known.Store(name, sum)
	return true
}

// logged tells log of every request, without secrets: queries hold none here,
// and headers are left out.
func logged(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !log.Enabled(req.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, req)
			return
		}
		start := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, req)
		log.DebugContext(req.Context(), "request", "method", req.Method, "url", req.URL.Redacted(), "status", rec.status,
			"bytes", rec.bytes, "time", time.Since(start).Round(time.Microsecond), "from", req.RemoteAddr)
	})
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer].
func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom], so that the kernel may still send files.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
