"""The norms of the blocks' outputs of runs without experts: as recorded, reported, drawn and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from routed_models import CONFIGS, build, condition, noisy

import leandit
from leandit.api import train
from leandit.cli import main
from leandit.cli.probe import _on_norms
from leandit.models import Backbone
from leandit.presets import run_config
from leandit.probing.norms import NormRecorder, NormTrace, norm_report
from leandit.probing.routing import RoutingRecorder

pytestmark = pytest.mark.usefixtures("no_figures")


def call(model: Backbone) -> None:
    with torch.no_grad():
        model(noisy(model.config, 2), torch.full((2,), 0.3), condition(model.config, 2))


def lengths(tokens: torch.Tensor) -> float:
    return sum(sum(value**2 for value in token) ** 0.5 for token in tokens.tolist()) / len(tokens)


@pytest.mark.parametrize("name", CONFIGS)
def test_norms_of_every_backbone_equal_what_the_blocks_hand_on(name: str) -> None:
    """The last block's result is what the final layer gets, and the routing recorder's norms are the same."""
    model = build(CONFIGS[name])
    last: list[torch.Tensor] = []
    model.final.register_forward_pre_hook(lambda module, arguments: last.append(arguments[0]))
    with RoutingRecorder(model, 2) as routing, NormRecorder(model, 2) as recorder:
        call(model)
    trace = recorder.trace()
    assert trace.norms.shape == (1, model.config.depth, 2, 2)
    assert np.array_equal(trace.norms, routing.trace().norms)
    for picture in range(2):
        assert trace.norms[0, -1, picture, 0] == pytest.approx(lengths(last[0][picture]), rel=1e-4)


def test_what_a_dense_block_adds() -> None:
    model = build(CONFIGS["dit"].replace(depth=1, moe=None))
    last: list[torch.Tensor] = []
    model.final.register_forward_pre_hook(lambda module, arguments: last.append(arguments[0]))
    with NormRecorder(model, 2) as recorder:
        call(model)
    before = model.patch_embedding(model.patchify(noisy(model.config, 2))) + model.positions(model.grid)
    for picture in range(2):
        expected = lengths(last[0][picture] - before[picture])
        assert recorder.trace().norms[0, 0, picture, 1] == pytest.approx(expected, rel=1e-4)
    assert not any(module._forward_hooks for module in model.blocks)


def test_a_report_averages_over_calls_and_pictures() -> None:
    """Heun evaluates some times twice: they are one entry."""
    norms = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)
    report = norm_report(NormTrace(np.array([1.0, 0.5, 0.5]), norms))
    assert report["timestep"]["times"].tolist() == [0.5, 1.0]
    added = report["timestep"]["block_norms"]["added"]
    assert added[1].tolist() == [(1 + 3) / 2, (5 + 7) / 2]
    assert added[0].tolist() == [(9 + 11 + 17 + 19) / 4, (13 + 15 + 21 + 23) / 4]
    assert report["layer"]["block_norms"]["growth"] == pytest.approx((18 + 6) / (14 + 2))


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense") / "run"
    assert train(run_config("tiny", ["model.moe=null", "train.steps=1", "sampling.grid=2"]), out) == 0
    return out


def test_the_command_reports_a_dense_run_alone_and_beside_one_with_experts(
    dense_run: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--steps", "2", "--seeds", "0")
    assert main(["probe", str(dense_run), *quick, "--out", str(tmp_path / "one")]) == 0
    words = capsys.readouterr().out
    report = json.loads((tmp_path / "one/report.json").read_text())
    assert report["run"]["model"] == "dit"
    assert report["timestep"]["times"] == [0.5, 1.0]
    assert [picture["name"] for picture in report["pictures"]] == ["heart", "cat"]
    added = report["layer"]["block_norms"]["added"]
    assert f"{added[0]:.3g} in block 1, {added[-1]:.3g} in block {len(added)}" in words
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"report.json", "norms.png", "drawing.json"}
    pair = [str(dense_run), str(tiny_run)]
    assert main(["probe", "--compare", *pair, *quick, "--out", str(tmp_path / "two")]) == 0
    both = json.loads((tmp_path / "two/report.json").read_text())["runs"]
    assert both[0] == report
    assert both[1]["run"]["folder"] == "run"
    sizes = []
    for name in ("one", "two"):
        with Image.open(tmp_path / name / "norms.png") as picture:
            sizes.append(picture.width)
    assert sizes[1] > sizes[0] > 500


def test_axes_and_python(dense_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probed = leandit.probe(dense_run, [0], [1], steps=1, by="layer", save=False)
    assert probed.folder is None
    assert probed.drawn == ()
    assert "layer" in probed.report
    assert "timestep" not in probed.report
    for axis in ("layer", "timestep"):
        assert main(["probe", str(dense_run), "--steps", "1", "--by", axis, "--out", str(tmp_path / axis)]) == 0
        assert (tmp_path / axis / "norms.png").exists()
    assert main(["probe", str(dense_run), "--by", "layer,position"]) == 2
    assert "no experts, so --by can only be layer, timestep or both" in capsys.readouterr().err
    assert not (dense_run / "probe").exists()


def test_norms_that_are_not_finite_are_drawn_and_said(
    dense_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = leandit.load(dense_run)
    for parameter in run.model.blocks.parameters():
        parameter.data.fill_(float("nan"))
    probed = leandit.probe(run, [0], [0], steps=1, out=tmp_path / "out")
    assert probed.report["layer"]["block_norms"]["added"] == [None, None]
    assert (tmp_path / "out/norms.png").exists()
    assert "not finite in block 1" in _on_norms(probed.report)
