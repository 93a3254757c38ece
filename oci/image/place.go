package image

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
)

// placement decides where everything goes in one image.
type placement struct {
	k       *Baking
	home    string // where the app looks; "/" when that is where the models are
	scratch bool
	tree    *tree
	taken   map[string]string      // files and, with "/" behind them, directories of shared layers, by model
	have    map[digest.Digest]bool // shared layers

	layers   []Layer
	small    []manifest.File // that are in the tree
	placed   []Placed
	retarred []Retarred
}

// isSmall reports whether the layer's file goes into bake's own layer.
func isSmall(l *manifest.Layer) bool {
	return l.Format == manifest.FormatRaw && l.Role != manifest.RoleModel && l.Role != manifest.RolePart &&
		l.Descriptor.Size <= maxSmall && len(l.Files) > 0
}

// all places every model.
func (p *placement) all(ctx context.Context) error {
	for n := range p.k.Models {
		m := &p.k.Models[n]
		p.placed = append(p.placed, Placed{Name: m.Name})
		for n := range m.Artifact.Layers {
			l := &m.Artifact.Layers[n]
			var err error
			switch {
			case len(l.Files) == 0: // nothing says where it goes
			case isSmall(l):
				err = p.smallFile(m, l)
			default:
				err = p.bigLayer(ctx, m, l)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// root is where the file lies in the image; app is where the app looks for it.
func (p *placement) root(m *Model, f string) string { return path.Join("/", m.Name, f) }
func (p *placement) app(m *Model, f string) string  { return path.Join(p.home, m.Name, f) }

// found notes where the app finds the model's first model file.
func (p *placement) found(m *Model, l *manifest.Layer, at func(string) string) {
	for _, f := range l.Files {
		now := &p.placed[len(p.placed)-1]
		if f.Role != manifest.RoleModel || now.Path != "" {
			continue
		}
		now.Path = p.app(m, f.Path)
		if p.home == "/" {
			now.Path = at(f.Path)
		}
		now.Dir = path.Dir(now.Path)
	}
}

// owner names a model in taken, where "" is nobody.
func owner(m *Model) string { return "model " + m.Name }

// smallFile puts a file where it lies, where the app looks for it and, in a
// data-only image, beside the model.
func (p *placement) smallFile(m *Model, l *manifest.Layer) error {
	f := l.Files[0]
	data := p.k.small[l.Descriptor.Digest]
	p.small = append(p.small, f)
	put := func(at string) error {
		real, err := p.tree.real(at)
		if err != nil {
			return err
		}
		if by := p.takenBy(real); by != "" {
			return &CollisionError{real, []string{strings.TrimPrefix(by, "model "), m.Name}}
		}
		return p.tree.put(real, p.tree.file(data, f.Exec, m.Name))
	}
	if !p.k.o.Copy || p.home == "/" {
		if err := put(p.root(m, f.Path)); err != nil {
			return err
		}
	}
	if p.home != "/" {
		return put(p.app(m, f.Path))
	}
	if p.scratch && strings.HasSuffix(f.Path, ".json") {
		again := p.root(m, path.Join("models", path.Base(f.Path)))
		err := put(again)
		if _, twice := errors.AsType[*CollisionError](err); !twice { // of one name twice the first stays
			return err
		}
	}
	return nil
}

// bigLayer shares a layer or writes it anew, and links its files to where the
// app looks for them.
func (p *placement) bigLayer(ctx context.Context, m *Model, l *manifest.Layer) error {
	reason, err := p.share(m, l)
	if err != nil {
		return err
	}
	if reason == "" {
		return p.links(m, l, func(f string) string { return "/" + f })
	}
	p.retarred = append(p.retarred, Retarred{m.Name, l.Descriptor, reason})
	copied := p.k.o.Copy && p.home != "/"
	to := map[string]string{}
	for _, f := range l.Files {
		at := p.root(m, f.Path)
		if copied {
			at = p.app(m, f.Path)
		}
		if to[f.Path], err = p.tree.real(at); err != nil {
			return err
		}
		if err := p.claim(m, to[f.Path]); err != nil {
			return err
		}
	}
	r := newRetar(p.tree, m.Source, l, to)
	made, ok := p.k.retar[r.key()]
	if !ok {
		if made, err = r.measure(ctx); err != nil {
			return err
		}
		p.k.retar[r.key()] = made
	}
	p.layers = append(p.layers, made)
	if copied {
		p.found(m, l, nil)
		return nil
	}
	return p.links(m, l, func(f string) string { return to[f] })
}

// share appends the layer as it is, or says why that cannot be.
func (p *placement) share(m *Model, l *manifest.Layer) (reason string, err error) {
	switch {
	case p.k.o.Copy:
		return "the files are copied", nil
	case l.Format == manifest.FormatRaw:
		return "it is a raw file, not a tar", nil
	case l.Descriptor.Annotations[manifest.AnnotationFiles] == "" || l.DiffID == "":
		return "another tool packed it", nil
	case p.have[l.Descriptor.Digest]:
		return "", nil
	}
	for _, f := range l.Files {
		at := "/" + f.Path
		if real, err := p.tree.real(at); err != nil {
			return "", err
		} else if real != at {
			return path.Dir(at) + " is a symbolic link in the base", nil
		}
		if err := p.free(m, at); err == nil {
			continue
		} else if m.Name == "" {
			return "", err
		}
		return at + " is another model's", nil
	}
	for _, f := range l.Files {
		if err := p.claim(m, "/"+f.Path); err != nil {
			return "", err
		}
		p.tree.restore("/" + f.Path)
	}
	p.have[l.Descriptor.Digest] = true
	p.layers = append(p.layers, Layer{
		Format: l.Format, Digest: l.Descriptor.Digest, Size: l.Descriptor.Size, DiffID: l.DiffID,
		From: m.Repository, CreatedBy: createdBy(l.Title), Files: l.Files, Open: opener(m.Source, l.Descriptor),
	})
	return "", nil
}

// takenBy is the owner of a layer's file that is at the path, above it, or in it
// if it were a directory.
func (p *placement) takenBy(at string) string {
	by := p.taken[at]
	if by == "" {
		by = p.taken[at+"/"]
	}
	for _, above := range parents(path.Dir(at)) {
		if by == "" {
			by = p.taken[above]
		}
	}
	return by
}

// free reports a collision of a layer's file at the path.
func (p *placement) free(m *Model, at string) error {
	if by := p.takenBy(at); by != "" {
		return &CollisionError{at, []string{strings.TrimPrefix(by, "model "), m.Name}}
	}
	if n := p.tree.nodes[at]; n != nil {
		return &CollisionError{at, []string{n.owner, m.Name}}
	}
	return nil
}

// claim takes the path for the model.
func (p *placement) claim(m *Model, at string) error {
	if err := p.free(m, at); err != nil {
		return err
	}
	if d, ok := p.tree.at(at); ok && d.Type == Directory {
		return &PathError{at, "is a directory in the base"}
	}
	p.taken[at] = owner(m)
	for _, above := range parents(path.Dir(at)) {
		p.taken[above+"/"] = owner(m)
	}
	return nil
}

// links puts a link to each file where the app looks for it, unless the file is
// there.
func (p *placement) links(m *Model, l *manifest.Layer, at func(string) string) error {
	p.found(m, l, at)
	if p.home == "/" {
		return nil
	}
	for _, f := range l.Files {
		target := at(f.Path)
		real, err := p.tree.real(p.app(m, f.Path))
		if err != nil {
			return err
		}
		if real == target {
			continue
		}
		if by := p.takenBy(real); by != "" {
			return &CollisionError{real, []string{strings.TrimPrefix(by, "model "), m.Name}}
		}
		if err := p.tree.put(real, p.tree.link(target, m.Name)); err != nil {
			return err
		}
	}
	return nil
}

// env are the variables that tell an app where its models are.
func (p *placement) env() []string {
	var env []string
	for _, at := range p.placed {
		if at.Path == "" {
			continue
		}
		if at.Name != "" {
			env = append(env, variable(at.Name)+"="+at.Path)
		}
		if at.Name == "" || len(p.placed) == 1 {
			env = append(env, "GALLEY_MODEL="+at.Path, "GALLEY_MODEL_DIR="+at.Dir)
		}
	}
	return env
}
