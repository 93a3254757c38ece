package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"galley/manifest"
	"galley/manifest/project"
	"galley/oci"
)

type pushOptions struct {
	packOptions
	safety
	dryRun, force bool
	ahead         *oci.Lookup // of the tags, while the files are read
}

func (a *app) pushCmd() *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push [REF] [FILE[=PATH][:ROLE]...]",
		Short: "Pack the model with its JSON files and push it",
		Long: `Push packs the model, its features and its training summary as one artifact and
pushes it. Without files it finds them: those of galley.yaml, else by content in
models/, artifacts/, data/ and here. Without REF it pushes to galley.yaml's
repository. Several tags are separated by commas; without a tag the artifact is
tagged with its content, as c-3f2a1c4d5e6f, and latest.

Nothing is written when the tags name the same model already, be it from another
commit; --new pushes anyway. A version tag (v1, 2024-06) never moves; checking
and writing it are two requests, for registries have no compare-and-swap.

FILE=PATH says where the file lies in the artifact, :ROLE what it is: model,
part, features, summary, doc, code or dataset, or a media type.

A model that has not been written to since the last push is not read again to
find that out: what was in it is kept in the user's cache directory, or
$GALLEY_CACHE. Before anything is written, all of it is read. One of more than
256 MiB is sent to a registry while it is read, if none of the tags is there yet
and as far as the line keeps up; that upload is deleted if the push is refused, or
interrupted before all of it is read.

Push reads what is pickled in the model, and never loads it. It refuses (exit 3)
what would run code when it is loaded, and features that are not the model's;
galley scan and galley inspect FILE say more.`,
		Example: `  galley push ghcr.io/acme/fraud-detector:v42
  galley push ghcr.io/acme/fraud-detector:v42,candidate
  galley push :candidate models/rf.joblib=models/model.joblib data/features.json README.md:doc
  galley push oci:outbox:v42`,
		GroupID: groupMake,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.push(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be pushed, and its digest; send nothing")
	f.BoolVar(&o.force, "new", false, "push even if the tags name the same model already")
	f.BoolVar(&o.noCache, "no-cache", false, "read every file; believe and remember nothing of those that did not change")
	o.packOptions.flags(f)
	o.safety.flags(f)
	o.safety.mismatchFlag(f)
	a.registryFlags(f)
	a.concurrencyFlag(f)
	a.formatFlag(f)
	return cmd
}

// pushedAnswer is the answer of push.
type pushedAnswer struct {
	written
	Unchanged bool         `json:"unchanged"`
	DryRun    bool         `json:"dryRun,omitempty"`
	Files     []fileAnswer `json:"files"`
	Warnings  []string     `json:"warnings"`
}

type fileAnswer struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Size   int64  `json:"size"`
	Digest string `json:"digest,omitempty"`
}

func (a *app) push(ctx context.Context, args []string, o pushOptions) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if err := o.safety.check(); err != nil {
		return err
	}
	a.flags.noCache = o.noCache
	to, files := splitPushArgs(args)
	dst, tags, err := a.pushTarget(ctx, to, o.dryRun)
	if err != nil {
		return err
	}
	o.packOptions.allow = o.safety.allow
	p, done, err := a.packAndSend(ctx, dst, tags, files, o)
	if changed, ok := errors.AsType[*manifest.ChangedError](err); ok && changed.Cached {
		a.warn("%s is not what was remembered of it; it is read again", printable(changed.Path))
		o.noCache = true
		p, done, err = a.packAndSend(ctx, dst, tags, files, o)
	}
	if err != nil {
		return err
	}
	ref := dst.ref.At(done.Root.Digest)
	text := ref.String()
	if dst.ref == (oci.Reference{}) {
		text = done.Root.Digest.String()
	}
	return a.show(pushedAnswer{
		written{text, done.Root.Digest.String(), done.Tags}, !done.Written, o.dryRun, fileAnswers(p.Artifact), notNil(p.Warnings),
	}, text+"\n")
}

