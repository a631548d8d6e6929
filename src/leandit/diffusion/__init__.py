"""Paths from data to noise, training objectives, guidance and samplers; t = 0 is data, t = 1 is noise."""

from leandit.diffusion.denoiser import Condition, Denoised, Denoiser, GuidanceConfig, guided, once
from leandit.diffusion.objectives import (
    DDPM,
    DDPMConfig,
    Noised,
    Objective,
    ObjectiveConfig,
    RectifiedFlow,
    RectifiedFlowConfig,
    build_objective,
)
from leandit.diffusion.path import LinearPath, Parts, Path, VariancePreservingPath
from leandit.diffusion.posterior import Posterior, chain, posterior
from leandit.diffusion.samplers import (
    DDIMConfig,
    DDPMSamplerConfig,
    EulerConfig,
    HeunConfig,
    HeunSDEConfig,
    Sampler,
    SamplerConfig,
    build_sampler,
    initial_noise,
)
from leandit.diffusion.timesteps import (
    DiscreteTimesteps,
    LogitNormalTimesteps,
    TimestepConfig,
    UniformTimesteps,
    shift_time,
    size_shift,
)

__all__ = [
    "DDPM",
    "Condition",
    "DDIMConfig",
    "DDPMConfig",
    "DDPMSamplerConfig",
    "Denoised",
    "Denoiser",
    "DiscreteTimesteps",
    "EulerConfig",
    "GuidanceConfig",
    "HeunConfig",
    "HeunSDEConfig",
    "LinearPath",
    "LogitNormalTimesteps",
    "Noised",
    "Objective",
    "ObjectiveConfig",
    "Parts",
    "Path",
    "Posterior",
    "RectifiedFlow",
    "RectifiedFlowConfig",
    "Sampler",
    "SamplerConfig",
    "TimestepConfig",
    "UniformTimesteps",
    "VariancePreservingPath",
    "build_objective",
    "build_sampler",
    "chain",
    "guided",
    "initial_noise",
    "once",
    "posterior",
    "shift_time",
    "size_shift",
]
