"""Text on its way into a backbone: padding, masks, and rows that do not depend on how many there are."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from leandit.nn.text_embedding import PooledEmbedding, TextEmbedding, joint_mask, pad_text


def filled(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))


def test_token_features_go_through_two_layers_where_a_token_is() -> None:
    layer = TextEmbedding(10, 12)
    filled(layer)
    text, mask = torch.randn(2, 5, 10), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    hidden = F.gelu(text @ layer.first.weight.T + layer.first.bias, approximate="tanh")
    expected = hidden @ layer.second.weight.T + layer.second.bias
    embedded, after = layer(text, mask)
    assert after is mask
    torch.testing.assert_close(embedded[mask], expected[mask])
    padding = embedded[~mask]
    assert torch.equal(padding, padding[:1].expand_as(padding)), "what stands in padding was read"


@torch.no_grad()
def test_a_text_alone_gets_the_bits_that_it_gets_in_a_batch() -> None:
    tokens, vectors = TextEmbedding(384, 256), PooledEmbedding(384, 256)
    filled(tokens)
    filled(vectors)
    for length in (1, 3, 5, 9):
        text = torch.randn(17, length, 384)
        together = tokens(text, None)[0]
        pooled = vectors(text[:, 0])
        for row in (0, 8, 16):
            assert torch.equal(tokens(text[row : row + 1], None)[0][0], together[row])
            assert torch.equal(vectors(text[row : row + 1, 0])[0], pooled[row])


def test_short_text_is_padded_for_sampling_alone() -> None:
    text, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    assert pad_text(text, mask) == (text, mask)
    with torch.no_grad():
        padded, there = pad_text(text, None)
        assert padded.shape == (2, 16, 4)
        assert torch.equal(padded[:, :3], text)
        assert not padded[:, 3:].any()
        assert there is not None
        assert there.sum(1).tolist() == [3, 3]
        masked = pad_text(text, mask)[1]
        assert masked is not None
        assert masked.sum(1).tolist() == [2, 3]
        long = torch.randn(2, 77, 4)
        assert pad_text(long, None) == (long, None)


def test_image_tokens_are_always_there() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    joint = joint_mask(mask, 3)
    assert joint is not None
    assert joint.tolist() == [[True, False, True, True, True], [False, False, True, True, True]]
    assert joint_mask(None, 3) is None
