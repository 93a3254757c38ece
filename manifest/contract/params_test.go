package contract_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"galley/manifest/contract"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

func TestParams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, summary string
		want          map[string]any
	}{
		{"every kind of value", `{"params": {"a": 1, "b": 0.5, "c": "x", "d": true, "e": null, "f": NaN, "g": -Infinity}}`,
			map[string]any{"a": int64(1), "b": 0.5, "c": "x", "d": true, "e": nil, "f": "nan", "g": "-inf"}},
		{"keys in any case", `{"Best_Params_": {"a": 1}, "hyperParameters": {"b": 2}, "modelParams": {"c": 3}}`,
			map[string]any{"a": int64(1), "b": int64(2), "c": int64(3)}},
		{"steps stay in front", `{"best_params": {"clf__C": 0.1, "clf": {"tol": 1e-3}}}`,
			map[string]any{"clf__C": 0.1, "clf__tol": 0.001}},
		{"lists and counts are passed over", `{"n_params": 12, "params": {"layers": [1, 2], "a": 1}}`, map[string]any{"a": int64(1)}},
		{"grids and defaults are passed over", `{"param_grid": {"a": 1}, "params": {"search_params": {"n_iter": 3}}, "default_params": {"b": 2}}`, map[string]any{}},
		{"they lie deep", `{"results": {"training": {"params": {"a": 1}}}}`, map[string]any{"a": int64(1)}},
		{"but not endlessly", `{"1": {"2": {"3": {"4": {"5": {"params": {"a": 1}}}}}}}`, map[string]any{}},
		{"the best wins", `{"params": {"a": 1, "b": 1}, "best_params": {"a": 2}}`, map[string]any{"a": int64(2), "b": int64(1)}},
		{"two values are none", `{"params": {"a": 1, "b": 1}, "model_params": {"a": 2, "b": 1.0}}`, map[string]any{"b": int64(1)}},
		{"of several models the best one's", `{"best_model": "Random Forest", "models": {"random_forest": {"params": {"a": 1}}, "xgb": {"params": {"a": 2}}}}`,
			map[string]any{"a": int64(1)}},
		{"of several models in a list", `{"best_model": {"name": "rf"}, "models": [{"name": "rf", "params": {"a": 1}}, {"name": "xgb", "params": {"a": 2}}]}`,
			map[string]any{"a": int64(1)}},
		{"of several models within parameters", `{"best_model": "rf", "params": {"rf": {"a": 1}, "xgb": {"a": 2}}}`, map[string]any{"a": int64(1)}},
		{"else their keys stand in front", `{"rf": {"params": {"a": 1}}, "xgb": {"params": {"a": 2}}}`,
			map[string]any{"rf__a": int64(1), "xgb__a": int64(2)}},
		{"the chosen ones beside others", `{"data": {"params": {"a": 1}}, "tuning": {"best_params": {"b": 2}}}`, map[string]any{"b": int64(2)}},
		{"best parameters of a search", `{"hyperparameter_tuning": {"best_params": {"a": 1}, "n_trials": 50}}`, map[string]any{"a": int64(1)}},
		{"a list at the top", `[{"name": "rf", "params": {"a": 1}}]`, map[string]any{"a": int64(1)}},
		{"no object", `3`, map[string]any{}},
		{"no JSON", `{"params": {"a": 1}`, nil},
		{"names that cannot be", `{"params": {"": 1, "a\u0000": 2}}`, map[string]any{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := contract.Params([]byte(tt.summary)); !maps.Equal(got, tt.want) {
				t.Errorf("%v; want %v", got, tt.want)
			}
		})
	}
}

func TestParamsHaveAnEnd(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `, "p%d": %d`, i, i)
	}
	if n := len(contract.Params([]byte(`{"params": {` + b.String()[1:] + `}}`))); n != 200 {
		t.Errorf("%d parameters; want 200", n)
	}
	large := `{"params": {"a": 1}, "x": "` + strings.Repeat("x", training.MaxSize) + `"}`
	if got := contract.Params([]byte(large)); got != nil {
		t.Errorf("%v of a summary that is too large; want none", got)
	}
}

