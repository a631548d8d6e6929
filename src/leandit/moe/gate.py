"""Gating functions: they turn router logits into scores, before the selection.

The same score decides the selection and weights the expert's output. Identity keeps scores comparable across tokens,
which a race over all tokens needs. Softmax compares only the experts of one token.

Reference: Expert Race, section on gating functions, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Gate = Callable[[Float[Tensor, "batch tokens experts"]], Float[Tensor, "batch tokens experts"]]


GATES: dict[str, Gate] = {"softmax": partial(torch.softmax, dim=-1), "sigmoid": torch.sigmoid, "identity": lambda s: s}
"""Softmax is not renormalised after the selection; identity is unbounded, and negative near the cutoff of the race."""


def renormalize(
    scores: Float[Tensor, "batch tokens experts"], chosen: Bool[Tensor, "batch tokens experts"]
) -> Float[Tensor, "batch tokens experts"]:
    """score_e / max(1e-9, sum of the token's chosen scores): the weights of chosen experts add up to 1.

    Reference: GShard (arXiv 2006.16668), Algorithm 1.
    """
    return scores / (scores * chosen).sum(-1, keepdim=True).clamp(min=1e-9)
