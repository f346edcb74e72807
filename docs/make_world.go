//go:build ignore

// Command make_world draws docs/world.jpg: twelve scenes of validation, of all
// backgrounds and relations, each the first one that fits.
//
//	go run docs/make_world.go
package main

import (
	"image"
	"image/draw"
	"image/jpeg"
	"log"
	"math/rand/v2"
	"os"

	"cyclecap/data/world"
)

func main() {
	const columns, rows, side, gap = 4, 3, 224, 4
	sheet := image.NewRGBA(image.Rect(0, 0, columns*(side+gap)-gap, rows*(side+gap)-gap))
	draw.Draw(sheet, sheet.Rect, image.White, image.Point{}, draw.Src)
	rng := rand.New(rand.NewPCG(2, 0))
	backgrounds := map[world.Background]int{}
	relations := map[world.Relation]int{}
	for n := 0; n < columns*rows; {
		s := world.Sample(rng, world.Val)
		fresh := backgrounds[s.Background] == 0 || n >= 10 && backgrounds[s.Background] == 1
		if !fresh || relations[s.Relation] >= 3 || s.Relation != world.Alone && relations[s.Relation] == 2 {
			continue
		}
		backgrounds[s.Background]++
		relations[s.Relation]++
		at := image.Pt(n%columns*(side+gap), n/columns*(side+gap))
		draw.Draw(sheet, image.Rectangle{Min: at, Max: at.Add(image.Pt(side, side))}, world.Render(s), image.Point{}, draw.Src)
		for _, caption := range s.Captions(rng, 2) {
			log.Printf("%d: %s", n, caption)
		}
		n++
	}
	f, err := os.Create("docs/world.jpg")
	if err != nil {
		log.Fatal(err)
	}
	if err := jpeg.Encode(f, sheet, &jpeg.Options{Quality: 85}); err != nil {
		log.Fatal(err)
	}
	if err := f.Close(); err != nil {
		log.Fatal(err)
	}
}
