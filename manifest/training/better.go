package training

import (
	"slices"
	"strings"
)

// Direction is which way a metric improves.
type Direction int

// The directions. Most metrics are scores: higher is better.
const (
	Higher Direction = iota
	Lower
)

// String returns the word that galley.yaml has for it.
func (d Direction) String() string {
	if d == Lower {
		return "lower"
	}
	return "higher"
}

// Better returns which way the metric at path improves. The last of its keys
// that names a known measure decides: losses, errors and distances, such as
// test_metrics.test_log_loss, brier, val_rmse and fpr, improve downwards,
// everything else upwards. scikit-learn's neg_log_loss and d2_pinball_score are
// such measures turned around.
func Better(path string) Direction {
	keys := strings.Split(path, ".")
	for _, key := range slices.Backward(keys) {
		list := words(key)
		lower := slices.ContainsFunc(list, isLoss) || has(list, "false", "rate") || has(list, "miss", "rate") || has(list, "davies", "bouldin")
		turned := slices.ContainsFunc(list, isTurn)
		switch {
		case slices.Contains(list, "likelihood"):
			if turned {
				return Lower
			}
			return Higher
		case lower && turned:
			return Higher
		case lower:
			return Lower
		case slices.ContainsFunc(list, func(w string) bool { return senseOf(w) == quality }):
			return Higher
		}
	}
	return Higher
}

// has reports whether all these words are in the list.
func has(list []string, wanted ...string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(list, w) })
}

// isLoss reports whether a word names what a good model has little of.
func isLoss(word string) bool {
	switch word {
	case "aic", "bic", "brier", "cer", "deviance", "divergence", "drift", "ece", "entropy", "error", "errors", "fdr", "fnr",
		"fpr", "gap", "hamming", "logloss", "loss", "losses", "mae", "mape", "mase", "mce", "medae", "misclassification",
		"mse", "msle", "nll", "perplexity", "psi", "residual", "residuals", "rmse", "rmsle", "smape", "std", "wape", "wer":
		return true
	}
	return false
}

// isTurn reports whether a word turns a loss into a score.
func isTurn(word string) bool {
	switch word {
	case "neg", "negative", "d2", "improvement", "reduction":
		return true
	}
	return false
}
