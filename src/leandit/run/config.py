"""The configuration of a whole run: everything that determines its result."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from leandit.autoencoder import AnyCodec, Codec, CodecConfig, LatentsOnlyConfig, PixelsConfig, Shape
from leandit.config import Config, Fact, Registry
from leandit.data import DataConfig
from leandit.diffusion import (
    EulerConfig,
    GuidanceConfig,
    ObjectiveConfig,
    RectifiedFlowConfig,
    SamplerConfig,
    build_objective,
    build_sampler,
)
from leandit.errors import LeanDiTError
from leandit.models import ModelConfig
from leandit.run.recipe import AdamWConfig, OptimizerConfig, ScheduleConfig
from leandit.text import TextConfig


class LossWeights(Config):
    """Weights of the auxiliary losses. Losses of routers are means over the layers with experts.

    The Expert Race paper states no weights. The defaults keep both of its losses much smaller than the diffusion loss.
    """

    router_similarity: float = Field(1e-2, ge=0, le=1e6)
    """Weight of the router similarity loss (Expert Race, eqs. 9-11). The loss is about 1 per layer."""
    load_balance: float = Field(0.0, ge=0, le=1e6)
    """Weight of the load balancing loss of Switch and GShard. 1e-2 is usual with token choice."""
    gshard_balance: float = Field(0.0, ge=0, le=1e6)
    """Weight of GShard's own balance loss. It counts only first choices, including those that a capacity drops. Apple's
    axlearn uses 1e-2.
    """
    z_loss: float = Field(0.0, ge=0, le=1e6)
    """Weight of the router z-loss, the squared log-sum-exp of the logits (ST-MoE)."""
    per_layer_regularisation: float = Field(0.1, ge=0, le=1e6)
    """Weight of the objective's loss on the predictions of the routers' target heads (Expert Race, Figure 12)."""
    mask_reconstruction: float = Field(0.1, ge=0, le=1e6)
    """Weight of the reconstruction of hidden tokens, if train.mask_ratio is above 0. The default is MaskDiT's; EC-DiT
    states no weight.
    """


class TrainConfig(Config):
    """Length, batch, precision and device of the training, and the intervals of its outputs."""

    steps: Annotated[int, Fact.RUN_LENGTH] = Field(400_000, ge=1, le=10**12)
    """Number of optimiser steps of the whole run. With schedule.decay=constant, a run can be resumed with more."""
    batch_size: int = Field(256, ge=1, le=2**20)
    """Pictures per optimiser step."""
    accumulation: int = Field(1, ge=1, le=2**20)
    """Micro-batches per optimiser step; batch_size must be a multiple. Routers choose within a micro-batch, so with
    experts the result depends on this number.
    """
    clip: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient. A larger gradient is scaled down to it. null does not clip."""
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Decay per step of the moving average of the weights. Sampling uses the average by default."""
    label_dropout: float = Field(0.1, ge=0, le=1)
    """Share of labels or captions that are replaced by "no label" or the empty caption. Guidance needs it."""
    mask_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of a picture's tokens that are hidden from the layers, drawn for each sample. A value above 0 needs
    model.masking. The number of visible tokens is rounded down. MaskDiT and EC-DiT hide 0.5; MaskDiT then continues
    with 0.
    """
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the network's matrix products. auto is bf16 autocast if the processor multiplies bf16 natively, and
    fp32 otherwise. A resumed run keeps the precision of its first start.
    """
    device: Annotated[str, Fact.DEVICE] = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Device to train on: auto, cpu, cuda or cuda:N. auto is cuda if there is one."""
    activation_checkpointing: Annotated[bool, Fact.BACKEND] = False
    """Recompute each block in the backward pass instead of keeping its activations: less memory, more time."""
    compile: Annotated[bool, Fact.BACKEND] = False
    """Compile the model with torch.compile: faster steps after minutes of compiling. On a CPU it needs a C++ compiler.
    """
    log_every: Annotated[int, Fact.MAY_CHANGE] = Field(50, ge=1)
    """Steps between lines in metrics.jsonl."""
    checkpoint_every: Annotated[int, Fact.MAY_CHANGE] = Field(5_000, ge=1)
    """Steps between checkpoints. One more is written at the end, and on Ctrl-C or SIGTERM."""
    keep: Annotated[int, Fact.MAY_CHANGE] = Field(2, ge=2)
    """Number of newest checkpoints to keep, at least 2."""
    keep_every: Annotated[int | None, Fact.MAY_CHANGE] = Field(None, ge=1)
    """Also keep all checkpoints at multiples of this number of steps. null keeps only the newest."""
    sample_every: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"] | None, Fact.MAY_CHANGE] = "auto"
    """Steps between grids of samples. auto is a fifth of the run, but at most 10,000; null draws none during training.
    """
    validate_every: Annotated[int | None, Fact.MAY_CHANGE] = Field(None, ge=1)
    """Steps between validation losses over data.validation. null computes none."""
    tensorboard: Annotated[bool, Fact.MAY_CHANGE] = False
    """Also write the numbers of metrics.jsonl to TensorBoard files in the run's folder."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size = {self.batch_size} is not divisible by accumulation = {self.accumulation}")
        return self

    @property
    def steps_between_grids(self) -> int | None:
        """`sample_every` as a number; None draws no grids."""
        return max(1, min(self.steps // 5, 10_000)) if self.sample_every == "auto" else self.sample_every

    def visible_tokens(self, tokens: int) -> int:
        """Return the number of visible tokens of a picture, rounded down as in MaskDiT.

        The share is taken as the decimal number that was given: 1 - 0.9 as a float leaves less than 1 of 10 tokens.
        """
        return math.floor(tokens * (1 - Fraction(str(self.mask_ratio))))


class StartConfig(Config):
    """Weights of another run as initial weights. They are read once, at the first start and not on --resume."""

    path: str = Field(min_length=1)
    """Folder of a checkpoint, or of a run, which means its newest intact checkpoint. A relative path starts at the
    current directory; ~ is the home directory.
    """
    weights: Literal["ema", "model"] = "ema"
    """Which weights to use: the moving average (ema) or the raw weights (model). They become both the weights and the
    average of the new run.
    """


class SamplingConfig(Config):
    """Default settings for drawing samples from the run. Commands can override them."""

    sampler: SamplerConfig = EulerConfig(steps=50)
    """Solver that integrates from noise to data."""
    guidance: GuidanceConfig = GuidanceConfig()
    """Classifier-free guidance."""
    grid: int = Field(64, ge=1, le=10_000)
    """Number of pictures in a grid of samples."""
    prompts: tuple[str, ...] = Field((), max_length=10_000)
    """Prompts of the grids of a text model, one row each. A class model shows its classes instead."""


class TaskConfig(Config):
    """A kind of task: what a run learns. A task from outside the package has a method `build` that returns it."""

    type: str
    """The tag by which configurations name the task."""

    def build(self, context: Any) -> Any:
        """Return the task (`leandit.training.Task`) for a `leandit.training.TaskContext`."""
        raise NotImplementedError


TASKS = Registry("task", TaskConfig)
"""All tasks by their `type`. Other files, also outside the package, can register more."""


@TASKS.register
class DenoiseConfig(TaskConfig):
    """The model learns to denoise. `objective`, `losses` and `text` configure it."""

    type: Literal["denoise"] = "denoise"


class RunConfig(Config):
    """A whole run. Presets are functions that return one; `config.json` in the run's folder contains it in full."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^\w[\w.-]*$")
    """Name of the run; its default folder is runs/NAME. Letters, digits, underscore, dot and hyphen."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of everything random: initial weights, order of pictures, noise, times, dropped labels."""
    task: Annotated[TaskConfig, TASKS] = DenoiseConfig()
    """What the model learns."""
    codec: AnyCodec | None = None
    """Encoder and decoder between the data and the model. null is pixels for pictures, and latents for stored latents.
    """
    model: ModelConfig
    """The backbone. The name of a model is also accepted, such as model=DiT-S/2."""
    start: StartConfig | None = None
    """Another run that provides the initial weights. null starts from random weights."""
    text: TextConfig | None = None
    """Text encoders for the captions. null is for a model that reads no text."""
    objective: ObjectiveConfig = RectifiedFlowConfig()
    """The training objective: path from data to noise, prediction and loss."""
    data: DataConfig
    """Pictures to train on, and how they are prepared."""
    optimizer: OptimizerConfig = AdamWConfig()
    """The optimiser of the weights."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes over the run."""
    losses: LossWeights = LossWeights()
    """Weights of the losses that are added to the objective's loss."""
    train: TrainConfig = TrainConfig()
    """Length, batch, precision and device, and the intervals of outputs."""
    sampling: Annotated[SamplingConfig, Fact.MAY_CHANGE] = SamplingConfig()
    """Default settings for drawing samples from the run."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        learned = self.objective.type == "ddpm" and self.objective.learned_sigma
        if self.model.learned_sigma != learned:
            raise ValueError(
                f"model.learned_sigma = {self.model.learned_sigma} does not fit the objective, "
                f"which {'learns' if learned else 'learns no'} variance: set model.learned_sigma={str(learned).lower()}"
            )
        if self.model.conditions_on_text != (self.text is not None):
            wants = "is conditioned on text: set text" if self.text is None else "reads no text: set text=null"
            raise ValueError(f"model.type = {self.model.type} {wants}")
        if self.sampling.sampler.type == "ddpm" and self.objective.type != "ddpm":
            raise ValueError(
                "sampling.sampler.type = ddpm needs objective.type=ddpm; euler and heun suit any objective"
            )
        self._check_sampler(learned)
        self._check_codec()
        self._check_masking()
        moe = self.model.moe
        if self.losses.per_layer_regularisation and moe and not moe.has_target_head:
            has_none = moe.routing is not None and not moe.routing.has_target_head
            remedy = "this router has none, set" if has_none else "set model.moe.per_layer_regularisation=true or"
            raise ValueError(
                f"losses.per_layer_regularisation needs the routers' target heads: {remedy} "
                "losses.per_layer_regularisation=0"
            )
        return self

    @property
    def can_guide(self) -> bool:
        """Whether the model learns "no label", which guidance needs; a run that starts from another may know it."""
        return self.train.label_dropout > 0 or self.start is not None

    def codec_config(self) -> CodecConfig:
        """Return the codec's configuration. If none is given, the data determine it."""
        return self.codec or (LatentsOnlyConfig() if self.data.holds_latents else PixelsConfig())

    def build_codec(self) -> Codec:
        """Return the encoder and decoder between the data and the model."""
        return self.codec_config().build()

    def sample_shape(self) -> Shape:
        """Return channels, height and width of a sample as the model sees it. A codec is built once to tell it."""
        size, codec = self.data.size, self.codec_config()
        return _shape(type(codec), codec.model_dump_json(), (self.data.channels, size.height, size.width))

    def _check_codec(self) -> None:
        held = "latents" if self.data.holds_latents else "pictures"
        codec = self.codec_config()
        if codec.reads != held:
            raise ValueError(f"codec.type = {codec.type} reads {codec.reads}, and the data are {held}: set codec=null")

    def _check_masking(self) -> None:
        ratio = self.train.mask_ratio
        if not ratio:
            return
        if getattr(self.model, "masking", None) is None:
            raise ValueError(
                f"train.mask_ratio = {ratio} needs the decoder that fills in hidden tokens: "
                "set model.masking={} (model.type=pixart has it) or train.mask_ratio=0"
            )
        tokens = self.model.tokens(self.sample_shape())
        if self.train.visible_tokens(tokens) == 0:
            raise ValueError(
                f"train.mask_ratio = {ratio} leaves 0 of a picture's {tokens} tokens visible: lower it, "
                "at least one must be visible"
            )

    def _check_sampler(self, learned: bool) -> None:
        """Find errors now that would otherwise appear only after training, when pictures are drawn."""
        sampler = self.sampling.sampler
        if sampler.type == "ddpm" and sampler.variance == "learned" and not learned:
            raise ValueError(
                "sampling.sampler.variance = learned needs objective.learned_sigma=true; "
                "set sampling.sampler.variance to small or large"
            )
        try:
            build_sampler(sampler, build_objective(self.objective).path)
        except LeanDiTError as error:
            raise ValueError(f"sampling.{error}") from None


@lru_cache(maxsize=64)
def _shape(kind: type[CodecConfig], fields: str, data: Shape) -> Shape:
    """The config comes as JSON, since one from outside the package need not be hashable."""
    return kind.model_validate_json(fields).build().shape(data)
