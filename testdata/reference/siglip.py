"""Writes a small SigLIP with random weights and what transformers computes with it.

    python siglip.py FOLDER [--base]

FOLDER gets one folder for each of SiglipModel (model), SiglipVisionModel (vision) and
SiglipTextModel (text) with the same weights, and expected.safetensors: pixels, ids and the
features. With --base the sizes are those of google/siglip-base-patch16-224.
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipModel, SiglipTextModel, SiglipVisionModel

small = "--base" not in sys.argv
out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
torch.manual_seed(7)
torch.set_num_threads(1)
tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2) if small else {}
config = SiglipConfig(
    text_config=dict(vocab_size=400, max_position_embeddings=64, **tower) if small else {},
    # 39 pixels in patches of 8: the last 7 rows and columns belong to no patch.
    vision_config=dict(image_size=39, patch_size=8, layer_norm_eps=1e-5, **tower) if small else {},
)
model = SiglipModel(config).eval()
with torch.no_grad():
    for p in model.parameters():  # biases start at 0
        p.add_(torch.randn_like(p) * 0.02)
assert config._attn_implementation is None or model.config._attn_implementation == "sdpa"
model.save_pretrained(out / "model")
if small:
    vision = SiglipVisionModel.from_pretrained(out / "model")
    text = SiglipTextModel.from_pretrained(out / "model")
    vision.save_pretrained(out / "vision")
    text.save_pretrained(out / "text")
size = config.vision_config.image_size
pixels = torch.randn(3, 3, size, size)
ids = torch.randint(0, config.text_config.vocab_size, (3, 64))
with torch.no_grad():
    image = model.get_image_features(pixels).pooler_output
    texts = model.get_text_features(ids).pooler_output
    one = model.get_image_features(pixels[:1]).pooler_output
    one_text = model.get_text_features(ids[:1]).pooler_output
values = {}
for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
    key, _, value = line.partition(":")
    values[key.strip()] = value.strip()
# As make.py and package torch/compare describe a processor.
cpu = "/".join([torch.backends.cpu.get_cpu_capability(), *(values.get(k, "") for k in ("vendor_id", "cpu family", "model", "stepping"))])
save_file(
    {"pixels": pixels, "ids": ids, "image": image, "text": texts, "image1": one, "text1": one_text},
    out / "expected.safetensors",
    {"torch": torch.__version__, "transformers": transformers.__version__, "threads": "1", "cpu": cpu},
)
