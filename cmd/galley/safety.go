package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"galley/manifest"
	"galley/manifest/contract"
	"galley/manifest/joblib"
)

// safety are the flags by which people overrule what was found in a model.
type safety struct {
	strict, allowUnsafe bool
	allow               []string
	allowMismatch       []string
}

// mismatches are what --allow-mismatch waives.
var mismatches = []string{"features", "runtime", "path"}

func (s *safety) flags(f *pflag.FlagSet) {
	f.BoolVar(&s.strict, "strict", false, "refuse also what somebody should look at first")
	f.StringArrayVar(&s.allow, "allow", nil, "let `module:name` of a pickle pass, for somebody has looked at it")
	f.BoolVar(&s.allowUnsafe, "allow-unsafe", false, "go on although loading the model may run anything")
}

func (s *safety) mismatchFlag(f *pflag.FlagSet) {
	f.StringSliceVar(&s.allowMismatch, "allow-mismatch", nil, "go on although `what` does not fit: features, runtime, path (all)")
	f.Lookup("allow-mismatch").NoOptDefVal = strings.Join(mismatches, ",")
}

// check fails on words that the flags do not know.
func (s *safety) check() error {
	for _, g := range s.allow {
		if err := joblib.CheckAllow(g); err != nil {
			return &usageError{msg: "--allow " + err.Error()}
		}
	}
	for _, w := range s.allowMismatch {
		if !slices.Contains(mismatches, w) {
			return &usageError{msg: fmt.Sprintf("--allow-mismatch %q: want %s", w, strings.Join(mismatches, ", "))}
		}
	}
	return nil
}

// args are the flags again, as on the command line.
func (s *safety) args() []string {
	var args []string
	if s.allowUnsafe {
		args = append(args, "--allow-unsafe")
	}
	if s.strict {
		args = append(args, "--strict")
	}
	for _, g := range s.allow {
		args = append(args, "--allow", g)
	}
	if len(s.allowMismatch) > 0 {
		args = append(args, "--allow-mismatch="+strings.Join(s.allowMismatch, ","))
	}
	return args
}

// mismatchError says that files do not fit one another.
type mismatchError struct {
	op     string // what was to be done
	what   string // of mismatches
	file   string // that does not fit
	result contract.Result
}

func (e *mismatchError) Error() string {
	lines := []string{e.op + " " + e.file + ": " + e.result.Summary}
	if d := e.result.Difference; d != nil {
		lines = append(lines, d.Lines()...)
	}
	return strings.Join(lines, "\n")
}

// checkPacked refuses what loading would run, and features that are not the
// model's, and warns of what is only odd.
func (a *app) checkPacked(p *packed, s safety) error {
	a.tellScans(p.Scans, s)
	switch p.Fit.Outcome {
	case contract.Matches:
		a.note("fit       %s", printable(p.Fit.Summary))
	case contract.Differs:
		a.warn("%s: %s", printable(p.path(manifest.RoleFeatures)), printable(p.Fit.Summary))
		for _, line := range p.Fit.Difference.Lines() {
			a.warn("%s", printable(line))
		}
	case contract.Mismatch:
		if !slices.Contains(s.allowMismatch, "features") {
			return &mismatchError{"push", "features", p.path(manifest.RoleFeatures), p.Fit}
		}
		a.warn("allowed to differ: features: %s", printable(p.Fit.Summary))
	}
	if s.allowUnsafe {
		return nil
	}
	return manifest.CheckScans("push", p.Scans, s.strict)
}

// tellScans warns of files that are not refused, and that somebody should look
// at all the same.
func (a *app) tellScans(scans []manifest.Scan, s safety) {
	for _, scan := range scans {
		v := scan.Verdict()
		if v <= joblib.Pass || v.Refused(s.strict) && !s.allowUnsafe || onlyMain(scan.Report) {
			continue
		}
		a.warn("%s: %s", printable(scan.Path), printable(manifest.Reason(scan)))
	}
}

// onlyMain reports whether nothing is against a file but that classes of the
// training script are in it, of which its own warning tells.
func onlyMain(r *joblib.Report) bool {
	return !slices.ContainsFunc(r.Findings, func(f joblib.Finding) bool { return f.Rule != joblib.RuleMain })
}
