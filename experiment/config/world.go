package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// InWorld returns a copy of the configuration with another world: the data set with the
// given seed, which is in the folder world in output. The seed of separate captions moves
// by the same number. It is an error if the training or the validation set is not that of
// the rendered data set, since it would not change.
func (c *Config) InWorld(seed int, output string) (*Config, error) {
	out := *c
	w := *c.World
	w.TextSeed += seed - w.Seed
	w.Seed = seed
	out.World, out.Output = &w, output
	if k := c.Data.Karpathy; k != "" {
		return nil, fmt.Errorf("data.karpathy: %q is not part of the rendered data set, so that it is the same in every world", k)
	}
	for _, p := range out.Data.worldPaths() {
		if !c.inWorld(*p.path) {
			return nil, fmt.Errorf("%s: %q is not part of the rendered data set, so that it is the same in every world", p.key, *p.path)
		}
	}
	return out.moveWorld(c.WorldDir(), out.WorldDir()), nil
}

// WithWorldIn returns a copy of the configuration whose rendered data set is in the folder
// dir instead of WorldDir.
func (c *Config) WithWorldIn(dir string) *Config {
	out := *c
	return out.moveWorld(c.WorldDir(), dir)
}

// moveWorld replaces the folder of the rendered data set in the keys of [data].
func (c *Config) moveWorld(from, to string) *Config {
	for _, p := range c.Data.worldPaths() {
		if rest, ok := strings.CutPrefix(*p.path, from+string(filepath.Separator)); ok {
			*p.path = filepath.Join(to, rest)
		}
	}
	return c
}

// inWorld reports whether a path is in the rendered data set.
func (c *Config) inWorld(path string) bool {
	return strings.HasPrefix(path, c.WorldDir()+string(filepath.Separator))
}

// worldPaths returns the keys that name parts of the rendered data set by default.
func (d *Data) worldPaths() []namedPath {
	return []namedPath{{"data.train_annotations", &d.TrainAnnotations}, {"data.train_images", &d.TrainImages},
		{"data.val_annotations", &d.ValAnnotations}, {"data.val_images", &d.ValImages}}
}

type namedPath struct {
	key  string
	path *string
}
