package verify

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"cyclecap/torch/compare"
)

// jsonRow is a row as --json prints it. Numbers that JSON has none for are null.
type jsonRow struct {
	Part      string    `json:"part"`
	What      string    `json:"what"`
	Verdict   string    `json:"verdict"`
	Shape     []int64   `json:"shape,omitempty"`
	Elements  int64     `json:"elements"`
	Differing int64     `json:"differing"`
	Max       *float64  `json:"max_difference"`
	Mean      *float64  `json:"mean_difference"`
	Relative  *float64  `json:"relative"`
	First     *jsonItem `json:"first,omitempty"`
	Worst     *jsonItem `json:"worst,omitempty"`
	Bound     string    `json:"tolerance"`
	Why       string    `json:"why,omitempty"`
	Message   string    `json:"message,omitempty"`
}

type jsonItem struct {
	Index []int64  `json:"index"`
	Got   *float64 `json:"got"`
	Want  *float64 `json:"want"`
}

func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func item(e *compare.Element) *jsonItem {
	if e == nil {
		return nil
	}
	return &jsonItem{e.Index, finite(e.Got), finite(e.Want)}
}

func rowOf(part, what string, r Row) jsonRow {
	d := r.Difference
	j := jsonRow{Part: part, What: what, Verdict: strings.ToLower(r.Verdict()), Shape: d.Shape, Elements: d.Elements, Differing: d.Differing,
		First: item(d.First), Worst: item(d.Worst), Bound: r.Tolerance.String(), Message: r.Skipped + r.Err + d.Mismatch}
	if j.Message == "" {
		j.Max, j.Mean, j.Relative = finite(d.Max), finite(d.Mean), finite(d.Relative())
	}
	if r.Verdict() == Within {
		j.Why = r.Tolerance.Why
	}
	return j
}

// JSON returns the report in the form that --json prints.
func (r *Report) JSON() any {
	rows, modules := []jsonRow{}, []jsonRow{}
	for _, row := range r.Rows {
		rows = append(rows, rowOf(row.Part, row.What, row))
	}
	for _, m := range r.Modules {
		modules = append(modules, rowOf(m.Net, m.Name, m.Row))
	}
	return map[string]any{
		"ok": r.OK(), "reference": r.Reference.Path, "there": r.Reference.Facts.Environment, "here": r.Here,
		"rows": rows, "modules": modules, "diagnosis": append([]string{}, r.Diagnosis...),
	}
}

// Bounds lists the tolerances of the rows.
func (r *Report) Bounds() (out []string) {
	for _, row := range r.Rows {
		if row.Skipped != "" || row.Err != "" || row.Tolerance == compare.Bits {
			continue
		}
		if s := fmt.Sprintf("%s (%s)", row.Tolerance, row.Tolerance.Why); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return append(out, "0 for everything else")
}

// Environments describes both sides in a line each.
func (r *Report) Environments() []string {
	line := func(e Environment) string {
		var parts []string
		for _, name := range names(e.Versions) {
			parts = append(parts, name+" "+e.Versions[name])
		}
		parts = append(parts, e.Device, e.DType)
		if e.DeviceType == "cpu" {
			parts = append(parts, fmt.Sprintf("%d threads", e.Threads), e.CPU)
		}
		return strings.Join(parts, ", ")
	}
	return []string{"there: " + line(r.Reference.Facts.Environment), "here: " + line(r.Here)}
}
