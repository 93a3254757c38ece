package oci_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"galley/oci"
)

const (
	hex64     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	digest256 = "sha256:" + hex64
	digest512 = "sha512:" + hex64 + hex64
)

func registryRef(host, repository, tag string) oci.Reference {
	return oci.Reference{Kind: oci.Registry, Registry: host, Repository: repository, Tag: tag}
}

func localRef(repository, tag string) oci.Reference {
	return oci.Reference{Kind: oci.Local, Repository: repository, Tag: tag}
}

func layoutRef(path, tag string) oci.Reference {
	return oci.Reference{Kind: oci.Layout, Path: path, Tag: tag}
}

// goodReferences are read with the project's repository ghcr.io/acme/fraud.
var goodReferences = []struct {
	in        string
	want      oci.Reference
	canonical string // "": as typed
}{
	// Registries: a slash, and before it a dot, a colon or localhost.
	{"registry.example.com/ml/fraud-detector:v1.4.0", registryRef("registry.example.com", "ml/fraud-detector", "v1.4.0"), ""},
	{"ghcr.io/acme/fraud", registryRef("ghcr.io", "acme/fraud", ""), ""},
	{"ghcr.io/acme/fraud@" + digest256, registryRef("ghcr.io", "acme/fraud", "").At(digest256), ""},
	{"ghcr.io/acme/fraud@" + digest512, registryRef("ghcr.io", "acme/fraud", "").At(digest512), ""},
	{"ghcr.io/acme/fraud:v1@" + digest256, oci.Reference{Kind: oci.Registry, Registry: "ghcr.io", Repository: "acme/fraud", Tag: "v1", Digest: digest256}, ""},
	{"localhost/fraud:v1", registryRef("localhost", "fraud", "v1"), ""},
	{"localhost:5000/fraud:v1", registryRef("localhost:5000", "fraud", "v1"), ""},
	{"registry:5000/fraud", registryRef("registry:5000", "fraud", ""), ""},
	{"127.0.0.1:5000/a/b/c/d:latest", registryRef("127.0.0.1:5000", "a/b/c/d", "latest"), ""},
	{"[::1]:5000/fraud:v1", registryRef("[::1]:5000", "fraud", "v1"), ""},
	{"[0:0::1]/fraud", registryRef("[::1]", "fraud", ""), "[::1]/fraud"},
	{"GHCR.io/acme/fraud:V1", registryRef("ghcr.io", "acme/fraud", "V1"), "ghcr.io/acme/fraud:V1"},
	{"docker.io/acme/fraud:v7", registryRef("docker.io", "acme/fraud", "v7"), ""},
	{"docker.io/python:3.11-slim", registryRef("docker.io", "library/python", "3.11-slim"), "docker.io/library/python:3.11-slim"},
	{"index.docker.io/acme/fraud", registryRef("docker.io", "acme/fraud", ""), "docker.io/acme/fraud"},
	{"a.b/x__y/z.1-2---3/q_r:_", registryRef("a.b", "x__y/z.1-2---3/q_r", "_"), ""},
	{"my-host.example/r:1.0.0-rc.1_x", registryRef("my-host.example", "r", "1.0.0-rc.1_x"), ""},
	{"ghcr.io/" + strings.Repeat("a", 255), registryRef("ghcr.io", strings.Repeat("a", 255), ""), ""},
	{"ghcr.io/a:" + strings.Repeat("t", 128), registryRef("ghcr.io", "a", strings.Repeat("t", 128)), ""},
	{"ghcr.io:443/acme/fraud", registryRef("ghcr.io:443", "acme/fraud", ""), ""},
	{"local.example/fraud", registryRef("local.example", "fraud", ""), ""},

	// The local registry.
	{"fraud-detector:v1", localRef("fraud-detector", "v1"), "local/fraud-detector:v1"},
	{"fraud", localRef("fraud", ""), "local/fraud"},
	{"fraud@" + digest256, localRef("fraud", "").At(digest256), "local/fraud@" + digest256},
	{"local/fraud:v1", localRef("fraud", "v1"), ""},
	{"local/ml/fraud-detector:v1", localRef("ml/fraud-detector", "v1"), ""},
	{"local:v1", localRef("local", "v1"), "local/local:v1"},
	{"local/oci:v1", localRef("oci", "v1"), ""},
	{"local/iris.v2:v1", localRef("iris.v2", "v1"), ""},
	{"fraud:42", localRef("fraud", "42"), "local/fraud:42"},

	// Layouts.
	{"oci:models:v1", layoutRef("models", "v1"), ""},
	{"oci:models", layoutRef("models", ""), ""},
	{"oci:./out/layout:v1", layoutRef("./out/layout", "v1"), ""},
	{"oci:/data/layout/:v1", layoutRef("/data/layout/", "v1"), ""},
	{"oci:/data/layout@" + digest256, layoutRef("/data/layout", "").At(digest256), ""},
	{"oci:/data/layout:v1@" + digest256, oci.Reference{Kind: oci.Layout, Path: "/data/layout", Tag: "v1", Digest: digest256}, ""},
	{`oci:C:\models\fraud:v1`, layoutRef(`C:\models\fraud`, "v1"), ""},
	{`oci:C:\models\fraud`, layoutRef(`C:\models\fraud`, ""), ""},
	{"oci:C:/models/fraud:v1", layoutRef("C:/models/fraud", "v1"), ""},
	{`oci:\\server\share\fraud:v1`, layoutRef(`\\server\share\fraud`, "v1"), ""},
	{"oci:/data/@team/a:b/My Models:v1", layoutRef("/data/@team/a:b/My Models", "v1"), ""},
	{"oci:.:v1", layoutRef(".", "v1"), ""},
	{"oci:model.tar.d:v1", layoutRef("model.tar.d", "v1"), ""},
	{"oci:models.tar:v1", layoutRef("models.tar", "v1"), ""},
	{"oci:/srv/MODELS.TAR", layoutRef("/srv/MODELS.TAR", ""), ""},

	// The project's repository.
	{":production", registryRef("ghcr.io", "acme/fraud", "production"), "ghcr.io/acme/fraud:production"},
	{"@" + digest256, registryRef("ghcr.io", "acme/fraud", "").At(digest256), "ghcr.io/acme/fraud@" + digest256},
	{":v1@" + digest256, oci.Reference{Kind: oci.Registry, Registry: "ghcr.io", Repository: "acme/fraud", Tag: "v1", Digest: digest256}, "ghcr.io/acme/fraud:v1@" + digest256},
}

