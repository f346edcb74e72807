package optim

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"cyclecap/torch"
	"cyclecap/torch/internal/shim"
)

// A Scheduler changes the learning rates of the groups of an optimizer. Constructors set those of the
// first epoch, and Step those of the next, which is usually called after an epoch, or after
// Optimizer.Step where epochs stand for steps. The numbers are PyTorch's bit for bit.
type Scheduler interface {
	Step()
	// LastLR returns the learning rate of each group.
	LastLR() []float64
	// StateDict returns the state by PyTorch's names: int64, float64, lists of them and of the
	// states of other schedulers. Options are not part of it.
	StateDict() map[string]any
	// LoadStateDict restores what StateDict, or PyTorch's state_dict, returned, into a
	// scheduler with the same options. The learning rates are the optimizer's, which are
	// in its own state. A state may have been written as JSON, which reads all numbers as
	// float64.
	LoadStateDict(map[string]any) error
}

// Schedule is a Scheduler with a formula for the learning rates, such as StepLR.
type Schedule struct {
	opt   Optimizer
	base  []float64 // the initial learning rate of each group
	epoch int
	count int // of steps
	// next returns the learning rates of an epoch from those before; first is true in the
	// constructor.
	next func(s *Schedule, lrs []float64, first bool) []float64
	// at returns the learning rates of an epoch by a closed formula; nil if there is none.
	at func(s *Schedule) []float64
	// Of CosineAnnealingWarmRestarts: the epoch since the last restart, the length of the period, and
	// how many times as long the next one is.
	current, period, longer int
}

// start sets the learning rates of the first epoch.
func (s *Schedule) start() *Schedule {
	s.base = nil
	for i, lr := range s.opt.LRs() {
		s.base = append(s.base, s.opt.initialLR(i, lr, false))
	}
	s.epoch = -1
	s.initial()
	return s
}

// initial is _initial_step.
func (s *Schedule) initial() {
	s.count = 1
	s.epoch++
	s.opt.SetLRs(s.next(s, s.opt.LRs(), true))
}

// Step sets the learning rates of the next epoch.
func (s *Schedule) Step() {
	s.count++
	s.epoch++
	if s.period > 0 {
		if s.current++; s.current >= s.period {
			s.current -= s.period
			s.period *= s.longer
		}
	}
	s.opt.SetLRs(s.next(s, s.opt.LRs(), false))
}

// begin sets the learning rates of epoch 0, for a sequence of schedulers.
func (s *Schedule) begin() {
	s.epoch = 0
	if s.at != nil {
		s.opt.SetLRs(s.at(s))
	} else {
		s.opt.SetLRs(s.next(s, s.opt.LRs(), false))
	}
}

// LastLR returns the learning rate of each group.
func (s *Schedule) LastLR() []float64 { return s.opt.LRs() }

// StateDict returns the state by PyTorch's names.
func (s *Schedule) StateDict() map[string]any {
	d := map[string]any{"last_epoch": int64(s.epoch), "_step_count": int64(s.count), "base_lrs": floats(s.base), "_last_lr": floats(s.opt.LRs())}
	if s.period > 0 {
		d["T_cur"], d["T_i"] = int64(s.current), int64(s.period)
	}
	return d
}

// LoadStateDict restores a state; see [Scheduler].
func (s *Schedule) LoadStateDict(d map[string]any) error {
	now := *s
	for name, to := range map[string]*int{"last_epoch": &now.epoch, "_step_count": &now.count, "T_cur": &now.current, "T_i": &now.period} {
		if (name == "T_cur" || name == "T_i") && s.period == 0 {
			continue
		}
		v, err := integer("a scheduler", d, name)
		if err != nil {
			return err
		}
		*to = int(v)
	}
	list, _ := d["base_lrs"].([]any)
	if len(list) != len(s.base) {
		return fmt.Errorf("optim: the state of a scheduler has %d base_lrs, but there are %d groups", len(list), len(s.base))
	}
	now.base = nil
	for _, v := range list {
		x, ok := v.(float64)
		if !ok {
			return fmt.Errorf("optim: the state of a scheduler has %v in base_lrs, not a number", v)
		}
		now.base = append(now.base, x)
	}
	*s = now
	return nil
}

