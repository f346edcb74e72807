"""Writes random weights in the form in which the real packages store them, and the
arguments with which record_reference.py and `cyclecap verify` take them.

    zoo.py NAME OUT [--size small|real] [--seed N]
    zoo.py --list

OUT gets the weights and arguments.json. A model is a function below with @entry.
"""

import argparse
import functools
import json
import os
import pathlib
import pickle

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import make
import models

ENTRIES = {}
SMALL = []  # the entries with a small size: one of each kind


def entry(f):
    """A model with both sizes."""
    name = f.__name__.replace("_", "-")
    ENTRIES[name] = f
    SMALL.append(name)
    return f


def entries(names, small):
    """A function of the name, for models of the real size; the first one is also made small."""

    def add(f):
        for name in names:
            ENTRIES[name] = functools.partial(f, name)
        SMALL.append(small)
        return f

    return add


def shake(model, scale=1.0):
    """Moves what is 0 or 1 in fresh weights, where a mix-up would not show."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.05)
            elif p.dim() == 2 and scale != 1:
                p.mul_(scale)
    return model


def openai_state(s):
    return openai_clip((
        s["embed"], s["image"], s["layers"], s["vision"], s["patch"],
        s["context"], s["vocab"], s["text"], s["text"] // 64, s["layers"],
    ))  # fmt: skip


def openai_clip(sizes):
    """OpenAI's CLIP of the arguments of its class, in f32."""
    import clip.model as openai

    model = shake(openai.CLIP(*sizes).eval().float())
    with torch.no_grad():  # a ResNet's running statistics
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(torch.randn_like(b) * 0.05)
            elif name.endswith("running_var"):
                b.mul_(torch.rand_like(b) + 0.5)
    return model


def archive(model, path):
    """The released form: TorchScript in f16, with three numbers as buffers."""
    import clip.model as openai

    visual, vocab = model.visual.input_resolution, model.vocab_size
    half = openai.build_model({k: v.clone() for k, v in model.state_dict().items()}).eval()
    for key, value in (("input_resolution", visual), ("context_length", model.context_length), ("vocab_size", vocab)):
        if hasattr(half, key):
            delattr(half, key)
        half.register_buffer(key, torch.tensor(value))
    torch.jit.save(make.script_archive(half), str(path))


def gpt2_folder(out, s, width=None):
    """GPT-2 with larger weights, so that every token depends on those before it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    width = width or s["gpt"]
    config = GPT2Config(
        vocab_size=s["gpt_vocab"], n_positions=s["positions"], n_embd=width,
        n_layer=s["gpt_layers"], n_head=width // 64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    shake(model.transformer.h, 5)
    with torch.no_grad():
        model.transformer.wte.weight[s["stop"]].mul_(2)  # the stop token comes up now and then
    model.save_pretrained(out / "gpt2")
    return "gpt2"


def decoder_file(out, mapper):
    torch.save({f"clip_project.{k}": v for k, v in shake(mapper).state_dict().items()}, out / "decoder.pt")
    return "decoder.pt"


@entry
def openai_vit_b_32(out, s):
    """OpenAI's TorchScript archive in f16, and ClipCap's MLP mapper."""
    archive(openai_state(s), out / "clip.pt")
    mapper = models.MLPMapper(s["embed"], s["gpt"], min(s["prefix"], 10))
    return {"clip-package": "openai", "clip": "clip.pt", "decoder": decoder_file(out, mapper), "gpt2": gpt2_folder(out, s)}


@entry
def transformers_vit_b_32(out, s):
    """transformers' CLIP, ClipCap's transformer mapper and a generator."""
    from transformers import CLIPModel

    shake(CLIPModel(models.transformers_clip(s))).save_pretrained(out / "clip")
    mapper = models.TransformerMapper(s["embed"], s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"])
    torch.save(models.generator(s["embed"]).state_dict(), out / "generator.pt")
    return {
        "clip-package": "transformers", "clip": "clip", "decoder": decoder_file(out, mapper),
        "gpt2": gpt2_folder(out, s), "generator": "generator.pt",
    }  # fmt: skip


@entry
def open_clip_vit_b_32(out, s):
    """A folder of open_clip's with plain GELU, as LAION's weights have, alone."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": s["embed"],
        "vision_cfg": {"image_size": s["image"], "layers": s["layers"], "width": s["vision"], "patch_size": s["patch"]},
        "text_cfg": {
            "context_length": s["context"], "vocab_size": s["vocab"], "width": s["text"],
            "heads": s["text"] // 64, "layers": s["layers"],
        },
    }  # fmt: skip
    folder = out / "clip"
    folder.mkdir()
    save_file(shake(open_clip.CLIP(**config)).state_dict(), folder / "open_clip_model.safetensors")
    # Without preprocess_cfg, open_clip takes OpenAI's.
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return {"clip-package": "open_clip", "clip": "clip"}


