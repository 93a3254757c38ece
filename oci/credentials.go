package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// CredentialsError says that stored credentials cannot be read or written.
type CredentialsError struct {
	File   string // the configuration file
	Helper string // the program named in it that failed; "" when the file is at fault
	Err    error
}

// Error names the file and the helper.
func (e *CredentialsError) Error() string {
	if e.Helper == "" {
		return fmt.Sprintf("credentials file %q: %v", e.File, e.Err)
	}
	return fmt.Sprintf("credentials helper %q of %q: %v", e.Helper, e.File, e.Err)
}

// Unwrap returns the cause.
func (e *CredentialsError) Unwrap() error { return e.Err }

// Stored says where [Client.Login] left the credentials.
type Stored struct {
	File   string // the configuration file
	Helper string // the program that keeps them; "" when File has them in plain text
}

// Login tries the credentials on a registry, host[:port], and stores them
// where docker would: with the credential helper that docker's configuration
// names or, when that is empty, with the system's; else in the file itself, in
// plain text and readable by the user alone. An empty username makes the
// password an identity token.
//
// The error is a [*ReferenceError], an [*Error] or a [*CredentialsError].
func (c *Client) Login(ctx context.Context, host, username, password string) (Stored, error) {
	host, err := ParseRegistry(host)
	if err != nil {
		return Stored{}, err
	}
	cred := auth.Credential{Username: username, Password: password}
	if username == "" {
		cred = auth.Credential{RefreshToken: password}
	}
	if err := c.tryLogin(ctx, host, cred); err != nil {
		return Stored{}, err
	}
	file, err := c.loginFile()
	if err != nil {
		return Stored{}, err
	}
	config, err := readConfig(file)
	if err != nil {
		return Stored{}, err
	}
	store, err := credentials.NewStore(file, credentials.StoreOptions{AllowPlaintextPut: true, DetectDefaultNativeStore: true})
	if err == nil {
		err = store.Put(ctx, credentials.ServerAddressFromRegistry(host), cred)
	}
	if err != nil {
		return Stored{}, &CredentialsError{File: file, Helper: config.helper(host), Err: err}
	}
	if config, err = readConfig(file); err != nil {
		return Stored{}, err
	}
	return Stored{File: file, Helper: config.helper(host)}, nil
}

// tryLogin sends the request that docker login sends.
func (c *Client) tryLogin(ctx context.Context, host string, cred auth.Credential) error {
	r := Reference{Kind: Registry, Registry: host}
	if cred == auth.EmptyCredential {
		return &Error{Op: "login", Ref: r.String(), Kind: ErrUnauthorized, Host: host,
			Detail: "the password is empty", Err: errors.New("empty password")}
	}
	reg := &remote.Registry{RepositoryOptions: remote.RepositoryOptions{
		Client:    c.newAuth(func(context.Context, string) (auth.Credential, error) { return cred, nil }),
		Reference: registry.Reference{Registry: host},
		PlainHTTP: c.plainHTTP(host),
	}}
	err := reg.Ping(ctx)
	if errors.Is(err, errdef.ErrNotFound) {
		return &Error{Op: "login", Ref: r.String(), Kind: ErrNotRegistry, Host: host, Status: http.StatusNotFound,
			Detail: host + " has no registry at /v2/ (404)", Err: err}
	}
	return c.Explain("login", r, err)
}

// Logout removes a registry's credentials from where [Client.Login] puts them.
// The error wraps [ErrNotFound] when there are none, and is otherwise of the
// types that Login returns.
func (c *Client) Logout(ctx context.Context, host string) error {
	host, err := ParseRegistry(host)
	if err != nil {
		return err
	}
	file, err := c.loginFile()
	if err != nil {
		return err
	}
	config, err := readConfig(file)
	if err != nil {
		return err
	}
	addresses := config.addresses(host)
	if config.helper(host) != "" {
		addresses = []string{credentials.ServerAddressFromRegistry(host)}
	}
	if len(addresses) == 0 {
		return &Error{Op: "logout", Ref: host, Kind: ErrNotFound, Host: host,
			Detail: fmt.Sprintf("not logged in by %q", file), Err: ErrNotFound}
	}
	store, err := credentials.NewStore(file, credentials.StoreOptions{})
	for _, address := range addresses {
		if err == nil {
			err = store.Delete(ctx, address)
		}
	}
	if err != nil {
		return &CredentialsError{File: file, Helper: config.helper(host), Err: err}
	}
	return nil
}

// credential finds the credentials for one repository. It is called only when
// the registry has asked for some.
func (c *Client) credential(host, repository string) auth.CredentialFunc {
	api := registry.Reference{Registry: host}.Host()
	return func(ctx context.Context, asking string) (auth.Credential, error) {
		if asking != api {
			return auth.EmptyCredential, nil
		}
		for _, file := range c.credentialFiles() {
			config, err := readConfig(file)
			if err != nil {
				return auth.EmptyCredential, err
			}
			cred, err := config.find(ctx, host, repository)
			if err != nil {
				return auth.EmptyCredential, err
			}
			if cred != auth.EmptyCredential {
				c.o.Log.DebugContext(ctx, "credentials found", "registry", host, "file", file)
				c.facts(host).anonymous.Store(false)
				return cred, nil
			}
		}
		c.o.Log.DebugContext(ctx, "no credentials", "registry", host)
		c.facts(host).anonymous.Store(true)
		return auth.EmptyCredential, nil
	}
}

