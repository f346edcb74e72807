package cli

import (
	"slices"
	"strings"
	"time"

	"cyclecap/data/world"

	"github.com/urfave/cli/v2"
)

// sampleSummary is the output of world --sample --json.
type sampleSummary struct {
	Dir      string  `json:"dir"`
	Photos   int     `json:"photos"`
	Captions int     `json:"captions"`
	Seconds  float64 `json:"seconds"`
	Seed     uint64  `json:"seed"`
	Size     int     `json:"size"`
}

// sampleWorld is world --sample.
func sampleWorld(c *cli.Context) error {
	for _, name := range c.LocalFlagNames() {
		if !slices.Contains([]string{"sample", "seed", "size", "json"}, name) {
			return usagef("--%s cannot be used with --sample, which writes no parts of a data set", name)
		}
	}
	s := sampleSummary{Dir: c.Args().First(), Photos: c.Int("sample"), Seed: c.Uint64("seed"), Size: c.Int("size")}
	if err := world.CheckSample(s.Seed, s.Size, s.Photos); err != nil {
		return usagef("%s", strings.TrimPrefix(err.Error(), "world: "))
	}
	s.Captions = s.Photos * world.CaptionsEach
	begin := time.Now()
	err := world.WriteSample(c.Context, s.Dir, s.Seed, s.Size, s.Photos)
	s.Seconds = time.Since(begin).Seconds()
	return written(c, err, s.Dir, s.Photos, s.Captions, s)
}