// badReferences are read without a project.
var badReferences = []struct {
	in      string
	part    string
	err     string   // the whole message
	suggest []string // none: nil
}{
	{"", "", `reference "": is empty`, nil},
	{" ghcr.io/acme/fraud\n", "", `reference " ghcr.io/acme/fraud\n": starts or ends with white space`, []string{"ghcr.io/acme/fraud"}},
	{"ghcr.io/acme/fr\x1baud", "", `reference "ghcr.io/acme/fr\x1baud": holds a control character`, nil},
	{"ghcr.io/\xff", "", `reference "ghcr.io/\xff": is not UTF-8`, nil},

	// Schemes and other things people paste.
	{"https://ghcr.io/acme/fraud:v1", "scheme", `reference "https://ghcr.io/acme/fraud:v1": scheme "https://" does not belong to a reference`, []string{"ghcr.io/acme/fraud:v1"}},
	{"docker://ghcr.io/acme/fraud:v1", "scheme", `reference "docker://ghcr.io/acme/fraud:v1": scheme "docker://" does not belong to a reference`, []string{"ghcr.io/acme/fraud:v1"}},
	{"oci://ghcr.io/acme/fraud:v1", "scheme", `reference "oci://ghcr.io/acme/fraud:v1": scheme "oci://" does not belong to a reference`, []string{"ghcr.io/acme/fraud:v1"}},
	{"oci:///srv/models:v1", "scheme", `reference "oci:///srv/models:v1": scheme "oci://" does not belong to a reference`, []string{"oci:/srv/models:v1"}},
	{"ocidir://models:v1", "scheme", `reference "ocidir://models:v1": scheme "ocidir://" does not belong to a reference`, []string{"oci:models:v1"}},
	{"https://GHCR.io/Acme/Fraud:v1/", "scheme", `reference "https://GHCR.io/Acme/Fraud:v1/": scheme "https://" does not belong to a reference`, []string{"GHCR.io/acme/fraud:v1"}},
	{"https://ada:s3cret@ghcr.io/acme/fraud", "scheme", `reference "https://***@ghcr.io/acme/fraud": scheme "https://" does not belong to a reference`, []string{"ghcr.io/acme/fraud"}},
	{"ada:s3cret@ghcr.io/acme/fraud:v1", "registry", `reference "***@ghcr.io/acme/fraud:v1": registry has a user name in front`, []string{"ghcr.io/acme/fraud:v1"}},
	{"ghcr.io/acme/fraud:v1?ns=x", "", `reference "ghcr.io/acme/fraud:v1?ns=x": has a query or fragment after '?'`, []string{"ghcr.io/acme/fraud:v1"}},
	{"ghcr.io/acme/fraud#v1", "", `reference "ghcr.io/acme/fraud#v1": has a query or fragment after '#'`, []string{"ghcr.io/acme/fraud"}},
	{"./models:v1", "", `reference "./models:v1": is a path`, []string{"oci:./models:v1"}},
	{"/srv/models", "", `reference "/srv/models": is a path`, []string{"oci:/srv/models"}},
	{`C:\models:v1`, "", `reference "C:\\models:v1": is a path`, []string{`oci:C:\models:v1`}},

	// Registry.
	{"acme/fraud:v7", "registry", `reference "acme/fraud:v7": registry is missing`, []string{"docker.io/acme/fraud:v7", "local/acme/fraud:v7"}},
	{"Acme/Fraud:v7", "registry", `reference "Acme/Fraud:v7": registry is missing`, []string{"docker.io/acme/fraud:v7", "local/acme/fraud:v7"}},
	{"ghcr..io/fraud", "registry", `reference "ghcr..io/fraud": registry "ghcr..io" has an empty label`, nil},
	{".io/fraud", "registry", `reference ".io/fraud": registry ".io" has an empty label`, nil},
	{"-a.io/fraud", "registry", `reference "-a.io/fraud": registry "-a.io" has a label that starts or ends with '-'`, nil},
	{"a_b.io/fraud", "registry", `reference "a_b.io/fraud": registry "a_b.io" holds '_'`, nil},
	{"ghcr.io:http/fraud", "registry", `reference "ghcr.io:http/fraud": registry "ghcr.io:http": port "http" is not a number from 1 to 65535`, nil},
	{"ghcr.io:/fraud", "registry", `reference "ghcr.io:/fraud": registry "ghcr.io:": port "" is not a number from 1 to 65535`, nil},
	{"ghcr.io:65536/fraud", "registry", `reference "ghcr.io:65536/fraud": registry "ghcr.io:65536": port "65536" is not a number from 1 to 65535`, nil},
	{"ghcr.io:080/fraud", "registry", `reference "ghcr.io:080/fraud": registry "ghcr.io:080": port "080" is not a number from 1 to 65535`, nil},
	{"::1/fraud", "project", `reference "::1/fraud": project has no repository`, nil},
	{"[::1/fraud", "registry", `reference "[::1/fraud": registry "[::1" is not an IPv6 address in brackets`, nil},
	{"[::1]5000/fraud", "registry", `reference "[::1]5000/fraud": registry "[::1]5000" has text after the bracket`, nil},
	{"[fe80::1%eth0]/fraud", "registry", `reference "[fe80::1%eth0]/fraud": registry "[fe80::1%eth0]" is not an IPv6 address in brackets`, nil},
	{"[127.0.0.1]/fraud", "registry", `reference "[127.0.0.1]/fraud": registry "[127.0.0.1]" is not an IPv6 address in brackets`, nil},
	{strings.Repeat("a.", 130) + "io/fraud", "registry", "", nil},

	// Repository.
	{"localhost:5000", "repository", `reference "localhost:5000": repository is missing after the registry "localhost:5000"`, nil},
	{"ghcr.io", "repository", `reference "ghcr.io": repository is missing after the registry "ghcr.io"`, nil},
	{"[::1]:5000", "repository", `reference "[::1]:5000": repository is missing after the registry "[::1]:5000"`, nil},
	{"iris.v2:stable", "repository", `reference "iris.v2:stable": repository is missing after the registry "iris.v2:stable"`, []string{"local/iris.v2:stable"}},
	{"ghcr.io/", "repository", `reference "ghcr.io/": repository is missing`, nil},
	{"ghcr.io/:v1", "repository", `reference "ghcr.io/:v1": repository is missing`, nil},
	{"ghcr.io/acme/", "repository", `reference "ghcr.io/acme/": repository "acme/" ends with a slash`, []string{"ghcr.io/acme"}},
	{"ghcr.io//fraud", "repository", `reference "ghcr.io//fraud": repository "/fraud" starts with a slash`, []string{"ghcr.io/fraud"}},
	{"ghcr.io/acme//fraud:v1", "repository", `reference "ghcr.io/acme//fraud:v1": repository "acme//fraud" has an empty component`, []string{"ghcr.io/acme/fraud:v1"}},
	{"ghcr.io/Acme/Fraud:V1", "repository", `reference "ghcr.io/Acme/Fraud:V1": repository "Acme/Fraud" has upper-case letters`, []string{"ghcr.io/acme/fraud:V1"}},
	{"Fraud:v1", "repository", `reference "Fraud:v1": repository "Fraud" has upper-case letters`, []string{"fraud:v1"}},
	{"ghcr.io/acme/fr aud", "repository", `reference "ghcr.io/acme/fr aud": repository "acme/fr aud" holds ' '`, nil},
	{"ghcr.io/acme/fraud+1", "repository", `reference "ghcr.io/acme/fraud+1": repository "acme/fraud+1" holds '+'`, nil},
	{"ghcr.io/acme/-fraud", "repository", `reference "ghcr.io/acme/-fraud": repository "acme/-fraud": "-fraud" does not start and end with a letter or digit`, nil},
	{"ghcr.io/acme/../etc", "repository", `reference "ghcr.io/acme/../etc": repository "acme/../etc": ".." does not start and end with a letter or digit`, nil},
	{"local/../etc", "repository", `reference "local/../etc": repository "../etc": ".." does not start and end with a letter or digit`, nil},
	{"local/ml/_oci", "repository", `reference "local/ml/_oci": repository "ml/_oci": "_oci" does not start and end with a letter or digit`, nil},
	{"ghcr.io/a..b", "repository", `reference "ghcr.io/a..b": repository "a..b" holds ".."`, nil},
	{"ghcr.io/a___b", "repository", `reference "ghcr.io/a___b": repository "a___b" holds "___"`, nil},
	{"ghcr.io/é", "repository", `reference "ghcr.io/é": repository "é" holds 'é'`, nil},
	{"ghcr.io/" + strings.Repeat("a", 256), "repository", "", nil},

	// Tag.
	{"ghcr.io/acme/fraud:", "tag", `reference "ghcr.io/acme/fraud:": tag is empty`, nil},
	{"fraud:", "tag", `reference "fraud:": tag is empty`, nil},
	{"ghcr.io/acme/fraud:v1.0+5", "tag", `reference "ghcr.io/acme/fraud:v1.0+5": tag "v1.0+5" holds '+'`, []string{"ghcr.io/acme/fraud:v1.0-5"}},
	{"ghcr.io/acme/fraud:feature/x", "tag", `reference "ghcr.io/acme/fraud:feature/x": tag "feature/x" holds '/'`, []string{"ghcr.io/acme/fraud:feature-x"}},
	{"ghcr.io/acme/fraud:.v1", "tag", `reference "ghcr.io/acme/fraud:.v1": tag ".v1" starts with '.'`, []string{"ghcr.io/acme/fraud:v1"}},
	{"ghcr.io/acme/fraud:-", "tag", `reference "ghcr.io/acme/fraud:-": tag "-" starts with '-'`, nil},
	{"ghcr.io/acme/fraud:a:b", "tag", `reference "ghcr.io/acme/fraud:a:b": tag "a:b" holds ':'`, []string{"ghcr.io/acme/fraud:a-b"}},
	{"ghcr.io/acme/fraud:\u212a", "tag", "reference \"ghcr.io/acme/fraud:\u212a\": tag \"\u212a\" holds '\u212a'", nil}, // the Kelvin sign lower-cases to k
	{"ghcr.io/a:" + strings.Repeat("t", 129), "tag", "", nil},
	{"ghcr.io/acme/fraud:v1,v2", "tag", `reference "ghcr.io/acme/fraud:v1,v2": tag is a list where one is wanted`, nil},
	{"ghcr.io/acme/fraud:v1,", "tag", `reference "ghcr.io/acme/fraud:v1,": tag is empty`, nil},

	// Digest.
	{"ghcr.io/acme/fraud@", "digest", `reference "ghcr.io/acme/fraud@": digest "" does not start with sha256: or sha512:`, nil},
	{"ghcr.io/acme/fraud@v1", "digest", `reference "ghcr.io/acme/fraud@v1": digest "v1" does not start with sha256: or sha512:`, nil},
	{"ghcr.io/acme/fraud@md5:d41d8cd98f00b204e9800998ecf8427e", "digest", `reference "ghcr.io/acme/fraud@md5:d41d8cd98f00b204e9800998ecf8427e": digest "md5:d41d8cd98f00b204e9800998ecf8427e" does not start with sha256: or sha512:`, nil},
	{"ghcr.io/acme/fraud@sha256:" + hex64[:63], "digest", `reference "ghcr.io/acme/fraud@sha256:` + hex64[:63] + `": digest has 63 hex digits, sha256 has 64`, nil},
	{"ghcr.io/acme/fraud@sha256:" + strings.ToUpper(hex64), "digest", `reference "ghcr.io/acme/fraud@sha256:` + strings.ToUpper(hex64) + `": digest has upper-case letters`, []string{"ghcr.io/acme/fraud@" + digest256}},
	{"fraud@sha256:" + strings.Repeat("g", 64), "digest", "", nil},
	{"fraud@" + digest256 + "@" + digest256, "digest", "", nil},

	// Layouts.
	{"oci:", "path", `reference "oci:": path is missing`, nil},
	{"oci::v1", "path", `reference "oci::v1": path is missing`, nil},
	{"oci: models:v1", "path", `reference "oci: models:v1": path starts or ends with white space`, nil},
	{"oci:models:", "tag", `reference "oci:models:": tag is empty`, nil},
	{"oci:models:v1:v2", "tag", `reference "oci:models:v1:v2": tag "v1:v2" holds ':'`, []string{"oci:models:v1-v2"}},
	{"oci:models@v1", "digest", `reference "oci:models@v1": digest "v1" does not start with sha256: or sha512:`, nil},

	// The project's, of which there is none.
	{":production", "project", `reference ":production": project has no repository`, nil},
	{"@" + digest256, "project", `reference "@` + digest256 + `": project has no repository`, nil},
}

