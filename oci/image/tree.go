package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
)

// node is an entry of a layer that bake makes.
type node struct {
	Dir
	data  []byte // of a file
	exec  bool
	owner string // the model that wants it; directories have none
}

// tree is what bake writes on top of one base: files, links, and the directories
// above them as the base has them.
type tree struct {
	nodes map[string]*node
	at    func(string) (Dir, bool) // in the base
	o     *Options
}

func newTree(l *Look, o *Options) *tree {
	t := &tree{nodes: map[string]*node{}, o: o, at: func(string) (Dir, bool) { return Dir{Type: Absent}, true }}
	if l != nil {
		t.at = l.at
	}
	return t
}

// real is where the base's links lead the path p.
func (t *tree) real(p string) (string, error) {
	dir, err := resolve(path.Dir(p), t.at)
	return path.Join(dir, path.Base(p)), err
}

// dir is what the directory p shall be: what it is in the base, or new.
func (t *tree) dir(p string) *node {
	if d, _ := t.at(p); d.Type == Directory {
		return &node{Dir: d}
	}
	n := &node{Dir: Dir{Type: Directory, Mode: 0o755}}
	n.UID, n.GID = t.o.owner()
	if t.o.Chmod != 0 { // who may read may enter
		n.Mode = t.o.Chmod | t.o.Chmod&0o444>>2
	}
	return n
}

// put sets the entry at p, a path with no links on its way.
func (t *tree) put(p string, n *node) error {
	if d, ok := t.at(p); ok && d.Type == Directory {
		return &PathError{p, "is a directory in the base"}
	}
	if old := t.nodes[p]; old != nil {
		if old.owner == n.owner && old.Type == n.Type && old.Target == n.Target && bytes.Equal(old.data, n.data) {
			return nil
		}
		return &CollisionError{p, []string{old.owner, n.owner}}
	}
	for _, above := range parents(path.Dir(p)) {
		old := t.nodes[above]
		if old == nil {
			t.nodes[above] = t.dir(above)
		} else if old.Type != Directory {
			return &CollisionError{above, []string{old.owner, n.owner}}
		}
	}
	t.nodes[p] = n
	return nil
}

// file is a new file.
func (t *tree) file(data []byte, exec bool, model string) *node {
	n := &node{Dir: Dir{Type: Other, Mode: t.o.fileMode(exec)}, data: data, exec: exec, owner: model}
	n.UID, n.GID = t.o.owner()
	return n
}

// link is a new link.
func (t *tree) link(target, model string) *node {
	n := &node{Dir: Dir{Type: Symlink, Mode: 0o777, Target: target}, owner: model}
	n.UID, n.GID = t.o.owner()
	return n
}

// restore sets the directories above p that the base has otherwise than the
// shared layer, which makes them anew.
func (t *tree) restore(p string) {
	for _, above := range parents(path.Dir(p)) {
		d, _ := t.at(above)
		if t.nodes[above] == nil && d.Type == Directory && (d.Mode != 0o755 || d.UID != 0 || d.GID != 0) {
			t.nodes[above] = &node{Dir: d}
		}
	}
}

// layer makes a layer of the entries, in memory.
func (t *tree) layer(createdBy string) (Layer, error) {
	var packed bytes.Buffer
	l, err := pack(&packed, func(tw *tar.Writer) error {
		for _, p := range slices.Sorted(maps.Keys(t.nodes)) {
			if err := writeNode(tw, p, t.nodes[p]); err != nil {
				return err
			}
		}
		return nil
	})
	l.CreatedBy = createdBy
	l.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}
	return l, err
}

// header is the entry's, with nothing in it that depends on when and where.
func header(p string, d Dir) *tar.Header {
	h := &tar.Header{Name: p[1:], Mode: d.Mode, Uid: d.UID, Gid: d.GID, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	switch d.Type {
	case Directory:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, d.Target
	}
	return h
}

func writeNode(tw *tar.Writer, p string, n *node) error {
	h := header(p, n.Dir)
	h.Size = int64(len(n.data))
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	_, err := tw.Write(n.data)
	return err
}

// counter counts what is written.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// pack writes a tar+gzip layer to w and says what it is.
func pack(w io.Writer, write func(*tar.Writer) error) (Layer, error) {
	sum, plain, size := sha256.New(), sha256.New(), &counter{}
	z := manifest.NewGzipWriter(io.MultiWriter(w, sum, size), plain)
	tw := tar.NewWriter(z)
	err := write(tw)
	if err == nil {
		err = tw.Close()
	}
	if cerr := z.Close(); err == nil { // its goroutines end in any case
		err = cerr
	}
	if err != nil {
		return Layer{}, err
	}
	return Layer{
		Format: manifest.FormatTarGzip,
		Digest: digest.NewDigest(digest.SHA256, sum), Size: size.n, DiffID: digest.NewDigest(digest.SHA256, plain),
	}, nil
}
