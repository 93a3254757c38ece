package gate

import "slices"

// Result is what became of a gate: a row of the table that is shown, and of the
// record that is kept. The texts are short, of one line and printable.
type Result struct {
	Gate      string   `json:"gate"`                // as galley.yaml has it: an expression, or features: same
	Candidate string   `json:"candidate,omitempty"` // what was looked at, and its value: roc_auc 0.673
	Current   string   `json:"current,omitempty"`   // likewise of what the stage has now
	Bound     string   `json:"bound,omitempty"`     // what the candidate's value was held against: >= 0.6525
	Verdict   Verdict  `json:"verdict"`
	Why       string   `json:"why,omitempty"`   // it has another verdict than pass, or passes without a look
	Hints     []string `json:"hints,omitempty"` // lines for galley.yaml that would help, each an alternative
	// First says that it fails for want of a current alone: the stage has no
	// model yet.
	First bool `json:"-"`
}

// Verdict is whether a gate lets the candidate pass, as records and JSON spell it.
type Verdict string

// The verdicts. Anything else fails.
const (
	Pass   Verdict = "pass"
	Warn   Verdict = "warn"   // it does not hold, and need not
	Fail   Verdict = "fail"   // it does not hold
	Waived Verdict = "waived" // it does not hold, and somebody went on nevertheless; never by Check
)

// Failed reports whether any gate keeps the candidate from the stage.
func Failed(results []Result) bool {
	return slices.ContainsFunc(results, func(r Result) bool {
		return r.Verdict != Pass && r.Verdict != Warn && r.Verdict != Waived
	})
}
