package weights

import (
	"fmt"
	"regexp"
	"strings"
)

// foreign are models that are recognized in order to be refused by name, each by
// names of its tensors. The first that matches counts.
var foreign = []struct {
	what  string
	names *regexp.Regexp
}{
	{"the adapter of a model (LoRA), without the model itself", regexp.MustCompile(`\.lora_(A|B|down|up)\.`)},
	{"a BLIP-2", regexp.MustCompile(`^(model\.)?(qformer\.|Qformer\.|query_tokens$)`)},
	{"a BLIP", regexp.MustCompile(`^(visual_encoder\.|text_decoder\.bert\.)|^text_decoder\.cls\.`)},
	{"a LLaVA", regexp.MustCompile(`multi_modal_projector\.|mm_projector\.`)},
	{"a CoCa of open_clip", regexp.MustCompile(`^text_decoder\.resblocks\.`)},
	{"an open_clip model with an image encoder of timm", regexp.MustCompile(`^visual\.trunk\.`)},
	{"an EVA-CLIP", regexp.MustCompile(`^visual\.blocks\.`)},
	{"a UNet of diffusers", regexp.MustCompile(`^(down_blocks|mid_block|up_blocks)\.|^model\.diffusion_model\.`)},
	{"an autoencoder of diffusers", regexp.MustCompile(`^(encoder\.down_blocks|decoder\.up_blocks)\.`)},
	{"a T5", regexp.MustCompile(`^(encoder|decoder)\.block\.\d+\.layer\.0\.SelfAttention\.`)},
	{"a BERT", regexp.MustCompile(`^(bert\.|roberta\.)?embeddings\.word_embeddings\.weight$`)},
	{"a ViT of transformers, an image classifier", regexp.MustCompile(`^(vit\.)?embeddings\.patch_embeddings\.projection\.`)},
	{"a ViT of timm, an image classifier", regexp.MustCompile(`^patch_embed\.proj\.`)},
	{"a DINOv2", regexp.MustCompile(`^(dinov2\.)?embeddings\.mask_token$`)},
	{"a language model of the Llama kind", regexp.MustCompile(`^(model\.)?layers\.\d+\.self_attn\.q_proj\.`)},
	{"a ResNet, an image classifier", regexp.MustCompile(`^layer1\.0\.conv1\.weight$`)},
}

// kinds are the models that Detect knows, with what the names of their tensors look
// like and the tensors without which Detect does not know them.
var kinds = []struct {
	scheme Scheme
	names  *regexp.Regexp
	needed []string
}{
	{OpenAICLIP, regexp.MustCompile(`^(visual\.|transformer\.resblocks\.|token_embedding\.weight$|positional_embedding$|ln_final\.|text_projection$|logit_scale$)`), []string{"visual.conv1.weight"}},
	{TransformersCLIP, regexp.MustCompile(`^(vision_model\.|text_model\.|visual_projection\.|text_projection\.weight$|logit_scale$)`), []string{"vision_model.embeddings.patch_embedding.weight"}},
	{GPT2, regexp.MustCompile(`^(transformer\.)?(wte\.|wpe\.|ln_f\.|h\.\d+\.)|^lm_head\.weight$`), []string{"transformer.wte.weight"}},
	{ClipCapModel, regexp.MustCompile(`^(clip_project\.|gpt\.)`), []string{"clip_project.…"}},
	{Generator, regexp.MustCompile(`^(model\.)?\d+\.(weight|bias)$`), []string{"model.0.weight", "model.6.weight"}},
}

// unknown describes the tensors of a file whose model Detect does not know.
func unknown(f *File) string {
	if len(f.Entries) == 0 {
		return "no tensors"
	}
	for _, k := range foreign {
		for _, e := range f.Entries {
			if k.names.MatchString(e.Name) {
				return fmt.Sprintf("%s (tensor %s), which is not supported", k.what, e.Name)
			}
		}
	}
	if text := partly(f); text != "" {
		return text
	}
	best, most := 0, 0
	var first string
	for i, k := range kinds {
		n, name := 0, ""
		for _, e := range f.Entries {
			if k.names.MatchString(e.Name) {
				n++
				if name == "" {
					name = e.Name
				}
			}
		}
		if n > most {
			best, most, first = i, n, name
		}
	}
	if most > 0 {
		k := kinds[best]
		var missing []string
		for _, name := range k.needed {
			if _, ok := f.Get(name); !ok {
				missing = append(missing, name)
			}
		}
		return fmt.Sprintf("no model that is known: %d of its %d tensors have names of an %s model (%s, …), but %s is missing", most, len(f.Entries), k.scheme, first, strings.Join(missing, " and "))
	}
	var names []string
	for _, e := range f.Entries[:min(3, len(f.Entries))] {
		names = append(names, e.Name)
	}
	return fmt.Sprintf("%d tensors of no model that is known (%s, …)", len(f.Entries), strings.Join(names, ", "))
}

// partly describes a file in which a part of the tensors, under a prefix of their own,
// are a known model.
func partly(f *File) string {
	tried := map[string]bool{}
	for _, e := range f.Entries {
		prefix, _, ok := strings.Cut(e.Name, ".")
		if !ok || tried[prefix] || len(tried) == 100 {
			continue
		}
		tried[prefix] = true
		part, other := &File{}, ""
		for _, e := range f.Entries {
			if rest, ok := strings.CutPrefix(e.Name, prefix+"."); ok {
				e.Name = rest
				part.Entries = append(part.Entries, e)
			} else if other == "" {
				other = e.Name
			}
		}
		if s := Detect(part); s != Unknown && other != "" {
			return fmt.Sprintf("more than one model: the %d tensors under %q are a model of the kind %s, but there are %d others (%s, …); save that part alone", len(part.Entries), prefix+".", s, len(f.Entries)-len(part.Entries), other)
		}
	}
	return ""
}
