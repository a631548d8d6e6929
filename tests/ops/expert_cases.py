"""Inputs around every edge of `expert_ffn`, and how a backend is compared with the definition on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from leandit.ops import expert_ffn
from leandit.ops.expert_ffn import ExpertImpl


@dataclass(frozen=True)
class Case:
    """Sizes, and which tokens go to which experts: with this probability, and to `only` if it is a list."""

    tokens: int
    experts: int
    dim: int = 8
    hidden: int = 12
    chance: float = 0.5
    only: tuple[int, ...] | None = None

    def mask(self) -> Tensor:
        mask = torch.rand(self.tokens, self.experts, generator=torch.Generator().manual_seed(2)) < self.chance
        if self.only is not None:
            mask[:, [e for e in range(self.experts) if e not in self.only]] = False
        return mask


CASES = {
    "tokens with several experts and with none": Case(20, 4, chance=0.4),
    "empty experts": Case(20, 4, only=(1, 2)),
    "one expert": Case(5, 1, chance=1),
    "all tokens on one expert": Case(37, 3, chance=1, only=(2,)),
    "every token on every expert": Case(9, 3, chance=1),
    "one pair": Case(1, 2, chance=1, only=(1,)),
    "no pair": Case(6, 2, chance=0),
    "no token": Case(0, 2),
    "odd widths over several tiles": Case(19, 2, dim=33, hidden=35),
    "several blocks of rows": Case(70, 2),
    "widths of one": Case(5, 2, dim=1, hidden=1),
    "no width": Case(5, 2, dim=0),
    "no hidden width": Case(5, 2, hidden=0),
}


def tensors(case: Case, activation: str, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Return x, weight, w1, b1, w2 and b2, with gradients; some weights of pairs are negative and some are zero."""
    generator = torch.Generator().manual_seed(0)
    experts, dim, hidden = case.experts, case.dim, case.hidden
    columns = 2 * hidden if activation == "swiglu" else hidden
    shapes = [(case.tokens, dim), (case.tokens, experts), (experts, dim, columns), (experts, columns)]
    shapes += [(experts, hidden, dim), (experts, dim)]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    values[1][::3] = 0
    values[2], values[4] = values[2] / max(dim, 1) ** 0.5, values[4] / max(hidden, 1) ** 0.5
    return [value.to(device, dtype).requires_grad_() for value in values]


def run(
    inputs: list[Tensor],
    mask: Tensor,
    impl: ExpertImpl,
    grad: Tensor,
    ffn: Callable[..., Tensor] = expert_ffn,
    **kwargs: Any,
) -> list[Tensor]:
    """Return the output and the gradients of all inputs, for this gradient of the output."""
    x, weight, *weights = inputs
    out = ffn(x, weight, mask, *weights, impl=impl, **kwargs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def output_gradient(case: Case, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(case.tokens, case.dim, generator=generator, dtype=torch.float64).to(device)


def assert_same(mine: list[Tensor], theirs: list[Tensor], rtol: float, atol: float) -> None:
    """Compare output and gradients, and say which of them differ."""
    names = ("output", "x", "weight", "w1", "b1", "w2", "b2")
    for name, one, other in zip(names, mine, theirs, strict=True):
        torch.testing.assert_close(
            one.double(), other.double(), rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def poison_allocations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what comes uninitialised with NaN, or with a number that no index and no count has."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def fill(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            if out.is_floating_point():
                return out.fill_(torch.nan)
            return out.fill_(123_456_789) if out.dtype in (torch.int32, torch.int64) else out

        return fill

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