# The arguments of OpenAI's class CLIP: embed_dim, image_resolution, vision_layers, vision_width,
# vision_patch_size, context_length, vocab_size, transformer_width, transformer_heads, transformer_layers.
OPENAI = {
    "openai-rn50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "openai-rn101": (512, 224, (3, 4, 23, 3), 64, None, 77, 49408, 512, 8, 12),
    "openai-rn50x4": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
    "openai-rn50x16": (768, 384, (6, 8, 18, 8), 96, None, 77, 49408, 768, 12, 12),
    "openai-rn50x64": (1024, 448, (3, 15, 36, 10), 128, None, 77, 49408, 1024, 16, 12),
    "openai-vit-b-16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "openai-vit-l-14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "openai-vit-l-14-336": (768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12),
}
SMALL_RESNET = (64, 64, (1, 1, 1, 1), 16, None, 16, 256, 64, 1, 1)


@entries(OPENAI, "openai-rn50x4")
def openai(name, out, s):
    """OpenAI's archives. With RN50x4 comes what ClipCap publishes for it: a transformer mapper
    for features of width 640."""
    small = s["gpt"] == 64
    archive(openai_clip(SMALL_RESNET if small else OPENAI[name]), out / "clip.pt")
    if name != "openai-rn50x4":
        return {"clip-package": "openai", "clip": "clip.pt"}
    width = SMALL_RESNET[0] if small else OPENAI[name][0]
    mapper = models.TransformerMapper(width, s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"])
    return {"clip-package": "openai", "clip": "clip.pt", "decoder": decoder_file(out, mapper), "gpt2": gpt2_folder(out, s)}


# Names of open_clip's models, and the number of layers of both encoders (0: all): the largest do
# not fit into memory twice.
OPEN_CLIP = {
    "open-clip-vit-b-32-quickgelu": ("ViT-B-32-quickgelu", 0),
    "open-clip-vit-b-16-plus-240": ("ViT-B-16-plus-240", 0),
    "open-clip-vit-h-14": ("ViT-H-14", 8),
    "open-clip-vit-g-14": ("ViT-g-14", 8),
    "open-clip-vit-bigg-14": ("ViT-bigG-14", 6),
}


@entries(OPEN_CLIP, "open-clip-vit-h-14")
def open_clip_named(name, out, s):
    """open_clip's checkpoint of a training (state_dict, module.) with its configuration beside it.
    The small one has heads of 80 and a wider MLP."""
    import open_clip

    name, layers = OPEN_CLIP[name]
    config = open_clip.get_model_config(name)
    config.pop("custom_text", None)
    parts = config["vision_cfg"], config["text_cfg"]
    if s["gpt"] == 64:
        config["embed_dim"] = 64
        parts[0].update(image_size=32, patch_size=8, width=160, head_width=80, mlp_ratio=4.5)
        parts[1].update(context_length=16, vocab_size=256, width=64, heads=4)
        layers = 2
    for part in parts if layers else ():
        part["layers"] = layers
    model = shake(open_clip.CLIP(**config))
    folder = out / "clip"
    folder.mkdir()
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"epoch": 32, "name": name, "state_dict": state}, folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return {"clip-package": "open_clip", "clip": "clip"}


