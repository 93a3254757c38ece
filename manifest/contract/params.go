package contract

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"galley/manifest/internal/strictjson"
	"galley/manifest/training"
)

// Limits of what [Params] collects.
const (
	maxParams = 200
	maxDepth  = 4    // objects above parameters, and below
	maxName   = 200  // bytes
	maxText   = 1000 // bytes, as in a [joblib.Param]
)

// Params returns the parameters that a training summary repeats, at most 200:
// the numbers, booleans, strings and nulls of objects under keys that contain
// "param", in any case, such as best_params, hyperparameters or model_params.
// Values are nil, a bool, int64, float64 or string, and NaN and the infinities
// their names, as in a [joblib.Param]; lists are passed over.
//
// A name is the key; keys of objects in between stand before it as scikit-learn
// has it, step__param. Where a summary has several objects with parameters side
// by side, as one that compares models does, only those of the best_model
// count, or else their keys stand before the names. Of two values for one name
// that of "best" parameters counts, or neither. Grids, spaces and defaults were
// not used to train, and are passed over.
//
// A summary that is not JSON, or larger than [training.MaxSize], has none:
// [training.ParseSummary] says what is wrong with it.
func Params(summaryJSON []byte) map[string]any {
	v, err := strictjson.Parse(summaryJSON, strictjson.Options{MaxBytes: training.MaxSize, NonFinite: true, BOM: true})
	if err != nil {
		return nil
	}
	c := &collector{}
	if best := v.Member("best_model"); best.Kind() == strictjson.String {
		c.best = fold(best.Text())
	} else {
		c.best = fold(nameOf(best))
	}
	params := make(map[string]any)
	ranks := make(map[string]rank)
	for _, l := range c.object(v, maxDepth) {
		before, seen := params[l.name]
		switch {
		case !seen && len(params) < maxParams, seen && l.rank > ranks[l.name]:
			params[l.name], ranks[l.name] = l.value, l.rank
		case seen && l.rank == ranks[l.name] && !equal(before, l.value):
			params[l.name] = ambiguous{}
		}
	}
	for name, value := range params {
		if value == (ambiguous{}) {
			delete(params, name)
		}
	}
	return params
}

// ambiguous stands for a parameter with two values.
type ambiguous struct{}

// leaf is one parameter.
type leaf struct {
	name  string
	value any
	rank  rank
}

// rank says how much what stands under a key counts.
type rank int

const (
	none  rank = iota // it has no parameters itself
	plain             // it has
	best              // and they are those that were chosen
)

// rankOf judges a key.
func rankOf(key string) rank {
	key = strings.ToLower(key)
	if !strings.Contains(key, "param") {
		return none
	}
	for _, s := range []string{"best", "final", "optimal"} {
		if strings.Contains(key, s) {
			return best
		}
	}
	for _, s := range []string{
		"bound", "candidate", "default", "distribution", "grid", "initial", "range", "search", "space", "tuning",
	} {
		if strings.Contains(key, s) {
			return none
		}
	}
	return plain
}

// collector finds the parameters in a summary.
type collector struct {
	best string // the fold of best_model, or ""
}

// group is what one of several neighbours holds.
type group struct {
	key    string
	leaves []leaf
}

// object collects from an object or list that has no parameters itself.
func (c *collector) object(v strictjson.Value, depth int) []leaf {
	if depth < 0 {
		return nil
	}
	var own []leaf
	var groups []group
	enter := func(key string, v strictjson.Value) {
		if leaves := c.object(v, depth-1); len(leaves) > 0 {
			groups = append(groups, group{key, leaves})
		}
	}
	for key, member := range v.Members() {
		if r := rankOf(key); r > none && member.Kind() == strictjson.Object {
			own = append(own, c.params(member, r, maxDepth)...)
		} else {
			enter(key, member)
		}
		if len(own) > maxParams {
			return own
		}
	}
	for item := range v.Items() {
		if item.Kind() == strictjson.Object {
			enter(nameOf(item), item)
		}
		if len(groups) > maxParams {
			break
		}
	}
	return append(own, c.merge(groups)...)
}

// merge puts the parameters of neighbours together.
func (c *collector) merge(groups []group) (all []leaf) {
	var bests []group // where there are some that were chosen
	for _, g := range groups {
		if c.isBest(g.key) {
			return g.leaves
		}
		if slices.ContainsFunc(g.leaves, func(l leaf) bool { return l.rank == best }) {
			bests = append(bests, g)
		}
	}
	if len(bests) == 1 {
		groups = bests
	}
	if len(groups) == 1 {
		return groups[0].leaves
	}
	for _, g := range groups {
		for _, l := range g.leaves {
			l.name = g.key + "__" + l.name
			if g.key != "" && len(l.name) <= maxName && len(all) <= maxParams {
				all = append(all, l)
			}
		}
	}
	return all
}

// isBest reports whether a key names the model that won.
func (c *collector) isBest(key string) bool {
	return c.best != "" && fold(key) == c.best
}

// params collects from an object of parameters.
func (c *collector) params(v strictjson.Value, r rank, depth int) (all []leaf) {
	if depth == 0 {
		return nil
	}
	for key, member := range v.Members() {
		if c.isBest(key) && member.Kind() == strictjson.Object {
			return c.params(member, r, depth-1)
		}
	}
	for key, member := range v.Members() {
		if len(all) > maxParams {
			return all
		}
		if member.Kind() != strictjson.Object {
			if value, ok := scalar(member); ok && isName(key) {
				all = append(all, leaf{key, value, r})
			}
			continue
		}
		prefix := key + "__"
		below := r
		if under := rankOf(key); under > none {
			prefix, below = "", max(r, under)
		} else if strings.Contains(strings.ToLower(key), "param") {
			continue // a grid
		}
		for _, l := range c.params(member, below, depth-1) {
			if l.name = prefix + l.name; isName(l.name) {
				all = append(all, l)
			}
		}
	}
	return all
}

// isName reports whether a key can name a parameter.
func isName(key string) bool {
	ungraphic := func(r rune) bool { return !unicode.IsGraphic(r) }
	return key != "" && len(key) <= maxName && !strings.ContainsFunc(key, ungraphic)
}

// nameOf returns the name that an object gives itself, or "".
func nameOf(object strictjson.Value) string {
	for _, known := range []string{"name", "model", "modelname"} {
		for key, v := range object.Members() {
			if v.Kind() == strictjson.String && fold(key) == known && isName(v.Text()) {
				return v.Text()
			}
		}
	}
	return ""
}

// scalar returns the value of what is neither object nor list.
func scalar(v strictjson.Value) (any, bool) {
	switch v.Kind() {
	case strictjson.Null:
		return nil, true
	case strictjson.Bool:
		return v.Text() == "true", true
	case strictjson.String:
		return v.Text(), len(v.Text()) <= maxText
	case strictjson.Number:
		if n, err := strconv.ParseInt(v.Text(), 10, 64); err == nil {
			return n, true
		}
		f, _ := v.Float()
		return finite(f), true
	}
	return nil, false
}

// finite returns f, or its name as joblib has it.
func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return f
}
