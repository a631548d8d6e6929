"""The training loss: the objective, the auxiliary losses of routers, and the reconstruction of hidden tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandit.diffusion import Noised, Objective
from leandit.models import Backbone, BackboneOutput, take_tokens
from leandit.moe import AUXILIARY_LOSSES, auxiliary_losses
from leandit.run.config import LossWeights


@dataclass(frozen=True)
class LossTerms:
    """Training minimises `total`. `parts` are its unweighted terms by name, `per_sample` is the objective's loss."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    per_sample: Float[Tensor, " batch"]


def loss_terms(
    model: Backbone, output: BackboneOutput, objective: Objective, noised: Noised, weights: LossWeights
) -> LossTerms:
    """Return objective + sum of weight * mean over layers of each auxiliary loss whose weight is not 0.

    Per-layer regularisation is the objective's loss of every router's target head: L_PLR = mean_i L(H(h_i), y).

    If tokens are hidden, both use only the visible tokens, and weight * `mask_reconstruction` is added.

    Reference: Expert Race, eqs. 9-11 and Figure 12; MaskDiT (arXiv 2306.09305) for hidden tokens.
    """
    prediction, seen = output.prediction.float(), noised
    if output.visible is not None:
        prediction = _pixels_of(model, prediction, output.visible)
        x_t, x0, eps = (_pixels_of(model, x, output.visible) for x in (noised.x_t, noised.x0, noised.eps))
        seen = Noised(x_t, noised.t, x0, eps)
    objective_parts = objective.loss(prediction, seen)
    per_sample = torch.stack(list(objective_parts.values())).sum(0)
    parts = {name: value.mean() for name, value in objective_parts.items()}
    total = per_sample.mean()
    auxiliary = _router_parts(model, output, objective, seen, weights)
    if output.visible is not None and weights.mask_reconstruction:
        mean_part = objective.mean_part(output.prediction.float())
        auxiliary["mask_reconstruction"] = mask_reconstruction(model, mean_part, noised.x_t, output.visible)
    for name, value in auxiliary.items():
        parts[name] = value
        total = total + getattr(weights, name) * value
    return LossTerms(total, parts, per_sample)


def mask_reconstruction(
    model: Backbone,
    prediction: Float[Tensor, "batch channels height width"],
    x_t: Float[Tensor, "batch channels height width"],
    visible: Int[Tensor, "batch kept"],
) -> Float[Tensor, ""]:
    """Return the mean over hidden tokens of |prediction - n(x_t)|² per number, n(x) = (x - mean) / sqrt(var + 1e-6).

    n uses the mean and the (unbiased) variance of a patch over its pixels and channels. As MAE reconstructs pixels,
    MaskDiT reconstructs the noisy input. MaskDiT's code compares n(x_t) with the denoiser's estimate of the data, which
    under EDM's preconditioning contains a part of x_t. Here it is compared with the network's raw output, for every
    objective: under flow matching the estimate x_t - t v would contain all of x_t and weight v by t². For a network
    that predicts x0, output and estimate are the same. EC-DiT, a rectified flow with masking, does not describe this.

    Reference: MaskDiT (arXiv 2306.09305), section on training, and its public code; MAE (arXiv 2111.06377).
    """
    hidden = torch.ones(visible.shape[0], model.grid_of(x_t).tokens, dtype=torch.bool, device=visible.device)
    # By sorting, since `nonzero` would wait for a GPU.
    hidden = hidden.scatter(1, visible, False).int().argsort(dim=1, descending=True, stable=True)
    hidden = hidden[:, : hidden.shape[1] - visible.shape[1]]
    noisy, predicted = (take_tokens(model.patchify(x), hidden) for x in (x_t, prediction))
    # A patch of one number has no unbiased variance.
    variance, mean = torch.var_mean(noisy, dim=-1, keepdim=True, correction=min(1, noisy.shape[-1] - 1))
    return (predicted - (noisy - mean) / (variance + 1e-6).sqrt()).square().mean()


def _router_parts(
    model: Backbone, output: BackboneOutput, objective: Objective, seen: Noised, weights: LossWeights
) -> dict[str, Tensor]:
    if not output.routers:
        return {}
    parts = auxiliary_losses(output.routers, [name for name in AUXILIARY_LOSSES if getattr(weights, name)])
    targets = [router.target for router in output.routers if router.target is not None]
    if targets and weights.per_layer_regularisation:
        masked = output.visible is not None
        arranged = [
            _by_channel(target, seen.x0.shape[1]) if masked else model.unpatchify(target, model.grid_of(seen.x0))
            for target in targets
        ]
        losses = [objective.auxiliary_loss(prediction.float(), seen).mean() for prediction in arranged]
        parts["per_layer_regularisation"] = torch.stack(losses).mean()
    return parts


def _pixels_of(
    model: Backbone, x: Float[Tensor, "batch channels height width"], index: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch channels pixels"]:
    """Return the pixels of the patches in `index`, in a shape that every objective accepts."""
    return _by_channel(take_tokens(model.patchify(x), index), x.shape[1])


def _by_channel(
    patches: Float[Tensor, "batch kept patch_dim"], channels: int
) -> Float[Tensor, "batch channels pixels"]:
    """Return the numbers of the patches by channel. A patch is flattened as (row, column, channel)."""
    return patches.unflatten(2, (-1, channels)).permute(0, 3, 1, 2).flatten(2)
