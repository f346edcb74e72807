// Package experiment runs the paper from a configuration: data, features, the
// text decoders, the latent CycleGAN, captions by every bridge, scores and a
// report. Each part is a stage with a folder of its own, which is skipped where
// nothing that it depends on has changed.
package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cyclecap/experiment/config"
	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/train/bridge"
)

// Experiment is a configuration and where and how it is run.
type Experiment struct {
	Config *config.Config
	Dir    string // that everything is written to
	Seeds  int    // how many, from Config.Seed on
	Resume bool   // goes on with training that was interrupted
	UI     UI
	// Group is the processes that train together; nil: this one alone. Only
	// rank 0 writes files, and does what isn't training.
	Group *distributed.Group

	device  torch.Device
	bridges []bridge.Bridge
	data    *data
	// What the report says of the stages.
	order   []string
	took    map[string]float64 // seconds
	skipped map[string]bool
}

// UI is what a run tells people.
type UI interface {
	// Say prints a line.
	Say(format string, args ...any)
	// Bar begins to show the progress of work in total parts, so many of which
	// were done before.
	Bar(what string, from, total int) Bar
	// Atomic runs what must not be cut short by an interruption, such as the
	// checkpoint that it asks for.
	Atomic(f func() error) error
}

// Bar shows progress.
type Bar interface {
	// Set says how much is done, and a word on how it goes.
	Set(done int, note string)
	Finish()
}

// The stages, in their order; decoder, cyclegan and caption are done for each
// seed.
var Stages = []string{"world", "clip", "gpt2", "features", "decoder", "cyclegan", "caption", "evaluate", "report"}

// Open makes the folder, keeps the configuration in it and locks it.
func (x *Experiment) Open() (done func(), err error) {
	if x.Group.Rank() != 0 {
		return func() {}, nil
	}
	if err := os.MkdirAll(x.Dir, 0o777); err != nil {
		return nil, err
	}
	unlock, err := lock(x.Dir)
	if err != nil {
		return nil, err
	}
	resolved, err := x.Config.Encode()
	if err == nil {
		err = atomicfile.WriteBytes(filepath.Join(x.Dir, "config.toml"), resolved)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// prepare looks at everything that can be wrong before work begins.
func (x *Experiment) prepare() (err error) {
	c := x.Config
	if x.device, err = torch.ParseDevice(c.Device); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if c.Threads > 0 {
		torch.SetNumThreads(c.Threads)
	}
	if x.bridges, err = bridge.Get(c.Bridges.Use); err != nil {
		return fmt.Errorf("bridges.use: %w", err)
	}
	x.took, x.skipped = map[string]float64{}, map[string]bool{}
	for _, p := range []struct{ key, path string }{{"clip.weights", c.CLIP.Weights}, {"gpt2.weights", c.GPT2.Weights}} {
		if p.path == "" {
			continue
		}
		if _, err := os.Stat(p.path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: there is no %s", p.key, p.path)
		} else if err != nil {
			return fmt.Errorf("%s: %w", p.key, err)
		}
	}
	return nil
}

// Execute runs the stages up to the one named last, all of them if it is
// empty. The caller has opened the experiment, and holds the thread for tensor
// work.
func (x *Experiment) Execute(ctx context.Context, last string) error {
	if last != "" && !slices.Contains(Stages, last) {
		return fmt.Errorf("there is no stage %q; there are %s", last, strings.Join(Stages, ", "))
	}
	if err := x.prepare(); err != nil {
		return err
	}
	until := func(stage string) bool { return last == stage }
	world := x.world()
	if world == nil && until("world") {
		return errors.New("world: the config has no [world], and names its data")
	}
	if world != nil {
		if err := x.run(ctx, world); err != nil || until("world") {
			return err
		}
	}
	clip, err := x.clip(world)
	if err == nil {
		err = x.runModel(ctx, clip)
	}
	if err != nil || until("clip") {
		return err
	}
	gpt, err := x.gpt2(world)
	if err == nil {
		err = x.runModel(ctx, gpt)
	}
	if err != nil || until("gpt2") {
		return err
	}
	features, err := x.features(ctx, world, clip)
	if err != nil || until("features") {
		return err
	}
	var captions []*seedCaptions
	for i := range x.Seeds {
		seed := x.Config.Seed + i
		decoders, err := x.decoders(ctx, seed, features, gpt)
		if err != nil {
			return err
		}
		if until("decoder") {
			continue
		}
		gan, err := x.cyclegan(ctx, seed, features)
		if err != nil {
			return err
		}
		if until("cyclegan") {
			continue
		}
		s, err := x.captions(ctx, seed, features, gpt, decoders, gan)
		if err != nil {
			return err
		}
		captions = append(captions, s)
	}
	if until("decoder") || until("cyclegan") || until("caption") || x.Group.Rank() != 0 {
		return nil
	}
	scores, err := x.evaluate(ctx, captions)
	if err != nil || until("evaluate") {
		return err
	}
	return x.report(ctx, features, captions, scores)
}

// model is a CLIP or a GPT-2: a file, or a stage that trains it.
type model struct {
	stage *stage // nil where there are weights
	path  string // of the weights
	id    string // identifies them
}

func (x *Experiment) runModel(ctx context.Context, m *model) error {
	if m.stage == nil {
		return nil
	}
	return x.run(ctx, m.stage)
}

// given is a model whose weights are there.
func given(path string) (*model, error) {
	id, err := hashOf(path)
	return &model{path: path, id: id}, err
}

// scope runs tensor work whose random numbers follow from a seed.
func scope(seed int, f func() error) error {
	return torch.Scope(func() error {
		torch.ManualSeed(uint64(seed))
		return f()
	})
}

// closing frees modules when a stage is done.
func closing(modules ...any) {
	for _, m := range modules {
		nn.Close(m)
	}
	torch.ReleaseMemory()
}
