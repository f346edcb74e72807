package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cyclecap/internal/regular"
)

// Find returns the path of the file or folder that name refers to. A path that
// exists refers to itself. Otherwise name is looked up on this machine; nothing is
// downloaded:
//
//   - a model on the Hugging Face Hub, such as "openai/clip-vit-base-patch32" or
//     "org/name@revision", in the cache that Python's huggingface_hub uses
//   - a model of OpenAI's clip package, such as "ViT-B/32", in the folder where
//     clip.load keeps its downloads
//
// The error for a name that is in neither says which command downloads the model.
func Find(name string) (path string, err error) {
	_, err = os.Lstat(name)
	if err == nil {
		return name, nil
	}
	missing := func(text string) error { return &Error{name, &notFound{text, err}} }
	if file, ok := openAIFiles[name]; ok {
		dir := filepath.Join(home(), ".cache", "clip")
		file = filepath.Join(dir, file)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
		return "", missing(fmt.Sprintf("no such file or folder, and OpenAI's clip has not downloaded this model to %s; `python -c 'import clip; clip.load(\"%s\")'` downloads it", dir, name))
	}
	m := hubName.FindStringSubmatch(name)
	if m == nil || strings.Contains(name, "..") || slices.Contains(weightsExtensions, strings.ToLower(filepath.Ext(name))) {
		return name, nil // a path: opening it reports the error
	}
	repo, revision := m[1], m[2]
	download := "hf download " + repo
	if revision == "" {
		revision = "main"
	} else {
		download += " --revision " + revision
	}
	cache := hubCache()
	folder := filepath.Join(cache, "models--"+strings.ReplaceAll(repo, "/", "--"))
	if _, err := os.Stat(folder); err != nil {
		return "", missing(fmt.Sprintf("no such file or folder, and the Hugging Face cache (%s) contains no model of this name; `%s` downloads one from the Hub", cache, download))
	}
	commit := revision
	if ref, err := regular.Read(filepath.Join(folder, "refs", filepath.FromSlash(revision)), 1<<10); err == nil {
		commit = strings.TrimSpace(string(ref))
	}
	snapshot := filepath.Join(folder, "snapshots", commit)
	if info, err := os.Stat(snapshot); err == nil && info.IsDir() && filepath.Base(commit) == commit && commit != "" {
		if _, err := inFolder(snapshot); err != nil {
			return "", &Error{name, fmt.Errorf("its snapshot %s in the Hugging Face cache cannot be used: %w; `%s` completes it", snapshot, err, download)}
		}
		return snapshot, nil
	}
	return "", missing(fmt.Sprintf("the Hugging Face cache contains this model, but not its revision %s%s; `%s` downloads it", revision, revisionsOf(folder), download))
}

// notFound is an error that says where a model was looked for.
type notFound struct {
	text string
	err  error
}

func (e *notFound) Error() string { return e.text }
func (e *notFound) Unwrap() error { return e.err }

// openAIFiles are the files of the models of OpenAI's clip package, by the names
// in clip.available_models().
var openAIFiles = map[string]string{
	"RN50": "RN50.pt", "RN101": "RN101.pt", "RN50x4": "RN50x4.pt", "RN50x16": "RN50x16.pt", "RN50x64": "RN50x64.pt",
	"ViT-B/32": "ViT-B-32.pt", "ViT-B/16": "ViT-B-16.pt", "ViT-L/14": "ViT-L-14.pt", "ViT-L/14@336px": "ViT-L-14-336px.pt",
}

// hubName matches the name of a model on the Hub, with or without a revision
// (a branch, a tag or a commit).
var hubName = regexp.MustCompile(`^([A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@([A-Za-z0-9][\w./-]*))?$`)

// weightsExtensions are those of files: names that end in them are paths.
var weightsExtensions = []string{".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json", ".pkl", ".zip", ".toml"}

// hubCache returns the folder in which huggingface_hub keeps downloaded models.
func hubCache() string {
	for _, at := range []struct{ variable, below string }{
		{"HF_HUB_CACHE", ""}, {"HUGGINGFACE_HUB_CACHE", ""}, {"HF_HOME", "hub"}, {"XDG_CACHE_HOME", "huggingface/hub"},
	} {
		dir := os.ExpandEnv(os.Getenv(at.variable))
		if rest, ok := strings.CutPrefix(dir, "~/"); ok {
			dir = filepath.Join(home(), rest)
		}
		if dir != "" {
			return filepath.Join(dir, at.below)
		}
	}
	return filepath.Join(home(), ".cache", "huggingface", "hub")
}

func home() string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return "~"
	}
	return dir
}

// revisionsOf lists the revisions of a model that are in the cache.
func revisionsOf(folder string) string {
	var list []string
	refs := filepath.Join(folder, "refs")
	_ = filepath.WalkDir(refs, func(path string, d fs.DirEntry, err error) error {
		if len(list) == 5 {
			return fs.SkipAll
		}
		if name, e := filepath.Rel(refs, path); err == nil && e == nil && !d.IsDir() {
			list = append(list, filepath.ToSlash(name))
		}
		return nil
	})
	if len(list) == 0 {
		commits, err := os.ReadDir(filepath.Join(folder, "snapshots"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		for _, c := range commits[:min(5, len(commits))] {
			list = append(list, c.Name())
		}
	}
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf(" (it has %s: add @REVISION to the name)", strings.Join(list, ", "))
}
