"""What a MoE configuration refuses, and which blocks it puts experts in."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from leandit.moe import MoEConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 5, "num_experts": 4}, "k = 5 is more than num_experts = 4"),
        ({"router": "linear"}, "per_layer_regularisation=false or router=mlp"),
        ({"strategy": "expert_rase"}, "'token_choice'.*'expert_race'"),
        ({"gate": "softmx"}, "'softmax', 'sigmoid' or 'identity'"),
        ({"threshold_momentum": 1.0}, "less than 1"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"shared_split": 2}, "set num_shared_experts, or shared_split=null"),
        ({"expert": "relu"}, "'gelu' or 'swiglu'"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoEConfig(**changes)


def test_every_second_block_counts_from_one() -> None:
    assert [index for index in range(6) if MoEConfig(every=2).in_block(index)] == [1, 3, 5]
    assert [index for index in range(6) if MoEConfig(every=1).in_block(index)] == list(range(6))


def test_expert_width() -> None:
    assert MoEConfig(k=4).expert_hidden(3072) == 768
    assert MoEConfig(k=4, hidden_split=1).expert_hidden(3072) == 3072
    with pytest.raises(ValueError, match="3072 is not divisible by the hidden split 5"):
        MoEConfig(hidden_split=5).expert_hidden(3072)


def test_width_of_all_shared_experts() -> None:
    assert MoEConfig(k=4).shared_hidden(3072) == 0
    assert MoEConfig(k=4, num_shared_experts=2).shared_hidden(3072) == 2 * 768
    assert MoEConfig(hidden_split=1, num_shared_experts=2, shared_split=4).shared_hidden(3072) == 2 * 768
    with pytest.raises(ValueError, match="3072 is not divisible by the shared split 5"):
        MoEConfig(num_shared_experts=1, shared_split=5).shared_hidden(3072)
