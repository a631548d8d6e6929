"""The Gaussian posterior q(x_s | x_t, x0) of a path, s < t, for ancestral sampling and DDPM's variational bound."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from leandit.diffusion.path import Path


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(x0_weight x0 + x_weight x_t, variance). `forward_variance` is the variance of q(x_t | x_s).

    If s is one grid step below t, `variance` is DDPM's β̃ ("small") and `forward_variance` is its β ("large").
    """

    x0_weight: Tensor
    x_weight: Tensor
    variance: Tensor
    forward_variance: Tensor


def posterior(path: Path, t: Float[Tensor, "*times"], s: Float[Tensor, "*times"]) -> Posterior:
    """Return q(x_s | x_t, x0) for times s < t. Pass float64 times: variances are differences of nearly equal numbers.

    Let r = α_t / α_s, and let σ²_{t|s} = σ_t² - r² σ_s² be the variance of the forward step. The mean is
    (α_s σ²_{t|s} x0 + r σ_s² x_t) / σ_t², and the variance is σ_s² σ²_{t|s} / σ_t².

    Reference: Ho et al. (2006.11239), eq. 6 and 7; Kingma et al., "Variational Diffusion Models"
    (2107.00630), appendix A.2 for any α and σ.
    """
    at_t, at_s = path.coefficients(t), path.coefficients(s)
    ratio = at_t.alpha / at_s.alpha
    sigma_t2, sigma_s2 = at_t.sigma.square(), at_s.sigma.square()
    forward = (sigma_t2 - ratio.square() * sigma_s2).clamp(min=0)
    return Posterior(
        at_s.alpha * forward / sigma_t2, ratio * sigma_s2 / sigma_t2, sigma_s2 * forward / sigma_t2, forward
    )


def chain(path: Path, times: Float[Tensor, " steps"]) -> Posterior:
    """Return the posteriors of times[i] -> times[i-1] (-> 0 for i = 0). `times` are ascending in (0, 1].

    The variance of the first posterior is 0, because σ = 0 at t = 0. Its logarithm is needed, so it is replaced by the
    variance of the second, as in the Improved DDPM code. A chain of one step uses the forward variance.
    """
    result = posterior(path, times, torch.cat([times.new_zeros(1), times[:-1]]))
    variance = result.variance.clone()
    variance[0] = variance[1] if len(times) > 1 else result.forward_variance[0]
    return result._replace(variance=variance)


def interpolate_variance(
    fraction: Float[Tensor, "*shape"], small: Float[Tensor, "*#shape"], large: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Return log σ² = f log(large) + (1 - f) log(small), the learned variance of the reverse step.

    Reference: Nichol & Dhariwal, "Improved DDPM" (2102.09672), eq. 15.
    """
    return fraction * torch.log(large) + (1 - fraction) * torch.log(small)
