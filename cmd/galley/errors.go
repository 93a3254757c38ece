package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"galley/manifest"
	"galley/manifest/gate"
	"galley/manifest/project"
	"galley/manifest/training"
	"galley/oci"
	"galley/oci/image"
	"galley/oci/promote"
)

// The exit codes; exitCodes tells people what they mean.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNo          = 3
	exitDenied      = 4
	exitConflict    = 5
	exitInterrupted = 130
)

// usageError is a command line that cannot be understood.
type usageError struct{ msg, hint string }

func (e *usageError) Error() string { return e.msg }

// interruptedError is a run that a signal ended.
type interruptedError struct{ cause error }

func (e *interruptedError) Error() string {
	return "interrupted; tags and installed files are as they were"
}
func (e *interruptedError) Unwrap() error { return e.cause }

// errTimeout is why what --timeout ends ended.
var errTimeout = errors.New("the time is up")

// timeoutError is a run that --timeout ended.
type timeoutError struct {
	after time.Duration
	error
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("timed out after %v; tags and installed files are as they were", e.after)
}
func (e *timeoutError) Unwrap() error { return e.error }

// hinted is an error with a hint that only the place that raised it knows.
type hinted struct {
	error
	hints []string
}

func (e *hinted) Unwrap() error { return e.error }

// pushFailed is a push that a registry did not take: the model must not be
// lost with the machine that trained it.
type pushFailed struct {
	error
	ref  oci.Reference // without tag
	tags []string
	args []string // flags and files that make the artifact
}

func (e *pushFailed) Unwrap() error { return e.error }

// failedAt is an error of an operation on a reference, for hints that name it.
type failedAt struct {
	error
	ref oci.Reference
}

func (e *failedAt) Unwrap() error { return e.error }

// unknownTag is a tag that is not there, with those that are like it.
type unknownTag struct {
	error
	ref  oci.Reference
	near []string
}

func (e *unknownTag) Unwrap() error { return e.error }

// as reports whether err holds an E.
func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// exitCode says what kind of error it is.
func exitCode(err error) int {
	switch {
	case as[*interruptedError](err):
		return exitInterrupted
	case as[*oci.MismatchError](err), as[*manifest.UnsafeError](err), as[*refusedError](err), as[*mismatchError](err),
		as[*claimError](err), as[*mainError](err), as[*fitError](err),
		as[*promote.RefusedError](err), as[*promote.HeldError](err), as[*promote.PolicyError](err), as[*promote.NoWayBackError](err),
		as[*promote.GoneError](err), as[*promote.BrokenError](err), as[*brokenHistory](err), as[*otherModelError](err), as[*differsError](err):
		return exitNo
	case as[*usageError](err), as[*oci.ReferenceError](err), as[*oci.NoMatchError](err),
		as[*project.ConfigError](err), as[*project.ArgError](err), as[*project.ClashError](err),
		as[*project.NoModelError](err), as[*project.SeveralModelsError](err),
		as[*training.AmbiguousError](err), as[*oci.UnknownNameError](err), as[*oci.FilterError](err), as[*oci.UnknownFileError](err),
		as[*image.CollisionError](err), as[*image.SeveralModelsError](err), errors.Is(err, image.ErrNoPlatform), errors.Is(err, manifest.ErrReserved),
		as[*promote.NameError](err), as[*promote.TimeError](err), as[*gate.ExpressionError](err):
		return exitUsage
	case errors.Is(err, oci.ErrUnauthorized), errors.Is(err, oci.ErrForbidden):
		return exitDenied
	case as[*oci.SharedError](err), as[*oci.StageError](err):
		return exitNo
	case as[*promote.MovedError](err), as[*promote.ConflictError](err),
		as[*oci.TakenError](err), as[*oci.HistoryTagError](err), as[*oci.StageTagError](err), as[*oci.OverwriteError](err), errors.Is(err, oci.ErrConflict):
		return exitConflict
	}
	return exitFailed
}

// showError prints the error and the hints that go with it. Joined errors come
// one a line.
func (a *app) showError(err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(a.err, "galley: error: %s\n", printable(line))
	}
	for _, h := range hints(err) {
		fmt.Fprintf(a.err, "galley: hint: %s\n", printable(h))
	}
}