func TestParse(t *testing.T) {
	t.Parallel()
	p := oci.Parser{Repository: "ghcr.io/acme/fraud"}
	for _, tt := range goodReferences {
		got, err := p.Parse(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			continue
		}
		canonical := tt.canonical
		if canonical == "" {
			canonical = tt.in
		}
		if got.String() != canonical {
			t.Errorf("Parse(%q).String() = %q, want %q", tt.in, got, canonical)
		}
		if again, err := oci.ParseReference(got.String()); err != nil || again != got {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", got, again, err, got)
		}
	}
	if n := len(goodReferences) + len(badReferences); n < 60 {
		t.Errorf("%d rows of references, want 60 at least", n)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range badReferences {
		got, err := oci.ParseReference(tt.in)
		e, ok := errors.AsType[*oci.ReferenceError](err)
		if !ok || got != (oci.Reference{}) {
			t.Errorf("Parse(%q) = %+v, %v; want a ReferenceError alone", tt.in, got, err)
			continue
		}
		if e.Part != tt.part || tt.err != "" && err.Error() != tt.err {
			t.Errorf("Parse(%q): part %q\n got %v\nwant part %q\n     %s", tt.in, e.Part, err, tt.part, tt.err)
		}
		if !slices.Equal(e.Suggest, tt.suggest) {
			t.Errorf("Parse(%q) suggests %q, want %q", tt.in, e.Suggest, tt.suggest)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Parse(%q) shows the password: %v", tt.in, err)
		}
		if len(err.Error()) > 800 {
			t.Errorf("Parse(%.40q…): message of %d bytes", tt.in, len(err.Error()))
		}
	}
}

func TestParseTags(t *testing.T) {
	t.Parallel()
	p := oci.Parser{Repository: "ghcr.io/acme/fraud"}
	repo := registryRef("ghcr.io", "acme/fraud", "")
	for _, tt := range []struct {
		in   string
		ref  oci.Reference
		tags []string
		part string // of the error
	}{
		{in: "ghcr.io/acme/fraud:v1,candidate", ref: repo, tags: []string{"v1", "candidate"}},
		{in: "ghcr.io/acme/fraud:v1", ref: repo, tags: []string{"v1"}},
		{in: "ghcr.io/acme/fraud", ref: repo},
		{in: ":v1,candidate", ref: repo, tags: []string{"v1", "candidate"}},
		{in: "fraud:v1,v1,v2", ref: localRef("fraud", ""), tags: []string{"v1", "v2"}},
		{in: "oci:/a,b/layout:v1,v2", ref: layoutRef("/a,b/layout", ""), tags: []string{"v1", "v2"}},
		{in: "oci:a,b", ref: layoutRef("a,b", "")},
		{in: "ghcr.io/acme/fraud:v1,", part: "tag"},
		{in: "ghcr.io/acme/fraud:,v1", part: "tag"},
		{in: "ghcr.io/acme/fraud:v1, v2", part: "tag"},
		{in: "ghcr.io/acme/fraud:v1@" + digest256, part: "digest"},
		{in: "acme/fraud:v1,v2", part: "registry"},
	} {
		ref, tags, err := p.ParseTags(tt.in)
		e, _ := errors.AsType[*oci.ReferenceError](err)
		if tt.part == "" && err != nil || tt.part != "" && (e == nil || e.Part != tt.part) {
			t.Errorf("ParseTags(%q): %v, want an error of part %q", tt.in, err, tt.part)
		}
		if ref != tt.ref || !slices.Equal(tags, tt.tags) {
			t.Errorf("ParseTags(%q) = %v, %q; want %v, %q", tt.in, ref, tags, tt.ref, tt.tags)
		}
	}
}

func TestParseProject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ repository, in, want, err string }{
		{"fraud", ":v1", "local/fraud:v1", ""},
		{"oci:models", ":v1", "oci:models:v1", ""},
		{"ghcr.io/acme/fraud", ":", "", `reference ":": tag is empty`},
		{"ghcr.io/acme/fraud", ":a/b", "", `reference ":a/b": tag "a/b" holds '/'`},
		{"ghcr.io/acme/fraud:v1", ":v2", "", `reference "ghcr.io/acme/fraud:v1": project repository has a tag or digest`},
		{"acme/fraud", ":v2", "", `reference "acme/fraud": registry is missing`},
		{":v1", ":v2", "", `reference ":v1": project has no repository`},
	} {
		got, err := oci.Parser{Repository: tt.repository}.Parse(tt.in)
		if got.String() != tt.want || err != nil && err.Error() != tt.err || err == nil && tt.err != "" {
			t.Errorf("Parse(%q) in project %q = %q, %v; want %q, %s", tt.in, tt.repository, got, err, tt.want, tt.err)
		}
	}
}

