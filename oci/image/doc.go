// Package image makes serving images out of a base image and models, without
// moving the models' bytes.
//
// [Open] reads a base image, one platform or several, from whatever can fetch
// blobs; [OpenArchive] and [SpoolArchive] do so from what `docker save` writes,
// and [Scratch] is the base of an image that holds nothing but the models.
// [NewBaking] decides where each file goes, [Baking.Look] looks at the base once,
// and [Baking.Bake] returns a [Graph]: the new manifests, configs and one small
// layer in memory, everything else as descriptors of blobs that lie where they
// lay. A graph can be given to a copy as it is, or to [Save], which writes what
// `docker load` reads. [Verify] is the judge of all of it. [FindCarried] goes the
// other way: it finds the model in an image and reads its files.
//
// # What it promises
//
// A base's JSON is patched, not re-typed: fields that galley does not know
// survive, members keep their order and numbers their text. Layers of the base
// are never changed. The same base, models and options give the same digests,
// for there is no clock in here. A directory of the base that gets a new file
// keeps its mode and owner.
//
// # What it refuses
//
// Schema 1 images, artifacts, images with foreign (URL) or encrypted layers,
// configs that do not list their layers, and images of other systems than
// Linux: see [BaseError]. Paths that would leave the image's root or replace a
// directory by a file: see [PathError]. Foreign documents have at most 4 MiB, tar
// streams at most two million entries, and what a layer inflates to is bounded
// by its size.
//
// The formats are those of the OCI image specification
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md) and of
// Docker (https://github.com/distribution/distribution/blob/v2.8.3/docs/spec/manifest-v2-2.md).
package image
