//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"galley/manifest/joblib"
)

// e2eJoblibSteps is how many steps TestE2EJoblib has.
const e2eJoblibSteps = 20

// e2eAttacks is the directory of files that run something when they are loaded.
const e2eAttacks = "../../testdata/joblib/attacks"

// TestE2EJoblib has the real binary read what real scikit-learn, joblib and
// numpy wrote, a current set of them and an old one, and what attackers would
// write. That the reader finds in the same files what Python does is for
// TestModels, which run.sh runs too.
func TestE2EJoblib(t *testing.T) {
	j := preparedJoblib(t)
	t.Run("generated", j.testGenerated)
	t.Run("attacks", j.testAttacks)
	t.Run("stories", j.testStories)
	t.Run("tampered", j.testTampered)
	t.Run("heavy", j.testHeavy)
	j.counted(t, e2eJoblibSteps)
}

type e2eJoblib struct {
	*e2e
	current, old pythonSet
}

// pythonSet is a set of packages.
type pythonSet struct {
	name, python string
	models       string // directory of what gen.py wrote with them
}

func (j *e2eJoblib) sets() []pythonSet { return []pythonSet{j.current, j.old} }

func preparedJoblib(t *testing.T) *e2eJoblib {
	j := &e2eJoblib{e2e: prepared(t)}
	j.current.name, j.old.name = "current", "old"
	for name, p := range map[string]*string{
		"CURRENT_PYTHON": &j.current.python, "CURRENT_MODELS": &j.current.models,
		"OLD_PYTHON": &j.old.python, "OLD_MODELS": &j.old.models,
	} {
		if *p = os.Getenv("GALLEY_E2E_" + name); *p == "" {
			t.Fatalf("GALLEY_E2E_%s is not set; run sh testdata/e2e/run.sh", name)
		}
	}
	return j
}

// scanAnswer is the answer of galley scan --format json.
type scanAnswer struct {
	Verdict joblib.Verdict `json:"verdict"`
	Refused bool           `json:"refused"`
	Files   []inspected    `json:"files"`
}

// inspected is what galley inspect FILE --format json says.
type inspected struct {
	Path        string           `json:"file"` // of scan only
	Format      string           `json:"format"`
	Compression string           `json:"compression"`
	Verdict     joblib.Verdict   `json:"verdict"`
	Findings    []joblib.Finding `json:"findings"`
	Models      []joblib.Model   `json:"models"`
	Values      []joblib.Param   `json:"values"`
	Sklearn     []string         `json:"sklearn"`
}

// scan runs galley scan --format json, which has to end with the code.
func (s *shell) scan(code int, args ...string) scanAnswer {
	s.Helper()
	o := s.outcome("", append([]string{s.galley, "scan", "--format", "json"}, args...)...)
	o.command = "galley scan" // of a thousand files
	o.want(s.T, code)
	var a scanAnswer
	if err := json.Unmarshal([]byte(o.stdout), &a); err != nil {
		s.Fatalf("%v in\n%.2000s", err, o.stdout)
	}
	return a
}

// testGenerated scans everything that gen.py wrote, its trees too.
func (j *e2eJoblib) testGenerated(t *testing.T) {
	for _, set := range j.sets() {
		j.step(t, set.name, func(t *testing.T) {
			var want map[string]struct {
				Top, Class, Sklearn string
				Features            *int `json:"n_features"`
				Verdict             joblib.Verdict
			}
			readJSON(t, filepath.Join(set.models, "expected.json"), &want)
			names := slices.Sorted(maps.Keys(want))
			if len(names) <= 1000 {
				t.Fatalf("%d files; want more than 1000", len(names))
			}
			a := j.in(t, set.models).scan(0, append([]string{"--deep"}, names...)...)
			if len(a.Files) != len(names) {
				t.Fatalf("%d files of %d in the answer", len(a.Files), len(names))
			}
			trees, features := 0, 0
			for i, f := range a.Files {
				w := want[names[i]]
				equal(t, f.Path+": verdict", f.Verdict.String(), w.Verdict.String())
				equal(t, f.Path+": scikit-learn", strings.Join(f.Sklearn, ", "), w.Sklearn)
				if w.Top != "object" || !strings.HasPrefix(w.Class, "sklearn.") {
					continue
				}
				if len(f.Models) != 1 {
					t.Fatalf("%s: %d models; want %s", f.Path, len(f.Models), w.Class)
				}
				m := f.Models[0]
				equal(t, f.Path+": class", m.Class, w.Class)
				if w.Features != nil && m.Features >= 0 {
					features++
					equal(t, f.Path+": features", fmt.Sprint(m.Features), fmt.Sprint(*w.Features))
				}
				if m.Trees > 0 || strings.Contains(m.Class, "GradientBoosting") {
					trees++
				}
			}
			if trees < 50 || features < 300 {
				t.Errorf("%d forests and the like, %d numbers of features: too few", trees, features)
			}
			t.Logf("%d files pass, %d of them forests and the like; %d numbers of features are Python's", len(names), trees, features)
		})
	}
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	check(t, json.Unmarshal(text, v))
}