// integer returns an integer in the state of what is named: an int64, or a float64 without a fraction, which is
// what JSON makes of it.
func integer(what string, d map[string]any, name string) (int64, error) {
	switch v := d[name].(type) {
	case int64:
		return v, nil
	case float64:
		if i := int64(v); float64(i) == v {
			return i, nil
		}
	}
	return 0, fmt.Errorf("optim: the state of %s has %v as %s, not an integer", what, d[name], name)
}

func floats(list []float64) (out []any) {
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// rates returns f of each of list.
func rates(list []float64, f func(lr float64) float64) []float64 {
	out := make([]float64, len(list))
	for i, lr := range list {
		out[i] = f(lr)
	}
	return out
}

// times returns each of list times factor.
func times(list []float64, factor float64) []float64 {
	return rates(list, func(lr float64) float64 { return lr * factor })
}

// StepLR is torch.optim.lr_scheduler.StepLR: every size epochs it multiplies the learning rates by
// gamma, whose default in PyTorch is 0.1.
func StepLR(opt Optimizer, size int, gamma float64) *Schedule {
	atLeast("optim.StepLR", "the number of epochs", size, 1)
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, _ bool) []float64 {
		if s.epoch == 0 || s.epoch%size != 0 {
			return lrs
		}
		return times(lrs, gamma)
	}
	s.at = func(s *Schedule) []float64 { return times(s.base, shim.Pow(gamma, float64(s.epoch/size))) }
	return s.start()
}

func atLeast(op, name string, v, least int) {
	if v < least {
		torch.Throw(op, "%s must be at least %d, got %d", name, least, v)
	}
}

// MultiStepLR is torch.optim.lr_scheduler.MultiStepLR: at each of the milestones, which are epochs, it
// multiplies the learning rates by gamma, whose default in PyTorch is 0.1.
func MultiStepLR(opt Optimizer, milestones []int, gamma float64) *Schedule {
	sorted := slices.Sorted(slices.Values(milestones))
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, _ bool) []float64 {
		n := sort.SearchInts(sorted, s.epoch+1) - sort.SearchInts(sorted, s.epoch)
		if n == 0 {
			return lrs
		}
		return times(lrs, shim.Pow(gamma, float64(n)))
	}
	s.at = func(s *Schedule) []float64 {
		return times(s.base, shim.Pow(gamma, float64(sort.SearchInts(sorted, s.epoch+1))))
	}
	return s.start()
}

// ConstantLR is torch.optim.lr_scheduler.ConstantLR: the learning rates are multiplied by factor for the
// first epochs. PyTorch's defaults are 1/3 and 5 epochs.
func ConstantLR(opt Optimizer, factor float64, epochs int) *Schedule {
	if !(factor >= 0 && factor <= 1) {
		torch.Throw("optim.ConstantLR", "the factor must be between 0 and 1, got %v", factor)
	}
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, _ bool) []float64 {
		switch s.epoch {
		case 0:
			return times(lrs, factor)
		case epochs:
			return times(lrs, 1/factor)
		}
		return lrs
	}
	s.at = func(s *Schedule) []float64 {
		past := 0.0
		if s.epoch >= epochs {
			past = 1
		}
		return times(s.base, factor+past*(1-factor))
	}
	return s.start()
}

// LinearLR is torch.optim.lr_scheduler.LinearLR: the factor of the learning rates goes from start to end
// over the first epochs. PyTorch's defaults are 1/3, 1 and 5 epochs.
func LinearLR(opt Optimizer, start, end float64, epochs int) *Schedule {
	if !(start > 0 && start <= 1 && end >= 0 && end <= 1) {
		torch.Throw("optim.LinearLR", "the factors must be between 0 and 1, and the first not 0, got %v and %v", start, end)
	}
	atLeast("optim.LinearLR", "the number of epochs", epochs, 1)
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, first bool) []float64 {
		if s.epoch == 0 {
			return times(lrs, start)
		}
		if first || s.epoch > epochs {
			return lrs
		}
		return times(lrs, 1+(end-start)/(float64(epochs)*start+float64(s.epoch-1)*(end-start)))
	}
	s.at = func(s *Schedule) []float64 {
		return times(s.base, start+(end-start)*float64(min(epochs, s.epoch))/float64(epochs))
	}
	return s.start()
}

