// Package manifest says what an artifact is: which bytes a set of files becomes,
// and what an artifact made by galley, oras, modctl or kit holds.
//
//	p, err := manifest.Pack(ctx, inputs, manifest.PackOptions{Name: "fraud"})
//	a, err := manifest.Read(ctx, source, descriptor)
//
// [Pack] makes a ModelPack artifact whose digest depends on the files and the
// options alone: not on the machine, the directory, the time or the number of
// cores. What it returns is a read-only graph that streams from the source
// files; nothing is copied. [Read] reads any artifact back into the same
// [Artifact], and [Layer.Walk] reads a layer's files, checking every size and
// digest that the artifact tells. FORMAT.md is the specification. [Facts] is what is
// known of a model wherever it was found, for those who judge or compare it.
//
// Foreign bytes are read with limits, nothing in them is executed, and paths
// are refused that could leave the directory they are meant for. The package
// knows no network and no registry, and writes no file.
package manifest
