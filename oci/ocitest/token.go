package ocitest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// tokens is a token server, and the guard that wants its tokens; see
// https://distribution.github.io/distribution/spec/auth/token/.
type tokens struct {
	mu    sync.Mutex
	valid map[string][]string // permissions, as "NAME:ACTION", by token
}

const tokenPath = "/token"

// expire makes all tokens that were given out invalid.
func (t *tokens) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.valid)
}

// give answers a request for a token. Whoever brings no credentials gets one too.
func (t *tokens) give(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" && !loggedIn(r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.valid[token] = nil
	for _, scopes := range r.URL.Query()["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			scope = strings.TrimPrefix(scope, "repository:")
			name, actions, _ := strings.Cut(scope, ":")
			for action := range strings.SplitSeq(actions, ",") {
				t.valid[token] = append(t.valid[token], name+":"+action)
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{"token": token})
}

// permits reports whether the request brings a token for all the actions.
func (t *tokens) permits(r *http.Request, name string, actions []string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	permissions, ok := t.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	return ok && !slices.ContainsFunc(actions, func(action string) bool {
		return !slices.Contains(permissions, name+":"+action)
	})
}

// guard lets nothing pass without a token for it.
func (t *tokens) guard(p *Passage, w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == tokenPath {
		t.give(w, r)
		return
	}
	name, scope, actions := repositoryOf(r), "", []string(nil)
	if name != "" {
		actions = []string{"pull"}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			actions = append(actions, "push")
		}
		scope = fmt.Sprintf(`,scope="repository:%s:%s"`, name, strings.Join(actions, ","))
	}
	if t.permits(r, name, actions) {
		p.Pass(w, r)
		return
	}
	realm := origin(r)
	realm.Path, realm.RawQuery = tokenPath, ""
	Answer(Up, http.StatusUnauthorized, "UNAUTHORIZED", "WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test"%s`, realm, scope))(p, w, r)
}

// repositoryOf is the repository in the path of a request, if one is.
func repositoryOf(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, part := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if name, _, ok := strings.Cut(path, part); ok {
			return name
		}
	}
	return ""
}
