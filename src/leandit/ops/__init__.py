"""Pure tensor functions: each fast version stands beside a naive reference that it is tested against."""

from leandit.ops.attention import attention
from leandit.ops.grouped_gemm import grouped_linear
from leandit.ops.linear import row_stable_linear
from leandit.ops.permute import gather_pairs, scatter_pairs
from leandit.ops.pooled_topk import pooled_topk

__all__ = [
    "attention",
    "gather_pairs",
    "grouped_linear",
    "pooled_topk",
    "row_stable_linear",
    "scatter_pairs",
]
