"""Captions and pictures of the bundled emoji as pairs, and the concepts that the heads never see."""

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

# One concept in so many is kept from the heads, in both styles, to test them on what they never saw.
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

    `development` is another tenth, to choose settings by; the heads that are kept are fitted on it.
    """
    digest = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:8], "big")
    return digest % UNSEEN_ONE_IN == ("test", "development").index(part)


def stack(pairs: Sequence[Pair]) -> UInt8[Tensor, "samples height width channels"]:
    """Return the pictures of pairs as one tensor."""
    return torch.from_numpy(np.stack([pair.picture for pair in pairs]))
