"""The training loop: one step is a pure function of the weights, the seed and the step's number."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leandit.data import Batch, Loader, Source
from leandit.diffusion import Noised, build_objective
from leandit.errors import LeanDiTError
from leandit.models import Backbone, BackboneOutput, Conditioning
from leandit.models.compilation import compiled
from leandit.moe import (
    CollapseWatch,
    RouterStats,
    combination_usage,
    combine,
    max_violation,
    post_step,
    router_stats,
    routers,
)
from leandit.random import Stream, normal, subsets, uniform
from leandit.run.checkpoint import Checkpoint
from leandit.run.conditioner import Conditioner, check_texts, wanted
from leandit.run.config import RunConfig
from leandit.run.folder import RunFolder
from leandit.run.identity import check_same_data, check_same_encoder, identity
from leandit.run.metrics import MetricsLog
from leandit.run.store import CheckpointStore
from leandit.text import TextEncoder, attach_finetuned
from leandit.training.callbacks import Callback, StepReport
from leandit.training.ema import EMA
from leandit.training.finite import check_finite, non_finite
from leandit.training.losses import loss_terms
from leandit.training.optimizers import build_optimizers, load_optimizer_tensors, optimizer_tensors
from leandit.training.signals import Stopped, StopRequest
from leandit.training.start import StartWeights, load_start
from leandit.training.utilisation import Utilisation

_log = logging.getLogger("leandit")


class Trainer:
    """Trains the model of a resolved config and keeps its folder; `fit` runs to the last step.

    `step` counts finished optimiser steps. Noise, times, dropped labels and the order of pictures are functions of
    (seed, sample index), so a resumed run computes the very steps that an unbroken one would have.
    """

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        folder: RunFolder,
        callbacks: Sequence[Callback] = (),
        text: TextEncoder | None = None,
    ) -> None:
        self.config = config
        self.source = source
        self.folder = folder
        self.callbacks = callbacks
        self.device = torch.device(config.train.device)
        self.conditioner = Conditioner(text, self.device)
        torch.manual_seed(config.seed)
        self.model: Backbone = config.model.build()
        attach_finetuned(self.model, text)
        self.model.to(self.device)
        self.model.recompute_layers(config.train.activation_checkpointing)
        self._forward: Callable[..., BackboneOutput] = compiled(self.model) if config.train.compile else self.model
        self.objective = build_objective(config.objective)
        self.optimizers = build_optimizers(config.optimizer, self.model)
        self._rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.ema = EMA(self.model, config.train.ema_decay)
        self.loader = Loader(source, config.data, config.train.batch_size, config.seed)
        self.store = CheckpointStore(folder.checkpoints, config.train.keep, config.train.keep_every)
        self.metrics = MetricsLog(folder.metrics)
        self.router_names = [name.removesuffix(".router") for name, _ in routers(self.model)]
        self.watch = CollapseWatch(self.router_names)
        self.stop = StopRequest()
        self.step = 0
        self._saved_step: int | None = None
        # Once: a picture that is deleted meanwhile must not make another data set of it.
        self._identity = identity(source, text)

    @property
    def averaged_weights(self) -> Mapping[str, Tensor]:
        """The moving average of the weights, by name."""
        return self.ema.tensors

    def start_from(self, start: StartWeights) -> None:
        """Begin with another run's weights, model and average alike, before the first step."""
        load_start(self.model, start, self.config, self._identity)
        self.ema = EMA(self.model, self.config.train.ema_decay)

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
        self.stop = stop
        self._utilisation = Utilisation(self.config)
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            self._loop(stop)
            if self.step >= self.config.train.steps:
                for callback in self.callbacks:
                    with contextlib.suppress(Stopped):
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
            mfu = self._utilisation.share(speed, self._text_tokens)
            for message in self.watch.update(stats):
                self.warn(message)
            if self.step % train.log_every == 0 or self.step in (1, train.steps):
                self._log({**parts, "images_per_second": speed, "mfu": mfu}, stats)
            # Before the callbacks, which may draw for minutes.
            if self.step % train.checkpoint_every == 0 or self.step == train.steps:
                self.save()
            for callback in self.callbacks:
                with contextlib.suppress(Stopped):
                    callback.on_step(self, StepReport(self.step, parts["loss"], speed, mfu))
        if self.step != self._saved_step:
            self.save()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            batch = next(batches)
            check_texts(self.config.text, batch)
            return batch
        except LeanDiTError:
            # A picture that cannot be read costs no finished step: once it is mended, the run goes on from here.
            if self.step:
                self.save()
            raise

    def save(self) -> None:
        """Publish a checkpoint of this step, unless it exists; one with weights that are not finite is refused."""
        check_finite("weights", self.model.state_dict(), self.step, self.store.steps())
        check_finite("averaged weights", self.ema.tensors, self.step, self.store.steps())
        groups = {
            "model": self.model.state_dict(),
            "ema": self.ema.tensors,
            "optimizer": optimizer_tensors(self.optimizers, self.model),
        }
        state = {
            "samples_seen": self.step * self.config.train.batch_size,
            **self._identity,
            "starved_steps": self.watch.counts,
        }
        self.store.publish(self.step, groups, state, self.config.model_dump(mode="json"))
        self._saved_step = self.step
        self.metrics.sync()

    def _load(self, checkpoint: Checkpoint) -> None:
        check_same_data(self.folder.path, checkpoint.state, self._identity)
        check_same_encoder(self.folder.path, checkpoint.state, self.config.text, self.conditioner.encoder)
        if checkpoint.step > self.config.train.steps:
            raise LeanDiTError(
                f"{self.folder.path}: train.steps = {self.config.train.steps}, but the run has a checkpoint of step "
                f"{checkpoint.step} already.\nResume with at least {checkpoint.step} steps, or start a new run in "
                "another --out"
            )
        self.model.load_state_dict(checkpoint.tensors("model"))
        self.ema.load(checkpoint.tensors("ema"))
        load_optimizer_tensors(self.optimizers, self.model, checkpoint.tensors("optimizer"))
        self.watch.restore(checkpoint.state.get("starved_steps", []))
        self.step = self._saved_step = checkpoint.step

    def _train_step(self, batch: Batch) -> tuple[dict[str, float], list[RouterStats]]:
        """One optimiser step; return its loss terms by name and the routers' statistics."""
        self._set_rates()
        self.model.train()
        accumulation = self.config.train.accumulation
        size = len(batch.indices) // accumulation
        sums: dict[str, Tensor] = {}
        routing: list[list[RouterStats]] = []
        for start in range(0, len(batch.indices), size):
            part = slice(start, start + size)
            terms, routed = self._micro_batch(batch, part)
            routing.append(routed)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + value / accumulation
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip or torch.inf)
        if not torch.isfinite(norm):
            raise non_finite("gradient", self.step + 1, batch.keys, self.store.steps())
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        stats = combine(routing)
        post_step(self.model, stats)
        self.ema.update(self.model, self.step)
        return {**{name: float(value) for name, value in sums.items()}, "gradient_norm": float(norm)}, stats

    def _micro_batch(self, batch: Batch, part: slice) -> tuple[dict[str, Tensor], list[RouterStats]]:
        noised, cond = self._draw(batch, part)
        self._text_tokens = 0 if cond.text is None else cond.text.shape[1]
        with self._autocast():
            output = self._forward(noised.x_t, noised.t, cond, **self._mask(batch.indices[part]))
        terms = loss_terms(self.model, output, self.objective, noised, self.config.losses)
        if not torch.isfinite(terms.total):
            bad = (~torch.isfinite(terms.per_sample)).nonzero()[:, 0].tolist()
            keys = batch.keys[part]
            raise non_finite("loss", self.step + 1, [keys[i] for i in bad] or keys, self.store.steps())
        (terms.total / self.config.train.accumulation).backward()
        return {
            "loss": terms.total.detach(),
            **{n: v.detach() for n, v in terms.parts.items()},
        }, router_stats(output.routers, len(self.router_names))

    def _draw(self, batch: Batch, part: slice) -> tuple[Noised, Conditioning]:
        """Noise the pictures of a micro-batch and drop some labels or captions, by (seed, sample index) alone."""
        seed, indices = self.config.seed, batch.indices[part]
        x0 = batch.images[part].to(self.device)
        eps = torch.from_numpy(normal(seed, Stream.NOISE, indices, tuple(x0.shape[1:]))).to(self.device)
        u = torch.from_numpy(uniform(seed, Stream.TIMESTEP, indices)).to(self.device)
        dropped = uniform(seed, Stream.LABEL_DROP, indices) < self.config.train.label_dropout
        texts = None if batch.texts is None else batch.texts[part]
        labels = None if batch.labels is None else batch.labels[part]
        return self.objective.draw(x0, u, eps), self.conditioner(wanted(self.config.model, texts, labels, dropped))

    def _mask(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return what tells the model which tokens it sees, by (seed, sample index) alone; without masking nothing."""
        if not self.config.train.mask_ratio:
            return {}
        tokens = self.model.grid.tokens
        visible = self.config.train.visible_tokens(tokens)
        drawn = subsets(self.config.seed, Stream.MASK, indices, tokens, visible)
        return {"visible": torch.from_numpy(drawn).to(self.device)}

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
        self.write_metrics(values)

    def write_metrics(self, values: Mapping[str, Any]) -> None:
        """Append a line for this step to metrics.jsonl, and show it to the callbacks."""
        self.metrics.write(self.step, values)
        for callback in self.callbacks:
            callback.on_metrics(self, self.step, values)

    def warn(self, message: str) -> None:
        """Tell the callbacks what a person should know; where none listens, the log of the package."""
        line = f"step {self.step}: {message}"
        if not any(type(callback).on_warning is not Callback.on_warning for callback in self.callbacks):
            _log.warning(line)
        for callback in self.callbacks:
            callback.on_warning(self, line)
