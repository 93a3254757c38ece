package image

import (
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// scratchPlatforms are those of a data-only image: where Kubernetes and docker
// run.
var scratchPlatforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// Scratch returns the base of a data-only image: an index of empty images for
// linux/amd64 and linux/arm64, which will share their layers.
func Scratch() *Base {
	b := &Base{scratch: true}
	var entries []v1.Descriptor
	for n, p := range scratchPlatforms {
		config := object{}.with("architecture", p.Architecture).with("os", p.OS).
			with("rootfs", object{}.with("type", "layers").with("diff_ids", []string{}))
		b.Images = append(b.Images, &Image{
			Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Platform: &p},
			manifest: object{}.with("schemaVersion", 2).with("mediaType", v1.MediaTypeImageManifest).
				with("config", object{}).with("layers", []string{}),
			config: config,
			at:     n,
		})
		entries = append(entries, b.Images[n].Descriptor)
	}
	b.index = object{}.with("schemaVersion", 2).with("mediaType", v1.MediaTypeImageIndex).with("manifests", entries)
	return b
}
