package weights_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// written writes a file with a tensor of this shape for each name.
func written(t *testing.T, path string, shape []int64, names ...string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	err := torch.Scope(func() error {
		sd := nn.NewStateDict()
		for _, n := range names {
			sd.Add(n, torch.Ones(shape))
		}
		return weights.Save(context.Background(), path, sd, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func namesOf(f *weights.File) []string {
	var list []string
	for _, e := range f.Entries {
		list = append(list, e.Name)
	}
	return list
}

// A prefix that all tensors share is removed if a known model remains.
func TestPrefix(t *testing.T) {
	for _, c := range []struct {
		names  []string
		prefix string
		scheme weights.Scheme
	}{
		{[]string{"module.visual.conv1.weight", "module.logit_scale"}, "module.", weights.OpenAICLIP},
		{[]string{"model._orig_mod.module.visual.conv1.weight", "model._orig_mod.module.logit_scale"}, "model._orig_mod.module.", weights.OpenAICLIP},
		{[]string{"clip.vision_model.embeddings.patch_embedding.weight", "clip.logit_scale"}, "clip.", weights.TransformersCLIP},
		{[]string{"model.transformer.wte.weight", "model.transformer.wpe.weight"}, "model.", weights.GPT2},
		{[]string{"net.clip_project.model.0.weight", "net.gpt.transformer.wte.weight"}, "net.", weights.ClipCapModel},
		{[]string{"state_dict.clip_project.model.0.weight", "state_dict.clip_project.model.0.bias"}, "state_dict.", weights.ClipCapMapper},
		{[]string{"module.model.0.weight", "module.model.6.weight"}, "module.", weights.Generator},
		{[]string{"module.0.weight", "module.2.weight"}, "module.", weights.Generator}, // of two layers
		// Not wrappers.
		{[]string{"model.0.weight", "model.6.weight"}, "", weights.Generator},
		{[]string{"transformer.wte.weight", "transformer.wpe.weight"}, "", weights.GPT2},
		{[]string{"clip_project.model.0.weight", "clip_project.model.0.bias"}, "", weights.ClipCapMapper},
		{[]string{"0.weight", "1.weight"}, "", weights.Unknown}, // no activation between them
		{[]string{"module.visual.conv1.weight", "logit_scale"}, "", weights.Unknown},
		{[]string{"a.b.c.d.e.f.g.wte.weight"}, "", weights.Unknown},
		{[]string{"module.fc.weight", "module.fc.bias"}, "", weights.Unknown},
	} {
		path := written(t, filepath.Join(t.TempDir(), "x.pt"), []int64{2, 2}, c.names...)
		f, err := weights.Open(path)
		if err != nil {
			t.Errorf("%v: %v", c.names, err)
			continue
		}
		want := []string{}
		for _, n := range c.names {
			want = append(want, strings.TrimPrefix(n, c.prefix))
		}
		if diff := cmp.Diff(want, namesOf(f)); diff != "" || f.Prefix != c.prefix || weights.Detect(f) != c.scheme {
			t.Errorf("%v: prefix %q, %s, names (-want +got):\n%s", c.names, f.Prefix, weights.Detect(f), diff)
		}
		if noted := len(f.Notes) == 1 && strings.Contains(f.Notes[0], path) && strings.Contains(f.Notes[0], c.prefix); noted != (c.prefix != "") {
			t.Errorf("%v: notes %q", c.names, f.Notes)
		}
	}
}

// The files of transformers' and open_clip's folders.
func TestFolder(t *testing.T) {
	for _, name := range []string{"model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"} {
		path := written(t, filepath.Join(t.TempDir(), name), []int64{1}, "a")
		f, err := weights.Open(filepath.Dir(path))
		if err != nil || f.Path != path {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	// open_clip's shards.
	dir := t.TempDir()
	written(t, filepath.Join(dir, "open_clip_pytorch_model-00001-of-00002.bin"), []int64{1}, "module.visual.conv1.weight")
	written(t, filepath.Join(dir, "open_clip_pytorch_model-00002-of-00002.bin"), []int64{1}, "module.logit_scale")
	index := `{"weight_map": {"module.visual.conv1.weight": "open_clip_pytorch_model-00001-of-00002.bin", "module.logit_scale": "open_clip_pytorch_model-00002-of-00002.bin"}}`
	if err := os.WriteFile(filepath.Join(dir, "open_clip_pytorch_model.bin.index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"visual.conv1.weight", "logit_scale"}, namesOf(f)); diff != "" {
		t.Error(diff)
	}
	sd, err := f.Load()
	if err != nil || sd.Len() != 2 {
		t.Error(err)
	}
	sd.Close()

	for _, c := range []struct{ name, want string }{
		{"clip.pt", "it contains clip.pt: name the file itself"},
		{"tf_model.h5", "only tf_model.h5, whose format is not supported"},
		{"config.json", "a configuration without weights"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := weights.Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// hub lays out a Hugging Face cache with a model, whose files are links to blobs.
func hub(t *testing.T, cache, repo, revision, commit string, files ...string) (snapshot string) {
	t.Helper()
	folder := filepath.Join(cache, "models--"+strings.ReplaceAll(repo, "/", "--"))
	snapshot = filepath.Join(folder, "snapshots", commit)
	ref := filepath.Join(folder, "refs", revision)
	for _, dir := range []string{snapshot, filepath.Dir(ref), filepath.Join(folder, "blobs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(ref, []byte(commit), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		blob := filepath.Join(folder, "blobs", commit+"-"+strings.TrimSuffix(name, filepath.Ext(name)))
		if filepath.Ext(name) == ".safetensors" {
			os.Rename(written(t, blob+".safetensors", []int64{1}, "wte.weight"), blob)
		} else if err := os.WriteFile(blob, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..", "..", "blobs", filepath.Base(blob)), filepath.Join(snapshot, name)); err != nil {
			t.Fatal(err)
		}
	}
	return snapshot
}

// A model is found in the cache by its name on the Hub.
func TestHub(t *testing.T) {
	root := t.TempDir()
	t.Setenv("HOME", filepath.Join(root, "home"))
	for _, v := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(v, "")
	}
	// Each variable goes before those that were set earlier.
	for _, place := range []struct{ variable, value, cache string }{
		{"", "", filepath.Join(root, "home/.cache/huggingface/hub")},
		{"XDG_CACHE_HOME", filepath.Join(root, "xdg"), filepath.Join(root, "xdg/huggingface/hub")},
		{"HF_HOME", "~/hf", filepath.Join(root, "home/hf/hub")},
		{"HUGGINGFACE_HUB_CACHE", filepath.Join(root, "old"), filepath.Join(root, "old")},
		{"HF_HUB_CACHE", "$HOME/new", filepath.Join(root, "home/new")},
	} {
		if place.variable != "" {
			t.Setenv(place.variable, place.value)
		}
		snapshot := hub(t, place.cache, "org/name", "main", "c0ffee", "model.safetensors", "config.json")
		f, err := weights.Open("org/name")
		if err != nil {
			t.Errorf("%s: %v", place.variable, err)
			continue
		}
		if f.Path != filepath.Join(snapshot, "model.safetensors") {
			t.Errorf("%s: found %s", place.variable, f.Path)
		}
		// The files beside it are those of the snapshot.
		if data, _, err := f.Beside("config.json"); err != nil || string(data) != "config.json" {
			t.Errorf("config.json: %q, %v", data, err)
		}
		if sd, err := f.Load(); err != nil {
			t.Error(err)
		} else {
			sd.Close()
		}
	}
	cache := filepath.Join(root, "home/new")
	hub(t, cache, "org/name", "pr/1", "badcafe", "model.safetensors")
	hub(t, cache, "gpt2", "main", "f00d", "model.safetensors")
	for _, name := range []string{"org/name@pr/1", "org/name@badcafe", "gpt2"} {
		if _, err := weights.Open(name); err != nil {
			t.Error(err)
		}
	}
	clip := written(t, filepath.Join(root, "home/.cache/clip/ViT-B-32.pt"), []int64{1}, "visual.conv1.weight")
	if f, err := weights.Open("ViT-B/32"); err != nil || f.Path != clip {
		t.Errorf("ViT-B/32: %v", err)
	}

	hub(t, cache, "org/part", "main", "abc", "config.json")
	broken := hub(t, cache, "org/broken", "main", "abc", "config.json")
	if err := os.Symlink("../../blobs/none", filepath.Join(broken, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	escape := hub(t, cache, "org/escape", "main", "abc", "model.safetensors")
	if err := os.WriteFile(filepath.Join(escape, "../../refs/main"), []byte("../snapshots/abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		words []string
	}{
		{"openai/clip-vit-base-patch32", []string{"no such file or folder", cache, "`hf download openai/clip-vit-base-patch32`"}},
		{"org/name@v2", []string{"not its revision v2", "main, pr/1", "`hf download org/name --revision v2`"}},
		{"org/part", []string{"a configuration without weights", "`hf download org/part` completes it"}},
		{"org/broken", []string{"model.safetensors", "a link to ../../blobs/none, which is missing", "`hf download org/broken`"}},
		{"org/escape", []string{"not its revision main"}},
		{"ViT-L/14", []string{"no such file or folder", `clip.load("ViT-L/14")`}},
		{"dir/clip.pt", []string{"no such file"}},
		{"./org/name", []string{"no such file"}},
		{"org/../name", []string{"no such file"}},
		{"org/name@../../x", []string{"no such file"}},
	} {
		_, err := weights.Open(c.name)
		if err == nil {
			t.Errorf("%s: opened", c.name)
			continue
		}
		for _, w := range append(c.words, c.name) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q in it", c.name, err, w)
			}
		}
		if c.words[0] == "no such file" && strings.Contains(err.Error(), "download") {
			t.Errorf("%s is a path: %v", c.name, err)
		}
	}

	// A path that exists is itself, whatever the cache contains.
	t.Chdir(t.TempDir())
	path := written(t, "org/name/model.safetensors", []int64{1}, "wte.weight")
	if f, err := weights.Open("org/name"); err != nil || f.Path != path {
		t.Errorf("a folder: %v", err)
	}
}
