"""The six routing strategies as one selection over differently shaped pools of scores.

Scores S in R^{B x L x E} are viewed as rows x pool. The best scores of each row are kept, B*L*k pairs in total:

    strategy        rows     pool       kept per row
    token_choice    B, L     E          k
    expert_choice   B, E     L          k L / E
    bl_choice       E        B, L       k B L / E
    be_choice       L        B, E       B k
    le_choice       B        L, E       L k
    expert_race     -        B, L, E    B L k

If k L / E (k B L / E) is not an integer, every row keeps the floor. The remaining pairs go to the rows with the highest
next-best scores: for expert choice within a sample, so that samples stay independent. k may be a fraction, as EC-DiT's
f_c; a sample (without B in rows, the batch) then has floor(L k) pairs.

Expert choice can also run over groups of G consecutive tokens of the flattened batch: each expert keeps k G / E tokens
of a group, across samples. The last group may be shorter.

Token choice can have a capacity: every expert has C slots in each group of tokens. Slots go to all first choices of the
group, in the order of tokens, then to the second choices, and so on. A pair that finds no slot is dropped.

Legend: B batch, L tokens, E experts, R rows, P pool; for a capacity T tokens of the batch, K choices, P pairs in order.

Reference: Expert Race, Figure 3 and Table 6; EC-DiT (2410.02098), section 3.1; GShard (2006.16668), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandit.errors import LeanDiTError, unknown
from leandit.ops import pooled_topk


@dataclass(frozen=True)
class Strategy:
    """Which axes of (B, L, E) index the competitions, and which axes compete."""

    rows: str
    pool: str

    @property
    def spans_samples(self) -> bool:
        """Whether a sample's pairs depend on other samples, so that inference needs a threshold."""
        return "B" in self.pool


STRATEGIES: dict[str, Strategy] = {
    "token_choice": Strategy("BL", "E"),
    "expert_choice": Strategy("BE", "L"),
    "bl_choice": Strategy("E", "BL"),
    "be_choice": Strategy("L", "BE"),
    "le_choice": Strategy("B", "LE"),
    "expert_race": Strategy("", "BLE"),
}
GROUPED = ("expert_choice",)  # strategies that support groups of tokens


@torch.no_grad()
def select_mask(
    scores: Float[Tensor, "batch tokens experts"], *, strategy: str, k: int | float, group_tokens: int | None = None
) -> tuple[Bool[Tensor, "batch tokens experts"], Float[Tensor, " rows"]]:
    """Return the mask of the B*L*k pairs that win under `strategy`, and the smallest kept score of each row.

    `scores` are gated, `k` is the mean number of experts per token, 0 < k <= E. If scores are tied, earlier positions
    win. Raises LeanDiTError for an unknown strategy, a k out of range, or a strategy that does not support groups.

    Reference: Expert Race, Table 6.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    if not 0 < k <= scores.shape[-1]:
        raise LeanDiTError(f"k = {k} experts per token: choose more than 0 and at most all, {scores.shape[-1]}")
    if group_tokens is not None:
        return _select_in_groups(scores, strategy, k, group_tokens)
    rule = STRATEGIES[strategy]
    order = ["BLE".index(axis) for axis in rule.rows + rule.pool]
    permuted = scores.permute(order)
    num_rows = prod(permuted.shape[: len(rule.rows)])
    if scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool), scores.new_full((num_rows,), torch.inf)
    scores_RP = permuted.reshape(num_rows, -1)
    groups = scores.shape[0] if "B" in rule.rows else 1
    tokens = scores.shape[0] // groups * scores.shape[1]
    total = groups * (tokens * k if isinstance(k, int) else int(tokens * k + 1e-6))  # 100 * 0.57 is 57
    most = (total + num_rows - 1) // num_rows
    mask_RP, cutoff_R = pooled_topk(scores_RP, _budgets(scores_RP, groups, total), largest=most)
    inverse = [order.index(axis) for axis in range(len(order))]
    return mask_RP.reshape(permuted.shape).permute(inverse), cutoff_R


def _select_in_groups(
    scores: Float[Tensor, "batch tokens experts"], strategy: str, k: int | float, group_tokens: int
) -> tuple[Bool[Tensor, "batch tokens experts"], Float[Tensor, " rows"]]:
    """Select as if every group were one sample."""
    if strategy not in GROUPED:
        raise LeanDiTError(f"strategy {strategy} does not support groups: omit group_tokens, or use expert_choice")
    num_experts = scores.shape[-1]
    scores_TE = scores.reshape(-1, num_experts)
    whole = scores_TE.shape[0] // group_tokens * group_tokens
    full, rest = scores_TE[:whole].reshape(-1, group_tokens, num_experts), scores_TE[None, whole:]
    selected = [select_mask(part, strategy=strategy, k=k) for part in (full, rest)]
    mask = torch.cat([mask.reshape(-1, num_experts) for mask, _ in selected]).reshape(scores.shape)
    return mask, torch.cat([cutoff for _, cutoff in selected])


def _budgets(scores_RP: Float[Tensor, "rows pool"], groups: int, total: int) -> Int[Tensor, " rows"]:
    """Divide `total` pairs among the rows. The rows of one group (sample) divide the remaining pairs of the group."""
    num_rows, pool = scores_RP.shape
    # divmod does not accept symbolic sizes, which a compiled model has if the batch size changes.
    whole, left_over = total // num_rows, total % num_rows
    budget_R = torch.full((num_rows,), whole, device=scores_RP.device)
    if left_over:
        next_best_R = scores_RP.topk(min(whole + 1, pool), dim=1).values[:, -1]
        mask_GR, _ = pooled_topk(
            next_best_R.reshape(groups, -1),
            torch.full((groups,), left_over // groups, device=budget_R.device),
            largest=left_over // groups,
        )
        budget_R += mask_GR.reshape(-1)
    return budget_R


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
    C = floor(group_tokens * capacity_factor / E) slots in it; a shorter group at the end has fewer. If scores are tied,
    the earlier expert is chosen first. GShard also drops second choices at random; this rule is deterministic.
    """
    if scores.numel() == 0:
        return chosen
    num_tokens, num_experts = scores.shape[0] * scores.shape[1], scores.shape[2]
    size = group_tokens or scores.shape[1]
    choice_TK = scores.reshape(num_tokens, num_experts).sort(dim=1, descending=True, stable=True).indices[:, :k]
    group_T = torch.arange(num_tokens, device=scores.device) // size
    # A pair's place is the number of earlier pairs in its queue. Sorting costs less than a one-hot matrix.
    queue_P = (group_T * num_experts + choice_TK.T).reshape(-1)
    sorted_P, order_P = queue_P.sort(stable=True)
    index_P = torch.arange(len(queue_P), device=queue_P.device) - torch.searchsorted(sorted_P, sorted_P)
    place_KT = torch.empty_like(queue_P).scatter_(0, order_P, index_P).reshape(k, num_tokens)
    # Only the last group can be shorter; its index is then num_tokens // size.
    slots, fewer = (int(tokens * capacity_factor / num_experts) for tokens in (size, num_tokens % size))
    slots_T = torch.where(group_T == num_tokens // size, fewer, slots)
    kept_TE = torch.zeros(num_tokens, num_experts, dtype=torch.bool, device=scores.device)
    kept_TE.scatter_(1, choice_TK, (place_KT < slots_T).T)
    return chosen & kept_TE.reshape(chosen.shape)
