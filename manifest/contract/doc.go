// Package contract says whether the JSON files beside a model fit it: the
// names in the features file, and the parameters that the training summary
// repeats.
//
//	report, err := joblib.Inspect(model, joblib.Options{})
//	features, err := training.ParseFeatures(data, "")
//	result := contract.Check(contract.Input{
//		Features: features.Names,
//		Note:     features.Note,
//		Params:   contract.Params(summary),
//		Model:    report,
//	})
//	if result.Outcome == contract.Mismatch {
//		fmt.Println(result.Summary, result.Difference)
//	}
//
// # The feature contract
//
// The features are compared with every place that columns pass on their way
// through the model: its input, what each selector passes on, and the input of
// the final estimator. Projects write any of these to their features file, so
// that one match is enough, and [Result.With] says which. Where the model
// stores names, the names and their order count; where it stores a number
// alone, that has to do. Names are followed through selectors and through
// transformers that keep their columns, such as scalers.
//
// [Check] looks through searches, calibration, voting, stacking and the like at
// what they are made of. Of a dict or list it takes what predicts. Samplers of
// imbalanced-learn rest when a pipeline predicts, and count for nothing.
//
// A difference is a [Mismatch] only where predict would fail on such columns or
// mix them: an estimator of a library that is known gets them as they are. With
// any transformer in front, be it a scaler, inside of the model, beside it in a
// dict or in a file of its own, and with a class that nobody knows, it
// [Differs], and Summary says what stands in front. A ColumnTransformer in
// front selects by name, and takes every order.
//
// # Parameters
//
// [Params] collects the parameters from a summary, and Check warns where the
// model has others. What is not in both is no difference: summaries hold more
// than the estimator's parameters, and models more than was chosen.
//
// # What it promises
//
// All functions are pure, and may be called concurrently; nothing here reads a
// file, a clock or the network. All of a report is the claim of whoever wrote
// the model file: a match is no proof. Names in messages are quoted, and every
// list in them has an end.
package contract
