"""Latents as data: shards and their sidecars, good and bad, and a run that learns them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from leandit.api import load, sample, train
from leandit.cli import main
from leandit.data import Caption, ClassFolderConfig, DataConfig, EmojiConfig, LatentsConfig, Loader, build_source
from leandit.data.latents import LatentsSource
from leandit.errors import LeanDiTError, NotFoundError
from leandit.presets import run_config

LABELS = [{"label": 0}, {"label": 1}, {"label": 1}]


def shard(folder: Path, name: str, latents: torch.Tensor, lines: Sequence[object]) -> torch.Tensor:
    folder.mkdir(exist_ok=True)
    save_file({"latents": latents}, folder / f"{name}.safetensors")
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return latents


def drawn(count: int, channels: int = 8, size: int = 4) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def source(folder: Path, **options: object) -> LatentsSource:
    return build_source(LatentsConfig(path=str(folder), **options))  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of classes, three latents in the first and two in the second."""
    shard(tmp_path / "set", "b", drawn(2), [{"label": 2}, {"label": 0}])
    shard(tmp_path / "set", "a", drawn(3), LABELS)
    return tmp_path / "set"


def test_latents_come_as_they_are_in_the_order_of_the_shards(folder: Path) -> None:
    opened = source(folder)
    assert (len(opened), opened.class_names) == (5, ("0", "1", "2"))
    expected = torch.cat([drawn(3), drawn(2)])
    for index, label in enumerate([0, 1, 1, 2, 0]):
        example = opened[index]
        assert np.array_equal(example.image, expected[index].numpy())
        assert (example.label, example.captions, example.is_latent) == (label, (), True)
    assert (opened[2].key, opened[3].key) == ("a.safetensors[2]", "b.safetensors[0]")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_float_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = shard(tmp_path / "set", "a", drawn(2).to(dtype), [{"label": 0}, {"label": 1}])
    image = source(tmp_path / "set")[1].image
    assert image.dtype == np.float32
    assert np.array_equal(image, stored[1].float().numpy())


def test_captions_are_as_in_metadata_jsonl(tmp_path: Path) -> None:
    lines = [
        "\ufeff" + json.dumps({"text": [{"text": "synthetic\u2028é", "weight": 9}, "original"], "label": "cat"}),
        "",
        {"text": "one", "label": "ant"},
    ]
    shard(tmp_path / "set", "a", drawn(2), lines)
    opened = source(tmp_path / "set")
    assert opened.class_names == ("ant", "cat")
    assert opened[0].captions == (Caption("synthetic\u2028é", 9.0), Caption("original", 1.0))
    assert (opened[0].label, opened[1].label, opened[1].text) == (1, 0, "one")
    renamed = source(tmp_path / "set", class_names=("dog", "cat", "ant"))
    assert (renamed[0].label, renamed[1].label) == (1, 2)


def test_other_keys(tmp_path: Path) -> None:
    shard(tmp_path / "set", "a", drawn(1), [{"caption": "hi", "fine": 3, "note": "kept out"}])
    example = source(tmp_path / "set", text_key="caption", label_key="fine")[0]
    assert (example.text, example.label) == ("hi", 3)
    with pytest.raises(LeanDiTError, match=r"a\.jsonl: no line has 'text' or 'label'.*text_key"):
        source(tmp_path / "set")


def test_shards_are_read_only_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = source(folder)
    (folder / "b.safetensors").unlink()
    assert opened[0].image.shape == (8, 4, 4)
    with pytest.raises(LeanDiTError, match=r"b\.safetensors: damaged"):
        opened[4]


def test_the_fingerprint_tells_sets_apart(folder: Path) -> None:
    before = source(folder).fingerprint
    assert source(folder).fingerprint == before
    shard(folder, "b", drawn(2), [{"label": 0}, {"label": 2}])
    relabelled = source(folder).fingerprint
    (folder / "b.safetensors").rename(folder / "c.safetensors")
    (folder / "b.jsonl").rename(folder / "c.jsonl")
    assert len({before, relabelled, source(folder).fingerprint}) == 3


def write_lines(count: int) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.jsonl").write_text('{"label": 0}\n' * count)  # type: ignore[func-returns-value]


