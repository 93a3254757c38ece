package gate_test

import (
	"fmt"
	"log"
	"time"

	"galley/manifest"
	"galley/manifest/gate"
	"galley/manifest/project"
	"galley/manifest/training"
)

func Example() {
	config, err := project.ParseConfig("galley.yaml", []byte(`
stages:
  production:
    features: any
    scan: declared
    require: ["roc_auc >= 0.65", "recall >= current.recall * 0.97"]
`))
	if err != nil {
		log.Fatal(err)
	}
	model := func(summary string) *manifest.Facts {
		s, err := training.ParseSummary([]byte(summary))
		if err != nil {
			log.Fatal(err)
		}
		return &manifest.Facts{Summary: s, Info: manifest.Info{Scan: "pass"}}
	}
	candidate := model(`{"test_metrics": {"test_roc_auc": 0.673, "test_recall": 0.55}}`)
	current := model(`{"test_metrics": {"test_roc_auc": 0.661, "test_recall": 0.58}}`)

	policy, err := gate.New(config, "production", nil, []string{"roc_auc > current.roc_auc"})
	if err != nil {
		log.Fatal(err)
	}
	results := policy.Check(candidate, current, time.Now(), time.Time{})
	for _, r := range results {
		fmt.Printf("%s | %s | %s | %s | %s\n", r.Gate, r.Candidate, r.Current, r.Bound, r.Verdict)
	}
	fmt.Println("refused:", gate.Failed(results))
	// Output:
	// scan: declared | pass |  |  | pass
	// roc_auc >= 0.65 | roc_auc 0.673 |  | >= 0.65 | pass
	// recall >= current.recall * 0.97 | recall 0.55 | recall 0.58 | >= 0.5626 | fail
	// roc_auc > current.roc_auc | roc_auc 0.673 | roc_auc 0.661 | > 0.661 | pass
	// refused: true
}