// hints are the next commands, each to be pasted. The first row that matches
// the error gives them; a push that failed adds how to keep the model.
func hints(err error) []string {
	var out []string
	for _, row := range slices.Concat(stageHints, hintTable) {
		if out = row(err); out != nil {
			break
		}
	}
	if e, ok := errors.AsType[*pushFailed](err); ok && e.ref.Kind == oci.Registry && keepable(err) {
		out = append(out, e.keep()...)
	}
	return out
}

var hintTable = []func(error) []string{
	hint(func(e *usageError) []string { return lines(e.hint) }),
	hint(func(e *hinted) []string { return e.hints }),
	hint(func(e *unknownTag) []string {
		var out []string
		for _, tag := range e.near {
			out = append(out, e.ref.WithTag(tag).String())
		}
		return out
	}),
	hint(func(e *oci.ReferenceError) []string { return e.Suggest }),
	hint(unsafeHint),
	hint(func(e *mismatchError) []string { return []string{"--allow-mismatch=" + e.what + ", if it is meant so"} }),
	hint(func(e *claimError) []string {
		return []string{"galley scan " + e.ref.String(), "--allow-unsafe, if loading it may run anything"}
	}),
	hint(func(*mainError) []string {
		return []string{"move the classes into a module of the app's, and train again", "--allow-mismatch=runtime, if the app defines them in its own __main__"}
	}),
	hint((*fitError).hints),
	hint(func(e *image.SeveralModelsError) []string {
		var out []string
		for i, name := range e.Names {
			out = append(out, fmt.Sprintf("name the model itself: REPOSITORY@%s   # %s", e.Artifacts[i], name))
		}
		return out[:min(len(out), 5)]
	}),
	hint(func(*image.CollisionError) []string {
		return []string{"name the models, and each lies below its name: galley bake fraud=REF churn=REF --base …"}
	}),
	hint(func(*image.PathError) []string {
		return []string{"--dest DIRECTORY puts the model elsewhere, --no-look into /models alone"}
	}),
	hint(baseHint),
	hint(conflictHint),
	hint(func(e *oci.HistoryTagError) []string { return []string{"take a tag without .h- and .i-"} }),
	hint(func(e *oci.StageError) []string {
		return []string{"move the stage first: galley promote REF " + e.Stage + ", or galley rollback"}
	}),
	hint(func(e *oci.StageTagError) []string {
		return []string{"push or copy to another tag, and then: galley promote REF " + e.Tag}
	}),
	hint(func(e *oci.NoDeleteError) []string {
		return []string{"delete it in the registry's own interface, or allow deletion there", "distribution has REGISTRY_STORAGE_DELETE_ENABLED=true"}
	}),
	hint(func(e *project.NoModelError) []string {
		return []string{"name it: galley push REF path/to/model.joblib", "or say in galley.yaml where it is: galley init"}
	}),
	hint(fileHint),
	hint(func(e *training.AmbiguousError) []string {
		var out []string
		for _, p := range e.Paths {
			out = append(out, "in galley.yaml: "+project.AliasLine(e.Name, p))
		}
		return out
	}),
	hint(func(e *manifest.NotArtifactError) []string {
		return []string{"galley reads artifacts of models; docker pull is for images"}
	}),
	hint(func(e *manifest.ChangedError) []string {
		return []string{"wait until the training job has written " + e.Path + ", then push again"}
	}),
	hint(func(e *oci.MismatchError) []string {
		if !as[*oci.InterruptedError](e) {
			return nil
		}
		return []string{"galley verify " + shellWord(e.Subject) + "   # completes it"}
	}),
	hint(func(e *oci.StateError) []string {
		return []string{"remove " + e.File + " in the directory, and pull again with --force"}
	}),
	hint(func(e *oci.CredentialsError) []string { return []string{"mend or remove the entry in " + e.File} }),
	hint(registryHint),
}

