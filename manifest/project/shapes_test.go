package project_test

import (
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing/fstest"

	"galley/manifest/project"
)

// object is a pickle of an object of the class, as joblib writes it.
func object(class string) string { return "\x80\x04" + body(class) + "." }

func body(class string) string {
	i := strings.LastIndexByte(class, '.')
	return "c" + class[:i] + "\n" + class[i+1:] + "\n)\x81}b"
}

// dict is a pickle of a dict with an object of each class.
func dict(classes ...string) string {
	var s strings.Builder
	s.WriteString("\x80\x04}(")
	for i, c := range classes {
		fmt.Fprintf(&s, "\x8c\x01%d%s", i, body(c))
	}
	return s.String() + "u."
}

const (
	features = `{"selected_features": ["amount", "hour"]}`
	summary  = `{"test_metrics": {"test_f1": 0.5}}`
	pointer  = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
	page     = "<!DOCTYPE html><html><title>Sign in</title></html>"
)

var (
	forest   = object("sklearn.ensemble._forest.RandomForestClassifier")
	logistic = object("sklearn.linear_model._logistic.LogisticRegression")
	scaler   = object("sklearn.preprocessing._data.StandardScaler")
	frame    = object("pandas.core.frame.DataFrame")
	array    = "\x80\x04cnumpy.core.multiarray\n_reconstruct\n)R."
	plain    = "\x80\x04}\x8c\x01aK\x01s."
)

func names(model string) string { return `{"model_artifact": "` + model + `", "auc": 0.7}` }

