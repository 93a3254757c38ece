package project

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// Config is galley.yaml. Every key may be absent.
type Config struct {
	File       string // what [ParseConfig] was told it is, for messages
	Name       string
	Version    string
	Repository string // where push, promote and ":TAG" go
	Files      Files
	Features   Features

	// Allow lists globals of pickles, as module:name, that somebody has looked
	// at; see [joblib.Options].
	Allow []string

	// Metrics are the aliases by which gates and columns name metrics.
	Metrics     map[string]Metric
	MetricNames []string // of the aliases, in the order of the file

	// Stages are the promotion policy, by name.
	Stages     map[string]Stage
	StageNames []string // in the order of the file

	Versions string // a regular expression for immutable tags; empty: the default
	History  string // a repository that keeps the events of promotion; empty: the model's own
}

// Files says which files make up the artifact. A nil list, and an empty Model,
// is looked for; a list that is given and empty takes none. Patterns are those
// of [path.Match].
type Files struct {
	Model    string // a file or a pattern
	As       string // the model's path in the artifact; empty: as on disk
	Parts    []string
	Features []string
	Summary  []string
	Docs     []string
	Code     []string
	Data     []string
}

// Features says how the features file is read.
type Features struct {
	Path string // where the list stands: keys joined by dots
}

// Metric is what an alias stands for.
type Metric struct {
	Path   string // in the summary: keys joined by dots
	Better string // higher, lower, or empty for what the name implies
}

// Stage is a stage's policy; what is empty has a default. Gates are
// expressions, kept as they are written; galley/manifest/gate reads them.
type Stage struct {
	From     string        // the stage that it has to have been in, or REPO:STAGE; empty: any
	Soak     time.Duration // how long it has to have been there; above 0 only with From
	Require  []Expression  // gates that refuse
	Warn     []Expression  // gates that warn
	Features string        // "same", "superset" or "any"
	Runtime  string        // "same" or "any"
	Path     string        // "same" or "any"
	Scan     string        // "pass" or "declared"
	MaxAge   time.Duration // how long ago it may have been trained; 0: as long as it likes
	Same     []string      // what the summaries must have in common before metrics are compared
}

// Expression is a gate as it is written, and where.
type Expression struct {
	Text string
	// Line and Column are where it begins, from 1 and in characters; 0 for what
	// is in no file.
	Line, Column int
	// Verbatim says that the text stands there as it is: on one line and
	// without escapes.
	Verbatim bool
}

// Better returns which way the metric improves that name, an alias or a path,
// stands for: as galley.yaml says, or as the alias or else the path implies. c
// may be nil.
func (c *Config) Better(name string) training.Direction {
	if c != nil {
		for _, alias := range c.MetricNames {
			m := c.Metrics[alias]
			if alias != name && m.Path != name {
				continue
			}
			switch {
			case m.Better == training.Lower.String():
				return training.Lower
			case m.Better == training.Higher.String():
				return training.Higher
			case training.Better(alias) == training.Lower:
				return training.Lower
			}
			name = m.Path
		}
	}
	return training.Better(name)
}

// ConfigError says what is wrong in galley.yaml, and where. Line and Column
// count from 1, columns in characters; both are 0 for the file as a whole.
type ConfigError struct {
	File         string
	Line, Column int
	Msg          string
	Nearest      string // the known word that an unknown one resembles, or empty
}

func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Msg)
	if e.Nearest != "" {
		fmt.Fprintf(&b, "; nearest: %q", e.Nearest)
	}
	return b.String()
}

