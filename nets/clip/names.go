package clip

import (
	"fmt"
	"slices"
	"strings"
)

type transformer struct {
	name                      string
	openAI                    string // its name in OpenAI's code
	embed, size, patch        int64
	width, depth, head        int64
	mlp                       int64 // 0: four times the width
	textWidth, heads, textDep int64
	layerScale                bool
}

// The models whose names Named knows. They have CLIP's tokenizer, 77 tokens and heads
// of 64, unless the table says otherwise.
var (
	resNets = []struct {
		name               string
		embed, size, width int64
		blocks             [4]int64
		textWidth          int64
	}{
		{"RN50", 1024, 224, 64, [4]int64{3, 4, 6, 3}, 512},
		{"RN101", 512, 224, 64, [4]int64{3, 4, 23, 3}, 512},
		{"RN50x4", 640, 288, 80, [4]int64{4, 6, 10, 6}, 640},
		{"RN50x16", 768, 384, 96, [4]int64{6, 8, 18, 8}, 768},
		{"RN50x64", 1024, 448, 128, [4]int64{3, 15, 36, 10}, 1024},
	}
	transformers = []transformer{
		{"ViT-B-32", "ViT-B/32", 512, 224, 32, 768, 12, 64, 0, 512, 8, 12, false},
		{"ViT-B-32-256", "", 512, 256, 32, 768, 12, 64, 0, 512, 8, 12, false},
		{"ViT-B-32-plus-256", "", 640, 256, 32, 896, 12, 64, 0, 640, 10, 12, false},
		{"ViT-B-16", "ViT-B/16", 512, 224, 16, 768, 12, 64, 0, 512, 8, 12, false},
		{"ViT-B-16-plus", "", 640, 224, 16, 896, 12, 64, 0, 640, 10, 12, false},
		{"ViT-B-16-plus-240", "", 640, 240, 16, 896, 12, 64, 0, 640, 10, 12, false},
		{"ViT-L-14", "ViT-L/14", 768, 224, 14, 1024, 24, 64, 0, 768, 12, 12, false},
		{"ViT-L-14-280", "", 768, 280, 14, 1024, 24, 64, 0, 768, 12, 12, false},
		{"ViT-L-14-336", "ViT-L/14@336px", 768, 336, 14, 1024, 24, 64, 0, 768, 12, 12, false},
		{"ViT-L-16", "", 768, 224, 16, 1024, 24, 64, 0, 768, 12, 12, false},
		{"ViT-L-16-320", "", 768, 320, 16, 1024, 24, 64, 0, 768, 12, 12, false},
		{"ViT-H-14", "", 1024, 224, 14, 1280, 32, 80, 0, 1024, 16, 24, false},
		{"ViT-H-14-378", "", 1024, 378, 14, 1280, 32, 80, 0, 1024, 16, 24, false},
		{"ViT-H-16", "", 1024, 224, 16, 1280, 32, 80, 0, 1024, 16, 24, false},
		{"ViT-g-14", "", 1024, 224, 14, 1408, 40, 88, 6144, 1024, 16, 24, false},
		{"ViT-bigG-14", "", 1280, 224, 14, 1664, 48, 104, 8192, 1280, 20, 32, false},
		{"ViT-S-16", "", 384, 224, 16, 384, 12, 64, 0, 384, 6, 12, false},
		{"ViT-S-16-alt", "", 256, 224, 16, 384, 12, 64, 0, 256, 4, 10, false},
		{"ViT-S-32", "", 384, 224, 32, 384, 12, 64, 0, 384, 6, 12, false},
		{"ViT-S-32-alt", "", 256, 224, 32, 384, 12, 64, 0, 256, 4, 10, false},
		{"ViT-M-16", "", 512, 224, 16, 512, 12, 64, 0, 512, 8, 12, false},
		{"ViT-M-16-alt", "", 384, 224, 16, 512, 12, 64, 0, 384, 6, 12, true},
		{"ViT-M-32", "", 512, 224, 32, 512, 12, 64, 0, 512, 8, 12, false},
		{"ViT-M-32-alt", "", 384, 224, 32, 512, 12, 64, 0, 384, 6, 12, false},
	}
)

const quickSuffix = "-quickgelu"

// Names returns the names that Named knows: OpenAI's, such as ViT-B/32 and RN50x4,
// which stand for QuickGELU, and open_clip's, such as ViT-B-32 for GELU and
// ViT-B-32-quickgelu for QuickGELU.
func Names() []string {
	var names []string
	for _, r := range resNets {
		names = append(names, r.name)
	}
	for _, t := range transformers {
		if t.openAI != "" {
			names = append(names, t.openAI)
		}
	}
	for _, t := range transformers {
		names = append(names, t.name, t.name+quickSuffix)
	}
	return names
}

// Named returns the configuration of a model by OpenAI's or open_clip's name. The
// names of ResNets stand for QuickGELU, with which all published ones were trained.
func Named(name string) (Config, error) {
	c := Config{Context: 77, Vocab: 49408}
	base, quick := strings.CutSuffix(name, quickSuffix)
	for _, r := range resNets {
		if base == r.name {
			c.EmbedDim, c.ImageSize, c.VisionWidth, c.ResNet = r.embed, r.size, r.width, r.blocks
			c.VisionHeads = 32 * r.width / headDim
			c.TextWidth, c.TextHeads, c.TextDepth, c.TextMLP = r.textWidth, r.textWidth/headDim, 12, 4*r.textWidth
			return c, nil
		}
	}
	for _, t := range transformers {
		if base != t.name && name != t.openAI {
			continue
		}
		c.EmbedDim, c.ImageSize, c.PatchSize = t.embed, t.size, t.patch
		c.VisionWidth, c.VisionDepth, c.VisionHeads, c.VisionMLP = t.width, t.depth, t.width/t.head, t.mlp
		c.TextWidth, c.TextHeads, c.TextDepth, c.TextMLP = t.textWidth, t.heads, t.textDep, 4*t.textWidth
		c.VisionLayerScale = t.layerScale
		if c.VisionMLP == 0 {
			c.VisionMLP = 4 * t.width
		}
		if !quick && name != t.openAI {
			c.VisionActivation, c.TextActivation = GELU, GELU
		}
		return c, nil
	}
	return c, fmt.Errorf("%q is not the name of a CLIP; known are %s", name, strings.Join(Names(), ", "))
}

// Matching returns the names of the models in whose sizes the encoders of part agree
// with those of c.
func Matching(c Config, part Part) []string {
	return slices.DeleteFunc(Names(), func(name string) bool {
		n, _ := Named(name)
		return n.Check(c, part) != nil
	})
}

// ByOpenAI reports whether a name is one of OpenAI's.
func ByOpenAI(name string) bool {
	return strings.Contains(name, "/") || strings.HasPrefix(name, "RN")
}

// Assumable reports whether the encoders of part can have heads of 64, as OpenAI's have.
// They cannot if their width is no multiple of 64, or that of a known model with other
// heads.
func (c Config) Assumable(part Part) bool {
	if part != Image && c.TextWidth%headDim != 0 || part != Text && c.VisionWidth%headDim != 0 && c.ResNet == [4]int64{} {
		return false
	}
	return part == Text || !slices.ContainsFunc(transformers, func(t transformer) bool {
		return t.head != headDim && t.width == c.VisionWidth && c.ResNet == [4]int64{}
	})
}
