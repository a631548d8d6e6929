"""`leandit sample`: PNGs and a grid from a run."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leandit.api import choose, every_pair, load, sampling_settings
from leandit.cli.output import say
from leandit.cli.progress import SamplingProgress
from leandit.config.wording import counted
from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError
from leandit.moe.budget import check_share
from leandit.run.conditioner import Wanted
from leandit.sampling import (
    LoadedRun,
    at_compute,
    check_size,
    claim_folder,
    draw_batches,
    draw_grid,
    fits_grid,
    output_folder,
    picture_size,
    rows_by_label,
    sample_batches,
    save_png,
    to_image,
    weights_hash,
)

_MAX_SEED = 2**63
_MAX_PICTURES = 1_000_000
_MAX_PROMPT_BYTES = 16 * 1024**2
_TOO_MANY = "more than a million pictures at once; draw them in parts"


def run(options: argparse.Namespace) -> int:
    """Draw the pictures that the options ask for, and name the folder that they are in."""
    seeds = parse_seeds(options.seeds)
    if options.batch_size < 1:
        raise LeanDiTError(f"--batch-size {options.batch_size}: must be at least 1")
    loaded = load(options.folder, options.weights, options.device, options.precision, options.compile)
    settings = sampling_settings(loaded.config.sampling, options.steps, options.guidance)
    build_sampler(settings.sampler, loaded.objective.path)
    if (size := picture_size(options.size)) is not None:
        check_size(loaded, size)
    check_share(loaded.model, options.compute, "--compute")
    out = output_folder(options.out, loaded.path, "samples")
    wanted, seeds = every_pair(_choices(options, loaded, len(seeds)), seeds)
    facts = {
        "run": loaded.config.name,
        "step": loaded.step,
        "weights": loaded.weights,
        "weights_sha256": weights_hash(loaded),
        "sampling": settings.model_dump(mode="json", include={"sampler", "guidance"}),
        "size": None if size is None else [size.height, size.width],
        "compute": options.compute,
        "precision": loaded.precision,
        "compile": loaded.compile,
        "choices": wanted,
        "seeds": seeds,
        "npz": options.npz,
    }
    with _writing(out):
        # Before the drawing, which may take hours.
        out = claim_folder(out, bool(options.out), facts)
    if loaded.codec.no_pictures is not None:
        with at_compute(loaded, options.compute), SamplingProgress() as progress:
            drawn = list(draw_batches(loaded, wanted, seeds, settings, options.batch_size, progress, size))
        return _write_latents(torch.cat(drawn), wanted, seeds, out)
    with at_compute(loaded, options.compute), SamplingProgress() as progress:
        batches = sample_batches(loaded, wanted, seeds, settings, options.batch_size, progress, size)
        shown = _write(batches, wanted, seeds, out, loaded.class_names, options.npz, facts)
    say(f"{counted(len(seeds), 'picture')} and grid.png in {out} (weights of step {loaded.step})")
    if shown < len(seeds):
        say(f"grid.png shows {shown} of the {len(seeds)} pictures: at most 16 rows and 32 columns")
    return 0


def _choices(options: argparse.Namespace, loaded: LoadedRun, num_seeds: int) -> list[int | str] | None:
    """Return the labels or prompts that the options name, each once; None for an unconditional model."""
    names = None if options.labels is None else [part.strip() for part in options.labels.split(",")]
    prompts = options.prompts if options.prompts_file is None else read_prompts(Path(options.prompts_file))
    chosen = choose(loaded, names, prompts)
    if chosen is None:
        return None
    chosen = list(dict.fromkeys(chosen))
    if len(chosen) * num_seeds > _MAX_PICTURES:
        raise LeanDiTError(f"{len(chosen)} labels or prompts with {num_seeds} seeds each: {_TOO_MANY}")
    return chosen


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LeanDiTError(
            f"{out}: the pictures cannot be written: {error.strerror or error}; choose another --out"
        ) from None


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file that are not empty, one prompt each."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise LeanDiTError(f"--prompts-file {path}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_PROMPT_BYTES:
        raise LeanDiTError(
            f"--prompts-file {path}: more than {_MAX_PROMPT_BYTES // 1024**2} MiB; is it the right file? "
            "Draw the prompts in parts"
        )
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise LeanDiTError(f"--prompts-file {path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise LeanDiTError(f"--prompts-file {path}: there is no prompt in it; write one per line")
    return prompts


def parse_seeds(text: str) -> list[int]:
    """Read "0-63" or "1,5,9" or a mixture, each seed once; raise LeanDiTError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_seed(first) or (dash and not _is_seed(last)):
            raise LeanDiTError(f"--seeds {text!r}: give whole numbers and ranges, as in 0-63 or 1,5,9")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop >= _MAX_SEED:
            raise LeanDiTError(f"--seeds {text!r}: {part.strip()} is an empty range or goes past {_MAX_SEED - 1}")
        if stop - start >= _MAX_PICTURES:
            raise LeanDiTError(f"--seeds {text!r}: {_TOO_MANY}")
        seeds.extend(range(start, stop + 1))
    return list(dict.fromkeys(seeds))


