// Package project knows galley.yaml ([ParseConfig]) and which files of a
// project make up its artifact ([Find]).
//
// A project needs no galley.yaml: what a training job leaves in models/,
// artifacts/, data/ and the project's own directory is found by content, never
// by extension. Of several models the one is taken that the training summary
// names, else the only one that predicts; galley never guesses between two.
// Files are only read, through an [fs.FS]; nothing that is in them runs. To
// keep links from leaving the project, pass the FS of an os.Root.
package project

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	"galley/manifest"
)

// Selection is what an artifact is made of.
type Selection struct {
	Files []Pick // in the order of [manifest.Roles], then by path
	Left  []Left // what else was seen, sorted by path
	// ModelArtifact is the model that the taken summary says it is about;
	// empty when it does not. The path need not exist, nor be the model's.
	ModelArtifact string
}

// Pick is a file that was taken.
type Pick struct {
	Path      string // on disk, with slashes, below the project unless External
	As        string // in the artifact
	Role      manifest.Role
	MediaType string // as the argument asked; empty: by role
	External  bool   // outside the project: Path is as given, and opened by [Options].Open
	Why       string // for people
}

// Left is a file or directory (with a trailing slash) that was not taken.
type Left struct {
	Path string
	Why  string // for people
}

// Options say what to look for.
type Options struct {
	Config *Config // nil: none
	// Args name the files. With any, nothing is searched, and of Config
	// only files.as holds, for a model whose argument gives no path.
	Args []Arg
	// Open opens a file outside the project, by [Arg].File as given. Nil:
	// such files are refused.
	Open func(name string) (fs.File, error)
}

// Find selects the files of an artifact from the project at the root of fsys.
//
// Errors are a [*NoModelError], a [*SeveralModelsError], a [*ClashError], or
// [*FileError]s, joined when several files are in the way, which wrap one of
// this package's reasons, [manifest.ErrUnsafePath] or the error of the file
// system.
func Find(ctx context.Context, fsys fs.FS, o Options) (*Selection, error) {
	f := &finder{fsys: fsys, config: o.Config, open: o.Open}
	if f.config == nil {
		f.config = &Config{}
	}
	find := f.fromProject
	if len(o.Args) > 0 {
		find = func(ctx context.Context) error { return f.fromArgs(ctx, o.Args) }
	}
	if err := find(ctx); err != nil {
		return nil, err
	}
	return f.selection()
}

// finder gathers a selection.
type finder struct {
	fsys   fs.FS
	config *Config
	open   func(string) (fs.File, error)
	seen   []*file // by the search
	picks  []Pick
	left   []Left
	named  string // the taken summary's model_artifact
}

func (f *finder) pick(found *file, role manifest.Role, why string) {
	f.picks = append(f.picks, Pick{Path: found.path, As: found.path, Role: role, Why: why})
}

func (f *finder) isPicked(name string) bool {
	return slices.ContainsFunc(f.picks, func(p Pick) bool { return p.Path == name && !p.External })
}

func (f *finder) leave(name, why string) { f.left = append(f.left, Left{Path: name, Why: why}) }

// fromProject selects by galley.yaml, and by search what it does not list.
func (f *finder) fromProject(ctx context.Context) error {
	if err := f.search(ctx); err != nil {
		return err
	}
	files := &f.config.Files
	summaries, err := f.listed(ctx, "files.summary", files.Summary)
	if err != nil {
		return err
	}
	if files.Summary == nil {
		summaries = f.byName(manifest.RoleSummary)
	}
	model, err := f.model(ctx, summaries)
	if err != nil {
		return err
	}
	if err := f.parts(model); err != nil {
		return err
	}
	if err := f.companion(manifest.RoleFeatures, files.Features, model, f.byName(manifest.RoleFeatures)); err != nil {
		return err
	}
	if err := f.companion(manifest.RoleSummary, files.Summary, model, summaries); err != nil {
		return err
	}
	for _, l := range []struct {
		key      string
		role     manifest.Role
		patterns []string
	}{
		{"files.parts", manifest.RolePart, files.Parts},
		{"files.features", manifest.RoleFeatures, files.Features},
		{"files.summary", manifest.RoleSummary, files.Summary},
		{"files.docs", manifest.RoleDoc, files.Docs},
		{"files.code", manifest.RoleCode, files.Code},
		{"files.data", manifest.RoleDataset, files.Data},
	} {
		found, err := f.listed(ctx, l.key, l.patterns)
		if err != nil {
			return err
		}
		for _, at := range found {
			if err := usable(at, l.role); err != nil {
				return err
			}
			if !f.isPicked(at.path) {
				f.pick(at, l.role, l.key)
			}
		}
	}
	f.leaveRest(model)
	return nil
}

// listed looks at the files that the patterns of galley.yaml match, in order
// and each once. Directories that a wildcard matches are passed over.
func (f *finder) listed(ctx context.Context, key string, patterns []string) ([]*file, error) {
	var found []*file
	for _, pattern := range patterns {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		names := []string{pattern}
		wild := isPattern(pattern)
		if wild {
			var err error
			if names, err = fs.Glob(f.fsys, pattern); err != nil {
				return nil, &FileError{Path: pattern, Err: err}
			}
		}
		some := false
		for _, name := range names {
			at := f.at(name)
			switch {
			case wild && (errors.Is(at.err, ErrNotRegular) || skipped(at.base())):
				continue
			case at.err != nil && errors.Is(at.err, fs.ErrNotExist):
				return nil, &FileError{Path: name, Err: fmt.Errorf("%w, as %s asks", fs.ErrNotExist, key)}
			}
			some = true
			if !slices.ContainsFunc(found, func(f *file) bool { return f.path == name }) {
				found = append(found, at)
			}
		}
		if !some {
			return nil, &FileError{Path: pattern, Err: fmt.Errorf("%w, as %s asks", ErrNoMatch, key)}
		}
	}
	return found, nil
}