// hostileFile is a line of attacks/expected.txt.
type hostileFile struct {
	name, verdict string
	executes      []string // joblib, pickle
}

func hostileFiles(t *testing.T) []hostileFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e2eAttacks, "expected.txt"))
	check(t, err)
	var all []hostileFile
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Fatalf("expected.txt: %q", line)
		}
		h := hostileFile{name: f[0], verdict: f[1]}
		switch f[2] {
		case "both":
			h.executes = []string{"joblib", "pickle"}
		case "joblib", "pickle":
			h.executes = f[2:3]
		}
		all = append(all, h)
	}
	return all
}

// testAttacks proves that the files do run something, and that none gets by.
func (j *e2eJoblib) testAttacks(t *testing.T) {
	all := hostileFiles(t)
	j.step(t, "they execute", func(t *testing.T) { j.testExecution(t, all) })
	dir, err := filepath.Abs(e2eAttacks)
	check(t, err)
	// verdicts scans the files of some verdicts at once.
	verdicts := func(t *testing.T, code, least int, args []string, of ...string) []hostileFile {
		t.Helper()
		var chosen []hostileFile
		for _, h := range all {
			if slices.Contains(of, h.verdict) {
				chosen = append(chosen, h)
				args = append(args, h.name)
			}
		}
		if len(chosen) < least {
			t.Fatalf("%d files; want at least %d", len(chosen), least)
		}
		a := j.in(t, dir).scan(code, args...)
		if len(a.Files) != len(chosen) {
			t.Fatalf("%d of %d files in the answer", len(a.Files), len(chosen))
		}
		for i, h := range chosen {
			var want joblib.Verdict
			check(t, want.UnmarshalText([]byte(h.verdict)))
			if f := a.Files[i]; f.Path != h.name || f.Verdict < want {
				t.Errorf("%s: %s; want at least %s for %s", f.Path, f.Verdict, want, h.name)
			}
		}
		return chosen
	}
	j.step(t, "they are refused", func(t *testing.T) {
		chosen := verdicts(t, 3, 450, nil, "unverifiable", "dangerous")
		n := 0
		for _, h := range chosen {
			if len(h.executes) > 0 {
				n++
			}
		}
		for _, h := range all {
			if len(h.executes) > 0 && !slices.ContainsFunc(chosen, func(c hostileFile) bool { return c.name == h.name }) {
				t.Errorf("%s executes, and its verdict is to be %s", h.name, h.verdict)
			}
		}
		t.Logf("%d refused, %d of them execute", len(chosen), n)
	})
	j.step(t, "odd ones are refused if strict", func(t *testing.T) {
		verdicts(t, 3, 30, []string{"--strict"}, "review")
		verdicts(t, 0, 1, nil, "pass")
	})
	j.step(t, "what is no model never passes", func(t *testing.T) {
		for _, h := range all {
			if h.verdict != "error" {
				continue
			}
			o := j.in(t, dir).outcome("", j.galley, "scan", h.name)
			said := strings.Contains(o.stdout, ": not a pickle: nothing runs by unpickling\n")
			if o.code != 1 && o.code != 3 && !(o.code == 0 && said) {
				t.Errorf("%s: exit code %d\n%s%s", o.command, o.code, o.stdout, o.stderr)
			}
		}
	})
}

// testExecution has both sets load every file that is said to execute.
func (j *e2eJoblib) testExecution(t *testing.T, all []hostileFile) {
	program, err := filepath.Abs("../../testdata/joblib/execute.py")
	check(t, err)
	dir, err := filepath.Abs(e2eAttacks)
	check(t, err)
	sets := j.sets()
	outcomes := make([]outcome, len(sets))
	var wg sync.WaitGroup
	for i, set := range sets {
		sh := j.in(t, t.TempDir())
		wg.Go(func() { outcomes[i] = sh.outcome("", set.python, program, dir) })
	}
	wg.Wait()
	executed := make(map[string]bool) // "FILE LOADER"
	needs := make(map[string]string)
	for i, o := range outcomes {
		o.want(t, 0)
		lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
		t.Logf("%s set: %s", sets[i].name, lines[len(lines)-1])
		for _, line := range lines {
			what, how, _ := strings.Cut(line, ": ")
			if strings.HasPrefix(how, "executed") {
				executed[what] = true
			} else if need, ok := strings.CutPrefix(how, "left out, needs "); ok {
				needs[what] = need
			}
		}
	}
	var left []string
	for _, h := range all {
		for _, loader := range h.executes {
			switch what := h.name + " " + loader; {
			case executed[what]:
			case needs[what] == "":
				t.Errorf("%s: neither executed nor left out", what)
			default:
				left = append(left, what+" needs "+needs[what])
			}
		}
	}
	if len(executed) < 500 || len(left) > 60 {
		t.Errorf("%d loads executed; left out:\n%s", len(executed), strings.Join(left, "\n"))
	}
	t.Logf("%d loads executed, left out: %s", len(executed), strings.Join(left, ", "))
}

