package shim

// #include <math.h>
import "C"

// Cos is C's cos, which Python's math.cos calls. The last bit of Go's differs for some numbers.
func Cos(x float64) float64 { return float64(C.cos(C.double(x))) }
