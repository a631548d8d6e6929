"""The order of (token, expert) pairs while experts compute: sorted by expert, and padded to blocks per expert.

Legend: T tokens, E experts, P pairs, R rows of the padded order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.ops.expert_ffn.operator import BLOCK


@dataclass(frozen=True)
class Layout:
    """The padded order and the way back to the tokens.

    `token` and `weight` belong to rows; padding has token 0 and weight 0. `row` lists the rows of the pairs in the
    order of their tokens: token t has entries `bag[t]` to `bag[t + 1] - 1`. `pair_weight` belongs to `row`; it is 0 in
    unused entries, which exist if `num_rows` is only an upper bound. `ends[e]` is the end of expert e's rows.
    """

    token: Int[Tensor, " rows"]
    weight: Float[Tensor, " rows"]
    row: Int[Tensor, " pairs"]
    pair_weight: Float[Tensor, " pairs"]
    bag: Int[Tensor, " bags"]
    ends: Int[Tensor, " experts"]


def layout(
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    num_rows: int | None = None,
    block: int = BLOCK,
) -> Layout:
    """Return the order of the pairs whose mask is True.

    Without `num_rows` the order is as long as necessary, and the host waits for the device to count. With `num_rows`
    (from `max_rows`) the length is fixed, and the host does not wait.
    """
    count_E = mask_TE.sum(0)
    padded_E = (count_E + block - 1) // block * block
    ends_E = padded_E.cumsum(0)
    rows = int(ends_E[-1]) if num_rows is None else num_rows
    token_P, expert_P = _pairs(mask_TE, None if num_rows is None else num_rows - len(ends_E) * (block - 1))
    # Number all pairs in one scan, expert by expert: a scan per column would use only one GPU thread per expert.
    number_ET = mask_TE.T.reshape(-1).cumsum(0, dtype=torch.int32)
    skipped_E = ends_E - padded_E - count_E.cumsum(0) + count_E
    row_P = number_ET.index_select(0, expert_P * len(mask_TE) + token_P) - 1 + skipped_E.index_select(0, expert_P)
    weight_P = weight_TE.reshape(-1).index_select(0, token_P * len(ends_E) + expert_P)
    if num_rows is not None:
        real_P = torch.arange(len(row_P), device=row_P.device) < count_E.sum()
        row_P, weight_P = row_P.where(real_P, rows), weight_P.where(real_P, 0.0)
    # One extra row, for the unused entries.
    token_R = token_P.new_zeros(rows + 1).index_copy_(0, row_P, token_P)[:rows]
    weight_R = weight_P.new_zeros(rows + 1).index_copy_(0, row_P, weight_P)[:rows]
    bag_T = torch.nn.functional.pad(mask_TE.sum(1).cumsum(0), (1, 0))
    return Layout(token_R, weight_R, row_P.clamp(max=rows - 1), weight_P, bag_T, ends_E)


def _pairs(mask_TE: Tensor, bound: int | None) -> tuple[Tensor, Tensor]:
    """Return the token and the expert of every pair, ordered by token. With a bound, zeros fill the end of the list."""
    if bound is None:
        token_P, expert_P = mask_TE.nonzero(as_tuple=True)
        return token_P, expert_P
    torch._assert_async(mask_TE.sum() <= bound, "the mask has more pairs than num_pairs")
    pair_P2 = mask_TE.nonzero_static(size=min(bound, mask_TE.numel()), fill_value=0)
    return pair_P2[:, 0], pair_P2[:, 1]


def combine(
    y_RD: Float[Tensor, "rows dim"], plan: Layout, weighted: bool, num_tokens: int
) -> Float[Tensor, "{num_tokens} dim"]:
    """Return the sum over each token's rows, weighted or plain, accumulated in fp32; 0 for a token without rows."""
    if not num_tokens or not len(plan.row):
        return y_RD.new_zeros(num_tokens, y_RD.shape[1])
    # An embedding bag computes this sum in one read of the rows; index_add takes several times as long.
    weight = plan.pair_weight.to(y_RD.dtype) if weighted else None
    return torch.nn.functional.embedding_bag(plan.row, y_RD, plan.bag[:-1], mode="sum", per_sample_weights=weight)


def weight_gradients(
    grad_TD: Float[Tensor, "tokens dim"],
    hidden_P: Float[Tensor, " pairs"],
    weight_TE: Float[Tensor, "tokens experts"],
    mask_TE: Bool[Tensor, "tokens experts"],
    b2_ED: Float[Tensor, "experts dim"],
) -> tuple[Float[Tensor, "tokens experts"], Float[Tensor, "experts dim"]]:
    """Return the gradients of the pairs' weights and of b2.

    Let g be the gradient of the output and a the hidden row of a pair. The gradient of the pair's weight is
    <g, a W2 + b2>. `hidden_P` is <g, a W2> of each pair, in the order of the tokens.
    """
    grad_weight_TE = torch.zeros_like(weight_TE).masked_scatter_(mask_TE, hidden_P.to(weight_TE.dtype))
    grad_weight_TE += (grad_TD @ b2_ED.T).to(weight_TE.dtype).masked_fill_(~mask_TE, 0)
    return grad_weight_TE, weight_TE.masked_fill(~mask_TE, 0).to(grad_TD.dtype).T @ grad_TD
