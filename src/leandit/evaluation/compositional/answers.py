"""What a model that answers questions on pictures offers to the benchmarks that ask them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor


@runtime_checkable
class VQA(Protocol):
    """Answers questions on a picture with yes or no."""

    def __call__(
        self, picture: UInt8[Tensor, "height width channels"], questions: Sequence[str]
    ) -> Float[Tensor, " questions"]:
        """Return the probability of "yes" for each question, as against "no"."""

    def about(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""
