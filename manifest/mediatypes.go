package manifest

import (
	"fmt"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of the CNCF ModelPack specification
// (https://github.com/modelpack/model-spec/blob/v0.0.7/docs/spec.md).
const (
	ArtifactType    = "application/vnd.cncf.model.manifest.v1+json"
	MediaTypeConfig = "application/vnd.cncf.model.config.v1+json"

	mediaTypeWeight       = "application/vnd.cncf.model.weight.v1"
	mediaTypeWeightConfig = "application/vnd.cncf.model.weight.config.v1"
	mediaTypeDoc          = "application/vnd.cncf.model.doc.v1"
	mediaTypeCode         = "application/vnd.cncf.model.code.v1"
	mediaTypeDataset      = "application/vnd.cncf.model.dataset.v1"
)

// Media types of other tools whose artifacts galley reads.
const (
	kitConfig      = "application/vnd.kitops.modelkit.config.v1+json"
	kitPrefix      = "application/vnd.kitops.modelkit."
	dockerImage    = "application/vnd.docker.container.image.v1+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Annotations on layers.
const (
	annotationTitle        = v1.AnnotationTitle
	annotationFilepath     = "org.cncf.model.filepath"
	annotationFileMetadata = "org.cncf.model.file.metadata+json"
	annotationOrasUnpack   = "io.deis.oras.content.unpack"
	annotationOrasDigest   = "io.deis.oras.content.digest"

	AnnotationRole  = "ml.galley.role"
	AnnotationFiles = "ml.galley.files"
)

// Annotations on manifests. [AnnotationMetric] is a prefix.
const (
	AnnotationPrefix = "ml.galley."

	AnnotationContent        = "ml.galley.content"
	AnnotationTrained        = "ml.galley.trained"
	AnnotationModelClass     = "ml.galley.model.class"
	AnnotationModelSteps     = "ml.galley.model.steps"
	AnnotationModelSklearn   = "ml.galley.model.sklearn"
	AnnotationModelNumpy     = "ml.galley.model.numpy"
	AnnotationModelJoblib    = "ml.galley.model.joblib"
	AnnotationModelFeatures  = "ml.galley.model.features"
	AnnotationModelImports   = "ml.galley.model.imports"
	AnnotationModelScan      = "ml.galley.model.scan"
	AnnotationModelAllowed   = "ml.galley.model.scan.allowed"
	AnnotationModelDigest    = "ml.galley.model.file.sha256"
	AnnotationModelSize      = "ml.galley.model.file.size"
	AnnotationFeaturesCount  = "ml.galley.features.count"
	AnnotationFeaturesDigest = "ml.galley.features.digest"
	AnnotationMetric         = "ml.galley.metric."
	AnnotationMetricsOmitted = "ml.galley.metrics.omitted"
)

// Format is how a layer holds its files.
type Format string

// The formats of layers. Raw is one file as it is.
const (
	FormatTarGzip Format = "tar+gzip"
	FormatTar     Format = "tar"
	FormatTarZstd Format = "tar+zstd"
	FormatRaw     Format = "raw"
)

// ParseFormat returns the format of that name.
func ParseFormat(s string) (Format, error) {
	formats := []Format{FormatTarGzip, FormatTar, FormatTarZstd, FormatRaw}
	if slices.Contains(formats, Format(s)) {
		return Format(s), nil
	}
	return "", fmt.Errorf("layer format %q: not one of %s, %s, %s, %s", s, formats[0], formats[1], formats[2], formats[3])
}

// mediaType is the ModelPack type of a layer.
func mediaType(role Role, f Format) string {
	base := mediaTypeWeight
	switch role {
	case RoleFeatures:
		base = mediaTypeWeightConfig
	case RoleSummary, RoleDoc:
		base = mediaTypeDoc
	case RoleCode:
		base = mediaTypeCode
	case RoleDataset:
		base = mediaTypeDataset
	}
	return base + "." + string(f)
}

// formatOf tells how a layer made by any tool holds its files.
func formatOf(d v1.Descriptor) Format {
	packed := strings.HasPrefix(d.MediaType, "application/vnd.cncf.model.") ||
		strings.HasPrefix(d.MediaType, kitPrefix) ||
		d.Annotations[annotationOrasUnpack] == "true"
	if !packed {
		// oras push types a single file as an image layer, whatever it is.
		return FormatRaw
	}
	switch {
	case strings.HasSuffix(d.MediaType, ".tar"):
		return FormatTar
	case strings.HasSuffix(d.MediaType, "+gzip"):
		return FormatTarGzip
	case strings.HasSuffix(d.MediaType, "+zstd"):
		return FormatTarZstd
	}
	return FormatRaw
}

// roleOf guesses a file's role in an artifact that does not say it.
func roleOf(mediaType, path string) Role {
	name := strings.ToLower(path[strings.LastIndexByte(path, '/')+1:])
	if strings.HasSuffix(name, ".json") {
		switch {
		case strings.Contains(name, "features"):
			return RoleFeatures
		case strings.Contains(name, "summary"), strings.Contains(name, "metrics"):
			return RoleSummary
		}
	}
	for _, m := range []struct {
		mark string
		role Role
	}{
		{"model.doc.", RoleDoc}, {"modelkit.docs.", RoleDoc}, {"weight.config.", RoleDoc},
		{"model.code.", RoleCode}, {"modelkit.code.", RoleCode},
		{"model.dataset.", RoleDataset}, {"modelkit.dataset.", RoleDataset},
		{"modelkit.modelpart.", RolePart},
		{"model.weight.", RoleModel}, {"modelkit.model.", RoleModel},
	} {
		if strings.Contains(mediaType, m.mark) {
			return m.role
		}
	}
	for _, ext := range []string{".joblib", ".pkl", ".pickle", ".onnx", ".skops", ".ubj", ".cbm", ".bst", ".model"} {
		if strings.HasSuffix(name, ext) {
			return RoleModel
		}
	}
	return RoleDoc
}