// ExponentialLR is torch.optim.lr_scheduler.ExponentialLR: it multiplies the learning rates by gamma in
// each epoch.
func ExponentialLR(opt Optimizer, gamma float64) *Schedule {
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, first bool) []float64 {
		if first {
			return lrs
		}
		return times(lrs, gamma)
	}
	s.at = func(s *Schedule) []float64 { return times(s.base, shim.Pow(gamma, float64(s.epoch))) }
	return s.start()
}

// PolynomialLR is torch.optim.lr_scheduler.PolynomialLR: the learning rates go to 0 over the epochs, as
// the given power of the remaining share. PyTorch's defaults are 5 epochs and the power 1.
func PolynomialLR(opt Optimizer, epochs int, power float64) *Schedule {
	atLeast("optim.PolynomialLR", "the number of epochs", epochs, 1)
	s := &Schedule{opt: opt}
	total := float64(epochs)
	s.next = func(s *Schedule, lrs []float64, first bool) []float64 {
		if first || s.epoch > epochs {
			return lrs
		}
		return times(lrs, shim.Pow((1-float64(s.epoch)/total)/(1-float64(s.epoch-1)/total), power))
	}
	s.at = func(s *Schedule) []float64 {
		left := shim.Pow(1-float64(min(epochs, s.epoch))/total, power)
		return times(s.base, left)
	}
	return s.start()
}

// CosineAnnealingLR is torch.optim.lr_scheduler.CosineAnnealingLR: half a cosine of the given number of
// epochs from the initial learning rates to least, whose default in PyTorch is 0, and then back.
func CosineAnnealingLR(opt Optimizer, epochs int, least float64) *Schedule {
	atLeast("optim.CosineAnnealingLR", "the number of epochs", epochs, 1)
	s := &Schedule{opt: opt}
	total := float64(epochs)
	s.next = func(s *Schedule, lrs []float64, first bool) []float64 {
		out := slices.Clone(lrs)
		for i, lr := range lrs {
			switch e := float64(s.epoch); {
			case first:
			case s.count == 1 && s.epoch > 0:
				out[i] = least + (s.base[i]-least)*(1+shim.Cos(e*math.Pi/total))/2
			case (s.epoch-1-epochs)%(2*epochs) == 0:
				out[i] = lr + (s.base[i]-least)*(1-shim.Cos(math.Pi/total))/2
			default:
				out[i] = (1+shim.Cos(math.Pi*e/total))/(1+shim.Cos(math.Pi*(e-1)/total))*(lr-least) + least
			}
		}
		return out
	}
	s.at = func(s *Schedule) []float64 {
		return rates(s.base, func(base float64) float64 {
			return least + (base-least)*(1+shim.Cos(math.Pi*float64(s.epoch)/total))/2
		})
	}
	return s.start()
}

// CosineAnnealingWarmRestarts is torch.optim.lr_scheduler.CosineAnnealingWarmRestarts: half a cosine from
// the initial learning rates to least over the given number of epochs, again and again, where each
// time takes longer times as many epochs. PyTorch's defaults of longer and least are 1 and 0.
func CosineAnnealingWarmRestarts(opt Optimizer, epochs, longer int, least float64) *Schedule {
	atLeast("optim.CosineAnnealingWarmRestarts", "the number of epochs", epochs, 1)
	atLeast("optim.CosineAnnealingWarmRestarts", "the factor of the number of epochs", longer, 1)
	s := &Schedule{opt: opt, period: epochs, longer: longer}
	s.next = func(s *Schedule, _ []float64, _ bool) []float64 {
		return rates(s.base, func(base float64) float64 {
			return least + (base-least)*(1+shim.Cos(math.Pi*float64(s.current)/float64(s.period)))/2
		})
	}
	return s.start()
}

// LambdaLR is torch.optim.lr_scheduler.LambdaLR: the initial learning rates times what f returns for an
// epoch. There is one function for all groups, or one for each.
func LambdaLR(opt Optimizer, f ...func(epoch int) float64) *Schedule {
	f = perGroup("optim.LambdaLR", opt, f)
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, _ []float64, _ bool) []float64 {
		out := slices.Clone(s.base)
		for i := range out {
			out[i] *= f[i](s.epoch)
		}
		return out
	}
	return s.start()
}

