package ocitest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"galley/oci"
	. "galley/oci/ocitest"
)

// TestTokens lets the tokens of a client run out between two uploads.
func TestTokens(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	r.Misbehave(BearerAuth)
	client, err := oci.NewClient(oci.Options{Env: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference(r.Host + "/ml/fraud")
	if err != nil {
		t.Fatal(err)
	}
	target, err := client.Create(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 0, 1} { // requests for a token
		if want == 1 {
			r.ExpireTokens()
		}
		r.Exchanges()
		b := NewBlob("application/x-layer", strings.Repeat("layer", i+1))
		if err := target.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data)); err != nil {
			t.Fatal(err)
		}
		kinds := make(map[Kind]int)
		for _, e := range r.Exchanges() {
			kinds[e.Kind]++
		}
		if kinds[Tokens] != want || kinds[Uploads] != 2+want {
			t.Errorf("requests %v; want %d for a token and %d for the upload", kinds, want, 2+want)
		}
	}
}

// TestTokenScopes holds that a token is good for what it was given for.
func TestTokenScopes(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	r.Misbehave(BearerAuth)
	send := func(method, path, authorization string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer struct{ Token string }
		json.NewDecoder(resp.Body).Decode(&answer) // or there is none
		return resp, answer.Token
	}
	realm := `Bearer realm="http://` + r.Host + `/token",service="test"`
	for path, want := range map[string]string{
		"GET /v2/":                          realm,
		"GET /v2/ml/fraud/tags/list":        realm + `,scope="repository:ml/fraud:pull"`,
		"POST /v2/ml/fraud/blobs/uploads/":  realm + `,scope="repository:ml/fraud:pull,push"`,
		"PUT /v2/ml/fraud/manifests/latest": realm + `,scope="repository:ml/fraud:pull,push"`,
	} {
		method, path, _ := strings.Cut(path, " ")
		if resp, _ := send(method, path, ""); resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != want {
			t.Errorf("%s: %s, %s", path, resp.Status, resp.Header.Get("WWW-Authenticate"))
		}
	}
	if resp, _ := send("GET", "/token", "Basic bm86cGU="); resp.StatusCode != 401 {
		t.Errorf("a token for the wrong password: %s", resp.Status)
	}
	_, pull := send("GET", "/token?scope=repository:ml/fraud:pull", "Basic dXNlcjpzZWNyZXQ=")
	_, push := send("GET", "/token?scope=repository:ml/fraud:pull,push+repository:ml/other:pull", "")
	for _, tt := range []struct {
		token, request string
		refused        bool
	}{
		{pull, "GET /v2/", false},
		{pull, "GET /v2/ml/fraud/tags/list", false},
		{pull, "POST /v2/ml/fraud/blobs/uploads/", true},
		{pull, "GET /v2/ml/other/tags/list", true},
		{push, "POST /v2/ml/fraud/blobs/uploads/", false},
		{push, "GET /v2/ml/other/tags/list", false},
		{push, "POST /v2/ml/other/blobs/uploads/", true},
		{"forged", "GET /v2/", true},
	} {
		method, path, _ := strings.Cut(tt.request, " ")
		if resp, _ := send(method, path, "Bearer "+tt.token); (resp.StatusCode == 401) != tt.refused {
			t.Errorf("%s: %s", tt.request, resp.Status)
		}
	}
}

// TestFaults holds that there is a rule for every fault, by its name in scripts.
func TestFaults(t *testing.T) {
	t.Parallel()
	r := NewRegistry()
	t.Cleanup(r.Close)
	for _, f := range []Fault{
		Unauthorized, Forbidden, NotFound, ServerError, HTML, BasicAuth, BearerAuth, RateLimit,
		NoReferrers, NoFilter, NoLink, PageCap, NoDigest, DigestOnly, NoDelete, SeeOther, SubjectOnly, SmallPages,
		Fixed400, Fixed401, Fixed412, ClockAhead, TwoClocks, TagsGo,
	} {
		r.Misbehave(f)
		resp, err := http.Get("http://" + r.Host + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		failing := slices.Contains([]Fault{Unauthorized, Forbidden, NotFound, ServerError, BasicAuth, BearerAuth, RateLimit}, f)
		if (resp.StatusCode == 200) == failing {
			t.Errorf("%s: %s", f, resp.Status)
		}
	}
	r.Misbehave(None)
	if got := r.Requests(); len(got) != 24 {
		t.Errorf("%d requests; want 24", len(got))
	}
}
