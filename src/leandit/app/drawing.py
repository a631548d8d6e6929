"""Draw one picture and hand out every estimate on the way, with where the experts went; stop when nobody looks."""

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
from leandit.moe.budget import shifted
from leandit.probing import RoutingRecorder, RoutingTrace
from leandit.probing.allocation import spent_flops
from leandit.sampling import draw, to_pictures


@dataclass(frozen=True)
class Frame:
    """The data as estimated at time t, and experts per token at that evaluation, averaged over the layers."""

    t: float
    picture: UInt8[Tensor, "height width channels"]
    experts: np.ndarray | None  # (rows, columns); None without experts


@dataclass(frozen=True)
class Drawing:
    """A finished picture, the frames that led to it, and what it cost.

    `trace`, `load`, which is pairs per layer and expert over the whole drawing, and `flops` are None without experts.
    """

    frames: tuple[Frame, ...]
    picture: UInt8[Tensor, "height width channels"]
    trace: RoutingTrace | None
    load: np.ndarray | None
    flops: int | None


class _Stopped(Exception):
    """Nobody waits for the drawing any more."""


Emit = Callable[[Any], None]


def draw_frames(request: DrawRequest) -> Iterator[Frame | Drawing]:
    """Yield a frame per evaluation of the network, then the Drawing; closing the iterator stops the sampler.

    The drawing waits until the run's thread is free. With budget 1 it is the picture of `leandit.sample`.
    """
    return in_thread(request.served, lambda emit: _draw(request, emit))


def in_thread(served: ServedRun, work: Callable[[Emit], None]) -> Iterator[Any]:
    """Yield what `work` emits in the run's thread; once the iterator is closed, the next emit ends the work."""
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
        while (received := _next(items, served))[0] == "item":
            yield received[1]
        if received[0] == "error":
            raise received[1]
    finally:
        left.set()
        future.cancel()


def _next(items: queue.SimpleQueue[tuple[str, Any]], served: ServedRun) -> tuple[str, Any]:
    """Return what comes next; a server that closes takes work back that has not begun, so that nothing would come."""
    while True:
        try:
            return items.get(timeout=1)
        except queue.Empty:
            if served.closing.is_set():
                return "end", None


def _draw(request: DrawRequest, emit: Emit) -> None:
    run = request.served.run
    frames: list[Frame] = []
    with contextlib.ExitStack() as stack:
        if request.budget != 1:
            stack.enter_context(shifted(run.model, request.served.calibration.thresholds(request.budget)))
        recorder = stack.enter_context(RoutingRecorder(run.model, batch=1))
        has_experts = run.model.config.moe is not None

        def watch(t: Tensor, x0: Tensor) -> None:
            experts = _grid(recorder.latest(), recorder.grid) if has_experts else None
            frames.append(Frame(float(t[0]), to_pictures(x0)[0], experts))
            emit(frames[-1])

        wanted = None if request.choice is None else [request.choice]
        drawn = draw(run, wanted, [request.seed], request.settings, watch=watch)
    trace = recorder.trace() if has_experts else None
    flops = None if trace is None else int(spent_flops(run.model.config, trace).sum())
    emit(Drawing(tuple(frames), to_pictures(drawn)[0], trace, None if trace is None else _load(trace), flops))


def _grid(experts: Tensor, grid: Grid) -> np.ndarray:
    """Return (rows, columns) of experts per token, the mean over layers, from (layers, 1, tokens)."""
    return experts[:, 0].mean(0).reshape(grid.height, grid.width).numpy()


def _load(trace: RoutingTrace) -> np.ndarray:
    """Return (layers, experts) pairs over all evaluations."""
    return np.stack([trace.mask(layer)[:, 0].sum((0, 1)) for layer in range(len(trace.layers))])
