package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"galley/manifest"
	"galley/manifest/contract"
	"galley/manifest/joblib"
	"galley/oci"
)

// claimError refuses a model for what its artifact tells of it.
type claimError struct {
	ref     oci.Reference
	verdict joblib.Verdict
}

func (e *claimError) Error() string {
	return fmt.Sprintf("bake %s: %s, says who pushed it", e.ref, e.verdict)
}

// mainError refuses a model that only its training script could load.
type mainError struct{ ref oci.Reference }

func (e *mainError) Error() string {
	return fmt.Sprintf("bake %s: the model holds classes of __main__, its training script, and no app can load those", e.ref)
}

// checkModel enforces what is known of a model, and reads it where nothing is
// known, or where that is asked for.
func (v *oven) checkModel(ctx context.Context, m *ingredient) error {
	info := m.Info()
	var verdict joblib.Verdict
	known := verdict.UnmarshalText([]byte(info.Scan)) == nil && info.Scan != ""
	suspect := info.Features >= 0 && m.ModelFeatures() >= 0 && info.Features != m.ModelFeatures() && len(info.Steps) == 0
	switch {
	case v.o.rescan || len(v.o.allow) > 0:
	case !known:
		v.note("%s: who pushed it tells no verdict: reading the model", m.ref)
	case suspect:
		v.note("%s: %d features beside a model of %d: reading the model", m.ref, info.Features, m.ModelFeatures())
	default:
		return errors.Join(v.checkClaim(m, verdict), v.checkMain(m, info.Imports))
	}
	if err := v.readModel(ctx, m); err != nil {
		return err
	}
	var imports []string
	for _, s := range m.scans {
		imports = append(imports, s.Report.Imports()...)
	}
	return v.checkMain(m, imports)
}

// checkClaim enforces the verdict that the artifact tells.
func (v *oven) checkClaim(m *ingredient, verdict joblib.Verdict) error {
	switch {
	case verdict.Refused(v.o.strict) && !v.o.allowUnsafe:
		return &claimError{m.ref, verdict}
	case verdict > joblib.Pass && !slices.Contains(m.Info().Imports, "__main__"):
		v.warned("%s: %s, says who pushed it", m.ref, verdict)
	}
	return nil
}

func (v *oven) checkMain(m *ingredient, imports []string) error {
	switch {
	case !slices.Contains(imports, "__main__"):
		return nil
	case slices.Contains(v.o.allowMismatch, "runtime"):
		v.warned("allowed to differ: runtime: %s holds classes of __main__, which the app has to define there", m.ref)
		return nil
	}
	return &mainError{m.ref}
}

// readModel scans the model, as a push would, and compares it with its features.
func (v *oven) readModel(ctx context.Context, m *ingredient) error {
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	progress, stop := v.progress(m.ref.Registry)
	m.scans, err = oci.Scan(ctx, m.Model, joblib.Options{Allow: append(slices.Clone(config.Allow), v.o.allow...)}, progress)
	stop()
	if err != nil {
		return m.explain("read", err)
	}
	v.tellScans(m.scans, v.o.safety)
	if !v.o.allowUnsafe {
		if err := manifest.CheckScans("bake", m.scans, v.o.strict); err != nil {
			return err
		}
	}
	fit, err := oci.CheckContract(ctx, m.Model, m.scans)
	if err != nil {
		return m.explain("read", err)
	}
	if fit.Outcome != contract.Mismatch {
		return nil
	}
	if !slices.Contains(v.o.allowMismatch, "features") {
		return &mismatchError{"bake", "features", m.ref.String(), fit}
	}
	v.warned("allowed to differ: features: %s", fit.Summary)
	return nil
}
