"""Which files of an encoder's folder are opened: safetensors inside the folder, all of them in the fingerprint."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from leandit.errors import LeanDiTError
from leandit.text import SentenceEncoderConfig, TransformerEncoder

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path, folders: dict[str, Path]) -> Path:
    """A folder whose weights are in two shards and an index."""
    folder = tmp_path / "encoder"
    shutil.copytree(folders["sentence"], folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, own in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in own}, folder / shard, {"format": "pt"})
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def encoder(folder: Path) -> TransformerEncoder:
    return TransformerEncoder(SentenceEncoderConfig(path=str(folder), max_tokens=16))


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_shards_are_loaded_and_every_file_counts_for_the_fingerprint(sharded: Path, folders: dict[str, Path]) -> None:
    whole, loaded = encoder(folders["sentence"]), encoder(sharded)
    (row,), (expected,) = loaded.rows(["red apple"]), whole.rows(["red apple"])
    assert row.tokens.equal(expected.tokens)
    before = loaded.fingerprint
    edit(sharded / INDEX, lambda content: content["metadata"].update(total_size=1))
    assert encoder(sharded).fingerprint != before
    for shard in sorted(sharded.glob("model-*.safetensors")):
        before = encoder(sharded).fingerprint
        tensors = safetensors.torch.load_file(shard)
        tensors[min(tensors)] += 1
        safetensors.torch.save_file(tensors, shard, {"format": "pt"})
        assert encoder(sharded).fingerprint != before


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


NAMES = ("pytorch_model.bin", "../outside.safetensors", "sub/inner.safetensors", "", ".hidden.safetensors",
         "a\n.safetensors", "model.safetensors.bin", "..", "model-1-of-2.SAFETENSORS", 5, None, [1])  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, "ABSOLUTE"], ids=repr)
def test_an_index_that_names_anything_else_is_refused_before_it_is_opened(sharded: Path, name: Any) -> None:
    ran = sharded.parent / "ran"
    some = next(sharded.glob("model-*.safetensors"))
    for place in ("outside.safetensors", "encoder/.hidden.safetensors", "encoder/sub/inner.safetensors"):
        (sharded.parent / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(some, sharded.parent / place)
    (sharded / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(ran)))
    name = str(sharded.parent / "outside.safetensors") if name == "ABSOLUTE" else name
    edit(sharded / INDEX, lambda content: content["weight_map"].update({min(content["weight_map"]): name}))
    with pytest.raises(LeanDiTError, match=r"model\.safetensors\.index\.json: names .* as a file of weights; only"):
        encoder(sharded)
    assert not ran.exists()


INDICES = (
    "",
    "[]",
    "{}",
    '{"weight_map": []}',
    '{"weight_map": {}}',
    "[" * 100_000,
    '{"weight_map": {"a": "gone.safetensors"}}',
)


@pytest.mark.parametrize("content", INDICES, ids=lambda content: content[:40])
def test_a_damaged_index_is_named(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(LeanDiTError, match=r"model\.safetensors\.index\.json"):
        encoder(sharded)


def test_an_adapter_is_refused_as_its_base_model_may_be_anywhere(sharded: Path) -> None:
    (sharded / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(LeanDiTError, match=r"adapter_config\.json: an adapter"):
        encoder(sharded)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels", "num_attention_heads", "nested"])
@pytest.mark.parametrize("number", [10_000_000, 10**15, 1e9])
def test_a_config_that_asks_for_millions_of_parts_is_refused_within_seconds(
    sharded: Path, key: str, number: float
) -> None:
    def ask(config: dict[str, Any]) -> None:
        if key == "nested":
            config["text_config"] = {"more": [{"n_layer": number}]}
        else:
            config[key] = number

    edit(sharded / "config.json", ask)
    started = time.process_time()
    with pytest.raises(LeanDiTError, match=r"config\.json: \w+ = \S+, but the weights have only"):
        encoder(sharded)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_a_pipe_is_refused(sharded: Path, name: str) -> None:
    (sharded / name).unlink()
    os.mkfifo(sharded / name)
    with pytest.raises(LeanDiTError, match=f"{name}: not a plain file"):
        encoder(sharded)
