package image

import (
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
)

// Media types of Docker's family. The uncompressed and zstd layers are not in
// Docker's specification, but docker and containers/image write and read them.
const (
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList      = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerTar  = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	schema1Prefix   = "application/vnd.docker.distribution.manifest.v1+"
)

// layerFormats are the layers of root filesystems.
var layerFormats = map[string]manifest.Format{
	v1.MediaTypeImageLayer:     manifest.FormatTar,
	v1.MediaTypeImageLayerGzip: manifest.FormatTarGzip,
	v1.MediaTypeImageLayerZstd: manifest.FormatTarZstd,
	dockerLayerTar:             manifest.FormatTar,
	dockerLayerGzip:            manifest.FormatTarGzip,
	dockerLayerZstd:            manifest.FormatTarZstd,
}

// family is one of the two sets of media types.
type family int

const (
	ociFamily family = iota
	dockerFamily
)

// familyOf tells a document's family by its own word, else by its
// descriptor's, else by its config's.
func familyOf(doc object, mediaType string) family {
	var own string
	var config v1.Descriptor
	if doc.into("mediaType", &own) != nil || doc.into("config", &config) != nil {
		return ociFamily
	}
	for _, t := range []string{own, mediaType, config.MediaType} {
		if t != "" {
			if strings.HasPrefix(t, "application/vnd.docker.") {
				return dockerFamily
			}
			return ociFamily
		}
	}
	return ociFamily
}

func (f family) manifest() string {
	if f == dockerFamily {
		return dockerManifest
	}
	return v1.MediaTypeImageManifest
}

func (f family) index() string {
	if f == dockerFamily {
		return dockerList
	}
	return v1.MediaTypeImageIndex
}

func (f family) config() string {
	if f == dockerFamily {
		return dockerConfig
	}
	return v1.MediaTypeImageConfig
}

func (f family) layer(format manifest.Format) string {
	switch {
	case f == dockerFamily && format == manifest.FormatTarGzip:
		return dockerLayerGzip
	case f == dockerFamily && format == manifest.FormatTar:
		return dockerLayerTar
	case format == manifest.FormatTarGzip:
		return v1.MediaTypeImageLayerGzip
	case format == manifest.FormatTarZstd:
		return v1.MediaTypeImageLayerZstd
	}
	return v1.MediaTypeImageLayer
}

// platformString is OS/ARCHITECTURE[/VARIANT].
func platformString(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// matches reports whether the platform is the one asked for; without a variant
// any will do, and arm64's v8 is what arm64 without one is.
func matches(want string, p *v1.Platform) bool {
	if p == nil {
		return false
	}
	parts := append(strings.Split(want, "/"), "", "")
	if !strings.EqualFold(parts[0], p.OS) || !strings.EqualFold(parts[1], p.Architecture) {
		return false
	}
	variant := p.Variant
	if variant == "" && p.Architecture == "arm64" {
		variant = "v8"
	}
	return parts[2] == "" || parts[2] == variant
}
