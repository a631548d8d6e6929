"""Every mistake that a person can make: a message that says what, where and how to mend it; exit code 2."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.cli import main

Fails = Callable[..., str]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# The configuration


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tinny"], ["unknown preset 'tinny'", "Did you mean 'tiny'?", "quickstart"]),
        (["tiny", "train.stepz=3"], ["train.stepz: unknown key", "Did you mean 'steps'?"]),
        (["tiny", "modle.dim=3"], ["modle: unknown key", "Did you mean 'model'?"]),
        (["tiny", "model.moe.strategy=expert_rase"], ["model.moe.strategy", "Did you mean 'expert_race'?"]),
        (["tiny", "optimizer.type=adam"], ["optimizer", "'adam'", "adamw, muon"]),
        (["tiny", "train.steps=0"], ["train.steps", "must be at least 1", "given: 0"]),
        (["tiny", "optimizer.lr=-1"], ["optimizer.lr", "must be above 0", "given: -1"]),
        (["tiny", "optimizer.lr=fast"], ["optimizer.lr", "must be a number", "'fast'"]),
        (["tiny", "optimizer.lr=NaN"], ["optimizer.lr", "must be a finite number"]),
        (["tiny", "model.dim=30"], ["model", "dim = 30", "divisible"]),
        (["tiny", "model.moe.k=5"], ["model.moe", "k = 5 is more than num_experts = 4"]),
        (["tiny", "train.accumulation=3"], ["batch_size = 8 is not divisible by accumulation = 3"]),
        (["tiny", "model.patch_size=5"], ["32", "divisible", "patch_size = 5"]),
        (["tiny", "model.input_size=16"], ["model.input_size = 16", "data.image_size = 32", "null"]),
        (["tiny", "model.num_classes=1"], ["model.num_classes = 1", "2 classes"]),
        (["tiny", "objective.type=ddpm"], ["model.learned_sigma=true"]),
        (["tiny", "sampling.sampler.type=ddpm"], ["needs objective.type=ddpm"]),
        (
            [
                "tiny",
                "objective.type=ddpm",
                "objective.learned_sigma=false",
                "sampling.sampler.type=ddpm",
                "sampling.sampler.variance=learned",
            ],
            ["sampling.sampler.variance", "objective.learned_sigma=true", "small or large"],
        ),
        (
            [
                "tiny",
                "objective.type=ddpm",
                "model.learned_sigma=true",
                "sampling.sampler.type=ddim",
                "sampling.sampler.steps=2000",
            ],
            ["sampling.sampler.steps", "2000", "1000"],
        ),
        (
            [
                "tiny",
                "objective.type=ddpm",
                "model.learned_sigma=true",
                "sampling.sampler.type=ddpm",
                "sampling.sampler.steps=900",
                "sampling.sampler.shift=9",
            ],
            ["sampling.sampler.shift"],
        ),
        (["tiny", "model.mlp_ratio=0.001", "model.moe=null"], ["mlp_ratio = 0.001", "hidden"]),
        (["tiny", "model.timestep_freq_shift=128"], ["model.timestep_freq_shift", "must be below 128"]),
        (["tiny", "model.timestep_freq_shift=-1"], ["model.timestep_freq_shift", "must be at least 0"]),
        (["tiny", "name=.."], ["name"]),
        (["tiny", "name=-x"], ["name"]),
        (["tiny", "optimizer.lr=11"], ["optimizer.lr", "must be at most 10"]),
        (["tiny", "optimizer.type=muon", "optimizer.lr=11"], ["optimizer.lr", "must be at most 10"]),
        (["tiny", "optimizer.type=muon", "optimizer.adamw.lr=11"], ["optimizer.adamw.lr", "must be at most 10"]),
        (["tiny", "train.steps=" + "9" * 5000], ["train.steps"]),
        (["tiny", "name=" + "[" * 100_000], ["name"]),
        (["tiny", "data.source.type=class_folder", "data.source.path=~nosuchuser/x"], ["data.source.path", "~nosuch"]),
        (["tiny", "train.device=tpu"], ["train.device"]),
        (["tiny", "train"], ["'train' is not of the form key.subkey=value"]),
        (["tiny", "train.steps.more=1"], ["train.steps is a value"]),
        (["tiny", "seed=-1", "train.steps=0"], ["2 errors", "seed:", "train.steps:"]),
    ],
    ids=lambda value: " ".join(value)[:100] if isinstance(value, list) else None,
)
def test_configuration(fails: Fails, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    message = fails("train", *arguments, "--out", tmp_path / "run")
    for part in parts:
        assert part in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_all_errors_of_a_file_at_once(fails: Fails, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".toml":
        path.write_text('preset = "tiny"\n[train]\nsteps = -5\nbatchsize = 3\n[model.moe]\ngate = "sigmod"\n')
    else:
        path.write_text(
            json.dumps({"preset": "tiny", "train": {"steps": -5, "batchsize": 3}, "model": {"moe": {"gate": "sigmod"}}})
        )
    message = fails("train", path)
    for part in (
        f"mine{suffix}: 3 errors",
        "train.steps: ",
        "train.batchsize: unknown key. Did you mean 'batch_size'?",
        "Did you mean 'sigmoid'?",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.toml", b"[train\nsteps = 3", ["not valid TOML", "line 1"]),
        ("a.json", b'{"train": {\n"steps": 3,}}', ["not valid JSON", "line 2"]),
        ("a.json", b"[1, 2]", ["a table of keys, not a list"]),
        ("a.json", b"\x89PNG\xff\xfe\x00", ["cannot be read as UTF-8 text"]),
        ("a.json", b"[" * 100_000, ["not usable JSON", "nested too deep"]),
        ("a.json", b"", ["not valid JSON"]),
        ("a.toml", b'preset = "tini"', ["a.toml: unknown preset 'tini'", "'tiny'"]),
        ("a.json", b'{"preset": ["tiny"]}', ["unknown preset"]),
        ("a.toml", b'preset = "tiny"\nname = 2024-01-01', ["name", "must be a text"]),
        ("a.toml", b'name = "x"', ["model: missing", "data: missing"]),
    ],
)
def test_files_that_are_no_configuration(
    fails: Fails, tmp_path: Path, name: str, content: bytes, parts: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    message = fails("train", tmp_path / name, "--out", tmp_path / "run")
    for part in [name, *parts]:
        assert part in message


def test_a_configuration_that_is_a_folder_or_missing(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert "is a directory" in fails("train", tmp_path / "folder.json").lower()
    assert "no such configuration file" in fails("train", tmp_path / "none.toml")


# The data


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve good pictures in two classes."""
    rng = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "data" / ("ant" if index % 2 else "bee") / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def class_folder(path: Path, *overrides: str) -> list[str]:
    return ["train", "tiny", "data.source.type=class_folder", f"data.source.path={path}", *overrides]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_bomb(path: Path) -> None:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (truncate, ["damaged or truncated picture"]),
        (empty, ["empty file"]),
        (write_bomb, ["decompression bomb"]),
        (lambda path: path.write_text("<html>404</html>"), ["not a picture of a known format"]),
    ],
    ids=["truncated", "empty", "bomb", "html"],
)
def test_a_picture_of_a_class_folder(
    fails: Fails, pictures: Path, tmp_path: Path, damage: Callable[[Path], object], parts: list[str], threads: int
) -> None:
    damage(pictures / "bee" / "04.png")
    out = tmp_path / "run"
    message = fails(*class_folder(pictures), "train.batch_size=6", f"data.num_threads={threads}", "--out", out)
    for part in ["bee/04.png", "replace or remove" if "bomb" not in parts[0] else "remove", *parts]:
        assert part in message


