#!/usr/bin/env python3
"""Records what Python computes with your weights, photos and texts, in one file that
`cyclecap verify` compares itself with.

    python record_reference.py reference.safetensors --clip-package openai --clip ViT-B-32.pt \\
        --decoder coco_weights.pt --gpt2 gpt2/ --photos photos/ --texts captions.txt

It needs PyTorch, NumPy and the packages that run the models: OpenAI's clip, open_clip or
transformers for CLIP, and transformers for GPT-2. ClipCap and DeCap have no packages, so this
script contains their rules; --clipcap-code uses a clone of ClipCap's repository instead. Any part
may be left out. What follows a part that is left out, or needs photos or texts that are not
given, is computed from random inputs, which are recorded too.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import pickle
import platform
import sys
import types

for key, value in {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}.items():
    os.environ.setdefault(key, value)

import torch
from torch import nn
from torch.nn import functional as F

# MKL's first call of a vector function (exp, log, ...) can be wrong by 1e-5 if it comes from two threads.
# This one comes from one thread, also for the scripts that import this one.
torch.ones(1).exp()

VERSION = 1  # of the file's layout
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Of large tensors, such as gradients and outputs of layers, the file has about this many elements.
SAMPLE = 4096
TEXTS = [
    "a photo of a cat",
    "A man riding a wave on top of a surfboard.",
    "two dogs play in the snow",
    "a plate of food with broccoli, rice and 3 pieces of chicken",
]


# ClipCap (Mokady et al. 2021): the mappers, with the names of its checkpoints, its decoding
# and its loss.


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x):
        n, t, d = x.shape
        head = d // self.heads
        q = self.to_queries(x).reshape(n, t, self.heads, head)
        kv = self.to_keys_values(x).reshape(n, t, 2, self.heads, head)
        weights = (torch.einsum("bnhd,bmhd->bnmh", q, kv[:, :, 0]) * head**-0.5).softmax(dim=2)
        return self.project(torch.einsum("bnmh,bmhd->bnhd", weights, kv[:, :, 1]).reshape(n, t, d))


class MLP(nn.Module):
    def __init__(self, width, ratio):
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, width, heads, ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, ratio)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Layers(nn.Module):
    def __init__(self, width, heads, layers, ratio):
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, heads, ratio) for _ in range(layers)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class TransformerMapper(nn.Module):
    def __init__(self, feature, width, clip_length, prefix_length, layers, heads=8, ratio=2):
        super().__init__()
        self.clip_length = clip_length
        self.transformer = Layers(width, heads, layers, ratio)
        self.linear = nn.Linear(feature, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))

    def forward(self, features):
        n = features.shape[0]
        x = self.linear(features).view(n, self.clip_length, -1)
        constants = self.prefix_const.unsqueeze(0).expand(n, *self.prefix_const.shape)
        return self.transformer(torch.cat((x, constants), dim=1))[:, self.clip_length :]


class MLPMapper(nn.Module):
    def __init__(self, feature, width, prefix_length):
        super().__init__()
        self.width = width
        hidden = width * prefix_length // 2
        self.model = nn.Sequential(nn.Linear(feature, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix_length))

    def forward(self, features):
        return self.model(features).view(features.shape[0], -1, self.width)


def nucleus_greedy(gpt, embeds, length, stop, top_p=0.8):
    """ClipCap's generate2 for one prefix: keep the nucleus, take the best."""
    ids = []
    for _ in range(length):
        logits = gpt(inputs_embeds=embeds).logits[:, -1, :]
        ranked, order = torch.sort(logits, descending=True)
        outside = F.softmax(ranked, dim=-1).cumsum(dim=-1) > top_p
        outside = torch.cat((torch.zeros_like(outside[:, :1]), outside[:, :-1]), dim=1)
        logits[0, order[outside]] = -float("inf")
        ids.append(int(logits.argmax(-1)))
        if ids[-1] == stop:
            break
        embeds = torch.cat((embeds, gpt.transformer.wte(torch.tensor([ids[-1:]], device=embeds.device))), dim=1)
    return ids


def beam_search(gpt, embeds, beams, length, stop):
    """ClipCap's generate_beam for one prefix: (ids, score) of each beam, best
    first. Beams are ranked by their average log-probability; one that has
    ended is padded with token 0 at no cost; the search ends with the last."""
    scores = tokens = None
    lengths = torch.ones(beams, device=embeds.device)
    ended = torch.zeros(beams, dtype=torch.bool, device=embeds.device)
    for _ in range(length):
        logp = gpt(inputs_embeds=embeds).logits[:, -1, :].softmax(-1).log()
        if tokens is None:
            best, new = logp.topk(beams, -1)
            scores, tokens = best[0], new.view(beams, 1)
            new = tokens
            embeds = embeds.expand(beams, -1, -1)
        else:
            logp[ended] = -float("inf")
            logp[ended, 0] = 0
            total = scores[:, None] + logp
            lengths[~ended] += 1
            average = total / lengths[:, None]
            best, flat = average.view(-1).topk(beams, -1)
            source, new = flat // average.shape[1], (flat % average.shape[1]).unsqueeze(1)
            lengths, ended = lengths[source], ended[source]
            tokens = torch.cat((tokens[source], new), dim=1)
            embeds = embeds[source]
            scores = best * lengths
        embeds = torch.cat((embeds, gpt.transformer.wte(new)), dim=1)
        ended = ended | (new[:, 0] == stop)
        if ended.all():
            break
    scores = scores / lengths
    order = scores.argsort(descending=True, stable=True)
    return [(tokens[i, : int(lengths[i])].tolist(), float(scores[i])) for i in order]


