package main

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"slices"

	"galley/manifest/joblib"
)

// The part of SARIF 2.1.0 that scans need
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifInvocation struct {
		Successful bool `json:"executionSuccessful"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID    string    `json:"id"`
		Short sarifText `json:"shortDescription"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		Rule      string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		Offset int64 `json:"byteOffset"`
	}
)

// writeSARIF writes the findings as a SARIF log. Offsets are of the file as it
// is loaded, uncompressed, so that they are left out where it is compressed; a
// file of an artifact lies below the reference. whole says that everything could
// be read.
func writeSARIF(w io.Writer, files []scannedFile, whole bool) error {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "galley", Rules: []sarifRule{}}},
		Invocations: []sarifInvocation{{whole}}, Results: []sarifResult{},
	}
	var used []joblib.Rule
	for _, f := range files {
		for _, finding := range f.Findings {
			if !slices.Contains(used, finding.Rule) {
				used = append(used, finding.Rule)
			}
			text := finding.Message
			if finding.Global != "" {
				text = quoted(finding.Global) + ": " + text
			}
			at := sarifPhysical{Artifact: sarifArtifact{(&url.URL{Path: filepath.ToSlash(f.File)}).String()}}
			if finding.Offset >= 0 && f.Compression == "" {
				at.Region = &sarifRegion{finding.Offset}
			}
			where := sarifLocation{Physical: at}
			if f.Reference != "" {
				where.Logical = []sarifLogical{{f.Reference}}
			}
			run.Results = append(run.Results, sarifResult{
				Rule: string(finding.Rule), Level: sarifLevel(finding.Verdict), Message: sarifText{printable(text)},
				Locations: []sarifLocation{where},
			})
		}
	}
	slices.Sort(used)
	for _, r := range used {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{string(r), sarifText{r.Describe()}})
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

// sarifLevel is error for what is refused, warning for what is not.
func sarifLevel(v joblib.Verdict) string {
	if v.Refused(false) {
		return "error"
	}
	return "warning"
}
