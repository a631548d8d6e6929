"""Gates against numpy, and that they act before the selection."""

from __future__ import annotations

import numpy as np
import torch

from leandit.moe import GATES, select_mask

LOGITS = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_values() -> None:
    x = LOGITS.numpy()
    expected = {
        "softmax": np.exp(x) / np.exp(x).sum(-1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "identity": x,
    }
    assert GATES.keys() == expected.keys()
    for name, gate in GATES.items():
        np.testing.assert_allclose(gate(LOGITS).numpy(), expected[name], rtol=1e-12, err_msg=name)


def test_a_monotone_gate_selects_as_the_logits_do_and_softmax_does_not() -> None:
    chosen = {}
    for name, gate in GATES.items():
        chosen[name], _ = select_mask(gate(LOGITS + torch.arange(5)[:, None]), strategy="expert_race", k=1)
    assert torch.equal(chosen["sigmoid"], chosen["identity"])
    assert not torch.equal(chosen["softmax"], chosen["identity"])
