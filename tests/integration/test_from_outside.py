"""A router, a backbone, a task and a codec from outside the package: each is registered by name, or handed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leandit
from leandit.autoencoder import CODECS, Codec, CodecConfig, Shape
from leandit.config import Registry
from leandit.data import Batch
from leandit.errors import LeanDiTError
from leandit.models import BACKBONES, Backbone, BackboneConfig, BackboneOutput, Conditioning
from leandit.moe import ROUTERS, MoEConfig, RouterModule, RouterOutput
from leandit.moe.config import RouterConfig
from leandit.nn import Layers, Linear
from leandit.run import TASKS, TaskConfig, read_metrics
from leandit.training import Step, Task, TaskContext, run_training

pytestmark = pytest.mark.usefixtures("no_figures")

TWO_STEPS = ["train.steps=2", "train.checkpoint_every=1", "train.log_every=1", "train.precision=fp32"]


class HashRouterConfig(RouterConfig):
    type: Literal["hash"] = "hash"

    def build(self, moe: MoEConfig, in_dim: int, dim: int, target_dim: int | None) -> RouterModule:
        return HashRouter(in_dim, moe.num_experts)


class HashRouter(RouterModule):
    """Token l goes to expert l mod E, with a learned weight."""

    def __init__(self, dim: int, num_experts: int) -> None:
        super().__init__()
        self.gate_head = Linear(dim, num_experts, bias=False)

    def forward(self, x: Tensor) -> RouterOutput:
        logits = self.decided(self.gate_head(x).float())
        experts = logits.shape[-1]
        chosen = F.one_hot(torch.arange(x.shape[1], device=x.device) % experts, experts).bool().expand_as(logits)
        return RouterOutput(logits, logits, logits.sigmoid(), chosen, chosen)


class AverageConfig(BackboneConfig):
    type: Literal["average"] = "average"

    def build(self) -> Backbone:
        return Average(self)


class Average(Backbone):
    """A linear map of every patch, plus one of the time: a backbone without layers."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.patches = Linear(self.patch_dim, self.out_dim)
        self.time = Linear(1, self.out_dim)
        self.blocks = Layers([], "none", lambda names, own: None)  # type: ignore[arg-type, return-value]
        self._finish_init()

    def forward(self, x: Tensor, t: Tensor, cond: Conditioning) -> BackboneOutput:
        y = self.patches(self.patchify(x)) + self.time(t[:, None].to(x.dtype))[:, None]
        return BackboneOutput(self.unpatchify(y), ())


class BrightnessConfig(TaskConfig):
    type: Literal["brightness"] = "brightness"

    def build(self, context: TaskContext) -> Task:
        return Brightness(context)


class Brightness(Task):
    """Predict a picture's mean from its pixels: no noise, no router, no text."""

    def __init__(self, context: TaskContext) -> None:
        torch.manual_seed(context.config.seed)
        self.module = nn.Linear(3 * 32 * 32, 1)
        self.seen = 0

    def forward(self, batch: Batch, part: slice) -> Step:
        images = batch.images[part]
        per_sample = (self.module(images.flatten(1))[:, 0] - images.mean((1, 2, 3))).square()
        return Step(per_sample.mean(), per_sample, {"squared_error": per_sample.mean()})

    def after_step(self, steps: object) -> None:
        self.seen += 1

    def state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, int]) -> None:  # type: ignore[override]
        self.seen = state["seen"]


class HalvesConfig(CodecConfig):
    type: Literal["halves"] = "halves"

    def build(self) -> Codec:
        return Halves()


