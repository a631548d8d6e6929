"""Draw one picture and yield every estimate during sampling, with its compute map. Stop if nobody reads the result."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from leandit.app.request import DrawRequest
from leandit.app.runs import ServedRun
from leandit.grid import Grid
from leandit.moe.budget import has_thresholds, scaled, shifted
from leandit.probing import RoutingRecorder, RoutingTrace
from leandit.probing.allocation import spent_flops
from leandit.sampling import draw, to_pictures


@dataclass(frozen=True)
class Frame:
    """The estimate of the data at time t, and the experts per token in that evaluation, averaged over the layers."""

    t: float
    picture: UInt8[Tensor, "height width channels"]
    experts: np.ndarray | None  # (rows, columns); None without experts


@dataclass(frozen=True)
class Drawing:
    """A finished picture, its frames, and its cost.

    `load` is the number of pairs per layer and expert over the whole drawing. `trace`, `load` and `flops` are None for
    a model without experts.
    """

    frames: tuple[Frame, ...]
    picture: UInt8[Tensor, "height width channels"]
    trace: RoutingTrace | None
    load: np.ndarray | None
    flops: int | None


class _Stopped(Exception):
    """Nobody reads the drawing any more."""


Emit = Callable[[Any], None]


def draw_frames(request: DrawRequest) -> Iterator[Frame | Drawing]:
    """Yield a frame per evaluation of the network, then the Drawing. Closing the iterator stops the sampler.

    The drawing starts when the run's thread is free. With budget 1 the picture is that of `leandit.sample`.
    """
    return in_thread(request.served, lambda emit: _draw(request, emit))


def in_thread(served: ServedRun, work: Callable[[Emit], None]) -> Iterator[Any]:
    """Run `work` in the run's thread and yield what it emits. After the iterator is closed, the next emit ends it."""
    items: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    left = threading.Event()

    def emit(item: Any) -> None:
        if left.is_set() or served.closing.is_set():
            raise _Stopped
        items.put(("item", item))

    def body() -> None:
        try:
            if not left.is_set():
                work(emit)
            items.put(("end", None))
        except _Stopped:
            items.put(("end", None))
        except BaseException as error:
            items.put(("error", error))

    future = served.submit(body)
    try:
        while True:
            try:
                received = items.get(timeout=1)
            except queue.Empty:
                # A closing server cancels work that has not started, and cancelled work never sends its end.
                if served.closing.is_set():
                    return
                continue
            if received[0] != "item":
                break
            yield received[1]
        if received[0] == "error":
            raise received[1]
    finally:
        left.set()
        future.cancel()


def _draw(request: DrawRequest, emit: Emit) -> None:
    run = request.served.run
    frames: list[Frame] = []
    with contextlib.ExitStack() as stack:
        if request.budget != 1 and has_thresholds(run.model):
            stack.enter_context(shifted(run.model, request.served.calibration.thresholds(request.budget)))
        elif request.budget != 1:
            stack.enter_context(scaled(run.model, request.budget))
        recorder = stack.enter_context(RoutingRecorder(run.model, batch=1))
        has_experts = run.model.config.moe is not None

        def watch(t: Tensor, x0: Tensor) -> None:
            experts = _grid(recorder.latest(), recorder.grid) if has_experts else None
            frames.append(Frame(float(t[0]), to_pictures(run.codec.decode(x0))[0], experts))
            emit(frames[-1])

        wanted = None if request.choice is None else [request.choice]
        drawn = draw(run, wanted, [request.seed], request.settings, watch=watch)
    trace = recorder.trace() if has_experts else None
    load = flops = None
    if trace is not None:
        load = np.stack([trace.mask(layer)[:, 0].sum((0, 1)) for layer in range(len(trace.layers))])
        flops = int(spent_flops(run.model.config, trace).sum())
    emit(Drawing(tuple(frames), to_pictures(run.codec.decode(drawn))[0], trace, load, flops))


def _grid(experts: Tensor, grid: Grid) -> np.ndarray:
    """Return (rows, columns) of experts per token, the mean over layers, from (layers, 1, tokens)."""
    return experts[:, 0].mean(0).reshape(grid.height, grid.width).numpy()
