"""The Python side of `make gpu` (internal/gpu is the Go side): a process that makes
random weights and inputs, computes references on a device and does the work that is
timed. It answers lines of JSON on stdin with lines of JSON on stdout.

    gpu.py serve DIR --size real|small --device cuda:0
    gpu.py facts DIR --device cuda:0    print what the machine has, and libtorch's folder

It needs torch, transformers and safetensors; photos are compared with Pillow and
torchvision if they are installed.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

for key, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
    os.environ.setdefault(key, value)

import torch
from safetensors.torch import load_file, save_file

import bench
import make
import models

SEED = 20261126
BEAMS = 5
# Sizes besides make.py's: photos and texts in a batch, features to caption, their
# tokens, the batch and the caption length of the mapper's training, and how many
# features and captions the timed trainings draw from.
EXTRA = {
    "small": dict(images=4, features=4, tokens=8, batch=4, caption=6, many=256, gan_batch=16),
    "real": dict(images=64, features=64, tokens=20, batch=8, caption=12, many=6400, gan_batch=64),
}
DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def reply(**value):
    print(json.dumps(value), flush=True)



class Side:
    def __init__(self, folder, size, device):
        self.folder, self.device = folder, torch.device(device)
        self.size = {**make.SIZES[size], **EXTRA[size]}
        self.real = size == "real"
        self.parts = {}
        self.data = None

    # Weights and inputs.

    def make(self):
        """Writes the weights and inputs, once. Weights are drawn on the device, which is faster."""
        done = self.folder / "done"
        if not done.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.manual_seed(SEED)
            with torch.device(self.device):
                self.make_clip()
                self.make_gpt2()
                self.make_mapper()
                self.make_gan()
            self.make_inputs()
            done.touch()
        return {"tokens": self.size["tokens"], "images": self.size["images"], "features": self.size["features"],
                "caption": self.size["caption"], "gan_batch": self.size["gan_batch"], "stop": self.size["stop"]}  # fmt: skip

    def make_clip(self):
        from transformers import CLIPModel

        clip = CLIPModel(models.transformers_clip(self.size))
        with torch.no_grad():
            for p in clip.parameters():
                if p.dim() == 1:
                    p.add_(torch.randn_like(p) * 0.05)
        weights = {k: v.cpu() for k, v in clip.state_dict().items()}
        save_file({k: v.contiguous() for k, v in weights.items()}, self.folder / "clip-transformers.safetensors")
        torch.save(bench.openai_names(weights, self.size["layers"]), self.folder / "clip.pt")

    def make_gpt2(self):
        from transformers import GPT2Config, GPT2LMHeadModel

        s = self.size
        gpt = GPT2LMHeadModel(GPT2Config(
            vocab_size=s["gpt_vocab"], n_positions=s["positions"], n_embd=s["gpt"],
            n_layer=s["gpt_layers"], n_head=s["gpt"] // 64, bos_token_id=0, eos_token_id=0,
        ))  # fmt: skip
        with torch.no_grad():
            for block in gpt.transformer.h:
                for p in block.parameters():
                    # As in make.py: every token depends on all before it, and a mix-up shows.
                    p.mul_(5) if p.dim() == 2 else p.add_(torch.randn_like(p) * 0.05)
        gpt.save_pretrained(self.folder / "gpt2")

    def make_mapper(self):
        mapper = self.new_mapper()
        torch.save({bench.PREFIX + k: v.cpu() for k, v in mapper.state_dict().items()}, self.folder / "decoder.pt")

    def new_mapper(self):
        s = self.size
        return models.TransformerMapper(s["embed"], s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"])

    def new_gan(self):
        width = self.size["gan"]
        return [models.generator(width), models.generator(width), models.discriminator(width), models.discriminator(width)]

    GAN = ("to_text", "to_image", "text_disc", "image_disc")

    def make_gan(self):
        state = {f"{part}.model.{k}": v.cpu() for part, net in zip(self.GAN, self.new_gan()) for k, v in net.state_dict().items()}
        save_file(state, self.folder / "gan.safetensors")

    def make_inputs(self):
        s = self.size
        n, steps = s["features"], s["steps"]
        features = torch.randn(n, s["embed"])
        tokens = torch.randint(1, s["gpt_vocab"], (steps, s["batch"], s["caption"]))
        for row in tokens.view(-1, s["caption"]):
            row[int(torch.randint(s["caption"] // 2, s["caption"] + 1, ())) :] = 0
        save_file(
            {
                "pixels": torch.randn(s["images"], 3, s["image"], s["image"]),
                "text_ids": make.texts(s, s["images"]),
                "features": features / features.norm(dim=-1, keepdim=True) * 10,  # about as long as CLIP's are
                "embeds": torch.randn(4, s["prefix"] + 3, s["gpt"]),
                "ids": torch.randint(0, s["gpt_vocab"], (4, 6)),
                "train_features": torch.randn(steps, s["batch"], s["embed"]),
                "train_tokens": tokens,
                "gan_data": torch.randn(steps, 2, s["gan_batch"], s["gan"]),
                "many_images": torch.randn(s["many"], s["gan"]),
                "many_texts": torch.randn(s["many"], s["gan"]),
                "many_features": torch.randn(s["many"], s["embed"]),
                "many_tokens": torch.randint(1, s["gpt_vocab"], (s["many"], s["caption"])),
            },
            self.folder / "inputs.safetensors",
        )

    # Parts, each loaded when it is first needed.

    def part(self, name, dtype="f32"):
        key = (name, DTYPES[dtype])
        if key not in self.parts:
            self.parts[key] = getattr(self, "load_" + name)(DTYPES[dtype])
        return self.parts[key]

    def inputs(self, name, dtype="f32"):
        if self.data is None:
            self.data = {}
            self.host = load_file(self.folder / "inputs.safetensors")
        key = (name, DTYPES[dtype])
        if key not in self.data:
            x = self.host[name].to(self.device)
            self.data[key] = x.to(DTYPES[dtype]) if x.is_floating_point() else x
        return self.data[key]

    def many(self, name, dtype, n):
        """n rows of an input, repeated as needed."""
        x = self.inputs(name, dtype)
        return torch.cat([x] * -(-n // len(x)))[:n].contiguous()

    def load_openai(self, dtype):
        s = self.size
        with torch.device("meta"):
            clip = models.CLIP(s["embed"], s["image"], s["patch"], s["vision"], s["vocab"], s["context"], s["text"], s["layers"])
        clip.load_state_dict(torch.load(self.folder / "clip.pt", weights_only=True, mmap=True), assign=True)
        return clip.to(self.device, dtype).eval()

    def load_transformers(self, dtype):
        from transformers import CLIPModel

        with torch.device(self.device):
            clip = CLIPModel._from_config(models.transformers_clip(self.size), attn_implementation="sdpa")
        clip.load_state_dict(load_file(self.folder / "clip-transformers.safetensors"))
        return clip.to(dtype).eval()

    def load_gpt2(self, dtype):
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel.from_pretrained(self.folder / "gpt2", dtype=dtype, attn_implementation="sdpa").to(self.device).eval()

    load_compiled = load_gpt2  # another copy, since generate compiles the model's forward

    def load_mapper(self, dtype):
        weights = torch.load(self.folder / "decoder.pt", weights_only=True, mmap=True)
        with torch.device("meta"):
            mapper = self.new_mapper()
        # Copies, since training changes them.
        weights = {k.removeprefix(bench.PREFIX): v.to(self.device, dtype, copy=True) for k, v in weights.items()}
        mapper.load_state_dict(weights, assign=True)
        return mapper.eval()

    def load_gan(self, dtype=torch.float32):
        nets = self.new_gan()
        state = load_file(self.folder / "gan.safetensors")
        for part, net in zip(self.GAN, nets):
            net.load_state_dict({k.removeprefix(part + ".model."): v for k, v in state.items() if k.startswith(part + ".")})
            net.to(self.device)
        return nets

    # References for the comparison of results. Each returns tensors and facts.

    def photos(self, paths):
        from PIL import Image

        pre = bench.preprocess()
        pixels = []
        for path in paths:
            with Image.open(path) as image:
                pixels.append(pre(image))
        return {"pixels": torch.stack(pixels)}, {}

    def clip_features(self, what, peer, dtype, batch):
        clip = self.part(peer, dtype)
        x = self.inputs("pixels" if what == "image" else "text_ids", dtype)[:batch]
        return {"features": self.encode(clip, what, x)}, {}

    @staticmethod
    def encode(clip, what, x):
        if isinstance(clip, models.CLIP):
            return clip.encode_image(x) if what == "image" else clip.encode_text(x)
        out = clip.get_image_features(pixel_values=x) if what == "image" else clip.get_text_features(input_ids=x)
        return bench.pooled(out)

    def mapper(self, dtype, batch):
        return {"prefix": self.part("mapper", dtype)(self.inputs("features", dtype)[:batch])}, {}

    def logits(self, dtype):
        from transformers import DynamicCache

        gpt = self.part("gpt2", dtype)
        embeds, ids = self.inputs("embeds", dtype), self.inputs("ids")
        cache = DynamicCache(config=gpt.config)
        gpt(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        for i in range(ids.shape[1]):
            last = gpt(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True)
        return {
            "embeds": gpt(inputs_embeds=embeds).logits[:, -2:],
            "ids": gpt(input_ids=ids).logits[:, -2:],
            "cache": last.logits,
        }, {}

    def generate(self, dtype, batch, beams=1, compiled=False):
        """transformers' generate behind the mapper; every caption has the same number of tokens."""
        mapper, gpt = self.part("mapper", dtype), self.part("compiled" if compiled else "gpt2", dtype)
        prefix = mapper(self.many("features", dtype, batch))
        extra = {}
        if compiled:
            from transformers import CompileConfig

            # What generate compiles by itself, for one shape at a time.
            extra = dict(cache_implementation="static", compile_config=CompileConfig(mode="reduce-overhead", dynamic=False))
        return gpt.generate(
            inputs_embeds=prefix, attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64, device=self.device),
            do_sample=False, num_beams=beams, max_new_tokens=self.size["tokens"], eos_token_id=None, pad_token_id=0, **extra,
        )  # fmt: skip

    def captions(self, dtype, batch, beams):
        return {}, {"tokens": self.generate(dtype, batch, beams).tolist()}

    def clipcap(self, batch, stop):
        """ClipCap's loops, without a cache."""
        mapper, gpt = self.part("mapper"), self.part("gpt2")
        prefix = mapper(self.inputs("features")[:batch])
        n = self.size["tokens"]
        searched = [models.beam_search(gpt, p[None], BEAMS, n, stop) for p in prefix]
        return {}, {
            "greedy": [models.nucleus_greedy(gpt, p[None], n, stop) for p in prefix],
            "beams": [[ids for ids, _ in beams] for beams in searched],
            "scores": [[score for _, score in beams] for beams in searched],
        }

    def train_mapper(self, lr, warmup):
        with torch.inference_mode(False), torch.enable_grad():
            mapper, gpt = self.load_mapper(torch.float32), self.load_gpt2(torch.float32)
            mapper.requires_grad_(True)
            batches = list(zip(self.fresh("train_features"), self.fresh("train_tokens")))
            losses, gradients = models.train_decoder(mapper, gpt, batches, lr, warmup)
            out = {"losses": torch.tensor(losses, dtype=torch.float64)}
            out |= {"gradient." + k: v for k, v in gradients.items()}
            out |= {"weight." + k: v.detach() for k, v in mapper.state_dict().items()}
        return out, {}

    def fresh(self, name):
        """An input that is not an inference tensor."""
        return load_file(self.folder / "inputs.safetensors")[name].to(self.device)

    def train_gan(self, seed):
        with torch.inference_mode(False), torch.enable_grad():
            nets = self.load_gan()
            torch.manual_seed(seed)
            losses = models.train_cyclegan(nets, self.fresh("gan_data"))
            out = {"losses": torch.tensor(losses, dtype=torch.float64)}
            for part, net in zip(self.GAN, nets):
                out |= {f"{part}.model.{k}": v.detach() for k, v in net.state_dict().items()}
        return out, {}

    # Timed work: a function of no arguments.

    def workload(self, name, dtype, batch=0, peer=""):
        match name:
            case "image":
                clip = self.part(peer, dtype)
                x = self.many("pixels", dtype, batch)
                return lambda: self.encode(clip, "image", x)
            case "text":
                clip, ids = self.part(peer, dtype), self.many("text_ids", dtype, batch)
                return lambda: self.encode(clip, "text", ids)
            case "greedy":
                return lambda: self.generate(dtype, batch, 1, peer == "compiled").tolist()
            case "beam":
                return lambda: self.generate(dtype, batch, BEAMS, peer == "compiled").tolist()
            case "mapper":
                return self.mapper_training(dtype, batch, peer)
            case "cyclegan":
                return self.gan_training(dtype, batch, peer)
        raise ValueError(f"unknown workload {name}")

    def mapper_training(self, dtype, batch, peer):
        """ClipCap's training step with PyTorch's AdamW; batches are drawn from host memory."""
        mapper, gpt = self.load_mapper(torch.float32), self.load_gpt2(torch.float32)
        mapper.requires_grad_(True)
        gpt.requires_grad_(peer == "whole")
        features, tokens = self.host_inputs("many_features"), self.host_inputs("many_tokens")
        optimizer = torch.optim.AdamW(mapper.parameters(), lr=2e-5, eps=1e-6, weight_decay=0.0)
        order = Order(len(features), batch)

        def step():
            rows = order.next()
            x, ids = features[rows].to(self.device), tokens[rows].to(self.device)
            optimizer.zero_grad()
            if peer == "whole":
                gpt.zero_grad()
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=dtype == "bf16"):
                loss = models.decoder_loss(mapper, gpt, x, ids)
            loss.backward()
            optimizer.step()

        return step

    def gan_training(self, dtype, batch, peer):
        """The CycleGAN authors' step; the losses stay on the device."""
        trainer = models.CycleGAN(self.load_gan())
        if peer == "index":
            trainer.text_pool, trainer.image_pool = IndexPool(), IndexPool()
        images, texts = self.host_inputs("many_images"), self.host_inputs("many_texts")
        orders = Order(len(images), batch), Order(len(texts), batch)

        def step():
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=dtype == "bf16"):
                trainer.losses(images[orders[0].next()].to(self.device), texts[orders[1].next()].to(self.device))

        return step

    def host_inputs(self, name):
        return load_file(self.folder / "inputs.safetensors")[name]

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # Requests.

    def facts(self):
        facts = {
            "libtorch": str(pathlib.Path(torch.__file__).parent), "cores": os.cpu_count(),
            "python": platform.python_version(), "torch": torch.__version__, "transformers": version("transformers"),
            "triton": version("triton"), "compiler": shutil.which("cc") or shutil.which("gcc") or "",
        }  # fmt: skip
        if self.device.type == "cuda":
            p = torch.cuda.get_device_properties(self.device)
            facts |= {
                "card": p.name, "memory": p.total_memory, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
                "capability": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count, "driver": driver(),
            }  # fmt: skip
        return facts

    def do_make(self):
        return self.make()

    def do_precision(self, dtype):
        """TF32 as asked; off for f32, also in convolutions, where PyTorch's default is on."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"

    def do_reference(self, name, file=None, **args):
        with torch.inference_mode():
            tensors, facts = getattr(self, name)(**args)
        if tensors:
            save_file({k: v.detach().contiguous().cpu().clone() for k, v in tensors.items()}, file)
        return facts

    def do_prepare(self, name, **args):
        """Loads a workload and runs it until it is warm; gives the seconds of the last run."""
        self.timed = None
        begin = time.perf_counter()
        self.mode = torch.inference_mode
        if name in ("mapper", "cyclegan"):
            self.mode = torch.enable_grad
        elif args.get("peer") == "compiled":
            self.mode = torch.no_grad  # as generate does; torch.compile cannot use all inference tensors
        with self.mode():
            self.timed = self.workload(name, **args)
            for _ in range(4 if args.get("peer") == "compiled" else 2):
                self.timed()
        self.synchronize()
        return {"warm": time.perf_counter() - begin, **self.do_time(1)}

    def do_time(self, repeats):
        with self.mode():
            self.synchronize()
            begin = time.perf_counter()
            for _ in range(repeats):
                self.timed()
            self.synchronize()
        return {"seconds": (time.perf_counter() - begin) / repeats}

    def do_forget(self, what=()):
        """Frees the models, as before the next group of workloads."""
        self.timed = None
        for key in [k for k in self.parts if not what or k[0] in what]:
            del self.parts[key]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def serve(self):
        reply(ready=True)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                result = getattr(self, "do_" + request.pop("do"))(**request)
                reply(result=result)
            except Exception as e:  # any failure belongs to its row
                reply(error=f"{type(e).__name__}: {e}"[:2000])


class IndexPool(models.Pool):
    """The same pool with a few operators for a batch, instead of a few for each row."""

    def query(self, fakes):
        fakes, n = fakes.detach(), len(fakes)
        if not isinstance(self.past, torch.Tensor):
            self.past, self.used = torch.zeros(self.size, fakes.shape[1], device=fakes.device), 0
        coins, places = torch.rand(n).tolist(), torch.randint(0, self.size, (n,)).tolist()
        kept, seen = list(range(self.size)), []
        for own, coin, place in zip(range(self.size, self.size + n), coins, places):
            if self.used < self.size:
                kept[self.used] = own
                self.used += 1
            elif coin > 0.5:
                seen.append(kept[place])
                kept[place] = own
                continue
            seen.append(own)
        both = torch.cat((self.past, fakes))[torch.tensor(seen + kept).to(fakes.device)]
        self.past = both[n:]
        return both[:n]


class Order:
    """Rows in shuffled batches, over and over."""

    def __init__(self, n, batch):
        self.n, self.batch, self.rows = n, batch, torch.empty(0, dtype=torch.int64)

    def next(self):
        if len(self.rows) < self.batch:
            self.rows = torch.randperm(self.n)
        rows, self.rows = self.rows[: self.batch], self.rows[self.batch :]
        return rows


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def driver():
    command = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    try:
        out = subprocess.run([command, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
        return out.stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve", "facts"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--size", choices=EXTRA, default="real")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    side = Side(args.folder, args.size, args.device)
    side.serve() if args.what == "serve" else reply(**side.facts())


if __name__ == "__main__":
    main()
