package diff

import (
	"slices"

	"galley/manifest"
)

// Features is how the feature contract changed.
type Features struct {
	Result Result `json:"result"`
	Old    int    `json:"old"` // how many; -1: unknown
	New    int    `json:"new"`
	// Moved are the fewest names that, taken out, leave the others in the same
	// order.
	Added   []Feature `json:"added,omitempty"`
	Removed []Feature `json:"removed,omitempty"`
	Moved   []Move    `json:"moved,omitempty"`
	// The counts include what the lists leave out.
	AddedCount   int `json:"addedCount"`
	RemovedCount int `json:"removedCount"`
	MovedCount   int `json:"movedCount"`
}

// Feature is a name that only one side has, and its place there, from 1.
type Feature struct {
	Name     string `json:"name"`
	Position int    `json:"position"`
}

// Move is a name in another place, counted from 1.
type Move struct {
	Name string `json:"name"`
	From int    `json:"from"`
	To   int    `json:"to"`
}

// names are a side's features; nil if they are unknown.
func names(f *manifest.Facts) []string {
	if f.Features == nil {
		return nil
	}
	return f.Features.Names
}

// features compares the lists of names.
func features(a, b *manifest.Facts) Features {
	x, y := names(a), names(b)
	d := Features{Result: Unknown, Old: a.Info.Features, New: b.Info.Features}
	if x == nil || y == nil {
		// A contract that only one has is a difference, not a gap.
		if isWhole(a) && isWhole(b) && (a.Features == nil) != (b.Features == nil) {
			d.Result = Differs
		}
		return d
	}
	return CompareNames(x, y)
}

// CompareNames compares two lists of feature names that are known, x the older.
func CompareNames(x, y []string) Features {
	d := Features{Old: len(x), New: len(y)}
	if d.Result = result(slices.Equal(x, y)); d.Result == Same {
		return d
	}
	// A name may be there more than once: its n-th place goes with the n-th.
	places := make(map[string][]int, len(x))
	for i, name := range x {
		places[name] = append(places[name], i)
	}
	var common []Move // in the newer one's order
	for i, name := range y {
		if at := places[name]; len(at) > 0 {
			common = append(common, Move{name, at[0] + 1, i + 1})
			places[name] = at[1:]
			continue
		}
		d.AddedCount++
		d.Added = appendListed(d.Added, Feature{name, i + 1})
	}
	for i, name := range x {
		if at := places[name]; len(at) > 0 && at[0] == i {
			d.RemovedCount++
			d.Removed = appendListed(d.Removed, Feature{name, i + 1})
			places[name] = at[1:]
		}
	}
	stays := increasing(common)
	for i, m := range common {
		if !stays[i] {
			d.MovedCount++
			d.Moved = appendListed(d.Moved, m)
		}
	}
	return d
}

func appendListed[T any](list []T, v T) []T {
	if len(list) >= maxListed {
		return list
	}
	return append(list, v)
}

// increasing marks a longest run of moves whose From increases: these did not
// change places with one another.
func increasing(moves []Move) []bool {
	var ends []int // of the best run of each length, the index of its last move
	before := make([]int, len(moves))
	for i, m := range moves {
		n, _ := slices.BinarySearchFunc(ends, m.From, func(at, from int) int { return moves[at].From - from })
		before[i] = -1
		if n > 0 {
			before[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		} else {
			ends[n] = i
		}
	}
	stays := make([]bool, len(moves))
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = before[i] {
			stays[i] = true
		}
	}
	return stays
}
