"""Parts from outside that are not built as ours are: tied weights, plain blocks, codecs of other shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leandit
from leandit.autoencoder import CODECS, Codec, CodecConfig, Shape
from leandit.config import Registry
from leandit.errors import LeanDiTError
from leandit.models import BACKBONES, Backbone, BackboneConfig, BackboneOutput, Conditioning
from leandit.moe import MoEConfig, MoELayer
from leandit.nn import Linear
from leandit.sampling import at_compute
from leandit.training import TaskContext, run_training
from leandit.training.ema import EMA

STEPS = ["train.steps=2", "train.log_every=1", "train.precision=fp32", "sampling.sampler.steps=2", "sampling.grid=2"]


class PlainConfig(BackboneConfig):
    type: Literal["plain"] = "plain"

    def build(self) -> Backbone:
        return Plain(self)


class Block(nn.Module):
    """An ordinary module, which returns a tuple."""

    def __init__(self, dim: int, moe: MoEConfig | None) -> None:
        super().__init__()
        self.moe = None if moe is None else MoELayer(moe, dim, 4 * dim)
        self.linear = Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y, routing = (self.linear(x), None) if self.moe is None else self.moe(x)
        return x + y, routing


class Plain(Backbone):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.patch_embedding = Linear(self.patch_dim, config.dim)
        self.blocks = nn.ModuleList(Block(config.dim, config.moe) for _ in range(config.depth))  # type: ignore[assignment]
        self.final = Linear(config.dim, self.out_dim)
        self._finish_init()

    def forward(self, x: Tensor, t: Tensor, cond: Conditioning) -> BackboneOutput:
        tokens, routers = self.patch_embedding(self.patchify(x)), []
        for block in self.blocks:
            tokens, routing = block(tokens)
            routers += [] if routing is None else [routing]
        return BackboneOutput(self.unpatchify(self.final(tokens), self.grid_of(x)), tuple(routers))


class HalfConfig(CodecConfig):
    type: Literal["half"] = "half"

    def build(self) -> Codec:
        return Half()


class Half(Codec):
    """The model sees and draws every other pixel: what is decoded is smaller than the data."""

    def encode(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    def decode(self, z: Tensor) -> Tensor:
        return z

    def shape(self, data: Shape) -> Shape:
        return data[0], data[1] // 2, data[2] // 2


@pytest.fixture
def registered() -> Iterator[None]:
    kinds: list[tuple[Registry, type]] = [(BACKBONES, PlainConfig), (CODECS, HalfConfig)]
    for registry, kind in kinds:
        registry.register(kind)
    yield
    for registry, kind in kinds:
        registry.kinds.pop(kind.model_fields["type"].default)


MOE = '{"k": 1, "num_experts": 2, "per_layer_regularisation": false}'
PLAIN = [
    'model={"type": "plain", "dim": 16, "depth": 2, "heads": 2, "patch_size": 8}',
    "losses.per_layer_regularisation=0",
]


def test_plain_blocks_train_draw_and_are_probed(registered: None, tmp_path: Path) -> None:
    config = leandit.run_config("tiny", [*STEPS, *PLAIN, f"model.moe={MOE}"])
    assert leandit.train(config, tmp_path / "run") == 0
    probed = leandit.probe(tmp_path / "run", [0], [0], steps=1, pictures=0)
    assert probed.report["layer"]["block_norms"] == {"stream": [], "added": []}
    assert probed.report["pairs"]["total"] > 0


@pytest.mark.parametrize("setting", ["train.activation_checkpointing", "train.compile"])
def test_settings_that_would_do_nothing_are_refused(registered: None, setting: str, tmp_path: Path) -> None:
    config = leandit.run_config("tiny", [*STEPS, *PLAIN, f"model.moe={MOE}", f"{setting}=true"])
    with pytest.raises(LeanDiTError, match=f"{setting}: the backbone has no .*Layer"):
        run_training(config, tmp_path / "run")


def test_a_dense_model_of_plain_blocks_has_nothing_to_probe(registered: None, tmp_path: Path) -> None:
    config = leandit.run_config("tiny", [*STEPS, *PLAIN])
    assert run_training(config, tmp_path / "run") == 0
    with pytest.raises(LeanDiTError, match="there is nothing else to probe"):
        leandit.probe(tmp_path / "run", [0], [0], steps=1)


def test_muon_without_a_matrix_that_it_knows_is_refused(registered: None, tmp_path: Path) -> None:
    dense = [*STEPS, *PLAIN, "optimizer.type=muon"]
    with pytest.raises(LeanDiTError, match=r"optimizer\.type = muon: no matrix of this model"):
        run_training(leandit.run_config("tiny", dense), tmp_path / "run")


def test_pictures_smaller_than_the_data_are_measured(registered: None, tmp_path: Path) -> None:
    settings = [*STEPS, 'codec={"type": "half"}', "model.patch_size=4"]
    assert run_training(leandit.run_config("tiny", settings), tmp_path / "run") == 0
    values = leandit.evaluate(tmp_path / "run", ["kid"], 20, steps=1).values
    assert all(value == value for value in values.values())


def test_a_start_with_another_codec_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shifted = 'codec={"type": "pixels", "shift": 1.0}'
    assert run_training(leandit.run_config("tiny", [*STEPS, shifted]), tmp_path / "a") == 0
    for codec, told in (([], True), ([shifted], False)):
        caplog.clear()
        config = leandit.run_config("tiny", [*STEPS, *codec, f"start.path={tmp_path / 'a'}"])
        assert run_training(config, tmp_path / f"b{told}") == 0
        assert ("the codec is another one" in caplog.text) is told


def test_thresholds_of_tokens_start_at_their_mean_on_another_grid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    be = [*STEPS, "model.moe.strategy=be_choice"]
    assert run_training(leandit.run_config("tiny", be), tmp_path / "small") == 0
    larger = [*be, "data.image_size=64", "model.position_grid=4", f"start.path={tmp_path / 'small'}", "train.steps=1"]
    assert run_training(leandit.run_config("tiny", larger), tmp_path / "large") == 0
    assert "thresholds of tokens start at their mean" in caplog.text


def test_tied_weights_have_one_average() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model.register_parameter("count", nn.Parameter(torch.tensor([7]), requires_grad=False))
    ema = EMA(model, decay=0.0)
    with torch.no_grad():
        model["a"].weight.add_(1)
        model.count.add_(1)
    ema.update(model, 100)
    for name, tensor in model.state_dict().items():
        assert torch.equal(ema.tensors[name], tensor), name


@pytest.mark.parametrize("given", [None, 7, "task"])
def test_a_factory_that_returns_no_task_is_told(given: object, tmp_path: Path) -> None:
    def factory(context: TaskContext) -> Any:
        return given

    with pytest.raises(LeanDiTError, match=rf"returned {type(given).__name__}, not a leandit.training.Task"):
        run_training(leandit.run_config("tiny", STEPS), tmp_path / "run", task=factory)


def test_an_evaluation_under_another_compute_has_its_own_pictures(tiny_run: Path, tmp_path: Path) -> None:
    run = leandit.load(tiny_run)
    results = []
    for share in (1.0, 0.25, 1.0):
        with at_compute(run, share):
            assert run.compute == share
            results.append(leandit.evaluate(run, ["kid"], 20, steps=2, out=tmp_path / "out"))
    assert run.compute == 1.0
    first, less, again = (list(result.values.values()) for result in results)
    assert first == again != less
    assert [result.record["conditions"].get("compute") for result in results] == [None, 0.25, None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seeds": [1.5]}, "seeds: 1.5 is not a whole number"),
        ({"seeds": [True]}, "seeds: true is not a whole number"),
        ({"seeds": "0-3"}, "seeds: '0-3' is not a whole number"),
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"batch_size": 1.0}, "batch_size: 1.0 is not a whole number"),
        ({"compute": "half"}, "compute: 'half' is not a number"),
        ({"compute": None}, "compute: null is not a number"),
    ],
)
def test_python_checks_what_the_command_checks(arguments: dict[str, Any], words: str, tiny_run: Path) -> None:
    with pytest.raises(LeanDiTError, match=words):
        leandit.sample(tiny_run, ["cat"], steps=1, **arguments)


def test_one_label_and_tensors_of_seeds(tiny_run: Path) -> None:
    run = leandit.load(tiny_run, device=torch.device("cpu"))  # type: ignore[arg-type]
    expected = leandit.sample(run, ["cat"], [0, 1], steps=1)
    for labels, seeds in (("cat", torch.arange(2)), (1, range(2)), (torch.tensor([1]), torch.arange(2).numpy())):
        assert torch.equal(leandit.sample(run, labels, seeds, steps=1), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("turned", [False, True])
def test_a_type_after_or_before_its_table_wins(turned: bool) -> None:
    overrides = ['sampling.sampler={"type":"euler","steps":5}', "sampling.sampler.type=heun"]
    assert leandit.run_config("tiny", overrides[::-1] if turned else overrides).sampling.sampler.type == "heun"
