"""Time and label embeddings against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from leandit.nn import LabelEmbedding, TimestepEmbedding
from leandit.nn.embeddings import sinusoids


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1000.0), (1.0, 1000.0), (0.0, 1.0)])
def test_sinusoids_equal_the_formula(shift: float, scale: float) -> None:
    t = np.array([0.0, 0.001, 0.25, 1.0])
    step = scale * t
    frequencies = np.exp(-np.log(10_000.0) * np.arange(128) / (128 - shift))
    expected = np.concatenate([np.cos(np.outer(step, frequencies)), np.sin(np.outer(step, frequencies))], axis=1)
    given = sinusoids(torch.tensor(t, dtype=torch.float32), 128, shift, scale)
    exact = sinusoids(torch.tensor(t), 128, shift, scale)
    np.testing.assert_allclose(given.numpy(), expected, rtol=0, atol=3e-4)  # angles to 1000 in float32
    np.testing.assert_allclose(exact.numpy(), expected, rtol=0, atol=1e-12)


def test_the_shift_reaches_the_last_frequency() -> None:
    """With shift 1 the slowest frequency is 1 / 10000 exactly, with shift 0 it is a little faster."""
    t = torch.tensor([1.0])
    outs = [sinusoids(t, 128, shift, 1000.0)[0] for shift in (0.0, 1.0)]
    slowest = [torch.atan2(out[255], out[127]).item() for out in outs]
    assert slowest[1] == pytest.approx(1000 / 10_000, rel=1e-5)
    assert slowest[0] == pytest.approx(1000 / 10_000 ** (127 / 128), rel=1e-5)


def test_timestep_embedding_is_a_two_layer_network_on_the_sinusoids() -> None:
    embedding = TimestepEmbedding(8, freq_shift=1.0, time_scale=10.0, num_sinusoids=16)
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    t = torch.rand(3)
    x = sinusoids(t, 8, 1.0, 10.0).detach().numpy()
    w1, b1, w2, b2 = (p.detach().numpy() for p in embedding.parameters())
    hidden = x @ w1.T + b1
    expected = hidden / (1 + np.exp(-hidden)) @ w2.T + b2
    np.testing.assert_allclose(embedding(t).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_negative_labels_take_the_last_row_whatever_their_value() -> None:
    embedding = LabelEmbedding(3, 4)
    nn.init.normal_(embedding.table.weight)
    table = embedding.table.weight
    assert table.shape == (4, 4)
    assert torch.equal(embedding(torch.tensor([0, 2, -1, -7, 1])), table[[0, 2, 3, 3, 1]])
