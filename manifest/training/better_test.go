package training_test

import (
	"strings"
	"testing"

	"galley/manifest/training"
)

func TestBetter(t *testing.T) {
	t.Parallel()
	for want, paths := range map[training.Direction]string{
		training.Lower: `brier brier_score test_metrics.test_brier rmse val_rmse RMSE mse mae test_mae mape smape log_loss
			test_metrics.test_log_loss logloss loss val_loss valLoss losses.val eval.loss.epoch_3 fpr fnr false_positive_rate
			false_discovery_rate miss_rate error error_rate mean_squared_error max_error hamming_loss perplexity wer ece
			cross_entropy mean_poisson_deviance nll neg_log_likelihood kl_divergence psi cv_f1_std davies_bouldin_score aic`,
		training.Higher: `f1 roc_auc test_metrics.test_roc_auc accuracy recall precision r2 explained_variance ap mcc kappa
			true_positive_rate true_negative_rate tpr specificity npv negative_predictive_value neg_log_loss neg_mean_squared_error
			neg_brier_score d2_absolute_error_score log_likelihood silhouette loss_reduction error_analysis.test_f1
			calibrated gates.passed unheard_of coverage`,
	} {
		for path := range strings.FieldsSeq(paths) {
			if got := training.Better(path); got != want {
				t.Errorf("%s: %s is better, want %s", path, got, want)
			}
		}
	}
	if got := training.Better("weighted avg.f1-score"); got != training.Higher {
		t.Errorf("f1-score: %s", got)
	}
}
