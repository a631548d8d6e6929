"""Captions and pictures of the bundled emoji as pairs, with those that the heads never see and those to draw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from leandit.data import EmojiConfig, build_source
from leandit.errors import LeanDiTError
from leandit.evaluation.metric import Job
from leandit.evaluation.plans import need_prompts
from leandit.random import Stream, generator

# One concept in ten is kept from the heads, in both styles, to test them on unseen concepts.
UNSEEN_ONE_IN = 10


@dataclass(frozen=True)
class Pair:
    """One emoji: the concept that it shows, its caption, and its picture, uint8 [32, 32, 3]."""

    concept: str
    caption: str
    picture: np.ndarray


def pairs_of(config: EmojiConfig) -> list[Pair]:
    """Return the chosen emoji in their order; the concept is the caption without its style."""
    source = build_source(config)
    examples = [source[index] for index in range(len(source))]
    return [Pair(str(e.text).rsplit(", ", 1)[0], str(e.text), e.image) for e in examples]


def is_unseen(concept: str, part: Literal["test", "development"] = "test") -> bool:
    """Return whether a concept is kept from the heads: a pure function of its name.

    `development` is another tenth, for the choice of settings; the final heads are fitted on it.
    """
    digest = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:8], "big")
    return digest % UNSEEN_ONE_IN == ("test", "development").index(part)


def stack(pairs: Sequence[Pair]) -> UInt8[Tensor, "samples height width channels"]:
    """Return the pictures of pairs as one tensor."""
    return torch.from_numpy(np.stack([pair.picture for pair in pairs]))


TRAINING, HELD_OUT = "training concepts", "held-out pairs"
# With fewer samples a share is uncertain by more than five points (one standard error).
LEAST_SAMPLES = 100
_SEED = 0


def groups_of(job: Job) -> dict[str, list[Pair]]:
    """Return the pairs to draw, by group; raise LeanDiTError for a run that did not learn from captions of emoji.

    `training concepts` are `job.num_samples` captions that the run learned from. `held-out pairs` are at most as many
    captions whose concept it knows only in the other style; if the run held nothing out, there is no such group.
    Concepts that the heads never saw are in neither.
    """
    source = _emoji_of(job)
    shown = [pair for pair in pairs_of(source) if not is_unseen(pair.concept)]
    concepts, captions = {pair.concept for pair in shown}, {pair.caption for pair in shown}
    known = [pair for pair in pairs_of(source.replace(split="all")) if pair.concept in concepts]
    held_out = [pair for pair in known if pair.caption not in captions]
    if not shown:
        raise LeanDiTError(f"{job.run.path}: the heads of the alignment score know no concept of this run")
    groups = {TRAINING: spread(shown, job.num_samples)}
    if held_out:
        groups[HELD_OUT] = spread(held_out, min(len(held_out), job.num_samples))
    return groups


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return `count` pairs: every concept once before any twice, its styles in turn, then all of it again."""
    by_concept: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_concept.setdefault(pair.concept, []).append(pair)
    members = list(by_concept.values())
    order = [members[i] for i in generator(_SEED, Stream.VALIDATION, 0).permutation(len(members))]
    most = max(len(styles) for styles in order)
    rounds = [
        styles[(place + turn) % len(styles)]
        for turn in range(most)
        for place, styles in enumerate(order)
        if turn < len(styles)
    ]
    return [rounds[i % len(rounds)] for i in range(count)]


def _emoji_of(job: Job) -> EmojiConfig:
    source = job.run.config.data.source
    need_prompts(job, "r_precision")
    if not isinstance(source, EmojiConfig):
        raise LeanDiTError(
            f"{job.run.path}: learned from {source.type!r} data; the heads of the alignment score were fitted on the "
            "bundled emoji only and say nothing of other pictures. Choose another metric, such as clip_score"
        )
    if job.num_samples < LEAST_SAMPLES:
        raise LeanDiTError(
            f"r_precision needs at least {LEAST_SAMPLES} samples, {job.num_samples} were asked for; "
            f"give --num-samples {LEAST_SAMPLES} or more"
        )
    return source
