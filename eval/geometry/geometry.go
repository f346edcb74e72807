// Package geometry measures how image features, text features and bridged features
// lie in CLIP's space: the gap between them, whether an image still finds its own
// caption, and a plane in which to look at them.
//
// Features are rows of equal width, at any scale: CLIP compares directions, so each
// row is first scaled to unit length (a row of zeros stays zero). Row i of the texts
// is a caption of row i of the images.
package geometry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/mat"
)

// Check returns an error that describes the first fault in a set of features: no
// rows, rows of width 0, a row that differs in width from the first, or a value that
// is not finite.
func Check(name string, rows [][]float32) error {
	if len(rows) == 0 || len(rows[0]) == 0 {
		return fmt.Errorf("geometry: the %s features are empty", name)
	}
	for i, r := range rows {
		if len(r) != len(rows[0]) {
			return fmt.Errorf("geometry: row %d of the %s features has width %d, but row 0 has width %d", i, name, len(r), len(rows[0]))
		}
		for j, v := range r {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				return fmt.Errorf("geometry: row %d, column %d of the %s features is %v", i, j, name, v)
			}
		}
	}
	return nil
}

// unit copies rows, scaled to unit length, into a matrix. Its rows are padded with
// zeros to whole vector registers, so that the dot products of equal pairs of rows
// are bit-identical wherever the rows lie; the handling of ties relies on this.
func unit(rows [][]float32) blas32.General {
	width := (len(rows[0]) + 15) / 16 * 16
	m := blas32.General{Rows: len(rows), Cols: width, Stride: width, Data: make([]float32, len(rows)*width)}
	for i, r := range rows {
		scale := 1.0
		if n := norm(r); n > 0 {
			scale = 1 / n
		}
		for j, v := range r {
			m.Data[i*width+j] = float32(float64(v) * scale)
		}
	}
	return m
}

func norm(r []float32) float64 {
	var sum float64
	for _, v := range r {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}

// Gap returns the size of the modality gap: the Euclidean distance between the means
// of the directions of images and texts (Liang et al. 2022, "Mind the Gap",
// section 2). It is between 0 and 2, or NaN if there are no rows. It panics if the
// widths differ; see [Check].
func Gap(images, texts [][]float32) float64 {
	if len(images) == 0 || len(texts) == 0 {
		return math.NaN()
	}
	a, b := mean(images), mean(texts)
	if len(a) != len(b) {
		panic(fmt.Sprintf("geometry: images have width %d, texts have width %d", len(a), len(b)))
	}
	var sum float64
	for j := range a {
		sum += (a[j] - b[j]) * (a[j] - b[j])
	}
	return math.Sqrt(sum)
}

func mean(rows [][]float32) []float64 {
	m := make([]float64, len(rows[0]))
	for _, r := range rows {
		n := norm(r)
		if n == 0 {
			continue
		}
		for j, v := range r {
			m[j] += float64(v) / n
		}
	}
	for j := range m {
		m[j] /= float64(len(rows))
	}
	return m
}

// Recall returns, for each k, the fraction of queries i for which row i of targets
// is among the k nearest targets by cosine. There may be more targets than queries.
// Of equally near targets, the one with the lower row number counts as nearer, so
// features that have collapsed to a single point score no better than chance.
// Recall returns NaN if there are no queries, and panics if the widths differ or
// there are fewer targets than queries; see [Check].
func Recall(queries, targets [][]float32, ks []int) []float64 {
	shares := make([]float64, len(ks))
	if len(queries) == 0 {
		for i := range shares {
			shares[i] = math.NaN()
		}
		return shares
	}
	if len(targets) < len(queries) || len(targets[0]) != len(queries[0]) {
		panic(fmt.Sprintf("geometry: %d queries of width %d do not match %d targets of width %d", len(queries), len(queries[0]), len(targets), len(targets[0])))
	}
	q, t := unit(queries), unit(targets)
	// A block of queries at a time: a whole 40,000 x 40,000 matrix would take 6 GiB.
	const block = 256
	buf := make([]float32, min(block, q.Rows)*t.Rows)
	for start := 0; start < q.Rows; start += block {
		n := min(block, q.Rows-start)
		part := blas32.General{Rows: n, Cols: q.Cols, Stride: q.Stride, Data: q.Data[start*q.Stride:]}
		cos := blas32.General{Rows: n, Cols: t.Rows, Stride: t.Rows, Data: buf[:n*t.Rows]}
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, part, t, 0, cos)
		for i := range n {
			row, own := cos.Data[i*t.Rows:(i+1)*t.Rows], start+i
			rank := 0
			for j, c := range row {
				if c > row[own] || c == row[own] && j < own {
					rank++
				}
			}
			for j, k := range ks {
				if rank < k {
					shares[j]++
				}
			}
		}
	}
	for i := range shares {
		shares[i] /= float64(len(queries))
	}
	return shares
}

