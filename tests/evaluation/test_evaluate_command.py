"""`leandit evaluate` from end to end on a tiny run, and what it says to mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leandit.cli.main import main
from leandit.presets import run_config
from leandit.run.folder import RunFolder

METRICS = ["kid", "fd", "precision_recall", "sfid", "inception_score", "validation_loss"]
HELD_OUT = json.dumps({"type": "emoji", "split": "all", "classes": {"heart": ["heart"], "cat": ["cat-face"]}})


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    command = ["evaluate", str(tiny_run), *METRICS, "--num-samples", "100", "--reference", HELD_OUT]
    assert main([*command, "--out", str(out)]) == 0
    return out


def result(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def test_the_result_says_all_that_its_numbers_depend_on(evaluated: Path, tiny_run: Path) -> None:
    record = result(evaluated)
    values = {name: value for metric in record["metrics"].values() for name, value in metric["values"].items()}
    for name in ("KID-EffNetLite0", "FD-EffNetLite0", "sFD-EffNetLite0", "IS-EffNetLite0", "recall-EffNetLite0"):
        assert name in values
    assert not {"FID", "KID", "IS", "sFID"} & values.keys()
    assert 0 <= values["precision-EffNetLite0"] <= 1
    assert record["conditions"] == {
        "sampler": {"steps": 4, "shift": 1.0, "type": "heun"},
        "guidance": {"scale": 1.0, "interval": [0.0, 1.0]},
        "weights": "ema",
        "autoencoder": None,
        "picture": {"size": 32, "channels": 3},
    }
    manifest = json.loads(next(iter(sorted(tiny_run.glob("checkpoints/*/manifest.json"), reverse=True))).read_text())
    assert record["run"]["weights_sha256"] == manifest["files"]["ema.safetensors"]["sha256"]
    assert record["run"]["step"] == 20
    kid = record["metrics"]["kid"]
    assert (kid["samples"], kid["seeds"]) == (100, "0-99")
    assert kid["made_of"]["resolution"] == 96
    assert kid["made_of"]["weights_sha256"].startswith("57934424")
    assert len(kid["made_of"]["reference"]["pixels_sha256"]) == 64
    assert record["made_with"]["torch"]


def test_the_validation_loss_is_by_timestep(evaluated: Path) -> None:
    values = result(evaluated)["metrics"]["validation_loss"]["values"]
    assert len(values) == 11
    assert all(0 < value < 10 for value in values.values())
    # The times of training lie in the middle, so the mean over them lies between the bins.
    bins = [value for name, value in values.items() if name != "validation_loss"]
    assert min(bins) < values["validation_loss"] < max(bins)


def test_again_it_draws_nothing_and_finds_the_same(
    evaluated: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(evaluated / "samples", tmp_path / "samples")
    monkeypatch.setattr("leandit.evaluation.samples.sample", lambda *_: pytest.fail("drawn again"))
    command = ["evaluate", str(tiny_run), "sfid", "kid", "--num-samples", "100", "--reference", HELD_OUT]
    assert main([*command, "--out", str(tmp_path)]) == 0
    before = result(evaluated)["metrics"]
    assert result(tmp_path)["metrics"] == {name: before[name] for name in ("sfid", "kid")}


def test_it_says_that_few_samples_bias_the_frechet_distance(
    evaluated: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(evaluated / "samples", tmp_path / "samples")
    command = ["evaluate", str(tiny_run), "sfid", "--num-samples", "100", "--reference", HELD_OUT]
    assert main([*command, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "With 100 samples, fewer than 5000, sFD-EffNetLite0 is biased by their number: read KID" in out
    assert "Drawing 100 pictures (4 steps of heun, guidance 1)" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fidd"], "unknown metric 'fidd'. Did you mean 'fid'?"),
        (["kid", "--num-samples", "5"], "kid needs at least 20 pictures and has 5 samples; raise --num-samples"),
        (["fd", "--num-samples", "49"], "fd needs at least 50 pictures"),
        (["--num-samples", "0"], "--num-samples 0: from 1 to"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--weights", "average"], "weights 'average'"),
        (["--reference", "nowhere"], "--reference nowhere: no such folder"),
        (["--weights-from", "inception"], "expected NAME=PATH"),
        (["--weights-from", "inceptoin=x.pth"], "Did you mean 'inception'?"),
        (["fd", "--weights-from", "inception=nothing.pth"], "nothing.pth: no such file, for the weights of Inception"),
        (["cmmd"], "name the folder with --weights-from clip=clip"),
        (["validation_loss"], "the run has no data.validation; name some with --reference"),
        (["--anyway"], "--anyway belongs to --compare"),
        (["--steps", "0"], "sampler.steps"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(
    words: list[str], said: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tiny_run), *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_mistakes(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    assert "name a run" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tiny_run), "--reference", str(tmp_path / "empty")]) == 2
    assert "no pictures here" in capsys.readouterr().err
    fresh = RunFolder(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh.config.write_text(run_config("tiny").model_dump_json())
    assert main(["evaluate", str(fresh.path)]) == 2
    assert "no intact checkpoint yet" in capsys.readouterr().err
    wrong = tmp_path / "inception.pth"
    wrong.write_bytes(b"no weights")
    assert main(["evaluate", str(tiny_run), "fd", "--weights-from", f"inception={wrong}"]) == 2
    assert "not the published weights of Inception" in capsys.readouterr().err
    checkpoint = next(iter(tiny_run.glob("checkpoints/*")))
    assert main(["evaluate", str(tiny_run), "--out", str(checkpoint / "x")]) == 2
    assert "the folder of a checkpoint" in capsys.readouterr().err


def test_ranks_draw_their_part_and_leave_the_rest_to_rank_zero(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("leandit.evaluation.samples.SHARD", 10)
    command = ["evaluate", str(tiny_run), "kid", "--num-samples", "30", "--out", str(tmp_path)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(command) == 0
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["shard-00001.npz"]
    monkeypatch.setenv("RANK", "0")
    assert main(command) == 0
    assert "KID-EffNetLite0" in capsys.readouterr().out


def test_held_out_pictures_of_foreign_classes_are_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / name / "1.png")
    for reference in ('{"type": "emoji", "split": "held_out"}', str(tmp_path / "pictures")):
        command = ["evaluate", str(tiny_run), "validation_loss", "--reference", reference]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert "are not those that it learned" in said
    assert "a, b / heart, cat" in said
    assert not (tmp_path / "out").exists()


def test_a_number_without_a_reference_says_what_was_drawn(evaluated: Path) -> None:
    metrics = result(evaluated)["metrics"]
    assert len(metrics["inception_score"]["made_of"]["drawn_sha256"]) == 64
    assert "drawn_sha256" not in metrics["kid"]["made_of"]
