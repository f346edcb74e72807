"""Writes small random CLIPs of the real classes of OpenAI's code, open_clip and
transformers, in the files that they are published in, and the features that these
classes compute, for pipeline's tests.

    clips.py --out nets/clip/testdata

Every model has a folder with its files and expected.safetensors: pixels, ids, image
and text (where the model has these encoders). open_clip's are computed by its
attention layer as it runs while training, with the operators of OpenAI's code;
fused_image and fused_text are from the fused layer that it uses in evaluation.

    clips.py --real NAME --out FOLDER

writes one model of the real size, of the names in REAL.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

from make import script_archive
from models import cpu

VOCAB, CONTEXT, EMBED = 64, 12, 16


def disturb(model):
    """Fresh weights leave biases at 0, norms at 1 and statistics at 0 and 1, where a
    mix-up would not show."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.1)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(torch.randn_like(b) * 0.1)
            if name.endswith("running_var"):
                b.mul_(torch.rand_like(b) + 0.5)
            if name.endswith("num_batches_tracked"):
                b.add_(7)
    return model.eval()


def tokens(count, context=CONTEXT, vocab=VOCAB, end=None):
    """Random texts; end is the end token, vocab-1 where it is the largest."""
    end = vocab - 1 if end is None else end
    ids = torch.zeros(count, context, dtype=torch.int64)
    for row in ids:
        n = int(torch.randint(2, context - 2, ()))
        row[0], row[n + 1] = vocab - 2, end
        row[1 : n + 1] = torch.randint(1, vocab - 2, (n,))
        row[1 : n + 1][row[1 : n + 1] == end] = 1
    return ids


class Case:
    def __init__(self, out, name):
        self.folder, self.tensors = out / name, {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, name, tensor):
        self.tensors[name] = tensor.detach().clone().contiguous()

    def save(self):
        save_file(self.tensors, self.folder / "expected.safetensors")


def features(case, image=None, text=None, size=32, ids=None, prefix=""):
    """Adds the inputs and what image and text make of them."""
    if image is not None:
        px = case.tensors.get("pixels", torch.randn(3, 3, size, size))
        case.add("pixels", px)
        case.add(prefix + "image", image(px))
    if text is not None:
        ids = case.tensors.get("ids", tokens(4) if ids is None else ids)
        case.add("ids", ids)
        case.add(prefix + "text", text(ids))


# --- OpenAI ---


