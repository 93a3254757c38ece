package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"galley/manifest"
	"galley/manifest/joblib"
	"galley/oci"
)

type scanOptions struct {
	strict, deep bool
	allow        []string
}

func (a *app) scanCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "scan FILE | REF...",
		Short: "Say what loading a model would run, without loading it",
		Long: `Scan reads pickled models, joblib files among them, byte by byte, and never loads
one. Of an artifact it reads every file that may be unpickled. Each file gets a
verdict, with the evidence:

  pass          no load-time code path was found
  not-a-pickle  nothing runs by unpickling
  review        nothing is known against it, and somebody should look: classes
                of a library that galley does not know, or of a script
  unverifiable  it cannot be told what loading does: cut, damaged, ambiguous, or
                calls that nobody knows
  dangerous     loading it runs something that no model needs

The exit code is 3 if a file is dangerous or unverifiable, with --strict also if
one needs review, else 1 if one could not be read, is empty, or is a page or a
pointer in the model's place. Pass is not "safe": it says
nothing of what the model predicts, nor of bytes that crash the code that uses
them; --deep checks the nodes of scikit-learn's trees for those.

scan.allow in galley.yaml, and --allow, name classes that somebody has looked at.`,
		Example: `  galley scan models/random_forest_final_model.joblib
  galley scan ghcr.io/acme/fraud-detector:v42 --strict
  galley scan models/*.joblib --format sarif > scan.sarif`,
		GroupID: groupLook,
		Args:    atLeast(1, "FILE or REF..."),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.scan(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.strict, "strict", false, "refuse what needs review too")
	f.BoolVar(&o.deep, "deep", false, "check the nodes of trees: edited ones crash or hang predict")
	f.StringArrayVar(&o.allow, "allow", nil, "let `module:name` pass, for somebody has looked at it")
	a.registryFlags(f)
	f.StringVar(&a.flags.format, "format", "text", "`text`, json, sarif or go-template=TEMPLATE")
	return cmd
}

// scanned is the answer of scan.
type scanned struct {
	Verdict joblib.Verdict `json:"verdict"` // the worst
	Refused bool           `json:"refused"`
	Files   []scannedFile  `json:"files"`
	Errors  []string       `json:"errors"` // of what could not be read
}

type scannedFile struct {
	Reference string `json:"reference,omitempty"` // of the artifact that holds it
	fileJSON
	scan manifest.Scan
}

func (a *app) scan(ctx context.Context, args []string, o scanOptions) error {
	if err := a.checkFormat("sarif"); err != nil {
		return err
	}
	config, err := loadConfig(".")
	if err != nil {
		return err
	}
	jo := joblib.Options{Deep: o.deep, Allow: append(config.Allow, o.allow...)}
	for _, g := range o.allow {
		if err := joblib.CheckAllow(g); err != nil {
			return &usageError{msg: "--allow " + err.Error()}
		}
	}
	var files []scannedFile
	var failed []error
	for _, arg := range args {
		found, err := a.scanOne(ctx, arg, jo)
		if context.Cause(ctx) != nil {
			return err
		}
		files = append(files, found...)
		failed = append(failed, err)
	}
	unread := errors.Join(failed...)
	if err := a.showScans(files, unread, o); err != nil {
		return err
	}
	// What is refused counts, also where something else could not be read.
	return errors.Join(refusedScans(files, o.strict), unread)
}

// scanOne scans a file, or the files of an artifact.
func (a *app) scanOne(ctx context.Context, arg string, o joblib.Options) ([]scannedFile, error) {
	if isDir(arg) {
		return nil, &usageError{msg: fmt.Sprintf("scan %s: is a directory", arg), hint: "galley scan " + shellWord(filepath.Join(arg, "model.joblib"))}
	}
	if isFile(arg) || looksLikeFile(arg) {
		s, err := inspectModelFile(ctx, "scan", arg, o)
		if err != nil {
			return nil, err
		}
		return []scannedFile{{fileJSON: (&fileCard{scan: s}).json(), scan: s}}, nil
	}
	p, err := a.open(ctx, arg)
	if err != nil {
		return nil, err
	}
	m, err := oci.Read(ctx, p.Target, p.ref.TagOrDigest())
	if err != nil {
		return nil, a.notFound(ctx, p, p.explain("scan", err))
	}
	progress, stop := a.progress(p.ref.Registry)
	scans, err := oci.Scan(ctx, m, o, progress)
	stop()
	if err != nil {
		return nil, p.explain("scan", err)
	}
	var files []scannedFile
	for _, s := range scans {
		if s.Verdict() != joblib.NotPickle || s.Role == manifest.RoleModel || s.Role == manifest.RolePart {
			files = append(files, scannedFile{
				Reference: p.ref.At(m.Root.Digest).String(), fileJSON: (&fileCard{scan: s}).json(), scan: s,
			})
		}
	}
	return files, nil
}

// showScans prints the answer in the format that was asked for.
func (a *app) showScans(files []scannedFile, unread error, o scanOptions) error {
	answer := scanned{Verdict: joblib.NotPickle, Files: []scannedFile{}, Errors: []string{}}
	if unread != nil {
		answer.Errors = strings.Split(unread.Error(), "\n")
	}
	var text strings.Builder
	for _, f := range files {
		answer.Verdict = max(answer.Verdict, f.Verdict)
		answer.Refused = answer.Refused || f.Verdict.Refused(o.strict)
		answer.Files = append(answer.Files, f)
		fmt.Fprintf(&text, "%s: %s\n", printable(f.File), verdictText(f.scan.Report))
		text.WriteString(table(findingRows(f.scan.Report), "  "))
	}
	if a.flags.format == "sarif" {
		return writeSARIF(a.out, files, unread == nil)
	}
	return a.show(answer, text.String())
}

// refusedError makes the exit code 3; what was found has been printed.
type refusedError struct{ files []scannedFile }

func (e *refusedError) Error() string {
	var lines []string
	for _, f := range e.files {
		lines = append(lines, fmt.Sprintf("scan %s: %s", f.File, f.Verdict))
	}
	return strings.Join(lines, "\n")
}

// refusedScans is the error for those of the files that are refused.
func refusedScans(files []scannedFile, strict bool) error {
	refused := slices.DeleteFunc(files, func(f scannedFile) bool { return !f.scan.Verdict().Refused(strict) })
	if len(refused) == 0 {
		return nil
	}
	return &refusedError{refused}
}
