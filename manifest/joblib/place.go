package joblib

import (
	"cmp"
	"fmt"
	"slices"
)

// listArrays lists the arrays in the order of the file, with their places in
// top. The pickle that stands for an array of objects is an array again, which
// does not count.
func (m *machine) listArrays(r *Report, top value) {
	paths := m.arrayPaths(top)
	again := make(map[*array]bool)
	for i := range m.arrays.n {
		if a := m.arrays.at(i); a.data.kind() == kObject {
			again[m.arrayOf(a.data)] = true
		}
	}
	for i := range m.arrays.n {
		a := m.arrays.at(i)
		if again[a] {
			continue
		}
		r.ArrayCount++
		size, _ := product([]int64{a.count}, m.dtypes[a.dtype].size)
		r.ArrayBytes += size
		if len(r.Arrays) >= maxArrays {
			continue
		}
		dims, _ := m.dims(a.shape)
		order := "C"
		if a.fortran {
			order = "F"
		}
		r.Arrays = append(r.Arrays, Array{
			Path: paths[i], DType: m.dtypeText(int(a.dtype)), Shape: dims, Order: order, Offset: a.offset, Size: size,
		})
	}
	slices.SortStableFunc(r.Arrays, func(a, b Array) int { return cmp.Compare(a.Offset, b.Offset) })
}

// maxPath bounds the place of an array, in bytes, and maxPlaces how many values
// are looked at to find such places.
const (
	maxPath   = 200
	maxPlaces = 200_000
)

// arrayPaths finds where the arrays lie, by their index.
func (m *machine) arrayPaths(top value) map[int]string {
	type place struct {
		v    value
		path string
	}
	paths := make(map[int]string)
	seen := make(map[value]bool)
	todo := []place{{top, ""}}
	for len(todo) > 0 && len(seen) < maxPlaces {
		at := todo[0]
		todo = todo[1:]
		if at.v.kind() != kObject && at.v.kind() != kArray && !at.v.isContainer() || seen[at.v] || len(at.path) > maxPath {
			continue
		}
		seen[at.v] = true
		under := func(v value, key string) {
			if v.kind() > kGlobal && len(todo) < maxPlaces {
				todo = append(todo, place{v, at.path + key})
			}
		}
		switch v := at.v; v.kind() {
		case kArray:
			paths[v.index()] = at.path
			under(m.arrays.at(v.index()).data, "")
		case kObject:
			o := m.objects.at(v.index())
			if o.info > 0 && o.flags&arrayAt != 0 {
				if i := int(o.info) - 1; paths[i] == "" {
					paths[i] = at.path
				}
				under(m.arrays.at(int(o.info)-1).data, "")
				continue
			}
			under(o.state, "")
			under(o.items, "")
			for i, it := range m.list(o.args, 8) {
				under(it, fmt.Sprintf("(%d)", i))
			}
		case kDict:
			for k, it := range m.pairs(v) {
				if name, ok := m.str(k); ok {
					under(it, joinPath(at.path, name))
				}
			}
		default:
			i := 0
			for it := range m.each(v) {
				if i++; it.kind() > kGlobal {
					under(it, fmt.Sprintf("[%d]", i-1))
				}
			}
		}
	}
	return paths
}

// joinPath is what stands before a name in a path that has begun.
func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return "." + name
}
