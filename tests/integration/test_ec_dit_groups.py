"""EC-DiT's presets, shrunk: with guidance, a picture drawn alone is the one drawn with others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leandit.diffusion import Denoised, LinearPath, build_sampler, guided, initial_noise
from leandit.models import Conditioning
from leandit.presets import run_config

SHRUNK = [
    *("model.dim=32", "model.heads=4", "model.kv_heads=2", "model.cross_kv_heads=4", "model.depth=2"),
    *("model.text_dim=12", "model.pooled_dim=12", "model.masking.decoder_depth=1", "model.masking.decoder_dim=16"),
    *("model.masking.decoder_heads=2", "sampling.sampler.steps=3", "sampling.guidance.scale=3"),
]
SEEDS = [5, 6, 7, 8]


@torch.no_grad()
def draw(preset: str, rows: list[int], *overrides: str) -> Tensor:
    """Draw the pictures of these rows together, each with its own seed and prompt, by the preset's sampler."""
    config = run_config(preset, [*SHRUNK, *overrides])
    model = config.model.build().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15, generator=generator)
    text = torch.randn(len(SEEDS), 6, 12, generator=generator)[rows]
    null = Conditioning(text=torch.zeros(len(rows), 1, 12))

    def denoiser(x: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        return Denoised(model(x, t, cond).prediction)

    seeds = [SEEDS[row] for row in rows]
    sampler = build_sampler(config.sampling.sampler, LinearPath())
    denoise = guided(denoiser, config.sampling.guidance, null)
    cond = Conditioning(text=text, text_mask=torch.ones(len(rows), 6, dtype=torch.bool))
    return sampler(denoise, initial_noise(seeds, (8, 32, 32)), cond, seeds)


@pytest.mark.parametrize("preset", ["ec-dit-xl-32e", "ec-dit-xl-32e-unmasked", "ec-dit-3xl-32e"])
def test_a_picture_drawn_alone_is_the_one_drawn_with_others(preset: str) -> None:
    together = draw(preset, [0, 1, 2, 3])
    assert together.std() > 0.5
    for rows in ([0], [2], [3, 1]):
        torch.testing.assert_close(draw(preset, rows), together[rows], rtol=0, atol=1e-4)


def test_the_papers_groups_of_512_tokens_are_asked_for_by_name_and_join_neighbours() -> None:
    groups = "model.moe.inference_group_tokens=512"
    together = draw("ec-dit-xl-32e", [0, 1, 2, 3], groups)
    alone = torch.cat([draw("ec-dit-xl-32e", [row], groups) for row in range(4)])
    assert (together - alone).abs().max() > 1e-2
