package project_test

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"galley/manifest/project"
	"galley/manifest/training"
)

const everything = `# all there is
name: fraud-detector
version: 1.10
repository: ghcr.io/acme/fraud-detector
files:
  model: "models/*_final_model.joblib"
  as: models/model.joblib
  parts: [models/scaler.joblib, ./models/encoder.joblib]
  features: data/selected_features.json
  summary: data/training_summary.json
  docs:
    - README.md
    - docs/*.md
  code: src/*.py
  data: []
features: {path: training.columns}
metrics:
  roc_auc: test_metrics.test_roc_auc
  log_loss: {path: test_metrics.test_log_loss, better: lower}
  "f1-score": {path: weighted avg.f1-score}
stages:
  staging: {}
  canary:
  production:
    from: staging
    require: &gates ["roc_auc >= 0.65", "recall >= current.recall * 0.97"]
    warn: precision >= 0.5
    features: any
    scan: pass
    soak: 24h
    max-age: 30d
    runtime: same
    path: any
    same: [test_rows, dataset_sha]
  eu:
    features: superset
    scan: declared
    require: *gates
    warn:
      - |
        a > 1
      - 'it''s'
      - a ||
          b
versions: ^v?[0-9]
history: ghcr.io/acme/fraud-history
`

func TestParseConfig(t *testing.T) {
	t.Parallel()
	gates := []project.Expression{
		{Text: "roc_auc >= 0.65", Line: 26, Column: 23, Verbatim: true},
		{Text: "recall >= current.recall * 0.97", Line: 26, Column: 42, Verbatim: true},
	}
	want := &project.Config{
		File: "galley.yaml", Name: "fraud-detector", Version: "1.10", Repository: "ghcr.io/acme/fraud-detector",
		Files: project.Files{
			Model: "models/*_final_model.joblib", As: "models/model.joblib",
			Parts:    []string{"models/scaler.joblib", "models/encoder.joblib"},
			Features: []string{"data/selected_features.json"}, Summary: []string{"data/training_summary.json"},
			Docs: []string{"README.md", "docs/*.md"}, Code: []string{"src/*.py"}, Data: []string{},
		},
		Features: project.Features{Path: "training.columns"},
		Metrics: map[string]project.Metric{
			"roc_auc": {Path: "test_metrics.test_roc_auc"}, "log_loss": {Path: "test_metrics.test_log_loss", Better: "lower"},
			"f1-score": {Path: "weighted avg.f1-score"},
		},
		MetricNames: []string{"roc_auc", "log_loss", "f1-score"},
		Stages: map[string]project.Stage{
			"staging": {}, "canary": {},
			"production": {
				From: "staging", Soak: 24 * time.Hour, Require: gates,
				Warn:     []project.Expression{{Text: "precision >= 0.5", Line: 27, Column: 11, Verbatim: true}},
				Features: "any", Scan: "pass", Runtime: "same", Path: "any", MaxAge: 30 * 24 * time.Hour, Same: []string{"test_rows", "dataset_sha"},
			},
			"eu": {Require: gates, Features: "superset", Scan: "declared", Warn: []project.Expression{
				{Text: "a > 1\n", Line: 40, Column: 9}, {Text: "it's", Line: 42, Column: 9}, {Text: "a || b", Line: 43, Column: 9},
			}},
		},
		StageNames: []string{"staging", "canary", "production", "eu"},
		Versions:   "^v?[0-9]", History: "ghcr.io/acme/fraud-history",
	}
	for name, text := range map[string]string{
		"as it is": everything, "with a BOM": "\ufeff" + everything, "with CRLF": strings.ReplaceAll(everything, "\n", "\r\n"),
		"as a document": "--- " + everything + "...\n",
	} {
		got, err := project.ParseConfig("galley.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
		}
	}
}

func TestParseConfigOfNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing yet\n", "---\n", "{}", "null", "name:\nfiles:\nmetrics:\nstages:\n"} {
		got, err := project.ParseConfig("galley.yaml", []byte(text))
		if err != nil || got.Name != "" || got.Files.Parts != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// mistakes are texts and the messages they get.
