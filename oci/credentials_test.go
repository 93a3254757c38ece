package oci

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// basic is the value of auth for a user whose password is "pw".
func basic(user string) string { return base64.StdEncoding.EncodeToString([]byte(user + ":pw")) }

// auths is a configuration file with the users of these keys.
func auths(pairs ...string) string {
	entries := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		entries[pairs[i]] = map[string]string{"auth": basic(pairs[i+1])}
	}
	b, _ := json.Marshal(map[string]any{"auths": entries})
	return string(b)
}

// writeFiles writes files below a new directory; names have slashes.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// homeEnv is the environment of a user whose home is dir.
func homeEnv(dir string, more map[string]string) func(string) string {
	return func(key string) string {
		switch key {
		case "HOME", "USERPROFILE":
			return dir
		}
		if v, ok := more[key]; ok {
			return filepath.Join(dir, filepath.FromSlash(v))
		}
		return ""
	}
}

const (
	dockerFile = ".docker/config.json"
	podmanFile = ".config/containers/auth.json"
)

func TestCredentialFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		files  map[string]string
		env    map[string]string // values are paths below the home
		config []string          // of the options; paths below the home
		ref    string
		want   string // user name; "": anonymous
	}{
		{name: "no file", ref: "ghcr.io/acme/fraud"},
		{name: "docker", files: map[string]string{dockerFile: auths("ghcr.io", "ada")}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "another host", files: map[string]string{dockerFile: auths("ghcr.io", "ada")}, ref: "quay.io/acme/fraud"},
		{name: "another port", files: map[string]string{dockerFile: auths("ghcr.io", "ada")}, ref: "ghcr.io:444/acme/fraud"},
		{name: "a host with the same start", files: map[string]string{dockerFile: auths("ghcr.i", "ada", "ghcr.io.evil.example", "eve")}, ref: "ghcr.io/acme/fraud"},
		{name: "host with port", files: map[string]string{dockerFile: auths("r.example:5000", "ada")}, ref: "r.example:5000/fraud", want: "ada"},
		{name: "DOCKER_CONFIG", files: map[string]string{dockerFile: auths("ghcr.io", "ada"), "ci/config.json": auths("ghcr.io", "bot")},
			env: map[string]string{"DOCKER_CONFIG": "ci"}, ref: "ghcr.io/acme/fraud", want: "bot"},
		{name: "empty file", files: map[string]string{dockerFile: " \n"}, ref: "ghcr.io/acme/fraud"},
		{name: "null", files: map[string]string{dockerFile: "null"}, ref: "ghcr.io/acme/fraud"},
		{name: "empty identity", files: map[string]string{dockerFile: `{"auths":{"ghcr.io":{}}}`}, ref: "ghcr.io/acme/fraud"},
		{name: "empty identity, then podman", files: map[string]string{dockerFile: `{"auths":{"ghcr.io":{}}}`, podmanFile: auths("ghcr.io", "pod")}, ref: "ghcr.io/acme/fraud", want: "pod"},
		{name: "a broken entry of another host", files: map[string]string{dockerFile: `{"auths":{"quay.io":7,"ghcr.io":{"auth":"` + basic("ada") + `"}}}`}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "user name and password apart", files: map[string]string{dockerFile: `{"auths":{"ghcr.io":{"username":"ada","password":"pw"}}}`}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "padded", files: map[string]string{dockerFile: `{"auths":{"ghcr.io":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("ada:pw\x00\x00")) + `"}}}`}, ref: "ghcr.io/acme/fraud", want: "ada"},

		{name: "old key", files: map[string]string{dockerFile: auths("https://ghcr.io/v1/", "ada")}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "old key with version 2", files: map[string]string{dockerFile: auths("http://ghcr.io/v2", "ada")}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "old and new key", files: map[string]string{dockerFile: auths("https://ghcr.io", "old", "ghcr.io", "new", "http://ghcr.io", "older")}, ref: "ghcr.io/acme/fraud", want: "new"},
		{name: "Docker Hub", files: map[string]string{dockerFile: auths("https://index.docker.io/v1/", "ada")}, ref: "docker.io/acme/fraud", want: "ada"},
		{name: "Docker Hub by podman", files: map[string]string{podmanFile: auths("docker.io", "ada")}, ref: "docker.io/acme/fraud", want: "ada"},
		{name: "Docker Hub by path", files: map[string]string{podmanFile: auths("docker.io", "ada", "docker.io/acme", "acme")}, ref: "docker.io/acme/fraud", want: "acme"},

		{name: "docker before podman", files: map[string]string{dockerFile: auths("ghcr.io", "ada"), podmanFile: auths("ghcr.io", "pod")}, ref: "ghcr.io/acme/fraud", want: "ada"},
		{name: "podman", files: map[string]string{dockerFile: auths("quay.io", "ada"), podmanFile: auths("ghcr.io", "pod")}, ref: "ghcr.io/acme/fraud", want: "pod"},
		{name: "REGISTRY_AUTH_FILE", files: map[string]string{"auth.json": auths("ghcr.io", "file"), podmanFile: auths("ghcr.io", "pod")},
			env: map[string]string{"REGISTRY_AUTH_FILE": "auth.json"}, ref: "ghcr.io/acme/fraud", want: "file"},
		{name: "XDG_RUNTIME_DIR", files: map[string]string{"run/containers/auth.json": auths("ghcr.io", "run"), podmanFile: auths("ghcr.io", "pod")},
			env: map[string]string{"XDG_RUNTIME_DIR": "run"}, ref: "ghcr.io/acme/fraud", want: "run"},
		{name: "XDG_CONFIG_HOME", files: map[string]string{"cfg/containers/auth.json": auths("ghcr.io", "cfg"), podmanFile: auths("ghcr.io", "pod")},
			env: map[string]string{"XDG_CONFIG_HOME": "cfg"}, ref: "ghcr.io/acme/fraud", want: "cfg"},

		{name: "longest path", files: map[string]string{podmanFile: auths("ghcr.io", "host", "ghcr.io/acme", "acme", "ghcr.io/acme/ml", "ml", "ghcr.io/acme/ml/fraud2", "no")}, ref: "ghcr.io/acme/ml/fraud", want: "ml"},
		{name: "the whole path", files: map[string]string{podmanFile: auths("ghcr.io/acme", "acme", "ghcr.io/acme/fraud", "fraud")}, ref: "ghcr.io/acme/fraud", want: "fraud"},
		{name: "another path, then the host", files: map[string]string{podmanFile: auths("ghcr.io", "host", "ghcr.io/acm", "acm", "ghcr.io/other", "other")}, ref: "ghcr.io/acme/fraud", want: "host"},
		{name: "another path alone", files: map[string]string{podmanFile: auths("ghcr.io/other", "other")}, ref: "ghcr.io/acme/fraud"},
		{name: "another path alone, in docker's file", files: map[string]string{dockerFile: auths("ghcr.io/other", "other")}, ref: "ghcr.io/acme/fraud"},

		{name: "the options' files only", files: map[string]string{dockerFile: auths("ghcr.io", "ada"), "a.json": auths("quay.io", "a"), "b.json": auths("ghcr.io", "b")},
			config: []string{"a.json", "missing.json", "b.json"}, ref: "ghcr.io/acme/fraud", want: "b"},
		{name: "the options' files have none", files: map[string]string{dockerFile: auths("ghcr.io", "ada"), "a.json": "{}"}, config: []string{"a.json"}, ref: "ghcr.io/acme/fraud"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			home := writeFiles(t, tt.files)
			o := Options{Env: homeEnv(home, tt.env)}
			for _, name := range tt.config {
				o.RegistryConfig = append(o.RegistryConfig, filepath.Join(home, name))
			}
			cred, err := lookUp(t, o, tt.ref)
			want := auth.Credential{}
			if tt.want != "" {
				want = auth.Credential{Username: tt.want, Password: "pw"}
			}
			if err != nil || cred != want {
				t.Errorf("got %+v, %v; want %+v", cred, err, want)
			}
		})
	}
}

