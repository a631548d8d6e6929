"""The cost of a run before it starts: parameters, FLOPs, memory and time, and what is not on this machine yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from leandit.data import build_source, summary
from leandit.errors import LeanDiTError, NotFoundError
from leandit.models import BackboneConfig, Conditioning, count_parameters, forward_flops
from leandit.models.memory import training_memory
from leandit.run import RunConfig
from leandit.run.resolve import check_validation, resolve
from leandit.text import TextConfig, TextEncoder, attach_finetuned, build_text_encoder
from leandit.text.loading import find_folder
from leandit.training.optimizers import state_size
from leandit.training.start import find_start
from leandit.training.utilisation import peak_flops

T = TypeVar("T")

# Length of a caption for FLOPs and memory, if the model reads text: a short one.
_TYPICAL_TEXT_TOKENS = 16
# A step is measured on a part of the batch: on at most 64 pictures, and on no more than matrix products at the peak of
# the machine would finish in 0.1 s. It is not measured if one picture takes longer, if training needs more than 40 % of
# the free memory, or on a CPU if the model has over 100 million parameters, which take seconds to initialise.
_MOST_PICTURES, _PEAK_SECONDS, _MOST_MEMORY, _MOST_PARAMETERS_ON_CPU = 64, 0.1, 0.4, 100_000_000
# The best of 3 rounds counts; a round of over a second is the last.
_LONG_ROUND = 1.0
_ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """What a run costs. `parameters` are all; `matrices` and `activated` those in the matrices of the blocks.

    `flops` is one step's, forward and backward; `memory` the largest number of bytes. `step_seconds` is forward and
    backward of one step, measured here on `measured_on` pictures; without data, optimiser and compilation. If the model
    is too large to be measured here, `measured_on` is 0 and `step_seconds` what matrix products at this machine's peak
    would take.
    """

    parameters: int
    matrices: int
    activated: int
    flops: int
    memory: int
    step_seconds: float
    measured_on: int


@dataclass(frozen=True)
class DryRun:
    """The complete configuration of a run, its cost, lines about its data, and what is missing, by key."""

    config: RunConfig
    cost: Cost
    data: tuple[str, ...]
    missing: Mapping[str, str]


def dry_run(config: RunConfig) -> DryRun:
    """Return what training this configuration would cost here; nothing is written.

    Missing data, encoders and runs to start from are listed. Raises LeanDiTError if something exists but is unusable,
    or if something is missing that determines the shape of the model.
    """
    missing: dict[str, NotFoundError] = {}
    source = _find("data.source", lambda: build_source(config.data.source), missing)
    held_out = config.data.validation
    validation = None
    if held_out is not None:
        validation = _find("data.validation", lambda: build_source(held_out, "data.validation"), missing)
    text = None if config.text is None else _find_text(config.text, missing)
    if (start := config.start) is not None:
        _find("start", lambda: find_start(start), missing)
    config = resolve(config, source, text)
    if validation is not None:
        check_validation(config, source, validation)
    _check_known(config.model, missing)
    found = (("data.source", source), ("data.validation", validation))
    lines = tuple(summary(each, key) for key, each in found if each is not None)
    return DryRun(config, _cost(config, text), lines, {key: str(error) for key, error in missing.items()})


def _find(key: str, look: Callable[[], T], missing: dict[str, NotFoundError]) -> T | None:
    try:
        return look()
    except NotFoundError as error:
        missing[key] = error
        return None


def _find_text(config: TextConfig, missing: dict[str, NotFoundError]) -> TextEncoder | None:
    """Return the encoder, or None if the files of any of its encoders are missing."""
    found = [
        _find(f"text.encoders.{number}", lambda one=encoder: find_folder(one), missing)  # type: ignore[misc]
        for number, encoder in enumerate(config.encoders)
    ]
    return None if None in found else build_text_encoder(config)


def _check_known(model: BackboneConfig, missing: dict[str, NotFoundError]) -> None:
    needed = ("text_dim", "pooled_dim") if model.conditions_on_text else ("num_classes",)
    unknown = [f"model.{name}" for name in needed if getattr(model, name) is None]
    if unknown:
        reasons = "\n".join(str(error) for error in missing.values())
        raise LeanDiTError(f"{reasons}\nWithout it, set {' and '.join(unknown)}, which the shape of the model needs")


def _cost(config: RunConfig, text: TextEncoder | None) -> Cost:
    with torch.device("meta"):
        model = config.model.build()
    moments = state_size(config.optimizer, model) / sum(p.numel() for p in model.parameters())
    attach_finetuned(model, text)
    count = count_parameters(config.model)
    train = config.train
    visible = train.visible_tokens(config.model.grid.tokens)
    memory = training_memory(
        config.model,
        train.batch_size // train.accumulation,
        bf16=train.precision == "bf16",
        activation_checkpointing=train.activation_checkpointing,
        moments=moments,
        text_tokens=_TYPICAL_TEXT_TOKENS,
        visible_tokens=visible,
    )
    forward = forward_flops(config.model, _TYPICAL_TEXT_TOKENS, visible)
    parameters = sum(p.numel() for p in model.parameters())
    seconds, measured_on = _step_seconds(config, 3 * forward, memory, parameters)
    return Cost(
        parameters,
        count.total,
        count.activated,
        3 * train.batch_size * forward,
        memory,
        seconds,
        measured_on,
    )


def _step_seconds(config: RunConfig, picture_flops: int, memory: int, parameters: int) -> tuple[float, int]:
    """Return the seconds of forward and backward of a whole step, and on how many pictures they were measured."""
    train, device = config.train, torch.device(config.train.device)
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    per_picture = picture_flops / peak_flops(device, dtype, torch.get_num_threads())
    pictures = min(train.batch_size // train.accumulation, _MOST_PICTURES, int(_PEAK_SECONDS / per_picture))
    too_large = device.type == "cpu" and parameters > _MOST_PARAMETERS_ON_CPU
    if not pictures or too_large or memory > _MOST_MEMORY * _free_memory(device):
        return train.batch_size * per_picture, 0
    return _measured(config, device, dtype, pictures) * train.batch_size / pictures, pictures


def _measured(config: RunConfig, device: torch.device, dtype: torch.dtype, pictures: int) -> float:
    """Return the seconds of forward and backward of the model on noise: the best of a few rounds."""
    kind = config.model
    generator = torch.random.get_rng_state()
    model = kind.build().to(device).train()
    shape = (pictures, kind.channels or 0, kind.size.height, kind.size.width)
    x, t = torch.randn(shape, device=device), torch.full((pictures,), 0.5, device=device)
    if kind.conditions_on_text:
        text = torch.randn(pictures, _TYPICAL_TEXT_TOKENS, kind.text_dim or 0, device=device)
        cond = Conditioning(text=text, pooled=torch.randn(pictures, kind.pooled_dim or 0, device=device))
    else:
        cond = Conditioning(torch.zeros(pictures, dtype=torch.long, device=device) if kind.num_classes else None)
    torch.random.set_rng_state(generator)
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(x, t, cond).prediction.float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device
        rounds.append(time.perf_counter() - started)
        if rounds[-1] > _LONG_ROUND:
            break
    return min(rounds)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