// story is a project of stories.py in a registry.
type story struct {
	*e2eJoblib
	*requests
	sh   *shell
	repo string
}

func (j *e2eJoblib) story(t *testing.T, dir, name string) *story {
	t.Helper()
	r := countRequests(t, j.registry)
	return &story{j, r, j.in(t, filepath.Join(dir, name)), r.host + "/" + repositoryName(t)}
}

// push pushes to v1 and returns what it said.
func (s *story) push(t *testing.T, code int, args ...string) string {
	t.Helper()
	o := s.sh.outcome("", append([]string{s.galley, "push", s.repo + ":v1"}, args...)...)
	o.want(t, code)
	return o.stderr
}

// refuses pushes, which has to fail and to write nothing.
func (s *story) refuses(t *testing.T, says []string, args ...string) {
	t.Helper()
	said := s.push(t, 3, args...)
	mentions(t, said, says...)
	s.want(t, anyNumber, false)
	resp, err := http.Get(api(s.repo, "tags/list"))
	check(t, err)
	check(t, resp.Body.Close())
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("tags of what was never pushed: %s", resp.Status)
	}
	s.sh.refused(1, nil, "resolve", s.repo+":v1")
	s.want(t, anyNumber, false)
}

func mentions(t *testing.T, text string, says ...string) {
	t.Helper()
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// testStories carries models through a registry, as teams do and attackers
// would.
func (j *e2eJoblib) testStories(t *testing.T) {
	dir := t.TempDir()
	j.in(t, dir).run(j.current.python, helper(t, "stories.py"), dir)
	var expected struct {
		Sklearn string
		Models  map[string][]modelFacts
	}
	readJSON(t, filepath.Join(dir, "expected.json"), &expected)
	// xgboost keeps the features in bytes of its own.
	for _, s := range []struct{ name, fit, class, format string }{
		{"selector", "5 features match", "Pipeline", ""},
		{"xgboost", "", "XGBClassifier", ""},
		{"bundle", "8 features match", "RandomForestClassifier", ""},
		{"compressed", "8 features match", "RandomForestClassifier", "lz4"},
	} {
		j.step(t, s.name, func(t *testing.T) {
			y := j.story(t, dir, s.name)
			said := y.push(t, 0)
			if told := strings.Contains(said, "fit       "); told != (s.fit != "") || !strings.Contains(said, s.fit) {
				t.Errorf("no fit of %q in\n%s", s.fit, said)
			}
			if strings.Contains(said, "warning") {
				t.Errorf("a warning about a good model:\n%s", said)
			}
			var card inspected
			text := y.sh.run(j.galley, "inspect", "models/model.joblib", "--params", "--format", "json")
			check(t, json.Unmarshal([]byte(text), &card))
			equal(t, "the verdict", card.Verdict.String(), "pass")
			equal(t, "the compression", card.Compression, s.format)
			sameModels(t, card.Models, expected.Models[s.name])
			if stamp := strings.Join(card.Sklearn, ", "); s.name != "xgboost" {
				equal(t, "the stamp", stamp, expected.Sklearn)
				mentions(t, y.sh.run(j.galley, "inspect", y.repo+":v1"), s.class, expected.Sklearn)
				mentions(t, y.sh.run(j.galley, "ls", y.repo), s.class, expected.Sklearn)
			} else {
				mentions(t, y.sh.run(j.galley, "inspect", y.repo+":v1"), s.class)
				mentions(t, y.sh.run(j.galley, "ls", y.repo), s.class)
			}
			j.testRequirements(t, y.sh.run(j.galley, "inspect", y.repo+":v1", "--requirements"))
		})
	}
	j.step(t, "one name too many", func(t *testing.T) {
		y := j.story(t, dir, "surplus")
		y.refuses(t, []string{`"is_fraud"`, "is it the target?", "--allow-mismatch=features"})
		y.refuses(t, []string{"is it the target?"}, "--allow-unsafe")
		mentions(t, y.push(t, 0, "--allow-mismatch=features"), "warning: ", "features")
		y.sh.run(j.galley, "resolve", y.repo+":v1")
	})
	j.step(t, "a class of the script", func(t *testing.T) {
		y := j.story(t, dir, "script")
		y.refuses(t, []string{"__main__:Clip"}, "--strict")
		mentions(t, y.push(t, 0), "warning: ", "Clip of __main__ exists only in the training script")
		j.in(t, y.sh.dir).outcome("", j.current.python, "-c", "import joblib; joblib.load('models/model.joblib')").
			want(t, 1, "AttributeError")
	})
	j.step(t, "a hostile one", func(t *testing.T) {
		y := j.story(t, dir, "hostile")
		y.refuses(t, []string{"models/model.joblib: dangerous", "posix:mkdir", "--allow-unsafe"})
		y.refuses(t, []string{"posix:mkdir"}, "--dry-run")
		mentions(t, y.push(t, 0, "--allow-unsafe"), "warning: models/model.joblib: dangerous")
		y.refusedPull(t)
		out := t.TempDir()
		sh := j.in(t, out)
		sh.run(j.galley, "pull", y.repo+":v1", "--allow-unsafe")
		sameFiles(t, y.sh.dir, out, []string{e2eFeatures, e2eSummary, "models/model.joblib"})
		sh.refused(3, []string{"models/model.joblib: dangerous"}, "scan", y.repo+":v1")
		sh.run(j.current.python, "-c", "import joblib; joblib.load('models/model.joblib')")
		if info, err := os.Stat(filepath.Join(out, "galley-marker")); err != nil || !info.IsDir() {
			t.Errorf("loading the hostile model did nothing: %v", err)
		}
	})
}

// refusedPull pulls what is hostile, which may leave nothing.
func (s *story) refusedPull(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{}, {"--only", "*.joblib"}, {"--force"}} {
		out := t.TempDir()
		s.in(t, out).refused(3, []string{"models/model.joblib: dangerous"}, append([]string{"pull", s.repo + ":v1"}, args...)...)
		for _, p := range everythingIn(t, out) {
			if p != ".galley/.gitignore" && p != ".galley/lock" {
				t.Errorf("pull %s left %s", args, p)
			}
		}
	}
}

