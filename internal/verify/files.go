package verify

import (
	"errors"

	"cyclecap/pipeline"
	"cyclecap/torch/nn"
)

// Files lists the weights to compare; each may be empty.
type Files struct {
	CLIP, CLIPConfig, Decoder, GPT2, Generator string
}

// Files loads the weights one after the other and compares them. What can't be loaded
// becomes a row; a missing GPT-2 is a *pipeline.MissingGPT2Error. It returns the notes of
// loading.
func (v *Verifier) Files(f Files, o pipeline.Options) (notes []string, err error) {
	parts := []struct{ part, path string }{{CLIP, f.CLIP}, {Generator, f.Generator}, {GPT2, f.GPT2}, {Decoder, f.Decoder}}
	for _, p := range parts {
		if p.path != "" {
			v.Weights(p.part, p.path)
		}
	}
	if f.CLIP != "" {
		if m, err := pipeline.LoadCLIP(f.CLIP, f.CLIPConfig, v.ref.encoders(), o); err != nil {
			v.Fail(CLIP, err)
		} else {
			notes = append(notes, m.Notes...)
			v.CLIP(m)
			m.Close()
		}
	}
	if f.Generator != "" {
		if g, err := pipeline.LoadGenerator(f.Generator, o); err != nil {
			v.Fail(Generator, err)
		} else {
			v.Generator(g, o)
			g.Close()
		}
	}
	switch {
	case f.Decoder != "":
		d, err := pipeline.LoadDecoder(f.Decoder, f.GPT2, o)
		if missing := (*pipeline.MissingGPT2Error)(nil); errors.As(err, &missing) {
			return notes, err
		} else if err != nil {
			v.Fail(Decoder, err)
			return notes, nil
		}
		defer d.Close()
		notes = append(notes, d.Notes...)
		v.GPT2(d.GPT2, o)
		v.Decoder(d)
	case f.GPT2 != "":
		g, err := pipeline.LoadGPT2For(f.GPT2, o)
		if err != nil {
			v.Fail(GPT2, err)
			return notes, nil
		}
		notes = append(notes, g.Notes...)
		defer nn.Close(g.Model)
		v.GPT2(g, o)
	}
	return notes, nil
}
