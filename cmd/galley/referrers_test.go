package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"galley/oci"
)

func scriptTarget(ts *testscript.TestScript, s string) (oci.Target, v1.Descriptor) {
	ref, err := oci.ParseReference(s)
	ts.Check(err)
	c, err := oci.NewClient(oci.Options{})
	ts.Check(err)
	t, err := c.Create(context.Background(), ref)
	ts.Check(err)
	d, err := t.Resolve(context.Background(), ref.TagOrDigest())
	ts.Check(err)
	return t, d
}

func scriptReferrers(ts *testscript.TestScript, t oci.Target, d v1.Descriptor) []v1.Descriptor {
	var found []v1.Descriptor
	ts.Check(t.(registry.ReferrerLister).Referrers(context.Background(), d, "", func(page []v1.Descriptor) error {
		found = append(found, page...)
		return nil
	}))
	return found
}

// attachCmd adds a referrer to an artifact, or to its first referrer: attach
// REF TYPE [again].
func attachCmd(ts *testscript.TestScript, _ bool, args []string) {
	t, d := scriptTarget(ts, args[0])
	if len(args) > 2 {
		d = scriptReferrers(ts, t, d)[0]
	}
	subject := v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	doc, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/x-" + args[1],
		Config: v1.DescriptorEmptyJSON, Layers: []v1.Descriptor{v1.DescriptorEmptyJSON}, Subject: &subject,
	})
	ts.Check(err)
	err = t.Push(context.Background(), v1.DescriptorEmptyJSON, strings.NewReader("{}"))
	if !errors.Is(err, errdef.ErrAlreadyExists) {
		ts.Check(err)
	}
	m := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(doc), Size: int64(len(doc))}
	ts.Check(t.Push(context.Background(), m, bytes.NewReader(doc)))
}

// referrersCmd counts what refers to an artifact, and to that: referrers REF N.
func referrersCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	t, d := scriptTarget(ts, args[0])
	got, todo := 0, []v1.Descriptor{d}
	for len(todo) > 0 {
		found := scriptReferrers(ts, t, todo[0])
		got += len(found)
		todo = append(todo[1:], found...)
	}
	if got != want {
		ts.Fatalf("%s has %d referrers; want %d", args[0], got, want)
	}
}
