package contract

import (
	"fmt"
	"iter"
	"strings"
	"unicode"
)

// maxListed is how many names a list in a result has at most.
const maxListed = 10

// Difference is how the names of a features file differ from those that a place
// in the model takes. A name is in one of the lists at most.
type Difference struct {
	Have int `json:"have"` // names in the features file
	Want int `json:"want"` // features of the model
	// The lists are empty where the model stores no names.
	Missing  Names    `json:"missing,omitzero"`  // that the model takes and the file lacks
	Extra    Names    `json:"extra,omitzero"`    // that the model does not take
	Repeated Names    `json:"repeated,omitzero"` // that the model takes once and the file has again
	Respelt  Spelling `json:"respelt,omitzero"`  // that differ in case, blanks, hyphens or underscores alone
	Order    *Order   `json:"order,omitempty"`   // nil: what both have stands in the same order
	// Hint is a question that often leads to the cause, or empty.
	Hint string `json:"hint,omitempty"`
}

// Names are the first ten of Count names.
type Names struct {
	First []string `json:"first"`
	Count int      `json:"count"`
}

// Spelling lists the first ten of Count pairs of names: that of the features
// file, and that of the model.
type Spelling struct {
	First [][2]string `json:"first"`
	Count int         `json:"count"`
}

// Order is the first place at which another name stands. Position counts the
// names of the features file from 1.
type Order struct {
	Position int    `json:"position"`
	Have     string `json:"have"` // in the features file
	Want     string `json:"want"` // in the model
}

func (n *Names) add(name string) {
	if n.Count++; len(n.First) < maxListed {
		n.First = append(n.First, name)
	}
}

func (s *Spelling) add(have, want string) {
	if s.Count++; len(s.First) < maxListed {
		s.First = append(s.First, [2]string{have, want})
	}
}

// String lists the names, quoted, and counts the rest.
func (n Names) String() string {
	var list []string
	for _, name := range n.First {
		list = append(list, quote(name))
	}
	return join(list, n.Count)
}

// String lists the pairs, quoted, and counts the rest.
func (s Spelling) String() string {
	var list []string
	for _, pair := range s.First {
		list = append(list, quote(pair[0])+" for "+quote(pair[1]))
	}
	return join(list, s.Count)
}

func join(list []string, n int) string {
	s := strings.Join(list, ", ")
	if more := n - len(list); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// Lines says the difference in sentences without a full stop.
func (d *Difference) Lines() []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if d.Have != d.Want {
		say("%s, the model takes %d", plural(d.Have, "name"), d.Want)
	}
	if d.Extra.Count > 0 {
		say("not in the model: %s", d.Extra)
	}
	if d.Missing.Count > 0 {
		say("missing: %s", d.Missing)
	}
	if d.Repeated.Count > 0 {
		say("more than once: %s", d.Repeated)
	}
	if d.Respelt.Count > 0 {
		say("spelt otherwise: %s", d.Respelt)
	}
	if d.Order != nil {
		say("order: at position %d stands %s where the model has %s", d.Order.Position, quote(d.Order.Have), quote(d.Order.Want))
	}
	if d.Hint != "" {
		say("%s", d.Hint)
	}
	return lines
}

// String joins the lines.
func (d *Difference) String() string { return strings.Join(d.Lines(), "; ") }

// distance is how much has to be changed.
func (d *Difference) distance() int {
	n := d.Missing.Count + d.Extra.Count + d.Repeated.Count + d.Respelt.Count
	if d.Order != nil {
		n++
	}
	return n
}

// headline is the difference from a place in a few words.
func (d *Difference) headline(what string) string {
	others := d.Extra.Count + d.Repeated.Count + d.Respelt.Count
	switch {
	case d.Have != d.Want:
		return fmt.Sprintf("%s in the file, %d in %s", plural(d.Have, "feature"), d.Want, what)
	case others == 0:
		return fmt.Sprintf("the order of the %s is not that of %s", plural(d.Have, "feature"), what)
	case others == 1:
		return fmt.Sprintf("1 of %s is not in %s", plural(d.Have, "feature"), what)
	}
	return fmt.Sprintf("%d of %s are not in %s", others, plural(d.Have, "feature"), what)
}

