"""Open a finished or running run to sample from it."""

from __future__ import annotations

import contextlib
import operator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leandit.autoencoder import Codec
from leandit.config import validate
from leandit.config.wording import short
from leandit.data.classes import read_number
from leandit.diffusion import Objective, build_objective
from leandit.errors import LeanDiTError, nearest
from leandit.models import Backbone, Conditioning, check_compiler, compile_layers
from leandit.run.checkpoint import CONFIG, STATE, Checkpoint
from leandit.run.config import RunConfig
from leandit.run.fit import check_config, check_state, check_tensors, specs_of
from leandit.run.folder import RunFolder
from leandit.run.identity import DENOISING, TASK, check_same_codec, check_same_encoder
from leandit.run.manifest import MANIFEST, UnfitCheckpoint
from leandit.run.resolve import resolve_device
from leandit.run.weights import read_newest
from leandit.sampling.bundled import find_run
from leandit.text import TextEncoder, attach_finetuned, build_text_encoder

COMPUTE = "_compute"


@dataclass(frozen=True)
class LoadedRun:
    """A model in evaluation mode with the weights of one checkpoint, and everything that sampling needs.

    `precision` is the precision of the network's products in sampling: "bf16" uses autocast, "fp32" leaves the
    caller's settings. `compile` says whether the layers are compiled. `weights` is "ema" or "model".
    """

    config: RunConfig
    model: Backbone
    objective: Objective
    class_names: tuple[str, ...]
    step: int
    path: Path
    text: TextEncoder | None = None
    precision: str = "fp32"
    compile: bool = False
    weights: str = "ema"

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Return what the network predicts, in the dtype of x."""
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
            return self.model(x, t, cond).prediction.to(x.dtype)

    @property
    def compute(self) -> float:
        """The share of the trained experts per token that is in force; other than 1 only inside `at_compute`."""
        return self.__dict__.get(COMPUTE, 1.0)

    @cached_property
    def codec(self) -> Codec:
        """The codec, which turns the model's output into pictures."""
        return self.config.build_codec()

    def check_guidance(self, scale: float) -> None:
        """Raise LeanDiTError for guidance with a model that never saw a picture without its label or caption."""
        if scale != 1 and not self.config.can_guide:
            raise LeanDiTError(
                f"{self.path}: guidance {scale:g}: the model was trained with train.label_dropout=0, so it does not "
                'know what "no label" is; draw with guidance 1'
            )

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self.model.device

    def label(self, choice: object) -> int:
        """Return the label for a whole number, a class name, or a text with a whole number.

        Raises LeanDiTError for anything else, and for a text that is the name of one class and the number of another.
        """
        count = self.model.config.num_classes or 0
        if not count:
            raise LeanDiTError(f"{self.path}: the model has no classes; omit --labels")
        named = self.class_names.index(choice) if choice in self.class_names else None
        number = read_number(choice) if isinstance(choice, str) else _whole(choice)
        number = number if number is not None and 0 <= number < count else None
        if named is not None and number is not None and named != number:
            raise LeanDiTError(
                f"label {choice!r}: the name of class {named}, and the number of class {self.class_names[number]!r}; "
                f"from Python, {named} and {number} are numbers"
            )
        label = number if named is None else named
        if label is not None:
            return label
        names = f" or one of {', '.join(self.class_names)}" if self.class_names else ""
        hint = nearest(choice[:40], self.class_names) if isinstance(choice, str) else ""
        raise LeanDiTError(f"label {short(choice)}: give a number from 0 to {count - 1}{names}.{hint}")


def _whole(value: object) -> int | None:
    """Return a whole number, also one of numpy or torch; None for true, false and fractions."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        return None
    return operator.index(value)


def load(
    path: str | Path,
    weights: str = "ema",
    device: str | torch.device = "auto",
    precision: str = "fp32",
    compile: bool = False,
) -> LoadedRun:
    """Load the newest intact checkpoint of a run's folder, one checkpoint folder, or a bundled model.

    `weights` is "ema" or "model". Target heads of per-layer regularisation are not loaded: only training uses them.
    `precision` "bf16" and `compile` draw almost the same pictures faster. bf16 is faster if the processor multiplies
    it natively. Compiling needs a compiler, and up to a minute before the first picture. Nothing on disk changes.
    Raises LeanDiTError if the path is not a run, or if files are damaged, foreign or pickled.
    """
    if weights not in ("ema", "model"):
        raise LeanDiTError(f"weights {weights!r}: choose ema (the moving average) or model (the raw weights)")
    if precision not in ("fp32", "bf16"):
        raise LeanDiTError(f"precision {precision!r}: choose fp32 or bf16")
    if compile:
        check_compiler(resolve_device(device))
    path = find_run(path)
    whole = RunFolder(path).read_config() if (path / CONFIG).exists() and not (path / MANIFEST).exists() else None

    def build(checkpoint: Checkpoint) -> LoadedRun:
        check_state(checkpoint)
        if whole is not None:
            check_config(checkpoint, whole)
        # A checkpoint outside a run may have been converted to save space, as those in the package.
        return _build(checkpoint, path, weights, device, precision, compile, exact=whole is not None)

    return read_newest(path, build)


def _build(
    checkpoint: Checkpoint,
    path: Path,
    weights: str,
    device: str | torch.device,
    precision: str,
    compile: bool,
    exact: bool,
) -> LoadedRun:
    """Build the model of a checkpoint; raise DamagedCheckpoint, which names the file, if its parts do not fit."""
    try:
        config = validate(RunConfig, checkpoint.config, str(checkpoint.path / CONFIG))
    except LeanDiTError as error:
        raise UnfitCheckpoint(str(error)) from None
    task = checkpoint.state.get(TASK, {}).get("class", DENOISING)
    architecture = config.model
    if architecture.moe is not None:
        architecture = architecture.replace(moe=architecture.moe.replace(per_layer_regularisation=False))
    text = _load_encoder(config, checkpoint)
    model = architecture.build()
    attach_finetuned(model, text)
    tensors = {name: t for name, t in checkpoint.tensors(weights).items() if ".target_head." not in name}
    try:
        check_tensors(checkpoint.file(weights), tensors, specs_of(model.state_dict()), checkpoint.step, exact)
    except UnfitCheckpoint:
        if task == DENOISING:
            raise
        raise LeanDiTError(
            f"{path}: the run was trained by the task {task}; only denoising runs can be loaded"
        ) from None
    model = model.to(resolve_device(device)).eval()
    model.load_state_dict(tensors)
    check_same_codec(checkpoint.path / STATE, checkpoint.state, config.build_codec())
    names = tuple(checkpoint.state.get("class_names", ()))
    objective = build_objective(config.objective)
    if compile:
        compile_layers(model)
    return LoadedRun(config, model, objective, names, checkpoint.step, path, text, precision, compile, weights)


def _load_encoder(config: RunConfig, checkpoint: Checkpoint) -> TextEncoder | None:
    """Return the encoder that the run was trained with. Raises LeanDiTError if it is missing or not the same."""
    if config.text is None:
        return None
    try:
        # The cache on disk belongs to training: sampling reads few prompts, and loading writes nothing.
        text = build_text_encoder(config.text.replace(cache=None))
    except LeanDiTError as error:
        raise LeanDiTError(
            f"{error}\n{checkpoint.path} was trained with this text encoder and reads it from that path: "
            "put the encoder or a link to it there"
        ) from None
    check_same_encoder(checkpoint.path, checkpoint.state, config.text, text)
    return text