class Halves(Codec):
    """Every 2 x 2 pixels become 4 times the channels, which can be undone."""

    def shape(self, data: Shape) -> Shape:
        channels, height, width = data
        return 4 * channels, height // 2, width // 2

    def encode(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, 2)

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 2)

    @property
    def identity(self) -> dict[str, int]:
        return {"block": 2}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register all four, and take them out again."""
    entries: list[tuple[Registry, type]] = [
        (ROUTERS, HashRouterConfig),
        (BACKBONES, AverageConfig),
        (TASKS, BrightnessConfig),
        (CODECS, HalvesConfig),
    ]
    for registry, kind in entries:
        registry.register(kind)
    yield
    for registry, kind in entries:
        del registry.kinds[kind.model_fields["type"].default]


def train(out: Path, *overrides: str, resume: bool = False) -> list[dict[str, float]]:
    assert run_training(leandit.run_config("tiny", [*TWO_STEPS, *overrides]), out, resume) == 0
    return read_metrics(out / "metrics.jsonl")


def test_a_router(tmp_path: Path) -> None:
    off = ["model.moe.per_layer_regularisation=false", "losses.per_layer_regularisation=0"]
    lines = train(tmp_path, 'model.moe.routing={"type":"hash"}', *off)
    assert lines[-1]["load/blocks.0.moe"] == [0.25] * 4
    run = leandit.load(tmp_path)
    assert leandit.sample(run, labels=["cat"], seeds=[0], steps=2).shape == (1, 32, 32, 3)


def test_a_backbone(tmp_path: Path) -> None:
    off = ["losses.per_layer_regularisation=0", "losses.router_similarity=0"]
    lines = train(tmp_path, "model.type=average", "model.dim=4", "model.heads=1", "model.patch_size=8", *off)
    assert lines[-1]["step"] == 2
    run = leandit.load(tmp_path)
    assert isinstance(run.model, Average)
    assert leandit.sample(run, labels=["cat"], seeds=[0], steps=2).shape == (1, 32, 32, 3)


def test_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 'codec={"type":"halves"}')
    run = leandit.load(tmp_path)
    assert (run.model.config.channels, run.model.config.input_size) == (12, 16)
    assert leandit.sample(run, labels=["cat"], seeds=[0], steps=2).shape == (1, 32, 32, 3)
    values = leandit.evaluate(run, ["kid"], num_samples=32, steps=2, out=tmp_path / "evaluation").values
    assert all(isinstance(value, float) for value in values.values())
    drawn = leandit.probe(run, labels=["cat"], seeds=[0], steps=2, save=False).drawn[0]
    assert drawn.pictures is not None
    assert drawn.pictures.shape == (1, 32, 32, 3)
    with pytest.raises(LeanDiTError, match="codec"):
        run_training(leandit.run_config("tiny", ["train.steps=3"]), tmp_path, resume=True)
    monkeypatch.setattr(Halves, "identity", {"block": 4})
    with pytest.raises(LeanDiTError, match="the codec is not the one"):
        leandit.load(tmp_path)
    with pytest.raises(LeanDiTError, match="the codec is not the one"):
        train(tmp_path, 'codec={"type":"halves"}', "train.steps=3", resume=True)


def test_a_codec_is_built_once_to_tell_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = HalvesConfig.build
    monkeypatch.setattr(HalvesConfig, "build", lambda self: built.append(1) or build(self))
    config = leandit.run_config("tiny", ['codec={"type":"halves"}', "data.image_size=24x48"])
    shapes = {each.sample_shape() for each in (config, config, config.replace(seed=1))}
    assert shapes == {(12, 12, 24)}
    assert len(built) == 1
    assert config.replace(data=config.data.replace(image_size=16)).sample_shape() == (12, 8, 8)


def test_the_codec_that_the_data_decide_may_be_named_or_not(tmp_path: Path) -> None:
    train(tmp_path)
    assert train(tmp_path, 'codec={"type":"pixels"}', "train.steps=3", resume=True)[-1]["step"] == 3
    with pytest.raises(LeanDiTError, match="reads latents, and the data are pictures"):
        train(tmp_path / "other", 'codec={"type":"latents"}')


@pytest.mark.parametrize("by_name", [True, False])
def test_a_task(tmp_path: Path, by_name: bool) -> None:
    named = ['task={"type":"brightness"}'] if by_name else []
    config = leandit.run_config("tiny", [*TWO_STEPS, *named])
    task = None if by_name else Brightness
    assert leandit.train(config, tmp_path, task=task) == 0
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["squared_error"] > 0
    longer = leandit.run_config("tiny", [*TWO_STEPS, *named, "train.steps=3"])
    assert leandit.train(longer, tmp_path, resume=True, task=task) == 0
    from leandit.run.checkpoint import find_newest

    newest = find_newest(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.state["task"]["state"]["seen"] == 3
    if not by_name:
        with pytest.raises(LeanDiTError, match=r"Brightness, and this is .*DenoiseTask"):
            leandit.train(longer, tmp_path, resume=True)
    with pytest.raises(LeanDiTError, match="only denoising runs can be loaded"):
        leandit.load(tmp_path)


def test_a_task_without_held_out_loss_says_so_before_the_first_step(tmp_path: Path) -> None:
    config = leandit.run_config("tiny", [*TWO_STEPS, "train.validate_every=1"])
    data = config.data.model_dump() | {"validation": config.data.source.model_dump()}
    config = config.replace(data=data)
    with pytest.raises(LeanDiTError, match="this task has no held-out loss"):
        leandit.train(config, tmp_path, task=Brightness)


def test_a_name_that_nobody_registered_is_told_with_the_known_ones() -> None:
    with pytest.raises(LeanDiTError, match="task: type = 'brihtness' is not one of denoise, brightness"):
        leandit.run_config("tiny", ['task={"type":"brihtness"}'])
    with pytest.raises(ValueError, match="backbone 'average' is already"):
        BACKBONES.register(type("Other", (AverageConfig,), {"__annotations__": {}}))
