package experiment

import (
	"encoding/json"
	"fmt"

	"cyclecap/experiment/config"
	"cyclecap/train/bridge"
)

// A shared plan counts the work of several variants once: it has the settings of the work
// that is planned already. A nil shared plan is that of a single configuration.
type sharedPlan map[string]bool

// add reports whether the work with these settings is new.
func (p sharedPlan) add(name string, settings ...any) bool {
	if p == nil {
		return true
	}
	b, err := json.Marshal(settings)
	if err != nil {
		panic(err) // settings and strings always have a JSON form
	}
	key := name + " " + string(b)
	isNew := !p[key]
	p[key] = true
	return isNew
}

// plannedWork is the numbers of stages, in each world and with each seed, of which no other
// variant's have the same settings.
type plannedWork struct {
	clip, gpt2, features, decoders, cyclegan, captions int
}

// work returns the work of the experiment that the plan does not have yet, and adds it.
func (p sharedPlan) work(x *Experiment) (w plannedWork) {
	c := x.Config
	var rendered config.World
	if c.World != nil {
		rendered = *c.World
		rendered.Texts, rendered.TextSeed = 0, 0
	}
	clip := []any{rendered, c.CLIP, c.Train.CLIP, c.Seed}
	gpt2 := []any{rendered, c.GPT2, c.Train.GPT2, c.Seed}
	if c.CLIP.Weights == "" && p.add("clip", clip...) {
		w.clip = 1
	}
	if c.GPT2.Weights == "" && p.add("gpt2", gpt2...) {
		w.gpt2 = 1
	}
	data := c.Data
	data.Pairing, data.Overlap, data.PhotoLimit, data.CaptionLimit = "", 0, 0, 0
	features := []any{clip, data, c.World, c.Train.Decoder.NormalizePrefix}
	if p.add("features", features...) {
		w.features = 4
	}
	gan := []any{features, c.Train.CycleGAN, c.Data.Pairing, x.bothSelections()}
	done := map[bridge.Decoder]bool{}
	for _, b := range x.bridges {
		if b.CycleGAN && p.add("cyclegan", gan...) {
			w.cyclegan = 1
		}
		decoder := []any{features, gpt2, c.Train.Decoder, b.Decoder, c.Bridges.Settings[b.Decoder.Noise]}
		if !b.Decoder.Images {
			decoder = append(decoder, x.captionSelection()...)
		}
		if !done[b.Decoder] && p.add("decoder", decoder...) {
			w.decoders++
		}
		done[b.Decoder] = true
		caption := []any{decoder, b.Name, c.Caption}
		if b.Sets {
			caption = append(caption, c.Data.Pairing, x.bothSelections())
		}
		if b.CycleGAN {
			caption = append(caption, gan)
		}
		for _, s := range b.Settings {
			caption = append(caption, c.Bridges.Settings[s.Key])
		}
		if p.add("caption", caption...) {
			w.captions++
		}
	}
	return w
}

// planVariants measures the stages of all variants. Stages that several variants share are
// in the plan of the first.
func (x *Experiment) planVariants(plan func(of *Experiment, shared sharedPlan) (sizes, []planned, error)) (n sizes, lines []planned, err error) {
	list, err := x.variants()
	if err != nil {
		return n, nil, err
	}
	shared := sharedPlan{}
	for i, v := range list {
		of, own, err := plan(v.x, shared)
		if err != nil {
			return n, nil, fmt.Errorf("variant %q: %w", v.Name, err)
		}
		if i == 0 {
			n = of
		}
		for _, p := range own {
			p.name = v.Name + ": " + p.name
			lines = append(lines, p)
		}
	}
	return n, lines, nil
}