// tree makes a file system of names and contents; "->" before a content makes
// it a link.
func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, content := range files {
		if to, ok := strings.CutPrefix(content, "->"); ok {
			fsys[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink}
			continue
		}
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

// lines writes a selection as "role path[=as]" lines.
func lines(s *project.Selection) []string {
	var all []string
	for _, p := range s.Files {
		line := string(p.Role) + " " + p.Path
		if p.As != p.Path {
			line += "=" + p.As
		}
		all = append(all, line)
	}
	return all
}

// shape is a project and what is taken from it.
type shape struct {
	name   string
	files  map[string]string
	config string
	want   []string
	left   []string // parts of "path: why" that have to be among what is left
}

func shapes() []shape {
	crowd := map[string]string{"models/m.joblib": forest, "data/features.json": features}
	for i := range 300 {
		crowd[fmt.Sprintf("data/part-%03d.csv", i)] = "amount,hour\n1,2\n"
	}
	wide := map[string]string{"models/m.joblib": forest}
	for i := range 10_001 {
		wide[fmt.Sprintf("data/x%05d.txt", i)] = "x"
	}
	return append([]shape{
		{
			name: "the everyday project",
			files: map[string]string{
				"models/random_forest_final_model.joblib": forest, "data/selected_features.json": features,
				"data/training_summary.json": names("models/random_forest_final_model.joblib"),
				"train.py":                   "import sklearn\n", "Dockerfile": "FROM python:3.11-slim\n", "requirements.txt": "joblib\n",
			},
			want: []string{"model models/random_forest_final_model.joblib", "features data/selected_features.json", "summary data/training_summary.json"},
		},
		{
			name: "companions beside the model",
			files: map[string]string{
				"models/model.joblib": forest, "models/scaler.joblib": scaler,
				"models/label_encoder.pkl":    object("sklearn.preprocessing._label.LabelEncoder"),
				"models/feature_selector.pkl": object("sklearn.feature_selection._rfe.RFE"),
				"models/imputer.pkl":          object("acme.Fill"), "models/encoder_mapping.pkl": plain,
				"models/label_encoder.json": `{"low": 0}`, "models/features.json": features, "models/metrics.json": summary,
			},
			want: []string{"model models/model.joblib", "part models/encoder_mapping.pkl", "part models/feature_selector.pkl", "part models/imputer.pkl",
				"part models/label_encoder.json", "part models/label_encoder.pkl", "part models/scaler.joblib", "features models/features.json", "summary models/metrics.json"},
		},
		{
			name: "a calibrator is no second model",
			files: map[string]string{
				"models/model.joblib": forest, "models/calibrator.joblib": object("sklearn.isotonic.IsotonicRegression"),
			},
			want: []string{"model models/model.joblib", "part models/calibrator.joblib"},
		},
		{
			name:  "a calibrated model alone",
			files: map[string]string{"models/calibrator.joblib": object("sklearn.calibration.CalibratedClassifierCV")},
			want:  []string{"model models/calibrator.joblib"},
		},
		{
			name: "parts elsewhere, and of another time",
			files: map[string]string{
				"models/m.joblib": forest, "artifacts/scaler.joblib": scaler, "models/old_scaler.joblib": scaler, "models/scaler_mean.pkl": array,
			},
			want: []string{"model models/m.joblib"},
			left: []string{"artifacts/scaler.joblib: StandardScaler, not beside the model", `models/old_scaler.joblib: StandardScaler, "old" in its name`, "models/scaler_mean.pkl: a pickled array"},
		},
		{
			name: "two models, the summary names one",
			files: map[string]string{
				"models/rf.joblib": forest, "models/lr.joblib": logistic, "data/training_summary.json": names("models/lr.joblib"),
			},
			want: []string{"model models/lr.joblib", "summary data/training_summary.json"},
			left: []string{"models/rf.joblib: RandomForestClassifier, not the model"},
		},
		{
			name: "the summary names a path of another machine",
			files: map[string]string{
				"models/rf.joblib": forest, "models/lr.joblib": logistic, "data/training_summary.json": names(`C:\\ci\\fraud\\models\\lr.joblib`),
			},
			want: []string{"model models/lr.joblib", "summary data/training_summary.json"},
		},
		{
			name: "the summary names a model that is gone",
			files: map[string]string{
				"models/rf.joblib": forest, "data/training_summary.json": names("models/xgb.joblib"),
			},
			want: []string{"model models/rf.joblib", "summary data/training_summary.json"},
		},
		{
			name:  "the summary names a part",
			files: map[string]string{"models/scaler.joblib": scaler, "models/summary.json": names("models/scaler.joblib"), "models/rf.joblib": forest},
			want:  []string{"model models/scaler.joblib", "summary models/summary.json"},
		},
		{
			name:  "one predicts, one is of a class nobody knows",
			files: map[string]string{"models/rf.joblib": forest, "models/thing.pkl": object("acme.core.Thing")},
			want:  []string{"model models/rf.joblib"},
			left:  []string{"models/thing.pkl: Thing, not the model"},
		},
		{
			name:  "a class nobody knows",
			files: map[string]string{"models/thing.pkl": object("acme.core.Thing"), "models/scaler.pkl": object("acme.core.Scale")},
			want:  []string{"model models/thing.pkl", "part models/scaler.pkl"},
		},
		{
			name: "xgboost's own formats",
			files: map[string]string{
				"models/model.json": `{"learner": {"feature_names": []}}`, "models/model_features.json": features, "models/model_metrics.json": summary,
			},
			want: []string{"model models/model.json", "features models/model_features.json", "summary models/model_metrics.json"},
		},
		{
			name:  "xgboost's binary JSON",
			files: map[string]string{"models/model.ubj": "{L\x00\x00\x00\x00\x00\x00\x00\x07learner{"},
			want:  []string{"model models/model.ubj"},
		},
		{
			name:  "everything at the root",
			files: map[string]string{"model.pkl": forest, "scaler.pkl": scaler, "features.json": features, "metrics.json": summary, "src/other.pkl": logistic, "package.json": "{}"},
			want:  []string{"model model.pkl", "part scaler.pkl", "features features.json", "summary metrics.json"},
		},
		{
			name:  "a model in a dict",
			files: map[string]string{"models/bundle.joblib": dict("sklearn.preprocessing._data.StandardScaler", "sklearn.svm._classes.SVC"), "models/lookup.joblib": plain},
			want:  []string{"model models/bundle.joblib"},
			left:  []string{"models/lookup.joblib: a plain dict"},
		},
		{
			name:  "a dict of encoders is a part",
			files: map[string]string{"models/rf.joblib": forest, "models/categories.pkl": dict("sklearn.preprocessing._label.LabelEncoder")},
			want:  []string{"model models/rf.joblib", "part models/categories.pkl"},
		},
		{
			name:  "tables and arrays in data",
			files: map[string]string{"models/rf.joblib": forest, "data/x_train.pkl": frame, "data/y.pkl": object("pandas.core.series.Series"), "data/x.joblib": array, "data/s.pkl": object("scipy.sparse._csr.csr_matrix")},
			want:  []string{"model models/rf.joblib"},
			left:  []string{"data/x.joblib: a pickled array", "data/x_train.pkl: a pickled DataFrame", "data/y.pkl: a pickled Series", "data/s.pkl: a pickled csr_matrix"},
		},
		{
			name:  "a run below artifacts",
			files: map[string]string{"artifacts/run1/model/model.joblib": forest, "artifacts/run1/model/scaler.joblib": scaler, "artifacts/run1/metrics.json": summary, "artifacts/run2/metrics.json": summary, "artifacts/run1/features.json": features},
			want:  []string{"model artifacts/run1/model/model.joblib", "part artifacts/run1/model/scaler.joblib", "features artifacts/run1/features.json", "summary artifacts/run1/metrics.json"},
			left:  []string{"artifacts/run2/metrics.json: another summary file was taken"},
		},
		{
			name: "hidden directories, environments and caches",
			files: map[string]string{
				"models/rf.joblib": forest, "models/.ipynb_checkpoints/rf.joblib": forest, "models/__pycache__/x.pkl": forest,
				"data/env/pyvenv.cfg": "home = /usr\n", "data/env/lib/test.pkl": logistic, "artifacts/mlruns/0/model.pkl": forest, "models/._rf.joblib": forest,
				".venv/model.pkl": forest,
			},
			want: []string{"model models/rf.joblib"},
		},
		{
			name:  "deep below data",
			files: map[string]string{"models/rf.joblib": forest, "data/a/b/c/d/model.pkl": logistic},
			want:  []string{"model models/rf.joblib"},
			left:  []string{"data/a/b/c/d/: not searched: deeper than 4 directories"},
		},
		{
			name: "hundreds of tables", files: crowd,
			want: []string{"model models/m.joblib", "features data/features.json"},
			left: []string{"data/: 300 files: no model, features or summary"},
		},
		{
			name: "more entries than are looked at", files: wide,
			want: []string{"model models/m.joblib"},
			left: []string{"data/: not searched: more than 10000 entries"},
		},
		{
			name:  "a pointer that is not the model",
			files: map[string]string{"models/rf.joblib": forest, "models/previous.joblib": pointer, "models/wiki.joblib": page, "models/zero.pkl": ""},
			want:  []string{"model models/rf.joblib"},
			left:  []string{"models/previous.joblib: is a Git LFS pointer", "models/wiki.joblib: is an HTML page", "models/zero.pkl: is empty"},
		},
		{
			name: "several summaries and features",
			files: map[string]string{
				"models/rf.joblib": forest, "data/training_summary.json": summary, "data/baseline_summary.json": names("models/rf.joblib"), "models/cv_metrics.json": summary, "artifacts/metrics.json": summary,
				"data/selected_features.json": features, "data/all_dropped_features.json": features, "data/features_importance.json": "{}",
			},
			want: []string{"model models/rf.joblib", "features data/selected_features.json", "summary data/training_summary.json"},
			left: []string{`data/baseline_summary.json: "baseline" in its name`, "data/all_dropped_features.json: another features file", `data/features_importance.json: "importance"`},
		},
		{
			name:  "the summary that names the model",
			files: map[string]string{"models/rf.joblib": forest, "data/summary.json": summary, "artifacts/run_7_metrics.json": names("rf.joblib")},
			want:  []string{"model models/rf.joblib", "summary artifacts/run_7_metrics.json"},
		},
		{
			name:  "a link inside the project",
			files: map[string]string{"models/latest.joblib": "->rf_7.joblib", "models/rf_7.joblib": forest, "models/newest": "->../models"},
			want:  []string{"model models/latest.joblib"},
			left:  []string{"models/rf_7.joblib: the same file as models/latest.joblib", "models/newest: a linked directory"},
		},
		{
			name:  "a link that leads nowhere",
			files: map[string]string{"models/rf.joblib": forest, "models/gone.joblib": "->../../gone.joblib"},
			want:  []string{"model models/rf.joblib"},
			left:  []string{"models/gone.joblib: "},
		},
		{
			name:  "compressed by what is not read here",
			files: map[string]string{"models/rf.joblib.xz": "\xfd7zXZ\x00\x00\x04"},
			want:  []string{"model models/rf.joblib.xz"},
		},
		{
			name:  "onnx",
			files: map[string]string{"models/m.onnx": "\x08\x0a\x12\x08skl2onnx\x3a\x04abcd", "models/preprocessor.pkl": object("sklearn.compose._column_transformer.ColumnTransformer")},
			want:  []string{"model models/m.onnx", "part models/preprocessor.pkl"},
		},
		{
			name:  "feature names, and no summary",
			files: map[string]string{"models/m.pkl": forest, "models/feature_names.json": `["a"]`},
			want:  []string{"model models/m.pkl", "features models/feature_names.json"},
		},
	}, configured()...)
}

// configured are the projects with a galley.yaml.
func configured() []shape {
	everyday := map[string]string{
		"models/rf_final_model.joblib": forest, "models/scaler.joblib": scaler, "data/features.json": features, "data/summary.json": summary,
		"README.md": "# Fraud\n", "src/app.py": "import joblib\n", "src/__init__.py": "", "data/a.csv": "a\n1\n", "data/b.csv": "a\n1\n",
	}
	with := func(files map[string]string) map[string]string {
		all := maps.Clone(everyday)
		maps.Copy(all, files)
		return all
	}
	return []shape{
		{
			name: "galley.yaml renames the model", files: everyday,
			config: `files: {model: "models/*_final_model.joblib", as: models/model.joblib}`,
			want:   []string{"model models/rf_final_model.joblib=models/model.joblib", "part models/scaler.joblib", "features data/features.json", "summary data/summary.json"},
		},
		{
			name: "galley.yaml lists everything", files: everyday,
			config: "files:\n  model: ./models/rf_final_model.joblib\n  parts: []\n  features: []\n  summary: data/summary.json\n  docs: README.md\n  code: [src/*.py, src/app.py]\n  data: data/*.csv\n",
			want: []string{"model models/rf_final_model.joblib", "summary data/summary.json", "doc README.md", "code src/__init__.py", "code src/app.py",
				"dataset data/a.csv", "dataset data/b.csv"},
			left: []string{"models/scaler.joblib: StandardScaler, not in files.parts"},
		},
		{
			name: "a pattern that matches two models", files: with(map[string]string{"models/lr_final_model.joblib": logistic, "data/summary.json": names("models/rf_final_model.joblib")}),
			config: "files: {model: models/*_final_model.joblib}",
			want:   []string{"model models/rf_final_model.joblib", "part models/scaler.joblib", "features data/features.json", "summary data/summary.json"},
		},
		{
			name: "a model where nobody looks", files: with(map[string]string{"out/v1/m.joblib": logistic, "out/v1/encoder.joblib": scaler}),
			config: "files: {model: out/v1/m.joblib}",
			want:   []string{"model out/v1/m.joblib", "part out/v1/encoder.joblib", "features data/features.json", "summary data/summary.json"},
		},
		{
			name: "galley.yaml names what search would not take", files: with(map[string]string{"models/weights.bin": "\x00\x01"}),
			config: "files: {model: models/weights.bin, parts: models/rf_final_model.joblib}",
			want:   []string{"model models/weights.bin", "part models/rf_final_model.joblib", "features data/features.json", "summary data/summary.json"},
		},
	}
}
