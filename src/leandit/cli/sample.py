"""`leandit sample`: PNGs and a grid from a run."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from leandit.api import label_list, load, sample
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
    out = Path(options.out) if options.out else loaded.path / "samples"
    try:
        _write(loaded, pictures.numpy(), labels, seeds, out, options.npz)
    except OSError as error:
        raise LeanDiTError(f"{out}: the pictures cannot be written: {error.strerror}") from None
    print(f"{len(pictures)} pictures and grid.png in {out}")
    return 0


def parse_seeds(text: str) -> list[int]:
    """Read "0-63" or "1,5,9" or a mixture; raise LeanDiTError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise LeanDiTError(f"--seeds {text!r}: give whole numbers and ranges, as in 0-63 or 1,5,9")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop >= _MAX_SEED:
            raise LeanDiTError(f"--seeds {text!r}: the range {part.strip()} is empty or goes past {_MAX_SEED - 1}")
        if stop - start >= 1_000_000:
            raise LeanDiTError(f"--seeds {text!r}: more than a million pictures at once; draw them in parts")
        seeds.extend(range(start, stop + 1))
    return seeds


def _write(
    loaded: LoadedRun, pictures: np.ndarray, labels: list[int] | None, seeds: list[int], out: Path, npz: bool
) -> None:
    import torch

    out.mkdir(parents=True, exist_ok=True)
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
