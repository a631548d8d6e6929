"""`leandit train --dry-run`: print the whole configuration, the cost of the run, and what is missing for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import torch

from leandit.data import Source, build_source, summary
from leandit.errors import LeanDiTError, NotFoundError, printable
from leandit.models import BackboneConfig, count_parameters, forward_flops
from leandit.models.memory import training_memory
from leandit.run import RunConfig
from leandit.run.resolve import check_validation, resolve
from leandit.text import TextConfig, TextEncoder, attach_finetuned, build_text_encoder
from leandit.text.loading import find_folder
from leandit.training.optimizers import state_size
from leandit.training.start import find_start

T = TypeVar("T")

# Length of a caption for FLOPs and memory, if the model reads text: a short one.
_TYPICAL_TEXT_TOKENS = 16


def dry_run(config: RunConfig) -> int:
    """Print the resolved config, its cost, and what is not on this machine yet; return 0.

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
    print(json.dumps(config.model_dump(mode="json"), indent=2))
    for key, found in (("data.source", source), ("data.validation", validation)):
        if found is not None:
            print(printable(f"\n{summary(found, key)}"), end="")
    print()
    _print_cost(config, source, text)
    if missing:
        print("\nNot here yet:")
        for key, error in missing.items():
            print(f"  {key}: {error}")
    return 0


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


def _print_cost(config: RunConfig, source: Source | None, text: TextEncoder | None) -> None:
    with torch.device("meta"):
        model = config.model.build()
    moments = state_size(config.optimizer, model) / sum(p.numel() for p in model.parameters())
    attach_finetuned(model, text)
    parameters = sum(p.numel() for p in model.parameters())
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
    flops = 3 * train.batch_size * forward_flops(config.model, _TYPICAL_TEXT_TOKENS, visible)
    pictures = "not here yet" if source is None else f"{len(source):,} in {len(source.class_names)} classes"
    print(f"\npictures              {pictures}")
    print(f"parameters            {parameters:,}; in the matrices of the blocks:")
    print(f"                      {count.total:,} in total and {count.activated:,} activated per token")
    print(f"FLOPs per step        {flops:.3g} (forward and backward, batch {train.batch_size})")
    print(f"memory                about {memory / 2**30:.1f} GiB")
