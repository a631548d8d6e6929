"""Results side by side: what is refused, and what may differ."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leandit.cli.main import main
from leandit.errors import LeanDiTError
from leandit.evaluation.compare import differences
from leandit.evaluation.record import read_record, write_record


def record() -> dict[str, Any]:
    extractor = {"extractor": "EffNetLite0", "weights_sha256": "5793", "resolution": 96, "resampling": "bicubic"}
    return {
        "format": "leandit-evaluation",
        "version": 1,
        "run": {"name": "a", "path": "runs/a", "step": 100, "weights": "ema", "weights_sha256": "aa"},
        "conditions": {
            "sampler": {"type": "heun", "steps": 25, "shift": 1.0},
            "guidance": {"scale": 2.0, "interval": [0.0, 1.0]},
            "weights": "ema",
            "autoencoder": None,
            "picture": {"size": 32, "channels": 3},
        },
        "metrics": {
            "kid": {
                "values": {"KID-EffNetLite0": 0.25},
                "samples": 256,
                "seeds": "0-255",
                "made_of": {**extractor, "reference": {"pictures": 137, "pixels_sha256": "ff"}, "subset_size": 68},
            },
            "validation_loss": {
                "values": {"validation_loss": 0.5},
                "samples": 0,
                "seeds": None,
                "made_of": {"objective": {"type": "rectified_flow"}},
            },
        },
        "reference": {"source": "the run's training data"},
        "made_with": {"leandit": "0.1", "torch": "2.13", "date": "2026-01-01", "command": ["leandit"]},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    result = record()
    node = result
    *parents, last = path.split("/")
    for key in parents:
        node = node[key]
    node[last] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("conditions/sampler/type", "euler", "sampler.type: heun / euler"),
        ("conditions/sampler/steps", 50, "sampler.steps: 25 / 50"),
        ("conditions/guidance/scale", 4.0, "guidance.scale: 2.0 / 4.0"),
        ("conditions/weights", "model", "weights: ema / model"),
        ("conditions/autoencoder", "f8", "autoencoder: None / f8"),
        ("conditions/picture/size", 64, "picture.size: 32 / 64"),
        ("metrics/kid/samples", 1000, "kid: samples: 256 / 1000"),
        ("metrics/kid/seeds", "1-256", "kid: seeds: 0-255 / 1-256"),
        ("metrics/kid/made_of/extractor", "Inception", "kid: extractor: EffNetLite0 / Inception"),
        ("metrics/kid/made_of/weights_sha256", "0", "kid: weights_sha256: 5793 / 0"),
        ("metrics/kid/made_of/resolution", 224, "kid: resolution: 96 / 224"),
        ("metrics/kid/made_of/resampling", "bilinear", "kid: resampling: bicubic / bilinear"),
        ("metrics/kid/made_of/reference/pixels_sha256", "ee", "kid: reference.pixels_sha256: ff / ee"),
        ("metrics/kid/made_of/subset_size", 1, "kid: subset_size: 68 / 1"),
    ],
)
def test_whatever_a_number_depends_on_is_refused_by_name(
    path: str, value: Any, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(path, value)
    assert [str(difference) for difference in differences(record(), other)] == [named]
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(record()))
    second.write_text(json.dumps(other))
    assert main(["evaluate", "--compare", str(first), str(second)]) == 2
    out, err = capsys.readouterr()
    assert named in err
    assert "0.25" not in out
    assert main(["evaluate", "--compare", str(first), str(second), "--anyway"]) == 0
    out = capsys.readouterr().out
    assert "0.2500" in out
    assert named in out


@pytest.mark.parametrize("path", ["run/name", "run/weights_sha256", "made_with/torch", "made_with/date"])
def test_the_runs_themselves_and_versions_may_differ(path: str) -> None:
    assert differences(record(), changed(path, "x")) == []


def test_comparable_results_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = changed("run/name", "b")
    other["metrics"]["kid"]["values"]["KID-EffNetLite0"] = 0.125
    (tmp_path / "a.json").write_text(json.dumps(record()))
    (tmp_path / "b.json").write_text(json.dumps(other))
    assert main(["evaluate", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a at step 100")
    assert lines[2].split() == ["KID-EffNetLite0", "0.2500", "0.1250"]


def test_sampling_does_not_matter_where_nothing_is_drawn() -> None:
    first, second = record(), changed("conditions/sampler/steps", 50)
    for each in (first, second):
        del each["metrics"]["kid"]
    assert differences(first, second) == []


def test_weights_matter_where_nothing_is_drawn() -> None:
    first, second = record(), changed("conditions/weights", "model")
    for each in (first, second):
        del each["metrics"]["kid"]
    assert [str(difference) for difference in differences(first, second)] == ["weights: ema / model"]


def test_there_must_be_a_metric_in_common() -> None:
    first, second = record(), copy.deepcopy(record())
    del first["metrics"]["kid"]
    del second["metrics"]["validation_loss"]
    with pytest.raises(LeanDiTError, match="no metric in common"):
        differences(first, second)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a result of `leandit evaluate`"),
        ('{"format": "leandit-evaluation", "version": 9}', "written in format 9"),
        ('{"format": "leandit-evaluation", "version": 1}', "was changed or cut"),
        (json.dumps({**record(), "metrics": {"kid": {"values": {"KID": "x"}}}}), "was changed or cut"),
        (json.dumps(changed("metrics/kid/values", {})), "was changed or cut"),
        (json.dumps(changed("metrics/kid/values", {"KID": 10**400})), "was changed or cut"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_other_files_are_no_results(content: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(LeanDiTError, match=named):
        read_record(path)
    with pytest.raises(LeanDiTError, match="cannot be read"):
        read_record(tmp_path / "nothing.json")


def test_evaluations_at_the_same_moment_all_keep_their_results(tmp_path: Path) -> None:
    results = [changed("run/name", f"{n}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda each: write_record(tmp_path, each), results))
    assert [read_record(path)["run"]["name"] for path in paths] == [f"{n}" for n in range(40)]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
