package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Variants is the table of an experiment with variants: an ablation, or trials of settings.
type Variants struct {
	Name    string    `json:"name"`
	Data    string    `json:"data"`
	Images  int       `json:"images"`
	Bridges []Bridge  `json:"bridges"`
	Rows    []Variant `json:"variants"` // the first is the base
}

// A Variant is a row of the table.
type Variant struct {
	Name string `json:"name"`
	// Changes are the settings that differ from the base, as TOML.
	Changes []string `json:"changes,omitempty"`
	// Bridges maps bridges and metrics to scores.
	Bridges map[string]VariantScores `json:"scores"`
	// Same are the bridges whose captions are the base's: the changes do not concern them.
	Same []string `json:"same_as_base,omitempty"`
}

// VariantScores are scores by metric.
type VariantScores map[string]VariantScore

// A VariantScore is a score and its difference from the base's.
type VariantScore struct {
	Score
	Difference *Difference `json:"difference,omitempty"`
}

// columns are the metrics in the Markdown table. The p-values are corrected for them.
var columns = []string{"BLEU-4", "METEOR", "CIDEr"}

// shown returns the differences in the columns.
func (t *Variants) shown() (list []*Difference) {
	for _, v := range t.Rows {
		for _, b := range t.Bridges {
			for _, m := range columns {
				if d := v.Bridges[b.ID][m].Difference; d != nil {
					list = append(list, d)
				}
			}
		}
	}
	return list
}

// Correct sets the corrected p-values of the differences that the table shows, by Holm's
// method over all of them. Other metrics keep their p-values for a single comparison.
func (t *Variants) Correct() {
	for _, v := range t.Rows {
		for _, scores := range v.Bridges {
			for _, s := range scores {
				if s.Difference != nil {
					s.Difference.Holm = s.Difference.P
				}
			}
		}
	}
	shown := t.shown()
	list := make([]Difference, len(shown))
	for i, d := range shown {
		list[i] = *d
	}
	Correct(list)
	for i, d := range shown {
		d.Holm = list[i].Holm
	}
}

// JSON returns the table as JSON: variants -> scores -> bridge -> metric -> {value, low,
// high, std, seeds, worlds, difference}, in the form of package report's JSON.
func (t *Variants) JSON() ([]byte, error) {
	type change struct {
		Value float64  `json:"value"`
		Low   float64  `json:"low"`
		High  float64  `json:"high"`
		P     float64  `json:"p"`
		Holm  *float64 `json:"p_holm,omitempty"`
	}
	type row struct {
		Name    string                          `json:"name"`
		Changes []string                        `json:"changes"`
		Scores  map[string]map[string]scoreJSON `json:"scores"`
		Same    []string                        `json:"same_as_base,omitempty"`
	}
	out := struct {
		Name     string `json:"name"`
		Data     string `json:"data"`
		Images   int    `json:"images"`
		Variants []row  `json:"variants"`
	}{t.Name, t.Data, t.Images, nil}
	for _, v := range t.Rows {
		r := row{v.Name, append([]string{}, v.Changes...), map[string]map[string]scoreJSON{}, v.Same}
		for bridge, scores := range v.Bridges {
			r.Scores[bridge] = map[string]scoreJSON{}
			for m, s := range scores {
				cell := s.Score.json()
				if d := s.Difference; d != nil {
					c := change{Value: d.Difference.Difference, Low: d.Low, High: d.High, P: d.P}
					if slices.Contains(columns, m) {
						c.Holm = &d.Holm
					}
					cell.Difference = c
				}
				r.Scores[bridge][m] = cell
			}
		}
		out.Variants = append(out.Variants, r)
	}
	data, err := json.MarshalIndent(out, "", "  ")
	return append(data, '\n'), err
}

// Markdown returns the table in GitHub Flavored Markdown: for each bridge the variants that
// have it.
func (t *Variants) Markdown() ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", markdown(t.Name), markdown(fmt.Sprintf("%s · %d evaluated images", t.Data, t.Images)))
	var legend table
	same, marked := false, false
	for _, bridge := range t.Bridges {
		var metrics []string
		for _, m := range columns {
			if slices.ContainsFunc(t.Rows, func(v Variant) bool { return len(v.Bridges[bridge.ID][m].Seeds) > 0 }) {
				metrics = append(metrics, m)
			}
		}
		fmt.Fprintf(&b, "\n## %s\n\n| variant | changes |", markdown(bridge.name()))
		for _, m := range metrics {
			fmt.Fprintf(&b, " %s | difference |", m)
		}
		b.WriteString("\n| --- | --- |" + strings.Repeat(" ---: | ---: |", len(metrics)) + "\n")
		for _, v := range t.Rows {
			scores, ok := v.Bridges[bridge.ID]
			if !ok {
				continue
			}
			changes := make([]string, len(v.Changes))
			for i, c := range v.Changes {
				changes[i] = "`" + strings.NewReplacer("`", "'", "|", `\|`).Replace(c) + "`"
			}
			fmt.Fprintf(&b, "| %s | %s |", markdown(v.Name), strings.Join(changes, "<br>"))
			for _, m := range metrics {
				s := scores[m]
				legend.Seeds, legend.Worlds = max(legend.Seeds, len(s.Seeds)), max(legend.Worlds, len(s.Worlds))
				value, difference := "–", ""
				if len(s.Seeds) > 0 {
					value = number(s.Value())
				}
				if std := s.Std(); !math.IsNaN(std) {
					value += " ± " + number(std)
					legend.Spread = true
				}
				if s.Interval != nil {
					value += fmt.Sprintf(" [%s, %s]", number(s.Interval.Low), number(s.Interval.High))
					legend.Intervals = true
				}
				switch d := s.Difference; {
				case d != nil:
					difference = fmt.Sprintf("%+.3f [%+.3f, %+.3f]", d.Difference.Difference, d.Low, d.High)
					if d.Holm < significant {
						difference += "†"
						marked = true
					}
				case slices.Contains(v.Same, bridge.ID):
					difference = "="
					same = true
				}
				fmt.Fprintf(&b, " %s | %s |", value, difference)
			}
			b.WriteString("\n")
		}
	}
	text := []string{"Differences are from the base."}
	if s := legend.legend(); s != "" {
		text = append(text, s)
	}
	if marked {
		text = append(text, fmt.Sprintf("†: p < %g, corrected by Holm's method for %d comparisons.", significant, len(t.shown())))
	}
	if same {
		text = append(text, "=: the changes do not concern this bridge, whose captions are the base's.")
	}
	b.WriteString("\n" + markdown(strings.Join(text, " ")) + "\n")
	return []byte(b.String()), nil
}
