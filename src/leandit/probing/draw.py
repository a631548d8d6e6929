"""Draw pictures of a run and record every routing decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.moe import routers
from leandit.probing.norms import NormRecorder, NormTrace, joined
from leandit.probing.passes import PassRecorder
from leandit.probing.routing import RoutingRecorder, RoutingTrace, join
from leandit.run import SamplingConfig
from leandit.run.conditioner import Wanted
from leandit.sampling import LoadedRun, class_name, draw, to_pictures
from leandit.sampling.generate import Progress, check_seeds, in_batches

R = TypeVar("R", bound=PassRecorder)

# People look at a report: it has a map of every picture.
MOST_PICTURES = 64


@dataclass(frozen=True)
class Drawn:
    """The pictures of a run and every routing decision in drawing them; `pictures` is None for a run on latents."""

    run: LoadedRun = field(repr=False)
    wanted: Wanted
    seeds: tuple[int, ...]
    settings: SamplingConfig
    trace: RoutingTrace = field(repr=False)
    pictures: UInt8[Tensor, "batch height width channels"] | None = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Return the class name or prompt of each picture; an empty text for an unconditional model."""
        if self.wanted is None:
            return [""] * len(self.seeds)
        return [class_name(choice, self.run.class_names) for choice in self.wanted]


def has_experts(run: LoadedRun) -> bool:
    """Return whether the run's model has layers with experts."""
    return any(True for _ in routers(run.model))


def check_has_experts(run: LoadedRun) -> None:
    """Raise LeanDiTError for a dense run, which has no routing."""
    if not has_experts(run):
        raise LeanDiTError(
            f"{run.path}: the run has no MoE layer, so there is no routing to report.\n"
            "Probe it for the norms of its blocks with `leandit probe`, or draw with `leandit sample`"
        )


def check_pictures(seeds: Sequence[int]) -> None:
    """Raise LeanDiTError if there is no seed, if one is out of range, or if there are too many (one per picture)."""
    check_seeds(seeds)
    if len(seeds) > MOST_PICTURES:
        raise LeanDiTError(f"{len(seeds)} pictures: a report holds at most {MOST_PICTURES}; give fewer seeds or names")


def draw_recorded(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Drawn:
    """Draw one picture for each seed and record every decision. The pictures equal those of `leandit.sampling.sample`.

    Raises LeanDiTError if the run has no experts, if no seed is given, if one is out of range, or for more than 64.
    """
    check_has_experts(run)
    check_pictures(seeds)
    settings = settings or run.config.sampling
    recorders, drawn = _recorded(RoutingRecorder, run, wanted, seeds, settings, batch_size, progress)
    traces = [recorder.trace() for recorder in recorders]
    pictures = None if run.codec.no_pictures is not None else to_pictures(run.codec.decode(drawn))
    return Drawn(run, wanted, tuple(seeds), settings, join(traces), pictures)


def draw_norms(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> NormTrace:
    """Draw one picture for each seed, as `draw_recorded` does, and return the norms of the blocks' outputs.

    The run needs no experts. Raises LeanDiTError if no seed is given, if one is out of range, or for more than 64.
    """
    check_pictures(seeds)
    settings = settings or run.config.sampling
    recorders, _ = _recorded(NormRecorder, run, wanted, seeds, settings, batch_size, progress)
    return joined([recorder.trace() for recorder in recorders])


def _recorded(
    kind: type[R],
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig,
    batch_size: int,
    progress: Progress | None,
) -> tuple[list[R], Tensor]:
    """Draw in batches; return a recorder for each batch, and what was drawn."""
    recorders, drawn = [], []
    for part, part_seeds, advance in in_batches(wanted, seeds, batch_size, progress):
        with kind(run.model, len(part_seeds)) as recorder:
            drawn.append(draw(run, part, part_seeds, settings, advance))
        recorders.append(recorder)
    return recorders, torch.cat(drawn)