// modelFacts is what Python knows of an estimator.
type modelFacts struct {
	Key, Class   string
	Features     int
	FeatureNames []string
	Classes      []string
	Params       map[string]any
	Trees        int
	Nodes        int64
	Parts        []modelFacts
}

// sameModels compares what galley knows with what Python does. The attributes
// of xgboost's models are computed by xgboost.
func sameModels(t *testing.T, got []joblib.Model, want []modelFacts) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%d models; want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		same := func(what string, got, want any) {
			t.Helper()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s of %s: %v; want %v", what, w.Class, got, want)
			}
		}
		foreign := !strings.HasPrefix(w.Class, "sklearn.")
		same("the key", g.Key, w.Key)
		same("the class", g.Class, w.Class)
		if !foreign || g.Features >= 0 {
			same("features", g.Features, w.Features)
		}
		if !foreign || g.FeatureNames != nil {
			same("feature names", g.FeatureNames, w.FeatureNames)
		}
		if !foreign || g.Classes != nil {
			same("classes", g.Classes, w.Classes)
		}
		same("trees", g.Trees, w.Trees)
		same("nodes", g.Nodes, w.Nodes)
		params := make(map[string]any)
		for _, p := range g.Params {
			params[p.Name] = p.Value
		}
		for name, value := range w.Params {
			if p, ok := params[name]; foreign && (!ok || p == nil) {
				continue
			}
			if n, ok := params[name].(int64); ok {
				params[name] = float64(n) // as JSON has it
			}
			same("parameter "+name, params[name], value)
		}
		if len(w.Parts) > 0 {
			parts := make([]joblib.Model, len(g.Parts))
			for i, p := range g.Parts {
				parts[i] = *p
			}
			sameModels(t, parts, w.Parts)
		}
	}
}