func TestParseBase(t *testing.T) {
	t.Parallel()
	p := oci.Parser{Repository: "fraud"}
	for _, in := range []string{"docker.io/library/python:3.11-slim", "local/python:3.11-slim", "local/ml/base", "oci:base:v1", ":v1"} {
		if _, err := p.ParseBase(in); err != nil {
			t.Errorf("ParseBase(%q): %v", in, err)
		}
	}
	for in, want := range map[string][]string{
		"python:3.11-slim": {"docker.io/library/python:3.11-slim", "local/python:3.11-slim"},
		"acme/base:v1":     {"docker.io/acme/base:v1", "local/acme/base:v1"},
	} {
		_, err := p.ParseBase(in)
		e, ok := errors.AsType[*oci.ReferenceError](err)
		if !ok || e.Part != "registry" || !slices.Equal(e.Suggest, want) {
			t.Errorf("ParseBase(%q): %+v, want suggestions %q", in, err, want)
		}
	}
}

func TestParseRegistry(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in, want string
		suggest  []string
	}{
		{in: "ghcr.io", want: "ghcr.io"},
		{in: "GHCR.IO:443", want: "ghcr.io:443"},
		{in: "index.docker.io", want: "docker.io"},
		{in: "localhost:5000", want: "localhost:5000"},
		{in: "[::1]:5000", want: "[::1]:5000"},
		{in: "https://ghcr.io/", suggest: []string{"ghcr.io"}},
		{in: "ghcr.io/acme", suggest: []string{"ghcr.io"}},
		{in: "https://index.docker.io/v1/", suggest: []string{"docker.io"}},
		{in: ""},
		{in: "gh cr.io"},
	} {
		got, err := oci.ParseRegistry(tt.in)
		e, _ := errors.AsType[*oci.ReferenceError](err)
		if got != tt.want || (err == nil) != (tt.want != "") || e != nil && (e.Part != "registry" || !slices.Equal(e.Suggest, tt.suggest)) {
			t.Errorf("ParseRegistry(%q) = %q, %+v; want %q, suggestions %q", tt.in, got, err, tt.want, tt.suggest)
		}
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	r := registryRef("ghcr.io", "acme/fraud", "v1")
	for _, tt := range []struct{ what, got, want string }{
		{"Name", r.Name(), "ghcr.io/acme/fraud"},
		{"At", r.At(digest256).String(), "ghcr.io/acme/fraud@" + digest256},
		{"WithTag", r.At(digest256).WithTag("v2").String(), "ghcr.io/acme/fraud:v2"},
		{"At of a layout", layoutRef("out", "v1").At(digest256).String(), "oci:out@" + digest256},
		{"TagOrDigest of a digest", oci.Reference{Tag: "v1", Digest: digest256}.TagOrDigest(), digest256},
		{"TagOrDigest of a tag", r.TagOrDigest(), "v1"},
		{"TagOrDigest of none", localRef("fraud", "").TagOrDigest(), "latest"},
		{"String of the zero value", oci.Reference{}.String(), ""},
		{"Kind", oci.Registry.String() + oci.Local.String() + oci.Layout.String() + oci.Kind(0).String(), "registrylocallayoutnone"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

func ExampleParser_Parse() {
	p := oci.Parser{Repository: "ghcr.io/acme/fraud"}
	for _, s := range []string{":production", "fraud:v1", "oci:out/layout:v1", "acme/fraud:v7"} {
		r, err := p.Parse(s)
		if e, ok := errors.AsType[*oci.ReferenceError](err); ok {
			fmt.Println(err)
			fmt.Println("did you mean", strings.Join(e.Suggest, " or "))
			continue
		}
		fmt.Println(r.Kind, r)
	}
	// Output:
	// registry ghcr.io/acme/fraud:production
	// local local/fraud:v1
	// layout oci:out/layout:v1
	// reference "acme/fraud:v7": registry is missing
	// did you mean docker.io/acme/fraud:v7 or local/acme/fraud:v7
}

// referenceSeeds are all references of this file's tables.
func referenceSeeds() []string {
	var seeds []string
	for _, tt := range goodReferences {
		seeds = append(seeds, tt.in)
	}
	for _, tt := range badReferences {
		seeds = append(seeds, tt.in)
	}
	return seeds
}

func TestReferenceSeeds(t *testing.T) {
	t.Parallel()
	if n := len(referenceSeeds()); n < 60 {
		t.Errorf("FuzzReference starts from %d seeds, want 60 at least", n)
	}
}

func FuzzReference(f *testing.F) {
	for _, seed := range referenceSeeds() {
		f.Add(seed)
	}
	p := oci.Parser{Repository: "ghcr.io/acme/fraud"}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := p.Parse(s)
		if err != nil {
			checkReferenceError(t, p, s, r, err)
			return
		}
		for _, r := range []oci.Reference{r, r.At(digest.Digest(digest256)), r.WithTag("v1")} {
			again, err := oci.ParseReference(r.String())
			if err != nil || again != r {
				t.Fatalf("Parse(%q) = %#v, which prints as %q and parses to %#v, %v", s, r, r, again, err)
			}
		}
		repo, tags, err := p.ParseTags(s)
		switch {
		case r.Digest != "":
			if err == nil {
				t.Fatalf("ParseTags(%q) took a digest", s)
			}
		case err != nil, repo.Name() != r.Name(), repo.Tag != "", r.Tag == "" && len(tags) != 0, r.Tag != "" && !slices.Equal(tags, []string{r.Tag}):
			t.Fatalf("Parse(%q) = %v, but ParseTags gives %v, %q, %v", s, r, repo, tags, err)
		}
	})
}

func checkReferenceError(t *testing.T, p oci.Parser, s string, r oci.Reference, err error) {
	t.Helper()
	e, ok := errors.AsType[*oci.ReferenceError](err)
	if !ok || r != (oci.Reference{}) {
		t.Fatalf("Parse(%q) = %#v, %#v; want a ReferenceError alone", s, r, err)
	}
	if strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Fatalf("Parse(%q): control character in %q", s, err)
	}
	for _, again := range e.Suggest {
		if _, err := p.Parse(again); err != nil {
			t.Fatalf("Parse(%q) suggests %q: %v", s, again, err)
		}
	}
}
