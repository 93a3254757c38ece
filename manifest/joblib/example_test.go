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

func ExampleInspect() {
	f, err := os.Open("testdata/pipeline.joblib")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	r, err := joblib.Inspect(f, joblib.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Verdict)
	m := r.Models[0]
	fmt.Println(m.Class, m.Sklearn, m.FeatureNames)
	for _, p := range m.Parts {
		fmt.Println("-", p.Key, p.Class, p.Selected)
	}
	fmt.Println(joblib.Requirements(r.Packages))
	// Output:
	// pass
	// sklearn.pipeline.Pipeline 1.5.2 [amount hour risk]
	// - select sklearn.feature_selection._univariate_selection.SelectKBest [0 2]
	// - scale sklearn.preprocessing._data.StandardScaler []
	// - clf sklearn.linear_model._logistic.LogisticRegression []
	// [joblib numpy scikit-learn==1.5.2]
}
