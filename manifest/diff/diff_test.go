package diff_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/diff"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// project packs a model of that text, features and summary; "" leaves a file
// out.
func project(t testing.TB, model, features, summary string) *manifest.Facts {
	t.Helper()
	fsys := fstest.MapFS{}
	var in []manifest.Input
	for _, f := range []struct {
		path, text string
		role       manifest.Role
	}{{"models/m.bin", model, manifest.RoleModel}, {"f.json", features, manifest.RoleFeatures}, {"s.json", summary, manifest.RoleSummary}} {
		if f.text != "" {
			fsys[f.path] = &fstest.MapFile{Data: []byte(f.text)}
			in = append(in, manifest.FromFS(fsys, f.path, f.path, f.role))
		}
	}
	p, err := manifest.Pack(t.Context(), in, manifest.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Facts()
}

// foreign makes of facts those of an artifact that another tool packed.
func foreign(f *manifest.Facts) *manifest.Facts {
	f.Info.Content = ""
	return f
}

// alone makes of facts those of a file that lies anywhere.
func alone(f *manifest.Facts) *manifest.Facts {
	f.Info.Content, f.Digest, f.Path = "", "", ""
	return f
}

func TestResult(t *testing.T) {
	const features, summary = `["a","b"]`, `{"test_f1": 0.5}`
	base := func() *manifest.Facts { return project(t, "one", features, summary) }
	for _, tt := range []struct {
		name   string
		a, b   *manifest.Facts
		want   diff.Result
		model  diff.Result
		isSame bool
	}{
		{"the same", base(), base(), diff.Same, diff.Same, true},
		{"another model", base(), project(t, "two", features, summary), diff.Differs, diff.Differs, false},
		{"other features", base(), project(t, "one", `["b","a"]`, summary), diff.Differs, diff.Same, false},
		{"other metrics", base(), project(t, "one", features, `{"test_f1": 0.6}`), diff.Differs, diff.Same, false},
		{"no metrics", base(), project(t, "one", features, ""), diff.Differs, diff.Same, false},
		{"a metric that is NaN", base(), project(t, "one", features, `{"test_f1": NaN}`), diff.Differs, diff.Same, false},
		{"trained again", base(), project(t, "one", features, `{"test_f1": 0.5, "trained_at": "2026-01-01T00:00:00Z"}`), diff.Same, diff.Same, true},
		{"foreign", foreign(base()), foreign(base()), diff.Same, diff.Same, true},
		{"one foreign", foreign(base()), base(), diff.Same, diff.Same, true},
		{"foreign, another model", foreign(base()), project(t, "two", features, summary), diff.Differs, diff.Differs, false},
		{"foreign, no features", foreign(base()), foreign(project(t, "one", "", summary)), diff.Differs, diff.Same, false},
		{"a model alone", base(), alone(project(t, "one", "", "")), diff.Same, diff.Same, true},
		{"another model alone", base(), alone(project(t, "two", "", "")), diff.Differs, diff.Differs, false},
		{"a summary alone", base(), alone(project(t, "", "", summary)), diff.Same, diff.Unknown, true},
		{"another summary alone", base(), alone(project(t, "", "", `{"test_f1": 0}`)), diff.Differs, diff.Unknown, false},
		{"nothing in common", alone(project(t, "one", "", "")), alone(project(t, "", features, "")), diff.Unknown, diff.Unknown, false},
	} {
		d := diff.Compare(tt.a, tt.b, diff.Options{})
		if d.Result != tt.want || d.Model != tt.model || d.Same() != tt.isSame {
			t.Errorf("%s: %s, the model %s, same %v; want %s, %s, %v", tt.name, d.Result, d.Model, d.Same(), tt.want, tt.model, tt.isSame)
		}
		// Turned around it is the same.
		if r := diff.Compare(tt.b, tt.a, diff.Options{}); r.Result != d.Result || r.Model != d.Model {
			t.Errorf("%s: %s one way, %s the other", tt.name, d.Result, r.Result)
		}
	}

	// Of an image that docker has pushed, labels are left.
	labels := &manifest.Facts{Digest: "x", Size: -1}
	labels.Info.Content, labels.Info.Features = base().Info.Content, -1
	if d := diff.Compare(base(), labels, diff.Options{}); d.Result != diff.Same || len(d.Metrics) > 0 {
		t.Errorf("of labels: %s, metrics %v", d.Result, d.Metrics)
	}

	// What was read has the last word over what is claimed.
	a, b := base(), project(t, "one", features, `{"test_f1": 0.6}`)
	b.Info.Content = a.Info.Content
	if d := diff.Compare(a, b, diff.Options{}); d.Result != diff.Differs {
		t.Errorf("of a false claim: %s", d.Result)
	}
	// Where a model's bytes are unknown nobody can tell.
	c := foreign(base())
	c.FileDigest = ""
	if d := diff.Compare(a, c, diff.Options{}); d.Result != diff.Unknown || d.Same() {
		t.Errorf("of unknown bytes: %s", d.Result)
	}
	// Where it lies is a part of what an app needs to know.
	c = foreign(base())
	c.Path = "elsewhere"
	if d := diff.Compare(a, c, diff.Options{}); d.Result != diff.Differs || len(d.Changes) != 1 {
		t.Errorf("in another place: %s, %v", d.Result, d.Changes)
	}
}

func TestMetrics(t *testing.T) {
	a := project(t, "m", "", `{"train_f1": 0.9, "test": {"f1": 0.5, "log_loss": 0.4, "auc": 0.8, "converged": true, "gone": 1, "odd": NaN}, "same": 3.5}`)
	b := project(t, "m", "", `{"train_f1": 0.8, "test": {"f1": 0.6, "log_loss": 0.5, "auc": 0.8, "converged": false, "odd": 0.25, "new": 1e308, "huge": 1e308}, "same": 3.5}`)
	o := diff.Options{
		Aliases: []diff.Alias{{Name: "auc", Path: "test.auc"}, {Name: "nowhere", Path: "x.y"}, {Name: "train", Path: "train_f1"}, {Name: "churn", Path: "test.f1"}},
		Better: func(path string) training.Direction {
			if path == "test.f1" {
				return training.Lower
			}
			return training.Better(path)
		},
	}
	d := diff.Compare(a, b, o)
	var got []string
	for _, m := range d.Metrics {
		line := fmt.Sprintf("%s %s %s", m.Name, m.Path, m.Verdict)
		if m.Delta != nil {
			line += fmt.Sprintf(" %+.3g", *m.Delta)
		}
		if m.Old == nil {
			line += " from " + m.OldNote
		}
		if m.New == nil {
			line += " to " + m.NewNote
		}
		got = append(got, line)
	}
	want := []string{
		"auc test.auc equal +0", "train train_f1 worse -0.1", "churn test.f1 worse +0.1",
		" test.log_loss worse +0.1", " test.converged unknown", " test.odd unknown from NaN", " test.new unknown from ", " test.huge unknown from ",
		" same equal +0", " test.gone unknown to ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("metrics\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Without aliases, scores on the training data come last.
	d = diff.Compare(a, b, diff.Options{})
	if last := d.Metrics[len(d.Metrics)-1]; last.Path != "train_f1" || last.Name != "" || last.Verdict != diff.Worse {
		t.Errorf("last %+v", last)
	}
	// What is out of range is left out, for no JSON could have it.
	a = project(t, "m", "", `{"f1": -1e308}`)
	b = project(t, "m", "", `{"f1": 1e308}`)
	d = diff.Compare(a, b, diff.Options{})
	if _, err := json.Marshal(d); err != nil || d.Metrics[0].Delta != nil || d.Metrics[0].Verdict != diff.Better {
		t.Errorf("%+v, %v", d.Metrics[0], err)
	}
}

func features(t testing.TB, a, b []string) diff.Features {
	t.Helper()
	text := func(names []string) string {
		data, err := json.Marshal(names)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return diff.Compare(project(t, "m", text(a), ""), project(t, "m", text(b), ""), diff.Options{}).Features
}

func TestFeatures(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"a b c", "a b c", "same"},
		{"a b c", "a b c d", "differs +d:4"},
		{"a b c", "b c", "differs -a:1"},
		{"a b c d", "d a b c", "differs ~d:4:1"},
		{"a b c d", "b c d a", "differs ~a:1:4"},
		{"a b c", "x a c b", "differs +x:1 ~c:3:3"},
		{"a a b", "a b", "differs -a:2"},
		{"a b", "a b a", "differs +a:3"},
		{"a b", "x y", "differs +x:1 +y:2 -a:1 -b:2"},
	} {
		d := features(t, strings.Fields(tt.a), strings.Fields(tt.b))
		got := []string{string(d.Result)}
		for _, f := range d.Added {
			got = append(got, fmt.Sprintf("+%s:%d", f.Name, f.Position))
		}
		for _, f := range d.Removed {
			got = append(got, fmt.Sprintf("-%s:%d", f.Name, f.Position))
		}
		for _, m := range d.Moved {
			got = append(got, fmt.Sprintf("~%s:%d:%d", m.Name, m.From, m.To))
		}
		if text := strings.Join(got, " "); text != tt.want {
			t.Errorf("%q to %q: %q; want %q", tt.a, tt.b, text, tt.want)
		}
	}

	// Doing what it says makes the one list of the other.
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var a, b []string
		for range 1 + r.IntN(12) {
			a = append(a, string(rune('a'+r.IntN(8))))
		}
		for range 1 + r.IntN(12) {
			b = append(b, string(rune('a'+r.IntN(8))))
		}
		d := features(t, a, b)
		rest := func(names []string, out map[int]bool) (left []string) {
			for i, name := range names {
				if !out[i+1] {
					left = append(left, name)
				}
			}
			return left
		}
		outA, outB := map[int]bool{}, map[int]bool{}
		for _, f := range d.Removed {
			outA[f.Position] = true
		}
		for _, f := range d.Added {
			outB[f.Position] = true
		}
		for _, m := range d.Moved {
			outA[m.From], outB[m.To] = true, true
			if a[m.From-1] != m.Name || b[m.To-1] != m.Name {
				t.Errorf("%q to %q: %+v", a, b, m)
			}
		}
		if left, right := rest(a, outA), rest(b, outB); !slices.Equal(left, right) {
			t.Errorf("%q to %q: without what changed %q and %q are left", a, b, left, right)
		}
	}

	// Lists are bounded and counted.
	long := make([]string, 5000)
	for i := range long {
		long[i] = fmt.Sprint("f", i)
	}
	d := features(t, []string{"x"}, long)
	if d.AddedCount != 5000 || len(d.Added) >= 5000 || d.RemovedCount != 1 || d.Old != 1 || d.New != 5000 {
		t.Errorf("%d added, %d listed", d.AddedCount, len(d.Added))
	}
	slices.Reverse(long)
	reversed := slices.Clone(long)
	slices.Reverse(reversed)
	if d = features(t, long, reversed); d.MovedCount != 4999 || len(d.Moved) >= 4999 {
		t.Errorf("%d moved, %d listed", d.MovedCount, len(d.Moved))
	}

	// What is no list of names is unknown.
	f := diff.Compare(project(t, "m", `["a"]`, ""), project(t, "m", `{"a": 1}`, ""), diff.Options{}).Features
	if f.Result != diff.Unknown || f.Old != 1 || f.New != -1 {
		t.Errorf("%+v", f)
	}
}

