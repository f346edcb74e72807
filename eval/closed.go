package eval

import "context"

// Closed returns the 95 % bootstrap interval of the share of the distance between two
// methods that a third one closes, in every score: (method - from) / (to - from), where all
// three are resampled with the same draws. A score is left out if the distance is not
// positive in more than 2.5 % of the samples, because the share means nothing then.
func Closed(ctx context.Context, method, from, to Runs, b Bootstrap) (map[string]Interval, error) {
	samples, err := sample(ctx, []Runs{method, from, to}, resamples, b)
	if err != nil {
		return nil, err
	}
	names := method[0][0].Names
	intervals := map[string]Interval{}
	for k, name := range names {
		m, f, t := column(samples, k), column(samples, len(names)+k), column(samples, 2*len(names)+k)
		var shares []float64
		for i := range m {
			if distance := t[i] - f[i]; distance > 0 {
				shares = append(shares, (m[i]-f[i])/distance)
			}
		}
		if len(shares) >= resamples-resamples/40 {
			intervals[name] = interval(shares)
		}
	}
	return intervals, nil
}