@entry
def siglip_base(out, s):
    """transformers' SigLIP, patches of 16 and photos of 224 pixels."""
    from transformers import SiglipConfig, SiglipModel

    small = s["gpt"] == 64
    part = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4) if small else {}
    config = SiglipConfig(
        vision_config=dict(part, image_size=32, patch_size=8) if small else {"patch_size": 16},
        text_config=dict(part, vocab_size=300, max_position_embeddings=16, projection_size=64, bos_token_id=0, eos_token_id=1) if small else {},
    )
    shake(SiglipModel(config).eval()).save_pretrained(out / "clip")
    size = config.vision_config.image_size
    (out / "clip" / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": size, "width": size},
        "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }))  # fmt: skip
    return {"clip-package": "transformers", "clip": "clip", "pil": "yes"}


@entry
def siglip2_base(out, s):
    """transformers' SigLIP 2, with photos of a fixed size and a tokenizer of Gemma's kind."""
    from transformers import SiglipConfig, SiglipModel

    small = s["gpt"] == 64
    folder = out / "clip"
    vocab = siglip2_tokenizer(folder, None if small else 256000)
    part = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4) if small else {}
    config = SiglipConfig(
        vision_config=dict(part, image_size=32, patch_size=8) if small else {"patch_size": 16},
        text_config=dict(part, vocab_size=vocab, projection_size=64 if small else 768),
    )
    SiglipModel(config).eval().save_pretrained(folder)
    size = config.vision_config.image_size
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "SiglipImageProcessor", "do_convert_rgb": None, "do_resize": True, "size": {"height": size, "width": size},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }))  # fmt: skip
    return {"clip-package": "transformers", "clip": "clip", "pil": "yes"}


