package manifest

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/contract"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// facts is what the files say about the model.
type facts struct {
	model    *source        // nil when there is none
	report   *joblib.Report // of it, after the files were read
	main     *joblib.Model  // what it is about; nil: unknown
	scans    []Scan
	fit      contract.Result
	features *training.Features
	summary  *training.Summary
	params   map[string]any // parameters of the model, by the summary
	names    *source        // the features file
	warnings []string
}

// FileError is a features or summary file that cannot be read as JSON.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("read %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// readFacts reads the JSON files.
func readFacts(files []*source, o PackOptions) (*facts, error) {
	f := &facts{}
	for _, s := range files {
		var err error
		switch {
		case s.Role == RoleModel && f.model == nil:
			f.model = s
		case s.Role == RoleFeatures && f.features == nil:
			f.names = s
			err = s.readJSON(func(data []byte) (err error) {
				f.features, err = training.ParseFeatures(data, o.FeaturesPath)
				return err
			})
		case s.Role == RoleSummary && f.summary == nil:
			err = s.readJSON(func(data []byte) (err error) {
				f.summary, err = training.ParseSummary(data)
				f.params = contract.Params(data)
				return err
			})
		}
		if err != nil {
			return nil, err
		}
	}
	f.check()
	return f, nil
}

// readJSON reads the file, which it keeps for the first read of its layer.
func (s *source) readJSON(parse func([]byte) error) error {
	if s.size > training.MaxSize {
		return &FileError{s.Path, &training.SizeError{Size: s.size, Max: training.MaxSize}}
	}
	file, err := s.Open()
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, training.MaxSize))
	if err != nil {
		return fmt.Errorf("pack %s: %w", s.Path, err)
	}
	s.data = data
	if err := parse(data); err != nil {
		return &FileError{s.Path, err}
	}
	return nil
}

// check compares what the files say about one another.
func (f *facts) check() {
	if f.features != nil && f.features.Note != "" {
		f.warnings = append(f.warnings, f.features.Note)
	}
	if f.summary == nil {
		return
	}
	f.warnings = append(f.warnings, f.summary.Warnings...)
	if f.features == nil || f.features.Names == nil || f.summary.FeatureCount < 0 {
		return
	}
	if n := len(f.features.Names); n != f.summary.FeatureCount {
		f.warnings = append(f.warnings, fmt.Sprintf("the summary counts %d features, the features file lists %d", f.summary.FeatureCount, n))
	}
}

// inspected takes in what was found in the files as they were read.
func (f *facts) inspected(files []*source) {
	for _, s := range files {
		if s.report != nil {
			f.scans = append(f.scans, Scan{s.Path, s.Role, s.report})
		}
	}
	if f.model == nil {
		return
	}
	f.look(f.model.report)
	f.fit = contract.Check(f.contract(files))
	for _, w := range f.report.Warnings {
		f.warnings = append(f.warnings, f.model.Path+": "+w)
	}
	f.warnings = append(f.warnings, f.fit.Warnings...)
}

// look takes in what is in the model file.
func (f *facts) look(r *joblib.Report) {
	f.report = r
	if m := contract.Predictors(r); len(m) == 1 {
		f.main = m[0]
	}
}

// contract is what has to fit together.
func (f *facts) contract(files []*source) contract.Input {
	in := contract.Input{Model: f.report, Params: f.params}
	if f.features != nil {
		in.Features, in.Note = f.features.Names, f.features.Note
	}
	for _, s := range files {
		switch {
		case s.Role == RolePart && s.report != nil:
			in.Parts = append(in.Parts, s.report)
		case s.Role == RoleFeatures && in.FeaturesFile == "":
			in.FeaturesFile = s.Path
		case s.Role == RoleSummary && in.SummaryFile == "":
			in.SummaryFile = s.Path
		}
	}
	return in
}

// class is module.name of the model's class.
func (f *facts) class() string {
	switch {
	case f.main != nil:
		return f.main.Class
	case f.report != nil:
		return f.report.Peek.Class
	}
	return ""
}

func (f *facts) format() string {
	if f.model == nil {
		return ""
	}
	return string(f.report.Format)
}

