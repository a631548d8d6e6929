"""Weight sharing between layers: structural, so that a shared weight exists once and has one key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from torch import nn

Sharing = Literal["none", "adaln", "attention", "block"]

# What the layers of a network have in common; each level includes the one before it.
SHARED_PARTS: dict[Sharing, frozenset[str]] = {
    "none": frozenset(),
    "adaln": frozenset({"adaln"}),
    "attention": frozenset({"adaln", "attention", "cross_attention"}),
    "block": frozenset({"adaln", "attention", "cross_attention", "feed_forward", "text_feed_forward", "moe"}),
}

Makers = Mapping[str, Callable[[], nn.Module]]
Parts = Mapping[str, nn.Module]


class Layers(nn.Module):
    """The parts of all layers, given for each layer as name -> maker; those that `sharing` names exist once.

    Keys are `0.attention...` for a layer's own part and `shared.attention...` for a shared one. A part that were
    registered in every layer would have a key for each, and break sharding by layers.

    Reference: DiT-Air (arXiv 2503.10618), section on parameter sharing (Lite).
    """

    def __init__(self, layers: Sequence[Makers], sharing: Sharing) -> None:
        super().__init__()
        common = SHARED_PARTS[sharing]
        self.shared = nn.ModuleDict()
        self._names = [tuple(makers) for makers in layers]
        for index, makers in enumerate(layers):
            for name in makers:
                if name in common and name not in self.shared:
                    self.shared[name] = makers[name]()
            own = {name: make() for name, make in makers.items() if name not in common}
            self.add_module(str(index), nn.ModuleDict(own))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Parts]:
        """Yield the parts of each layer by name, its own and the shared ones."""
        for index, names in enumerate(self._names):
            own = self.get_submodule(str(index))
            assert isinstance(own, nn.ModuleDict)
            yield {name: self.shared[name] if name in self.shared else own[name] for name in names}