def openai_model(layers, width, size=32, patch=8, embed=EMBED, vocab=VOCAB, context=CONTEXT, text=64, text_layers=2):
    import clip.model as openai

    return disturb(openai.CLIP(embed, size, layers, width, patch, context, vocab, text, text // 64, text_layers).float())


def archive(model, path, size, context=CONTEXT, vocab=VOCAB):
    """OpenAI's form: TorchScript, half precision where its convert_weights says so, and
    three numbers as buffers."""
    import clip.model as openai

    openai.convert_weights(model)
    for key, value in (("input_resolution", size), ("context_length", context), ("vocab_size", vocab)):
        if key in model.__dict__:
            delattr(model, key)
        model.register_buffer(key, torch.tensor(value))
    torch.jit.save(script_archive(model), str(path))
    for key in ("input_resolution", "context_length", "vocab_size"):
        del model._buffers[key]
    model.context_length, model.vocab_size = context, vocab
    return model.float()


@torch.no_grad()
def openai(out):
    case = Case(out, "openai-resnet-archive")
    model = archive(openai_model((1, 2, 1, 1), 4, size=64, text_layers=1), case.folder / "clip.pt", 64)
    features(case, model.encode_image, model.encode_text, size=64)
    case.save()

    case = Case(out, "openai-resnet-visual")
    model = openai_model((2, 1, 1, 1), 4, size=96, embed=24, text_layers=1)
    torch.save({k: v for k, v in model.state_dict().items() if k.startswith("visual.")}, case.folder / "clip.pt")
    features(case, model.encode_image, size=96)
    case.save()

    case = Case(out, "openai-state")
    model = openai_model(1, 64, text_layers=1)
    state = model.state_dict()
    state["logit_scale"] = state["logit_scale"].reshape(1)
    torch.save(state, case.folder / "clip.pt")
    features(case, model.encode_image, model.encode_text)
    case.save()

    case = Case(out, "openai-text")
    torch.save({k: v for k, v in state.items() if not k.startswith("visual.") and k != "logit_scale"}, case.folder / "clip.pt")
    features(case, text=model.encode_text)
    case.save()


# --- open_clip ---


def openclip_model(config):
    from open_clip.model import CLIP, CustomTextCLIP

    config = dict(config)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    return disturb(kind(**config))


def openclip_features(case, model, size=32, ids=None, fused=True):
    # With gradients, PyTorch's attention layer does not take its fused path.
    features(case, model.encode_image, model.encode_text, size, ids)
    if fused:
        with torch.no_grad():
            features(case, model.encode_image, model.encode_text, size, ids, prefix="fused_")


def openclip(out):
    text = {"context_length": CONTEXT, "vocab_size": VOCAB, "width": 32, "heads": 4, "layers": 1}
    cases = {
        # Heads that are not 64 wide, another MLP ratio, GELU.
        "openclip-gelu": {
            "embed_dim": EMBED,
            "vision_cfg": {"image_size": 36, "layers": 2, "width": 40, "head_width": 20, "mlp_ratio": 4.3637, "patch_size": 12},
            "text_cfg": {**text, "mlp_ratio": 3.0},
        },
        "openclip-quickgelu": {
            "embed_dim": EMBED, "quick_gelu": True, "init_logit_bias": -10, "nonscalar_logit_scale": True,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 16, "patch_size": 8, "patch_dropout": 0.5},
            "text_cfg": text,
        },
        # The variants that CLIPA's and DataComp's models have.
        "openclip-custom": {
            "embed_dim": EMBED, "custom_text": True,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 48, "head_width": 24, "patch_size": 8, "no_ln_pre": True,
                           "pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1},
            "text_cfg": {**text, "pool_type": "last", "no_causal_mask": True, "ls_init_value": 0.2},
        },
        "openclip-variants": {
            "embed_dim": EMBED,
            "vision_cfg": {"image_size": 38, "layers": 1, "width": 48, "head_width": 24, "patch_size": 8, "pool_type": "avg",
                           "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
            "text_cfg": {**text, "pool_type": "eos", "eos_id": 5, "norm_kwargs": {"eps": 1e-2}},
        },
        "openclip-first": {
            "embed_dim": EMBED,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
            "text_cfg": {**text, "pool_type": "first"},
        },
        "openclip-resnet": {
            "embed_dim": EMBED,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 4, "head_width": 32, "patch_size": None},
            "text_cfg": text,
        },
    }  # fmt: skip
    for name, config in cases.items():
        case = Case(out, name)
        model = openclip_model(config)
        if name == "openclip-resnet":
            # bf16, as half-precision training writes it.
            model = model.bfloat16()
            save_file(model.state_dict(), case.folder / "open_clip_model.safetensors")
            model = model.float()
        elif name == "openclip-quickgelu":
            torch.save(model.state_dict(), case.folder / "open_clip_pytorch_model.bin")
        else:
            save_file(model.state_dict(), case.folder / "open_clip_model.safetensors")
        (case.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        ids = tokens(4, end=5) if name == "openclip-variants" else None
        openclip_features(case, model, config["vision_cfg"]["image_size"], ids)
        case.save()


# --- transformers ---


@torch.no_grad()
def transformers(out):
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    vision = dict(hidden_size=48, intermediate_size=100, num_hidden_layers=2, num_attention_heads=16, image_size=32, patch_size=8,
                  projection_dim=EMBED)  # fmt: skip
    text = dict(hidden_size=40, intermediate_size=60, num_hidden_layers=2, num_attention_heads=5, vocab_size=VOCAB,
                max_position_embeddings=CONTEXT, projection_dim=EMBED, bos_token_id=VOCAB - 2, pad_token_id=0)  # fmt: skip
    feature = lambda o: o if isinstance(o, torch.Tensor) else o.pooler_output

    def both(name, vision, text, ids=None, **save):
        case = Case(out, name)
        model = disturb(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=EMBED)))
        if save.pop("half", False):
            model = model.half()
        model.save_pretrained(case.folder, **save)
        model = model.float()
        features(
            case,
            lambda px: feature(model.get_image_features(pixel_values=px)),
            lambda ids: feature(model.get_text_features(input_ids=ids)),
            ids=ids,
        )
        case.save()

    both("transformers", {**vision, "layer_norm_eps": 1e-3, "hidden_act": "gelu"},
         {**text, "eos_token_id": 5, "layer_norm_eps": 1e-2, "hidden_act": "gelu_pytorch_tanh"}, ids=tokens(4, end=5))  # fmt: skip
    both("transformers-sharded", vision, {**text, "eos_token_id": 2}, half=True, max_shard_size="60KB")

    case = Case(out, "transformers-vision")
    model = disturb(CLIPVisionModelWithProjection(CLIPVisionConfig(**{**vision, "hidden_act": "gelu"})))
    model.save_pretrained(case.folder)
    features(case, lambda px: model(pixel_values=px).image_embeds)
    case.save()

    case = Case(out, "transformers-text")
    model = disturb(CLIPTextModelWithProjection(CLIPTextConfig(**{**text, "hidden_act": "gelu", "eos_token_id": VOCAB - 1})))
    model.save_pretrained(case.folder)
    features(case, text=lambda ids: model(input_ids=ids).text_embeds)
    case.save()


