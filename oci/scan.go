package oci

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/contract"
	"galley/manifest/joblib"
	"galley/manifest/training"
)

// Scan reads every file of the artifact, whatever it is said to be, without
// loading one, and says what is in it, in the order of paths. Layers are verified as
// they stream, at most three at once; what has been read is right only if the
// error is nil. Globals that the artifact says to be allowed are not, unless o
// allows them.
func Scan(ctx context.Context, m *Model, o joblib.Options, p Progress) ([]manifest.Scan, error) {
	var mu sync.Mutex
	var scans []manifest.Scan
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for i := range m.Layers {
		l := &m.Layers[i]
		g.Go(func() error {
			found, err := scanLayer(ctx, m, l, o, p)
			mu.Lock()
			defer mu.Unlock()
			scans = append(scans, found...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(scans, func(a, b manifest.Scan) int { return strings.Compare(a.Path, b.Path) })
	return scans, nil
}

func scanLayer(ctx context.Context, src manifest.Fetcher, l *manifest.Layer, o joblib.Options, p Progress) ([]manifest.Scan, error) {
	var scans []manifest.Scan
	err := readLayer(ctx, src, l, walkArtifact, p, func(f manifest.File, r io.Reader) error {
		report, err := joblib.Inspect(r, o)
		scans = append(scans, manifest.Scan{Path: f.Path, Role: f.Role, Report: report})
		return err
	})
	return scans, err
}

// walker visits the files of a layer, as [manifest.Layer.Walk] does.
type walker func(*manifest.Layer, io.Reader, func(manifest.File, io.Reader) error) error

func walkArtifact(l *manifest.Layer, r io.Reader, fn func(manifest.File, io.Reader) error) error {
	_, err := l.Walk(r, fn)
	return err
}

// readLayer fetches a layer and visits its files.
func readLayer(ctx context.Context, src manifest.Fetcher, l *manifest.Layer, walk walker, p Progress, fn func(manifest.File, io.Reader) error) error {
	p.emit(Event{Kind: Started, Descriptor: l.Descriptor, Name: l.Title})
	rc, err := src.Fetch(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := walk(l, p.reader(ctx, rc, l.Descriptor, l.Title), fn); err != nil {
		return err
	}
	p.emit(Event{Kind: Done, Descriptor: l.Descriptor, Name: l.Title})
	return nil
}

// maxFeatures bounds the features file in bytes.
const maxFeatures = training.MaxSize

// CheckContract compares the artifact's features with its model, whose scans are
// at hand, as [manifest.Pack] does. Features that cannot be read fit anything.
func CheckContract(ctx context.Context, m *Model, scans []manifest.Scan) (contract.Result, error) {
	in := contract.Input{}
	for _, s := range scans {
		switch {
		case s.Role == manifest.RoleModel && in.Model == nil:
			in.Model = s.Report
		case s.Role == manifest.RolePart:
			in.Parts = append(in.Parts, s.Report)
		}
	}
	for i := range m.Layers {
		l := &m.Layers[i]
		if l.Role != manifest.RoleFeatures || l.Format != manifest.FormatRaw || l.Descriptor.Size > maxFeatures || in.FeaturesFile != "" {
			continue
		}
		data, err := manifest.ReadBlob(ctx, m, l.Descriptor, "layer "+l.Title, maxFeatures)
		if err != nil {
			return contract.Result{}, err
		}
		in.FeaturesFile = l.Title
		if f, err := training.ParseFeatures(data, ""); err == nil {
			in.Features, in.Note = f.Names, f.Note
		}
	}
	if in.Model == nil {
		return contract.Result{}, nil
	}
	return contract.Check(in), nil
}
