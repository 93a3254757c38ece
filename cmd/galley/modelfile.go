package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/oci"
)

// isFile reports whether the argument is a file that is there, and so no
// reference.
func isFile(s string) bool {
	info, err := os.Stat(s)
	return err == nil && !info.IsDir()
}

// looksLikeFile reports whether the argument ends as no reference does.
func looksLikeFile(s string) bool {
	return slices.Contains([]string{".joblib", ".pkl", ".pickle", ".onnx", ".skops", ".json"}, filepath.Ext(s))
}

// inspectModelFile reads one file, as [joblib.Inspect] does.
func inspectModelFile(ctx context.Context, op, name string, o joblib.Options) (manifest.Scan, error) {
	f, err := openRegular(name)
	if err != nil {
		return manifest.Scan{}, fmt.Errorf("%s %s: %w", op, name, pathCause(err))
	}
	defer f.Close()
	r, err := joblib.Inspect(manifest.ContextReader(ctx, f), o)
	if err != nil {
		return manifest.Scan{}, fmt.Errorf("%s %s: %w", op, name, err)
	}
	return manifest.Scan{Path: name, Role: manifest.RoleModel, Report: r}, elsewhere(op, name, r)
}

// pathCause drops the path from an error whose message has it already.
func pathCause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// elsewhere is the error for a file that only stands in for the model.
func elsewhere(op, name string, r *joblib.Report) error {
	what := map[joblib.Kind]string{
		joblib.Empty:   "is an empty file",
		joblib.Pointer: "is a Git LFS pointer, not the model",
		joblib.HTML:    "is an HTML page, not the model",
	}[r.Format]
	if what == "" {
		return nil
	}
	err := fmt.Errorf("%s %s: %s", op, name, what)
	if r.Format == joblib.Pointer {
		return &hinted{err, []string{"git lfs pull --include " + shellWord(name)}}
	}
	return err
}

// inspectFile shows what is in a model file.
func (a *app) inspectFile(ctx context.Context, name string, o inspectOptions) error {
	s, err := inspectModelFile(ctx, "inspect", name, joblib.Options{})
	if err != nil {
		return err
	}
	if o.requirements {
		return a.showRequirements(joblib.Requirements(s.Report.Packages))
	}
	return a.showCards(fileCards([]manifest.Scan{s}, o))
}

// inspectFiles shows what is in the model files of an artifact, for which it
// fetches them.
func (a *app) inspectFiles(ctx context.Context, p *place, m *oci.Model, o inspectOptions) error {
	progress, stop := a.progress(p.ref.Registry)
	scans, err := oci.Scan(ctx, m, joblib.Options{}, progress)
	stop()
	if err != nil {
		return p.explain("inspect", err)
	}
	return a.showCards(fileCards(scans, o))
}

func (a *app) showRequirements(lines []string) error {
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	_, err := fmt.Fprint(a.out, text)
	return err
}

// fileCards are the cards of the files that hold models.
func fileCards(scans []manifest.Scan, o inspectOptions) []*fileCard {
	var cards []*fileCard
	for _, s := range scans {
		if s.Role == manifest.RoleModel || s.Role == manifest.RolePart {
			cards = append(cards, &fileCard{scan: s, globals: o.globals, arrays: o.arrays, params: o.params})
		}
	}
	return cards
}

// showCards prints one card, or several below one another.
func (a *app) showCards(cards []*fileCard) error {
	var text []string
	var all []fileJSON
	for _, c := range cards {
		text = append(text, c.text())
		all = append(all, c.json())
	}
	if len(all) == 1 {
		return a.show(all[0], text[0])
	}
	return a.show(all, strings.Join(text, "\n"))
}

// fileCard is what inspect shows of a model file.
type fileCard struct {
	scan                    manifest.Scan
	globals, arrays, params bool
}

// fileJSON is its JSON. Fields are only ever added.
type fileJSON struct {
	File string `json:"file"`
	*joblib.Report
	Requirements []string `json:"requirements"`
}

func (c *fileCard) json() fileJSON {
	r := *c.scan.Report
	if r.Findings == nil {
		r.Findings = []joblib.Finding{}
	}
	return fileJSON{c.scan.Path, &r, notNil(joblib.Requirements(r.Packages))}
}