// lookUp finds the credentials of a repository as a challenge would.
func lookUp(t *testing.T, o Options, ref string) (auth.Credential, error) {
	t.Helper()
	r, err := ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	api := registry.Reference{Registry: r.Registry}.Host()
	find := c.credential(r.Registry, r.Repository)
	if cred, err := find(t.Context(), "elsewhere.example"); err != nil || cred != auth.EmptyCredential {
		t.Errorf("credentials for another host: %+v, %v", cred, err)
	}
	cred, err := find(t.Context(), api)
	if err == nil && c.facts(r.Registry).anonymous.Load() != (cred == auth.EmptyCredential) {
		t.Errorf("anonymous: %v with %+v", c.facts(r.Registry).anonymous.Load(), cred)
	}
	return cred, err
}

func TestCredentialTokens(t *testing.T) {
	t.Parallel()
	home := writeFiles(t, map[string]string{dockerFile: `{"auths":{
		"a.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("0000:")) + `","identitytoken":"refresh"},
		"b.example":{"registrytoken":"access"}}}`})
	for ref, want := range map[string]auth.Credential{
		"a.example/fraud": {Username: "0000", RefreshToken: "refresh"},
		"b.example/fraud": {AccessToken: "access"},
	} {
		if got, err := lookUp(t, Options{Env: homeEnv(home, nil)}, ref); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", ref, got, err, want)
		}
	}
}

func TestCredentialFilesBroken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"broken JSON", `{"auths":`, "unexpected end of JSON input"},
		{"not an object", `[]`, "json: cannot unmarshal array"},
		{"auths no object", `{"auths":[]}`, "json: cannot unmarshal array"},
		{"entry no object", `{"auths":{"ghcr.io":7}}`, `auths "ghcr.io": json: cannot unmarshal number`},
		{"not base64", `{"auths":{"ghcr.io":{"auth":"%%%"}}}`, `auths "ghcr.io": auth is not base64`},
		{"no colon", `{"auths":{"ghcr.io":{"auth":"YWRh"}}}`, `auths "ghcr.io": auth is not the base64 of username:password`},
		{"huge", strings.Repeat(" ", maxConfig) + "{}", "larger than 4194304 bytes"},
	} {
		for _, file := range []string{dockerFile, podmanFile} {
			home := writeFiles(t, map[string]string{file: tt.text})
			_, err := lookUp(t, Options{Env: homeEnv(home, nil)}, "ghcr.io/acme/fraud")
			e, ok := errors.AsType[*CredentialsError](err)
			want := fmt.Sprintf("credentials file %q: %s", filepath.Join(home, filepath.FromSlash(file)), tt.want)
			if !ok || e.Helper != "" || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s in %s: %v, want %s", tt.name, file, err, want)
			}
		}
	}
	// A directory in the file's place.
	home := writeFiles(t, map[string]string{dockerFile + "/x": ""})
	if _, err := lookUp(t, Options{Env: homeEnv(home, nil)}, "ghcr.io/acme/fraud"); err == nil {
		t.Error("a directory was read as a file of credentials")
	}
	// A home that is no directory, as for users without one.
	home = writeFiles(t, map[string]string{"null": ""})
	if _, err := lookUp(t, Options{Env: homeEnv(filepath.Join(home, "null"), nil)}, "ghcr.io/acme/fraud"); err != nil {
		t.Error(err)
	}
}

// helperScript is a credential helper that knows two registries, and leaves
// what it is told to store and erase beside itself.
const helperScript = `#!/bin/sh
case "$1" in
get)
	read -r server
	case "$server" in
	ghcr.io) echo '{"ServerURL":"ghcr.io","Username":"helper","Secret":"pw"}' ;;
	https://index.docker.io/v1/) echo '{"ServerURL":"x","Username":"<token>","Secret":"refresh"}' ;;
	locked.example) echo 'the keychain is locked'; exit 1 ;;
	odd.example) echo 'hello' ;;
	*) echo 'credentials not found in native keychain'; exit 1 ;;
	esac ;;
