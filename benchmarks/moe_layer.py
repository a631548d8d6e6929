"""The MoE layer against a dense feed-forward of the same activated FLOPs, and against what else one would pick.

    python benchmarks/moe_layer.py [--rounds 9] [--quick]

4,096 tokens as 16 pictures. Every layer computes products of the same size: the dense one has hidden width 4 d, k
experts of k-in-E together have it, and gated experts, which have three matrices, have two thirds of it.

- dense: GELU(x W1 + b1) W2 + b2 as our models compute it, the unit of the ratios
- dense, torch: the same of torch's own layers
- ours: experts with a given selection, so gather, products, activation, weights and scatter
- ours, routed: the whole layer of Expert Race with its two-layer router, whose hidden d x d product is on top; the
  FLOPs column says what it should cost for that reason
- Mixtral eager, Mixtral grouped_mm: transformers' experts and linear router, token choice
- NucleusMoE: diffusers' layer without its shared expert, expert choice
- one-hot: EC-DiT's Algorithm 1 with its dispatch and combine einsums, expert choice
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from contest import compete, device, peak_memory, ratio, setting, table
from leandit.allocator import keep_memory
from leandit.moe import MoEConfig, MoELayer
from leandit.nn import FeedForward
from leandit.ops import expert_ffn

BATCH, TOKENS = 16, 256
CONFIGS = ((2, 8), (4, 32), (8, 128))
DIMS = (384, 768, 1152)
# Where the others are timed, too, some of which take several times as long.
PEERS_AT = (4, 32)


class GivenSelection(nn.Module):
    """Our experts under a race that was run beforehand."""

    def __init__(self, dim: int, k: int, num_experts: int) -> None:
        super().__init__()
        hidden = 4 * dim // k
        shapes = ((num_experts, dim, hidden), (num_experts, hidden), (num_experts, hidden, dim), (num_experts, dim))
        self.weights = nn.ParameterList(torch.randn(shape) * 0.02 for shape in shapes)
        scores = torch.randn(BATCH * TOKENS, num_experts, generator=torch.Generator().manual_seed(0))
        self.num_pairs = BATCH * TOKENS * k
        self.register_buffer("mask", scores >= scores.flatten().topk(self.num_pairs).values[-1])
        self.scores = nn.Parameter(scores)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        return expert_ffn(flat, self.scores.float(), self.mask, *self.weights, num_pairs=self.num_pairs)


class OneHot(nn.Module):
    """EC-DiT's Algorithm 1 as it is printed: dispatch and combine are products with one-hot tensors."""

    def __init__(self, dim: int, k: int, num_experts: int) -> None:
        super().__init__()
        hidden = 4 * dim // k
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.capacity = TOKENS * k // num_experts
        self.w1 = nn.Parameter(torch.randn(num_experts, dim, hidden) * 0.02)
        self.w2 = nn.Parameter(torch.randn(num_experts, hidden, dim) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1).transpose(1, 2)
        gate, index = scores.topk(self.capacity, dim=-1)
        one_hot = nn.functional.one_hot(index, TOKENS).to(x.dtype)
        chosen = torch.einsum("becs,bsd->becd", one_hot, x)
        hidden = nn.functional.gelu(torch.einsum("becd,edh->bech", chosen, self.w1), approximate="tanh")
        y = torch.einsum("bech,ehd->becd", hidden, self.w2) * gate[..., None]
        return torch.einsum("becs,becd->bsd", one_hot, y)


