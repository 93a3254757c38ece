package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is what was measured.
type report struct {
	Quick    bool          `json:"quick"`
	Machine  string        `json:"machine"`
	Registry string        `json:"registry"`
	Tools    []string      `json:"tools"` // galley first
	Inputs   []inputReport `json:"inputs"`
	Results  []*result     `json:"results"`
	Seconds  float64       `json:"seconds"` // that all of it took
}

type inputReport struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// result is what was measured of one operation of one tool.
type result struct {
	Input     string   `json:"input"`
	Network   string   `json:"network"`
	Operation string   `json:"operation"`
	Tool      string   `json:"tool"`
	Samples   []sample `json:"samples"`
}

func (r *report) addInput(name, about string) {
	if in := (inputReport{name, about}); !slices.Contains(r.Inputs, in) {
		r.Inputs = append(r.Inputs, in)
	}
}

func (r *report) add(s series, tool string, runs []sample) {
	for i, run := range runs {
		have := r.find(s.input.name, s.network.name, operations[i], tool)
		if have == nil {
			have = &result{Input: s.input.name, Network: s.network.name, Operation: operations[i], Tool: tool}
			r.Results = append(r.Results, have)
		}
		have.Samples = append(have.Samples, run)
	}
}

// find returns the result, or nil where nothing was measured.
func (r *report) find(input, network, operation, tool string) *result {
	for _, have := range r.Results {
		if have.Input == input && have.Network == network && have.Operation == operation && have.Tool == tool {
			return have
		}
	}
	return nil
}

// figure is one of the numbers of a sample; false: it was not taken.
type figure func(sample) (float64, bool)

func wall(s sample) (float64, bool) { return s.Wall, true }
func cpu(s sample) (float64, bool)  { return s.CPU, true }
func peak(s sample) (float64, bool) { return float64(s.Peak), true }

// peakMB is what the goals are in.
func peakMB(s sample) (float64, bool) { return float64(s.Peak) / (1 << 20), true }

func moved(s sample) (float64, bool) {
	if s.counts == nil {
		return 0, false
	}
	return float64(s.Moved), true
}

func requests(s sample) (float64, bool) {
	if s.counts == nil {
		return 0, false
	}
	return float64(s.Requests), true
}