// scanned are facts of one model file, and of parts.
func scanned(file string, model *joblib.Model, parts ...manifest.Scan) *manifest.Facts {
	report := &joblib.Report{Models: []*joblib.Model{model}}
	f := &manifest.Facts{Digest: "x", Size: -1, Scans: append([]manifest.Scan{{Path: "m.joblib", Role: manifest.RoleModel, Report: report}}, parts...)}
	f.Info.Features = -1
	f.FileDigest = digest.FromString(file)
	return f
}

func TestParams(t *testing.T) {
	// P makes parameters of names and values, in turns.
	P := func(pairs ...any) (list []joblib.Param) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, joblib.Param{Name: pairs[i].(string), Value: pairs[i+1]})
		}
		return list
	}
	forest := func(params []joblib.Param) *joblib.Model {
		return &joblib.Model{Key: "rf", Class: "sklearn.ensemble._forest.RandomForestClassifier", Params: params}
	}
	scale := &joblib.Model{Key: "scale", Class: "sklearn.preprocessing._data.StandardScaler", Params: P("with_mean", true)}
	pipe := func(steps ...*joblib.Model) *joblib.Model {
		return &joblib.Model{Class: "sklearn.pipeline.Pipeline", Params: P("memory", nil), Parts: steps}
	}
	svc := &joblib.Model{Key: "rf", Class: "sklearn.svm._classes.SVC", Params: P("C", 1.0)}
	member := func(seed int64, depth any) *joblib.Model {
		return &joblib.Model{Key: "estimators_[0]", Class: "x.Tree", Params: P("random_state", seed, "max_depth", depth)}
	}
	bag := func(m *joblib.Model) *joblib.Model { return &joblib.Model{Class: "x.Bag", Parts: []*joblib.Model{m}} }
	part := func(mean bool) manifest.Scan {
		return manifest.Scan{Path: "scaler.joblib", Role: manifest.RolePart, Report: &joblib.Report{Models: []*joblib.Model{{Class: "x.Scaler", Params: P("with_mean", mean)}}}}
	}
	for _, tt := range []struct {
		name string
		a, b *manifest.Facts
		want string
	}{
		{"a forest", scanned("a", forest(P("max_depth", nil, "max_features", "sqrt", "n_estimators", int64(100), "old", 1.5, "w", 1.0))),
			scanned("b", forest(P("max_depth", int64(8), "max_features", "log2", "n_estimators", int64(100), "new", true, "w", int64(1)))),
			"max_depth None 8; max_features 'sqrt' 'log2'; new - True; old 1.5 -"},
		{"a step", scanned("a", pipe(scale, forest(P("n_estimators", int64(100))))), scanned("b", pipe(scale, forest(P("n_estimators", int64(200))))),
			"rf__n_estimators 100 200"},
		{"another class", scanned("a", pipe(scale, forest(P("n_estimators", int64(100))))), scanned("b", pipe(svc)),
			"rf RandomForestClassifier SVC; scale StandardScaler -"},
		{"seeds of members", scanned("a", bag(member(1, nil))), scanned("b", bag(member(2, int64(3)))), "estimators_[0]__max_depth None 3"},
		{"a part", scanned("a", svc, part(true)), scanned("b", svc, part(false)), "scaler.joblib: with_mean True False"},
		{"no such part", scanned("a", svc), scanned("b", svc, part(false)), ""},
	} {
		d := diff.Compare(tt.a, tt.b, diff.Options{})
		var got []string
		for _, p := range d.Params {
			side := func(v *diff.Value) string {
				if v == nil {
					return "-"
				}
				return v.String()
			}
			name := p.Name
			if p.File != "" {
				name = p.File + ": " + name
			}
			got = append(got, fmt.Sprintf("%s %s %s", name, side(p.Old), side(p.New)))
		}
		if text := strings.Join(got, "; "); text != tt.want || !d.ParamsKnown {
			t.Errorf("%s: %q, known %v; want %q", tt.name, text, d.ParamsKnown, tt.want)
		}
	}
	a, b := scanned("a", svc), scanned("b", svc)
	b.Scans = nil
	if d := diff.Compare(a, b, diff.Options{}); d.ParamsKnown {
		t.Error("parameters are known of a model that was not read")
	}
	b.FileDigest = a.FileDigest
	if d := diff.Compare(a, b, diff.Options{}); !d.ParamsKnown || len(d.Params) > 0 {
		t.Error("parameters of the same bytes are not known")
	}
}

