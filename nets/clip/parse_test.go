package clip_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"cyclecap/nets/clip"

	"github.com/google/go-cmp/cmp"
)

// The names of open_clip stand for what its own configurations say
// (testdata/reference/clips.py), apart from the activation of ResNets.
func TestNames(t *testing.T) {
	text, err := os.ReadFile("testdata/open_clip_models.json")
	if err != nil {
		t.Fatal(err)
	}
	var models map[string]json.RawMessage
	if err := json.Unmarshal(text, &models); err != nil {
		t.Fatal(err)
	}
	for _, name := range clip.Names() {
		of := name
		if strings.Contains(name, "/") { // OpenAI's
			of = strings.TrimSuffix(strings.NewReplacer("/", "-", "@", "-").Replace(name), "px") + "-quickgelu"
		} else if strings.HasPrefix(name, "RN") {
			of += "-quickgelu"
		}
		model, ok := models[of]
		got, err := clip.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if !ok { // open_clip has no such configuration, but the one without the suffix
			base, quick := strings.CutSuffix(of, "-quickgelu")
			if model, ok = models[base]; !ok || !quick {
				t.Errorf("open_clip has no %s", of)
				continue
			}
			got.VisionActivation, got.TextActivation = clip.GELU, clip.GELU
		}
		want, err := clip.ParseConfig(model, clip.Both)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want.VisionEpsilon, want.TextEpsilon = 0, 0 // 1e-5, the default
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := clip.Named("ViT-B-33"); err == nil || !strings.Contains(err.Error(), "ViT-B-32") {
		t.Error(err)
	}
}

// A key that changes the features is heeded or refused by name, unless it belongs to an
// encoder that is not needed.
func TestParseConfig(t *testing.T) {
	open := func(vision, text, more string) string {
		return `{"model_cfg": {"embed_dim": 8, "vision_cfg": {"width": 64` + vision + `}, "text_cfg": {"width": 64` + text + `}` + more + `}}`
	}
	hf := func(vision, text string) string {
		return `{"model_type": "clip", "vision_config": {` + vision + `}, "text_config": {` + text + `}}`
	}
	for name, c := range map[string]struct {
		config string
		part   clip.Part
		want   string // in the error
	}{
		"plain":                      {open("", "", ""), clip.Both, ""},
		"transformers":               {hf("", ""), clip.Both, ""},
		"not JSON":                   {"model: clip", clip.Both, "not a JSON object"},
		"a list":                     {"[]", clip.Both, "not a JSON object"},
		"nothing":                    {"{}", clip.Both, "neither transformers' model_type nor open_clip's model_cfg"},
		"timm":                       {open(`, "timm_model_name": "vit"`, "", ""), clip.Both, `vision_cfg.timm_model_name: "vit" is not supported`},
		"timm, texts only":           {open(`, "timm_model_name": "vit"`, "", ""), clip.Text, ""},
		"a text model":               {open("", `, "hf_model_name": "roberta"`, ""), clip.Both, `text_cfg.hf_model_name: "roberta"`},
		"a text model, photos only":  {open("", `, "hf_model_name": "roberta"`, ""), clip.Image, ""},
		"attentional pooling":        {open(`, "attentional_pool": true`, "", ""), clip.Image, "vision_cfg.attentional_pool: true"},
		"no pooling":                 {open(`, "pool_type": "none"`, "", ""), clip.Image, `vision_cfg.pool_type: "none" is not supported, only tok, avg`},
		"class token":                {open("", `, "embed_cls": true`, ""), clip.Text, "text_cfg.embed_cls"},
		"bias":                       {open("", `, "proj_bias": true`, ""), clip.Text, "text_cfg.proj_bias"},
		"no projection":              {open("", `, "proj_type": "none"`, ""), clip.Text, "text_cfg.proj_type"},
		"qk_norm":                    {open(`, "qk_norm": true`, "", ""), clip.Image, "vision_cfg.qk_norm"},
		"custom blocks":              {open(`, "block_type": "custom"`, "", ""), clip.Image, "vision_cfg.block_type"},
		"CoCa":                       {open("", "", `, "multimodal_cfg": {}`), clip.Image, "multimodal_cfg"},
		"a new key":                  {open("", "", `, "rotary": true`), clip.Image, "rotary: this key is not supported"},
		"a new key of vision":        {open(`, "registers": 4`, "", ""), clip.Image, "vision_cfg.registers: this key is not supported"},
		"arguments of QuickGELU":     {open(`, "act_kwargs": {"approximate": "tanh"}`, "", `, "quick_gelu": true`), clip.Image, "vision_cfg.act_kwargs: not supported with quick_gelu"},
		"arguments of a norm":        {open(`, "norm_kwargs": {"elementwise_affine": false}`, "", ""), clip.Image, "vision_cfg.norm_kwargs.elementwise_affine"},
		"an oblong image":            {open(`, "image_size": [224, 336]`, "", ""), clip.Image, "vision_cfg.image_size: must be a number or two equal ones"},
		"a pair":                     {open(`, "image_size": [224, 224]`, "", ""), clip.Image, ""},
		"three stages":               {open(`, "layers": [1, 2, 3]`, "", ""), clip.Image, "vision_cfg.layers: must be a number or four numbers"},
		"a ResNet's odd image":       {open(`, "layers": [1, 2, 3, 4], "image_size": 225`, "", ""), clip.Image, "vision_cfg.image_size: must be a multiple of 32"},
		"a width that is a string":   {open(`, "layers": "12"`, "", ""), clip.Image, `vision_cfg.layers: must be a whole number, got "12"`},
		"a width of 0":               {`{"model_cfg": {"embed_dim": 0, "vision_cfg": {}, "text_cfg": {}}}`, clip.Both, "embed_dim: must be at least 1, got 0"},
		"no towers":                  {`{"model_cfg": {"embed_dim": 8, "vision_cfg": {}}}`, clip.Both, "text_cfg"},
		"an unknown activation":      {hf(`"hidden_act": "relu"`, ""), clip.Both, `vision_config.hidden_act: the activation "relu" is not supported, only quick_gelu, gelu, gelu_pytorch_tanh`},
		"... of the other tower":     {hf(`"hidden_act": "relu"`, ""), clip.Text, ""},
		"an epsilon of 0":            {hf("", `"layer_norm_eps": 0`), clip.Both, "text_config.layer_norm_eps: must be above 0"},
		"several end tokens":         {hf("", `"eos_token_id": [1, 2]`), clip.Text, "text_config.eos_token_id: must be a whole number, got [1, 2]"},
		"four channels":              {hf(`"num_channels": 4`, ""), clip.Image, "vision_config.num_channels: 4 is not supported"},
		"SigLIP":                     {`{"model_type": "siglip"}`, clip.Both, `model_type "siglip" is not supported`},
		"a vision model for texts":   {`{"model_type": "clip_vision_model"}`, clip.Both, "a CLIP without a text encoder"},
		"a text model for photos":    {`{"model_type": "clip_text_model"}`, clip.Image, "a CLIP without an image encoder"},
		"a wrong dict of the vision": {`{"model_type": "clip", "vision_config_dict": {"hidden_act": "relu"}, "vision_config": {}}`, clip.Image, "vision_config_dict.hidden_act"},
	} {
		_, err := clip.ParseConfig([]byte(c.config), c.part)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// What transformers' configurations say, and their defaults.
func TestParseTransformers(t *testing.T) {
	want := clip.ViTB32()
	want.VisionEpsilon, want.TextEpsilon = 1e-5, 1e-5
	want.TextPool, want.EndToken = clip.AtEndToken, 49407
	got, err := clip.ParseConfig([]byte(`{"model_type": "clip"}`), clip.Both)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("the defaults: %v %s", err, diff)
	}
	// transformers takes the largest id where an old configuration says 2.
	got, err = clip.ParseConfig([]byte(`{"model_type": "clip", "text_config": {"eos_token_id": 2}}`), clip.Both)
	if err != nil || got.TextPool != clip.AtLargest {
		t.Errorf("%+v %v", got, err)
	}
	// The dict takes precedence, with the defaults for what it lacks.
	got, err = clip.ParseConfig([]byte(`{"vision_config": {"hidden_size": 64, "hidden_act": "gelu"}, "vision_config_dict": {"hidden_size": 1024}, "text_config_dict": null}`), clip.Both)
	if err != nil || got.VisionWidth != 1024 || got.VisionActivation != clip.QuickGELU {
		t.Errorf("%+v %v", got, err)
	}
	got, err = clip.ParseConfig([]byte(`{"model_type": "clip_vision_model", "hidden_act": "gelu", "layer_norm_eps": 1e-3, "num_attention_heads": 16, "projection_dim": 7}`), clip.Image)
	if err != nil || got.VisionActivation != clip.GELU || got.VisionEpsilon != 1e-3 || got.VisionHeads != 16 || got.EmbedDim != 7 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestMetadata(t *testing.T) {
	for _, name := range clip.Names() {
		c, _ := clip.Named(name)
		c.TextPool, c.EndToken, c.NormAfterPool, c.Tokenizer = clip.AtEndToken, 7, true, "another"
		got, err := clip.FromMetadata(c.Metadata())
		if diff := cmp.Diff(c, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for _, text := range []string{"", "[]", `{"Width": 1}`, `{"VisionActivation": "relu"}`, `{"TextPool": 9}`} {
		if _, err := clip.FromMetadata(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// What cannot be assumed, and the names that fit.
func TestAssumable(t *testing.T) {
	for name, want := range map[string]bool{"ViT-B/32": true, "RN50x4": true, "ViT-B-16-plus-240": true, "ViT-H-14": false, "ViT-g-14": false, "ViT-bigG-14": false} {
		c, err := clip.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Assumable(clip.Both); got != want {
			t.Errorf("%s: heads of 64 can be assumed: %v", name, got)
		}
		if !c.Assumable(clip.Text) {
			t.Errorf("%s: its text encoder has heads of 64", name)
		}
		found := false
		for _, n := range clip.Matching(c, clip.Both) {
			found = found || n == name
		}
		if !found {
			t.Errorf("%s: the names that fit are %v", name, clip.Matching(c, clip.Both))
		}
	}
}