// hint is a row of the table: it matches errors that hold an E.
func hint[E error](f func(E) []string) func(error) []string {
	return func(err error) []string {
		if e, ok := errors.AsType[E](err); ok {
			return f(e)
		}
		return nil
	}
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// unsafeHint says how to look closer, and how to go on.
func unsafeHint(e *manifest.UnsafeError) []string {
	var out []string
	if names := e.Unknown(); len(names) > 0 {
		quoted := make([]string, len(names))
		for i, g := range names {
			quoted[i] = strconv.Quote(g)
		}
		out = append(out, "if somebody has looked at it, in galley.yaml: scan: {allow: ["+strings.Join(quoted, ", ")+"]}")
	}
	return append(out, "--allow-unsafe, if loading it may run anything")
}

// conflictHint says what to do instead.
func conflictHint(e *failedAt) []string {
	if taken, ok := errors.AsType[*oci.TakenError](e); ok {
		if taken.Next == "" {
			return []string{"take another tag than " + taken.Tag}
		}
		return []string{"the next free one is " + e.ref.WithTag(taken.Next).String()}
	}
	pull := "galley pull " + e.ref.String()
	if as[*oci.LinkError](e) {
		return []string{pull + " -o another-directory   # below which no link leads out"}
	}
	if as[*oci.OverwriteError](e) {
		return []string{pull + " -o another-directory", pull + " --force   # replaces them"}
	}
	return nil
}

// baseHint says what to build on instead.
func baseHint(e *image.BaseError) []string {
	switch {
	case errors.Is(e, image.ErrNotImage):
		return []string{"--base names the image that runs the app, and the argument the model's artifact"}
	case errors.Is(e, image.ErrSchema1):
		return []string{"docker pull it and docker push it: that writes it in today's format"}
	case errors.Is(e, image.ErrNoPlatform):
		return []string{"--platform takes those that the base has; without it bake takes all"}
	}
	return nil
}

func fileHint(e *project.FileError) []string {
	switch {
	case errors.Is(e.Err, project.ErrPointer):
		return []string{"git lfs pull --include " + shellWord(e.Path)}
	case errors.Is(e.Err, project.ErrOutside):
		return []string{shellWord(e.Path) + "=models/" + shellWord(e.Path[strings.LastIndexAny(e.Path, `/\`)+1:])}
	case errors.Is(e.Err, project.ErrNotRegular):
		return []string{"name the files in it: " + shellWord(strings.TrimSuffix(e.Path, "/")+"/model.joblib")}
	}
	return nil
}

func registryHint(e *oci.Error) []string {
	switch {
	case errors.Is(e, oci.ErrUnauthorized):
		return []string{"galley login " + e.Host}
	case errors.Is(e, oci.ErrForbidden):
		return []string{"galley login " + e.Host + "   # as somebody who may"}
	case errors.Is(e, oci.ErrScheme):
		return []string{"--plain-http, if " + e.Host + " is to be trusted with that"}
	case errors.Is(e, oci.ErrTLS):
		return []string{"--ca-file FILE trusts an authority of your own"}
	case errors.Is(e, oci.ErrNotRegistry):
		return []string{"is " + e.Host + " the registry's own address? A web page answered"}
	}
	return nil
}

// keepable reports whether the packed model could be kept elsewhere: it is the
// registry that failed, not the model or the request.
func keepable(err error) bool {
	_, ok := errors.AsType[*oci.Error](err)
	return ok && !as[*oci.TakenError](err) && !as[*oci.HistoryTagError](err) && !as[*oci.StageTagError](err) && !as[*manifest.ChangedError](err) && !errors.Is(err, fs.ErrNotExist)
}

func (e *pushFailed) keep() []string {
	tags := strings.Join(e.tags, ",")
	if tags == "" {
		tags = oci.DefaultTag
	}
	outbox := oci.Reference{Kind: oci.Layout, Path: "outbox"}
	save := []string{"galley push", outbox.WithTag(tags).String()}
	for _, arg := range e.args {
		save = append(save, shellWord(arg))
	}
	first, _, _ := strings.Cut(tags, ",")
	return []string{
		"keep the model: " + strings.Join(save, " "),
		"and later: galley cp " + outbox.WithTag(first).String() + " " + e.ref.WithTag(tags).String(),
	}
}

// shellWord quotes s where a shell would not take it as one word.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_./=:,@%+", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// copyFailed puts an error of a copy into words, on the side where it arose.
func (a *app) copyFailed(ctx context.Context, dst, src *place, op string, err error) error {
	if oci.FromSource(err) {
		return a.notFound(ctx, src, src.explain(op, err))
	}
	return &failedAt{dst.explain(op, err), dst.ref}
}