// Cosines returns the cosine of each row of a with the row of b that is shift rows
// further on, wrapping around at the end: shift 0 compares matching pairs, any other
// shift compares pairs that do not match. The cosine of a row of zeros is 0. Cosines
// panics if the sets do not match; see [Check].
func Cosines(a, b [][]float32, shift int) []float64 {
	if len(a) != len(b) {
		panic(fmt.Sprintf("geometry: %d rows do not match %d rows", len(a), len(b)))
	}
	out := make([]float64, len(a))
	for i, x := range a {
		y := b[(i+shift)%len(b)]
		var dot float64
		for j, v := range x {
			dot += float64(v) * float64(y[j])
		}
		if n := norm(x) * norm(y); n > 0 {
			out[i] = dot / n
		}
	}
	return out
}

// A Plane is the plane along which a set of features varies most.
type Plane struct {
	// Explained is the fraction of the set's variance along each axis.
	Explained [2]float64
	mean      []float64
	axes      [2][]float64
}

// PCA2 returns the plane of the first two principal components of rows, which it
// does not scale to unit length. The sign of an axis is chosen so that its largest
// component is positive: the same rows always give the same picture. Along an axis
// without variance, all rows have coordinate 0.
func PCA2(rows [][]float32) (*Plane, error) {
	if err := Check("given", rows); err != nil {
		return nil, err
	}
	n, d := len(rows), len(rows[0])
	p := &Plane{mean: make([]float64, d)}
	for _, r := range rows {
		for j, v := range r {
			p.mean[j] += float64(v)
		}
	}
	for j := range p.mean {
		p.mean[j] /= float64(n)
	}
	// The covariance is accumulated a block of rows at a time: a transposed copy of
	// all rows in double precision would take four times the memory of the set.
	cov := mat.NewSymDense(d, nil)
	const block = 1024
	buf := make([]float64, min(block, n)*d)
	var part mat.SymDense
	for start := 0; start < n; start += block {
		m := min(block, n-start)
		for i := range m {
			for j, v := range rows[start+i] {
				buf[i*d+j] = float64(v) - p.mean[j]
			}
		}
		part.Reset()
		part.SymOuterK(1, mat.NewDense(m, d, buf[:m*d]).T())
		cov.AddSym(cov, &part)
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(cov, true) {
		return nil, errors.New("geometry: the principal components did not converge")
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	values := eigen.Values(nil) // ascending
	var total float64
	for _, v := range values {
		total += max(v, 0)
	}
	for a := range p.axes {
		p.axes[a] = make([]float64, d)
		column := d - 1 - a
		// Below the rounding error there is only noise, no axis.
		if column < 0 || values[column] <= 1e-12*values[d-1] || values[column] <= 0 {
			continue
		}
		mat.Col(p.axes[a], column, &vectors)
		largest := slices.MaxFunc(p.axes[a], func(x, y float64) int { return cmp.Compare(math.Abs(x), math.Abs(y)) })
		if largest < 0 {
			for j := range p.axes[a] {
				p.axes[a][j] = -p.axes[a][j]
			}
		}
		p.Explained[a] = values[column] / total
	}
	return p, nil
}

// Project returns the coordinates of rows in the plane; their width must be that of the plane.
func (p *Plane) Project(rows [][]float32) [][2]float64 {
	out := make([][2]float64, len(rows))
	for i, r := range rows {
		for j, v := range r {
			c := float64(v) - p.mean[j]
			out[i][0] += c * p.axes[0][j]
			out[i][1] += c * p.axes[1][j]
		}
	}
	return out
}

// Ranks lists the values of k for the recall in a [Geometry].
var Ranks = []int{1, 5, 10}

// A Set is a named set of features, those of a bridge, for the same photos as the images.
type Set struct {
	Name     string
	Features [][]float32
}

// A Geometry holds the measurements of some features and what a figure needs. It is
// small (it contains no features) and can be stored as JSON without loss.
type Geometry struct {
	// Pairs and Width are the number and the width of the image features.
	Pairs int `json:"pairs"`
	Width int `json:"width"`
	// Explained is the fraction of the variance of images and texts along the axes
	// of Points.
	Explained [2]float64 `json:"explained"`
	// Texts holds the points of the texts, for the same pairs as the other points.
	Texts [][2]float64 `json:"texts"`
	// TextsAcross holds the points of the texts across the gap; see Side.Across.
	TextsAcross [][2]float64 `json:"texts_across"`
	// Sides holds the images, followed by the features of each bridge.
	Sides []Side `json:"sides"`
}

// A Side describes how a set of image or bridged features lies relative to the texts.
type Side struct {
	Name string `json:"name"`
	// Gap is the distance between the means; see [Gap].
	Gap float64 `json:"gap"`
	// Recall is the recall of the own text at each of [Ranks].
	Recall []float64 `json:"recall"`
	// Paired and Unpaired hold the cosines with the own text and with another one.
	Paired   Histogram `json:"paired"`
	Unpaired Histogram `json:"unpaired"`
	// Points are coordinates in the plane of images and texts.
	Points [][2]float64 `json:"points"`
	// Across are coordinates in the plane that shows the gap: the first runs from the mean
	// of the images, at 0, to that of the texts, at their distance; the second runs along
	// the principal axis of images and texts without the first direction.
	Across [][2]float64 `json:"across"`
}

// A Histogram counts values in equal bins from Low to High.
type Histogram struct {
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Mean   float64 `json:"mean"`
	Counts []int   `json:"counts"`
}

// Measure measures images and bridged features against texts: row i of each belongs
// to the same photo. At most points rows, evenly spaced, become points in the plane;
// everything else uses all rows, of which there must be at least two.
func Measure(images, texts [][]float32, bridged []Set, points int) (*Geometry, error) {
	sets := append([]Set{{"image", images}}, bridged...)
	for _, s := range append(sets, Set{"text", texts}) {
		if err := Check(s.Name, s.Features); err != nil {
			return nil, err
		}
		if len(s.Features) != len(images) || len(s.Features[0]) != len(images[0]) {
			return nil, fmt.Errorf("geometry: the %s features have shape [%d, %d], but the image features have shape [%d, %d]",
				s.Name, len(s.Features), len(s.Features[0]), len(images), len(images[0]))
		}
	}
	if len(images) < 2 {
		return nil, errors.New("geometry: at least two pairs are needed")
	}
	if points < 1 {
		return nil, fmt.Errorf("geometry: the number of points must be at least 1, got %d", points)
	}
	plane, err := PCA2(append(normalised(images), normalised(texts)...))
	if err != nil {
		return nil, err
	}
	across, err := acrossGap(normalised(images), normalised(texts))
	if err != nil {
		return nil, err
	}
	g := &Geometry{
		Pairs: len(images), Width: len(images[0]), Explained: plane.Explained,
		Texts:       plane.Project(normalised(thin(texts, points))),
		TextsAcross: across.Project(normalised(thin(texts, points))),
	}
	// All sides use the same bins, so that their heights are comparable.
	cosines := make([][2][]float64, len(sets))
	low, high := math.Inf(1), math.Inf(-1)
	for i, s := range sets {
		cosines[i] = [2][]float64{Cosines(s.Features, texts, 0), Cosines(s.Features, texts, max(len(images)/2, 1))}
		for _, c := range cosines[i] {
			low, high = min(low, slices.Min(c)), max(high, slices.Max(c))
		}
	}
	low, high = math.Floor(low*20)/20, math.Ceil(high*20)/20
	if low == high {
		high += 0.05
	}
	for i, s := range sets {
		g.Sides = append(g.Sides, Side{
			Name: s.Name, Gap: Gap(s.Features, texts), Recall: Recall(s.Features, texts, Ranks),
			Paired:   histogram(cosines[i][0], low, high),
			Unpaired: histogram(cosines[i][1], low, high),
			Points:   plane.Project(normalised(thin(s.Features, points))),
			Across:   across.Project(normalised(thin(s.Features, points))),
		})
	}
	return g, nil
}

// acrossGap returns the plane of Side.Across. Without a gap, its first axis is zero.
func acrossGap(images, texts [][]float32) (*Plane, error) {
	a, b := mean(images), mean(texts)
	direction := make([]float64, len(a))
	var length float64
	for j := range a {
		direction[j] = b[j] - a[j]
		length += direction[j] * direction[j]
	}
	if length = math.Sqrt(length); length > 0 {
		for j := range direction {
			direction[j] /= length
		}
	}
	rest := make([][]float32, 0, len(images)+len(texts))
	for _, rows := range [][][]float32{images, texts} {
		for _, r := range rows {
			var along float64
			for j, v := range r {
				along += float64(v) * direction[j]
			}
			out := make([]float32, len(r))
			for j, v := range r {
				out[j] = v - float32(along*direction[j])
			}
			rest = append(rest, out)
		}
	}
	p, err := PCA2(rest)
	if err != nil {
		return nil, err
	}
	p.axes[0], p.axes[1], p.mean = direction, p.axes[0], a
	return p, nil
}

func histogram(values []float64, low, high float64) Histogram {
	const bins = 50
	h := Histogram{Low: low, High: high, Counts: make([]int, bins)}
	for _, v := range values {
		h.Counts[min(int((v-low)/(high-low)*bins), bins-1)]++
		h.Mean += v / float64(len(values))
	}
	return h
}

// thin returns at most n rows, evenly spaced, starting with the first.
func thin(rows [][]float32, n int) [][]float32 {
	if len(rows) <= n {
		return rows
	}
	out := make([][]float32, n)
	for i := range out {
		out[i] = rows[i*len(rows)/n]
	}
	return out
}

func normalised(rows [][]float32) [][]float32 {
	m := unit(rows)
	out := make([][]float32, len(rows))
	for i := range out {
		out[i] = m.Data[i*m.Stride : i*m.Stride+len(rows[i])]
	}
	return out
}
