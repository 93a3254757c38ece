//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testCredentials uses a registry that wants a password.
func (e *e2e) testCredentials(t *testing.T) {
	ref := e.private + "/" + repositoryName(t) + ":v1"
	project := filepath.Join(e.projects, "nested")
	login := []string{e.galley, "login", e.private, "-u", e.user, "--password-stdin"}
	auth := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, e.private, basic(e.user, e.password))

	e.step(t, "none", func(t *testing.T) {
		sh := e.in(t, project)
		says := []string{"401", "galley: hint: galley login " + e.private}
		sh.refused(4, says, "push", ref)
		sh.refused(4, says, "pull", ref, "-o", t.TempDir())
		sh.refused(4, says, "inspect", ref)
	})
	e.step(t, "wrong", func(t *testing.T) {
		sh := e.in(t, project)
		says := []string{"401", "galley: hint: galley login " + e.private}
		sh.outcome("not it\n", login...).want(t, 4, says...)
		file := filepath.Join(t.TempDir(), "config.json")
		check(t, os.WriteFile(file, []byte(strings.ReplaceAll(auth, basic(e.user, e.password), basic(e.user, "not it"))), 0o600))
		sh.refused(4, says, "push", ref, "--registry-config", file)
	})
	e.step(t, "login", func(t *testing.T) {
		sh := e.in(t, project)
		sh.feed(e.password+"\n", login...)
		e.usesCredentials(t, sh, ref)
		out := t.TempDir()
		e.in(t, out, sh.env[0]).run(e.oras, "pull", "--plain-http", ref) // finds what login wrote
		sameFiles(t, project, out, everyday())
		sh.run(e.galley, "logout", e.private)
		sh.refused(4, nil, "resolve", ref)
	})
	e.step(t, "requests", func(t *testing.T) {
		for registry, more := range map[string]int{e.registry: 0, e.private: 1} { // the first answer is 401
			r := countRequests(t, registry)
			repo := r.host + "/" + repositoryName(t)
			config := filepath.Join(t.TempDir(), "config.json")
			check(t, os.WriteFile(config, []byte(fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.host, basic(e.user, e.password))), 0o600))
			galley := func(dir string, args ...string) {
				t.Helper()
				e.in(t, dir).run(append([]string{e.galley}, append(args, "--registry-config", config)...)...)
			}
			galley(e.full, "push", repo+":candidate")
			r.want(t, 10+more, true)
			galley(e.full, "push", repo+":candidate")
			r.want(t, 1+more, false)
			galley(e.full, "tag", repo+":candidate", "stable")
			r.want(t, 3+more, true) // the manifest, HEAD of the new tag, PUT of it
			galley(e.full, "cp", repo+":stable", repo+"/other:v1")
			r.want(t, anyNumber, true)
		}
	})
	e.step(t, "podman's file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "auth.json")
		check(t, os.WriteFile(file, []byte(auth), 0o600))
		e.usesCredentials(t, e.in(t, project, "REGISTRY_AUTH_FILE="+file), ref)
	})
	e.step(t, "docker's credential helper", func(t *testing.T) { e.testHelper(t, project, ref, login) })
}

// testHelper keeps credentials with a program of the user's.
func (e *e2e) testHelper(t *testing.T, project, ref string, login []string) {
	dir := t.TempDir()
	config := fmt.Sprintf(`{"credHelpers": {%q: "e2e"}}`, e.private)
	check(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	const program = `#!/bin/sh
case $1 in
store) cat >"$HELPER_STORE" ;;
get) if test -e "$HELPER_STORE"; then cat "$HELPER_STORE"; else echo 'credentials not found in native keychain'; exit 1; fi ;;
esac
`
	check(t, os.WriteFile(filepath.Join(dir, "docker-credential-e2e"), []byte(program), 0o777))
	store := filepath.Join(dir, "store")
	sh := e.in(t, project, "DOCKER_CONFIG="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "HELPER_STORE="+store)
	sh.refused(4, nil, "push", ref)
	sh.feed(e.password+"\n", login...)
	var kept struct{ ServerURL, Username, Secret string }
	text, err := os.ReadFile(store)
	check(t, err)
	check(t, json.Unmarshal(text, &kept))
	if kept.ServerURL != e.private || kept.Username != e.user || kept.Secret != e.password {
		t.Errorf("the helper was given %+v", kept)
	}
	e.usesCredentials(t, sh, ref)
	after, err := os.ReadFile(filepath.Join(dir, "config.json"))
	check(t, err)
	if bytes.Contains(after, []byte("auth\"")) {
		t.Errorf("login wrote the password to the file too:\n%s", after)
	}
}

// usesCredentials pushes, pulls and inspects.
func (e *e2e) usesCredentials(t *testing.T, sh *shell, ref string) {
	t.Helper()
	out := t.TempDir()
	sh.run(e.galley, "push", ref)
	sh.run(e.galley, "pull", ref, "-o", out)
	sameFiles(t, sh.dir, out, everyday())
	sh.run(e.galley, "inspect", ref)
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}
