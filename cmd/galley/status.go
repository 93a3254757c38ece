package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
	"galley/oci/promote"
)

func (a *app) statusCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [REPO]",
		Short: "Show what every stage has now",
		Long: `Status shows the stages of a repository, those of galley.yaml and those that have
a history, a line each: what it has, since when, the first metric, and what is
odd: a hold, a promotion that was interrupted (pending), a tag that somebody moved
outside galley, and how it differs from the stage before it.

It reads the tags, and two manifests for each stage. Without REPO it is galley.yaml's.`,
		Example: `  galley status
  galley status ghcr.io/acme/fraud-detector --format json`,
		GroupID: groupLook,
		Args:    atLeast(0, "REPO"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.status(cmd.Context(), args) },
	}
	a.registryFlags(cmd.Flags())
	a.concurrencyFlag(cmd.Flags())
	a.formatFlag(cmd.Flags())
	return cmd
}

// statusJSON is the JSON of status. Fields are only ever added.
type statusJSON struct {
	Repository string            `json:"repository"`
	Stages     []stageStatusJSON `json:"stages"`
}

type stageStatusJSON struct {
	Stage   string         `json:"stage"`
	Digest  string         `json:"digest,omitempty"` // what the tag names
	Model   string         `json:"model,omitempty"`  // the artifact that is, or that it carries
	Version string         `json:"version,omitempty"`
	Image   string         `json:"image,omitempty"`
	Since   *time.Time     `json:"since,omitempty"`
	Trained string         `json:"trained,omitempty"`
	Metrics map[string]any `json:"metrics,omitempty"`
	Hold    bool           `json:"hold"`
	Pending bool           `json:"pending"`
	Outside bool           `json:"movedOutsideGalley"`
	Behind  string         `json:"behind,omitempty"` // the stage before, which has something else
	Error   string         `json:"error,omitempty"`  // why the newest event cannot be read
}

func (a *app) status(ctx context.Context, args []string) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	repository := ":"
	if len(args) == 1 {
		repository = args[0]
	}
	if repository == ":" {
		var err error
		if repository, err = a.repository("."); err != nil {
			return err
		}
		if repository == "" {
			return &usageError{msg: "the stages of which repository?", hint: "galley status registry.example.com/team/model"}
		}
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	s, err := a.openStage(ctx, repository, "", config, false)
	if err != nil {
		return err
	}
	if ref := s.place.ref; ref.Tag != "" || ref.Digest != "" {
		return &usageError{msg: fmt.Sprintf("%q: status is about a repository", repository), hint: "galley status " + ref.Name()}
	}
	list, err := promote.StatusOf(ctx, s.Repository, s.Tags, s.Record, config.StageNames, a.flags.concurrency)
	if err != nil {
		return s.place.explain("read the stages of", err)
	}
	if len(list) == 0 {
		a.note("no stages: %s has no history, and galley.yaml names none", s.place.ref)
	}
	j := statusJSON{s.Repository, []stageStatusJSON{}}
	rows := [][]string{{"stage", "version", "digest", "since", metricHeading(list, config), ""}}
	for i := range list {
		e := stageStatus(&list[i], list, config)
		j.Stages = append(j.Stages, e)
		rows = append(rows, a.statusRow(&list[i], e, config, s.Record.Now()))
	}
	text := ""
	if len(list) > 0 {
		text = table(rows, "")
	}
	return a.show(j, text)
}

// stageStatus is what the answer says of a stage.
func stageStatus(st *promote.Status, all []promote.Status, config *project.Config) stageStatusJSON {
	e := stageStatusJSON{
		Stage: st.Stage, Digest: st.At.Digest.String(), Version: st.Version, Hold: st.Held(), Pending: st.Pending(), Outside: st.Outside(),
	}
	if st.Fault != nil {
		e.Error = st.Fault.Error()
	}
	if st.Last != nil && st.Last.To == st.At.Digest {
		e.Image = st.Last.Image
		e.Since = &st.Last.Time
	}
	if st.Subject != nil {
		info := st.Subject.Facts.Info
		e.Model, e.Trained, e.Metrics = st.Subject.Model.String(), info.Trained, metricsJSON(info.Metrics)
		e.Version = cmp.Or(e.Version, info.Version)
	}
	before := config.Stages[st.Stage].From
	i := slices.IndexFunc(all, func(o promote.Status) bool { return o.Stage == before })
	if i >= 0 && all[i].Subject != nil && (st.Subject == nil || all[i].Subject.Model != st.Subject.Model) {
		e.Behind = before
	}
	return e
}

// statusRow is the line of a stage.
func (a *app) statusRow(st *promote.Status, e stageStatusJSON, config *project.Config, now time.Time) []string {
	if e.Digest == "" && st.Last == nil && st.Fault == nil {
		return []string{cell(e.Stage), "empty"}
	}
	since := ""
	if st.Last != nil {
		since = ago(now.Sub(st.Last.Time)) + " ago"
	}
	digest := oci.Short(st.At.Digest)
	if digest == "" {
		digest = "no tag"
	}
	var odd []string
	if e.Hold {
		odd = append(odd, "on hold")
	}
	if e.Pending {
		odd = append(odd, "pending: "+cell(eventVersion(st.Last.Version, st.Last.To)))
	}
	if e.Outside {
		odd = append(odd, "moved outside galley")
	}
	if st.Last == nil && st.Fault == nil {
		odd = append(odd, "no history")
	}
	if e.Error != "" {
		odd = append(odd, printable(e.Error))
	}
	if e.Behind != "" {
		odd = append(odd, "behind "+e.Behind)
	}
	metric := ""
	if st.Subject != nil {
		if m, ok := statusMetric(st.Subject.Facts.Info.Metrics, config); ok {
			metric = metricText(m)
		}
	}
	return []string{cell(e.Stage), cell(e.Version), digest, since, metric, strings.Join(odd, ", ")}
}

// statusMetric is the first metric of galley.yaml, or else of the model.
func statusMetric(metrics []training.Metric, config *project.Config) (training.Metric, bool) {
	if len(config.MetricNames) > 0 {
		m, err := training.Find(metrics, config.MetricNames[0], aliasesOf(config))
		return m, err == nil
	}
	for _, m := range metrics {
		if !m.OnTraining() {
			return m, true
		}
	}
	return training.Metric{}, false
}

// metricHeading names that metric, if the stages agree on it.
func metricHeading(all []promote.Status, config *project.Config) string {
	if len(config.MetricNames) > 0 {
		return cell(config.MetricNames[0])
	}
	for _, st := range all {
		if st.Subject == nil {
			continue
		}
		if m, ok := statusMetric(st.Subject.Facts.Info.Metrics, config); ok {
			return cell(m.Path[strings.LastIndexByte(m.Path, '.')+1:])
		}
	}
	return ""
}

// aliasesOf are the paths by alias.
func aliasesOf(config *project.Config) map[string]string {
	alias := make(map[string]string, len(config.Metrics))
	for name, m := range config.Metrics {
		alias[name] = m.Path
	}
	return alias
}
