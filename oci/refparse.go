package oci

import (
	_ "crypto/sha256" // the two digest algorithms of OCI content
	_ "crypto/sha512"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// The limits of the distribution specification and of DNS, in bytes.
const (
	maxRepository = 255
	maxTag        = 128
	maxHost       = 253
)

// fault builds an error whose suggestions are still candidates.
func fault(s, part, reason string, candidates ...string) *ReferenceError {
	return &ReferenceError{Input: s, Part: part, Reason: reason, Suggest: candidates}
}

// finish keeps of the candidates those that parse, mending a second mistake
// where it can, and hides a password.
func (p Parser) finish(e *ReferenceError, list bool) *ReferenceError {
	var keep []string
	for _, s := range e.Suggest {
		for range 4 {
			_, _, again := p.parse(s, list)
			if again == nil {
				if !slices.Contains(keep, s) {
					keep = append(keep, s)
				}
				break
			}
			if len(again.Suggest) == 0 {
				break
			}
			s = again.Suggest[0]
		}
	}
	return &ReferenceError{Input: redact(e.Input), Part: e.Part, Reason: e.Reason, Suggest: keep}
}

// parse reads s. Its tags come back all, the first of them in the reference
// too; a list of more than one only if that is allowed.
func (p Parser) parse(s string, list bool) (Reference, []string, *ReferenceError) {
	if e := shapeFault(s); e != nil {
		return Reference{}, nil, e
	}
	var r Reference
	var v suffix
	var e *ReferenceError
	switch {
	case s[0] == ':' || s[0] == '@':
		_, v = cutSuffix(s)
		r, e = p.project(s)
	case strings.HasPrefix(s, "oci:"):
		r, v, e = parseLayout(s)
	default:
		r, v, e = parseName(s)
	}
	if e != nil {
		return Reference{}, nil, e
	}
	var tags []string
	if v.hasTag {
		for tag := range strings.SplitSeq(v.tag, ",") {
			if e := tagFault(s, tag); e != nil {
				return Reference{}, nil, e
			}
			tags = append(tags, tag)
		}
		if len(tags) > 1 && !list {
			return Reference{}, nil, fault(s, "tag", "is a list where one is wanted")
		}
		r.Tag = tags[0]
	}
	if v.hasDigest {
		if e := digestFault(s, v.digest); e != nil {
			return Reference{}, nil, e
		}
		r.Digest = digest.Digest(v.digest)
	}
	return r, tags, nil
}

// project returns the project's repository for s, ":TAG" or "@DIGEST".
func (p Parser) project(s string) (Reference, *ReferenceError) {
	if p.Repository == "" {
		return Reference{}, fault(s, "project", "has no repository")
	}
	r, _, e := Parser{}.parse(p.Repository, false)
	if e == nil && r.String() != r.Name() {
		e = fault(p.Repository, "project", "repository has a tag or digest")
	}
	return r, e
}

// suffix is what follows a name, not yet checked.
type suffix struct {
	tag, digest       string
	hasTag, hasDigest bool
}

// cutSuffix cuts s before its tag and digest.
func cutSuffix(s string) (name string, v suffix) {
	s, v.digest, v.hasDigest = strings.Cut(s, "@")
	name, v.tag, v.hasTag = strings.Cut(s, ":")
	return name, v
}

// parseLayout reads oci:PATH[:TAG][@DIGEST]. Only the path's last element is
// searched for a tag, so that drive letters survive.
func parseLayout(s string) (Reference, suffix, *ReferenceError) {
	rest := s[len("oci:"):]
	last := strings.LastIndexAny(rest, `/\`) + 1
	name, v := cutSuffix(rest[last:])
	path := rest[:last] + name
	why := ""
	switch {
	case path == "":
		why = "is missing"
	case strings.TrimSpace(path) != path:
		why = "starts or ends with white space"
	default:
		return Reference{Kind: Layout, Path: path}, v, nil
	}
	return Reference{}, suffix{}, fault(s, "path", why)
}

// parseName reads the forms that name a repository.
func parseName(s string) (Reference, suffix, *ReferenceError) {
	none := Reference{}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return none, suffix{}, fault(s, "", fmt.Sprintf("has a query or fragment after %q", s[i]), s[:i])
	}
	first, rest, slash := strings.Cut(s, "/")
	r := Reference{Kind: Local}
	switch {
	case !slash:
		rest = s
		if name, v := cutSuffix(s); looksLikeHost(name) {
			e := fault(s, "repository", fmt.Sprintf("is missing after the registry %q", s))
			if strings.Trim(v.tag, "0123456789") != "" { // no port
				e.Suggest = []string{"local/" + s}
			}
			return none, suffix{}, e
		}
	case first == "local":
	case strings.Contains(first, "@"):
		return none, suffix{}, fault(s, "registry", "has a user name in front", s[strings.LastIndex(first, "@")+1:])
	case looksLikeHost(first):
		host, why := parseHost(first)
		if why != "" {
			return none, suffix{}, fault(s, "registry", why)
		}
		r = Reference{Kind: Registry, Registry: host}
	default:
		return none, suffix{}, fault(s, "registry", "is missing", "docker.io/"+s, "local/"+s)
	}
	name, v := cutSuffix(rest)
	if why := repositoryFault(name); why != "" {
		return none, suffix{}, fault(s, "repository", why, repositoryFix(s, name))
	}
	if r.Registry == "docker.io" && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	r.Repository = name
	return r, v, nil
}

// looksLikeHost reports whether the part before a slash is a registry by
// docker's rule.
func looksLikeHost(s string) bool {
	return strings.ContainsAny(s, ".:[") || strings.EqualFold(s, "localhost")
}

// shapeFault refuses what is no reference of any form.
func shapeFault(s string) *ReferenceError {
	switch {
	case s == "":
		return fault(s, "", "is empty")
	case !utf8.ValidString(s):
		return fault(s, "", "is not UTF-8")
	case strings.TrimSpace(s) != s:
		return fault(s, "", "starts or ends with white space", strings.TrimSpace(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		return fault(s, "", "holds a control character")
	case isPath(s):
		return fault(s, "", "is a path", "oci:"+s)
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found || strings.ContainsAny(scheme, "/:@") {
		return nil
	}
	if strings.HasPrefix(scheme, "oci") && (scheme != "oci" || strings.HasPrefix(rest, "/")) {
		rest = "oci:" + rest
	}
	return fault(s, "scheme", fmt.Sprintf("%q does not belong to a reference", scheme+"://"), strings.TrimRight(rest, "/"))
}

// isPath reports whether s can only be a path of the file system.
func isPath(s string) bool {
	for _, prefix := range []string{"/", "./", "../", `.\`, `..\`, `\\`, "~/"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return len(s) > 2 && s[1] == ':' && s[2] == '\\'
}

// parseHost returns the canonical host[:port], or why s is none.
func parseHost(s string) (host, why string) {
	name, port, hasPort := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") {
		end := strings.Index(s, "]") + 1
		addr, err := netip.ParseAddr(strings.Trim(s[:end], "[]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", fmt.Sprintf("%q is not an IPv6 address in brackets", s)
		}
		name, port, hasPort = "["+addr.String()+"]", strings.TrimPrefix(s[end:], ":"), s[end:] != ""
		if hasPort && s[end] != ':' {
			return "", fmt.Sprintf("%q has text after the bracket", s)
		}
	} else if why := hostFault(name); why != "" {
		return "", fmt.Sprintf("%q %s", s, why)
	}
	name = strings.ToLower(name)
	if name == "index.docker.io" {
		name = "docker.io"
	}
	if !hasPort {
		return name, ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return "", fmt.Sprintf("%q: port %q is not a number from 1 to 65535", s, port)
	}
	return name + ":" + port, ""
}

// hostFault says why name is no DNS name or IPv4 address, or nothing.
func hostFault(name string) string {
	if len(name) > maxHost {
		return fmt.Sprintf("is longer than %d bytes", maxHost)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return "has an empty label"
		}
		if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return "has a label that starts or ends with '-'"
		}
		for _, c := range label {
			if !alnum(c) && !upper(c) && c != '-' {
				return fmt.Sprintf("holds %q", c)
			}
		}
	}
	return ""
}

// repositoryFault says why name is no repository name, or nothing.
func repositoryFault(name string) string {
	switch {
	case name == "":
		return "is missing"
	case len(name) > maxRepository:
		return fmt.Sprintf("is longer than %d bytes", maxRepository)
	case strings.HasPrefix(name, "/"):
		return fmt.Sprintf("%q starts with a slash", name)
	case strings.HasSuffix(name, "/"):
		return fmt.Sprintf("%q ends with a slash", name)
	case strings.ContainsFunc(name, unicode.IsUpper):
		return fmt.Sprintf("%q has upper-case letters", name)
	}
	for component := range strings.SplitSeq(name, "/") {
		if component == "" {
			return fmt.Sprintf("%q has an empty component", name)
		}
		for _, c := range component {
			if !alnum(c) && !strings.ContainsRune("._-", c) {
				return fmt.Sprintf("%q holds %q", name, c)
			}
		}
		if !alnum(rune(component[0])) || !alnum(rune(component[len(component)-1])) {
			return fmt.Sprintf("%q: %q does not start and end with a letter or digit", name, component)
		}
		for sep := range strings.FieldsFuncSeq(component, alnum) {
			if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
				return fmt.Sprintf("%q holds %q", name, sep)
			}
		}
	}
	return ""
}

// repositoryFix returns s with its repository in lower case and without extra
// slashes.
func repositoryFix(s, name string) string {
	components := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return c == '/' })
	return strings.Replace(s, name, strings.Join(components, "/"), 1)
}

// tagFault refuses what the distribution specification takes for no tag.
func tagFault(s, tag string) *ReferenceError {
	legal := func(c rune) bool { return alnum(c) || upper(c) || strings.ContainsRune("._-", c) }
	why := ""
	switch i := strings.IndexFunc(tag, func(c rune) bool { return !legal(c) }); {
	case tag == "":
		return fault(s, "tag", "is empty")
	case len(tag) > maxTag:
		return fault(s, "tag", fmt.Sprintf("has %d characters, at most %d are allowed", len(tag), maxTag))
	case i >= 0:
		c, _ := utf8.DecodeRuneInString(tag[i:])
		why = fmt.Sprintf("%q holds %q", tag, c)
	case tag[0] == '.' || tag[0] == '-':
		why = fmt.Sprintf("%q starts with %q", tag, tag[0])
	default:
		return nil
	}
	fixed := strings.TrimLeft(strings.Map(func(c rune) rune {
		if legal(c) {
			return c
		}
		return '-'
	}, tag), ".-")
	at := strings.LastIndex(s, tag)
	return fault(s, "tag", why, s[:at]+fixed+s[at+len(tag):])
}

// digestFault refuses what is no sha256 or sha512 digest.
func digestFault(s, d string) *ReferenceError {
	algorithm, hex, _ := strings.Cut(d, ":")
	lower := strings.ToLower(d)
	switch want := digest.Algorithm(algorithm).Size() * 2; {
	case algorithm != "sha256" && algorithm != "sha512":
		return fault(s, "digest", fmt.Sprintf("%.200q does not start with sha256: or sha512:", d))
	case len(hex) != want:
		return fault(s, "digest", fmt.Sprintf("has %d hex digits, %s has %d", len(hex), algorithm, want))
	case digest.Digest(d).Validate() == nil:
		return nil
	case lower != d:
		return fault(s, "digest", "has upper-case letters", strings.TrimSuffix(s, d)+lower)
	}
	return fault(s, "digest", fmt.Sprintf("%q holds more than hex digits", d))
}

// redact hides the user name and password that a URL may carry in front of
// its host.
func redact(s string) string {
	_, rest, found := strings.Cut(s, "://")
	if !found {
		rest = s
	}
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(authority, "@")
	if at <= 0 || strings.HasPrefix(s, "oci:") || strings.HasPrefix(authority[at:], "@sha256:") || strings.HasPrefix(authority[at:], "@sha512:") {
		return s
	}
	return s[:len(s)-len(rest)] + "***" + rest[at:]
}

func alnum(c rune) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
func upper(c rune) bool { return 'A' <= c && c <= 'Z' }
