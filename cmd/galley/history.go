package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"galley/manifest/gate"
	"galley/oci"
	"galley/oci/promote"
)

type historyOptions struct {
	at, since, until string
	csv              bool
}

func (a *app) historyCmd() *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history REPO:STAGE",
		Short: "Show what was in a stage, when, and who moved it",
		Long: `History shows every event of a stage, newest first, from the registry alone: when,
who (as they claim), from what to what, the gates, the reason and the CI run. What
somebody moved outside galley is a row, too.

Each event names the one before by its digest. History says where that chain is
broken (exit 3). That the newest events were removed shows only by the tag, which
is then elsewhere than the history says, as if it had been moved.

--at, --since and --until answer what was in the stage then. Times are UTC; a
date is the whole day, 2026-03 the whole month.`,
		Example: `  galley history :production
  galley history ghcr.io/acme/fraud-detector production --at 2026-03-31
  galley history :production --since 2026-03 --until 2026-03 --format csv`,
		GroupID: groupLook,
		Args:    atLeast(1, "REPO:STAGE", "STAGE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.history(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.at, "at", "", "only what was there at this `time`")
	f.StringVar(&o.since, "since", "", "only what was there at this `time` or later")
	f.StringVar(&o.until, "until", "", "only what was there until this `time`")
	a.registryFlags(f)
	a.concurrencyFlag(f)
	f.StringVar(&a.flags.format, "format", "text", "`text`, json, csv or go-template=TEMPLATE")
	return cmd
}

// historyJSON is the JSON of history. Fields are only ever added.
type historyJSON struct {
	Repository string            `json:"repository"`
	Stage      string            `json:"stage"`
	Now        string            `json:"now,omitempty"` // what the tag names
	Pending    bool              `json:"pending,omitempty"`
	Hold       bool              `json:"hold"`
	Rows       []rowJSON         `json:"rows"` // newest first
	Problems   []promote.Problem `json:"problems"`
}

type rowJSON struct {
	*promote.Event
	Tag     string     `json:"tag,omitempty"`
	Digest  string     `json:"digest,omitempty"`  // of the event
	Outside string     `json:"outside,omitempty"` // what the tag was moved to outside galley
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
}

func (a *app) history(ctx context.Context, args []string, o historyOptions) error {
	if o.csv = a.flags.format == "csv"; !o.csv {
		if err := a.checkFormat(); err != nil {
			return &usageError{msg: fmt.Sprintf("--format %q: want text, json, csv or go-template=TEMPLATE", a.flags.format)}
		}
	}
	since, until, err := o.span()
	if err != nil {
		return err
	}
	s, _, err := a.stage(ctx, args, false)
	if err != nil {
		return err
	}
	h, err := s.History(ctx, a.flags.concurrency)
	if err == nil && len(h.Events) == 0 && len(h.Problems) == 0 {
		err = s.Unknown(h.State)
	}
	if err != nil {
		return s.explain("read the history of", err)
	}
	rows := promote.Between(h.Rows(), since, until)
	slices.Reverse(rows)
	if err := a.showHistory(s, h, rows, o); err != nil {
		return err
	}
	for _, p := range h.Notes {
		a.note("%s", printable(p.String()))
	}
	for _, p := range h.Problems {
		a.warn("%s", printable(p.String()))
	}
	if len(h.Problems) > 0 {
		return s.explain("verify the history of", &brokenHistory{len(h.Problems)})
	}
	return nil
}

// brokenHistory is a history that was edited or cut.
type brokenHistory struct{ problems int }

func (e *brokenHistory) Error() string {
	return "the chain is broken: " + plural(e.problems, "problem")
}

// span is the time that the flags name.
func (o *historyOptions) span() (since, until time.Time, err error) {
	if o.at != "" && o.since+o.until != "" {
		return since, until, &usageError{msg: "--at is a time, --since and --until are a span: want one or the other"}
	}
	parse := func(flag, text string) (from, to time.Time) {
		if text == "" || err != nil {
			return from, to
		}
		from, to, perr := promote.ParseTime(text)
		if perr != nil {
			err = &usageError{msg: flag + ": " + perr.Error()}
		}
		return from, to
	}
	if o.at != "" {
		since, until = parse("--at", o.at)
		return since, until, err
	}
	since, _ = parse("--since", o.since)
	_, until = parse("--until", o.until)
	if err == nil && !since.IsZero() && !until.IsZero() && !since.Before(until) {
		err = &usageError{msg: "--since is after --until"}
	}
	return since, until, err
}

func (a *app) showHistory(s *stagePlace, h *promote.History, rows []promote.Row, o historyOptions) error {
	if o.csv {
		return a.historyCSV(rows)
	}
	j := historyJSON{
		Repository: s.place.ref.Name(), Stage: s.Name, Now: h.State.At.Digest.String(), Pending: h.State.Pending(), Hold: h.State.Held(),
		Rows: []rowJSON{}, Problems: notNilProblems(h.Problems),
	}
	var text strings.Builder
	for _, r := range rows {
		row := rowJSON{Event: r.Event, Outside: r.Outside.String(), Since: r.Since}
		if !r.Until.IsZero() {
			row.Until = &r.Until
		}
		if r.Event != nil {
			row.Tag, row.Digest = r.Event.Tag, r.Event.Digest.String()
		}
		j.Rows = append(j.Rows, row)
		text.WriteString(timelineText(r))
	}
	if len(rows) == 0 {
		a.note("nothing was in %s then", s.Name)
	}
	if h.State.Pending() {
		a.note("pending: the newest event was recorded and the tag not moved; the next promotion or rollback does so")
	}
	return a.show(j, text.String())
}

