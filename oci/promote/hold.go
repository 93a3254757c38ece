package promote

import (
	"context"

	"galley/oci"
)

// Hold makes promotions of the stage refuse, or with unhold lets them go on. It
// reports whether there was anything to do.
func (s *Stage) Hold(ctx context.Context, hold bool, claim Claim) (*Event, error) {
	return s.act(ctx, func(ctx context.Context, st *State) (decision, error) {
		switch {
		case st.Fault != nil:
			return decision{}, &BrokenError{s.Name, st.Fault}
		case st.Last == nil && st.At.Digest == "":
			return decision{}, s.Unknown(st)
		case st.Held() == hold:
			return decision{}, nil
		}
		e := &Event{Action: Held, To: st.At.Digest, Model: st.At.Digest, Hold: hold,
			Actor: clip(claim.Actor), Run: clip(claim.Run), Reason: clip(claim.Reason), Tool: claim.Tool}
		if !hold {
			e.Action = Unheld
		}
		about := st.At
		if l := st.Last; l != nil {
			// A tag that was moved outside galley stays so.
			e.To, e.Model, e.Image, e.Version, e.Was, e.Revision = l.To, l.Model, l.Image, l.Version, l.Version, l.Revision
			e.Policy, e.Scan = l.Policy, l.Scan
			about = l.about
		}
		e.From = e.To
		if st.Pending() && st.At.Digest != "" {
			// The stage is held where it is, and not where a promotion that was
			// interrupted would have it.
			e.To, e.Model, e.Version, e.Image, about = st.At.Digest, st.At.Digest, st.Last.Was, "", st.At
			if c, err := oci.SubjectOf(ctx, s.Tags.Target, st.At, st.Doc); err == nil {
				e.Model, e.Revision, e.Scan = c.Model, c.Facts.Info.Revision, verdictOf(c.Facts)
			}
		}
		return decision{event: e, about: about}, nil
	})
}
