"""How pairs are distributed over the picture, over the sampling time, and over the busiest tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float, Int

from leandit.models import BackboneConfig
from leandit.models.cost import forward_flops
from leandit.probing.routing import RoutingTrace


def moments(times: Float[np.ndarray, " calls"], most: int) -> list[list[int]]:
    """Return the calls of each moment, from noise to picture. A moment is one time or several neighbouring times.

    There are at most `most` moments. Every call is in exactly one, so sums over moments are sums over calls.
    """
    distinct = np.unique(times)[::-1]
    parts = np.array_split(distinct, min(most, len(distinct)))
    return [np.flatnonzero(np.isin(times, part)).tolist() for part in parts]


def moment_sums(
    counts: Int[np.ndarray, "calls *rest"], calls: Sequence[Sequence[int]]
) -> Int[np.ndarray, "moments *rest"]:
    """Return the sum over the calls of each moment."""
    return np.stack([counts[list(part)].sum(0) for part in calls])


def top_shares(
    counts: Int[np.ndarray, "calls layers batch tokens"], fractions: Sequence[float]
) -> Float[np.ndarray, "layers fractions"]:
    """Return the share of a layer's pairs that goes to the given fractions of tokens: those with the most experts.

    In each picture and call, the ceil(fraction L) busiest of L tokens count. Under a uniform allocation the share
    equals the fraction. It is 0 for a layer without pairs.
    """
    ordered = -np.sort(-counts, axis=-1)
    totals = counts.sum((0, 2, 3)).clip(1)
    kept = [ceil(round(fraction * counts.shape[-1], 9)) for fraction in fractions]
    return np.stack([ordered[..., :number].sum((0, 2, 3)) / totals for number in kept], 1)


def largest_share(
    counts: Int[np.ndarray, "calls layers batch tokens"], num_experts: int
) -> Float[np.ndarray, " layers"]:
    """Return, for each layer, the largest share of its experts that one token had in one call.

    EC-DiT reports up to 44 % of a layer's compute for one token; 28 of 64 experts are 44 %. It cannot be a share of
    all pairs: a group of 512 tokens has 1,024 pairs, and one token gets at most 64 of them, or 6 %.

    Reference: EC-DiT (arXiv 2410.02098), its text on results; the interpretation is ours.
    """
    return counts.max((0, 2, 3)) / num_experts


def spent_flops(config: BackboneConfig, trace: RoutingTrace) -> Int[np.ndarray, "calls batch"]:
    """Return the FLOPs of each call for each picture from its actual pairs. Under guidance its twin is included.

    This is `models.cost.forward_flops` with the actual pairs instead of k experts per token. A pair has 4 d h FLOPs
    for experts of width h (SwiGLU: 6 d h). The embedding of text counts in every call, but a sampler computes it once.
    """
    pairs = trace.counts.sum((1, 3)) + trace.twin_pairs.sum(1)
    return _flops_without_pairs(config, trace) + _pair_flops(config) * pairs


def budget_flops(config: BackboneConfig, trace: RoutingTrace) -> Int[np.ndarray, "calls batch"]:
    """Return the FLOPs of each call for each picture if tokens get k experts on average, or those of inference."""
    assert config.moe is not None
    pairs = int(len(trace.layers) * config.grid.tokens * config.moe.experts_per_token(training=False))
    return _flops_without_pairs(config, trace) + trace.passes[:, None] * pairs * _pair_flops(config)


def _pair_flops(config: BackboneConfig) -> int:
    moe = config.moe
    assert moe is not None
    return 2 * (3 if moe.expert == "swiglu" else 2) * config.dim * moe.expert_hidden(config.hidden)


def _flops_without_pairs(config: BackboneConfig, trace: RoutingTrace) -> Int[np.ndarray, "calls batch"]:
    """Return the FLOPs of each call for each picture without its experts; `forward_flops` has those of training."""
    assert config.moe is not None
    trained = int(len(trace.layers) * config.grid.tokens * config.moe.experts_per_token()) * _pair_flops(config)
    lengths, place = np.unique(trace.text_tokens, return_inverse=True)
    fixed = np.array([forward_flops(config, int(length)) - trained for length in lengths])
    return trace.passes[:, None] * fixed[place.reshape(trace.text_tokens.shape)]
