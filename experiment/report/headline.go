package report

import (
	"fmt"
	"math"
	"strings"
)

// roles finds the bridges that the headline compares: the paper's two, and the ceiling.
func (e *Experiment) roles() (direct, textualised, supervised *Bridge) {
	for i := range e.Bridges {
		switch b := &e.Bridges[i]; {
		case b.Supervised && supervised == nil:
			supervised = b
		case b.Paper == "direct":
			direct = b
		case b.Paper == "textualised":
			textualised = b
		}
	}
	return direct, textualised, supervised
}

// preferred lists the metrics for the headline, in the order in which they are considered.
var preferred = []string{"CIDEr", "METEOR", "BLEU-4", "ROUGE_L", "BLEU-3", "BLEU-2", "BLEU-1"}

// metricOf returns the first preferred metric that all given bridges have.
func metricOf(bridges ...*Bridge) string {
next:
	for _, m := range preferred {
		for _, b := range bridges {
			if len(b.Scores[m].Seeds) == 0 {
				continue next
			}
		}
		return m
	}
	return ""
}

// between returns the difference a minus b in a metric, whichever way round it was
// computed.
func (e *Experiment) between(a, b, metric string) (Difference, bool) {
	for _, d := range e.Differences {
		if d.Score != metric {
			continue
		}
		if d.Bridge == a && d.Baseline == b {
			return d, true
		}
		if d.Bridge == b && d.Baseline == a {
			d.Bridge, d.Baseline, d.A, d.B = a, b, d.Difference.B, d.Difference.A
			d.Difference.Difference, d.Low, d.High = -d.Difference.Difference, -d.High, -d.Low
			return d, true
		}
	}
	return Difference{}, false
}

// sign is 1 or -1 if the difference is significant, and 0 otherwise.
func (d Difference) sign() int {
	if d.Holm >= significant {
		return 0
	}
	switch {
	case d.Low > 0:
		return 1
	case d.High < 0:
		return -1
	}
	return 0
}

// alone is like sign, without the correction for other comparisons.
func (d Difference) alone() int {
	d.Holm = 0
	return d.sign()
}

// headline is the sentence that the table supports, and a line with its intervals. Both
// are empty if there are no scores. What it compares (textualised, direct and supervised, in
// one metric) is the paper's question, chosen before the run, so these differences are judged
// by their own intervals. The other bridges are compared because they came out well, so they
// are judged after the correction.
func (e *Experiment) headline() (sentence, detail string) {
	direct, textualised, supervised := e.roles()
	metric := ""
	if direct != nil && textualised != nil {
		metric = metricOf(direct, textualised)
	}
	if metric == "" {
		return e.bestOfAll(), ""
	}
	score := func(b *Bridge) float64 { return b.Scores[metric].Value() }
	d, t := score(direct), score(textualised)
	// Without an interval, the difference is taken at its word, and the sentence says so.
	gain, tested := e.between(textualised.ID, direct.ID, metric)
	better := tested && gain.alone() > 0 || !tested && t > d

	var s strings.Builder
	switch {
	case better:
		fmt.Fprintf(&s, "Textualised captions score %s %s, direct ones %s", metric, number(t), number(d))
	case tested && gain.alone() < 0 || !tested && t < d:
		fmt.Fprintf(&s, "Textualised captions score %s %s, less than direct ones (%s)", metric, number(t), number(d))
	case !tested:
		fmt.Fprintf(&s, "Textualised captions and direct ones both score %s %s", metric, number(t))
	default:
		fmt.Fprintf(&s, "Textualised captions score %s %s and direct ones %s, a difference that may be chance", metric, number(t), number(d))
	}
	closed := math.NaN()
	if supervised != nil && len(supervised.Scores[metric].Seeds) > 0 {
		ceiling := score(supervised)
		distance, known := e.between(supervised.ID, direct.ID, metric)
		above := known && distance.alone() > 0 || !known && ceiling > d
		rest, compared := e.between(supervised.ID, textualised.ID, metric)
		switch {
		case !above:
			fmt.Fprintf(&s, "; the supervised decoder (%s) is not clearly better than direct captions, so there is no distance to close", number(ceiling))
		case !better:
			fmt.Fprintf(&s, "; the supervised decoder scores %s", number(ceiling))
		case t >= ceiling && compared && rest.alone() < 0:
			closed = (t - d) / (ceiling - d)
			fmt.Fprintf(&s, ": the translation goes beyond the supervised decoder (%s), which is no ceiling here", number(ceiling))
		case t >= ceiling:
			closed = (t - d) / (ceiling - d)
			fmt.Fprintf(&s, ": the translation closes the whole distance to the supervised decoder (%s)", number(ceiling))
		default:
			closed = (t - d) / (ceiling - d)
			fmt.Fprintf(&s, ": the translation closes %s of the distance to the supervised decoder (%s)", percent(closed), number(ceiling))
		}
	}
	var rival *Bridge
	for i := range e.Bridges {
		b := &e.Bridges[i]
		if b.Supervised || b == direct || b == textualised || len(b.Scores[metric].Seeds) == 0 {
			continue
		}
		if score(b) > t && (rival == nil || score(b) > score(rival)) {
			rival = b
		}
	}
	if rival != nil {
		switch lead, compared := e.between(rival.ID, textualised.ID, metric); {
		case compared && lead.sign() > 0:
			fmt.Fprintf(&s, "; %s is better (%s)", rival.name(), number(score(rival)))
		case compared:
			fmt.Fprintf(&s, "; %s scores %s, which is not clearly more than textualised", rival.name(), number(score(rival)))
		default:
			fmt.Fprintf(&s, "; %s scores %s", rival.name(), number(score(rival)))
		}
	}

	var parts []string
	if tested {
		parts = append(parts, fmt.Sprintf("Textualised minus direct: %s (95%% interval %s to %s, for this comparison alone).", signed(gain.Difference.Difference), signed(gain.Low), signed(gain.High)))
	} else {
		parts = append(parts, "The difference has no interval.")
	}
	if c, ok := e.Closed[metric]; ok && !math.IsNaN(closed) {
		parts = append(parts, fmt.Sprintf("Distance closed: %s (95%% interval %s to %s).", percent(closed), percent(c.Low), percent(c.High)))
	}
	return s.String() + ".", strings.Join(parts, " ")
}

// bestOfAll is the headline of an experiment without the paper's two bridges.
func (e *Experiment) bestOfAll() string {
	for _, metric := range preferred {
		var best *Bridge
		rivals := 0
		for i := range e.Bridges {
			b := &e.Bridges[i]
			if b.Supervised || len(b.Scores[metric].Seeds) == 0 {
				continue
			}
			rivals++
			if best == nil || b.Scores[metric].Value() > best.Scores[metric].Value() {
				best = b
			}
		}
		switch {
		case rivals == 1:
			return fmt.Sprintf("%s scores %s %s.", best.name(), metric, number(best.Scores[metric].Value()))
		case rivals > 1:
			return fmt.Sprintf("%s scores highest of the bridges trained without pairs: %s %s.", best.name(), metric, number(best.Scores[metric].Value()))
		}
	}
	return ""
}

func percent(v float64) string { return strings.Replace(fmt.Sprintf("%.0f%%", 100*v), "-", "−", 1) }

// signed formats a difference with its sign.
func signed(v float64) string {
	s := fmt.Sprintf("%+.3f", v)
	if s == "-0.000" || s == "+0.000" {
		return "0.000"
	}
	return strings.Replace(s, "-", "−", 1)
}
