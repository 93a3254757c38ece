package oci

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// quirk is a way in which some registries depart from the others, and that an
// upload has to know.
type quirk string

const (
	// noChunks: an upload comes in one PUT, and one that was cut begins anew.
	// Elsewhere what is huge comes by PATCH, to go on where it was cut.
	noChunks quirk = "no-chunks"
	// singlePost: POST …?digest= takes a blob in its body, as the
	// specification allows. Saves the PUT of small blobs.
	singlePost quirk = "single-post"
	// ignoresMounts: a mount from the repository itself begins an upload though
	// the blob is there. Such registries are asked for each blob with a HEAD.
	ignoresMounts quirk = "ignores-mounts"
)

// signedOffset is a part of the query of a location, in which distribution signs
// how far the upload is. When a request was cut that is no longer true, and the
// session is lost: nothing is gained by going on with it.
const signedOffset = "_state"

// quirks is what is known before the first request; everything else is learnt
// from the registry's answers, and kept for a month.
//
// What no entry is needed for, because every upload allows for it: locations
// that are relative, that change with every answer or lie on another host;
// locations that say http behind a proxy that ends TLS; redirects to object
// storage; mounts that are refused instead of missed; answers without
// Docker-Content-Digest; tokens that expire; sessions that are gone.
var quirks = []struct {
	quirk
	hosts []string // names, or endings that begin with a dot
	why   string
}{
	{noChunks, []string{"gcr.io", ".gcr.io", ".pkg.dev"},
		"Artifact Registry takes no chunked uploads: https://cloud.google.com/artifact-registry/docs/docker/pushing-and-pulling"},
	{noChunks, []string{"ghcr.io"},
		"GitHub's registry answers 416 to a PATCH of more than 4 MiB"},
	{noChunks, []string{".amazonaws.com", ".amazonaws.com.cn"},
		"ECR answers 201 to the first PATCH, as if the upload were complete"},
	{singlePost, nil,
		"zot and galley serve take POST …?digest=; distribution answers 202 and ignores the body"},
	{ignoresMounts, nil,
		"ECR mounts only where BLOB_MOUNTING is set: https://docs.aws.amazon.com/AmazonECR/latest/userguide/blob-mounting.html"},
}

// knownQuirk reports whether every registry of that name has the quirk.
func knownQuirk(host string, q quirk) bool {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	for _, k := range quirks {
		if k.quirk == q && slices.ContainsFunc(k.hosts, func(h string) bool {
			return name == h || h[0] == '.' && strings.HasSuffix(name, h)
		}) {
			return true
		}
	}
	return false
}

// quirkLife is how long what was learnt of a registry holds.
const quirkLife = 30 * 24 * time.Hour

// manners is what was learnt of one registry.
type manners struct {
	mu      sync.Mutex
	loaded  bool
	probing map[quirk]bool
	learnt  learntQuirks
}

// learntQuirks is also what is kept of a registry between two runs.
type learntQuirks map[quirk]struct {
	Has bool      `json:"has"`
	At  time.Time `json:"at"`
}

// load reads what an earlier run learnt. The caller holds the lock.
func (m *manners) load(kept *memory, host string) {
	if m.loaded {
		return
	}
	m.loaded, m.probing = true, map[quirk]bool{}
	if !kept.get(hostsKind, host, &m.learnt) || m.learnt == nil {
		m.learnt = learntQuirks{}
	}
	for q, l := range m.learnt {
		if !fresh(l.At, quirkLife) {
			delete(m.learnt, q)
		}
	}
}

// fresh reports whether at is not older than life, nor of another clock.
func fresh(at time.Time, life time.Duration) bool {
	age := time.Since(at)
	return age < life && age > -time.Hour
}

// has reports whether the registry has the quirk.
func (c *Client) has(host string, q quirk) bool {
	if knownQuirk(host, q) {
		return true
	}
	m := &c.facts(host).manners
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(c.memory, host)
	return m.learnt[q].Has
}

// probe reports, once for every quirk, that nobody knows whether the registry
// has it: the caller finds out.
func (c *Client) probe(host string, q quirk) bool {
	m := &c.facts(host).manners
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(c.memory, host)
	_, known := m.learnt[q]
	first := !known && !m.probing[q]
	m.probing[q] = true
	return first
}

// learn keeps whether the registry has the quirk.
func (c *Client) learn(host string, q quirk, has bool) {
	m := &c.facts(host).manners
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(c.memory, host)
	l, known := m.learnt[q]
	if known && l.Has == has {
		return
	}
	c.o.Log.Debug("learnt", "registry", host, "quirk", q, "has", has)
	l.Has, l.At = has, time.Now().UTC()
	m.learnt[q] = l
	c.memory.put(hostsKind, host, m.learnt)
}
