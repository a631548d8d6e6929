"""What a model costs: parameters as the papers count them, and the FLOPs of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from leandit.models.backbone import BackboneConfig
from leandit.models.fake import by_depth, fake_inputs, meta_model, parameter_shapes


@dataclass(frozen=True)
class ParameterCount:
    """Weight matrices of the blocks with their modulation, as the papers count: no biases, no target heads.

    `activated` counts k of the E experts. `router` is the share of the routers in both. `embedders` are the weight
    matrices outside the blocks: patches, time, label or text, the decoder of masking, and the output.

    Reference: Expert Race, Table 4 (Table 5 leaves the routers out); DiT-Air, Table 1.
    """

    total: int
    activated: int
    router: int
    embedders: int


def count_parameters(config: BackboneConfig) -> ParameterCount:
    """Return the numbers of parameters of the model, built on the meta device and read off their names.

    A matrix is called `weight`, or `w1` and `w2` in `experts`; layers are below `blocks`, routers below `router`.
    """
    total = activated = router = embedders = 0
    for name, shape in parameter_shapes(config).items():
        if (not name.endswith("weight") and ".experts.w" not in name) or ".target_head." in name or len(shape) < 2:
            continue
        size = prod(shape)
        if not name.startswith("blocks."):
            embedders += size
            continue
        total += size
        router += size if ".router." in name else 0
        if ".experts." in name and config.moe is not None:
            size = int(size * config.moe.experts_per_token() // config.moe.num_experts)
        activated += size
    return ParameterCount(total, activated, router, embedders)


def forward_flops(config: BackboneConfig, text_tokens: int = 0, visible_tokens: int | None = None) -> int:
    """Return the FLOPs of one forward pass over one picture, two per multiply-add, matrix products only.

    They are what torch's FLOP counter finds when the model runs on tensors without content, so any backbone can be
    counted: an operator of its own needs a formula (`torch.utils.flop_counter.register_flop_formula`). Every token has
    k experts, as in training without dropped tokens. Target heads are left out, since inference has none.

    `text_tokens` is the length of the text. `visible_tokens` is how many of a picture's tokens the layers see when
    training hides the others; patches are embedded, and the decoder runs, on all of them. Numbers are kept: the same
    question is counted once. Raises ValueError if the config leaves sizes to the data.
    """
    return _flops(type(config), config.model_dump_json(), text_tokens, visible_tokens)


@lru_cache(maxsize=1024)
def _flops(kind: type[BackboneConfig], fields: str, text_tokens: int, visible_tokens: int | None) -> int:
    """The config comes as JSON, since one from outside the package need not be hashable."""
    count = partial(_counted, text_tokens=text_tokens, visible_tokens=visible_tokens)
    return by_depth(kind.model_validate_json(fields), count, least=1, step=1)


def _counted(config: BackboneConfig, text_tokens: int, visible_tokens: int | None) -> int:
    # No backend changes what has to be computed; these show it to the counter and run everywhere.
    plain: dict[str, Any] = {"attention_impl": "math"}
    if config.moe is not None:
        plain["moe"] = config.moe.replace(impl="loop", per_layer_regularisation=False)
    model = meta_model(config.replace(**plain))
    # With gradients the number of pairs is announced to the experts' operator, and short batches are not padded.
    with torch.enable_grad(), torch.device("meta"), _Flops() as counter:
        model(**fake_inputs(config, 1, text_tokens, visible_tokens))
    return counter.total


class _Flops(TorchDispatchMode):
    """Adds up the formulas of torch's FLOP counter, which itself takes half as long again."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SLOW and all(arg.is_meta for arg in args if isinstance(arg, Tensor)):
            layouts = _results(func, *map(_described, args), **kwargs)
            out = layouts.tensor() if isinstance(layouts, _Layout) else tuple(each.tensor() for each in layouts)
        else:
            out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=out)
        return out


_ATEN = torch.ops.aten
# On the meta device, torch finds the results of these in Python, in up to 1 ms. None returns a view, and none takes
# tensors by keyword.
_SLOW = {_ATEN.addmm.default, _ATEN.add.Tensor, _ATEN.mul.Tensor, _ATEN.native_layer_norm.default, _ATEN.gelu.default}


@dataclass(frozen=True)
class _Layout:
    """All that a tensor on the meta device consists of."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Layout:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


def _described(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return _Layout.of(arg)
    return tuple(arg) if isinstance(arg, list) else arg


@lru_cache(maxsize=4096, typed=True)
def _results(func: Any, *args: Any, **kwargs: Any) -> _Layout | tuple[_Layout, ...]:
    """Return the layouts of what an operator returns on the meta device; they follow from those of its arguments."""
    out = func(*(arg.tensor() if isinstance(arg, _Layout) else arg for arg in args), **kwargs)
    return _Layout.of(out) if isinstance(out, Tensor) else tuple(map(_Layout.of, out))
