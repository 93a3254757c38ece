package manifest

import (
	"fmt"
	"slices"
	"strings"

	"galley/manifest/joblib"
)

// Scan is what was found in one file of an artifact, without loading it.
type Scan struct {
	Path   string
	Role   Role
	Report *joblib.Report
}

// Verdict is the file's. What is neither a model nor a part has none to answer
// for if it is surely no pickle.
func (s Scan) Verdict() joblib.Verdict {
	if s.Role != RoleModel && s.Role != RolePart && s.Report.Unloadable {
		return joblib.NotPickle
	}
	return s.Report.Verdict
}

// Worst is the worst verdict of the scans; [joblib.NotPickle] if there are none.
func Worst(scans []Scan) joblib.Verdict {
	worst := joblib.NotPickle
	for _, s := range scans {
		worst = max(worst, s.Verdict())
	}
	return worst
}

// UnsafeError says that files are not carried, because loading them would run
// code, or because nobody can tell whether it would.
type UnsafeError struct {
	Op    string // what was to be done with them; empty: the error around it tells
	Scans []Scan // of these files, in the order of paths
}

func (e *UnsafeError) Error() string {
	var lines []string
	for _, s := range e.Scans {
		lines = append(lines, strings.TrimPrefix(fmt.Sprintf("%s %s: %s", e.Op, s.Path, Reason(s)), " "))
	}
	return strings.Join(lines, "\n")
}

// Unknown lists the globals, as module:name, that nobody knows and that are not
// known to be dangerous: allowing them would let the files pass. It is empty if
// there is more against the files.
func (e *UnsafeError) Unknown() []string {
	var names []string
	for _, s := range e.Scans {
		for _, f := range s.Report.Findings {
			switch f.Rule {
			case joblib.RuleUnknown, joblib.RuleUnknownCall, joblib.RuleMain:
				names = append(names, f.Global)
			default:
				if f.Verdict > joblib.Review {
					return nil
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Reason says in a line why a file has its verdict.
func Reason(s Scan) string {
	text := s.Report.Verdict.String()
	if len(s.Report.Findings) == 0 {
		return text
	}
	f := s.Report.Findings[0]
	text += ": "
	if f.Global != "" {
		text += f.Global + ": "
	}
	text += f.Message
	if more := len(s.Report.Findings) + s.Report.More - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// CheckScans returns an [*UnsafeError] of those files that are refused.
func CheckScans(op string, scans []Scan, strict bool) error {
	var bad []Scan
	for _, s := range scans {
		if s.Verdict().Refused(strict) {
			bad = append(bad, s)
		}
	}
	if bad == nil {
		return nil
	}
	slices.SortFunc(bad, func(a, b Scan) int { return strings.Compare(a.Path, b.Path) })
	return &UnsafeError{op, bad}
}

// Allowed lists the globals, as module:name, that whoever pushed the artifact
// had looked at and allowed (annotation ml.galley.model.scan.allowed).
func (a *Artifact) Allowed() []string {
	return commas(a.Manifest.Annotations[AnnotationModelAllowed])
}
