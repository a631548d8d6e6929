"""Pictures that an autoencoder has encoded already: shards of latents with captions or classes beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from safetensors import SafetensorError, safe_open

from leandit.config import Fact
from leandit.data.class_folder import open_folder
from leandit.data.classes import is_asked_for
from leandit.data.jsonl import Label, name_classes
from leandit.data.sidecar import Sidecar, read_sidecar
from leandit.data.source import SOURCES, Example, Source, SourceConfig, fingerprint
from leandit.errors import LeanDiTError
from leandit.grid import Grid

_TENSOR = "latents"
_DTYPES = {"F16", "BF16", "F32"}
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy")
# Shards whose files stay open.
_MAX_OPEN = 64


@SOURCES.register
class LatentsConfig(SourceConfig):
    """A folder with NAME.safetensors, whose tensor `latents` is [N, C, H, W], and beside it NAME.jsonl with N lines.

    A line is {"text": ..., "label": ...}, either or both, written as in metadata.jsonl. The numbers are what the model
    learns, so they are stored as it shall see them, multiplied by the autoencoder's scaling factor.
    """

    type: Literal["latents"] = "latents"
    path: Annotated[str, Fact.PATH]
    """The folder. A relative path starts at the current directory; ~ is the home directory."""
    text_key: str = Field("text", min_length=1)
    """Key of the caption in a line, or of a list of captions."""
    label_key: str = Field("label", min_length=1)
    """Key of the class in a line. The class is a whole number from 0, or a name."""
    class_names: tuple[str, ...] | None = Field(None, min_length=1)
    """Class names, in the order of the class numbers. null takes the sorted names in the files, or "0", "1", ... up to
    the highest number.
    """

    def build(self) -> Source:
        """Open the source."""
        return LatentsSource(self)


@dataclass(frozen=True)
class _Shard:
    path: Path
    count: int
    shape: tuple[int, ...]
    lines: Sidecar


class LatentsSource:
    """Latents in the order of the shards' names; headers and lines are checked now, numbers when they are read."""

    def __init__(self, config: LatentsConfig) -> None:
        self._shards = [_open_shard(path, config) for path in _find(open_folder(config.path))]
        self._check_alike()
        self._ends = list(accumulate(shard.count for shard in self._shards))
        self._labels = [label for shard in self._shards for label in shard.lines.labels]
        self.class_names = name_classes(self._labels, config.class_names, self._where)
        self._number = {name: number for number, name in enumerate(self.class_names)}
        self._slice = lru_cache(maxsize=_MAX_OPEN)(_open_slice)

    @property
    def fingerprint(self) -> str:
        """See `Source`; latents have no names, so the shards' names and shapes and their lines count."""
        return fingerprint([shard.path.name, shard.count, shard.shape, shard.lines.digest] for shard in self._shards)

    def __len__(self) -> int:
        """Return the number of latents in all shards."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        """Read latent `index`; numbers that are not finite are a LeanDiTError."""
        shard, row = self._locate(index)
        key = f"{shard.path.name}[{row}]"
        latent = _explained(shard.path, lambda: self._slice(shard.path)[row]).float()
        if not torch.isfinite(latent).all():
            raise LeanDiTError(f"{shard.path}: latent {row} holds NaN or infinity; encode that picture again")
        return Example(latent.numpy(), self._class(index), shard.lines.captions(row), key)

    def _locate(self, index: int) -> tuple[_Shard, int]:
        place = bisect_right(self._ends, index)
        return self._shards[place], index - (self._ends[place - 1] if place else 0)

    def _class(self, index: int) -> int | None:
        label = self._labels[index] if self._labels else None
        return self._number[label] if isinstance(label, str) else label

    def _where(self, index: int) -> str:
        shard, row = self._locate(index)
        return f"{shard.lines.path}: latent {row}"

    def _check_alike(self) -> None:
        first = self._shards[0]
        for shard in self._shards[1:]:
            if shard.shape != first.shape:
                raise LeanDiTError(
                    f"{shard.path}: latents of {_sizes(shard.shape)}, but {first.path.name} has {_sizes(first.shape)}; "
                    "keep sets of different sizes in folders of their own"
                )
            if _kind(shard.lines) != _kind(first.lines):
                raise LeanDiTError(
                    f"{shard.lines.path}: has {_kind(shard.lines)}, but {first.lines.path.name} has "
                    f"{_kind(first.lines)}; give all shards the same"
                )


def fit_latent(example: Example, channels: int, size: Grid) -> Float[np.ndarray, "channels height width"]:
    """Return the latent of an example as it is; a LeanDiTError unless it has these channels and that size."""
    if example.image.shape != (channels, size.height, size.width):
        found = example.image.shape
        raise LeanDiTError(
            f"{example.key}: the latents are {_sizes(found)}, but data.channels = {channels} and data.image_size = "
            f"{size}; set data.channels={found[0]} and data.image_size={Grid(*found[1:])}, or give other latents"
        )
    return example.image


def _find(root: Path) -> list[Path]:
    paths = sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    pickles = [path for path in paths if path.suffix in _PICKLES]
    if pickles:
        raise LeanDiTError(
            f"{pickles[0]}: a format that can run any program when it is loaded, so it is never read; save the "
            f"latents as safetensors, a tensor {_TENSOR!r} of [N, C, H, W] in each file, or move it away"
        )
    shards = [path for path in paths if path.suffix == ".safetensors"]
    if not shards:
        raise LeanDiTError(f"{root}: no shards (*.safetensors) here; point data.source.path at a folder of latents")
    return shards


def _open_shard(path: Path, config: LatentsConfig) -> _Shard:
    count, *shape = _check_header(path)
    beside = path.with_suffix(".jsonl")
    if not beside.is_file():
        raise LeanDiTError(
            f"{beside}: missing; beside {path.name} write a line for each of its {count} latents, such as "
            '{"text": "a cat"} or {"label": 3}'
        )
    needed = [getattr(config, field) for field in ("text_key", "label_key") if is_asked_for(config, field)]
    lines = read_sidecar(beside, config.text_key, config.label_key, needed)
    if len(lines.offsets) != count:
        raise LeanDiTError(
            f"{beside}: {len(lines.offsets)} lines for the {count} latents of {path.name}; mend the pair"
        )
    return _Shard(path, count, tuple(shape), lines)


def _check_header(path: Path) -> list[int]:
    header = _explained(path, lambda: _open_slice(path))
    shape, dtype = header.get_shape(), header.get_dtype()
    if dtype not in _DTYPES:
        raise LeanDiTError(f"{path}: latents in {dtype}; save them as float16, bfloat16 or float32")
    if len(shape) != 4 or 0 in shape:
        raise LeanDiTError(f"{path}: latents of shape {_sizes(shape)}; save them as [N, C, H, W], none of them 0")
    return list(shape)


def _open_slice(path: Path) -> Any:
    """Return the tensor of a shard, of which only what is indexed is read."""
    file = safe_open(path, framework="pt")
    if _TENSOR not in file.keys():  # noqa: SIM118  (it is no mapping)
        raise LeanDiTError(f"{path}: no tensor {_TENSOR!r} (it has {', '.join(file.keys()) or 'none'}); name it so")
    return file.get_slice(_TENSOR)


def _explained(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise LeanDiTError(f"{path}: damaged, truncated or no safetensors file ({reason}); write it again") from None


def _sizes(shape: tuple[int, ...] | list[int]) -> str:
    return " x ".join(str(size) for size in shape) or "no size"


def _kind(lines: Sidecar) -> str:
    label: Label = lines.labels[0] if lines.labels else None
    labels = {type(None): "no labels", int: "numbers as labels", str: "names as labels"}[type(label)]
    return f"{'captions' if lines.captioned else 'no captions'} and {labels}"
