"""The hooks of a recorder: they are in a model while the recorder is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from torch import nn

from leandit.models import Backbone, uncompiled

R = TypeVar("R", bound="PassRecorder")


class PassRecorder:
    """Context manager: while it is open, every pass of `model` over a batch is noted. Compiled layers run uncompiled.

    Only the first `batch` samples of a pass are kept; under guidance these are the conditional samples. A subclass says
    in `hooks` which modules it listens to.
    """

    def __init__(self, model: Backbone, batch: int) -> None:
        self.model, self.batch = model, batch
        self._times: list[float] = []
        self._handles: list[Any] = []

    def hooks(self) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
        """Yield modules, each with a forward hook for it."""
        raise NotImplementedError

    def __enter__(self: R) -> R:
        self._as_it_is = uncompiled(self.model)
        self._as_it_is.__enter__()
        self._handles = [self.model.register_forward_pre_hook(self._note_time)]
        self._handles += [module.register_forward_hook(note) for module, note in self.hooks()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._as_it_is.__exit__(kind, error, trace)

    def _note_time(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._times.append(float(arguments[1][0]))