// ParseConfig reads galley.yaml, at most 1 MiB of it; name is for messages.
// What is wrong comes as joined [*ConfigError]s, at most ten. Unknown and
// duplicate keys are wrong; aliases are followed, merge keys are not.
func ParseConfig(name string, data []byte) (*Config, error) {
	d := &decoder{file: name, anchors: map[string]ast.Node{}}
	c := &Config{File: name}
	if root := d.parse(data); root != nil {
		d.config(root, c)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *decoder) config(n ast.Node, c *Config) {
	d.fields(n, fields{
		{"name", d.text(&c.Name)},
		{"version", d.text(&c.Version)},
		{"repository", d.text(&c.Repository)},
		{"files", func(n ast.Node) { d.files(n, &c.Files) }},
		{"features", func(n ast.Node) {
			d.fields(n, fields{{"path", d.text(&c.Features.Path)}})
		}},
		{"scan", func(n ast.Node) {
			d.fields(n, fields{{"allow", func(n ast.Node) {
				d.texts(&c.Allow)(n)
				for _, g := range c.Allow {
					if err := joblib.CheckAllow(g); err != nil {
						d.fail(n, "", "scan.allow: %v", err)
					}
				}
			}}})
		}},
		{"metrics", func(n ast.Node) {
			c.Metrics = map[string]Metric{}
			c.MetricNames = d.entries(n, func(name string, _, v ast.Node) { c.Metrics[name] = d.metric(v) })
		}},
		{"stages", func(n ast.Node) {
			c.Stages = map[string]Stage{}
			from := map[string]ast.Node{}
			c.StageNames = d.entries(n, func(name string, key, v ast.Node) {
				if !IsStageName(name) {
					d.fail(key, "", "stage %.60q: a name is up to 40 of a-z, 0-9, _ and -, and begins with a letter or digit", name)
				}
				c.Stages[name], from[name] = d.stage(v)
			})
			for _, name := range c.StageNames {
				switch before := c.Stages[name].From; {
				case before == name:
					d.fail(from[name], "", "from: %s is the stage itself", name)
				case before != "" && !strings.ContainsAny(before, "/:") && !slices.Contains(c.StageNames, before):
					d.fail(from[name], resembling(before, c.StageNames), "from: no stage %q here", before)
				}
			}
		}},
		{"versions", func(n ast.Node) {
			d.text(&c.Versions)(n)
			if _, err := regexp.Compile(c.Versions); err != nil {
				d.fail(n, "", "versions: %v", err)
			}
		}},
		{"history", d.text(&c.History)},
	})
}

var stageName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
})

// IsStageName reports whether a stage can have that name: a tag with room for what
// the tags of its record append.
func IsStageName(name string) bool { return stageName().MatchString(name) }

func (d *decoder) files(n ast.Node, f *Files) {
	d.fields(n, fields{
		{"model", func(n ast.Node) {
			d.text(&f.Model)(n)
			if f.Model != "" {
				f.Model = d.pattern(n, f.Model)
			}
		}},
		{"as", func(n ast.Node) {
			d.text(&f.As)(n)
			if f.As == "" {
				return
			}
			if err := manifest.CheckPath(f.As); err != nil {
				d.fail(n, "", "files.as: %v", err)
			}
		}},
		{"parts", d.patterns(&f.Parts)},
		{"features", d.patterns(&f.Features)},
		{"summary", d.patterns(&f.Summary)},
		{"docs", d.patterns(&f.Docs)},
		{"code", d.patterns(&f.Code)},
		{"data", d.patterns(&f.Data)},
	})
}

// patterns takes a pattern or a list of them.
func (d *decoder) patterns(to *[]string) func(ast.Node) {
	return func(n ast.Node) {
		d.texts(to)(n)
		for i, p := range *to {
			(*to)[i] = d.pattern(n, p)
		}
	}
}

// pattern returns p in the form that io/fs takes.
func (d *decoder) pattern(n ast.Node, p string) string {
	clean := path.Clean(p)
	switch _, err := path.Match(p, ""); {
	case err != nil:
		d.fail(n, "", "pattern %q: %v", p, err)
	case p == "" || isAbs(p) || clean == ".." || strings.HasPrefix(clean, "../"):
		d.fail(n, "", "pattern %q: want a path below the project", p)
	case strings.Contains(p, "**"):
		d.fail(n, "", `pattern %q: "**" is not supported; name each level, as in src/*/*.py`, p)
	}
	return clean
}

