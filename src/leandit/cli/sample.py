"""`leandit sample`: PNGs and a grid from a run."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leandit.api import label_list, load, sample, sampling_settings
from leandit.cli.progress import SamplingProgress
from leandit.errors import LeanDiTError
from leandit.sampling import LoadedRun, draw_grid, rows_by_label, save_png, to_image

_MAX_SEED = 2**63


def run(options: argparse.Namespace) -> int:
    """Draw the pictures that the options ask for, and name the folder that they are in."""
    seeds = parse_seeds(options.seeds)
    if options.batch_size < 1:
        raise LeanDiTError(f"--batch-size {options.batch_size}: must be at least 1")
    loaded = load(options.folder, weights=options.weights)
    names = None if options.labels is None else [part.strip() for part in options.labels.split(",")]
    labels = label_list(loaded, names)
    sampling_settings(loaded.config.sampling, options.steps, options.guidance)
    out = Path(options.out) if options.out else _default_out(loaded.path)
    with _writing(out):
        # Before the drawing, which may take hours.
        out.mkdir(parents=True, exist_ok=True)
    with SamplingProgress() as progress:
        pictures = sample(
            loaded,
            labels,
            seeds,
            steps=options.steps,
            guidance=options.guidance,
            batch_size=options.batch_size,
            progress=progress,
        )
    with _writing(out):
        _write(loaded, pictures.numpy(), labels, seeds, out, options.npz)
    print(f"{len(pictures)} pictures and grid.png in {out} (weights of step {loaded.step})")
    return 0


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LeanDiTError(
            f"{out}: the pictures cannot be written: {error.strerror or error}; choose another --out"
        ) from None


def parse_seeds(text: str) -> list[int]:
    """Read "0-63" or "1,5,9" or a mixture; raise LeanDiTError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_seed(first) or (dash and not _is_seed(last)):
            raise LeanDiTError(f"--seeds {text!r}: give whole numbers and ranges, as in 0-63 or 1,5,9")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop >= _MAX_SEED:
            raise LeanDiTError(f"--seeds {text!r}: {part.strip()} is an empty range or goes past {_MAX_SEED - 1}")
        if stop - start >= 1_000_000:
            raise LeanDiTError(f"--seeds {text!r}: more than a million pictures at once; draw them in parts")
        seeds.extend(range(start, stop + 1))
    return seeds


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_SEED))


def _default_out(path: Path) -> Path:
    """Return RUN/samples; beside it for a checkpoint of RUN, whose own folder is never written into."""
    if path.resolve().parent.name == "checkpoints":
        return path.resolve().parents[1] / f"samples-{path.name}"
    return path / "samples"


def _write(
    loaded: LoadedRun, pictures: np.ndarray, labels: list[int] | None, seeds: list[int], out: Path, npz: bool
) -> None:
    import torch

    flat = None if labels is None else [label for label in labels for _ in seeds]
    repeated = seeds * (1 if labels is None else len(labels))
    for index, picture in enumerate(torch.from_numpy(pictures)):
        prefix = "" if flat is None else f"label-{flat[index]:04d}_"
        save_png(to_image(picture), out / f"{prefix}seed-{repeated[index]:06d}.png")
    save_png(draw_grid(rows_by_label(torch.from_numpy(pictures), flat, loaded.class_names)), out / "grid.png")
    if npz:
        arrays = {"images": pictures, "seeds": np.array(repeated)}
        if flat is not None:
            arrays["labels"] = np.array(flat)
        np.savez_compressed(out / "samples.npz", allow_pickle=False, **arrays)
