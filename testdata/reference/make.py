"""Writes random weights and what the real Python nets make of them, for
internal/parity to compare the Go code with.

    make.py --size small|real --seed N --out DIR [--photos DIR]

small: a few hundred kilobytes, committed as fixtures (internal/parity/testdata).
real: the sizes of the paper, for `make parity`.

Files: the weights in every format, expected.safetensors, expected.json.
"""

import argparse
import json
import os
import pathlib
import platform

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file

import models

SIZES = {
    "small": dict(
        embed=64, image=32, patch=8, vision=64, text=64, layers=2, vocab=256, context=16,
        gpt=64, gpt_layers=2, gpt_vocab=300, positions=64,
        clip_length=4, prefix=4, mapper_layers=2, features=3, tokens=16, stop=13,
        batch=4, gan=64, gan_batch=64, steps=20,
    ),
    "real": dict(
        embed=512, image=224, patch=32, vision=768, text=512, layers=12, vocab=49408, context=77,
        gpt=768, gpt_layers=12, gpt_vocab=50257, positions=1024,
        clip_length=40, prefix=40, mapper_layers=8, features=2, tokens=12, stop=13,
        batch=2, gan=512, gan_batch=64, steps=20,
    ),
}  # fmt: skip


class Out:
    def __init__(self, folder):
        self.folder, self.tensors, self.facts = folder, {}, {}

    def add(self, name, tensor):
        self.tensors[name] = tensor.detach().clone().contiguous()

    def save(self):
        save_file(self.tensors, self.folder / "expected.safetensors")
        (self.folder / "expected.json").write_text(json.dumps(self.facts, indent=1, sort_keys=True) + "\n")


def pixels(size, photos, count):
    """OpenAI's preprocessing of photos, or noise where none are given."""
    if photos is None:
        return torch.randn(count, 3, size, size), []
    from PIL import Image
    from torchvision import transforms as T

    pre = T.Compose([
        T.Resize(size, interpolation=T.InterpolationMode.BICUBIC),
        T.CenterCrop(size),
        lambda image: image.convert("RGB"),
        T.ToTensor(),
        T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    paths = sorted(photos.glob("*.jpg"))
    return torch.stack([pre(Image.open(p)) for p in paths]), [p.name for p in paths]


def texts(s, count):
    ids = torch.zeros(count, s["context"], dtype=torch.int64)
    start, end = s["vocab"] - 2, s["vocab"] - 1
    for row in ids:
        n = int(torch.randint(2, s["context"] - 2, ()))
        row[0], row[n + 1] = start, end
        row[1 : n + 1] = torch.randint(1, start, (n,))
    return ids


def clip(out, s, photos):
    import clip.model as openai
    from transformers import CLIPModel

    # Heads of 64 everywhere, as in all of OpenAI's.
    seed = int(torch.randint(0, 2**31, ()))
    out.facts["clip_seed"] = seed
    torch.manual_seed(seed)
    model = openai.CLIP(
        s["embed"], s["image"], s["layers"], s["vision"], s["patch"],
        s["context"], s["vocab"], s["text"], s["text"] // 64, s["layers"],
    )  # fmt: skip
    model.eval().float()
    torch.save(model.state_dict(), out.folder / "clip-init.pt")
    # Fresh weights leave biases at 0 and norms at 1, where a mix-up would not show.
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.05)
    torch.save(model.state_dict(), out.folder / "clip.pt")

    # What clip.pt cannot say itself: that it is OpenAI's.
    (out.folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {
        "embed_dim": s["embed"], "quick_gelu": True,
        "vision_cfg": {"image_size": s["image"], "layers": s["layers"], "width": s["vision"], "patch_size": s["patch"]},
        "text_cfg": {"context_length": s["context"], "vocab_size": s["vocab"], "width": s["text"], "heads": s["text"] // 64, "layers": s["layers"]},
    }}) + "\n")  # fmt: skip

    px, names = pixels(s["image"], photos, 4)
    out.facts["photos"] = names
    out.add("pixels", px)
    ids = texts(s, 6)
    out.add("text_ids", ids)
    with torch.no_grad():
        out.add("openai_image", model.encode_image(px))
        out.add("openai_image_1", model.encode_image(px[:1]))
        out.add("openai_text", model.encode_text(ids))
        out.add("openai_text_1", model.encode_text(ids[:1]))

    # The released archive's form: TorchScript, half precision, three numbers as buffers.
    class Archive(torch.nn.Module):
        pass

    half = openai.build_model({k: v.clone() for k, v in model.state_dict().items()}).eval()
    for key, value in (("input_resolution", s["image"]), ("context_length", s["context"]), ("vocab_size", s["vocab"])):
        if not hasattr(half, key) or not isinstance(getattr(half, key), torch.Tensor):
            if hasattr(half, key):
                delattr(half, key)
            half.register_buffer(key, torch.tensor(value))
    traced = torch.jit.trace(
        half.visual, torch.zeros(1, 3, s["image"], s["image"], dtype=torch.float16), check_trace=False
    )
    for name in ("visual",):
        delattr(half, name)
        setattr(half, name, traced)
    archive = script_archive(half)
    torch.jit.save(archive, str(out.folder / "clip-archive.pt"))
    state = torch.jit.load(str(out.folder / "clip-archive.pt")).state_dict()
    out.facts["archive_names"] = sorted(state)
    with torch.no_grad():
        f = openai.CLIP(
            s["embed"], s["image"], s["layers"], s["vision"], s["patch"],
            s["context"], s["vocab"], s["text"], s["text"] // 64, s["layers"],
        ).float().eval()  # fmt: skip
        f.load_state_dict({k: v.float() for k, v in state.items() if v.dim() or k == "logit_scale"}, strict=True)
        out.add("archive_image", f.encode_image(px[:4]))
        out.add("archive_text", f.encode_text(ids))

    # transformers' CLIP with weights of its own.
    hf = CLIPModel(models.transformers_clip(s)).eval()
    with torch.no_grad():
        for p in hf.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.05)
    hf.save_pretrained(out.folder / "clip-transformers")
    feature = lambda o: o if isinstance(o, torch.Tensor) else o.pooler_output
    with torch.no_grad():
        out.add("transformers_image", feature(hf.get_image_features(pixel_values=px)))
        out.add("transformers_image_1", feature(hf.get_image_features(pixel_values=px[:1])))
        out.add("transformers_text", feature(hf.get_text_features(input_ids=ids)))
        out.add("transformers_text_1", feature(hf.get_text_features(input_ids=ids[:1])))


