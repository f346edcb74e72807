package experiment

import (
	"context"

	"cyclecap/eval"
	"cyclecap/train/bridge"
)

// closed returns, for each metric, the interval of the share of the distance from the direct
// to the supervised captions that textualising closes. methods are in the order of x.bridges.
func (x *Experiment) closed(ctx context.Context, methods []eval.Runs) (map[string]eval.Interval, error) {
	var method, from, to eval.Runs
	for i, b := range x.bridges {
		switch {
		case b.Paper == "textualised":
			method = methods[i]
		case b.Paper == "direct":
			from = methods[i]
		case b.Role == bridge.Ceiling:
			to = methods[i]
		}
	}
	if method == nil || from == nil || to == nil {
		return nil, nil
	}
	return eval.Closed(ctx, method, from, to, x.bootstrap())
}
