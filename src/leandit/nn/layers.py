"""Layers of a network, and the parts that they share: a shared weight exists once and has one key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Sharing = Literal["none", "adaln", "attention", "block"]

# What the layers of a network have in common; each level includes the one before it.
SHARED_PARTS: dict[Sharing, frozenset[str]] = {
    "none": frozenset(),
    "adaln": frozenset({"adaln"}),
    "attention": frozenset({"adaln", "attention", "cross_attention"}),
    "block": frozenset({"adaln", "attention", "cross_attention", "feed_forward", "text_feed_forward", "moe"}),
}

Makers = Mapping[str, Callable[[], nn.Module]]
Parts = Mapping[str, nn.Module] | nn.ModuleDict


class Layer(nn.Module):
    """One layer: its own parts are children; parts that layers share belong to the network and come with each call.

    A subclass writes `compute`. `layer(shared, *state)` calls it, and with `recompute` it keeps only its input in
    training and computes the layer again in the backward pass. What routers decided is kept in any case, so that the
    backward pass uses the experts of the forward pass. Sharding (`fully_shard(layer)`), compilation
    (`layer.compile()`) and hooks hold on to this module.
    """

    def __init__(self, names: Sequence[str], own: Parts) -> None:
        super().__init__()
        self.names = tuple(names)
        self.recompute = False
        for name, part in own.items():
            self.add_module(name, part)

    def forward(self, shared: Parts, *state: Any) -> Any:
        """Return the record that `compute` returns."""
        if self.recompute and self.training:
            contexts = partial(create_selective_checkpoint_contexts, _policy)
            return checkpoint(self.compute, shared, *state, use_reentrant=False, context_fn=contexts)
        return self.compute(shared, *state)

    def compute(self, shared: Parts, *state: Any) -> Any:
        """Return the layer's record for the state; `shared` are the parts that are not its own."""
        raise NotImplementedError

    def parts(self, shared: Parts) -> Parts:
        """Return all parts that the layer uses, by name."""
        own = self._modules
        return {name: own[name] if name in own else shared[name] for name in self.names}  # type: ignore[misc]


# Operators whose results are kept when a layer is computed again: the logits of routers, and the race over them.
_KEPT = ("leandit::kept", "leandit::pooled_topk")


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if isinstance(operator, torch._ops.OpOverload) and operator.name() in _KEPT:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def kept(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a copy of x. The copy is an operator of its own, so that selective recomputation can find it by name.

    A router's logits can differ by a rounding error if they are computed again, especially in compiled code. The
    backward pass could then use other experts than the forward pass.
    """
    return torch.ops.leandit.kept(x)


@torch.library.custom_op("leandit::kept", mutates_args=(), schema="(Tensor x) -> Tensor")
def _kept(x: Tensor) -> Tensor:
    return x.clone()


@_kept.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gradient(ctx: Any, grad: Tensor | None) -> Tensor | None:
    return grad


_kept.register_autograd(_gradient)


class Layers(nn.Module):
    """All layers of a network: for each a table of makers of its parts. Parts that `sharing` names exist once.

    Keys are `0.attention...` for a layer's own part and `shared.attention...` for a shared one. A part that were
    registered in every layer would have a key for each, and break sharding by layers. `make(names, own)` returns the
    layer with its own parts.

    Reference: DiT-Air (arXiv 2503.10618), section on parameter sharing (Lite).
    """

    def __init__(
        self, layers: Sequence[Makers], sharing: Sharing, make: Callable[[Sequence[str], Parts], Layer]
    ) -> None:
        super().__init__()
        common = SHARED_PARTS[sharing]
        self.shared = nn.ModuleDict()
        self._depth = len(layers)
        for index, makers in enumerate(layers):
            for name in makers:
                if name in common and name not in self.shared:
                    self.shared[name] = makers[name]()
            own = {name: build() for name, build in makers.items() if name not in common}
            self.add_module(str(index), make(tuple(makers), own))

    def __len__(self) -> int:
        return self._depth

    def __iter__(self) -> Iterator[Layer]:
        """Yield the layers in order of depth."""
        for index in range(self._depth):
            layer = self._modules[str(index)]
            assert isinstance(layer, Layer)
            yield layer
