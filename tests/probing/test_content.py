"""Experts on detail and on flat parts of real pictures: against plain loops, on models whose routing is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import leandit
from leandit.data import build_source
from leandit.errors import LeanDiTError
from leandit.moe import routers
from leandit.probing import ContentTrace, content_report, record_content
from leandit.probing.content import TIMES, find_pictures, local_contrast


@pytest.mark.parametrize(("patch", "height", "width"), [(1, 4, 6), (2, 8, 4), (4, 8, 12)])
def test_local_contrast_is_the_deviation_around_each_token(patch: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = local_contrast(x, patch)
    for b in range(2):
        expected = []
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                rows = np.clip(range(top - 1, top + patch + 1), 0, height - 1)
                columns = np.clip(range(left - 1, left + patch + 1), 0, width - 1)
                expected.append(np.mean([x[b, c].numpy()[np.ix_(rows, columns)].std() for c in range(3)]))
        torch.testing.assert_close(found[b], torch.tensor(np.array(expected), dtype=torch.float32))
    assert (local_contrast(torch.full((1, 3, height, width), -0.7), patch) == 0).all()


def trace(experts: Tensor, contrast: Tensor, error: Tensor) -> ContentTrace:
    layers = tuple(f"blocks.{i}" for i in range(experts.shape[1]))
    return ContentTrace(TIMES[: len(experts)], layers, experts, contrast, error)


def test_the_report_equals_plain_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    experts = torch.randint(0, 5, (2, 3, 4, 8), generator=generator).float()
    contrast, error = torch.rand(4, 8, generator=generator), torch.rand(2, 4, 8, generator=generator)
    report = content_report(trace(experts, contrast, error))
    detail, flat = [[] for _ in range(3)], [[] for _ in range(3)]
    correlations = []
    for n in range(2):
        for b in range(4):
            order = sorted(range(8), key=lambda token, b=b: float(contrast[b, token]))
            for y in range(3):
                flat[y] += [float(experts[n, y, b, token]) for token in order[:2]]
                detail[y] += [float(experts[n, y, b, token]) for token in order[-2:]]
            spent = experts[n, :, b].sum(0).numpy()
            correlations.append(np.corrcoef(spent, error[n, b].numpy())[0, 1])
    assert report["by_layer"] == pytest.approx([np.mean(detail[y]) / np.mean(flat[y]) for y in range(3)])
    assert report["detail_over_flat"] == pytest.approx(np.mean(detail) / np.mean(flat))
    assert report["over_time"] == pytest.approx([float(experts[n].mean()) for n in range(2)])
    assert report["error_correlation"] == pytest.approx(np.mean(correlations))
    assert (report["pictures"], report["times"]) == (4, [0.9, 0.7])


def test_even_experts_are_a_ratio_of_one_without_a_correlation() -> None:
    report = content_report(trace(torch.full((2, 1, 3, 8), 2.0), torch.rand(3, 8), torch.rand(2, 3, 8)))
    assert (report["detail_over_flat"], report["by_layer"]) == (1.0, [1.0])
    assert report["error_correlation"] is None


def test_no_expert_on_flat_parts_is_no_number() -> None:
    contrast = torch.arange(8.0).expand(3, 8)
    report = content_report(trace((contrast > 3).float().expand(1, 2, 3, 8), contrast, torch.rand(1, 3, 8)))
    assert report["detail_over_flat"] is None


def test_what_is_recorded_is_what_the_model_does_with_these_pictures(tiny_run: Path) -> None:
    """One more picture than a batch, each compared with a pass of its own."""
    run = leandit.load(tiny_run)
    source = find_pictures(run)
    counted: list[tuple[int, int]] = []
    found = record_content(run, source, 17, times=(0.8, 0.2), progress=lambda *counts: counted.append(counts))
    tokens = run.model.grid.tokens
    layers = len(list(routers(run.model)))
    assert found.experts.shape == (2, layers, 17, tokens)
    assert (found.contrast.shape, found.error.shape) == ((17, tokens), (2, 17, tokens))
    assert counted == [(done, 4) for done in range(1, 5)]
    # The 17th picture is the first of the second batch; alone it is the first of a batch of one.
    from leandit.data import Loader
    from leandit.random import Stream, normal
    from leandit.run.conditioner import Conditioner

    batch = Loader(source, run.config.data.replace(flip=0.0), 16, run.config.seed).batch(1)
    x0 = batch.images[:1]
    eps = torch.from_numpy(normal(run.config.seed, Stream.VALIDATION, batch.indices[:1], tuple(x0.shape[1:])))
    cond = Conditioner(run.text, run.device)(batch.labels[:1].tolist())
    for place, time in enumerate((0.8, 0.2)):
        t = torch.tensor([time])
        x_t = run.objective.path.mix(x0, eps, t)
        with torch.no_grad():
            output = run.model(x_t, t, cond)
            velocity = run.objective.denoised(output.prediction, x_t, t).velocity
        for layer, routing in enumerate(output.routers):
            assert torch.equal(found.experts[place, layer, 16], routing.mask[0].sum(-1).float())
        exact = (velocity - run.objective.path.velocity(x0, eps, t)).square()
        p, (height, width) = run.model.config.patch_size, exact.shape[2:]
        blocks = exact.reshape(1, exact.shape[1], height // p, p, width // p, p).mean((1, 3, 5)).flatten()
        torch.testing.assert_close(found.error[place, 16], blocks, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.contrast[16], local_contrast(x0, run.model.config.patch_size)[0])


def test_a_report_says_it_and_can_leave_it_out(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from leandit.cli.main import main

    options = ["--seeds", "0", "--labels", "cat", "--steps", "1", "--by", "layer"]
    assert main(["probe", str(tiny_run), *options, "--pictures", "5", "--out", str(tmp_path / "a")]) == 0
    allocation = json.loads((tmp_path / "a" / "report.json").read_text())["allocation"]
    assert allocation["pictures"] == 5
    assert 0 < allocation["detail_over_flat"] < math.inf
    printed = capsys.readouterr().out
    assert f"5 real pictures: experts on detail over flat parts {allocation['detail_over_flat']:.2f}" in printed
    assert main(["probe", str(tiny_run), *options, "--pictures", "0", "--out", str(tmp_path / "b")]) == 0
    assert "allocation" not in json.loads((tmp_path / "b" / "report.json").read_text())
    with pytest.raises(LeanDiTError, match="pictures = -1"):
        leandit.probe(tiny_run, pictures=-1, save=False)


def test_pictures_that_are_elsewhere_are_told_and_not_an_error(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leandit.errors import NotFoundError

    def gone(config: object) -> None:
        raise NotFoundError("no such folder")

    monkeypatch.setattr("leandit.probing.content.build_source", gone)
    probed = leandit.probe(tiny_run, ["cat"], [0], steps=1, by=["layer"], save=False)
    assert probed.report["allocation"] is None


def test_held_out_pictures_come_before_those_of_training(tiny_run: Path) -> None:
    run = leandit.load(tiny_run)
    assert len(find_pictures(run)) == len(build_source(run.config.data.validation or run.config.data.source))
