package report

import (
	"fmt"
	escape "html"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The roles of bridges in the chart of scores, which are also the classes of their captions.
const (
	directRole      = "direct"
	textualisedRole = "textualised"
	supervisedRole  = "supervised"
	otherRole       = "other"
)

func (b Bridge) role() string {
	switch {
	case b.Supervised:
		return supervisedRole
	case b.Paper == "direct":
		return directRole
	case b.Paper == "textualised":
		return textualisedRole
	}
	return otherRole
}

// roleColours are the colours of the roles, and roleShapes the shapes of their dots: no role
// is told by its colour alone.
var (
	roleColours = map[string]int{directRole: 7, textualisedRole: 2, supervisedRole: 4, otherRole: 0}
	roleShapes  = map[string]string{directRole: "■", textualisedRole: "▲", supervisedRole: "◆", otherRole: "●"}
)

// whiskers draws a panel for each column: a line for each bridge with a dot at its value
// and its interval. Dashed lines continue the direct and the supervised bridge's values.
func (e *Experiment) whiskers(columns []column) (list []figure, err error) {
	if len(e.Bridges) < 2 {
		return nil, nil
	}
	for _, c := range columns {
		f := figure{Title: c.title, Alt: "Dots with 95% intervals."}
		if c.lower {
			f.Title += " (lower is better)"
		}
		p := newPlot("", "")
		p.X.Tick.Marker = ticks{share: c.share}
		n := len(e.Bridges)
		var rows []whisker
		var names []plot.Tick
		for i := range e.Bridges {
			b := &e.Bridges[i]
			y := float64(n - 1 - i)
			names = append(names, plot.Tick{Value: y, Label: shorten(b.name(), 26)})
			v, low, high, ok := c.of(b)
			if !ok {
				continue
			}
			w := whisker{y: y, at: v, low: v, high: v, role: b.role()}
			f.Alt += fmt.Sprintf(" %s: %s", b.name(), c.format(v))
			if low != nil {
				w.low, w.high = *low, *high
				f.Alt += fmt.Sprintf(" (%s to %s)", c.format(*low), c.format(*high))
			}
			f.Alt += "."
			rows = append(rows, w)
		}
		if len(rows) == 0 {
			continue
		}
		p.Y.Tick.Marker = plot.ConstantTicks(names)
		p.Y.Tick.Length, p.Y.LineStyle.Width = 0, 0
		p.Y.Min, p.Y.Max = -.5, float64(n)-.5
		p.Add(whiskerPlot(rows))
		p.Y.Min, p.Y.Max = -.5, float64(n)-.5
		if p.X.Min == p.X.Max {
			p.X.Min, p.X.Max = p.X.Min-.01, p.X.Max+.01
		}
		room := (p.X.Max - p.X.Min) * .04
		p.X.Min, p.X.Max = p.X.Min-room, p.X.Max+room
		// The labels get the room that a wide font of the browser needs.
		label := &p.Y.Tick.Label
		label.Font.Size = 12.5
		if f.SVG, err = svg(p, figureWidth, vg.Length(34+19*n)); err != nil {
			return nil, err
		}
		f.SVG = rightAligned(f.SVG, label.Width)
		list = append(list, f)
	}
	return list, nil
}

var labelAt = regexp.MustCompile(`<text x="([-0-9.]+)"([^>]*)font-size:12.5px([^>]*)>([^<]*)</text>`)

// rightAligned lets the browser, which knows its font, align the labels of the bridges at
// their ends.
func rightAligned(drawing template.HTML, width func(string) vg.Length) template.HTML {
	var end float64
	found := labelAt.FindAllStringSubmatch(string(drawing), -1)
	for _, m := range found {
		x, _ := strconv.ParseFloat(m[1], 64)
		end = max(end, x+float64(width(escape.UnescapeString(m[4]))))
	}
	return template.HTML(labelAt.ReplaceAllString(string(drawing), fmt.Sprintf(`<text x="%.1f" text-anchor="end"${2}font-size:11px${3}>${4}</text>`, end-2)))
}

// roleKeys is the legend of the panels.
func (e *Experiment) roleKeys() (list []key) {
	notes := map[string]string{directRole: "direct", textualisedRole: "textualised", supervisedRole: "supervised (ceiling)", otherRole: "other bridges"}
	for _, role := range []string{directRole, textualisedRole, otherRole, supervisedRole} {
		for _, b := range e.Bridges {
			if b.role() == role {
				list = append(list, key{Colour: roleColours[role], Shape: roleShapes[role], Name: notes[role]})
				break
			}
		}
	}
	return list
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return strings.TrimSpace(string(r[:n-1])) + "…"
	}
	return s
}

type whisker struct {
	y, at, low, high float64
	role             string
}

type whiskerPlot []whisker

func (w whiskerPlot) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	for _, r := range w {
		if r.role == directRole || r.role == supervisedRole {
			x := round(tx(r.at))
			c.StrokeLine2(draw.LineStyle{Color: colour(roleColours[r.role]), Width: 1, Dashes: []vg.Length{2, 4}}, x, c.Min.Y, x, c.Max.Y)
		}
	}
	for _, r := range w {
		y, col := round(ty(r.y)), colour(roleColours[r.role])
		if r.high > r.low {
			c.StrokeLine2(draw.LineStyle{Color: col, Width: 2}, round(tx(r.low)), y, round(tx(r.high)), y)
			for _, end := range []float64{r.low, r.high} {
				x := round(tx(end))
				c.StrokeLine2(draw.LineStyle{Color: col, Width: 1.5}, x, y-3, x, y+3)
			}
		}
		shape(&c, roleShapes[r.role], col, vg.Point{X: round(tx(r.at)), Y: y})
	}
}

// shape fills one of the shapes of roleShapes.
func shape(c *draw.Canvas, name string, col color.Color, at vg.Point) {
	var corners []vg.Point
	switch name {
	case "■":
		corners = []vg.Point{{X: -4, Y: -4}, {X: 4, Y: -4}, {X: 4, Y: 4}, {X: -4, Y: 4}}
	case "▲":
		corners = []vg.Point{{X: -5.5, Y: -4}, {X: 5.5, Y: -4}, {X: 0, Y: 6}}
	case "◆":
		corners = []vg.Point{{X: 0, Y: -5.5}, {X: 5.5, Y: 0}, {X: 0, Y: 5.5}, {X: -5.5, Y: 0}}
	default:
		var path vg.Path
		path.Move(at)
		path.Line(at)
		c.SetLineStyle(draw.LineStyle{Color: col, Width: 8})
		c.Stroke(path)
		return
	}
	for i := range corners {
		corners[i] = corners[i].Add(at)
	}
	c.FillPolygon(col, corners)
}

func (w whiskerPlot) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax = math.Inf(1), math.Inf(-1)
	for _, r := range w {
		xmin, xmax = min(xmin, r.low), max(xmax, r.high)
	}
	return xmin, xmax, -.5, float64(len(w)) - .5
}

var _ plot.DataRanger = whiskerPlot{}
