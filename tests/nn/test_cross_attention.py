"""Cross-attention and grouped queries against torch's own multi-head attention, and the mask of the text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leandit.nn import CrossAttention, SelfAttention

DIM, TEXT_DIM, HEADS = 12, 10, 6


def randomised(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in layer.named_parameters():
        if "_norm" not in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return layer


def cross(kv_heads: int | None = None, qk_norm: bool = False, impl: str = "auto") -> CrossAttention:
    layer = randomised(CrossAttention(DIM, TEXT_DIM, HEADS, qk_norm, 1e-6, impl, kv_heads))  # type: ignore[arg-type]
    assert isinstance(layer, CrossAttention)
    return layer


def repeated(rows: Tensor, kv_heads: int) -> Tensor:
    """The rows of every key or value head, once for each head of queries that it serves."""
    heads = list(rows.split(DIM // HEADS))
    return torch.cat([heads[query // (HEADS // kv_heads)] for query in range(HEADS)])


def text(length: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(3, 7, DIM, generator=generator), torch.randn(3, length, TEXT_DIM, generator=generator)
    return x, y, torch.arange(length)[None] < torch.tensor([[length], [1], [3]])


@pytest.mark.parametrize("impl", ["math", "sdpa"])
@pytest.mark.parametrize("kv_heads", [None, 6, 3, 2, 1])
def test_cross_attention_equals_torchs(kv_heads: int | None, impl: str) -> None:
    layer, kv = cross(kv_heads, impl=impl), kv_heads or HEADS
    oracle = nn.MultiheadAttention(DIM, HEADS, kdim=TEXT_DIM, vdim=TEXT_DIM, batch_first=True)
    (key, value), (key_bias, value_bias) = layer.kv.weight.chunk(2), layer.kv.bias.chunk(2)
    oracle.load_state_dict(
        {
            "q_proj_weight": layer.q.weight,
            "k_proj_weight": repeated(key, kv),
            "v_proj_weight": repeated(value, kv),
            "in_proj_bias": torch.cat([layer.q.bias, repeated(key_bias, kv), repeated(value_bias, kv)]),
            "out_proj.weight": layer.proj.weight,
            "out_proj.bias": layer.proj.bias,
        }
    )
    x, y, mask = text()
    expected = oracle(x, y, y, key_padding_mask=~mask)[0]
    torch.testing.assert_close(layer(x, y, mask), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x, y), oracle(x, y, y)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_self_attention_with_grouped_queries_equals_torchs(kv_heads: int) -> None:
    layer = randomised(SelfAttention(DIM, HEADS, False, 1e-6, "auto", kv_heads))
    assert isinstance(layer, SelfAttention)
    sizes = [DIM, kv_heads * DIM // HEADS, kv_heads * DIM // HEADS]
    oracle = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    packed = {}
    for name, rows in (("in_proj_weight", layer.qkv.weight), ("in_proj_bias", layer.qkv.bias)):
        q, k, v = rows.split(sizes)
        packed[name] = torch.cat([q, repeated(k, kv_heads), repeated(v, kv_heads)])
    oracle.load_state_dict({**packed, "out_proj.weight": layer.proj.weight, "out_proj.bias": layer.proj.bias})
    x = text()[0]
    torch.testing.assert_close(layer(x), oracle(x, x, x)[0], rtol=1e-4, atol=1e-5)


def test_grouped_queries_have_fewer_weights() -> None:
    """d² each for queries and output; keys and values d x head_dim x kv_heads each."""
    own, other = SelfAttention(DIM, HEADS, False, 1e-6, "auto", 2), cross(2)
    assert own.qkv.weight.numel() + own.proj.weight.numel() == 2 * DIM**2 + 2 * DIM * 2 * 2
    weights = [p.numel() for name, p in other.named_parameters() if name.endswith("weight")]
    assert sum(weights) == 2 * DIM**2 + 2 * TEXT_DIM * 2 * 2


@pytest.mark.parametrize("impl", ["math", "sdpa"])
def test_padded_text_is_not_seen(impl: str) -> None:
    layer = cross(3, impl=impl)
    x, y, mask = text()
    y.requires_grad_()
    out = layer(x, y, mask)
    (gradient,) = torch.autograd.grad(out.square().sum(), y)
    assert not gradient[~mask].any()
    assert gradient[mask].any(-1).all()
    other = torch.where(mask[..., None], y, torch.randn_like(y) * 100)
    assert torch.equal(layer(x, other, mask), out)
    assert not torch.allclose(layer(x, other), layer(x, y), atol=1e-2)


@torch.no_grad()
def test_padding_to_another_length_changes_nothing() -> None:
    layer = cross(2)
    x, y, mask = text()
    short = layer(x[1:2], y[1:2, :1], mask[1:2, :1])
    torch.testing.assert_close(layer(x, y, mask)[1:2], short, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("qk_norm", "same"), [(True, True), (False, False)])
def test_with_the_norm_the_size_of_queries_and_keys_does_not_matter(qk_norm: bool, same: bool) -> None:
    layer, (x, y, mask) = cross(3, qk_norm), text()
    before = layer(x, y, mask)
    with torch.no_grad():
        for part in (layer.q.weight, layer.q.bias, layer.kv.weight.chunk(2)[0], layer.kv.bias.chunk(2)[0]):
            part *= 10
    assert torch.allclose(layer(x, y, mask), before, atol=1e-4) is same
