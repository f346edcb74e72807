package cli_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/photo"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// caption puts the small networks before args.
func caption(args ...string) []string {
	return append([]string{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--max-tokens", "6", "--normalize", "no"}, args...)
}

// library captions photos with the packages, in one batch, without the command.
func library(t *testing.T, paths []string, o clipcap.Options, normalize bool) []captionLine {
	t.Helper()
	var lines []captionLine
	err := torch.Scope(func() error {
		file, err := weights.Open(clipF)
		if err != nil {
			return err
		}
		sd, err := weights.LoadCLIP(file, nil)
		if err != nil {
			return err
		}
		sizes, err := clip.ConfigOf(sd, clip.Both)
		if err != nil {
			return err
		}
		c, err := clip.Load(sd, sizes, clip.Both)
		if err != nil {
			return err
		}
		if file, err = weights.Open(gptF); err != nil {
			return err
		}
		if sd, err = weights.LoadGPT2(file); err != nil {
			return err
		}
		g, err := gpt2.Load(sd)
		if err != nil {
			return err
		}
		if file, err = weights.Open(mapperF); err != nil {
			return err
		}
		if sd, _, err = weights.LoadDecoder(file); err != nil {
			return err
		}
		m, err := clipcap.LoadMapper(sd, g.Config.NEmbd)
		if err != nil {
			return err
		}
		if file, err = weights.Open(genF); err != nil {
			return err
		}
		if sd, err = weights.LoadGenerator(file); err != nil {
			return err
		}
		gen, err := cyclegan.LoadGenerator(sd)
		if err != nil {
			return err
		}
		pixels, err := pixelsOf(paths)
		if err != nil {
			return err
		}
		torch.InferenceMode(func() {
			d := clipcap.Model{Mapper: m, GPT2: g}
			scale := func(x torch.Tensor) torch.Tensor {
				if normalize {
					return clip.Normalize(x)
				}
				return x
			}
			features := scale(c.EncodeImage(torch.FromSlice(pixels, int64(len(paths)), 3, 32, 32)))
			var direct, translated [][]clipcap.Caption
			if direct, err = d.Generate(t.Context(), features, o); err != nil {
				return
			}
			if translated, err = d.Generate(t.Context(), scale(gen.Forward(features)), o); err != nil {
				return
			}
			for i, p := range paths {
				for k, caption := range []clipcap.Caption{direct[i][0], translated[i][0]} {
					var ids []int
					for _, id := range caption.Tokens {
						ids = append(ids, int(id))
					}
					text, e := tokenizer.GPT2().Decode(ids)
					if e != nil {
						err = e
					}
					lines = append(lines, captionLine{p, imageID(p), []string{"direct", "textualised"}[k], strings.TrimSpace(text), caption.Tokens, caption.LogProb})
				}
			}
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func pixelsOf(paths []string) ([]float32, error) {
	pre := photo.CLIP(32)
	pixels := make([]float32, len(paths)*pre.Len())
	for i, p := range paths {
		img, err := photo.Decode(p)
		if err == nil {
			err = pre.Into(pixels[i*pre.Len():(i+1)*pre.Len()], img)
		}
		if err != nil {
			return nil, err
		}
	}
	return pixels, nil
}

func TestCaptionEqualsTheLibrary(t *testing.T) {
	for _, c := range []struct {
		args []string
		o    clipcap.Options
	}{
		{nil, clipcap.Options{Method: clipcap.Greedy}},
		{[]string{"--normalize", "yes"}, clipcap.Options{Method: clipcap.Greedy}},
		{[]string{"--decode", "top-p"}, clipcap.Options{Method: clipcap.TopP}},
		{[]string{"--decode", "beam", "--beam", "3"}, clipcap.Options{Method: clipcap.Beam, Beam: 3}},
		{[]string{"--decode", "beam-transformers", "--beam", "3", "--length-penalty", "0.5", "--early-stopping", "never"},
			clipcap.Options{Method: clipcap.BeamTransformers, Beam: 3, LengthPenalty: 0.5, EarlyStopping: clipcap.EarlyStoppingNever}},
		{[]string{"--decode", "sample", "--seed", "7", "--top-k", "20", "--top-p", "0.9", "--temperature", "1.5"},
			clipcap.Options{Method: clipcap.Sample, Seed: 7, TopK: 20, TopP: 0.9, Temperature: 1.5}},
	} {
		t.Run(string(c.o.Method), func(t *testing.T) {
			c.o.MaxTokens, c.o.Stop = 6, 13
			args := append(caption("--generator", genF, "--json"), c.args...)
			got := captionLines(t, ok(t, append(args, photos[:3]...)...))
			if diff := cmp.Diff(library(t, photos[:3], c.o, slices.Contains(c.args, "yes")), got); diff != "" {
				t.Errorf("caption differs from the packages (-packages +command):\n%s", diff)
			}
		})
	}
}

// A decoder file that says whether its features have length 1 needs no --normalize, and
// still says so after convert. For another file, a note says what is assumed.
func TestDecoderFileSaysNormalize(t *testing.T) {
	saying := filepath.Join(t.TempDir(), "saying.pt")
	err := torch.Scope(func() error {
		f, err := weights.Open(mapperF)
		if err != nil {
			return err
		}
		sd, err := f.Load()
		if err != nil {
			return err
		}
		return weights.Save(t.Context(), saying, sd, map[string]string{weights.NormalizePrefix: "true"})
	})
	if err != nil {
		t.Fatal(err)
	}
	converted := filepath.Join(t.TempDir(), "converted.safetensors")
	ok(t, "convert", "--names", "clipcap", saying, converted)
	want := ok(t, append(caption("--normalize", "yes", "--json"), photos[:2]...)...)
	if plain := ok(t, append(caption("--json"), photos[:2]...)...); plain == want {
		t.Fatal("--normalize changes nothing here")
	}
	auto := run("", append([]string{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--max-tokens", "6", "--json"}, photos[:2]...)...)
	if auto.out != want || !strings.Contains(auto.err, mapperF+" does not say") || !strings.Contains(auto.err, "--normalize no if") {
		t.Errorf("a transformer mapper without metadata: %s\n%s", cmp.Diff(want, auto.out), auto.err)
	}
	for _, file := range []string{saying, converted} {
		if got := ok(t, append([]string{"caption", "--clip", clipF, "--decoder", file, "--gpt2", gptF, "--max-tokens", "6", "--json"}, photos[:2]...)...); got != want {
			t.Errorf("%s: %s", file, cmp.Diff(want, got))
		}
	}
}

func TestCaptionText(t *testing.T) {
	lines := captionLines(t, ok(t, caption("--json", photos[0], photos[1])...))
	if n := len(lines); n != 2 || lines[0].Pipeline != "direct" {
		t.Fatalf("%d lines without a generator, pipeline %q; want 2, direct", n, lines[0].Pipeline)
	}
	// One line per caption for people: control characters become spaces.
	want := ""
	for _, l := range lines {
		want += l.File + ": " + blanks(l.Caption) + "\n"
	}
	if diff := cmp.Diff(want, ok(t, caption(photos[0], photos[1])...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out := ok(t, caption("--generator", genF, photos[0])...)
	if !strings.HasPrefix(out, photos[0]+" (direct): ") || !strings.Contains(out, "\n"+photos[0]+" (textualised): ") {
		t.Errorf("want both pipelines, named:\n%s", out)
	}
}

func blanks(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// A decoder file may contain its GPT-2.
func TestCaptionWholeDecoder(t *testing.T) {
	args := []string{"caption", "--clip", clipF, "--decoder", small + "decoder-whole.pt", "--normalize", "no", "--max-tokens", "6", "--json", photos[0]}
	whole := ok(t, args...)
	if n := len(captionLines(t, whole)); n != 1 {
		t.Fatalf("%d captions", n)
	}
	r := run("", append(args, "--gpt2", gptF)...)
	if r.code != 0 || r.out != whole {
		t.Errorf("with a --gpt2 that isn't needed: exit code %d, caption %q, want 0 and %q", r.code, r.out, whole)
	}
	r.says(t, 1, "--gpt2", "decoder-whole.pt")
	if out := ok(t, "caption", "--clip", clipF, "--decoder", small+"decoder-mlp.pt", "--gpt2", gptF, "--max-tokens", "6", "--json", photos[0]); len(captionLines(t, out)) != 1 {
		t.Errorf("the MLP mapper gave %q", out)
	}
}

// DeCap's decoder has CLIP's tokenizer, a limit of 30 tokens and features of length 1.
func TestCaptionDeCap(t *testing.T) {
	const decap = "../pipeline/testdata/decoders/decap.pt"
	args := []string{"caption", "--clip", clipF, "--decoder", decap, "--json", photos[0]}
	r := run("", args...)
	if r.code != 0 || !strings.Contains(r.err, "DeCap projects image features") || strings.Contains(r.err, "does not say") {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	l := captionLines(t, r.out)[0]
	var ids []int
	for _, id := range l.Tokens {
		ids = append(ids, int(id))
	}
	text, err := tokenizer.CLIP().Decode(ids)
	if err != nil || l.Caption != strings.TrimSpace(text) || len(ids) != 30 {
		t.Errorf("%d tokens, caption %q, want 30 and %q", len(ids), l.Caption, text)
	}
	if same := ok(t, append(args, "--normalize", "yes")...); same != r.out {
		t.Error("--normalize yes changes the captions of a DeCap decoder")
	}
	if other := ok(t, append(args, "--normalize", "no")...); other == r.out {
		t.Error("--normalize no does not change the captions of a DeCap decoder")
	}
	run("", "convert", "--names", "clipcap", decap, filepath.Join(t.TempDir(), "x.pt")).fails(t, 1, "DeCap", "convert keeps both")
}

// The sampled tokens depend on the seed, and not on what else is in the batch.
func TestSampleDependsOnTheSeedAlone(t *testing.T) {
	sample := func(seed, batch int) []captionLine {
		return captionLines(t, ok(t, append(caption("--json", "--decode", "sample", "--temperature", "2",
			"--seed", fmt.Sprint(seed), "--batch", fmt.Sprint(batch)), photos...)...))
	}
	// Low-order bits of the log-probabilities depend on the batch size.
	close := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-4*math.Abs(a) })
	first := sample(3, 16)
	if diff := cmp.Diff(first, sample(3, 16)); diff != "" {
		t.Errorf("the same seed gives other captions:\n%s", diff)
	}
	for _, batch := range []int{1, 2} {
		if diff := cmp.Diff(first, sample(3, batch), close); diff != "" {
			t.Errorf("--batch %d gives other captions:\n%s", batch, diff)
		}
	}
	if cmp.Equal(first, sample(4, 16), close) {
		t.Error("another seed gives the same captions")
	}
}

func TestCaptionTakesOptionsAnywhere(t *testing.T) {
	want := ok(t, caption("--json", photos[0], photos[1])...)
	for _, args := range [][]string{
		{photos[0], photos[1], "--json"},
		{photos[0], "--json", photos[1]},
		{"--json", "--", photos[0], photos[1]},
		{"--json=true", "--batch=1", photos[0], photos[1]},
	} {
		got := captionLines(t, ok(t, caption(args...)...))
		for i, l := range captionLines(t, want) {
			if len(got) != 2 || cmp.Diff(l.Tokens, got[i].Tokens) != "" || l.File != got[i].File {
				t.Errorf("%q gave %v, want as %s", args, got, want)
			}
		}
	}
}

func TestCaptionBF16(t *testing.T) {
	for _, l := range captionLines(t, ok(t, caption("--dtype", "bf16", "--json", photos[0])...)) {
		if len(l.Tokens) == 0 || !(l.LogProb < 0) {
			t.Errorf("no caption: %+v", l)
		}
	}
}

// Without --max-tokens, a GPT-2 with room for fewer tokens than ClipCap's 67 uses the
// room that it has; a larger --max-tokens is an error.
func TestCaptionRoom(t *testing.T) {
	base := []string{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--json", photos[0]}
	if n := len(captionLines(t, ok(t, base...))[0].Tokens); n < 1 || n > 61 {
		t.Errorf("%d tokens", n)
	}
	base = append(base, "--normalize", "no")
	run("", append(base, "--max-tokens", "62")...).fails(t, 2, "--max-tokens 62", "61")
	ok(t, append(base, "--max-tokens", "61")...)
}
