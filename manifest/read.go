package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/internal/strictjson"
)

// Limits on foreign documents, in bytes.
const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	maxLayers   = 10_000
)

// Artifact is what a manifest says: which layers, which files in them, and
// what it tells of the model. It is a value; nothing in it is checked against
// the layers' bytes until [Layer.Walk] reads them.
type Artifact struct {
	Root     v1.Descriptor
	Manifest v1.Manifest
	Layers   []Layer
}

// Layer is one layer of an artifact made by galley, oras, modctl or kit.
type Layer struct {
	Descriptor v1.Descriptor
	Title      string // as stock tools show it
	Role       Role
	Format     Format
	DiffID     digest.Digest // of the uncompressed bytes; empty where the artifact does not say
	// Files lists what the layer holds; nil where only reading it tells.
	Files []File
}

// File is one file of an artifact.
type File struct {
	Path   string
	Role   Role
	Size   int64         // bytes; -1 where the artifact does not say
	Digest digest.Digest // of the file's bytes; empty where the artifact does not say
	Exec   bool
}

// Fetcher gives the bytes of a descriptor. Every oras-go target is one.
type Fetcher interface {
	Fetch(context.Context, v1.Descriptor) (io.ReadCloser, error)
}

// NotArtifactError says that a reference names something else.
type NotArtifactError struct {
	MediaType string
	What      string // "a container image", …
}

func (e *NotArtifactError) Error() string {
	return fmt.Sprintf("not a model artifact but %s (%s)", e.What, e.MediaType)
}

// CorruptError says that bytes are not what their descriptor promised.
type CorruptError struct {
	What      string // "layer models", "models/model.joblib"
	Want, Got string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is not what was promised: want %s, got %s", e.What, e.Want, e.Got)
}

// ErrMalformed is wrapped by errors about documents that break their format.
var ErrMalformed = errors.New("malformed manifest")

// Read reads the artifact at root from src: its manifest, and its config only
// where the manifest does not tell everything. Errors are those of src, a
// [*NotArtifactError], a [*CorruptError], or wrap [ErrMalformed] or
// [ErrUnsafePath].
func Read(ctx context.Context, src Fetcher, root v1.Descriptor) (*Artifact, error) {
	if err := checkKind(root.MediaType, "", root.MediaType); err != nil {
		return nil, err
	}
	doc, err := ReadBlob(ctx, src, root, "manifest", maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(doc)
	if err != nil {
		return nil, err
	}
	var config []byte
	if needsConfig(m) {
		if config, err = ReadBlob(ctx, src, m.Config, "config", maxConfig); err != nil {
			return nil, err
		}
	}
	return parse(root, m, config)
}

// ReadBlob reads a whole small blob and checks its size and digest. What names
// it in errors; limit is in bytes.
func ReadBlob(ctx context.Context, src Fetcher, d v1.Descriptor, what string, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%w: a %s of %d bytes; at most %d are read", ErrMalformed, what, d.Size, limit)
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %s digest %.100q: %w", ErrMalformed, what, d.Digest, err)
	}
	rc, err := src.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b := newBlobReader(rc, d, what)
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, err
	}
	return data, b.verify()
}

// decodeManifest reads the document after refusing what two readers could
// understand differently: keys that are equal, or equal but for case.
func decodeManifest(doc []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := strictjson.CheckFold(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkKind(m.MediaType, m.Config.MediaType, m.MediaType); err != nil {
		return nil, err
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: %d layers; at most %d are read", ErrMalformed, len(m.Layers), maxLayers)
	}
	for _, l := range m.Layers {
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: layer digest %.100q: %w", ErrMalformed, l.Digest, err)
		}
		if l.Size < 0 {
			return nil, fmt.Errorf("%w: layer %s of %d bytes", ErrMalformed, l.Digest, l.Size)
		}
	}
	return &m, nil
}

// checkKind refuses what is known to be no artifact.
func checkKind(mediaType, config, shown string) error {
	what := ""
	switch {
	case mediaType == v1.MediaTypeImageIndex || mediaType == dockerList:
		what = "an index of several"
	case config == v1.MediaTypeImageConfig || config == dockerImage || mediaType == dockerManifest:
		what = "a container image"
	case mediaType != "" && mediaType != v1.MediaTypeImageManifest:
		what = "something else"
	default:
		return nil
	}
	if shown == "" || config == v1.MediaTypeImageConfig {
		shown = config
	}
	return &NotArtifactError{MediaType: shown, What: what}
}