def decoder_loss(mapper, gpt, features, tokens):
    """ClipCap's loss: the prefix, then the caption, padding masked out."""
    prefix = mapper(features)
    mask = torch.cat((torch.ones(prefix.shape[:2], device=tokens.device), (tokens > 0).float()), dim=1)
    embeds = torch.cat((prefix, gpt.transformer.wte(tokens)), dim=1)
    logits = gpt(inputs_embeds=embeds, attention_mask=mask).logits[:, prefix.shape[1] - 1 : -1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens.flatten(), ignore_index=0)


# DeCap (Li et al. 2023): a linear layer and a small GPT-2 with CLIP's tokens.

DECAP_STOP = 49407  # CLIP's <|endoftext|>
DECAP_TOKENS = 30


class LinearMapper(nn.Module):
    """DeCap's projection: one layer, to a prefix of length 1."""

    def __init__(self, feature, width):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(feature, width))

    def forward(self, features):
        return self.model(features).unsqueeze(1)


def greedy(gpt, embeds, length, stop):
    """DeCap's decoding of one prefix: the most probable token, without a cache."""
    ids = []
    for _ in range(length):
        ids.append(int(gpt(inputs_embeds=embeds).logits[:, -1, :].softmax(-1).argmax(-1)))
        if ids[-1] == stop:
            break
        embeds = torch.cat((embeds, gpt.transformer.wte(torch.tensor([ids[-1:]], device=embeds.device))), dim=1)
    return ids


def decap_text(ids):
    """The caption of tokens, or None where DeCap writes "None": CLIP has no such token."""
    from clip.simple_tokenizer import SimpleTokenizer

    try:
        return SimpleTokenizer().decode(ids).replace("<|startoftext|>", "").replace("<|endoftext|>", "").strip()
    except KeyError:
        return None


class Settings(pickle.Unpickler):
    """Reads a pickled GPT2Config of any version of transformers, and runs no code of the file."""

    def find_class(self, module, name):
        if name != "GPT2Config":
            raise pickle.UnpicklingError(f"expected a pickled GPT2Config, found {module}.{name}")
        return types.SimpleNamespace


class OwnRules:
    """ClipCap by the code above."""

    name = "record_reference.py (ClipCap's rules)"

    def mapper(self, sizes):
        if sizes["kind"] == "mlp":
            return MLPMapper(sizes["feature"], sizes["width"], sizes["prefix"])
        return TransformerMapper(sizes["feature"], sizes["width"], sizes["clip"], sizes["prefix"], sizes["layers"], ratio=sizes["ratio"])

    def forward(self, mapper, features, width):
        return mapper(features)

    def decode(self, mapper, gpt, prefix, args):
        """The facts of "decoded", and the scores of beams where they are known."""
        found = {"greedy": [self.greedy(mapper, gpt, p[None], args.tokens, args.stop) for p in prefix]}
        searched = [self.beam(mapper, gpt, p[None], args.beams, args.tokens, args.stop) for p in prefix]
        found["beam"] = [beams for beams, _ in searched]
        return found, None if searched[0][1] is None else [scores for _, scores in searched]

    def greedy(self, mapper, gpt, prefix, length, stop):
        return nucleus_greedy(gpt, prefix, length, stop)

    def beam(self, mapper, gpt, prefix, beams, length, stop):
        searched = beam_search(gpt, prefix, beams, length, stop)
        return [ids for ids, _ in searched], [score for _, score in searched]

    def loss(self, mapper, gpt, features, tokens):
        return decoder_loss(mapper, gpt, features, tokens)


class DeCapRules(OwnRules):
    """DeCap by the code above. cyclecap does not train its decoder, so it has no loss."""

    name = "record_reference.py (DeCap's rules)"
    loss = None

    def mapper(self, sizes):
        return LinearMapper(sizes["feature"], sizes["width"])

    def decode(self, mapper, gpt, prefix, args):
        found = {"decap": [greedy(gpt, p[None], args.tokens, args.stop) for p in prefix]}
        try:
            found["decap_texts"] = [decap_text(ids) for ids in found["decap"]]
        except ImportError:
            pass  # without OpenAI's clip, there are only tokens
        return found, None


