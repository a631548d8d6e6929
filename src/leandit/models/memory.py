"""The memory of a training step: run the step on tensors without content, and add up the sizes of live tensors."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leandit.models.backbone import BackboneConfig
from leandit.models.execution import recompute_layers
from leandit.models.fake import by_depth, fake_inputs, fake_model
from leandit.models.records import BackboneOutput

# Experts allocate one row of the tokens' width per pair while they compute, and no operator shows these rows.
_EXPERTS = ("leandit::expert_ffn", "leandit::expert_ffn_backward")
_BYTES = 4


def training_memory(
    config: BackboneConfig,
    micro_batch: int,
    *,
    bf16: bool = False,
    activation_checkpointing: bool = False,
    moments: int | float = 2,
    text_tokens: int = 16,
    visible_tokens: int | None = None,
) -> int:
    """Return the largest number of bytes in training, without the memory of Python and torch themselves.

    It counts weights, moving average and the optimiser's state of `moments` numbers per weight, in fp32, and
    the peak of a step of `micro_batch` pictures: gradients, activations, copies in bf16. It does not count text
    encoders and data. For a deep model two shallow models are run, because every further layer costs the same.
    """
    count = partial(
        _counted,
        micro_batch,
        bf16=bf16,
        activation_checkpointing=activation_checkpointing,
        moments=moments,
        text_tokens=text_tokens,
        visible_tokens=visible_tokens,
    )
    return by_depth(config, count, least=2, step=2)


def _counted(
    micro_batch: int,
    config: BackboneConfig,
    *,
    bf16: bool,
    activation_checkpointing: bool,
    moments: int | float,
    text_tokens: int,
    visible_tokens: int | None,
) -> int:
    # Without content torch's grouped product runs in bf16 only. The loop keeps the same tensors.
    if config.moe is not None and config.moe.impl == "grouped_mm":
        config = config.replace(moe=config.moe.replace(impl="loop"))
    with fake_model(config) as model:
        recompute_layers(model, activation_checkpointing)
        parameters = sum(p.numel() for p in model.parameters())
        given = fake_inputs(config, micro_batch, text_tokens, visible_tokens)
        with _Alive() as alive:
            with torch.autocast("cpu", torch.bfloat16, bf16, cache_enabled=not activation_checkpointing):
                output = model(**given)
            _loss(output).backward()
    return alive.peak + round(_BYTES * parameters * (2 + moments))


def _loss(output: BackboneOutput) -> Tensor:
    """Return a number that depends on every output that the real loss uses."""
    parts = [output.prediction.float().square().mean()]
    parts += [router.scores.square().mean() for router in output.routers]
    parts += [router.target.float().square().mean() for router in output.routers if router.target is not None]
    return torch.stack(parts).sum()


class _Alive(TorchDispatchMode):
    """Adds up the bytes of all live tensors that were created under it; `peak` is the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # Two thirds of all calls: a fake tensor is asked for its device.
            return func(*args)
        existing = {tensor.untyped_storage() for tensor in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage not in existing and storage not in self._seen:
                self._add(storage)
        self.peak = max(self.peak, self.now + _inside(func, args))
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self._seen.add(storage)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.now -= size


def _inside(func: Any, args: tuple[Any, ...]) -> int:
    """Return the bytes that the experts' operator allocates while it computes."""
    if func.name() not in _EXPERTS:
        return 0
    backward = func.name() == _EXPERTS[1]
    x, rows = (args[1], len(args[5])) if backward else (args[0], int(args[5]))
    return rows * x.shape[1] * x.element_size() if rows > 0 else 0


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
