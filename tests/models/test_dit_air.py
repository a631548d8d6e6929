"""DiT-Air and DiT-Air-Lite: their sizes, the block against the formula written out, and experts in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from leandit.models import Conditioning
from leandit.models.dit_air import SIZES, DiTAir, DiTAirConfig
from leandit.moe import MoEConfig

GEOMETRY = {"input_size": 8, "channels": 3, "num_classes": 0, "text_dim": 10, "pooled_dim": 7}


def build(**fields: Any) -> DiTAir:
    model = DiTAirConfig(**{**GEOMETRY, "dim": 32, "heads": 2, "depth": 2, **fields}).build()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15, generator=generator)
    return model


def block_weights(**fields: Any) -> int:
    """Weight matrices of blocks and AdaLN, as the paper's Table 1 counts them."""
    with torch.device("meta"):
        model = DiTAirConfig(**{**GEOMETRY, **fields}).build()
    return sum(parameter.numel() for parameter in model.blocks.parameters() if parameter.ndim == 2)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_table_1(size: str) -> None:
    n, d = SIZES[size]["depth"], SIZES[size]["dim"]
    assert block_weights(**SIZES[size]) == (12 + 12 * n) * d**2
    assert block_weights(**SIZES[size], sharing="attention") == (16 + 8 * n) * d**2
    assert block_weights(**SIZES[size], sharing="block") == 24 * d**2
    assert block_weights(**SIZES[size], sharing="none") == 24 * n * d**2


def test_differences_at_size_b_are_those_between_the_printed_models() -> None:
    """321M, less 230M for Lite (attention), less 49M for Lite (full)."""
    counts = [block_weights(**SIZES["B"], sharing=sharing) / 1e6 for sharing in ("adaln", "attention", "block")]
    assert counts[0] - counts[1] == pytest.approx(321 - 230, abs=1)
    assert counts[1] - counts[2] == pytest.approx(230 - 49, abs=1)


def normed(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("experts", [None, True, False], ids=["dense", "experts, norm", "experts, no norm"])
def test_a_block_sandwiches_one_attention_and_one_feed_forward(experts: bool | None) -> None:
    moe = None if experts is None else MoEConfig(k=2, num_experts=4, strategy="token_choice")
    model = build(moe=moe, norm_after_experts=bool(experts))
    layer = next(iter(model.blocks))
    parts = layer.parts(model.blocks.shared)
    text, image, condition = torch.randn(2, 5, 32), torch.randn(2, 16, 32), torch.randn(2, 32)
    rotation = model.rotation(model.grid)
    linear = parts["adaln"].linear
    vectors = (F.silu(condition) @ linear.weight.T + linear.bias).view(2, 2, 6, 32)  # sample, stream, vector
    # The vectors of every token, so that the stream is one: five of text, then sixteen of image.
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors.repeat_interleave(torch.tensor([5, 16]), 1).unbind(2)
    x = torch.cat([text, image], 1)
    x = x + gate1 * normed(parts["attention"](normed(x) * (1 + scale1) + shift1, rotation))
    into = normed(x) * (1 + scale2) + shift2
    y = normed(parts["feed_forward"](into))
    if experts is not None:
        computed = parts["moe"](into[:, 5:])[0]
        y = torch.cat([y[:, :5], normed(computed) if experts else computed], 1)
    expected = x + gate2 * y
    given = parts["adaln"](condition)  # the layers of a DiT-Air share it
    after = layer(model.blocks.shared, text, image, given, None, rotation, False)
    torch.testing.assert_close(torch.cat([after.text, after.image], 1), expected, rtol=1e-4, atol=1e-4)
    last = layer(model.blocks.shared, text, image, given, None, rotation, True)
    assert torch.equal(last.text, text)
    torch.testing.assert_close(last.image, after.image, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("norm", "learns"), [(False, True), (True, False)])
def test_a_norm_after_experts_hides_the_score_of_a_lone_expert(norm: bool, learns: bool) -> None:
    """Why there is none by default."""
    moe = MoEConfig(k=1, num_experts=4, strategy="token_choice", per_layer_regularisation=False)
    model = build(moe=moe, depth=1, norm_after_experts=norm)
    torch.manual_seed(0)  # a score that happens to be all but zero would leave the norm's epsilon to decide
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    model(x, t, Conditioning(text=torch.randn(2, 5, 10), pooled=torch.randn(2, 7))).prediction.sum().backward()
    sizes = {
        name: parameter.grad.norm()
        for name, parameter in model.named_parameters()
        if name.endswith(("gate_head.weight", "experts.w1")) and parameter.grad is not None
    }
    gate, w1 = (next(size for name, size in sizes.items() if part in name) for part in ("gate_head", "w1"))
    assert (gate > 0.01 * w1) == learns


def test_an_expert_layer_keeps_a_dense_feed_forward_for_text_unless_nothing_reads_it() -> None:
    model = build(depth=4, moe=MoEConfig(k=2, num_experts=4, every=2))
    assert [sorted({*layer.names} & {"moe", "feed_forward"}) for layer in model.blocks] == [
        ["feed_forward"],
        ["feed_forward", "moe"],
        ["feed_forward"],
        ["moe"],
    ]


def test_head_widths_that_two_axes_cannot_share_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"head width 6 .* not divisible by 4"):
        DiTAirConfig(dim=24, heads=4)


def test_the_base_of_the_rotation_reaches_the_attention() -> None:
    one, other = build(rope_base=100.0), build()
    assert not torch.equal(one.rotation(one.grid), other.rotation(other.grid))
