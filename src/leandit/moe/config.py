"""Configuration of a mixture-of-experts layer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from leandit.config import Config, Fact, Registry
from leandit.moe.gate import GATES
from leandit.moe.seams import RouterModule
from leandit.moe.strategies import GROUPED, STRATEGIES
from leandit.ops.expert_ffn import ExpertImpl

RouterInput = Literal["modulated", "plain", "plain+time"]


class RouterConfig(Config):
    """Base config of all routers except the pooled one. Register a subclass with `@ROUTERS.register`."""

    has_target_head: ClassVar[bool] = False
    """Whether the router can predict the diffusion target, which per-layer regularisation needs."""

    type: str
    """The name of the router in configurations; every kind has its own."""

    def build(self, moe: MoEConfig, in_dim: int, dim: int, target_dim: int | None) -> RouterModule:
        """Return the router for inputs of width `in_dim` in a model of width `dim`; the target head has target_dim."""
        raise NotImplementedError

    def check(self, moe: MoEConfig) -> None:
        """Raise ValueError if the layer's `k` and `num_experts` do not fit. The default accepts all."""


ROUTERS = Registry("router", RouterConfig)
"""All routers except the pooled one, by `type`. A new one is registered in its own file, in or outside the package."""


class MoEConfig(Config):
    """`k`-in-`num_experts` routing; the default is Expert Race as in RaceDiT-*/2-4in32.

    If the paper does not state a value, the default is that of public reimplementations: threshold momentum 0.95 from
    1.0, and a race over the micro-batch of one process. The fields from `strategy` to `inference` belong to
    `PooledRouter`; `routing` selects another router, which has its own fields.
    """

    strategy: Literal[tuple(STRATEGIES)] = "expert_race"  # type: ignore[valid-type]
    """Which scores compete with one another: see `leandit.moe.strategies`."""
    group_tokens: int | None = Field(None, ge=1, le=2**31)
    """Expert choice in training: experts choose among N consecutive tokens of the batch, across pictures; null is each
    picture's tokens. EC-DiT: 1024. Token choice with a capacity: the slots are for N tokens."""
    inference_group_tokens: int | None = Field(None, ge=1, le=2**31)
    """The same in evaluation and sampling. With null a picture does not depend on the other pictures of its batch. With
    a number it does, unless each group is exactly one picture. EC-DiT: 512, two pictures."""
    capacity_factor: float | None = Field(None, gt=0)
    """In training each expert has (tokens of a group) * capacity_factor / num_experts slots. Expert choice fills them:
    the factor, EC-DiT's f_c, is the mean number of experts per token; null is k. Token choice drops what finds no slot,
    second choices first, and rounds slots down; null drops no token. GShard: 2 at k = 2."""
    inference_capacity_factor: float | None = Field(None, gt=0)
    """The same in evaluation and sampling. For expert choice null is the factor of training."""
    gate: Literal[tuple(GATES)] = "identity"  # type: ignore[valid-type]
    """The function from logits to scores, before the selection."""
    renormalize: bool = False
    """Divide the scores of a token's chosen experts by their sum before they weight the outputs, as GShard does."""
    router: Literal["mlp", "linear"] = "mlp"
    """The network that computes the logits. The paper has two layers (mlp), which per-layer regularisation needs."""
    threshold_momentum: float = Field(0.95, ge=0, lt=1)
    """tau <- m tau + (1 - m) cutoff, once per optimiser step; used by the strategies whose pool spans samples."""
    threshold_init: float = 1.0
    """Initial value of the threshold."""
    inference: Literal["threshold", "race"] = "threshold"
    """Selection in evaluation and sampling if the pool spans samples: by the threshold, or by a race among the pictures
    of a batch, as in training (the first two rows of Expert Race's Table 3)."""
    routing: Annotated[RouterConfig, ROUTERS] | None = None
    """Another router, such as {"type": "biased"}; null is the pooled router of the fields above."""
    router_input: RouterInput = "modulated"
    """The router's input: the token that experts compute (modulated), the normalised token before modulation (plain),
    or the time embedding joined with that one (plain+time, as in Nucleus-Image)."""
    k: int = Field(4, ge=1, le=4096)
    """Mean number of experts per token."""
    num_experts: int = Field(32, ge=1, le=4096)
    """Number of experts."""
    hidden_split: int | None = Field(None, ge=1, le=65_536)
    """An expert's hidden width is the dense width divided by this; null means k, which keeps the dense FLOPs."""
    expert: Literal["gelu", "swiglu"] = "gelu"
    """gelu: GELU(x W1 + b1) W2 + b2. swiglu: (SiLU(x Wg) * x Wu) W2, with 1.5 times the weights, as in DiT-MoE. Shared
    experts have the same form."""
    every: int = Field(1, ge=1, le=256)
    """Every n-th block has experts: 1 is every block, 2 is blocks 2, 4, 6, ... counted from 1."""
    per_layer_regularisation: bool = True
    """Whether routers that support it predict the diffusion target in training, with a head of their own."""
    num_shared_experts: int = Field(0, ge=0, le=4096)
    """Additional experts that compute every token with weight 1, without routing. DiT-MoE: 2."""
    shared_split: int | None = Field(None, ge=1, le=65_536)
    """A shared expert's hidden width is the dense width divided by this; null is that of routed experts. DiT-MoE: 4."""
    impl: Annotated[ExpertImpl, Fact.BACKEND] = "auto"
    """The implementation that computes the experts: see `leandit.ops.expert_ffn`."""

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.k > self.num_experts:
            raise ValueError(f"k = {self.k} is more than num_experts = {self.num_experts}")
        if self.shared_split is not None and not self.num_shared_experts:
            raise ValueError("shared_split is for shared experts: set num_shared_experts, or shared_split=null")
        if self.routing is not None:
            self._check_routing(self.routing)
            return self
        if self.router == "linear" and self.per_layer_regularisation:
            raise ValueError("a linear router has no hidden layer: set per_layer_regularisation=false or router=mlp")
        if self.renormalize and self.gate == "identity":
            raise ValueError("renormalize needs positive scores: set gate=softmax or sigmoid, or renormalize=false")
        if self.inference == "race" and not STRATEGIES[self.strategy].spans_samples:
            raise ValueError(f"inference=race: {self.strategy} is the same in evaluation as in training; omit it")
        self._check_groups("")
        self._check_groups("inference_")
        return self

    def _check_routing(self, routing: RouterConfig) -> None:
        fields = [(name, field.default) for name, field in type(self).model_fields.items()]
        defaults = dict(fields[: fields.index(("inference", "threshold")) + 1])
        changed = {name: value for name, value in defaults.items() if getattr(self, name) != value}
        if changed:
            remedy = ", ".join(f"{name}={'null' if value is None else value}" for name, value in changed.items())
            raise ValueError(
                f"{', '.join(changed)}: only for the pooled router; with routing.type={routing.type} set {remedy} "
                "(the default), or set routing=null"
            )
        routing.check(self)

    def _check_groups(self, phase: str) -> None:
        factor, group = f"{phase}capacity_factor", f"{phase}group_tokens"
        limited = getattr(self, factor) is not None
        if limited and self.strategy not in ("token_choice", *GROUPED):
            raise ValueError(f"{factor} is for token_choice and expert_choice; with {self.strategy} leave it null")
        if limited and self.strategy in GROUPED and getattr(self, factor) > self.num_experts:
            raise ValueError(f"{factor} = {getattr(self, factor):g} is more than num_experts = {self.num_experts}")
        if getattr(self, group) is not None and self.strategy not in GROUPED and not limited:
            remedy = f"also set {factor}, or leave it null" if self.strategy == "token_choice" else "leave it null"
            raise ValueError(f"{group} is for strategy=expert_choice; with {self.strategy} {remedy}")

    @property
    def has_target_head(self) -> bool:
        """Whether the layer's router predicts the diffusion target in training."""
        return self.per_layer_regularisation and (self.routing is None or self.routing.has_target_head)

    @property
    def routing_name(self) -> str:
        """The strategy of the pooled router, or the type of another router."""
        return self.strategy if self.routing is None else self.routing.type

    def experts_per_token(self, training: bool = True) -> int | float:
        """Return the mean number of experts per token: k, or the capacity factor of expert choice."""
        factor = self.capacity_factor if training else self.inference_capacity_factor or self.capacity_factor
        return factor if factor and self.strategy in GROUPED else self.k

    def router_width(self, dim: int) -> int:
        """Return the width of a router's input in a model of width `dim`."""
        return 2 * dim if self.router_input == "plain+time" else dim

    def expert_hidden(self, dense_hidden: int) -> int:
        """Return an expert's hidden width, given the width of the dense feed-forward."""
        return _divide(dense_hidden, self.hidden_split or self.k, "hidden split")

    def shared_hidden(self, dense_hidden: int) -> int:
        """Return the hidden width of all shared experts together; 0 if there are none."""
        if not self.num_shared_experts:
            return 0
        split = self.shared_split or self.hidden_split or self.k
        return self.num_shared_experts * _divide(dense_hidden, split, "shared split")

    def in_block(self, index: int) -> bool:
        """Return whether the block with this index, from 0, has experts."""
        return (index + 1) % self.every == 0


def _divide(dense_hidden: int, split: int, name: str) -> int:
    if dense_hidden % split:
        raise ValueError(f"hidden width {dense_hidden} is not divisible by the {name} {split}")
    return dense_hidden // split
