package joblib

import "slices"

// maxFindings bounds the list of findings; the worst verdict counts beyond it.
const maxFindings = 200

// sink collects findings, each global and rule once.
type sink struct {
	allow    []string // module:name that the caller has looked at
	findings []Finding
	seen     map[findingKey]bool
	worst    Verdict
	more     int // findings beyond the limit
}

type findingKey struct {
	verdict Verdict
	rule    Rule
	global  string
	message string
}

func (s *sink) add(f Finding) {
	s.worst = max(s.worst, f.Verdict)
	key := findingKey{f.Verdict, f.Rule, f.Global, f.Message}
	if f.Global != "" {
		key.message = ""
	}
	switch {
	case s.seen[key]:
	case len(s.findings) >= maxFindings:
		s.more++
	default:
		if s.seen == nil {
			s.seen = make(map[findingKey]bool)
		}
		s.seen[key] = true
		s.findings = append(s.findings, f)
	}
}

// sorted returns the findings, the worst first.
func (s *sink) sorted() []Finding {
	slices.SortFunc(s.findings, Finding.compare)
	return s.findings
}
