"""`leandit.evaluate`: the numbers of the command, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import leandit
from leandit.cli.main import main
from leandit.data import EmojiConfig
from leandit.errors import LeanDiTError
from leandit.evaluation.compare import compare
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan

SEEDS = range(5, 11)


class Brightness(Metric):
    """The mean pixel of six pictures of the first class."""

    name = "brightness"

    def plan(self, job: Job) -> Plan:
        return Plan([0] * len(SEEDS), SEEDS)

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        assert drawn is not None
        return Measurement({"brightness": float(drawn.pictures.double().mean())}, {"job": job.num_samples})


def test_a_metric_of_ones_own_sees_the_pictures_of_sample(tiny_run: Path, tmp_path: Path) -> None:
    run = leandit.load(tiny_run)
    lines: list[str] = []
    counted: list[tuple[int, int]] = []
    found = leandit.evaluate(
        run,
        Brightness(),
        steps=2,
        out=tmp_path,
        reference=EmojiConfig(split="held_out"),
        progress=lambda done, total: counted.append((done, total)),
        log=lines.append,
    )
    pictures = leandit.sample(run, labels=[0], seeds=SEEDS, steps=2)
    assert found.values == {"brightness": pytest.approx(float(pictures.double().mean()), abs=0.01)}
    assert found.note is None
    assert counted[-1] == (6, 6)
    assert any(line.startswith("Drawing 6 pictures (2 steps of heun") for line in lines)
    assert found.path is not None
    record = json.loads(found.path.read_text())
    assert record == found.record
    assert record["conditions"]["sampler"]["steps"] == 2
    assert record["metrics"]["brightness"] == {
        **{"values": found.values, "samples": 6, "seeds": "5-10", "made_of": {"job": 1000}},
    }


def test_it_finds_what_the_command_finds(tiny_run: Path, tmp_path: Path) -> None:
    from_python = leandit.evaluate(tiny_run, ["is", "kid"], 100, out=tmp_path / "python")
    assert main(["evaluate", str(tiny_run), "is", "kid", "--num-samples", "100", "--out", str(tmp_path / "cli")]) == 0
    (path,) = (tmp_path / "cli").glob("*.json")
    assert json.loads(path.read_text())["metrics"] == from_python.record["metrics"]
    assert set(from_python.values) == {
        *("IS-EffNetLite0", "IS-EffNetLite0 (std)", "KID-EffNetLite0", "KID-EffNetLite0 (std)"),
    }
    assert from_python.note is not None
    assert "IS-EffNetLite0 is biased" in from_python.note
    assert from_python.path is not None
    side_by_side = compare(from_python.path, path)
    assert side_by_side.differences == []
    assert [row[1] == row[2] for row in side_by_side.rows] == [True] * 4


def test_a_loaded_run_says_which_weights_and_precision_it_has(tiny_run: Path, tmp_path: Path) -> None:
    raw = leandit.evaluate(leandit.load(tiny_run, weights="model"), Brightness(), steps=1, out=tmp_path)
    averaged = leandit.evaluate(tiny_run, Brightness(), steps=1, out=tmp_path)
    assert raw.record["run"]["weights"] == raw.record["conditions"]["weights"] == "model"
    assert averaged.record["run"]["weights"] == "ema"
    assert raw.values != averaged.values
    assert "precision" not in raw.record["conditions"]
    low = leandit.evaluate(leandit.load(tiny_run, precision="bf16"), Brightness(), steps=1, out=tmp_path)
    assert low.record["conditions"]["precision"] == "bf16"
    assert len(list((tmp_path / "samples").iterdir())) == 3
    assert raw.path is not None
    assert averaged.path is not None
    with pytest.raises(LeanDiTError, match=r"weights: model / ema"):
        compare(raw.path, averaged.path)


def test_a_rank_that_only_draws_has_no_result(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    found = leandit.evaluate(tiny_run, Brightness(), steps=1, out=tmp_path)
    assert (found.values, found.path, found.note) == ({}, None, None)


def test_mistakes(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="Did you mean 'kid'"):
        leandit.evaluate(tiny_run, "kidd", out=tmp_path / "out")
    with pytest.raises(LeanDiTError, match="no metric is named"):
        leandit.evaluate(tiny_run, [], out=tmp_path / "out")
    with pytest.raises(LeanDiTError, match="Did you mean 'inception'"):
        leandit.evaluate(tiny_run, weights_from={"inceptoin": "x.pth"}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
