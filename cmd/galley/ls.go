package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
)

// maxColumns is how many metrics a line has room for.
const maxColumns = 4

type listOptions struct {
	sort, filter string
	all, trend   bool
}

func (a *app) listCmd() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "ls [REPO]",
		Short: "List the versions in a repository",
		Long: `Ls lists the versions in a repository, the one trained last first: tags, when it
was trained, class, metrics and the size of the model. The metrics are those that
galley.yaml names, or else the first few. Tags of the same artifact share a line.
[production] is a tag that is a stage: in galley.yaml, or with recorded promotions.
Images that galley baked say of which version. It reads manifests only and keeps
them in the user's cache directory, or in $GALLEY_CACHE. REPO is ":" for the
repository of galley.yaml.

--filter takes an expression (https://expr-lang.org) over tag, version, trained,
class, size, features and metrics, such as roc_auc > 0.7 && class contains
"Forest"; metric("f1-score") names what is no identifier. A version that lacks
what the expression uses does not match.

Without REPO it lists the repositories of the local registry.`,
		Example: `  galley ls
  galley ls ghcr.io/acme/fraud-detector --sort -roc_auc
  galley ls : --filter 'roc_auc>0.7' --format json`,
		GroupID: groupLook,
		Args:    atLeast(0, "REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkFormat(); err != nil {
				return err
			}
			if len(args) == 0 {
				return a.listLocal(cmd.Context())
			}
			return a.list(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.sort, "sort", "-trained", "sort by `column` or metric; a minus in front turns it around")
	f.StringVar(&o.filter, "filter", "", "list only versions for which the `expression` is true")
	f.BoolVar(&o.all, "all", false, "list tags that record promotions too")
	f.BoolVar(&o.trend, "trend", false, "show the first metric over time, as on a terminal")
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

func (a *app) list(ctx context.Context, s string, o listOptions) error {
	if s == ":" {
		repository, err := a.repository(".")
		if err != nil {
			return err
		}
		if repository != "" {
			s = repository
		}
	}
	p, err := a.open(ctx, s)
	if err != nil {
		return err
	}
	if p.ref.Tag != "" || p.ref.Digest != "" {
		return &usageError{msg: fmt.Sprintf("%q is one version; ls lists a repository", s), hint: "galley inspect " + p.ref.String()}
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	lo := oci.ListOptions{All: o.all, Stages: config.StageNames, Rules: oci.TagRules{Versions: config.Versions}, Concurrency: a.flags.concurrency}
	if p.ref.Kind == oci.Registry {
		lo.Cache = oci.NewManifestCache(a.env)
	}
	versions, err := oci.List(ctx, p.Target, lo)
	if err != nil {
		return p.explain("list", err)
	}
	l := newListing(p.ref.Name(), config)
	l.named = versionsByDigest(versions)
	if o.filter != "" {
		if versions, err = oci.FilterVersions(versions, o.filter, l.alias); err != nil {
			return err
		}
	}
	l.columns = oci.MetricColumns(versions, config.MetricNames, maxColumns)
	if o.trend || isTerminal(a.out) {
		l.trend = l.trendLine(versions) // while they are in the order of time
	}
	if err := oci.SortVersions(versions, o.sort, l.alias); err != nil {
		return err
	}
	l.versions = versions
	l.dim = a.colour()
	return a.show(l.json(), l.text())
}

// repositoriesJSON is the JSON of ls without REPO. Fields are only ever added.
type repositoriesJSON struct {
	Directory    string           `json:"directory"`
	Repositories []repositoryJSON `json:"repositories"`
}

type repositoryJSON struct {
	Repository string   `json:"repository"`
	Tags       int      `json:"tags"`
	Newest     []string `json:"newest,omitempty"` // tags of the version trained last
	Trained    string   `json:"trained,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// listLocal lists the repositories of the local registry.
func (a *app) listLocal(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	all, err := c.Repositories(ctx)
	if err != nil {
		return err
	}
	dir, err := oci.LocalRoot(a.env)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		a.note("local registry %s: no repositories", dir)
	}
	answer := repositoriesJSON{dir, []repositoryJSON{}}
	rows := [][]string{{"repository", "tags", "newest", "trained"}}
	for _, r := range all {
		e := repositoryJSON{Repository: r.Name, Tags: r.Tags}
		row := []string{cell(r.Name), strconv.Itoa(r.Tags)}
		switch {
		case r.Err != nil:
			e.Error = r.Err.Error()
			row = append(row, cell("not readable: "+e.Error))
		case r.Newest != nil:
			e.Newest, e.Trained = r.Newest.Tags, r.Newest.Trained
			row = append(row, cell(strings.Join(e.Newest, ", ")), cell(trainedText(e.Trained)))
		}
		rows = append(rows, row)
		answer.Repositories = append(answer.Repositories, e)
	}
	text := ""
	if len(all) > 0 {
		text = table(rows, "")
	}
	return a.show(answer, text)
}
