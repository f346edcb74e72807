package weights_test

import (
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/weights"
)

// The error for a file of another model says what was recognized and what is supported.
func TestUnknown(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"visual_encoder.patch_embed.proj.weight", "text_decoder.bert.embeddings.word_embeddings.weight"}, "a BLIP (tensor visual_encoder"},
		{[]string{"model.vision_tower.x.weight", "multi_modal_projector.linear_1.weight"}, "a LLaVA"},
		{[]string{"vit.embeddings.patch_embeddings.projection.weight", "classifier.weight"}, "a ViT of transformers"},
		{[]string{"encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"}, "a T5"},
		{[]string{"bert.embeddings.word_embeddings.weight"}, "a BERT"},
		{[]string{"down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"}, "a UNet of diffusers"},
		{[]string{"model.layers.0.self_attn.q_proj.weight", "model.norm.weight"}, "of the Llama kind"},
		{[]string{"visual.trunk.blocks.0.attn.qkv.weight"}, "an image encoder of timm"},
		{[]string{"base_model.model.h.0.lora_A.weight"}, "LoRA"},
		{[]string{"visual.ln_post.weight", "visual.proj", "other"}, "2 of its 3 tensors have names of an OpenAI CLIP model (visual.ln_post.weight, …), but visual.conv1.weight is missing"},
		{[]string{"model.visual.conv1.weight", "model.logit_scale", "loss.weight"}, `the 2 tensors under "model." are a model of the kind OpenAI CLIP, but there are 1 others (loss.weight, …)`},
		{[]string{"a.weight", "b"}, "2 tensors of no model that is known (a.weight, b, …)"},
	} {
		path := written(t, filepath.Join(t.TempDir(), "x.pt"), []int64{2, 2}, c.names...)
		f, err := weights.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = weights.LoadGenerator(f)
		if err == nil {
			t.Errorf("%v: loaded", c.names)
			continue
		}
		for _, w := range []string{path, "expected a CycleGAN generator", c.want, "supported here: CycleGAN generator", "`cyclecap inspect`"} {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %v; want %q in it", c.names, err, w)
			}
		}
	}
}
