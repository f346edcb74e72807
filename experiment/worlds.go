package experiment

import (
	"errors"
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
func (x *Experiment) inWorld(i int) (*Experiment, error) {
	if i == 0 {
		return x, nil
	}
	in := *x
	in.data = nil
	seed := x.Config.World.Seed + i
	in.place = fmt.Sprintf("world-%d", seed)
	in.Dir = filepath.Join(x.Dir, in.place)
	var err error
	if in.Config, err = x.Config.InWorld(seed, in.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("%d worlds", x.worlds()), err)
	}
	return &in, nil
}
