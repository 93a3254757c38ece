package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	DepOnly    bool
}

// TestRooms holds the direction of imports: cmd, then oci, then manifest.
func TestRooms(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", "galley/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := make(map[string]listed)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	seen := 0
	for path, p := range packages {
		if path != "galley" && !strings.HasPrefix(path, "galley/") {
			continue
		}
		seen++
		room, _, _ := strings.Cut(strings.TrimPrefix(path, "galley/"), "/")
		for _, dep := range p.Deps {
			forbidden := false
			switch room {
			case "manifest":
				forbidden = strings.HasPrefix(dep, "galley/oci") || strings.HasPrefix(dep, "galley/cmd") ||
					strings.HasPrefix(dep, "oras.land/") || dep == "os/exec" || dep == "net" || strings.HasPrefix(dep, "net/http")
			case "oci":
				forbidden = strings.HasPrefix(dep, "galley/cmd") || strings.HasPrefix(dep, "github.com/spf13/")
			}
			if forbidden {
				t.Errorf("%s must not depend on %s", path, dep)
			}
		}
		for _, dep := range p.Imports {
			if room == "cmd" && strings.HasPrefix(dep, "oras.land/") {
				t.Errorf("%s must not import %s: that belongs to oci", path, dep)
			}
		}
		for _, old := range []string{"oras.land/oras-go/v2/content/file", "oras.land/oras-go/v2/content/oci"} {
			if slices.Contains(p.Deps, old) {
				t.Errorf("%s depends on %s, which is not safe here", path, old)
			}
		}
	}
	if seen < 8 {
		t.Errorf("%d packages seen; want all of them", seen)
	}
}

// TestModules holds the list of direct modules, each with its reason.
func TestModules(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	for line := range strings.Lines(string(data)) {
		m := regexp.MustCompile(`^\t(\S+) v\S+(?: // (.*))?\n`).FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(m[2], "indirect") {
			continue
		}
		direct = append(direct, m[1])
		if m[2] == "" {
			t.Errorf("go.mod: %s has no reason behind it", m[1])
		}
	}
	want := []string{
		"cuelabs.dev/go/oci/ociregistry",
		"github.com/expr-lang/expr",
		"github.com/goccy/go-yaml",
		"github.com/klauspost/compress",
		"github.com/opencontainers/go-digest",
		"github.com/opencontainers/image-spec",
		"github.com/pierrec/lz4/v4",
		"github.com/rogpeppe/go-internal",
		"github.com/spf13/cobra",
		"github.com/spf13/pflag",
		"github.com/ulikunitz/xz",
		"github.com/vbauerster/mpb/v8",
		"golang.org/x/crypto",
		"golang.org/x/sync",
		"golang.org/x/term",
		"oras.land/oras-go/v2",
	}
	if !slices.Equal(direct, want) {
		t.Errorf("direct modules %q; want %q", direct, want)
	}
}

// TestHelp reads the help of every command as a person would.
func TestHelp(t *testing.T) {
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: func(string) string { return "" }}
	root := a.rootCmd()
	commands := 0
	for _, c := range root.Commands() {
		if c.Name() == "help" || c.Name() == "completion" || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		commands++
		t.Run(c.Name(), func(t *testing.T) {
			var out bytes.Buffer
			if code := run(t.Context(), []string{c.Name(), "--help"}, nil, &out, io.Discard, a.env); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			if !strings.Contains(out.String(), strings.TrimSpace(exitCodes)) {
				t.Error("help does not tell the exit codes")
			}
			if c.GroupID == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("group %q, short %q", c.GroupID, c.Short)
			}
			checkExamples(t, root, c)
		})
	}
	if commands < 10 {
		t.Errorf("%d commands; want at least 10", commands)
	}
}

// checkExamples parses every example line with the real commands.
func checkExamples(t *testing.T, root *cobra.Command, c *cobra.Command) {
	t.Helper()
	for line := range strings.Lines(c.Example) {
		_, line, ok := strings.Cut(line, "galley ")
		if !ok {
			t.Errorf("example %q does not call galley", line)
			continue
		}
		words := strings.Fields(strings.NewReplacer(`'`, "", `"`, "").Replace(line))
		found, rest, err := root.Find(words)
		if err != nil || found.Name() != c.Name() && !slices.Contains(c.Aliases, found.Name()) {
			t.Errorf("example %q is another command: %v", line, err)
			continue
		}
		if err := found.ParseFlags(rest); err != nil {
			t.Errorf("example %q: %v", line, err)
			continue
		}
		if found.Args != nil {
			if err := found.Args(found, found.Flags().Args()); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
	}
}