class CloneRules(OwnRules):
    """ClipCap by its own train.py and predict.py, in a clone of its repository."""

    name = "ClipCap's train.py and predict.py"

    def __init__(self, folder):
        import transformers

        # What the two files import and this script does not need.
        def stub(name, **members):
            try:
                __import__(name)
            except ImportError:
                sys.modules[name] = types.ModuleType(name)
                vars(sys.modules[name]).update(members)

        stub("cog", Predictor=object, Path=str, input=lambda *a, **k: lambda f: f)
        stub("clip")
        stub("skimage")
        stub("skimage.io")
        sys.modules["skimage"].io = sys.modules["skimage.io"]
        if not hasattr(transformers, "AdamW"):
            transformers.AdamW = torch.optim.AdamW
        sys.path.insert(0, str(folder))
        self.train, self.predict = __import__("train"), __import__("predict")
        sys.path.pop(0)
        for module in (self.train, self.predict):
            if pathlib.Path(module.__file__).parent.resolve() != pathlib.Path(folder).resolve():
                sys.exit(f"--clipcap-code {folder}: Python imports {module.__file__} instead")

    def mapper(self, sizes):
        if sizes["kind"] == "mlp":
            out = sizes["width"] * sizes["prefix"]
            return self.train.MLP((sizes["feature"], out // 2, out))
        return self.train.TransformerMapper(sizes["feature"], sizes["width"], sizes["prefix"], sizes["clip"], sizes["layers"])

    def model(self, mapper, gpt, prefix_length):
        model = self.train.ClipCaptionModel.__new__(self.train.ClipCaptionModel)
        nn.Module.__init__(model)
        model.clip_project, model.gpt = mapper, gpt
        model.prefix_length, model.gpt_embedding_size = prefix_length, gpt.config.n_embd
        return model.eval()

    def forward(self, mapper, features, width):
        return mapper(features).view(features.shape[0], -1, width)

    class Tokenizer:
        """Stands in for GPT-2's, so that ids come back instead of text."""

        def __init__(self, stop):
            self.stop = stop

        def encode(self, text):
            return [self.stop]

        def decode(self, ids):
            return [int(i) for i in ids]

    def greedy(self, mapper, gpt, prefix, length, stop):
        model = self.model(mapper, gpt, prefix.shape[1])
        return self.predict.generate2(model, self.Tokenizer(stop), embed=prefix, entry_length=length)

    def beam(self, mapper, gpt, prefix, beams, length, stop):
        model = self.model(mapper, gpt, prefix.shape[1])
        found = self.predict.generate_beam(model, self.Tokenizer(stop), beam_size=beams, embed=prefix, entry_length=length)
        return found, None  # it does not return its scores

    def loss(self, mapper, gpt, features, tokens):
        length = self.forward(mapper, features[:1], gpt.config.n_embd).shape[1]
        mask = torch.cat((torch.ones(tokens.shape[0], length, device=tokens.device), (tokens > 0).float()), dim=1)
        logits = self.model(mapper, gpt, length)(tokens, features, mask).logits[:, length - 1 : -1]
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens.flatten(), ignore_index=0)


# The file.


class Reference:
    """Collects tensors and facts, and writes them as a safetensors file."""

    NAMES = {
        torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8",
    }  # fmt: skip

    def __init__(self):
        self.tensors, self.facts = {}, {"sampled": {}}

    def add(self, name, tensor, sample=False):
        """Adds a tensor: all of it, or with sample every step-th element of a large one."""
        tensor = tensor.detach()
        count = tensor.numel()
        if sample and count > 2 * SAMPLE:
            step = count // SAMPLE | 1  # odd, so that it goes through the columns of a matrix
            self.facts["sampled"][name] = {"shape": list(tensor.shape), "step": step}
            tensor = tensor.reshape(-1)[::step]
        self.tensors[name] = tensor.cpu().contiguous().clone()

    def save(self, path):
        header = {"__metadata__": {"cyclecap_reference": str(VERSION), "facts": json.dumps(self.facts)}}
        at = 0
        for name, t in self.tensors.items():
            size = t.numel() * t.element_size()
            header[name] = {"dtype": self.NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        part = f"{path}.part"
        with open(part, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for t in self.tensors.values():
                file.write(t.reshape(-1).view(torch.uint8).numpy().tobytes())
        os.replace(part, path)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hashes(path):
    """The sha256 of a file, or of the weights and configurations in a folder."""
    path = pathlib.Path(path)
    if path.is_file():
        return {path.name: sha256(path)}
    kinds = (".safetensors", ".bin", ".pt", ".json", ".txt", ".model")
    return {p.name: sha256(p) for p in sorted(path.iterdir()) if p.is_file() and p.suffix in kinds}


def versions(names):
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def cpu():
    """What the low-order bits may depend on."""
    text = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0] if pathlib.Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {k.strip(): v.strip() for k, v in lines.items()}
    ident = [facts.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping")]
    return "/".join([torch.backends.cpu.get_cpu_capability(), *ident])


# Outputs of modules. cyclecap knows them by OpenAI's names for CLIP, transformers' for GPT-2
# and ClipCap's for its mappers.

TRANSFORMERS_CLIP = [
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_model.final_layer_norm", "ln_final"),
    (".layer_norm1", ".ln_1"),
    (".layer_norm2", ".ln_2"),
    (".self_attn", ".attn"),
    (".mlp.fc1", ".mlp.c_fc"),
    (".mlp.fc2", ".mlp.c_proj"),
]


def clip_name(name):
    for old, new in TRANSFORMERS_CLIP:
        name = name.replace(old, new)
    return name


def layer_name(net):
    """How cyclecap names the modules: those of a SigLIP as transformers does, and the text
    encoder's of open_clip's models with custom_text without their prefix."""
    if isinstance(net, Transformers):
        return clip_name if net.model.config.model_type.startswith("clip") else lambda n: n
    return lambda n: n.removeprefix("text.")


def gpt2_name(name):
    return name.removeprefix("transformer.")


class Layered:
    """Within this context, records the outputs of a model's modules at their first call."""

    def __init__(self, reference, net, model, name=lambda n: n):
        self.reference, self.net, self.model, self.name = reference, net, model, name
        self.order = []

    def __enter__(self):
        self.hooks = [m.register_forward_hook(self.hook(self.name(n))) for n, m in self.model.named_modules() if n]
        return self

    def hook(self, name):
        def record(module, inputs, output):
            out = output[0] if isinstance(output, (tuple, list)) else output
            if name in self.order or not isinstance(out, torch.Tensor) or not out.is_floating_point():
                return
            if out.dim() == 3 and out.shape[1] == 1 and out.shape[0] > 1:
                out = out.transpose(0, 1)  # OpenAI's blocks have the positions first
            self.order.append(name)
            self.reference.add(f"layers.{self.net}.{name}", out, sample=True)

        return record

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        self.reference.facts.setdefault("layers", {})[self.net] = self.order


# The packages that run CLIP: each gives pixels, token ids and features.


def tensor_of(output):
    """Features, which newer versions of transformers return inside an object."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def feature_of(output, name):
    """The features of an encoder alone: CLIP's projection, or SigLIP's pooling."""
    return getattr(output, name) if hasattr(output, name) else output.pooler_output


class OpenAI:
    packages = ("openai-clip", "clip", "ftfy", "Pillow", "torchvision")

    def __init__(self, args, dtype):
        import clip

        self.clip = clip
        if dtype == torch.bfloat16:
            sys.exit("--dtype bf16: OpenAI's clip computes in f32 or f16")
        state = None if not os.path.isfile(args.clip) or is_script(args.clip) else load_state(args.clip)
        if state is None:
            self.model, self.preprocess = clip.load(args.clip, device=args.device, jit=False)
        else:
            self.model = clip.model.build_model(dict(state)).to(args.device)
            self.preprocess = clip.clip._transform(self.model.visual.input_resolution)
        if dtype == torch.float32:
            self.model.float()
            if state is not None:  # build_model has rounded the weights to f16
                self.model.load_state_dict(state, strict=False)
        else:
            clip.model.convert_weights(self.model)
        self.model.eval()
        self.files = [args.clip] if os.path.exists(args.clip) else [os.path.expanduser("~/.cache/clip/" + os.path.basename(clip.clip._MODELS[args.clip]))]
        self.size = self.model.visual.input_resolution
        self.context, self.vocab = self.model.context_length, self.model.vocab_size

    def pixels(self, image):
        return self.preprocess(image)

    def tokens(self, texts):
        return self.clip.tokenize(texts, truncate=True).long() if self.vocab == 49408 else None

    def image(self, pixels):
        return self.model.encode_image(pixels)

    def text(self, ids):
        return self.model.encode_text(ids)


class OpenCLIP:
    packages = ("open_clip_torch", "timm", "transformers", "Pillow", "torchvision")

    def __init__(self, args, dtype):
        import open_clip

        if os.path.isdir(args.clip):
            name, pretrained = f"local-dir:{args.clip}", None
        elif args.open_clip_model:
            name, pretrained = args.open_clip_model, args.clip
        else:
            sys.exit("open_clip needs to know the architecture of a file: give --open-clip-model, such as ViT-B-32")
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained, device=args.device)
        self.model.to(dtype).eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.files = [args.clip]
        size = self.model.visual.image_size
        self.size = size if isinstance(size, int) else size[0]
        self.context, self.vocab = self.model.context_length, getattr(self.model, "vocab_size", 49408)

    def pixels(self, image):
        return self.preprocess(image)

    def tokens(self, texts):
        fits = getattr(self.tokenizer, "vocab_size", 0) <= self.vocab
        return self.tokenizer(texts).long() if fits else None

    def image(self, pixels):
        return self.model.encode_image(pixels)

    def text(self, ids):
        return self.model.encode_text(ids)


class Transformers:
    packages = ("transformers", "tokenizers", "Pillow", "torchvision")

    def __init__(self, args, dtype):
        import transformers
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

        # Of an encoder alone, AutoModel takes the class without the projection to features.
        name = (AutoConfig.from_pretrained(args.clip).architectures or [""])[0]
        kind = getattr(transformers, name) if name.endswith("WithProjection") else AutoModel
        self.model = kind.from_pretrained(args.clip).to(args.device, dtype).eval()
        self.files = [args.clip]
        config = self.model.config
        vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
        self.alone = vision is None and text is None
        if self.alone:
            vision, text = (config, None) if hasattr(config, "image_size") else (None, config)
        self.size = vision.image_size if vision else None
        self.context, self.vocab = (text.max_position_embeddings, text.vocab_size) if text else (None, None)
        self.processor = self.tokenizer = None
        folder = pathlib.Path(args.clip)
        if vision and (not folder.is_dir() or (folder / "preprocessor_config.json").exists() or (folder / "processor_config.json").exists()):
            # From version 5 on, transformers calls its processors for Pillow a backend.
            pil = {"backend": "pil"} if importlib.metadata.version("transformers").split(".")[0] >= "5" else {"use_fast": False}
            self.processor = AutoImageProcessor.from_pretrained(args.clip, **(pil if args.pil else {}))
        if text and (not folder.is_dir() or any((folder / n).exists() for n in ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model"))):
            self.tokenizer = AutoTokenizer.from_pretrained(args.clip)

    def pixels(self, image):
        if self.processor is None:
            return openai_preprocessing(self.size)(image)
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    def tokens(self, texts):
        if self.tokenizer is None:
            return None
        return self.tokenizer(texts, padding="max_length", truncation=True, max_length=self.context, return_tensors="pt")["input_ids"]

    def image(self, pixels):
        if self.alone:
            return feature_of(self.model(pixel_values=pixels), "image_embeds")
        return tensor_of(self.model.get_image_features(pixel_values=pixels))

    def text(self, ids):
        if self.alone:
            return feature_of(self.model(input_ids=ids), "text_embeds")
        return tensor_of(self.model.get_text_features(input_ids=ids))


PACKAGES = {"openai": OpenAI, "open_clip": OpenCLIP, "transformers": Transformers}


def openai_preprocessing(size):
    from torchvision import transforms as T

    return T.Compose([
        T.Resize(size, interpolation=T.InterpolationMode.BICUBIC),
        T.CenterCrop(size),
        lambda image: image.convert("RGB"),
        T.ToTensor(),
        T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip


def random_ids(count, context, vocab):
    """Token ids as CLIP's tokenizer makes them, of no text."""
    ids = torch.zeros(count, context, dtype=torch.int64)
    for row in ids:
        n = int(torch.randint(2, context - 2, ()))
        row[0], row[n + 1] = vocab - 2, vocab - 1
        row[1 : n + 1] = torch.randint(1, vocab - 2, (n,))
    return ids


# GPT-2 and the decoder.


def load_state(path):
    """The tensors of a .pt, .bin or .safetensors file."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
    for wrapper in ("_orig_mod.", "module.", "model."):  # of torch.compile, DataParallel, Lightning
        if all(k.startswith(wrapper) for k in state):
            state = {k.removeprefix(wrapper): v for k, v in state.items()}
    return state


def is_script(path):
    """Whether a file is a TorchScript archive, as OpenAI publishes its weights."""
    try:
        torch.jit.load(path, map_location="cpu")
    except RuntimeError:
        return False
    return True


def sizes_of(state, width):
    """The sizes of a mapper, from its weights."""
    if "prefix_const" in state:
        layers = len({k.split(".")[2] for k in state if k.startswith("transformer.layers.")})
        outputs, feature = state["linear.weight"].shape
        return dict(kind="transformer", feature=feature, width=width, clip=outputs // width, prefix=state["prefix_const"].shape[0], layers=layers, ratio=state["transformer.layers.0.mlp.fc1.weight"].shape[0] // width)
    if "model.0.weight" not in state:
        sys.exit("--decoder: neither a mapper of ClipCap's nor DeCap's linear layer")
    if "model.2.weight" not in state:
        return dict(kind="linear", feature=state["model.0.weight"].shape[1], width=width, prefix=1)
    return dict(kind="mlp", feature=state["model.0.weight"].shape[1], width=width, prefix=state["model.2.weight"].shape[0] // width)


def config_of(state, heads=None):
    """The settings of a GPT-2 by its weights, with heads of 64 unless their number is given."""
    from transformers import GPT2Config

    vocab, width = state["transformer.wte.weight"].shape
    layers = len({k.split(".")[2] for k in state if k.startswith("transformer.h.")})
    return GPT2Config(vocab_size=vocab, n_positions=state["transformer.wpe.weight"].shape[0], n_embd=width, n_layer=layers, n_head=heads or width // 64)


def decap_config(path, state):
    """The settings of DeCap's GPT-2: of decoder_config.pkl beside the weights, from which DeCap
    reads them, or four heads, as in its published weights."""
    config, file = config_of(state, heads=4), pathlib.Path(path).parent / "decoder_config.pkl"
    if file.exists():
        with open(file, "rb") as f:
            saved = vars(Settings(f).load())
        for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "layer_norm_epsilon",
                    "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "tie_word_embeddings"):  # fmt: skip
            if key in saved:
                setattr(config, key, saved[key])
    return config


def load_gpt2(path, state, config=None):
    """The GPT-2 of a folder, with the weights of a decoder's file where it has its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if state is None:
        return GPT2LMHeadModel.from_pretrained(path)
    if config is None:
        config = GPT2Config.from_pretrained(path) if path is not None else config_of(state)
    gpt = GPT2LMHeadModel(config)
    own = {k: v for k, v in state.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
    missing, extra = gpt.load_state_dict(own, strict=False)
    if set(missing) - {"lm_head.weight"} or extra:
        sys.exit(f"--decoder: not the weights of this GPT-2: missing {missing[:3]}, unknown {extra[:3]}")
    return gpt


def load_generator(state):
    state = {k.removeprefix("model."): v for k, v in state.items()}
    layers = []
    for i in sorted(int(k.split(".")[0]) for k in state if k.endswith(".weight")):
        outputs, inputs = state[f"{i}.weight"].shape
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    net.load_state_dict(state)
    return net


def capdec_args(path):
    """The arguments that CapDec's train.py or predictions_runner.py writes beside its weights."""
    try:
        found = json.loads((pathlib.Path(path).parent / "commandline_args.txt").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "prefix_length" in found and ("dont_norm" in found or "is_rn" in found) else None


def normalizes(path, kind):
    """Whether a decoder was trained on features of length 1. CapDec scales them once more after
    it has added noise, with --dont_norm too."""
    args = capdec_args(path)
    if args is not None and kind != "linear":
        return not (args.get("dont_norm") and not args.get("noise_variance"))
    return kind != "mlp"


def normalized(x):
    return x / x.norm(dim=-1, keepdim=True)


class Recorder:
    def __init__(self, args):
        self.args, self.out = args, Reference()
        self.device, self.dtype = torch.device(args.device), DTYPES[args.dtype]
        self.facts = self.out.facts
        self.packages = set()
        self.facts.update(parts={}, weights={}, photos=[], texts=[], beams=args.beams)
        self.features = None  # of the photos, on the device

    def on(self, x):
        return x.to(self.device, self.dtype) if x.is_floating_point() else x.to(self.device)

    def note(self, text):
        print(f"record_reference.py: {text}", file=sys.stderr)
        self.facts.setdefault("notes", []).append(text)

    def texts(self):
        if self.args.texts is None:
            return TEXTS
        lines = [line.rstrip("\n") for line in open(self.args.texts, encoding="utf-8")]
        return [line for line in lines if line.strip()]

    def photos(self):
        found = []
        for path in self.args.photos:
            path = pathlib.Path(path)
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
            found += [p for p in inside if not path.is_dir() or p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")]
        return found

    def each(self, f, batch):
        return torch.cat([f(batch[i : i + 1]) for i in range(len(batch))])

    def clip(self):
        net = PACKAGES[self.args.clip_package](self.args, self.dtype)
        self.packages.update(net.packages)
        self.facts["parts"]["clip"] = self.args.clip_package
        self.facts["weights"]["clip"] = {k: v for f in net.files for k, v in hashes(f).items()}
        with torch.no_grad():
            if net.size is not None:
                self.clip_image(net)
            if net.context is not None:
                self.clip_text(net)

    def clip_layers(self, of, net):
        return Layered(self.out, of, net.model, layer_name(net))

    def clip_image(self, net):
        photos = self.photos()
        if photos:
            from PIL import Image

            pixels = torch.stack([net.pixels(Image.open(p)) for p in photos])
            processor = getattr(net, "processor", None)
            self.facts["preprocessing"] = type(processor).__name__ if processor is not None else "torchvision's transforms of Pillow images"
            for i, p in enumerate(photos):
                self.facts["photos"].append({"name": p.name, "sha256": sha256(p), "stored": self.args.store_photos})
                if self.args.store_photos:
                    self.out.add(f"photos.{i}", torch.frombuffer(bytearray(p.read_bytes()), dtype=torch.uint8))
        else:
            self.note("no --photos: noise takes the place of pixels")
            pixels = torch.randn(3, 3, net.size, net.size)
        self.out.add("clip.pixels", pixels)
        px = self.on(pixels)
        image = net.image(px)
        self.out.add("clip.image", image)
        self.out.add("clip.image_1", self.each(net.image, px))
        with self.clip_layers("clip.image", net):
            net.image(px[:1])
        self.features = image.to(self.dtype)

    def clip_text(self, net):
        ids = net.tokens(self.texts())
        if ids is None:
            self.note(f"{self.args.clip} has no tokenizer of its own: random token ids take the place of texts")
            ids = random_ids(4, net.context, net.vocab)
        else:
            self.facts["texts"] = self.texts()
        self.out.add("clip.ids", ids)
        ids = self.on(ids)
        self.out.add("clip.text", net.text(ids))
        self.out.add("clip.text_1", self.each(net.text, ids))
        with self.clip_layers("clip.text", net):
            net.text(ids[:1])

    def load_decoder(self):
        """The mapper, the GPT-2 and ClipCap's rules, each None where it is not given."""
        state = mapper = gpt = rules = own = config = None
        decap = False
        if self.args.decoder is not None:
            state = load_state(self.args.decoder)
            decap = any(k.startswith("decoder.") for k in state)
            inside = "decoder." if decap else "gpt."
            own = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)} or None
            if decap and self.args.gpt2 is not None:
                self.note(f"--gpt2 {self.args.gpt2} is not used: {self.args.decoder} has a GPT-2 and tokens of its own")
                self.args.gpt2 = None
            config = decap_config(self.args.decoder, own) if decap else None
            self.facts["weights"]["decoder"] = hashes(self.args.decoder)
        if self.args.stop is None:
            self.args.stop = DECAP_STOP if decap else 13
        if self.args.tokens is None:
            self.args.tokens = DECAP_TOKENS if decap else 67
        self.facts["stop"] = self.args.stop
        if self.args.gpt2 is not None or own is not None:
            gpt = load_gpt2(self.args.gpt2, own, config).to(self.device, self.dtype).eval()
            gpt.requires_grad_(False)
            self.packages.add("transformers")
            self.facts["parts"]["gpt2"] = "transformers"
            if self.args.gpt2 is not None:
                self.facts["weights"]["gpt2"] = hashes(self.args.gpt2)
        if state is not None:
            if gpt is None:
                sys.exit(f"--decoder {self.args.decoder} contains only a mapper: give its GPT-2 with --gpt2")
            if decap:
                rules = DeCapRules()
            else:
                rules = OwnRules() if self.args.clipcap_code is None else CloneRules(self.args.clipcap_code)
            named = {k.removeprefix("clip_project."): v for k, v in state.items() if k.startswith("clip_project.")}
            sizes = sizes_of(named, gpt.config.n_embd)
            mapper = rules.mapper(sizes)
            mapper.load_state_dict(named)
            mapper.to(self.device, self.dtype).eval()
            self.facts["parts"]["decoder"] = rules.name
            self.facts["mapper"] = sizes
            self.facts["normalize"] = self.args.normalize == "yes" or self.args.normalize == "auto" and normalizes(self.args.decoder, sizes["kind"])
        return mapper, gpt, rules

    def generator(self, width):
        net = load_generator(load_state(self.args.generator)).to(self.device, self.dtype).eval()
        self.facts["weights"]["generator"] = hashes(self.args.generator)
        self.facts["parts"]["generator"] = "torch.nn"
        x = self.features if self.features is not None else self.on(torch.randn(3, net[0].in_features))
        if self.facts.get("normalize"):
            x = normalized(x)
        with torch.no_grad():
            self.out.add("generator.input", x)
            self.out.add("generator.output", net(x))
            with Layered(self.out, "generator", net, lambda n: f"model.{n}"):
                net(x[:1])

    def decoder(self, mapper, gpt, rules):
        args, width = self.args, gpt.config.n_embd
        prefix = None
        if mapper is not None:
            x = self.features
            if x is None:
                self.note("no --clip: random features take the place of the photos'")
                x = self.on(torch.randn(3, self.facts["mapper"]["feature"]))
            if x.shape[1] != self.facts["mapper"]["feature"]:
                sys.exit(f"--decoder {args.decoder} takes features of width {self.facts['mapper']['feature']}, --clip gives {x.shape[1]}")
            if self.facts["normalize"]:
                x = normalized(x)
            self.out.add("decoder.input", x)
            with torch.no_grad():
                prefix = rules.forward(mapper, x, width)
                self.out.add("decoder.prefix", prefix)
                self.out.add("decoder.prefix_1", self.each(lambda r: rules.forward(mapper, r, width), x))
                with Layered(self.out, "decoder", mapper):
                    rules.forward(mapper, x[:1], width)
        self.gpt2(gpt, prefix)
        if mapper is None:
            return
        with torch.no_grad():
            self.decode(mapper, gpt, rules, prefix)
        if self.dtype == torch.float32 and rules.loss is not None:
            self.train(mapper, gpt, rules, x)

    def gpt2_ids(self, gpt):
        """Ids of the texts, padded with 0, from the tokenizer beside GPT-2, or random ones."""
        folder = pathlib.Path(self.args.gpt2) if self.args.gpt2 else None
        most = min(40, gpt.config.n_positions // 2)
        if folder is not None and any((folder / n).exists() for n in ("tokenizer.json", "vocab.json")):
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder)
            self.facts["gpt2_texts"] = self.texts()
            lists = [tokenizer(t)["input_ids"][:most] for t in self.texts()]
        else:
            self.note("no tokenizer beside GPT-2: random token ids take the place of texts")
            lists = [torch.randint(1, gpt.config.vocab_size, (int(torch.randint(4, 12, ())),)).tolist() for _ in range(3)]
        ids = torch.zeros(len(lists), max(len(row) for row in lists), dtype=torch.int64)
        for row, values in zip(ids, lists):
            row[: len(values)] = torch.tensor(values)
        return ids

    def gpt2(self, gpt, prefix):
        ids = self.gpt2_ids(gpt)
        self.out.add("gpt2.ids", ids)
        self.ids = ids = self.on(ids)
        with torch.no_grad():
            # Of the logits the last two positions are kept, since a row has the size of the vocabulary.
            self.out.add("gpt2.logits_ids", gpt(input_ids=ids).logits[:, -2:])
            if prefix is None:
                prefix = gpt.transformer.wte(ids)
            self.out.add("gpt2.embeds", prefix)
            self.out.add("gpt2.logits", gpt(inputs_embeds=prefix).logits[:, -2:])
            self.out.add("gpt2.logits_1", self.each(lambda row: gpt(inputs_embeds=row).logits[:, -2:], prefix))
            with Layered(self.out, "gpt2", gpt, gpt2_name):
                gpt(inputs_embeds=prefix[:1])

    def decode(self, mapper, gpt, rules, prefix):
        args = self.args
        length = args.tokens = min(args.tokens, gpt.config.n_positions - prefix.shape[1] + 1)
        self.facts["tokens"] = length
        decoded, scores = rules.decode(mapper, gpt, prefix, args)
        self.facts["decoded"] = decoded
        if scores is not None:
            self.out.add("decoded.beam_scores", torch.tensor(scores, dtype=torch.float64))
        common = dict(
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64, device=prefix.device),
            do_sample=False, max_new_tokens=length, pad_token_id=0,
        )  # fmt: skip
        trim = lambda rows: [row[: row.index(args.stop) + 1] if args.stop in row else row for row in rows.tolist()]
        decoded["generate_greedy"] = trim(gpt.generate(inputs_embeds=prefix, eos_token_id=args.stop, **common))
        beams = dict(num_beams=args.beams, length_penalty=1.0, early_stopping=False)
        decoded["generate_beam"] = trim(gpt.generate(inputs_embeds=prefix, eos_token_id=args.stop, **beams, **common))
        decoded["generate_beam_no_stop"] = gpt.generate(inputs_embeds=prefix, eos_token_id=None, **beams, **common).tolist()

    def train(self, mapper, gpt, rules, x):
        """One step: the loss of the first captions and the gradients of the mapper."""
        n = min(len(x), len(self.ids))
        x, tokens = x[:n].detach(), self.ids[:n]
        self.out.add("train.input", x)
        self.out.add("train.tokens", tokens)
        mapper.requires_grad_(True)
        loss = rules.loss(mapper, gpt, x, tokens)
        loss.backward()
        self.out.add("train.loss", loss.double().reshape(1))
        for name, p in mapper.named_parameters():
            self.out.add(f"train.gradients.{name}", p.grad, sample=True)

    def run(self):
        args = self.args
        torch.manual_seed(args.seed)
        if args.clip is not None:
            self.clip()
        mapper, gpt, rules = self.load_decoder()
        if args.generator is not None:
            self.generator(None)
        if gpt is not None:
            self.decoder(mapper, gpt, rules)
        cuda = self.device.type == "cuda"
        self.facts.update(
            versions=versions(sorted(self.packages)), threads=torch.get_num_threads(), cpu=cpu(),
            device=torch.cuda.get_device_name(self.device) if cuda else "CPU", device_type=self.device.type,
            dtype=args.dtype, tf32=cuda and torch.backends.cuda.matmul.allow_tf32,
        )  # fmt: skip
        self.out.save(args.out)
        print(f"{args.out}: {len(self.out.tensors)} tensors, {os.path.getsize(args.out) / 1e6:.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT.safetensors")
    parser.add_argument("--clip", metavar="FILE|FOLDER|NAME", help="CLIP's weights, as its package loads them")
    parser.add_argument("--clip-package", choices=PACKAGES, help="the package that runs CLIP")
    parser.add_argument("--open-clip-model", metavar="NAME", help="open_clip's name of the architecture, if --clip is a file")
    parser.add_argument("--decoder", metavar="FILE", help="a decoder of ClipCap, CapDec or DeCap")
    parser.add_argument("--gpt2", metavar="FOLDER", help="a GPT-2 of transformers")
    parser.add_argument("--generator", metavar="FILE", help="a CycleGAN generator from image to text features")
    parser.add_argument("--clipcap-code", metavar="FOLDER", help="a clone of ClipCap's repository, whose code then takes the place of this script's")
    parser.add_argument("--normalize", choices=("auto", "yes", "no"), default="auto", help="scale features to length 1 for the decoder; auto does so for a transformer mapper, for DeCap, and for CapDec by its commandline_args.txt (default: auto)")
    parser.add_argument("--photos", nargs="+", default=[], metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--pil", action="store_true", help="preprocess photos by transformers' processors for Pillow images, not those for tensors, whose pixels differ")
    parser.add_argument("--store-photos", action="store_true", help="store the photos' files in OUT, so that verify needs no --photos")
    parser.add_argument("--texts", metavar="FILE", help="texts, one a line (default: four captions)")
    parser.add_argument("--tokens", type=int, help="generate at most this many tokens (default: 67; DeCap: 30)")
    parser.add_argument("--beams", type=int, default=5, help="the number of beams (default: 5)")
    parser.add_argument("--stop", type=int, help="the token that ends a caption (default: 13, a full stop; DeCap: 49407, CLIP's <|endoftext|>)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="the type of weights and computation (default: f32)")
    parser.add_argument("--threads", type=int, help="threads per operator (default: PyTorch's)")
    parser.add_argument("--seed", type=int, default=1, help="of random inputs (default: 1)")
    args = parser.parse_args()
    if not (args.clip or args.gpt2 or args.decoder or args.generator):
        parser.error("give at least one of --clip, --decoder, --gpt2 and --generator")
    if args.clip and not args.clip_package:
        parser.error("--clip needs --clip-package: " + ", ".join(PACKAGES))
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    Recorder(args).run()


if __name__ == "__main__":
    main()