def siglip2_tokenizer(folder, size):
    """Writes the tokenizer of data/tokenizer's tests, with unused tokens up to size, as
    Siglip2Tokenizer saves it. Returns the number of its tokens."""
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    trained = pathlib.Path(__file__).resolve().parents[2] / "data/tokenizer/testdata/siglip/siglip2"
    folder.mkdir()
    file = json.loads((trained / "tokenizer.json").read_text())
    vocab = file["model"]["vocab"]
    for i in range(len(vocab), size or 0):
        vocab[f"<unused{i}>"] = i
    (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text((trained / "tokenizer_config.json").read_text())
    tokenizer = Siglip2Tokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@entry
def transformers_vision(out, s):
    """The image encoder of transformers' CLIP alone."""
    from transformers import CLIPVisionModelWithProjection

    shake(CLIPVisionModelWithProjection(models.transformers_clip(s).vision_config)).save_pretrained(out / "clip")
    return {"clip-package": "transformers", "clip": "clip"}


@entry
def transformers_text(out, s):
    """The text encoder of transformers' CLIP alone."""
    from transformers import CLIPTextModelWithProjection

    shake(CLIPTextModelWithProjection(models.transformers_clip(s).text_config)).save_pretrained(out / "clip")
    return {"clip-package": "transformers", "clip": "clip"}


# Settings of GPT2Config.
GPT2 = {
    "gpt2-medium": dict(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": dict(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": dict(n_embd=1600, n_layer=48, n_head=25),
    "distilgpt2": dict(n_layer=6),
    "stanford-crfm": dict(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
    "cerebras": dict(n_embd=768, n_layer=10, n_inner=3072, activation_function="gelu", n_positions=2048),
    "untied": dict(tie_word_embeddings=False, n_layer=6),
}


@entries(GPT2, "stanford-crfm")
def gpt2_named(name, out, s):
    """GPT-2 of other sizes and settings, in shards where it is large."""
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = dict(GPT2[name])
    if s["gpt"] == 64:
        settings.update(vocab_size=s["gpt_vocab"], n_embd=96, n_layer=2, n_head=3, n_positions=s["positions"])
    model = GPT2LMHeadModel(GPT2Config(**settings, bos_token_id=0, eos_token_id=0)).eval()
    shake(model.transformer.h, 5)
    model.save_pretrained(out / "gpt2", max_shard_size="1GB")
    return {"gpt2": "gpt2"}


def clipcap_model(out, s, folder):
    """A whole model of ClipCap's, with the names of its tensors: MLP mapper, fine-tuned GPT-2 inside,
    old buffers."""
    from transformers import GPT2LMHeadModel

    state = dict(GPT2LMHeadModel.from_pretrained(out / folder).state_dict())
    for i in range(s["gpt_layers"]):
        state[f"transformer.h.{i}.attn.bias"] = torch.ones(s["positions"], s["positions"], dtype=torch.bool).tril()[None, None]
        state[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    mapper = shake(models.MLPMapper(s["embed"], s["gpt"], min(s["prefix"], 10)))
    return {f"clip_project.{k}": v for k, v in mapper.state_dict().items()} | {f"gpt.{k}": v for k, v in state.items()}


@entry
def clipcap_whole(out, s):
    """A whole model of ClipCap's."""
    folder = gpt2_folder(out, s)
    torch.save(clipcap_model(out, s, folder), out / "decoder.pt")
    return {"decoder": "decoder.pt", "gpt2": folder}


@entry
def capdec(out, s):
    """A whole model of CapDec's and the commandline_args.txt that its train.py writes, which says that
    features have length 1."""
    folder = gpt2_folder(out, s)
    torch.save(clipcap_model(out, s, folder), out / "coco_prefix-009.pt")
    (out / "commandline_args.txt").write_text(json.dumps({
        "data": "clip_embedding.pkl", "val_pt": "", "pretrain_weights": "", "out_dir": "./checkpoints", "add_modality_offset": False,
        "prefix": "coco_prefix", "noise_variance": 0.016, "uniform_noise": False, "dont_norm": False, "lr": 2e-05, "epochs": 10,
        "save_every": 1, "prefix_length": min(s["prefix"], 10), "prefix_length_clip": 40, "bs": 40, "only_prefix": False,
        "num_layers": 8, "is_not_rn": True, "use_image_embedding_as_clipcap": False,
    }, indent=2))  # fmt: skip
    archive(openai_state(s), out / "clip.pt")
    return {"clip-package": "openai", "clip": "clip.pt", "decoder": "coco_prefix-009.pt", "gpt2": folder}


@entry
def decap(out, s):
    """DeCap's checkpoint: a linear layer and a GPT-2 of four layers whose configuration is a pickle.
    Its tokens are CLIP's, its vocabulary has GPT-2's size."""
    from transformers import GPT2Config, GPT2LMHeadModel

    small = s["gpt"] == 64
    gpt = GPT2LMHeadModel(GPT2Config(
        vocab_size=s["gpt_vocab"], n_positions=s["positions"], n_embd=s["gpt"], n_layer=2 if small else 4, n_head=4,
    )).eval()  # fmt: skip
    shake(gpt.transformer.h, 5)
    stop = s["stop"] if small else 49407
    with torch.no_grad():
        gpt.transformer.wte.weight[stop].mul_(2)  # the stop token comes up now and then
        gpt.transformer.wte.weight[49408:].mul_(0.1)  # CLIP has no such tokens
    linear = shake(models.LinearMapper(s["embed"], s["gpt"]))
    state = {f"decoder.{k}": v for k, v in gpt.state_dict().items()}
    torch.save(state | {f"clip_project.{k}": v for k, v in linear.state_dict().items()}, out / "coco_prefix-009.pt")
    (out / "decoder_config.pkl").write_bytes(pickle.dumps(gpt.config))
    archive(openai_state(s), out / "clip.pt")
    return {"clip-package": "openai", "clip": "clip.pt", "decoder": "coco_prefix-009.pt", **({"stop": str(stop)} if small else {})}


@entry
def lightning(out, s):
    """Lightning's checkpoints of a CLIP with OpenAI's names and of a ClipCap model."""

    def save(state, path):
        torch.save({
            "epoch": 9, "global_step": 1000, "pytorch-lightning_version": "2.6.6", "state_dict": {f"model.{k}": v for k, v in state.items()},
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10, "completed": 9}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.5), "dirpath": "checkpoints"}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1000.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
            "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-4, "width": 64},
        }, path)  # fmt: skip

    (out / "clip").mkdir()
    save(openai_state(s).state_dict(), out / "clip/last.ckpt")
    # What the checkpoint cannot say itself: that it is OpenAI's.
    (out / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": {
        "embed_dim": s["embed"], "quick_gelu": True,
        "vision_cfg": {"image_size": s["image"], "layers": s["layers"], "width": s["vision"], "patch_size": s["patch"]},
        "text_cfg": {"context_length": s["context"], "vocab_size": s["vocab"], "width": s["text"], "heads": s["text"] // 64, "layers": s["layers"]},
    }}))  # fmt: skip
    folder = gpt2_folder(out, s)
    save(clipcap_model(out, s, folder), out / "last.ckpt")
    return {"clip-package": "openai", "clip": "clip/last.ckpt", "decoder": "last.ckpt", "gpt2": folder}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=ENTRIES)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--size", choices=make.SIZES, default="real")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.list:
        print("\n".join(ENTRIES if args.size == "real" else SMALL))
        return
    if args.out is None:
        parser.error("NAME and OUT are needed")
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    arguments = ENTRIES[args.name](args.out, make.SIZES[args.size])
    (args.out / "arguments.json").write_text(json.dumps(arguments, indent=1) + "\n")


if __name__ == "__main__":
    main()
