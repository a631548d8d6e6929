"""The MoE layer: router -> Assignment -> dispatch -> experts -> combine. One dropless path for every strategy."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leandit.moe.config import MoEConfig
from leandit.moe.experts import Experts
from leandit.moe.router import Router, RouterOutput
from leandit.nn import FeedForward
from leandit.ops import gather_pairs, scatter_pairs


class MoELayer(nn.Module):
    """y_bl = sum_e mask_ble score_ble FFN_e(x_bl), plus a shared expert where configured.

    A token may get any number of experts from 0 to E. `hidden` is the width of the dense feed-forward that the
    layer stands for, `target_dim` the size p*p*C of a patch of the diffusion target.

    Reference: Expert Race, Figure 2.
    """

    def __init__(self, config: MoEConfig, dim: int, hidden: int, target_dim: int) -> None:
        super().__init__()
        width = config.expert_hidden(hidden)
        self.router = Router(config, dim, target_dim)
        self.experts = Experts(config.num_experts, dim, width)
        self.shared_expert = FeedForward(dim, width) if config.shared_expert else None

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> tuple[Float[Tensor, "batch tokens dim"], RouterOutput]:
        routing = self.router(x)
        pairs = routing.assignment
        x_TD = x.reshape(-1, x.shape[-1])
        counts = pairs.load(routing.logits.shape[-1]).tolist()
        computed_PD = self.experts(gather_pairs(x_TD, pairs.token), counts)
        y = scatter_pairs(computed_PD, pairs.token, pairs.weight, x_TD.shape[0]).reshape(x.shape)
        if self.shared_expert is not None:
            y = y + self.shared_expert(x)
        return y, routing