func mistakes() map[string]string {
	return map[string]string{
		"name: x\n\nmetrcs:\n  a: b\n":                `galley.yaml:3:1: unknown key "metrcs"; nearest: "metrics"`,
		"files: {modell: a}":                          `galley.yaml:1:9: unknown key "modell"; nearest: "model"`,
		"stages:\n  production:\n    requires: [a]\n": `galley.yaml:3:5: unknown key "requires"; nearest: "require"`,
		"zzz: 1":                                          `galley.yaml:1:1: unknown key "zzz"`,
		"stages:\n  Production: {}\n":                     `galley.yaml:2:3: stage "Production": a name is up to 40 of a-z, 0-9, _ and -, and begins with a letter or digit`,
		"stages:\n  a: {}\n  -b: {}\n":                    `galley.yaml:3:3: stage "-b": a name is up to 40`,
		"stages: {" + strings.Repeat("a", 41) + ": {}}":   `galley.yaml:1:10: stage "` + strings.Repeat("a", 41) + `": a name is up to 40`,
		"stages: {a: {from: stagin}, staging: {}}":        `galley.yaml:1:20: from: no stage "stagin" here; nearest: "staging"`,
		"stages: {a: {from: a}}":                          `galley.yaml:1:20: from: a is the stage itself`,
		"stages: {b: {}, a: {from: b, soak: 1}}":          `galley.yaml:1:36: duration "1": want one above zero such as 90m, 24h or 30d`,
		"stages: {a: {max-age: [30d]}}":                   `galley.yaml:1:23: want a text, got a list`,
		"stages: {a: {maxage: 30d}}":                      `galley.yaml:1:14: unknown key "maxage"; nearest: "max-age"`,
		"stages: {a: {soak: 24h}}":                        `galley.yaml:1:20: soak: from is missing`,
		"stages: {a: {features: supreset}}":               `galley.yaml:1:24: unknown value "supreset"; nearest: "superset"`,
		"stages: {a: {runtime: equal}}":                   `galley.yaml:1:23: unknown value "equal"`,
		"stages: {a: {path: sam}}":                        `galley.yaml:1:20: unknown value "sam"; nearest: "same"`,
		"stages: {a: {scan: declare}}":                    `galley.yaml:1:20: unknown value "declare"; nearest: "declared"`,
		"metrics: {a: {path: b, better: less}}":           `galley.yaml:1:32: unknown value "less"`,
		"metrics: {a: {path: b, better: loewr}}":          `galley.yaml:1:32: unknown value "loewr"; nearest: "lower"`,
		"metrics: {a: [b]}":                               `galley.yaml:1:14: want a text, got a list`,
		"metrics: [a]":                                    `galley.yaml:1:10: want keys with values, got a list`,
		"name: {a: b}":                                    `galley.yaml:1:7: want a text, got keys with values`,
		"files: models/m.joblib":                          `galley.yaml:1:8: want keys with values, got "models/m.joblib"`,
		"just text":                                       `galley.yaml:1:1: want keys with values, got "just text"`,
		"versions: \"v[\"":                                "galley.yaml:1:11: versions: error parsing regexp: missing closing ]: `[`",
		"files: {model: \"[\"}":                           `galley.yaml:1:16: pattern "[": syntax error in pattern`,
		"files: {docs: [docs/**]}":                        `galley.yaml:1:15: pattern "docs/**": "**" is not supported; name each level, as in src/*/*.py`,
		"files: {code: ../lib/*.py}":                      `galley.yaml:1:15: pattern "../lib/*.py": want a path below the project`,
		"files: {code: /lib/*.py}":                        `galley.yaml:1:15: pattern "/lib/*.py": want a path below the project`,
		"files: {code: [\"\"]}":                           `galley.yaml:1:15: pattern "": want a path below the project`,
		"files: {as: ../m.joblib}":                        `galley.yaml:1:13: files.as: unsafe path: "../m.joblib" is not a clean relative path`,
		"name: a\nname: b\n":                              `galley.yaml:2:1: mapping key "name" already defined at [1:1]`,
		"name: *a":                                        `galley.yaml:1:7: alias "a" has no anchor above it`,
		"a: b: c":                                         `galley.yaml:1:4: mapping value is not allowed in this context`,
		"name: a\n---\nname: b\n":                         `galley.yaml:3:5: a second document; one is wanted`,
		"name: \xff":                                      `galley.yaml: not UTF-8`,
		strings.Repeat("#", 1<<20+1):                      `galley.yaml: 1048577 bytes are more than the 1048576 allowed`,
		strings.Repeat("[", 1<<20):                        `tokens are more than the 20000 allowed`,
		strings.Repeat("- ", 9_000):                       `galley.yaml:1:1: want keys with values, got a list`,
		"name: " + strings.Repeat("[", 100):               `galley.yaml:1:27: nested deeper than 20 levels`,
		"x: &a [1]\nstages: &s {a: {require: *a}}\nzz: 1": `unknown key "x"`,
	}
}

func TestParseConfigMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range mistakes() {
		c, err := project.ParseConfig("galley.yaml", []byte(text))
		if _, ok := errors.AsType[*project.ConfigError](err); !ok || c != nil {
			t.Errorf("%.60q: got %+v, %v", text, c, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"24h": 24 * time.Hour, "90m": 90 * time.Minute, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "0d1s": time.Second,
		"106751d23h47m16s": 106751*24*time.Hour + 23*time.Hour + 47*time.Minute + 16*time.Second,
	} {
		if got, err := project.ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"24h": "1d", "90m": "1h30m", "30d": "30d", "36h": "1d12h", "90s": "1m30s", "1d1s": "1d1s"} {
		d, err := project.ParseDuration(text)
		if got := project.FormatDuration(d); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if again, err := project.ParseDuration(want); err != nil || again != d {
			t.Errorf("%q: %s, %v; want %s", want, again, err, d)
		}
	}
	if got := project.FormatDuration(0); got != "0s" {
		t.Errorf("none: %q", got)
	}
	for _, text := range []string{"", "0", "0d", "-1h", "-1d", "1d-24h", "+1d", "d", "1.5d", "1w", "1h2d", "1ms", "1.5s", "106752d", "106751d24h", "99999999999999999999d"} {
		if got, err := project.ParseDuration(text); err == nil {
			t.Errorf("%q: %s, want an error", text, got)
		}
	}
}

func TestConfigBetter(t *testing.T) {
	t.Parallel()
	c, err := project.ParseConfig("galley.yaml", []byte(`metrics:
  auc: test.auc
  log_loss: test.ll
  cost: {path: test.cost, better: lower}
  brier: {path: test.skill, better: higher}
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]training.Direction{
		"auc": training.Higher, "test.auc": training.Higher, "log_loss": training.Lower, "test.ll": training.Lower,
		"cost": training.Lower, "test.cost": training.Lower, "brier": training.Higher, "test.skill": training.Higher,
		"val.rmse": training.Lower, "val.f1": training.Higher,
	} {
		if got := c.Better(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := (*project.Config)(nil).Better("rmse"); got != training.Lower {
		t.Errorf("without galley.yaml: rmse: %s", got)
	}
}

func TestParseConfigReportsAll(t *testing.T) {
	t.Parallel()
	_, err := project.ParseConfig("ci/galley.yaml", []byte("nam: a\nfiles: {modle: b}\n"))
	want := "ci/galley.yaml:1:1: unknown key \"nam\"; nearest: \"name\"\nci/galley.yaml:2:9: unknown key \"modle\"; nearest: \"model\""
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestParseConfigBoundsAliases has a text that grows a thousandfold when its
// aliases are followed.
func TestParseConfigBoundsAliases(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("stages:\n  a: &a {require: [" + strings.Repeat("x, ", 2000) + "x]}\n")
	for i := range 100 {
		text.WriteString("  b" + strings.Repeat("b", i%30) + string(rune('0'+i/30)) + ": *a\n")
	}
	_, err := project.ParseConfig("galley.yaml", []byte(text.String()))
	if err == nil || !strings.Contains(err.Error(), "aliases make it more than 20000 values") {
		t.Errorf("got %v", err)
	}
}

func TestFuzzConfigSeeds(t *testing.T) {
	t.Parallel()
	if n := len(mistakes()); n < 25 {
		t.Errorf("%d seeds", n)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(everything))
	for text := range mistakes() {
		f.Add([]byte(text[:min(len(text), 4<<10)]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := project.ParseConfig("galley.yaml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%+v with %v", c, err)
		}
		if _, ok := errors.AsType[*project.ConfigError](err); err != nil && !ok {
			t.Errorf("%v is no ConfigError", err)
		}
		if c != nil && (len(c.Stages) != len(c.StageNames) || len(c.Metrics) != len(c.MetricNames)) {
			t.Errorf("%d stages, %d names; %d metrics, %d names", len(c.Stages), len(c.StageNames), len(c.Metrics), len(c.MetricNames))
		}
	})
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot("testdata/everyday")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	sel, err := project.Find(t.Context(), root.FS(), project.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := root.ReadFile("data/training_summary.json")
	if err != nil {
		t.Fatal(err)
	}
	summary, err := training.ParseSummary(data)
	if err != nil {
		t.Fatal(err)
	}
	got := project.Template(sel, "fraud-detector", "ghcr.io/acme/fraud-detector", summary.Metrics)
	want, err := os.ReadFile("testdata/everyday.galley.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	config, err := project.ParseConfig("galley.yaml", got)
	if err != nil {
		t.Fatal(err)
	}
	again, err := project.Find(t.Context(), root.FS(), project.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(lines(again), lines(sel)) {
		t.Errorf("selects %q, want %q", lines(again), lines(sel))
	}
}

// TestTemplateStage takes the comments off what the template says of a stage.
func TestTemplateStage(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(string(project.Template(nil, "", "", nil)), "\n    # ", "\n    ")
	c, err := project.ParseConfig("galley.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Stages["production"]
	if len(s.Require) != 2 || len(s.Warn) != 1 || s.Soak == 0 || s.MaxAge == 0 || s.Features != "same" || s.Runtime != "any" || s.Path != "any" || s.Scan != "declared" || len(s.Same) != 1 {
		t.Errorf("keys are missing: %+v", s)
	}
}

// TestTemplateSelectsTheSame writes a galley.yaml for every project of
// TestFind.
func TestTemplateSelectsTheSame(t *testing.T) {
	t.Parallel()
	for _, c := range shapes() {
		before, err := project.ParseConfig("galley.yaml", []byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		sel, err := project.Find(t.Context(), tree(c.files), project.Options{Config: before})
		if err != nil {
			t.Fatal(err)
		}
		text := project.Template(sel, "", "", nil)
		after, err := project.ParseConfig("galley.yaml", text)
		if err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, text)
			continue
		}
		again, err := project.Find(t.Context(), tree(c.files), project.Options{Config: after})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(before.Files.Parts)+len(before.Files.Features) == 0 && before.Files.Parts != nil {
			continue // the template leaves out what was switched off
		}
		if !slices.Equal(lines(again), lines(sel)) {
			t.Errorf("%s: selects %q, want %q", c.name, lines(again), lines(sel))
		}
	}
}

func TestTemplateQuotes(t *testing.T) {
	t.Parallel()
	sel := &project.Selection{Files: []project.Pick{
		{Path: "models/[v1] it's, \"new\".joblib", As: "null", Role: "model"}, {Path: "/mnt/x", As: "x", Role: "doc", External: true},
	}}
	metrics := []training.Metric{
		{Path: "weighted avg.f1-score"}, {Path: "precision@10"}, {Path: "a.auc"}, {Path: "b.auc"}, {Path: "c: #"}, {Path: "train_f1"}, {Path: "passed", IsBool: true},
		{Path: "test.loss"}, {Path: "valid.loss"},
	}
	text := project.Template(sel, "null", "localhost:5000/fraud # detector", metrics)
	c, err := project.ParseConfig("galley.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if c.Name != "null" || c.Repository != "localhost:5000/fraud # detector" || c.Files.As != "null" || c.Files.Docs != nil {
		t.Errorf("got %+v", c)
	}
	if want := `models/\[v1] it's, "new".joblib`; c.Files.Model != want {
		t.Errorf("model %q, want %q", c.Files.Model, want)
	}
	want := map[string]project.Metric{"f1-score": {Path: "weighted avg.f1-score"}, "precision@10": {Path: "precision@10"}, "c: #": {Path: "c: #"}, "loss": {Path: "test.loss"}}
	if !reflect.DeepEqual(c.Metrics, want) {
		t.Errorf("got  %+v\nwant %+v\n%s", c.Metrics, want, text)
	}
	for _, line := range []string{"  # auc: a.auc\n", "  # auc: b.auc\n", "  # loss: valid.loss\n", `# require: ["auc >= 0.65"`} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}
