package world

import (
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"math/rand/v2"
	"os"
	"testing"
)

func TestLook(t *testing.T) {
	d := os.Getenv("SHEET")
	if d == "" {
		t.Skip()
	}
	sheet := image.NewRGBA(image.Rect(0, 0, 6*224, 5*224))
	for i := range 30 {
		s := Sample(rand.New(rand.NewPCG(uint64(i), 7)), Val)
		fmt.Println(i, s.Groups, s.Relation, s.Where, s.Background, s.Light)
		for _, c := range s.Captions(rand.New(rand.NewPCG(uint64(i), 9)), 5) {
			fmt.Println("   ", c)
		}
		draw.Draw(sheet, image.Rect(i%6*224, i/6*224, i%6*224+224, i/6*224+224), Render(s), image.Point{}, draw.Src)
	}
	f, _ := os.Create(d)
	png.Encode(f, sheet)
	f.Close()
}
func BenchmarkRender(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 7))
	for b.Loop() {
		Render(Sample(rng, Train))
	}
}
