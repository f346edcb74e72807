"""The Python side of `make bench` (internal/bench is the Go side).

    bench.py make DIR      write random weights of the real sizes into DIR, once
    bench.py worker DIR PHOTO...
                           load them and answer "run NAME" lines on stdin with
                           one line of JSON: {"seconds": s, "result": ...}
    bench.py caption DIR PHOTO
                           what a script for one photo does, from start to end

Python is run as well as its libraries allow without a compiler: inference
mode, SDPA attention, transformers' own cache, prompts without padding, no
stop token to look for.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import torch

import models

SEED = 20240917
TOKENS = 20
BEAMS = 5


PREFIX = "clip_project."


def paper_mapper():
    """The paper's mapper: transformer, 8 layers, prefix and CLIP prefix 40."""
    return models.TransformerMapper(512, 768, 40, 40, 8)


def load_mapper(path):
    weights = torch.load(path, weights_only=True, mmap=True)
    with torch.device("meta"):
        mapper = paper_mapper()
    mapper.load_state_dict({k.removeprefix(PREFIX): v for k, v in weights.items()}, assign=True)
    return mapper.eval()


def openai_names(hf, layers=12):
    """A transformers CLIP state dict under OpenAI's names."""
    out = {
        "positional_embedding": hf["text_model.embeddings.position_embedding.weight"],
        "text_projection": hf["text_projection.weight"].t().contiguous(),
        "logit_scale": hf["logit_scale"],
        "visual.class_embedding": hf["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": hf["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": hf["visual_projection.weight"].t().contiguous(),
        "visual.conv1.weight": hf["vision_model.embeddings.patch_embedding.weight"],
        "token_embedding.weight": hf["text_model.embeddings.token_embedding.weight"],
    }
    for part in ("weight", "bias"):
        out[f"visual.ln_pre.{part}"] = hf[f"vision_model.pre_layrnorm.{part}"]
        out[f"visual.ln_post.{part}"] = hf[f"vision_model.post_layernorm.{part}"]
        out[f"ln_final.{part}"] = hf[f"text_model.final_layer_norm.{part}"]
        for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
            for i in range(layers):
                a, b = f"{ours}.resblocks.{i}.", f"{theirs}.encoder.layers.{i}."
                out[f"{a}attn.in_proj_{part}"] = torch.cat([hf[f"{b}self_attn.{p}_proj.{part}"] for p in "qkv"])
                out[f"{a}attn.out_proj.{part}"] = hf[f"{b}self_attn.out_proj.{part}"]
                out[f"{a}ln_1.{part}"] = hf[f"{b}layer_norm1.{part}"]
                out[f"{a}ln_2.{part}"] = hf[f"{b}layer_norm2.{part}"]
                out[f"{a}mlp.c_fc.{part}"] = hf[f"{b}mlp.fc1.{part}"]
                out[f"{a}mlp.c_proj.{part}"] = hf[f"{b}mlp.fc2.{part}"]
    return out


def make(folder):
    """Random weights of the real sizes, and features to caption."""
    from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel

    saved(folder / "training.safetensors", training)
    saved(folder / "prompts.safetensors", prompts)
    saved(folder / "rn50.safetensors", rn50)
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    clip = CLIPModel(CLIPConfig()).eval()
    clip.save_pretrained(folder / "clip")
    torch.save(openai_names(clip.state_dict()), folder / "clip-openai.pt")
    gpt2 = GPT2LMHeadModel(GPT2Config())
    with torch.no_grad():
        # As they are drawn, the weights repeat one token for ever. Larger ones make a caption that depends on all of them.
        for block in gpt2.transformer.h:
            for weight in block.parameters():
                if weight.dim() == 2:
                    weight.mul_(5)
    gpt2.save_pretrained(folder / "gpt2")
    mapper = paper_mapper()
    torch.save({PREFIX + k: v for k, v in mapper.state_dict().items()}, folder / "decoder.pt")
    from safetensors.torch import save_file

    # About as long as CLIP's features are.
    features = torch.randn(32, 512)
    save_file({"features": features / features.norm(dim=-1, keepdim=True) * 10}, folder / "features.safetensors")
    ids = torch.zeros(64, 77, dtype=torch.int64)
    for row in ids:
        n = int(torch.randint(8, 16, ()))
        row[0], row[n + 1] = 49406, 49407
        row[1 : n + 1] = torch.randint(1, 49000, (n,))
    save_file({"ids": ids}, folder / "texts.safetensors")
    done.touch()


def saved(path, draw):
    """Writes the tensors that draw gives, once."""
    from safetensors.torch import save_file

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(SEED)
        save_file(draw(), path)


def training():
    """Features and captions to train on."""
    tokens = torch.zeros(16, 20, dtype=torch.int64)
    for i, row in enumerate(tokens):
        n = 8 + i * 12 // 15  # 8 to 20
        row[:n] = torch.randint(1, 50257, (n,))
    return {"images": torch.randn(64, 512), "texts": torch.randn(64, 512), "tokens": tokens}


def rn50():
    """A CLIP RN50, whose batch norms have seen photos."""
    import open_clip

    model = open_clip.create_model("RN50-quickgelu", pretrained=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As they are drawn, every block is the identity.
            torch.nn.init.uniform_(module.weight, 0.2, 1)
            torch.nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    return model.state_dict()


PROMPT = 40


def prompts():
    """Prompts for GPT-2 alone."""
    return {"ids": torch.randint(1, 50256, (16, PROMPT))}


class MapperTraining:
    """ClipCap's training step. Its train.py hands only the mapper to the
    optimizer, but GPT-2's weights still get gradients; frozen, they don't."""

    def __init__(self, worker, frozen=False, dtype=None, batch=16):
        self.mapper, self.gpt = worker.load_mapper(), worker.load_gpt2()
        self.mapper.train()
        for p in self.mapper.parameters():
            p.data = p.data.clone()
            p.requires_grad_(True)
        self.gpt.requires_grad_(not frozen)
        data = worker.load_training()
        self.features, self.tokens = data["images"][:batch], data["tokens"].repeat(batch // 16, 1)
        self.optimizer = models.TransformersAdamW(self.mapper.parameters(), lr=2e-5)
        self.dtype, self.step, self.total = dtype, 0, 1000

    def run(self):
        self.mapper.zero_grad()
        self.gpt.zero_grad()
        with torch.autocast("cpu", dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            loss = models.decoder_loss(self.mapper, self.gpt, self.features, self.tokens)
        loss.backward()
        # The schedule without warm-up.
        self.optimizer.param_groups[0]["lr"] = 2e-5 * (self.total - self.step) / self.total
        self.optimizer.step()
        self.step += 1
        return torch.tensor([[loss.item()]])


class CycleGANTraining:
    def __init__(self, worker):
        data = worker.load_training()
        torch.manual_seed(0)
        nets = [models.generator(512), models.generator(512), models.discriminator(512), models.discriminator(512)]
        self.trainer = models.CycleGAN(nets)
        self.images, self.texts = data["images"], data["texts"]

    def run(self):
        losses = []
        for _ in range(50):
            step = self.trainer.step(self.images, self.texts)
            losses.append([sum(step[:6]), *step[6:]])
        return torch.tensor(losses)


def preprocess():
    """OpenAI's preprocessing, by torchvision on PIL images."""
    from torchvision import transforms as T

    return T.Compose(
        [
            T.Resize(224, interpolation=T.InterpolationMode.BICUBIC),
            T.CenterCrop(224),
            lambda image: image.convert("RGB"),
            T.ToTensor(),
            T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )


class Worker:
    def __init__(self, folder, photos):
        self.folder, self.photos = folder, photos
        self.parts = {}

    def part(self, name):
        """Loads a model the first time that a workload needs it."""
        if name not in self.parts:
            self.parts[name] = getattr(self, "load_" + name)()
        return self.parts[name]

    def tensors(self, name):
        from safetensors.torch import load_file

        return load_file(self.folder / f"{name}.safetensors")

    def load_preprocess(self):
        return preprocess()

    def load_transformers(self):
        from transformers import CLIPModel

        return CLIPModel.from_pretrained(self.folder / "clip", dtype=torch.float32, attn_implementation="sdpa").eval()

    def load_open_clip(self):
        import open_clip

        model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
        model.load_state_dict(torch.load(self.folder / "clip-openai.pt", weights_only=True))
        return model.eval()

    def load_rn50(self):
        import open_clip

        model = open_clip.create_model("RN50-quickgelu", pretrained=None)
        model.load_state_dict(self.tensors("rn50"))
        return model.eval()

    def load_gpt2(self):
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel.from_pretrained(self.folder / "gpt2", dtype=torch.float32, attn_implementation="sdpa").eval()

    def load_mapper(self):
        return load_mapper(self.folder / "decoder.pt")

    def load_gpt2_bf16(self):
        from transformers import GPT2LMHeadModel

        return GPT2LMHeadModel.from_pretrained(self.folder / "gpt2", dtype=torch.bfloat16, attn_implementation="sdpa").eval()

    def load_mapper_bf16(self):
        return load_mapper(self.folder / "decoder.pt").to(torch.bfloat16)

    def load_features(self):
        return self.tensors("features")["features"]

    def load_training(self):
        return self.tensors("training")

    def load_train_mapper(self):
        return MapperTraining(self)

    def load_train_mapper_frozen(self):
        return MapperTraining(self, frozen=True)

    def load_train_mapper_bf16(self):
        return MapperTraining(self, dtype=torch.bfloat16)

    def load_train_mapper_64(self):
        return MapperTraining(self, batch=64)

    def load_train_mapper_64_frozen(self):
        return MapperTraining(self, frozen=True, batch=64)

    def load_train_cyclegan(self):
        return CycleGANTraining(self)

    def load_prompts(self):
        return self.tensors("prompts")["ids"]

    def load_onnx(self):
        return self.onnx("clip-image", "transformers")

    def load_rn50_onnx(self):
        return self.onnx("rn50-image", "rn50")

    def onnx(self, name, library):
        """The image encoder as an ONNX file."""
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            partial = path.with_suffix(".partial")
            # The exporter with FX wants onnxscript; this one needs onnx alone.
            torch.onnx.export(
                ImageEncoder(self.part(library), self.encoder(library)).eval(),
                (torch.zeros(1, 3, 224, 224),),
                str(partial),
                input_names=["pixels"],
                output_names=["features"],
                dynamic_axes={"pixels": {0: "n"}, "features": {0: "n"}},
                dynamo=False,
            )
            partial.rename(path)
        return path

    def load_onnxruntime(self, model="onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(self.part(model)), options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {"pixels": x.numpy()})[0])

    def load_rn50_onnxruntime(self):
        return self.load_onnxruntime("rn50_onnx")

    def load_rn50_openvino(self):
        return self.load_openvino(model=self.part("rn50_onnx"))

    def load_openvino(self, precision="f32", model=None):
        import openvino

        compiled = openvino.Core().compile_model(
            str(model or self.part("onnx")),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())

    def load_openvino_bf16(self):
        return self.load_openvino("bf16")

    def load_openvino_int8(self):
        """Weights and activations in int8, with ranges from 16 of the photos."""
        path = self.folder / "clip-image-int8.xml"
        if not path.exists():
            import contextlib

            import nncf
            import openvino
            from PIL import Image

            pre = self.part("preprocess")
            pixels = [pre(Image.open(p)).unsqueeze(0).numpy() for p in self.photos[:16]]
            with contextlib.redirect_stdout(sys.stderr):  # it prints progress bars
                model = nncf.quantize(
                    openvino.Core().read_model(str(self.part("onnx"))),
                    nncf.Dataset(pixels),
                    model_type=nncf.ModelType.TRANSFORMER,
                    subset_size=len(pixels),
                )
            # The weights are in a file beside it, which is complete when this one exists.
            partial = self.folder / "clip-image-int8-partial.xml"
            openvino.save_model(model, partial)
            partial.with_suffix(".bin").rename(path.with_suffix(".bin"))
            partial.rename(path)
        return self.load_openvino(model=path)

    def load_transformers_bf16(self):
        from transformers import CLIPModel

        model = CLIPModel.from_pretrained(self.folder / "clip", dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        return lambda x: pooled(model.get_image_features(pixel_values=x.to(torch.bfloat16))).float()

    def load_ctranslate2(self, kind="float32"):
        import ctranslate2

        path = self.folder / f"ctranslate2-{kind}"
        if not path.exists():
            convert(self.folder, path, kind)
        return ctranslate2.Generator(
            str(path), device="cpu", compute_type=kind, inter_threads=1, intra_threads=torch.get_num_threads()
        )

    def load_ctranslate2_int8(self):
        return self.load_ctranslate2("int8")

    def load_texts(self):
        return self.tensors("texts")["ids"]

    def encoder(self, library):
        """The image encoder of a library, a function of pixels."""
        model = self.part(library)
        if library in ("open_clip", "rn50"):
            return model.encode_image
        if library == "transformers":
            return lambda x: pooled(model.get_image_features(pixel_values=x))
        return model

    def images(self, library, batch):
        """Photo files to features, batch by batch."""
        from PIL import Image

        encode, pre = self.encoder(library), self.part("preprocess")
        # A batch of one is timed one photo at a time, on the first photos.
        photos = self.photos if batch > 1 else self.photos[:16]
        out = []
        for i in range(0, len(photos), batch):
            pixels = []
            for path in photos[i : i + batch]:
                with Image.open(path) as image:
                    pixels.append(pre(image))
            out.append(encode(torch.stack(pixels)))
        return torch.cat(out)

    def texts(self, library):
        model, ids = self.part(library), self.part("texts")
        if library == "open_clip":
            return model.encode_text(ids)
        return pooled(model.get_text_features(input_ids=ids))

    def generate(self, beams, batch, suffix=""):
        """transformers' generate with its cache, behind the mapper."""
        mapper, gpt2 = self.part("mapper" + suffix), self.part("gpt2" + suffix)
        features = self.part("features")[:batch].to(mapper.prefix_const.dtype)
        prefix = mapper(features)
        return gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            do_sample=False,
            num_beams=beams,
            max_new_tokens=TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        ).tolist()

    def continued(self, beams, batch, suffix=""):
        """transformers' generate with its cache, after a prompt of tokens."""
        prompts = self.part("prompts")[:batch]
        ids = self.part("gpt2" + suffix).generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            num_beams=beams,
            max_new_tokens=TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )
        return ids[:, prompts.shape[1] :].tolist()

    def continued_ctranslate2(self, beams, batch, suffix=""):
        # It takes and gives the texts of tokens; those of fake_tokenizer are numbers.
        prompts = [[f"t{i}" for i in row] for row in self.part("prompts")[:batch].tolist()]
        answers = self.part("ctranslate2" + suffix).generate_batch(
            prompts,
            beam_size=beams,
            max_length=TOKENS,
            min_length=TOKENS,
            include_prompt_in_result=False,
            end_token=[],
        )
        return [a.sequences_ids[0] for a in answers]

    def clipcap(self, decode):
        """ClipCap's own decoding, without a cache and without a stop token."""
        mapper, gpt2 = self.part("mapper"), self.part("gpt2")
        return decode(gpt2, mapper(self.part("features")[:1]))

    WORKLOADS = {
        "image-1/open_clip": lambda w: w.images("open_clip", 1),
        "image-1/transformers": lambda w: w.images("transformers", 1),
        "image-32/open_clip": lambda w: w.images("open_clip", 32),
        "image-32/transformers": lambda w: w.images("transformers", 32),
        "image-1/openvino": lambda w: w.images("openvino", 1),
        "image-1/onnxruntime": lambda w: w.images("onnxruntime", 1),
        "image-1/transformers_bf16": lambda w: w.images("transformers_bf16", 1),
        "image-1/openvino_bf16": lambda w: w.images("openvino_bf16", 1),
        "image-1/openvino_int8": lambda w: w.images("openvino_int8", 1),
        "image-32/openvino_int8": lambda w: w.images("openvino_int8", 32),
        "image-32/openvino": lambda w: w.images("openvino", 32),
        "image-32/onnxruntime": lambda w: w.images("onnxruntime", 32),
        "image-32/transformers_bf16": lambda w: w.images("transformers_bf16", 32),
        "image-32/openvino_bf16": lambda w: w.images("openvino_bf16", 32),
        **{
            f"rn50-{n}/{library}": lambda w, n=n, part=part: w.images(part, n)
            for n in (1, 32)
            for library, part in (
                ("open_clip", "rn50"),
                ("openvino", "rn50_openvino"),
                ("onnxruntime", "rn50_onnxruntime"),
            )
        },
        "text-64/open_clip": lambda w: w.texts("open_clip"),
        "text-64/transformers": lambda w: w.texts("transformers"),
        "greedy-1": lambda w: w.generate(1, 1),
        "greedy-16": lambda w: w.generate(1, 16),
        "beam-1": lambda w: w.generate(BEAMS, 1),
        "beam-16": lambda w: w.generate(BEAMS, 16),
        "greedy-1-bf16": lambda w: w.generate(1, 1, "_bf16"),
        "greedy-16-bf16": lambda w: w.generate(1, 16, "_bf16"),
        "beam-1-bf16": lambda w: w.generate(BEAMS, 1, "_bf16"),
        "beam-16-bf16": lambda w: w.generate(BEAMS, 16, "_bf16"),
        **{
            f"gpt2-{name}-{n}{end}": lambda w, f=f, b=b, n=n, s=s: getattr(w, f)(b, n, s)
            for name, b in (("greedy", 1), ("beam", BEAMS))
            for n in (1, 16)
            for end, f, s in (
                ("", "continued", ""),
                ("-bf16", "continued", "_bf16"),
                ("/ctranslate2", "continued_ctranslate2", ""),
                ("/ctranslate2-int8", "continued_ctranslate2", "_int8"),
            )
        },
        "clipcap-greedy": lambda w: w.clipcap(lambda gpt, x: [models.nucleus_greedy(gpt, x, TOKENS, stop=-1)]),
        "clipcap-beam": lambda w: w.clipcap(lambda gpt, x: [models.beam_search(gpt, x, BEAMS, TOKENS, stop=-1)[0][0]]),
    }

    def serve(self):
        reply({"ready": True, "torch": torch.__version__, "threads": torch.get_num_threads()})
        for line in sys.stdin:
            name = line.removeprefix("run ").strip()
            training = name.startswith("train-")
            if training:
                self.part(name.replace("-", "_"))  # loading is not part of a workload
            with torch.inference_mode(not training):
                begin = time.perf_counter()
                result = self.part(name.replace("-", "_")).run() if training else self.WORKLOADS[name](self)
                seconds = time.perf_counter() - begin
            if isinstance(result, torch.Tensor):
                path = self.folder / "python.f32"
                result.contiguous().numpy().tofile(path)
                result = {"file": str(path), "shape": list(result.shape)}
            reply({"seconds": seconds, "result": result})


class ImageEncoder(torch.nn.Module):
    def __init__(self, model, encode):
        super().__init__()
        self.model, self.encode = model, encode

    def forward(self, pixels):
        return self.encode(pixels)


def convert(folder, path, kind):
    """GPT-2 in CTranslate2's format, whose converter wants a tokenizer."""
    import shutil

    import ctranslate2

    source = folder / "gpt2-with-tokenizer"
    shutil.copytree(folder / "gpt2", source, dirs_exist_ok=True)
    (source / "vocab.json").write_text(json.dumps({**{f"t{i}": i for i in range(50256)}, "<|endoftext|>": 50256}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    ctranslate2.converters.TransformersConverter(str(source)).convert(str(path), quantization=kind, force=True)
    shutil.rmtree(source)


def pooled(output):
    """transformers 5 wraps the features, 4 gives them bare."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def reply(value):
    print(json.dumps(value), flush=True)


def caption(folder, photo):
    """One photo, as a script for it is written: load, encode, map, generate."""
    from PIL import Image
    from transformers import CLIPModel, GPT2LMHeadModel

    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    gpt2 = GPT2LMHeadModel.from_pretrained(folder / "gpt2", dtype=torch.float32).eval()
    mapper = load_mapper(folder / "decoder.pt")
    with torch.inference_mode(), Image.open(photo) as image:
        feature = pooled(clip.get_image_features(pixel_values=preprocess()(image).unsqueeze(0)))
        prefix = mapper(feature)
        ids = gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=13,
            pad_token_id=0,
        )
    reply({"tokens": ids[0].tolist()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "worker", "caption"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    # Nothing is looked up on a network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(args.threads)
    match args.what:
        case "make":
            make(args.folder)
        case "worker":
            Worker(args.folder, args.photos).serve()
        case "caption":
            caption(args.folder, args.photos[0])


if __name__ == "__main__":
    main()
