package report

import (
	"fmt"
	"image/color"
	"math"
	"slices"

	"cyclecap/eval/geometry"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// gap draws the picture at the top of the page, on the same axes: images and texts, then
// the bridge's features and texts. The bridge is the paper's, or else the first one. It
// returns nothing if there is none.
func (e *Experiment) gap() (panels []figure, err error) {
	g := e.Geometry
	if g == nil || len(g.Sides) < 2 || len(g.TextsAcross) == 0 {
		return nil, nil
	}
	after := &g.Sides[1]
	if _, b, _ := e.roles(); b != nil {
		if i := slices.IndexFunc(g.Sides[1:], func(s geometry.Side) bool { return s.Name == b.name() }); i >= 0 {
			after = &g.Sides[1+i]
		}
	}
	before := &g.Sides[0]
	xs, ys := square(slices.Concat(before.Across, after.Across, g.TextsAcross), 1.5)
	for _, s := range []struct {
		title string
		side  *geometry.Side
		set   set
	}{{"Before: images and texts", before, imageSet}, {"After: " + after.Name + " and texts", after, bridgedSet}} {
		p := newPlot("across the gap", "")
		texts, points := some(g.TextsAcross, maxPoints/2), some(s.side.Across, maxPoints/2)
		p.Add(textSet.plotter(texts), s.set.plotter(points), centres{centre(points), centre(texts), s.set})
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = xs[0], xs[1], ys[0], ys[1]
		a, b := centre(points), centre(texts)
		f := figure{Title: s.title, Alt: fmt.Sprintf("Scatter plot. Across the gap, %s features have the mean %.2f, and text features %.2f.",
			s.side.Name, a.X, b.X)}
		f.Legend = []key{{Colour: s.set.colour, Shape: s.set.shape, Name: s.side.Name}, {Colour: textSet.colour, Shape: textSet.shape, Name: "text"}}
		f.Note = "Distance of the means " + number(s.side.Gap) + "; cosine with the own caption " + number(s.side.Paired.Mean)
		if len(s.side.Recall) > 0 {
			f.Note += fmt.Sprintf("; own caption nearest for %.0f%% of the photos", 100*s.side.Recall[0])
		}
		f.Note += "."
		if f.SVG, err = svg(p, figureWidth, figureHeight); err != nil {
			return nil, err
		}
		panels = append(panels, f)
	}
	return panels, nil
}

func axis(g *geometry.Geometry, i int) string {
	return fmt.Sprintf("axis %d (%.0f%% of variance)", i+1, 100*g.Explained[i])
}

// A set is how the features of one kind are drawn: no kind is told by its colour alone.
type set struct {
	colour int
	shape  string
}

var (
	imageSet   = set{0, "●"}
	textSet    = set{1, "×"}
	bridgedSet = set{2, "△"}
)

func (s set) plotter(xy plotter.XYs) plot.Plotter {
	d := dots{xy, faint(s.colour, 40), 3, nil}
	switch s.shape {
	case "×":
		d.width, d.strokes = .8, [][]vg.Point{{{X: -1.8, Y: -1.8}, {X: 1.8, Y: 1.8}}, {{X: -1.8, Y: 1.8}, {X: 1.8, Y: -1.8}}}
	case "△":
		d.width, d.strokes = .8, [][]vg.Point{{{X: -2, Y: -1.5}, {X: 2, Y: -1.5}, {X: 0, Y: 2.2}, {X: -2, Y: -1.5}}}
	}
	return d
}

// square returns ranges of both axes that hold all points, with the same unit on both in a
// plot that is aspect times as wide as it is high: distances can be compared by eye.
func square(points [][2]float64, aspect float64) (x, y [2]float64) {
	x, y = [2]float64{math.Inf(1), math.Inf(-1)}, [2]float64{math.Inf(1), math.Inf(-1)}
	for _, p := range points {
		x[0], x[1] = min(x[0], p[0]), max(x[1], p[0])
		y[0], y[1] = min(y[0], p[1]), max(y[1], p[1])
	}
	unit := max((x[1]-x[0])/aspect, y[1]-y[0], 1e-9) * 1.06
	widen := func(r *[2]float64, to float64) {
		middle := (r[0] + r[1]) / 2
		r[0], r[1] = middle-to/2, middle+to/2
	}
	widen(&x, unit*aspect)
	widen(&y, unit)
	return x, y
}

// some returns the first n points.
func some(points [][2]float64, n int) plotter.XYs {
	var xy plotter.XYs
	for _, p := range points[:min(len(points), n)] {
		xy = append(xy, plotter.XY{X: p[0], Y: p[1]})
	}
	return xy
}

func centre(xy plotter.XYs) (c plotter.XY) {
	for _, p := range xy {
		c.X += p.X / float64(len(xy))
		c.Y += p.Y / float64(len(xy))
	}
	return c
}

// centres marks the centres of a set and of the texts, and joins them.
type centres struct {
	a, b plotter.XY
	set  set
}

func (m centres) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	at := func(p plotter.XY) vg.Point { return vg.Point{X: round(x(p.X)), Y: round(y(p.Y))} }
	a, b := at(m.a), at(m.b)
	c.StrokeLine2(draw.LineStyle{Color: strong, Width: 1.6}, a.X, a.Y, b.X, b.Y)
	// The centre of the texts is the larger one, so that both are visible where they meet.
	for _, s := range []struct {
		at   vg.Point
		size vg.Length
		col  color.Color
	}{{b, 11, colour(textSet.colour)}, {a, 6, colour(m.set.colour)}} {
		for _, ring := range []struct {
			width vg.Length
			col   color.Color
		}{{s.size + 5, paperColour}, {s.size + 3, strong}, {s.size, s.col}} {
			var path vg.Path
			path.Move(s.at)
			path.Line(s.at)
			c.SetLineStyle(draw.LineStyle{Color: ring.col, Width: ring.width})
			c.Stroke(path)
		}
	}
}
