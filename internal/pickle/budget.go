package pickle

import "fmt"

// A Budget limits the memory that a file may take, in proportion to its size. A
// pickle names a value once and can refer to it any number of times, so without
// a budget a file of a few kilobytes could describe more values than fit in
// memory. Every step of a reader spends an estimate of the bytes that it
// allocates or compares, which bounds its time too.
type Budget struct {
	perByte, most int64
	read, spent   int64
}

// base is the part of a budget that does not depend on the size of the file.
const base = 16 << 20

// NewBudget returns a budget of 16 MiB and perByte bytes for each byte of pickle
// that is read, but not more than most.
func NewBudget(perByte, most int64) *Budget { return &Budget{perByte: perByte, most: most} }

func (b *Budget) limit() int64 { return min(base+b.perByte*b.read, b.most) }

// Spend takes n bytes for the given kind of things, such as "tensor names". It
// returns an error if the budget is exhausted.
func (b *Budget) Spend(n int, what string) error {
	if b.spent += int64(n); b.spent > b.limit() {
		return fmt.Errorf("its %s would take more than %d MiB of memory, the limit for %d bytes of pickle: does it refer to itself without end?",
			what, b.limit()>>20, b.read)
	}
	return nil
}

// What the steps of a Machine spend: the size of a value on the stack and in the
// memo, and of containers and their items. An empty container takes one byte of
// pickle and costs more than its size, so that a pickle of nothing else is refused.
const (
	stepCost = 32
	dictCost = 160
	listCost = 128
	itemCost = 32 // of a list or tuple, and twice of a dict
)

// NewDict returns a dict at the expense of a budget.
func NewDict(b *Budget) (*Dict, error) { return &Dict{}, b.Spend(dictCost, "dicts") }

// keyCost is what it takes to look up a key.
func keyCost(key any) int {
	switch k := key.(type) {
	case string:
		return len(k)
	case Global:
		return len(k.Module) + len(k.Name)
	}
	return 8
}
