package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode"
)

// colour reports whether the answer may be coloured
// (https://no-color.org).
func (a *app) colour() bool { return isTerminal(a.out) && a.env("NO_COLOR") == "" }

// show prints the answer: text as it is, or v as JSON or through a template,
// whose fields are those of the JSON.
func (a *app) show(v any, text string) error {
	kind, tmpl, _ := strings.Cut(a.flags.format, "=")
	if kind != "json" && kind != "go-template" {
		_, err := fmt.Fprint(a.out, text)
		return err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	if kind == "json" {
		_, err := a.out.Write(b.Bytes())
		return err
	}
	var fields any
	if err := json.Unmarshal(b.Bytes(), &fields); err != nil {
		return err
	}
	t, err := parseTemplate(tmpl)
	if err != nil {
		return err
	}
	if err := t.Execute(a.out, fields); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out)
	return err
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("--format").Option("missingkey=zero").Parse(text)
	if err != nil {
		return nil, &usageError{msg: err.Error()}
	}
	return t, nil
}

// checkFormat fails on a --format that show could not serve, before anything is
// done. The others are those that the command serves itself.
func (a *app) checkFormat(others ...string) error {
	kind, tmpl, isTemplate := strings.Cut(a.flags.format, "=")
	switch {
	case kind == "go-template" && isTemplate:
		_, err := parseTemplate(tmpl)
		return err
	case !isTemplate && (kind == "text" || kind == "json" || slices.Contains(others, kind)):
		return nil
	}
	known := append([]string{"text", "json"}, others...)
	return &usageError{msg: fmt.Sprintf("--format %q: want %s or go-template=TEMPLATE", a.flags.format, strings.Join(known, ", "))}
}

// bytesText is a size as people read it, in decimal units as registries do.
func bytesText(n int64) string {
	if n < 0 {
		return "?"
	}
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		if v /= 1000; v < 999.5 || unit == "TB" {
			if v < 9.95 {
				return fmt.Sprintf("%.1f %s", v, unit)
			}
			return fmt.Sprintf("%.0f %s", v, unit)
		}
	}
	return ""
}

// table aligns rows by their columns; the last one is not padded. Columns whose
// cells are all numbers could be right-aligned by the caller's padding.
func table(rows [][]string, indent string) string {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		line.WriteString(indent)
		for i, c := range r {
			line.WriteString(c)
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", width[i]-len([]rune(c))+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// trainedText is ml.galley.trained as people read it: to the minute, and with
// the zone where it is known.
func trainedText(s string) string {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC().Format("2006-01-02 15:04 UTC")
	}
	if t, err := time.Parse("2006-01-02T15:04:05", s); err == nil {
		return t.Format("2006-01-02 15:04")
	}
	return s
}

// printable drops what could steer a terminal from text that others wrote.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, s)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
