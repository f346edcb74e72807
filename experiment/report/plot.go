package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cyclecap/eval/geometry"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A figure is a drawing with a legend. The legend is HTML, so that it wraps on a phone and
// a screen reader can read it.
type figure struct {
	Title  string
	Alt    string
	SVG    template.HTML
	Legend []key
	Note   string // below the legend
}

// A key is an entry of a legend. Its mark is the shape of dots, or a line in the given
// pattern of dashes.
type key struct {
	Colour int
	Shape  string
	Dashes string
	Name   string
	Note   string
}

// colours is the number of colours in the page's style: --c0 to --c7.
const colours = 8

// Figures are as wide, in points, as a phone shows them, so that their text is never too
// small to read.
const (
	figureWidth  = 330
	figureHeight = 235
	// maxPoints is the maximum number of points in a figure.
	maxPoints = 2000
)

// The colours in a drawing are placeholders, which svg replaces by the page's colours
// because those depend on light or dark mode: 0xA0, the transparency in percent, and the
// number of the colour. An alpha value would change the placeholder by rounding.
var (
	ink  = color.RGBA{0xA0, 0, 0xF0, 255}
	grid = color.RGBA{0xA0, 0, 0xF1, 255}
	// The colours of the text and of the page.
	strong      = color.RGBA{0xA0, 0, 0xF2, 255}
	paperColour = color.RGBA{0xA0, 0, 0xF3, 255}
)

// dashes are the patterns of the lines of a chart, by the number of the line.
var dashes = [colours][]vg.Length{nil, {6, 3}, {2, 3}, {9, 3, 2, 3}, {4, 2}, {1, 2}, {10, 4}, {6, 2, 2, 2, 2, 2}}

// pattern returns a pattern of dashes as an SVG attribute.
func pattern(d []vg.Length) string {
	var s []string
	for _, v := range d {
		s = append(s, fmt.Sprint(float64(v)))
	}
	return strings.Join(s, " ")
}

func colour(i int) color.RGBA { return color.RGBA{0xA0, 0, uint8(i), 255} }

// faint returns colour i with a transparency in percent.
func faint(i int, percent uint8) color.RGBA { return color.RGBA{0xA0, percent, uint8(i), 255} }

func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	f := font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 11)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font, a.Label.TextStyle.Color = f, ink
		a.Tick.Label.Font, a.Tick.Label.Color = f, ink
		a.LineStyle.Color, a.LineStyle.Width = grid, 1
		a.Tick.LineStyle.Color, a.Tick.LineStyle.Width = grid, 1
		a.Tick.Length = 3
		a.Padding = 4
		a.Tick.Marker = ticks{}
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal.Color, g.Horizontal.Width = grid, 0.6
	p.Add(g)
	return p
}

// ticks chooses few ticks with short labels, such as 20k for 20000, to suit a phone. If
// share is true, the values are shown in percent.
type ticks struct{ share bool }

func (t ticks) Ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
	for _, by := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*by) <= 5.5 {
			step *= by
			break
		}
	}
	var out []plot.Tick
	first := math.Ceil(low / step)
	for i := range 12 {
		v := (first + float64(i)) * step
		if v > high+step*1e-9 {
			break
		}
		label := short(v, step, max(math.Abs(low), math.Abs(high)))
		if t.share {
			label = short(100*v, 100*step, max(math.Abs(low), math.Abs(high))*100) + "%"
		}
		out = append(out, plot.Tick{Value: v, Label: label})
	}
	return out
}

// short formats v, a multiple of step, without insignificant digits and in the unit that
// suits the largest value.
func short(v, step, largest float64) string {
	unit := ""
	switch {
	case largest >= 1e6:
		v, step, unit = v/1e6, step/1e6, "M"
	case largest >= 1e4:
		v, step, unit = v/1e3, step/1e3, "k"
	case largest < 1e-3:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	s := strconv.FormatFloat(v, 'f', max(0, -int(math.Floor(math.Log10(step)+1e-9))), 64)
	if v == 0 {
		return "0"
	}
	return s + unit
}

var (
	svgStart = regexp.MustCompile(`(?s)^.*?<svg [^>]*>`)
	svgFont  = regexp.MustCompile(`font-family:[^;"]*;font-variant:[^;"]*;font-weight:[^;"]*;font-style:[^;"]*;`)
	svgMark  = regexp.MustCompile(`#A0[0-9A-F]{4}`)
)

// svg returns p as inline SVG for HTML: without prologue, namespaces and ids, and with the
// font and colours of the page, which the browser adapts to dark mode and print.
func svg(p *plot.Plot, width, height vg.Length) (template.HTML, error) {
	c := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(c), 1, -8, 1, -5))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("report: cannot draw: %w", err)
	}
	s := svgStart.ReplaceAllString(b.String(), fmt.Sprintf(`<svg viewBox="0 0 %g %g" aria-hidden="true">`, float64(width), float64(height)))
	s = svgFont.ReplaceAllString(s, "")
	s = svgMark.ReplaceAllStringFunc(s, func(m string) string {
		switch m[5:] {
		case "F0":
			return "var(--soft)"
		case "F1":
			return "var(--grid)"
		case "F2":
			return "var(--ink)"
		case "F3":
			return "var(--paper)"
		}
		v, _ := strconv.ParseUint(m[1:], 16, 32)
		c := fmt.Sprintf("var(--c%d)", v&0xFF)
		if through := v >> 8 & 0xFF; through > 0 {
			c += fmt.Sprintf(";stroke-opacity:.%02d", 100-through)
		}
		return c
	})
	return template.HTML(s), nil
}