*) cat >"$0.$1" ;;
esac
`

// withHelper puts docker-credential-x on the path and returns its file name.
func withHelper(t *testing.T) string {
	t.Helper()
	bin := writeFiles(t, map[string]string{"docker-credential-x": helperScript})
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return filepath.Join(bin, "docker-credential-x")
}

func TestCredentialHelper(t *testing.T) {
	withHelper(t)
	const store = `{"credsStore":"x","auths":{"quay.io":{"auth":"%s"},"ghcr.io":{"auth":"%[1]s"}}}`
	for _, tt := range []struct {
		name, config, ref string
		want              auth.Credential
		err               string
	}{
		{name: "store", config: fmt.Sprintf(store, basic("file")), ref: "ghcr.io/acme/fraud", want: auth.Credential{Username: "helper", Password: "pw"}},
		{name: "store without it, then the file", config: fmt.Sprintf(store, basic("file")), ref: "quay.io/acme/fraud", want: auth.Credential{Username: "file", Password: "pw"}},
		{name: "store without it", config: `{"credsStore":"x"}`, ref: "r.example/fraud"},
		{name: "identity token of Docker Hub", config: `{"credsStore":"x"}`, ref: "docker.io/acme/fraud", want: auth.Credential{RefreshToken: "refresh"}},
		{name: "helper of the registry", config: `{"credsStore":"missing","credHelpers":{"ghcr.io":"x"}}`, ref: "ghcr.io/acme/fraud", want: auth.Credential{Username: "helper", Password: "pw"}},
		{name: "helper of Docker Hub", config: `{"credHelpers":{"docker.io":"x"}}`, ref: "docker.io/acme/fraud", want: auth.Credential{RefreshToken: "refresh"}},
		{name: "helper of another registry", config: `{"credHelpers":{"quay.io":"missing"}}`, ref: "ghcr.io/acme/fraud"},
		{name: "missing helper", config: `{"credsStore":"missing"}`, ref: "ghcr.io/acme/fraud",
			err: `credentials helper "docker-credential-missing" of "FILE": exec: "docker-credential-missing": executable file not found in $PATH`},
		{name: "helper that fails", config: `{"credsStore":"x"}`, ref: "locked.example/fraud",
			err: `credentials helper "docker-credential-x" of "FILE": the keychain is locked`},
		{name: "helper that answers nonsense", config: `{"credsStore":"x"}`, ref: "odd.example/fraud",
			err: `credentials helper "docker-credential-x" of "FILE": invalid character 'h' looking for beginning of value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := writeFiles(t, map[string]string{dockerFile: tt.config})
			got, err := lookUp(t, Options{Env: homeEnv(home, nil)}, tt.ref)
			if tt.err == "" {
				if err != nil || got != tt.want {
					t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
				}
				return
			}
			file := filepath.Join(home, filepath.FromSlash(dockerFile))
			if _, ok := errors.AsType[*CredentialsError](err); !ok || strings.ReplaceAll(err.Error(), file, "FILE") != tt.err {
				t.Errorf("got %v\nwant %s", err, tt.err)
			}
			if strings.Contains(tt.name, "missing") && !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("%v is no exec.ErrNotFound", err)
			}
		})
	}
}

