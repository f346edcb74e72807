package eval

import "context"

// A Share is a score with its 95 % bootstrap interval; see Result.Intervals.
type Share struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Shares returns every corpus score with its interval.
func (r *Result) Shares(ctx context.Context, b Bootstrap) (map[string]Share, error) {
	return Runs{{r}}.Shares(ctx, b)
}

// Shares returns every score with its interval.
func (r Runs) Shares(ctx context.Context, b Bootstrap) (map[string]Share, error) {
	intervals, err := r.Intervals(ctx, b)
	if err != nil {
		return nil, err
	}
	corpus := r.Corpus()
	shares := make(map[string]Share, len(intervals))
	for name, i := range intervals {
		shares[name] = Share{corpus[name], i.Low, i.High}
	}
	return shares, nil
}
