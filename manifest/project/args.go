package project

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"galley/manifest"
	"galley/manifest/joblib"
)

// given is an argument and its file.
type given struct {
	Arg
	*file
	external bool
	role     manifest.Role // empty: it may be the model
}

// fromArgs selects the files that were named, and no others.
func (f *finder) fromArgs(ctx context.Context, args []Arg) error {
	var all []*given
	for _, a := range args {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		g, err := f.resolve(a)
		if err != nil {
			return err
		}
		all = append(all, g)
	}
	if err := settle(all); err != nil {
		looked, files := []string{}, []*file{}
		for _, g := range all {
			looked, files = append(looked, g.path), append(files, g.file)
		}
		return f.explain(err, looked, files)
	}
	for _, g := range all {
		if err := usable(g.file, g.role); err != nil {
			return err
		}
		p := Pick{Path: g.path, As: g.As, Role: g.role, MediaType: g.MediaType, External: g.external, Why: "as given"}
		if g.Role == "" && g.MediaType == "" {
			p.Why = g.what
		}
		if p.As == "" {
			p.As = g.path
			if as := f.config.Files.As; as != "" && g.role == manifest.RoleModel {
				p.As, p.Why = as, p.Why+", as files.as has it"
			}
		}
		if g.role == manifest.RoleSummary && f.named == "" {
			f.named = g.artifact()
		}
		f.picks = append(f.picks, p)
	}
	return nil
}

// resolve looks at the file of an argument.
func (f *finder) resolve(a Arg) (*given, error) {
	name, ok := a.inside()
	if !ok {
		if f.open == nil || a.As == "" {
			return nil, &FileError{Path: a.File, Err: ErrOutside}
		}
		at := probe(a.File, func() (fs.File, error) { return f.open(a.File) })
		return &given{Arg: a, file: at, external: true, role: roleOf(a, at)}, at.err
	}
	at := f.at(name)
	if a.As != "" && errors.Is(at.err, fs.ErrNotExist) {
		// The equals sign may belong to the name: date=2024-01-01.csv.
		if whole := f.at(path.Clean(a.File + "=" + a.As)); whole.err == nil {
			at, a.As = whole, ""
		}
	}
	return &given{Arg: a, file: at, role: roleOf(a, at)}, at.err
}

// roleOf is the role that was asked for, else the one that content and name
// give, else nothing for what may be the model.
func roleOf(a Arg, at *file) manifest.Role {
	if a.Role != "" {
		return a.Role
	}
	if role := roleByName(at); role != "" {
		return role
	}
	if at.taken() != nil && modelName(at.base()) {
		return manifest.RoleModel // its error is what has to be said
	}
	switch at.verdict {
	case predicts, maybe:
		return ""
	case part:
		return manifest.RolePart
	case data:
		return manifest.RoleDataset
	}
	return roleByExt(at)
}

// roleByExt is the role of a file that is neither estimator nor JSON of a
// training.
func roleByExt(at *file) manifest.Role {
	switch strings.ToLower(path.Ext(at.base())) {
	case ".py", ".ipynb", ".sh", ".sql", ".r", ".toml", ".cfg", ".lock":
		return manifest.RoleCode
	case ".csv", ".tsv", ".parquet", ".feather", ".arrow", ".jsonl", ".npy", ".npz", ".avro", ".orc", ".xlsx":
		return manifest.RoleDataset
	case ".md", ".rst", ".txt", ".html", ".pdf", ".png", ".jpg", ".svg", ".json", ".yaml", ".yml":
		return manifest.RoleDoc
	}
	switch at.peek.Format {
	case joblib.Unknown, joblib.Zip:
		return "" // a format nobody here knows
	case joblib.Joblib, joblib.Pickle:
		return manifest.RoleDataset
	}
	return manifest.RoleDoc
}

// settle gives the role of model to one of the arguments, and other roles to
// those that might have had it.
func settle(all []*given) error {
	var open, parts []*given
	var models, files, summaries []*file
	for _, g := range all {
		switch g.role {
		case manifest.RoleModel:
			models = append(models, g.file)
		case manifest.RolePart:
			parts = append(parts, g)
		case manifest.RoleSummary:
			summaries = append(summaries, g.file)
		case "":
			open, files = append(open, g), append(files, g.file)
		}
	}
	switch {
	case len(models) == 1:
	case len(models) > 1:
		return severalModels(models)
	case len(open) == 0 && len(parts) == 1 && parts[0].Role == "":
		parts[0].role = manifest.RoleModel // somebody wants to ship just that
	default:
		model, err := pickOpen(files, summaries)
		if err != nil {
			return err
		}
		open[slices.Index(files, model)].role = manifest.RoleModel
	}
	for _, g := range open {
		switch {
		case g.role != "":
		case g.verdict >= maybe:
			g.role = manifest.RolePart
		default:
			g.role = manifest.RoleDataset
		}
	}
	return nil
}

// pickOpen is choose, which also takes the only file of an unknown format.
func pickOpen(files, summaries []*file) (*file, error) {
	model, _, err := choose(files, namings(summaries))
	if _, none := errors.AsType[*NoModelError](err); none && len(files) == 1 {
		return files[0], nil
	}
	return model, err
}
