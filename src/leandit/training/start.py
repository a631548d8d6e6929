"""Start a run from the weights of another run: for training in stages, or fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leandit.config import Tree, validate
from leandit.config.paths import user_path
from leandit.errors import LeanDiTError, NotFoundError
from leandit.models import ModelConfig
from leandit.run.checkpoint import TEXT_ENCODER, Checkpoint
from leandit.run.config import RunConfig, StartConfig
from leandit.run.identity import CODEC
from leandit.run.resume import identity_changes
from leandit.run.weights import checkpoints_of, read_weights

_log = logging.getLogger("leandit")

# Parts that only one of the two models may have. With a decoder, the output layer of the backbone differs too.
_TARGET_HEAD = ".target_head."
_DECODER = "decoder."
_TEXT_ENCODER = "text_encoder."
_WITH_DECODER = ("decoder.", "final.")
# Settings that usually change between stages, or that other messages report.
_EXPECTED = (
    *("model.input_size", "model.position_grid", "objective.timesteps."),
    *("model.masking", "model.moe.per_layer_regularisation"),
)
_MAX_NAMED = 5
_MAX_SHOWN = 200


@dataclass(frozen=True)
class StartWeights:
    """Verified weights of another run, and its configuration as plain data."""

    origin: str
    """A name for messages."""
    tensors: Mapping[str, Tensor]
    config: Tree
    identity: Mapping[str, Any]
    """The identity of the data and text encoder that they were trained with: see `leandit.run.identity`."""


def find_start(config: StartConfig) -> Checkpoint:
    """Return the checkpoint from which a run would start. Its tensors are not read. Raises as `read_start` does."""
    path = _path(config)
    checkpoint = next(checkpoints_of(path), None)
    if checkpoint is None:
        raise LeanDiTError(f"start.path: {path}: the run has no intact checkpoint yet; train it first")
    return checkpoint


def read_start(config: StartConfig) -> StartWeights:
    """Read and verify the weights.

    Raises NotFoundError if the folder does not exist, and LeanDiTError if it contains no intact checkpoint.
    """
    checkpoint, tensors = read_weights(_path(config), config.weights)
    return StartWeights(f"{config.weights} weights of {checkpoint.path}", tensors, checkpoint.config, checkpoint.state)


def _path(config: StartConfig) -> Path:
    path = user_path(config.path, "start.path")
    if not path.exists():
        raise NotFoundError(
            f"start.path: {path}: no such run or checkpoint folder (now in {Path.cwd()}); train that run first, "
            "correct start.path, or set start=null to start from random weights"
        )
    return path


def load_start(model: nn.Module, start: StartWeights, config: RunConfig, identity: Mapping[str, Any]) -> None:
    """Copy the weights, with thresholds, into the model of `config`. `identity` is that of its data and text encoder.

    Checkpoints contain no positions, so another picture size fits. Target heads, and a decoder for hidden tokens with
    the output layer before it, may exist on one side only: new parts keep their initial weights, and parts of the other
    run are not used. A text encoder that was frozen may be fine-tuned now. A warning names all these parts, settings
    that differ without changing a shape, and a changed text encoder or changed classes. Raises LeanDiTError for any
    other tensor that is missing, unknown or of another shape.
    """
    earlier = validate(type(config), start.config, f"the configuration of the {start.origin}")
    own = model.state_dict()
    decoder_differs = _has_decoder(own) != _has_decoder(start.tensors)
    fresh = [name for name in own if _is_optional(name, start.tensors, decoder_differs) or _is_new_encoder(name, start)]
    left = [name for name in start.tensors if _is_optional(name, own, decoder_differs)]
    used = {name: start.tensors[name] for name in start.tensors.keys() - set(left)}
    resized = [name for name in used if _is_of_another_grid(name, used[name], own.get(name), config)]
    used |= {name: used[name].mean().expand_as(own[name]) for name in resized}
    wanted = {name: tensor for name, tensor in own.items() if name not in fresh}
    if problem := _misfit(used, wanted):
        differences = _differences(earlier, config) or "none in the configurations"
        raise LeanDiTError(
            f"start.path: the {start.origin} do not fit this model: {problem}.\nDifferences: {differences}.\n"
            "Give the model the same shape, or start from another run"
        )
    model.load_state_dict(used, strict=False)
    _log.info("started from the %s", start.origin)
    if resized:
        _log.warning("started from the %s: thresholds of tokens start at their mean on another grid", start.origin)
    for line in (*_remarks(earlier, config, fresh, left), *_meaning_remarks(start.identity, identity)):
        _log.warning("started from the %s: %s", start.origin, line)


def _has_decoder(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(_DECODER) for name in tensors)


def _is_optional(name: str, others: Mapping[str, Tensor], decoder_differs: bool) -> bool:
    """Return whether a tensor belongs to an optional part that the other model does not have."""
    if decoder_differs and name.startswith(_WITH_DECODER):
        return True
    return _TARGET_HEAD in name and name not in others


def _is_of_another_grid(name: str, tensor: Tensor, own: Tensor | None, config: RunConfig) -> bool:
    """Return whether a tensor has a threshold for each token (`be_choice`) of a picture of another size."""
    moe = config.model.moe
    per_token = name.endswith("threshold.value") and moe is not None and moe.strategy == "be_choice"
    return per_token and own is not None and tensor.ndim == own.ndim == 1 and tensor.shape != own.shape


def _is_new_encoder(name: str, start: StartWeights) -> bool:
    """Return whether a tensor belongs to a text encoder that is fine-tuned now and was frozen in the other run."""
    return name.startswith(_TEXT_ENCODER) and name not in start.tensors


def _misfit(used: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Return the problem of the first tensor that does not fit, or None."""
    for name, tensor in wanted.items():
        if name not in used:
            return f"{name} is missing there"
        if used[name].shape != tensor.shape:
            return f"{name} is {list(used[name].shape)} there and {list(tensor.shape)} here"
    unknown = sorted(used.keys() - wanted.keys())
    return f"{unknown[0]} is unknown here" if unknown else None


