package manifest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/joblib"
	"galley/manifest/training"
)

// Info is what an artifact tells of its model. It is what whoever pushed it
// claims; strings may hold anything.
type Info struct {
	Name, Version    string
	Revision, Source string
	Created          string   // RFC 3339
	Trained          string   // RFC 3339, or without a zone where none was known
	Class            string   // module.name of the estimator
	Steps            []string // classes of a pipeline's
	Sklearn          []string // version stamps in the model
	Numpy, Joblib    string   // the generations that wrote it: "2", ">=1.2,<1.5"
	Imports          []string // top-level modules that loading imports
	Scan             string   // the verdict when it was pushed; see [joblib.Verdict]
	Content          digest.Digest
	Features         int           // how many; -1: unknown
	FeaturesDigest   digest.Digest // the feature contract
	Metrics          []training.Metric
	Omitted          int // further metrics that only the summary has
}

// Info reads the manifest's annotations. What is missing or broken in them is
// left empty.
func (a *Artifact) Info() Info {
	an := a.Manifest.Annotations
	i := Info{
		Name: an[v1.AnnotationTitle], Version: an[v1.AnnotationVersion],
		Revision: an[v1.AnnotationRevision], Source: an[v1.AnnotationSource],
		Created: an[v1.AnnotationCreated], Trained: an[AnnotationTrained],
		Class:          an[AnnotationModelClass],
		Steps:          commas(an[AnnotationModelSteps]),
		Sklearn:        commas(an[AnnotationModelSklearn]),
		Numpy:          an[AnnotationModelNumpy],
		Joblib:         an[AnnotationModelJoblib],
		Imports:        commas(an[AnnotationModelImports]),
		Scan:           an[AnnotationModelScan],
		Content:        digest.Digest(an[AnnotationContent]),
		Features:       count(an[AnnotationFeaturesCount], -1),
		FeaturesDigest: digest.Digest(an[AnnotationFeaturesDigest]),
		Omitted:        count(an[AnnotationMetricsOmitted], 0),
	}
	for _, key := range slices.Sorted(maps.Keys(an)) {
		path, ok := strings.CutPrefix(key, AnnotationMetric)
		if !ok {
			continue
		}
		if m, err := training.ParseMetric(path, an[key]); err == nil {
			i.Metrics = append(i.Metrics, m)
		}
	}
	return i
}

// Time is when the model was trained; the zero time if that is unknown. A time
// without a zone counts as UTC.
func (i Info) Time() time.Time {
	for _, format := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(format, i.Trained); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// Requirements returns what has to be installed to load the model, as lines of a
// requirements file.
func (i Info) Requirements() []string {
	return joblib.Requirements(joblib.Packages(i.Imports, i.Sklearn))
}

// commas splits a list; none of its elements holds a comma.
func commas(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func count(s string, missing int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return missing
	}
	return n
}

// maxGlance bounds the JSON layers of other tools that [Artifact.Describe]
// reads, in bytes.
const maxGlance = 1 << 20

// Describe is [Artifact.Info], filled in from the features and summary layers
// where another tool made the artifact and did not annotate it. It fetches
// these small files from src, and nothing else. JSON that cannot be understood
// tells nothing.
func (a *Artifact) Describe(ctx context.Context, src Fetcher) (Info, error) {
	f := a.Facts()
	if f.Info.Content != "" {
		return f.Info, nil
	}
	for _, l := range a.Layers {
		if l.Format != FormatRaw || l.Descriptor.Size > maxGlance || !l.Role.IsJSON() {
			continue
		}
		data, err := ReadBlob(ctx, src, l.Descriptor, "layer "+l.Title, maxGlance)
		if err != nil {
			return f.Info, err
		}
		_ = f.AddJSON(l.Role, l.Title, data, "") // what is not understood tells nothing
	}
	return f.Info, nil
}

// ModelFeatures is how many features the model takes; -1: unknown. It is a claim,
// as [Artifact.Info] is.
func (a *Artifact) ModelFeatures() int {
	return count(a.Manifest.Annotations[AnnotationModelFeatures], -1)
}