// needsConfig reports whether paths or diffIDs stand only in the config.
func needsConfig(m *v1.Manifest) bool {
	if m.Config.MediaType == kitConfig {
		return true
	}
	if m.Config.MediaType != MediaTypeConfig {
		return false
	}
	for _, l := range m.Layers {
		f := formatOf(l)
		if (f == FormatTarGzip || f == FormatTarZstd) && l.Annotations[AnnotationFiles] == "" {
			return true
		}
	}
	return false
}

// Parse is [Read] for a manifest at hand whose digest is right, without its
// config: what only that tells, as kit's paths, is missing.
func Parse(root v1.Descriptor, doc []byte) (*Artifact, error) {
	if err := checkKind(root.MediaType, "", root.MediaType); err != nil {
		return nil, err
	}
	m, err := decodeManifest(doc)
	if err != nil {
		return nil, err
	}
	return parse(root, m, nil)
}

// parse builds the artifact; config may be nil when it is not needed.
func parse(root v1.Descriptor, m *v1.Manifest, config []byte) (*Artifact, error) {
	diffIDs, kit, err := readConfig(m, config)
	if err != nil {
		return nil, err
	}
	a := &Artifact{Root: root, Manifest: *m}
	paths := make(pathSet)
	for i, d := range m.Layers {
		if p := kit[d.Digest]; p != "" {
			d = withPath(d, p)
		}
		l, err := readLayer(d)
		if err != nil {
			return nil, err
		}
		if l.DiffID == "" && i < len(diffIDs) {
			l.DiffID = diffIDs[i]
		}
		for _, f := range l.Files {
			if err := paths.add(f.Path); err != nil {
				return nil, err
			}
		}
		a.Layers = append(a.Layers, l)
	}
	return a, nil
}

// kitfile is the part of KitOps' config that tells which layer holds what.
type kitfile struct {
	Model    kitEntry   `json:"model"`
	Docs     []kitEntry `json:"docs"`
	Code     []kitEntry `json:"code"`
	Datasets []kitEntry `json:"datasets"`
}

type kitEntry struct {
	Path   string        `json:"path"`
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffId"`
	Parts  []kitEntry    `json:"parts"`
}

// readConfig returns the diffIDs in layer order and kit's paths by digest.
func readConfig(m *v1.Manifest, config []byte) ([]digest.Digest, map[digest.Digest]string, error) {
	if config == nil {
		return nil, nil, nil
	}
	if err := strictjson.CheckFold(config); err != nil {
		return nil, nil, fmt.Errorf("%w: config: %w", ErrMalformed, err)
	}
	if m.Config.MediaType != kitConfig {
		var c Config
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, nil, fmt.Errorf("%w: config: %w", ErrMalformed, err)
		}
		return c.ModelFS.DiffIDs, nil, nil
	}
	var k kitfile
	if err := json.Unmarshal(config, &k); err != nil {
		return nil, nil, fmt.Errorf("%w: config: %w", ErrMalformed, err)
	}
	entries := append([]kitEntry{k.Model}, k.Model.Parts...)
	entries = append(append(append(entries, k.Docs...), k.Code...), k.Datasets...)
	paths := make(map[digest.Digest]string)
	diffs := make(map[digest.Digest]digest.Digest)
	for _, e := range entries {
		paths[e.Digest], diffs[e.Digest] = e.Path, e.DiffID
	}
	var diffIDs []digest.Digest
	for _, l := range m.Layers {
		diffIDs = append(diffIDs, diffs[l.Digest])
	}
	return diffIDs, paths, nil
}

// withPath gives a descriptor the path that another document tells.
func withPath(d v1.Descriptor, p string) v1.Descriptor {
	if d.Annotations[annotationFilepath] == "" {
		d.Annotations = map[string]string{annotationFilepath: p}
	}
	return d
}