def script_archive(model):
    """A TorchScript module with a model's tensors and names; it need not run,
    since a loader only looks at its state dict."""

    class Holder(torch.nn.Module):
        def forward(self):
            return 0

    def hold(module):
        if isinstance(module, torch.jit.ScriptModule):
            return module
        h = Holder()
        for name, p in module._parameters.items():
            h.register_parameter(name, None if p is None else torch.nn.Parameter(p.detach().clone(), requires_grad=False))
        for name, b in module._buffers.items():
            h.register_buffer(name, b)
        for name, child in module._modules.items():
            h.add_module(name, hold(child))
        return h

    return torch.jit.script(hold(model))


def gpt2(out, s):
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    seed = int(torch.randint(0, 2**31, ()))
    out.facts["gpt2_seed"] = seed
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=s["gpt_vocab"], n_positions=s["positions"], n_embd=s["gpt"],
        n_layer=s["gpt_layers"], n_head=s["gpt"] // 64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(out.folder / "gpt2-init")
    with torch.no_grad():
        for block in model.transformer.h:
            for p in block.parameters():
                # Larger weights make every token depend on all before it; small biases show mix-ups.
                p.mul_(5) if p.dim() == 2 else p.add_(torch.randn_like(p) * 0.05)
        # The stop token comes up now and then.
        model.transformer.wte.weight[s["stop"]].mul_(2)
    model.save_pretrained(out.folder / "gpt2")
    old = {k: v for k, v in model.state_dict().items()}
    for i in range(s["gpt_layers"]):
        old[f"transformer.h.{i}.attn.bias"] = torch.ones(s["positions"], s["positions"], dtype=torch.bool).tril()[None, None]
        old[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(old, out.folder / "gpt2-old.bin", _use_new_zipfile_serialization=False)
    embeds = torch.randn(4, s["prefix"] + 3, s["gpt"])
    ids = torch.randint(0, s["gpt_vocab"], (4, 6))
    out.add("gpt2_embeds", embeds)
    out.add("gpt2_ids", ids)
    with torch.no_grad():
        # Few rows of the large logits are kept.
        out.add("gpt2_logits_embeds", model(inputs_embeds=embeds).logits[:, -2:])
        out.add("gpt2_logits_embeds_1", model(inputs_embeds=embeds[:1]).logits[:, -2:])
        out.add("gpt2_logits_ids", model(input_ids=ids).logits[:, -2:])
        cache = DynamicCache(config=config)
        model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        for i in range(ids.shape[1]):
            last = model(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True)
        out.add("gpt2_logits_cache", last.logits)
    return model


def clipcap(out, s, gpt):
    seed = int(torch.randint(0, 2**31, ()))
    out.facts["mapper_seed"] = seed
    torch.manual_seed(seed)
    mapper = models.TransformerMapper(s["embed"], s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"]).eval()
    named = {f"clip_project.{k}": v for k, v in mapper.state_dict().items()}
    torch.save(named, out.folder / "decoder.pt")
    small_gpt = {f"gpt.{k}": v for k, v in torch.load(out.folder / "gpt2-old.bin", weights_only=True).items()}
    torch.save({**named, **small_gpt}, out.folder / "decoder-whole.pt")
    mlp = models.MLPMapper(s["embed"], s["gpt"], min(s["prefix"], 10)).eval()
    torch.save({f"clip_project.{k}": v for k, v in mlp.state_dict().items()}, out.folder / "decoder-mlp.pt")

    features = torch.randn(s["features"], s["embed"])
    out.add("features", features)
    with torch.no_grad():
        prefix = mapper(features)
        out.add("mapper_prefix", prefix)
        out.add("mapper_prefix_1", mapper(features[:1]))
        out.add("mlp_prefix", mlp(features))
        greedy = gpt.generate(
            inputs_embeds=prefix, attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            do_sample=False, max_new_tokens=s["tokens"], eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        out.facts["generate_greedy"] = greedy.tolist()
        beams = gpt.generate(
            inputs_embeds=prefix, attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            do_sample=False, num_beams=5, max_new_tokens=s["tokens"], eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        out.facts["generate_beam"] = beams.tolist()
        # The most frequent greedy token as the stop token, besides the configured one, makes beams end early.
        common = greedy.flatten().mode().values.item()
        out.facts["stops"] = [s["stop"], common]
        for stop in out.facts["stops"]:
            out.facts[f"clipcap_greedy_{stop}"] = [models.nucleus_greedy(gpt, p[None], s["tokens"], stop) for p in prefix]
            searched = [models.beam_search(gpt, p[None], 5, s["tokens"], stop) for p in prefix]
            out.facts[f"clipcap_beam_{stop}"] = [[ids for ids, _ in beams] for beams in searched]
            out.facts[f"clipcap_beam_scores_{stop}"] = [[score for _, score in beams] for beams in searched]

    # 20 steps of the mapper's training.
    tokens = torch.randint(1, s["gpt_vocab"], (s["steps"], s["batch"], 12))
    for row in tokens.view(-1, 12):
        row[int(torch.randint(5, 13, ())) :] = 0
    inputs = torch.randn(s["steps"], s["batch"], s["embed"])
    out.add("train_tokens", tokens)
    out.add("train_features", inputs)
    losses, gradients = models.train_decoder(mapper, gpt, list(zip(inputs, tokens)), lr=1e-4, warmup=5)
    out.facts["train_lr"], out.facts["train_warmup"] = 1e-4, 5
    out.add("train_losses", torch.tensor(losses, dtype=torch.float64))
    save_file({k: v.contiguous() for k, v in gradients.items()}, out.folder / "decoder-gradients.safetensors")
    save_file({k: v.contiguous() for k, v in mapper.state_dict().items()}, out.folder / "decoder-trained.safetensors")


def cyclegan(out, s):
    width = s["gan"]
    data = torch.randn(s["steps"], 2, s["gan_batch"], width)
    out.add("gan_data", data)
    seed = int(torch.randint(0, 2**31, ()))
    out.facts["gan_seed"] = seed
    torch.manual_seed(seed)
    nets = [models.generator(width), models.generator(width), models.discriminator(width), models.discriminator(width)]
    parts = ("to_text", "to_image", "text_disc", "image_disc")
    save = lambda file: save_file(
        {f"{part}.{k}": v.contiguous() for part, net in zip(parts, nets) for k, v in net.state_dict().items()},
        out.folder / file,
    )
    save("gan-init.safetensors")
    torch.save(nets[0].state_dict(), out.folder / "generator.pt")
    with torch.no_grad():
        out.add("gan_output", nets[0](data[0, 0]))
    losses = models.train_cyclegan(nets, data)
    out.add("gan_losses", torch.tensor(losses, dtype=torch.float64))
    save("gan-trained.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    s = SIZES[args.size]
    out = Out(args.out)
    clip(out, s, args.photos)
    gpt = gpt2(out, s)
    clipcap(out, s, gpt)
    cyclegan(out, s)
    import transformers

    out.facts.update(
        size=args.size, seed=args.seed, threads=args.threads, cpu=models.cpu(), sizes=s,
        versions={"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
    )  # fmt: skip
    out.save()


if __name__ == "__main__":
    main()
