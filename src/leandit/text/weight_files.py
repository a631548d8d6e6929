"""The weight files of an encoder's folder: only safetensors inside the folder, and a config that they can fill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from leandit.errors import LeanDiTError

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# Plain names only: transformers opens whatever path the index says, and unpickles a .bin.
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_MAX_JSON_BYTES = 64 * 1024**2
# Settings for which transformers builds one thing per unit: layers, experts, labels, heads.
_COUNT = re.compile(r"(^|_)n_?layers?$|layers$|experts$|labels$|heads$|blocks$|depth$")
_FEW = 1024


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers loads. Raises LeanDiTError for none, pickles, or files outside the folder."""
    if (folder / "adapter_config.json").exists():
        raise LeanDiTError(
            f"{folder / 'adapter_config.json'}: an adapter, whose base model may be anywhere; merge it into its model, "
            "save that, and give its folder"
        )
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if (folder / INDEX).exists():
        return [folder / name for name in _shards(folder / INDEX)]
    if not any(folder.glob("*.safetensors")):
        raise _no_weights(folder)
    raise LeanDiTError(
        f"{folder}: has neither {_SINGLE} nor {INDEX}, so nothing says which of its *.safetensors are the model; "
        "download the complete model again"
    )


def _no_weights(folder: Path) -> LeanDiTError:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        return LeanDiTError(
            f"{folder}: the only weights are {pickles[0]}, a format that can run code when it is loaded; LeanDiT "
            "refuses it; get the model's safetensors, or convert it elsewhere with "
            "save_pretrained(..., safe_serialization=True)"
        )
    return LeanDiTError(f"{folder}: the weights (*.safetensors) are missing; download the complete model again")


def _shards(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LeanDiTError(f"{index}: has no weight_map, which says where each tensor is; download the model again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not _SHARD.fullmatch(name):
            raise LeanDiTError(
                f"{index}: names {name!r} as a file of weights; only safetensors files inside the folder are loaded, "
                "because other formats can run code; get the model's safetensors"
            )
        if not (index.parent / name).is_file():
            raise LeanDiTError(f"{index.parent / name}: missing, though {INDEX} names it; download the model again")
    return names


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises LeanDiTError if it is none, too large, or not a plain file."""
    try:
        if not path.is_file():
            raise LeanDiTError(f"{path}: not a plain file; download the model again")
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise LeanDiTError(f"{path}: more than {_MAX_JSON_BYTES} bytes; download the model again")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LeanDiTError(f"{path}: cannot be read as JSON ({error}); download the model again") from None
    if not isinstance(content, dict):
        raise LeanDiTError(f"{path}: not an object of JSON; download the model again")
    return content


def check_counts(path: Path, config: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Raise LeanDiTError if the config at `path` has more layers, experts or labels than the weights can fill.

    transformers would build them all before it compares them with the weights.
    """
    most = max(_FEW, sum(_num_tensors(file) for file in files))
    for key, value in _numbers(config):
        if _COUNT.search(key) and value > most:
            raise LeanDiTError(
                f"{path}: {key} = {value}, but the weights have only {most} tensors; download the model again"
            )


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _numbers(value, str(name))
    elif isinstance(tree, list):
        for value in tree:
            yield from _numbers(value, key)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield key, tree


def _num_tensors(file: Path) -> int:
    try:
        with safe_open(file, framework="pt") as header:
            return len(header.keys())
    except (OSError, SafetensorError, ValueError) as error:
        raise LeanDiTError(f"{file}: damaged or no safetensors file ({error}); download the model again") from None
