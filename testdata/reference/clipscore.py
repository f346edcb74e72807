"""Writes eval/clipscore/testdata/scores.json: CLIPScore and RefCLIPScore of the
photos in testdata/photos by a CLIP of OpenAI's code with initial weights, which
the Go side makes from the same seed. The rules are those of Hessel et al. 2021
and of their published code.

    .venv/bin/python testdata/reference/clipscore.py
"""

import json
import pathlib

import clip
import clip.model
import numpy as np
import torch
from bench import preprocess
from PIL import Image
from torchvision import transforms as T

SEED, SIZE = 6, 32
root = pathlib.Path(__file__).parents[2]
data = json.loads((root / "testdata/photos/captions.json").read_text())
torch.set_num_threads(1)
torch.manual_seed(SEED)
model = clip.model.CLIP(64, SIZE, 2, 64, 8, 77, 49408, 64, 1, 2).float().eval()
pre = preprocess()
pre.transforms[0] = T.Resize(SIZE, interpolation=T.InterpolationMode.BICUBIC)
pre.transforms[1] = T.CenterCrop(SIZE)


def unit(x):
    return x / np.sqrt(np.sum(x**2, axis=1, keepdims=True))


@torch.no_grad()
def texts(captions):
    return unit(model.encode_text(clip.tokenize(["A photo depicts " + c for c in captions], truncate=True)).numpy())


captions = {}
for a in data["annotations"]:
    captions.setdefault(a["image_id"], []).append(a["caption"])
items = []
for image in data["images"]:
    own, *references = captions[image["id"]]
    if len(items) == 3:
        own = "a very long caption " * 40  # is cut
    with torch.no_grad(), Image.open(root / "testdata/photos" / image["file_name"]) as photo:
        v = unit(model.encode_image(pre(photo).unsqueeze(0)).numpy())[0]
    c = texts([own])[0]
    score = 2.5 * max(float(np.sum(c * v)), 0.0)
    reference = max(float(np.max(texts(references) @ c)), 0.0)
    items.append({
        "image_id": image["id"], "file_name": image["file_name"], "candidate": own, "references": references,
        "CLIPScore": score, "RefCLIPScore": 2 * score * reference / (score + reference) if score + reference else 0.0,
    })
out = {"seed": SEED, "torch": torch.__version__, "numpy": np.__version__, "items": items}
(root / "eval/clipscore/testdata/scores.json").write_text(json.dumps(out, indent=1) + "\n")
