package features

import (
	"fmt"
	"math"
)

// Check returns an error that says why a row cannot be a feature: a value is NaN or
// infinite, as half precision leaves it where a number overflows, or, if scaled is set
// because the row is to be scaled to length 1, all values are 0.
func Check(row []float32, scaled bool) error {
	var sum float32
	zero := true
	for _, v := range row {
		sum += v - v // NaN if v is not finite
		zero = zero && v == 0
	}
	if sum != 0 {
		for i, v := range row {
			if v-v != 0 {
				return fmt.Errorf("value %d of %d is %v", i+1, len(row), number(v))
			}
		}
	}
	if scaled && zero {
		return fmt.Errorf("all %d values are 0, so it has no direction", len(row))
	}
	return nil
}

func number(v float32) string {
	switch f := float64(v); {
	case math.IsNaN(f):
		return "NaN"
	case f > 0:
		return "infinite"
	}
	return "minus infinite"
}