def _remarks(earlier: RunConfig, config: RunConfig, fresh: Sequence[str], left: Sequence[str]) -> Iterator[str]:
    if fresh:
        yield f"{_parts(fresh)} keep their initial weights, because no weights fit"
    if left:
        yield f"{_parts(left)} are not used, because this model does not have these parts"
    if differences := _differences(earlier, config, _EXPECTED):
        yield f"settings differ: {differences}"
    yield from _position_remark(earlier.model, config.model)


def _meaning_remarks(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield remarks about inputs that the weights learned with another meaning."""
    if before.get(CODEC, now.get(CODEC)) != now.get(CODEC):
        yield f"the codec is another one, so the same numbers mean other data: {before[CODEC]} there, {now[CODEC]} here"
    if TEXT_ENCODER in now and before.get(TEXT_ENCODER, now[TEXT_ENCODER]) != now[TEXT_ENCODER]:
        yield "the text encoder is not the one that they were trained with"
    old, new = before.get("class_names", []), now["class_names"]
    changed = [label for label in range(min(len(old), len(new))) if old[label] != new[label]]
    if changed and TEXT_ENCODER not in now:
        first = changed[0]
        yield f"classes differ: label {first} was {old[first]!r} there and is {new[first]!r} here"


def _parts(names: Sequence[str]) -> str:
    """Return the parts of the tensors, such as "decoder.*"."""
    parts = {f"*{_TARGET_HEAD}*" if _TARGET_HEAD in name else f"{name.split('.')[0]}.*" for name in names}
    return ", ".join(sorted(parts))


def _position_remark(before: ModelConfig, now: ModelConfig) -> Iterator[str]:
    """Yield a remark if sin-cos positions have another spacing on the new grid. RoPE keeps its spacing."""
    old, new = before.span, now.span
    if old != new and now.type != "dit_air":
        patches = f"{old} patches per side" if old.height == old.width else f"{old} patches"
        yield f"they learned positions of {patches}; model.position_grid={old} keeps their span"


def _differences(before: RunConfig, now: RunConfig, expected: tuple[str, ...] = ()) -> str:
    """Return the differences of two runs' models, texts and objectives, without those that change no result."""
    compared = [
        change
        for change in identity_changes(before, now)
        if change[0].split(".")[0] in ("model", "text", "objective") and not change[0].startswith(expected)
    ]
    # A difference of `type` explains most other differences, so it comes first.
    compared.sort(key=lambda change: not change[0].endswith(".type"))
    found = [f"{key}: {_short(old)} there, {_short(new)} here" for key, old, new in compared]
    more = len(found) - _MAX_NAMED
    return "; ".join(found if more <= 0 else [*found[:_MAX_NAMED], f"and {more} more"])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
