"""What a model costs: parameters as the papers count them, and the FLOPs of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from leandit.models.backbone import BackboneConfig
from leandit.models.fake import by_depth, fake_inputs, meta_model


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
    with torch.device("meta"):
        model = config.build()
    total = activated = router = embedders = 0
    for name, parameter in model.named_parameters():
        if (not name.endswith("weight") and ".experts.w" not in name) or ".target_head." in name or parameter.ndim < 2:
            continue
        size = parameter.numel()
        if not name.startswith("blocks."):
            embedders += size
            continue
        total += size
        router += size if ".router." in name else 0
        if ".experts." in name and config.moe is not None:
            size = size * config.moe.k // config.moe.num_experts
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
    config = kind.model_validate_json(fields)
    # No backend changes what has to be computed; these show it to the counter and run everywhere.
    plain: dict[str, Any] = {"attention_impl": "math"}
    if config.moe is not None:
        plain["moe"] = config.moe.replace(impl="loop", per_layer_regularisation=False)
    count = partial(_counted, text_tokens=text_tokens, visible_tokens=visible_tokens)
    return by_depth(config.replace(**plain), count, least=1, step=1)


def _counted(config: BackboneConfig, text_tokens: int, visible_tokens: int | None) -> int:
    # With gradients the number of pairs is announced to the experts' operator, and short batches are not padded.
    model = meta_model(config)
    with torch.enable_grad(), torch.device("meta"), _Flops() as counter:
        model(**fake_inputs(config, 1, text_tokens, visible_tokens))
    return counter.total


class _Flops(TorchDispatchMode):
    """Adds up the formulas of torch's FLOP counter, which itself takes half as long again."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out
