"""Open a finished or running run to sample from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leandit.config import validate
from leandit.diffusion import Objective, build_objective
from leandit.errors import LeanDiTError, nearest
from leandit.models import Backbone
from leandit.text import TextEncoder, build_text_encoder
from leandit.train.checkpoint import Checkpoint, newest_first, open_checkpoint
from leandit.train.config import RunConfig
from leandit.train.folder import RunFolder
from leandit.train.manifest import DamagedCheckpoint
from leandit.train.resolve import resolve_device

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedRun:
    """A model in evaluation mode with the weights of one checkpoint, and all that sampling needs to know."""

    config: RunConfig
    model: Backbone
    objective: Objective
    class_names: tuple[str, ...]
    step: int
    path: Path
    text: TextEncoder | None = None

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    def label(self, text: str) -> int:
        """Return the label that a number or a class name stands for."""
        count = self.model.config.num_classes or 0
        if text in self.class_names:
            return self.class_names.index(text)
        number = text.lstrip("0") or "0"
        if text.isascii() and text.isdigit() and len(number) <= len(str(count)) and int(number) < count:
            return int(number)
        if not count:
            raise LeanDiTError(f"{self.path}: the model has no classes; leave --labels out")
        names = f" or one of {', '.join(self.class_names)}" if self.class_names else ""
        raise LeanDiTError(
            f"label {text[:40]!r}: give a number from 0 to {count - 1}{names}.{nearest(text, self.class_names)}"
        )


def load(path: str | Path, weights: str = "ema", device: str = "auto") -> LoadedRun:
    """Load the newest intact checkpoint of a run's folder, or the checkpoint folder that is named.

    `weights` is "ema" or "model". Target heads of per-layer regularisation are left behind: they only train.
    Raises LeanDiTError for what is no run, and for damaged, foreign or pickled files; it changes nothing on disk.
    """
    if weights not in ("ema", "model"):
        raise LeanDiTError(f"weights {weights!r}: choose ema (the moving average) or model (the raw weights)")
    checkpoint, stored = _read(Path(path), weights)
    config = validate(RunConfig, checkpoint.config, str(checkpoint.path / "config.json"))
    architecture = config.model
    if architecture.moe is not None:
        architecture = architecture.replace(moe=architecture.moe.replace(per_layer_regularisation=False))
    model = architecture.build().to(resolve_device(device)).eval()
    tensors = {name: t for name, t in stored.items() if ".target_head." not in name}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise LeanDiTError(f"{checkpoint.path}: its weights do not fit its own config.json: {error}") from None
    names = tuple(checkpoint.state.get("class_names", ()))
    text = None if config.text is None else build_text_encoder(config.text)
    return LoadedRun(config, model, build_objective(config.objective), names, checkpoint.step, Path(path), text)


def _read(path: Path, weights: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the checkpoint that `path` names, or the newest one of the run, and its weights, all verified."""
    if not path.exists():
        raise LeanDiTError(f"{path}: no such run or checkpoint folder")
    if not RunFolder(path).config.exists() or (path / "manifest.json").exists():
        checkpoint = open_checkpoint(path)
        return checkpoint, checkpoint.tensors(weights)
    folder = RunFolder(path).checkpoints
    for checkpoint in newest_first(folder):
        try:
            return checkpoint, checkpoint.tensors(weights)
        except DamagedCheckpoint as error:
            _log.warning("passed over: %s", error)
    raise LeanDiTError(f"{path}: the run has no intact checkpoint yet; train it on with --resume")
