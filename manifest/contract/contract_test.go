package contract_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"galley/manifest/contract"
	"galley/manifest/joblib"
)

// The names of the models in the tests.
var five = []string{"amount", "hour", "risk", "age", "country"}

// The builders of models. A model takes names, or a number of features.

func named(class string, names ...string) *joblib.Model {
	return &joblib.Model{Class: class, Features: len(names), FeatureNames: names}
}

func counted(class string, n int) *joblib.Model { return &joblib.Model{Class: class, Features: n} }

func forest(names ...string) *joblib.Model {
	return named("sklearn.ensemble._forest.RandomForestClassifier", names...)
}

func logistic(n int) *joblib.Model {
	return counted("sklearn.linear_model._logistic.LogisticRegression", n)
}

func scaler(names ...string) *joblib.Model {
	return named("sklearn.preprocessing._data.StandardScaler", names...)
}

func kBest(selected []int, names ...string) *joblib.Model {
	m := named("sklearn.feature_selection._univariate_selection.SelectKBest", names...)
	m.Selected = selected
	if names == nil {
		m.Features = -1
	}
	return m
}

func at(key string, m *joblib.Model) *joblib.Model {
	m.Key = key
	return m
}

// of is a model with parts, of which it knows no more.
func of(class string, parts ...*joblib.Model) *joblib.Model {
	return &joblib.Model{Class: class, Features: -1, Parts: parts}
}

func pipeline(steps ...*joblib.Model) *joblib.Model {
	for i, s := range steps {
		s.Key = fmt.Sprintf("s%d", i)
	}
	m := of("sklearn.pipeline.Pipeline", steps...)
	m.Features, m.FeatureNames = steps[0].Features, steps[0].FeatureNames
	return m
}

func columnTransformer(parts ...*joblib.Model) *joblib.Model {
	m := named("sklearn.compose._column_transformer.ColumnTransformer", five...)
	m.Parts = parts
	return m
}

func report(models ...*joblib.Model) *joblib.Report {
	return &joblib.Report{Format: joblib.Joblib, Models: models}
}

func names(s string) []string { return strings.Fields(s) }

type featuresCase struct {
	name     string
	features []string
	model    *joblib.Report
	outcome  contract.Outcome
	summary  string
	diff     string
}

func (tt featuresCase) run(t *testing.T) {
	t.Helper()
	r := contract.Check(contract.Input{Features: tt.features, Model: tt.model})
	if r.Outcome != tt.outcome || r.Summary != tt.summary {
		t.Errorf("%s: %s; want %s: %s", r.Outcome, r.Summary, tt.outcome, tt.summary)
	}
	diff := ""
	if r.Difference != nil {
		diff = r.Difference.String()
	}
	if diff != tt.diff {
		t.Errorf("difference %q; want %q", diff, tt.diff)
	}
	if known := r.Outcome != contract.Unknown; known != (r.With != "") || known != (r.By != "") {
		t.Errorf("with %q, by %q", r.With, r.By)
	}
}

