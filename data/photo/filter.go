package photo

import "math"

// Filter is one of Pillow's filters for resizing.
type Filter uint8

// The filters.
const (
	Bicubic Filter = iota
	Bilinear
	Lanczos
	Box
	Hamming

	nearestFilter = 255
)

// pillowFilters lists the filters by Pillow's number for them, which transformers' files hold.
var pillowFilters = [...]Filter{nearestFilter, Lanczos, Bilinear, Bicubic, Box, Hamming}

// support returns how far the filter reaches to either side, in source pixels.
func (f Filter) support() float64 { return [...]float64{2, 1, 3, 0.5, 1}[f] }

// at returns the filter's value at distance x.
func (f Filter) at(x float64) float64 {
	switch f {
	case Bilinear:
		return max(1-math.Abs(x), 0)
	case Lanczos:
		if x < -3 || x >= 3 {
			return 0
		}
		return float64(sinc(x) * sinc(x/3))
	case Box:
		if x > -0.5 && x <= 0.5 {
			return 1
		}
		return 0
	case Hamming:
		if x == 0 {
			return 1
		}
		if x = math.Abs(x); x >= 1 {
			return 0
		}
		x *= math.Pi
		return float64(math.Sin(x) / x * (0.54 + float64(0.46*math.Cos(x))))
	}
	return cubic(x)
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// cubic is Keys' convolution kernel with a = -0.5.
func cubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
	}
	return 0
}
