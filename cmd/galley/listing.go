package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"galley/manifest"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
)

// listing is what ls shows of a repository.
type listing struct {
	repository string
	alias      map[string]string
	columns    []string
	versions   []oci.Version
	named      map[digest.Digest]string // what the artifacts are called, for their images
	trend      string
	dim        bool // show what is no model in a fainter colour
}

func newListing(repository string, config *project.Config) *listing {
	l := &listing{repository: repository, alias: make(map[string]string)}
	for name, m := range config.Metrics {
		l.alias[name] = m.Path
	}
	return l
}

// versionsByDigest are the first tags of all models.
func versionsByDigest(versions []oci.Version) map[digest.Digest]string {
	named := make(map[digest.Digest]string, len(versions))
	for _, v := range versions {
		if len(v.Baked) == 0 {
			named[v.Digest] = v.Tags[0]
		}
	}
	return named
}

func (l *listing) text() string {
	if len(l.versions) == 0 {
		return ""
	}
	head := []string{"version", "trained", "class", "scikit-learn"}
	for _, c := range l.columns {
		head = append(head, cell(l.heading(c)))
	}
	rows := [][]string{append(head, "size")}
	for i := range l.versions {
		rows = append(rows, l.row(&l.versions[i]))
	}
	lines := strings.Split(table(rows, ""), "\n")
	for i, v := range l.versions {
		switch {
		case len(v.Baked) > 0:
			lines[i+1] += "  " + l.imageText(v.Baked)
		case v.Err != nil:
			lines[i+1] += "  " + whyNoModel(v.Err)
		}
		if v.Err != nil && l.dim {
			lines[i+1] = "\x1b[2m" + lines[i+1] + "\x1b[0m"
		}
	}
	return strings.Join(lines, "\n") + l.trend
}

func (l *listing) row(v *oci.Version) []string {
	tags := cell(tagsText(v))
	if v.Err != nil {
		return []string{tags}
	}
	row := []string{tags, cell(trainedText(v.Trained)), cell(shortClass(v.Class)), cell(strings.Join(v.Sklearn, ", "))}
	for _, c := range l.columns {
		text := ""
		if m, ok := l.metric(v, c); ok {
			text = metricText(m)
		}
		row = append(row, text)
	}
	return append(row, bytesText(v.Size))
}

// tagsText are the tags of a version, stages in brackets behind the others.
func tagsText(v *oci.Version) string {
	var tags, stages []string
	for _, tag := range v.Tags {
		if slices.Contains(v.Stages, tag) {
			stages = append(stages, "["+tag+"]")
		} else {
			tags = append(tags, tag)
		}
	}
	return strings.Join(append(tags, stages...), ", ")
}

// imageText says of which models an image is.
func (l *listing) imageText(baked []oci.BakedModel) string {
	var models []string
	for _, m := range baked {
		text := l.named[m.Artifact]
		if text == "" {
			text = "sha256:" + oci.Short(m.Artifact)
		}
		if m.Name != "" {
			text = m.Name + "=" + text
		}
		models = append(models, text)
	}
	return "image of " + cell(strings.Join(models, ", "))
}

// whyNoModel is what a line says instead of what the model is.
func whyNoModel(err error) string {
	if e, ok := errors.AsType[*manifest.NotArtifactError](err); ok {
		return "not a model: " + e.What
	}
	return printable("not readable: " + err.Error())
}

func (l *listing) metric(v *oci.Version, name string) (training.Metric, bool) {
	m, err := training.Find(v.Metrics, name, l.alias)
	return m, err == nil
}

// heading is the metric's last key, if that tells it from the others.
func (l *listing) heading(name string) string {
	short := name[strings.LastIndexByte(name, '.')+1:]
	for _, c := range l.columns {
		if c != name && strings.HasSuffix(c, "."+short) {
			return name
		}
	}
	return short
}

func metricText(m training.Metric) string {
	if m.IsBool {
		return m.String()
	}
	return strconv.FormatFloat(m.Value, 'g', 4, 64)
}

// maxCell is the longest cell, in characters.
const maxCell = 60

