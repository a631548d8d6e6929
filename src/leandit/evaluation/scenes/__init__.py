"""A compositional benchmark without a judge model: prompts of coloured shapes, and a scorer that reads the picture."""

from leandit.evaluation.scenes.claims import Claim, Claims, parse_claims
from leandit.evaluation.scenes.prompts import Prompt, benchmark_prompts, prompts_hash
from leandit.evaluation.scenes.reader import Found, read_pictures
from leandit.evaluation.scenes.scorer import SCORER_VERSION, judge, score

__all__ = [
    "SCORER_VERSION",
    "Claim",
    "Claims",
    "Found",
    "Prompt",
    "benchmark_prompts",
    "judge",
    "parse_claims",
    "prompts_hash",
    "read_pictures",
    "score",
]