@pytest.mark.parametrize("threads", [0, 2])
def test_a_picture_broken_deep_in_training_costs_no_finished_step(
    fails: Fails, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    out = tmp_path / "run"
    # One picture per step: the broken one comes at some step from 1 to 12.
    command = [*class_folder(pictures), "train.batch_size=1", "train.steps=13", "train.log_every=1"]
    command += [f"data.num_threads={threads}", "--out", str(out)]
    order = Path(pictures / "ant" / "07.png")
    good = order.read_bytes()
    truncate(order)
    assert "ant/07.png: damaged or truncated" in fails(*command)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    saved = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert steps
    assert saved[-1] == f"step-{steps[-1]:08d}"
    order.write_bytes(good)
    assert main([*command, "--resume"]) == 0
    capsys.readouterr()
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 14))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"file_name": "a.png", "text": "b"', ["line 2", "not valid JSON"]),
        ('{"file_name": "gone.png", "text": "b"}', ["line 2", "no such file 'gone.png'"]),
        ('{"file_name": "../secret.png", "text": "b"}', ["line 2", "'../secret.png' is outside the folder"]),
        ('{"file_name": "/etc/passwd", "text": "b"}', ["line 2", "'/etc/passwd' is outside the folder"]),
        ('{"file_name": "empty.png", "text": "b"}', ["line 2", "'empty.png' is an empty file"]),
        ('{"text": "b"}', ["line 2", "'file_name' is missing"]),
    ],
)
def test_a_line_of_metadata(fails: Fails, pictures: Path, tmp_path: Path, line: str, parts: list[str]) -> None:
    (tmp_path / "secret.png").write_bytes((pictures / "ant" / "01.png").read_bytes())
    empty(pictures / "empty.png")
    (pictures / "metadata.jsonl").write_text('{"file_name": "ant/01.png", "text": "a"}\n' + line + "\n")
    source = ["data.source.type=metadata_folder", f"data.source.path={pictures}"]
    message = fails("train", "tiny", *source, "--out", tmp_path / "run")
    for part in ["metadata.jsonl", *parts]:
        assert part in message
    assert not (tmp_path / "run").exists()


