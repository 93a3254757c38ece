package project

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"galley/manifest/joblib"
)

// verdict is what a file could be to the project, by its content.
type verdict int

const (
	other    verdict = iota // nothing an artifact needs
	data                    // a pickled table or array: never taken unasked
	part                    // it transforms, and does not predict
	maybe                   // an object of a class nobody knows
	predicts                // a model
)

// judge says what a file could be, and what it is in a few words.
func judge(p joblib.Peek) (verdict, string) {
	switch {
	case !p.Format.IsModel():
		return other, describe(p.Format)
	case !p.Format.IsPickle():
		return predicts, describe(p.Format)
	}
	switch p.Top {
	case "object":
		v, what := judgeClass(p), cmp.Or(short(p.Class), "an object of unknown class")
		if v == data {
			what = "a pickled " + what
		}
		return v, what
	case "array":
		return data, "a pickled array"
	case "dict", "list", "tuple":
		v := other
		for _, class := range p.Inside {
			if inner := judgeClass(joblib.Peek{Class: class}); inner > v {
				v = inner
			}
		}
		if v <= data {
			return other, "a plain " + p.Top
		}
		return v, "a " + p.Top + " with " + short(p.Inside[slices.IndexFunc(p.Inside, func(class string) bool {
			return judgeClass(joblib.Peek{Class: class}) == v
		})])
	case "":
		if p.Compression != "" {
			return maybe, "a joblib file compressed by " + p.Compression
		}
		return other, "a damaged pickle"
	}
	return other, "a pickled " + p.Top
}

// describe names a format in a sentence.
func describe(k joblib.Kind) string {
	switch k {
	case joblib.ONNX, joblib.Skops, joblib.XGBoost, joblib.LightGBM, joblib.CatBoost, joblib.Keras:
		return string(k) + " model"
	case joblib.Unknown:
		return "no format that holds models"
	case joblib.Empty:
		return "an empty file"
	case joblib.Pointer:
		return "a Git LFS pointer"
	case joblib.HTML:
		return "an HTML page"
	}
	return string(k)
}

// short returns a class without its module.
func short(class string) string { return class[strings.LastIndexByte(class, '.')+1:] }

// judgeClass judges an object by its class: by the module where a library's
// modules tell, else by the name.
func judgeClass(p joblib.Peek) verdict {
	root, rest, _ := strings.Cut(p.Class, ".")
	module, _, _ := strings.Cut(rest, ".")
	name := short(p.Class)
	switch name {
	case "Bunch", "DMatrix", "QuantileDMatrix", "Dataset", "Pool":
		return data
	case "Pipeline":
		return judgeSteps(p)
	}
	switch root {
	case "pandas", "numpy", "scipy", "polars", "pyarrow", "dask", "xarray", "datetime", "collections", "builtins":
		return data
	case "sklearn", "imblearn", "cuml":
		return judgeSklearn(module, name)
	case "category_encoders", "feature_engine", "sklearn_pandas", "umap":
		return part
	case "shap", "lime", "eli5", "optuna", "matplotlib", "logging":
		return other
	case "xgboost", "lightgbm", "catboost", "keras", "tensorflow", "torch", "statsmodels", "ngboost", "interpret", "prophet", "skorch":
		return predicts
	}
	for _, suffix := range []string{"Classifier", "Regressor", "Model", "Estimator", "Predictor", "Booster"} {
		if strings.HasSuffix(name, suffix) {
			return predicts
		}
	}
	if partWords(name) {
		return part
	}
	return maybe
}

// judgeSteps judges a pipeline by its steps. One of unknown steps predicts:
// that is what most are for.
func judgeSteps(p joblib.Peek) verdict {
	if !p.Whole || len(p.Inside) == 0 {
		return predicts
	}
	for _, step := range p.Inside {
		if judgeClass(joblib.Peek{Class: step}) >= maybe {
			return predicts
		}
	}
	return part
}

// judgeSklearn judges by scikit-learn's packages, whose names have not changed
// since 0.18.
func judgeSklearn(module, name string) verdict {
	switch name {
	case "ColumnTransformer", "FeatureUnion", "RandomTreesEmbedding", "FeatureAgglomeration", "BernoulliRBM",
		"KNeighborsTransformer", "RadiusNeighborsTransformer":
		return part
	}
	switch module {
	case "ensemble", "linear_model", "svm", "tree", "neighbors", "neural_network", "naive_bayes",
		"discriminant_analysis", "gaussian_process", "calibration", "multiclass", "multioutput", "dummy",
		"kernel_ridge", "semi_supervised", "isotonic", "cluster", "mixture", "cross_decomposition", "covariance",
		"pipeline", "compose":
		return predicts
	case "model_selection":
		if strings.HasSuffix(name, "CV") {
			return predicts // a search, or a tuned threshold; the rest splits data
		}
	case "preprocessing", "impute", "feature_selection", "feature_extraction", "decomposition",
		"random_projection", "kernel_approximation", "manifold",
		"over_sampling", "under_sampling", "combine":
		return part
	}
	return other
}

// partWords reports whether a file's or a class's name says that it goes
// before a model, or corrects one.
func partWords(name string) bool {
	for _, w := range words(name) {
		switch strings.TrimSuffix(w, "s") {
		case "scaler", "scaling", "encoder", "encoding", "selector", "calibrator", "imputer", "vectorizer",
			"transformer", "normalizer", "binarizer", "discretizer", "tokenizer", "standardizer",
			"preprocessor", "preprocessing", "preproces", "preprocess", "tfidf", "pca":
			return true
		}
	}
	return false
}

// asideWord returns the word of a file's name by which it is about another
// model, another time or something else than what its name begins with.
func asideWord(name string) string {
	for _, w := range words(name) {
		switch w {
		case "baseline", "previous", "prev", "old", "backup", "bak", "archive", "archived", "history",
			"example", "sample", "template", "schema", "drift", "importance", "importances":
			return w
		}
	}
	return ""
}

// words splits a name at everything but letters and digits, and where a small
// letter meets a capital one, into lower case.
func words(name string) []string {
	var b strings.Builder
	small := false
	for _, r := range name {
		if unicode.IsUpper(r) && small {
			b.WriteByte(' ')
		}
		small = unicode.IsLower(r) || unicode.IsDigit(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}
