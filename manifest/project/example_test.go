package project_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"galley/manifest/project"
)

func ExampleFind() {
	fsys := fstest.MapFS{
		"models/forest.joblib":        {Data: []byte(forest)},
		"models/scaler.joblib":        {Data: []byte(scaler)},
		"data/selected_features.json": {Data: []byte(`["amount", "hour"]`)},
		"data/train.pkl":              {Data: []byte(frame)},
	}
	s, err := project.Find(context.Background(), fsys, project.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range s.Files {
		fmt.Printf("%s %s: %s\n", p.Role, p.As, p.Why)
	}
	for _, l := range s.Left {
		fmt.Printf("left %s: %s\n", l.Path, l.Why)
	}
	// Output:
	// model models/forest.joblib: RandomForestClassifier, the only model
	// part models/scaler.joblib: StandardScaler beside the model
	// features data/selected_features.json: the only features file
	// left data/train.pkl: a pickled DataFrame
}

func ExampleParseConfig() {
	_, err := project.ParseConfig("galley.yaml", []byte("name: fraud\n\nmetrcs:\n  auc: test.auc\n"))
	fmt.Println(err)
	// Output: galley.yaml:3:1: unknown key "metrcs"; nearest: "metrics"
}
