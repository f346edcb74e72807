package experiment

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/data/world"
	"cyclecap/experiment/config"
	"cyclecap/train"

	"github.com/shirou/gopsutil/v4/mem"
)

// drawn is the photos and captions of a world's pretrain part, drawn when they are needed.
type drawn struct {
	world  *world.Drawn
	tokens *tokenizer.CLIPTokenizer
	pre    photo.Preprocess
	// kept are the pixels of photos that were drawn before, as long as there is room for
	// more: drawing one takes as long as a small network does to learn from it.
	kept [][]uint8
	room atomic.Int64 // bytes
}

// newDrawn returns the photos that a CLIP with a vocabulary of that size is trained on.
func newDrawn(w *config.World, c config.TrainCLIP, vocab int) (*drawn, error) {
	tokens, err := tokenizer.CLIPFirst(vocab)
	if err != nil {
		return nil, err
	}
	d := &drawn{world: worldConfig(w).Drawn(world.Pretrain), tokens: tokens, pre: photo.CLIP(c.Image)}
	d.kept = make([][]uint8, d.world.Len())
	if m, err := mem.VirtualMemory(); err == nil {
		d.room.Store(int64(m.Available / 2))
	}
	return d, nil
}

func (d *drawn) Len() int { return d.world.Len() }

// Read implements train.CLIPSource with all cores.
func (d *drawn) Read(photos []int32, random []uint32, pixels []uint8) (*train.Texts, error) {
	ids := make([][]int, len(photos))
	errs := make([]error, len(photos))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(photos)) {
		workers.Go(func() {
			for {
				k := int(next.Add(1) - 1)
				if k >= len(photos) {
					return
				}
				i, size := int(photos[k]), len(pixels)/len(photos)
				captions := d.world.Captions(i)
				var err error
				ids[k], err = d.tokens.Context(captions[random[k]%uint32(len(captions))], clipContext, true)
				errs[k] = errors.Join(err, d.photo(i, pixels[k*size:(k+1)*size]))
			}
		})
	}
	workers.Wait()
	texts := &train.Texts{}
	for _, t := range ids {
		texts.Add(t)
	}
	return texts, errors.Join(errs...)
}

// photo sets out to the pixels of a photo, [3, size, size].
func (d *drawn) photo(i int, out []uint8) error {
	if d.kept[i] != nil {
		copy(out, d.kept[i])
		return nil
	}
	err := d.world.Photo(i, func(file []byte) error {
		m, err := photo.DecodeBytes(file)
		if err != nil {
			return err
		}
		rgb, err := d.pre.PixelsRGB(m)
		for c := range 3 {
			plane := out[c*len(out)/3 : (c+1)*len(out)/3]
			for k := range rgb[:len(rgb)/3] {
				plane[k] = rgb[3*k+c]
			}
		}
		return err
	})
	// No other worker has this photo: the photos of a step are all different.
	if err == nil && d.room.Add(-int64(len(out))) > 0 {
		d.kept[i] = append([]uint8(nil), out...)
	}
	return err
}
