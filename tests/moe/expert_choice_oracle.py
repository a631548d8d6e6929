"""Expert choice as a loop, which the tests hold the fast selection to."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def best_in_groups(scores: np.ndarray, factor: Fraction | int, group_tokens: int) -> np.ndarray:
    """Return the chosen pairs of (batch, tokens, experts).

    Each expert takes floor(pairs / experts) tokens of a group, best first; the rest goes to the best next ones.
    """
    flat = scores.reshape(-1, scores.shape[-1])
    mask = np.zeros(flat.shape, bool)
    for start in range(0, len(flat), group_tokens):
        group = flat[start : start + group_tokens]
        keep, left = divmod(int(len(group) * factor), group.shape[1])
        order = np.argsort(-group, axis=0, kind="stable")
        for expert in range(group.shape[1]):
            mask[start + order[:keep, expert], expert] = True
        nexts = [(-group[order[keep, e], e], e) for e in range(group.shape[1])] if keep < len(group) else []
        for _, expert in sorted(nexts)[:left]:
            mask[start + order[keep, expert], expert] = True
    return mask.reshape(scores.shape)