func (c *fileCard) text() string {
	var b strings.Builder
	r := c.scan.Report
	fmt.Fprintf(&b, "%s\n", printable(c.scan.Path))
	b.WriteString(table(c.facts(), "  "))
	for _, m := range r.Models {
		b.WriteString(c.model(m, len(r.Models) > 1))
	}
	section := func(name string, rows [][]string) {
		if len(rows) > 0 {
			b.WriteString("\n" + name + "\n" + table(rows, "  "))
		}
	}
	if len(r.Values) > 0 {
		section("values beside it", paramRows(r.Values))
	}
	section("findings", findingRows(r))
	if c.globals {
		section("globals", globalRows(r))
	}
	if c.arrays {
		section("arrays", arrayRows(r))
	}
	if len(r.Packages) > 0 {
		b.WriteString("\nto load it\n")
		b.WriteString("  pip install " + strings.Join(joblib.Requirements(r.Packages), " ") + "\n")
		for _, p := range r.Packages {
			if p.Note != "" {
				fmt.Fprintf(&b, "  %s: %s\n", p.Import, p.Note)
			}
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", printable(w))
	}
	return b.String()
}

// facts are the rows about the file as a whole.
func (c *fileCard) facts() [][]string {
	r := c.scan.Report
	what := []string{string(r.Format)}
	size := bytesText(r.Size)
	if r.Compression != "" {
		size += " in " + r.Compression
	}
	what = append(what, size)
	rows := [][]string{{"file", strings.Join(what, ", ")}}
	if r.Format.IsPickle() {
		by := []string{"pickle protocol " + strconv.Itoa(r.Writer.Protocol)}
		if r.Writer.Joblib != "" {
			by = append(by, "joblib "+r.Writer.Joblib)
		}
		if r.Writer.Numpy != "" {
			by = append(by, "numpy "+r.Writer.Numpy)
		}
		rows = append(rows, []string{"written by", strings.Join(by, ", ")})
	}
	switch r.Peek.Top {
	case "", "object":
	case "array", "global":
		rows = append(rows, []string{"holds", "a pickled " + r.Peek.Top + " " + printable(r.Peek.Class)})
	default:
		rows = append(rows, []string{"holds", fmt.Sprintf("a %s with %s", r.Peek.Top, plural(len(r.Models), "estimator"))})
	}
	if r.ArrayCount > 0 {
		rows = append(rows, []string{"arrays", fmt.Sprintf("%d, %s", r.ArrayCount, bytesText(r.ArrayBytes))})
	}
	return append(rows, []string{"scan", verdictText(r)})
}

// verdictText says what the verdict means.
func verdictText(r *joblib.Report) string {
	switch r.Verdict {
	case joblib.NotPickle:
		return "not a pickle: nothing runs by unpickling"
	case joblib.Pass:
		return "pass: no load-time code path found"
	case joblib.Review:
		return "review: nothing is known against it, and somebody should look"
	case joblib.Unverifiable:
		if !slices.ContainsFunc(r.Findings, func(f joblib.Finding) bool {
			return f.Verdict >= joblib.Unverifiable && f.Rule != joblib.RuleIntegrity
		}) {
			return "unverifiable: it can be loaded, and its trees can crash or hang predict"
		}
		return "unverifiable: it cannot be told what loading does"
	}
	return "dangerous: loading it runs something that no model needs"
}

// model describes an estimator and, indented, its parts.
func (c *fileCard) model(m *joblib.Model, named bool) string {
	var rows [][]string
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, printable(text)})
		}
	}
	add("class", classText(m.Class))
	add("scikit-learn", m.Sklearn)
	if m.Features >= 0 {
		add("features", strings.TrimSuffix(fmt.Sprintf("%d: %s", m.Features, listText(m.FeatureNames, 8)), ": "))
	}
	if m.ClassCount > 0 {
		add("classes", strings.TrimSuffix(fmt.Sprintf("%d: %s", m.ClassCount, listText(m.Classes, 8)), ": "))
	}
	if m.Trees > 0 {
		add("trees", fmt.Sprintf("%d with %d nodes", m.Trees, m.Nodes))
	}
	if len(m.Private) > 0 {
		add("privacy", strings.Join(m.Private, ", ")+" hold rows of the training data")
	}
	title := "model"
	if named && m.Key != "" {
		title = printable(m.Key)
	}
	text := "\n" + title + "\n" + table(rows, "  ")
	if parts := partRows(m.Parts, ""); len(parts) > 0 {
		text += "\nparts\n" + table(parts, "  ")
	}
	if c.params {
		text += c.parameters(m)
	}
	return text
}

