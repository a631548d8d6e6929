"""Tensor functions. Every fast version has a plain definition, and tests compare both."""

from leandit.ops import flops as _flops  # noqa: F401  It registers formulas.
from leandit.ops.attention import attention
from leandit.ops.expert_ffn import expert_ffn, expert_rows
from leandit.ops.linear import full_precision, linear, linear_gelu, row_stable_linear
from leandit.ops.modulate import gated_residual, norm_modulate
from leandit.ops.pooled_topk import pooled_topk

__all__ = [
    "attention",
    "expert_ffn",
    "expert_rows",
    "full_precision",
    "gated_residual",
    "linear",
    "linear_gelu",
    "norm_modulate",
    "pooled_topk",
    "row_stable_linear",
]