def _is_seed(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_SEED))


def _write(
    batches: Iterable[Tensor],
    wanted: Wanted,
    seeds: list[int],
    out: Path,
    class_names: Sequence[str],
    npz: bool,
    facts: Mapping[str, Any],
) -> int:
    """Write each picture as soon as its batch is drawn, then the arrays and the grid; return how many it shows."""
    shown = fits_grid(wanted, len(seeds))
    # Without the arrays, only what the grid shows is held in memory.
    needed = range(len(seeds)) if npz else frozenset(shown)
    kept: dict[int, Tensor] = {}
    order = {choice: index for index, choice in enumerate(dict.fromkeys(wanted or ()))}
    common = {name: value for name, value in facts.items() if name not in ("choices", "seeds", "npz")}
    for index, picture in enumerate(itertools.chain.from_iterable(batches)):
        shows = None if wanted is None else _shows(wanted[index], class_names)
        prefix = "" if wanted is None else _prefix(wanted[index], order, shows)
        with _writing(out):
            made_by = {"shows": shows, "seed": seeds[index], **common}
            save_png(to_image(picture), out / f"{prefix}seed-{seeds[index]:06d}.png", made_by)
        if index in needed:
            kept[index] = picture.clone()  # a view would keep its whole batch
    with _writing(out):
        if npz:
            arrays = {"images": torch.stack(list(kept.values())).numpy()}
            _write_arrays(arrays, wanted, seeds, out / "samples.npz")
        shown_wanted = None if wanted is None else [wanted[index] for index in shown]
        rows = rows_by_label(torch.stack([kept[index] for index in shown]), shown_wanted, class_names)
        save_png(draw_grid(rows), out / "grid.png")
    return len(shown)


def _write_latents(latents: Tensor, wanted: Wanted, seeds: list[int], out: Path) -> int:
    """Write the latents of a run that learned such, and say how they become pictures; return the exit code."""
    path = out / "samples.npz"
    with _writing(out):
        _write_arrays({"latents": latents.float().cpu().numpy()}, wanted, seeds, path)
    say(f"{len(seeds)} latents in {path}: array `latents`, float32, {' x '.join(str(n) for n in latents.shape)}")
    say("They are scaled as the training data is. For pictures, divide them by its scaling factor and decode them")
    say("with the autoencoder that encoded it.")
    return 0


def _shows(choice: int | str, class_names: Sequence[str]) -> str:
    """Return the prompt, or the name of the class."""
    if isinstance(choice, str):
        return choice
    return class_names[choice] if choice < len(class_names) else f"class {choice}"


def _prefix(choice: int | str, order: dict[int | str, int], shows: str | None) -> str:
    """Return the begin of a file's name: a number, so that names are sorted and differ, and what the picture shows."""
    number = f"prompt-{order[choice]:04d}" if isinstance(choice, str) else f"label-{choice:04d}"
    words = re.sub(r"\W+", "-", (shows or "").lower()).strip("-")
    # 40 characters have at most 160 bytes, and a name on disk 255.
    return f"{number}-{words[:40].rstrip('-')}_" if words else f"{number}_"


def _write_arrays(arrays: dict[str, np.ndarray], wanted: Wanted, seeds: list[int], path: Path) -> None:
    arrays = {**arrays, "seeds": np.array(seeds)}
    if wanted is not None:
        arrays["prompts" if isinstance(wanted[0], str) else "labels"] = np.array(wanted)
    np.savez_compressed(path, allow_pickle=False, **arrays)
