"""The MoE layer: the router decides, the experts compute. One dropless path for every strategy.

Legend: T tokens of the batch, R rows sorted by expert, E experts, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.moe.config import MoEConfig
from leandit.moe.router import PooledRouter
from leandit.moe.seams import Dispatcher, RouterModule, RouterOutput
from leandit.moe.threshold import Threshold
from leandit.nn import FeedForward, Linear
from leandit.ops import expert_ffn, expert_rows
from leandit.ops.expert_ffn import Activation, ExpertImpl


class Experts(nn.Module):
    """FFN_e(x) = GELU(x W1_e + b1_e) W2_e + b2_e for e = 1..E: two matrices for each expert.

    With `gated` it is SwiGLU, (SiLU(x Wg_e) * x Wu_e) W2_e, without biases; `w1` holds Wg_e and Wu_e side by side.
    `impl` is the backend, see `leandit.ops.expert_ffn`.

    Reference: Expert Race, section on the architecture; DiT-MoE (arXiv 2407.11633), Table 1, for `gated`.
    """

    def __init__(self, num_experts: int, dim: int, hidden: int, gated: bool = False, impl: ExpertImpl = "auto") -> None:
        super().__init__()
        self.impl = impl
        self.activation: Activation = "swiglu" if gated else "gelu"
        columns = 2 * hidden if gated else hidden
        self.w1 = nn.Parameter(torch.empty(num_experts, dim, columns))
        self.b1 = None if gated else nn.Parameter(torch.empty(num_experts, columns))
        self.w2 = nn.Parameter(torch.empty(num_experts, hidden, dim))
        self.b2 = None if gated else nn.Parameter(torch.empty(num_experts, dim))

    def init_weights(self) -> None:
        """Initialise each matrix of each expert like a dense layer of its size: Xavier-uniform, zero biases."""
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
        """Return sum_e mask_te weight_te FFN_e(x_t); `num_pairs` is an upper bound on the pairs, if known."""
        weights = (self.w1, self.b1, self.w2, self.b2)
        return expert_ffn(
            x_TD, weight_TE, mask_TE, *weights, activation=self.activation, num_pairs=num_pairs, impl=self.impl
        )

    def rows(self, x_RD: Float[Tensor, "rows dim"], ends_E: Int[Tensor, " experts"]) -> Float[Tensor, "rows dim"]:
        """Return FFN_e(x_r) for rows sorted by expert, those of expert e up to ends_E[e], and 0 after the last end."""
        weights = (self.w1, self.b1, self.w2, self.b2)
        return expert_rows(x_RD, ends_E, *weights, activation=self.activation, impl=self.impl)


class MoELayer(nn.Module):
    """y_bl = sum_e mask_ble weight_ble FFN_e(x_bl), plus shared experts if configured.

    A token gets 0 to E experts. `hidden` is the width of the dense feed-forward that the layer replaces. `target_dim`
    is the size p*p*C of a patch of the diffusion target, for the router's target head; None means no head. Shared
    experts get every token with weight 1, so n of width h are one feed-forward of width n h. `tokens` is the length of
    a sequence, for thresholds of `be_choice`; 0 if it is not known.

    The layer initialises itself; a model that sets all weights itself passes `initialise=False`. The attribute
    `dispatcher` moves tokens to experts on other devices; None is the fused operator.

    Reference: Expert Race, Figure 2; DiT-MoE (arXiv 2407.11633), section 2.2 for shared experts.
    """

    router: RouterModule

    def __init__(
        self,
        config: MoEConfig,
        dim: int,
        hidden: int,
        target_dim: int | None = None,
        *,
        tokens: int = 0,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        gated = config.expert == "swiglu"
        self.router_input = config.router_input
        if config.routing is None:
            self.router = PooledRouter(config, dim, target_dim, tokens)
        else:
            head = target_dim if config.has_target_head else None
            self.router = config.routing.build(config, config.router_width(dim), dim, head)
        self.experts = Experts(config.num_experts, dim, config.expert_hidden(hidden), gated, config.impl)
        shared = config.shared_hidden(hidden)
        self.shared_experts = FeedForward(dim, shared, gated) if shared else None
        self.dispatcher: Dispatcher | None = None
        if initialise and not self.experts.w1.is_meta:
            self.init_weights()

    def init_weights(self) -> None:
        """Set Xavier-uniform matrices, zero biases and initial thresholds. A backbone does this for its layers."""
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
        Raises LeanDiTError if the router needs one that is not given.
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
        return (y if self.shared_experts is None else y + self.shared_experts(x)), routing

    def _routed(self, x: Tensor, plain: Tensor | None, time: Tensor | None) -> Float[Tensor, "batch tokens width"]:
        """Return the router's input; time comes first, as in Nucleus-Image."""
        if self.router_input == "modulated":
            return x
        if plain is None or (time is None and self.router_input == "plain+time"):
            missing = "plain" if plain is None else "time"
            raise LeanDiTError(f"router_input = {self.router_input}: call the layer with {missing}=, or set modulated")
        if time is None or self.router_input == "plain":
            return plain
        return torch.cat([time[:, None].expand_as(plain).to(plain.dtype), plain], dim=-1)
