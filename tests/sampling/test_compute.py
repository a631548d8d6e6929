"""A share of the trained compute, from Python and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import leandit
from leandit.cli import main
from leandit.errors import LeanDiTError
from leandit.moe import routers
from leandit.sampling import LoadedRun, at_compute


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> LoadedRun:
    return leandit.load(tiny_run)


def thresholds(run: LoadedRun) -> list[Tensor]:
    return [router.threshold.value.clone() for _, router in routers(run.model)]


def draw(run: LoadedRun, **options: float) -> tuple[Tensor, int]:
    """Return pictures, and how many pairs they took after the calibration, which draws four of its own first."""
    pairs: list[tuple[int, int]] = []
    handles = [
        router.register_forward_hook(lambda _, given, output: pairs.append((len(given[0]), int(output.mask.sum()))))
        for _, router in routers(run.model)
    ]
    pictures = leandit.sample(run, [0], range(6), steps=4, guidance=1.0, **options)
    for handle in handles:
        handle.remove()
    return pictures, sum(count for batch, count in pairs if batch == 6)


def test_half_the_compute_is_about_half_the_pairs(run: LoadedRun) -> None:
    before = thresholds(run)
    trained, all_pairs = draw(run)
    half, half_pairs = draw(run, compute=0.5)
    assert half_pairs / all_pairs == pytest.approx(0.5, abs=0.15)
    assert not torch.equal(trained, half)
    assert torch.equal(half, draw(run, compute=0.5)[0])
    assert torch.equal(trained, draw(run, compute=1)[0])
    assert all(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True))


def test_thresholds_come_back_after_an_error(run: LoadedRun) -> None:
    before = thresholds(run)
    with pytest.raises(ZeroDivisionError), at_compute(run, 0.5):
        assert 1 / int(any(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(before, thresholds(run), strict=True))


def test_the_command_draws_what_python_draws(run: LoadedRun, tiny_run: Path, tmp_path: Path) -> None:
    from PIL import Image

    command = ["sample", str(tiny_run), "--labels", "0", "--seeds", "0-5", "--steps", "4", "--guidance", "1"]
    assert main([*command, "--compute", "0.5", "--out", str(tmp_path / "half")]) == 0
    half, _ = draw(run, compute=0.5)
    with Image.open(tmp_path / "half" / "label-0000-heart_seed-000003.png") as picture:
        drawn = torch.tensor(list(picture.tobytes()), dtype=torch.uint8).reshape(half[3].shape)
    assert torch.equal(drawn, half[3])


def test_a_share_that_is_no_share_is_refused(
    run: LoadedRun, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LeanDiTError, match=r"compute -1: give a share above 0, such as 0.5"):
        leandit.sample(run, [0], [0], compute=-1)
    assert main(["sample", str(tiny_run), "--compute", "0", "--out", str(tmp_path / "none")]) == 2
    assert "--compute 0: give a share above 0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
