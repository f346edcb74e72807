package optim

import (
	"fmt"
	"math"
	"slices"

	"cyclecap/torch"
)

// LBFGSOptions configures LBFGS; the names are PyTorch's.
type LBFGSOptions struct {
	LR              float64
	MaxIter         int     // iterations of a step
	MaxEval         int     // calls of the closure in a step; 0 is 5/4 of MaxIter
	ToleranceGrad   float64 // a step ends if no gradient is larger
	ToleranceChange float64 // a step ends if the loss or the parameters change less
	HistorySize     int     // iterations that the estimate of the Hessian remembers
	LineSearchFn    string  // "strong_wolfe", or "" for steps of length LR
}

// LBFGSDefaults returns PyTorch's defaults: learning rate 1, 20 iterations, tolerances 1e-7 and 1e-9, a
// history of 100, and no line search.
func LBFGSDefaults() LBFGSOptions {
	return LBFGSOptions{LR: 1, MaxIter: 20, ToleranceGrad: 1e-7, ToleranceChange: 1e-9, HistorySize: 100}
}

// LBFGSOptimizer is torch.optim.LBFGS, a quasi-Newton method. It is no [Optimizer], since a step evaluates
// the loss several times. It needs memory for about 2 HistorySize copies of the parameters.
type LBFGSOptimizer struct {
	o      LBFGSOptions
	params []torch.Tensor
	single bool // float32, not float64

	// The state. The tensors are kept.
	evals, iterations int
	direction         torch.Tensor // d
	length            number       // t
	dirs, steps       []torch.Tensor
	ro                []number
	hessian           number // H_diag
	previousGrad      torch.Tensor
	previousLoss      float64
	started           bool
}

const lbfgsOp = "optim.LBFGS"

// LBFGS returns an optimizer of params, which must be float32 or float64, all of one dtype and device.
func LBFGS(params []torch.Tensor, o LBFGSOptions) *LBFGSOptimizer {
	if len(params) == 0 {
		torch.Throw(lbfgsOp, "the list of parameters is empty")
	}
	dtype, device := params[0].DType(), params[0].Device()
	for i, p := range params {
		if !p.IsLeaf() {
			torch.Throw(lbfgsOp, "parameter %d, of shape %v, is not a leaf tensor but the result of an operator; only leaf tensors can be optimized", i, p.Shape())
		}
		if p.DType() != dtype || p.Device() != device || dtype != torch.Float32 && dtype != torch.Float64 {
			torch.Throw(lbfgsOp, "the parameters must be float32 or float64, all of one dtype and device; parameter %d is %v on %v", i, p.DType(), p.Device())
		}
	}
	if o.MaxEval == 0 {
		o.MaxEval = o.MaxIter * 5 / 4
	}
	within(lbfgsOp, "LR", o.LR, math.Inf(1))
	atLeast(lbfgsOp, "MaxIter", o.MaxIter, 1)
	atLeast(lbfgsOp, "MaxEval", o.MaxEval, 1)
	atLeast(lbfgsOp, "HistorySize", o.HistorySize, 1)
	if o.LineSearchFn != "" && o.LineSearchFn != "strong_wolfe" {
		torch.Throw(lbfgsOp, "LineSearchFn must be strong_wolfe or empty, not %q", o.LineSearchFn)
	}
	return &LBFGSOptimizer{o: o, params: slices.Clone(params), single: dtype == torch.Float32}
}

// Params returns the parameters.
func (a *LBFGSOptimizer) Params() []torch.Tensor { return slices.Clone(a.params) }

// LR returns the learning rate.
func (a *LBFGSOptimizer) LR() float64 { return a.o.LR }

// SetLR sets the learning rate.
func (a *LBFGSOptimizer) SetLR(lr float64) { a.o.LR = lr }

// ZeroGrad clears the gradients, like zero_grad(set_to_none=True). The closure of Step calls it.
func (a *LBFGSOptimizer) ZeroGrad() {
	for _, p := range a.params {
		p.SetGrad(torch.Tensor{})
	}
}

// Close frees the state but not the parameters.
func (a *LBFGSOptimizer) Close() {
	for _, t := range slices.Concat(a.dirs, a.steps, []torch.Tensor{a.direction, a.previousGrad}) {
		t.Close()
	}
	*a = LBFGSOptimizer{o: a.o, params: a.params, single: a.single}
}

