package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"galley/manifest/diff"
)

// formatMarkdown is for the comment on a pull request.
const formatMarkdown = "markdown"

// How much of a list is shown unless all of it is.
const (
	mostMetrics = 40
	mostNames   = 20
)

// diffReport is what diff prints.
type diffReport struct {
	*diff.Diff
	old, new    *diffSide
	all, colour bool
}

// diffJSON is diff's JSON. Fields are only ever added.
type diffJSON struct {
	Old  diffSideJSON `json:"a"`
	New  diffSideJSON `json:"b"`
	Same bool         `json:"same"` // nothing differs, not even what is told
	*diff.Diff
}

func (r *diffReport) json() diffJSON {
	return diffJSON{r.old.diffSideJSON, r.new.diffSideJSON, r.Same(), r.Diff}
}

// change is a row of the report: what there was and what there is.
type change struct {
	name, old, new string
	delta, mark    string // of metrics
}

// section is a part of the report.
type section struct {
	heading string
	rows    []change
	note    string // below the rows
}

// cut leaves so many rows and says how many there are besides.
func (s *section) cut(most, omitted int) {
	if len(s.rows) > most {
		omitted += len(s.rows) - most
		s.rows = s.rows[:most]
	}
	if omitted > 0 {
		s.note = joinNotes(fmt.Sprintf("and %d more", omitted), s.note)
	}
}

// joinNotes joins what is not empty.
func joinNotes(notes ...string) string {
	return strings.Join(slices.DeleteFunc(notes, func(s string) bool { return s == "" }), ", ")
}

// sections are those that have something to say.
func (r *diffReport) sections() []section {
	all := []section{r.told(), r.metrics(), r.features(), r.params()}
	return slices.DeleteFunc(all, func(s section) bool { return len(s.rows) == 0 && s.note == "" })
}

// limit is how many rows of a list are shown.
func (r *diffReport) limit(most int) int {
	if r.all {
		return len(r.Metrics) + len(r.Params) + len(r.Features.Added) + len(r.Features.Removed) + len(r.Features.Moved)
	}
	return most
}

func (r *diffReport) text() string {
	var b strings.Builder
	var sides [][]string
	for i, s := range []*diffSide{r.old, r.new} {
		sides = append(sides, []string{string("-+"[i]), cell(s.label), cell(joinNotes(s.Version, s.note))})
	}
	b.WriteString(table(sides, "") + r.verdict() + "\n")
	for _, s := range r.sections() {
		b.WriteString("\n" + s.heading + "\n")
		var rows [][]string
		for _, c := range s.rows {
			rows = append(rows, []string{cell(c.name), cell(c.old), strings.TrimSuffix("→ "+cell(c.new), "→ "), c.delta, r.paint(c.mark)})
		}
		b.WriteString(table(rows, "  "))
		if s.note != "" {
			b.WriteString("  " + s.note + "\n")
		}
	}
	return b.String()
}

// paint colours what a change of a metric means. A column of it must be the last
// one, for the colours have no width.
func (r *diffReport) paint(mark string) string {
	switch {
	case !r.colour:
	case strings.HasSuffix(mark, string(diff.Better)):
		return "\x1b[32m" + mark + "\x1b[0m"
	case strings.HasSuffix(mark, string(diff.Worse)):
		return "\x1b[31m" + mark + "\x1b[0m"
	}
	return mark
}

func (r *diffReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s → %s**: %s\n", code(r.old.label), code(r.new.label), r.verdict())
	for _, s := range r.sections() {
		fmt.Fprintf(&b, "\n**%s**\n", s.heading)
		if len(s.rows) > 0 {
			b.WriteString("\n" + markdownTable(s.rows))
		}
		if s.note != "" {
			b.WriteString("\n" + s.note + "\n")
		}
	}
	return b.String()
}

