"""`leandit.probe`: the report of the command, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import leandit
from leandit.errors import LeanDiTError
from leandit.probing import draw_recorded


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_routing", "plot_compute"):
        monkeypatch.setattr(f"leandit.probing.write.{name}", lambda *arguments: Path(arguments[-1]).touch())


def test_a_report_that_is_not_saved(tiny_run: Path) -> None:
    run = leandit.load(tiny_run)
    before = sorted(tiny_run.rglob("*"))
    counted: list[tuple[int, int]] = []
    probed = leandit.probe(
        run,
        ["cat", "heart", "cat"],
        (seed for seed in (7, 3)),
        by=["position"],
        steps=1,
        save=False,
        progress=lambda done, total: counted.append((done, total)),
    )
    assert (probed.folder, probed.page) == (None, False)
    assert sorted(tiny_run.rglob("*")) == before
    assert [(picture["name"], picture["seed"]) for picture in probed.report["pictures"]] == [
        *(("cat", 7), ("cat", 3), ("heart", 7), ("heart", 3)),
    ]
    settings = run.config.sampling.replace(sampler=run.config.sampling.sampler.replace(steps=1))
    cat, heart = run.class_names.index("cat"), run.class_names.index("heart")
    wanted = draw_recorded(run, [cat, cat, heart, heart], [7, 3, 7, 3], settings)
    masks = [wanted.trace.mask(layer) for layer in range(len(wanted.trace.layers))]
    assert probed.report["pairs"]["total"] == sum(int(mask.sum()) for mask in masks)
    assert "layer" not in probed.report
    assert probed.drawn[0].trace.counts.sum() == probed.report["pairs"]["total"]
    assert counted[-1][0] == counted[-1][1]


def test_two_runs_in_one_folder(tiny_run: Path, tmp_path: Path) -> None:
    checkpoint = tiny_run / "checkpoints/step-00000010"
    probed = leandit.probe(tiny_run, seeds=[0], compare=checkpoint, steps=1, out=tmp_path, figures=False)
    assert probed.folder == tmp_path
    assert json.loads((tmp_path / "report.json").read_text())["runs"] == list(probed.reports)
    assert [report["run"]["step"] for report in probed.reports] == [20, 10]
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "report.html").exists() == probed.page


def test_mistakes(tiny_run: Path) -> None:
    with pytest.raises(LeanDiTError, match="Did you mean 'layer'"):
        leandit.probe(tiny_run, by=["layers"], save=False)
    with pytest.raises(LeanDiTError, match="at most 64"):
        leandit.probe(tiny_run, seeds=range(40), save=False)
    with pytest.raises(LeanDiTError, match="reads no text"):
        leandit.probe(tiny_run, prompts=["red apple"], save=False)
