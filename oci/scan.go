package oci

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/manifest/joblib"
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

// scanFiles says what is in files below root.
func scanFiles(ctx context.Context, root *os.Root, paths, allow []string) ([]manifest.Scan, error) {
	var scans []manifest.Scan
	for _, p := range paths {
		f, err := root.Open(p)
		if err != nil {
			return nil, err
		}
		report, err := joblib.Inspect(manifest.ContextReader(ctx, f), joblib.Options{Allow: allow})
		if err = cmp.Or(err, f.Close()); err != nil {
			return nil, fmt.Errorf("scan %s: %w", p, err)
		}
		scans = append(scans, manifest.Scan{Path: p, Report: report})
	}
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
		report, err := joblib.Inspect(r, o)
		scans = append(scans, manifest.Scan{Path: f.Path, Role: f.Role, Report: report})
		return err
	})
	if err == nil {
		p.emit(Event{Kind: Done, Descriptor: l.Descriptor, Name: l.Title})
	}
	return scans, err
}