// readLayer reads what a layer's descriptor says.
func readLayer(d v1.Descriptor) (Layer, error) {
	l := Layer{Descriptor: d, Format: formatOf(d), Title: d.Annotations[annotationTitle]}
	file := d.Annotations[annotationFilepath]
	if file == "" {
		file = l.Title
	}
	if l.Title == "" {
		l.Title = file
	}
	if l.Role = Role(d.Annotations[AnnotationRole]); l.Role == "" {
		l.Role = roleOf(d.MediaType, file)
	}
	meta := readMetadata(d)
	switch l.Format {
	case FormatRaw:
		l.DiffID = d.Digest
		if file == "" {
			// Nothing says where it goes: it is carried, not installed.
			l.Files = []File{}
			return l, nil
		}
		if err := CheckPath(file); err != nil {
			return l, err
		}
		l.Files = []File{{Path: file, Role: l.Role, Size: d.Size, Digest: d.Digest, Exec: l.Role == RoleCode && meta.Mode&0o100 != 0}}
		return l, nil
	case FormatTar:
		l.DiffID = d.Digest
	case FormatTarGzip:
		l.DiffID = digest.Digest(d.Annotations[annotationOrasDigest])
	}
	if l.DiffID != "" && l.DiffID.Validate() != nil {
		return l, fmt.Errorf("%w: layer %s: diffID %.100q", ErrMalformed, d.Digest, l.DiffID)
	}
	var err error
	if text := d.Annotations[AnnotationFiles]; text != "" {
		l.Files, err = ParseFiles(text, l.Role)
	} else if meta.Typeflag == 0 && meta.Name != "" && path.Base(file) == meta.Name {
		// modctl packs each file on its own and tells its size.
		l.Files = []File{{Path: file, Role: l.Role, Size: meta.Size}}
		err = CheckPath(file)
	} else if d.Annotations[annotationOrasUnpack] == "" && path.Ext(file) != "" && strings.HasPrefix(d.MediaType, kitPrefix) {
		l.Files = []File{{Path: file, Role: l.Role, Size: -1}}
		err = CheckPath(file)
	}
	return l, err
}

// readMetadata reads ModelPack's file metadata; none is the zero value, and a
// broken one is none: it is only a claim.
func readMetadata(d v1.Descriptor) (m fileMetadata) {
	if text := d.Annotations[annotationFileMetadata]; text != "" {
		if json.Unmarshal([]byte(text), &m) != nil {
			return fileMetadata{}
		}
	}
	return m
}

// ParseFiles reads the annotation ml.galley.files, which [FormatFiles] writes.
// Files that do not tell their role have the one given. The error wraps
// [ErrMalformed] or [ErrUnsafePath].
func ParseFiles(text string, role Role) ([]File, error) {
	var packed []packedFile
	if err := strictjson.CheckFold([]byte(text)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, AnnotationFiles, err)
	}
	if err := json.Unmarshal([]byte(text), &packed); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, AnnotationFiles, err)
	}
	files := make([]File, 0, len(packed))
	for _, p := range packed {
		f := File{Path: p.Path, Role: p.Role, Size: p.Size, Digest: digest.NewDigestFromEncoded(digest.SHA256, p.SHA256)}
		if f.Role == "" {
			f.Role = role
		}
		if f.Size < 0 || f.Size > maxTarFile || f.Digest.Validate() != nil {
			return nil, fmt.Errorf("%w: %s: %.200q has no size or digest", ErrMalformed, AnnotationFiles, p.Path)
		}
		if err := CheckPath(p.Path); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Files returns every file that the artifact is known to hold, in layer order.
func (a *Artifact) Files() iter.Seq[File] {
	return func(yield func(File) bool) {
		for _, l := range a.Layers {
			for _, f := range l.Files {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// Expand reads the layers of which the manifest does not tell the files, or
// their sizes and digests, or the diffID, and fills these in. Layers made by
// galley are never fetched.
func (a *Artifact) Expand(ctx context.Context, src Fetcher) error {
	paths := make(pathSet)
	for i := range a.Layers {
		l := &a.Layers[i]
		if !l.complete() {
			if err := l.expand(ctx, src); err != nil {
				return err
			}
		}
		for _, f := range l.Files {
			if err := paths.add(f.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete reports whether the manifest tells all there is to know.
func (l *Layer) complete() bool {
	if l.Files == nil || l.DiffID == "" {
		return false
	}
	for _, f := range l.Files {
		if f.Size < 0 || f.Digest == "" {
			return false
		}
	}
	return true
}

func (l *Layer) expand(ctx context.Context, src Fetcher) error {
	rc, err := src.Fetch(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer rc.Close()
	read := *l
	read.Files = []File{}
	read.DiffID, err = l.Walk(rc, func(f File, r io.Reader) error {
		h := digest.SHA256.Digester()
		if _, err := io.Copy(h.Hash(), r); err != nil {
			return err
		}
		f.Digest = h.Digest()
		read.Files = append(read.Files, f)
		return nil
	})
	if err == nil {
		*l = read
	}
	return err
}
