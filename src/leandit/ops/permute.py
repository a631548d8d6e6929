"""Move tokens to their experts and back.

Legend: T tokens of the batch, P pairs (token, expert), D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def gather_pairs(x_TD: Float[Tensor, "tokens dim"], token_P: Int[Tensor, " pairs"]) -> Float[Tensor, "pairs dim"]:
    """Return the token of every pair: x[token]."""
    return x_TD.index_select(0, token_P)


def scatter_pairs(
    y_PD: Float[Tensor, "pairs dim"],
    token_P: Int[Tensor, " pairs"],
    weight_P: Float[Tensor, " pairs"],
    num_tokens: int,
) -> Float[Tensor, "{num_tokens} dim"]:
    """Return the weighted sum of every token's pairs, summed in the weight's precision; 0 for a token without any."""
    weighted_PD = y_PD.to(weight_P.dtype) * weight_P[:, None]
    out_TD = weighted_PD.new_zeros(num_tokens, y_PD.shape[1])
    return out_TD.index_add(0, token_P, weighted_PD)


def scatter_pairs_reference(
    y_PD: Tensor, token_P: Tensor, weight_P: Tensor, num_tokens: int
) -> Float[Tensor, "{num_tokens} dim"]:
    """The same as a product with the dense T x P incidence matrix."""
    incidence_TP = torch.zeros(num_tokens, len(token_P), dtype=y_PD.dtype)
    incidence_TP[token_P, torch.arange(len(token_P))] = 1.0
    return incidence_TP @ (y_PD * weight_P[:, None])