// dockerConfig is docker's configuration file, or "" without a home.
func (c *Client) dockerConfig() string {
	if dir := c.o.Env("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	if home := homeDir(runtime.GOOS, c.o.Env); home != "" {
		return filepath.Join(home, ".docker", "config.json")
	}
	return ""
}

// credentialFiles are the files to look in, in this order: those of the
// options, or docker's and then podman's.
func (c *Client) credentialFiles() []string {
	if len(c.o.RegistryConfig) > 0 {
		return c.o.RegistryConfig
	}
	files := []string{c.dockerConfig(), c.o.Env("REGISTRY_AUTH_FILE")}
	if dir := c.o.Env("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	config := c.o.Env("XDG_CONFIG_HOME")
	if home := homeDir(runtime.GOOS, c.o.Env); config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		files = append(files, filepath.Join(config, "containers", "auth.json"))
	}
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// loginFile is the file that a login writes, symbolic links resolved: oras-go
// replaces it, and people keep it among their dotfiles.
func (c *Client) loginFile() (string, error) {
	file := c.dockerConfig()
	if len(c.o.RegistryConfig) > 0 {
		file = c.o.RegistryConfig[0]
	}
	if file == "" {
		return "", errors.New("credentials: neither DOCKER_CONFIG nor HOME is set")
	}
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	return file, nil
}

// configFile is what docker's config.json and podman's auth.json say of
// credentials.
type configFile struct {
	path string

	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]string          `json:"credHelpers"`
}

// authEntry is one of the values of auths.
type authEntry struct {
	Auth          string `json:"auth"` // base64 of username:password
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
	Username      string `json:"username"`
	Password      string `json:"password"`
}

// maxConfig bounds a configuration file in bytes.
const maxConfig = 4 << 20

// readConfig reads a file; a missing or empty one holds nothing.
func readConfig(path string) (*configFile, error) {
	config := &configFile{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // the latter for HOME=/dev/null
		return config, nil
	}
	if err != nil {
		return nil, &CredentialsError{File: path, Err: err}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
	case len(data) > maxConfig:
		err = fmt.Errorf("larger than %d bytes", maxConfig)
	case len(bytes.TrimSpace(data)) > 0:
		err = json.Unmarshal(data, config)
	}
	if err != nil {
		return nil, &CredentialsError{File: path, Err: err}
	}
	return config, nil
}

// find returns the credentials for a repository: of the helper, else of the
// longest key that is the repository's registry or a path above it. It returns
// nothing when there are none or only empty ones.
func (f *configFile) find(ctx context.Context, host, repository string) (auth.Credential, error) {
	if helper := f.helper(host); helper != "" {
		suffix := strings.TrimPrefix(helper, helperPrefix)
		cred, err := credentials.NewNativeStore(suffix).Get(ctx, credentials.ServerAddressFromRegistry(host))
		if err != nil {
			return auth.EmptyCredential, &CredentialsError{File: f.path, Helper: helper, Err: err}
		}
		if cred != auth.EmptyCredential {
			return cred, nil
		}
	}
	var best string
	var found auth.Credential
	for _, key := range slices.Sorted(maps.Keys(f.Auths)) {
		name := serverName(key)
		if !strings.HasPrefix(host+"/"+repository+"/", name+"/") || len(name) < len(best) {
			continue
		}
		cred, err := decodeEntry(f.Auths[key])
		if err != nil {
			return auth.EmptyCredential, &CredentialsError{File: f.path, Err: fmt.Errorf("auths %q: %w", key, err)}
		}
		// Of two spellings of one name the plain one counts.
		if cred != auth.EmptyCredential && (len(name) > len(best) || key == name) {
			best, found = name, cred
		}
	}
	return found, nil
}

// addresses returns the keys of auths that stand for the whole registry.
func (f *configFile) addresses(host string) []string {
	keys := slices.Sorted(maps.Keys(f.Auths))
	return slices.DeleteFunc(keys, func(key string) bool { return serverName(key) != host })
}

const helperPrefix = "docker-credential-"

// helper returns the program that keeps the registry's credentials, or "".
func (f *configFile) helper(host string) string {
	suffix := f.CredsStore
	for _, key := range slices.Sorted(maps.Keys(f.CredHelpers)) {
		if serverName(key) == host {
			suffix = f.CredHelpers[key]
		}
	}
	if suffix == "" {
		return ""
	}
	return helperPrefix + suffix
}

// serverName is the registry, and the path below it, that a key of a
// configuration file means. Old files have URLs as keys, with the version of
// the protocol as path; Docker Hub's is written so to this day.
func serverName(key string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	isURL := name != key
	name = strings.TrimRight(name, "/")
	if isURL {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "/v1"), "/v2")
	}
	host, path, _ := strings.Cut(name, "/")
	if host == "index.docker.io" || host == dockerHost {
		host = "docker.io"
	}
	if path == "" {
		return host
	}
	return host + "/" + path
}

// decodeEntry returns the credentials in a value of auths.
func decodeEntry(raw json.RawMessage) (auth.Credential, error) {
	var e authEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return auth.EmptyCredential, err
	}
	cred := auth.Credential{Username: e.Username, Password: e.Password, RefreshToken: e.IdentityToken, AccessToken: e.RegistryToken}
	if e.Auth == "" {
		return cred, nil
	}
	pair, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return auth.EmptyCredential, errors.New("auth is not base64")
	}
	username, password, ok := strings.Cut(string(pair), ":")
	if !ok {
		return auth.EmptyCredential, errors.New("auth is not the base64 of username:password")
	}
	// Docker pads some with zeros.
	cred.Username, cred.Password = username, strings.Trim(password, "\x00")
	return cred, nil
}
