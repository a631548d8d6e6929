"""The MoE layer: the router decides, the experts compute. One dropless path for every strategy."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leandit.moe.config import MoEConfig
from leandit.moe.experts import Experts
from leandit.moe.router import Router, RouterOutput
from leandit.nn import FeedForward


class MoELayer(nn.Module):
    """y_bl = sum_e mask_ble score_ble FFN_e(x_bl), plus shared experts where configured.

    A token may get any number of experts from 0 to E. `hidden` is the width of the dense feed-forward that the
    layer stands for, `target_dim` the size p*p*C of a patch of the diffusion target. Shared experts get every token
    with weight 1, so n of width h are computed as the one feed-forward of width n h that they add up to.

    Reference: Expert Race, Figure 2; DiT-MoE (arXiv 2407.11633), section 2.2 for shared experts.
    """

    def __init__(self, config: MoEConfig, dim: int, hidden: int, target_dim: int) -> None:
        super().__init__()
        gated = config.expert == "swiglu"
        self.router = Router(config, dim, target_dim)
        self.experts = Experts(config.num_experts, dim, config.expert_hidden(hidden), gated, config.impl)
        shared = config.shared_hidden(hidden)
        self.shared_experts = FeedForward(dim, shared, gated) if shared else None

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> tuple[Float[Tensor, "batch tokens dim"], RouterOutput]:
        routing = self.router(x)
        num_experts = routing.mask.shape[-1]
        per_token = (-1, num_experts)
        x_TD = x.reshape(-1, x.shape[-1])
        bound = self.router.most_pairs(x_TD.shape[0])
        y_TD = self.experts(x_TD, routing.weights.reshape(per_token), routing.mask.reshape(per_token), bound)
        y = y_TD.reshape(x.shape)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        return y, routing