func (f *facts) trained(o PackOptions) string {
	switch {
	case o.Trained != "":
		return o.Trained
	case f.summary != nil && f.summary.Trained != "":
		return f.summary.Trained
	case f.features != nil:
		return f.features.Trained
	}
	return ""
}

func (f *facts) metrics() []training.Metric {
	if f.summary == nil {
		return nil
	}
	return f.summary.Metrics
}

// annotations are the manifest's. Values that are unknown are left out.
func (f *facts) annotations(files []*source, o PackOptions) map[string]string {
	a := map[string]string{
		v1.AnnotationTitle:    o.Name,
		v1.AnnotationVersion:  o.Version,
		v1.AnnotationRevision: o.Revision,
		v1.AnnotationSource:   o.Source,
		AnnotationTrained:     f.trained(o),
		AnnotationModelClass:  f.class(),
		AnnotationContent:     f.content(files).String(),
	}
	if !o.Created.IsZero() {
		a[v1.AnnotationCreated] = o.Created.UTC().Format(time.RFC3339)
	}
	if f.model != nil {
		f.describeModel(a)
		a[AnnotationModelDigest] = f.model.sum.Encoded()
		a[AnnotationModelSize] = strconv.FormatInt(f.model.size, 10)
	}
	if f.features != nil && f.features.Names != nil {
		a[AnnotationFeaturesCount] = strconv.Itoa(len(f.features.Names))
		a[AnnotationFeaturesDigest] = f.features.Digest().String()
	}
	chosen, omitted := training.Select(f.metrics(), o.MetricsFirst, maxMetrics)
	for _, m := range chosen {
		a[AnnotationMetric+m.Path] = m.String()
	}
	if omitted > 0 {
		a[AnnotationMetricsOmitted] = strconv.Itoa(omitted)
	}
	maps.Copy(a, o.Annotations)
	maps.DeleteFunc(a, func(_, v string) bool { return v == "" })
	return a
}

// Bounds of what is told of the model, which is whatever its author wrote.
const (
	maxSteps   = 32
	maxImports = 64
)

// describeModel adds what was read from the model file. The verdict is that of
// all files that are unpickled.
func (f *facts) describeModel(a map[string]string) {
	a[AnnotationModelScan] = Worst(f.scans).String()
	var allowed []string
	for _, s := range f.scans {
		allowed = append(allowed, s.Report.Allowed...)
	}
	slices.Sort(allowed)
	a[AnnotationModelAllowed] = strings.Join(slices.Compact(allowed), ",")
	a[AnnotationModelSklearn] = strings.Join(f.report.Sklearn, ",")
	a[AnnotationModelNumpy], a[AnnotationModelJoblib] = f.report.Writer.Numpy, f.report.Writer.Joblib
	a[AnnotationModelImports] = strings.Join(f.report.Imports()[:min(maxImports, len(f.report.Imports()))], ",")
	if f.main == nil {
		return
	}
	if f.main.Features >= 0 {
		a[AnnotationModelFeatures] = strconv.Itoa(f.main.Features)
	}
	var steps []string
	for _, p := range f.main.Parts {
		if strings.HasSuffix(f.main.Class, "Pipeline") && len(steps) < maxSteps && p.Class != "" {
			steps = append(steps, p.Class)
		}
	}
	a[AnnotationModelSteps] = strings.Join(steps, ",")
}

// content is the digest of what the model is: where its files lie and their
// bytes, the ordered feature names and the metrics. FORMAT.md has the form.
func (f *facts) content(files []*source) digest.Digest {
	c := struct {
		Features any               `json:"features"`
		Files    [][2]string       `json:"files"`
		Metrics  map[string]string `json:"metrics"`
	}{Metrics: make(map[string]string)}
	for _, s := range files {
		if s.Role == RoleModel || s.Role == RolePart {
			c.Files = append(c.Files, [2]string{s.Path, s.sum.Encoded()})
		}
	}
	switch {
	case f.features != nil && f.features.Names != nil:
		c.Features = f.features.Names
	case f.features != nil:
		c.Features = f.names.sum.Encoded()
	}
	for _, m := range f.metrics() {
		c.Metrics[m.Path] = m.String()
	}
	text, _ := marshal(c) // strings always marshal
	return digest.FromBytes(text)
}
