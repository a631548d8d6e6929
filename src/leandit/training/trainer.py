"""The training loop. A step is a pure function of the weights, the seed and the number of the step."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leandit.data import Batch, Loader, Source
from leandit.errors import LeanDiTError
from leandit.run.checkpoint import STATE, Checkpoint
from leandit.run.config import RunConfig
from leandit.run.fit import check_config, check_state, check_tensors, specs_of
from leandit.run.folder import RunFolder
from leandit.run.identity import (
    CODEC,
    TASK,
    check_same_codec,
    check_same_data,
    check_same_encoder,
    check_same_task,
    identity,
    task_record,
)
from leandit.run.lock import RunLock
from leandit.run.manifest import UnfitCheckpoint
from leandit.run.metrics import MetricsLog
from leandit.run.presence import Presence
from leandit.run.store import CheckpointStore
from leandit.text import TextEncoder
from leandit.training.callbacks import Callback, StepReport
from leandit.training.ema import EMA
from leandit.training.finite import check_finite, gradient_error, loss_error
from leandit.training.optimizer_layout import check_optimizer_tensors, optimizer_layout
from leandit.training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from leandit.training.signals import Stopped, StopRequest
from leandit.training.start import StartWeights, load_start
from leandit.training.task import Task, TaskContext
from leandit.training.tasks import build_task
from leandit.training.utilisation import Utilisation

_log = logging.getLogger("leandit")


class Trainer:
    """Trains the module of a task and writes the run's folder. `fit` runs to the last step.

    `step` is the number of finished optimiser steps. Draws and the order of samples are functions of (seed, sample
    index), so a resumed run computes the same steps as a run without a stop. `task` replaces the task of the
    configuration. `lock` is checked between steps, so that no second process writes this run.
    """

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        folder: RunFolder,
        callbacks: Sequence[Callback] = (),
        text: TextEncoder | None = None,
        task: Task | None = None,
        lock: RunLock | None = None,
    ) -> None:
        self.config = config
        self.source = source
        self.text = text
        self.folder = folder
        self.callbacks = callbacks
        self.device = torch.device(config.train.device)
        self.task = task if task is not None else build_task(TaskContext(config, source, text, self.device))
        self.model = self.task.module.to(self.device)
        self.codec = config.build_codec()
        self.optimizers = build_optimizers(config.optimizer, self.model)
        self._rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.ema = EMA(self.model, config.train.ema_decay)
        self.loader = Loader(source, config.data, config.train.batch_size, config.seed, self.task.draw)
        self.store = CheckpointStore(folder.checkpoints, config.train.keep, config.train.keep_every, folder.claim_id())
        self.metrics = MetricsLog(folder.metrics)
        self.presence = Presence(folder.path)
        self.lock = lock
        self.stop = StopRequest()
        self.step = 0
        self._saved_step: int | None = None
        self._tried_step: int | None = None
        # Computed once: a picture that is deleted during training must not change the identity.
        self._identity = identity(source, text)

    @property
    def averaged_weights(self) -> Mapping[str, Tensor]:
        """The moving average of the weights, by name."""
        return self.ema.tensors

    def start_from(self, start: StartWeights) -> None:
        """Set the weights and their average to the weights of another run. Call it before the first step."""
        codec = json.loads(json.dumps(dict(self.codec.identity)))  # as a checkpoint has it
        load_start(self.model, start, self.config, {**self._identity, CODEC: codec})
        self.ema = EMA(self.model, self.config.train.ema_decay)

    def resume(self) -> bool:
        """Continue from the newest intact checkpoint that fits this run. Return whether there was one."""
        loaded = self.store.read(self._load)
        if loaded is None and (damaged := self.store.set_aside()):
            raise LeanDiTError(
                f"{self.folder.checkpoints}: no intact checkpoint to resume from; the damaged ones were renamed to "
                f"{', '.join(damaged)}.\nRestore one from a copy under its old name, or start again in another --out"
            )
        if loaded is not None and (mark := loaded.state.get("metrics")) is not None:
            self.metrics.check_mark(mark)
        self.metrics.truncate_after(self.step)
        return loaded is not None

    def fit(self, stop: StopRequest) -> None:
        """Train to the last step, or until `stop` is set. Publish a checkpoint at the end in both cases."""
        self.stop = stop
        self._utilisation = Utilisation(self.config)
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            with stop.shielded():
                self._loop(stop)
            if self.step >= self.config.train.steps:
                for callback in self.callbacks:
                    with contextlib.suppress(Stopped):
                        callback.on_finish(self)
        finally:
            self.metrics.close()
            self.presence.close()
            with contextlib.ExitStack() as ends:  # All of them run, even if one raises.
                for callback in reversed(self.callbacks):
                    ends.callback(callback.on_end, self)

    def _loop(self, stop: StopRequest) -> None:
        train = self.config.train
        batches = self.loader.batches(self.step)
        while self.step < train.steps and not stop.requested:
            started = time.perf_counter()
            losses, numbers, flops = self._train_step(self._next(batches))
            self.step += 1
            seconds = time.perf_counter() - started
            speed, mfu = train.batch_size / seconds, self._utilisation.share(flops / seconds)
            try:
                self._after_step(stop, losses, numbers, speed, mfu)
            except BaseException:
                self._save_before_leaving()
                raise
        if self.step != self._saved_step:
            self.save()

    def _after_step(
        self, stop: StopRequest, losses: dict[str, float], numbers: dict[str, np.ndarray], speed: float, mfu: float
    ) -> None:
        """Log, save and call the callbacks."""
        train = self.config.train
        for message in self.task.watch(numbers):
            self.warn(message)
        if self.step % train.log_every == 0 or self.step in (1, train.steps):
            factor = self.config.schedule.factor(self.step - 1, train.steps)
            values = {**losses, "images_per_second": speed, "mfu": mfu, "learning_rate_factor": factor}
            self.write_metrics({**values, **self.task.report(numbers)})
        # Save before the callbacks run, because they may draw for minutes.
        due = self.step % train.checkpoint_every == 0 or self.step == train.steps or stop.save_requested
        if due or not self.presence.is_here():
            self.save()
        for callback in self.callbacks:
            with contextlib.suppress(Stopped), stop.interruptible():
                callback.on_step(self, StepReport(self.step, losses["loss"], speed, mfu))

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            with self.stop.interruptible():
                return next(batches)
        except BaseException:
            # An unreadable picture loses no finished step: after a repair the run continues from here.
            self._save_before_leaving()
            raise

    def _save_before_leaving(self) -> None:
        """Save the finished steps while an error ends the training. The error matters more than one of this save."""
        if not self.step or self.step in (self._saved_step, self._tried_step):
            return
        try:
            self.save()
        except LeanDiTError as error:
            _log.error("step %d could not be saved: %s", self.step, error)

    def save(self) -> None:
        """Publish a checkpoint of this step, unless it exists. No signal interrupts it.

        Raises LeanDiTError if weights are not finite, if another process writes this run, or if the run's folder has
        moved or was deleted. In a folder that has moved the checkpoint is saved first.
        """
        with self.stop.shielded():
            self._tried_step = self.step
            moved = self.presence.moved()
            if moved is not None:
                self.store.folder = moved / self.store.folder.name
            if self.lock is not None:
                self.lock.check(moved or self.folder.path)
            self._publish()
            self.stop.save_requested = False
            if moved is not None:
                raise LeanDiTError(
                    f"{self.folder.path}: the run's folder was moved to {moved} during training. The checkpoint of "
                    f"step {self.step} was saved there.\nContinue with --out {moved} --resume"
                )

    def _publish(self) -> None:
        where = (self.folder.path, self.store.steps())
        check_finite("weights", self.model.state_dict(), self.step, *where)
        check_finite("averaged weights", self.ema.tensors, self.step, *where)
        # First, so that after a power cut no checkpoint is there without the lines before it.
        lost_lines: LeanDiTError | None = None
        try:
            self.metrics.sync()
        except LeanDiTError as error:
            lost_lines = error  # The checkpoint matters more than the lines.
        groups = {
            "model": self.model.state_dict(),
            "ema": self.ema.tensors,
            "optimizer": optimizer_tensors(self.optimizers, self.model),
        }
        state = {
            "samples_seen": self.step * self.config.train.batch_size,
            **self._identity,
            CODEC: dict(self.codec.identity),
            TASK: task_record(self.task, self.task.identity, self.task.state()),
            "metrics": self.metrics.mark(),
            # Parameters that have had no gradient yet have no state.
            "idle_parameters": [name for name, p in self.model.named_parameters() if not self._has_state(p)],
        }
        self.store.publish(self.step, groups, state, self.config.model_dump(mode="json"))
        self._saved_step = self.step
        if lost_lines is not None:
            raise lost_lines

    def _has_state(self, parameter: Tensor) -> bool:
        return any(optimizer.state.get(parameter) for optimizer in self.optimizers)

    def _load(self, checkpoint: Checkpoint) -> Checkpoint:
        """Restore everything from a checkpoint. Raises UnfitCheckpoint, which names the file, if it does not fit."""
        check_state(checkpoint)
        check_config(checkpoint, self.config)
        state, file = checkpoint.state, checkpoint.path / STATE
        source = self.config.data.source.model_dump(mode="json")
        check_same_data(file, state, self._identity, moved=checkpoint.config["data"]["source"] != source)
        check_same_codec(file, state, self.codec)
        check_same_task(file, state, task_record(self.task, self.task.identity, {}))
        check_same_encoder(file, state, self.config.text, self.text)
        seen = checkpoint.step * self.config.train.batch_size
        if state.get("samples_seen", seen) != seen:
            raise UnfitCheckpoint(
                f"{file}: samples_seen is {state['samples_seen']}, but {seen} after {checkpoint.step} steps"
            )
        if checkpoint.step > self.config.train.steps:
            raise LeanDiTError(
                f"{self.folder.path}: train.steps = {self.config.train.steps}, but the run has a checkpoint of step "
                f"{checkpoint.step} already.\nResume with at least {checkpoint.step} steps, or start a new run in "
                "another --out"
            )
        try:
            # Before there were tasks, denoising had its state among the rest.
            self.task.load_state(state[TASK]["state"] if TASK in state else state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnfitCheckpoint(f"{file}: the state of the task is invalid: {error!r}") from None
        self._load_tensors(checkpoint)
        self.step = self._saved_step = checkpoint.step
        return checkpoint

    def _load_tensors(self, checkpoint: Checkpoint) -> None:
        """Check and load one group after the other, so that no two of them are in memory at the same time."""
        step, expected = checkpoint.step, specs_of(self.ema.tensors)
        weights = checkpoint.tensors("model")
        check_tensors(checkpoint.file("model"), weights, expected, step)
        self.model.load_state_dict(weights)
        del weights
        averages = checkpoint.tensors("ema")
        check_tensors(checkpoint.file("ema"), averages, expected, step)
        self.ema.load(averages)
        del averages
        moments = checkpoint.tensors("optimizer")
        layout, idle = optimizer_layout(self.optimizers, self.model), checkpoint.state.get("idle_parameters")
        if idle is None and checkpoint.manifest.version > 1:
            idle = []
        check_optimizer_tensors(checkpoint.file("optimizer"), moments, layout, idle, step)
        for optimizer in self.optimizers:
            optimizer.state.clear()
        load_optimizer_tensors(self.optimizers, self.model, moments)

    def _train_step(self, batch: Batch) -> tuple[dict[str, float], dict[str, np.ndarray], float]:
        """Make one optimiser step. Return losses by name, the task's numbers, and the FLOPs of both passes.

        The host waits for the device once: it reads all numbers before the update, so that an update that is not finite
        never reaches the weights.
        """
        self._set_rates()
        self.model.train()
        accumulation = self.config.train.accumulation
        size = len(batch.indices) // accumulation
        on_device = _to_device(batch, self.device)
        steps = []
        for start in range(0, len(batch.indices), size):
            step = self.task.forward(on_device, slice(start, start + size))
            (step.loss / accumulation).backward()
            parts = {name: part.detach() for name, part in step.parts.items()}
            steps.append(replace(step, loss=step.loss.detach(), per_sample=step.per_sample.detach(), parts=parts))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip or torch.inf)
        if "loss" in steps[0].parts:
            raise ValueError("a task named a part of its loss 'loss', which is the whole: give it another name")
        losses = {"loss": [step.loss for step in steps]}
        losses |= {name: [step.parts[name] for step in steps] for name in steps[0].parts}
        means = {f"loss/{name}": torch.stack([v / accumulation for v in part]).sum() for name, part in losses.items()}
        numbers = _read(
            {
                **means,
                "gradient_norm": norm,
                "finite": torch.cat([step.per_sample.isfinite() for step in steps]),
                **{f"task/{name}": value for name, value in self.task.numbers(steps).items()},
            }
        )
        values = {name: float(numbers.pop(f"loss/{name}")) for name in losses}
        values["gradient_norm"] = float(numbers.pop("gradient_norm"))
        self._check_finite(values, numbers.pop("finite"), batch.keys)
        numbers = {name.removeprefix("task/"): value for name, value in numbers.items()}
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.task.after_step(steps)
        self.ema.update(self.model, self.step)
        # The backward pass counts as two forward passes.
        return values, numbers, 3 * sum(step.flops for step in steps)

    def _check_finite(self, values: Mapping[str, float], finite: np.ndarray, keys: Sequence[str]) -> None:
        """Raise LeanDiTError, which names what is to blame, if the loss or the gradient is not finite."""
        step, where = self.step + 1, (self.folder.path, self.store.steps())
        named = dict(self.model.named_parameters())
        if not np.isfinite(values["loss"]):
            bad = [key for key, good in zip(keys, finite, strict=True) if not good]
            parts = [name for name in values.keys() - {"loss", "gradient_norm"} if not np.isfinite(values[name])]
            raise loss_error(step, bad, parts, named, *where)
        if not np.isfinite(values["gradient_norm"]):
            gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
            raise gradient_error(step, gradients, *where)

    def _set_rates(self) -> None:
        factor = self.config.schedule.factor(self.step, self.config.train.steps)
        groups = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def write_metrics(self, values: Mapping[str, Any]) -> None:
        """Append a line for this step to metrics.jsonl, and pass it to the callbacks."""
        self.metrics.write(self.step, values)
        for callback in self.callbacks:
            callback.on_metrics(self, self.step, values)

    def warn(self, message: str) -> None:
        """Pass a warning for the user to the callbacks. If no callback handles warnings, log it."""
        line = f"step {self.step}: {message}"
        if not any(type(callback).on_warning is not Callback.on_warning for callback in self.callbacks):
            _log.warning(line)
        for callback in self.callbacks:
            callback.on_warning(self, line)

    def drawing(self, what: str, done: int, total: int) -> None:
        """Pass the progress of a drawing to the callbacks."""
        for callback in self.callbacks:
            callback.on_drawing(self, what, done, total)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on the device. Copies come from pinned memory, so the host does not wait."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    return replace(
        batch,
        images=move(batch.images),
        labels=None if batch.labels is None else move(batch.labels),
        draws={name: move(value) for name, value in batch.draws.items()},
    )


def _read(numbers: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the tensors as arrays. They are copied from the device as one vector."""
    vector = torch.cat([value.detach().reshape(-1).double() for value in numbers.values()]).cpu().numpy()
    sizes = [value.numel() for value in numbers.values()]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: part.reshape(value.shape) for (name, value), part in zip(numbers.items(), parts, strict=True)}
