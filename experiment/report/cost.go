package report

import (
	"fmt"
	"math"
	"strconv"
)

// A Cost is what a bridge needs in addition to CLIP, GPT-2 and a decoder.
type Cost struct {
	// Parameters is how many numbers the bridge needs between CLIP and the decoder.
	Parameters int64 `json:"parameters"`
	// Seconds is the time to fit the bridge: of each run, including the trainings that
	// it does not share with the direct bridge.
	Seconds []float64 `json:"seconds"`
	// Decoder is the name of the bridge's decoder, and SharedWith lists the IDs of the
	// other bridges that use it.
	Decoder    string   `json:"decoder"`
	SharedWith []string `json:"shared_with,omitempty"`
	// DecoderSeconds is the time to train the decoder: of each run.
	DecoderSeconds []float64 `json:"decoder_seconds"`
}

// time returns the mean time to fit the bridge.
func (c *Cost) time() Score { return Score{Seeds: c.Seconds} }

// ParametersText returns the number of parameters as the table shows it: "0", "262,656" or
// "1.1 M".
func (c *Cost) ParametersText() string {
	n := c.Parameters
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10)
	case n < 1e6:
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprintf("%.1f M", float64(n)/1e6)
}

// TimeText returns the mean time to fit the bridge as the table shows it: "< 0.1 s",
// "0.2 s" or "2 min 05 s".
func (c *Cost) TimeText() string {
	s := c.time().Value()
	switch {
	case math.IsNaN(s):
		return "–"
	case s < 0.05:
		return "< 0.1 s"
	}
	return duration(s)
}

// costs reports whether the table has the columns of Cost.
func (e *Experiment) costs() bool {
	for _, b := range e.Bridges {
		if b.Cost != nil {
			return true
		}
	}
	return false
}

// costLegend explains the columns of Cost.
const costLegend = "Parameters: numbers that the bridge needs between CLIP and the decoder. " +
	"Time to fit: of the bridge, with the trainings that it does not share with the direct bridge (its own decoder, the CycleGAN)."

// costHeads are the titles of the columns of Cost.
var costHeads = []string{"parameters", "time to fit"}

// cells returns the columns of a cost, which may be nil.
func (c *Cost) cells() []string {
	if c == nil {
		return []string{"–", "–"}
	}
	return []string{c.ParametersText(), c.TimeText()}
}

// check returns what is wrong with a cost.
func (c *Cost) check() error {
	if c == nil {
		return nil
	}
	if c.Parameters < 0 {
		return fmt.Errorf("the number of parameters must not be negative, got %d", c.Parameters)
	}
	for _, list := range [][]float64{c.Seconds, c.DecoderSeconds} {
		for _, s := range list {
			if !(s >= 0) || math.IsInf(s, 1) {
				return fmt.Errorf("invalid duration of %v seconds", s)
			}
		}
	}
	return nil
}
