"""The alignment score: whether a picture of an emoji fits its caption, by heads fitted on the bundled emoji."""

from leandit.evaluation.alignment.heads import AlignmentHeads, load_heads
from leandit.evaluation.alignment.metric import AlignmentJudge, RPrecision, r_precision
from leandit.evaluation.alignment.pairs import Pair, is_unseen, pairs_of

__all__ = [
    "AlignmentHeads",
    "AlignmentJudge",
    "Pair",
    "RPrecision",
    "is_unseen",
    "load_heads",
    "pairs_of",
    "r_precision",
]
