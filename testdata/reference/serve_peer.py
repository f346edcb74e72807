"""What a Python team would write in place of `cyclecap serve`: FastAPI, transformers and torch, with a
queue that joins the requests of a few milliseconds into batches.

    serve_peer.py make DIR                 random weights at the real sizes: CLIP ViT-B/32, GPT-2 small, a mapper
    serve_peer.py run DIR --port P         /v1/embeddings (texts and images) and /caption (greedy, at most 20 tokens)
"""

import argparse
import asyncio
import base64
import gzip
import io
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import models
import zoo
from make import SIZES

TOKENS = 20


def clip_tokenizer(folder):
    """The files of CLIP's tokenizer, from the vocabulary in OpenAI's package."""
    import clip.simple_tokenizer as source

    lines = gzip.open(source.default_bpe()).read().decode("utf-8").split("\n")
    merges = [tuple(m.split()) for m in lines[1 : 49152 - 256 - 2 + 1]]
    symbols = list(source.bytes_to_unicode().values())
    words = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(
        {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}))  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}))


def make(folder):
    from transformers import CLIPImageProcessor, CLIPModel

    torch.manual_seed(1)
    s = SIZES["real"]
    folder.mkdir(parents=True, exist_ok=True)
    zoo.shake(CLIPModel(models.transformers_clip(s))).save_pretrained(folder / "clip")
    CLIPImageProcessor().save_pretrained(folder / "clip")
    clip_tokenizer(folder / "clip")
    zoo.gpt2_folder(folder, s)
    zoo.decoder_file(folder, models.TransformerMapper(s["embed"], s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"]))


class Batches:
    """Joins what arrives within a window, and computes it in a thread."""

    def __init__(self, compute, window, most):
        self.compute, self.window, self.most, self.queue = compute, window, most, asyncio.Queue()

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            group = [await self.queue.get()]
            until = loop.time() + self.window
            while len(group) < self.most:
                try:
                    group.append(await asyncio.wait_for(self.queue.get(), max(0, until - loop.time())))
                except asyncio.TimeoutError:
                    break
            try:
                results = await loop.run_in_executor(POOL, self.compute, [item for item, _ in group])
                for (_, future), result in zip(group, results):
                    future.set_result(result)
            except Exception as e:
                for _, future in group:
                    future.set_exception(e)

    async def ask(self, item):
        future = asyncio.get_running_loop().create_future()
        await self.queue.put((item, future))
        return await future


def serve(folder, port, window, threads):
    import concurrent.futures

    import uvicorn
    from fastapi import FastAPI, Request
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast, GPT2LMHeadModel

    global POOL
    POOL = concurrent.futures.ThreadPoolExecutor(1)  # one batch at a time
    torch.set_num_threads(threads)
    clip = CLIPModel.from_pretrained(folder / "clip").eval()
    processor = CLIPImageProcessor.from_pretrained(folder / "clip")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "clip")
    gpt = GPT2LMHeadModel.from_pretrained(folder / "gpt2").eval()
    s = SIZES["real"]
    mapper = models.TransformerMapper(s["embed"], s["gpt"], s["clip_length"], s["prefix"], s["mapper_layers"]).eval()
    mapper.load_state_dict({k.removeprefix("clip_project."): v for k, v in torch.load(folder / "decoder.pt").items()})

    def pooled(out):
        return out if torch.is_tensor(out) else out.pooler_output

    def texts(batch):
        with torch.inference_mode():
            x = pooled(clip.get_text_features(**tokenizer(batch, padding=True, truncation=True, return_tensors="pt")))
            return torch.nn.functional.normalize(x).tolist()

    def image_features(batch):
        photos = [Image.open(io.BytesIO(b)).convert("RGB") for b in batch]
        return pooled(clip.get_image_features(**processor(photos, return_tensors="pt")))

    def images(batch):
        with torch.inference_mode():
            return torch.nn.functional.normalize(image_features(batch)).tolist()

    def captions(batch):
        with torch.inference_mode():
            prefix = mapper(torch.nn.functional.normalize(image_features(batch)))
            prefix = prefix.reshape(len(batch), -1, gpt.config.n_embd)
            return gpt.generate(inputs_embeds=prefix, attention_mask=torch.ones(prefix.shape[:2]), do_sample=False,
                                max_new_tokens=TOKENS, eos_token_id=s["stop"], pad_token_id=0).tolist()  # fmt: skip

    work = {}
    app = FastAPI()

    @app.on_event("startup")
    async def start():
        for name, f, most in (("texts", texts, 32), ("images", images, 32), ("captions", captions, 32)):
            work[name] = Batches(f, window, most)
            asyncio.create_task(work[name].run())

    def picture(uri):
        return base64.b64decode(uri.split(",", 1)[1])

    @app.get("/readyz")
    async def ready():
        return "ready"

    @app.post("/v1/embeddings")
    async def embeddings(request: Request):
        q = await request.json()
        kind = "images" if q.get("modality") == "image" else "texts"
        items = q["input"] if isinstance(q["input"], list) else [q["input"]]
        if kind == "images":
            items = [picture(i) for i in items]
        rows = await asyncio.gather(*[work[kind].ask(i) for i in items])
        return {"object": "list", "data": [{"object": "embedding", "index": i, "embedding": r} for i, r in enumerate(rows)]}

    @app.post("/caption")
    async def caption(request: Request):
        q = await request.json()
        rows = await asyncio.gather(*[work["captions"].ask(base64.b64decode(i)) for i in q["images"]])
        return {"tokens": rows}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["make", "run"])
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--port", type=int, default=8001)
    p.add_argument("--window", type=float, default=0.005)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    if a.what == "make":
        make(a.folder)
    else:
        serve(a.folder, a.port, a.window, a.threads)


if __name__ == "__main__":
    main()
