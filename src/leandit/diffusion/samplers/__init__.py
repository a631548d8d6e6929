"""Samplers: from noise to data with a denoiser."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leandit.diffusion.path import Path
from leandit.diffusion.samplers.base import Observe, Progress, Sampler, initial_noise
from leandit.diffusion.samplers.chain import DDIM, Ancestral, DDIMConfig, DDPMSamplerConfig
from leandit.diffusion.samplers.solvers import Euler, EulerConfig, Heun, HeunConfig, HeunSDE, HeunSDEConfig

__all__ = [
    "DDIM",
    "Ancestral",
    "DDIMConfig",
    "DDPMSamplerConfig",
    "Euler",
    "EulerConfig",
    "Heun",
    "HeunConfig",
    "HeunSDE",
    "HeunSDEConfig",
    "Observe",
    "Progress",
    "Sampler",
    "SamplerConfig",
    "build_sampler",
    "initial_noise",
]

SamplerConfig = Annotated[
    EulerConfig | HeunConfig | HeunSDEConfig | DDPMSamplerConfig | DDIMConfig, Field(discriminator="type")
]


def build_sampler(config: SamplerConfig, path: Path) -> Sampler:
    """Return the sampler that the config describes, for the path that the network was trained on.

    Raises LeanDiTError if they do not fit: ddpm needs the variance-preserving path, and the grid must have at least
    one point per step.
    """
    match config:
        case EulerConfig():
            return Euler(config)
        case HeunConfig():
            return Heun(config)
        case HeunSDEConfig():
            return HeunSDE(config, path)
        case DDIMConfig():
            return DDIM(config, path)
        case DDPMSamplerConfig():
            return Ancestral(config, path)
