// Package experiment runs the paper's experiment from a configuration: data, features, text
// decoders, latent CycleGAN, captions by every bridge, scores and a report. Each part is a
// stage with its own folder. A stage is skipped if nothing that it depends on has changed.
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

	"cyclecap/data/tokenizer"
	"cyclecap/experiment/config"
	"cyclecap/internal/atomicfile"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/distributed"
	"cyclecap/torch/nn"
	"cyclecap/train/bridge"
	"cyclecap/weights"
)

// Experiment is a configuration, with the options to run it.
type Experiment struct {
	Config *config.Config
	Dir    string // folder for all results
	Seeds  int    // number of runs in each world, with the seeds from Config.Seed on
	Worlds int    // number of worlds, with the seeds from Config.World.Seed on; 0 means 1
	Resume bool   // continue interrupted trainings
	// VerifyOutputs reads all files that finished stages have written, and makes those again
	// that have changed. Without it, only missing files and other sizes are noticed.
	VerifyOutputs bool
	// Variants are changes of the configuration to compare with it.
	Variants []config.Variant
	UI       UI
	// Group is the processes that train together, or nil for a single process. Only
	// rank 0 writes files, and runs alone what is not divided among all.
	Group *distributed.Group

	contents *contents
	device   torch.Device
	bridges  []bridge.Bridge
	data     *data
	words    *tokenizer.GPT2Tokenizer // see vocabulary
	place    string                   // prefix of the names of stages: "world-2" in the second world
	keyed    bool                     // the names of stages end with their keys, so that variants share them
	log      *stageLog
	watch    *watch  // over Group; nil for a single process
	dry      *dryRun // nil if the stages run
}

// stageLog is the stages that ran or were skipped, for the report.
type stageLog struct {
	order   []string
	took    map[string]float64 // seconds
	skipped map[string]bool
}

// UI shows the progress of a run to the user.
type UI interface {
	// Say prints a line.
	Say(format string, args ...any)
	// Bar shows a progress bar for work in total parts, of which from were done
	// before.
	Bar(what string, from, total int) Bar
	// Atomic runs f, which must not be cut short by an interruption because it writes a
	// checkpoint then.
	Atomic(f func() error) error
}

// Bar is a progress bar.
type Bar interface {
	// Set sets the number of parts that are done, and a short note.
	Set(done int, note string)
	Finish()
}

// Stages are the names of the stages in order. Those before evaluate run once for each
// world, and decoder, cyclegan and caption once for each of its seeds.
var Stages = []string{"world", "clip", "gpt2", "features", "decoder", "cyclegan", "caption", "evaluate", "report"}

// Open creates the folder, locks it and writes the configuration to it. The caller must
// call done to unlock it.
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
		err = atomicfile.RemoveStale(x.Dir)
	}
	if err == nil {
		err = atomicfile.WriteBytes(filepath.Join(x.Dir, "config.toml"), resolved)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// numbers returns the configuration without the keys that change no result, and without
// paths: what is in the files counts.
func (x *Experiment) numbers() config.Config {
	c := *x.Config
	c.Output, c.Threads = "", 0
	c.CLIP.Weights, c.GPT2.Weights, c.Train.CLIP.Text, c.Eval.MeteorData = "", "", "", ""
	d := &c.Data
	d.TrainAnnotations, d.TrainImages, d.ValAnnotations, d.ValImages = "", "", "", ""
	d.Karpathy, d.Photos, d.Captions, d.ClipCap, d.MaxBad = "", "", "", "", 0
	t := &c.Train
	t.CLIP.CheckpointEvery, t.GPT2.CheckpointEvery, t.Decoder.CheckpointEvery, t.CycleGAN.CheckpointEvery = 0, 0, 0, 0
	return c
}

// prepare checks the configuration before work begins.
func (x *Experiment) prepare() (err error) {
	c := x.Config
	device := c.Device
	if device == "cuda" { // one of several processes has a GPU of its own
		device = fmt.Sprintf("cuda:%d", x.Group.LocalRank())
	}
	if x.device, err = torch.ParseDevice(device); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if most := pipeline.MaxThreads(); c.Threads > most {
		return fmt.Errorf("threads: must be between 0 and %d on this machine, got %d", most, c.Threads)
	}
	if c.Threads > 0 {
		torch.SetNumThreads(c.Threads)
	}
	if x.bridges, err = bridge.Get(c.Bridges.Use); err != nil {
		return fmt.Errorf("bridges.use: %w", err)
	}
	if err := x.checkWorlds(); err != nil {
		return err
	}
	x.log = &stageLog{took: map[string]float64{}, skipped: map[string]bool{}}
	if x.contents == nil {
		x.contents = openContents(x.Dir, x.UI.Say)
	}
	for _, p := range []struct{ key, path string }{{"clip.weights", c.CLIP.Weights}, {"gpt2.weights", c.GPT2.Weights}} {
		if p.path == "" {
			continue
		}
		path, err := weights.Find(p.path)
		if err != nil {
			return fmt.Errorf("%s: %w", p.key, err)
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: no such file or folder: %s", p.key, p.path)
		} else if err != nil {
			return fmt.Errorf("%s: %w", p.key, err)
		}
	}
	return nil
}

// Execute runs the stages up to the one named last, or all of them if last is empty. The
// caller must have called Open, and should have called runtime.LockOSThread. In a group,
// ctx must come from Group.Context, so that all processes end if one is interrupted: each
// then returns a context.Canceled.
func (x *Experiment) Execute(ctx context.Context, last string) error {
	if last != "" && !slices.Contains(Stages, last) {
		return fmt.Errorf("unknown stage %q; valid stages: %s", last, strings.Join(Stages, ", "))
	}
	x.watch = newWatch(x.Group)
	x.watch.begin()
	err := x.execute(ctx, last)
	return x.UI.Atomic(func() error { return x.watch.leave(ctx, err) })
}

func (x *Experiment) execute(ctx context.Context, last string) error {
	if len(x.Variants) > 0 {
		return x.executeVariants(ctx, last)
	}
	if err := x.prepare(); err != nil {
		return err
	}
	features, captions, err := x.executeWorlds(ctx, last)
	if err != nil || beforeEvaluate(last) {
		return err
	}
	scores, err := x.evaluate(ctx, captions)
	if err != nil || last == "evaluate" {
		return err
	}
	return x.report(ctx, features, captions, scores)
}

// beforeEvaluate reports whether a stage is one of those that run in each world.
func beforeEvaluate(stage string) bool {
	return stage != "" && slices.Index(Stages, stage) < slices.Index(Stages, "evaluate")
}

// executeWorlds runs the stages up to the one named last, but at most those before
// evaluate, in every world. It returns the features of the first world and the captions of
// all.
func (x *Experiment) executeWorlds(ctx context.Context, last string) (features *featureSets, captions []*seedCaptions, err error) {
	for i := range x.worlds() {
		in, err := x.inWorld(i)
		if err != nil {
			return nil, nil, err
		}
		f, list, err := in.executeWorld(ctx, last)
		if errors.Is(err, errUnfinished) {
			continue // a dry run looks at the other worlds as well
		}
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			features = f
		}
		captions = append(captions, list...)
	}
	return features, captions, nil
}

