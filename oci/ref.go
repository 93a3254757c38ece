package oci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// DefaultTag is what a reference with neither tag nor digest is read as.
const DefaultTag = "latest"

// Kind says where a [Reference] points. The zero value is no place at all.
type Kind int

// The places an artifact lives in.
const (
	Registry Kind = iota + 1 // a registry spoken to over HTTP
	Local                    // the local registry: a directory of OCI layouts
	Layout                   // one OCI layout anywhere in the file system
)

// String returns the kind in lower case.
func (k Kind) String() string {
	switch k {
	case Registry:
		return "registry"
	case Local:
		return "local"
	case Layout:
		return "layout"
	}
	return "none"
}

// Reference names a repository and, if Tag or Digest is set, one artifact in
// it. References are comparable; the zero value names nothing. Build them with
// [Parser.Parse].
type Reference struct {
	Kind       Kind
	Registry   string        // host[:port] in lower case; of kind Registry only
	Path       string        // the layout's directory or .tar file as it was typed; of kind Layout only
	Repository string        // of kinds Registry and Local
	Tag        string        // "" when there is none
	Digest     digest.Digest // "" when there is none; wins over Tag
}

// String returns the canonical spelling, which parses to the same reference:
// host/repository:tag@digest, local/repository:tag@digest or
// oci:path:tag@digest.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Name returns the canonical spelling without tag and digest. Two references
// of one Name are in one repository.
func (r Reference) Name() string {
	switch r.Kind {
	case Registry:
		return strings.TrimSuffix(r.Registry+"/"+r.Repository, "/")
	case Local:
		return "local/" + r.Repository
	case Layout:
		return "oci:" + r.Path
	}
	return ""
}

// At returns the reference pinned to d: same repository, no tag.
func (r Reference) At(d digest.Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

// WithTag returns the reference with that tag in the same repository, and no
// digest. The tag is not checked.
func (r Reference) WithTag(tag string) Reference {
	r.Tag, r.Digest = tag, ""
	return r
}

// isTar reports whether the reference is to a layout in a tar file.
func (r Reference) isTar() bool {
	return r.Kind == Layout && strings.HasSuffix(strings.ToLower(r.Path), ".tar")
}

// TagOrDigest returns what to resolve in the repository: the digest, else the
// tag, else [DefaultTag].
func (r Reference) TagOrDigest() string {
	switch {
	case r.Digest != "":
		return r.Digest.String()
	case r.Tag != "":
		return r.Tag
	}
	return DefaultTag
}

// ReferenceError says which part of a reference is wrong, and why.
type ReferenceError struct {
	Input   string   // what was typed; a password in it is left out
	Part    string   // "scheme", "registry", "repository", "tag", "digest", "path", "project", or "" for the whole
	Reason  string   // follows Part: `"a+b" holds '+'`
	Suggest []string // complete references to paste instead; each of them parses
}

// Error returns `reference "INPUT": PART REASON`.
func (e *ReferenceError) Error() string {
	part := e.Part
	if part != "" {
		part += " "
	}
	return fmt.Sprintf("reference %.300q: %s%s", e.Input, part, e.Reason)
}

// Parser reads references. The zero value reads every form but the project's.
type Parser struct {
	// Repository is the project's repository, a reference with neither tag
	// nor digest. ":TAG" and "@DIGEST" are looked up in it, and refused when
	// it is empty.
	Repository string
}

// ParseReference is [Parser.Parse] for a project without a repository.
func ParseReference(s string) (Reference, error) { return Parser{}.Parse(s) }

// Parse reads one reference in any of these forms, each with an optional :TAG
// and @DIGEST (sha256 or sha512):
//
//	HOST[:PORT]/REPOSITORY   a registry: a slash, and before it a dot, a colon or "localhost"
//	NAME, local/REPOSITORY   the local registry
//	oci:PATH                 an OCI layout: a directory, or a file if PATH ends in .tar
//	:TAG, @DIGEST            the project's repository
//
// Docker's two short forms of Docker Hub are completed as docker does:
// docker.io/python is docker.io/library/python, and index.docker.io is
// docker.io. A name with a slash and no host is refused, for it would mean
// Docker Hub to some and the local registry to others.
//
// The error is a [*ReferenceError]; the reference is then zero.
func (p Parser) Parse(s string) (Reference, error) {
	r, _, e := p.parse(s, false)
	if e != nil {
		return Reference{}, p.finish(e, false)
	}
	return r, nil
}

// ParseTags reads what a push is given: a reference whose tag may be a list,
// as in host/repository:v1,candidate. It returns the repository and the tags
// in their order, none twice; none at all when there is no tag. A digest is
// refused. Errors are as in [Parser.Parse].
func (p Parser) ParseTags(s string) (Reference, []string, error) {
	r, tags, e := p.parse(s, true)
	if e == nil && r.Digest != "" {
		e = fault(s, "digest", "is what a push finds out, not what it is given", strings.TrimSuffix(s, "@"+r.Digest.String()))
	}
	if e != nil {
		return Reference{}, nil, p.finish(e, true)
	}
	var once []string
	for _, tag := range tags {
		if !slices.Contains(once, tag) {
			once = append(once, tag)
		}
	}
	r.Tag = ""
	return r, once, nil
}

// ParseBase reads the name of a base image. It differs from [Parser.Parse] in
// refusing a bare NAME, which means Docker Hub to everyone who writes
// Dockerfiles and the local registry to galley.
func (p Parser) ParseBase(s string) (Reference, error) {
	r, err := p.Parse(s)
	if err != nil {
		return Reference{}, err
	}
	if r.Kind == Local && !strings.HasPrefix(s, "local/") && !strings.HasPrefix(s, ":") && !strings.HasPrefix(s, "@") {
		return Reference{}, p.finish(fault(s, "registry", "is missing", "docker.io/library/"+s, "local/"+s), false)
	}
	return r, nil
}

// ParseRegistry reads the name of a registry, host[:port], as login takes it.
// The error is a [*ReferenceError] whose suggestions are registries.
func ParseRegistry(s string) (string, error) {
	host, why := parseHost(s)
	if why == "" {
		return host, nil
	}
	e := &ReferenceError{Input: redact(s), Part: "registry", Reason: why}
	_, bare, found := strings.Cut(s, "://")
	if !found {
		bare = s
	}
	bare, _, _ = strings.Cut(bare, "/")
	if host, why := parseHost(bare); why == "" && bare != s {
		e.Reason = fmt.Sprintf("%.300q is more than host[:port]", redact(s))
		e.Suggest = []string{host}
	}
	return "", e
}