// cell makes a foreign text fit for a column.
func cell(s string) string {
	r := []rune(printable(s))
	if len(r) > maxCell {
		r = append(r[:maxCell-1], '…')
	}
	return string(r)
}

// maxTrend is how many versions a trend line shows.
const maxTrend = 40

// trendLine shows the first metric of the versions, which come newest first.
func (l *listing) trendLine(versions []oci.Version) string {
	if len(l.columns) == 0 {
		return ""
	}
	var values []float64
	for i := range versions {
		if len(versions[i].Baked) > 0 {
			continue // its model has its own place
		}
		if m, ok := l.metric(&versions[i], l.columns[0]); ok && !versions[i].Time().IsZero() && len(values) < maxTrend {
			values = append(values, m.Value)
		}
	}
	if len(values) < 2 {
		return ""
	}
	slices.Reverse(values)
	return fmt.Sprintf("\n%s %s  %.4g → %.4g\n", cell(l.heading(l.columns[0])), trend(values), values[0], values[len(values)-1])
}

// trend draws finite values as bars from the lowest to the highest; equal ones
// are all of middle height.
func trend(values []float64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := len(bars) / 2
		if low < high {
			// Halves, because the difference may be out of range.
			i = int(math.Round((v/2 - low/2) / (high/2 - low/2) * float64(len(bars)-1)))
		}
		b.WriteRune(bars[i])
	}
	return b.String()
}

// listingJSON is the JSON of ls REPO. Fields are only ever added.
type listingJSON struct {
	Repository string        `json:"repository"`
	Versions   []versionJSON `json:"versions"`
}

type versionJSON struct {
	Tags     []string       `json:"tags"`
	Stages   []string       `json:"stages,omitempty"` // those of the tags that only promotion moves
	Digest   string         `json:"digest"`
	Name     string         `json:"name,omitempty"`
	Version  string         `json:"version,omitempty"`
	Trained  string         `json:"trained,omitempty"`
	Created  string         `json:"created,omitempty"`
	Revision string         `json:"revision,omitempty"`
	Class    string         `json:"class,omitempty"`
	Sklearn  []string       `json:"sklearn,omitempty"`
	Scan     string         `json:"scan,omitempty"`
	Content  string         `json:"content,omitempty"`
	Features *featuresJSON  `json:"features,omitempty"`
	Metrics  map[string]any `json:"metrics,omitempty"`
	Size     *int64         `json:"size,omitempty"`
	Image    []bakedJSON    `json:"image,omitempty"` // the models in an image that galley baked
	Error    string         `json:"error,omitempty"` // why it is no model
}

type bakedJSON struct {
	Name    string `json:"name,omitempty"`    // where there are several
	Digest  string `json:"digest"`            // of the model's artifact
	Version string `json:"version,omitempty"` // its first tag, where it is in the repository
}

func (l *listing) json() listingJSON {
	j := listingJSON{l.repository, []versionJSON{}}
	for i := range l.versions {
		v := &l.versions[i]
		e := versionJSON{
			Tags: v.Tags, Stages: v.Stages, Digest: v.Digest.String(), Name: v.Name, Version: v.Version, Trained: v.Trained, Created: v.Created,
			Revision: v.Revision, Class: v.Class, Sklearn: v.Sklearn, Scan: v.Scan, Content: v.Content.String(), Metrics: metricsJSON(v.Metrics),
		}
		if v.Features >= 0 {
			e.Features = &featuresJSON{v.Features, v.FeaturesDigest.String()}
		}
		if v.Size >= 0 {
			e.Size = &v.Size
		}
		for _, m := range v.Baked {
			e.Image = append(e.Image, bakedJSON{m.Name, m.Artifact.String(), l.named[m.Artifact]})
		}
		if v.Err != nil {
			e.Error = v.Err.Error()
		}
		j.Versions = append(j.Versions, e)
	}
	return j
}

func metricsJSON(metrics []training.Metric) map[string]any {
	m := make(map[string]any, len(metrics))
	for _, metric := range metrics {
		if m[metric.Path] = metric.Value; metric.IsBool {
			m[metric.Path] = metric.Value != 0
		}
	}
	return m
}