// packAndSend packs the files, says what they are, and pushes them.
func (a *app) packAndSend(ctx context.Context, dst *place, tags, files []string, o pushOptions) (*packed, oci.Pushed, error) {
	if !o.dryRun && len(tags) > 0 && dst.ref.Kind == oci.Registry {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		o.lookUp = func() *oci.Lookup {
			o.ahead = oci.LookUp(ctx, dst.Target, tags)
			return o.ahead
		}
		defer func() { o.ahead.Close() }()
	}
	p, err := a.pack(ctx, ".", files, dst.ref, o.packOptions)
	if err != nil {
		return nil, oci.Pushed{}, err
	}
	defer p.Close()
	a.tellPacked(p)
	done := oci.Pushed{Root: p.Root, Tags: tags, Written: true}
	if err := a.checkPacked(p, o.safety); err != nil {
		return p, done, err
	}
	if o.dryRun {
		a.note("dry run: nothing was sent")
		return p, done, nil
	}
	if done, err = a.send(ctx, dst, p, tags, o); err != nil {
		shown := dst.ref
		if len(tags) > 0 {
			shown = shown.WithTag(tags[0])
		}
		err = &failedAt{dst.client.Explain("push", shown, err), dst.ref}
		err = &pushFailed{err, dst.ref, tags, append(append(o.keepArgs(p), o.safety.args()...), files...)}
	}
	return p, done, err
}

// splitPushArgs takes the reference off the arguments: the first one, unless
// it is a file that is there.
func splitPushArgs(args []string) (ref string, files []string) {
	if len(args) == 0 {
		return "", nil
	}
	first, err := project.ParseArg(args[0])
	for _, name := range []string{args[0], first.File} {
		if info, serr := os.Stat(name); serr == nil && info.Mode().IsRegular() {
			return "", args
		}
	}
	if err == nil && looksLikeFile(first.File) {
		return "", args // no reference ends so: a file that is missing
	}
	return args[0], args[1:]
}

// pushTarget opens where a push goes. A dry run may do without.
func (a *app) pushTarget(ctx context.Context, to string, dryRun bool) (*place, []string, error) {
	if to == "" {
		var err error
		if to, err = a.repository("."); err != nil {
			return nil, nil, err
		}
		if to == "" {
			if dryRun {
				return &place{}, nil, nil
			}
			return nil, nil, &usageError{
				msg:  "nowhere to push to: no reference given, and no repository in galley.yaml or GALLEY_REPOSITORY",
				hint: "galley push registry.example.com/team/model:v1, or galley init --repository registry.example.com/team/model",
			}
		}
	}
	return a.create(ctx, to)
}

// send pushes and says what came of it.
func (a *app) send(ctx context.Context, dst *place, p *packed, tags []string, o pushOptions) (oci.Pushed, error) {
	progress, stop := a.progress(dst.ref.Registry)
	done, err := oci.Push(ctx, dst.Target, p.Packed, oci.PushOptions{
		Tags: tags, New: o.force, Rules: a.rulesOf(p.config, dst.ref),
		Concurrency: a.flags.concurrency, Progress: progress, Ahead: o.ahead,
	})
	stop()
	if err != nil {
		return done, err
	}
	where := dst.ref.WithTag(strings.Join(done.Tags, ","))
	switch {
	case done.Existing != nil:
		a.note("unchanged since %s", describe(done.Existing, done.Tags[0]))
		if done.Written {
			a.note("moved %s to it", where)
		}
	case !done.Written:
		a.note("unchanged: %s", where)
	default:
		a.note("pushed %s", where)
	}
	return done, nil
}

// describe names an artifact by its version, else a tag, and its commit.
func describe(m *manifest.Artifact, tag string) string {
	an := m.Manifest.Annotations
	name := printable(an[v1.AnnotationVersion])
	if name == "" {
		name = tag
	}
	if rev := printable(an[v1.AnnotationRevision]); rev != "" {
		return fmt.Sprintf("%s (commit %s)", name, rev[:min(7, len(rev))])
	}
	return name
}

func fileAnswers(m *manifest.Artifact) []fileAnswer {
	files := []fileAnswer{}
	for f := range m.Files() {
		files = append(files, fileAnswer{f.Path, string(f.Role), f.Size, f.Digest.String()})
	}
	return files
}
