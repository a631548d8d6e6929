"""RMS normalisation of queries and keys."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.RMSNorm):
    """torch's, with the weight in the dtype of the input, as its fused kernel wants it under autocast."""

    def forward(self, x: Float[Tensor, "*batch head_dim"]) -> Float[Tensor, "*batch head_dim"]:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
