package torch

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Every kernel computes the products and squares of float64 within the rounding of its sums, for
// widths, rows and vectors that fill its tiles and that do not. A row has the same bits alone.
func TestRowProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	kernels := 0
	for _, lanes := range []int{0, 4, 8, 16} {
		if err := Scope(func() error {
			rowProducts(Zeros([]int64{1, 1}), Zeros([]int64{1, 1}), lanes)
			return nil
		}); err != nil {
			t.Log(err)
			continue
		}
		kernels++
		for _, k := range []int{1, 3, 4, 15, 16, 17, 31, 33, 200, 512, 515} {
			for _, m := range []int{0, 1, 2, 5, 6, 7, 97, 301} {
				for _, n := range []int{0, 1, 3, 4, 8, 32, 33} {
					if testing.Short() && (k+m+n)%3 > 0 {
						continue
					}
					x, w := make([]float32, m*k), make([]float32, n*k)
					for _, s := range [][]float32{x, w} {
						for i := range s {
							s[i] = float32(r.NormFloat64())
						}
					}
					err := Scope(func() error {
						rows, vectors := FromSlice(x, int64(m), int64(k)), FromSlice(w, int64(n), int64(k))
						products, squares := rowProducts(rows, vectors, lanes)
						if !slices.Equal(products.Shape(), []int64{int64(m), int64(n)}) || !slices.Equal(squares.Shape(), []int64{int64(m)}) {
							t.Fatalf("shapes %v and %v", products.Shape(), squares.Shape())
						}
						y, s := ToSlice[float32](products), ToSlice[float32](squares)
						check := func(got float32, a, b []float32, what string) {
							t.Helper()
							sum, magnitude := 0., 0.
							for i := range a {
								p := float64(a[i]) * float64(b[i])
								sum += p
								magnitude += math.Abs(p)
							}
							if limit := magnitude * float64(k+1) / (1 << 24); !(math.Abs(float64(got)-sum) <= limit) {
								t.Fatalf("%s of %d numbers, %d rows, %d vectors, lanes %d: %v, want %v within %v", what, k, m, n, lanes, got, sum, limit)
							}
						}
						for i := range m {
							row := x[i*k : (i+1)*k]
							check(s[i], row, row, "square")
							for j := range n {
								check(y[i*n+j], row, w[j*k:(j+1)*k], "product")
							}
						}
						if m > 0 {
							alone, one := rowProducts(rows.Narrow(0, int64(m)-1, 1), vectors, lanes)
							if !slices.Equal(ToSlice[float32](alone), y[(m-1)*n:]) || ToSlice[float32](one)[0] != s[m-1] {
								t.Fatalf("%d numbers, %d rows, %d vectors, lanes %d: the last row has other bits alone", k, m, n, lanes)
							}
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if kernels < 2 {
		t.Errorf("%d kernels, want the best one and the plain one", kernels)
	}
}

func TestRowProductsErrors(t *testing.T) {
	zeros := func(shape ...int64) Tensor { return Zeros(shape) }
	for says, call := range map[string]func(){
		"x has rows of 3 numbers, but w of 4":        func() { RowProducts(zeros(2, 3), zeros(1, 4)) },
		"x must have 2 dimensions":                   func() { RowProducts(zeros(3), zeros(1, 3)) },
		"w must have 2 dimensions":                   func() { RowProducts(zeros(1, 3), zeros(3)) },
		"x must be of dtype Float":                   func() { RowProducts(Zeros([]int64{1, 2}, WithDType(Float64)), zeros(1, 2)) },
		"autograd does not support row_products":     func() { RowProducts(zeros(1, 2).SetRequiresGrad(true), zeros(1, 2)) },
		"this processor has no vectors of 5 numbers": func() { rowProducts(zeros(1, 2), zeros(1, 2), 5) },
	} {
		err := Scope(func() error {
			call()
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}