// markdownTable shows the rows as GitHub and GitLab do. What others wrote stands
// in code spans, where it is nothing but text.
func markdownTable(rows []change) string {
	has := func(f func(change) string) bool {
		return slices.ContainsFunc(rows, func(c change) bool { return f(c) != "" })
	}
	head, line := "| | old | new |", "|---|---|---|"
	deltas, marks := has(func(c change) string { return c.delta }), has(func(c change) string { return c.mark })
	if deltas {
		head, line = head+" Δ |", "|---|---:|---:|---:|"
	}
	if marks {
		head, line = head+" |", line+"---|"
	}
	var b strings.Builder
	b.WriteString(head + "\n" + line + "\n")
	for _, c := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |", code(c.name), code(c.old), code(c.new))
		if deltas {
			fmt.Fprintf(&b, " %s |", c.delta)
		}
		if marks {
			fmt.Fprintf(&b, " %s |", strings.Replace(c.mark, string(diff.Worse), "**"+string(diff.Worse)+"**", 1))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// code is a text as a code span of Markdown: in a table, pipes end a cell even
// there. Without text it is nothing.
func code(s string) string {
	s = strings.ReplaceAll(cell(s), "|", `\|`)
	if strings.TrimSpace(s) == "" {
		return ""
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		return fence + " " + s + " " + fence
	}
	return fence + s + fence
}

// verdict is the answer in a line.
func (r *diffReport) verdict() string {
	switch {
	case r.Same():
		return "the same model"
	case r.Result == diff.Same:
		return "the same model, of which something else is told"
	case r.Result == diff.Unknown:
		return "whether it is the same model is unknown"
	}
	var parts []string
	if r.Model == diff.Differs {
		parts = append(parts, "the model's file")
	}
	if slices.ContainsFunc(r.Changes, func(c diff.Change) bool { return c.What == diff.Path }) {
		parts = append(parts, "where it lies")
	}
	if r.Features.Result == diff.Differs {
		parts = append(parts, "features")
	}
	if r.MetricsChanged > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s", r.MetricsChanged, plural(len(r.Metrics)+r.MetricsOmitted, "metric")))
	}
	if len(parts) == 0 {
		parts = []string{"files beside the model"}
	}
	return "the models differ: " + strings.Join(parts, ", ")
}

// told are the differences in what is told of the models.
func (r *diffReport) told() section {
	s := section{heading: "model"}
	for _, c := range r.Changes {
		old, new := toldText(c.What, c.Old), toldText(c.What, c.New)
		switch {
		case c.What == diff.Imports:
			old, new = onlyIn(c.Old, c.New), onlyIn(c.New, c.Old)
		case old == new: // the short form hides it
			old, new = c.Old, c.New
		}
		s.rows = append(s.rows, change{name: wordFor(c.What), old: cmp.Or(old, "-"), new: cmp.Or(new, "-")})
	}
	return s
}

// wordFor is what inspect calls it too.
func wordFor(what diff.What) string {
	if what == diff.Revision {
		return "commit"
	}
	return string(what)
}

// toldText is a value as inspect shows it.
func toldText(what diff.What, text string) string {
	switch what {
	case diff.Trained:
		return trainedText(text)
	case diff.Revision:
		return shortCommit(text)
	case diff.Class:
		return shortClass(text)
	case diff.Steps:
		return stepsText(strings.Split(text, ","))
	case diff.Sklearn, diff.Numpy, diff.Joblib:
		return strings.ReplaceAll(text, ",", " and ")
	case diff.Size:
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil {
			return bytesText(n)
		}
	}
	return text
}

// onlyIn lists what the first list has and the second has not.
func onlyIn(list, other string) string {
	have := strings.Split(other, ",")
	return strings.Join(slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return slices.Contains(have, s) }), ", ")
}

// metrics are those that changed, and those that galley.yaml names.
func (r *diffReport) metrics() section {
	s := section{heading: "metrics"}
	equal := 0
	for _, m := range r.Metrics {
		if m.Verdict == diff.Equal && m.Name == "" && !r.all {
			equal++
			continue
		}
		s.rows = append(s.rows, metricChange(m))
	}
	if equal > 0 && r.Result != diff.Same {
		s.note = fmt.Sprintf("%d unchanged", equal)
	}
	s.cut(r.limit(mostMetrics), r.MetricsOmitted)
	return s
}