// curves draws a chart. ok is false if there is nothing to show.
func curves(c Chart) (f figure, ok bool, err error) {
	y := c.Y
	if y == "" {
		y = "loss"
	}
	p := newPlot("step", y)
	f.Title = c.Title
	each := maxPoints / 2 / max(len(c.Series), 1)
	f.Alt = fmt.Sprintf("Line chart of %s by step.", y)
	smoothed := false
	var lines []plot.Plotter
	for i, s := range c.Series {
		points := finitePoints(s.Points)
		k := key{Colour: i, Name: s.Name, Dashes: pattern(dashes[i])}
		if len(points) == 0 {
			k.Note = "no values"
			f.Legend = append(f.Legend, k)
			continue
		}
		ok = true
		shown := points
		if len(points) > 100 {
			smoothed = true
			lines = append([]plot.Plotter{line(extremes(points, each), faint(i, 72), 0.8)}, lines...)
			shown = spread(smooth(points), each)
		}
		if len(shown) == 1 {
			lines = append(lines, dots{shown, colour(i), 6, nil})
		} else {
			l := line(shown, colour(i), 1.8)
			l.Dashes = dashes[i]
			lines = append(lines, l)
		}
		last := shown[len(shown)-1].Y
		k.Note = fmt.Sprintf("%.3g → %.3g", shown[0].Y, last)
		f.Alt += fmt.Sprintf(" %s goes from %.3g to %.3g.", s.Name, shown[0].Y, last)
		f.Legend = append(f.Legend, k)
	}
	if !ok {
		return f, false, nil
	}
	p.Add(lines...)
	if smoothed {
		f.Alt += " The strong lines are smoothed; the faint lines are the values."
	}
	f.SVG, err = svg(p, figureWidth, figureHeight)
	return f, true, err
}

func line(xy plotter.XYs, c color.Color, width vg.Length) *plotter.Line {
	return &plotter.Line{XYs: xy, LineStyle: draw.LineStyle{Color: c, Width: width}}
}

func finitePoints(points []Point) plotter.XYs {
	var xy plotter.XYs
	for _, p := range points {
		if !math.IsNaN(p.Step+p.Value) && !math.IsInf(p.Step+p.Value, 0) {
			xy = append(xy, plotter.XY{X: p.Step, Y: p.Value})
		}
	}
	return xy
}

// extremes reduces xy to at most n points: the minimum and maximum of each interval, so
// that spikes remain visible.
func extremes(xy plotter.XYs, n int) plotter.XYs {
	if len(xy) <= n {
		return xy
	}
	var out plotter.XYs
	parts := n / 2
	for i := range parts {
		part := xy[i*len(xy)/parts : (i+1)*len(xy)/parts]
		low, high := 0, 0
		for j := range part {
			if part[j].Y < part[low].Y {
				low = j
			}
			if part[j].Y > part[high].Y {
				high = j
			}
		}
		out = append(out, part[min(low, high)], part[max(low, high)])
	}
	return out
}

// smooth returns the moving average over a window of 5% of the points, which is truncated
// at both ends.
func smooth(xy plotter.XYs) plotter.XYs {
	sums := make([]float64, len(xy)+1)
	for i, p := range xy {
		sums[i+1] = sums[i] + p.Y
	}
	out := make(plotter.XYs, len(xy))
	half := max(len(xy)/40, 2)
	for i := range xy {
		from, to := max(i-half, 0), min(i+half+1, len(xy))
		out[i] = plotter.XY{X: xy[i].X, Y: (sums[to] - sums[from]) / float64(to-from)}
	}
	return out
}

// spread reduces xy to at most n evenly spaced points, including the first and the last.
func spread(xy plotter.XYs, n int) plotter.XYs {
	if len(xy) <= n {
		return xy
	}
	out := make(plotter.XYs, n)
	for i := range out {
		out[i] = xy[i*(len(xy)-1)/(n-1)]
	}
	return out
}

