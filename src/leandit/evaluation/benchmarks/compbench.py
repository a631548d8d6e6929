"""T2I-CompBench's BLIP-VQA score: whether a picture shows every noun phrase of its prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks.vqa import VQA, AskedMetric
from leandit.evaluation.extractors.weights import named_path
from leandit.evaluation.metric import Job

# From a prompt to its noun phrases, "a red book and a yellow vase" to "a red book", "a yellow vase".
NounPhrases = Callable[[str], Sequence[str]]
# The first phrases of a prompt are asked for; further ones are not, as in the benchmark.
MOST_PHRASES = 8
# spaCy takes these for noun phrases in "on the left of" and the like; the benchmark's release leaves them out too.
_PLACES = ("top", "the side", "the left", "the right")


@dataclass(frozen=True)
class PhrasedPrompt:
    """A prompt and its noun phrases."""

    prompt: str
    phrases: tuple[str, ...]


def phrases_score(picture: UInt8[Tensor, "height width channels"], phrases: Sequence[str], vqa: VQA) -> float:
    """Return the product over the first eight noun phrases of P(yes | picture, "phrase?"); 1 without any.

    Reference: T2I-CompBench (arXiv 2307.06350), section 4.1 (disentangled BLIP-VQA).
    """
    questions = [f"{phrase}?" for phrase in phrases[:MOST_PHRASES]]
    return float(vqa(picture, questions).double().prod()) if questions else 1.0


def read_phrased(path: Path, noun_phrases: NounPhrases | None = None) -> list[PhrasedPrompt]:
    """Return the prompts of a file and their noun phrases.

    A .jsonl file has both, {"prompt": ..., "phrases": [...]} in each line. Any other file has a prompt in each line,
    like the benchmark's color_val.txt, and is parsed by `noun_phrases`, by default spaCy's en_core_web_sm as in the
    benchmark.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise LeanDiTError(f"{path}: the prompts cannot be read: {error}") from None
    if not lines:
        raise LeanDiTError(f"{path}: holds no prompts; give a file with one a line")
    if path.suffix == ".jsonl":
        return [_read(path, number, line) for number, line in enumerate(lines, 1)]
    parse = noun_phrases or spacy_noun_phrases()
    return [PhrasedPrompt(line, tuple(parse(line))) for line in lines]


def spacy_noun_phrases() -> NounPhrases:
    """Return spaCy's parser of noun phrases; raise LeanDiTError if it or en_core_web_sm is not installed."""
    try:
        import spacy  # type: ignore[import-not-found]

        parse = spacy.load("en_core_web_sm")
    except (ImportError, OSError):
        raise LeanDiTError(
            "noun phrases of plain prompts come from spaCy, which is not installed with en_core_web_sm; install both, "
            'or give a .jsonl file with {"prompt": "...", "phrases": ["...", "..."]} a line'
        ) from None
    return lambda prompt: [str(chunk) for chunk in parse(prompt).noun_chunks if str(chunk) not in _PLACES]


def _read(path: Path, number: int, line: str) -> PhrasedPrompt:
    try:
        record = json.loads(line)
        prompt, phrases = record["prompt"], record["phrases"]
        assert isinstance(prompt, str)
        assert isinstance(phrases, list)
        assert all(isinstance(phrase, str) for phrase in phrases)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise LeanDiTError(
            f'{path}, line {number}: is not {{"prompt": "...", "phrases": ["...", ...]}}; correct it'
        ) from None
    return PhrasedPrompt(prompt, tuple(phrases))


class CompBench(AskedMetric):
    """T2I-CompBench's BLIP-VQA, for its prompts on colour, shape and texture.

    Its spatial score (UniDet) and its CLIPScore for other relations are not here.

    Reference: T2I-CompBench (arXiv 2307.06350), section 4.1.
    """

    name = "t2i_compbench"
    title = "T2I-CompBench BLIP-VQA"

    def __init__(self, vqa: VQA | None = None, noun_phrases: NounPhrases | None = None) -> None:
        super().__init__(vqa)
        self._noun_phrases = noun_phrases

    def read(self, job: Job) -> Sequence[PhrasedPrompt]:
        """Return the prompts of --weights-from compbench=FILE and their noun phrases."""
        file = named_path(
            job, "compbench", self.name, "its prompts, such as color_val.txt of Karine-Huang/T2I-CompBench"
        )
        return read_phrased(file, self._noun_phrases)

    def score(self, picture: UInt8[Tensor, "height width channels"], item: Any, vqa: VQA) -> float:
        """Return the product over the noun phrases."""
        return phrases_score(picture, item.phrases, vqa)
