package joblib

// memo is the values that can be fetched again. Every pickler fills it in
// order; what it does not is sparse.
type memo struct {
	below  *memo // what is not to be changed; nil: nothing
	dense  arena[value]
	sparse map[uint64]value
	hidden int // slots of below that are in sparse
}

func (o *memo) size() uint64 {
	n := o.dense.n + len(o.sparse) - o.hidden
	if o.below != nil {
		return uint64(n) + o.below.size()
	}
	return uint64(n)
}

func (o *memo) get(slot uint64) (value, bool) {
	if slot < uint64(o.dense.n) {
		return *o.dense.at(int(slot)), true
	}
	v, ok := o.sparse[slot]
	if !ok && o.below != nil {
		return o.below.get(slot)
	}
	return v, ok
}

// over is a memo that begins like o and leaves it alone.
func (o *memo) over() memo { return memo{below: o, sparse: make(map[uint64]value)} }

// put writes the memo.
func (m *machine) put(slot uint64) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	o := &m.memo
	_, there := o.get(slot)
	if there && !m.rewritten {
		m.rewritten = true
		m.note(Review, RuleOpcode, "a slot of the memo is written twice")
	}
	switch {
	case slot < uint64(o.dense.n):
		*o.dense.at(int(slot)) = v
		return nil
	case o.sparse == nil && slot == o.size():
		o.dense.add(m.heap, 8, v)
		return nil
	case o.sparse == nil:
		o.sparse = make(map[uint64]value)
	}
	if slot > o.size() && !m.unordered {
		m.unordered = true
		m.note(Unverifiable, RuleStream, "the memo is not written in order, which some readers fail on")
	}
	if _, own := o.sparse[slot]; there && !own {
		o.hidden++
	}
	o.sparse[slot] = v
	m.spent += 64
	return nil
}

func (m *machine) fetch(slot uint64) error {
	v, ok := m.memo.get(slot)
	if !ok {
		return malformed("slot %d of the memo is fetched and was not written", slot)
	}
	switch v.kind() {
	case kObject:
		if m.objects.at(v.index()).flags&wrapperAt != 0 && !m.plain {
			return malformed("the placeholder of an array is fetched again")
		}
	case kGlobal:
		m.globals[v.index()].count++
	}
	m.push(v)
	m.view.fetched(m, slot)
	return nil
}