// with gives a model parameters, as pairs of names and values.
func with(m *joblib.Model, pairs ...any) *joblib.Model {
	for i := 0; i < len(pairs); i += 2 {
		m.Params = append(m.Params, joblib.Param{Name: pairs[i].(string), Value: pairs[i+1]})
	}
	return m
}

func TestParameterWarnings(t *testing.T) {
	t.Parallel()
	tree := func() *joblib.Model {
		m := with(forest("a"), "max_depth", int64(6), "n_estimators", int64(100), "min_samples_split", 0.0312345, "bootstrap", true, "class_weight", nil, "criterion", "gini", "n_jobs", int64(-1))
		m.Parts = []*joblib.Model{with(at("estimator_", counted("sklearn.tree._classes.DecisionTreeClassifier", -1)), "max_depth", nil, "splitter", "best")}
		return m
	}
	pipe := func() *joblib.Model {
		return pipeline(with(kBest(nil, "a"), "k", int64(10)), with(scaler(), "with_mean", true), with(logistic(1), "C", 0.1, "tol", 1e-4))
	}
	search := with(of("sklearn.model_selection._search.GridSearchCV", at("best_estimator_", pipe())), "C", 9.0)
	calibrated := with(counted("sklearn.calibration.CalibratedClassifierCV", 1), "method", "sigmoid")
	calibrated.Parts = []*joblib.Model{of("sklearn.calibration._CalibratedClassifier", with(at("estimator", logistic(1)), "C", 2.0))}
	calibrated.Parts[0].Key = "calibrated_classifiers_[0]"
	dict := report(at("model", tree()))
	dict.Values = []joblib.Param{{Name: "threshold", Value: 0.4}}
	for _, tt := range []struct {
		name   string
		params string
		model  *joblib.Report
		want   string // warnings without what all have in common
	}{
		{"another value", `{"max_depth": 8}`, report(tree()), "max_depth 8, the model has 6"},
		{"the same values", `{"max_depth": 6, "bootstrap": true, "class_weight": null, "criterion": "gini"}`, report(tree()), ""},
		{"integers are floats", `{"max_depth": 6.0, "n_estimators": 1e2}`, report(tree()), ""},
		{"rounding is no difference", `{"min_samples_split": 0.0312}`, report(tree()), ""},
		{"two digits are not rounded", `{"min_samples_split": 0.031}`, report(tree()), "min_samples_split 0.031, the model has 0.0312345"},
		{"text may spell a value", `{"max_depth": "6", "bootstrap": "True", "class_weight": "None"}`, report(tree()), ""},
		{"text may spell another", `{"max_depth": "8"}`, report(tree()), `max_depth "8", the model has 6`},
		{"text is compared as it is", `{"criterion": "Gini"}`, report(tree()), `criterion "Gini", the model has "gini"`},
		{"null is a value where both have it", `{"max_depth": null}`, report(tree()), "max_depth null, the model has 6"},
		{"what only one has is no difference", `{"batch_size": 32, "epochs": null}`, report(tree()), ""},
		{"how it runs does not matter", `{"n_jobs": 4}`, report(tree()), ""},
		{"a step's parameter", `{"s2__C": 1.0, "s0__k": 10}`, report(pipe()), "s2__C 1, the model has 0.1"},
		{"the final estimator's", `{"C": 1, "tol": 0.0001}`, report(pipe()), "C 1, the model has 0.1"},
		{"the only part that has it", `{"k": 20}`, report(pipe()), "k 20, the model has 10"},
		{"not one of several", `{"k": 20}`, report(pipeline(with(kBest(nil, "a"), "k", int64(1)), with(kBest(nil, "a"), "k", int64(2)), logistic(1))), ""},
		{"a step nobody has", `{"svc__C": 1}`, report(pipe()), ""},
		{"through a search", `{"s2__C": 1.0, "C": 0.1}`, report(search), "s2__C 1, the model has 0.1"},
		{"through calibration", `{"C": 1, "estimator__C": 2, "method": "isotonic"}`, report(calibrated),
			"C 1, the model has 2|method \"isotonic\", the model has \"sigmoid\""},
		{"by a general word", `{"model": {"max_depth": 8}}`, report(tree()), "model__max_depth 8, the model has 6"},
		{"by its class", `{"random_forest": {"max_depth": 8}, "xgboost": {"max_depth": 3}}`, report(tree()), "random_forest__max_depth 8, the model has 6"},
		{"by its initials", `{"rf": {"max_depth": 8}, "lr": {"max_depth": 3}}`, report(tree()), "rf__max_depth 8, the model has 6"},
		{"by a dict's key", `{"model__max_depth": 8}`, dict, "model__max_depth 8, the model has 6"},
		{"a value of the dict", `{"threshold": 0.5}`, dict, "threshold 0.5, the model has 0.4"},
		{"not a tree's within a forest", `{"splitter": "random"}`, report(tree()), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := contract.Check(contract.Input{
				Params: contract.Params([]byte(`{"params": ` + tt.params + `}`)), Model: tt.model, SummaryFile: "s.json",
			})
			got := strings.ReplaceAll(strings.Join(r.Warnings, "|"), "s.json says ", "")
			if got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}

func TestParameterWarningsHaveAnEnd(t *testing.T) {
	t.Parallel()
	m := logistic(1)
	params := map[string]any{"odd": []int{1}}
	for i := range 30 {
		name := fmt.Sprintf("p%02d", i)
		params[name] = int64(i)
		with(m, name, int64(-1))
	}
	r := contract.Check(contract.Input{Params: params, Model: report(m)})
	if n := len(r.Warnings); n != 11 || r.Warnings[n-1] != "the training summary differs from the model in 20 more parameters" {
		t.Errorf("%d warnings: %q", n, r.Warnings)
	}
}

func seeds() []string {
	return []string{
		``, `{}`, `[]`, `{"params": {"max_depth": 8, "C": 0.1, "s2__C": 1e-3, "x": null, "y": "z", "n": NaN}}`,
		`{"best_model": "rf", "models": {"rf": {"best_params": {"a": 1}}, "xgb": {"params": {"a": 2}}}}`,
		`{"models": [{"name": "rf", "params": {"k": 3}}, {"params": {"k": 4}}]}`,
		`{"best_params_": {"clf": {"C": {"deep": {"deeper": {"still": 1}}}}}}`,
		`{"params": {"a": 1}, "model_params": {"a": 2}, "param_grid": {"a": [1]}}`,
		"\ufeff{\"PARAMS\": {\"\\u0000\": 1, \"k\": -1e999}}",
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	some := 0
	for _, s := range seeds() {
		if len(contract.Params([]byte(s))) > 0 {
			some++
		}
	}
	if len(seeds()) != 9 || some != 4 {
		t.Errorf("%d of %d seeds have parameters; want 4 of 9", some, len(seeds()))
	}
}

// FuzzParams checks that what is collected is bounded, finite and the same every
// time, and that any of it can be compared.
func FuzzParams(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	model := report(at("m", pipeline(with(kBest(nil, "a"), "k", int64(10)), with(logistic(1), "C", 0.1, "max_depth", "x"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		params := contract.Params(data)
		if len(params) > 200 {
			t.Fatalf("%d parameters", len(params))
		}
		if !maps.Equal(params, contract.Params(data)) {
			t.Fatal("other parameters the second time")
		}
		for name, v := range params {
			if name == "" || len(name) > 200 {
				t.Fatalf("name %q", name)
			}
			switch v := v.(type) {
			case nil, bool, int64:
			case string:
				if len(v) > 1000 {
					t.Fatalf("text of %d bytes", len(v))
				}
			case float64:
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("%s is %v", name, v)
				}
			default:
				t.Fatalf("%s is a %T", name, v)
			}
		}
		in := contract.Input{Params: params, Model: model}
		r := contract.Check(in)
		if len(r.Warnings) > 11 || len(strings.Join(r.Warnings, "")) > 11*2000 || !slices.Equal(r.Warnings, contract.Check(in).Warnings) {
			t.Fatalf("warnings %q", r.Warnings)
		}
	})
}
