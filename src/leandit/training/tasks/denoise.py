"""Denoising: the model predicts the target of the run's objective from noised samples."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import Polynomial
from torch import Tensor

from leandit.data import Batch
from leandit.diffusion import build_objective
from leandit.models import Backbone, Conditioning, compile_layers, forward_flops, recompute_layers
from leandit.moe import (
    CollapseWatch,
    RouterStats,
    after_step,
    combination_usage,
    combine,
    max_violation,
    router_stats,
    routers,
)
from leandit.random import Stream, normal, subsets, uniform
from leandit.run.conditioner import NO_CAPTION, NO_LABEL, Conditioner, check_texts
from leandit.run.held_out import draw_held_out, loss_per_picture
from leandit.text import attach_finetuned
from leandit.training.losses import loss_terms
from leandit.training.task import Step, Task, TaskContext


class DenoiseTask(Task):
    """Noises samples, predicts, and computes the objective's loss plus the auxiliary losses whose weight is not 0."""

    module: Backbone

    def __init__(self, context: TaskContext) -> None:
        self.config = config = context.config
        self.device = context.device
        torch.manual_seed(config.seed)
        self.module = config.model.build()
        attach_finetuned(self.module, context.text)
        self.module.to(self.device)
        recompute_layers(self.module, config.train.activation_checkpointing)
        if config.train.compile:
            compile_layers(self.module)
        self.objective = build_objective(config.objective)
        self.conditioner = Conditioner(context.text, self.device)
        self.codec = config.build_codec()
        self.shape = config.sample_shape()
        self.watch_loads = CollapseWatch([name.removesuffix(".router") for name, _ in routers(self.module)])
        self._flops = self._flops_by_text_length()

    def draw(self, batch: Batch) -> Batch:
        """Draw noise, times, dropped labels or captions, and visible tokens, from (seed, sample index) only."""
        config, indices = self.config, batch.indices
        check_texts(config.text, batch)
        draws = {
            "noise": torch.from_numpy(normal(config.seed, Stream.NOISE, indices, self.shape)),
            "u": torch.from_numpy(uniform(config.seed, Stream.TIMESTEP, indices)),
        }
        if config.train.mask_ratio:
            tokens = config.model.tokens(self.shape)
            visible = config.train.visible_tokens(tokens)
            draws["visible"] = torch.from_numpy(subsets(config.seed, Stream.MASK, indices, tokens, visible))
        dropped = uniform(config.seed, Stream.LABEL_DROP, indices) < config.train.label_dropout
        texts, labels = batch.texts, batch.labels
        if texts is not None and config.model.conditions_on_text:
            texts = tuple(NO_CAPTION if drop else text for text, drop in zip(texts, dropped, strict=True))
        if labels is not None:
            labels = torch.where(torch.from_numpy(dropped), NO_LABEL, labels)
        return replace(batch, texts=texts, labels=labels, draws=draws)

    def forward(self, batch: Batch, part: slice) -> Step:
        """Return the loss of a micro-batch."""
        x0 = self.codec.encode(batch.images[part])
        noised = self.objective.draw(x0, batch.draws["u"][part], batch.draws["noise"][part])
        cond = self._condition(batch, part)
        visible = {"visible": batch.draws["visible"][part]} if "visible" in batch.draws else {}
        with self._autocast():
            output = self.module(noised.x_t, noised.t, cond, **visible)
        terms = loss_terms(self.module, output, self.objective, noised, self.config.losses)
        stats = router_stats(output.routers, len(self.watch_loads.names)) if output.routers else []
        text_tokens = 0 if cond.text is None else cond.text.shape[1]
        return Step(terms.total, terms.per_sample, terms.parts, stats, len(x0) * float(self._flops(text_tokens)))

    def numbers(self, steps: Sequence[Step]) -> Mapping[str, Tensor]:
        """Return how often pairs of experts were chosen together in a step, of shape (routers, E, E)."""
        stats = _combined(steps)
        return {"co_selection": torch.stack([router.co_selection for router in stats])} if stats else {}

    def after_step(self, steps: Sequence[Step]) -> None:
        """Update the state of routers."""
        after_step(self.module, _combined(steps))

    def watch(self, numbers: Mapping[str, np.ndarray]) -> list[str]:
        """Return a warning for each expert that gets too few tokens."""
        if "co_selection" not in numbers:
            return []
        return self.watch_loads.update(numbers["co_selection"].diagonal(axis1=1, axis2=2))

    def report(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Return balance, combinations, loads and thresholds of each layer with experts.

        If no expert of a layer ran, its loads are 0, and it has no balance and no combinations.
        """
        values: dict[str, Any] = {}
        together: Sequence[Tensor] = [*torch.from_numpy(numbers["co_selection"])] if "co_selection" in numbers else []
        for name, pairs in zip(self.watch_loads.names, together, strict=True):
            load = pairs.diagonal()
            values[f"load/{name}"] = (load / load.sum().clamp(min=1)).tolist()
            if load.sum() > 0:  # without any pair there is nothing to be in balance
                values[f"max_violation/{name}"] = max_violation(load)
                values[f"combination_usage/{name}"] = combination_usage(pairs)
        found = {name: router.threshold for name, router in routers(self.module) if router.threshold is not None}
        if found:
            names = (name.removesuffix(".router") for name in found)
            # Of the thresholds of tokens their mean is enough.
            shown = [
                threshold.value.mean() if threshold.rows == "L" else threshold.value for threshold in found.values()
            ]
            thresholds = torch.stack(shown).tolist()
            values |= {f"threshold/{name}": value for name, value in zip(names, thresholds, strict=True)}
        return values

    def held_out(self, batch: Batch) -> Float[Tensor, " batch"]:
        """Return the objective's loss per sample, without auxiliary losses, with noise that belongs to the sample."""
        noised, cond = draw_held_out(self.config, self.objective, self.conditioner, self.codec, batch)
        return loss_per_picture(self.module, self.objective, noised, cond)

    def state(self) -> Mapping[str, Any]:
        """Return the number of consecutive steps in which each expert got too few tokens."""
        return {"starved_steps": self.watch_loads.counts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue to count from the saved numbers. Raises KeyError or ValueError if they are not one per expert."""
        counts = state["starved_steps"]
        moe = self.config.model.moe
        sizes = [] if moe is None else [moe.num_experts] * len(self.watch_loads.names)
        if not isinstance(counts, list) or not all(isinstance(row, list) for row in counts):
            raise ValueError("starved_steps is not a table of numbers")
        if counts and [len(row) for row in counts] != sizes:
            raise ValueError(f"starved_steps does not have one number per expert, {sizes}")
        if not all(type(count) is int and 0 <= count < 2**63 for row in counts for count in row):
            raise ValueError("starved_steps is not a table of whole numbers from 0")
        self.watch_loads.restore(counts)

    def _condition(self, batch: Batch, part: slice) -> Conditioning:
        if self.config.model.conditions_on_text:
            assert batch.texts is not None
            return self.conditioner(list(batch.texts[part]), checked=True)
        if batch.labels is None or not self.config.model.num_classes:
            return Conditioning()
        return Conditioning(batch.labels[part])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        # With its cache, a weight that layers share is cast once in forward, and recomputation misses the other casts.
        train = self.config.train
        cache = not train.activation_checkpointing
        return torch.autocast(self.device.type, torch.bfloat16, train.precision == "bf16", cache)

    def _flops_by_text_length(self) -> Polynomial:
        """Return the FLOPs of a picture as a function of the text's length, which is quadratic: counted at three."""
        train, model = self.config.train, self.config.model
        visible = train.visible_tokens(model.tokens(self.shape)) if train.mask_ratio else None
        lengths = (16, 32, 48) if model.conditions_on_text else (0,)
        counts = [forward_flops(model, length, visible) for length in lengths]
        return Polynomial.fit(lengths, counts, len(lengths) - 1)


def _combined(steps: Sequence[Step]) -> list[RouterStats]:
    return combine([step.stats for step in steps]) if steps[0].stats else []
