package project

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// model takes the model: the file that galley.yaml names, or one of those that
// match there or that the search saw.
func (f *finder) model(ctx context.Context, summaries []*file) (*file, error) {
	var (
		model      *file
		why        string
		candidates = f.seen
		looked     = places()
	)
	if pattern := f.config.Files.Model; pattern != "" {
		found, err := f.listed(ctx, "files.model", []string{pattern})
		if err != nil {
			return nil, err
		}
		candidates, looked = found, []string{pattern}
		if len(found) == 1 {
			model, why = found[0], "files.model"
		}
	}
	if model == nil {
		var err error
		model, why, err = choose(candidates, namings(summaries))
		if err != nil {
			return nil, f.explain(err, looked, candidates)
		}
	}
	if err := model.taken(); err != nil {
		return nil, err
	}
	f.pick(model, manifest.RoleModel, model.what+", "+why)
	if as := f.config.Files.As; as != "" {
		f.picks[len(f.picks)-1].As = as
	}
	return model, nil
}

// explain adds to an error what was seen.
func (f *finder) explain(err error, looked []string, candidates []*file) error {
	none, ok := errors.AsType[*NoModelError](err)
	if !ok {
		return err
	}
	for _, at := range candidates {
		if at.dir() != "." || at.peek.Format.IsModel() {
			f.leave(at.path, at.what)
		}
	}
	none.Looked, none.Left = looked, group(f.left)
	return none
}

// naming is a summary's word on which file is the model.
type naming struct {
	summary *file
	model   string
}

// namings reads the summaries that name a model. What is wrong in the JSON is
// said where the summary that is taken gets packed.
func namings(summaries []*file) []naming {
	var all []naming
	for _, s := range summaries {
		if model := s.artifact(); model != "" {
			all = append(all, naming{s, model})
		}
	}
	return all
}

// modelArtifact reads the model that a summary names, or nothing.
func (f *file) modelArtifact() string {
	if f.taken() != nil || f.size > training.MaxSize {
		return ""
	}
	src, err := f.open()
	if err != nil {
		return ""
	}
	defer src.Close()
	data, err := io.ReadAll(io.LimitReader(src, training.MaxSize+1))
	if err != nil {
		return ""
	}
	s, err := training.ParseSummary(data)
	if err != nil {
		return ""
	}
	return s.Model
}

// choose returns the model among the candidates and why it is the one.
func choose(candidates []*file, names []naming) (*file, string, error) {
	var named []*file
	why := ""
	for _, n := range names {
		if at := match(candidates, n.model); at != nil && !slices.Contains(named, at) {
			named = append(named, at)
			why = "named by " + n.summary.path
		}
	}
	switch len(named) {
	case 1:
		return named[0], why, nil
	case 0:
	default:
		candidates = named // the summaries disagree, but about these
	}
	all := without(candidates, func(at *file) bool {
		return at.verdict < maybe || at.taken() != nil || isTarget(at, candidates)
	})
	best := without(all, func(at *file) bool { return at.verdict < predicts })
	why = "the only one that predicts"
	if len(all) == 1 {
		why = "the only model"
	}
	if len(best) == 0 {
		best = without(all, byNamePart)
		why = "the only one that may be a model"
	}
	if len(best) > 1 {
		if rest := without(best, byNamePart); len(rest) > 0 {
			best = rest
		}
	}
	switch len(best) {
	case 1:
		return best[0], why, nil
	case 0:
		return nil, "", noModel(candidates)
	}
	return nil, "", severalModels(best)
}

// without returns a copy of list without some of it.
func without[T any](list []T, drop func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), drop)
}

func severalModels(files []*file) error {
	e := &SeveralModelsError{}
	for _, at := range files {
		e.Models = append(e.Models, Model{Path: at.path, Format: at.peek.Format, Class: at.peek.Class})
	}
	slices.SortFunc(e.Models, func(a, b Model) int { return cmp.Compare(a.Path, b.Path) })
	return e
}

// noModel is the error when no candidate is a model: the files that would be
// by their name but are not there in full, else that there is none.
func noModel(candidates []*file) error {
	var broken []error
	for _, at := range candidates {
		if err := at.taken(); err != nil && modelName(at.base()) {
			broken = append(broken, err)
		}
	}
	if len(broken) > 0 {
		return errors.Join(broken...)
	}
	return &NoModelError{}
}

func byNamePart(at *file) bool { return partWords(at.base()) }

// isTarget reports whether a candidate is what another one, a link, leads to.
// The link is the name that was given on purpose.
func isTarget(at *file, candidates []*file) bool {
	return slices.ContainsFunc(candidates, func(link *file) bool { return link != at && link.target == at.path })
}

