"""Open a finished or running run to sample from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from leandit.config import validate
from leandit.diffusion import Objective, build_objective
from leandit.errors import LeanDiTError, nearest
from leandit.models import DiT
from leandit.train.checkpoint import Checkpoint, find_newest, open_checkpoint
from leandit.train.config import RunConfig
from leandit.train.folder import RunFolder
from leandit.train.resolve import resolve_device


@dataclass(frozen=True)
class LoadedRun:
    """A model in evaluation mode with the weights of one checkpoint, and all that sampling needs to know."""

    config: RunConfig
    model: DiT
    objective: Objective
    class_names: tuple[str, ...]
    step: int
    path: Path

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.positions.device

    def label(self, text: str) -> int:
        """Return the label that a number or a class name stands for."""
        count = self.model.config.num_classes or 0
        if text in self.class_names:
            return self.class_names.index(text)
        if text.isascii() and text.isdigit() and int(text) < count:
            return int(text)
        if not count:
            raise LeanDiTError(f"{self.path}: the model has no classes; leave --labels out")
        names = f" or one of {', '.join(self.class_names)}" if self.class_names else ""
        raise LeanDiTError(
            f"label {text!r}: give a number from 0 to {count - 1}{names}.{nearest(text, self.class_names)}"
        )


def load(path: str | Path, weights: str = "ema", device: str = "auto") -> LoadedRun:
    """Load the newest intact checkpoint of a run's folder, or the checkpoint folder that is named.

    `weights` is "ema" or "model". Target heads of per-layer regularisation are left behind: they only train.
    Raises LeanDiTError for what is no run, and for damaged, foreign or pickled files; it changes nothing on disk.
    """
    checkpoint = _find(Path(path))
    if weights not in ("ema", "model"):
        raise LeanDiTError(f"weights {weights!r}: choose ema (the moving average) or model (the raw weights)")
    config = validate(RunConfig, checkpoint.config, str(checkpoint.path / "config.json"))
    architecture = config.model
    if architecture.moe is not None:
        architecture = architecture.replace(moe=architecture.moe.replace(per_layer_regularisation=False))
    model = architecture.build().to(resolve_device(device)).eval()
    tensors = {name: t for name, t in checkpoint.tensors(weights).items() if ".target_head." not in name}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise LeanDiTError(f"{checkpoint.path}: its weights do not fit its own config.json: {error}") from None
    names = tuple(checkpoint.state.get("class_names", ()))
    return LoadedRun(config, model, build_objective(config.objective), names, checkpoint.step, Path(path))


def _find(path: Path) -> Checkpoint:
    if not path.exists():
        raise LeanDiTError(f"{path}: no such run or checkpoint folder")
    if not RunFolder(path).config.exists() or (path / "manifest.json").exists():
        return open_checkpoint(path)
    checkpoint = find_newest(RunFolder(path).checkpoints)
    if checkpoint is None:
        raise LeanDiTError(f"{path}: the run has no intact checkpoint yet; train it on with --resume")
    return checkpoint