func TestBareEstimators(t *testing.T) {
	t.Parallel()
	const rf = "the input of RandomForestClassifier"
	model := report(forest("a", "b", "c"))
	for _, tt := range []featuresCase{
		{"the same names match", names("a b c"), model, contract.Matches,
			"3 features match " + rf, ""},
		{"one name too many may be the target", names("a b c y"), model, contract.Mismatch,
			"4 features in the file, 3 in " + rf + "; predict would fail",
			`4 names, the model takes 3; not in the model: "y"; one too many: is it the target?`},
		{"one name too many may be the index", append([]string{"Unnamed: 0"}, "a", "b", "c"), model, contract.Mismatch,
			"4 features in the file, 3 in " + rf + "; predict would fail",
			`4 names, the model takes 3; not in the model: "Unnamed: 0"; one too many: is it the index of the table?`},
		{"a missing name is no target", names("a c"), model, contract.Mismatch,
			"2 features in the file, 3 in " + rf + "; predict would fail",
			`2 names, the model takes 3; missing: "b"`},
		{"another order mixes columns", names("a c b"), model, contract.Mismatch,
			"the order of the 3 features is not that of " + rf + "; predict would fail or mix columns",
			`order: at position 2 stands "c" where the model has "b"`},
		{"another name fails", names("a b d"), model, contract.Mismatch,
			"1 of 3 features is not in " + rf + "; predict would fail",
			`not in the model: "d"; missing: "c"`},
		{"other cases and blanks are called out", []string{"A", " b", "c"}, model, contract.Mismatch,
			"2 of 3 features are not in " + rf + "; predict would fail",
			`spelt otherwise: "A" for "a", " b" for "b"`},
		{"other spelling in another order is both", []string{"B", "a", "c"}, model, contract.Mismatch,
			"1 of 3 features is not in " + rf + "; predict would fail or mix columns",
			`spelt otherwise: "B" for "b"; order: at position 1 stands "B" where the model has "a"`},
		{"a name that stands twice is not extra", names("a b b c"), model, contract.Mismatch,
			"4 features in the file, 3 in " + rf + "; predict would fail",
			`4 names, the model takes 3; more than once: "b"`},
		{"the order counts among what both have", names("x b a"), model, contract.Mismatch,
			"1 of 3 features is not in " + rf + "; predict would fail or mix columns",
			`not in the model: "x"; missing: "c"; order: at position 2 stands "b" where the model has "a"`},
		{"without names the count has to do", names("x y z"), report(logistic(3)), contract.Matches,
			"3 features match the input of LogisticRegression by count: its names are not stored", ""},
		{"without names one too many is said", names("x y z t"), report(logistic(3)), contract.Mismatch,
			"4 features in the file, 3 in the input of LogisticRegression; predict would fail",
			`4 names, the model takes 3; one too many: is the target among them?`},
		{"without names two too few are counted", names("x"), report(logistic(3)), contract.Mismatch,
			"1 feature in the file, 3 in the input of LogisticRegression; predict would fail",
			`1 name, the model takes 3`},
		{"a single feature matches", names("a"), report(forest("a")), contract.Matches,
			"1 feature matches " + rf, ""},
		{"a booster tells nothing", names("a b"), report(counted("xgboost.sklearn.XGBClassifier", -1)), contract.Unknown,
			"feature contract unknown: XGBClassifier stores neither the names nor the number of its features", ""},
		{"another library's count has to fit", names("a b"), report(counted("lightgbm.sklearn.LGBMClassifier", 3)), contract.Mismatch,
			"2 features in the file, 3 in the input of LGBMClassifier; predict would fail", "2 names, the model takes 3"},
		{"a class nobody knows may do anything first", names("a b"), report(named("app.Fraud", "a", "b", "c")), contract.Differs,
			"2 features in the file, 3 in the input of Fraud; not refused, since it is not known what Fraud does with them",
			`2 names, the model takes 3; missing: "c"`},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	selecting := report(pipeline(kBest([]int{0, 2}, five...), counted("sklearn.preprocessing._data.StandardScaler", 2), logistic(2)))
	scaling := report(pipeline(scaler(five...), logistic(5)))
	unsure := report(pipeline(named("sklearn.feature_selection._from_model.SelectFromModel", five...), logistic(2)))
	mixing := report(pipeline(named("sklearn.decomposition._pca.PCA", five...), logistic(5)))
	const front = `; not refused, since step "s0" `
	for _, tt := range []featuresCase{
		{"all inputs match", five, selecting, contract.Matches, "5 features match the pipeline's input", ""},
		{"what a selector passes on matches", names("amount risk"), selecting, contract.Matches,
			`2 features match what step "s0" (SelectKBest) passes on`, ""},
		{"other names than the selector's differ", names("amount hour"), selecting, contract.Differs,
			`1 of 2 features is not in what step "s0" (SelectKBest) passes on` + front + "(SelectKBest) comes first",
			`not in the model: "hour"; missing: "risk"`},
		{"the closest place is compared", append(slices.Clone(five), "fraud"), selecting, contract.Differs,
			"6 features in the file, 5 in the pipeline's input" + front + "(SelectKBest) comes first",
			`6 names, the model takes 5; not in the model: "fraud"; one too many: is it the target?`},
		{"any transformer in front warns only", names("amount hour risk country age"), scaling, contract.Differs,
			"the order of the 5 features is not that of the pipeline's input" + front + "(StandardScaler) comes first",
			`order: at position 4 stands "country" where the model has "age"`},
		{"a selector that does not tell passes on names of its input", names("risk age"), unsure, contract.Matches,
			`2 features match what step "s0" (SelectFromModel) passes on by count: its names are not stored, but all are names of the input`, ""},
		{"and no others", names("risk fraud"), unsure, contract.Differs,
			"2 features in the file, 5 in the pipeline's input" + front + "(SelectFromModel) comes first",
			`2 names, the model takes 5; not in the model: "fraud"; missing: "amount", "hour", "age", "country"`},
		{"names go through a scaler to a selector", names("amount risk"),
			report(pipeline(scaler(five...), &joblib.Model{
				Class: "sklearn.feature_selection._rfe.RFE", Features: 5, Selected: []int{0, 2},
			}, logistic(2))), contract.Matches,
			`2 features match what step "s1" (RFE) passes on`, ""},
		{"a count behind does not excuse the order in front", names("hour amount risk age country"), mixing, contract.Differs,
			"the order of the 5 features is not that of the pipeline's input" + front + "(PCA) comes first",
			`order: at position 1 stands "hour" where the model has "amount"`},
		{"the final estimator's count is a match", names("pc1 pc2"), report(pipeline(named("sklearn.decomposition._pca.PCA", five...), logistic(2))),
			contract.Matches, "2 features match the input of the final estimator LogisticRegression by count: its names are not stored", ""},
		{"the final estimator's names are a match", names("pc1 pc2"), report(pipeline(named("sklearn.decomposition._pca.PCA", five...), forest("pc1", "pc2"))),
			contract.Matches, "2 features match the input of the final estimator RandomForestClassifier", ""},
		{"a step that stores nothing leaves the estimator", names("a b"), report(pipeline(counted("__main__.Clip", -1), logistic(2))), contract.Matches,
			"2 features match the input of the final estimator LogisticRegression by count: its names are not stored", ""},
		{"a step that stores nothing is unknown", names("a b c"), report(pipeline(counted("__main__.Clip", -1), logistic(2))), contract.Unknown,
			`feature contract unknown: step "s0" (Clip) stores neither the names nor the number of its features`, ""},
		{"words are no features", names("a b"), report(pipeline(counted("sklearn.feature_extraction.text.TfidfVectorizer", -1), logistic(2))), contract.Unknown,
			`feature contract unknown: step "s0" (TfidfVectorizer) takes texts or dicts, and no columns`, ""},
		{"samplers rest at predict", names("a b"), report(imbalanced(named("imblearn.over_sampling._smote.base.SMOTE", "a", "b", "c"), logistic(3))), contract.Mismatch,
			"2 features in the file, 3 in the pipeline's input; predict would fail", `2 names, the model takes 3; missing: "c"`},
		{"a step that got other columns than were passed on ends their names", names("a b"), report(pipeline(scaler("x", "y", "z"), logistic(2))), contract.Matches,
			"2 features match the input of the final estimator LogisticRegression by count: its names are not stored", ""},
		{"discretised columns keep their names as numbers", names("a c"), report(pipeline(
			with(named("sklearn.preprocessing._discretization.KBinsDiscretizer", "a", "b", "c"), "encode", "ordinal"), kBest([]int{0, 2}), logistic(2))), contract.Matches,
			`2 features match what step "s1" (SelectKBest) passes on`, ""},
		{"a function's columns have no names", names("a c"), report(pipeline(
			named("sklearn.preprocessing._function_transformer.FunctionTransformer", "a", "b", "c"), kBest([]int{0, 2}), logistic(2))), contract.Matches,
			`2 features match what step "s1" (SelectKBest) passes on by count: its names are not stored`, ""},
		{"a pipeline in a dict has a name", names("a"), report(at("model", pipeline(scaler("a"), logistic(1)))), contract.Matches,
			`1 feature matches the input of the pipeline "model"`, ""},
		{"positions beyond the input are not believed", names("amount"), report(pipeline(kBest([]int{9}, five...), logistic(1))), contract.Matches,
			`1 feature matches what step "s0" (SelectKBest) passes on by count: its names are not stored, but all are names of the input`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func imbalanced(steps ...*joblib.Model) *joblib.Model {
	m := pipeline(steps...)
	m.Class = "imblearn.pipeline.Pipeline"
	return m
}

func TestColumnTransformers(t *testing.T) {
	t.Parallel()
	prepare := func() *joblib.Model {
		return columnTransformer(at("num", scaler("amount", "hour")),
			at("cat", named("sklearn.preprocessing._encoders.OneHotEncoder", "country")))
	}
	model := report(pipeline(prepare(), logistic(9)))
	const step = `step "s0" (ColumnTransformer)`
	for _, tt := range []featuresCase{
		{"any order matches", names("country age risk hour amount"), model, contract.Matches,
			"5 features match the pipeline's input; the order is another, but " + step + " selects by name", ""},
		{"what it uses matches", names("amount hour country"), model, contract.Matches,
			"3 features match what " + step + " uses", ""},
		{"what it uses matches in any order", names("country hour amount"), model, contract.Matches,
			"3 features match what " + step + " uses; the order is another, but " + step + " selects by name", ""},
		{"a name it does not know differs", names("country hour amount target"), model, contract.Differs,
			"4 features in the file, 3 in what " + step + " uses; not refused, since " + step + " comes first",
			`4 names, the model takes 3; not in the model: "target"; one too many: is it the target?`},
		{"columns that it makes match by count", names("a b c d e f g h i"), model, contract.Matches,
			"9 features match the input of the final estimator LogisticRegression by count: its names are not stored", ""},
		{"a search around it selects by name too", names("country age risk hour amount"),
			report(of("sklearn.model_selection._search.GridSearchCV", at("best_estimator_", pipeline(prepare(), logistic(9))))), contract.Matches,
			"5 features match the pipeline's input; the order is another, but " + step + " selects by name", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func TestWrappers(t *testing.T) {
	t.Parallel()
	calibrated := named("sklearn.calibration.CalibratedClassifierCV", five...)
	calibrated.Parts = []*joblib.Model{of("sklearn.calibration._CalibratedClassifier",
		at("estimator", pipeline(kBest([]int{1}, five...), logistic(1))))}
	calibrated.Parts[0].Key = "calibrated_classifiers_[0]"
	bagging := counted("sklearn.ensemble._bagging.BaggingClassifier", 3)
	bagging.Parts = []*joblib.Model{at("estimator_", logistic(-1)), at("estimators_[0]", logistic(2))}
	search := func(m *joblib.Model) *joblib.Report {
		return report(of("sklearn.model_selection._search.RandomizedSearchCV", at("best_estimator_", m)))
	}
	voting := func(members ...*joblib.Model) *joblib.Report {
		for i, m := range members {
			m.Key = fmt.Sprintf("estimators_[%d]", i)
		}
		return report(of("sklearn.ensemble._voting.VotingClassifier", members...))
	}
	for _, tt := range []featuresCase{
		{"a search is its best estimator", names("a b"), search(forest("a", "b")), contract.Matches,
			"2 features match the input of RandomForestClassifier", ""},
		{"and refuses what that would", names("b a"), search(forest("a", "b")), contract.Mismatch,
			"the order of the 2 features is not that of the input of RandomForestClassifier; predict would fail or mix columns",
			`order: at position 1 stands "b" where the model has "a"`},
		{"and warns where that would", names("a"), search(pipeline(scaler("a", "b"), logistic(2))), contract.Differs,
			`1 feature in the file, 2 in the pipeline's input; not refused, since step "s0" (StandardScaler) comes first`,
			`1 name, the model takes 2; missing: "b"`},
		{"calibration passes on what a selector within it does", names("hour"), report(calibrated), contract.Matches,
			`1 feature matches what step "s0" (SelectKBest) passes on`, ""},
		{"calibration around a selector warns", names("x"), report(calibrated), contract.Differs,
			`1 of 1 feature is not in what step "s0" (SelectKBest) passes on; not refused, since step "s0" (SelectKBest) comes first`,
			`not in the model: "x"; missing: "hour"`},
		{"a vote takes what its members take", names("a b"), voting(logistic(2), forest("a", "b")), contract.Matches,
			"2 features match the input of VotingClassifier", ""},
		{"a vote with one bare member refuses", names("a"), voting(pipeline(scaler("a", "b"), logistic(2)), logistic(2)), contract.Mismatch,
			"1 feature in the file, 2 in the input of VotingClassifier; predict would fail", `1 name, the model takes 2; missing: "b"`},
		{"a vote of pipelines warns", names("a"), voting(pipeline(scaler("a", "b"), logistic(2)), pipeline(scaler("a", "b"), logistic(2))), contract.Differs,
			`1 feature in the file, 2 in the input of VotingClassifier; not refused, since step "s0" (StandardScaler) comes first`,
			`1 name, the model takes 2; missing: "b"`},
		{"a stack's final estimator gets no features", names("a b"),
			report(of("sklearn.ensemble._stacking.StackingClassifier", at("estimators_[0]", logistic(3)), at("final_estimator_", logistic(2)))), contract.Mismatch,
			"2 features in the file, 3 in the input of StackingClassifier; predict would fail", "2 names, the model takes 3"},
		{"members that get some columns do not count", names("a b"), report(bagging), contract.Mismatch,
			"2 features in the file, 3 in the input of BaggingClassifier; predict would fail", "2 names, the model takes 3"},
		{"a transformed target leaves the features", names("a b"),
			report(of("sklearn.compose._target.TransformedTargetRegressor", at("regressor_", forest("a", "b")), at("transformer_", scaler("y")))), contract.Matches,
			"2 features match the input of TransformedTargetRegressor", ""},
		{"a search within a pipeline is its final estimator", names("pc1 pc2"),
			report(pipeline(named("sklearn.decomposition._pca.PCA", five...), of("sklearn.model_selection._search.GridSearchCV", at("best_estimator_", logistic(2))))), contract.Matches,
			"2 features match the input of the final estimator LogisticRegression by count: its names are not stored", ""},
		{"a pipeline of transformers alone is compared too", names("a"), report(pipeline(scaler("a", "b"))), contract.Differs,
			"1 feature in the file, 2 in the pipeline's input; not refused, since it does not predict", `1 name, the model takes 2; missing: "b"`},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func TestSeveralModels(t *testing.T) {
	t.Parallel()
	with := func(m *joblib.Model) *joblib.Report {
		return report(at("scaler", scaler("a", "b")), at("model", m))
	}
	label := func() *joblib.Model { return counted("sklearn.preprocessing._label.LabelEncoder", -1) }
	for _, tt := range []featuresCase{
		{"the one that predicts is compared", names("a b c"), report(at("model", forest("a", "b", "c")), at("labels", label())), contract.Matches,
			`3 features match the input of "model" (RandomForestClassifier)`, ""},
		{"an encoder of the target is no transformer in front", names("a b"), report(at("labels", label()), at("model", logistic(3))), contract.Mismatch,
			`2 features in the file, 3 in the input of "model" (LogisticRegression); predict would fail`, "2 names, the model takes 3"},
		{"a scaler beside it may come first", names("a"), with(logistic(2)), contract.Differs,
			`1 feature in the file, 2 in the input of "scaler" (StandardScaler); not refused, since "scaler" (StandardScaler) may come first`,
			`1 name, the model takes 2; missing: "b"`},
		{"a scaler beside it knows the names", names("a b"), with(counted("xgboost.sklearn.XGBClassifier", -1)), contract.Matches,
			`2 features match the input of "scaler" (StandardScaler)`, ""},
		{"a selector beside it knows what it passes on", names("risk"), report(at("selector", kBest([]int{2}, five...)), at("model", logistic(1))), contract.Matches,
			`1 feature matches what "selector" (SelectKBest) passes on`, ""},
		{"one of two models is enough", names("a b"), report(at("one", forest("a", "b")), at("two", forest("c"))), contract.Matches,
			`2 features match the input of "one" (RandomForestClassifier)`, ""},
		{"none of two models is refused", names("x"), report(at("one", forest("a", "b")), at("two", forest("c"))), contract.Mismatch,
			`1 feature in the file, 2 in the input of "one" (RandomForestClassifier); predict would fail`,
			`1 name, the model takes 2; not in the model: "x"; missing: "a", "b"`},
		{"one of two models unknown is not refused", names("x"), report(at("one", forest("a", "b")), at("two", counted("xgboost.sklearn.XGBClassifier", -1))), contract.Differs,
			`1 feature in the file, 2 in the input of "one" (RandomForestClassifier); predict would fail; what another model in the file takes is not known`,
			`1 name, the model takes 2; not in the model: "x"; missing: "a", "b"`},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func TestNothingToCompare(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   contract.Input
		want string
	}{
		"no features":          {contract.Input{Model: report(logistic(1))}, "there are no feature names"},
		"the reader's note":    {contract.Input{Note: "feature contract unknown: the file has an empty list"}, "the file has an empty list"},
		"no model":             {contract.Input{Features: five}, "the model was not read"},
		"no pickle":            {contract.Input{Features: five, Model: &joblib.Report{Format: joblib.ONNX}}, "the model is no pickle but " + string(joblib.ONNX)},
		"no estimator":         {contract.Input{Features: five, Model: report()}, "the model file holds no estimator"},
		"an unfitted pipeline": {contract.Input{Features: five, Model: report(pipeline(counted("sklearn.preprocessing._data.StandardScaler", -1), logistic(-1)))}, `step "s0" (StandardScaler) stores neither the names nor the number of its features`},
	} {
		t.Run(name, func(t *testing.T) {
			r := contract.Check(tt.in)
			if want := "feature contract unknown: " + tt.want; r.Outcome != contract.Unknown || r.Summary != want {
				t.Errorf("%s: %s; want %s", r.Outcome, r.Summary, want)
			}
		})
	}
}

func TestPartsBesideTheModel(t *testing.T) {
	t.Parallel()
	in := contract.Input{Features: names("a"), Model: report(logistic(2))}
	if r := contract.Check(in); r.Outcome != contract.Mismatch {
		t.Errorf("alone: %s", r.Outcome)
	}
	in.Parts = []*joblib.Report{nil, report(counted("sklearn.calibration.CalibratedClassifierCV", 2))}
	if r := contract.Check(in); r.Outcome != contract.Mismatch {
		t.Errorf("beside a calibrator: %s", r.Outcome)
	}
	in.Parts = append(in.Parts, report(counted("sklearn.preprocessing._data.StandardScaler", 2)))
	r := contract.Check(in)
	if want := "; not refused, since StandardScaler may come first"; r.Outcome != contract.Differs || !strings.HasSuffix(r.Summary, want) {
		t.Errorf("beside a scaler: %s: %s; want %s: …%s", r.Outcome, r.Summary, contract.Differs, want)
	}
}

func TestFeatureWarnings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   contract.Input
		want []string
	}{
		"names that stand twice": {
			contract.Input{Features: names("a b a c b a"), Model: report(logistic(6)), FeaturesFile: "data/f.json"},
			[]string{`data/f.json has names more than once: "a", "b"`},
		},
		"another model that takes others": {
			contract.Input{Features: names("a b"), Model: report(at("one", logistic(2)), at("two", logistic(1)))},
			[]string{`"two" (LogisticRegression) takes other features: 2 features in the file, 1 in the input of "two" (LogisticRegression); predict would fail`},
		},
		"none": {contract.Input{Features: names("a b"), Model: report(logistic(2))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if r := contract.Check(tt.in); !slices.Equal(r.Warnings, tt.want) {
				t.Errorf("warnings %q; want %q", r.Warnings, tt.want)
			}
		})
	}
}

// TestMessagesEnd holds that no file, however strange, makes endless or
// unprintable messages.
func TestMessagesEnd(t *testing.T) {
	t.Parallel()
	odd := strings.Repeat("\x1b[31m\n", 100)
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint(odd, i))
	}
	m := named("sklearn.linear_model."+odd, names("a b c")...)
	m.Key = odd
	r := contract.Check(contract.Input{Features: append(many, many...), Model: report(m)})
	text := r.Summary + r.Difference.String() + strings.Join(r.Warnings, "")
	if len(text) > 20_000 || strings.ContainsAny(text, "\x1b\n") {
		t.Errorf("%d bytes: %.300q", len(text), text)
	}
	if d := r.Difference; len(d.Extra.First) != 10 || d.Extra.Count != 2000 || !strings.Contains(text, "and 1990 more") {
		t.Errorf("extra: %d of %d", len(d.Extra.First), d.Extra.Count)
	}
}
