package joblib_test

import (
	"fmt"
	"os"

	"galley/manifest/joblib"
)

func ExampleLook() {
	f, err := os.Open("testdata/pipeline.joblib")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	p, err := joblib.Look(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Format, p.Class)
	for _, step := range p.Inside {
		fmt.Println("-", step)
	}
	// Output:
	// joblib sklearn.pipeline.Pipeline
	// - sklearn.feature_selection._univariate_selection.SelectKBest
	// - sklearn.preprocessing._data.StandardScaler
	// - sklearn.linear_model._logistic.LogisticRegression
}
