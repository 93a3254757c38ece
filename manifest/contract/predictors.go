package contract

import "galley/manifest/joblib"

// Predictors returns the models in the file that predict: of a dict or list
// with a scaler and a classifier the classifier, of a lone scaler the scaler.
func Predictors(r *joblib.Report) []*joblib.Model { return divide(r, nil).models }
