"""MMDiT: its sizes, and its block against the formula written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from leandit.models.dit_air import SIZES
from leandit.models.mmdit import MMDiT, MMDiTConfig
from leandit.nn import Sharing

GEOMETRY = {"input_size": 8, "channels": 3, "num_classes": 0, "text_dim": 10, "pooled_dim": 7}


def block_weights(**fields: object) -> int:
    """Weight matrices of blocks and AdaLN, as the paper's Table 1 counts them."""
    with torch.device("meta"):
        model = MMDiTConfig(**{**GEOMETRY, **fields}).build()  # type: ignore[arg-type]
    return sum(parameter.numel() for parameter in model.blocks.parameters() if parameter.ndim == 2)


@pytest.mark.parametrize("size", SIZES)
def test_blocks_have_36_n_d_squared_weights(size: str) -> None:
    n, d = SIZES[size]["depth"], SIZES[size]["dim"]
    assert block_weights(**SIZES[size]) == 36 * n * d**2
    assert block_weights(**SIZES[size], sharing="adaln") == (24 * n + 12) * d**2


@pytest.mark.parametrize(("sharing", "per_layer", "once"), [("attention", 16, 20), ("block", 0, 36)])
def test_sharing_more_leaves_less_to_each_layer(sharing: Sharing, per_layer: int, once: int) -> None:
    assert block_weights(dim=32, heads=2, depth=5, sharing=sharing) == (per_layer * 5 + once) * 32**2


def test_sharing_adaln_at_size_b_saves_what_the_paper_prints() -> None:
    """902M less 631M."""
    saved = block_weights(**SIZES["B"]) - block_weights(**SIZES["B"], sharing="adaln")
    assert saved / 1e6 == pytest.approx(902 - 631, abs=1)


def test_a_block_is_joint_attention_and_a_feed_forward_for_each_stream() -> None:
    model: MMDiT = MMDiTConfig(**GEOMETRY, dim=32, heads=2, depth=2).build()  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    layer = next(iter(model.blocks))
    parts = layer.parts(model.blocks.shared)
    text, image, condition = torch.randn(2, 5, 32), torch.randn(2, 16, 32), torch.randn(2, 32)
    linear = parts["adaln"].linear
    vectors = (F.silu(condition) @ linear.weight.T + linear.bias).view(2, 2, 6, 1, 32)  # sample, stream, vector

    def normed(x: torch.Tensor, stream: int, which: int) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return unit * (1 + vectors[:, stream, which + 1]) + vectors[:, stream, which]

    streams = [text, image]
    attended = parts["attention"](normed(text, 0, 0), normed(image, 1, 0))
    expected = []
    for stream, name in ((0, "text_feed_forward"), (1, "feed_forward")):
        x = streams[stream] + vectors[:, stream, 2] * attended[stream]
        expected.append(x + vectors[:, stream, 5] * parts[name](normed(x, stream, 3)))
    after = layer(model.blocks.shared, text, image, condition, None, False)
    torch.testing.assert_close(after.text, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.image, expected[1], rtol=1e-4, atol=1e-5)
    last = layer(model.blocks.shared, text, image, condition, None, True)
    assert torch.equal(last.text, text)
    torch.testing.assert_close(last.image, after.image, rtol=0, atol=1e-5)
