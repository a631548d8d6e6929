"""How many tokens an expert takes: token choice with a capacity.

Every expert has C slots in each group of tokens. Its queue is served in the order of choices, then of tokens: all
first choices of the group before the second ones. Whoever finds no slot left is dropped; the token then has fewer
experts, or none.

Legend: T tokens of the batch, E experts, K choices of a token, P pairs in the order in which they are served.

Reference: GShard (arXiv 2006.16668), Algorithm 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@torch.no_grad()
def within_capacity(
    scores: Float[Tensor, "batch tokens experts"],
    chosen: Bool[Tensor, "batch tokens experts"],
    *,
    k: int,
    capacity_factor: float,
    group_tokens: int | None = None,
) -> Bool[Tensor, "batch tokens experts"]:
    """Return the pairs of `chosen`, each token's k best `scores`, that find a slot.

    A group is `group_tokens` consecutive tokens of the flattened batch, or each sample's tokens. Each expert has
    C = floor(group_tokens * capacity_factor / E) slots in it, possibly none; a shorter group at the end of the batch
    has fewer. Of tied scores the earlier expert is the earlier choice.

    GShard also drops second choices at random, in proportion to their weight; this rule draws nothing.
    """
    if scores.numel() == 0:
        return chosen
    num_tokens, num_experts = scores.shape[0] * scores.shape[1], scores.shape[2]
    size = group_tokens or scores.shape[1]
    choice_TK = scores.reshape(num_tokens, num_experts).sort(dim=1, descending=True, stable=True).indices[:, :k]
    group_T = torch.arange(num_tokens, device=scores.device) // size
    place_KT = _places((group_T * num_experts + choice_TK.T).reshape(-1)).reshape(k, num_tokens)
    # Only the last group can be shorter, and then it is the one of this number.
    slots, fewer = (int(tokens * capacity_factor / num_experts) for tokens in (size, num_tokens % size))
    slots_T = torch.where(group_T == num_tokens // size, fewer, slots)
    kept_TE = torch.zeros(num_tokens, num_experts, dtype=torch.bool, device=scores.device)
    kept_TE.scatter_(1, choice_TK, (place_KT < slots_T).T)
    return chosen & kept_TE.reshape(chosen.shape)


def _places(queue_P: Int[Tensor, " pairs"]) -> Int[Tensor, " pairs"]:
    """Return how many earlier pairs stand in the same queue, from the number of each pair's queue.

    By sorting, whose cost does not grow with the number of queues, where counting over a one-hot matrix would.
    """
    sorted_P, order_P = queue_P.sort(stable=True)
    index_P = torch.arange(len(queue_P), device=queue_P.device)
    return torch.empty_like(queue_P).scatter_(0, order_P, index_P - torch.searchsorted(sorted_P, sorted_P))
