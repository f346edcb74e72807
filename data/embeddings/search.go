package embeddings

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"cyclecap/data/features"
	"cyclecap/torch"
)

// A Hit is a row that is similar to a query.
type Hit struct {
	Row   int
	Score float64 // the cosine, from -1 to 1
}

// blockNumbers is the size of the blocks of rows that are computed at once. A worker takes the next
// block when it is ready; float16 rows become float32 in the cache of a core.
const blockNumbers = 1 << 18

// Search returns the k rows with the largest cosines for each of queries, [n, Width], best
// first; of equal rows, the first comes first. Rows whose numbers are all 0 have no cosine and are
// never found. A query or a row that is not finite is an error. progress, if it is not nil, is
// called with the number of rows that are done.
//
// The result does not depend on the number of threads: products in float32 select candidates, with
// room for their rounding, and the cosines of those are computed in float64.
//
// The files are mapped into memory, and must not be truncated while Search runs. While it runs, each
// operator of libtorch in this process runs on one thread: blocks are computed in parallel, which needs
// no waiting within a block.
func (t *Table) Search(ctx context.Context, queries []float32, k int, progress func(rows int)) ([][]Hit, error) {
	if len(queries)%t.Width != 0 || k < 1 {
		return nil, fmt.Errorf("embeddings: %d numbers are no queries of width %d, or k = %d is not positive", len(queries), t.Width, k)
	}
	n := len(queries) / t.Width
	for i := range n {
		if err := features.Check(queries[i*t.Width:(i+1)*t.Width], true); err != nil {
			return nil, fmt.Errorf("query %d has no cosine: %w", i, err)
		}
	}
	type block struct {
		of    *part
		bytes torch.Tensor // the mapped file, or undefined
		first int64        // in the part
		rows  int64
	}
	var found []*finder
	err := torch.Scope(func() error {
		var blocks []block
		for i := range t.parts {
			p := &t.parts[i]
			mapped, err := p.mapped()
			if err != nil {
				return err
			}
			if mapped.Defined() {
				defer mapped.Close()
			}
			size := max(1, blockNumbers/p.width)
			for at := int64(0); at < p.rows; at += size {
				blocks = append(blocks, block{p, mapped, at, min(size, p.rows-at)})
			}
		}
		threads := torch.NumThreads() // that of a scope: other OS threads may have another
		torch.SetNumThreads(1)
		defer torch.SetNumThreads(threads)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		var next, done atomic.Int64
		var running sync.WaitGroup
		var reporting sync.Mutex
		for range min(max(threads, 1), len(blocks)) { // 0 if libtorch cannot be loaded, which the workers report
			f := newFinder(queries, t.Width, k)
			found = append(found, f)
			running.Go(func() {
				err := torch.Scope(func() (err error) {
					torch.InferenceMode(func() {
						f.load()
						for ctx.Err() == nil && err == nil {
							i := next.Add(1) - 1
							if i >= int64(len(blocks)) {
								return
							}
							b := blocks[i]
							if err = torch.Scope(func() error { return f.search(b.of, b.bytes, b.first, b.rows) }); err == nil && progress != nil {
								reporting.Lock()
								progress(int(done.Add(b.rows)))
								reporting.Unlock()
							}
						}
					})
					return err
				})
				if err != nil {
					cancel(err)
				}
			})
		}
		running.Wait()
		return context.Cause(ctx)
	})
	if err != nil {
		return nil, err
	}
	out := make([][]Hit, n)
	for q := range out {
		for _, f := range found {
			out[q] = append(out[q], f.best[q]...)
		}
		slices.SortFunc(out[q], order)
		out[q] = out[q][:min(k, len(out[q]))]
	}
	return out, nil
}

// order puts better hits first.
func order(a, b Hit) int {
	switch {
	case a.Score > b.Score:
		return -1
	case a.Score < b.Score:
		return 1
	}
	return a.Row - b.Row
}

// finder collects the best hits of one worker.
type finder struct {
	width, k int
	exact    []float64 // the queries, scaled to length 1: [n, width]
	best     [][]Hit   // of each query, at most k in their order
	slack    float64   // how far a product in float32, divided by the norm, may be from the cosine
	least    []float32 // of each query, the quotient from which a row is a candidate

	queries torch.Tensor // [n, width]
}

func newFinder(queries []float32, width, k int) *finder {
	n := len(queries) / width
	f := &finder{width: width, k: k, exact: make([]float64, len(queries)), best: make([][]Hit, n)}
	for at := 0; at < len(queries); at += width {
		length := 0.
		for _, v := range queries[at : at+width] {
			length += float64(v) * float64(v)
		}
		for i, v := range queries[at : at+width] {
			f.exact[at+i] = float64(v) / math.Sqrt(length)
		}
	}
	// Each of width additions and products rounds by at most half an ulp, of 1.2e-7, and so do the
	// square, which is half as wrong in its root, and least.
	f.slack = 1.2e-7 * float64(width+8)
	f.least = make([]float32, n)
	for q := range f.least {
		f.least[q] = float32(math.Inf(-1))
	}
	return f
}

