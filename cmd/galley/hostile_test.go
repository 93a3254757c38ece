package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// A layer of an artifact that nobody who means well would make.
type hostileLayer struct {
	mediaType string
	notes     map[string]string
	data      []byte
}

func rawLayer(title string) hostileLayer {
	return hostileLayer{"application/vnd.cncf.model.weight.v1.raw", map[string]string{v1.AnnotationTitle: title}, []byte("owned")}
}

func tarLayer(headers ...tar.Header) hostileLayer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
	}
	w.Close()
	return hostileLayer{"application/vnd.cncf.model.weight.v1.tar", map[string]string{v1.AnnotationTitle: "models"}, b.Bytes()}
}

// claiming lets the layer say that it holds a file of the size.
func (l hostileLayer) claiming(path string, size int64) hostileLayer {
	text, err := json.Marshal([]map[string]any{{"path": path, "size": size, "sha256": digest.FromString("x").Encoded()}})
	if err != nil {
		panic(err)
	}
	l.notes["ml.galley.files"] = string(text)
	return l
}

var hostile = map[string][]hostileLayer{
	"absolute":     {rawLayer("/tmp/owned")},
	"dotdot":       {rawLayer("models/../../owned")},
	"drive":        {rawLayer(`C:\owned`)},
	"nul":          {rawLayer("models/\x00owned")},
	"case":         {rawLayer("models/m"), rawLayer("Models/M")},
	"galley":       {rawLayer(".galley/journal.json")},
	"git":          {rawLayer(".git/hooks/pre-commit")},
	"escape":       {rawLayer("models/\x1b[2Jowned")},
	"symlink":      {tarLayer(tar.Header{Name: "models/m", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})},
	"hardlink":     {tarLayer(tar.Header{Name: "models/m", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"})},
	"device":       {tarLayer(tar.Header{Name: "models/m", Typeflag: tar.TypeChar})},
	"tar-dotdot":   {tarLayer(tar.Header{Name: "../owned", Typeflag: tar.TypeReg, Size: 5})},
	"tar-absolute": {tarLayer(tar.Header{Name: "/tmp/owned", Typeflag: tar.TypeReg, Size: 5})},
	"tar-larger":   {tarLayer(tar.Header{Name: "models/m", Typeflag: tar.TypeReg, Size: 50}).claiming("models/m", 5)},
	"tar-other":    {tarLayer(tar.Header{Name: "models/m", Typeflag: tar.TypeReg, Size: 5}).claiming("models/m", 5)},
	"tar-unlisted": {tarLayer(tar.Header{Name: "models/n", Typeflag: tar.TypeReg, Size: 5}).claiming("models/m", 5)},
}

// hostileCmd writes a layout with one such artifact, tagged v1: hostile DIR
// KIND.
func hostileCmd(ts *testscript.TestScript, _ bool, args []string) {
	layers, ok := hostile[args[1]]
	if !ok {
		ts.Fatalf("no hostile artifact %q", args[1])
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o777))
	put := func(data []byte) (digest.Digest, int64) {
		d := digest.FromBytes(data)
		ts.Check(os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()), data, 0o666))
		return d, int64(len(data))
	}
	put([]byte("{}"))
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: v1.DescriptorEmptyJSON}
	for _, l := range layers {
		d := v1.Descriptor{MediaType: l.mediaType, Annotations: l.notes}
		d.Digest, d.Size = put(l.data)
		m.Layers = append(m.Layers, d)
	}
	text, err := json.Marshal(m)
	ts.Check(err)
	root := v1.Descriptor{MediaType: m.MediaType, Annotations: map[string]string{v1.AnnotationRefName: "v1"}}
	root.Digest, root.Size = put(text)
	index, err := json.Marshal(v1.Index{Versioned: m.Versioned, Manifests: []v1.Descriptor{root}})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o666))
	ts.Check(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o666))
}