// match returns the candidate that a summary means by name, a path on the
// machine that trained: the one there, else the only one whose path ends so,
// else the only one of that base name.
func match(candidates []*file, name string) *file {
	name = path.Clean("/" + strings.ReplaceAll(name, `\`, "/"))
	for _, same := range []func(at string) bool{
		func(at string) bool { return "/"+at == name },
		func(at string) bool { return strings.HasSuffix(name, "/"+at) && strings.Contains(at, "/") },
		func(at string) bool { return strings.HasSuffix("/"+at, name) },
		func(at string) bool { return path.Base(at) == path.Base(name) },
	} {
		var found []*file
		for _, at := range candidates {
			if same(at.path) {
				found = append(found, at)
			}
		}
		if len(found) == 1 {
			return found[0]
		}
	}
	return nil
}

// modelName reports whether a file's name is one that models have. It decides
// nothing but whether a file that is not there in full is worth an error.
func modelName(base string) bool {
	for {
		ext := path.Ext(base)
		switch strings.ToLower(ext) {
		case ".joblib", ".pkl", ".pickle", ".onnx", ".skops", ".ubj", ".cbm", ".keras", ".h5":
			return true
		case ".gz", ".z", ".bz2", ".xz", ".lzma", ".lz4":
			base = strings.TrimSuffix(base, ext)
		default:
			return false
		}
	}
}

func isJSON(at *file) bool { return at.peek.Format == joblib.JSON }

// roleByName returns features or summary for a file named as such JSON, else
// nothing. Whether it is JSON is for its reader to say.
func roleByName(at *file) manifest.Role {
	base := strings.ToLower(at.base())
	if path.Ext(base) != ".json" || at.peek.Format.IsModel() {
		return ""
	}
	w := words(at.base())
	has := func(list ...string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(w, s) })
	}
	switch {
	case strings.Contains(base, "features"), has("feature") && has("names", "columns", "list"):
		return manifest.RoleFeatures
	case strings.Contains(base, "summary"), strings.Contains(base, "metrics"):
		return manifest.RoleSummary
	}
	return ""
}

// byName returns the files that the search saw and that are role by name.
func (f *finder) byName(role manifest.Role) []*file {
	var found []*file
	for _, at := range f.seen {
		if roleByName(at) == role && asideWord(at.base()) == "" {
			found = append(found, at)
		}
	}
	return found
}

// ranking orders the files that may be the model's features or summary. Less
// is better, and the first numbers weigh most.
type ranking [6]int

// companion takes the features or the summary that goes with the model, if
// there is one. With a configured list it only notes what the summary says.
func (f *finder) companion(role manifest.Role, configured []string, model *file, candidates []*file) error {
	if len(candidates) == 0 {
		return nil
	}
	best := candidates[0]
	if configured == nil {
		ranks := map[*file]ranking{}
		for _, at := range candidates {
			ranks[at] = f.rank(at, role, model)
		}
		ranked := slices.SortedFunc(slices.Values(candidates), func(a, b *file) int {
			ra, rb := ranks[a], ranks[b]
			return cmp.Or(slices.Compare(ra[:], rb[:]), cmp.Compare(a.path, b.path))
		})
		best = ranked[0]
		if err := best.taken(); err != nil {
			return err
		}
		why := "the only " + string(role) + " file"
		if len(ranked) > 1 {
			why = because(ranks[best], ranks[ranked[1]], len(ranked))
		}
		f.pick(best, role, why)
	}
	if role == manifest.RoleSummary {
		f.named = best.artifact()
	}
	return nil
}

func (f *finder) rank(at *file, role manifest.Role, model *file) ranking {
	var r ranking
	if role == manifest.RoleSummary {
		if name := at.artifact(); name == "" {
			r[0] = 1
		} else if named := match(f.seen, name); named == nil || named.path != model.path {
			r[0] = 2
		}
	}
	if at.dir() != model.dir() && at.dir() != "data" {
		r[1] = distance(at.dir(), model.dir())
	}
	plain := []string{"selected", "features", "feature", "names", "columns", "list", "json",
		"training", "train", "model", "summary", "metrics", "test", "final", "evaluation"}
	for _, w := range words(at.base()) {
		if !slices.Contains(plain, w) {
			r[2]++
		}
		if role == manifest.RoleSummary && w == "summary" {
			r[3] = -1
		}
	}
	if at.dir() != model.dir() {
		r[4] = 1
	}
	r[5] = len(at.path)
	return r
}

// because says by which of its numbers a file was preferred.
func because(best, next ranking, n int) string {
	by := [len(best)]string{
		"the one that names the model", "the closest to the model", "the plainer name", "a summary before metrics",
		"the one beside the model", "the shorter path",
	}
	for i := range best {
		if best[i] != next[i] {
			return fmt.Sprintf("of %d, %s", n, by[i])
		}
	}
	return fmt.Sprintf("of %d, the first by name", n)
}

// distance counts the steps from one directory to another.
func distance(a, b string) int {
	if a == b {
		return 0
	}
	split := func(s string) []string {
		return strings.FieldsFunc(path.Clean("/"+s), func(r rune) bool { return r == '/' })
	}
	x, y := split(a), split(b)
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	return len(x) + len(y)
}
