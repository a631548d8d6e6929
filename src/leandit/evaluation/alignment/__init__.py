"""The alignment score: whether a picture of an emoji belongs to its caption, by heads fitted on the bundled emoji."""

from leandit.evaluation.alignment.concepts import Pair, is_unseen, pairs_of
from leandit.evaluation.alignment.fitting import FitConfig, fit_heads
from leandit.evaluation.alignment.heads import AlignmentHeads, load_heads, save_heads
from leandit.evaluation.alignment.metric import AlignmentJudge, RPrecision
from leandit.evaluation.alignment.retrieval import r_precision, ranks

__all__ = [
    "AlignmentHeads",
    "AlignmentJudge",
    "FitConfig",
    "Pair",
    "RPrecision",
    "fit_heads",
    "is_unseen",
    "load_heads",
    "pairs_of",
    "r_precision",
    "ranks",
    "save_heads",
]