// consequence is what predict does with such columns.
func (d *Difference) consequence() string {
	if d.Have == d.Want && d.Order != nil {
		return "predict would fail or mix columns"
	}
	return "predict would fail"
}

// difference compares names with those of a place, or with their number.
func (p place) difference(have []string) *Difference {
	d := &Difference{Have: len(have), Want: p.count}
	if p.names == nil {
		if d.Have == d.Want+1 {
			d.Hint = "one too many: is the target among them?"
		}
		return d
	}
	d.Want = len(p.names)
	d.match(have, p.names)
	if p.anyOrder != "" {
		d.Order = nil
	}
	if d.Extra.Count == 1 && d.distance() == 1 {
		d.Hint = "one too many: is it the target?"
		if isIndex(d.Extra.First[0]) {
			d.Hint = "one too many: is it the index of the table?"
		}
	}
	return d
}

// match pairs the names of the file with those of the model: equal ones first,
// then those that are only spelt otherwise.
func (d *Difference) match(have, want []string) {
	open := make(map[string]int) // how often the model still wants a name
	for _, name := range want {
		open[name]++
	}
	known := make(map[string]bool)      // names that both have
	meant := make([]*string, len(have)) // the model's names for those of the file
	for i, name := range have {
		if open[name] > 0 {
			open[name]--
			known[name] = true
			meant[i] = &have[i]
		}
	}
	alike := make(map[string][]string) // open names by their fold, in order
	for name := range opened(want, open) {
		alike[fold(name)] = append(alike[fold(name)], name)
	}
	for i, name := range have {
		list := alike[fold(name)]
		switch {
		case meant[i] != nil:
		case known[name]:
			d.Repeated.add(name)
		case len(list) > 0:
			meant[i], alike[fold(name)] = &list[0], list[1:]
			open[list[0]]--
			d.Respelt.add(name, list[0])
		default:
			d.Extra.add(name)
		}
	}
	for name := range opened(want, open) {
		d.Missing.add(name)
	}
	d.order(have, want, meant)
}

// order finds the first name that stands elsewhere, among those that both have.
func (d *Difference) order(have, want []string, meant []*string) {
	paired := make(map[string]int)
	for _, name := range meant {
		if name != nil {
			paired[*name]++
		}
	}
	var both []string // what of want is paired, in its order
	for _, name := range want {
		if paired[name] > 0 {
			paired[name]--
			both = append(both, name)
		}
	}
	at := 0
	for i, name := range meant {
		if name == nil {
			continue
		}
		if *name != both[at] {
			d.Order = &Order{Position: i + 1, Have: have[i], Want: both[at]}
			return
		}
		at++
	}
}

// opened returns the names of all that are open, each as often, in the order of
// all.
func opened(all []string, open map[string]int) iter.Seq[string] {
	return func(yield func(string) bool) {
		done := make(map[string]bool)
		for _, name := range all {
			if done[name] {
				continue
			}
			done[name] = true
			for range open[name] {
				if !yield(name) {
					return
				}
			}
		}
	}
}

// fold returns a name without what people and libraries change about it.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// isIndex reports whether a column looks like the row numbers that pandas
// writes.
func isIndex(name string) bool {
	return strings.HasPrefix(name, "Unnamed: ") || strings.HasPrefix(name, "__index_level_") ||
		name == "index" || name == "level_0" || name == "id"
}

// repeated returns the names that stand more than once, each of them once.
func repeated(names []string) (twice Names) {
	seen := make(map[string]int, len(names))
	for _, name := range names {
		if seen[name]++; seen[name] == 2 {
			twice.add(name)
		}
	}
	return twice
}

// sameNames reports whether two lists have the same names, in any order.
func sameNames(a, b []string) bool {
	return len(a) == len(b) && containsAll(a, b)
}

// containsAll reports whether the names of some are all in all, and none twice.
func containsAll(all, some []string) bool {
	left := make(map[string]int, len(all))
	for _, name := range all {
		left[name]++
	}
	for _, name := range some {
		if left[name]--; left[name] < 0 {
			return false
		}
	}
	return true
}
