package pipeline_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/clipcap"
	"cyclecap/nets/gpt2"
	"cyclecap/pipeline"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// status returns the value of a key of /proc/self/status, in bytes.
func status(t *testing.T, key string) (n int64) {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), key+":"); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skipf("/proc/self/status has no %s", key)
	return 0
}

// loads are the ways to load a model.
var loads = map[string]func(path string) (func(), error){
	"clip": func(path string) (func(), error) { return loadsCLIP(path, pipeline.Options{}) },
	"clip, fast": func(path string) (func(), error) {
		return loadsCLIP(path, pipeline.Options{Pack: true})
	},
	"clip, bf16": func(path string) (func(), error) { return loadsCLIP(path, pipeline.Options{BF16: true}) },
	"decoder":    func(paths string) (func(), error) { return loadsDecoder(paths, pipeline.Options{}) },
	"decoder, fast": func(paths string) (func(), error) {
		return loadsDecoder(paths, pipeline.Options{Pack: true})
	},
	"decoder, bf16": func(paths string) (func(), error) { return loadsDecoder(paths, pipeline.Options{BF16: true}) },
}

func loadsCLIP(path string, o pipeline.Options) (func(), error) {
	c, err := pipeline.LoadCLIP(path, "", clip.Both, o)
	if err != nil {
		return nil, err
	}
	return c.Close, nil
}

func loadsDecoder(paths string, o pipeline.Options) (func(), error) {
	decoder, gpt, _ := strings.Cut(paths, ":")
	d, err := pipeline.LoadDecoder(decoder, gpt, o)
	if err != nil {
		return nil, err
	}
	return d.Close, nil
}

// TestLoadAlone is a process of its own: it loads one model and prints by how much
// the peak of its resident memory grew.
func TestLoadAlone(t *testing.T) {
	what, path, _ := strings.Cut(os.Getenv("CYCLECAP_LOAD"), "=")
	if what == "" {
		t.Skip("a part of TestMemory")
	}
	torch.TuneAllocator()
	err := torch.Scope(func() error { torch.Ones([]int64{4, 4}).MM(torch.Ones([]int64{4, 4})); return nil })
	if err != nil {
		t.Fatal(err)
	}
	before := status(t, "VmRSS")
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Skip(err) // the peak cannot be reset
	}
	done, err := loads[what](path)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	fmt.Printf("peak %d now %d before %d\n", status(t, "VmHWM")-before, status(t, "VmRSS")-before, before)
}

// peak returns by how much the peak of a process grows that loads a model.
func peak(t *testing.T, what, path string) int64 {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestLoadAlone$", "-test.v")
	c.Env = append(os.Environ(), "CYCLECAP_LOAD="+what+"="+path)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, line, ok := strings.Cut(string(out), "peak ")
	if !ok {
		t.Skipf("not measured:\n%s", out)
	}
	var n int64
	if _, err := fmt.Sscan(line, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Loading a model takes the size of its weights in memory and little more, in every
// precision and packing: an original is freed as soon as it has been converted.
func TestMemory(t *testing.T) {
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	var clipBytes, gptBytes int64
	err := torch.Scope(func() error {
		m := clip.New(clip.Config{EmbedDim: 512, ImageSize: 64, PatchSize: 32, VisionWidth: 768, VisionDepth: 8,
			Context: 77, Vocab: 49408, TextWidth: 512, TextHeads: 8, TextDepth: 2})
		defer nn.Close(m)
		g := gpt2.New(gpt2.Config{VocabSize: 20000, NPositions: 64, NEmbd: 768, NLayer: 8, NHead: 12, LayerNormEpsilon: 1e-5})
		defer nn.Close(g)
		mapper := clipcap.NewMLPMapper(512, 768, 10)
		defer nn.Close(mapper)
		bytes := func(m any) (n int64) {
			for _, p := range nn.Parameters(m) {
				n += p.NBytes()
			}
			return n
		}
		clipBytes, gptBytes = bytes(m), bytes(g)+bytes(mapper)
		save := func(name string, m any) {
			if err := weights.Save(context.Background(), at(name), nn.StateDictOf(m), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := pipeline.SaveDecoder(context.Background(), at("mapper.pt"), mapper, nil, pipeline.Scaling{}); err != nil {
			return err
		}
		save("clip.safetensors", m)
		save("gpt2.pt", g)
		nn.To(m, torch.WithDType(torch.Float16))
		nn.To(g, torch.WithDType(torch.Float16))
		save("clip-f16.pt", m)
		save("clip-f16.safetensors", m)
		save("gpt2-f16.safetensors", g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const head = 20000 * 768 * 4 // packed GPT-2s keep the embedding too
	for _, c := range []struct {
		what, file string
		bytes      int64
	}{
		{"clip", at("clip.safetensors"), clipBytes},
		{"clip", at("clip-f16.pt"), clipBytes},
		{"clip", at("clip-f16.safetensors"), clipBytes},
		{"clip, fast", at("clip.safetensors"), clipBytes},
		{"clip, fast", at("clip-f16.pt"), clipBytes},
		{"clip, bf16", at("clip.safetensors"), clipBytes},
		{"clip, bf16", at("clip-f16.pt"), clipBytes / 2},
		{"decoder", at("mapper.pt") + ":" + at("gpt2.pt"), gptBytes},
		{"decoder, fast", at("mapper.pt") + ":" + at("gpt2.pt"), gptBytes + head},
		{"decoder, fast", at("mapper.pt") + ":" + at("gpt2-f16.safetensors"), gptBytes + head},
		{"decoder, bf16", at("mapper.pt") + ":" + at("gpt2-f16.safetensors"), (gptBytes + head) / 2},
	} {
		got := peak(t, c.what, c.file)
		t.Logf("%s of %s: weights of %d MB, peak %d MB", c.what, filepath.Base(c.file), c.bytes>>20, got>>20)
		if most := c.bytes + 150<<20; got > most {
			t.Errorf("%s of %s: the peak of memory grew by %d MB, want at most %d", c.what, filepath.Base(c.file), got>>20, most>>20)
		}
	}
}
