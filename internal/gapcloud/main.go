// Command gapcloud writes the picture of the gap of the models in models/world to
// models/world/gap.json: the plane in which a report shows the gap, and the features of 150
// photos, their captions and their textualised features in it.
//
//	go run ./internal/gapcloud [-models models/world]
//
// The photos and captions are the validation set of configs/demo.toml, which it draws in
// memory.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"cyclecap/data/world"
	"cyclecap/eval/geometry"
	"cyclecap/internal/atomicfile"
	"cyclecap/pipeline"
)

const (
	photos = 500 // as in configs/demo.toml
	points = 150
	batch  = 50
)

func main() {
	dir := flag.String("models", "models/world", "`FOLDER` of the models, to which gap.json is written")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "gapcloud:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	c, err := pipeline.Load(pipeline.Files{CLIP: at("clip.safetensors"), Decoder: at("decoder.safetensors"), GPT2: at("gpt2.safetensors"),
		Generator: at("generator.safetensors"), Texts: true}, pipeline.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	set := world.Config{Seed: 1, Size: 224, Val: photos}.Drawn(world.Val)
	var images, translated, texts []float32
	for begin := 0; begin < photos; begin += batch {
		var pixels [][]float32
		var captions []string
		for i := begin; i < begin+batch; i++ {
			captions = append(captions, set.Captions(i)[0])
			err := set.Photo(i, func(file []byte) error {
				p, err := c.CLIP.Pixels(file, 1<<20)
				pixels = append(pixels, p)
				return err
			})
			if err != nil {
				return err
			}
		}
		rows, err := c.CLIP.EncodePixels(pixels)
		if err != nil {
			return err
		}
		text, err := c.Textualise(rows)
		if err != nil {
			return err
		}
		images, translated = append(images, rows...), append(translated, text...)
		for f, err := range c.CLIP.Texts(context.Background(), captions, batch, true) {
			if err != nil {
				return err
			}
			texts = append(texts, f.Rows...)
		}
	}
	width := c.CLIP.Width()
	rows := func(flat []float32) (out [][]float32) {
		for ; len(flat) > 0; flat = flat[width:] {
			out = append(out, flat[:width])
		}
		return out
	}
	cloud, err := geometry.NewCloud(rows(images), rows(texts), rows(translated), points)
	if err != nil {
		return err
	}
	b, err := json.Marshal(cloud)
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(at("gap.json"), append(b, '\n'))
}
