"""Backbones, one file each. All have the form `Backbone(x, t, cond) -> BackboneOutput`."""

from leandit.models.backbone import BACKBONES, Backbone, BackboneConfig, ModelConfig
from leandit.models.cost import ParameterCount, count_parameters, forward_flops
from leandit.models.dit import DiT, DiTConfig
from leandit.models.dit_air import DiTAir, DiTAirConfig
from leandit.models.execution import check_compiler, compile_layers, recompute_layers, uncompiled
from leandit.models.masking import MaskingConfig, take_tokens
from leandit.models.mmdit import MMDiT, MMDiTConfig
from leandit.models.pixart import PixArt, PixArtConfig
from leandit.models.records import BackboneOutput, Conditioning

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneConfig",
    "BackboneOutput",
    "Conditioning",
    "DiT",
    "DiTAir",
    "DiTAirConfig",
    "DiTConfig",
    "MMDiT",
    "MMDiTConfig",
    "MaskingConfig",
    "ModelConfig",
    "ParameterCount",
    "PixArt",
    "PixArtConfig",
    "check_compiler",
    "compile_layers",
    "count_parameters",
    "forward_flops",
    "recompute_layers",
    "take_tokens",
    "uncompiled",
]
