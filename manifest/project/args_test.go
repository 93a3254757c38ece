package project_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"galley/manifest"
	"galley/manifest/project"
)

// arguments are texts and what they mean; nil is an error.
func arguments() map[string]*project.Arg {
	return map[string]*project.Arg{
		"models/m.joblib":                         {File: "models/m.joblib"},
		"models/m.joblib:model":                   {File: "models/m.joblib", Role: manifest.RoleModel},
		"models/m.joblib:modle":                   {File: "models/m.joblib:modle"},
		"s.pkl=models/scaler.pkl:part":            {File: "s.pkl", As: "models/scaler.pkl", Role: manifest.RolePart},
		"a:b:dataset":                             {File: "a:b", Role: manifest.RoleDataset},
		"a:part:doc":                              {File: "a:part", Role: manifest.RoleDoc},
		"card.pdf:application/pdf":                {File: "card.pdf", MediaType: "application/pdf"},
		"x=docs/card:application/vnd.x.y+json":    {File: "x", As: "docs/card", MediaType: "application/vnd.x.y+json"},
		`C:\out\m.joblib`:                         {File: `C:\out\m.joblib`},
		`C:/out/m.joblib`:                         {File: `C:/out/m.joblib`},
		`C:\out\m.joblib=models/m.joblib:model`:   {File: `C:\out\m.joblib`, As: "models/m.joblib", Role: manifest.RoleModel},
		"/mnt/out/m.joblib=models/m.joblib":       {File: "/mnt/out/m.joblib", As: "models/m.joblib"},
		"data/day=3/x.csv=data/x.csv":             {File: "data/day=3/x.csv", As: "data/x.csv"},
		"data/day=3/x.csv":                        {File: "data/day", As: "3/x.csv"},
		"":                                        nil,
		":model":                                  nil,
		"=models/m.joblib":                        nil,
		"m.joblib=":                               nil,
		"m.joblib=/models/m.joblib":               nil,
		"m.joblib=../m.joblib:model":              nil,
		`m.joblib=models\m.joblib`:                nil,
		"m.joblib=.git/config":                    nil,
		"m.joblib=models/m.joblib:model:part":     nil, // the path keeps the first suffix
		"m.joblib=models/m.joblib:application/":   nil,
		"m.joblib=" + strings.Repeat("x/", 3_000): nil,
	}
}

func TestParseArg(t *testing.T) {
	t.Parallel()
	for s, want := range arguments() {
		got, err := project.ParseArg(s)
		switch {
		case want == nil:
			if e, ok := errors.AsType[*project.ArgError](err); !ok || e.Arg != s || got != (project.Arg{}) {
				t.Errorf("%.60q: got %+v, %v", s, got, err)
			}
		case err != nil:
			t.Errorf("%q: %v", s, err)
		case got != *want:
			t.Errorf("%q: got %+v, want %+v", s, got, *want)
		}
	}
}

func TestFuzzParseArgSeeds(t *testing.T) {
	t.Parallel()
	if n := len(arguments()); n < 25 {
		t.Errorf("%d seeds", n)
	}
}

func FuzzParseArg(f *testing.F) {
	for s := range arguments() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := project.ParseArg(s)
		if err != nil {
			if a != (project.Arg{}) {
				t.Errorf("%+v with %v", a, err)
			}
			return
		}
		again := a.File
		if a.As != "" {
			again += "=" + a.As
		}
		if suffix := string(a.Role) + a.MediaType; suffix != "" {
			again += ":" + suffix
		}
		if again != s || a.File == "" {
			t.Errorf("%q became %+v", s, a)
		}
	})
}

