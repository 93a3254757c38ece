package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"galley/oci"
	"galley/oci/image"
)

type bakeOptions struct {
	safety
	imageFlags
	base, tag, output string
	platforms         []string
	requirements      string
	rescan, dryRun    bool
}

func (a *app) bakeCmd() *cobra.Command {
	var o bakeOptions
	cmd := &cobra.Command{
		Use:   "bake [NAME=]MODEL... --base IMAGE --tag IMAGE",
		Short: "Put the model into a serving image, without moving its bytes",
		Long: `Bake makes a serving image out of a base image and a model, without Docker and
without moving the model's bytes: the registry takes the layers of both from the
repositories where they are, and gets a new config, a manifest and one small
layer. What cannot be mounted is uploaded. Tags move last; a version tag never.

The model lies in /models and, as a link, below the base's working directory or
--dest; the JSON files lie in both places. GALLEY_MODEL and GALLEY_MODEL_DIR say
where. Several models are named, and each lies below its name.

Bake looks into a base once, to keep the owners of its directories, and to see
whether its Python packages fit the model: another minor release of
scikit-learn, or a package that is missing, is refused (exit 3). What it saw is
cached, and kept in the image for whoever bakes next.

Verdict and features are enforced as the artifact tells them; --rescan reads the
model itself.

The base is a registry's, the local registry's or a layout's image, FILE.tar or -
for what docker save writes, or scratch: an image of the model's files alone, for
COPY --from, docker build --build-context and Kubernetes' image volumes.

The same base, models and flags give the same digest.`,
		Example: `  galley bake ghcr.io/acme/fraud:v42 --base ghcr.io/acme/fraud-base:1 --tag ghcr.io/acme/fraud-api:v42
  galley bake fraud=ghcr.io/acme/fraud:v42 churn=ghcr.io/acme/churn:v7 --base ghcr.io/acme/base:1 --tag ghcr.io/acme/api:v3
  galley bake fraud:v42 --base base.tar -o api.tar --tag fraud-api:v42
  galley bake ghcr.io/acme/fraud:v42 --base scratch --tag oci:model:v42`,
		GroupID: groupShip,
		Args:    atLeast(1, "MODEL..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.setEntrypoint, o.setCmd = cmd.Flags().Changed("entrypoint"), cmd.Flags().Changed("cmd")
			return a.bake(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "the `image` to build on, FILE.tar or - of docker save, or scratch")
	f.StringVarP(&o.tag, "tag", "t", "", "where the `image` goes; with -o its name in the file")
	f.StringVarP(&o.output, "output", "o", "", "write a `file` for docker load instead; - is stdout")
	f.StringSliceVar(&o.platforms, "platform", nil, "`os/arch` to take of the base (all)")
	f.StringVar(&o.requirements, "requirements", "", "believe this requirements `file` about the base's packages")
	f.BoolVar(&o.rescan, "rescan", false, "read the model instead of believing who pushed it")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be mounted and uploaded; write nothing")
	o.imageFlags.flags(f)
	o.safety.flags(f)
	o.safety.mismatchFlag(f)
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

// check fails on flags that do not go together.
func (o *bakeOptions) check(format string) error {
	switch {
	case o.base == "":
		return &usageError{msg: "no --base: which image shall the model go into?", hint: "--base scratch makes an image of the model's files alone"}
	case o.tag == "" && o.output == "":
		return &usageError{msg: "neither --tag nor -o: where shall the image go?", hint: "--tag registry.example.com/team/app:v1, or -o app.tar"}
	case o.output == "-" && format != "text":
		return &usageError{msg: "-o - writes the image to stdout: there is no place for --format " + format}
	case strings.HasSuffix(o.output, ".gz") || strings.HasSuffix(o.output, ".tgz"):
		return &usageError{msg: "-o writes a tar, its layers are compressed", hint: "-o - | gzip > " + shellWord(o.output)}
	case o.dryRun && o.output != "":
		return &usageError{msg: "--dry-run is about a registry: there is nothing to find out for -o"}
	case o.noLook && o.dest != "":
		return &usageError{msg: "--no-look writes nothing below the working directory: it does not go with --dest"}
	case o.noLook && o.copy:
		return &usageError{msg: "--no-look writes nothing below the working directory: it does not go with --copy"}
	}
	return o.safety.check()
}

// oven is what one bake works with.
type oven struct {
	*app
	o        bakeOptions
	models   []*ingredient
	base     *image.Base
	baseRef  oci.Reference     // zero for a file, and for scratch
	places   map[string]*place // by the name of the repository
	dst      *place            // nil for -o
	tags     []string
	rules    oci.TagRules
	fits     []platformFit
	warnings []string
	close    func()
}

// warned warns, and keeps it for the answer.
func (v *oven) warned(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	v.warnings = append(v.warnings, text)
	v.warn("%s", text)
}

func (a *app) bake(ctx context.Context, args []string, o bakeOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if err := o.check(a.flags.format); err != nil {
		return err
	}
	opts, err := o.options(a)
	if err != nil {
		return err
	}
	v := &oven{app: a, o: o, places: map[string]*place{}, warnings: []string{}, close: func() {}}
	defer func() { v.close() }()
	if v.rules, err = a.tagRules(oci.Reference{}); err != nil {
		return err
	}
	if err := v.open(ctx, args); err != nil {
		return err
	}
	if v.dst != nil {
		if v.rules, err = a.tagRules(v.dst.ref); err != nil {
			return err
		}
	}
	for _, m := range v.models {
		if err := v.checkModel(ctx, m); err != nil {
			return err
		}
	}
	k, err := image.NewBaking(ctx, v.base, v.ingredients(), opts)
	if err != nil {
		return v.failed(err)
	}
	if err := v.look(ctx, k); err != nil {
		return err
	}
	baked, err := k.Bake(ctx)
	if err != nil {
		return v.failed(err)
	}
	v.tellBaked(baked)
	if o.output != "" {
		return v.save(ctx, baked)
	}
	return v.push(ctx, baked)
}

// failed names what a bake without a place of its own failed at.
func (v *oven) failed(err error) error {
	if as[*oci.Error](err) {
		return err
	}
	return fmt.Errorf("bake %s: %w", v.models[0].ref, err)
}
