// Package serve is an OCI registry over HTTP whose content is a directory of
// layouts: the local registry, for docker, oras and everyone else.
//
// [New] returns its handler, [Listen] and [Run] put it on the network. All
// state is in the directory, <root>/<repository>/_oci/, which any number of
// servers and commands may use at once and a kill at any moment leaves usable;
// see package layout.
//
// # What is spoken
//
// The [OCI distribution specification] 1.1, whole: pull with ranges, push in
// one or two requests or in chunks, mounts, tags in pages, referrers and
// deletion; and the catalog, which docker's registry added. Manifests, lists
// and deletion are ociserver's, over this package's [ociregistry.Interface].
// The bytes of blobs are served here, because only so are ranges whole, uploads
// checked for their order, and a mount that misses an upload.
//
// # What is refused
//
// A manifest of more than 4 MiB, one that is not of its media type, and one
// that refers to what is not there. A blob whose digest or size is not what was
// said. Deleting what a manifest consists of. Requests from web pages of other
// origins, also of those whose name has been made to mean this machine.
//
// [OCI distribution specification]: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options configure a handler. The zero value serves everything to everyone.
type Options struct {
	// Addr is the HOST:PORT that was given to [Listen]. It is a name for the
	// registry that requests on the loopback interface may use without a login,
	// beside localhost and the addresses of that interface.
	Addr string
	// ReadOnly refuses every request that would write.
	ReadOnly bool
	// Users are who may use the registry; nil: everyone.
	Users *Users
	// Log is told of every request at debug level, and of errors that clients
	// are not told in full; nil: nothing is logged.
	Log *slog.Logger
}

// open reports whether anybody may write.
func (o Options) open() bool { return !o.ReadOnly && o.Users == nil }

// New returns the registry of the directory root, which is made by the first
// write. The handler is for the root of a site.
func New(root string, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := http.Handler(newHandler(root, o.Log))
	if o.ReadOnly {
		h = readOnly(h)
	}
	if o.Users != nil {
		h = authenticate(h, o.Users)
	} else {
		h = sameHost(h, o.Addr)
	}
	// A web page must not write to a registry on its reader's machine.
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeFailure(w, denied("requests of web pages of other origins are refused"))
	}))
	return logged(noSniff(origin.Handler(h)), o.Log)
}

// Check returns an error, which wraps [ErrRoot], when root cannot be the
// directory of a registry: because it is something else, or lies in a layout.
// One that is yet to be made can.
func Check(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if slices.Contains(strings.Split(root, string(filepath.Separator)), layoutDir) {
		return fmt.Errorf("serve %q: %w: it is in the layout of a repository", root, ErrRoot)
	}
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("serve %q: %w: %w", root, ErrRoot, err)
	case !info.IsDir():
		return fmt.Errorf("serve %q: %w: not a directory", root, ErrRoot)
	}
	// By the file that every layout has.
	if _, err := os.Lstat(filepath.Join(root, v1.ImageLayoutFile)); err == nil {
		return fmt.Errorf("serve %q: %w: it is a layout", root, ErrRoot)
	}
	return nil
}

var (
	// ErrTaken says that an address is in use.
	ErrTaken = errors.New("address in use")
	// ErrOpen says that other machines could write without a login.
	ErrOpen = errors.New("open to the network")
	// ErrRoot says that a directory is none that a registry can be in.
	ErrRoot = errors.New("no place for a registry")
)

// Listen announces the address HOST:PORT for a handler of the options. The error
// wraps [ErrTaken] when another program has it, and [ErrOpen] when it is not of
// the loopback interface and anybody may write.
func Listen(ctx context.Context, addr string, o Options) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	const wsaeaddrinuse = syscall.Errno(10048) // of Windows, which package syscall lacks
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaeaddrinuse) {
		err = ErrTaken
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", addr, err)
	}
	// Asked of the listener, because names may mean anything.
	if tcp, ok := l.Addr().(*net.TCPAddr); o.open() && (!ok || !tcp.IP.IsLoopback()) {
		l.Close()
		return nil, fmt.Errorf("listen on %q: %w", addr, ErrOpen)
	}
	return l, nil
}

// stopTime is how long requests that are under way may take to end.
const stopTime = 9 * time.Second

// Run serves until ctx is done and the requests under way have ended, or have
// been cut after nine seconds; then it returns nil. It closes the listener.
func Run(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// No more timeouts: a model may take hours on a slow line.
	}
	if log != nil {
		srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close()
	}
	return nil
}
