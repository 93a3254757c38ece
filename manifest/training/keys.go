package training

import (
	"slices"
	"strings"
	"unicode"
)

// words splits a key at everything that is no letter or digit, and at the
// humps of camelCase, into lower-case words: "valF1Score" and "val_f1-score"
// are val, f1, score.
func words(key string) []string {
	var list []string
	runes := []rune(key)
	start := 0
	cut := func(end int) {
		if start < end {
			list = append(list, strings.ToLower(string(runes[start:end])))
		}
	}
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			cut(i)
			start = i + 1
		case i > start && unicode.IsUpper(r):
			next := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !unicode.IsUpper(runes[i-1]) || next {
				cut(i)
				start = i
			}
		}
	}
	cut(len(runes))
	return list
}

// sense is what a word says about the number under a key.
type sense int

const (
	other   sense = iota
	quality       // measures how good the model is
	count         // counts, sizes or identifies something
	clock         // tells or measures time
	unit          // counts things or time, unless it says in what or where a quality was measured
)

// senseOf classifies a word. Digits at its end do not matter: ap50, f1.
func senseOf(word string) sense {
	switch strings.TrimRight(word, "0123456789") {
	case "acc", "accuracy", "ap", "auc", "auprc", "auroc", "bleu", "brier", "correlation", "coverage",
		"deviance", "dice", "divergence", "entropy", "error", "f", "fbeta", "fnr", "fpr", "fraction",
		"gain", "gini", "iou", "jaccard", "kappa", "ks", "lift", "logloss", "loss", "mae", "map",
		"mape", "mcc", "medae", "mrr", "mse", "msle", "ndcg", "npv", "pct", "pearson", "percent",
		"percentage", "perplexity", "ppv", "prauc", "precision", "probability", "proportion", "r",
		"rate", "ratio", "recall", "rmse", "rmsle", "rocauc", "rouge", "score", "scores", "sensitivity",
		"silhouette", "smape", "spearman", "specificity", "tnr", "tpr", "variance", "wape", "wer":
		return quality
	case "attempts", "bytes", "categories", "classes", "cols", "columns", "count", "counts",
		"examples", "features", "fn", "folds", "fp", "id", "images", "instances", "items", "labels",
		"len", "length", "models", "negatives", "num", "number", "observations", "positives",
		"records", "rows", "seed", "seeds", "size", "sizes", "splits", "support", "tn", "tp", "version":
		return count
	case "date", "datetime", "duration", "durations", "elapsed", "latencies", "latency", "runtime",
		"time", "times", "timestamp", "timestamps", "timing", "timings", "walltime":
		return clock
	case "attempt", "day", "days", "epoch", "epochs", "fold", "hour", "hours", "iter", "iteration",
		"iterations", "iters", "millis", "milliseconds", "minute", "minutes", "mins", "month", "months",
		"ms", "run", "runs", "sample", "samples", "sec", "second", "seconds", "secs", "step", "steps",
		"trial", "trials", "week", "weeks", "year", "years":
		return unit
	}
	return other
}

// isMetric reports whether a number under key measures the model: the last
// word that has a sense decides, as the head of an English compound does.
// error_count counts, time_series_mae does not; n_samples counts, and so does
// n alone; in val_loss_epoch, mae_days and fold_3 the unit only says of what.
func isMetric(key string) bool {
	list := words(key)
	if len(list) == 0 {
		return true
	}
	if last := list[len(list)-1]; last == "at" || last == "state" && slices.Contains(list, "random") {
		return false // trained_at, random_state
	}
	metric := list[0] != "n"
	before := other // the sense of the word before, numbers aside
	for i, w := range list {
		if isNumber(w) {
			continue
		}
		s := senseOf(w)
		switch s {
		case quality:
			metric = true
		case count, clock:
			metric = false
		case unit:
			numbered := i+1 < len(list) && isNumber(list[i+1])
			metric = metric && (numbered || before == quality)
		}
		before = s
	}
	return metric
}

func isNumber(word string) bool { return strings.Trim(word, "0123456789") == "" }

// isSetting reports whether what stands under key or below it was put into the
// training, or explains the model, but does not measure it.
func isSetting(key string) bool {
	lower := strings.ToLower(key)
	for _, s := range []string{"params", "parameters", "config", "importance"} {
		if strings.Contains(lower, s) {
			return true
		}
	}
	return slices.Contains(words(key), "param")
}

// isCensus reports whether an object or list under key holds counts, sizes or
// times only.
func isCensus(key string) bool {
	list := words(key)
	if len(list) == 0 {
		return false
	}
	last := list[len(list)-1]
	switch last {
	case "count", "counts", "distribution", "distributions", "records", "rows", "samples", "seeds",
		"size", "sizes", "support":
		return true
	}
	return senseOf(last) == clock || slices.Contains(list, "confusion")
}

// isTrain reports whether the metric at path was measured on the data the model
// was trained on: the last key decides that says something about the data.
func isTrain(path string) bool {
	train := false
	for key := range strings.SplitSeq(path, ".") {
		list := words(key)
		switch {
		case slices.ContainsFunc(list, isUnseen):
			train = false
		case slices.Contains(list, "train") || isTraining(list):
			train = true
		}
	}
	return train
}

// isUnseen reports whether a word names data that a model is not fitted to.
func isUnseen(word string) bool {
	switch word {
	case "cv", "dev", "eval", "holdout", "oof", "test", "val", "valid", "validation":
		return true
	}
	return false
}

// isTraining reports whether a key names the training data rather than the
// process: training and training_metrics, but not training_results.
func isTraining(list []string) bool {
	if len(list) == 0 || list[0] != "training" {
		return false
	}
	for _, w := range list[1:] {
		switch w {
		case "data", "metrics", "score", "scores", "set":
		default:
			return false
		}
	}
	return true
}