def write_tensors(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file({name: tensor}, folder / "a.safetensors")


BAD = {
    "no sidecar": (lambda f: (f / "a.jsonl").unlink(), r"a\.jsonl: missing; beside a\.safetensors write a line"),
    "too few lines": (write_lines(2), r"a\.jsonl: 2 lines for the 3 latents of a\.safetensors"),
    "too many lines": (write_lines(4), r"a\.jsonl: 4 lines for the 3 latents"),
    "empty sidecar": (write_lines(0), r"a\.jsonl: 0 lines for the 3 latents"),
    "other tensor": (write_tensors("z", drawn(3)), r"a\.safetensors: no tensor 'latents' \(it has z\)"),
    "three axes": (write_tensors("latents", drawn(3)[0]), r"latents of shape 8 x 4 x 4; save them as \[N, C, H, W\]"),
    "none": (write_tensors("latents", drawn(3)[:0]), r"latents of shape 0 x 8 x 4 x 4"),
    "integers": (write_tensors("latents", drawn(3).long()), r"latents in I64; save them as float16"),
    "other size": (write_tensors("latents", drawn(3, size=8)), r"b\.safetensors: latents of 8 x 4 x 4, but a\.safe"),
    "other channels": (write_tensors("latents", drawn(3, channels=4)), r"latents of 8 x 4 x 4, but a.* has 4 x 4 x 4"),
    "pickle": (
        lambda f: (f / "z.pt").write_bytes(pickle.dumps([1])),
        r"z\.pt: a format that can run any program.*never read",
    ),
    "disguised": (
        lambda f: (f / "a.safetensors").write_bytes(pickle.dumps([1] * 99)),
        r"a\.safetensors: damaged, truncated or no safetensors file",
    ),
    "truncated": (
        lambda f: (f / "a.safetensors").write_bytes((f / "a.safetensors").read_bytes()[:-7]),
        r"a\.safetensors: damaged, truncated",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_shards_are_found_on_opening(folder: Path, case: str) -> None:
    spoil, expected = BAD[case]
    spoil(folder)
    with pytest.raises(LeanDiTError, match=expected):
        source(folder)


def test_all_bad_lines_of_a_sidecar_are_reported(folder: Path) -> None:
    lines = [{"label": 0}, "{", "[]", {"label": 1.5}, {"label": "x"}, {"text": "hi", "label": 1}, {}]
    shard(folder, "a", drawn(7), lines)
    with pytest.raises(LeanDiTError) as caught:
        source(folder)
    message = str(caught.value)
    assert "a.jsonl: 6 problems" in message
    for number, problem in [
        (2, "not valid JSON"),
        (3, 'not an object; write an object such as {"text": "a cat", "label": 3}'),
        (4, "'label' is a fraction"),
        (5, "has 'label' = 'x', unlike the first line"),
        (6, "has 'text', unlike the first line"),
        (7, "has no 'label' = None, unlike the first line"),
    ]:
        assert f"line {number}: {problem}" in message


def test_shards_must_agree_on_what_their_lines_have(folder: Path) -> None:
    shard(folder, "b", drawn(2), [{"text": "x"}, {"text": "y"}])
    with pytest.raises(
        LeanDiTError, match=r"b\.jsonl: has captions and no labels, but a\.jsonl has no captions and num"
    ):
        source(folder)


def test_labels_without_a_name_are_found_with_their_place(folder: Path) -> None:
    with pytest.raises(LeanDiTError, match=r"b\.jsonl: latent 0: label 2 has no name; class_names has 2"):
        source(folder, class_names=("x", "y"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found_when_read(folder: Path, value: float) -> None:
    bad = drawn(3)
    bad[1, 7, 3, 3] = value
    shard(folder, "a", bad, LABELS)
    opened = source(folder)
    opened[0]
    with pytest.raises(LeanDiTError, match=r"a\.safetensors: latent 1 holds NaN or infinity"):
        opened[1]


def test_a_folder_that_is_absent_or_empty(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"set: no such folder; correct data\.source\.path"):
        source(tmp_path / "set")
    (tmp_path / "set").mkdir()
    with pytest.raises(LeanDiTError, match=r"no shards \(\*\.safetensors\) here"):
        source(tmp_path / "set")


def test_batches_hold_the_numbers_and_a_caption_by_weight(tmp_path: Path) -> None:
    captions = [{"text": [{"text": "long", "weight": 9}, {"text": "short"}]}] * 2
    stored = shard(tmp_path / "set", "a", drawn(2), captions)
    config = DataConfig(source=LatentsConfig(path=str(tmp_path / "set")), image_size=4, channels=8)
    loader = Loader(source(tmp_path / "set"), config, 2, 0)
    batches = [loader.batch(step) for step in range(200)]
    for batch in batches[:5]:
        rows = [int(key[-2]) for key in batch.keys]
        assert torch.equal(batch.images, stored[rows])
        assert batch.images.dtype == torch.float32
    texts = [text for batch in batches for text in batch.texts or ()]
    assert 0.85 < texts.count("long") / len(texts) < 0.95
    small = Loader(source(tmp_path / "set"), config.replace(channels=4), 2, 0)
    with pytest.raises(LeanDiTError, match=r"a\.safetensors\[\d\]: the latents are 8 x 4 x 4, .*set data\.channels=8"):
        small.batch(0)


def test_latents_need_not_be_square(tmp_path: Path) -> None:
    latents = drawn(4)[:, :, :3].contiguous()
    shard(tmp_path / "set", "a", latents, [{"label": 0}] * 4)
    config = DataConfig(source=LatentsConfig(path=str(tmp_path / "set")), image_size=(3, 4), channels=8)
    batch = Loader(source(tmp_path / "set"), config, 4, 0).batch(0)
    assert torch.equal(batch.images, latents[[int(key[-2]) for key in batch.keys]])
    turned = Loader(source(tmp_path / "set"), config.replace(image_size="4x3"), 4, 0)
    with pytest.raises(LeanDiTError, match=r"8 x 3 x 4, but .* data\.image_size = 4x3; set .* data\.image_size=3x4"):
        turned.batch(0)


def test_threads_read_the_same_batches(folder: Path) -> None:
    config = DataConfig(source=LatentsConfig(path=str(folder)), image_size=4, channels=8)
    one, several = (
        list(islice(Loader(source(folder), config.replace(num_threads=n), 3, 0).batches(), 20)) for n in (0, 4)
    )
    assert all(torch.equal(a.images, b.images) and a.keys == b.keys for a, b in zip(one, several, strict=True))


def test_what_pictures_and_latents_may_be_configured_with() -> None:
    latents, pictures = LatentsConfig(path="set"), EmojiConfig()
    assert DataConfig(source=latents, channels=16).channels == 16
    for options, message in [
        ({"source": latents, "flip": 0.5}, "the mirror image of a latent is not the latent"),
        ({"source": latents, "validation": pictures}, "latents and pictures; make both the same"),
        ({"source": pictures, "validation": latents}, "latents and pictures; make both the same"),
        ({"source": pictures, "channels": 4}, "pictures have 3 \\(RGB\\) or 1 \\(grey\\)"),
        ({"source": ClassFolderConfig(path="x"), "channels": 8}, "pictures have 3"),
    ]:
        with pytest.raises(ValidationError, match=message):
            DataConfig(**options)


def latent_run(folder: Path, *overrides: str) -> list[str]:
    """A tiny class-conditional run on latents of 8 x 4 x 4."""
    path = json.dumps(str(folder))
    kind = ["data.source.type=latents", f"data.source.path={path}", "data.channels=8", "data.image_size=4"]
    return [*kind, "model.patch_size=2", "train.steps=3", "train.batch_size=4", "sampling.sampler.steps=2", *overrides]


def test_a_run_learns_latents_and_samples_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    overrides = latent_run(folder, "train.sample_every=1", "train.checkpoint_every=1")
    assert train(run_config("tiny", overrides), out) == 0
    assert (out / "loss.png").exists()
    assert not list(out.rglob("samples.png"))
    assert not (out / "grids").exists()
    assert caplog.text.count("no pictures are drawn") == 1
    assert main(["sample", str(out), "--labels", "2,0", "--seeds", "0-1"]) == 0
    printed = capsys.readouterr().out
    assert "4 latents in" in printed
    assert "divide them by its scaling factor" in printed
    assert {path.name for path in (out / "samples").iterdir()} == {"samples.npz", "drawing.json"}
    arrays = np.load(out / "samples" / "samples.npz")
    assert (arrays["latents"].shape, arrays["latents"].dtype) == ((4, 8, 4, 4), np.float32)
    assert arrays["labels"].tolist() == [2, 2, 0, 0]
    assert arrays["seeds"].tolist() == [0, 1, 0, 1]
    assert np.abs(arrays["latents"]).max() > 1, "not clipped to the range of pictures"
    with pytest.raises(LeanDiTError, match=r"learned latents, which are not pictures.*samples\.npz"):
        sample(load(out), ["0"], [0])


def test_latents_that_do_not_fit_are_found_before_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match=r"the latents are 8 x 4 x 4, but data.channels = 4"):
        train(run_config("tiny", latent_run(folder, "data.channels=4")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_stay_pictures(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "photos" / "a.png")
    example = build_source(ClassFolderConfig(path=str(tmp_path / "photos")))[0]
    assert not example.is_latent