// metric takes a path, or a mapping of path and better.
func (d *decoder) metric(n ast.Node) Metric {
	var m Metric
	at := d.resolve(n)
	if !isMap(at) {
		d.text(&m.Path)(at)
	} else {
		d.fields(at, fields{
			{"path", d.text(&m.Path)},
			{"better", d.oneOf(&m.Better, "higher", "lower")},
		})
	}
	return m
}

// stage reads a stage, and returns where it says from.
func (d *decoder) stage(n ast.Node) (s Stage, from ast.Node) {
	var soak ast.Node
	d.fields(n, fields{
		{"from", func(n ast.Node) {
			from = n
			d.text(&s.From)(n)
		}},
		{"soak", func(n ast.Node) {
			soak = n
			d.duration(&s.Soak)(n)
		}},
		{"require", d.expressions(&s.Require)},
		{"warn", d.expressions(&s.Warn)},
		{"features", d.oneOf(&s.Features, "same", "superset", "any")},
		{"runtime", d.oneOf(&s.Runtime, "same", "any")},
		{"path", d.oneOf(&s.Path, "same", "any")},
		{"scan", d.oneOf(&s.Scan, "pass", "declared")},
		{"max-age", d.duration(&s.MaxAge)},
		{"same", d.texts(&s.Same)},
	})
	if s.Soak > 0 && s.From == "" {
		d.fail(soak, "", "soak: from is missing, the stage in which it has to have been that long")
	}
	return s, from
}

// ParseDuration reads a time span as [time.ParseDuration] does, with days, of 24
// hours, before it: 30d, 1d12h. It has to be of whole seconds, and of one at
// least.
func ParseDuration(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	fail := fmt.Errorf("duration %.40q: want one above zero such as 90m, 24h or 30d", text)
	var whole time.Duration
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 64)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return 0, fail
		}
		whole, rest = time.Duration(n)*day, after
	}
	var part time.Duration
	if rest != "" || text == rest {
		var err error
		if part, err = time.ParseDuration(rest); err != nil || part < 0 {
			return 0, fail
		}
	}
	if whole+part <= 0 || part%time.Second != 0 { // also for a sum that is too large
		return 0, fail
	}
	return whole + part, nil
}

// FormatDuration writes a time span of whole seconds as [ParseDuration] reads it:
// 30d, 1d12h, 90s as 1m30s, and 0s, which is none.
func FormatDuration(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
		}
		d %= unit.size
	}
	return cmp.Or(b.String(), "0s")
}

func (d *decoder) duration(to *time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		text := ""
		if d.text(&text)(n); text == "" {
			return
		}
		var err error
		if *to, err = ParseDuration(text); err != nil {
			d.fail(n, "", "%v", err)
		}
	}
}

// expressions reads a text or a list of texts, and where each of them stands.
func (d *decoder) expressions(to *[]Expression) func(ast.Node) {
	return func(n ast.Node) {
		*to = nil
		for _, v := range d.list(n) {
			e := Expression{}
			d.text(&e.Text)(v)
			if at := d.resolve(v); at != nil {
				d.locate(&e, at.GetToken())
			}
			*to = append(*to, e)
		}
	}
}

// locate finds where the text of an expression begins, given its token.
func (d *decoder) locate(e *Expression, t *token.Token) {
	if t == nil || t.Position == nil {
		return
	}
	e.Line, e.Column = t.Position.Line, t.Position.Column
	const maxLine = 8 << 10 // bytes in which a text is looked for
	if e.Line < 1 || e.Line > len(d.lines) || len(d.lines[e.Line-1]) > maxLine || e.Column < 1 {
		return
	}
	line := []rune(d.lines[e.Line-1])
	for _, quotes := range []int{0, 1} {
		at := e.Column - 1 + quotes
		if at <= len(line) && e.Text != "" && strings.HasPrefix(string(line[at:]), e.Text) {
			e.Column, e.Verbatim = at+1, true
			return
		}
	}
}
