package cli_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cyclecap/nets/clip"
	"cyclecap/nets/cyclegan"
	"cyclecap/nets/gpt2"
	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// bounded checks that a command does not raise the peak memory of this process by
// much. Networks and libraries that it loads count too.
func bounded(t *testing.T, run func() result) result {
	t.Helper()
	debug.FreeOSMemory()
	// 5 resets the peak to what is in use now (proc(5)).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Fatalf("cannot measure the peak memory here: %v", err)
	}
	before := peak(t)
	r := run()
	if grown := peak(t) - before; grown > 128<<20 {
		t.Errorf("peak memory grew by %d MiB", grown>>20)
	}
	return r
}

func peak(t *testing.T) int64 {
	t.Helper()
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("/proc/self/status")))) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			return must[int64](t)(strconv.ParseInt(f[1], 10, 64)) << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

func TestBadPhotos(t *testing.T) {
	dir := t.TempDir()
	jpeg := must[[]byte](t)(os.ReadFile(photos[0]))
	for _, c := range []struct {
		name string
		data []byte // nil: the file isn't there
		says string
	}{
		{"missing.jpg", nil, "no such file"},
		{"empty.jpg", []byte{}, "empty"},
		{"text.jpg", []byte("This is no photo.\n"), "not a JPEG"},
		{"truncated.jpg", jpeg[:len(jpeg)/2], "truncated"},
		{"header-only.jpg", jpeg[:30], "truncated"},
		{"30000.png", hugePNG(30000, 30000), "30000x30000"},
		{"4000000000.png", hugePNG(4_000_000_000, 4_000_000_000), "4000000000x4000000000"},
		{"65500.jpg", hugeJPEG(t, jpeg, 65500), "65500x65500"},
		{"weights.jpg", must[[]byte](t)(os.ReadFile(clipF)), "not a JPEG"},
		{"escape-\x1b[31m\n.jpg", []byte("no photo"), "not a JPEG"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.name)
			if c.data != nil {
				put(t, path, c.data)
			}
			out := t.TempDir()
			r := bounded(t, func() result {
				return run("", "features", "--clip", clipF, "--images", path, "-o", filepath.Join(out, "x.safetensors"))
			})
			if r.code != 1 || r.out != "" {
				t.Errorf("features: exit code %d, output %q", r.code, r.out)
			}
			shown := strings.NewReplacer("\x1b", " ", "\n", " ").Replace(path)
			r.says(t, 2, shown, c.says, "nothing was written")
			empty(t, out)

			r = bounded(t, func() result { return run("", caption(path)...) })
			if r.code != 1 || r.out != "" {
				t.Errorf("caption: exit code %d, output %q", r.code, r.out)
			}
			r.says(t, 2, shown, c.says)
		})
	}
	t.Run("folder without photos", func(t *testing.T) {
		run("", caption(t.TempDir())...).fails(t, 1, "no photos in this folder")
	})
}

// One bad photo among many is reported and skipped; the others are captioned, and
// the exit code is 1.
func TestOneBadPhotoAmongMany(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	gone := filepath.Join(dir, "gone.jpg")
	want := captionLines(t, ok(t, caption("--json", "--batch", "1", photos[0], photos[1], photos[2])...))
	for _, batch := range []string{"1", "2", "16"} {
		r := run("", caption("--json", "--batch", batch, photos[0], bad, photos[1], gone, photos[2])...)
		if r.code != 1 {
			t.Errorf("--batch %s: exit code %d, want 1", batch, r.code)
		}
		r.says(t, 3, bad+": not a JPEG", gone+": no such file", "2 of 5 photos")
		got := captionLines(t, r.out)
		if len(got) != 3 {
			t.Fatalf("--batch %s: %d captions, want 3", batch, len(got))
		}
		for i, l := range got {
			if l.File != want[i].File || fmt.Sprint(l.Tokens) != fmt.Sprint(want[i].Tokens) {
				t.Errorf("--batch %s: caption %d is %+v, want %+v", batch, i, l, want[i])
			}
		}
	}

	out := filepath.Join(dir, "x.safetensors")
	r := run("", "features", "--clip", clipF, "-o", out, "--images", photos[0], bad, photos[1], gone, photos[2])
	if r.code != 1 || r.out != "" {
		t.Errorf("features: exit code %d, output %q", r.code, r.out)
	}
	r.says(t, 3, bad, gone, "2 of 5 photos", out)
	got := readFeatures(t, out)
	if len(got.values) != 3 || fmt.Sprint(got.ids) != "[0 2 4]" || strings.Contains(got.meta["inputs"], "bad.jpg") {
		t.Errorf("%d features with ids %v of %s; want those of the photos 0, 2 and 4", len(got.values), got.ids, got.meta["inputs"])
	}
}

