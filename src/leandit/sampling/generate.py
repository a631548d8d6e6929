"""Draw pictures from a loaded run: one seed is one picture, in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from leandit.diffusion import Denoised, Denoiser, Path, build_sampler, guided, initial_noise, once
from leandit.errors import LeanDiTError
from leandit.grid import Grid
from leandit.models import Conditioning
from leandit.run.conditioner import Conditioner, Wanted
from leandit.run.config import SamplingConfig
from leandit.sampling.load import LoadedRun

# Largest side of a drawing, and of the data that a run is trained on.
_MOST_SIDE = 4096

Progress = Callable[[int, int], None]
Watch = Callable[[Tensor, Tensor], None]  # (t, the estimate of the data at t), after every evaluation of the network


def sample(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    size: Grid | None = None,
) -> UInt8[Tensor, "batch height width channels"]:
    """Return one picture per seed. `wanted[i]` is the label or prompt for `seeds[i]`; None for an unconditional model.

    `settings` and `size` (of the data, see `check_size`) default to the run's own. The noise of a picture depends on
    its seed alone, and a model in evaluation mode computes each sample independently. So the batch changes a picture
    by rounding errors only. `progress(done, total)` counts sampler steps over all batches.
    """
    return torch.cat(list(sample_batches(run, wanted, seeds, settings, batch_size, progress, size)))


def sample_batches(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    size: Grid | None = None,
) -> Iterator[UInt8[Tensor, "batch height width channels"]]:
    """Yield the pictures of `sample` batch by batch. Raises LeanDiTError if the codec cannot decode."""
    if run.codec.no_pictures is not None:
        raise LeanDiTError(f"{run.path}: {run.codec.no_pictures}")
    for batch in draw_batches(run, wanted, seeds, settings, batch_size, progress, size):
        yield to_pictures(run.codec.decode(batch))


def draw_batches(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    size: Grid | None = None,
) -> Iterator[Float[Tensor, "batch channels height width"]]:
    """Yield the model's data batch by batch: pictures in [-1, 1], or latents as they were stored."""
    settings = settings or run.config.sampling
    check_seeds(seeds)
    for part, part_seeds, advance in in_batches(wanted, seeds, batch_size, progress):
        yield draw(run, part, part_seeds, settings, advance, size=size)


def in_batches(
    wanted: Wanted, seeds: Sequence[int], batch_size: int, progress: Progress | None = None
) -> Iterator[tuple[Wanted, Sequence[int], Progress]]:
    """Yield (wanted, seeds, progress) of each batch. `progress` counts the steps of all batches together.

    All batches must have the same number of steps, and be drawn in this order.
    """
    starts = range(0, len(seeds), batch_size)
    steps_done = 0

    def advance(done: int, total: int) -> None:
        nonlocal steps_done
        steps_done += 1
        if progress:
            progress(steps_done, total * len(starts))

    for start in starts:
        part = slice(start, start + batch_size)
        yield None if wanted is None else wanted[part], seeds[part], advance


@torch.no_grad()
def picture_shape(run: LoadedRun) -> tuple[int, Grid]:
    """Return channels and size of the pictures that a run draws: of what its codec decodes."""
    decoded = run.codec.decode(torch.zeros(1, *run.config.sample_shape(), device=run.device))
    return decoded.shape[1], Grid(*decoded.shape[2:])


def check_size(run: LoadedRun, size: Grid) -> Grid:
    """Return the size of the model's input for a size of the data.

    Sin-cos positions divide the span that the model learned; RoPE extends beyond it. The quality of pictures of a size
    that the model did not learn depends on the model. Raises LeanDiTError if the patch size does not divide the size,
    or if a side is above 4096.
    """
    name = f"size {size.height}x{size.width} (height x width)"
    if max(size.height, size.width) > _MOST_SIDE:
        raise LeanDiTError(f"{name}: a side has at most {_MOST_SIDE}")
    drawn = Grid(*run.codec.shape((run.config.data.channels, size.height, size.width))[1:])
    patch_size = run.model.config.patch_size
    if not drawn.divisible(patch_size):
        coded = "" if drawn == size else f", {drawn.height}x{drawn.width} after the codec,"
        raise LeanDiTError(f"{name}{coded} is not divisible by the model's patch_size = {patch_size}")
    return drawn


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise LeanDiTError if there is no seed, or a seed is not from 0 to 2^63 - 1."""
    if not seeds:
        raise LeanDiTError("there is nothing to draw: no seed, no label or no prompt was given")
    bad = [seed for seed in seeds if not 0 <= seed < 2**63]
    if bad:
        raise LeanDiTError(f"seed {bad[0]}: seeds are whole numbers from 0 to {2**63 - 1}")


def draw(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    size: Grid | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Run the sampler on one batch and return the model's data; pictures are in [-1, 1].

    `watch(t, x0)` gets the guided estimate of the data after every evaluation. If it raises, the drawing ends.
    """
    settings = settings or run.config.sampling
    drawn = run.model.config.size if size is None else check_size(run, size)
    noise = initial_noise(seeds, (run.model.config.channels or 0, drawn.height, drawn.width)).to(run.device)
    conditioner = Conditioner(run.text, run.device)

    encoded = once(run.model.encode_text)

    def denoise(x: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        return run.objective.denoised(run.predict(x, t, encoded(cond)), x, t)

    if wanted is not None:
        run.check_guidance(settings.guidance.scale)
    # Guidance needs a condition.
    denoiser = denoise if wanted is None else guided(denoise, settings.guidance, conditioner.null(len(seeds)))
    denoiser = denoiser if watch is None else _watched(denoiser, run.objective.path, watch)
    sampler = build_sampler(settings.sampler, run.objective.path)
    with torch.no_grad():
        return sampler(denoiser, noise, conditioner(wanted), seeds, progress=progress)


def _watched(denoiser: Denoiser, path: Path, watch: Watch) -> Denoiser:
    def denoise(x: Tensor, t: Tensor, cond: Conditioning, /) -> Denoised:
        result = denoiser(x, t, cond)
        watch(t, path.convert("velocity", result.velocity.float(), x, t).x0)
        return result

    return denoise


def to_pictures(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch height width channels"]:
    """Map [-1, 1] to 0..255, channels last, on the CPU."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