func TestFindArgs(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"models/rf.joblib": forest, "models/lr.joblib": logistic, "models/scaler.joblib": scaler, "models/calibrator.joblib": logistic,
		"models/weights.bin": "\x00\x01", "models/p.joblib": pointer, "data/x.pkl": frame, "data/x.csv": "a\n", "data/day=3/x.csv": "a\n",
		"data/features.json": features, "data/summary.json": summary, "data/names_lr.json": names("lr.joblib"), "data/lr_summary.json": names("models/lr.joblib"),
		"README.md": "# Fraud", "app.py": "import joblib", "conf.json": "{}", "LICENSE": "MIT", "empty.txt": "",
	}
	outside := func(name string) (fs.File, error) {
		return tree(map[string]string{"m": forest, "d/x": ""}).Open(name[len("/mnt/"):])
	}
	for _, c := range []struct {
		name   string
		args   []string
		config project.Config
		open   func(string) (fs.File, error)
		want   []string
		is     error
		has    string
	}{
		{name: "one", args: []string{"models/rf.joblib"}, want: []string{"model models/rf.joblib"}},
		{name: "each by what it is", args: []string{"./models/rf.joblib", "models//scaler.joblib", "data/features.json", "data/summary.json", "README.md", "app.py", "data/x.pkl", "data/x.csv", "conf.json", "LICENSE", "empty.txt"},
			want: []string{"model models/rf.joblib", "part models/scaler.joblib", "features data/features.json", "summary data/summary.json", "doc LICENSE", "doc README.md", "doc conf.json", "doc empty.txt", "code app.py", "dataset data/x.csv", "dataset data/x.pkl"}},
		{name: "roles as asked", args: []string{"models/lr.joblib:part", "models/rf.joblib", "data/x.csv:doc"}, want: []string{"model models/rf.joblib", "part models/lr.joblib", "doc data/x.csv"}},
		{name: "one is the model", args: []string{"models/lr.joblib", "models/rf.joblib:model"}, want: []string{"model models/rf.joblib", "part models/lr.joblib"}},
		{name: "a calibrator by its name", args: []string{"models/calibrator.joblib", "models/rf.joblib"}, want: []string{"model models/rf.joblib", "part models/calibrator.joblib"}},
		{name: "the summary decides", args: []string{"models/lr.joblib", "models/rf.joblib", "data/lr_summary.json"}, want: []string{"model models/lr.joblib", "part models/rf.joblib", "summary data/lr_summary.json"}},
		{name: "just a scaler", args: []string{"models/scaler.joblib"}, want: []string{"model models/scaler.joblib"}},
		{name: "a format nobody knows", args: []string{"models/weights.bin", "README.md"}, want: []string{"model models/weights.bin", "doc README.md"}},
		{name: "renamed", args: []string{"models/rf.joblib=models/model.joblib"}, want: []string{"model models/rf.joblib=models/model.joblib"}},
		{name: "renamed by galley.yaml", args: []string{"models/rf.joblib", "README.md"}, config: project.Config{Files: project.Files{As: "models/model.joblib"}},
			want: []string{"model models/rf.joblib=models/model.joblib", "doc README.md"}},
		{name: "an equals sign in the name", args: []string{"models/rf.joblib", "data/day=3/x.csv"}, want: []string{"model models/rf.joblib", "dataset data/day=3/x.csv"}},
		{name: "outside", args: []string{"/mnt/m=models/m.joblib"}, open: outside, want: []string{"model /mnt/m=models/m.joblib"}},
		{name: "outside without a path", args: []string{"/mnt/m"}, open: outside, is: project.ErrOutside},
		{name: "outside without a way", args: []string{"/mnt/m=models/m"}, is: project.ErrOutside},
		{name: "above the project", args: []string{"../m.joblib"}, open: outside, is: project.ErrOutside},
		{name: "up and down again", args: []string{"models/../models/rf.joblib"}, want: []string{"model models/rf.joblib"}},
		{name: "a drive", args: []string{`C:\m.joblib`}, is: project.ErrOutside},
		{name: "a directory outside", args: []string{"/mnt/d=models/m.joblib"}, open: outside, is: project.ErrNotRegular},
		{name: "missing outside", args: []string{"/mnt/gone=models/m.joblib"}, open: outside, is: fs.ErrNotExist, has: `select "/mnt/gone": file does not exist`},
		{name: "missing", args: []string{"models/gone.joblib"}, is: fs.ErrNotExist, has: `select "models/gone.joblib": file does not exist`},
		{name: "a directory", args: []string{"models"}, is: project.ErrNotRegular, has: "a regular file is wanted"},
		{name: "a pointer", args: []string{"models/p.joblib"}, is: project.ErrPointer},
		{name: "no model", args: []string{"README.md"}, has: "find model: none in README.md"},
		{name: "two models", args: []string{"models/rf.joblib", "models/lr.joblib"}, has: "2 files could be it"},
		{name: "two models as asked", args: []string{"models/rf.joblib:model", "models/lr.joblib:model"}, has: "2 files could be it"},
		{name: "one path twice", args: []string{"models/rf.joblib", "models/scaler.joblib=Models/RF.joblib:part"}, has: "clashes with \"models/rf.joblib\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := project.Options{Config: &c.config, Open: c.open}
			for _, s := range c.args {
				a, err := project.ParseArg(s)
				if err != nil {
					t.Fatal(err)
				}
				o.Args = append(o.Args, a)
			}
			got, err := project.Find(t.Context(), tree(files), o)
			if c.is != nil || c.has != "" {
				if err == nil || !strings.Contains(err.Error(), c.has) || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("got %v, want %v with %q", err, c.is, c.has)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(lines(got), c.want) {
				t.Errorf("got  %q\nwant %q", lines(got), c.want)
			}
			if external := c.open != nil; got.Files[0].External != external {
				t.Errorf("external is %v", !external)
			}
		})
	}
}

func TestFindKeepsMediaType(t *testing.T) {
	t.Parallel()
	fsys := tree(map[string]string{"m.joblib": forest, "card.pdf": "%PDF-1.7"})
	got, err := project.Find(t.Context(), fsys, project.Options{Args: []project.Arg{{File: "m.joblib"}, {File: "card.pdf", MediaType: "application/pdf"}}})
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Files[1]; p.MediaType != "application/pdf" || p.Role != manifest.RoleDoc {
		t.Errorf("got %+v", p)
	}
}
