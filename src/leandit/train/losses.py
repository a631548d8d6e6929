"""The training loss: the objective, plus what the routers' outputs ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.diffusion import Noised, Objective
from leandit.models import Backbone, BackboneOutput
from leandit.moe import auxiliary_losses
from leandit.train.config import LossWeights


@dataclass(frozen=True)
class LossTerms:
    """`total` is what is minimised; `parts` are its unweighted terms by name; `per_sample` the objective's part."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    per_sample: Float[Tensor, " batch"]


def loss_terms(
    model: Backbone, output: BackboneOutput, objective: Objective, noised: Noised, weights: LossWeights
) -> LossTerms:
    """Return objective + sum of weight * mean over layers of each auxiliary loss whose weight is not 0.

    Per-layer regularisation is the objective's own loss, applied to every router's target head:
    L_PLR = mean_i L(H(h_i), y).

    Reference: Expert Race, eqs. 9-11 and Figure 12.
    """
    objective_parts = objective.loss(output.prediction.float(), noised)
    per_sample = torch.stack(list(objective_parts.values())).sum(0)
    parts = {name: value.mean() for name, value in objective_parts.items()}
    total = per_sample.mean()
    for name, value in _router_parts(model, output, objective, noised, weights).items():
        parts[name] = value
        total = total + getattr(weights, name) * value
    return LossTerms(total, parts, per_sample)


def _router_parts(
    model: Backbone, output: BackboneOutput, objective: Objective, noised: Noised, weights: LossWeights
) -> dict[str, Tensor]:
    if not output.routers:
        return {}
    layers = [auxiliary_losses(router) for router in output.routers]
    parts = {
        name: torch.stack([layer[name] for layer in layers]).mean() for name in layers[0] if getattr(weights, name)
    }
    targets = [router.target for router in output.routers if router.target is not None]
    if targets and weights.per_layer_regularisation:
        predictions = [model.unpatchify(target.float()) for target in targets]
        losses = [objective.auxiliary_loss(prediction, noised).mean() for prediction in predictions]
        parts["per_layer_regularisation"] = torch.stack(losses).mean()
    return parts
