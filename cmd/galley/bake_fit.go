package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/oci"
	"galley/oci/image"
)

// fitError refuses a model that would not load in the base.
type fitError struct {
	ref  oci.Reference
	fits []platformFit
}

// platformFit is how the packages of a base fit one of the models.
type platformFit struct {
	Model     string      `json:"model,omitempty"` // its name among several
	Platforms []string    `json:"platforms,omitempty"`
	Python    string      `json:"python,omitempty"`
	Pythons   []string    `json:"pythons,omitempty"` // of which none is selected
	Packages  []image.Fit `json:"packages"`
}

func (f *platformFit) refused() bool {
	return slices.ContainsFunc(f.Packages, func(p image.Fit) bool { return p.Outcome.Refused() })
}

func (e *fitError) Error() string {
	lines := []string{fmt.Sprintf("bake %s: the base does not fit the model", e.ref)}
	for _, f := range e.fits {
		if !f.refused() {
			continue
		}
		if len(f.Pythons) > 0 {
			lines = append(lines, "  nothing says which Python runs: "+strings.Join(f.Pythons, ", "))
			continue
		}
		var rows [][]string
		for _, p := range f.Packages {
			if p.Outcome.Refused() {
				rows = append(rows, []string{p.Package, "the model's " + cmp.Or(p.Want, "any"), "the base's " + cmp.Or(p.Have, "none"), strings.Join(f.Platforms, ", ")})
			}
		}
		lines = append(lines, strings.TrimRight(table(rows, "  "), "\n"))
	}
	return strings.Join(lines, "\n")
}

// hints are what to install, and how to go on.
func (e *fitError) hints() []string {
	var need []string
	several := false
	for _, f := range e.fits {
		several = several || len(f.Pythons) > 0
		for _, p := range f.Packages {
			if p.Outcome != image.Mismatch && p.Outcome != image.Missing {
				continue
			}
			r := p.Package
			if p.Want != "" && p.Package != "numpy" {
				r += "==" + p.Want
			} else if p.Want != "" {
				r += ">=" + p.Want
			}
			if r = shellWord(r); !slices.Contains(need, r) {
				need = append(need, r)
			}
		}
	}
	var out []string
	if len(need) > 0 {
		out = append(out, "in the base: pip install "+strings.Join(need, " "))
	}
	if several {
		out = append(out, "--requirements FILE says what the app's Python has; or set VIRTUAL_ENV or PATH in the base")
	}
	return append(out, "--allow-mismatch=runtime, to bake it all the same")
}

// packages are what loading the model needs.
func (m *ingredient) packages() ([]joblib.Package, image.Writers) {
	if m.scans == nil {
		info := m.Info()
		return joblib.Packages(info.Imports, info.Sklearn), image.Writers{Numpy: info.Numpy, Joblib: info.Joblib}
	}
	var all []joblib.Package
	var w image.Writers
	for _, s := range m.scans {
		for _, p := range s.Report.Packages {
			if !slices.ContainsFunc(all, func(have joblib.Package) bool { return have.Import == p.Import }) {
				all = append(all, p)
			}
		}
		if s.Role == manifest.RoleModel {
			w = image.Writers{Numpy: s.Report.Writer.Numpy, Joblib: s.Report.Writer.Joblib}
		}
	}
	return all, w
}

// look looks at the base, and refuses a model that would not load in it.
func (v *oven) look(ctx context.Context, k *image.Baking) error {
	v.tellBase()
	pins, err := v.readRequirements()
	if err != nil {
		return err
	}
	o := image.LookOptions{Packages: []string{}, Cache: oci.LookCache(v.env)}
	for _, m := range v.models {
		all, _ := m.packages()
		for _, p := range all {
			if pins == nil {
				o.Packages = append(o.Packages, cmp.Or(p.Name, p.Import))
			}
		}
	}
	progress, stop := v.progress("")
	defer stop()
	var reading oci.Event
	o.Known = v.remembered(ctx)
	o.Announce = func(_ *image.Image, d v1.Descriptor) {
		v.note("look      reading %s of the base, once: layer %s", bytesText(d.Size), oci.Short(d.Digest))
		if reading = (oci.Event{Descriptor: d, Name: "look at layer " + oci.Short(d.Digest)}); progress != nil {
			progress(reading)
		}
	}
	o.Read = func(n int) {
		if progress != nil {
			e := reading
			e.Kind, e.Bytes = oci.Moved, int64(n)
			progress(e)
		}
	}
	if err := k.Look(ctx, o); err != nil {
		return v.failed(err)
	}
	return v.checkFit(k, pins)
}

