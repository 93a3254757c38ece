package contract

import (
	"slices"
	"strings"
	"unicode"

	"galley/manifest/joblib"
)

// role is what an estimator does with the columns it gets.
type role int

const (
	predictor   role = iota // of a library that checks the columns
	stranger                // of a module nobody knows: it may do anything first
	transformer             // makes other columns of them
	sampler                 // adds or drops rows, and rests when a pipeline predicts
	aside                   // never gets the columns: encoders of the target
)

// roleOf tells it by the class: by the module where a library's modules tell,
// else by the name. A pipeline does what its last step does.
func roleOf(m *joblib.Model) role {
	if isPipeline(m) {
		if last := m.Parts[len(m.Parts)-1]; roleOf(last) == transformer {
			return transformer
		}
		return predictor
	}
	root, rest, _ := strings.Cut(m.Class, ".")
	module, _, _ := strings.Cut(rest, ".")
	name := short(m.Class)
	switch root {
	case "category_encoders", "feature_engine", "sklearn_pandas", "umap":
		return transformer
	case "xgboost", "lightgbm", "catboost", "ngboost":
		return predictor
	case "sklearn", "imblearn", "cuml", "sklearnex", "daal4py":
	default:
		return stranger
	}
	switch name {
	case "LabelEncoder", "LabelBinarizer", "MultiLabelBinarizer", "_SigmoidCalibration", "IsotonicRegression":
		return aside
	case "ColumnTransformer", "FeatureUnion", "RandomTreesEmbedding", "FeatureAgglomeration", "BernoulliRBM",
		"KNeighborsTransformer", "RadiusNeighborsTransformer":
		return transformer
	}
	switch module {
	case "preprocessing", "impute", "feature_selection", "feature_extraction", "decomposition",
		"random_projection", "kernel_approximation", "manifold":
		return transformer
	case "over_sampling", "under_sampling", "combine":
		return sampler
	}
	if root == "imblearn" && name == "FunctionSampler" {
		return sampler
	}
	return predictor
}

// isPipeline reports whether m's parts are steps, one after the other.
func isPipeline(m *joblib.Model) bool {
	return short(m.Class) == "Pipeline" && len(m.Parts) > 0
}

// isSelector reports whether m passes on some of its columns as they are.
func isSelector(m *joblib.Model) bool {
	return m.Selected != nil || strings.HasPrefix(m.Class, "sklearn.feature_selection.")
}

// isVectorizer reports whether m, or a part of it, makes columns of texts or
// dicts.
func isVectorizer(m *joblib.Model) bool {
	return strings.HasPrefix(m.Class, "sklearn.feature_extraction.") ||
		short(m.Class) == "FeatureUnion" && slices.ContainsFunc(m.Parts, isVectorizer)
}

// isSearch reports whether m is a search for parameters, or only holds a model.
func isSearch(m *joblib.Model) bool {
	return strings.HasPrefix(m.Class, "sklearn.model_selection.") || short(m.Class) == "FrozenEstimator" ||
		short(m.Class) == "_CalibratedClassifier"
}

// keeps reports whether a transformer passes on every column in its place.
func keeps(m *joblib.Model) bool {
	switch short(m.Class) {
	case "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer", "Binarizer",
		"PowerTransformer", "QuantileTransformer", "OrdinalEncoder":
		return true
	case "SimpleImputer", "KNNImputer", "IterativeImputer":
		// Columns without any value are dropped: then the counts differ.
		v, _ := param(m, "add_indicator")
		return v != true
	case "KBinsDiscretizer":
		v, _ := param(m, "encode")
		return v == "ordinal"
	case "FunctionTransformer":
		_, plain := param(m, "func") // None; a function is not listed
		v, _ := param(m, "feature_names_out")
		return plain || v == "one-to-one"
	case "TargetEncoder", "CatBoostEncoder", "CountEncoder", "GLMMEncoder", "JamesSteinEncoder",
		"LeaveOneOutEncoder", "MEstimateEncoder", "QuantileEncoder", "WOEEncoder":
		return true
	}
	return false
}

// param returns a constructor parameter.
func param(m *joblib.Model, name string) (any, bool) {
	i := slices.IndexFunc(m.Params, func(p joblib.Param) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return m.Params[i].Value, true
}

// inner returns the parts of an estimator that get the columns that it gets:
// those of a search, of calibration, of voting, but not the final estimator of
// a stack, the encoder of a target or the start of boosting.
func inner(m *joblib.Model) []*joblib.Model {
	if isPipeline(m) || roleOf(m) == transformer {
		return nil
	}
	var parts []*joblib.Model
	for _, p := range m.Parts {
		key, _, _ := strings.Cut(p.Key, "[")
		switch key {
		case "best_estimator_", "estimator_", "base_estimator_", "estimators_", "calibrated_classifiers_",
			"regressor_", "regressors_", "classifier_", "estimator", "base_estimator", "regressor", "classifier":
			parts = append(parts, p)
		}
	}
	return parts
}

// core is the model that a search found, or m.
func core(m *joblib.Model) *joblib.Model {
	for isSearch(m) {
		parts := inner(m)
		if len(parts) == 0 {
			break
		}
		m = parts[0]
	}
	return m
}

// short returns a class without its module.
func short(class string) string { return class[strings.LastIndexByte(class, '.')+1:] }

// className is the class in a message: that of the model in a search.
func className(m *joblib.Model) string {
	name := short(core(m).Class)
	odd := func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	if name == "" || len(name) > 60 || strings.ContainsFunc(name, odd) {
		return quote(name)
	}
	return name
}

// title is a model in a message, with the key under which it lies in what was
// saved.
func title(m *joblib.Model) string {
	if m.Key == "" {
		return className(m)
	}
	return quote(m.Key) + " (" + className(m) + ")"
}

// cast is who is who in the files of a model.
type cast struct {
	models []*joblib.Model // what the features are for
	beside []*joblib.Model // what may have its turn before
}

// divide tells the models that predict from what lies beside them. What nobody
// knows is taken for a model only where there is none, and transformers only
// where there is nothing else.
func divide(r *joblib.Report, parts []*joblib.Report) cast {
	var by [aside + 1][]*joblib.Model
	for _, m := range r.Models {
		role := roleOf(m)
		by[role] = append(by[role], m)
	}
	var c cast
	for _, role := range []role{predictor, stranger, transformer, aside, sampler} {
		if len(c.models) == 0 {
			c.models = by[role]
		} else if role == stranger || role == transformer {
			c.beside = append(c.beside, by[role]...)
		}
	}
	for _, p := range parts {
		if p == nil {
			continue
		}
		for _, m := range p.Models {
			if role := roleOf(m); role == stranger || role == transformer {
				c.beside = append(c.beside, m)
			}
		}
	}
	return c
}
