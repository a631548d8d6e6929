"""The configuration of a whole run: everything that decides what comes out of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config
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
from leandit.grid import Grid
from leandit.models import ModelConfig
from leandit.run.recipe import AdamWConfig, OptimizerConfig, ScheduleConfig
from leandit.text import TextConfig


class LossWeights(Config):
    """Weights of the auxiliary losses; those of routers are means over the layers with experts.

    The Expert Race paper states no weight; the defaults keep both terms well below the diffusion loss.
    """

    # Expert Race, eqs. 9-11; its value is about 1 per layer.
    router_similarity: float = Field(1e-2, ge=0)
    # Switch / GShard balance loss; 1e-2 is usual with token choice.
    load_balance: float = Field(0.0, ge=0)
    # GShard's own: first choices only, whatever a capacity drops; 1e-2 in axlearn, Apple's public code.
    gshard_balance: float = Field(0.0, ge=0)
    z_loss: float = Field(0.0, ge=0)
    # The objective's loss on the routers' target heads (Expert Race, Figure 12).
    per_layer_regularisation: float = Field(0.1, ge=0)
    # Reconstruction of hidden tokens where train.mask_ratio hides some: MaskDiT's weight. EC-DiT states none.
    mask_reconstruction: float = Field(0.1, ge=0)


class TrainConfig(Config):
    """How long, how large, how precise, and how often something is written down."""

    steps: int = Field(400_000, ge=1)
    # Pictures per optimiser step.
    batch_size: int = Field(256, ge=1)
    # Micro-batches per optimiser step; a race is run over each micro-batch.
    accumulation: int = Field(1, ge=1)
    # Largest norm of the gradient; null leaves it as it is.
    clip: float | None = Field(1.0, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    # Share of labels or captions replaced by "no label" or the empty caption, which guidance needs.
    label_dropout: float = Field(0.1, ge=0, le=1)
    # Share of a picture's tokens that are hidden from the layers, chosen anew for each sample; above 0 it needs
    # model.masking. MaskDiT and EC-DiT hide 0.5, then go on with 0.
    mask_ratio: float = Field(0.0, ge=0, lt=1)
    # auto: bf16 autocast where the processor multiplies bf16 natively, else fp32; the run's config keeps the outcome.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    # Recompute each block in the backward pass instead of storing it.
    activation_checkpointing: bool = False
    # Compile the model with torch.compile: faster steps after minutes of compiling. Needs a C++ compiler on a CPU.
    compile: bool = False
    log_every: int = Field(50, ge=1)
    # Steps between checkpoints; one more is written at the end, and on Ctrl-C or SIGTERM.
    checkpoint_every: int = Field(5_000, ge=1)
    # Checkpoints that stay, newest first; at least 2.
    keep: int = Field(2, ge=2)
    # Multiples of this many steps stay for ever; null keeps none of them.
    keep_every: int | None = Field(None, ge=1)
    # Steps between grids of samples; null draws none on the way.
    sample_every: int | None = Field(10_000, ge=1)
    # Steps between validation losses over data.validation; null computes none.
    validate_every: int | None = Field(None, ge=1)
    # Mirror metrics.jsonl to TensorBoard files in the run's folder.
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size = {self.batch_size} is not divisible by accumulation = {self.accumulation}")
        return self

    def visible_tokens(self, tokens: int) -> int:
        """Return how many of a picture's tokens stay visible."""
        return round(tokens * (1 - self.mask_ratio))


class StartConfig(Config):
    """Weights that a run begins with, in place of random ones: read once, when the run starts and not on --resume."""

    # A run's folder, of which the newest intact checkpoint is taken, or a checkpoint's; relative to the current
    # directory, ~ is the home directory.
    path: str = Field(min_length=1)
    # The moving average, or the raw weights. Model and average of the new run both begin with them.
    weights: Literal["ema", "model"] = "ema"


class SamplingConfig(Config):
    """How samples are drawn from the run unless a command says otherwise."""

    sampler: SamplerConfig = EulerConfig(steps=50)
    guidance: GuidanceConfig = GuidanceConfig()
    # Pictures in a grid.
    grid: int = Field(64, ge=1)
    # What the grids of a text model show, one row each; a class model shows its classes.
    prompts: tuple[str, ...] = ()


class RunConfig(Config):
    """A whole run. Presets are functions that return one; `config.json` in the run's folder restates it in full."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    model: ModelConfig
    # Another run whose weights this one begins with; null begins with random ones.
    start: StartConfig | None = None
    # What captions are encoded with; null for a model that is not conditioned on text.
    text: TextConfig | None = None
    objective: ObjectiveConfig = RectifiedFlowConfig()
    data: DataConfig
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    losses: LossWeights = LossWeights()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()

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
        self._check_masking()
        moe = self.model.moe
        if self.losses.per_layer_regularisation and moe and not moe.per_layer_regularisation:
            raise ValueError(
                "losses.per_layer_regularisation needs the routers' target heads: "
                "set model.moe.per_layer_regularisation=true or losses.per_layer_regularisation=0"
            )
        return self

    def _check_masking(self) -> None:
        ratio = self.train.mask_ratio
        if not ratio:
            return
        if getattr(self.model, "masking", None) is None:
            raise ValueError(
                f"train.mask_ratio = {ratio} needs the decoder that fills in hidden tokens: "
                "set model.masking={} (model.type=pixart has it) or train.mask_ratio=0"
            )
        tokens = Grid.of(self.model.input_size or self.data.image_size).patches(self.model.patch_size).tokens
        visible = self.train.visible_tokens(tokens)
        if visible in (0, tokens):
            raise ValueError(
                f"train.mask_ratio = {ratio} leaves {visible} of a picture's {tokens} tokens visible: "
                "at least one must be, and one hidden"
            )

    def _check_sampler(self, learned: bool) -> None:
        """Find out now what would otherwise show only when pictures are drawn, after the training."""
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