// MultiplicativeLR is torch.optim.lr_scheduler.MultiplicativeLR: in each epoch but the first, it
// multiplies the learning rates by what f returns for it. There is one function for all groups, or
// one for each.
func MultiplicativeLR(opt Optimizer, f ...func(epoch int) float64) *Schedule {
	f = perGroup("optim.MultiplicativeLR", opt, f)
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, first bool) []float64 {
		out := slices.Clone(lrs)
		for i := range out {
			if !first {
				out[i] *= f[i](s.epoch)
			}
		}
		return out
	}
	return s.start()
}

// perGroup returns a list with an element for each group of an optimizer, from one or as many.
func perGroup[T any](op string, opt Optimizer, list []T) []T {
	n := len(opt.LRs())
	if len(list) == 1 {
		return slices.Repeat(list, n)
	}
	if len(list) != n {
		torch.Throw(op, "got %d values for %d groups of parameters", len(list), n)
	}
	return list
}

// OneCycleOptions configures OneCycleLR; the names are PyTorch's.
type OneCycleOptions struct {
	TotalSteps     int
	PctStart       float64 // the share of steps in which learning rates rise
	AnnealStrategy string  // "cos" or "linear"
	CycleMomentum  bool    // momentum, or beta1, goes the other way
	BaseMomentum   float64
	MaxMomentum    float64
	DivFactor      float64 // the largest learning rate by the first
	FinalDivFactor float64 // the first learning rate by the last
	ThreePhase     bool    // the learning rates fall as they rose, and then to the last
}

// OneCycleDefaults returns PyTorch's defaults for a number of steps: 30 % of them rising, cosines,
// momentum between 0.85 and 0.95, factors 25 and 1e4.
func OneCycleDefaults(totalSteps int) OneCycleOptions {
	return OneCycleOptions{TotalSteps: totalSteps, PctStart: 0.3, AnnealStrategy: "cos", CycleMomentum: true,
		BaseMomentum: 0.85, MaxMomentum: 0.95, DivFactor: 25, FinalDivFactor: 1e4}
}

// OneCycleLR is torch.optim.lr_scheduler.OneCycleLR. maxLR has the largest learning rate of all groups, or
// of each. More than TotalSteps steps are an error.
func OneCycleLR(opt Optimizer, maxLR []float64, o OneCycleOptions) *Schedule {
	const op = "optim.OneCycleLR"
	atLeast(op, "TotalSteps", o.TotalSteps, 1)
	if !(o.PctStart >= 0 && o.PctStart <= 1) {
		torch.Throw(op, "PctStart must be between 0 and 1, got %v", o.PctStart)
	}
	anneal := func(from, to, share float64) float64 { return (to-from)*share + from }
	switch o.AnnealStrategy {
	case "linear":
	case "cos":
		anneal = func(from, to, share float64) float64 {
			return to + (from-to)/2*(shim.Cos(math.Pi*share)+1)
		}
	default:
		torch.Throw(op, "AnnealStrategy must be cos or linear, not %q", o.AnnealStrategy)
	}
	maxLR = perGroup(op, opt, maxLR)
	first, last := make([]float64, len(maxLR)), make([]float64, len(maxLR))
	for i, lr := range maxLR {
		first[i] = lr / o.DivFactor
		last[i] = first[i] / o.FinalDivFactor
		opt.initialLR(i, first[i], true)
	}
	momentum := momenta(op, opt, o.CycleMomentum, o.MaxMomentum)
	type phase struct {
		end            float64
		from, to       []float64 // learning rates
		before, behind float64   // momentum
	}
	total, low, high := float64(o.TotalSteps), o.BaseMomentum, o.MaxMomentum
	phases := []phase{{o.PctStart*total - 1, first, maxLR, high, low}, {total - 1, maxLR, last, low, high}}
	if o.ThreePhase {
		phases = []phase{phases[0], {2*o.PctStart*total - 2, maxLR, first, low, high}, {total - 1, first, last, high, high}}
	}
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, _ bool) []float64 {
		if s.epoch > o.TotalSteps {
			torch.Throw(op, "step %d of %d", s.epoch, o.TotalSteps)
		}
		start := 0.0
		for n, p := range phases {
			if float64(s.epoch) > p.end && n < len(phases)-1 {
				start = p.end
				continue
			}
			share := (float64(s.epoch) - start) / (p.end - start)
			out := slices.Clone(lrs)
			for i := range out {
				out[i] = anneal(p.from[i], p.to[i], share)
				if momentum[i] != nil {
					*momentum[i] = anneal(p.before, p.behind, share)
				}
			}
			return out
		}
		return lrs
	}
	return s.start()
}

