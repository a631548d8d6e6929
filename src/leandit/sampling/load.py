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
from leandit.run.checkpoint import Checkpoint
from leandit.run.config import RunConfig
from leandit.run.identity import DENOISING, TASK, check_same_codec, check_same_encoder
from leandit.run.resolve import resolve_device
from leandit.run.weights import read_weights
from leandit.sampling.bundled import find_run
from leandit.text import TextEncoder, attach_finetuned, build_text_encoder


@dataclass(frozen=True)
class LoadedRun:
    """A model in evaluation mode with the weights of one checkpoint, and all that sampling needs to know.

    `precision` is that of the network's products when pictures are drawn: bf16 by autocast, fp32 as the caller has it.
    `compile` says that its layers are compiled. `weights` is "ema" or "model".
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

    @cached_property
    def codec(self) -> Codec:
        """What turns what the model draws into pictures."""
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
        """Where the model's weights are."""
        return self.model.device

    def label(self, choice: object) -> int:
        """Return the label that a whole number, a class name, or a text with a whole number stands for.

        Raises LeanDiTError for anything else, and for a text that is the name of one class and the number of another.
        """
        count = self.model.config.num_classes or 0
        if not count:
            raise LeanDiTError(f"{self.path}: the model has no classes; leave --labels out")
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
    device: str = "auto",
    precision: str = "fp32",
    compile: bool = False,
) -> LoadedRun:
    """Load the newest intact checkpoint of a run's folder, the checkpoint folder that is named, or a bundled model.

    `weights` is "ema" or "model". Target heads of per-layer regularisation are left behind: they only train.
    `precision` "bf16" and `compile` are faster ways to draw almost the same pictures: bf16 where the processor
    multiplies it natively, compiling after up to a minute before the first picture, where there is a compiler.
    Raises LeanDiTError for what is no run, and for damaged, foreign or pickled files; it changes nothing on disk.
    """
    if weights not in ("ema", "model"):
        raise LeanDiTError(f"weights {weights!r}: choose ema (the moving average) or model (the raw weights)")
    if precision not in ("fp32", "bf16"):
        raise LeanDiTError(f"precision {precision!r}: choose fp32 or bf16")
    if compile:
        check_compiler(resolve_device(device))
    path = find_run(path)
    checkpoint, stored = read_weights(path, weights)
    config = validate(RunConfig, checkpoint.config, str(checkpoint.path / "config.json"))
    architecture = config.model
    if architecture.moe is not None:
        architecture = architecture.replace(moe=architecture.moe.replace(per_layer_regularisation=False))
    text = _load_encoder(config, checkpoint)
    model = architecture.build()
    attach_finetuned(model, text)
    model = model.to(resolve_device(device)).eval()
    tensors = {name: t for name, t in stored.items() if ".target_head." not in name}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        task = checkpoint.state.get(TASK, {}).get("class", DENOISING)
        if task != DENOISING:
            raise LeanDiTError(
                f"{path}: the run learned by the task {task}; only denoising runs can be loaded"
            ) from None
        raise LeanDiTError(f"{checkpoint.path}: its weights do not fit its own config.json: {error}") from None
    check_same_codec(checkpoint.path, checkpoint.state, config.build_codec())
    names = tuple(checkpoint.state.get("class_names", ()))
    objective = build_objective(config.objective)
    if compile:
        compile_layers(model)
    return LoadedRun(config, model, objective, names, checkpoint.step, path, text, precision, compile, weights)


def _load_encoder(config: RunConfig, checkpoint: Checkpoint) -> TextEncoder | None:
    """Return the encoder that the run was trained with; raise LeanDiTError if it has gone or is another one."""
    if config.text is None:
        return None
    try:
        # Without the cache on disk, which is the training's: prompts are few, and loading writes nothing.
        text = build_text_encoder(config.text.replace(cache=None))
    except LeanDiTError as error:
        raise LeanDiTError(
            f"{error}\n{checkpoint.path} was trained with this text encoder and reads it from that place: "
            "put it back, or a link to it"
        ) from None
    check_same_encoder(checkpoint.path, checkpoint.state, config.text, text)
    return text
