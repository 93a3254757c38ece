package promote

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"galley/manifest"
	"galley/oci"
)

// Status is a stage as one line tells it.
type Status struct {
	*State
	Stage string
	// Subject is what the tag names; nil if it is not there or no model.
	Subject *oci.Subject
	// Version is that of the newest event, if the tag is what it says.
	Version string
}

// StatusOf looks at all stages: those of that name, and those that have events.
// It takes one request for the tags and two for each stage, several at once.
// Stages that have neither a tag nor an event are among them. The order is that
// of names, and then the alphabet.
func StatusOf(ctx context.Context, repository string, tags, record *oci.Keeper, names []string, concurrency int) ([]Status, error) {
	all, err := record.AllTags(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range Names(all) {
		if !slices.Contains(names, name) {
			names = append(slices.Clip(names), name)
		}
	}
	list := make([]Status, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(concurrency, oci.DefaultConcurrency))
	for i, name := range names {
		g.Go(func() error {
			s := &Stage{Name: name, Repository: repository, Tags: tags, Record: record}
			st, err := s.read(ctx, all)
			if err != nil {
				return err
			}
			list[i] = Status{Stage: name, State: st}
			if st.Last != nil && st.Last.To == st.At.Digest {
				list[i].Version = st.Last.Version
			}
			if st.At.Digest != "" {
				list[i].Subject, err = oci.SubjectOf(ctx, tags.Target, st.At, st.Doc)
				if as[*manifest.NotArtifactError](err) {
					err = nil
				}
			}
			return err
		})
	}
	return list, g.Wait()
}
