package experiment

import (
	"fmt"
	"path/filepath"
)

// worlds returns the number of worlds.
func (x *Experiment) worlds() int { return max(1, x.Worlds) }

// checkWorlds returns an error if there are several worlds, but no data that depend on
// them.
func (x *Experiment) checkWorlds() error {
	if x.worlds() > 1 && x.Config.World == nil {
		return fmt.Errorf("%d worlds: the configuration has no [world]; it names existing data", x.worlds())
	}
	_, err := x.inWorld(x.worlds() - 1)
	return err
}

// inWorld returns the experiment in world i. The first world is in the experiment's own
// folder, as in an experiment with a single world. The others have folders in it.
// So are all worlds of variants, whose folders have the stages' keys in their names.
func (x *Experiment) inWorld(i int) (*Experiment, error) {
	if x.Config.World == nil || i == 0 && !x.keyed {
		return x, nil
	}
	in := *x
	in.data, in.words = nil, nil
	if i > 0 {
		seed := x.Config.World.Seed + i
		output := x.Config.Output
		if !x.keyed {
			in.place = fmt.Sprintf("world-%d", seed)
			in.Dir = filepath.Join(x.Dir, in.place)
			output = in.Dir
		}
		var err error
		if in.Config, err = x.Config.InWorld(seed, output); err != nil {
			return nil, fmt.Errorf("%d worlds: %w", x.worlds(), err)
		}
	}
	if x.keyed {
		in.Config = in.Config.WithWorldIn(in.folder(in.world()))
	}
	return &in, nil
}