# --- real sizes ---

# Name: (kind, arguments); layers are cut where two copies would need too much memory.
REAL = {
    "RN50": ("openai", dict(layers=(3, 4, 6, 3), width=64, size=224, embed=1024, text=512)),
    "RN101": ("openai", dict(layers=(3, 4, 23, 3), width=64, size=224, embed=512, text=512)),
    "RN50x4": ("openai", dict(layers=(4, 6, 10, 6), width=80, size=288, embed=640, text=640)),
    "RN50x16": ("openai", dict(layers=(6, 8, 18, 8), width=96, size=384, embed=768, text=768)),
    "RN50x64": ("openai", dict(layers=(3, 15, 36, 10), width=128, size=448, embed=1024, text=1024)),
    "ViT-L/14@336px": ("openai", dict(layers=24, width=1024, size=336, patch=14, embed=768, text=768)),
    "ViT-B-32": ("openclip", None),
    "ViT-B-32-quickgelu": ("openclip", None),
    "ViT-B-16-plus-240": ("openclip", None),
    "ViT-H-14": ("openclip", 8),
    "ViT-g-14": ("openclip", 8),
    "ViT-bigG-14": ("openclip", 6),
}


def real(name, out):
    case = Case(out, ".")
    kind, args = REAL[name]
    if kind == "openai":
        with torch.no_grad():
            model = openai_model(**args, vocab=49408, context=77, text_layers=12)
            torch.save(model.state_dict(), case.folder / "clip.pt")
            features(case, model.encode_image, model.encode_text, args["size"], tokens(4, 77, 49408))
    else:
        import open_clip

        config = open_clip.get_model_config(name)
        if args:
            config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = args
        model = openclip_model(config)
        (case.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        torch.save(model.state_dict(), case.folder / "clip.pt")
        openclip_features(case, model, config["vision_cfg"]["image_size"], tokens(4, 77, 49408))
    case.save()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--real", choices=REAL)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(1)
    if args.real:
        real(args.real, args.out)
        return
    openai(args.out)
    openclip(args.out)
    transformers(args.out)
    import open_clip
    import transformers as hf

    # What open_clip's own configurations say, for the names that cyclecap knows.
    names = [n for n in open_clip.list_models() if n.startswith(("ViT-", "RN")) and not set(open_clip.get_model_config(n)["text_cfg"]) & {"hf_model_name", "hf_tokenizer_name"}]  # fmt: skip
    configs = {n: open_clip.get_model_config(n) for n in names}
    (args.out / "open_clip_models.json").write_text(json.dumps(configs, indent=1) + "\n")
    facts = {"cpu": cpu(), "threads": 2, "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__, "transformers": hf.__version__}}  # fmt: skip
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
