package joblib

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// plainValue returns a value that can be shown: nil, bool, int64, float64 or
// string.
func (d *describer) plainValue(v value) (any, bool) {
	switch v.kind() {
	case kNone:
		return nil, true
	case kBool:
		return v.bool(), true
	case kInt, kLong:
		n, ok := d.integer(v)
		return n, ok
	case kFloat:
		return finite(d.float(v)), true
	case kStr:
		s, ok := d.str(v)
		return s, ok && len(s) <= 1000 && d.spend(len(s))
	case kObject:
		s, ok := d.scalar(v)
		if f, isFloat := s.(float64); isFloat {
			return finite(f), true
		}
		return s, ok
	}
	return nil, false
}

// finite returns f, or its name if JSON has no number for it.
func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	return f
}

// strings returns the texts of a list or an array; nil if it holds others, or
// is not kept whole.
func (d *describer) strings(v value) []string {
	if v == 0 {
		return nil
	}
	all, n := d.elements(v, maxNames)
	if n != len(all) || !d.areTexts(v) {
		return nil
	}
	return all
}

// areTexts reports whether the elements of v are strings.
func (d *describer) areTexts(v value) bool {
	if a := d.arrayOf(v); a != nil {
		if a.data == 0 {
			return d.dtypes[a.dtype].code[0] == 'U'
		}
		return d.areTexts(d.listOf(a))
	}
	for it := range d.each(v) {
		if it.kind() != kStr {
			return false
		}
	}
	return v.kind() == kList || v.kind() == kTuple
}

// listOf returns the elements of an array of objects: the pickle that stands
// for it holds the array again.
func (d *describer) listOf(a *array) value {
	v := a.data
	for range 3 {
		inner := d.arrayOf(v)
		if inner == nil {
			break
		}
		v = inner.data
	}
	return v
}

// elements spells the elements of a list or of an array of one dimension, as
// Python's str does, at most max; n is how many there are.
func (d *describer) elements(v value, max int) (all []string, n int) {
	a := d.arrayOf(v)
	if a == nil {
		if v.kind() != kList && v.kind() != kTuple {
			return nil, 0
		}
		return d.spell(v, max), d.total(v)
	}
	if dims, _ := d.dims(a.shape); len(dims) != 1 {
		return nil, 0
	}
	if a.data != 0 {
		list := d.listOf(a)
		return d.spell(list, max), d.total(list)
	}
	dt := &d.dtypes[a.dtype]
	raw := d.bytes(a.raw)
	for i := int64(0); dt.size > 0 && (i+1)*dt.size <= int64(len(raw)) && len(all) < max; i++ {
		e, ok := dt.element(raw[i*dt.size : (i+1)*dt.size])
		if !ok || !d.spend(int(dt.size)) {
			return nil, 0
		}
		if s, isText := e.(string); isText && dt.code[0] == 'S' {
			e = "b'" + s + "'"
		}
		all = append(all, spellOne(e))
	}
	return all, int(a.count)
}

func (d *describer) spell(v value, max int) (all []string) {
	for it := range d.each(v) {
		if len(all) == max {
			break
		}
		p, ok := d.plainValue(it)
		if !ok || !d.spend(0) {
			return nil
		}
		all = append(all, spellOne(p))
	}
	return all
}

// String spells the value as Python's repr does.
func (p Param) String() string {
	if s, ok := p.Value.(string); ok {
		return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
	}
	return spellOne(p.Value)
}

// spellOne spells a value as Python's str does.
func spellOne(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case float64:
		return spellFloat(v)
	}
	return fmt.Sprint(v)
}

// spellFloat spells a number as Python does, which has no exponent from 1e-4 to
// 1e16.
func spellFloat(f float64) string {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return fmt.Sprint(finite(f))
	case f != 0 && (abs < 1e-4 || abs >= 1e16):
		return strconv.FormatFloat(f, 'e', -1, 64)
	case f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
