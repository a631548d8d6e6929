"""What a sampler sees of a network: a function from a noisy sample to its velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Denoised:
    """The velocity dx/dt at (x, t) and, with learned sigma, the fraction between both variances.

    A fraction of 0 is the small variance β̃ of the DDPM chain and 1 the large one, β, on a log scale. It is
    trained towards [0, 1] but not held there; outside, the variance is extrapolated, as in DiT.
    """

    velocity: Float[Tensor, "batch channels *rest"]
    variance: Float[Tensor, "batch channels *rest"] | None = None


@runtime_checkable
class Denoiser(Protocol):
    """(x, t, cond) -> Denoised, with t of shape (batch,), 0 = data, 1 = noise; cond goes through unread."""

    def __call__(
        self, x: Float[Tensor, "batch channels *rest"], t: Float[Tensor, " batch"], cond: Any, /
    ) -> Denoised: ...


@runtime_checkable
class Condition(Protocol):
    """What guidance asks of a condition: to be joined with another one along the batch, self first."""

    def stack(self, other: Any, /) -> Any: ...
