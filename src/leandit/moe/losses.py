"""Auxiliary losses: pure functions of what the routers returned.

Each takes one layer's router output and returns a scalar; the trainer averages over layers and weights them.
Per-layer regularisation needs the diffusion target, so it is computed with the objective.

Legend: T tokens of the batch, E experts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leandit.moe.seams import RouterOutput


def router_similarity(
    logits: Float[Tensor, "*tokens experts"], mask: Bool[Tensor, "*tokens experts"]
) -> Float[Tensor, ""]:
    """L_sim = (1/T) sum_ij W_ij P'_ij penalises pairs of experts that are often chosen together.

    P' = Pᵀ P; P is the softmax over experts, for every gate. M' = Mᵀ M counts co-selections;
    W_ii = E M'_ii / sum_j M'_jj and W_ij = (E² - E) M'_ij / sum_{a != b} M'_ab. The mask is hard, so the gradient
    flows only through P. If no token has two experts, the off-diagonal part is 0. Otherwise uniform P gives 1.

    Reference: Expert Race, eqs. 9-11. The paper does not state the weight.
    """
    num_experts = logits.shape[-1]
    p_TE = logits.reshape(-1, num_experts).softmax(-1)
    together_EE = co_selection(mask)
    diagonal_EE = torch.diag(together_EE.diagonal())
    off_EE = together_EE - diagonal_EE
    weight_EE = num_experts * diagonal_EE / diagonal_EE.sum().clamp(min=1)
    weight_EE = weight_EE + (num_experts**2 - num_experts) * off_EE / off_EE.sum().clamp(min=1)
    with torch.autocast(logits.device.type, enabled=False):
        return (weight_EE * (p_TE.T @ p_TE)).sum() / p_TE.shape[0]


def co_selection(mask: Bool[Tensor, "*tokens experts"]) -> Float[Tensor, "experts experts"]:
    """Return Mᵀ M: the number of tokens that have both experts. The diagonal is the load. Exact up to 2^24 tokens."""
    m_TE = mask.reshape(-1, mask.shape[-1]).float()
    with torch.autocast(mask.device.type, enabled=False):
        return m_TE.T @ m_TE


def load_balance(
    logits: Float[Tensor, "*tokens experts"], chosen: Bool[Tensor, "*tokens experts"]
) -> Float[Tensor, ""]:
    """L_bal = E sum_e f_e p_e; f_e is expert e's share of the chosen pairs, p_e its mean softmax probability.

    It is 1 under perfect balance, and E if one expert gets all pairs and all probability. Pairs that a capacity drops
    count: with a capacity the computed pairs are balanced even if the router is not.

    Reference: Switch Transformer (arXiv 2101.03961), eqs. 4 and 5; GShard for k > 1.
    """
    num_experts = logits.shape[-1]
    p_TE = logits.reshape(-1, num_experts).softmax(-1)
    load_E = chosen.reshape(-1, num_experts).sum(0)
    share_E = load_E / load_E.sum().clamp(min=1)
    return num_experts * (share_E * p_TE.mean(0)).sum()


def gshard_balance(logits: Float[Tensor, "*tokens experts"]) -> Float[Tensor, ""]:
    """L_bal = E sum_e c_e p_e; c_e is the share of tokens whose first choice is e, p_e is as in `load_balance`.

    Pairs that a capacity drops count; second choices do not. The gradient flows only through p. The loss is over all
    tokens of the micro-batch; GShard averages over groups. It is 1 under perfect balance, and E if one expert is every
    token's first choice with probability 1.

    Reference: GShard (arXiv 2006.16668), Algorithm 1, whose l_aux is this over E².
    """
    num_experts = logits.shape[-1]
    logits_TE = logits.reshape(-1, num_experts)
    # Count by comparison, because `bincount` waits for the GPU.
    first_E = (logits_TE.argmax(-1)[:, None] == torch.arange(num_experts, device=logits.device)).float().mean(0)
    return num_experts * (first_E * logits_TE.softmax(-1).mean(0)).sum()


def z_loss(logits: Float[Tensor, "*tokens experts"]) -> Float[Tensor, ""]:
    """L_z = mean over tokens of (log sum_e exp s_e)². It keeps logits small.

    Reference: ST-MoE, eq. 5.
    """
    return logits.reshape(-1, logits.shape[-1]).logsumexp(-1).square().mean()


def auxiliary_losses(outputs: Sequence[RouterOutput], names: Collection[str]) -> dict[str, Float[Tensor, ""]]:
    """Return the losses with these names, averaged over layers. Each is computed for all layers at once."""
    if not names:
        return {}
    logits_NTE = torch.stack([output.logits.flatten(0, -2) for output in outputs])
    mask_NTE, chosen_NTE = (
        torch.stack([getattr(output, name).flatten(0, -2) for output in outputs]) for name in ("mask", "chosen")
    )
    losses = {
        "router_similarity": lambda: torch.vmap(router_similarity)(logits_NTE, mask_NTE),
        "load_balance": lambda: torch.vmap(load_balance)(logits_NTE, chosen_NTE),
        "gshard_balance": lambda: torch.vmap(gshard_balance)(logits_NTE),
        "z_loss": lambda: torch.vmap(z_loss)(logits_NTE),
    }
    return {name: losses[name]().mean() for name in names}


AUXILIARY_LOSSES = ("router_similarity", "load_balance", "gshard_balance", "z_loss")
"""The names of the losses that need only the routers' outputs."""
