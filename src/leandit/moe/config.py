"""Configuration of a mixture-of-experts layer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from leandit.config import Config, one_of
from leandit.moe.gate import GATES
from leandit.moe.strategies import GROUPED, STRATEGIES


class MoEConfig(Config):
    """`k`-in-`num_experts` routing; the default is Expert Race as in RaceDiT-*/2-4in32.

    Where Expert Race leaves a value open, the default is what public reimplementations use: threshold momentum
    0.95 from 1.0, and a race over the micro-batch of one process.
    """

    # Which scores compete with one another: see `leandit.moe.strategies`.
    strategy: one_of(STRATEGIES) = "expert_race"  # type: ignore[valid-type]
    # Expert choice in training: experts choose among so many consecutive tokens of the batch, whatever pictures
    # they are from; null is each picture's tokens. EC-DiT: 1024.
    group_tokens: int | None = Field(None, ge=1)
    # The same in evaluation and sampling. With null a picture does not depend on those that it is drawn with; with
    # a number it does, unless groups happen to be whole pictures. EC-DiT: 512, two pictures.
    inference_group_tokens: int | None = Field(None, ge=1)
    # What turns logits into scores, before the selection.
    gate: one_of(GATES) = "identity"  # type: ignore[valid-type]
    # Mean number of experts per token.
    k: int = Field(4, ge=1)
    num_experts: int = Field(32, ge=1)
    # An expert's hidden width is the dense one divided by this; null means k, so that activated FLOPs stay dense.
    hidden_split: int | None = Field(None, ge=1)
    # Every n-th block has experts: 1 is every block, 2 is blocks 2, 4, 6, ... counted from 1.
    every: int = Field(1, ge=1)
    # Two-layer routers are the paper's; per-layer regularisation needs their hidden layer.
    router: Literal["mlp", "linear"] = "mlp"
    # Whether routers carry the head that predicts the diffusion target while training.
    per_layer_regularisation: bool = True
    # tau <- m tau + (1 - m) cutoff, once per optimiser step; used by the strategies whose pool spans samples.
    threshold_momentum: float = Field(0.95, ge=0, lt=1)
    threshold_init: float = 1.0
    # One more expert of the same hidden width that every token passes through, outside the race.
    shared_expert: bool = False

    @model_validator(mode="after")
    def _check(self) -> Any:
        if self.k > self.num_experts:
            raise ValueError(f"k = {self.k} is more than num_experts = {self.num_experts}")
        if self.router == "linear" and self.per_layer_regularisation:
            raise ValueError("a linear router has no hidden layer: set per_layer_regularisation=false or router=mlp")
        for key in ("group_tokens", "inference_group_tokens"):
            if getattr(self, key) is not None and self.strategy not in GROUPED:
                raise ValueError(f"{key} is for strategy=expert_choice; with {self.strategy} leave it null")
        return self

    def expert_hidden(self, dense_hidden: int) -> int:
        """Return an expert's hidden width, given that of the dense feed-forward that it replaces."""
        split = self.hidden_split or self.k
        if dense_hidden % split:
            raise ValueError(f"hidden width {dense_hidden} is not divisible by the hidden split {split}")
        return dense_hidden // split

    def in_block(self, index: int) -> bool:
        """Return whether the block with this index, from 0, has experts."""
        return (index + 1) % self.every == 0
