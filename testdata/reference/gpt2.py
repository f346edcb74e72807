"""Writes small random GPT-2 models with every setting that changes numbers, and
what transformers computes with them, for the tests of pipeline.LoadGPT2.

    gpt2.py OUT     writes the fixtures (pipeline/testdata/gpt2)

Each case has its config.json and the weights that it uses: those of one model, as
far as the settings leave the tensors' shapes as they are.
"""

import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

SIZES = dict(vocab_size=260, n_positions=16, n_embd=24, n_layer=2, n_head=8, bos_token_id=0, eos_token_id=0)

CASES = {
    "n_head 8": {},
    "n_head 3": dict(n_head=3),
    "layer_norm_epsilon": dict(layer_norm_epsilon=1e-3),
    **{f"activation {a}": dict(activation_function=a) for a in
       ("gelu", "gelu_pytorch_tanh", "gelu_python", "gelu_fast", "quick_gelu", "relu", "silu", "swish", "tanh")},
    "scale_attn_weights": dict(scale_attn_weights=False),
    "scale_attn_by_inverse_layer_idx": dict(scale_attn_by_inverse_layer_idx=True),
    "reorder_and_upcast_attn": dict(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),  # Stanford CRFM
    "n_inner": dict(n_inner=40, activation_function="gelu"),  # Cerebras
    "untied": dict(tie_word_embeddings=False),
    "everything": dict(n_head=2, layer_norm_epsilon=1e-3, n_inner=40, activation_function="relu", scale_attn_weights=False,
                       scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False),
}  # fmt: skip


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(5)
    tensors, cases = {}, {}
    tensors["ids"] = torch.randint(1, 260, (1, 9))
    tensors["embeds"] = torch.randn(1, 5, 24)
    weights = {}
    for name, changes in CASES.items():
        config = GPT2Config(**(SIZES | changes))
        shape = "inner" * (config.n_inner is not None) + "untied" * (not config.tie_word_embeddings) or "plain"
        model = GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(4).add_(torch.randn_like(p) * 0.05)
        if shape in weights:
            model.load_state_dict(weights[shape], strict=True)
        else:
            weights[shape] = model.state_dict()
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                shutil.copy(pathlib.Path(folder) / "model.safetensors", out / f"{shape}.safetensors")
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            text = (pathlib.Path(folder) / "config.json").read_text()
            model = GPT2LMHeadModel.from_pretrained(folder).eval()
        cases[name] = {"weights": f"{shape}.safetensors", "config": json.loads(text)}
        assert model.config._attn_implementation == "sdpa"
        with torch.no_grad():
            tensors[name + "/ids"] = model(tensors["ids"]).logits
            tensors[name + "/embeds"] = model(inputs_embeds=tensors["embeds"]).logits
            # A prompt of embeddings, and then token by token.
            o = model(inputs_embeds=tensors["embeds"], use_cache=True)
            steps = [o.logits[:, -1]]
            for t in range(3):
                o = model(tensors["ids"][:, t : t + 1], past_key_values=o.past_key_values, use_cache=True)
                steps.append(o.logits[:, -1])
            tensors[name + "/steps"] = torch.stack(steps)
    # Saved in shards, with the buffers of older versions.
    state = load_file(out / "plain.safetensors")
    parts = [{}, {}]
    for i, (k, v) in enumerate(sorted(state.items())):
        parts[i % 2][k] = v
    for layer in range(2):
        parts[1][f"transformer.h.{layer}.attn.bias"] = torch.ones(16, 16, dtype=torch.uint8).tril().view(1, 1, 16, 16)
        parts[0][f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    (out / "shards").mkdir(exist_ok=True)
    index = {"metadata": {}, "weight_map": {}}
    for i, part in enumerate(parts):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file(part, out / "shards" / file, metadata={"format": "pt"})
        index["weight_map"] |= {k: file for k in part}
    (out / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    (out / "shards" / "config.json").write_text(json.dumps(cases["n_head 8"]["config"]))
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "expected.safetensors")
    cpu = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    (out / "cases.json").write_text(json.dumps({
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
        "threads": 1, "cpu": cpu, "cases": cases}, indent=1) + "\n")


main()