// Step updates the parameters in up to MaxIter iterations and returns the loss before. closure clears the
// gradients, computes the loss, a scalar, calls Backward on it and returns it. Its tensors are
// freed after each call. Step must be called in a scope.
//
//	opt.Step(func() torch.Tensor {
//		opt.ZeroGrad()
//		loss := model.Forward(x).MseLoss(y)
//		loss.Backward()
//		return loss
//	})
func (a *LBFGSOptimizer) Step(closure func() torch.Tensor) (before float64) {
	torch.NoGrad(func() {
		torch.Tidy(func() torch.Tensor {
			before = a.step(closure)
			return torch.Tensor{}
		})
	})
	return before
}

func (a *LBFGSOptimizer) step(closure func() torch.Tensor) float64 {
	evaluate := func() (loss float64, grad torch.Tensor) {
		grad = torch.Tidy(func() torch.Tensor {
			torch.EnableGrad(func() { loss = closure().Item() })
			return a.gradient()
		})
		return loss, grad
	}
	// The largest magnitude of a tensor.
	largest := func(t torch.Tensor) number { return a.number(t.Abs().Max()) }

	before, grad := evaluate()
	loss, evals := before, 1
	a.evals++
	if a.le(largest(grad), python(a.o.ToleranceGrad)) {
		return before
	}
	for i := 1; i <= a.o.MaxIter; i++ {
		a.iterations++
		first := a.iterations == 1
		if first {
			a.replace(&a.direction, grad.Neg())
			a.hessian = python(1)
		} else {
			a.update(grad)
		}
		if a.previousGrad.Defined() {
			a.previousGrad.Copy_(grad)
		} else {
			a.previousGrad = grad.Clone().Keep()
		}
		a.previousLoss = loss
		a.started = true

		a.length = python(a.o.LR)
		if first {
			a.length = a.mul(a.min(python(1), a.div(python(1), a.number(grad.Abs().Sum()))), python(a.o.LR))
		}
		slope := a.number(grad.Dot(a.direction))
		if a.lt(python(-a.o.ToleranceChange), slope) {
			break
		}
		done, made := false, 0
		if a.o.LineSearchFn != "" {
			start := make([]torch.Tensor, len(a.params))
			for k, p := range a.params {
				start[k] = p.Clone()
			}
			at := func(t number) (float64, torch.Tensor) {
				a.move(t)
				loss, grad := evaluate()
				for k, p := range a.params {
					p.Copy_(start[k])
				}
				return loss, grad
			}
			loss, grad, made = a.search(at, loss, grad, slope, a.o.MaxEval-evals)
			a.move(a.length)
			done = a.le(largest(grad), python(a.o.ToleranceGrad))
		} else {
			a.move(a.length)
			if i != a.o.MaxIter {
				loss, grad = evaluate()
				done = a.le(largest(grad), python(a.o.ToleranceGrad))
				made = 1
			}
		}
		evals += made
		a.evals += made
		if i == a.o.MaxIter || evals >= a.o.MaxEval || done ||
			a.le(largest(a.direction.MulScalar(a.length.v)), python(a.o.ToleranceChange)) ||
			math.Abs(loss-a.previousLoss) < a.o.ToleranceChange {
			break
		}
	}
	return before
}

// update computes the next direction from the gradient and the history.
func (a *LBFGSOptimizer) update(grad torch.Tensor) {
	y, s := grad.Sub(a.previousGrad), a.direction.MulScalar(a.length.v)
	if ys := a.number(y.Dot(s)); a.lt(python(1e-10), ys) {
		if len(a.dirs) == a.o.HistorySize {
			a.dirs[0].Close()
			a.steps[0].Close()
			a.dirs, a.steps, a.ro = a.dirs[1:], a.steps[1:], a.ro[1:]
		}
		a.dirs, a.steps = append(a.dirs, y.Keep()), append(a.steps, s.Keep())
		a.ro = append(a.ro, a.div(python(1), ys))
		a.hessian = a.div(ys, a.number(y.Dot(y)))
	}
	q, al := grad.Neg(), make([]number, len(a.dirs))
	for i := len(a.dirs) - 1; i >= 0; i-- {
		al[i] = a.mul(a.number(a.steps[i].Dot(q)), a.ro[i])
		q.Add_(a.dirs[i], torch.WithAlpha(-al[i].v))
	}
	r := q.MulScalar(a.hessian.v)
	for i := range a.dirs {
		be := a.mul(a.number(a.dirs[i].Dot(r)), a.ro[i])
		r.Add_(a.steps[i], torch.WithAlpha(a.sub(al[i], be).v))
	}
	a.replace(&a.direction, r)
}