// momenta returns the momentum, or beta1, of each group, which it sets to first; of nil if cycle is false.
func momenta(op string, opt Optimizer, cycle bool, first float64) []*float64 {
	out := make([]*float64, len(opt.LRs()))
	for i := range out {
		if !cycle {
			break
		}
		if out[i] = opt.option(i, "betas", 0); out[i] == nil {
			out[i] = opt.option(i, "momentum", -1)
		}
		if out[i] == nil {
			torch.Throw(op, "CycleMomentum requires an optimizer with a momentum or betas")
		}
		*out[i] = first
	}
	return out
}

// CyclicOptions configures CyclicLR; the names are PyTorch's.
type CyclicOptions struct {
	StepSizeUp    int    // steps in which learning rates rise
	StepSizeDown  int    // steps in which they fall; 0 for as many
	Mode          string // "triangular", "triangular2" (each cycle has half the height) or "exp_range" (Gamma)
	Gamma         float64
	CycleMomentum bool // momentum, or beta1, goes the other way
	BaseMomentum  float64
	MaxMomentum   float64
}

// CyclicDefaults returns PyTorch's defaults: 2000 steps up and down, the same in each cycle, gamma 1, and
// momentum between 0.8 and 0.9.
func CyclicDefaults() CyclicOptions {
	return CyclicOptions{StepSizeUp: 2000, Mode: "triangular", Gamma: 1, CycleMomentum: true, BaseMomentum: 0.8, MaxMomentum: 0.9}
}

// CyclicLR is torch.optim.lr_scheduler.CyclicLR without scale_fn: the learning rates rise from baseLR to
// maxLR and fall again, linearly. Both have a number for all groups, or one for each.
func CyclicLR(opt Optimizer, baseLR, maxLR []float64, o CyclicOptions) *Schedule {
	const op = "optim.CyclicLR"
	atLeast(op, "StepSizeUp", o.StepSizeUp, 1)
	atLeast(op, "StepSizeDown", o.StepSizeDown, 0)
	down := o.StepSizeDown
	if down == 0 {
		down = o.StepSizeUp
	}
	total := float64(o.StepSizeUp) + float64(down)
	up := float64(o.StepSizeUp) / total
	var height func(cycle float64, epoch int) float64
	switch o.Mode {
	case "triangular":
		height = func(float64, int) float64 { return 1 }
	case "triangular2":
		height = func(cycle float64, _ int) float64 { return 1 / shim.Pow(2, cycle-1) }
	case "exp_range":
		height = func(_ float64, epoch int) float64 { return shim.Pow(o.Gamma, float64(epoch)) }
	default:
		torch.Throw(op, "Mode must be triangular, triangular2 or exp_range, not %q", o.Mode)
	}
	baseLR, maxLR = perGroup(op, opt, baseLR), perGroup(op, opt, maxLR)
	momentum := momenta(op, opt, o.CycleMomentum, o.MaxMomentum)
	opt.SetLRs(baseLR)
	s := &Schedule{opt: opt}
	s.next = func(s *Schedule, lrs []float64, _ bool) []float64 {
		cycle := math.Floor(1 + float64(s.epoch)/total)
		x := 1 + float64(s.epoch)/total - cycle
		share := x / up
		if x > up {
			share = (x - 1) / (up - 1)
		}
		out, h := slices.Clone(lrs), height(cycle, s.epoch)
		for i := range out {
			out[i] = s.base[i] + float64((maxLR[i]-s.base[i])*share)*h
			if momentum[i] != nil {
				*momentum[i] = o.MaxMomentum - float64((o.MaxMomentum-o.BaseMomentum)*share)*h
			}
		}
		return out
	}
	s.start()
	s.base = slices.Clone(baseLR)
	return s
}

