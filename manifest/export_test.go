package manifest

// Forget drops what was kept in memory of the layers: they are packed again.
func (p *Packed) Forget() {
	for _, l := range p.layers {
		l.kept = nil
	}
}

// Kept is how many packed bytes are in memory.
func (p *Packed) Kept() (n int64) {
	for _, l := range p.layers {
		n += l.keptSize()
	}
	return n
}
