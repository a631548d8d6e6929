"""The training loop: one step is a pure function of the weights, the seed and the step's number."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leandit.data import Batch, Loader, Source
from leandit.diffusion import Noised, build_objective
from leandit.errors import LeanDiTError
from leandit.models import Conditioning
from leandit.moe import (
    CollapseWatch,
    RouterOutput,
    RouterStats,
    combination_usage,
    max_violation,
    post_step,
    router_stats,
    routers,
)
from leandit.random import Stream, normal, uniform
from leandit.train.callbacks import Callback, StepReport
from leandit.train.checkpoint import Checkpoint
from leandit.train.config import RunConfig
from leandit.train.ema import EMA
from leandit.train.folder import RunFolder
from leandit.train.losses import loss_terms
from leandit.train.metrics import MetricsLog
from leandit.train.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from leandit.train.signals import StopRequest
from leandit.train.store import CheckpointStore


class Trainer:
    """Trains the model of a resolved config and keeps its folder; `fit` runs to the last step.

    `step` counts finished optimiser steps. Noise, times, dropped labels and the order of pictures are functions of
    (seed, sample index), so a resumed run computes the very steps that an unbroken one would have.
    """

    def __init__(
        self, config: RunConfig, source: Source, folder: RunFolder, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.config = config
        self.source = source
        self.folder = folder
        self.callbacks = callbacks
        self.device = torch.device(config.train.device)
        torch.manual_seed(config.seed)
        self.model = config.model.build().to(self.device)
        self.model.activation_checkpointing = config.train.activation_checkpointing
        self.objective = build_objective(config.objective)
        self.optimizers = build_optimizers(config.optimizer, self.model)
        self._rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.ema = EMA(self.model, config.train.ema_decay)
        self.loader = Loader(source, config.data, config.train.batch_size, config.seed)
        self.store = CheckpointStore(folder.checkpoints, config.train.keep, config.train.keep_every)
        self.metrics = MetricsLog(folder.metrics)
        self.router_names = [name.removesuffix(".router") for name, _ in routers(self.model)]
        self.watch = CollapseWatch(self.router_names)
        self.step = 0

    def resume(self) -> bool:
        """Go on from the newest checkpoint that verifies; return whether there was one."""
        checkpoint = self.store.newest()
        if checkpoint is not None:
            self._load(checkpoint)
        elif damaged := self.store.set_aside():
            raise LeanDiTError(
                f"{self.folder.checkpoints}: no intact checkpoint to resume from; the damaged ones were renamed to "
                f"{', '.join(damaged)}.\nRestore one from a copy under its old name, or start anew in another --out"
            )
        self.metrics.truncate_after(self.step)
        return checkpoint is not None

    def fit(self, stop: StopRequest) -> None:
        """Train to the last step, or until `stop` is set; publish a checkpoint at the end in both cases."""
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            self._loop(stop)
            if self.step >= self.config.train.steps:
                for callback in self.callbacks:
                    callback.on_finish(self)
        finally:
            self.metrics.close()
            for callback in self.callbacks:
                callback.on_end(self)

    def _loop(self, stop: StopRequest) -> None:
        train = self.config.train
        batches = self.loader.batches(self.step)
        while self.step < train.steps and not stop.requested:
            started = time.perf_counter()
            parts, stats = self._train_step(self._next(batches))
            self.step += 1
            speed = train.batch_size / (time.perf_counter() - started)
            for message in self.watch.update(stats):
                self.warn(message)
            if self.step % train.log_every == 0 or self.step in (1, train.steps):
                self._log({**parts, "images_per_second": speed}, stats)
            for callback in self.callbacks:
                callback.on_step(self, StepReport(self.step, parts["loss"], speed))
            if self.step % train.checkpoint_every == 0 and self.step < train.steps:
                self.save()
        self.save()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            return next(batches)
        except LeanDiTError:
            # A picture that cannot be read costs no finished step: once it is mended, the run goes on from here.
            if self.step:
                self.save()
            raise

    def save(self) -> None:
        """Publish a checkpoint of this step, unless it exists."""
        self.metrics.sync()
        groups = {
            "model": self.model.state_dict(),
            "ema": self.ema.tensors,
            "optimizer": optimizer_tensors(self.optimizers, self.model),
        }
        state = {
            "samples_seen": self.step * self.config.train.batch_size,
            "class_names": list(self.source.class_names),
            "pictures": len(self.source),
        }
        self.store.publish(self.step, groups, state, self.config.model_dump(mode="json"))

    def _load(self, checkpoint: Checkpoint) -> None:
        before = (checkpoint.state["pictures"], tuple(checkpoint.state["class_names"]))
        if before != (len(self.source), self.source.class_names):
            raise LeanDiTError(
                f"{self.folder.path}: the data has changed: {before[0]} pictures in {len(before[1])} classes when the "
                f"run was stopped, {len(self.source)} in {len(self.source.class_names)} now.\n"
                "Put the pictures back as they were, or start a new run in another --out"
            )
        self.model.load_state_dict(checkpoint.tensors("model"))
        self.ema.load(checkpoint.tensors("ema"))
        load_optimizer_tensors(self.optimizers, self.model, checkpoint.tensors("optimizer"))
        self.step = checkpoint.step

    def _train_step(self, batch: Batch) -> tuple[dict[str, float], list[RouterStats]]:
        """One optimiser step; return its loss terms by name and the routers' statistics."""
        self._set_rates()
        self.model.train()
        accumulation = self.config.train.accumulation
        size = len(batch.indices) // accumulation
        sums: dict[str, Tensor] = {}
        outputs: list[Sequence[RouterOutput]] = []
        for start in range(0, len(batch.indices), size):
            part = slice(start, start + size)
            terms, routing = self._micro_batch(batch, part)
            outputs.append(routing)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + value / accumulation
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip or torch.inf)
        if not torch.isfinite(norm):
            raise self._non_finite("gradient", batch.keys)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        stats = router_stats(outputs)
        post_step(self.model, stats)
        self.ema.update(self.model, self.step)
        return {**{name: float(value) for name, value in sums.items()}, "gradient_norm": float(norm)}, stats

    def _micro_batch(self, batch: Batch, part: slice) -> tuple[dict[str, Tensor], Sequence[RouterOutput]]:
        noised, cond = self._draw(batch, part)
        with self._autocast():
            output = self.model(noised.x_t, noised.t, cond)
        terms = loss_terms(self.model, output, self.objective, noised, self.config.losses)
        if not torch.isfinite(terms.total):
            bad = (~torch.isfinite(terms.per_sample)).nonzero()[:, 0].tolist()
            keys = batch.keys[part]
            raise self._non_finite("loss", [keys[i] for i in bad] or keys)
        (terms.total / self.config.train.accumulation).backward()
        return {
            "loss": terms.total.detach(),
            **{n: v.detach() for n, v in terms.parts.items()},
        }, output.routers

    def _draw(self, batch: Batch, part: slice) -> tuple[Noised, Conditioning]:
        """Noise the pictures of a micro-batch and drop some labels, by (seed, sample index) alone."""
        seed, indices = self.config.seed, batch.indices[part]
        x0 = batch.images[part].to(self.device)
        eps = torch.from_numpy(normal(seed, Stream.NOISE, indices, tuple(x0.shape[1:]))).to(self.device)
        u = torch.from_numpy(uniform(seed, Stream.TIMESTEP, indices)).to(self.device)
        label = None
        if batch.labels is not None and self.config.model.num_classes:
            kept = torch.from_numpy(uniform(seed, Stream.LABEL_DROP, indices) >= self.config.train.label_dropout)
            label = torch.where(kept, batch.labels[part], -1).to(self.device)
        return self.objective.draw(x0, u, eps), Conditioning(label)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16")

    def _set_rates(self) -> None:
        factor = self.config.schedule.factor(self.step, self.config.train.steps)
        groups = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def _log(self, parts: dict[str, float], stats: Sequence[RouterStats]) -> None:
        values: dict[str, Any] = {
            **parts,
            "learning_rate_factor": self.config.schedule.factor(self.step - 1, self.config.train.steps),
        }
        for (name, router), layer in zip(routers(self.model), stats, strict=True):
            name = name.removesuffix(".router")
            values[f"max_violation/{name}"] = max_violation(layer.load)
            values[f"combination_usage/{name}"] = combination_usage(layer.co_selection)
            values[f"load/{name}"] = (layer.load / layer.load.sum()).tolist()
            if router.spans_samples:
                values[f"threshold/{name}"] = router.threshold.value.tolist()
        self.metrics.write(self.step, values)
        for callback in self.callbacks:
            callback.on_metrics(self, self.step, values)

    def warn(self, message: str) -> None:
        """Tell the callbacks what a person should know."""
        for callback in self.callbacks:
            callback.on_warning(self, f"step {self.step}: {message}")

    def _non_finite(self, what: str, keys: Sequence[str]) -> LeanDiTError:
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        saved = self.store.steps()
        return LeanDiTError(
            f"step {self.step + 1}: the {what} is not finite; stopped before it reached the weights.\n"
            f"Samples: {shown}\n"
            f"Newest checkpoint: {f'step {saved[-1]}' if saved else 'none yet'}. "
            "Lower optimizer.lr, lengthen schedule.warmup_steps, set train.precision=fp32, or look at these samples"
        )