// Sequence is a Scheduler of schedulers one after another.
type Sequence struct {
	opt        Optimizer
	parts      []*Schedule
	milestones []int
	epoch      int
}

// SequentialLR is torch.optim.lr_scheduler.SequentialLR: the first of schedulers up to the first of
// milestones, which are epochs, then the next, which starts from the initial learning rates. There
// is one milestone less than schedulers.
func SequentialLR(opt Optimizer, schedulers []*Schedule, milestones []int) *Sequence {
	const op = "optim.SequentialLR"
	if len(schedulers) == 0 || len(milestones) != len(schedulers)-1 {
		torch.Throw(op, "%d schedulers need %d milestones, got %d", len(schedulers), max(0, len(schedulers)-1), len(milestones))
	}
	for i, s := range schedulers {
		if s.opt != opt {
			torch.Throw(op, "scheduler %d is of another optimizer", i)
		}
	}
	lrs := opt.LRs()
	for i := range lrs {
		lrs[i] = opt.initialLR(i, lrs[i], false)
	}
	opt.SetLRs(lrs)
	for _, s := range schedulers {
		s.epoch--
	}
	schedulers[0].initial()
	return &Sequence{opt: opt, parts: schedulers, milestones: milestones}
}

// Step sets the learning rates of the next epoch.
func (q *Sequence) Step() {
	q.epoch++
	i := sort.SearchInts(q.milestones, q.epoch+1)
	if i > 0 && q.milestones[i-1] == q.epoch {
		q.parts[i].begin()
	} else {
		q.parts[i].Step()
	}
}

// LastLR returns the learning rate of each group.
func (q *Sequence) LastLR() []float64 { return q.opt.LRs() }

// StateDict returns the state by PyTorch's names.
func (q *Sequence) StateDict() map[string]any {
	return map[string]any{"last_epoch": int64(q.epoch), "_last_lr": floats(q.opt.LRs()), "_schedulers": states(q.parts)}
}

// LoadStateDict restores a state; see [Scheduler].
func (q *Sequence) LoadStateDict(d map[string]any) error {
	epoch, err := integer("a scheduler", d, "last_epoch")
	if err != nil {
		return err
	}
	if err := loadStates(q.parts, d); err != nil {
		return err
	}
	q.epoch = int(epoch)
	return nil
}

func states[S Scheduler](parts []S) (out []any) {
	for _, s := range parts {
		out = append(out, s.StateDict())
	}
	return out
}

func loadStates[S Scheduler](parts []S, d map[string]any) error {
	list, _ := d["_schedulers"].([]any)
	if len(list) != len(parts) {
		return fmt.Errorf("optim: the state has %d schedulers, but there are %d", len(list), len(parts))
	}
	for i, s := range parts {
		own, ok := list[i].(map[string]any)
		if !ok {
			return fmt.Errorf("optim: the state of scheduler %d is no dict", i)
		}
		if err := s.LoadStateDict(own); err != nil {
			return err
		}
	}
	return nil
}

// Chain is a Scheduler of schedulers that all change the learning rates.
type Chain struct{ parts []Scheduler }

// ChainedScheduler is torch.optim.lr_scheduler.ChainedScheduler: each step is one of all schedulers. There
// must be one at least.
func ChainedScheduler(schedulers ...Scheduler) *Chain {
	atLeast("optim.ChainedScheduler", "the number of schedulers", len(schedulers), 1)
	return &Chain{schedulers}
}

// Step sets the learning rates of the next epoch.
func (c *Chain) Step() {
	for _, s := range c.parts {
		s.Step()
	}
}

// LastLR returns the learning rate of each group.
func (c *Chain) LastLR() []float64 { return c.parts[len(c.parts)-1].LastLR() }

// StateDict returns the state by PyTorch's names.
func (c *Chain) StateDict() map[string]any {
	return map[string]any{"_last_lr": floats(c.LastLR()), "_schedulers": states(c.parts)}
}