func (a *LBFGSOptimizer) replace(at *torch.Tensor, t torch.Tensor) {
	at.Close()
	*at = t.Keep()
}

// gradient returns all gradients as one vector.
func (a *LBFGSOptimizer) gradient() torch.Tensor {
	views := make([]torch.Tensor, len(a.params))
	for i, p := range a.params {
		switch g := p.Grad(); {
		case g.Defined() && g.Layout() != torch.Strided:
			views[i] = g.ToDense().View([]int64{-1})
		case g.Defined():
			views[i] = g.View([]int64{-1})
		default:
			views[i] = p.NewZeros([]int64{p.Numel()})
		}
	}
	return torch.Cat(views)
}

// move adds t times the direction to the parameters.
func (a *LBFGSOptimizer) move(t number) {
	offset := int64(0)
	for _, p := range a.params {
		n := p.Numel()
		p.Add_(a.direction.Narrow(0, offset, n).ViewAs(p), torch.WithAlpha(t.v))
		offset += n
	}
}

// A point of the line search.
type point struct {
	t, slope number
	loss     float64
	grad     torch.Tensor
}

// search is PyTorch's _strong_wolfe: it sets the length of the step, and returns the loss and the gradient
// there, and the number of evaluations.
func (a *LBFGSOptimizer) search(at func(t number) (float64, torch.Tensor), loss float64, grad torch.Tensor, slope number, most int) (float64, torch.Tensor, int) {
	const c1, c2 = 1e-4, 0.9
	width := a.number(a.direction.Abs().Max())
	evaluate := func(t number) point {
		loss, g := at(t)
		return point{t, a.number(g.Dot(a.direction)), loss, g}
	}
	// Whether the loss has not fallen enough for its distance (Armijo), and whether the slope is flat
	// enough (Wolfe).
	high := func(p point) bool {
		return a.lt(a.add(python(loss), a.mul(a.mul(python(c1), p.t), slope)), python(p.loss))
	}
	flat := func(p point) bool { return a.le(a.abs(p.slope), a.mul(python(-c2), slope)) }

	start := point{python(0), slope, loss, grad}
	now, previous := evaluate(a.length), start
	evals, i, done := 1, 0, false
	var bracket []point
	for i < most {
		if high(now) || i > 1 && now.loss >= previous.loss {
			bracket = []point{previous, now}
			break
		}
		if flat(now) {
			bracket, done = []point{now}, true
			break
		}
		if a.le(python(0), now.slope) {
			bracket = []point{previous, now}
			break
		}
		least := a.add(now.t, a.mul(python(0.01), a.sub(now.t, previous.t)))
		next := a.interpolate(previous, now, least, a.mul(now.t, python(10)))
		previous, now = now, evaluate(next)
		evals++
		i++
	}
	if i == most {
		bracket = []point{start, now}
	}
	low := 0
	order := func() {
		low = 0
		if len(bracket) > 1 && !(bracket[0].loss <= bracket[1].loss) {
			low = 1
		}
	}
	order()
	stuck := false
	for !done && i < most {
		x, y := bracket[0].t, bracket[1].t
		if a.lt(a.mul(a.abs(a.sub(y, x)), width), python(a.o.ToleranceChange)) {
			break
		}
		left, right := x, y
		if !a.le(x, y) {
			left, right = y, x
		}
		t := a.interpolate(bracket[0], bracket[1], left, right)
		// Points near the ends bring little; after one, the next is a tenth of the way inside.
		below, above := a.min(x, y), a.max(x, y)
		eps := a.mul(python(0.1), a.sub(above, below))
		if a.lt(a.min(a.sub(above, t), a.sub(t, below)), eps) {
			if stuck || a.le(above, t) || a.le(t, below) {
				if a.lt(a.abs(a.sub(t, above)), a.abs(a.sub(t, below))) {
					t = a.sub(above, eps)
				} else {
					t = a.add(below, eps)
				}
				stuck = false
			} else {
				stuck = true
			}
		} else {
			stuck = false
		}
		now := evaluate(t)
		evals++
		i++
		if high(now) || now.loss >= bracket[low].loss {
			bracket[1-low] = now
			order()
			continue
		}
		if flat(now) {
			done = true
		} else if a.le(python(0), a.mul(now.slope, a.sub(bracket[1-low].t, bracket[low].t))) {
			bracket[1-low] = bracket[low]
		}
		bracket[low] = now
	}
	a.length = bracket[low].t
	return bracket[low].loss, bracket[low].grad, evals
}