def first(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a layer that also returns its routing."""
    return layer(x)[0]


def ours(dim: int, k: int, num_experts: int) -> MoELayer:
    """Return the layer of Expert Race."""
    config = MoEConfig(k=k, num_experts=num_experts, per_layer_regularisation=False)
    layer = MoELayer(config, dim, 4 * dim, 1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    return layer


def dense(dim: int) -> FeedForward:
    """Return the dense feed-forward."""
    layer = FeedForward(dim, 4 * dim)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    return layer


def torch_dense(dim: int) -> nn.Module:
    """Return the dense feed-forward of torch's own layers."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))


def peers(dim: int, k: int, num_experts: int) -> dict[str, nn.Module]:
    """Return what else one would pick, as far as it is installed."""
    hidden = 8 * dim // (3 * k)
    found: dict[str, nn.Module] = {"one-hot": OneHot(dim, k, num_experts)}
    try:
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

        sizes = {"hidden_size": dim, "intermediate_size": hidden, "num_local_experts": num_experts}
        for kind in ("eager", "grouped_mm"):
            config = MixtralConfig(**sizes, num_experts_per_tok=k, experts_implementation=kind)
            found[f"Mixtral {kind}"] = MixtralSparseMoeBlock(config)
    except ImportError:
        pass
    try:
        from diffusers.models.transformers.transformer_nucleusmoe_image import NucleusMoELayer

        layer = NucleusMoELayer(dim, hidden, num_experts, float(k), False, 1.0)
        layer.gate, layer.shared_expert = nn.Linear(dim, num_experts, bias=False), NoExpert()
        found["NucleusMoE"] = layer
    except ImportError:
        pass
    for layer in found.values():
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.02)
    return found


class NoExpert(nn.Module):
    """Stands for a shared expert that adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def step(call: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor, backward: bool) -> None:
    """Run a layer forward, or forward and backward with all gradients."""
    with torch.set_grad_enabled(backward):
        y = call(x)
    if backward:
        y.backward(torch.ones_like(y))
        layer.zero_grad(set_to_none=True)
        x.grad = None


def contest(
    dim: int, k: int, num_experts: int, dtype: torch.dtype, rounds: int, others: dict[str, nn.Module]
) -> list[list[str]]:
    """Return a row per contestant: name, milliseconds, ratios to dense, forward and forward + backward."""
    layers: dict[str, nn.Module] = {"dense": dense(dim), "ours": GivenSelection(dim, k, num_experts)}
    layers |= {"ours, routed": ours(dim, k, num_experts), "dense, torch": torch_dense(dim), **others}
    layers = {name: layer.to(device(), dtype).train() for name, layer in layers.items()}
    x = torch.randn(BATCH, TOKENS, dim).to(device(), dtype).requires_grad_()
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        name: partial(first, layer) if name == "ours, routed" else layer for name, layer in layers.items()
    }
    if "NucleusMoE" in layers:
        calls["NucleusMoE"] = lambda x: layers["NucleusMoE"](x, x)
    cells: dict[str, list[str]] = {name: [] for name in layers}
    for backward in (False, True):
        runs = {name: partial(step, calls[name], layer, x, backward) for name, layer in layers.items()}
        timings = compete(runs, rounds)
        for name, timing in timings.items():
            over = ratio(timing, timings["dense"])
            cells[name] += [f"{1e3 * timing.median:.1f}", f"{timing.spread:.0%}", f"{over:.2f}"]
    for name, run in runs.items():
        cells[name].append(f"{peak_memory(run) / 2**20:.0f}")
    flops = {"ours, routed": f"{1 + (dim + num_experts) / (8 * dim):.2f}"}
    kind = str(dtype).removeprefix("torch.")
    return [[dim, f"{k}-in-{num_experts}", kind, name, flops.get(name, "1.00"), *row] for name, row in cells.items()]


HEAD = ("d", "routing", "dtype", "layer", "FLOPs", *2 * ("ms", "spread", "over dense"), "peak, MiB")


def report(rounds: int, quick: bool) -> str:
    """Return the results as Markdown; `quick` is two widths and routings, the others at one."""
    keep_memory()  # as training does
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for dim in DIMS[:2] if quick else DIMS:
            for k, num_experts in CONFIGS[:2] if quick else CONFIGS:
                timed = (k, num_experts) == PEERS_AT and not (quick and dim > DIMS[0])
                others = peers(dim, k, num_experts) if timed else {}
                cell = contest(dim, k, num_experts, dtype, rounds, others)
                print("\n".join(" ".join(str(value) for value in row) for row in cell), flush=True)
                rows += cell
    legend = "The first three figures are forward, the next three forward and backward; spread is between quartiles. "
    legend += "The peak is what forward and backward allocate, gradients included."
    return f"## MoE layer\n\n4,096 tokens. {legend}\n\n{table(HEAD, rows)}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    print(setting())
    print(report(options.rounds, options.quick))