// mapped maps the file of a part into memory, as uint8 [size]. It returns an undefined tensor if
// that is impossible: the system may refuse a file that is larger than its memory, and the
// numbers in it may not be aligned.
func (p *part) mapped() (mapped torch.Tensor, err error) {
	info, err := p.file.Stat()
	if err != nil {
		return mapped, err
	}
	if info.Size() < p.offset+p.rows*p.bytes() {
		return mapped, p.truncated(io.EOF)
	}
	if p.offset%p.dtype.Size() != 0 {
		return mapped, nil
	}
	// By its descriptor: the path may be another file by now.
	path := fmt.Sprintf("/proc/self/fd/%d", p.file.Fd())
	torch.Scope(func() error {
		mapped = torch.FromFile(path, torch.WithShared(false), torch.WithSize(info.Size()), torch.WithDType(torch.Uint8)).Keep()
		return nil
	})
	return mapped, nil
}

// truncated returns an error in reading rows in words.
func (p *part) truncated(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%s was truncated while it was in use", p.file.Name())
	}
	return err
}

// load creates the tensors of the finder.
func (f *finder) load() {
	rounded := make([]float32, len(f.exact))
	for i, v := range f.exact {
		rounded[i] = float32(v)
	}
	f.queries = torch.FromSlice(rounded, int64(len(f.best)), int64(f.width))
}

// search looks for hits among rows of a part. mapped is its file, or undefined: then the rows are read.
func (f *finder) search(p *part, mapped torch.Tensor, first, rows int64) (err error) {
	at, n := p.offset+first*p.bytes(), rows*p.bytes()
	var bytes torch.Tensor
	if mapped.Defined() {
		bytes = mapped.Narrow(0, at, n)
	} else {
		bytes = torch.Empty([]int64{n}, torch.WithDType(torch.Uint8))
		torch.Data(bytes, func(data []uint8) { _, err = p.file.ReadAt(data, at) })
		if err != nil {
			return p.truncated(err)
		}
	}
	x := bytes.ViewDType(p.dtype).View([]int64{rows, p.width}).To(torch.WithDType(torch.Float32))
	products, squares := torch.RowProducts(x, f.queries)
	torch.Data(x, func(x []float32) {
		torch.Data(squares, func(squares []float32) {
			torch.Data(products, func(products []float32) { err = f.collect(p, first, x, squares, products) })
		})
	})
	return err
}

// Squares of norms in float32 whose rounding is that of their sums. Below, the squares of numbers
// may have lost their bits, and above, the sum has none.
const leastSquare, mostSquare = 1e-20, math.MaxFloat32

// collect adds the hits among rows x [n, width], given the squares of their norms [n] and their
// products with the queries [n, queries].
func (f *finder) collect(p *part, first int64, x, squares, products []float32) error {
	n := len(f.best)
	for r, square := range squares {
		row, number := x[r*f.width:(r+1)*f.width], first+int64(r)
		if !(square >= leastSquare && square <= mostSquare) {
			if err := features.Check(row, false); err != nil {
				return fmt.Errorf("%s: row %d is not finite: %w", p.file.Name(), number, err)
			}
			if slices.ContainsFunc(row, func(v float32) bool { return v != 0 }) {
				for q := range n {
					f.add(q, Hit{int(p.first + number), f.cosine(q, row)})
				}
			}
			continue
		}
		norm, least := float32(math.Sqrt(float64(square))), f.least
		for q, product := range products[r*n:][:len(least)] {
			if product >= least[q]*norm {
				f.add(q, Hit{int(p.first + number), f.cosine(q, row)})
			}
		}
	}
	return nil
}

// cosine returns the cosine of a query and a row.
func (f *finder) cosine(q int, row []float32) float64 {
	dot, length := 0., 0.
	for i, v := range f.exact[q*f.width : (q+1)*f.width] {
		x := float64(row[i])
		dot += v * x
		length += x * x
	}
	return dot / math.Sqrt(length)
}

// add adds a hit if it is among the k best.
func (f *finder) add(q int, h Hit) {
	list := f.best[q]
	i, _ := slices.BinarySearchFunc(list, h, order)
	if i == f.k {
		return
	}
	if len(list) == f.k {
		list = list[:f.k-1]
	}
	list = slices.Insert(list, i, h)
	if len(list) == f.k {
		f.least[q] = float32(list[f.k-1].Score - f.slack)
	}
	f.best[q] = list
}
