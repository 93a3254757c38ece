package oci

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/joblib"
)

// Scan reads every file of the artifact that may be unpickled, without loading
// one, and says what is in it, in the order of paths. Layers are verified as
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
		if l.Files != nil && !slices.ContainsFunc(l.Files, func(f manifest.File) bool { return f.Role.Scanned() }) {
			continue
		}
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
	p.emit(Event{Kind: Started, Descriptor: l.Descriptor, Name: l.Title})
	rc, err := src.Fetch(ctx, l.Descriptor)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	var scans []manifest.Scan
	_, err = l.Walk(p.reader(ctx, rc, l.Descriptor, l.Title), func(f manifest.File, r io.Reader) error {
		if !f.Role.Scanned() {
			return nil
		}
		report, err := joblib.Inspect(r, o)
		scans = append(scans, manifest.Scan{Path: f.Path, Role: f.Role, Report: report})
		return err
	})
	if err == nil {
		p.emit(Event{Kind: Done, Descriptor: l.Descriptor, Name: l.Title})
	}
	return scans, err
}
