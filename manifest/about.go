package manifest

import (
	"github.com/opencontainers/go-digest"

	"galley/manifest/training"
)

// Facts is what is known of one model, read from its files and not from what
// annotations claim. Gates judge it, and two of them can be compared.
type Facts struct {
	// Info is what the manifest tells; of files that were never packed, what
	// packing them would.
	Info Info
	// Digest is the artifact's; "" for what was never packed. Of an image it is
	// the digest of the artifact that was baked into it.
	Digest digest.Digest
	// Path is where the model's file lies and Size its bytes; "" and -1 where
	// that is unknown.
	Path string
	Size int64
	// FileDigest is the SHA-256 of the model's file; "" where that is unknown.
	FileDigest digest.Digest
	// Summary and Features are the JSON files; nil where there is none.
	Summary  *training.Summary
	Features *training.Features
	// Scans are what is in the files, but for the two JSON files, in the order
	// of paths; nil if they were not read, which costs the model's bytes.
	Scans []Scan
}
