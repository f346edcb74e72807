package geometry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"cyclecap/internal/jsonerror"
)

// A Cloud is the picture of the gap of a model, made once: the plane of [Side.Across], points
// in it, and what it takes to find the place of another feature. It is small, and is stored as
// JSON.
type Cloud struct {
	// Mean and Axes have the width of the features: the coordinates of a feature, scaled to
	// length 1, are its products with the axes after Mean is subtracted.
	Mean []float32    `json:"mean"`
	Axes [2][]float32 `json:"axes"`
	// Images, Texts and Textualised are the coordinates of features: row i of each belongs to
	// the same photo.
	Images      [][2]float64 `json:"images"`
	Texts       [][2]float64 `json:"texts"`
	Textualised [][2]float64 `json:"textualised"`
	// ImageGap and TextualisedGap are the distances of the means of all image features, and of
	// all textualised ones, from that of the texts; see [Gap].
	ImageGap       float64 `json:"image_gap"`
	TextualisedGap float64 `json:"textualised_gap"`
}

// NewCloud returns the picture of image features, text features and textualised features, with
// at most points of each, evenly spaced.
func NewCloud(images, texts, textualised [][]float32, points int) (*Cloud, error) {
	for _, s := range []Set{{"image", images}, {"text", texts}, {"textualised", textualised}} {
		if err := Check(s.Name, s.Features); err != nil {
			return nil, err
		}
		if len(s.Features) != len(images) || len(s.Features[0]) != len(images[0]) {
			return nil, fmt.Errorf("geometry: the %s features have shape [%d, %d], but the image features have shape [%d, %d]",
				s.Name, len(s.Features), len(s.Features[0]), len(images), len(images[0]))
		}
	}
	plane, err := acrossGap(normalised(images), normalised(texts))
	if err != nil {
		return nil, err
	}
	c := &Cloud{Mean: narrow(plane.mean), Axes: [2][]float32{narrow(plane.axes[0]), narrow(plane.axes[1])},
		ImageGap: round4(Gap(images, texts)), TextualisedGap: round4(Gap(textualised, texts))}
	for _, s := range []struct {
		rows [][]float32
		to   *[][2]float64
	}{{images, &c.Images}, {texts, &c.Texts}, {textualised, &c.Textualised}} {
		for _, r := range thin(s.rows, points) {
			*s.to = append(*s.to, c.Project(r))
		}
	}
	return c, nil
}

// ReadCloud reads a Cloud from JSON and checks it.
func ReadCloud(data []byte) (*Cloud, error) {
	var c Cloud
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, jsonerror.Words(err)
	}
	if len(c.Mean) == 0 {
		return nil, errors.New("mean is empty")
	}
	for i, a := range c.Axes {
		if len(a) != len(c.Mean) {
			return nil, fmt.Errorf("axes[%d] has %d values, but mean has %d", i, len(a), len(c.Mean))
		}
	}
	if len(c.Images) == 0 || len(c.Texts) != len(c.Images) || len(c.Textualised) != len(c.Images) {
		return nil, fmt.Errorf("images, texts and textualised have %d, %d and %d points; want the same number of each", len(c.Images), len(c.Texts), len(c.Textualised))
	}
	return &c, nil
}

// Project returns the coordinates of a feature of any length; its width must be that of the
// Cloud. They are rounded to four decimals, which is finer than a picture shows.
func (c *Cloud) Project(row []float32) (at [2]float64) {
	scale := norm(row)
	if scale == 0 {
		scale = 1
	}
	for j, v := range row {
		d := float64(v)/scale - float64(c.Mean[j])
		at[0] += d * float64(c.Axes[0][j])
		at[1] += d * float64(c.Axes[1][j])
	}
	return [2]float64{round4(at[0]), round4(at[1])}
}

func round4(x float64) float64 { return math.Round(x*1e4) / 1e4 }

func narrow(row []float64) []float32 {
	out := make([]float32, len(row))
	for i, v := range row {
		out[i] = float32(v)
	}
	return out
}