// loginServer is a registry that knows ada with password pw.
func loginServer(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "ada" || password != "pw" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"bad password"}]}`)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func newTestClient(t *testing.T, home string) *Client {
	t.Helper()
	c, err := NewClient(Options{Env: homeEnv(home, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoginToFile(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no helper of the system's
	host := loginServer(t)
	home := writeFiles(t, map[string]string{dockerFile: `{"detachKeys":"ctrl-e","auths":{"quay.io":{"auth":"` + basic("q") + `"}}}`})
	file := filepath.Join(home, filepath.FromSlash(dockerFile))
	c := newTestClient(t, home)

	stored, err := c.Login(t.Context(), host, "ada", "pw")
	if want := (Stored{File: file}); err != nil || stored != want {
		t.Fatalf("Login = %+v, %v; want %+v", stored, err, want)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ctrl-e", basic("q"), basic("ada")} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %q:\n%s", file, want, text)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%s is for others too: %v, %v", file, info.Mode(), err)
	}
	if cred, err := lookUp(t, Options{Env: homeEnv(home, nil)}, host+"/fraud"); err != nil || cred.Username != "ada" {
		t.Errorf("after the login: %+v, %v", cred, err)
	}

	if err := c.Logout(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if cred, err := lookUp(t, Options{Env: homeEnv(home, nil)}, host+"/fraud"); err != nil || cred != auth.EmptyCredential {
		t.Errorf("after the logout: %+v, %v", cred, err)
	}
	if err := c.Logout(t.Context(), host); !errors.Is(err, ErrNotFound) {
		t.Errorf("second logout: %v, want ErrNotFound", err)
	}
	if cred, err := lookUp(t, Options{Env: homeEnv(home, nil)}, "quay.io/fraud"); err != nil || cred.Username != "q" {
		t.Errorf("the other registry's credentials: %+v, %v", cred, err)
	}
}

func TestLoginToNewFile(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	host := loginServer(t)
	home := t.TempDir()
	// A link to a file that people keep elsewhere stays a link.
	file, link := filepath.Join(home, "dotfiles", "config.json"), filepath.Join(home, "link.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(home, "new", "dir", "config.json")
	for name, config := range map[string][]string{file: {link}, fresh: {fresh, link}} {
		c, err := NewClient(Options{RegistryConfig: config, Env: homeEnv(home, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if real, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
			name = filepath.Join(real, filepath.Base(name))
		}
		if stored, err := c.Login(t.Context(), host, "ada", "pw"); err != nil || stored.File != name || stored.Helper != "" {
			t.Errorf("Login = %+v, %v; want it in %s", stored, err, name)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v; want 0600", name, info, err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(home, ".docker")); err == nil {
		t.Error("login wrote to docker's file in spite of the option")
	}
}

func TestLoginToHelper(t *testing.T) {
	helper := withHelper(t)
	host := loginServer(t)
	home := writeFiles(t, map[string]string{dockerFile: `{"credsStore":"x"}`})
	file := filepath.Join(home, filepath.FromSlash(dockerFile))
	c := newTestClient(t, home)
	stored, err := c.Login(t.Context(), host, "ada", "pw")
	if want := (Stored{File: file, Helper: "docker-credential-x"}); err != nil || stored != want {
		t.Fatalf("Login = %+v, %v; want %+v", stored, err, want)
	}
	told, err := os.ReadFile(helper + ".store")
	if want := fmt.Sprintf(`{"ServerURL":%q,"Username":"ada","Secret":"pw"}`, host); err != nil || string(told) != want {
		t.Errorf("the helper was told %s, %v; want %s", told, err, want)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), basic("ada")) {
		t.Errorf("the file has the password too: %s, %v", text, err)
	}
	if err := c.Logout(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if told, err := os.ReadFile(helper + ".erase"); err != nil || string(told) != host {
		t.Errorf("the helper was told to erase %q, %v; want %q", told, err, host)
	}
}

func TestLoginRefused(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	host := loginServer(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>welcome</html>")
	}))
	t.Cleanup(page.Close)
	quay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "true")
	}))
	t.Cleanup(quay.Close)
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	home := t.TempDir()
	c := newTestClient(t, home)

	if _, err := c.Login(t.Context(), quay.Listener.Addr().String(), "ada", "pw"); err != nil {
		t.Errorf("a registry that calls its answer HTML: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(home, ".docker")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host, user, password string
		kind                 error
		want                 string
	}{
		{host, "ada", "wrong", ErrUnauthorized, "login HOST: HOST refused the credentials (401): unauthorized: bad password"},
		{host, "", "", ErrUnauthorized, "login HOST: the password is empty"},
		{page.Listener.Addr().String(), "ada", "pw", ErrNotRegistry, "login HOST: HOST answers with a web page: it is not a registry"},
		{none.Listener.Addr().String(), "ada", "pw", ErrNotRegistry, "login HOST: HOST has no registry at /v2/ (404)"},
	} {
		_, err := c.Login(t.Context(), tt.host, tt.user, tt.password)
		if !errors.Is(err, tt.kind) || strings.ReplaceAll(err.Error(), tt.host, "HOST") != tt.want {
			t.Errorf("got %v\nwant %s", err, tt.want)
		}
	}
	if _, err := c.Login(t.Context(), "https://ghcr.io", "ada", "pw"); err == nil {
		t.Error("a URL was taken for a registry")
	}
	if _, err := os.Stat(filepath.Join(home, ".docker")); err == nil {
		t.Error("a refused login was stored")
	}
	if _, err := newTestClient(t, "").Login(t.Context(), host, "ada", "pw"); err == nil {
		t.Error("a login was stored nowhere")
	}
}

// Two teams of one registry have credentials of their own.
func TestCredentialsByRepository(t *testing.T) {
	t.Parallel()
	users := make(chan string, 4)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		users <- user
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(srv.Close)
	host := srv.Listener.Addr().String()
	home := writeFiles(t, map[string]string{podmanFile: auths(host+"/team-a", "a", host+"/team-b", "b")})
	c := newTestClient(t, home)
	for _, want := range []string{"a", "b", "a", "b"} {
		target, err := c.Open(t.Context(), Reference{Kind: Registry, Registry: host, Repository: "team-" + want + "/fraud"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.Resolve(t.Context(), "v1"); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if got := <-users; got != want {
			t.Errorf("team-%s was read by %q", want, got)
		}
	}
}
