package contract_test

import (
	"fmt"

	"galley/manifest/contract"
	"galley/manifest/joblib"
)

func ExampleCheck() {
	model := &joblib.Report{Format: joblib.Joblib, Models: []*joblib.Model{{
		Class:        "sklearn.ensemble._forest.RandomForestClassifier",
		Features:     3,
		FeatureNames: []string{"amount", "hour", "risk"},
		Params:       []joblib.Param{{Name: "max_depth", Value: int64(6)}},
	}}}
	result := contract.Check(contract.Input{
		Features:    []string{"amount", "hour", "risk", "is_fraud"},
		Params:      contract.Params([]byte(`{"best_params": {"max_depth": 8}}`)),
		Model:       model,
		SummaryFile: "training_summary.json",
	})
	fmt.Println(result.Outcome)
	fmt.Println(result.Summary)
	for _, line := range result.Difference.Lines() {
		fmt.Println("-", line)
	}
	for _, warning := range result.Warnings {
		fmt.Println("warning:", warning)
	}
	// Output:
	// mismatch
	// 4 features in the file, 3 in the input of RandomForestClassifier; predict would fail
	// - 4 names, the model takes 3
	// - not in the model: "is_fraud"
	// - one too many: is it the target?
	// warning: training_summary.json says max_depth 8, the model has 6
}

func ExampleParams() {
	params := contract.Params([]byte(`{
		"best_params": {"clf__C": 0.1, "select": {"k": 20}},
		"param_grid": {"clf__C": [0.1, 1]},
		"test_metrics": {"f1": 0.08}
	}`))
	fmt.Println(params)
	// Output: map[clf__C:0.1 select__k:20]
}