// interpolate is PyTorch's _cubic_interpolate: the minimum of the cubic through two points with their
// slopes, between least and most.
func (a *LBFGSOptimizer) interpolate(p, q point, least, most number) number {
	d1 := a.sub(a.add(p.slope, q.slope), a.div(python(3*(p.loss-q.loss)), a.sub(p.t, q.t)))
	square := a.sub(a.mul(d1, d1), a.mul(p.slope, q.slope))
	if !a.le(python(0), square) {
		return a.div(a.add(least, most), python(2))
	}
	d2 := a.number(a.scalar(square).Sqrt()) // MKL's, which is not rounded correctly
	if !a.le(p.t, q.t) {
		p, q = q, p
	}
	way := a.div(a.sub(a.add(q.slope, d2), d1), a.add(a.sub(q.slope, p.slope), a.mul(python(2), d2)))
	t := a.sub(q.t, a.mul(a.sub(q.t, p.t), way))
	return a.min(a.max(t, least), most)
}

// A number is what PyTorch's code computes with: a Python float, or a tensor without dimensions, whose
// arithmetic has the parameters' dtype. A float meets a tensor in that dtype.
type number struct {
	v      float64
	tensor bool
}

func python(v float64) number { return number{v, false} }

func (a *LBFGSOptimizer) number(t torch.Tensor) number { return number{t.Item(), true} }

func (a *LBFGSOptimizer) round(v float64) float64 {
	if a.single {
		return float64(float32(v))
	}
	return v
}

// scalar returns a number as a tensor of the parameters' dtype.
func (a *LBFGSOptimizer) scalar(n number) torch.Tensor {
	if a.single {
		return torch.Scalar0(float32(n.v))
	}
	return torch.Scalar0(n.v)
}

// both returns two operands as they meet.
func (a *LBFGSOptimizer) both(x, y number) (float64, float64, bool) {
	if x.tensor || y.tensor {
		return a.round(x.v), a.round(y.v), true
	}
	return x.v, y.v, false
}

// result rounds a result. That of two float32 in float64 is rounded twice, which for the basic operations
// gives the bits of rounding once.
func (a *LBFGSOptimizer) result(v float64, tensor bool) number {
	if tensor {
		v = a.round(v)
	}
	return number{v, tensor}
}

func (a *LBFGSOptimizer) add(x, y number) number {
	u, v, tensor := a.both(x, y)
	return a.result(u+v, tensor)
}

func (a *LBFGSOptimizer) sub(x, y number) number {
	u, v, tensor := a.both(x, y)
	return a.result(u-v, tensor)
}

func (a *LBFGSOptimizer) mul(x, y number) number {
	u, v, tensor := a.both(x, y)
	return a.result(u*v, tensor)
}

func (a *LBFGSOptimizer) div(x, y number) number {
	u, v, tensor := a.both(x, y)
	if y.tensor && !x.tensor { // Python computes the reciprocal first
		return a.result(a.round(1/v)*u, true)
	}
	return a.result(u/v, tensor)
}

func (a *LBFGSOptimizer) abs(x number) number { return number{math.Abs(x.v), x.tensor} }

func (a *LBFGSOptimizer) lt(x, y number) bool {
	u, v, _ := a.both(x, y)
	return u < v
}

func (a *LBFGSOptimizer) le(x, y number) bool {
	u, v, _ := a.both(x, y)
	return u <= v
}

// min and max return the first of equal operands, as Python's do.
func (a *LBFGSOptimizer) min(x, y number) number {
	if a.lt(y, x) {
		return y
	}
	return x
}

