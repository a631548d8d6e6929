"""Configuration of a mixture-of-experts layer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config, one_of
from leandit.moe.gate import GATES
from leandit.moe.strategies import GROUPED, STRATEGIES
from leandit.ops.expert_ffn import ExpertImpl


class MoEConfig(Config):
    """`k`-in-`num_experts` routing; the default is Expert Race as in RaceDiT-*/2-4in32.

    Where Expert Race leaves a value open, the default is what public reimplementations use: threshold momentum
    0.95 from 1.0, and a race over the micro-batch of one process.
    """

    # Which scores compete with one another: see `leandit.moe.strategies`.
    strategy: one_of(STRATEGIES) = "expert_race"  # type: ignore[valid-type]
    # Expert choice in training: experts choose among so many consecutive tokens of the batch, whatever pictures
    # they are from; null is each picture's tokens. EC-DiT: 1024. Token choice: experts have their slots among them.
    group_tokens: int | None = Field(None, ge=1)
    # The same in evaluation and sampling. With null a picture does not depend on those that it is drawn with; with
    # a number it does, unless groups happen to be whole pictures. EC-DiT: 512, two pictures.
    inference_group_tokens: int | None = Field(None, ge=1)
    # Token choice in training: each expert has (tokens of a group) * capacity_factor / num_experts slots, rounded
    # down, first choices before second ones, and drops the tokens beyond; null drops none. GShard: 2 at k = 2.
    capacity_factor: float | None = Field(None, gt=0)
    # The same in evaluation and sampling.
    inference_capacity_factor: float | None = Field(None, gt=0)
    # What turns logits into scores, before the selection.
    gate: one_of(GATES) = "identity"  # type: ignore[valid-type]
    # Divide the scores of a token's chosen experts by their sum before they weight the outputs, as GShard does.
    renormalize: bool = False
    # Mean number of experts per token.
    k: int = Field(4, ge=1)
    num_experts: int = Field(32, ge=1)
    # An expert's hidden width is the dense one divided by this; null means k, so that activated FLOPs stay dense.
    hidden_split: int | None = Field(None, ge=1)
    # gelu: GELU(x W1 + b1) W2 + b2. swiglu: (SiLU(x Wg) * x Wu) W2, half as large again, as in DiT-MoE. Shared
    # experts have the same form.
    expert: Literal["gelu", "swiglu"] = "gelu"
    # Every n-th block has experts: 1 is every block, 2 is blocks 2, 4, 6, ... counted from 1.
    every: int = Field(1, ge=1)
    # Two-layer routers are the paper's; per-layer regularisation needs their hidden layer.
    router: Literal["mlp", "linear"] = "mlp"
    # Whether routers carry the head that predicts the diffusion target while training.
    per_layer_regularisation: bool = True
    # tau <- m tau + (1 - m) cutoff, once per optimiser step; used by the strategies whose pool spans samples.
    threshold_momentum: float = Field(0.95, ge=0, lt=1)
    threshold_init: float = 1.0
    # So many more experts that every token passes through with weight 1, outside the routing. DiT-MoE: 2.
    num_shared_experts: int = Field(0, ge=0)
    # A shared expert's hidden width is the dense one divided by this; null means that of the routed experts.
    # DiT-MoE: 4, which is the model's width.
    shared_split: int | None = Field(None, ge=1)
    # What computes the experts: see `leandit.ops.expert_ffn`.
    impl: ExpertImpl = "auto"

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.k > self.num_experts:
            raise ValueError(f"k = {self.k} is more than num_experts = {self.num_experts}")
        if self.router == "linear" and self.per_layer_regularisation:
            raise ValueError("a linear router has no hidden layer: set per_layer_regularisation=false or router=mlp")
        if self.renormalize and self.gate == "identity":
            raise ValueError(
                "renormalize needs positive scores: set gate=softmax or gate=sigmoid, or renormalize=false"
            )
        if self.shared_split is not None and not self.num_shared_experts:
            raise ValueError("shared_split is for shared experts: set num_shared_experts, or shared_split=null")
        self._check_groups("")
        self._check_groups("inference_")
        return self

    def _check_groups(self, phase: str) -> None:
        factor, group = f"{phase}capacity_factor", f"{phase}group_tokens"
        limited = getattr(self, factor) is not None
        if limited and self.strategy != "token_choice":
            raise ValueError(f"{factor} is for strategy=token_choice; with {self.strategy} leave it null")
        if getattr(self, group) is not None and self.strategy not in GROUPED and not limited:
            remedy = f"set {factor}, too, or leave it null" if self.strategy == "token_choice" else "leave it null"
            raise ValueError(f"{group} is for strategy=expert_choice; with {self.strategy} {remedy}")

    def expert_hidden(self, dense_hidden: int) -> int:
        """Return an expert's hidden width, given that of the dense feed-forward that it replaces."""
        return _divide(dense_hidden, self.hidden_split or self.k, "hidden split")

    def shared_hidden(self, dense_hidden: int) -> int:
        """Return the hidden width of all shared experts together, 0 without any."""
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
