"""Writes random weights in the form in which the real packages store them, and the
arguments with which record_reference.py and `cyclecap verify` take them.

    zoo.py NAME OUT [--size small|real] [--seed N]
    zoo.py --list

OUT gets the weights and arguments.json. A model is a function below with @entry.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import make
import models

ENTRIES = {}


def entry(f):
    ENTRIES[f.__name__.replace("_", "-")] = f
    return f


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
    import clip.model as openai

    model = openai.CLIP(
        s["embed"], s["image"], s["layers"], s["vision"], s["patch"],
        s["context"], s["vocab"], s["text"], s["text"] // 64, s["layers"],
    )  # fmt: skip
    return shake(model.eval().float())


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
    import clip.model as openai

    model = openai_state(s)
    half = openai.build_model({k: v.clone() for k, v in model.state_dict().items()}).eval()
    for key, value in (("input_resolution", s["image"]), ("context_length", s["context"]), ("vocab_size", s["vocab"])):
        if hasattr(half, key):
            delattr(half, key)
        half.register_buffer(key, torch.tensor(value))
    torch.jit.save(make.script_archive(half), str(out / "clip.pt"))
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=ENTRIES)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--size", choices=make.SIZES, default="real")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.list:
        print("\n".join(ENTRIES))
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