// median returns the figure's median; false: nothing was measured.
func (r *result) median(f figure) (float64, bool) {
	if r == nil {
		return 0, false
	}
	var all []float64
	for _, s := range r.Samples {
		if v, ok := f(s); ok {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2, true
}

// passed is the result on whatever network had a proxy that counted.
func (r *report) passed(input, operation, tool string) *result {
	for _, n := range []network{far, narrow} {
		if have := r.find(input, n.name, operation, tool); have != nil {
			return have
		}
	}
	return nil
}

const nothing = "–"

// ratio is what galley needs of a figure for each of another tool's.
func ratio(galley, other *result, f figure) (float64, bool) {
	a, ok := galley.median(f)
	b, also := other.median(f)
	return a / b, ok && also && b > 0
}

func show(v float64, ok bool, format string) string {
	if !ok {
		return nothing
	}
	return fmt.Sprintf(format, v)
}

func size(v float64, ok bool) string {
	switch {
	case !ok:
		return nothing
	case v < 1e6:
		return fmt.Sprintf("%.1f kB", v/1e3)
	}
	return fmt.Sprintf("%.1f MB", v/1e6)
}

// names are those of the tools, galley first.
func (r *report) names() []string {
	var names []string
	for _, t := range r.Tools {
		name, _, _ := strings.Cut(t, " ")
		names = append(names, name)
	}
	return names
}

// markdown shows the report to people.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("<!-- written by make bench -->\n\n")
	fmt.Fprintf(&b, "%s on a registry that is new for each series (%s), %s. Medians of up to %d rounds; a ratio is galley's figure for each 1 of the other tool's.\n\n",
		strings.Join(r.Tools, ", "), r.Registry, r.Machine, r.rounds())
	for _, in := range r.Inputs {
		fmt.Fprintf(&b, "- %s, and two JSON files: %s.\n", in.Name, in.About)
	}
	b.WriteString("- crane pushes no files: it appends a tar archive, made beforehand, and exports one.")
	for _, p := range peers {
		for input, why := range p.skip {
			fmt.Fprintf(&b, " It is spared the %s: %s.", input, why)
		}
	}
	b.WriteString("\n- 1 GiB takes 90 s each way at 100 Mbit/s, whatever the tool, and is not measured so.\n")
	if r.Quick {
		b.WriteString("- This was the quick run: few rounds, and not all models and networks.\n")
	}
	r.timeTable(&b)
	r.trafficTable(&b)
	r.machineTable(&b)
	r.goalTable(&b)
	return b.String()
}

func (r *report) rounds() int {
	n := 0
	for _, res := range r.Results {
		n = max(n, len(res.Samples))
	}
	return n
}

// table writes the head of a table.
func table(b *strings.Builder, title string, columns ...string) {
	fmt.Fprintf(b, "\n### %s\n\n| %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

func row(b *strings.Builder, cells ...string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

func (r *report) timeTable(b *strings.Builder) {
	names := r.names()
	columns := []string{"model", "network", "operation", "galley"}
	for _, name := range names[1:] {
		columns = append(columns, "÷ "+name)
	}
	table(b, "Time", columns...)
	for _, res := range r.Results {
		if res.Tool != names[0] {
			continue
		}
		seconds, ok := res.median(wall)
		cells := []string{res.Input, res.Network, res.Operation, show(seconds, ok, "%.2f s")}
		for _, name := range names[1:] {
			v, ok := ratio(res, r.find(res.Input, res.Network, res.Operation, name), wall)
			cells = append(cells, show(v, ok, "%.2f"))
		}
		row(b, cells...)
	}
}

func (r *report) trafficTable(b *strings.Builder) {
	names := r.names()
	columns := []string{"model", "operation", "galley moves"}
	for _, name := range names[1:] {
		columns = append(columns, "÷ "+name)
	}
	table(b, "Bytes and requests", append(columns, "requests: "+strings.Join(names, ", "))...)
	for _, in := range r.Inputs {
		for _, operation := range operations {
			galley := r.passed(in.Name, operation, names[0])
			if galley == nil {
				continue
			}
			cells := []string{in.Name, operation, size(galley.median(moved))}
			var sent []string
			for i, name := range names {
				other := r.passed(in.Name, operation, name)
				n, ok := other.median(requests)
				sent = append(sent, show(n, ok, "%.0f"))
				if i > 0 {
					v, ok := ratio(galley, other, moved)
					cells = append(cells, show(v, ok, "%.3f"))
				}
			}
			row(b, append(cells, strings.Join(sent, ", "))...)
		}
	}
}

func (r *report) machineTable(b *strings.Builder) {
	names := r.names()
	table(b, "Processor time and peak memory on the loopback", append([]string{"model", "operation"}, names...)...)
	for _, in := range r.Inputs {
		for _, operation := range operations {
			cells := []string{in.Name, operation}
			for _, name := range names {
				res := r.find(in.Name, near.name, operation, name)
				seconds, ok := res.median(cpu)
				if !ok {
					cells = append(cells, nothing)
					continue
				}
				cells = append(cells, fmt.Sprintf("%.2f s, %s", seconds, size(res.median(peak))))
			}
			row(b, cells...)
		}
	}
}

// goal is something that galley sets out to reach, at most.
type goal struct {
	input     input
	network   network
	operation string
	what      string
	figure    figure
	than      string // of which tool's figure; "": galley's own
	most      float64
}

var goals = []goal{
	{forest10, far, "push", "time", wall, "oras", 0.7},
	{forest10, far, "pull", "time", wall, "oras", 1},
	{forest10, far, "push", "bytes", moved, "oras", 0.3},
	{forest10, far, "push", "requests", requests, "", 10},
	{forest10, far, "push again", "requests", requests, "", 1},
	{forest10, far, "pull", "requests", requests, "", 4},
	{forest10, far, "pull again", "requests", requests, "", 1},
	{forest10, narrow, "push", "time", wall, "oras", 0.35},
	{forest10, narrow, "pull", "time", wall, "oras", 0.35},
	{forest180, narrow, "push", "time", wall, "oras", 0.35},
	{forest180, narrow, "pull", "time", wall, "oras", 0.35},
	{forest180, near, "push", "time", wall, "oras", 1},
	{forest180, near, "pull", "time", wall, "oras", 1.2},
	{random1G, near, "push", "MB of memory", peakMB, "", 40},
	{random1G, near, "pull", "MB of memory", peakMB, "", 40},
	{random1G, near, "push", "time", wall, "oras", 1},
	{random1G, near, "push", "processor time", cpu, "oras", 3},
	{random1G, near, "pull", "time", wall, "oras", 1.1},
	{random1G, near, "pull", "processor time", cpu, "oras", 1.3},
}

func (r *report) goalTable(b *strings.Builder) {
	table(b, "Goals", "model", "network", "operation", "at most", "measured", "")
	for _, g := range goals {
		galley := r.find(g.input.name, g.network.name, g.operation, r.names()[0])
		got, ok := galley.median(g.figure)
		limit := fmt.Sprintf("%s: %g", g.what, g.most)
		if g.than != "" {
			got, ok = ratio(galley, r.find(g.input.name, g.network.name, g.operation, g.than), g.figure)
			limit = fmt.Sprintf("%g × the %s of %s", g.most, g.what, g.than)
		}
		if !ok {
			continue // not in this plan
		}
		row(b, g.input.name, g.network.name, g.operation, limit, fmt.Sprintf("%.3g", got), verdict(got <= g.most))
	}
}

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "missed"
}

// write keeps the tables and what is behind them.
func (r *report) write(dir, text string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o777),
		os.WriteFile(filepath.Join(dir, "results.md"), []byte(text), 0o666),
		os.WriteFile(filepath.Join(dir, "results.json"), append(data, '\n'), 0o666),
	)
}
