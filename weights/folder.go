package weights

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// folderNames are the names of the weights in a folder, in order of preference:
// those of transformers, then those of open_clip. safetensors come first, as in
// both libraries.
var folderNames = []string{
	"model.safetensors.index.json", "model.safetensors",
	"pytorch_model.bin.index.json", "pytorch_model.bin",
	"open_clip_model.safetensors.index.json", "open_clip_model.safetensors",
	"open_clip_pytorch_model.bin.index.json", "open_clip_pytorch_model.bin",
}

// inFolder returns the path of the weights in a folder.
func inFolder(dir string) (string, error) {
	for _, name := range folderNames {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err == nil && !info.IsDir() {
			return file, nil
		}
		if target, is := os.Readlink(file); is == nil && err != nil {
			return "", fmt.Errorf("%s in this folder is a link to %s, which is missing: the download is incomplete, or the file was deleted", name, target)
		}
	}
	return "", fmt.Errorf("the folder contains neither model.safetensors nor pytorch_model.bin, nor open_clip's open_clip_model.safetensors or open_clip_pytorch_model.bin%s", contentsOf(dir))
}

// contentsOf says what a folder without weights of the usual names contains.
func contentsOf(dir string) string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var files, others []string
	config := false
	for _, e := range list {
		name := e.Name()
		config = config || name == "config.json" || name == "open_clip_config.json"
		switch strings.ToLower(filepath.Ext(name)) {
		case ".pt", ".pth", ".bin", ".ckpt", ".safetensors":
			files = append(files, name)
		case ".h5", ".msgpack", ".onnx", ".gguf", ".ot":
			others = append(others, name)
		}
	}
	slices.Sort(files)
	switch {
	case len(files) > 0:
		more := ""
		if len(files) > 3 {
			files, more = files[:3], ", …"
		}
		return fmt.Sprintf("; it contains %s%s: name the file itself", strings.Join(files, ", "), more)
	case len(others) > 0:
		return fmt.Sprintf("; it contains only %s, whose format is not supported", others[0])
	case config:
		return "; it contains a configuration without weights: the download is incomplete"
	}
	return ""
}