// executeWorld runs the stages of one world up to the one named last: those before
// evaluate.
func (x *Experiment) executeWorld(ctx context.Context, last string) (features *featureSets, captions []*seedCaptions, err error) {
	until := func(stage string) bool { return last == stage }
	x.data = nil
	world := x.world()
	if world == nil && until("world") {
		return nil, nil, errors.New("world: the configuration has no [world]; it names existing data")
	}
	if x.sizesKnown() {
		if err := x.checkSizes(last); err != nil {
			return nil, nil, err
		}
	}
	var unfinished error // in a dry run
	if world != nil {
		err := x.run(ctx, world)
		if errors.Is(err, errUnfinished) {
			unfinished, err = err, nil
		}
		if err != nil || until("world") {
			return nil, nil, err
		}
	}
	if !x.sizesKnown() && unfinished == nil {
		if err := x.checkSizes(last); err != nil {
			return nil, nil, err
		}
	}
	clip, err := x.clip()
	if err == nil {
		err = x.runModel(ctx, clip)
	}
	if err != nil || until("clip") {
		return nil, nil, err
	}
	gpt, err := x.gpt2()
	if err == nil {
		err = x.runModel(ctx, gpt)
	}
	if err != nil || until("gpt2") {
		return nil, nil, err
	}
	if unfinished != nil {
		return nil, nil, unfinished
	}
	features, err = x.features(ctx, world, clip)
	if err != nil || until("features") {
		return features, nil, err
	}
	for i := range x.Seeds {
		seed := x.Config.Seed + i
		decoders, err := x.decoders(ctx, seed, features, gpt)
		if err != nil {
			return nil, nil, err
		}
		if until("decoder") {
			continue
		}
		gan, err := x.cyclegan(ctx, seed, features)
		if err != nil {
			return nil, nil, err
		}
		if until("cyclegan") {
			continue
		}
		s, err := x.captions(ctx, seed, features, gpt, decoders, gan)
		if err != nil {
			return nil, nil, err
		}
		captions = append(captions, s)
	}
	return features, captions, nil
}

// model is a CLIP or GPT-2: existing weights, or a stage that trains them.
type model struct {
	stage *stage // nil for existing weights
	path  string // path of the weights, once the stage is finished
	id    string // a hash of the weights and their configuration; only rank 0 knows it
	// config is clip.config.
	config string
}

func (x *Experiment) runModel(ctx context.Context, m *model) error {
	if m.stage == nil {
		return nil
	}
	err := x.run(ctx, m.stage)
	if errors.Is(err, errUnfinished) {
		err = nil // what needs it is not finished either, but other stages may be
	}
	m.id = m.stage.result
	m.path = filepath.Join(x.folder(m.stage), m.stage.products[0])
	return err
}

// given returns a model with existing weights, named as in the configuration.
func (x *Experiment) given(name string) (*model, error) {
	path, err := weights.Find(name)
	if err != nil {
		return nil, err
	}
	id, err := x.hash(path)
	return &model{path: path, id: id}, err
}

// hash returns a hash of a weights file or folder. Only rank 0 reads it.
func (x *Experiment) hash(path string) (string, error) {
	if x.Group.Rank() != 0 {
		return "", nil
	}
	return x.contents.weights(path)
}

// scope runs f in a tensor scope, with a seed for its random numbers.
func scope(seed int, f func() error) error {
	return torch.Scope(func() error {
		torch.ManualSeed(uint64(seed))
		return f()
	})
}

// closing frees modules at the end of a stage.
func closing(modules ...any) {
	for _, m := range modules {
		nn.Close(m)
	}
	torch.ReleaseMemory()
}
