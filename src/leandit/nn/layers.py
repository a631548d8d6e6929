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

# The parts that all layers of a network share. Each level includes the one before it.
SHARED_PARTS: dict[Sharing, frozenset[str]] = {
    "none": frozenset(),
    "adaln": frozenset({"adaln"}),
    "attention": frozenset({"adaln", "attention", "cross_attention"}),
    "block": frozenset({"adaln", "attention", "cross_attention", "feed_forward", "text_feed_forward", "moe"}),
}

Makers = Mapping[str, Callable[[], nn.Module]]
Parts = Mapping[str, nn.Module] | nn.ModuleDict


class Layer(nn.Module):
    """One layer. Its own parts are its children. Shared parts belong to the network and are arguments of each call.

    A subclass writes `compute`, which `layer(shared, *state)` calls. With `recompute`, a layer in training keeps only
    its input and the routers' decisions. The backward pass computes it again, with the same experts. Use this module
    for sharding (`fully_shard(layer)`), compilation (`layer.compile()`) and hooks.
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
        """Return the layer's record for the state. `shared` are the parts that layers share."""
        raise NotImplementedError

    def parts(self, shared: Parts) -> Parts:
        """Return all parts that the layer uses, by name."""
        own = self._modules
        return {name: own[name] if name in own else shared[name] for name in self.names}  # type: ignore[misc]


# Operators whose results are kept for recomputation: the logits of routers, and the race over them.
_KEPT = ("leandit::kept", "leandit::pooled_topk")


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if isinstance(operator, torch._ops.OpOverload) and operator.name() in _KEPT:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def kept(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a copy of x. This is a separate operator, so that recomputation finds it by name: see `_KEPT`.

    Recomputed logits of a router can differ by a rounding error, which can select other experts.
    """
    return torch.ops.leandit.kept(x)


@torch.library.custom_op("leandit::kept", mutates_args=(), schema="(Tensor x) -> Tensor")
def _kept(x: Tensor) -> Tensor:
    return x.clone()


_kept.register_fake(torch.empty_like)
_kept.register_autograd(lambda ctx, grad: grad)


class Layers(nn.Module):
    """All layers of a network. Each layer has a table of functions that make its parts; parts in `sharing` exist once.

    Keys are `0.attention...` for a layer's own part and `shared.attention...` for a shared part. So a shared part has
    one key, and layers can be sharded. `make(names, own)` returns the layer with its own parts.

    Reference: DiT-Air (arXiv 2503.10618), section on parameter sharing (Lite).
    """

    def __init__(self, layers: Sequence[Makers], sharing: Sharing, make: Callable[..., Layer]) -> None:
        super().__init__()
        common = SHARED_PARTS[sharing]
        self.shared = nn.ModuleDict()
        for index, makers in enumerate(layers):
            for name in makers:
                if name in common and name not in self.shared:
                    self.shared[name] = makers[name]()
            own = {name: build() for name, build in makers.items() if name not in common}
            self.add_module(str(index), make(tuple(makers), own))

    def __len__(self) -> int:
        return len(self._modules) - 1

    def __iter__(self) -> Iterator[Layer]:
        """Yield the layers in order of depth."""
        return (layer for layer in self.children() if isinstance(layer, Layer))