// TestJSON shows what scripts read.
func TestJSON(t *testing.T) {
	a := project(t, "one", `["a","b"]`, `{"f1": 0.5, "ok": true}`)
	b := project(t, "three", `["b","c"]`, `{"f1": 0.75}`)
	got, err := json.MarshalIndent(diff.Compare(a, b, diff.Options{Aliases: []diff.Alias{{Name: "score", Path: "f1"}}}), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "result": "differs",
 "model": "differs",
 "metrics": [
  {
   "name": "score",
   "path": "f1",
   "old": 0.5,
   "new": 0.75,
   "delta": 0.25,
   "verdict": "better"
  },
  {
   "path": "ok",
   "old": true,
   "verdict": "unknown"
  }
 ],
 "metricsChanged": 2,
 "features": {
  "result": "differs",
  "old": 2,
  "new": 2,
  "added": [
   {
    "name": "c",
    "position": 2
   }
  ],
  "removed": [
   {
    "name": "a",
    "position": 1
   }
  ],
  "addedCount": 1,
  "removedCount": 1,
  "movedCount": 0
 },
 "parameters": [],
 "parametersKnown": true,
 "changes": [
  {
   "what": "size",
   "old": "3",
   "new": "5"
  }
 ]
}`
	if string(got) != want {
		t.Errorf("JSON\n%s\nwant\n%s", got, want)
	}
}