// random writes a module with random weights.
func random(t *testing.T, path string, module func() any) string {
	t.Helper()
	err := torch.Scope(func() error {
		m := module()
		defer nn.Close(m)
		return weights.Save(context.Background(), path, nn.StateDictOf(m), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Every kind of bad weights file, for every command that reads one.
func TestBadWeights(t *testing.T) {
	one := tensor{"0", 4, 0, []int64{2, 2}, []int64{2, 1}}
	stored := entry{name: "data/0", data: make([]byte, 16)}
	with := func(f func(*tensor)) []byte {
		x := one
		f(&x)
		return ptFile(t, stateDict("clip_project.model.0.weight", x), stored)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	system := func(code string) []byte { return ptFile(t, []byte("\x80\x02"+code+"."), stored) }
	clipPT := must[[]byte](t)(os.ReadFile(clipF))
	gptST := must[[]byte](t)(os.ReadFile(gptBare + "/model.safetensors"))
	const f32 = `{"a":{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}%s}`
	header := func(shape string, from, to int, more string) string { return fmt.Sprintf(f32, shape, from, to, more) }

	// A list that contains another list twice, which contains another list twice, …:
	// 2^40 values.
	doubling := "]q\x00"
	for i := range 40 {
		doubling += fmt.Sprintf("](h%ch%ceq%c", i, i, i+1)
	}
	doubling += "}(X\x01\x00\x00\x00ah\x28u"

	for _, c := range []struct {
		name string
		data []byte
		says string
	}{
		{"missing.pt", nil, "no such file"},
		{"empty.pt", []byte{}, "empty"},
		{"text.pt", []byte("These are no weights.\n"), "a text file"},
		{"html.pt", []byte("<!DOCTYPE html><html></html>"), "HTML"},
		{"lfs.safetensors", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "LFS"},
		{"photo.pt", must[[]byte](t)(os.ReadFile(photos[0])), "an image"},
		{"cut.pt", clipPT[:len(clipPT)/2], "truncated"},
		{"cut.safetensors", gptST[:len(gptST)/2], "truncated"},
		{"system.pt", system("cos\nsystem\n(X\x20\x00\x00\x00" + fmt.Sprintf("%-32s", "touch ran") + "tR"), "os.system"},
		{"posix.pt", system("cposix\nsystem\n(S'touch " + ran + "'\ntR"), "posix.system"},
		{"eval.pt", system("}(X\x01\x00\x00\x00ac__builtin__\neval\n(S'open(\"" + ran + "\",\"w\")'\ntRu"), "__builtin__.eval"},
		{"stack.pt", system("\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R"), "os.system"},
		{"legacy.pt", []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02cposix\nsystem\n(S'touch " + ran + "'\ntR."), "posix.system"},
		{"offset.pt", with(func(x *tensor) { x.offset = 1 << 40 }), "extends past the end of its storage"},
		{"negative.pt", with(func(x *tensor) { x.offset = -4 }), "offset -4"},
		{"storage.pt", with(func(x *tensor) { x.numel = 1 << 30 }), "16 bytes for 1073741824 elements"},
		{"no-storage.pt", with(func(x *tensor) { x.storage = "7" }), "data/7 is missing"},
		{"overflow.pt", with(func(x *tensor) { x.shape, x.strides = []int64{1 << 32, 1 << 32}, []int64{1 << 32, 1} }), "4294967296"},
		{"overflow-to-4.pt", with(func(x *tensor) { x.shape, x.strides = []int64{1<<62 + 1, 4}, []int64{4, 1} }), "4611686018427387905"},
		{"strides-0.pt", with(func(x *tensor) { x.shape, x.strides = []int64{1 << 40, 1 << 40}, []int64{0, 0} }), "1099511627776"},
		{"bomb.pt", ptFile(t, stateDict("clip_project.model.0.weight", tensor{"0", 64 << 20, 0, []int64{64 << 20}, []int64{1}}),
			entry{name: "data/0", zeros: 256 << 20, deflated: true}), "compressed"},
		{"bomb-in-pickle.pt", ptFile(t, nil, entry{name: "data.pkl", zeros: 256 << 20, deflated: true}), "compressed"},
		{"doubling.pt", system(doubling), "more than"},
		{"no-dict.pt", system("]"), "expected a state dict"},
		{"header-2^60.safetensors", safetensors("{}", 0, 1<<60), "1152921504606846976"},
		{"header-2^26.safetensors", safetensors("{}", 0, 1<<26), "truncated"},
		{"overlap.safetensors", safetensors(header("[4]", 0, 16, `,"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}`), 24, 0), `"b" overlaps`},
		{"hole.safetensors", safetensors(header("[4]", 8, 24, ""), 24, 0), "belong to no tensor"},
		{"beyond.safetensors", safetensors(header("[4]", 0, 16, ""), 8, 0), "truncated"},
		{"shape-overflow.safetensors", safetensors(header("[4294967296,4294967296,4]", 0, 16, ""), 16, 0), "4294967296"},
		{"shape-negative.safetensors", safetensors(header("[-2,-2]", 0, 16, ""), 16, 0), "-2"},
		{"dtype.safetensors", safetensors(strings.Replace(header("[4]", 0, 16, ""), "F32", "F31", 1), 16, 0), "F31"},
		{"twice.safetensors", safetensors(header("[4]", 0, 16, `,"a":{"dtype":"F32","shape":[0],"data_offsets":[16,16]}`), 16, 0), `duplicate key "a"`},
		{"json.safetensors", safetensors(`{"a":`, 0, 0), "damaged"},
		{"deep.safetensors", safetensors(`{"a":`+strings.Repeat("[", 1<<20), 0, 0), "damaged"},
		{"index.index.json", []byte(`{"weight_map":{"a":"../../../etc/passwd"}}`), "../../../etc/passwd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path, out := filepath.Join(dir, c.name), t.TempDir()
			if c.data != nil {
				put(t, path, c.data)
			}
			for _, args := range [][]string{
				{"inspect", path},
				{"inspect", "--json", path},
				{"convert", path, filepath.Join(out, "x.safetensors")},
				{"convert", path, filepath.Join(out, "x.pt")},
				{"caption", "--clip", path, "--decoder", mapperF, "--gpt2", gptF, photos[0]},
				{"caption", "--clip", clipF, "--decoder", path, "--gpt2", gptF, photos[0]},
				{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", path, photos[0]},
				{"caption", "--clip", clipF, "--decoder", mapperF, "--gpt2", gptF, "--generator", path, photos[0]},
				{"features", "--clip", path, "-o", filepath.Join(out, "x.safetensors"), "--images", photos[0]},
			} {
				r := bounded(t, func() result { return run("", args...) })
				r.fails(t, 1, path, c.says)
				if c.name == "doubling.pt" {
					break // counting that far takes a second
				}
			}
			empty(t, out)
			if _, err := os.Stat(ran); err == nil {
				t.Fatal("code in a pickle was run")
			}
		})
	}
	for _, f := range []string{"ran", "ran                       "} {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("code in a pickle created %q", f)
		}
	}
}

// Valid files that are used as something else, or do not belong together.
func TestWeightsThatDoNotBelong(t *testing.T) {
	dir := t.TempDir()
	wide := random(t, filepath.Join(dir, "wide.pt"), func() any {
		return gpt2.New(gpt2.Config{VocabSize: 300, NPositions: 64, NEmbd: 128, NLayer: 1, NHead: 2, LayerNormEpsilon: 1e-5})
	})
	odd := random(t, filepath.Join(dir, "odd.pt"), func() any {
		return gpt2.New(gpt2.Config{VocabSize: 300, NPositions: 64, NEmbd: 192, NLayer: 1, NHead: 3, LayerNormEpsilon: 1e-5})
	})
	narrow := random(t, filepath.Join(dir, "narrow.pt"), func() any {
		return clip.New(clip.Config{EmbedDim: 32, ImageSize: 32, PatchSize: 8, VisionWidth: 64, VisionDepth: 1,
			Context: 16, Vocab: 256, TextWidth: 64, TextHeads: 1, TextDepth: 1})
	})
	gen := random(t, filepath.Join(dir, "gen32.pt"), func() any { return cyclegan.NewGenerator(32) })
	plain := put(t, filepath.Join(dir, "plain.safetensors"), safetensors(`{"a.b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 16, 0))
	lacking := changed(t, clipF, filepath.Join(dir, "lacking.pt"), func(sd *nn.StateDict) *nn.StateDict {
		out := nn.NewStateDict()
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			switch name {
			case "visual.ln_post.bias":
			case "visual.ln_pre.weight":
				out.Add(name, torch.Ones([]int64{7}))
			default:
				out.Add(name, x)
			}
		}
		out.Add("visual.surplus", torch.Ones([]int64{1}))
		return out
	})
	nan := changed(t, mapperF, filepath.Join(dir, "nan.pt"), func(sd *nn.StateDict) *nn.StateDict {
		x, _ := sd.Get(sd.Names()[0])
		sd.Add(sd.Names()[0], torch.Full(x.Shape(), math.NaN()))
		return sd
	})

	with := func(file, name string, shape []int64) string {
		return changed(t, file, filepath.Join(dir, name+".pt"), func(sd *nn.StateDict) *nn.StateDict {
			sd.Add(name, torch.Zeros([]int64{1}).Expand(shape))
			return sd
		})
	}
	sideless := with(clipF, "visual.conv1.weight", []int64{64, 3, 8, 0})
	expanded := with(gptBare, "wte.weight", []int64{1 << 22, 1 << 14})

	other := filepath.Join(dir, "other")
	if err := os.CopyFS(other, os.DirFS(gptBare)); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(other, "vocab.txt"), []byte("[PAD]\n"))

	type parts struct{ clip, decoder, gpt2, generator string }
	for _, c := range []struct {
		name string
		parts
		code int
		says []string
	}{
		{"a CLIP as decoder", parts{decoder: clipF}, 1, []string{clipF, "expected a ClipCap or DeCap decoder", "contains: OpenAI CLIP"}},
		{"a decoder as CLIP", parts{clip: mapperF}, 1, []string{mapperF, "expected a CLIP model", "contains: ClipCap mapper"}},
		{"a GPT-2 as generator", parts{generator: gptF}, 1, []string{gptF, "expected a CycleGAN generator", "GPT-2"}},
		{"a generator as GPT-2", parts{gpt2: genF}, 1, []string{genF, "expected a GPT-2 model", "generator"}},
		{"other tensors", parts{clip: plain}, 1, []string{plain, "expected a CLIP model", "a.b", "inspect"}},
		{"widths of mapper and GPT-2", parts{gpt2: wide}, 1, []string{mapperF, "64", wide, "128"}},
		{"widths of MLP and GPT-2", parts{decoder: small + "decoder-mlp.pt", gpt2: odd}, 1, []string{small + "decoder-mlp.pt", "256", odd, "192"}},
		{"widths of CLIP and mapper", parts{clip: narrow}, 1, []string{mapperF, "64", narrow, "32"}},
		{"widths of CLIP and generator", parts{generator: gen}, 1, []string{gen, "32", clipF, "64"}},
		{"another tokenizer", parts{gpt2: other}, 1, []string{other, "vocab.txt", "WordPiece"}},
		{"tensors that are missing, wrong and too many", parts{clip: lacking}, 1, []string{lacking, "visual.ln_post.bias", "visual.ln_pre.weight", "[7]", "visual.surplus"}},
		{"patches of side 0", parts{clip: sideless}, 1, []string{sideless, "visual.conv1.weight has shape [64 3 8 0]"}},
		{"2^36 elements that are one", parts{gpt2: expanded}, 1, []string{expanded, "274878400512 bytes", "share 493572"}},
		{"numbers that are none", parts{decoder: nan}, 1, []string{"finite", "damaged"}},
		{"no GPT-2", parts{gpt2: "-"}, 2, []string{"--gpt2 is required", mapperF}},
	} {
		t.Run(c.name, func(t *testing.T) {
			or := func(a, b string) string {
				if a == "" {
					return b
				}
				return a
			}
			args := []string{"caption", "--clip", or(c.clip, clipF), "--decoder", or(c.decoder, mapperF), "--normalize", "yes", "--max-tokens", "4", photos[0]}
			if c.gpt2 != "-" {
				args = append(args, "--gpt2", or(c.gpt2, gptF))
			}
			if c.generator != "" {
				args = append(args, "--generator", c.generator)
			}
			run("", args...).fails(t, c.code, c.says...)
		})
	}
}

// changed writes a copy of a weights file with its tensors changed by f.
func changed(t *testing.T, in, out string, f func(*nn.StateDict) *nn.StateDict) string {
	t.Helper()
	err := torch.Scope(func() error {
		file, err := weights.Open(in)
		if err != nil {
			return err
		}
		sd, err := file.Load()
		if err != nil {
			return err
		}
		return weights.Save(context.Background(), out, f(sd), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBadCaptionFiles(t *testing.T) {
	file, dir := must[string](t)(textCLIP()), t.TempDir()
	for _, c := range []struct{ name, text, says string }{
		{"missing.json", "", "no such file"},
		{"text.json", "no JSON", ":1:"},
		{"cut.json", `{"images":[{"id":1}],"annotations":[{"id":1,`, "end of JSON"},
		{"list.json", `[{"image_id":1,"kaption":"a"}]`, "entry 0"},
		{"images.json", `{"images":[{"id":1,"file_name":"a"}],"annotations":[]}`, "no captions"},
		{"instances.json", `{"images":[{"id":1}],"annotations":[{"id":1,"image_id":2,"caption":"a"}]}`, "image 2"},
		{"number.json", `{"images":[{"id":1}],"annotations":[{"id":1,"image_id":1,"caption":7}]}`, "caption"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, out := filepath.Join(dir, c.name), t.TempDir()
			if c.text != "" {
				put(t, path, []byte(c.text))
			}
			run("", "features", "--clip", file, "--captions", path, "-o", filepath.Join(out, "x.safetensors")).fails(t, 1, path, c.says)
			empty(t, out)
		})
	}
}

// A device never ends, and opening a named pipe waits: no command that reads a file
// opens either. A file that is too large for its kind is not read.
func TestNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo, sparse := filepath.Join(dir, "fifo"), put(t, filepath.Join(dir, "sparse"), nil)
	index, model := filepath.Join(dir, "a.index.json"), filepath.Join(dir, "model", "model.safetensors.index.json")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o666), os.Truncate(sparse, 1<<40), os.Mkdir(filepath.Dir(model), 0o777),
		os.Symlink(fifo, model), os.Symlink("/dev/zero", index)); err != nil {
		t.Fatal(err)
	}
	set := put(t, filepath.Join(dir, "set.json"), []byte(`{"images":[{"id":1}],"annotations":[{"id":1,"image_id":1,"caption":"a"}]}`))
	out := filepath.Join(dir, "out.safetensors")
	for _, path := range []string{"/dev/zero", fifo, sparse} {
		says := "not a regular file"
		if path == sparse {
			says = "more than 1073741824 bytes"
		}
		run("", "eval", "--metrics", "BLEU", "--annotations", path, "--results", set).fails(t, 1, path, says)
		run("", "eval", "--metrics", "BLEU", "--annotations", set, "--results", path).fails(t, 1, path, says)
		if path == sparse { // without an extension, it would be a text with a caption a line
			run("", "features", "--clip", clipF, "--captions", path, "-o", out).fails(t, 1, path, "line longer than 65536 bytes")
			continue
		}
		run("", "run", path).fails(t, 1, path, says)
		run("", "features", "--clip", clipF, "--captions", path, "-o", out).fails(t, 1, path, says)
		run("", "inspect", path).fails(t, 1, path, says)
		run("", "features", "--clipcap", path, "-o", out).fails(t, 1, path, says)
	}
	run("", "inspect", index).fails(t, 1, index, "not a regular file")
	run("", "inspect", filepath.Dir(model)).fails(t, 1, model, "not a regular file")
}

func TestOutputThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	blocked := put(t, filepath.Join(dir, "file"), []byte("x"))
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder.safetensors")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	for _, c := range []struct{ out, says string }{
		{filepath.Join(dir, "nowhere", "x.safetensors"), "no such file or directory"},
		{filepath.Join(blocked, "x.safetensors"), "not a directory"},
		{folder, "it is a folder"},
		{filepath.Join(closed, "x.safetensors"), "permission denied"},
		{"/proc/x.safetensors", "/proc/x.safetensors"},
		{"/dev/full.safetensors", "/dev is for devices"},
	} {
		if strings.HasPrefix(c.out, closed) && os.Geteuid() == 0 {
			continue // root may write everywhere
		}
		t.Run(filepath.Base(filepath.Dir(c.out)), func(t *testing.T) {
			// Reported before the work starts, even if that would fail too.
			run("", "features", "--clip", clipF, "-o", c.out, "--images", photos[0]).fails(t, 1, c.out, c.says)
			run("", "convert", clipF, c.out).fails(t, 1, c.out, c.says)
		})
	}
	if after := listing(t, dir); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("files were %v and are %v", before, after)
	}
	for _, out := range []string{"x.npz", "x", "x.PT.zip"} {
		run("", "convert", clipF, filepath.Join(dir, out)).fails(t, 1, out, ".safetensors")
		run("", "features", "--clip", clipF, "-o", filepath.Join(dir, out), "--images", photos[0]).fails(t, 2, out, ".safetensors")
	}
}

// If the disk gets full while a file is written, the command fails and leaves no part
// of the file. A limit on this process's file size stands in for the full disk; it
// leaves room for the log that `go test` keeps of the files that are opened.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	large := must[string](t)(textCLIP()) // 13 MB
	put(t, filepath.Join(dir, "x.pt"), []byte("before"))
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 8 << 20, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{"x.pt", "x.safetensors"} {
		run("", "convert", large, filepath.Join(dir, out)).fails(t, 1, out, "file too large")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	text := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "x.pt")))
	if got := listing(t, dir); fmt.Sprint(got) != "[x.pt]" || string(text) != "before" {
		t.Errorf("left behind: %v, and x.pt holds %.20q", got, text)
	}
}

func TestNoCUDA(t *testing.T) {
	dir := t.TempDir()
	if n, _ := torch.CUDADevices(); n > 0 {
		run("", caption("--device", "cuda:99", photos[0])...).fails(t, 1, "cuda:99")
		return
	}
	for _, d := range []string{"cuda", "cuda:0"} {
		run("", caption("--device", d, photos[0])...).fails(t, 1, "--device", "doctor")
		run("", "features", "--clip", clipF, "--device", d, "--images", photos[0], "-o", filepath.Join(dir, "x.safetensors")).fails(t, 1, "--device")
	}
	for _, d := range []string{"meta", "gpu", "cuda:x", "cuda:-1", "cpu:1", ""} {
		run("", caption("--device", d, photos[0])...).fails(t, 2, "--device", "cpu")
	}
	empty(t, dir)
}

// Names in a file may contain control sequences for the terminal: they are printed
// as text.
func TestControlCharactersInNames(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "x.safetensors"), safetensors(
		`{"__metadata__":{"k\n":"\u001b]0;title\u0007"},"a\u001b[2J\nb":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 16, 0))
	run("", "caption", "--clip", path, "--decoder", mapperF, "--gpt2", gptF, photos[0]).fails(t, 1, path, "a [2J b")
	table := ok(t, "inspect", path)
	if strings.ContainsAny(strings.ReplaceAll(table, "\n", ""), "\x1b\x07") || !strings.Contains(table, "a [2J b") {
		t.Errorf("inspect writes %q", table)
	}
	if got := inspect(t, path); got.Tensors[0].Name != "a\x1b[2J\nb" {
		t.Errorf("inspect --json names the tensor %q", got.Tensors[0].Name)
	}
}
