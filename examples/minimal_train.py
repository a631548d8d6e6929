"""The whole loop with no trainer: config, model, objective, data, optimiser, average, thresholds, samples.

    python examples/minimal_train.py --steps 300 --out samples.png

Read it from `main` down. `leandit train` does the same, and adds checkpoints, metrics and precision.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

from leandit.data import Batch, DataConfig, EmojiConfig, Loader, build_source
from leandit.diffusion import (
    Denoised,
    GuidanceConfig,
    HeunConfig,
    Noised,
    Objective,
    RectifiedFlowConfig,
    build_objective,
    build_sampler,
    guided,
    initial_noise,
)
from leandit.models import BackboneOutput, Conditioning, DiT, DiTConfig
from leandit.moe import MoEConfig, after_step, router_similarity, router_stats
from leandit.random import Stream, normal, uniform
from leandit.sampling import draw_grid, rows_by_label, save_png, to_pictures

SEED = 0
LABEL_DROPOUT = 0.1
EMA_DECAY = 0.99
DATA = DataConfig(source=EmojiConfig(classes={"heart": ("heart",), "cat": ("cat-face",)}), image_size=32)
MODEL = DiTConfig(dim=64, depth=4, heads=4, patch_size=4, moe=MoEConfig(k=2, num_experts=8))
OBJECTIVE = RectifiedFlowConfig(prediction="x0")
SAMPLER = HeunConfig(steps=20)
GUIDANCE = GuidanceConfig(scale=2.0)


def draw_noise(objective: Objective, batch: Batch) -> tuple[Noised, Conditioning]:
    """Noise every picture and drop some labels, as functions of (seed, sample number) alone."""
    eps = torch.from_numpy(normal(SEED, Stream.NOISE, batch.indices, tuple(batch.images.shape[1:])))
    noised = objective.draw(batch.images, torch.from_numpy(uniform(SEED, Stream.TIMESTEP, batch.indices)), eps)
    kept = torch.from_numpy(uniform(SEED, Stream.LABEL_DROP, batch.indices) >= LABEL_DROPOUT)
    assert batch.labels is not None
    return noised, Conditioning(torch.where(kept, batch.labels, -1))


def total_loss(model: DiT, output: BackboneOutput, objective: Objective, noised: Noised) -> torch.Tensor:
    """Diffusion loss, plus two terms that are pure functions of what the routers returned."""
    loss = sum(part.mean() for part in objective.loss(output.prediction, noised).values())
    for router in output.routers:
        loss = loss + 0.01 / len(output.routers) * router_similarity(router.logits, router.mask)
        if router.target is not None:  # per-layer regularisation: each router predicts the target, too
            prediction = model.unpatchify(router.target)
            loss = loss + 0.1 / len(output.routers) * objective.auxiliary_loss(prediction, noised).mean()
    return torch.as_tensor(loss)


@torch.no_grad()
def update_average(average: DiT, model: DiT, step: int) -> None:
    """Move the average towards the weights; thresholds are averages already, so they are copied."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)


def train(model: DiT, objective: Objective, loader: Loader, steps: int) -> DiT:
    """Return the moving average of the weights over so many steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0)
    average = copy.deepcopy(model)
    model.train()
    for step, batch in zip(range(steps), loader.batches(), strict=False):
        noised, cond = draw_noise(objective, batch)
        output = model(noised.x_t, noised.t, cond)
        loss = total_loss(model, output, objective, noised)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # The race of this step moves the thresholds that replace it when sampling; forward itself changes nothing.
        after_step(model, router_stats(output.routers, len(output.routers)))
        update_average(average, model, step)
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step + 1}/{steps}  loss {loss.item():.4f}", flush=True)
    return average.eval()


def draw(model: DiT, objective: Objective, labels: list[int], seeds: list[int]) -> torch.Tensor:
    """Return pictures 0..255, one for each pair of label and seed."""
    size = DATA.image_size
    cond = Conditioning(torch.tensor(labels))

    def denoise(x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> Denoised:
        return objective.denoised(model(x, t, cond).prediction, x, t)

    sampler = build_sampler(SAMPLER, objective.path)
    noise = initial_noise(seeds, (DATA.channels, size, size))
    return to_pictures(sampler(guided(denoise, GUIDANCE, cond.null()), noise, cond, seeds))


def main() -> None:
    """Train, sample, and write one PNG with a row per class."""
    parser = argparse.ArgumentParser(description="Train a small Race-DiT with no trainer and draw a few samples.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    options = parser.parse_args()

    torch.manual_seed(SEED)
    source = build_source(DATA.source)
    names = source.class_names
    model = MODEL.complete(input_size=DATA.image_size, channels=DATA.channels, num_classes=len(names)).build()
    objective = build_objective(OBJECTIVE)
    loader = Loader(source, DATA, options.batch_size, SEED)
    average = train(model, objective, loader, options.steps)

    labels = [label for label in range(len(names)) for _ in range(8)]
    pictures = draw(average, objective, labels, list(range(len(labels))))
    save_png(draw_grid(rows_by_label(pictures, labels, names)), options.out)
    print(f"{len(pictures)} pictures in {options.out}")


if __name__ == "__main__":
    main()
