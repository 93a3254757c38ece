package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"galley/manifest"
	"galley/manifest/training"
)

// Template returns the text of a galley.yaml that selects what sel holds,
// explained by comments. The metrics are offered as aliases, as comments where
// a name could mean several. sel may be nil, name and repository empty.
// [ParseConfig] accepts the text.
func Template(sel *Selection, name, repository string, metrics []training.Metric) []byte {
	if sel == nil {
		sel = &Selection{}
	}
	t := &template{}
	t.line("# Every key is optional: what is absent is found, or has a default.")
	t.line("")
	t.line("# The model's name; else the last component of the repository.")
	t.text("name", name, "fraud-detector")
	t.line("")
	t.line(`# Where galley pushes to, promotes in, and looks for ":TAG".`)
	t.text("repository", repository, "ghcr.io/acme/fraud-detector")
	t.line("")
	t.files(sel)
	t.line("")
	t.line("# Where the features file holds its list, when galley does not find it.")
	t.line("# features: {path: training.columns}")
	t.line("")
	t.line("# Classes in the pickle that galley does not know and somebody has looked at.")
	t.line(`# scan: {allow: ["acme.features:Clip"]}`)
	t.line("")
	gate := t.metrics(metrics)
	t.line("")
	t.line("# Promotion: a stage is a tag that moves when its gates hold. Gates compare")
	t.line("# metrics with numbers and with those of the model that the stage has now.")
	t.line("stages:")
	t.line("  staging: {}")
	t.line("  production:")
	t.line("    from: staging")
	t.line("    # require: [%q, %q]", gate+" >= 0.65", gate+" >= current."+gate+" * 0.97")
	t.line("    # warn: [%q]", gate+" >= current."+gate)
	t.line("    # soak: 24h         # in staging, before it may come here")
	t.line("    # max-age: 30d      # since it was trained")
	t.line("    # features: same    # as what the stage has: same, superset or any")
	t.line("    # runtime: any      # same: scikit-learn's minor release, numpy and packages")
	t.line("    # path: any         # same: where the model's file lies")
	t.line("    # scan: declared    # pass: read the model again")
	t.line("    # same: [test_rows] # what the summaries must agree on")
	t.line("")
	t.line("# Tags that never move, as a regular expression.")
	t.line(`# versions: "^v?[0-9]"`)
	return t.Bytes()
}

type template struct{ bytes.Buffer }

func (t *template) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// text writes a key and its value, or an example of it as a comment.
func (t *template) text(key, value, example string) {
	if value == "" {
		t.line("# %s: %s", key, example)
		return
	}
	t.line("%s: %s", key, scalar(value))
}

func (t *template) files(sel *Selection) {
	const model = "models/model.joblib"
	t.line("# Which files make up the artifact: paths or patterns such as models/*_model.joblib.")
	t.line("# Lists that are absent are found; [] takes none.")
	t.line("files:")
	picked := map[manifest.Role][]string{}
	as := ""
	for _, p := range sel.Files {
		if p.External {
			continue
		}
		picked[p.Role] = append(picked[p.Role], strings.ReplaceAll(p.Path, "[", `\[`))
		if p.Role == manifest.RoleModel && p.As != p.Path {
			as = p.As
		}
	}
	list := func(key string, role manifest.Role, example string) {
		var paths []string
		for _, p := range picked[role] {
			paths = append(paths, scalar(p))
		}
		switch {
		case len(paths) == 0:
			t.line("  # %s: %s", key, example)
		case len(paths) == 1:
			t.line("  %s: %s", key, paths[0])
		default:
			t.line("  %s: [%s]", key, strings.Join(paths, ", "))
		}
	}
	list("model", manifest.RoleModel, model)
	t.line("  # One path for the application, whatever training calls the file.")
	if as == "" {
		t.line("  # as: %s", model)
	} else {
		t.line("  as: %s", scalar(as))
	}
	list("parts", manifest.RolePart, "[models/scaler.joblib]")
	list("features", manifest.RoleFeatures, "data/selected_features.json")
	list("summary", manifest.RoleSummary, "data/training_summary.json")
	list("docs", manifest.RoleDoc, "[README.md]")
	list("code", manifest.RoleCode, "[src/*.py]")
	list("data", manifest.RoleDataset, "[data/reference.csv]")
}

// metrics writes an alias for each score, and returns a name for the examples.
func (t *template) metrics(metrics []training.Metric) string {
	t.line("# Short names for metrics, for gates and columns. Higher is better, but for known")
	t.line("# names such as brier, rmse and log_loss; else: {path: …, better: lower}.")
	choices := aliases(metrics)
	gate := "roc_auc"
	for _, usual := range []string{"accuracy", "recall", "f1", "auc", "roc_auc"} {
		if slices.ContainsFunc(choices, func(c choice) bool { return c.name == usual }) {
			gate = usual
		}
	}
	if !slices.ContainsFunc(choices, func(c choice) bool { return c.path != "" }) {
		t.line("metrics: {}")
	} else {
		t.line("metrics:")
	}
	for _, c := range choices {
		if c.path != "" {
			t.line("  %s: %s", scalar(c.name), scalar(c.path))
		}
		for _, other := range c.others {
			t.line("  # %s: %s", scalar(c.name), scalar(other))
		}
	}
	return gate
}

// choice is an alias and the metrics it could stand for.
type choice struct {
	name   string
	path   string   // the one it does; empty when nothing tells
	others []string // at most a few
}

// aliases returns the names that the metrics go by without what they were
// measured on. Of several with one name the test score is the one to gate on.
func aliases(metrics []training.Metric) []choice {
	const maxAliases, maxOthers = 20, 4
	var all []choice
	for _, m := range metrics {
		name := bareName(m.Path)
		known := slices.ContainsFunc(all, func(c choice) bool { return c.name == name })
		if m.IsBool || name == "" || strings.HasPrefix(name, "train") || known || len(all) == maxAliases {
			continue
		}
		found, err := training.Find(metrics, name, nil)
		several, ok := errors.AsType[*training.AmbiguousError](err)
		switch {
		case err == nil:
			all = append(all, choice{name: name, path: found.Path})
		case ok:
			c := choice{name: name, others: several.Paths}
			tests := without(c.others, func(p string) bool { return !slices.Contains(words(p), "test") })
			if len(tests) == 1 {
				c.path = tests[0]
				c.others = without(c.others, func(p string) bool { return p == c.path })
			}
			c.others = c.others[:min(len(c.others), maxOthers)]
			all = append(all, c)
		}
	}
	return all
}

// bareName is the last key of a metric's path without the name of a data set.
func bareName(p string) string {
	last := p[strings.LastIndexByte(p, '.')+1:]
	for _, prefix := range []string{"test_", "val_", "valid_", "validation_"} {
		if rest, ok := strings.CutPrefix(last, prefix); ok {
			return rest
		}
	}
	return last
}

// AliasLine returns the line of galley.yaml that makes name an alias of the
// metric at path.
func AliasLine(name, path string) string {
	return fmt.Sprintf("metrics: {%s: %s}", scalar(name), scalar(path))
}

var plainScalar = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./@*-]*$`) })

// scalar writes a text as YAML: plain where nobody can take it for something
// else, or as a JSON string, which YAML reads too.
func scalar(s string) string {
	if plainScalar().MatchString(s) && !strings.EqualFold(s, "null") {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}
