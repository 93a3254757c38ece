package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"

	"galley/oci/layout"
)

// Target is a repository: content by descriptor, and tags. Registries and
// layouts satisfy it as they are. It is safe for concurrent use. Its methods
// return the errors of oras-go and of the network; [Client.Explain] puts them
// into words.
type Target interface {
	content.Storage
	content.TagResolver
	registry.TagLister
}

var (
	_ Target = (*layout.Store)(nil)
	_ Target = (*layout.Archive)(nil)
)

// Open returns the repository of r for reading. For a registry it sends no
// request yet. A layout that is missing is [ErrNotFound], and something else
// in its place [layout.ErrNotLayout], both in an [*Error].
func (c *Client) Open(_ context.Context, r Reference) (Target, error) {
	if r.Kind == Registry {
		return c.repository(r, false), nil
	}
	if r.isTar() {
		return archive(r, "open", layout.OpenArchive)
	}
	dir, err := c.Dir(r)
	if err != nil {
		return nil, err
	}
	store, err := layout.Open(dir)
	switch {
	case err == nil:
		return store, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Op: "open", Ref: r.String(), Detail: clean(err.Error()), Err: err}
	case r.Kind == Local:
		return nil, &Error{Op: "open", Ref: r.String(), Kind: ErrNotFound, Err: err,
			Detail: fmt.Sprintf("the local registry %q has no repository %s", c.o.LocalRoot, r.Repository)}
	}
	return nil, &Error{Op: "open", Ref: r.String(), Kind: ErrNotFound, Err: err,
		Detail: fmt.Sprintf("no OCI layout in directory %q", dir)}
}

// Create returns the repository of r for writing. A layout that is missing is
// made by the first write, not before; something else in its place is
// [layout.ErrNotLayout] in an [*Error]. For a registry it sends no request
// yet; the first one will ask for pull and push scope at once, so that a
// bearer token is fetched only once.
func (c *Client) Create(_ context.Context, r Reference) (Target, error) {
	if r.Kind == Registry {
		return c.repository(r, true), nil
	}
	if r.isTar() {
		return archive(r, "create", layout.CreateArchive)
	}
	dir, err := c.Dir(r)
	if err != nil {
		return nil, err
	}
	store, err := layout.Create(dir)
	if err != nil {
		return nil, &Error{Op: "create", Ref: r.String(), Detail: clean(err.Error()), Err: err}
	}
	return store, nil
}

// archive opens a layout in a tar file.
func archive(r Reference, op string, open func(string) (*layout.Archive, error)) (Target, error) {
	a, err := open(r.Path)
	switch {
	case err == nil:
		return a, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Op: op, Ref: r.String(), Kind: ErrNotFound, Err: err, Detail: fmt.Sprintf("no file %q", r.Path)}
	}
	return nil, &Error{Op: op, Ref: r.String(), Detail: clean(err.Error()), Err: err}
}

// flush makes a target that gathers what is written carry it out.
func flush(ctx context.Context, t Target) error {
	if f, ok := t.(interface{ Flush(context.Context) error }); ok {
		return f.Flush(ctx)
	}
	return nil
}

// repositoryDir is the layout's directory in a repository's. No repository
// component starts with an underscore, so that the layouts of "ml" and
// "ml/blobs" cannot collide.
const repositoryDir = "_oci"

// Dir returns the directory, or the .tar file, of the layout that r, of kind
// [Local] or [Layout], names. It need not exist.
func (c *Client) Dir(r Reference) (string, error) {
	switch r.Kind {
	case Layout:
		return r.Path, nil
	case Local:
		name := filepath.FromSlash(r.Repository)
		switch {
		case c.o.LocalRoot == "":
			return "", fmt.Errorf("open %s: no directory for the local registry", r)
		case !filepath.IsLocal(name): // a device name of Windows
			return "", fmt.Errorf("open %s: %q cannot be a directory here", r, r.Repository)
		}
		return filepath.Join(c.o.LocalRoot, name, repositoryDir), nil
	}
	return "", fmt.Errorf("open %s: a %s has no directory", r, r.Kind)
}

// LocalRoot returns the directory of the local registry: $GALLEY_LOCAL, else
// galley's place among the user's data:
//
//	%LocalAppData%\galley                  on Windows
//	~/Library/Application Support/galley   on macOS
//	$XDG_DATA_HOME/galley                  elsewhere; ~/.local/share/galley when it is unset
//
// env looks up environment variables, as [os.Getenv] does. The error says
// which variable is missing.
func LocalRoot(env func(string) string) (string, error) {
	return localRoot(runtime.GOOS, env)
}

func localRoot(goos string, env func(string) string) (string, error) {
	if dir := env("GALLEY_LOCAL"); dir != "" {
		return dir, nil
	}
	// A relative path in XDG_DATA_HOME is invalid and to be ignored:
	// https://specifications.freedesktop.org/basedir-spec/latest/
	home, data := homeDir(goos, env), env("XDG_DATA_HOME")
	switch {
	case goos == "windows" && env("LocalAppData") != "":
		return filepath.Join(env("LocalAppData"), "galley"), nil
	case goos == "windows":
		return "", errors.New("local registry: neither GALLEY_LOCAL nor LocalAppData is set")
	case goos != "darwin" && path.IsAbs(data):
		return filepath.Join(data, "galley"), nil
	case home == "":
		return "", errors.New("local registry: neither GALLEY_LOCAL nor HOME is set")
	case goos == "darwin":
		return filepath.Join(home, "Library", "Application Support", "galley"), nil
	}
	return filepath.Join(home, ".local", "share", "galley"), nil
}

// homeDir is the user's home, or "".
func homeDir(goos string, env func(string) string) string {
	if goos == "windows" {
		return env("USERPROFILE")
	}
	return env("HOME")
}
