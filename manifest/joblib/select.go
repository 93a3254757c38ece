package joblib

import (
	"math"
	"slices"
	"strings"
)

// selected returns which of its inputs a selector passes on, in the order of
// the input, where the file tells: by the mask that it stores, or by the scores
// from which scikit-learn computes one
// (https://github.com/scikit-learn/scikit-learn/blob/1.5.2/sklearn/feature_selection).
func (d *describer) selected(m *Model, a map[string]value) []int {
	if mask := elementsOf[bool](d, a["support_"]); mask != nil && !strings.Contains(m.Class, ".svm.") {
		return trueOnes(mask)
	}
	switch m.Class[strings.LastIndexByte(m.Class, '.')+1:] {
	case "SelectKBest":
		return bestOf(elementsOf[float64](d, a["scores_"]), a["k"], d)
	case "VarianceThreshold":
		least, ok := d.number(a["threshold"])
		variances := elementsOf[float64](d, a["variances_"])
		if !ok || variances == nil {
			return nil
		}
		var kept []int
		for i, v := range variances {
			if v > least {
				kept = append(kept, i)
			}
		}
		return kept
	}
	return nil
}

// bestOf returns the k indices of the highest scores as SelectKBest does: NaN
// counts least, and of equal scores the later ones win.
func bestOf(scores []float64, k value, d *describer) []int {
	n, ok := d.integer(k)
	if d.is(k, "all") {
		n, ok = int64(len(scores)), true
	}
	if !ok || scores == nil || n < 0 {
		return nil
	}
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
		if math.IsNaN(scores[i]) {
			scores[i] = -math.MaxFloat64
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case scores[i] < scores[j]:
			return -1
		case scores[i] > scores[j]:
			return 1
		}
		return 0
	})
	best := order[len(order)-int(min(n, int64(len(order)))):]
	slices.Sort(best)
	return best
}

func trueOnes(mask []bool) []int {
	kept := []int{}
	for i, b := range mask {
		if b {
			kept = append(kept, i)
		}
	}
	return kept
}

// elementsOf returns an array of Ts that is kept whole, or nil.
func elementsOf[T any](d *describer, v value) []T {
	var out []T
	for _, e := range d.raw(v) {
		t, ok := e.(T)
		if !ok {
			return nil
		}
		out = append(out, t)
	}
	return out
}

// raw returns the elements of an array of one dimension that is kept whole.
func (d *describer) raw(v value) []any {
	a := d.arrayOf(v)
	if a == nil || a.raw == 0 || a.data != 0 {
		return nil
	}
	if dims, _ := d.dims(a.shape); len(dims) != 1 {
		return nil
	}
	dt := &d.dtypes[a.dtype]
	raw := d.bytes(a.raw)
	if dt.size == 0 || int64(len(raw)) != a.count*dt.size {
		return nil
	}
	var out []any
	for b := range slices.Chunk(raw, int(dt.size)) {
		e, ok := dt.element(b)
		if !ok {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// number returns a finite number.
func (d *describer) number(v value) (float64, bool) {
	p, ok := d.plainValue(v)
	switch p := p.(type) {
	case int64:
		return float64(p), ok
	case float64:
		return p, ok
	}
	return 0, false
}
