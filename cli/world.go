package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"cyclecap/data/world"

	"github.com/urfave/cli/v2"
)

// worldSummary is the output of world --json.
type worldSummary struct {
	Dir      string  `json:"dir"`
	Photos   int     `json:"photos"`
	Captions int     `json:"captions"`
	Seconds  float64 `json:"seconds"`
	world.Config
}

func worldCommand() *cli.Command {
	return &cli.Command{
		Name:      "world",
		Usage:     "write a small world: rendered photos with captions, as a COCO data set",
		UsageText: "[options] DIR",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "sample", Usage: "instead of a data set, write `N` photos of scenes like those of val2014, with their captions, for `cyclecap caption`", DefaultText: "a whole data set"},
			&cli.Uint64Flag{Name: "seed", Usage: "random `SEED`; the same seed gives the same files"},
			&cli.IntFlag{Name: "size", Value: 224, Usage: "make photos `PIXELS` wide and high"},
			&cli.IntFlag{Name: "pretrain", Value: 10000, Usage: "write `N` photos for training CLIP and GPT-2"},
			&cli.IntFlag{Name: "train", Value: 4000, Usage: "write `N` photos to train2014"},
			&cli.IntFlag{Name: "val", Value: 500, Usage: "write `N` photos to val2014"},
			&cli.IntFlag{Name: "tune", Usage: "write `N` photos to tune2014, which is like val2014"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object when done", DisableDefaultText: true},
		},
		Description: `Writes train2014/, val2014/ and annotations/ to DIR, with COCO's file names, and
pretrain/ with photos and captions_pretrain.json. Each photo has five captions.
Some combinations (a kind of object in a colour, on a background, or next to
another kind) occur only in val2014 and tune2014; "held_out" in the entry of each photo lists
them. An incomplete DIR is completed; one that was written in full with the same
options is left as it is.

With --sample, DIR itself contains the photos, and captions.json with their
captions. They are in no data set, whatever its seed and sizes.

EXAMPLES:
   cyclecap world --sample 6 photos/
   cyclecap caption photos/
   cyclecap world --sample 100 --seed 7 --size 96 more/
   cyclecap world world/
   cyclecap world --seed 1 --size 64 --pretrain 1000 --train 400 --val 50 small/`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("world takes one DIR, got %d", c.NArg())
			}
			if c.IsSet("sample") {
				return sampleWorld(c)
			}
			s := worldSummary{Dir: c.Args().First(), Config: world.Config{
				Seed: c.Uint64("seed"), Size: c.Int("size"), Pretrain: c.Int("pretrain"), Train: c.Int("train"), Val: c.Int("val"), Tune: c.Int("tune"),
			}}
			if err := s.Check(); err != nil {
				return usagef("%s", strings.TrimPrefix(err.Error(), "world: "))
			}
			s.Photos = s.Config.Photos()
			s.Captions = s.Photos * world.CaptionsEach
			begin := time.Now()
			bar := newProgress(c.App.ErrWriter, "photos", s.Photos)
			before := 0
			err := world.Write(c.Context, s.Dir, s.Config, func(done, _ int) {
				bar.add(done - before)
				before = done
			})
			bar.finish()
			s.Seconds = time.Since(begin).Seconds()
			return written(c, err, s.Dir, s.Photos, s.Captions, s)
		},
	}
}

// written prints what was written, as a line or as the JSON of summary, or returns err as
// users read it.
func written(c *cli.Context, err error, dir string, photos, captions int, summary any) error {
	switch {
	case err == nil:
	case c.Context.Err() != nil:
		return err
	default:
		return errors.New(strings.TrimPrefix(err.Error(), "world: "))
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(summary)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s: %d photos with %d captions\n", dir, photos, captions)
	return nil
}