// parameters lists those of a model and of its parts.
func (c *fileCard) parameters(m *joblib.Model) string {
	text := ""
	if len(m.Params) > 0 {
		title := "parameters of " + shortClass(m.Class)
		if m.Key != "" {
			title += " (" + m.Key + ")"
		}
		text = "\n" + printable(title) + "\n" + table(paramRows(m.Params), "  ")
	}
	for _, p := range m.Parts {
		text += c.parameters(p)
	}
	return text
}

func partRows(parts []*joblib.Model, indent string) [][]string {
	var rows [][]string
	for _, p := range parts {
		note := ""
		if p.Features >= 0 {
			note = plural(p.Features, "feature")
			if p.Selected != nil {
				note += fmt.Sprintf(", passes %d on", len(p.Selected))
			}
		}
		rows = append(rows, []string{printable(indent + p.Key), printable(shortClass(p.Class)), note})
		rows = append(rows, partRows(p.Parts, indent+"  ")...)
	}
	return rows
}

func paramRows(params []joblib.Param) [][]string {
	var rows [][]string
	for _, p := range params {
		rows = append(rows, []string{cell(p.Name), cell(p.String())})
	}
	return rows
}

func findingRows(r *joblib.Report) [][]string {
	var rows [][]string
	for _, f := range r.Findings {
		where := ""
		if f.Offset >= 0 {
			where = fmt.Sprintf("byte %d", f.Offset)
		}
		text := f.Message
		if f.Global != "" {
			text = quoted(f.Global) + ": " + text
		}
		rows = append(rows, []string{f.Verdict.String(), string(f.Rule), where, printable(text)})
	}
	if r.More > 0 {
		rows = append(rows, []string{fmt.Sprintf("and %d more", r.More)})
	}
	return rows
}

func globalRows(r *joblib.Report) [][]string {
	var rows [][]string
	for _, g := range r.Globals {
		verdict := g.Verdict.String()
		if g.Allowed {
			verdict += " (allowed)"
		}
		rows = append(rows, []string{
			verdict, quoted(g.Module + ":" + g.Name), strings.Join(g.Uses, ", "), strconv.Itoa(g.Count) + "×",
			fmt.Sprintf("byte %d", g.Offset), printable(strings.Join(g.Shapes, " ")),
		})
	}
	return rows
}

func arrayRows(r *joblib.Report) [][]string {
	var rows [][]string
	for _, a := range r.Arrays {
		var dims []string
		for _, d := range a.Shape {
			dims = append(dims, strconv.FormatInt(d, 10))
		}
		rows = append(rows, []string{
			"byte " + strconv.FormatInt(a.Offset, 10), bytesText(a.Size), cell(a.DType), strings.Join(dims, "×"), a.Order, printable(a.Path),
		})
	}
	if more := r.ArrayCount - len(r.Arrays); more > 0 {
		rows = append(rows, []string{fmt.Sprintf("and %d more", more)})
	}
	return rows
}

// quoted shows a name, in quotes if it holds what would not be seen.
func quoted(s string) string {
	if printable(s) != s || !utf8.ValidString(s) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// listText shows the first few of a list.
func listText(list []string, most int) string {
	if len(list) > most {
		return listText(list[:most], most) + ", …"
	}
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = quoted(s)
	}
	return strings.Join(shown, ", ")
}

func shortClass(class string) string { return class[strings.LastIndexByte(class, '.')+1:] }

// classText is a class as people say it, and where it comes from.
func classText(class string) string {
	if dot := strings.LastIndexByte(class, '.'); dot > 0 {
		return fmt.Sprintf("%s (%s)", class[dot+1:], class[:dot])
	}
	return class
}