// testRequirements has pip read the lines, where all of them are installed.
func (j *e2eJoblib) testRequirements(t *testing.T, lines string) {
	t.Helper()
	sh := j.in(t, t.TempDir())
	check(t, os.WriteFile(filepath.Join(sh.dir, "requirements.txt"), []byte(lines), 0o666))
	said := sh.run(j.current.python, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run", "--no-index", "-r", "requirements.txt")
	n := len(strings.Split(strings.TrimSpace(lines), "\n"))
	if have := strings.Count(said, "Requirement already satisfied"); have < n || n < 2 || strings.Contains(said, "Would install") {
		t.Errorf("pip does not know the %d requirements:\n%s\n%s", n, lines, said)
	}
}

// testTampered edits single numbers in real trees.
func (j *e2eJoblib) testTampered(t *testing.T) {
	for _, set := range j.sets() {
		dir := filepath.Join(t.TempDir(), set.name)
		sh := j.in(t, t.TempDir())
		sh.run(set.python, helper(t, "tamper.py"), dir)
		files := filesIn(t, dir)
		sh.dir = dir
		j.step(t, set.name+": scan", func(t *testing.T) {
			equal(t, "the number of files", fmt.Sprint(len(files)), "15")
			a := sh.scan(0, files...)
			equal(t, "the worst verdict without --deep", a.Verdict.String(), "pass")
			for _, file := range files {
				model, edit, edited := strings.Cut(strings.TrimSuffix(file, ".joblib"), "-")
				if !edited {
					sh.scan(0, "--deep", file)
					continue
				}
				f := sh.scan(3, "--deep", file).Files[0]
				if len(f.Findings) != 1 || f.Findings[0].Rule != joblib.RuleIntegrity {
					t.Errorf("%s of %s: %+v; want one finding of integrity", edit, model, f.Findings)
				}
			}
		})
		j.step(t, set.name+": predict", func(t *testing.T) {
			ended := make(map[string]outcome)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for _, model := range []string{"forest", "histogram"} {
				for _, edit := range []string{"", "-loop", "-far"} {
					file := model + edit + ".joblib"
					sh := j.in(t, dir, "OMP_NUM_THREADS=1")
					wg.Go(func() {
						o := sh.outcome("", "timeout", "-s", "KILL", "10", set.python, helper(t, "tamper.py"), file)
						mu.Lock()
						ended[file] = o
						mu.Unlock()
					})
				}
			}
			wg.Wait()
			for file, o := range ended {
				_, _, edited := strings.Cut(file, "-")
				// By a signal of its own, or by the one for those that never end.
				if signalled := o.code > 128 || o.code == -1; signalled != edited || !edited && o.code != 0 {
					t.Errorf("%s: exit code %d\n%s", o.command, o.code, o.stderr)
				}
			}
		})
	}
}

// testHeavy measures files of many bytes and of many opcodes.
func (j *e2eJoblib) testHeavy(t *testing.T) {
	const usual, values = 40_000_000, 256 << 20
	dir := t.TempDir()
	sh := j.in(t, dir)
	sh.run(j.current.python, helper(t, "heavy.py"), dir)
	size := func(name string) int64 {
		info, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		return info.Size()
	}
	timed := func(args ...string) time.Duration {
		start := time.Now()
		sh.run(args...)
		return time.Since(start)
	}
	const model = "models/forest.joblib"
	j.step(t, "time", func(t *testing.T) {
		timed("sha256sum", model) // the file is in memory then
		hash := timed("sha256sum", model)
		scan := timed(j.galley, "scan", model)
		deep := timed(j.galley, "scan", "--deep", model)
		layout := "oci:" + t.TempDir() + "/layout:candidate"
		first := timed(j.galley, "push", "--layer-format", "raw", layout, model)
		again := timed(j.galley, "push", "--layer-format", "raw", layout, model)
		t.Logf("%.0f MB: sha256sum %v, scan %v (%.2f of it), scan --deep %v, push to a layout %v, again %v (%.2f)",
			float64(size(model))/1e6, hash.Round(time.Millisecond), scan.Round(time.Millisecond), scan.Seconds()/hash.Seconds(),
			deep.Round(time.Millisecond), first.Round(time.Millisecond), again.Round(time.Millisecond), again.Seconds()/hash.Seconds())
		if scan > 5*hash+time.Second {
			t.Errorf("scan takes %v, sha256sum %v", scan, hash)
		}
	})
	j.step(t, "memory of arrays", func(t *testing.T) {
		if n := size(model); n < 180_000_000 {
			t.Fatalf("%s has %d bytes", model, n)
		}
		j.within(t, usual+values, dir, "scan", model)
		j.within(t, usual+values, dir, "scan", "--deep", model)
		j.within(t, usual+values, dir, "push", "oci:"+t.TempDir()+"/layout:v1", model)
	})
	j.step(t, "memory of opcodes", func(t *testing.T) {
		n := size("strings.joblib")
		t.Logf("a file of %.1f MB", float64(n)/1e6)
		j.within(t, min(usual+values, 5*n), dir, "scan", "strings.joblib")
	})
}
