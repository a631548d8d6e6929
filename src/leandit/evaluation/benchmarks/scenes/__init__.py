"""A benchmark without a judge model: prompts of coloured shapes, and a scorer that reads the picture."""

from leandit.evaluation.benchmarks.scenes.prompts import (
    Claim,
    Claims,
    Prompt,
    benchmark_prompts,
    parse_claims,
    prompts_hash,
)
from leandit.evaluation.benchmarks.scenes.reader import Found, read_pictures
from leandit.evaluation.benchmarks.scenes.scorer import SCORER_VERSION, judge, score

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
