"""Joint attention against torch's scaled dot product on hand-joined streams, and its mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.grid import Grid
from leandit.nn import SelfAttention
from leandit.nn.joint_attention import JointAttention, SingleStreamAttention
from leandit.nn.rope import rope_2d, rotate
from leandit.ops.attention import AttentionImpl

DIM, HEADS, TEXT, GRID = 24, 3, 5, 3
IMAGE = GRID**2


def joint(impl: AttentionImpl = "auto") -> JointAttention:
    layer = JointAttention(DIM, HEADS, True, 1e-6, impl)
    fill(layer)
    return layer


def single(qk_norm: bool = True) -> SingleStreamAttention:
    layer = SingleStreamAttention(DIM, HEADS, qk_norm, 1e-6, "auto")
    fill(layer)
    return layer


def fill(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3, generator=generator)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, TEXT, DIM, generator=generator), torch.randn(2, IMAGE, DIM, generator=generator)


def mask() -> Tensor:
    lengths = torch.tensor([3, 5])
    there = torch.arange(TEXT) < lengths[:, None]
    return torch.cat([there, torch.ones(2, IMAGE, dtype=torch.bool)], 1)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("impl", ["math", "sdpa"])
def test_two_streams_meet_with_their_own_weights(impl: AttentionImpl, masked: bool) -> None:
    layer = joint(impl)
    text, image = inputs()
    q: list[Tensor] = []
    k: list[Tensor] = []
    v: list[Tensor] = []
    for stream, x in ((layer.text, text), (layer.image, image)):
        for out, part, norm in zip(
            (q, k, v), stream.qkv(x).chunk(3, -1), (stream.q_norm, stream.k_norm, None), strict=True
        ):
            by_head = part.reshape(2, -1, HEADS, DIM // HEADS)
            out.append(by_head if norm is None else rms(by_head, norm.weight))
    joined = [torch.cat(parts, 1) for parts in (q, k, v)]
    scores = torch.einsum("bqhd,bkhd->bhqk", joined[0], joined[1]) / (DIM // HEADS) ** 0.5
    if masked:
        scores = scores + torch.where(mask(), 0.0, -1e9)[:, None, None]
    y = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), joined[2]).reshape(2, -1, DIM)
    y_text, y_image = layer(text, image, mask() if masked else None)
    torch.testing.assert_close(y_text, layer.text.proj(y[:, :TEXT]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y_image, layer.image.proj(y[:, TEXT:]), rtol=1e-4, atol=1e-5)


def test_a_single_stream_without_turning_is_self_attention() -> None:
    layer = single()
    oracle = SelfAttention(DIM, HEADS, True, 1e-6, "auto")
    oracle.load_state_dict(layer.state_dict())
    x = torch.cat(inputs(), 1)
    still = torch.stack([torch.ones(IMAGE, 4), torch.zeros(IMAGE, 4)])
    torch.testing.assert_close(layer(x, still), oracle(x), rtol=1e-4, atol=1e-5)


def test_in_a_single_stream_the_image_turns_and_the_text_does_not() -> None:
    layer = single(qk_norm=False)
    x, rotation = torch.cat(inputs(), 1), rope_2d(DIM // HEADS, Grid(GRID, GRID))
    q, k, v = (part.reshape(2, -1, HEADS, DIM // HEADS).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    q, k = (torch.cat([part[:, :, :TEXT], rotate(part[:, :, TEXT:], rotation)], 2) for part in (q, k))
    y = F.scaled_dot_product_attention(q, k, v, mask()[:, None, None])
    expected = layer.proj(y.transpose(1, 2).reshape(2, -1, DIM))
    torch.testing.assert_close(layer(x, rotation, mask()), expected, rtol=1e-4, atol=1e-5)


def test_masked_keys_change_no_other_token() -> None:
    rotation, there = rope_2d(DIM // HEADS, Grid(GRID, GRID)), mask()
    text, image = inputs()
    changed = text.clone()
    changed[0, 3:] += 5.0
    two, one = joint(), single()
    results = [
        (torch.cat(two(t, image, there), 1), one(torch.cat([t, image], 1), rotation, there)) for t in (text, changed)
    ]
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(after[there], before[there], rtol=0, atol=1e-6)
        assert not torch.allclose(after[~there], before[~there], atol=1e-3)