func metricChange(m diff.Metric) change {
	c := change{name: cmp.Or(m.Name, m.Path), old: cmp.Or(m.OldNote, "-"), new: cmp.Or(m.NewNote, "-")}
	if m.Old != nil {
		c.old = valueText(*m.Old, 4)
	}
	if m.New != nil {
		c.new = valueText(*m.New, 4)
	}
	if c.old == c.new && m.Verdict != diff.Equal && m.Old != nil && m.New != nil { // four digits hide it
		c.old, c.new = valueText(*m.Old, -1), valueText(*m.New, -1)
	}
	switch {
	case m.Old == nil && m.OldNote == "":
		c.mark = "new"
	case m.New == nil && m.NewNote == "":
		c.mark = "gone"
	case m.Delta != nil:
		c.delta, c.mark = changeText(*m.Delta, m.Verdict)
	case m.Verdict != diff.Equal:
		c.mark = "changed"
	default:
		c.delta = "="
	}
	return c
}

// changeText says by how much a metric changed, and what that means.
func changeText(delta float64, v diff.Verdict) (by, mark string) {
	switch {
	case v == diff.Equal:
		return "=", ""
	case delta > 0:
		return fmt.Sprintf("%+.4g", delta), "↑ " + string(v)
	}
	return fmt.Sprintf("%+.4g", delta), "↓ " + string(v)
}

// valueText is a number with so many digits, -1 for all, or a boolean.
func valueText(v diff.Value, digits int) string {
	if f, ok := v.V.(float64); ok {
		return strconv.FormatFloat(f, 'g', digits, 64)
	}
	return fmt.Sprint(v.V)
}

// features are the names that came, went or moved.
func (r *diffReport) features() section {
	f := r.Features
	count := func(n int) string {
		if n < 0 {
			return "unknown"
		}
		return strconv.Itoa(n)
	}
	s := section{heading: fmt.Sprintf("features %s → %s", count(f.Old), count(f.New))}
	alone := func(s *diffSide) bool { return s.File != "" && s.facts.Features == nil }
	if f.Result == diff.Same || f.Old < 0 && f.New < 0 || alone(r.old) || alone(r.new) {
		return section{}
	}
	if f.Result == diff.Unknown || f.Old < 0 || f.New < 0 {
		s.note = "not compared"
		return s
	}
	group := func(rows []change, count int) {
		n := min(len(rows), r.limit(mostNames))
		s.rows = append(s.rows, rows[:n]...)
		if count > n {
			s.note = joinNotes(s.note, fmt.Sprintf("%d more %s", count-n, rows[0].mark))
		}
	}
	var added, removed, moved []change
	for _, a := range f.Added {
		added = append(added, change{name: a.Name, old: "-", new: strconv.Itoa(a.Position), mark: "added"})
	}
	for _, a := range f.Removed {
		removed = append(removed, change{name: a.Name, old: strconv.Itoa(a.Position), new: "-", mark: "removed"})
	}
	for _, m := range f.Moved {
		moved = append(moved, change{name: m.Name, old: strconv.Itoa(m.From), new: strconv.Itoa(m.To), mark: "moved"})
	}
	group(added, f.AddedCount)
	group(removed, f.RemovedCount)
	group(moved, f.MovedCount)
	return s
}

// params are the parameters that differ.
func (r *diffReport) params() section {
	s := section{heading: "parameters"}
	if !r.ParamsKnown {
		if bytes := r.old.unread() + r.new.unread(); r.Model == diff.Differs && bytes > 0 {
			s.note = "not compared; --params reads " + bytesText(bytes) + " for it"
		}
		return s
	}
	for _, p := range r.Params {
		c := change{name: p.Name, old: "-", new: "-"}
		if p.File != "" {
			c.name = p.File + ": " + p.Name
		}
		if p.Old != nil {
			c.old = p.Old.String()
		}
		if p.New != nil {
			c.new = p.New.String()
		}
		s.rows = append(s.rows, c)
	}
	s.cut(r.limit(mostNames), r.ParamsOmitted)
	return s
}

// unread is how many bytes the side's model has, if it could be read and was
// not.
func (s *diffSide) unread() int64 {
	if s.subject == nil || s.facts.Scans != nil {
		return 0
	}
	return max(s.facts.Size, 0)
}
