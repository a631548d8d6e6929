"""Backbones: one complete file each, all of the form `Backbone(x, t, cond) -> BackboneOutput`."""

from leandit.models.cost import ParameterCount, count_parameters, forward_flops, training_memory
from leandit.models.dit import DiT, DiTConfig
from leandit.models.records import BackboneOutput, Conditioning

__all__ = [
    "BackboneOutput",
    "Conditioning",
    "DiT",
    "DiTConfig",
    "ParameterCount",
    "count_parameters",
    "forward_flops",
    "training_memory",
]
