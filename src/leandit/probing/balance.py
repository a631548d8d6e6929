"""How experts share the work, and which pictures they serve: pure functions of recorded masks.

Legend: E experts. All counts are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def co_selection(mask: Bool[np.ndarray, "*tokens experts"]) -> Int[np.ndarray, "experts experts"]:
    """Return Mᵀ M: the number of tokens that have both experts. The diagonal is the load, in pairs per expert."""
    # In float64 BLAS computes the product; it is exact up to 2^53 tokens.
    m_TE = mask.reshape(-1, mask.shape[-1]).astype(np.float64)
    return (m_TE.T @ m_TE).astype(np.int64)


def combination_curve(together: Int[np.ndarray, "experts experts"]) -> Float[np.ndarray, " points"]:
    """Return the share of all co-selections that belongs to the most used 0, 1, 2, ... 100 % of expert pairs.

    The E(E-1)/2 unordered pairs are sorted by the number of tokens that have both experts. Shares between two numbers
    of pairs are interpolated. A diagonal means uniform use. A curve that rises at once means that a few pairs are
    chosen again and again. If no token has two experts, the curve is zero.

    Reference: Expert Race, Figure 13.
    """
    counts = np.sort(together[np.triu_indices(len(together), 1)].astype(np.float64))[::-1]
    if counts.sum() == 0:
        return np.zeros(101)
    shares = np.concatenate([[0.0], counts.cumsum() / counts.sum()])
    return np.interp(np.linspace(0, 1, 101), np.linspace(0, 1, len(shares)), shares)


def grouped_load(
    mask: Bool[np.ndarray, "calls batch tokens experts"], groups: Sequence[Sequence[int]]
) -> Int[np.ndarray, "groups experts"]:
    """Return the pairs per expert in the pictures of each group; a picture may be in several groups."""
    per_picture = mask.sum((0, 2), dtype=np.int64)
    return np.stack([per_picture[list(group)].sum(0) for group in groups])


def lift(
    load: Int[np.ndarray, "groups experts"], overall: Int[np.ndarray, " experts"]
) -> Float[np.ndarray, "groups experts"]:
    """Return (an expert's share of a group's pairs) / (its share of all pairs). 1 means no preference.

    It is also 1 for an expert without pairs, and for a group without pairs.
    """
    share_GE = load / load.sum(1, keepdims=True).clip(1)
    share_E = overall / max(overall.sum(), 1)
    known = (share_E > 0) & (load.sum(1, keepdims=True) > 0)
    return np.divide(share_GE, np.broadcast_to(share_E, share_GE.shape), out=np.ones_like(share_GE), where=known)


def words_of(prompts: Sequence[str]) -> dict[str, list[int]]:
    """Return the indices of the prompts that contain each word. Words are in lower case and without punctuation.

    The most frequent words come first. Words of equal frequency keep the order in which they appear.
    """
    places: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        words = (word.strip(".,;:!?()[]{}\"'") for word in prompt.lower().split())
        for word in dict.fromkeys(word for word in words if word):
            places.setdefault(word, []).append(index)
    return dict(sorted(places.items(), key=lambda item: -len(item[1])))


def cosines(vectors: Float[np.ndarray, "experts width"]) -> Float[np.ndarray, "experts experts"]:
    """Return the cosine between every two rows; 0 for a zero row."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit @ unit.T
