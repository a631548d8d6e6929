"""Training and sampling steps: sparse models against their dense twins, and our dense models against diffusers'.

    python benchmarks/whole_model.py [--rounds 7] [--quick]

A training step is forward, mean square error, backward and AdamW (fused); a sampling step is one forward pass without
gradients, as for a batch with guidance. Latents are 32 x 32 of 4 channels, so 256 tokens at patch size 2. Default
precision is what training takes by default: bf16 autocast where the processor multiplies bf16 natively.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from contest import compete, device, peak_memory, ratio, setting, table
from leandit.allocator import keep_memory
from leandit.models import BackboneConfig, Conditioning, DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig
from leandit.models.cost import forward_flops
from leandit.moe import MoEConfig, routers
from leandit.run.resolve import fast_bf16

BATCH, SIDE, TEXT = 32, 32, 32
# Steps until a heap has grown to what a model needs.
WARMUP = 4
# Of the same architecture and size; torch's FLOP counter finds less than 0.1 % between them.
SAME = "1.00"
S: dict[str, Any] = {"dim": 384, "depth": 12, "heads": 6, "input_size": SIDE, "channels": 4}
RACE = MoEConfig(k=4, num_experts=32)
EC = MoEConfig(
    strategy="expert_choice",
    gate="softmax",
    k=2,
    num_experts=8,
    every=2,
    router="linear",
    per_layer_regularisation=False,
    group_tokens=1024,
)


def config(kind: type[BackboneConfig], **fields: Any) -> BackboneConfig:
    """Return a model of size S for labels or text."""
    text = {"num_classes": 0, "text_dim": 384, "pooled_dim": 384} if kind.conditions_on_text else {"num_classes": 1000}
    return kind(**{**S, **text, **fields})


# Each sparse model and its dense twin of the same activated FLOPs, but for the routers.
TWINS = {
    "RaceDiT-S/2-4in32 : DiT-S/2": (config(DiTConfig, moe=RACE), config(DiTConfig)),
    "PixArt S/2 with expert choice 2-in-8 of half the width in every second layer : PixArt S/2": (
        config(PixArtConfig, adaln="per_layer", kv_heads=2, project_text=False, moe=EC.replace(hidden_split=2)),
        config(PixArtConfig, adaln="per_layer", kv_heads=2, project_text=False),
    ),
    "DiT-Air-Lite with Expert Race 4-in-32 : DiT-Air-Lite": (
        config(DiTAirConfig, sharing="attention", moe=RACE),
        config(DiTAirConfig, sharing="attention"),
    ),
}


def condition(model: BackboneConfig) -> Conditioning:
    """Return labels, or text of 32 tokens."""
    if not model.conditions_on_text:
        return Conditioning(torch.arange(BATCH, device=device()))
    text, pooled = torch.randn(BATCH, TEXT, 384), torch.randn(BATCH, 384)
    return Conditioning(text=text.to(device()), pooled=pooled.to(device()))


def randomised(model: nn.Module) -> nn.Module:
    """Give every weight a value, so that no product is with zeros."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model.to(device())


def our_call(settings: BackboneConfig) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return a model of ours and how it is called."""
    model, cond = randomised(settings.build()), condition(settings)
    set_thresholds(model, cond)
    return model, lambda x, t: model(x, t, cond if model.training else model.encode_text(cond)).prediction


@torch.no_grad()
def set_thresholds(model: nn.Module, cond: Conditioning) -> None:
    """Put every threshold where a batch's race would end, so that sampling gives out as many pairs as training."""
    x, t = torch.randn(BATCH, 4, SIDE, SIDE).to(device()), torch.rand(BATCH).to(device())
    outputs = model.train()(x, t, cond).routers
    for (_, router), output in zip(routers(model), outputs, strict=True):
        if output.cutoff is not None:
            router.threshold.value.copy_(output.cutoff)