func (a *LBFGSOptimizer) max(x, y number) number {
	if a.lt(x, y) {
		return y
	}
	return x
}

// StateDict returns the state by PyTorch's names: int64, float64, tensors, and lists of tensors. Numbers that
// are tensors in PyTorch belong to the scope, in which it must be called; the other tensors belong to
// the optimizer.
func (a *LBFGSOptimizer) StateDict() map[string]any {
	d := map[string]any{"func_evals": int64(a.evals), "n_iter": int64(a.iterations)}
	if !a.started {
		return d
	}
	scalar := func(n number) any {
		if n.tensor {
			return a.scalar(n)
		}
		return n.v
	}
	var ro []torch.Tensor
	for _, n := range a.ro {
		ro = append(ro, a.scalar(n))
	}
	d["d"], d["t"], d["H_diag"], d["ro"] = a.direction, scalar(a.length), scalar(a.hessian), ro
	d["old_dirs"], d["old_stps"] = slices.Clone(a.dirs), slices.Clone(a.steps)
	d["prev_flat_grad"], d["prev_loss"] = a.previousGrad, a.previousLoss
	return d
}

// LoadStateDict restores what StateDict returned, or the state of PyTorch's first parameter, from copies of
// the tensors. If it fails, the optimizer is unchanged. It must be called in a scope.
func (a *LBFGSOptimizer) LoadStateDict(d map[string]any) error {
	next := &LBFGSOptimizer{o: a.o, params: a.params, single: a.single}
	size := int64(0)
	for _, p := range a.params {
		size += p.Numel()
	}
	var bad error
	fail := func(name, want string) {
		if bad == nil {
			bad = fmt.Errorf("optim: the state of LBFGS has no %s that is %s", name, want)
		}
	}
	count := func(name string) int {
		v, ok := d[name].(int64)
		if !ok {
			fail(name, "an integer")
		}
		return int(v)
	}
	scalar := func(name string, v any) number {
		switch v := v.(type) {
		case int64:
			return python(float64(v))
		case float64:
			return python(v)
		case torch.Tensor:
			if v.Defined() && v.Numel() == 1 {
				return number{v.Item(), true}
			}
		}
		fail(name, "a number")
		return number{}
	}
	vector := func(name string, v any) torch.Tensor {
		t, ok := v.(torch.Tensor)
		if !ok || !t.Defined() || t.Dim() != 1 || t.Size(0) != size {
			fail(name, fmt.Sprintf("a tensor of shape [%d]", size))
			return torch.Tensor{}
		}
		return t
	}
	list := func(name string) []torch.Tensor {
		l, ok := d[name].([]torch.Tensor)
		if !ok {
			fail(name, "a list of tensors")
		}
		return l
	}
	next.evals, next.iterations = count("func_evals"), count("n_iter")
	var vectors []*torch.Tensor
	if _, next.started = d["d"]; next.started {
		next.direction, next.previousGrad = vector("d", d["d"]), vector("prev_flat_grad", d["prev_flat_grad"])
		vectors = []*torch.Tensor{&next.direction, &next.previousGrad}
		next.length, next.hessian = scalar("t", d["t"]), scalar("H_diag", d["H_diag"])
		next.previousLoss = scalar("prev_loss", d["prev_loss"]).v
		for _, t := range list("ro") {
			next.ro = append(next.ro, scalar("ro", t))
		}
		for name, to := range map[string]*[]torch.Tensor{"old_dirs": &next.dirs, "old_stps": &next.steps} {
			for _, t := range list(name) {
				*to = append(*to, vector(name, t))
			}
			if len(*to) != len(next.ro) {
				fail(name, fmt.Sprintf("a list of %d tensors", len(next.ro)))
			}
			for i := range *to {
				vectors = append(vectors, &(*to)[i])
			}
		}
	}
	if bad != nil {
		return bad
	}
	copied := make([]torch.Tensor, len(vectors))
	for i, at := range vectors { // all of them, before the optimizer changes
		copied[i] = at.Detach().To(torch.WithDevice(a.params[0].Device()), torch.WithDType(a.params[0].DType())).Clone()
	}
	for i, at := range vectors {
		*at = copied[i].Keep()
	}
	a.Close()
	*a = *next
	return nil
}