// dots draws points as one path: of zero-length strokes with round ends, which take a tenth
// of the bytes of circles, or of the given strokes around each point.
type dots struct {
	plotter.XYs
	colour  color.Color
	width   vg.Length
	strokes [][]vg.Point
}

func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	strokes := d.strokes
	if strokes == nil {
		strokes = [][]vg.Point{{{}, {}}}
	}
	var path vg.Path
	for _, at := range d.XYs {
		pt := vg.Point{X: x(at.X), Y: y(at.Y)}
		for _, s := range strokes {
			for i, by := range s {
				to := pt.Add(by)
				to.X, to.Y = round(to.X), round(to.Y)
				if i == 0 {
					path.Move(to)
				} else {
					path.Line(to)
				}
			}
		}
	}
	c.SetLineStyle(draw.LineStyle{Color: d.colour, Width: d.width})
	c.Stroke(path)
}

func round(l vg.Length) vg.Length { return vg.Length(math.Round(float64(l)*10) / 10) }

func (d dots) DataRange() (xmin, xmax, ymin, ymax float64) { return plotter.XYRange(d.XYs) }

// plane draws the features of images, texts and a bridge, if it is not nil, in a plane.
func plane(g *geometry.Geometry, bridge *geometry.Side) (figure, error) {
	p := newPlot(axis(g, 0), axis(g, 1))
	f := figure{Title: "Features"}
	type part struct {
		name   string
		points [][2]float64
		set    set
	}
	parts := []part{{"image", g.Sides[0].Points, imageSet}, {"text", g.Texts, textSet}}
	if bridge != nil {
		f.Title += ", with " + bridge.Name
		parts = append(parts, part{bridge.Name, bridge.Points, bridgedSet})
	}
	f.Alt = "Scatter plot of features along the two principal axes of images and texts."
	for _, s := range parts {
		xy := some(s.points, maxPoints/len(parts))
		if len(xy) == 0 {
			continue
		}
		p.Add(s.set.plotter(xy))
		c := centre(xy)
		f.Alt += fmt.Sprintf(" %s: centred at (%.2f, %.2f).", s.name, c.X, c.Y)
		f.Legend = append(f.Legend, key{Colour: s.set.colour, Shape: s.set.shape, Name: s.name})
	}
	var err error
	f.SVG, err = svg(p, figureWidth, figureHeight)
	return f, err
}

// cosines draws histograms of the cosines of features with their own and with other texts.
func cosines(g *geometry.Geometry, bridge *geometry.Side) (figure, error) {
	p := newPlot("cosine with a caption", "share of pairs")
	f := figure{Title: "Cosines", Alt: "Histograms of cosines."}
	add := func(i int, name string, h geometry.Histogram, dashed bool) {
		l := line(steps(h), colour(i), 1.6)
		if dashed {
			l.Dashes = []vg.Length{3, 2}
		}
		p.Add(l)
		f.Alt += fmt.Sprintf(" %s: mean %.3f.", name, h.Mean)
		f.Legend = append(f.Legend, key{Colour: i, Dashes: pattern(l.Dashes), Name: name, Note: fmt.Sprintf("mean %.3f", h.Mean)})
	}
	add(0, "image and own caption", g.Sides[0].Paired, false)
	add(0, "image and other captions", g.Sides[0].Unpaired, true)
	if bridge != nil {
		f.Title += ", with " + bridge.Name
		add(2, bridge.Name+" and own caption", bridge.Paired, false)
		add(2, bridge.Name+" and other captions", bridge.Unpaired, true)
	}
	p.Y.Min = 0
	var err error
	f.SVG, err = svg(p, figureWidth, figureHeight)
	return f, err
}

// steps returns the outline of a histogram from its first to its last bin that is not
// empty.
func steps(h geometry.Histogram) plotter.XYs {
	total := 0
	for _, c := range h.Counts {
		total += c
	}
	first := slices.IndexFunc(h.Counts, func(c int) bool { return c > 0 })
	if first < 0 {
		return plotter.XYs{{X: h.Low}, {X: h.High}}
	}
	last := len(h.Counts) - 1
	for h.Counts[last] == 0 {
		last--
	}
	width := (h.High - h.Low) / float64(len(h.Counts))
	at := func(i int) float64 { return h.Low + float64(i)*width }
	xy := plotter.XYs{{X: at(first)}}
	for i := first; i <= last; i++ {
		share := float64(h.Counts[i]) / float64(total)
		xy = append(xy, plotter.XY{X: at(i), Y: share}, plotter.XY{X: at(i + 1), Y: share})
	}
	return append(xy, plotter.XY{X: at(last + 1)})
}
