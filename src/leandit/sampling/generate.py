"""Draw pictures from a loaded run: one seed is one picture, whatever batch it is drawn in."""

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

# What one drawing may be asked for; the run was trained on data of at most this side.
_MOST_SIDE = 4096

Progress = Callable[[int, int], None]
Watch = Callable[[Tensor, Tensor], None]  # (t, the data as estimated at t), after every evaluation of the network


def sample(
    run: LoadedRun,
    wanted: Wanted,
    seeds: Sequence[int],
    settings: SamplingConfig | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    size: Grid | None = None,
) -> UInt8[Tensor, "batch height width channels"]:
    """Return one picture per seed: `wanted[i]`, a label or a prompt, for seed `seeds[i]`; None for a model without.

    `settings` and `size`, that of the data, default to the run's own; see `check_size`. The noise of a picture comes
    from its seed alone and a model in evaluation mode treats each sample on its own, so batches change a picture by
    rounding errors only. `progress(done, total)` counts sampler steps over all batches.
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
    """Yield the pictures of `sample` batch by batch, as each is drawn; LeanDiTError if the codec cannot decode."""
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
    """Yield what the model calls data, batch by batch: pictures in [-1, 1], or latents as they were stored."""
    settings = settings or run.config.sampling
    check_seeds(seeds)
    for part, part_seeds, advance in in_batches(wanted, seeds, batch_size, progress):
        yield draw(run, part, part_seeds, settings, advance, size=size)


def in_batches(
    wanted: Wanted, seeds: Sequence[int], batch_size: int, progress: Progress | None = None
) -> Iterator[tuple[Wanted, Sequence[int], Progress]]:
    """Yield what is wanted, the seeds and the progress of each batch; its steps are counted on to `progress` over all.

    Batches have the same number of steps, and are to be drawn in this order.
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


def check_size(run: LoadedRun, size: Grid) -> Grid:
    """Return the model's size for one of the data; LeanDiTError if its patches do not fit, or for far too large ones.

    Any other is drawn. Sin-cos positions lie over the span that the model learned, RoPE goes on beyond it. How good a
    picture is whose size or proportions the model did not learn is for the model to show.
    """
    name = f"size {size.height}x{size.width} (height x width)"
    if max(size.height, size.width) > _MOST_SIDE:
        raise LeanDiTError(f"{name}: a side has at most {_MOST_SIDE}")
    drawn = Grid(*run.codec.shape((run.config.data.channels, size.height, size.width))[1:])
    patch_size = run.model.config.patch_size
    if not drawn.divisible(patch_size):
        coded = "" if drawn == size else f", {drawn.height}x{drawn.width} as the codec returns it,"
        raise LeanDiTError(f"{name}{coded} is not divisible by the model's patch_size = {patch_size}")
    return drawn


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise LeanDiTError where there is no seed, and for a seed that is not from 0 to 2^63 - 1."""
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
    """Run the sampler on one batch; return what the model calls data, in [-1, 1] for pictures.

    `watch(t, x0)` sees the guided estimate of the data after every evaluation; what it raises ends the drawing.
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
    # Where nothing is wanted there is nothing to be guided towards.
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