def test_a_data_folder_that_is_missing_or_without_pictures(fails: Fails, tmp_path: Path) -> None:
    assert "no such folder" in fails(*class_folder(tmp_path / "none"), "--out", tmp_path / "run")
    (tmp_path / "bare").mkdir()
    assert "no pictures here" in fails(*class_folder(tmp_path / "bare"), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The run's folder


def test_folders_that_cannot_be_trained_in(fails: Fails, tmp_path: Path, run: Path) -> None:
    before = tree(run)
    message = fails("train", "tiny", "--out", run)
    assert "a run is already in this folder" in message
    assert "--resume" in message
    assert tree(run) == before
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    for resume in ([], ["--resume"]):
        message = fails("train", "tiny", "--out", other, *resume)
        assert "not empty and contains no run (it has thesis.tex)" in message
    assert tree(other) == {"thesis.tex": b"years"}
    assert "Not a directory" in fails("train", "tiny", "--out", other / "thesis.tex")
    assert "Not a directory" in fails("train", "tiny", "--out", other / "thesis.tex" / "below")
    assert "/proc/run" in fails("train", "tiny", "--out", "/proc/run")
    assert tree(other) == {"thesis.tex": b"years"}


def test_resuming_with_another_configuration(fails: Fails, run: Path) -> None:
    before = tree(run)
    message = fails("train", "tiny", "optimizer.lr=0.5", "model.depth=3", "--out", run, "--resume")
    assert "optimizer.lr: 0.001 in the run, 0.5 now" in message
    assert "model.depth: 2 in the run, 3 now" in message
    assert f"leandit resume {run}" in message
    assert f"start.path={run}" in message
    assert tree(run) == before


def test_nothing_to_resume(fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no run to resume" in fails("train", "tiny", "--resume")


# Checkpoints


def weights(run: Path, step: int = 20, group: str = "ema") -> Path:
    return run / "checkpoints" / f"step-{step:08d}" / f"{group}.safetensors"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def make_pickle(path: Path) -> None:
    content = pickle.dumps({"weights": [1.0] * 1000})
    size = path.stat().st_size
    path.write_bytes(content + bytes(size - len(content)))


@pytest.mark.parametrize(
    ("damage", "part"),
    [(flip_a_bit, "altered or damaged"), (make_pickle, "never loads pickles"), (truncate, "truncated")],
)
def test_sampling_from_a_damaged_checkpoint(fails: Fails, run: Path, damage: Callable[[Path], None], part: str) -> None:
    damage(weights(run))
    before = tree(run)
    message = fails("sample", run / "checkpoints" / "step-00000020", "--seeds", "0")
    assert part in message
    assert "ema.safetensors" in message
    assert tree(run) == before


@pytest.mark.parametrize("damage", [flip_a_bit, make_pickle, truncate, Path.unlink])
def test_all_checkpoints_damaged(fails: Fails, run: Path, damage: Callable[[Path], None]) -> None:
    for step in (10, 20):
        damage(weights(run, step))
    metrics = (run / "metrics.jsonl").read_bytes()
    contents = sorted(tree(run / "checkpoints").values())
    message = fails("sample", run, "--seeds", "0")
    assert "no intact checkpoint" in message
    for _ in range(2):
        message = fails("train", "tiny", "--out", run, "--resume")
        assert "no intact checkpoint to resume from" in message
        assert "step-00000010.corrupt-1, step-00000020.corrupt-1" in message
        assert "Restore one from a copy" in message
    assert sorted(tree(run / "checkpoints").values()) == contents
    assert (run / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("damage", [flip_a_bit, make_pickle, truncate, Path.unlink])
def test_a_run_with_a_damaged_newest_checkpoint_is_sampled_from_the_one_before(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    damage(weights(run))
    assert main(["sample", str(run), "--seeds", "0", "--steps", "1"]) == 0
    assert "weights of step 10" in capsys.readouterr().out
    assert "skipped: " in caplog.text
    assert "step-00000020/ema.safetensors" in caplog.text


def test_foreign_and_pickled_files_in_place_of_a_run(fails: Fails, tmp_path: Path, run: Path) -> None:
    file = tmp_path / "DiT-XL-2-256x256.pt"
    file.write_bytes(pickle.dumps({"weights": 1}))
    assert "pickle" in fails("sample", file)
    folder = tmp_path / "diffusers"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    assert "not a checkpoint of LeanDiT" in fails("sample", folder)
    assert f"Did you mean {run / 'checkpoints' / 'step-00000020'}?" in fails("sample", run / "checkpoints")
    assert "no such run" in fails("sample", tmp_path / "none")
    (tmp_path / "started").mkdir()
    shutil.copy(run / "config.json", tmp_path / "started")
    assert "no intact checkpoint yet" in fails("sample", tmp_path / "started")


# Sampling


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--labels", "hart"], ["label 'hart'", "0 to 1", "heart, cat", "Did you mean 'heart'?"]),
        (["--labels", "2"], ["label '2'", "0 to 1"]),
        (["--labels", "cat,,heart"], ["label ''"]),
        (["--seeds", "-1"], ["--seeds '-1'", "0-63"]),
        (["--seeds", "5-2"], ["--seeds '5-2'", "empty range"]),
        (["--seeds", "1-"], ["--seeds '1-'"]),
        (["--seeds", "one"], ["--seeds 'one'"]),
        (["--seeds", "9" * 5000], ["--seeds"]),
        (["--seeds", str(2**63)], ["--seeds", "goes past"]),
        (["--seeds", "0-99999999"], ["more than a million"]),
        (["--steps", "0"], ["sampler.steps", "must be at least 1"]),
        (["--guidance", "-1"], ["guidance.scale", "must be at least 0"]),
        (["--guidance", "nan"], ["guidance.scale", "must be a number"]),
        (["--batch-size", "0"], ["--batch-size 0", "at least 1"]),
        (["--weights", "best"], ["'best'", "ema", "model"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_options_of_sample(fails: Fails, tiny_run: Path, tmp_path: Path, options: list[str], parts: list[str]) -> None:
    message = fails("sample", tiny_run, "--out", tmp_path / "out", *options)
    for part in parts:
        assert part in message
    assert not (tmp_path / "out").exists()


def test_nothing_is_drawn_into_a_checkpoint(fails: Fails, run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run / "checkpoints" / "step-00000010", tmp_path / "copied"))
    before = tree(tmp_path)
    outs = (copied, copied / "deep" / "er", run / "checkpoints" / "step-00000020", run / "checkpoints/step-00000030")
    for out in outs:
        message = fails("sample", run, "--seeds", "0", "--steps", "1", "--out", out)
        assert f"--out {out}" in message
        assert "checkpoint" in message
    assert tree(tmp_path) == before


def test_steps_that_the_runs_grid_does_not_have(fails: Fails, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ddpm = ["objective.type=ddpm", "model.learned_sigma=true", "sampling.sampler.type=ddim", "train.steps=1"]
    assert main(["train", "tiny", *ddpm, "sampling.sampler.steps=2", "--out", str(run)]) == 0
    assert "sampler.steps: 2000" in fails("sample", run, "--steps", "2000", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_for_an_unconditional_run(fails: Fails, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "tiny", "model.num_classes=0", "train.steps=1", "--out", str(run)]) == 0
    assert "no classes; omit --labels" in fails("sample", run, "--labels", "0")
    assert main(["sample", str(run), "--seeds", "4", "--steps", "1"]) == 0
    assert {path.name for path in (run / "samples").iterdir()} == {"seed-000004.png", "grid.png", "drawing.json"}


def test_an_out_that_cannot_be_written(fails: Fails, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    message = fails("sample", tiny_run, "--seeds", "0", "--steps", "1", "--out", tmp_path / "file")
    assert "the pictures cannot be written" in message
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("arguments", [["trian"], ["sample"], ["train", "tiny", "--steps", "3"]])
def test_words_that_the_parser_does_not_know(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: leandit" in capsys.readouterr().err
