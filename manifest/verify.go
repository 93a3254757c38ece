package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// Verify reads the layer's blob from r and compares it with everything that the
// artifact tells of it: size, digest, diffID, and the files with their sizes and
// digests. Unlike [Layer.Walk] it takes nothing for granted and does not stop
// at the first file that is wrong. Memory does not depend on the sizes.
//
// Whatever is wrong with the layer is a [*CorruptError], joined if there are
// several; any other error is one of r.
func (l *Layer) Verify(r io.Reader) error {
	blob := newBlobReader(r, l.Descriptor, "layer "+l.Title)
	w := &walker{Layer: l, fn: func(File, io.Reader) error { return nil }, thorough: true}
	diffID, err := w.walk(blob)
	if blob.err != nil {
		return blob.err
	}
	if verr := blob.verify(); verr != nil {
		return verr // with other bytes the rest means nothing
	}
	switch {
	case err == nil:
		err = w.checkDiffID(diffID)
	case errors.Is(err, ErrBadTar), errors.Is(err, ErrUnsafePath), decodes(err):
		err = &CorruptError{"layer " + l.Title, string(l.Format), err.Error()}
	}
	return errors.Join(append(w.faults, err)...)
}

// decodes reports whether err is a decompressor's.
func decodes(err error) bool {
	var e *decodeError
	return errors.As(err, &e)
}

// VerifyConfig reads the config from src, and compares its size and digest with
// the manifest, the diffIDs that it lists with those of the layers, and what the
// manifest says of the model file with the layers' lists. DiffIDs that only the
// config tells it fills in, for [Layer.Verify]. Mismatches are [*CorruptError]s,
// joined; a config that cannot be understood wraps [ErrMalformed].
func (a *Artifact) VerifyConfig(ctx context.Context, src Fetcher) error {
	config, err := ReadBlob(ctx, src, a.Manifest.Config, "config", maxConfig)
	if err != nil {
		return err
	}
	faults := a.checkModel()
	if !listsDiffIDs(a.Manifest.Config.MediaType) {
		return errors.Join(faults...)
	}
	diffIDs, _, err := readConfig(&a.Manifest, config)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	if n := len(diffIDs); n > 0 && n != len(a.Layers) {
		faults = append(faults, &CorruptError{"config", fmt.Sprintf("%d diffIDs", len(a.Layers)), strconv.Itoa(n)})
	}
	for i := range min(len(diffIDs), len(a.Layers)) {
		switch l := &a.Layers[i]; {
		case l.DiffID == "":
			l.DiffID = diffIDs[i]
		case diffIDs[i] != "" && diffIDs[i] != l.DiffID:
			faults = append(faults, &CorruptError{"config: diffID of layer " + l.Title, l.DiffID.String(), fmt.Sprintf("%.100q", diffIDs[i])})
		}
	}
	return errors.Join(faults...)
}

// listsDiffIDs reports whether configs of the type do.
func listsDiffIDs(mediaType string) bool {
	return mediaType == MediaTypeConfig || mediaType == kitConfig
}

// checkModel compares what the manifest says of the model file with what the
// layers say of the files; these are compared with the bytes in turn.
func (a *Artifact) checkModel() []error {
	want, size := a.Manifest.Annotations[AnnotationModelDigest], a.Manifest.Annotations[AnnotationModelSize]
	if want == "" && size == "" {
		return nil
	}
	for f := range a.Files() {
		if f.Role == RoleModel && f.Digest == digest.NewDigestFromEncoded(digest.SHA256, want) && strconv.FormatInt(f.Size, 10) == size {
			return nil
		}
	}
	return []error{&CorruptError{"model file", fmt.Sprintf("sha256:%.64s of %.20s bytes", want, size), "no such file"}}
}
