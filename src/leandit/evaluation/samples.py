"""Pictures drawn for an evaluation, shard by shard: an interrupted drawing continues, and ranks share the work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Drawn, Plan
from leandit.grid import Grid
from leandit.run.conditioner import Wanted
from leandit.run.config import SamplingConfig
from leandit.sampling import LoadedRun, picture_shape, sample

# Pictures in a file. It is fixed, so that the pictures that are drawn together do not depend on the number of ranks.
SHARD = 64
_POLL = 0.5  # seconds
_PATIENCE = 1800.0  # seconds without a new shard of another rank
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rank:
    """One of `count` processes that draw together, as torchrun numbers them."""

    number: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Rank:
        """Read RANK and WORLD_SIZE; without them there is one process."""
        number, count = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise LeanDiTError(
                f"RANK={number[:20]!r} and WORLD_SIZE={count[:20]!r} in the environment: expected whole numbers, "
                "RANK below WORLD_SIZE, as torchrun sets them"
            )
        return cls(int(number), int(count))


@dataclass(frozen=True)
class SampleSet:
    """The pictures of one plan, drawn from one checkpoint with one sampler, in a folder named by a hash of these."""

    run: LoadedRun
    plan: Plan
    settings: SamplingConfig
    checkpoint: dict[str, Any]
    """Step, kind and hash of the weights: see `leandit.evaluation.record.checkpoint_facts`."""
    root: Path

    @cached_property
    def folder(self) -> Path:
        """Return the folder of the shards; another plan, checkpoint or sampler has another folder."""
        return self.root / hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def num_shards(self) -> int:
        """Return the number of files; each has up to 64 pictures."""
        return -(-len(self.plan.seeds) // SHARD)

    def draw(self, rank: Rank, batch_size: int, progress: Progress | None = None) -> None:
        """Draw the missing shards of this rank: numbers rank, rank + count, ..."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        mine = range(rank.number, self.num_shards, rank.count)
        done = 0
        total = sum(len(self._seeds(number)) for number in mine)
        for number in mine:
            count = len(self._seeds(number))
            if self.read(number) is None:
                self._draw_shard(number, batch_size, _within(progress, done, count, total))
            done += count
            if progress:
                progress(done, total)

    def collect(self, rank: Rank) -> Drawn:
        """Wait for the shards of other ranks and return all pictures; raise LeanDiTError if shards do not come."""
        shards: dict[int, Tensor] = {}
        waited_since = time.monotonic()
        while len(shards) < self.num_shards:
            before = len(shards)
            for number in set(range(self.num_shards)) - shards.keys():
                pictures = self.read(number)
                if pictures is not None:
                    shards[number] = pictures
            if len(shards) > before:
                waited_since = time.monotonic()
            elif rank.count == 1 or time.monotonic() - waited_since > _PATIENCE:
                raise LeanDiTError(
                    f"{self.folder}: {self.num_shards - len(shards)} of {self.num_shards} shards of other ranks did "
                    "not come; start the evaluation again: what was drawn is kept"
                )
            else:
                time.sleep(_POLL)
        return Drawn(torch.cat([shards[number] for number in range(self.num_shards)]), self.plan)

    @cached_property
    def _picture_shape(self) -> tuple[int, Grid]:
        return picture_shape(self.run)

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"shard-{number:05d}.npz"

    def read(self, number: int) -> UInt8[Tensor, "samples height width channels"] | None:
        """Return the pictures of a shard; None if it is missing or damaged."""
        try:
            with self.path(number).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                images, seeds = arrays["images"], arrays["seeds"]
        # A damaged file makes numpy and zipfile raise a dozen kinds of error, NotImplementedError and TokenError too.
        # After any of them the shard is drawn again.
        except Exception:
            return None
        channels, size = self._picture_shape  # which need not be that of what the model draws
        shape = (len(self._seeds(number)), size.height, size.width, channels)
        if images.dtype != np.uint8 or images.shape != shape or seeds.tolist() != self._seeds(number):
            return None
        return torch.from_numpy(images)

    def _seeds(self, number: int) -> list[int]:
        return list(self.plan.seeds[number * SHARD : (number + 1) * SHARD])

    def _draw_shard(self, number: int, batch_size: int, progress: Progress | None) -> None:
        part = slice(number * SHARD, (number + 1) * SHARD)
        wanted: Wanted = None if self.plan.wanted is None else self.plan.wanted[part]
        seeds = self._seeds(number)
        pictures = sample(self.run, wanted, seeds, self.settings, min(batch_size, SHARD), progress)
        self._write(number, {"images": pictures.numpy(), "seeds": np.array(seeds)})

    def _write(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Write a shard whole or not at all, even if another process writes it too."""
        path = self.path(number)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with _writing(path):
            try:
                with partial.open("wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _identity(self) -> dict[str, Any]:
        """Return what decides the pixels, except for the rounding of other machines and batch sizes."""
        return {
            "wanted": None if self.plan.wanted is None else list(self.plan.wanted),
            "seeds": list(self.plan.seeds),
            "sampling": sampling_facts(self.settings),
            "checkpoint": self.checkpoint["weights_sha256"],
            "text_encoder": None if self.run.text is None else self.run.text.fingerprint,
            **drawing_facts(self.run),
        }


def sampling_facts(settings: SamplingConfig) -> dict[str, Any]:
    """Return sampler, steps and guidance as JSON, without the fields that only grids need."""
    return settings.model_dump(mode="json", include={"sampler", "guidance"})


def drawing_facts(run: LoadedRun) -> dict[str, Any]:
    """Return in which other way a run draws: with more or less compute, in bf16 or compiled."""
    facts = {"compute": run.compute, "precision": run.precision, "compile": run.compile}
    return {name: value for name, value in facts.items() if value not in (1.0, "fp32") and value is not False}


def _within(progress: Progress | None, done: int, count: int, total: int) -> Progress | None:
    """Return a progress that counts a shard's sampler steps as shares of its pictures."""
    if progress is None:
        return None
    report = progress
    return lambda step, steps: report(done + count * step // steps, total)


@contextlib.contextmanager
def _writing(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise LeanDiTError(f"{path}: cannot be written: {error.strerror or error}; choose another --out") from None
