"""A model and its inputs as torch's fake tensors: shapes and devices without content, to count what running costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from leandit.models.backbone import Backbone, BackboneConfig
from leandit.models.records import Conditioning
from leandit.moe import routers


def meta_model(config: BackboneConfig) -> Backbone:
    """Return the model in training mode on the meta device: shapes without content, and nothing initialised.

    Its routers announce k experts for each token: masks without content cannot be counted.
    """
    with torch.device("meta"):
        model = config.build().train()
    if config.moe is not None:
        for _, router in routers(model):
            router.most_pairs = partial(_pairs, config.moe.experts_per_token())  # type: ignore[method-assign]
    return model


def _pairs(k: int | float, num_tokens: int) -> int:
    return int(num_tokens * k)


@contextlib.contextmanager
def fake_model(config: BackboneConfig) -> Iterator[Backbone]:
    """Yield the model in training mode; inside the context every new tensor is fake, on what looks like a CPU.

    Unlike the meta device it has autocast, and tells a tensor's memory; it takes about twice the time.
    """
    model = meta_model(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield model.to_empty(device="cpu")


def fake_inputs(
    config: BackboneConfig, batch: int, text_tokens: int, visible_tokens: int | None = None
) -> dict[str, Any]:
    """Return the arguments of the model's forward for `batch` pictures, to be called inside `fake_model`.

    `visible_tokens` is the number of tokens that the layers see; None is all of them.
    """
    assert config.input_size is not None
    assert config.channels is not None
    if config.conditions_on_text:
        text = torch.zeros(batch, text_tokens, config.text_dim or 0)
        mask = torch.ones(batch, text_tokens, dtype=torch.bool)
        cond = Conditioning(text=text, text_mask=mask, pooled=torch.zeros(batch, config.pooled_dim or 0))
    else:
        cond = Conditioning(torch.zeros(batch, dtype=torch.long) if config.num_classes else None)
    given: dict[str, Any] = {"x": torch.zeros(batch, config.channels, config.size.height, config.size.width)}
    given |= {"t": torch.zeros(batch), "cond": cond}
    if visible_tokens is not None and visible_tokens < config.grid.tokens:
        given["visible"] = torch.zeros(batch, visible_tokens, dtype=torch.long)
    return given


def by_depth(config: BackboneConfig, count: Callable[[BackboneConfig], int], least: int, step: int) -> int:
    """Return count(config), computed from two shallow models if the model is deep and its layers repeat.

    Layers repeat every p = `moe.every` layers (1 without experts). The shallow models have at least `least` layers, and
    the second has `step` p more than the first. If their numbers of parameters do not lead to the model's own, or if
    the config does not allow their depth, the model itself is counted.
    """
    period = config.moe.every if config.moe is not None else 1
    first = max(least, period)
    first += (config.depth - first) % period
    rest = config.depth - first - step * period
    if rest <= 0:
        return count(config)
    try:
        low, high = config.replace(depth=first), config.replace(depth=first + step * period)
    except ValueError:
        return count(config)
    a, b, whole = (_num_parameters(each) for each in (low, high, config))
    if (b - a) * rest != (whole - b) * step * period:
        return count(config)
    smaller, larger = count(low), count(high)
    return larger + (larger - smaller) * rest // (step * period)


def _num_parameters(config: BackboneConfig) -> int:
    return sum(map(prod, parameter_shapes(config).values()))


def parameter_shapes(config: BackboneConfig) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of the model's parameters by name. They are kept: the same config is built once."""
    return _parameter_shapes(type(config), config.model_dump_json())


@lru_cache(maxsize=256)
def _parameter_shapes(kind: type[BackboneConfig], fields: str) -> Mapping[str, tuple[int, ...]]:
    """The config comes as JSON, since one from outside the package need not be hashable."""
    with torch.device("meta"):
        model = kind.model_validate_json(fields).build()
    return MappingProxyType({name: tuple(parameter.shape) for name, parameter in model.named_parameters()})
