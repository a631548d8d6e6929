"""Self-attention against torch's own multi-head attention, and the query-key norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leandit.nn import SelfAttention


def build(qk_norm: bool = False) -> SelfAttention:
    layer = SelfAttention(12, 3, qk_norm, 1e-6, "auto")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in layer.named_parameters():
        if "_norm" not in name:
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return layer


def test_equals_torchs_multi_head_attention() -> None:
    layer = build()
    oracle = nn.MultiheadAttention(12, 3, batch_first=True)
    oracle.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.proj.weight,
            "out_proj.bias": layer.proj.bias,
        }
    )
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(x), oracle(x, x, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("qk_norm", "same"), [(True, True), (False, False)])
def test_with_the_norm_the_size_of_queries_does_not_matter(qk_norm: bool, same: bool) -> None:
    layer, x = build(qk_norm), torch.randn(2, 5, 12)
    before = layer(x)
    with torch.no_grad():
        layer.qkv.weight[:24] *= 10  # queries and keys
        layer.qkv.bias[:24] *= 10
    assert torch.allclose(layer(x), before, atol=1e-4) is same
