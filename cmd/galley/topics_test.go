package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"galley/manifest/project"
	"galley/oci"
)

// indented returns the lines of a help topic that are meant to be typed.
func indented(topic string) []string {
	var found []string
	for line := range strings.Lines(topic) {
		if text, ok := strings.CutPrefix(line, "  "); ok {
			found = append(found, text)
		}
	}
	return found
}

func output(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), args, nil, &out, &errOut, func(string) string { return "" }); code != 0 {
		t.Fatalf("galley %s: exit code %d: %s", strings.Join(args, " "), code, errOut.String())
	}
	return out.String()
}

func TestTopics(t *testing.T) {
	all := output(t, "help")
	for _, c := range topics() {
		if got := output(t, "help", c.Name()); !strings.Contains(got, strings.TrimSpace(c.Long)) {
			t.Errorf("galley help %s:\n%s", c.Name(), got)
		}
		if !strings.Contains(all, c.Short) {
			t.Errorf("galley help does not tell of %s", c.Name())
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 82 && !strings.HasPrefix(line, "  ") {
				t.Errorf("help %s: a line of %d characters: %s", c.Name(), len(line), line)
			}
		}
	}
}

func TestReferencesTopic(t *testing.T) {
	lines := indented(referencesTopic)
	if len(lines) < 9 {
		t.Fatalf("%d references; want at least 9", len(lines))
	}
	for _, line := range lines {
		if _, err := (oci.Parser{Repository: "ghcr.io/acme/fraud"}).Parse(strings.TrimSpace(line)); err != nil {
			t.Error(err)
		}
	}
}

func TestConfigTopic(t *testing.T) {
	c, err := project.ParseConfig("help", []byte(strings.Join(indented(configTopic), "")))
	if err != nil {
		t.Fatal(err)
	}
	if c.History == "" || c.Features.Path == "" || len(c.Files.Data) == 0 || len(c.StageNames) != 2 || c.Stages["production"].Scan == "" {
		t.Errorf("keys are missing: %+v", c)
	}
}

func TestCompletion(t *testing.T) {
	if !strings.Contains(output(t, "help"), "completion ") {
		t.Error("galley help does not tell of completion")
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := output(t, "completion", shell); len(got) < 1000 {
			t.Errorf("%s: %d bytes", shell, len(got))
		}
	}
}

// TestMan reads the pages as troff does: what begins a line with a dot is one
// of its requests, and the text is all there.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	names := strings.Fields(output(t, "man", dir))
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: func(string) string { return "" }}
	root := a.rootCmd()
	if want := len(root.Commands()) + 1; len(names) < want {
		t.Errorf("%d pages; want %d at least", len(names), want)
	}
	request := regexp.MustCompile(`^\.(TH|SH|BR|nf|fi)\b`)
	for _, name := range names {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		open := 0
		for line := range strings.Lines(string(page)) {
			if strings.HasPrefix(line, ".") && !request.MatchString(line) || strings.HasPrefix(line, "'") {
				t.Errorf("%s: %s is no request of ours", name, line)
			}
			switch strings.TrimSpace(line) {
			case ".nf":
				open++
			case ".fi":
				open--
			}
			if open < 0 || open > 1 {
				t.Errorf("%s: .nf and .fi do not pair at %s", name, line)
			}
			if bare := strings.NewReplacer(`\e`, "", `\-`, "", `\&`, "").Replace(line); !strings.HasPrefix(line, ".TH") && strings.Contains(bare, `\`) {
				t.Errorf("%s: %s has a bare backslash", name, line)
			}
		}
		for _, section := range []string{"NAME", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"} {
			if !bytes.Contains(page, []byte("\n.SH "+section+"\n")) {
				t.Errorf("%s has no %s", name, section)
			}
		}
	}
	if got := troff(".a\n'b\\n-c"); got != "\\&.a\n\\&'b\\en\\-c" {
		t.Errorf("troff escapes %q", got)
	}
}