func notNilProblems(p []promote.Problem) []promote.Problem {
	if p == nil {
		return []promote.Problem{}
	}
	return p
}

// timelineText is a row of the timeline.
func timelineText(r promote.Row) string {
	if r.Event == nil {
		what := "removed"
		if r.Outside != "" {
			what = oci.Short(r.Outside)
		}
		return fmt.Sprintf("%s  moved outside galley: %s, at some time after that\n", stamp(r.Since), what)
	}
	e := r.Event
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-8s  ", stamp(e.Time), e.Action)
	switch e.Action {
	case promote.Held, promote.Unheld:
		b.WriteString(cell(eventVersion(e.Version, e.To)))
	default:
		fmt.Fprintf(&b, "%s → %s", cell(eventVersion(e.Was, e.From)), cell(eventVersion(e.Version, e.To)))
	}
	if e.Revision != "" {
		fmt.Fprintf(&b, "  commit %s", printable(e.Revision[:min(7, len(e.Revision))]))
	}
	if e.Actor != "" {
		fmt.Fprintf(&b, "  by %s", cell(e.Actor))
	}
	b.WriteString("\n")
	detail := func(format string, args ...any) { fmt.Fprintf(&b, "                      "+format+"\n", args...) }
	if e.Reason != "" {
		detail("%s", printable(e.Reason))
	}
	if text := gatesText(e.Gates); text != "" {
		detail("%s", text)
	} else if e.Checked > 0 {
		detail("%s were checked", plural(e.Checked, "gate"))
	}
	switch {
	case e.Forced:
		detail("forced")
	case e.Action == promote.Promoted && e.Policy == "" && len(e.Gates)+e.Checked == 0:
		detail("no gates: nothing was checked")
	}
	if !e.Recorded.IsZero() {
		detail("imported %s", stamp(e.Recorded))
	}
	if e.Image != "" {
		detail("image %s", printable(e.Image))
	}
	if e.Run != "" {
		detail("%s", printable(e.Run))
	}
	return b.String()
}

// stamp is a time as people read it, in UTC and to the minute.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// eventVersion is a version, or else the beginning of the digest.
func eventVersion[D ~string](version string, d D) string {
	switch {
	case version != "":
		return version
	case d == "":
		return "nothing"
	}
	_, hex, _ := strings.Cut(string(d), ":")
	return hex[:min(12, len(hex))]
}

// gatesText sums up what the gates said, and names those that did not hold.
func gatesText(gates []gate.Result) string {
	if len(gates) == 0 {
		return ""
	}
	count := map[gate.Verdict]int{}
	var named []string
	for _, g := range gates {
		if count[g.Verdict]++; g.Verdict != gate.Pass {
			named = append(named, cell(g.Gate)+" "+string(g.Verdict))
		}
	}
	text := plural(count[gate.Pass], "gate") + " passed"
	if len(named) > 0 {
		text += "; " + strings.Join(named, ", ")
	}
	return text
}

// historyCSV writes rows for a spreadsheet. A cell that a spreadsheet would take
// for a formula gets an apostrophe.
func (a *app) historyCSV(rows []promote.Row) error {
	w := csv.NewWriter(a.out)
	w.Write([]string{
		"time", "until", "number", "action", "from", "to", "model", "image", "was", "version", "revision",
		"actor", "run", "reason", "policy", "passed", "gates", "scan", "forced", "hold", "recorded", "event",
	})
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	for _, r := range rows {
		e := r.Event
		if e == nil {
			e = &promote.Event{Action: "outside", To: r.Outside, Time: r.Since}
		}
		passed := 0
		var others []string
		for _, g := range e.Gates {
			if g.Verdict == gate.Pass {
				passed++
			} else {
				others = append(others, g.Gate+": "+string(g.Verdict))
			}
		}
		number := ""
		if e.Number > 0 {
			number = strconv.Itoa(e.Number)
		}
		cells := []string{
			at(e.Time), at(r.Until), number, string(e.Action), e.From.String(), e.To.String(), e.Model.String(), e.Image, e.Was, e.Version, e.Revision,
			e.Actor, e.Run, e.Reason, e.Policy.String(), strconv.Itoa(passed), strings.Join(others, "; "), e.Scan,
			strconv.FormatBool(e.Forced), strconv.FormatBool(e.Hold), at(e.Recorded), e.Digest.String(),
		}
		for i, c := range cells {
			if cells[i] = printable(c); c != "" && strings.ContainsRune("=+-@", rune(c[0])) {
				cells[i] = "'" + cells[i]
			}
		}
		w.Write(cells)
	}
	w.Flush()
	return w.Error()
}
