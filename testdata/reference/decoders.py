"""Writes decoders as people hold them, with random weights, and the captions that
Python decodes with them, for the tests of pipeline to compare the Go code with.

    decoders.py --size small|real --out DIR

small: a few hundred kilobytes each, committed (pipeline/testdata/decoders).
real: the published sizes (2 GB); go test ./pipeline -run TestDecoders -decoders DIR

- beam search: transformers' generate(num_beams=…) with every early_stopping and
  several length penalties, stop tokens and lengths;
- ClipCap's and CapDec's forms: a whole model with an MLP mapper, a transformer mapper
  on features of CLIP RN50x4's width, a mapper whose MLPs have another ratio;
- DeCap: a linear layer and a GPT-2 of four layers with four heads, whose config is a
  pickle, with CLIP's tokenizer.
"""

import argparse
import json
import os
import pathlib
import pickle
import platform

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from clip.simple_tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

import models
from models import cpu

SIZES = {
    "small": dict(width=64, heads=1, layers=1, vocab=260, positions=32, features=64, wide=80, prefix=3, length=2, mapper_layers=1, photos=5, tokens=12),
    "real": dict(width=768, heads=12, layers=12, vocab=50257, positions=1024, features=512, wide=640, prefix=10, length=40, mapper_layers=8, photos=2, tokens=20),
}  # fmt: skip


def language_model(s, layers, heads, scale=6):
    """A GPT-2 whose next token depends on every token before it, the surer the larger
    the scale of its weights."""
    config = GPT2Config(
        vocab_size=s["vocab"], n_positions=s["positions"], n_embd=s["width"], n_layer=layers, n_head=heads,
        resid_pdrop=0.1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale) if p.dim() == 2 else p.add_(torch.randn_like(p) * 0.05)
        if s["width"] > 64:
            # At this width, such a factor makes one token nearly certain.
            model.transformer.wte.weight.div_(scale)
    return model


def old_buffers(state, layers, positions):
    """The buffers that older versions of transformers saved."""
    for i in range(layers):
        state[f"transformer.h.{i}.attn.bias"] = torch.ones(positions, positions, dtype=torch.uint8).tril()[None, None]
        state[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


def prefixed(prefix, state):
    return {prefix + k: v for k, v in state.items()}


def unit(x):
    return x / x.norm(2, -1, keepdim=True)


def beams(gpt, prefix, tokens, few):
    """All beams of generate for many settings, or for few."""
    out = []
    mask = torch.ones(prefix.shape[:2], dtype=torch.int64)

    def generate(k, **settings):
        got = gpt.generate(
            inputs_embeds=prefix, attention_mask=mask, do_sample=False, num_beams=k, num_return_sequences=k,
            pad_token_id=0, return_dict_in_generate=True, output_scores=True, **settings,
        )  # fmt: skip
        return got.sequences.view(len(prefix), k, -1).tolist(), got.sequences_scores.view(len(prefix), k).tolist()

    free = torch.tensor(generate(5, max_new_tokens=tokens, eos_token_id=None)[0])
    ranked = free.flatten().bincount().argsort(descending=True).tolist()
    for stop in (None, ranked[6]) if few else (None, *ranked[:3], ranked[6]):
        for early in (False, True, "never"):
            for penalty in (1.0, 2.0) if few else (1.0, 0.0, 0.7, 2.0, -1.0):
                for k, most in ((5, tokens),) if few else ((5, tokens), (2, tokens), (3, 2)):
                    if most == 2 and penalty != 1.0 or stop is None and (early or penalty != 1.0):
                        continue
                    ids, scores = generate(k, max_new_tokens=most, eos_token_id=stop, early_stopping=early, length_penalty=penalty)
                    if stop is not None:  # what follows the stop token is padding
                        ids = [[b[: b.index(stop) + 1] if stop in b else b for b in photo] for photo in ids]
                    out.append(dict(
                        stop=-1 if stop is None else stop, early=str(early).lower(), penalty=penalty, beams=k, tokens=most,
                        ids=ids, scores=scores,
                    ))  # fmt: skip
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(12)
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)
    s = SIZES[args.size]
    tensors, decoders = {}, []

    gpt = language_model(s, s["layers"], s["heads"])
    save_file({k: v for k, v in gpt.state_dict().items() if k != "lm_head.weight"}, args.out / "gpt2.safetensors")
    # Captions end early and late where no token is sure.
    unsure = language_model(s, s["layers"], s["heads"], 3)
    save_file({k: v for k, v in unsure.state_dict().items() if k != "lm_head.weight"}, args.out / "beams.safetensors")
    tensors["prefix"] = torch.randn(s["photos"], s["prefix"], s["width"])
    searches = beams(unsure, tensors["prefix"], s["tokens"], args.size == "real")

    def add(file, mapper, features, normalize, gpt2, captions):
        features = torch.randn(s["photos"], features) * 3
        prefix = mapper(unit(features) if normalize else features)
        name = file.partition(".")[0]
        tensors[name + "_features"], tensors[name + "_prefix"] = features, prefix
        ids = [captions(p[None]) for p in prefix]
        decoders.append(dict(file=file, gpt2=gpt2, normalize=normalize, ids=ids))
        return ids

    clipcap = lambda model: lambda prefix: models.nucleus_greedy(model, prefix, s["tokens"], 13)
    width, layers, n = s["width"], s["mapper_layers"], s["length"]

    mlp = models.MLPMapper(s["features"], width, s["prefix"])
    torch.save({**prefixed("clip_project.", mlp.state_dict()), **prefixed("gpt.", old_buffers(gpt.state_dict(), s["layers"], s["positions"]))}, args.out / "mlp_whole.pt")
    add("mlp_whole.pt", mlp, s["features"], False, "", clipcap(gpt))

    for name, ratio in (("transformer_wide", 2), ("transformer_ratio", 3)):
        mapper = models.TransformerMapper(s["wide"], width, n, n, layers, ratio=ratio)
        torch.save(prefixed("clip_project.", mapper.state_dict()), args.out / f"{name}.pt")
        add(f"{name}.pt", mapper, s["wide"], True, "gpt2.safetensors", clipcap(gpt))

    decap = language_model(s, 4 if args.size == "real" else 2, 4)
    linear = models.LinearMapper(s["features"], width)
    state = old_buffers(decap.state_dict(), decap.config.n_layer, s["positions"])
    torch.save({**prefixed("decoder.", state), **prefixed("clip_project.", linear.state_dict())}, args.out / "decap.pt")
    (args.out / "decoder_config.pkl").write_bytes(pickle.dumps(decap.config))
    # The small vocabulary does not contain <|endoftext|>.
    ids = add("decap.pt", linear, s["features"], True, "", lambda prefix: models.greedy(decap, prefix, min(30, s["tokens"]), 49407))
    clip = SimpleTokenizer()
    strip = lambda text: text.replace("<|startoftext|>", "").replace("<|endoftext|>", "")
    known = lambda list: [i for i in list if i in clip.decoder]
    spoken = [[49406, *clip.encode("A man riding a wave on top of a surfboard."), 49407], [49406, *clip.encode("it's 5 o'clock, café"), 49407], *map(known, ids)]

    facts = dict(
        size=args.size, threads=2, cpu=cpu(), beams=searches, decoders=decoders,
        decap_texts=[dict(ids=ids, text=strip(clip.decode(ids))) for ids in spoken],
        versions={"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
    )  # fmt: skip
    save_file({k: v.contiguous() for k, v in tensors.items()}, args.out / "expected.safetensors")
    (args.out / "expected.json").write_text(json.dumps(facts, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
