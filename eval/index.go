package eval

// index finds the n-grams of one caption: a hash table of their positions that is
// at least half empty.
type index struct {
	grams []gram
	slots []int32 // position + 1; 0 is free
}

func indexOf(c *caption) index {
	n := 8
	for n < 2*len(c.grams) {
		n *= 2
	}
	x := index{c.grams, make([]int32, n)}
	for k, g := range c.grams {
		at := x.home(g.id)
		for x.slots[at] != 0 {
			at = (at + 1) & (n - 1)
		}
		x.slots[at] = int32(k + 1)
	}
	return x
}

func (x *index) home(id uint32) int {
	return int(id*0x9E3779B1>>7) & (len(x.slots) - 1)
}

// find returns the position of an n-gram among those of the caption.
func (x *index) find(id uint32) (int, bool) {
	for at := x.home(id); ; at = (at + 1) & (len(x.slots) - 1) {
		k := x.slots[at]
		if k == 0 {
			return 0, false
		}
		if x.grams[k-1].id == id {
			return int(k - 1), true
		}
	}
}
