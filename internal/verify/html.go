package verify

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"

	"cyclecap/torch/compare"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"shape":  func(d compare.Difference) string { return tuple(d.Shape) },
	"number": Number,
	"equal":  EqualBits,
	"class": func(r Row) string {
		return map[string]string{Equal: "ok", Within: "ok", Tied: "ok", Skipped: "skip"}[r.Verdict()]
	},
}).Parse(pageText))

// Number returns a difference in a table; one of tokens is empty.
func Number(x float64) string {
	if math.IsInf(x, 0) {
		return ""
	}
	return fmt.Sprintf("%.2g", x)
}

// EqualBits returns how many of the elements have the same bits, in a table.
func EqualBits(d compare.Difference) string {
	if d.Differing == 0 {
		return "all"
	}
	return fmt.Sprintf("%.1f %%", math.Floor(1000*float64(d.Elements-d.Differing)/float64(d.Elements))/10)
}

// Message says why a row has no numbers; it is empty if it has.
func (r Row) Message() string { return r.Skipped + r.Err + r.Difference.Mismatch }

// Counts says how many rows have each verdict, such as "4 equal".
func (r *Report) Counts() (out []string) {
	for _, verdict := range []string{Failed, Differs, Tied, Within, Equal, Skipped} {
		n := 0
		for _, row := range r.Rows {
			if row.Verdict() == verdict {
				n++
			}
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, strings.ToLower(verdict)))
		}
	}
	return out
}

// fact is a line of the table of the environments.
type fact struct {
	Name, There, Here string
	Same              bool
}

func (r *Report) facts() (out []fact) {
	there, here := r.Reference.Facts.Environment, r.Here
	add := func(name, t, h string) { out = append(out, fact{name, t, h, t == h}) }
	add("device", there.Device, here.Device)
	add("dtype", there.DType, here.DType)
	add("threads", fmt.Sprint(there.Threads), fmt.Sprint(here.Threads))
	add("processor", there.CPU, here.CPU)
	for _, name := range names(there.Versions) {
		h := here.Versions[name]
		out = append(out, fact{name, there.Versions[name], h, h == "" || h == there.Versions[name]})
	}
	return out
}

// net has the modules of a net, for the page.
type net struct {
	Name    string
	Open    bool // whether one of them differs
	Modules []Module
}

// HTML returns the report as a page that needs no other file.
func (r *Report) HTML() ([]byte, error) {
	view := struct {
		*Report
		Facts []fact
		Nets  []net
	}{Report: r, Facts: r.facts()}
	for _, name := range r.Nets() {
		_, _, differs := r.First(name)
		n := net{Name: name, Open: differs}
		for _, m := range r.Modules {
			if m.Net == name {
				n.Modules = append(n.Modules, m)
			}
		}
		view.Nets = append(view.Nets, n)
	}
	var b bytes.Buffer
	err := page.Execute(&b, view)
	return b.Bytes(), err
}
