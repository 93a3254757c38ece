package image

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Why an image cannot be a base, for errors.Is. Documents that break their
// format wrap [galley/manifest.ErrMalformed] instead.
var (
	ErrNotImage       = errors.New("not a container image")
	ErrSchema1        = errors.New("a schema 1 image")
	ErrForeignLayer   = errors.New("a foreign layer")
	ErrEncryptedLayer = errors.New("an encrypted layer")
	ErrDiffIDs        = errors.New("diff_ids that do not match the layers")
	ErrNoPlatform     = errors.New("no such platform")
)

// BaseError says which part of a base image galley cannot build on, and why.
type BaseError struct {
	Kind     error         // one of this package's sentinels
	Digest   digest.Digest // of the manifest, config or layer that is meant
	Platform string        // of the image; empty when it is not known
	Detail   string        // the cause in words
}

func (e *BaseError) Error() string {
	var b strings.Builder
	b.WriteString("base image ")
	if e.Platform != "" {
		fmt.Fprintf(&b, "for %s ", e.Platform)
	}
	fmt.Fprintf(&b, "%.100s: %s", e.Digest, e.Detail)
	return b.String()
}

// Unwrap returns the kind.
func (e *BaseError) Unwrap() error { return e.Kind }

// PathError says why nothing can be put at a path of the image.
type PathError struct {
	Path   string // absolute
	Reason string // follows it: "is a file in the base"
}

func (e *PathError) Error() string { return fmt.Sprintf("%.300q %s", e.Path, e.Reason) }

// CollisionError says that two models want one path.
type CollisionError struct {
	Path   string   // absolute; "/" when neither has a name
	Models []string // the names of both; "" where a model has none
}

func (e *CollisionError) Error() string {
	if e.Path == "/" {
		return "two models without a name"
	}
	return fmt.Sprintf("%.300q belongs to two models", e.Path)
}
