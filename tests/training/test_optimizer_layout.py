"""What is expected of an optimiser's state, derived from the optimisers, against states that training really makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leandit.presets import run_config
from leandit.run.manifest import UnfitCheckpoint
from leandit.training.optimizer_layout import check_optimizer_tensors, optimizer_layout
from leandit.training.optimizers import build_optimizers, optimizer_tensors

FILE = Path("optimizer.safetensors")
KINDS = ("adamw", "adafactor", "rmsprop", "muon")


class Network(nn.Module):
    """Parameters of every number of dimensions, a name that Muon takes, and one that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.experts = nn.Parameter(torch.randn(2, 3, 5))
        self.idle = nn.Parameter(torch.zeros(7))

    def loss(self, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return (
            self.scale * self.attention(torch.randn(8, 6)).square().mean() + (self.experts * torch.randn(2, 3, 5)).sum()
        )


def trained(kind: str, steps: int) -> tuple[list[torch.optim.Optimizer], Network]:
    torch.manual_seed(0)
    model = Network()
    optimizers = build_optimizers(run_config("tiny", [f"optimizer.type={kind}"]).optimizer, model)
    for step in range(steps):
        model.loss(step).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return optimizers, model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_real_state_fits_and_deriving_the_layout_changes_nothing(kind: str, steps: int) -> None:
    optimizers, model = trained(kind, steps)
    before = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizers, model).items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = trained(kind, 0)
    layout = optimizer_layout(optimizers, model)
    assert optimizer_layout(*fresh) == layout
    assert not optimizer_tensors(*fresh)
    assert layout.keys() == dict(model.named_parameters()).keys()
    check_optimizer_tensors(FILE, before, layout, ["idle"], steps)
    check_optimizer_tensors(FILE, before, layout, None, steps)
    after = optimizer_tensors(optimizers, model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def change(tensors: dict[str, Tensor], name: str, value: Tensor) -> None:
    tensors[name] = value


EDITS: dict[str, tuple[Callable[[dict[str, Tensor], str], object], str]] = {
    "three elements": (lambda t, n: change(t, n, torch.ones(3)), r"has the shape \[3\], expected"),
    "one element": (lambda t, n: change(t, n, t[n].flatten()[:1].reshape(1, 1, 1, 1)), r"has the shape \[1, 1, 1, 1\]"),
    "missing": (lambda t, n: t.pop(n), "is missing"),
    "unknown": (lambda t, n: change(t, n + "x", t[n]), "is unknown"),
    "no such parameter": (lambda t, n: change(t, "other.exp_avg", t[n]), "is unknown"),
    "infinite": (lambda t, n: t[n].view(-1)[:1].fill_(torch.inf), "not finite|number of steps"),
    "not a number": (lambda t, n: t[n].view(-1)[-1:].fill_(torch.nan), "not finite|number of steps"),
    "double": (lambda t, n: change(t, n, t[n].double()), r"is torch\.float64, expected"),
    "whole": (lambda t, n: change(t, n, t[n].int()), r"is torch\.int32, expected"),
    "empty": (lambda t, n: t.clear(), "no parameter has any state after 3 steps|is missing"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", EDITS)
def test_every_wrong_tensor_is_named_in_every_slot(kind: str, edit: str) -> None:
    optimizers, model = trained(kind, 3)
    layout, saved = optimizer_layout(optimizers, model), optimizer_tensors(optimizers, model)
    apply, message = EDITS[edit]
    for name in saved:
        tensors = {n: t.clone() for n, t in saved.items()}
        apply(tensors, name)
        with pytest.raises(UnfitCheckpoint, match=rf"optimizer\.safetensors: .*({message})"):
            check_optimizer_tensors(FILE, tensors, layout, ["idle"], 3)


SQUARES = {"adamw": ".exp_avg_sq", "rmsprop": ".square_avg", "muon": ".exp_avg_sq"}


@pytest.mark.parametrize("kind", SQUARES)
def test_averages_of_squares_are_never_negative_and_other_averages_may_be(kind: str) -> None:
    optimizers, model = trained(kind, 3)
    layout, saved = optimizer_layout(optimizers, model), optimizer_tensors(optimizers, model)
    squares = [name for name in saved if name.endswith(SQUARES[kind])]
    assert squares
    for name in saved:
        tensors = {n: t.clone() for n, t in saved.items()}
        tensors[name].view(-1)[:1] = -1e-6
        if name in squares or name.endswith(".step"):
            with pytest.raises(UnfitCheckpoint, match="negative"):
                check_optimizer_tensors(FILE, tensors, layout, ["idle"], 3)
        else:
            check_optimizer_tensors(FILE, tensors, layout, ["idle"], 3)


@pytest.mark.parametrize("count", [0.0, 1.5, 4.0, 1e30])
def test_a_number_of_steps_is_whole_and_not_above_the_checkpoints(count: float) -> None:
    optimizers, model = trained("adamw", 3)
    layout, saved = optimizer_layout(optimizers, model), optimizer_tensors(optimizers, model)
    check_optimizer_tensors(FILE, {**saved, "scale.step": torch.tensor(2.0)}, layout, ["idle"], 3)
    with pytest.raises(UnfitCheckpoint, match=r"'scale\.step' is .*, expected a number of steps up to 3"):
        check_optimizer_tensors(FILE, {**saved, "scale.step": torch.tensor(count)}, layout, ["idle"], 3)


def test_a_parameter_without_state_must_be_among_the_idle_ones() -> None:
    optimizers, model = trained("adamw", 3)
    layout, saved = optimizer_layout(optimizers, model), optimizer_tensors(optimizers, model)
    without = {name: tensor for name, tensor in saved.items() if not name.startswith("scale.")}
    with pytest.raises(UnfitCheckpoint, match=r"'scale\.exp_avg' is missing"):
        check_optimizer_tensors(FILE, without, layout, ["idle"], 3)
    with pytest.raises(UnfitCheckpoint, match=r"'scale\.exp_avg' is unknown"):
        check_optimizer_tensors(FILE, saved, layout, ["idle", "scale"], 3)
    # Before the first step there is no state yet.
    check_optimizer_tensors(FILE, {}, layout, list(layout), 0)
