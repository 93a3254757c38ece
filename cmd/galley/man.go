package main

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Man writes one manual page for each command into a directory, which it makes if
it is missing. It prints their names.`,
		Example: `  galley man /usr/local/share/man/man1`,
		GroupID: groupOther,
		Args:    exactly("DIR"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.man(cmd.Root(), args[0]) },
	}
}

func (a *app) man(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var names strings.Builder
	for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
		if !c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() && c != root {
			continue
		}
		page, err := manPage(c)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, manName(c)+".1")
		if err := os.WriteFile(name, page, 0o666); err != nil {
			return err
		}
		names.WriteString(name + "\n")
	}
	return a.show(nil, names.String())
}

// manName is a command's page: galley-push.
func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manText is a page. Paragraphs are wrapped and lines of code are set where
// they are written, so the page keeps the lines as they are.
const manText = `.TH "{{upper .Name}}" 1 "" galley "galley manual"
.SH NAME
{{troff .Name}} \- {{troff .Command.Short}}
{{- if .Command.Runnable}}
.SH SYNOPSIS
.nf
{{troff .Command.UseLine}}
.fi{{end}}
.SH DESCRIPTION
.nf
{{troff .Long}}
.fi
{{- if .Flags}}
.SH OPTIONS
.nf
{{troff .Flags}}
.fi{{end}}
{{- if .Command.Example}}
.SH EXAMPLES
.nf
{{troff .Command.Example}}
.fi{{end}}
.SH EXIT STATUS
.nf
{{troff .ExitCodes}}
.fi
.SH SEE ALSO
{{range .SeeAlso}}.BR {{troff .}} (1)
{{end}}`

func manPage(c *cobra.Command) ([]byte, error) {
	page, err := template.New("man").Funcs(template.FuncMap{"troff": troff, "upper": strings.ToUpper}).Parse(manText)
	if err != nil {
		return nil, err
	}
	long := cmp.Or(c.Long, c.Short+".")
	var flags pflag.FlagSet
	flags.AddFlagSet(c.LocalFlags())
	flags.AddFlagSet(c.InheritedFlags())
	seeAlso := []string{manName(c.Root())}
	if c == c.Root() {
		seeAlso = nil
		for _, sub := range c.Commands() {
			seeAlso = append(seeAlso, manName(sub))
		}
	}
	_, codes, _ := strings.Cut(strings.TrimSpace(exitCodes), "\n")
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"Command": c, "Name": manName(c), "Long": strings.TrimSpace(long),
		"Flags": strings.TrimRight(flags.FlagUsages(), "\n"), "ExitCodes": codes, "SeeAlso": seeAlso,
	})
	return b.Bytes(), err
}

// troff escapes text: a dot or quote that begins a line would be a request.
func troff(s string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
