"""Training objectives: how data is noised and what the network learns to predict."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leandit.diffusion.objectives.base import Noised, Objective
from leandit.diffusion.objectives.ddpm import DDPM, DDPMConfig
from leandit.diffusion.objectives.rectified_flow import RectifiedFlow, RectifiedFlowConfig

__all__ = [
    "DDPM",
    "DDPMConfig",
    "Noised",
    "Objective",
    "ObjectiveConfig",
    "RectifiedFlow",
    "RectifiedFlowConfig",
    "build_objective",
]

ObjectiveConfig = Annotated[RectifiedFlowConfig | DDPMConfig, Field(discriminator="type")]


def build_objective(config: ObjectiveConfig) -> Objective:
    """Return the objective that the config describes."""
    return DDPM(config) if isinstance(config, DDPMConfig) else RectifiedFlow(config)
