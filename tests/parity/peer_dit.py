"""DiT as its authors' code computes it, in plain torch on a dictionary of weights with their names; and the key map.

Written from the published architecture: no module of LeanDiT is used. Every peer of the DiT family differs from it in
the time that it embeds, the frequencies, and the epsilons of its norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
DIM, DEPTH, HEADS, PATCH, SIDE, CHANNELS, CLASSES = 48, 3, 4, 2, 8, 3, 5
TOKENS = (SIDE // PATCH) ** 2


@dataclass(frozen=True)
class Peer:
    """What differs between the peers. `frequency_shift` and `feed_forward_eps` are other ones in diffusers."""

    frequency_shift: float = 0.0
    eps: float = 1e-6
    feed_forward_eps: float = 1e-6


def random_weights(hidden: int = 4 * DIM, frequencies: int = 128) -> Weights:
    """All weights of a DiT in float64, also those that start at zero."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.2

    weights = {
        "x_embedder.proj.weight": normal(DIM, CHANNELS, PATCH, PATCH),
        "x_embedder.proj.bias": normal(DIM),
        "t_embedder.mlp.0.weight": normal(DIM, 2 * frequencies),
        "t_embedder.mlp.0.bias": normal(DIM),
        "t_embedder.mlp.2.weight": normal(DIM, DIM),
        "t_embedder.mlp.2.bias": normal(DIM),
        "y_embedder.embedding_table.weight": normal(CLASSES + 1, DIM),
        "final_layer.linear.weight": normal(PATCH * PATCH * CHANNELS, DIM),
        "final_layer.linear.bias": normal(PATCH * PATCH * CHANNELS),
        "final_layer.adaLN_modulation.1.weight": normal(2 * DIM, DIM),
        "final_layer.adaLN_modulation.1.bias": normal(2 * DIM),
    }
    sizes = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (hidden, DIM), "mlp.fc2": (DIM, hidden)}
    sizes["adaLN_modulation.1"] = (6 * DIM, DIM)
    for index in range(DEPTH):
        for name, (rows, columns) in sizes.items():
            weights[f"blocks.{index}.{name}.weight"] = normal(rows, columns)
            weights[f"blocks.{index}.{name}.bias"] = normal(rows)
    return weights


def forward(w: Weights, x: Tensor, angle: Tensor, label: Tensor, peer: Peer) -> Tensor:
    """The network. `angle` is what the peer embeds: a step of DDPM, or a time of a flow."""

    def affine(name: str, value: Tensor) -> Tensor:
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(value: Tensor, eps: float) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()

    def silu(value: Tensor) -> Tensor:
        return value / (1 + (-value).exp())

    count = w["t_embedder.mlp.0.weight"].shape[1] // 2
    rates = [10_000 ** (-i / (count - peer.frequency_shift)) for i in range(count)]
    frequency = torch.tensor(rates, dtype=torch.float64)
    phase = angle[:, None] * frequency
    condition = affine("t_embedder.mlp.0", torch.cat([phase.cos(), phase.sin()], 1))
    condition = affine("t_embedder.mlp.2", silu(condition)) + w["y_embedder.embedding_table.weight"][label]

    kernel, side = w["x_embedder.proj.weight"], SIDE // PATCH
    tokens = torch.nn.functional.conv2d(x, kernel, w["x_embedder.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    tokens = tokens + torch.stack([_position(row, column) for row in range(side) for column in range(side)])
    for index in range(DEPTH):
        block = f"blocks.{index}."
        modulation = affine(f"{block}adaLN_modulation.1", silu(condition))[:, None].chunk(6, -1)
        shift, scale, gate, shift2, scale2, gate2 = modulation
        value = affine(f"{block}attn.qkv", norm(tokens, peer.eps) * (1 + scale) + shift)
        q, k, v = (part.unflatten(2, (HEADS, -1)) for part in value.chunk(3, -1))
        share = (torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(DIM // HEADS)).softmax(-1)
        mixed = torch.einsum("bhij,bjhd->bihd", share, v).flatten(2)
        tokens = tokens + gate * affine(f"{block}attn.proj", mixed)
        up = affine(f"{block}mlp.fc1", norm(tokens, peer.feed_forward_eps) * (1 + scale2) + shift2)
        gelu = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        tokens = tokens + gate2 * affine(f"{block}mlp.fc2", gelu)
    shift, scale = affine("final_layer.adaLN_modulation.1", silu(condition))[:, None].chunk(2, -1)
    patches = affine("final_layer.linear", norm(tokens, peer.eps) * (1 + scale) + shift)
    picture = torch.zeros(len(x), CHANNELS, SIDE, SIDE, dtype=x.dtype)
    for number in range(TOKENS):
        row, column = number // side * PATCH, number % side * PATCH
        patch = patches[:, number].reshape(-1, PATCH, PATCH, CHANNELS).permute(0, 3, 1, 2)
        picture[:, :, row : row + PATCH, column : column + PATCH] = patch
    return picture


def _position(row: int, column: int) -> Tensor:
    rates = [10_000 ** (-i / (DIM // 4)) for i in range(DIM // 4)]
    parts = [call(place * rate) for place in (column, row) for call in (math.sin, math.cos) for rate in rates]
    return torch.tensor(parts).to(torch.float32).double()  # its authors store the table in float32


NAMES = {
    "t_embedder.mlp.0": "time_embedding.first",
    "t_embedder.mlp.2": "time_embedding.second",
    "y_embedder.embedding_table": "label_embedding.table",
    "final_layer.linear": "final.linear",
    "final_layer.adaLN_modulation.1": "final.adaln.linear",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
    "mlp.fc1": "feed_forward.up",
    "mlp.fc2": "feed_forward.down",
    "adaLN_modulation.1": "adaln.linear",
}


def translated(weights: Weights) -> Weights:
    """The weights under LeanDiT's names: the patches' convolution becomes a matrix with channels last."""
    ours = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        block = ".".join(stem.split(".")[:2]) + "." if stem.startswith("blocks.") else ""
        if stem == "x_embedder.proj":
            ours[f"patch_embedding.{kind}"] = value.permute(0, 2, 3, 1).flatten(1) if kind == "weight" else value
        else:
            ours[f"{block}{NAMES[stem.removeprefix(block)]}.{kind}"] = value
    return ours