// LoadStateDict restores a state; see [Scheduler].
func (c *Chain) LoadStateDict(d map[string]any) error { return loadStates(c.parts, d) }

// PlateauOptions configures ReduceLROnPlateau; the names are PyTorch's.
type PlateauOptions struct {
	Mode          string  // "min" if the metric should fall, or "max"
	Factor        float64 // of the learning rates
	Patience      int     // the number of epochs without improvement that change nothing
	Threshold     float64 // what counts as an improvement
	ThresholdMode string  // "rel", of the best metric, or "abs"
	Cooldown      int     // the number of epochs after a reduction that do not count
	MinLR         float64
	Eps           float64 // smaller reductions are not made
}

// PlateauDefaults returns PyTorch's defaults: the metric should fall, factor 0.1, patience 10, threshold
// 1e-4 relative to the best, no cooldown, eps 1e-8.
func PlateauDefaults() PlateauOptions {
	return PlateauOptions{Mode: "min", Factor: 0.1, Patience: 10, Threshold: 1e-4, ThresholdMode: "rel", Eps: 1e-8}
}

// Plateau reduces learning rates when a metric no longer improves.
type Plateau struct {
	opt                  Optimizer
	o                    PlateauOptions
	best                 float64
	cooldown, bad, epoch int
}

// ReduceLROnPlateau is torch.optim.lr_scheduler.ReduceLROnPlateau.
func ReduceLROnPlateau(opt Optimizer, o PlateauOptions) *Plateau {
	const op = "optim.ReduceLROnPlateau"
	if !(o.Factor < 1) {
		torch.Throw(op, "Factor must be less than 1, got %v", o.Factor)
	}
	if o.Mode != "min" && o.Mode != "max" || o.ThresholdMode != "rel" && o.ThresholdMode != "abs" {
		torch.Throw(op, "Mode must be min or max, and ThresholdMode rel or abs, not %q and %q", o.Mode, o.ThresholdMode)
	}
	p := &Plateau{opt: opt, o: o, best: math.Inf(1)}
	if o.Mode == "max" {
		p.best = math.Inf(-1)
	}
	return p
}

// Step counts an epoch with the given metric.
func (p *Plateau) Step(metric float64) {
	p.epoch++
	if p.better(metric) {
		p.best, p.bad = metric, 0
	} else {
		p.bad++
	}
	if p.cooldown > 0 {
		p.cooldown--
		p.bad = 0
	}
	if p.bad > p.o.Patience {
		p.opt.SetLRs(rates(p.opt.LRs(), func(lr float64) float64 {
			if less := max(lr*p.o.Factor, p.o.MinLR); lr-less > p.o.Eps {
				return less
			}
			return lr
		}))
		p.cooldown, p.bad = p.o.Cooldown, 0
	}
}

func (p *Plateau) better(metric float64) bool {
	switch {
	case p.o.Mode == "min" && p.o.ThresholdMode == "rel":
		return metric < p.best*(1-p.o.Threshold)
	case p.o.Mode == "min":
		return metric < p.best-p.o.Threshold
	case p.o.ThresholdMode == "rel":
		return metric > p.best*(p.o.Threshold+1)
	}
	return metric > p.best+p.o.Threshold
}

// LastLR returns the learning rate of each group.
func (p *Plateau) LastLR() []float64 { return p.opt.LRs() }

// StateDict returns the state by PyTorch's names.
func (p *Plateau) StateDict() map[string]any {
	return map[string]any{"best": p.best, "cooldown_counter": int64(p.cooldown), "num_bad_epochs": int64(p.bad), "last_epoch": int64(p.epoch), "_last_lr": floats(p.opt.LRs())}
}

// LoadStateDict restores a state; see [Scheduler].
func (p *Plateau) LoadStateDict(d map[string]any) error {
	now := *p
	best, ok := d["best"].(float64)
	if !ok {
		return fmt.Errorf("optim: the state of a scheduler has no number best")
	}
	now.best = best
	for name, to := range map[string]*int{"cooldown_counter": &now.cooldown, "num_bad_epochs": &now.bad, "last_epoch": &now.epoch} {
		v, err := integer("a scheduler", d, name)
		if err != nil {
			return err
		}
		*to = int(v)
	}
	*p = now
	return nil
}
