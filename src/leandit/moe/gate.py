"""Gating functions: they turn router logits into scores, before the selection.

The same score decides the selection and weights the expert's output. Identity keeps scores comparable across tokens,
which a race over all tokens needs. Softmax compares only the experts of one token.

Reference: Expert Race, section on gating functions, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Gate = Callable[[Float[Tensor, "batch tokens experts"]], Float[Tensor, "batch tokens experts"]]


def softmax(logits: Float[Tensor, "batch tokens experts"]) -> Float[Tensor, "batch tokens experts"]:
    """exp(s_e) / sum_e' exp(s_e'), over the experts of a token; not renormalised after the selection."""
    return logits.softmax(-1)


def identity(logits: Float[Tensor, "batch tokens experts"]) -> Float[Tensor, "batch tokens experts"]:
    """The logit itself: unbounded, and negative near the cutoff of the race."""
    return logits


def renormalize(
    scores: Float[Tensor, "batch tokens experts"], chosen: Bool[Tensor, "batch tokens experts"]
) -> Float[Tensor, "batch tokens experts"]:
    """score_e / max(1e-9, sum of the token's chosen scores): the weights of chosen experts add up to 1.

    Reference: GShard (arXiv 2006.16668), Algorithm 1.
    """
    return scores / (scores * chosen).sum(-1, keepdim=True).clamp(min=1e-9)


GATES: dict[str, Gate] = {"softmax": softmax, "sigmoid": torch.sigmoid, "identity": identity}