// isPattern reports whether path.Match sees more in s than a path.
func isPattern(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// usable reports why f cannot have the role, or nothing. Documents and code
// may be empty, and pages.
func usable(f *file, role manifest.Role) error {
	err := f.taken()
	switch role {
	case manifest.RoleDoc, manifest.RoleCode, manifest.RoleDataset:
		if errors.Is(err, ErrPage) || errors.Is(err, ErrEmpty) {
			return nil
		}
	}
	return err
}

// parts takes what goes with the model from its directory.
func (f *finder) parts(model *file) error {
	if f.config.Files.Parts != nil {
		return nil
	}
	for _, at := range f.seen {
		switch {
		case at.path == model.path || at.dir() != model.dir() || asideWord(at.base()) != "":
		case at.taken() != nil:
			// A model without the scaler that its checkout lacks would
			// predict, and wrongly.
			if partWords(at.base()) && modelName(at.base()) {
				return at.taken()
			}
		case at.verdict == part:
			f.pick(at, manifest.RolePart, at.what+" beside the model")
		case at.verdict != data && partWords(at.base()) && (at.peek.Format.IsModel() || isJSON(at)):
			f.pick(at, manifest.RolePart, "beside the model, by its name")
		}
	}
	return nil
}

// leaveRest says of every file that the search saw and nobody took why not.
func (f *finder) leaveRest(model *file) {
	for _, at := range f.seen {
		if f.isPicked(at.path) {
			continue
		}
		err := at.taken()
		fileErr, _ := errors.AsType[*FileError](err)
		role := roleByName(at)
		switch {
		case at.target == model.path || model.target == at.path:
			f.leave(at.path, "the same file as "+model.path)
		case fileErr != nil && (modelName(at.base()) || role != ""):
			f.leave(at.path, fileErr.Err.Error())
		case role != "" && asideWord(at.base()) != "":
			f.leave(at.path, fmt.Sprintf("%q in its name", asideWord(at.base())))
		case role != "":
			f.leave(at.path, "another "+string(role)+" file was taken")
		case at.verdict == part && f.config.Files.Parts != nil:
			f.leave(at.path, at.what+", not in files.parts")
		case at.verdict == part && asideWord(at.base()) != "":
			f.leave(at.path, fmt.Sprintf("%s, %q in its name", at.what, asideWord(at.base())))
		case at.verdict == part:
			f.leave(at.path, at.what+", not beside the model")
		case at.verdict >= maybe:
			f.leave(at.path, at.what+", not the model")
		case at.verdict == data, at.peek.Format.IsPickle():
			f.leave(at.path, at.what)
		case at.dir() != ".":
			f.leave(at.path, "no model, features or summary")
		}
	}
}

// selection checks the picks against each other and puts all in order.
func (f *finder) selection() (*Selection, error) {
	roles := manifest.Roles()
	slices.SortFunc(f.picks, func(a, b Pick) int {
		return cmp.Or(cmp.Compare(slices.Index(roles, a.Role), slices.Index(roles, b.Role)), cmp.Compare(a.As, b.As))
	})
	seen := map[string]Pick{}
	for _, p := range f.picks {
		if err := manifest.CheckPath(p.As); err != nil {
			return nil, &FileError{Path: p.Path, Err: err}
		}
		if q, twice := seen[fold(p.As)]; twice {
			return nil, &ClashError{As: [2]string{q.As, p.As}, Paths: [2]string{q.Path, p.Path}}
		}
		seen[fold(p.As)] = p
	}
	for _, p := range f.picks {
		for dir := path.Dir(p.As); dir != "."; dir = path.Dir(dir) {
			if q, file := seen[fold(dir)]; file {
				return nil, &ClashError{As: [2]string{q.As, p.As}, Paths: [2]string{q.Path, p.Path}}
			}
		}
	}
	return &Selection{Files: f.picks, Left: group(f.left), ModelArtifact: f.named}, nil
}

// group sorts what was left, and says once of many files in a directory what
// is true of all of them.
func group(left []Left) []Left {
	const many = 5
	count := map[Left]int{}
	dirOf := func(l Left) Left { return Left{Path: path.Dir(l.Path) + "/", Why: l.Why} }
	for _, l := range left {
		if !strings.HasSuffix(l.Path, "/") {
			count[dirOf(l)]++
		}
	}
	var all []Left
	for _, l := range left {
		switch n := count[dirOf(l)]; {
		case strings.HasSuffix(l.Path, "/") || 0 < n && n < many:
			all = append(all, l)
		case n >= many:
			d := dirOf(l)
			all = append(all, Left{Path: d.Path, Why: fmt.Sprintf("%d files: %s", n, d.Why)})
			count[d] = -1
		}
	}
	slices.SortFunc(all, func(a, b Left) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Why, b.Why)) })
	return all
}

// fold maps paths that systems without case take for one to one text.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
			least = min(least, c)
		}
		return least
	}, s)
}

func sortEntries(entries []fs.DirEntry) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
}
