"""The reference models in PyTorch: ClipCap's mappers, decoding and training,
and a CycleGAN over features, written from their papers' rules with the
parameter names that their checkpoints have, and OpenAI's CLIP for machines
without its package. `make parity`, `make gpu` and the fixtures compare the Go
code with these, and with transformers' and OpenAI's own nets.
"""

import pathlib
import sys
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

# ClipCap's and DeCap's rules are those of the script that users run on their own weights; the
# GPU bundle has it beside this file.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from record_reference import (  # noqa: E402, F401
    LinearMapper,
    MLPMapper,
    TransformerMapper,
    beam_search,
    cpu,
    decoder_loss,
    greedy,
    nucleus_greedy,
)


class TransformersAdamW(torch.optim.Optimizer):
    """transformers' AdamW until version 4: eps before the bias correction."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                if not s:
                    s.update(step=0, avg=torch.zeros_like(p), avg_sq=torch.zeros_like(p))
                s["step"] += 1
                s["avg"].mul_(b1).add_(p.grad, alpha=1 - b1)
                s["avg_sq"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                denom = s["avg_sq"].sqrt().add_(group["eps"])
                size = group["lr"] * (1 - b2 ** s["step"]) ** 0.5 / (1 - b1 ** s["step"])
                p.addcdiv_(s["avg"], denom, value=-size)
                if group["weight_decay"] > 0:
                    p.add_(p, alpha=-group["lr"] * group["weight_decay"])


def train_decoder(mapper, gpt, batches, lr, warmup):
    """Mapper only, transformers' AdamW, linear warm-up and decay to 0. Returns
    the losses, and the gradients of the first step by name."""
    gpt.requires_grad_(False)
    optimizer = TransformersAdamW(mapper.parameters(), lr=lr)
    total = len(batches)
    losses, first = [], {}
    for step, (features, tokens) in enumerate(batches):
        factor = step / max(1, warmup) if step < warmup else max(0.0, (total - step) / max(1, total - warmup))
        optimizer.param_groups[0]["lr"] = lr * factor
        optimizer.zero_grad()
        loss = decoder_loss(mapper, gpt, features, tokens)
        loss.backward()
        if step == 0:
            first = {name: p.grad.clone() for name, p in mapper.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, first


def generator(width):
    dense = lambda: nn.Linear(width, width)
    return nn.Sequential(dense(), nn.Tanh(), dense(), nn.Tanh(), dense(), nn.Tanh(), dense())


def discriminator(width):
    return nn.Sequential(nn.Linear(width, width // 2), nn.LeakyReLU(0.2), nn.Linear(width // 2, 1))


class Pool:
    """50 past fakes. Each query draws torch.rand(n) and torch.randint(0, 50,
    (n,)): for each row the coin and the place."""

    def __init__(self, size=50):
        self.size, self.past = size, []

    def query(self, fakes):
        coins, places = torch.rand(len(fakes)), torch.randint(0, self.size, (len(fakes),))
        out = []
        for fake, coin, place in zip(fakes.detach(), coins, places):
            if len(self.past) < self.size:
                self.past.append(fake.clone())
                out.append(fake)
            elif coin > 0.5:
                out.append(self.past[place])
                self.past[place] = fake.clone()
            else:
                out.append(fake)
        return torch.stack(out)


class CycleGAN:
    """The CycleGAN authors' training step over features. nets: image-to-text,
    text-to-image, text and image discriminator."""

    def __init__(self, nets, lr=2e-4, cycle=10.0, identity=0.5):
        self.nets, self.cycle, self.identity = nets, cycle, identity
        to_text, to_image, text_disc, image_disc = nets
        self.discs = [*text_disc.parameters(), *image_disc.parameters()]
        self.opt_g = torch.optim.Adam([*to_text.parameters(), *to_image.parameters()], lr=lr, betas=(0.5, 0.999))
        self.opt_d = torch.optim.Adam(self.discs, lr=lr, betas=(0.5, 0.999))
        self.text_pool, self.image_pool = Pool(), Pool()

    @staticmethod
    def lsgan(scores, target):
        return F.mse_loss(scores, torch.full_like(scores, target))

    def discriminate(self, net, real, fake):
        loss = (self.lsgan(net(real), 1.0) + self.lsgan(net(fake.detach()), 0.0)) * 0.5
        loss.backward()
        return loss

    def step(self, images, texts):
        return [x.item() for x in self.losses(images, texts)]

    def losses(self, images, texts):
        """The step; reads nothing back from the device."""
        to_text, to_image, text_disc, image_disc = self.nets
        fake_text = to_text(images)
        back_image = to_image(fake_text)
        fake_image = to_image(texts)
        back_text = to_text(fake_image)
        for p in self.discs:
            p.requires_grad = False
        self.opt_g.zero_grad()
        id_text = F.l1_loss(to_text(texts), texts) * self.cycle * self.identity
        id_image = F.l1_loss(to_image(images), images) * self.cycle * self.identity
        gan_text = self.lsgan(text_disc(fake_text), 1.0)
        gan_image = self.lsgan(image_disc(fake_image), 1.0)
        cycle_image = F.l1_loss(back_image, images) * self.cycle
        cycle_text = F.l1_loss(back_text, texts) * self.cycle
        (gan_text + gan_image + cycle_image + cycle_text + id_text + id_image).backward()
        self.opt_g.step()
        for p in self.discs:
            p.requires_grad = True
        self.opt_d.zero_grad()
        disc_text = self.discriminate(text_disc, texts, self.text_pool.query(fake_text))
        disc_image = self.discriminate(image_disc, images, self.image_pool.query(fake_image))
        self.opt_d.step()
        return gan_text, gan_image, cycle_image, cycle_text, id_text, id_image, disc_text, disc_image


def train_cyclegan(nets, batches, **settings):
    trainer = CycleGAN(nets, **settings)
    return [trainer.step(images, texts) for images, texts in batches]


class CLIPBlock(nn.Module):
    """A pre-norm layer under OpenAI's names; positions come first, as in OpenAI's code."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width)))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class CLIPTransformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList([CLIPBlock(width, width // 64) for _ in range(layers)])

    def forward(self, x, mask=None):
        x = x.permute(1, 0, 2)  # [n, t, width] -> [t, n, width]
        for block in self.resblocks:
            x = block(x, mask)
        return x.permute(1, 0, 2)


