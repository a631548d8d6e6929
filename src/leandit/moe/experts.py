"""The experts compute: many small feed-forwards with stacked weights.

Legend: T tokens of the batch, R rows sorted by expert, E experts, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leandit.ops import expert_ffn, expert_rows
from leandit.ops.expert_ffn import Activation, ExpertImpl


class Experts(nn.Module):
    """FFN_e(x) = GELU(x W1_e + b1_e) W2_e + b2_e for e = 1..E: two matrices for each expert.

    With `gated` it is SwiGLU, (SiLU(x Wg_e) * x Wu_e) W2_e, without biases; `w1` holds Wg_e and Wu_e side by side, so
    that either form is two grouped products. `impl` is the backend, see `leandit.ops.expert_ffn`.

    Reference: Expert Race, section on the architecture (sizes confirm two matrices per expert); for `gated` DiT-MoE
    (arXiv 2407.11633), whose Table 1 confirms three.
    """

    def __init__(self, num_experts: int, dim: int, hidden: int, gated: bool = False, impl: ExpertImpl = "auto") -> None:
        super().__init__()
        self.impl = impl
        self.gated = gated
        columns = 2 * hidden if gated else hidden
        self.w1 = nn.Parameter(torch.empty(num_experts, dim, columns))
        self.b1 = None if gated else nn.Parameter(torch.empty(num_experts, columns))
        self.w2 = nn.Parameter(torch.empty(num_experts, hidden, dim))
        self.b2 = None if gated else nn.Parameter(torch.empty(num_experts, dim))

    def init_weights(self) -> None:
        """Xavier-uniform for each matrix of each expert as for a dense layer of its size, zero biases."""
        hidden, dim = self.w2.shape[1:]
        bound = (6 / (dim + hidden)) ** 0.5
        for weight in (self.w1, self.w2):
            nn.init.uniform_(weight, -bound, bound)
        for bias in (self.b1, self.b2):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(
        self,
        x_TD: Float[Tensor, "all_tokens dim"],
        weight_TE: Float[Tensor, "all_tokens experts"],
        mask_TE: Bool[Tensor, "all_tokens experts"],
        num_pairs: int | None,
    ) -> Float[Tensor, "all_tokens dim"]:
        """Return sum_e mask_te weight_te FFN_e(x_t); `num_pairs` is a bound on the pairs, if one is known."""
        weights = (self.w1, self.b1, self.w2, self.b2)
        return expert_ffn(
            x_TD, weight_TE, mask_TE, *weights, activation=self._activation, num_pairs=num_pairs, impl=self.impl
        )

    def rows(self, x_RD: Float[Tensor, "rows dim"], ends_E: Int[Tensor, " experts"]) -> Float[Tensor, "rows dim"]:
        """Return FFN_e(x_r) for rows sorted by expert, those of expert e up to row ends_E[e]: what a dispatcher calls.

        Rows after the last end are 0.
        """
        weights = (self.w1, self.b1, self.w2, self.b2)
        return expert_rows(x_RD, ends_E, *weights, activation=self._activation, impl=self.impl)

    @property
    def _activation(self) -> Activation:
        return "swiglu" if self.gated else "gelu"
