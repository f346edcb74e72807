package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/jpeg"
	_ "image/png" // photos may be PNG
	"io"
	"math"

	"cyclecap/eval/geometry"

	"golang.org/x/image/draw"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"costHead": func(column int) string { return costHeads[column] },
}).Parse(pageText))

// HTML writes the page, which is self-contained: there is nothing to load or run.
func HTML(w io.Writer, e *Experiment) error {
	if err := e.check(); err != nil {
		return err
	}
	v := view{Experiment: e, Subtitle: e.subtitle(), Metrics: Metrics, Table: e.table(), Matrices: e.matrices(), Criterion: e.criterion()}
	v.Legend = v.Table.legend()
	v.Headline, v.Detail = e.headline()
	var err error
	if v.Gap, err = e.gap(); err != nil {
		return err
	}
	if v.Whiskers, err = e.whiskers(e.scoreColumns()); err != nil {
		return err
	}
	if v.ClaimWhiskers, err = e.whiskers(e.claimColumns()); err != nil {
		return err
	}
	v.Claimed, v.Subjects = e.claimTables()
	v.Roles = e.roleKeys()
	if e.Val2014 {
		v.Published = published
	}
	for _, c := range e.Charts {
		f, ok, err := curves(c)
		if err != nil {
			return err
		}
		if ok {
			v.Curves = append(v.Curves, f)
		}
	}
	if err := v.geometry(e.Geometry); err != nil {
		return err
	}
	bridges := map[string]Bridge{}
	for _, b := range e.Bridges {
		bridges[b.ID] = b
	}
	for _, x := range e.Examples {
		s := example{ID: x.ID, Truths: x.Truths}
		s.Photo, s.Width, s.Height = thumbnail(x.Photo)
		for _, c := range x.Captions {
			b, ok := bridges[c.Bridge]
			if !ok {
				b.ID = c.Bridge
			}
			to := said{Name: b.name(), Role: b.role(), Supervised: b.Supervised, Spans: spans(c.Text, c.Claims)}
			for _, m := range c.Claims {
				if m.Right {
					to.Right++
				} else {
					to.Invented++
				}
			}
			v.Marked = v.Marked || len(c.Claims) > 0
			s.Captions = append(s.Captions, to)
		}
		v.Samples = append(v.Samples, s)
	}
	var total float64
	for _, s := range e.Stages {
		f := Fact{s.Name, duration(s.Seconds)}
		if s.Skipped {
			f.Value += " (earlier run)"
		}
		v.Durations = append(v.Durations, f)
		total += s.Seconds
	}
	if len(e.Stages) > 1 {
		v.Durations = append(v.Durations, Fact{"total", duration(total)})
	}
	// Write to memory first, so that a failing template does not leave half a page.
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return fmt.Errorf("report: cannot create the page: %w", err)
	}
	_, err = b.WriteTo(w)
	return err
}

// A view is the data of the template.
type view struct {
	*Experiment
	Subtitle          string
	Headline          string
	Detail            string
	Gap               []figure
	Samples           []example
	Marked            bool // whether any caption has marks
	Whiskers          []figure
	Roles             []key
	ClaimWhiskers     []figure
	Claimed, Subjects table
	Metrics           []string
	Table             table
	Legend            string
	Published         string
	Matrices          []matrix
	Criterion         string
	Curves            []figure
	Ranks             []int
	Sides             []side
	Planes            []figure
	Durations         []Fact
}

type example struct {
	ID            string
	Photo         template.URL // empty if there is none
	Width, Height int
	Truths        []string
	Captions      []said
}

type side struct {
	Name, Gap, Paired, Unpaired string
	Recall                      []string
}

func (v *view) geometry(g *geometry.Geometry) error {
	if g == nil {
		return nil
	}
	v.Ranks = geometry.Ranks
	for i := range g.Sides {
		s := &g.Sides[i]
		x := side{Name: s.Name, Gap: number(s.Gap), Paired: number(s.Paired.Mean), Unpaired: number(s.Unpaired.Mean)}
		for _, r := range s.Recall {
			x.Recall = append(x.Recall, fmt.Sprintf("%.1f%%", 100*r))
		}
		v.Sides = append(v.Sides, x)
		if i == 0 && len(g.Sides) > 1 {
			continue // the figures of every bridge include the images
		}
		if i == 0 {
			s = nil
		}
		for _, draw := range []func(*geometry.Geometry, *geometry.Side) (figure, error){plane, cosines} {
			f, err := draw(g, s)
			if err != nil {
				return err
			}
			v.Planes = append(v.Planes, f)
		}
	}
	return nil
}

// thumbnail returns a JPEG of at most 560x560 pixels as a data URI, without applying the
// EXIF orientation. The URI is empty if data cannot be decoded.
func thumbnail(data []byte) (uri template.URL, width, height int) {
	const side, most = 560, 100e6
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || c.Width < 1 || c.Height < 1 || float64(c.Width)*float64(c.Height) > most {
		return "", 0, 0
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return "", 0, 0
	}
	scale := min(1, side/float64(max(c.Width, c.Height)))
	width, height = max(1, int(math.Round(float64(c.Width)*scale))), max(1, int(math.Round(float64(c.Height)*scale)))
	dst := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(dst, dst.Bounds(), image.White, image.Point{}, draw.Src) // JPEG has no transparency
	draw.CatmullRom.Scale(dst, dst.Bounds(), src, src.Bounds(), draw.Over, nil)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, dst, &jpeg.Options{Quality: 80}); err != nil {
		return "", 0, 0
	}
	return template.URL("data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), width, height
}

func duration(s float64) string {
	switch {
	case s < 60:
		return fmt.Sprintf("%.1f s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", int(s+.5)/60, int(s+.5)%60)
	}
	return fmt.Sprintf("%d h %02d min", int(s/60+.5)/60, int(s/60+.5)%60)
}