def diffusers_call(kind: str) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return diffusers' model of the same size and how it is called."""
    import diffusers

    sizes = {"num_attention_heads": 6, "attention_head_dim": 64, "in_channels": 4, "num_layers": 12}
    sizes |= {"sample_size": SIDE, "patch_size": 2}
    labels = torch.arange(BATCH, device=device())
    text, pooled = torch.randn(BATCH, TEXT, 384).to(device()), torch.randn(BATCH, 384).to(device())
    if kind == "DiT":
        model = randomised(diffusers.DiTTransformer2DModel(**sizes, out_channels=4))
        return model, lambda x, t: model(x, timestep=(1000 * t).long(), class_labels=labels).sample
    if kind == "PixArt":
        fields = {"cross_attention_dim": 384, "caption_channels": 384, "out_channels": 4}
        model = randomised(diffusers.PixArtTransformer2DModel(**sizes, **fields))
        none = {"resolution": None, "aspect_ratio": None}
        return model, lambda x, t: model(x, text, 1000 * t, added_cond_kwargs=none).sample
    fields = {"joint_attention_dim": 384, "caption_projection_dim": 384, "pooled_projection_dim": 384}
    model = randomised(diffusers.SD3Transformer2DModel(**sizes, **fields, out_channels=4, pos_embed_max_size=32))
    return model, lambda x, t: model(x, text, pooled, 1000 * t).sample


def runs(
    model: nn.Module, call: Callable[[Tensor, Tensor], Tensor], bf16: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a training step and a sampling step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    x, t = torch.randn(BATCH, 4, SIDE, SIDE).to(device()), torch.rand(BATCH).to(device())

    def cast() -> torch.autocast:
        return torch.autocast(device(), torch.bfloat16, enabled=bf16)

    def train() -> None:
        model.train()
        with cast():
            y = call(x, t)
        nn.functional.mse_loss(y.float(), x).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def sample() -> None:
        model.eval()
        with torch.no_grad(), cast():
            call(x, t)

    return train, sample


def duel(name: str, one: Any, other: Any, bf16: bool, rounds: int, flops: str) -> list[list[str]]:
    """Return rows for a training and a sampling step of two models; `flops` is the first's over the second's."""
    steps = [runs(*one, bf16), runs(*other, bf16)]
    rows = []
    for index, what in enumerate(("training", "sampling")):
        timings = compete({"one": steps[0][index], "other": steps[1][index]}, rounds, warmup=WARMUP)
        cells = [f"{1e3 * timing.median:.0f}" for timing in timings.values()]
        spread = max(timing.spread for timing in timings.values())
        over = ratio(timings["one"], timings["other"])
        peaks = [f"{peak_memory(step[index]) / 2**20:.0f}" for step in steps]
        rows.append([name, "bf16" if bf16 else "fp32", what, *cells, f"{spread:.0%}", f"{over:.2f}", flops, *peaks])
        print(*rows[-1], flush=True)
    return rows


HEAD = ("pair", "precision", "step", "first, ms", "second, ms", "spread", "ratio", "FLOPs", "first, MiB", "second, MiB")
PEERS = {"DiT-S/2": ("DiT", DiTConfig), "PixArt-alpha S/2": ("PixArt", PixArtConfig), "MMDiT S/2": ("SD3", MMDiTConfig)}


def pairs(quick: bool) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any], str]]:
    """Yield the name of every pair, what makes its two models, and the first's FLOPs over the second's."""
    for name, (sparse, dense) in list(TWINS.items())[: 1 if quick else None]:
        one, other = (forward_flops(model, TEXT if model.conditions_on_text else 0) for model in (sparse, dense))
        yield name, partial(our_call, sparse), partial(our_call, dense), f"{one / other:.2f}"
    for name, (kind, ours) in list(PEERS.items())[: 1 if quick else None]:
        yield f"{name} : diffusers'", partial(our_call, config(ours)), partial(diffusers_call, kind), SAME


def report(rounds: int, quick: bool, only: str = "") -> str:
    """Return the results as Markdown; `quick` is the first pair of each kind, `only` a part of the names of pairs."""
    keep_memory()  # as training does
    rows = []
    for bf16 in (True, False) if fast_bf16(device()) else (False,):
        for name, one, other, flops in pairs(quick):
            if only in name:
                rows += duel(name, one(), other(), bf16, rounds, flops)
    legend = f"Batch {BATCH}, 256 tokens. FLOPs are the forward pass of the first over the second's, routers included."
    return f"## Whole models\n\n{legend}\n\n{table(HEAD, rows)}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    options = parser.parse_args()
    print(setting())
    print(report(options.rounds, options.quick, options.only))
