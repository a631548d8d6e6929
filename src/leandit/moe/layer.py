"""The MoE layer: the router decides, the experts compute. One dropless path for every strategy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.moe.config import MoEConfig
from leandit.moe.experts import Experts
from leandit.moe.router import PooledRouter
from leandit.moe.seams import Dispatcher, RouterModule, RouterOutput
from leandit.moe.threshold import Threshold
from leandit.nn import FeedForward, Linear


class MoELayer(nn.Module):
    """y_bl = sum_e mask_ble weight_ble FFN_e(x_bl), plus shared experts if configured.

    A token may get any number of experts from 0 to E. `hidden` is the width of the dense feed-forward that the layer
    stands for. `target_dim` is the size p*p*C of a patch of the diffusion target, which the router's target head
    predicts; None leaves that head out. Shared experts get every token with weight 1, so n of width h are computed as
    the one feed-forward of width n h that they add up to.

    A layer built alone is initialised; a model that sets all its weights itself passes `initialise=False`. The
    attribute `dispatcher` is what brings tokens to experts that are elsewhere; None is the fused operator.

    Reference: Expert Race, Figure 2; DiT-MoE (arXiv 2407.11633), section 2.2 for shared experts.
    """

    router: RouterModule

    def __init__(
        self, config: MoEConfig, dim: int, hidden: int, target_dim: int | None = None, *, initialise: bool = True
    ) -> None:
        super().__init__()
        gated = config.expert == "swiglu"
        self.router_input = config.router_input
        in_dim = config.router_width(dim)
        if config.routing is None:
            self.router = PooledRouter(config, dim, target_dim, in_dim=in_dim)
        else:
            self.router = config.routing.build(config, in_dim, dim, target_dim if config.has_target_head else None)
        self.experts = Experts(config.num_experts, dim, config.expert_hidden(hidden), gated, config.impl)
        shared = config.shared_hidden(hidden)
        self.shared_experts = FeedForward(dim, shared, gated) if shared else None
        self.dispatcher: Dispatcher | None = None
        if initialise and not self.experts.w1.is_meta:
            self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform matrices, zero biases, thresholds where they start; for a layer that was on the meta device.

        A backbone initialises its layers itself.
        """
        for module in self.modules():
            if isinstance(module, Linear | Experts | Threshold):
                module.init_weights()
        self.router.init_weights()

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        plain: Float[Tensor, "batch tokens dim"] | None = None,
        time: Float[Tensor, "batch dim"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens dim"], RouterOutput]:
        """Return the output and the router's decision.

        `plain` is the normalised token before modulation and `time` the time embedding: see `MoEConfig.router_input`.
        Raises LeanDiTError if the router wants what is not given.
        """
        routing = self.router(self._routed(x, plain, time))
        per_token = (-1, routing.mask.shape[-1])
        x_TD = x.reshape(-1, x.shape[-1])
        weight_TE, mask_TE = routing.weights.reshape(per_token), routing.mask.reshape(per_token)
        bound = self.router.most_pairs(x_TD.shape[0])
        if self.dispatcher is None:
            y_TD = self.experts(x_TD, weight_TE, mask_TE, bound)
        else:
            y_TD = self.dispatcher(x_TD, weight_TE, mask_TE, bound, self.experts.rows)
        y = y_TD.reshape(x.shape)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        return y, routing

    def _routed(self, x: Tensor, plain: Tensor | None, time: Tensor | None) -> Float[Tensor, "batch tokens width"]:
        """Return what the router sees; time first, as in Nucleus-Image."""
        if self.router_input == "modulated":
            return x
        if plain is None or (time is None and self.router_input == "plain+time"):
            missing = "plain" if plain is None else "time"
            raise LeanDiTError(
                f"router_input = {self.router_input}: the layer is called without {missing}=; hand it over, or set "
                "router_input=modulated"
            )
        if self.router_input == "plain" or time is None:
            return plain
        return torch.cat([time[:, None].expand_as(plain).to(plain.dtype), plain], dim=-1)
