"""All backbones by their `type`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leandit.models.dit import DiTConfig
from leandit.models.dit_air import DiTAirConfig
from leandit.models.mmdit import MMDiTConfig
from leandit.models.pixart import PixArtConfig

ModelConfig = Annotated[DiTConfig | PixArtConfig | MMDiTConfig | DiTAirConfig, Field(discriminator="type")]
