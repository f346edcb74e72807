package world

import (
	"bytes"
	"image/jpeg"
	"math/rand/v2"
	"sync"
)

// Drawn is a part of a data set that is drawn in memory, photo by photo. Photos and
// captions are those that Write writes.
type Drawn struct {
	config Config
	part   part
	room   sync.Pool // of *easel
}

// easel is what it takes to draw a photo.
type easel struct {
	canvas *canvas
	jpeg   bytes.Buffer
}

// Drawn returns a part of a data set. It panics if the Config is invalid, or if it has no
// photos in that part.
func (c Config) Drawn(which Part) *Drawn {
	if err := c.Check(); err != nil {
		panic(err)
	}
	for _, p := range c.parts() {
		if p.part == which {
			return &Drawn{config: c, part: p, room: sync.Pool{New: func() any { return &easel{canvas: newCanvas(c.Size)} }}}
		}
	}
	panic("world: the part has no photos")
}

// Len returns the number of photos.
func (d *Drawn) Len() int { return d.part.n }

// Captions returns the captions of photo i, CaptionsEach of them.
func (d *Drawn) Captions(i int) []string {
	return d.config.scene(d.part, i).Captions(d.config.rng(d.part, i, 1), CaptionsEach)
}

// Photo calls f with the JPEG file of photo i, which is valid only during the call. Photo
// may be called concurrently.
func (d *Drawn) Photo(i int, f func(file []byte) error) error {
	e := d.room.Get().(*easel)
	defer d.room.Put(e)
	s := d.config.scene(d.part, i)
	if err := e.draw(s); err != nil {
		return err
	}
	return f(e.jpeg.Bytes())
}

// draw draws a scene into e.jpeg.
func (e *easel) draw(s Scene) error {
	s.render(e.canvas)
	e.jpeg.Reset()
	return jpeg.Encode(&e.jpeg, e.canvas.img, &jpeg.Options{Quality: s.Camera.Quality})
}

// rng returns the random source for one purpose of one photo.
func (c Config) rng(p part, i int, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(c.Seed, uint64(p.id(i))<<1|purpose))
}
