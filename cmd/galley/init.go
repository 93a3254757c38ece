package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"galley/manifest"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
)

type initOptions struct {
	name, repository string
	force            bool
}

func (a *app) initCmd() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write galley.yaml from what is found here",
		Long: `Init looks at the project in the current directory as push does, and writes a
galley.yaml that says the same, explained by comments. A galley.yaml is optional.`,
		Example: `  galley init --repository ghcr.io/acme/fraud-detector`,
		GroupID: groupMake,
		Args:    none,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "the model's `name` (else the repository's or the directory's)")
	f.StringVar(&o.repository, "repository", "", "where to push: `registry/repository`")
	f.BoolVar(&o.force, "force", false, "replace a galley.yaml that is there")
	return cmd
}

func (a *app) init(ctx context.Context, o initOptions) error {
	name := directoryName()
	if o.repository != "" {
		ref, tags, err := oci.Parser{}.ParseTags(o.repository)
		if err != nil {
			return err
		}
		if len(tags) > 0 {
			return &usageError{msg: fmt.Sprintf("--repository %q: want no tag", o.repository), hint: "galley init --repository " + ref.Name()}
		}
		name = lastComponent(ref)
	}
	if _, err := os.Lstat(configName); err == nil && !o.force {
		return &hinted{fmt.Errorf("init: %s is there already: %w", configName, fs.ErrExist), []string{"galley init --force   # replaces it"}}
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	defer root.Close()
	found, err := project.Find(ctx, root.FS(), project.Options{})
	if as[*project.NoModelError](err) || as[*project.SeveralModelsError](err) {
		a.warn("%s; fill in files yourself", err)
		found, err = nil, nil
	}
	if err != nil {
		return err
	}
	if o.name != "" {
		name = o.name
	}
	text := project.Template(found, name, o.repository, foundMetrics(root.FS(), found))
	if err := replaceFile(root, configName, text); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if found != nil {
		for _, f := range found.Files {
			a.note("%-9s  %s  %s", f.Role, printable(f.Path), printable(f.Why))
		}
	}
	a.note("wrote %s", configName)
	return nil
}

// directoryName is the name of the current directory.
func directoryName() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return filepath.Base(dir)
}

// foundMetrics reads the metrics of the summary, to offer them as aliases.
func foundMetrics(fsys fs.FS, found *project.Selection) []training.Metric {
	if found == nil {
		return nil
	}
	for _, f := range found.Files {
		if f.Role != manifest.RoleSummary {
			continue
		}
		file, err := fsys.Open(f.Path)
		if err != nil {
			return nil
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, training.MaxSize))
		if err != nil {
			return nil
		}
		if s, err := training.ParseSummary(data); err == nil {
			return s.Metrics
		}
	}
	return nil
}

// replaceFile writes a file so that it is there whole or not at all.
func replaceFile(root *os.Root, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := root.WriteFile(tmp, data, 0o666); err != nil {
		return err
	}
	if err := root.Rename(tmp, name); err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	return nil
}
