"""The preset on scenes and its benchmark, through the command line, with a model too small to learn."""

from __future__ import annotations

import json
from pathlib import Path

from leandit.cli.main import main
from leandit.evaluation.benchmarks.scenes import SCORER_VERSION, prompts_hash

SMALL = [
    *("model.dim=32", "model.depth=2", "model.heads=2", "model.patch_size=8", "train.steps=2", "train.batch_size=8"),
    *("train.validate_every=null", "data.source.length=64", "sampling.sampler.steps=1", "train.precision=fp32"),
]


def test_a_run_on_scenes_is_trained_and_scored(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "scenes-race-air", *SMALL, "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "scenes", "--num-samples", "60", "--out", str(tmp_path / "result")]) == 0
    (file,) = (tmp_path / "result").rglob("*.json")
    record = json.loads(file.read_text())
    text = json.dumps(record)
    assert prompts_hash() in text
    assert SCORER_VERSION in text
    # Two steps teach nothing, so no picture is right; the numbers are there all the same.
    assert '"scenes/counting": 0.0' in text
