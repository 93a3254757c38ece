package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func readme(t *testing.T, language string) []string {
	t.Helper()
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("no %s block in README", language)
	}
	return blocks
}

// TestREADMESession types the session and compares every line it prints.
func TestREADMESession(t *testing.T) {
	dir := t.TempDir()
	project, home := filepath.Join(dir, "project"), filepath.Join(dir, "home")
	for _, sub := range []string{"models", "data"} {
		if err := os.CopyFS(filepath.Join(project, sub), os.DirFS("../../testdata/fraud/"+sub)); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "bin")
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "galley"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, block := range readme(t, "console") {
		var got strings.Builder
		for line := range strings.Lines(block) {
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			got.WriteString(line)
			cmd := exec.Command("sh", "-c", command)
			cmd.Dir = project
			cmd.Env = []string{"HOME=" + home, "PATH=" + bin + ":" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			got.WriteString(strings.ReplaceAll(string(out), home, "/home/ada"))
		}
		// ls prints one name a line where it has no terminal.
		if text := strings.ReplaceAll(got.String(), "data\nmodels\n", "data  models\n"); text != block {
			t.Errorf("README says:\n%s\ngalley says:\n%s", block, text)
		}
	}
}

// TestREADMECommands reads every other galley line as the command line does.
func TestREADMECommands(t *testing.T) {
	a := &app{env: func(string) string { return "" }}
	lines := 0
	used := make(map[string]bool)
	for _, block := range readme(t, "sh") {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "#")
			if !strings.HasPrefix(line, "galley ") {
				continue
			}
			lines++
			root := a.rootCmd()
			name := strings.Fields(line)[1]
			found, _, err := root.Find([]string{name})
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			used[name] = true
			checkExamples(t, root, &cobra.Command{Use: found.Use, Aliases: found.Aliases, Example: "  " + strings.TrimSpace(line)})
		}
	}
	for _, c := range a.rootCmd().Commands() {
		if !used[c.Name()] && c.Name() != "help" && c.Name() != "completion" && !c.IsAdditionalHelpTopicCommand() {
			t.Errorf("README has no example of %s", c.Name())
		}
	}
	if lines < 12 {
		t.Errorf("%d galley lines in README; want at least 12", lines)
	}
}