// remembered returns what finds a look in an image that was baked from the same
// base before, for a cold cache.
func (v *oven) remembered(ctx context.Context) func(*image.Image) *image.Look {
	if v.dst == nil {
		return nil
	}
	var former []*image.Base
	opened := false
	return func(i *image.Image) *image.Look {
		if !opened {
			opened = true
			former = v.former(ctx)
		}
		for _, b := range former {
			if l := image.Remembered(b)(i); l != nil {
				return l
			}
		}
		return nil
	}
}

// former opens images that are in the destination already. None is fine.
func (v *oven) former(ctx context.Context) []*image.Base {
	const most = 3
	var former []*image.Base
	for _, tag := range oci.FormerTags(ctx, v.dst.Target, v.tags, most) {
		root, src, err := oci.Find(ctx, v.dst.Target, tag)
		if err != nil {
			continue
		}
		if b, err := image.Open(ctx, src, root, image.OpenOptions{}); err == nil {
			former = append(former, b)
		}
	}
	return former
}

// readRequirements reads --requirements, if it is given.
func (v *oven) readRequirements() (*image.Look, error) {
	if v.o.requirements == "" {
		return nil, nil
	}
	var in io.Reader = v.in
	if v.o.requirements != "-" {
		f, err := openRegular(v.o.requirements)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", v.o.requirements, pathCause(err))
		}
		defer f.Close()
		in = f
	}
	l, err := image.ParseRequirements(in)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("read %s: %v", v.o.requirements, err)}
	}
	return l, nil
}

// checkFit compares what each model needs with what each platform has.
func (v *oven) checkFit(k *image.Baking, pins *image.Look) error {
	for _, m := range v.models {
		packages, writers := m.packages()
		if len(packages) == 0 {
			continue
		}
		var fits []platformFit
		for n, i := range k.Base.Images {
			l, platform := pins, []string{i.Platform()}
			if l == nil && k.Looks != nil {
				l = k.Looks[n]
			}
			if l == nil {
				break
			}
			fits = addFit(fits, platformFit{m.name, platform, l.Python, l.Pythons, image.CheckFit(l, packages, writers)})
		}
		v.fits = append(v.fits, fits...)
		if err := v.judgeFit(m, fits); err != nil {
			return err
		}
	}
	if len(v.fits) == 0 && v.o.noLook {
		v.note("runtime   not checked: --no-look")
	}
	return nil
}

// addFit puts platforms that fit alike together.
func addFit(fits []platformFit, f platformFit) []platformFit {
	for n, old := range fits {
		same := old
		same.Platforms = f.Platforms
		if reflect.DeepEqual(same, f) {
			fits[n].Platforms = append(slices.Clone(old.Platforms), f.Platforms...)
			return fits
		}
	}
	return append(fits, f)
}

// judgeFit tells how a model fits, or refuses it.
func (v *oven) judgeFit(m *ingredient, fits []platformFit) error {
	refused := &fitError{m.ref, fits}
	if !slices.ContainsFunc(fits, func(f platformFit) bool { return f.refused() }) {
		refused = nil
	}
	if refused != nil && !slices.Contains(v.o.allowMismatch, "runtime") {
		return refused
	}
	for _, f := range fits {
		v.tellFit(m, f, len(fits) > 1)
	}
	if refused != nil {
		for line := range strings.Lines(strings.TrimPrefix(refused.Error(), "bake ")) {
			v.warned("allowed to differ: runtime: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// tellFit tells what the base has for a model.
func (v *oven) tellFit(m *ingredient, f platformFit, several bool) {
	var has, notes []string
	if f.Python != "" {
		has = append(has, "Python "+f.Python)
	}
	for _, p := range f.Packages {
		switch p.Outcome {
		case image.Fits, image.Patch:
			has = append(has, strings.TrimSpace(p.Package+" "+p.Have))
		case image.Unknown:
			notes = append(notes, fmt.Sprintf("whether the base has %s cannot be told", strings.TrimSpace(p.Package+" "+p.Want)))
		}
		if p.Outcome == image.Patch {
			notes = append(notes, fmt.Sprintf("the model was made with %s %s", p.Package, p.Want))
		}
	}
	text := strings.Join(has, ", ")
	if several {
		text += " (" + strings.Join(f.Platforms, ", ") + ")"
	}
	if m.name != "" {
		text = m.name + ": " + text
	}
	v.note("runtime   %s", printable(text))
	for _, n := range notes {
		v.note("note      %s", printable(n))
	}
}
