"""Trains small CLIPs for a few steps with OpenAI's model and PyTorch's AdamW, for the
tests of package train.

    contrastive.py FOLDER     writes contrastive.safetensors and contrastive.json there
                              (train/testdata)

The loss is that of figure 3 of the CLIP paper. As in its appendix F, AdamW has betas of 0.9
and 0.98 and an epsilon of 1e-6, gains, biases and the temperature have no weight decay, and the
factor of cosines is at most 100. "locked" is the same ResNet with a text encoder that is
not trained.
"""

import json
import math
import pathlib
import platform
import sys

import clip.model as openai
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

torch.set_num_threads(1)

batch, steps, lr, decay, warmup = 8, 5, 2e-3, 0.2, 2
embed, context, vocab, text, size = 16, 12, 50, 64, 64
models = {
    "vit": {"vision_layers": 1, "vision_width": 64, "vision_patch_size": 16},
    "resnet": {"vision_layers": (1, 2, 1, 1), "vision_width": 4, "vision_patch_size": None},
}
models["locked"] = models["resnet"]

torch.manual_seed(9)
pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
ids = torch.zeros(batch, context, dtype=torch.long)
for row in ids:
    n = int(torch.randint(3, context - 1, ()))
    row[:n] = torch.randint(1, vocab - 1, (n,))
    row[n] = vocab - 1  # the end token, which has the highest id

tensors, losses = {"pixels": pixels, "ids": ids}, {}
for name, image in models.items():
    m = openai.CLIP(embed, size, context_length=context, vocab_size=vocab, transformer_width=text,
                    transformer_heads=1, transformer_layers=1, **image)  # fmt: skip
    m.train()
    if name == "locked":
        m.load_state_dict({k: tensors[f"resnet.before.{k}"] for k in m.state_dict() if not k.endswith("tracked")}, strict=False)
    learns = [
        (k, p) for k, p in m.named_parameters()
        if name != "locked" or k == "logit_scale" or k.startswith("visual.")
    ]  # fmt: skip

    def keep(key, names):
        for k, v in m.state_dict().items():
            if not k.endswith("tracked") and k in names:
                tensors[f"{name}.{key}.{k}"] = v.clone()

    if name != "locked":
        keep("before", m.state_dict())
    opt = torch.optim.AdamW(
        [
            {"params": [p for _, p in learns if p.dim() >= 2], "weight_decay": decay},
            {"params": [p for _, p in learns if p.dim() < 2], "weight_decay": 0},
        ],
        lr=lr, betas=(0.9, 0.98), eps=1e-6,
    )  # fmt: skip
    losses[name] = []
    for step in range(steps):
        x = (pixels.float() / 255 - 0.5) / 0.25
        i, t = normalize(m.encode_image(x), dim=1), normalize(m.encode_text(ids), dim=1)
        logits, at = m.logit_scale.exp() * i @ t.T, torch.arange(batch)
        loss = (cross_entropy(logits, at) + cross_entropy(logits.T, at)) / 2
        opt.zero_grad()
        loss.backward()
        k = (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        for g in opt.param_groups:
            g["lr"] = lr * k
        opt.step()
        with torch.no_grad():
            m.logit_scale.clamp_(max=math.log(100))
        losses[name].append(loss.item())
    # The parameters that are trained, and the running statistics.
    keep("after", {k for k, _ in learns} | {k for k, _ in m.named_buffers()})

out = pathlib.Path(sys.argv[1])
save_file(tensors, out / "contrastive.safetensors")
(out / "contrastive.json").write_text(
    json.dumps(
        {
            "versions": {"torch": torch.__version__, "clip": "1.0.1", "python": platform.python_version()},
            "lr": lr, "weight_decay": decay, "warmup": warmup, "steps": steps, "losses": losses,
        },
        indent=1,
    )
    + "\n"
)  # fmt: skip
