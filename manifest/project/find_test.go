package project_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"galley/manifest"
	"galley/manifest/project"
)

func TestFind(t *testing.T) {
	t.Parallel()
	all := shapes()
	if len(all) < 30 {
		t.Fatalf("%d projects", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config, err := project.ParseConfig("galley.yaml", []byte(c.config))
			if err != nil {
				t.Fatal(err)
			}
			got, err := project.Find(t.Context(), tree(c.files), project.Options{Config: config})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(lines(got), c.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(lines(got), "\n\t"), strings.Join(c.want, "\n\t"))
			}
			for _, p := range got.Files {
				if p.Why == "" {
					t.Errorf("%s: taken without a reason", p.Path)
				}
			}
			for _, want := range c.left {
				if !slices.ContainsFunc(got.Left, func(l project.Left) bool { return strings.HasPrefix(l.Path+": "+l.Why, want) }) {
					t.Errorf("%q is not in what is left: %q", want, got.Left)
				}
			}
			if len(got.Left) > 12 {
				t.Errorf("%d lines about what is left", len(got.Left))
			}
		})
	}
}

// TestFindRealProjects reads what scikit-learn and xgboost write.
func TestFindRealProjects(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"everyday":   {"model models/random_forest_final_model.joblib", "features data/selected_features.json", "summary data/training_summary.json"},
		"companions": {"model models/model.joblib.gz", "part models/feature_selector.joblib", "part models/label_encoder.joblib", "part models/scaler.joblib", "features models/model_features.json", "summary models/metrics.json"},
		"pipeline":   {"model models/fraud_pipeline.joblib", "part models/scaler.joblib", "features data/features.json"},
		"two-models": {"model models/logistic_model.joblib", "summary data/training_summary.json"},
		"xgboost":    {"model models/model.ubj", "summary data/metrics.json"},
		"dict":       {"model models/bundle.joblib"},
	}
	dirs, err := filepath.Glob("testdata/*/models")
	if err != nil || len(dirs) != len(want) {
		t.Fatalf("%d projects, want %d: %v", len(dirs), len(want), err)
	}
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(dir))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, err := os.OpenRoot(filepath.Dir(dir))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			got, err := project.Find(t.Context(), root.FS(), project.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(lines(got), want[name]) {
				t.Errorf("got  %q\nwant %q", lines(got), want[name])
			}
		})
	}
}

func TestFindReportsModelArtifact(t *testing.T) {
	t.Parallel()
	fsys := tree(map[string]string{"models/rf.joblib": forest, "data/summary.json": names("models/xgb.joblib")})
	for _, o := range []project.Options{{}, {Args: []project.Arg{{File: "models/rf.joblib"}, {File: "data/summary.json"}}},
		{Config: &project.Config{Files: project.Files{Summary: []string{"data/summary.json"}}}}} {
		got, err := project.Find(t.Context(), fsys, o)
		if err != nil {
			t.Fatal(err)
		}
		if got.ModelArtifact != "models/xgb.joblib" {
			t.Errorf("got %q", got.ModelArtifact)
		}
	}
}

func TestFindErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		files  map[string]string
		config string
		is     error  // a sentinel
		has    string // in the message
	}{
		{"nothing", nil, "", nil, "find model: none in models, artifacts, data, ."},
		{"only data", map[string]string{"data/x.pkl": frame, "data/features.json": features}, "", nil, "none in"},
		{"only a scaler", map[string]string{"models/scaler.pkl": scaler}, "", nil, "none in"},
		{"two models", map[string]string{"models/a.pkl": forest, "models/b.pkl": logistic}, "", nil, "2 files could be it: models/a.pkl, models/b.pkl"},
		{"two of classes nobody knows", map[string]string{"models/a.pkl": object("acme.A"), "models/b.pkl": object("acme.B")}, "", nil, "2 files"},
		{"two summaries that disagree", map[string]string{
			"artifacts/1/m.pkl": forest, "artifacts/1/summary.json": names("artifacts/1/m.pkl"),
			"artifacts/2/m.pkl": forest, "artifacts/2/summary.json": names("artifacts/2/m.pkl"), "artifacts/3/m.pkl": forest,
		}, "", nil, "2 files could be it: artifacts/1/m.pkl, artifacts/2/m.pkl"},
		{"a pointer", map[string]string{"models/m.joblib": pointer}, "", project.ErrPointer, `select "models/m.joblib": is a Git LFS pointer`},
		{"a compressed model's pointer", map[string]string{"models/m.pkl.gz": pointer}, "", project.ErrPointer, "m.pkl.gz"},
		{"a page", map[string]string{"models/m.joblib": page}, "", project.ErrPage, "m.joblib"},
		{"an empty model", map[string]string{"models/m.joblib": ""}, "", project.ErrEmpty, "m.joblib"},
		{"a scaler's pointer", map[string]string{"models/m.joblib": forest, "models/scaler.joblib": pointer}, "", project.ErrPointer, "scaler.joblib"},
		{"a features pointer", map[string]string{"models/m.joblib": forest, "data/features.json": pointer}, "", project.ErrPointer, "features.json"},
		{"an empty summary", map[string]string{"models/m.joblib": forest, "data/summary.json": ""}, "", project.ErrEmpty, "summary.json"},
		{"the summary names a pointer", map[string]string{"models/a.joblib": forest, "models/b.joblib": pointer, "data/summary.json": names("models/b.joblib")}, "", project.ErrPointer, "b.joblib"},
		{"a directory in galley.yaml", map[string]string{"models/m.joblib": forest}, "files: {model: models}", project.ErrNotRegular, `select "models": is a directory`},
		{"a file that is not there", map[string]string{"models/m.joblib": forest}, "files: {summary: data/s.json}", fs.ErrNotExist, "as files.summary asks"},
		{"a pattern without a match", map[string]string{"models/m.joblib": forest}, "files: {docs: docs/*.md}", project.ErrNoMatch, `select "docs/*.md": no file matches, as files.docs asks`},
		{"a pattern that matches directories", map[string]string{"models/m.joblib": forest, "docs/a/b.md": ""}, "files: {docs: docs/*}", project.ErrNoMatch, "docs/*"},
		{"a data set's pointer", map[string]string{"models/m.joblib": forest, "data/x.csv": pointer}, "files: {data: data/x.csv}", project.ErrPointer, "x.csv"},
		{"two files of one name", map[string]string{"models/m.joblib": forest, "models/M.joblib": scaler}, "files: {parts: models/M.joblib}", nil, "clashes"},
		{"a file below a file", map[string]string{"models/m.joblib": forest, "data/a.txt": "a"}, "files: {as: data/A.txt/m, docs: data/a.txt}", nil, "clashes"},
		{"a name that no artifact has", map[string]string{"models/m:1.joblib": forest}, "", manifest.ErrUnsafePath, "m:1.joblib"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config, err := project.ParseConfig("galley.yaml", []byte(c.config))
			if err != nil {
				t.Fatal(err)
			}
			got, err := project.Find(t.Context(), tree(c.files), project.Options{Config: config})
			if err == nil {
				t.Fatalf("took %q", lines(got))
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.has) {
				t.Errorf("%v\nlacks %q", err, c.has)
			}
		})
	}
}

func TestFindErrorFacts(t *testing.T) {
	t.Parallel()
	_, err := project.Find(t.Context(), tree(map[string]string{"models/b.pkl": logistic, "models/a.pkl": forest}), project.Options{})
	several, ok := errors.AsType[*project.SeveralModelsError](err)
	if !ok || len(several.Models) != 2 || several.Models[0].Path != "models/a.pkl" ||
		several.Models[0].Class != "sklearn.ensemble._forest.RandomForestClassifier" {
		t.Errorf("got %v, %+v", err, several)
	}
	_, err = project.Find(t.Context(), tree(map[string]string{"data/x.pkl": frame}), project.Options{})
	none, ok := errors.AsType[*project.NoModelError](err)
	if !ok || !slices.Contains(none.Left, project.Left{Path: "data/x.pkl", Why: "a pickled DataFrame"}) {
		t.Errorf("got %v, %+v", err, none)
	}
}

// broken fails to open one file.
type broken struct {
	fs.FS
	name string
}

func (b broken) Open(name string) (fs.File, error) {
	if name == b.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return b.FS.Open(name)
}

func TestFindUnreadable(t *testing.T) {
	t.Parallel()
	alone := tree(map[string]string{"models/m.joblib": forest})
	_, err := project.Find(t.Context(), broken{alone, "models/m.joblib"}, project.Options{})
	if e, ok := errors.AsType[*project.FileError](err); !ok || e.Path != "models/m.joblib" || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	two := tree(map[string]string{"models/m.joblib": forest, "models/n.joblib": forest})
	got, err := project.Find(t.Context(), broken{two, "models/n.joblib"}, project.Options{})
	if err != nil || !slices.Contains(got.Left, project.Left{Path: "models/n.joblib", Why: fs.ErrPermission.Error()}) {
		t.Errorf("got %+v, %v", got, err)
	}
	locked := tree(map[string]string{"models/m.joblib": forest, "data/x.csv": "a"})
	got, err = project.Find(t.Context(), broken{locked, "data"}, project.Options{})
	if err != nil || len(got.Left) != 1 || got.Left[0].Path != "data/" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFindStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range []project.Options{{}, {Args: []project.Arg{{File: "models/m.joblib"}}}} {
		if _, err := project.Find(ctx, tree(map[string]string{"models/m.joblib": forest}), o); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// TestFindKeepsInside has a real link out of the project.
func TestFindKeepsInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	models := filepath.Join(dir, "project", "models")
	if err := os.MkdirAll(models, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "outside.joblib"), filepath.Join(models, "m.joblib")} {
		if err := os.WriteFile(name, []byte(forest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../outside.joblib", filepath.Join(models, "link.joblib")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "project"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	got, err := project.Find(t.Context(), root.FS(), project.Options{})
	if err != nil || !slices.Equal(lines(got), []string{"model models/m.joblib"}) || len(got.Left) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}