class CLIPVision(nn.Module):
    def __init__(self, embed, image, patch, width, layers):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((image // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = CLIPTransformer(width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, embed))

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).permute(0, 2, 1)
        first = self.class_embedding + torch.zeros(x.shape[0], 1, x.shape[2], dtype=x.dtype, device=x.device)
        x = self.ln_pre(torch.cat((first, x), dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer(x)[:, 0]) @ self.proj


class CLIP(nn.Module):
    """CLIP with a vision transformer, as OpenAI's code computes it."""

    def __init__(self, embed, image, patch, vision, vocab, context, text, layers):
        super().__init__()
        self.visual = CLIPVision(embed, image, patch, vision, layers)
        self.transformer = CLIPTransformer(text, layers)
        self.token_embedding = nn.Embedding(vocab, text)
        self.positional_embedding = nn.Parameter(torch.zeros(context, text))
        self.ln_final = nn.LayerNorm(text)
        self.text_projection = nn.Parameter(torch.zeros(text, embed))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pixels):
        return self.visual(pixels)

    def encode_text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding
        causal = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        x = self.ln_final(self.transformer(x, causal))
        return x[torch.arange(x.shape[0], device=x.device), ids.argmax(dim=-1)] @ self.text_projection


def transformers_clip(s):
    """The configuration of a transformers CLIP of the sizes s."""
    from transformers import CLIPConfig

    common = dict(num_hidden_layers=s["layers"], projection_dim=s["embed"])
    return CLIPConfig(
        text_config=dict(
            hidden_size=s["text"], intermediate_size=4 * s["text"], num_attention_heads=s["text"] // 64,
            vocab_size=s["vocab"], max_position_embeddings=s["context"],
            eos_token_id=s["vocab"] - 1, bos_token_id=s["vocab"] - 2, **common,
        ),
        vision_config=dict(
            hidden_size=s["vision"], intermediate_size=4 * s["vision"], num_attention_heads=s["vision"] // 64,
            image_size=s["image"], patch_size=s["patch"], **common,
        ),
        projection_dim=s["embed"],
    )  # fmt: skip
