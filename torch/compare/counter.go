package compare

import (
	"math"
	"strconv"
)

// A counter counts the elements that differ. It does little for each, since there may
// be many millions.
type counter struct {
	differing    int64
	max, sum     float64
	largest      float64
	first, worst int64
	decades      [decades]int64
}

// The histogram's powers of ten are those that a float64 holds.
const (
	lowest  = -323
	decades = 308 - lowest + 1
)

var (
	powers [decades]float64 // 10^lowest and on
	// decadeOf has the decade of the smallest number with each exponent in its bits.
	decadeOf [2048]int
)

func init() {
	for k := range powers {
		// Not math.Pow10, which is off by an ulp for some.
		powers[k], _ = strconv.ParseFloat("1e"+strconv.Itoa(k+lowest), 64)
	}
	k := 0
	for e := range decadeOf {
		for k+1 < decades && powers[k+1] <= math.Float64frombits(uint64(e)<<52) {
			k++
		}
		decadeOf[e] = k
	}
}

// see looks at a wanted value.
func (c *counter) see(want float64) {
	// Infinity would make every difference look small.
	if a := math.Abs(want); a > c.largest && a <= math.MaxFloat64 {
		c.largest = a
	}
}

// add counts element i, whose bits differ.
func (c *counter) add(i int64, distance float64) {
	if c.differing++; c.differing == 1 {
		c.first, c.worst = i, i
	}
	c.sum += distance
	if distance > c.max {
		c.max, c.worst = distance, i
	}
	if distance > 0 && distance <= math.MaxFloat64 {
		k := decadeOf[math.Float64bits(distance)>>52]
		for k+1 < decades && powers[k+1] <= distance { // once, but for numbers below 1e-307
			k++
		}
		c.decades[k]++
	}
}

// finish completes a difference whose elements have been counted.
func (c *counter) finish(d Difference, element func(i int64) *Element) Difference {
	d.Differing, d.Max, d.Largest = c.differing, c.max, c.largest
	if c.differing == 0 {
		return d
	}
	d.First, d.Worst = element(c.first), element(c.worst)
	d.Mean = c.sum / float64(d.Elements)
	for k, n := range c.decades {
		if n > 0 {
			if d.Decades == nil {
				d.Decades = map[int]int64{}
			}
			d.Decades[k+lowest] = n
		}
	}
	return d
}

// distance is |got - want|: 0 for two NaNs or equal infinities, infinite for one NaN.
func distance(got, want float64) float64 {
	d := math.Abs(got - want)
	switch {
	case !math.IsNaN(d):
		return d
	case got == want, math.IsNaN(got) && math.IsNaN(want):
		return 0
	}
	return math.Inf(1)
}
